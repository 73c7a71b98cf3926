//! The labels that a case changes: who its pods are to the enforcement points. Whoever cleans up after a life that
//! was dropped at some await has to know whose labels may be others, so it is noted before they are changed.

use std::sync::atomic::{AtomicBool, Ordering};

use ztc_model::suite::Relabelled;
use ztc_model::verdict::Doubt;

use super::{Life, all_well};
use crate::chain;
use crate::fabric::Receipt;

/// Whether pods may have other labels than those of the world.
#[derive(Debug, Default)]
pub(super) struct Changed(AtomicBool);

impl Life<'_> {
    /// Gives pods the labels that the case says, and waits until they are to everybody who they are then.
    pub(super) async fn relabel(&self) -> Result<Vec<Receipt>, Doubt> {
        let mut receipts = Vec::new();
        for change in &self.case.relabel {
            self.relabelled.0.store(true, Ordering::Relaxed);
            let receipt = self.lane.cluster.relabel(change).await;
            receipts.push(receipt.map_err(|error| Doubt::Fabric(chain(&error)))?);
        }
        if !receipts.is_empty() {
            self.settle(&receipts).await.map_err(Doubt::Fabric)?;
        }
        Ok(receipts)
    }

    /// Gives them back the labels of the world, and waits for that, too.
    pub(super) async fn restore_labels(&self) -> Result<(), String> {
        if !self.relabelled.0.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let (mut receipts, mut errors) = (Vec::new(), Vec::new());
        for Relabelled { pod, .. } in &self.case.relabel {
            let Some(declared) = self.lane.world.pod(pod) else { continue };
            let back = Relabelled { pod: pod.clone(), labels: declared.labels.clone() };
            match self.lane.cluster.relabel(&back).await {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => errors.push(chain(&error)),
            }
        }
        errors.extend(self.settle(&receipts).await.err());
        all_well(&errors)
    }
}
