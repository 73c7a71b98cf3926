//! A fabric that makes clusters in memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ztc_engine::fabric::{Cluster, Fabric, FabricError, Lane};
use ztc_model::world::World;

use super::cluster::FakeCluster;
use super::script::Script;

/// Makes a cluster a script, in order; the last script is repeated.
#[derive(Debug)]
pub(crate) struct FakeFabric {
    scripts: Vec<Script>,
    clusters: Mutex<Vec<Arc<FakeCluster>>>,
}

impl FakeFabric {
    pub(crate) fn new(scripts: Vec<Script>) -> Self {
        Self { scripts, clusters: Mutex::default() }
    }

    /// The clusters that were made.
    pub(crate) fn clusters(&self) -> Vec<Arc<FakeCluster>> {
        self.clusters.lock().expect("nothing panics while it is held").clone()
    }
}

#[async_trait]
impl Fabric for FakeFabric {
    async fn up(&self, world: Arc<World>, _lane: Lane) -> Result<Arc<dyn Cluster>, FabricError> {
        let mut clusters = self.clusters.lock().expect("nothing panics while it is held");
        let script = self.scripts[clusters.len().min(self.scripts.len() - 1)].clone();
        let cluster = Arc::new(FakeCluster::new(script, world));
        clusters.push(Arc::clone(&cluster));
        Ok(cluster)
    }
}
