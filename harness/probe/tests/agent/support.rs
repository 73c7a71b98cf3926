//! An agent on loopback, in this process, and sessions with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ztc_probe::AgentError;
use ztc_wire::{
    AgentConfig, Certified, Der, Event, FirstRun, FromAgent, Host, Leg, LineSplitter, Observed,
    PROTOCOL, RunId, Service, Stimulus, Target, Tls, ToAgent, decode, encode,
};

/// An authority that may issue whatever a test needs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Der,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = Der(params.self_signed(&key).unwrap().der().to_vec());
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate that says this, with a key of its own.
    pub(crate) fn issue(&self, says: &CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = Der(says.signed_by(&key, &self.issuer).unwrap().der().to_vec());
        Certified { certificate, key: Der(key.serialize_der()) }
    }
}

pub(crate) const NAME: &str = "zt-shop/web";

/// Longer than anything here takes on a loaded machine.
pub(crate) const CEILING: Duration = Duration::from_secs(10);

pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    task: JoinHandle<Result<(), AgentError>>,
    _directory: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) fn start(serve: Vec<Service>) -> Self {
        Self::start_with(serve, vec![], "")
    }

    pub(crate) fn start_with(serve: Vec<Service>, first: Vec<FirstRun>, resolv_conf: &str) -> Self {
        Self::start_as(serve, first, resolv_conf, None)
    }

    pub(crate) fn start_over_tls(serve: Vec<Service>, tls: Tls, resolv_conf: &str) -> Self {
        Self::start_as(serve, vec![], resolv_conf, Some(tls))
    }

    fn start_as(
        serve: Vec<Service>,
        first: Vec<FirstRun>,
        resolv_conf: &str,
        tls: Option<Tls>,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("run/agent.sock");
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, resolv_conf).unwrap();
        let config = AgentConfig {
            name: NAME.into(),
            socket: socket.clone(),
            resolv_conf: path,
            serve,
            tls,
            first,
        };
        Self { socket, task: tokio::spawn(ztc_probe::run(config)), _directory: directory }
    }

    /// Opens a session without a word; waits until the agent listens.
    pub(crate) async fn connect(&mut self) -> Session {
        let connected = async {
            loop {
                if let Ok(stream) = UnixStream::connect(&self.socket).await {
                    return stream;
                }
                assert!(!self.task.is_finished(), "{:?}", (&mut self.task).await);
                tokio::task::yield_now().await;
            }
        };
        let stream = timeout(CEILING, connected).await.expect("the agent listens");
        Session { stream, splitter: LineSplitter::default(), last: 0 }
    }

    /// Why it does not start, in one line.
    pub(crate) async fn error(mut self) -> String {
        let ended = timeout(CEILING, &mut self.task).await.expect("the agent ends");
        let error = ended.unwrap().expect_err("the agent does not start");
        format!("{error}: {}", std::error::Error::source(&error).unwrap())
    }

    /// Opens a session and attaches.
    pub(crate) async fn attach(&mut self, after: u64) -> Session {
        let mut session = self.connect().await;
        session.send(&ToAgent::Attach { protocol: PROTOCOL, after }).await;
        let hello = session.next().await;
        assert!(matches!(hello, Some(FromAgent::Hello { .. })), "{hello:?}");
        session.last = after;
        session
    }

    /// Sends one stimulus in a session of its own.
    pub(crate) async fn observe(&mut self, stimulus: Stimulus) -> Run {
        self.attach(0).await.observe(1, stimulus).await
    }
}

pub(crate) struct Session {
    stream: UnixStream,
    splitter: LineSplitter,
    /// The last number received.
    pub(crate) last: u64,
}

/// What was said about one run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) started: Vec<(Leg, SocketAddr, SocketAddr)>,
    pub(crate) observed: Observed,
}

impl Session {
    pub(crate) async fn send(&mut self, message: &ToAgent) {
        self.send_bytes(&encode(message)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None` when the agent closed. Entries must come without gaps.
    pub(crate) async fn next(&mut self) -> Option<FromAgent> {
        timeout(CEILING, self.read()).await.expect("the agent says something")
    }

    async fn read(&mut self) -> Option<FromAgent> {
        loop {
            if let Some(line) = self.splitter.next_line().unwrap() {
                let message = decode(&line).unwrap();
                if let FromAgent::Said { seq, .. } = &message {
                    assert_eq!(*seq, self.last + 1, "no gaps, nothing twice");
                    self.last = *seq;
                }
                return Some(message);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.splitter.push(&piece[..length]),
            }
        }
    }

    pub(crate) async fn event(&mut self) -> Event {
        match self.next().await {
            Some(FromAgent::Said { event, .. }) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Why the agent ends this session.
    pub(crate) async fn rejection(&mut self) -> String {
        let reason = match self.next().await {
            Some(FromAgent::Rejected { reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(self.next().await, None, "closed after the rejection");
        reason
    }

    pub(crate) async fn run(&mut self, id: u64, deadline_ms: u64, stimulus: Stimulus) {
        self.send(&ToAgent::Run { id: RunId(id), deadline_ms, stimulus, canary: None }).await;
    }

    /// Everything said about one run, up to its observation; what is said about others is dropped.
    pub(crate) async fn ended(&mut self, run: u64) -> Run {
        let mut started = Vec::new();
        loop {
            match self.event().await {
                Event::Started { id, leg, local, remote } if id == RunId(run) => {
                    started.push((leg, local, remote));
                }
                Event::Observed { id, observed } if id == RunId(run) => {
                    return Run { started, observed };
                }
                _ => {}
            }
        }
    }

    /// What was observed next, of whichever run.
    pub(crate) async fn next_observed(&mut self) -> Observed {
        loop {
            if let Event::Observed { observed, .. } = self.event().await {
                return observed;
            }
        }
    }

    pub(crate) async fn observe(&mut self, id: u64, stimulus: Stimulus) -> Run {
        self.run(id, 5_000, stimulus).await;
        self.ended(id).await
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn target(address: SocketAddr) -> Target {
    Target { host: Host::Ip(address.ip()), port: address.port(), family: None }
}

/// Ports that nobody has, for TCP and UDP, all different: from below the range of the agents' own
/// ports and of the kernel's, so that no socket of another test comes in between.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| {
        let address = (Ipv4Addr::UNSPECIFIED, *port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    // Tests may run in one process each.
    let start = std::process::id().wrapping_mul(17);
    let candidates = std::iter::repeat_with(|| {
        let offset = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 7_000;
        2_000 + u16::try_from(offset).unwrap()
    });
    let mut free = candidates.filter(is_free);
    std::array::from_fn(|_| free.next().unwrap())
}
