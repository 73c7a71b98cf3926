//! What becomes of flows as policies go: each denying one alone, which is the proof, and then all of them, which is the
//! recovery.

use futures_util::future::join_all;
use ztc_model::manifest::Manifest;
use ztc_model::outcome::Expected;
use ztc_model::suite::Cell;
use ztc_model::verdict::{Doubt, passes};

use super::{Life, Sender};
use crate::event::Phase;
use crate::fabric::Receipt;
use crate::interruption::Interruption;

impl<'a> Life<'a> {
    pub(super) async fn conclude(&mut self, senders: &[Sender]) -> Result<(), Doubt> {
        (self.enter)(Phase::Proof);
        self.proofs(senders).await?;
        self.recover(senders).await
    }

    /// Removes what is left, and sees that the lane is as it was before.
    async fn recover(&mut self, senders: &[Sender]) -> Result<(), Doubt> {
        (self.enter)(Phase::Recovery);
        // Those that were held back are seen ready once more, and go with the clean-up.
        self.remove_all_but(&self.held_back()).await.map_err(Doubt::NoRecovery)?;
        self.recovery(senders).await;
        Ok(())
    }

    /// The same after a broken assertion, which stays broken whatever comes of it: it is about whether the lane is as it was
    /// before, and the clean-up tells of what cannot be removed.
    pub(super) async fn recover_broken(&mut self, senders: &[Sender], interruption: &Interruption) {
        interruption.or(self.recover(senders)).await.ok();
    }

    /// Removes each denying policy, alone or with those that are behind it, and sees its flows pass.
    async fn proofs(&mut self, senders: &[Sender]) -> Result<(), Doubt> {
        let denying = self.denying();
        for (position, removed) in denying.iter().enumerate() {
            let mut gone = Vec::new();
            for manifest in removed.iter().rev() {
                gone.push(self.delete(&manifest.reference).await.map_err(Doubt::NoProof)?);
            }
            let cells = self.case.cells.iter().zip(&self.outcomes).enumerate();
            let cells: Vec<usize> = cells
                .filter(|(_, (cell, outcome))| !outcome.is_hopeless(cell))
                .filter(|(_, (cell, _))| self.stand_against(cell) == *removed)
                .map(|(index, _)| index)
                .collect();
            self.prove(&cells, senders, &gone).await?;
            if position + 1 < denying.len() {
                for manifest in removed {
                    gone.push(self.apply(manifest).await?);
                }
                self.settle(&gone).await.map_err(Doubt::NoProof)?;
            }
        }
        Ok(())
    }

    /// What has to go for the flows of some cell to pass, each once, in the order of the cells.
    fn denying(&self) -> Vec<Vec<&'a Manifest>> {
        let mut all: Vec<Vec<&Manifest>> = Vec::new();
        for policies in self.case.cells.iter().map(|cell| self.stand_against(cell)) {
            if !policies.is_empty() && !all.contains(&policies) {
                all.push(policies);
            }
        }
        all
    }

    /// The policies that deny a cell, in the order in which they are applied.
    fn stand_against(&self, cell: &Cell) -> Vec<&'a Manifest> {
        let Expected::Denied { policy, behind, .. } = &cell.expected else { return Vec::new() };
        let stands = |it: &&Manifest| it.reference == *policy || behind.contains(&it.reference);
        self.case.apply.iter().filter(stands).collect()
    }

    /// Sees cells pass whose policies were deleted. One that passes has its proof, however far the removal is
    /// elsewhere: recovery waits for that. One that does not gets its whole time again once the removal is
    /// realised.
    async fn prove(
        &mut self,
        cells: &[usize],
        senders: &[Sender],
        gone: &[Receipt],
    ) -> Result<(), Doubt> {
        let left = self.pass_again(cells, senders).await;
        if left.is_empty() {
            return Ok(());
        }
        self.settle(gone).await.map_err(Doubt::NoProof)?;
        self.pass_again(&left, senders).await;
        Ok(())
    }

    /// Tries cells until they pass; those that did not.
    async fn pass_again(&mut self, cells: &[usize], senders: &[Sender]) -> Vec<usize> {
        let (life, all) = (&*self, &self.case.cells);
        let passing = cells.iter().map(|index| life.pass(&all[*index], &senders[*index]));
        let seen = join_all(passing).await;
        let mut left = Vec::new();
        for (index, seen) in cells.iter().zip(seen) {
            if seen.as_ref().is_some_and(|seen| passes(seen, &all[*index].peers).is_err()) {
                left.push(*index);
            }
            self.outcomes[*index].facts.proof = seen;
        }
        left
    }

    /// Sees every denied stimulus pass again after everything is removed.
    async fn recovery(&mut self, senders: &[Sender]) {
        let cells = self.case.cells.iter().zip(senders).zip(&self.outcomes);
        let seen = join_all(cells.map(|((cell, sender), outcome)| async {
            let worth_it = cell.expected.is_denied() && !outcome.is_hopeless(cell);
            if worth_it { self.pass(cell, sender).await } else { None }
        }))
        .await;
        for (outcome, seen) in self.outcomes.iter_mut().zip(seen) {
            outcome.facts.recovery = seen;
        }
    }
}
