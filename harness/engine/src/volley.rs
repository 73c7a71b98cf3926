//! Shots: the same stimulus sent again and again, each time on a fresh socket, and watched until
//! it is settled.
//!
//! A denial is settled by evidence, not by the clock: the first record that is surely about a
//! shot's own flow ends the *wait* for it. Its socket stays open until the volley ends, and a nonce
//! that comes late still wins over the record. A record that comes late, after the client's own
//! word, is still pinned to its shot.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use ztc_model::evidence::{Did, Evidence};
use ztc_model::outcome::{Reading, Seen};
use ztc_model::policy::Protocol;
use ztc_wire::{Canary, DnsTransport, Host, Leg, Observed, RunId, Stimulus, Target};

use crate::agent::{Agent, Flight, News};
use crate::board::{Board, Interest, Leads, Pair, Watch};

/// Who sends what, and where its records are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) agent: Arc<Agent>,
    pub(crate) board: Arc<Board>,
    pub(crate) stimulus: Stimulus,
    /// What its nonces begin with, where somebody looks for them on the wire.
    pub(crate) canary: Option<Canary>,
    /// What has to get through first, under the policies, and who may answer it.
    pub(crate) after: Option<(Stimulus, BTreeSet<String>)>,
    /// What gets through where this is refused whatever policies say.
    pub(crate) beside: Option<Stimulus>,
    pub(crate) deadline: Duration,
    /// Between whom it goes, where a pod serves it.
    pub(crate) pair: Option<Pair>,
    /// The addresses of who may answer it, as far as the fabric knows them.
    pub(crate) served_at: BTreeSet<IpAddr>,
}

impl Aim {
    /// Sends once and waits for what the client sees in the end.
    pub(crate) async fn once(&self) -> Seen {
        let mut flight = self.order();
        let deadline = Instant::now() + self.deadline;
        loop {
            match flight.next(deadline).await {
                News::Observed { observed, .. } => return Seen::Client(observed),
                News::Lost { reason } => return unsent(reason),
                _ => {}
            }
        }
    }

    /// What has to get through where this is to be stopped: the same, at another time, or what is beside it.
    pub(crate) fn control(&self) -> Self {
        match &self.beside {
            Some(beside) => Self { stimulus: beside.clone(), beside: None, ..self.clone() },
            None => self.clone(),
        }
    }

    fn order(&self) -> Flight {
        self.agent.run(self.stimulus.clone(), self.canary.clone(), self.deadline)
    }

    /// Sends a fresh stimulus every so often until one gets through, at most until the ceiling; the one that did,
    /// else the last that was seen to its end.
    ///
    /// None waits for the one before it: a packet that was dropped just before its policy went would otherwise
    /// be waited for until it is sent again, or for good.
    pub(crate) async fn until_through(
        &self,
        peers: &BTreeSet<String>,
        every: Duration,
        ceiling: Duration,
    ) -> Seen {
        let volley = self.fire_until((every, ceiling), |shots| {
            let seen = || shots.iter().rev().filter_map(|shot| shot.seen.as_ref());
            let done = seen().find(|seen| ends_the_wait(seen, peers));
            (done.or_else(|| seen().next()).cloned(), done.is_some())
        });
        let (volley, seen) = volley.await;
        volley.finish().await;
        seen
    }

    /// The same for whoever does not ask what became of the last one: a record that it was stopped ends the wait for it.
    pub(crate) async fn wait_for_passage(
        &self,
        peers: &BTreeSet<String>,
        every: Duration,
        ceiling: Duration,
    ) {
        let volley = self.fire_until((every, ceiling), |shots| {
            let is_through =
                |shot: &Shot| shot.seen.as_ref().is_some_and(|it| ends_the_wait(it, peers));
            let is_known = shots.iter().any(|it| it.seen.is_some())
                || shots.last().is_some_and(|it| it.state(peers) == State::StoppedOnRecord);
            (is_known.then_some(()), shots.iter().any(is_through))
        });
        let (volley, ()) = volley.await;
        volley.finish().await;
    }

    /// Sends a fresh stimulus every so often until there is what is looked for and it ends the wait, or until there is any at
    /// the ceiling.
    async fn fire_until<T>(
        &self,
        (every, ceiling): (Duration, Duration),
        look: impl Fn(&[Shot]) -> (Option<T>, bool),
    ) -> (Volley, T) {
        let end = Instant::now() + ceiling;
        let mut volley = Volley::new(self.clone());
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick(), if Instant::now() < end => volley.fire(),
                () = volley.changed() => {}
                () = sleep_until(end), if Instant::now() < end => {}
            }
            let (found, is_done) = volley.look(&look);
            if let Some(found) = found.filter(|_| is_done || Instant::now() >= end) {
                return (volley, found);
            }
        }
    }

    /// Whether records of it are joined by a pair of addresses alone, so that only one may be in
    /// flight.
    fn is_echo(&self) -> bool {
        matches!(self.stimulus, Stimulus::Ping { .. })
    }

    /// The records that are about a socket of this stimulus.
    pub(crate) fn interest(&self, leg: Leg, local: SocketAddr, remote: SocketAddr) -> Interest {
        let protocol = self.protocol(leg);
        match protocol {
            Protocol::Icmp | Protocol::Icmpv6 => {
                Interest::Echo { source: local.ip(), destination: remote.ip() }
            }
            Protocol::Tcp | Protocol::Udp => Interest::Flow { protocol, source: local },
        }
    }

    /// What was said since a moment of the socket at this address and port, which sent it.
    pub(crate) fn records_of(&self, local: SocketAddr, since: Instant) -> Vec<Arc<Evidence>> {
        // Of an echo request they need both addresses; it has no port, and is not looked for.
        let interest = self.interest(Leg::Send, local, local);
        self.board.about(interest, &self.leads(Leg::Send, None), since)
    }

    /// Where a socket of this stimulus leads, which is connected to `remote` where that is known.
    pub(crate) fn leads(&self, leg: Leg, remote: Option<SocketAddr>) -> Leads {
        let target = match (leg, &self.stimulus) {
            // Cluster DNS is a service, and the fabric does not say whose.
            (Leg::Resolve, _) | (_, Stimulus::Dns { server: None, .. }) => {
                return Leads::anywhere();
            }
            (_, Stimulus::Hbone { at, .. }) => {
                return Leads { remote: Some(*at), served_at: BTreeSet::new() };
            }
            (_, stimulus) => stimulus.target(),
        };
        match target {
            Some(Target { host: Host::Name(_), .. }) if self.served_at.is_empty() => {
                Leads::anywhere()
            }
            Some(Target { host: Host::Ip(ip), port, .. }) => Leads {
                remote: Some(SocketAddr::new(*ip, *port)),
                served_at: self.served_at.clone(),
            },
            _ => Leads { remote, served_at: self.served_at.clone() },
        }
    }

    /// Gets through with what has to come first, if there is something.
    ///
    /// # Errors
    /// What was seen instead, until the ceiling.
    pub(crate) async fn precede(&self, every: Duration, ceiling: Duration) -> Result<(), String> {
        let Some((stimulus, peers)) = &self.after else { return Ok(()) };
        let first = Self { stimulus: stimulus.clone(), canary: None, after: None, ..self.clone() };
        let seen = first.until_through(peers, every, ceiling).await;
        match Reading::of(&seen, peers) {
            Reading::Through { .. } => Ok(()),
            _ => Err(format!("what has to get through first did not: {seen}")),
        }
    }

    fn protocol(&self, leg: Leg) -> Protocol {
        match (leg, &self.stimulus) {
            (Leg::Send, Stimulus::Ping { to }) if to.is_ipv4() => Protocol::Icmp,
            (Leg::Send, Stimulus::Ping { .. }) => Protocol::Icmpv6,
            (Leg::Resolve, _)
            | (
                _,
                Stimulus::Udp { .. }
                | Stimulus::UdpFlow { .. }
                | Stimulus::Dns { transport: DnsTransport::Udp, .. },
            ) => Protocol::Udp,
            (Leg::Send, _) => Protocol::Tcp,
        }
    }
}

/// Whether waiting on would show nothing else: it got through, or the client cannot send.
fn ends_the_wait(seen: &Seen, peers: &BTreeSet<String>) -> bool {
    matches!(Reading::of(seen, peers), Reading::Through { .. } | Reading::Unsent { .. })
}

/// A run that never got to a socket, or whose agent is gone.
fn unsent(reason: String) -> Seen {
    Seen::Client(Observed::Unsent { operation: "agent".to_owned(), error: reason })
}

/// One stimulus of a volley.
#[derive(Debug, Clone)]
pub(crate) struct Shot {
    /// When it was ordered.
    pub(crate) fired: Instant,
    /// What the client saw in the end.
    pub(crate) seen: Option<Seen>,
    /// When the client saw it, on the engine's clock.
    pub(crate) seen_at: Option<Instant>,
    /// What enforcement points said of it.
    pub(crate) evidence: Vec<Arc<Evidence>>,
    /// How long after the order the first record of a denial came.
    pub(crate) settled_after: Option<Duration>,
}

/// How far a shot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known yet.
    Open,
    /// It got through.
    Through,
    /// It was stopped, and an enforcement point says so.
    StoppedOnRecord,
    /// It was stopped, and nobody says by whom.
    StoppedInSilence,
    /// It was not sent, or the answer proves nothing.
    Void,
}

/// Whether a record means that the flow was stopped from its first packet on.
fn settles(record: &Evidence) -> bool {
    record.did.is_denial() && record.opening
}

/// Whether it means so before the client has said a word. A refused query does not: the client gets
/// an answer at once, and with a search list goes on to the next name.
fn settles_unheard(record: &Evidence) -> bool {
    settles(record) && !matches!(record.did, Did::RefuseName { .. })
}

impl Shot {
    /// Whether an enforcement point says that it stopped its first packet, whatever came of it later.
    pub(crate) fn was_dropped(&self) -> bool {
        self.evidence.iter().any(|it| settles(it))
    }

    pub(crate) fn state(&self, peers: &BTreeSet<String>) -> State {
        let on_record = |says: fn(&Evidence) -> bool| self.evidence.iter().any(|it| says(it));
        match self.seen.as_ref().map(|seen| Reading::of(seen, peers)) {
            None if on_record(settles_unheard) => State::StoppedOnRecord,
            None => State::Open,
            Some(Reading::Stopped) if on_record(settles) => State::StoppedOnRecord,
            Some(Reading::Through { .. } | Reading::Astray { .. }) => State::Through,
            Some(Reading::Stopped) => State::StoppedInSilence,
            Some(Reading::Unsent { .. } | Reading::Unclear { .. }) => State::Void,
        }
    }
}

/// The shots of one cell.
#[derive(Debug)]
pub(crate) struct Volley {
    aim: Aim,
    shots: Arc<Mutex<Vec<Shot>>>,
    changed: Arc<Notify>,
    finish: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Volley {
    pub(crate) fn new(aim: Aim) -> Self {
        Self {
            aim,
            shots: Arc::default(),
            changed: Arc::default(),
            finish: watch::Sender::new(false),
            tasks: JoinSet::new(),
        }
    }

    /// Sends one more, except that an echo request waits for its turn until the last one is
    /// settled: their records could not be told apart.
    pub(crate) fn fire(&mut self) {
        let is_open = |shot: &Shot| shot.state(&BTreeSet::new()) == State::Open;
        if self.aim.is_echo() && self.look(|shots| shots.last().is_some_and(is_open)) {
            return;
        }
        let fired = Instant::now();
        let flight = self.aim.order();
        self.follow(flight, fired);
    }

    /// Takes over a run that was sent, or sent by the agent itself, no earlier than `since`.
    pub(crate) fn follow(&mut self, flight: Flight, since: Instant) {
        let index = {
            let mut shots = lock(&self.shots);
            shots.push(Shot {
                fired: Instant::now(),
                seen: None,
                seen_at: None,
                evidence: Vec::new(),
                settled_after: None,
            });
            shots.len() - 1
        };
        let tracer = Tracer {
            aim: self.aim.clone(),
            shots: Arc::clone(&self.shots),
            changed: Arc::clone(&self.changed),
            index,
            since,
        };
        self.tasks.spawn(tracer.trace(flight, self.finish.subscribe()));
    }

    /// Returns when something has changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks at the shots so far, in the order of sending.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Shot]) -> T) -> T {
        look(&lock(&self.shots))
    }

    /// Takes back what is still in flight and returns all shots.
    pub(crate) async fn finish(mut self) -> Vec<Shot> {
        self.finish.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *lock(&self.shots))
    }
}

/// An order that an agent has. Whoever drops it takes it back: nobody wants to know any more.
struct Order<'a> {
    agent: &'a Agent,
    id: RunId,
    stands: bool,
}

impl Order<'_> {
    fn take_back(&mut self) {
        if std::mem::take(&mut self.stands) {
            self.agent.cancel(self.id);
        }
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Follows one shot.
struct Tracer {
    aim: Aim,
    shots: Arc<Mutex<Vec<Shot>>>,
    changed: Arc<Notify>,
    index: usize,
    since: Instant,
}

impl Tracer {
    async fn trace(self, mut flight: Flight, mut finish: watch::Receiver<bool>) {
        let mut order = Order { agent: &self.aim.agent, id: flight.id, stands: true };
        let (sender, mut records) = mpsc::unbounded_channel();
        let mut watches: Vec<Watch> = Vec::new();
        let deadline = Instant::now() + self.aim.deadline;
        let mut over = false;
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                Some(record) = records.recv() => self.pin(record),
                news = flight.next(deadline), if !over => match news {
                    News::Started { leg, local, remote } => {
                        let interest = self.aim.interest(leg, local, remote);
                        let sought = (interest, self.aim.leads(leg, Some(remote)));
                        watches.push(self.aim.board.watch(sought, self.since, sender.clone()));
                    }
                    News::Observed { observed, at } => {
                        over = true;
                        order.stands = false;
                        self.see(Seen::Client(observed), Some(at));
                        if finishing {
                            return;
                        }
                    }
                    News::Lost { reason } => {
                        order.stands = false;
                        self.see(unsent(reason), None);
                        return;
                    }
                    // A stimulus captures nothing, and is sent once.
                    News::Capturing
                    | News::Captured(_)
                    | News::CaptureFailed(_)
                    | News::Sampled { .. } => {}
                },
                // A shot that is over waits on for its record until the volley ends.
                _ = finish.wait_for(|it| *it), if !finishing => {
                    if over {
                        return;
                    }
                    finishing = true;
                    order.take_back();
                }
            }
        }
    }

    fn pin(&self, record: Arc<Evidence>) {
        self.update(|shot| {
            if settles(&record) {
                shot.settled_after.get_or_insert_with(|| shot.fired.elapsed());
            }
            shot.evidence.push(record);
        });
    }

    fn see(&self, seen: Seen, at: Option<Instant>) {
        self.update(|shot| {
            shot.seen = Some(seen);
            shot.seen_at = at;
        });
    }

    fn update(&self, change: impl FnOnce(&mut Shot)) {
        if let Some(shot) = lock(&self.shots).get_mut(self.index) {
            change(shot);
        }
        self.changed.notify_one();
    }
}

fn lock(shots: &Mutex<Vec<Shot>>) -> MutexGuard<'_, Vec<Shot>> {
    shots.lock().unwrap_or_else(PoisonError::into_inner)
}
