//! A real ztunnel of a node, in the lab: the process of an executable that somebody gives, instead of the lab's own.
//!
//! It lives in a network namespace of its own, in which nothing is but the control plane that it asks. It is handed pods as
//! istio-cni hands them ([`pods`]), told of workloads and policies as istiod tells ([`discovery`]), and gets what pods send by
//! rules in their namespaces ([`redirection`]). What it decides is its own; what it writes about it is read as in a cluster.
//!
//! Known differences from a cluster:
//! - a pod exists as soon as the ztunnels of all nodes know of it, where istiod and istio-cni race;
//! - policies and workloads are told as soon as they change, where istiod gathers changes for a while;
//! - certificates are signed for whomever ztunnel asks for.

mod discovery;
mod messages;
mod pods;
mod redirection;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use rustix::io::Errno;
use rustix::mount::mount_bind;
use rustix::thread::UnshareFlags;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use ztc_engine::mesh_authority::MeshAuthorityError;
use ztc_model::evidence::Evidence;
use ztc_model::ztunnel;

use self::discovery::{ControlPlane, as_pem};
use self::pods::{Listener, Pods};
use super::hbone::{ProxyError, listen};
use super::journal::{Journal, each_line};
use super::netns::{NetNs, NetnsError};
use super::pump::Switch;
use super::runtime_thread::{RuntimeThread, RuntimeThreadError};
use super::tun::Tun;
use crate::mesh::{Mesh, Workload, uid};

pub(crate) use self::pods::PodsError;
pub(crate) use self::redirection::{NFT, RedirectionError};

/// Where the control plane is, in the namespace of a ztunnel.
const CONTROL_PLANE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15_012);

/// What a process asks for names, in every pod: it reads this once (`resolv.conf(5)`).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why there is no real ztunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZtunnelProcessError {
    /// Its network namespace cannot be made or entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its control plane has no thread.
    #[error(transparent)]
    Thread(#[from] RuntimeThreadError),
    /// Its control plane does not listen.
    #[error("its control plane does not listen")]
    Listen(#[source] Box<ProxyError>),
    /// Its control plane has no certificate.
    #[error(transparent)]
    Certificate(#[from] MeshAuthorityError),
    /// Its control plane cannot speak TLS.
    #[error("its control plane cannot speak TLS")]
    Tls(#[from] rustls::Error),
    /// What it reads cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It does not get its own view of files.
    #[error("cannot put a file over {RESOLV_CONF}, which has to be there")]
    Mount(#[source] Errno),
    /// It cannot be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// What.
        program: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It does not ask for its pods.
    #[error("{} does not take pods{log}", program.display())]
    Pods {
        /// What.
        program: PathBuf,
        /// Its last words.
        log: String,
        /// Why.
        source: PodsError,
    },
    /// It has ended.
    #[error("the ztunnel of {node} has ended: {status}{log}")]
    Ended {
        /// Of which node.
        node: String,
        /// How it ended.
        status: String,
        /// Its last words.
        log: String,
    },
}

/// Why a pod is not in the hands of a real ztunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// What it sends does not get there.
    #[error(transparent)]
    Redirection(#[from] RedirectionError),
    /// It is not taken.
    #[error("the ztunnel of {node} does not take it{log}")]
    Pods {
        /// Of which node.
        node: String,
        /// Its last words.
        log: String,
        /// Why.
        source: PodsError,
    },
}

/// Why a real ztunnel is not waited for.
#[derive(Debug, thiserror::Error)]
enum AcceptError {
    #[error(transparent)]
    Pods(#[from] PodsError),
    #[error("it has ended: {0}")]
    Ended(String),
}

/// What a real ztunnel is started from.
#[derive(Debug, Clone)]
pub(crate) struct ZtunnelProcessPlan {
    /// The executable.
    pub(crate) program: PathBuf,
    /// The node, as whose log its lines are.
    pub(crate) node: String,
    /// What it is told of.
    pub(crate) mesh: Arc<Mesh>,
    /// A directory of its own for what it reads, that exists.
    pub(crate) directory: PathBuf,
    /// What it is to ask for names, in the words of `resolv.conf(5)`.
    pub(crate) resolv_conf: String,
}

/// The real ztunnel of a node at work. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct ZtunnelProcess {
    node: String,
    pods: Pods,
    /// How many pods it was handed.
    enrolments: AtomicU64,
    journal: Arc<Journal>,
    known: watch::Receiver<u64>,
    refused: watch::Receiver<Option<String>>,
    ended: watch::Receiver<Option<String>>,
    /// Its tasks hold the process.
    _thread: RuntimeThread,
    _netns: NetNs,
    /// Nothing is plugged into it.
    _device: Tun,
}

/// A pod in the hands of a real ztunnel. Dropped, it is no longer.
#[derive(Debug)]
pub(crate) struct Enrolled {
    process: Arc<ZtunnelProcess>,
    /// What its ztunnel knows it by.
    uid: String,
    left: Once,
}

impl ZtunnelProcess {
    /// Starts it, without pods. Blocks until it asks for them.
    pub(crate) fn start(
        plan: ZtunnelProcessPlan,
        switch: &Arc<Switch>,
    ) -> Result<Self, ZtunnelProcessError> {
        let ZtunnelProcessPlan { program, node, mesh, directory, resolv_conf } = plan;
        let (netns, device) = NetNs::create(&[])?;
        let thread = RuntimeThread::start(&format!("istiod of {node}"), Some(&netns))?;
        let tls = serves_tls(&mesh)?;
        let authority = as_pem(mesh.trust().authority().certificate());
        let (acknowledges, known) = watch::channel(0);
        let (complaint, refused) = watch::channel(None);
        let control_plane = Arc::new(ControlPlane {
            mesh,
            known: acknowledges,
            refused: complaint,
            switch: Arc::clone(switch),
            node: node.clone(),
        });
        let listener = listen(thread.handle(), &netns, CONTROL_PLANE)
            .map_err(|error| ZtunnelProcessError::Listen(Box::new(error)))?;
        thread.handle().spawn(control_plane.serve(listener, tls));

        let files = Files { directory };
        write(&files.authority(), &authority)?;
        write(&files.resolv_conf(), &resolv_conf)?;
        let journal = Arc::new(Journal::default());
        let without = |source| ZtunnelProcessError::Pods {
            program: program.clone(),
            log: journal.to_string(),
            source,
        };
        let pods = Listener::bind(&files.pods()).map_err(without)?;
        let child = files.spawn(&program, &netns, thread.handle())?;
        let (ends, ended) = watch::channel(None);
        let keeper = Keeper {
            node: node.clone(),
            switch: Arc::clone(switch),
            journal: Arc::clone(&journal),
        };
        thread.handle().spawn(keeper.keep(child, ends));
        let lives = || match &*ended.borrow() {
            None => Ok(()),
            Some(status) => Err(AcceptError::Ended(status.clone())),
        };
        let pods = pods.accept(lives).map_err(|error| match error {
            AcceptError::Pods(source) => without(source),
            AcceptError::Ended(status) => {
                let log = journal.to_string();
                ZtunnelProcessError::Ended { node: node.clone(), status, log }
            }
        })?;
        Ok(Self {
            node,
            pods,
            enrolments: AtomicU64::new(0),
            journal,
            known,
            refused,
            ended,
            _thread: thread,
            _netns: netns,
            _device: device,
        })
    }

    /// Takes a pod with its network: what that sends and gets, and names if they are captured. Blocks until it listens there.
    pub(crate) fn enrol(
        self: &Arc<Self>,
        workload: &Workload,
        netns: &NetNs,
        captures_names: bool,
    ) -> Result<Enrolled, EnrolError> {
        // Of a pod that is born again under its name the old one may be on its way out.
        let number = self.enrolments.fetch_add(1, Ordering::Relaxed);
        let process = Arc::clone(self);
        let enrolled =
            Enrolled { process, uid: format!("{}/{number}", uid(workload)), left: Once::new() };
        let failed = |source| EnrolError::Pods {
            node: self.node.clone(),
            log: self.journal.to_string(),
            source,
        };
        self.pods.add(&enrolled.uid, workload, netns.as_fd()).map_err(failed)?;
        redirection::redirect(netns, captures_names)?;
        Ok(enrolled)
    }

    /// Waits until it knows what there was to tell by then; forever, if it ends.
    pub(crate) async fn knows(&self, generation: u64) {
        let mut known = self.known.clone();
        if known.wait_for(|it| *it >= generation).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it knows what there was to tell by then.
    pub(crate) fn knows_now(&self, generation: u64) -> bool {
        *self.known.borrow() >= generation
    }

    /// The node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// What it refuses to know.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.borrow().clone()
    }

    /// Whether it runs.
    pub(crate) fn check(&self) -> Result<(), ZtunnelProcessError> {
        match &*self.ended.borrow() {
            None => Ok(()),
            Some(status) => Err(ZtunnelProcessError::Ended {
                node: self.node.clone(),
                status: status.clone(),
                log: self.journal.to_string(),
            }),
        }
    }
}

impl Enrolled {
    /// Takes the pod back, if that was not done before. Blocks.
    pub(crate) fn leave(&self) {
        // One that has ended has no pods.
        self.left.call_once(|| drop(self.process.pods.delete(&self.uid)));
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.leave();
    }
}

fn serves_tls(mesh: &Mesh) -> Result<TlsAcceptor, ZtunnelProcessError> {
    let own = mesh.trust().authority().issue_to_server(CONTROL_PLANE.ip())?;
    let chain = vec![CertificateDer::from(own.certificate.0)];
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(own.key.0).into())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a ztunnel reads.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn authority(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }

    fn resolv_conf(&self) -> PathBuf {
        self.directory.join("resolv.conf")
    }

    /// A socket.
    fn pods(&self) -> PathBuf {
        self.directory.join("pods.sock")
    }

    /// Starts it where nothing of the environment reaches it that is not said here (`src/config.rs` of istio/ztunnel).
    fn spawn(
        &self,
        program: &Path,
        netns: &NetNs,
        runtime: &Handle,
    ) -> Result<Child, ZtunnelProcessError> {
        let mut command = Command::new(program);
        let control_plane = format!("https://{CONTROL_PLANE}");
        command
            .args(["proxy", "ztunnel"])
            .env_clear()
            .env("XDS_ADDRESS", &control_plane)
            .env("CA_ADDRESS", &control_plane)
            .env("XDS_ROOT_CA", self.authority())
            .env("CA_ROOT_CA", self.authority())
            .env("INPOD_UDS", self.pods())
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "warn,access=info")
            .env("ZTUNNEL_WORKER_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let resolv_conf = self.resolv_conf();
        netns.run(|| {
            own_files(&resolv_conf)?;
            let _context = runtime.enter();
            command.spawn().map_err(|source| ZtunnelProcessError::Spawn {
                program: program.to_owned(),
                source,
            })
        })?
    }
}

fn write(path: &Path, text: &str) -> Result<(), ZtunnelProcessError> {
    fs::write(path, text)
        .map_err(|source| ZtunnelProcessError::Write { path: path.to_owned(), source })
}

/// Gives the calling thread, and whom it starts, another `resolv.conf`.
#[expect(unsafe_code, reason = "unshare(2) has no safe form")]
fn own_files(resolv_conf: &Path) -> Result<(), ZtunnelProcessError> {
    // SAFETY: the danger is in CLONE_FILES, which is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .and_then(|()| mount_bind(resolv_conf, RESOLV_CONF))
        .map_err(ZtunnelProcessError::Mount)
}

/// Reads what a ztunnel says, until it ends.
struct Keeper {
    node: String,
    switch: Arc<Switch>,
    journal: Arc<Journal>,
}

impl Keeper {
    async fn keep(self, mut child: Child, ends: watch::Sender<Option<String>>) {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let lines = async {
            if let Some(stdout) = stdout {
                each_line(stdout, |line| self.hear(line)).await;
            }
        };
        let words = async {
            if let Some(stderr) = stderr {
                each_line(stderr, |line| self.journal.write(line)).await;
            }
        };
        tokio::join!(lines, words);
        let status = child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |it| it.to_string());
        self.switch.interrupt(format!("the ztunnel of {} has ended: {status}", self.node));
        ends.send_replace(Some(status));
    }

    fn hear(&self, line: &str) {
        match ztunnel::read(line) {
            Ok(Some(line)) => self.switch.say(Evidence::from_ztunnel(&Arc::new(line), &self.node)),
            // It is about no connection.
            Ok(None) => self.journal.write(line),
            Err(error) => {
                self.journal.write(line);
                let node = &self.node;
                self.switch
                    .interrupt(format!("cannot read a line of the ztunnel of {node}: {error}"));
            }
        }
    }
}
