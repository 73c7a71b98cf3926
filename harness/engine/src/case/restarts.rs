//! What a case restarts once its policies are enforced. Denials hold throughout: what gets through while a component is
//! away is a leak, which the client alone is witness of. All else is judged after it is back, by records again.

use futures_util::future::try_join_all;
use tokio::time::Instant;
use ztc_model::verdict::Doubt;

use super::{Life, Sender};
use crate::chain;
use crate::fabric::{Change, Receipt};
use crate::volley::Aim;

impl Life<'_> {
    /// Sends what has to come before, restarts what the case says, and waits until it is back and enforces all that was
    /// accepted.
    pub(super) async fn restart(
        &self,
        senders: &[Sender],
        accepted: &[Receipt],
    ) -> Result<Vec<Receipt>, Doubt> {
        self.precede(senders).await.map_err(Doubt::Fabric)?;
        let from = Instant::now();
        let mut receipts = Vec::new();
        for component in &self.case.restart {
            let receipt = self.lane.cluster.restart(*component).await;
            receipts.push(receipt.map_err(|error| Doubt::Fabric(chain(&error)))?);
        }
        let ceiling = self.pace.restart_ceiling();
        // What was taken away again is not waited for.
        let gone = |it: &&Receipt| matches!(&it.change, Change::Added { object, .. } if self.case.remove.contains(object));
        let standing = accepted.iter().filter(|it| !gone(it)).cloned();
        let all: Vec<Receipt> = standing.chain(receipts.clone()).collect();
        self.settle_within(ceiling, &all).await.map_err(Doubt::Fabric)?;
        // Whoever was away could not write a record, and nobody asks for one.
        self.lane.board.forget_gaps_since(from);
        Ok(receipts)
    }

    async fn precede(&self, senders: &[Sender]) -> Result<(), String> {
        let (every, ceiling) = (self.pace.stream_every(), self.pace.pass_ceiling());
        let cells = self.case.cells.iter().zip(senders);
        let preceding = cells.filter_map(|(cell, sender)| match sender {
            Sender::Agent(aim) => Some(async move {
                let preceded = aim.precede(every, ceiling).await;
                // What is allowed has to tell by itself whether it was needed.
                if cell.expected.is_denied() { preceded } else { Ok(()) }
            }),
            Sender::Kubelet(_) | Sender::Waypoint(_) | Sender::Unborn => None,
        });
        try_join_all(preceding).await.map(drop)
    }

    /// What of an aim is still to do once the policies are enforced: what comes first came before the restart.
    pub(super) fn left_of(&self, aim: &Aim) -> Aim {
        let after = aim.after.clone().filter(|_| self.case.restart.is_empty());
        Aim { after, ..aim.clone() }
    }
}
