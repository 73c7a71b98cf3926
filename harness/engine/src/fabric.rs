//! What a run happens on. The engine talks to the lab, to kind clusters and to attached clusters
//! through these two traits and through nothing else.
//!
//! The methods are written so that a real cluster can implement them: `apply` is a server-side
//! apply that returns when the API has accepted, `settled` is one look at what enforcement points
//! realised, a session is a byte stream that can break at any byte, and a stream of evidence can
//! have gaps and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use ztc_model::condition::Condition;
use ztc_model::evidence::Evidence;
use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::suite::{CaseId, Component, Relabelled};
use ztc_model::world::{NodeSlot, PodRef, World};
use ztc_wire::FirstRun;

use crate::mesh_authority::MeshAuthority;

/// Makes clusters, one a lane.
#[async_trait]
pub trait Fabric: fmt::Debug + Send + Sync {
    /// Brings up one lane with this world in it, all its pods ready.
    ///
    /// # Errors
    /// [`FabricError::Up`], with what was left behind.
    async fn up(&self, world: Arc<World>, lane: Lane) -> Result<Arc<dyn Cluster>, FabricError>;
}

/// The number of a lane, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub usize);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}", self.0)
    }
}

/// One copy of a world on a fabric.
#[async_trait]
pub trait Cluster: fmt::Debug + Send + Sync {
    /// Says for which case requests are made from now on; none between cases. It is for fabrics whose
    /// requests others can see, as in an audit log.
    fn on_behalf_of(&self, _case: Option<&CaseId>) {}

    /// Where everything of the world is.
    async fn addresses(&self) -> Result<AddressBook, FabricError>;

    /// What the enforcement points say of every endpoint, as `cilium endpoint list` does.
    async fn endpoints(&self) -> Result<Vec<Endpoint>, FabricError>;

    /// What kubelet says of one pod now; nothing where there is no such pod.
    async fn readiness(&self, pod: &PodRef) -> Result<Option<Readiness>, FabricError>;

    /// What kubelet says of the one pod of a waypoint that a case has made, and where it is; nothing where there is no
    /// such pod.
    async fn waypoint(&self, _waypoint: &PodRef) -> Result<Option<WaypointState>, FabricError> {
        Ok(None)
    }

    /// The conditions in the status of an object, all of them; none where nobody has written any, and nothing where there
    /// is no such object.
    async fn conditions(&self, object: &ObjectRef) -> Result<Option<Vec<Condition>>, FabricError>;

    /// Applies one object as it is; returns when the API has accepted it.
    async fn apply(&self, manifest: &Manifest) -> Result<Receipt, FabricError>;

    /// Deletes one object; one that does not exist is no error.
    async fn delete(&self, object: &ObjectRef) -> Result<Receipt, FabricError>;

    /// Gives a pod of the world these labels, instead of those that it has, besides the fabric's own; returns when
    /// the API has accepted it.
    async fn relabel(&self, change: &Relabelled) -> Result<Receipt, FabricError>;

    /// Restarts what enforces policies, everywhere at once; returns when that is ordered. Whatever it does not see or say
    /// meanwhile is a gap in the evidence, which is over once the receipt is settled.
    async fn restart(&self, component: Component) -> Result<Receipt, FabricError>;

    /// One look: has every enforcement point realised what all of these receipts are for?
    async fn settled(&self, receipts: &[Receipt]) -> Result<Settling, FabricError>;

    /// Opens a session with the agent in a pod. The agent outlives the session.
    async fn session(&self, pod: &PodRef) -> Result<Session, FabricError>;

    /// Makes a pod that the world declares as born in a case; its agent sends `first` from its
    /// first instant on. Returns when the agent has been started, not when the pod is ready.
    async fn create_pod(&self, pod: &PodRef, first: Vec<FirstRun>) -> Result<(), FabricError>;

    /// Deletes such a pod; one that does not exist is no error.
    async fn delete_pod(&self, pod: &PodRef) -> Result<(), FabricError>;

    /// Where what the pods of the world send and receive can be captured at their edges: an agent a node, made if
    /// there is none yet. Sessions with them are opened as with those of pods.
    async fn capture_points(&self) -> Result<BTreeMap<NodeSlot, PodRef>, FabricError> {
        Err(FabricError::Capture { source: "this fabric does not capture".into() })
    }

    /// The authority of the mesh, whose certificates its proxies believe.
    async fn mesh_authority(&self) -> Result<Arc<MeshAuthority>, FabricError> {
        Err(FabricError::MeshAuthority { source: "this fabric has none".into() })
    }

    /// Asks the enforcement points with their own tools, as a person would who looks why these pods'
    /// flows went wrong. A tool that fails says so in its output.
    async fn inspect(&self, _pods: &[PodRef]) -> Vec<Inspection> {
        Vec::new()
    }

    /// Everything that enforcement points say from now on.
    fn evidence(&self) -> broadcast::Receiver<Witness>;

    /// Forgets what it has learnt from the traffic of cases: names, and the tunnels that proxies keep open. Whether it can;
    /// one that cannot has to be made anew for somebody whom that must not meet.
    async fn forget(&self) -> bool {
        false
    }

    /// What of the world is gone for good, in words: the next case needs the world made anew. Known
    /// without asking anybody.
    fn broken(&self) -> Option<String> {
        None
    }

    /// Takes the lane down, with everything in it: it must not be used again.
    async fn down(&self) -> Result<(), FabricError>;

    /// Ends the run's use of a lane that is sound. A fabric that outlives the run may keep what the
    /// next one can use.
    async fn release(&self) -> Result<(), FabricError> {
        self.down().await
    }
}

/// Where everything of a world is.
#[derive(Debug, Clone, Default)]
pub struct AddressBook {
    /// The pods that exist, by the first of their addresses (`status.podIP`).
    pub pods: BTreeMap<PodRef, IpAddr>,
    /// The outside hosts.
    pub outside: BTreeMap<String, IpAddr>,
    /// Their second addresses, of the other family, where the cluster has both.
    pub second_of_pods: BTreeMap<PodRef, IpAddr>,
    /// Those of the outside hosts.
    pub second_of_outside: BTreeMap<String, IpAddr>,
    /// The addresses that kubelet's readiness probes come from, by pod.
    pub kubelet: BTreeMap<PodRef, IpAddr>,
}

/// What the enforcement points say of one endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodRef,
    /// The node that it is on.
    pub node: String,
    /// Its numeric security identity; absent while it has none.
    pub identity: Option<u32>,
    /// The policy revision that its datapath enforces.
    pub realised: u64,
    /// Whether verdicts are only logged (policy audit mode): nothing can be concluded then.
    pub audit: bool,
    /// What kubelet says of it.
    pub readiness: Readiness,
}

/// What kubelet says of a pod.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// The `Ready` condition.
    pub ready: bool,
    /// How many probes have been concluded in the life of the pod, where the fabric can tell.
    pub probes: Option<u64>,
    /// Kubelet's words for the last failed probe.
    pub message: Option<String>,
}

/// What kubelet says of a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaypointState {
    /// The `Ready` condition of its pod.
    pub ready: bool,
    /// Why it is not ready, in kubelet's words.
    pub message: Option<String>,
    /// The addresses of its pod, as far as it has some.
    pub addresses: Vec<IpAddr>,
}

/// A command of an enforcement point's own tools, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// Where it was run: a node, or the API server.
    pub place: String,
    /// What was run.
    pub command: String,
    /// What it printed.
    pub output: String,
}

/// The API's acceptance of a change.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// When the API accepted.
    pub accepted: Instant,
    /// What has to be realised.
    pub change: Change,
}

/// What a change is known by where it is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// By node, the policy revision that contains it.
    Revisions(BTreeMap<String, u64>),
    /// The object with this `metadata.uid` is there.
    Added {
        /// The object.
        object: ObjectRef,
        /// The uid. A name would also be that of an object that was deleted just before.
        uid: String,
    },
    /// The object is there, and has to be found invalid: nothing of it is ever enforced.
    Invalid {
        /// The object.
        object: ObjectRef,
    },
    /// The object with this `metadata.uid` is gone.
    Removed {
        /// The object.
        object: ObjectRef,
        /// The uid.
        uid: String,
    },
    /// The pod is who its labels say, to everybody.
    Labels {
        /// The pod.
        pod: PodRef,
        /// Labels that it has.
        has: BTreeMap<String, String>,
        /// Keys of labels that it has no longer.
        lacks: BTreeSet<String>,
    },
    /// What was restarted is back, enforces what there is, and is heard again.
    Restarted {
        /// What.
        component: Component,
        /// The `metadata.uid` of those that ran before; empty where the fabric needs none.
        before: BTreeSet<String>,
    },
    /// Nothing has changed.
    Nothing,
}

/// One look at whether a change is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settling {
    /// Every enforcement point has realised it.
    Realised,
    /// Some have not.
    NotYet {
        /// Which, in words: it ends up in the error when the ceiling is reached.
        status: String,
    },
}

/// A byte stream to an agent.
#[expect(missing_debug_implementations, reason = "the halves are opaque streams")]
pub struct Session {
    /// What the agent says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What the engine says.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// One item of the evidence stream.
#[derive(Debug, Clone)]
pub enum Witness {
    /// An enforcement point spoke.
    Spoke(Arc<Evidence>),
    /// The stream was interrupted: records of that time may be missing.
    Gap {
        /// What happened.
        reason: String,
    },
}

/// The reason of a failed operation, whatever the fabric's own type for it is.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a fabric could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// A lane did not come up.
    #[error("cannot bring up {lane}{}", leftovers_clause(leftovers))]
    Up {
        /// Which.
        lane: Lane,
        /// What exists still.
        leftovers: Vec<String>,
        /// Why.
        source: Cause,
    },
    /// The addresses could not be read.
    #[error("cannot read the addresses of the world")]
    Addresses {
        /// Why.
        source: Cause,
    },
    /// The readiness of a pod could not be read.
    #[error("cannot read the readiness of {pod}")]
    Readiness {
        /// Whose.
        pod: PodRef,
        /// Why.
        source: Cause,
    },
    /// The status of an object could not be read.
    #[error("cannot read the status of {object}")]
    Status {
        /// Whose.
        object: ObjectRef,
        /// Why.
        source: Cause,
    },
    /// The endpoints could not be read.
    #[error("cannot read the state of the endpoints")]
    Endpoints {
        /// Why.
        source: Cause,
    },
    /// An object was not accepted.
    #[error("cannot apply {object}")]
    Apply {
        /// Which.
        object: ObjectRef,
        /// Why.
        source: Cause,
    },
    /// An object could not be deleted.
    #[error("cannot delete {object}")]
    Delete {
        /// Which.
        object: ObjectRef,
        /// Why.
        source: Cause,
    },
    /// A pod did not get other labels.
    #[error("cannot change the labels of {pod}")]
    Relabel {
        /// Whose.
        pod: PodRef,
        /// Why.
        source: Cause,
    },
    /// Something was not restarted.
    #[error("cannot restart {component}")]
    Restart {
        /// What.
        component: Component,
        /// Why.
        source: Cause,
    },
    /// The enforcement points could not be asked.
    #[error("cannot see whether policies are realised")]
    Settled {
        /// Why.
        source: Cause,
    },
    /// A session could not be opened.
    #[error("cannot open a session with the agent in {pod}")]
    Session {
        /// Whose.
        pod: PodRef,
        /// Why.
        source: Cause,
    },
    /// What pods send cannot be captured.
    #[error("cannot capture what pods send and receive")]
    Capture {
        /// Why.
        source: Cause,
    },
    /// The authority of the mesh cannot be had.
    #[error("cannot have the authority of the mesh")]
    MeshAuthority {
        /// Why.
        source: Cause,
    },
    /// A pod could not be made.
    #[error("cannot create pod {pod}")]
    CreatePod {
        /// Which.
        pod: PodRef,
        /// Why.
        source: Cause,
    },
    /// A pod could not be deleted.
    #[error("cannot delete pod {pod}")]
    DeletePod {
        /// Which.
        pod: PodRef,
        /// Why.
        source: Cause,
    },
    /// A lane could not be taken down.
    #[error("cannot take down the lane{}", leftovers_clause(leftovers))]
    Down {
        /// What exists still.
        leftovers: Vec<String>,
        /// Why.
        source: Cause,
    },
}

fn leftovers_clause(leftovers: &[String]) -> String {
    if leftovers.is_empty() {
        String::new()
    } else {
        format!(", left behind: {}", leftovers.join(", "))
    }
}
