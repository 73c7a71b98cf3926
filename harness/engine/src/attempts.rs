//! Attempts to bring worlds up, over all lanes of a run.
//!
//! A world that does not come up is waited for until a ceiling, which takes minutes on a real cluster. What has failed
//! twice, and stands in no lane, is not waited for by every further case.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// After so many failures, with no success between them, a world is given up.
const ENOUGH: u32 = 2;

/// How each world of a run has fared so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    worlds: Mutex<BTreeMap<String, Fared>>,
}

#[derive(Debug, Default)]
struct Fared {
    /// In how many lanes it stands.
    stands: usize,
    /// How often it failed since it last came up.
    failures: u32,
    /// Why it failed the last time.
    why: String,
}

impl Attempts {
    /// Why there is no point in another attempt, where there is none: it failed too often, and stands nowhere.
    pub(crate) fn given_up(&self, world: &str) -> Option<String> {
        self.with(world, |it| {
            (it.stands == 0 && it.failures >= ENOUGH).then(|| {
                let (failures, why) = (it.failures, &it.why);
                format!("world `{world}` is given up: it failed to come up {failures} times, last: {why}")
            })
        })
    }

    /// It came up in a lane.
    pub(crate) fn up(&self, world: &str) {
        self.with(world, |it| {
            it.stands += 1;
            it.failures = 0;
        });
    }

    /// A lane in which it stood is taken down.
    pub(crate) fn down(&self, world: &str) {
        self.with(world, |it| it.stands = it.stands.saturating_sub(1));
    }

    /// It did not come up.
    pub(crate) fn failed(&self, world: &str, why: &str) {
        self.with(world, |it| {
            it.failures += 1;
            why.clone_into(&mut it.why);
        });
    }

    fn with<T>(&self, world: &str, look: impl FnOnce(&mut Fared) -> T) -> T {
        let mut worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        look(worlds.entry(world.to_owned()).or_default())
    }
}
