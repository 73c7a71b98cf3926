//! The policies of a case: applied, waited for, removed. Whoever cleans up after a life that was dropped at
//! some await has to know what there may be, so it is noted before it is made, and kept until it is seen gone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::verdict::Doubt;

use super::{Life, all_well};
use crate::chain;
use crate::fabric::{Receipt, Settling};
use crate::wait::{Look, until};

/// What may exist and has to go, in the order in which it was made.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<Vec<Policy>>);

#[derive(Debug)]
struct Policy {
    object: ObjectRef,
    /// Its deletion, which may still be enforced somewhere.
    deleted: Option<Receipt>,
}

impl Policies {
    /// The list is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Vec<Policy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an object is about to be made; what was noted of it before is over.
    fn note(&self, object: &ObjectRef) {
        let mut policies = self.lock();
        policies.retain(|it| it.object != *object);
        policies.push(Policy { object: object.clone(), deleted: None });
    }

    fn note_deleted(&self, object: &ObjectRef, receipt: &Receipt) {
        let mut policies = self.lock();
        if let Some(policy) = policies.iter_mut().find(|it| it.object == *object) {
            policy.deleted = Some(receipt.clone());
        }
    }

    /// Those that were not deleted, the last first.
    fn standing(&self) -> Vec<ObjectRef> {
        let policies = self.lock();
        let standing = policies.iter().rev().filter(|it| it.deleted.is_none());
        standing.map(|it| it.object.clone()).collect()
    }

    /// The deletions that nobody has seen realised.
    fn deletions(&self) -> Vec<Receipt> {
        self.lock().iter().filter_map(|it| it.deleted.clone()).collect()
    }

    /// Forgets what was deleted.
    fn forget_deleted(&self) {
        self.lock().retain(|it| it.deleted.is_none());
    }
}

impl Life<'_> {
    pub(super) async fn apply(&self, manifest: &Manifest) -> Result<Receipt, Doubt> {
        // Noted before the call: an apply that fails half-way may have left the object.
        self.policies.note(&manifest.reference);
        let receipt = self.lane.cluster.apply(manifest).await;
        receipt.map_err(|error| Doubt::Fabric(chain(&error)))
    }

    pub(super) async fn delete(&self, object: &ObjectRef) -> Result<Receipt, String> {
        let receipt = self.lane.cluster.delete(object).await.map_err(|error| chain(&error))?;
        self.policies.note_deleted(object, &receipt);
        Ok(receipt)
    }

    /// Waits until everything that was accepted is realised.
    pub(super) async fn settle(&self, receipts: &[Receipt]) -> Result<(), String> {
        self.settle_within(self.pace.settle_ceiling(), receipts).await
    }

    /// The same, at most until a ceiling.
    pub(super) async fn settle_within(
        &self,
        ceiling: Duration,
        receipts: &[Receipt],
    ) -> Result<(), String> {
        until("the policies to be realised", ceiling, self.pace.poll(), || async {
            match self.lane.cluster.settled(receipts).await {
                Ok(Settling::Realised) => Ok(Look::Met(())),
                Ok(Settling::NotYet { status }) => Ok(Look::NotYet { status }),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// Removes all policies, the last first, and waits until nothing enforces any of them. One that resists does
    /// not keep the others in place.
    pub(super) async fn remove_all(&self) -> Result<(), String> {
        self.remove_all_but(&[]).await
    }

    /// The same, and leaves some.
    pub(super) async fn remove_all_but(&self, left: &[ObjectRef]) -> Result<(), String> {
        let mut errors = Vec::new();
        let standing = self.policies.standing();
        for object in standing.into_iter().filter(|it| !left.contains(it)) {
            errors.extend(self.delete(&object).await.err());
        }
        let deletions = self.policies.deletions();
        if !deletions.is_empty() {
            match self.settle(&deletions).await {
                Ok(()) => self.policies.forget_deleted(),
                Err(error) => errors.push(error),
            }
        }
        all_well(&errors)
    }
}
