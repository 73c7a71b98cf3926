//! The waypoints that a case makes: waited for where they have to get ready, and watched where they must not.
//!
//! Nothing can be seen of a waypoint before the policies under which it is born. What it is held against is its twin, of
//! which the case waits that it gets ready: one that is held back is watched for as long again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::outcome::Seen;
use ztc_model::stimulus::Send;
use ztc_model::suite::Cell;
use ztc_model::verdict::{Doubt, Sample};
use ztc_model::waypoint::CONTROL_PLANE_PORT;
use ztc_model::world::PodRef;
use ztc_wire::Observed;

use super::{Life, Sender};
use crate::cell::Watched;
use crate::chain;
use crate::fabric::{Cluster, Receipt, WaypointState};
use crate::interruption::Interruption;
use crate::wait::{Look, until};

/// The readiness of a waypoint that the case makes.
#[derive(Debug, Clone)]
pub(super) struct WaypointProbe {
    cluster: Arc<dyn Cluster>,
    waypoint: PodRef,
}

impl WaypointProbe {
    async fn look(&self) -> Result<WaypointState, String> {
        let state = self.cluster.waypoint(&self.waypoint).await.map_err(|error| chain(&error))?;
        state.ok_or_else(|| format!("there is no waypoint {}", self.waypoint))
    }

    async fn seen(&self) -> (Seen, Vec<IpAddr>) {
        match self.look().await {
            Ok(WaypointState { ready, message, addresses }) => {
                (Seen::Kubelet { ready, message }, addresses)
            }
            Err(error) => {
                let operation = "reading the readiness".to_owned();
                (Seen::Client(Observed::Unsent { operation, error }), Vec::new())
            }
        }
    }

    /// Waits until it is ready; what was seen last.
    async fn until_ready(&self, ceiling: Duration, poll: Duration) -> Seen {
        let _ready = until("readiness", ceiling, poll, || async {
            let WaypointState { ready, message, .. } = self.look().await?;
            let status = message.unwrap_or_default();
            Ok(if ready { Look::Met(()) } else { Look::NotYet { status } })
        })
        .await;
        self.seen().await.0
    }
}

impl Life<'_> {
    /// Who asks for the readiness of a cell's waypoint, if the case makes it.
    pub(super) fn waypoint_probe(&self, cell: &Cell) -> Option<WaypointProbe> {
        let Send::Readiness(name) = &cell.send else { return None };
        self.case.gateway(name)?;
        Some(WaypointProbe { cluster: Arc::clone(&self.lane.cluster), waypoint: name.clone() })
    }

    /// Sees a waypoint ready, as it is when nothing stands against it.
    pub(super) async fn ready_again(&self, probe: &WaypointProbe) -> Seen {
        probe.until_ready(self.pace.ready_ceiling(), self.pace.poll()).await
    }

    /// Waits for the waypoints of the case that are not held back, each until it is asked. One whose readiness is a
    /// question of the case is judged by that.
    pub(super) async fn await_waypoints(
        &self,
        applied: &[(&Manifest, Receipt)],
    ) -> Result<(), Doubt> {
        for (manifest, receipt) in applied {
            let Some(waypoint) = manifest.waypoint().filter(|it| !self.case.holds_back(it)) else {
                continue;
            };
            let settled =
                self.settle_within(self.pace.ready_ceiling(), std::slice::from_ref(receipt)).await;
            let is_asked = |cell: &Cell| matches!(&cell.send, Send::Readiness(it) if *it == waypoint.reference());
            if let Err(why) = settled
                && !self.case.cells.iter().any(is_asked)
            {
                return Err(Doubt::Fabric(why));
            }
        }
        Ok(())
    }

    /// Watches the waypoints whose readiness is asked for, after everything else is enforced: for as long as that has taken,
    /// which the twin's readiness is a part of.
    pub(super) async fn watch_waypoints(
        &mut self,
        senders: &[Sender],
        begun: Instant,
        interruption: &Interruption,
    ) -> Result<(), Doubt> {
        let life = &*self;
        let cells = life.case.cells.iter().zip(senders).enumerate();
        let probed = cells.filter_map(|(index, (cell, sender))| match sender {
            Sender::Waypoint(probe) => Some((index, cell, probe)),
            _ => None,
        });
        let watched = join_all(probed.map(|(index, cell, probe)| async move {
            let control = match &cell.twin {
                None => None,
                Some(twin) => {
                    let twin = WaypointProbe { waypoint: twin.clone(), ..probe.clone() };
                    Some(twin.seen().await.0)
                }
            };
            let denied = cell.expected.is_denied();
            (index, control, life.hold_waypoint(probe, denied, begun, interruption).await)
        }))
        .await;
        for (index, control, watched) in watched {
            let outcome = &mut self.outcomes[index];
            outcome.take(watched);
            outcome.facts.control = control;
        }
        if interruption.is_there() { Err(Doubt::Interrupted) } else { Ok(()) }
    }

    async fn hold_waypoint(
        &self,
        probe: &WaypointProbe,
        denied: bool,
        begun: Instant,
        interruption: &Interruption,
    ) -> Watched {
        let pace = &self.pace;
        let usual = pace.hold_every(pace.hold_samples);
        let again = begun.elapsed() / pace.hold_samples.max(1);
        let every = if denied { again.max(usual) } else { usual };
        let mut ticks = tokio::time::interval(every);
        let (mut samples, mut sends_from) = (Vec::new(), BTreeSet::new());
        for _ in 0..pace.hold_samples {
            tokio::select! {
                _ = ticks.tick() => {}
                () = interruption.wait() => break,
            }
            let (seen, addresses) = probe.seen().await;
            sends_from.extend(addresses);
            let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            samples.push(Sample { after_ms, seen, evidence: Vec::new() });
        }
        let evidence = self.lane.board.sent_to(&sends_from, CONTROL_PLANE_PORT, begun);
        if let Some(first) = samples.first_mut() {
            first.evidence = evidence;
        }
        Watched { samples, ..Watched::default() }
    }

    /// Whether something is a waypoint that must not get ready.
    pub(super) fn is_held_back(&self, manifest: &Manifest) -> bool {
        manifest.waypoint().is_some_and(|waypoint| self.case.holds_back(waypoint))
    }

    /// The waypoints that have to be there until it is seen that they get ready again.
    pub(super) fn held_back(&self) -> Vec<ObjectRef> {
        let held_back = self.case.apply.iter().filter(|it| self.is_held_back(it));
        held_back.map(|it| it.reference.clone()).collect()
    }
}
