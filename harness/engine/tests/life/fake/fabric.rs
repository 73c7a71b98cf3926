//! A fabric that makes clusters in memory.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ztc_engine::fabric::{Cluster, Fabric, FabricError, Lane};
use ztc_model::world::World;

use super::cluster::FakeCluster;
use super::script::Script;

/// How long a cluster is waited for that does not come up.
pub(crate) const CEILING: Duration = Duration::from_mins(1);

/// Makes a cluster a script, in order; the last script is repeated.
#[derive(Debug)]
pub(crate) struct FakeFabric {
    scripts: Vec<Script>,
    asked: AtomicUsize,
    clusters: Mutex<Vec<Arc<FakeCluster>>>,
}

impl FakeFabric {
    pub(crate) fn new(scripts: Vec<Script>) -> Self {
        Self { scripts, asked: AtomicUsize::new(0), clusters: Mutex::default() }
    }

    /// The clusters that were made.
    pub(crate) fn clusters(&self) -> Vec<Arc<FakeCluster>> {
        self.clusters.lock().expect("nothing panics while it is held").clone()
    }

    /// How often it was asked for a cluster.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Fabric for FakeFabric {
    #[expect(clippy::disallowed_methods, reason = "the wait of a fabric is what is played here")]
    async fn up(&self, world: Arc<World>, lane: Lane) -> Result<Arc<dyn Cluster>, FabricError> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let script = self.scripts[asked.min(self.scripts.len() - 1)].clone();
        if let Some(why) = script.stillborn {
            tokio::time::sleep(CEILING).await;
            let source = io::Error::other(why).into();
            return Err(FabricError::Up { lane, leftovers: Vec::new(), source });
        }
        let mut clusters = self.clusters.lock().expect("nothing panics while it is held");
        let cluster = Arc::new(FakeCluster::new(script, world));
        clusters.push(Arc::clone(&cluster));
        Ok(cluster)
    }
}
