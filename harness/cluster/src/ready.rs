//! A cluster that is ready for a run, however it came about.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use kube::Client;
use ztc_engine::profile::ClusterSpec;

use crate::docker::Docker;
use crate::lease::Lease;
use crate::ledger::Ledger;
use crate::objects::Pull;

/// A cluster that is ready. Whoever holds it has it alone, as far as this checkout goes.
pub struct Ready {
    pub(crate) client: Client,
    pub(crate) outside: Hosting,
    /// Its name.
    pub(crate) cluster: String,
    /// Its nodes, sorted; those of kind are containers of the same names.
    pub(crate) nodes: Vec<String>,
    /// The reference of the probe's image.
    pub(crate) image: String,
    pub(crate) pull: Pull,
    pub(crate) run: String,
    /// What it is made of, as wanted or as seen.
    pub(crate) spec: ClusterSpec,
    /// Whether a world may stay for the next run.
    pub(crate) keeps_worlds: bool,
    pub(crate) ledger: Ledger,
    /// What its certificates follow from: the same in each run, as servers outlive a run.
    pub(crate) secret: [u8; 32],
    /// Given back with it.
    pub(crate) lease: Lease,
}

/// Who puts up the hosts outside the nodes.
pub(crate) enum Hosting {
    /// We do, as containers beside the nodes.
    Containers(Docker),
    /// Somebody has, at these addresses.
    Given(BTreeMap<String, IpAddr>),
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
