//! One cell as a directory that an upstream project can run: manifests and a script of kubectl, curl, nc, dig, ping and
//! hubble, and nothing of ours.
//!
//! Pure: a cell of a case goes in, the texts of files come out. This room must not know where files are, nor run anything.
//! What standard tools cannot show is refused, and what a person has to provide is said in the directory's README; nothing
//! is made up instead.

mod readme;
mod scene;
mod script;
mod stimulus;
mod world;

use std::collections::BTreeMap;

use thiserror::Error;
use ztc_engine::event::CellReport;
use ztc_model::manifest::Manifest;
use ztc_model::policy::Policy;
use ztc_model::suite::{Case, Cell, Component};
use ztc_model::world::{PodRef, World};

use self::scene::Scene;

/// The image of the pods where nobody names one: it has sh, socat, curl, nc, dig and ping.
pub const IMAGE: &str = "docker.io/nicolaka/netshoot:v0.13";

/// What is to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The case.
    pub case: &'a Case,
    /// Which of its cells, from 1.
    pub number: usize,
    /// The world of the case.
    pub world: &'a World,
    /// The files that the case applies, in its order: name and text.
    pub policies: &'a [(String, String)],
    /// The image of the pods.
    pub image: &'a str,
    /// The versions that it is expected of, by part.
    pub versions: &'a BTreeMap<String, String>,
    /// What a run saw of the cell, where there is one.
    pub seen: Option<Seen<'a>>,
}

/// What a run saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The name of the run.
    pub run: &'a str,
    /// Its fabric.
    pub fabric: &'a str,
    /// The cell.
    pub cell: &'a CellReport,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub text: String,
    /// Whether it is a program.
    pub executable: bool,
}

/// Why a cell cannot be shown with standard tools.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no such cell.
    #[error("{case} has {count} cells; there is no cell {number}")]
    NoCell {
        /// The case.
        case: String,
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The first packets of a pod are gone before anybody can exec into it.
    #[error(
        "{pod} is born under the policies, and kubectl comes too late to see what its first packets do; by hand: apply \
         the policies, create {pod} with a command that sends from its first instant on, and read its log"
    )]
    Newborn {
        /// The pod.
        pod: PodRef,
    },
    /// The script would have to wait until a changed label has become an identity everywhere.
    #[error(
        "the labels of {pod} change in this case; by hand: apply the policies, `kubectl label pod` it, and send once \
         `cilium-dbg endpoint list` on its node shows the new labels, some seconds later"
    )]
    Relabelled {
        /// The pod.
        pod: PodRef,
    },
    /// The script would take all traffic away from the whole cluster.
    #[error(
        "{policy} isolates every pod of the cluster, those of the system, too; by hand: apply it, and have each agent run \
         `cilium-dbg config PolicyEnforcement=always`, and `=default` afterwards"
    )]
    Mode {
        /// The policy.
        policy: String,
    },
    /// A script cannot say what was there before a restart and is no more.
    #[error(
        "{component} is restarted in this case; by hand: apply the policies, send in a loop, `kubectl rollout restart` its \
         daemon set meanwhile, and go on until it is ready again"
    )]
    Restart {
        /// What.
        component: Component,
    },
    /// No standard tool sends one line after the other from one port and tells the answers apart.
    #[error(
        "`{send}` is about one flow that goes on, and nc makes a new one each time; by hand: keep one `nc`, or `nc -u`, \
         open in the client over the apply, and type into it"
    )]
    Flow {
        /// The stimulus.
        send: String,
    },
    /// A script would have to wait until everybody knows a waypoint, or that it is gone.
    #[error(
        "waypoint {waypoint} is made by this case; by hand: apply all of it in its order, `kubectl wait \
         --for=condition=Programmed` the Gateway where it has to get ready, and send once `istioctl ztunnel-config service` \
         shows what is behind it"
    )]
    Waypoint {
        /// Which.
        waypoint: PodRef,
    },
    /// What counts is each stimulus of a stream, from before the first policy on.
    #[error(
        "`{send}` is about every stimulus of a stream while policies come; by hand: send it in a loop that notes the \
         time of each answer, and apply the policies meanwhile"
    )]
    Stream {
        /// The stimulus.
        send: String,
    },
    /// The servers of a world have certificates of an authority that nobody else has.
    #[error(
        "`{send}` is over TLS, with certificates of the run's own authority; by hand: put a server with a certificate of \
         yours in the place of its peer, and send it with curl --cacert"
    )]
    Tls {
        /// The stimulus.
        send: String,
    },
    /// It needs certificates of the mesh, and a client of tunnels.
    #[error(
        "`{send}` is a tunnel of the mesh, with a certificate of its authority; by hand: issue one with the key in the secret \
         istio-ca-secret of istio-system, and send CONNECT over HTTP/2 with it"
    )]
    Tunnel {
        /// The stimulus.
        send: String,
    },
    /// What counts is what is on the wire.
    #[error(
        "`{send}` is about what is on the wire; by hand: `tcpdump -X` in the network of the nodes while the client sends it"
    )]
    Wire {
        /// The stimulus.
        send: String,
    },
    /// A pod would have to serve DNS.
    #[error("{pod} serves DNS in this world, for which the image has no server")]
    Server {
        /// The pod.
        pod: PodRef,
    },
}

/// The files that show a cell.
///
/// # Errors
/// [`Refusal`], with what to do by hand.
pub fn files(question: &Question<'_>) -> Result<Vec<File>, Refusal> {
    let Question { case, number, .. } = question;
    let cell = number.checked_sub(1).and_then(|at| case.cells.get(at));
    let cell = cell.ok_or_else(|| Refusal::NoCell {
        case: case.id.to_string(),
        number: *number,
        count: case.cells.len(),
    })?;
    if let Some(waypoint) = case.apply.iter().find_map(Manifest::waypoint) {
        return Err(Refusal::Waypoint { waypoint: waypoint.reference() });
    }
    if cell.expected.is_stream() {
        return Err(Refusal::Stream { send: cell.send.to_string() });
    }
    if cell.wire().is_some() {
        return Err(Refusal::Wire { send: cell.send.to_string() });
    }
    if let Some(mode) = case.apply.iter().find(|it| matches!(it.policy, Policy::Mode(_))) {
        return Err(Refusal::Mode { policy: mode.reference.to_string() });
    }
    let scene = Scene::of(case, cell, question.world)?;
    let file = |name, text| File { name, text, executable: false };
    let script = script::script(question, cell, &scene);
    Ok(vec![
        file("README.md", readme::readme(question, cell, &scene)),
        file("world.yaml", world::world(&scene, question.image)),
        file("policies.yaml", policies(question.policies)),
        File { name: "repro.sh", text: script, executable: true },
    ])
}

/// What a cell says, in one line.
pub fn line(cell: &Cell) -> String {
    format!("{} sends {}: {}", cell.from, cell.send, cell.expected)
}

/// The files as they are written, one after the other.
fn policies(files: &[(String, String)]) -> String {
    let file = |(name, text): &(String, String)| format!("# {name}\n{}\n", text.trim_end());
    files.iter().map(file).collect::<Vec<_>>().join("---\n")
}
