//! The life of a case (`docs/architecture.md`): preconditions, controls, apply, settle, assert and hold, proof,
//! recovery, clean-up. No retry anywhere turns a leak into a pass.

mod aims;
mod births;
mod captures;
mod conditions;
mod enforcing;
mod labels;
mod newborns;
mod policies;
mod proofs;
mod restarts;
mod watching;
mod waypoints;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use ztc_model::capture::Wire;
use ztc_model::outcome::{Expected, Reading, Seen};
use ztc_model::stimulus::Send;
use ztc_model::suite::{Case, Cell, Origin};
use ztc_model::verdict::{Doubt, Facts, Verdict, judge, passes};
use ztc_model::world::{Born, PodRef};
use ztc_wire::Canary;

use crate::board::Interest;
pub(crate) use crate::case::conditions::Said;
use crate::case::enforcing::Enforced;
use crate::case::labels::Changed;
use crate::case::policies::Policies;
use crate::case::waypoints::WaypointProbe;
use crate::cell::{Pulse, Watched, watch_denial, watch_passage, watch_refusal, watch_stream};
use crate::chain;
use crate::change::Change;
use crate::event::{ChangeReport, Phase};
use crate::fabric::{AddressBook, Inspection};
use crate::interruption::Interruption;
use crate::lane::LiveLane;
use crate::mesh_authority::MeshAuthority;
use crate::profile::Pace;
use crate::readiness::KubeletProbe;
use crate::stage::Stage;
use crate::summary::is_as_expected;
use crate::volley::Aim;
use crate::wait::{Look, until};

/// Everything that came of one cell.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) facts: Facts,
    pub(crate) time_to_enforce: Option<Duration>,
    pub(crate) settled_after: Vec<Duration>,
    /// From the first lost stimulus of a stream until the next one that arrived was sent.
    pub(crate) lost_for: Option<Duration>,
}

/// A case in its lane.
pub(crate) struct Life<'a> {
    case: &'a Case,
    lane: &'a LiveLane,
    pace: Pace,
    enter: &'a (dyn Fn(Phase) + Sync),
    /// By cell, in the order of the case.
    pub(crate) outcomes: Vec<Outcome>,
    /// What controllers said, in the order of the conditions of the case; nothing while they were not asked.
    pub(crate) said: Vec<Said>,
    /// By cell: what its nonces begin with, where its wire is asked about.
    canaries: Vec<Option<Canary>>,
    /// Where something is sent in tunnels: who issues certificates of the mesh.
    mesh: Option<Arc<MeshAuthority>>,
    /// From the last acceptance until everything was realised.
    pub(crate) settled: Option<Duration>,
    /// What enforcement points said when they were asked, if something went wrong.
    pub(crate) inspections: Vec<Inspection>,
    /// What changes under the policies while the flows of the case are watched, if anything does.
    change: Option<&'a Change>,
    /// What came of them meanwhile; nothing while it has not begun.
    pub(crate) changed: Option<ChangeReport>,
    /// When the API had accepted the last policy.
    accepted: Option<Instant>,
    /// Whether nothing matters any more after the first broken assertion.
    pub(crate) until_broken: bool,
    policies: Policies,
    relabelled: Changed,
    created: Vec<PodRef>,
}

/// What sends a cell's stimulus.
#[derive(Debug, Clone)]
enum Sender {
    Agent(Box<Aim>),
    Kubelet(KubeletProbe),
    /// Kubelet, of a waypoint that does not exist yet.
    Waypoint(WaypointProbe),
    /// A pod that does not exist yet.
    Unborn,
}

impl<'a> Life<'a> {
    pub(crate) fn new(
        case: &'a Case,
        lane: &'a LiveLane,
        pace: &'a Pace,
        enter: &'a (dyn Fn(Phase) + Sync),
    ) -> Self {
        let outcomes = case.cells.iter().map(|_| Outcome::default()).collect();
        let sending = |cell: &&Cell| cell.expected.is_denied() || cell.expected.is_stream();
        let pace = pace.shared_by(case.cells.iter().filter(sending).map(weight).sum());
        Self {
            case,
            lane,
            pace,
            enter,
            outcomes,
            said: Vec::new(),
            canaries: captures::canaries(&case.cells),
            mesh: None,
            settled: None,
            inspections: Vec::new(),
            change: None,
            changed: None,
            accepted: None,
            until_broken: false,
            policies: Policies::default(),
            relabelled: Changed::default(),
            created: Vec::new(),
        }
    }

    /// The same with a change under its policies.
    pub(crate) fn with(self, change: Option<&'a Change>) -> Self {
        Self { change, ..self }
    }

    /// Lives the case until its policies are removed. What it cannot go on from becomes the doubt
    /// of every cell.
    pub(crate) async fn live(&mut self, interruption: &Interruption) {
        if let Err(doubt) = self.try_live(interruption).await {
            self.doubt_all(&doubt);
        }
    }

    /// Makes a doubt the doubt of every cell that has none.
    pub(crate) fn doubt_all(&mut self, doubt: &Doubt) {
        for outcome in &mut self.outcomes {
            outcome.facts.broken.get_or_insert_with(|| doubt.clone());
        }
    }

    /// An interruption drops whatever prepares or concludes, but not what was seen in between.
    async fn try_live(&mut self, interruption: &Interruption) -> Result<(), Doubt> {
        let mut senders = interruption.or(self.prepare()).await?;
        let begun = Instant::now();
        self.assert(&senders, interruption).await?;
        self.watch_waypoints(&senders, begun, interruption).await?;
        if self.is_over() {
            self.recover_broken(&senders, interruption).await;
            return Ok(());
        }
        self.look_at_conditions(interruption).await?;
        if let Some(change) = self.change {
            self.changed = Some(self.watch_change(change, &senders, interruption).await);
        }
        self.newborns(&mut senders, interruption).await?;
        if self.is_over() {
            self.recover_broken(&senders, interruption).await;
            return Ok(());
        }
        self.inspect().await;
        interruption.or(self.conclude(&senders)).await
    }

    /// Whether an assertion is broken, and nothing else matters. What is seen later never mends one.
    fn is_over(&self) -> bool {
        let cells = self.case.cells.iter().zip(&self.outcomes);
        let judged =
            |(cell, outcome): (&Cell, &Outcome)| judge(&cell.expected, &cell.peers, &outcome.facts);
        let mut verdicts = cells.map(judged).chain(self.said.iter().map(|it| it.verdict.clone()));
        self.until_broken && verdicts.any(|it| matches!(it, Verdict::Fail(_)))
    }

    /// Has enforcement points asked about the pods of cells that are not as expected, while the
    /// policies are still there.
    async fn inspect(&mut self) {
        let cells = self.case.cells.iter().zip(&self.outcomes);
        let wrong = cells.filter(|(cell, outcome)| outcome.went_wrong(cell));
        let pods: BTreeSet<PodRef> = wrong
            .filter_map(|(cell, _)| match (&cell.from, &cell.send) {
                (Origin::Pod(pod), _) | (_, Send::Readiness(pod)) => Some(pod.clone()),
                _ => None,
            })
            .collect();
        if !pods.is_empty() {
            let pods: Vec<PodRef> = pods.into_iter().collect();
            self.inspections = self.lane.cluster.inspect(&pods).await;
        }
    }

    async fn prepare(&mut self) -> Result<Vec<Sender>, Doubt> {
        (self.enter)(Phase::Preconditions);
        self.preconditions().await.map_err(Doubt::Precondition)?;
        let book = self.addresses().await?;
        self.mesh = self.mesh_authority().await?;
        let senders = self.senders(&book).await.map_err(Doubt::Precondition)?;
        (self.enter)(Phase::Controls);
        self.controls(&senders).await;
        Ok(senders)
    }

    /// What must hold before anything is concluded: pods ready, identities there, no audit mode.
    async fn preconditions(&self) -> Result<(), String> {
        let probed: Vec<&PodRef> = self.probed_pods().collect();
        let needed: Vec<&PodRef> = self.pods_needed().collect();
        until("the world", self.pace.ready_ceiling(), self.pace.poll(), || async {
            let endpoints = self.lane.cluster.endpoints().await.map_err(|error| chain(&error))?;
            if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.audit) {
                return Err(format!(
                    "{} is in policy audit mode: nothing is enforced",
                    endpoint.pod
                ));
            }
            for pod in &needed {
                let status = match endpoints.iter().find(|endpoint| endpoint.pod == **pod) {
                    None => format!("pod {pod} does not exist"),
                    Some(it) if it.identity.is_none() => format!("pod {pod} has no identity"),
                    // The readiness of a pod that is being probed is the question of the case.
                    Some(it) if !it.readiness.ready && !probed.contains(pod) => format!(
                        "pod {pod} is not Ready: {}",
                        it.readiness.message.as_deref().unwrap_or("no reason given")
                    ),
                    Some(_) => continue,
                };
                return Ok(Look::NotYet { status });
            }
            Ok(Look::Met(()))
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// The pods that the case uses and that exist before it.
    fn pods_needed(&self) -> impl Iterator<Item = &'a PodRef> {
        let world = &self.lane.world;
        let sources = self.case.cells.iter().filter_map(|cell| match &cell.from {
            Origin::Pod(pod) => Some(pod),
            Origin::Kubelet => None,
        });
        let targets = self.case.cells.iter().filter_map(|cell| match &cell.send {
            Send::Readiness(pod) => Some(pod),
            Send::Hbone(tunnel) => Some(&tunnel.through),
            send => match send.peer() {
                Some(ztc_model::stimulus::Peer::Pod(pod)) => Some(pod),
                _ => None,
            },
        });
        sources
            .chain(targets)
            .filter(|pod| world.pod(pod).is_some_and(|it| it.born == Born::WithTheWorld))
    }

    fn probed_pods(&self) -> impl Iterator<Item = &'a PodRef> {
        self.case.cells.iter().filter_map(|cell| match &cell.send {
            Send::Readiness(pod) => Some(pod),
            _ => None,
        })
    }

    async fn addresses(&self) -> Result<AddressBook, Doubt> {
        self.lane.cluster.addresses().await.map_err(|error| Doubt::Fabric(chain(&error)))
    }

    async fn senders(&self, book: &AddressBook) -> Result<Vec<Sender>, String> {
        let mut senders = Vec::new();
        for (cell, canary) in self.case.cells.iter().zip(&self.canaries) {
            senders.push(self.sender(cell, canary.as_ref(), book).await?);
        }
        Ok(senders)
    }

    async fn sender(
        &self,
        cell: &Cell,
        canary: Option<&Canary>,
        book: &AddressBook,
    ) -> Result<Sender, String> {
        match &cell.from {
            Origin::Pod(pod) if self.case.create.contains(pod) => Ok(Sender::Unborn),
            Origin::Pod(pod) => {
                let agent = self.lane.agent(pod, &self.pace).await?;
                let aim = Aim { canary: canary.cloned(), ..self.aim(cell, &agent, book)? };
                Ok(Sender::Agent(Box::new(aim)))
            }
            Origin::Kubelet => match self.waypoint_probe(cell) {
                Some(probe) => Ok(Sender::Waypoint(probe)),
                None => self.kubelet_probe(cell, book).map(Sender::Kubelet),
            },
        }
    }

    fn kubelet_probe(&self, cell: &Cell, book: &AddressBook) -> Result<KubeletProbe, String> {
        let Send::Readiness(pod) = &cell.send else {
            return Err(format!("kubelet does not send `{}`", cell.send));
        };
        let port = self.lane.world.pod(pod).and_then(|pod| pod.readiness);
        let (Some(port), Some(address), Some(source)) =
            (port, book.pods.get(pod), book.kubelet.get(pod))
        else {
            return Err(format!("the fabric does not know where {pod} is probed from"));
        };
        Ok(KubeletProbe {
            cluster: Arc::clone(&self.lane.cluster),
            board: Arc::clone(&self.lane.board),
            pod: pod.clone(),
            interest: Interest::Probe {
                source: *source,
                destination: std::net::SocketAddr::new(*address, port),
            },
        })
    }

    /// Sees every stimulus pass that is expected to be denied; those of newborns have twins.
    async fn controls(&mut self, senders: &[Sender]) {
        let seen = join_all(self.case.cells.iter().zip(senders).map(|(cell, sender)| async {
            let controlled = !matches!(sender, Sender::Waypoint(_)) && cell.expected.is_denied()
                || matches!(cell.expected, Expected::Interrupted { .. });
            if controlled { self.pass(cell, sender).await } else { None }
        }))
        .await;
        for (outcome, seen) in self.outcomes.iter_mut().zip(seen) {
            outcome.facts.control = seen;
        }
    }

    /// Sends until the stimulus passes, at most until the ceiling; the last that was seen.
    async fn pass(&self, cell: &Cell, sender: &Sender) -> Option<Seen> {
        match sender {
            Sender::Agent(aim) => {
                let ceiling = self.pace.pass_ceiling();
                let every = match &aim.beside {
                    Some(_) => self.pace.beside_every(),
                    None => self.pace.stream_every(),
                };
                Some(aim.control().until_through(&cell.peers, every, ceiling).await)
            }
            Sender::Kubelet(probe) => {
                Some(probe.until_ready(true, self.pace.pass_ceiling(), &self.pace).await)
            }
            Sender::Waypoint(probe) => Some(self.ready_again(probe).await),
            Sender::Unborn => None,
        }
    }

    /// Applies, settles, and watches every cell from before the first apply to the end of its hold.
    async fn assert(
        &mut self,
        senders: &[Sender],
        interruption: &Interruption,
    ) -> Result<(), Doubt> {
        let captures = interruption.or(self.begin_captures()).await?;
        let (stage, moments) = watch::channel(Stage::Before);
        let pulses: Vec<Pulse> = self.case.cells.iter().map(|_| Pulse::new(None)).collect();
        let cells = self.case.cells.iter().zip(senders).zip(&self.outcomes).zip(&pulses);
        let (enough, had_enough) = watch::channel(false);
        let (enough, until_enough) = (&enough, &interruption.or_once(had_enough));
        let life = &*self;
        let watching = join_all(cells.map(|(((cell, sender), outcome), pulse)| {
            let hopeless = outcome.is_hopeless(cell);
            let stage = (moments.clone(), pulse);
            async move {
                let watched = life.watch(cell, sender, hopeless, stage, until_enough).await;
                if *enough.borrow() {
                    // It was cut short, and what it had seen until then is nothing to judge it by.
                    return Watched::default();
                }
                if life.until_broken && outcome.would_break(cell, &watched) {
                    enough.send_replace(true);
                }
                watched
            }
        }));
        let (enforced, watched) =
            tokio::join!(self.enforce(stage, senders, &pulses, interruption), watching);
        for (outcome, watched) in self.outcomes.iter_mut().zip(watched) {
            outcome.take(watched);
        }
        self.end_captures(captures).await;
        let Enforced { accepted, settled } = enforced?;
        (self.accepted, self.settled) = (Some(accepted), Some(settled));
        if interruption.is_there() { Err(Doubt::Interrupted) } else { Ok(()) }
    }

    async fn watch(
        &self,
        cell: &Cell,
        sender: &Sender,
        hopeless: bool,
        (stage, pulse): (watch::Receiver<Stage>, &Pulse),
        interruption: &Interruption,
    ) -> Watched {
        let denied = cell.expected.is_denied();
        match sender {
            _ if hopeless => Watched::default(),
            // Their time comes once everything is enforced.
            Sender::Unborn | Sender::Waypoint(_) => Watched::default(),
            Sender::Kubelet(probe) => probe.watch(denied, &self.pace, stage, interruption).await,
            Sender::Agent(aim) if cell.expected.is_stream() => {
                watch_stream(cell, self.left_of(aim), &self.pace, stage, pulse, interruption).await
            }
            Sender::Agent(aim) if aim.beside.is_some() => {
                let aim = Aim::clone(aim);
                watch_refusal(cell, aim, &self.pace, stage, interruption).await
            }
            Sender::Agent(aim) if denied => {
                watch_denial(cell, self.left_of(aim), &self.pace, stage, interruption).await
            }
            Sender::Agent(aim) => {
                watch_passage(cell, self.left_of(aim), &self.pace, stage, interruption).await
            }
        }
    }

    /// Removes whatever is still there.
    ///
    /// # Errors
    /// What may be left behind: the lane must not be used again.
    pub(crate) async fn clean_up(&mut self) -> Result<(), String> {
        let mut errors: Vec<String> = self.remove_all().await.err().into_iter().collect();
        errors.extend(self.restore_labels().await.err());
        for pod in self.created.drain(..).rev() {
            let deleted = self.lane.cluster.delete_pod(&pod).await;
            errors.extend(deleted.err().map(|error| chain(&error)));
        }
        all_well(&errors)
    }

    /// Whether something was missing before anything was sent. It may be missing for good.
    pub(crate) fn could_not_begin(&self) -> bool {
        let mut doubts = self.outcomes.iter().filter_map(|it| it.facts.broken.as_ref());
        doubts.any(|doubt| matches!(doubt, Doubt::Precondition(_)))
    }

    /// Whether the lane is, as far as the flows of the case tell, as it was before. A client that
    /// cannot send tells nothing.
    pub(crate) fn recovered(&self) -> bool {
        self.case.cells.iter().zip(&self.outcomes).all(|(cell, outcome)| {
            outcome.facts.recovery.as_ref().is_none_or(|seen| {
                let reading = Reading::of(seen, &cell.peers);
                matches!(reading, Reading::Through { .. } | Reading::Unsent { .. })
            })
        })
    }
}

/// How much of what cells share one takes up by what it sends: for a tunnel there is a handshake each time, on both sides.
const fn weight(cell: &Cell) -> usize {
    match cell.send {
        Send::Hbone(_) => 10,
        _ => 1,
    }
}

fn all_well(errors: &[String]) -> Result<(), String> {
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

impl Outcome {
    /// Whether its control failed: a denial then proves nothing, and nothing is worth waiting for.
    fn is_hopeless(&self, cell: &Cell) -> bool {
        self.facts.control.as_ref().is_some_and(|seen| passes(seen, &cell.peers).is_err())
    }

    /// Whether something was seen, or is not on record, that the cell does not expect.
    fn went_wrong(&self, cell: &Cell) -> bool {
        let Facts { samples, beyond, unsettled, .. } = &self.facts;
        let denied = cell.expected.is_denied();
        let attributed = matches!(&cell.expected, Expected::Denied { by: Some(_), .. });
        let mut records = samples.iter().flat_map(|it| &it.evidence).chain(beyond);
        let mut on_record = || records.any(|it| it.did.is_denial());
        let exposed = cell.wire() == Some(Wire::Encrypted)
            && self.facts.wire.iter().any(|at| at.in_clear.is_some());
        unsettled.is_some()
            || exposed
            || !samples.iter().all(|it| is_as_expected(it, &cell.peers, denied))
            || (attributed && !samples.is_empty() && !on_record())
    }

    /// Whether the assertion of a cell is broken by what was watched of it.
    fn would_break(&self, cell: &Cell, watched: &Watched) -> bool {
        let mut outcome = Self { facts: self.facts.clone(), ..Self::default() };
        outcome.take(watched.clone());
        matches!(judge(&cell.expected, &cell.peers, &outcome.facts), Verdict::Fail(_))
    }

    fn take(&mut self, watched: Watched) {
        self.facts.meanwhile.extend(watched.meanwhile);
        self.facts.samples.extend(watched.samples);
        self.facts.beyond.extend(watched.beyond);
        self.facts.proof = self.facts.proof.take().or(watched.beside);
        self.facts.unsettled = self.facts.unsettled.take().or(watched.unsettled);
        self.time_to_enforce = self.time_to_enforce.or(watched.time_to_enforce);
        self.settled_after.extend(watched.settled_after);
        self.lost_for = self.lost_for.or(watched.lost_for);
    }
}
