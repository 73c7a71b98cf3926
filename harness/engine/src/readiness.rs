//! Cells whose stimulus is kubelet's: the pod's readiness is the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use ztc_model::evidence::Evidence;
use ztc_model::outcome::Seen;
use ztc_model::verdict::Sample;
use ztc_model::world::PodRef;
use ztc_wire::Observed;

use crate::board::{Board, Interest, Leads};
use crate::cell::Watched;
use crate::chain;
use crate::fabric::{Cluster, Readiness};
use crate::interruption::Interruption;
use crate::profile::Pace;
use crate::stage::{Moments, Stage, realised};
use crate::wait::{Look, until};

/// Kubelet's probe of one pod.
#[derive(Debug, Clone)]
pub(crate) struct KubeletProbe {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) board: Arc<Board>,
    pub(crate) pod: PodRef,
    /// Where its records are looked for.
    pub(crate) interest: Interest,
}

impl KubeletProbe {
    async fn look(&self) -> Result<Readiness, String> {
        let readiness = self.cluster.readiness(&self.pod).await.map_err(|error| chain(&error))?;
        readiness.ok_or_else(|| format!("pod {} is gone", self.pod))
    }

    /// Waits until kubelet says what is wanted; what it said last.
    pub(crate) async fn until_ready(&self, wanted: bool, ceiling: Duration, pace: &Pace) -> Seen {
        let met = until("readiness", ceiling, pace.poll(), || async {
            let readiness = self.look().await?;
            Ok(if readiness.ready == wanted {
                Look::Met(())
            } else {
                Look::NotYet { status: readiness.message.unwrap_or_default() }
            })
        })
        .await;
        match (met, self.look().await) {
            (_, Ok(readiness)) => seen(readiness),
            (_, Err(reason)) => unknown(reason),
        }
    }

    /// Waits until the pod's readiness is what the policies make it, then holds it.
    pub(crate) async fn watch(
        &self,
        denied: bool,
        pace: &Pace,
        mut stage: watch::Receiver<Stage>,
        interruption: &Interruption,
    ) -> Watched {
        let Some(Moments { accepted, .. }) = realised(&mut stage).await else {
            return Watched::default();
        };
        let (sender, mut records) = mpsc::unbounded_channel();
        let _watching = self.board.watch((self.interest, Leads::anywhere()), accepted, sender);
        let begun = self.look().await.ok().and_then(|it| it.probes).unwrap_or_default();
        let ceiling = if denied { pace.settle_ceiling() } else { pace.pass_ceiling() };
        // A probe that was on its way when the policies took hold says nothing about them: two
        // have to be concluded after it.
        let fresh = until("fresh probes", ceiling, pace.poll(), || async {
            if interruption.is_there() {
                return Err("the run was interrupted".to_owned());
            }
            let readiness = self.look().await?;
            let concluded = readiness.probes.is_none_or(|probes| probes >= begun + 2);
            Ok(if concluded && readiness.ready != denied {
                Look::Met(())
            } else {
                Look::NotYet { status: seen(readiness).to_string() }
            })
        })
        .await;
        if interruption.is_there() {
            return Watched::default();
        }
        let time_to_enforce = denied.then(|| accepted.elapsed());
        let mut samples = self.hold(pace, accepted, interruption).await;
        let evidence: Vec<Arc<Evidence>> = std::iter::from_fn(|| records.try_recv().ok()).collect();
        if let Some(first) = samples.first_mut() {
            first.evidence = evidence;
        }
        Watched {
            unsettled: fresh.err().filter(|_| denied).map(|error| error.to_string()),
            time_to_enforce,
            // Kubelet does not say when it sent a probe.
            settled_after: Vec::new(),
            samples,
            ..Watched::default()
        }
    }

    async fn hold(
        &self,
        pace: &Pace,
        accepted: Instant,
        interruption: &Interruption,
    ) -> Vec<Sample> {
        let mut ticks = tokio::time::interval(pace.hold_every(pace.hold_samples));
        let mut samples = Vec::new();
        for _ in 0..pace.hold_samples {
            tokio::select! {
                _ = ticks.tick() => {}
                () = interruption.wait() => break,
            }
            let seen = match self.look().await {
                Ok(readiness) => seen(readiness),
                Err(reason) => unknown(reason),
            };
            let after_ms = u64::try_from(accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
            samples.push(Sample { after_ms, seen, evidence: Vec::new() });
        }
        samples
    }
}

fn seen(readiness: Readiness) -> Seen {
    Seen::Kubelet { ready: readiness.ready, message: readiness.message }
}

/// Not knowing is not the same as not Ready.
fn unknown(reason: String) -> Seen {
    Seen::Client(Observed::Unsent { operation: "reading the readiness".to_owned(), error: reason })
}
