//! The policies of a case applied, waited for, and changed again as the case says, while its cells are watched.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use ztc_model::manifest::Manifest;
use ztc_model::verdict::Doubt;

use super::{Life, Sender};
use crate::cell::Pulse;
use crate::event::Phase;
use crate::fabric::Receipt;
use crate::interruption::Interruption;
use crate::stage::Stage;

/// The policies of a case are enforced.
pub(super) struct Enforced {
    /// When the API had accepted the last of them.
    pub(super) accepted: Instant,
    /// How long it took from then on.
    pub(super) settled: Duration,
}

impl Life<'_> {
    /// Applies everything in the order of the case and waits until it is realised.
    /// The stage ends with it: whoever waits on for it knows that nothing comes any more.
    pub(super) async fn enforce(
        &self,
        stage: watch::Sender<Stage>,
        senders: &[Sender],
        pulses: &[Pulse],
        interruption: &Interruption,
    ) -> Result<Enforced, Doubt> {
        interruption.or(self.try_enforce(&stage, senders, pulses)).await
    }

    async fn try_enforce(
        &self,
        stage: &watch::Sender<Stage>,
        senders: &[Sender],
        pulses: &[Pulse],
    ) -> Result<Enforced, Doubt> {
        (self.enter)(Phase::Apply);
        let mut applied = Vec::new();
        self.streams_beat(pulses).await;
        for manifest in &self.case.apply {
            let one = (manifest, self.apply(manifest).await?);
            if self.case.watches_a_stream() {
                self.await_applied(std::slice::from_ref(&one)).await?;
                self.streams_beat(pulses).await;
            }
            applied.push(one);
        }
        (self.enter)(Phase::Settle);
        self.await_applied(&applied).await?;
        let awaited = applied.into_iter().filter(|(manifest, _)| !self.is_held_back(manifest));
        let mut receipts: Vec<Receipt> = awaited.map(|(_, receipt)| receipt).collect();
        let mut since = Instant::now();
        receipts.extend(self.take_away().await?);
        if !self.case.relabel.is_empty() {
            receipts.extend(self.relabel().await?);
            // Until then nothing had to be denied.
            since = Instant::now();
        }
        if !self.case.restart.is_empty() {
            receipts.extend(self.restart(senders, &receipts).await?);
        }
        let last = receipts.last();
        let accepted = last.map_or_else(Instant::now, |it| it.accepted.into());
        stage.send_replace(Stage::Realised { accepted, at: Instant::now(), since });
        (self.enter)(Phase::Assert);
        Ok(Enforced { accepted, settled: accepted.elapsed() })
    }

    /// Waits until policies are realised, and then for waypoints, which take longer.
    async fn await_applied(&self, applied: &[(&Manifest, Receipt)]) -> Result<(), Doubt> {
        let policies = applied.iter().filter(|(manifest, _)| manifest.waypoint().is_none());
        let policies: Vec<Receipt> = policies.map(|(_, receipt)| receipt.clone()).collect();
        self.settle(&policies).await.map_err(Doubt::Fabric)?;
        self.await_waypoints(applied).await
    }

    /// Removes what the case takes away once everything is enforced, and waits until that is realised.
    async fn take_away(&self) -> Result<Vec<Receipt>, Doubt> {
        let mut gone = Vec::new();
        for object in &self.case.remove {
            gone.push(self.delete(object).await.map_err(Doubt::Fabric)?);
        }
        if !gone.is_empty() {
            self.settle(&gone).await.map_err(Doubt::Fabric)?;
        }
        Ok(gone)
    }

    /// Waits until each stream has seen what became of a stimulus that was sent after this moment: without that
    /// nobody could say that it was watched between two policies. A stream that says nothing is judged by what
    /// it has, so the wait ends without it.
    async fn streams_beat(&self, pulses: &[Pulse]) {
        let now = Instant::now();
        let cells = self.case.cells.iter().zip(&self.outcomes).zip(pulses);
        let streams = cells
            .filter(|((cell, outcome), _)| cell.expected.is_stream() && !outcome.is_hopeless(cell));
        let beats = join_all(streams.map(|(_, pulse)| {
            let mut pulse = pulse.subscribe();
            async move { pulse.wait_for(|last| last.is_some_and(|it| it > now)).await.is_ok() }
        }));
        let ceiling = self.pace.stream_every() + self.pace.probe_deadline() * 2;
        let _all = tokio::time::timeout(ceiling, beats).await;
    }
}
