//! The ztunnel of a node, in one of its pods: sockets in the pod's own network namespace.
//!
//! The switch sends to it what the pod sends and what comes to the pod in plain (`datapath/capture.rs`); tunnels come
//! by themselves. It decides nothing: where a connection leads and whether policy allows it says the mesh. The
//! manners are those of `src/proxy/` of istio/ztunnel: a client's connection is always accepted, a denied
//! one closed without a byte, a tunnel is refused with the status 401, and open connections are looked at again when a
//! policy changes.
//!
//! Known differences from a real one:
//! - a server sees its own pod as the client, where ztunnel takes the client's address;
//! - of names, an answer that there are none is not kept;
//! - a tunnel that is not acknowledged within a second is closed, and one that cannot be opened is tried again
//!   each quarter of a second, for ten seconds in all: a kernel's time-outs, made short as kubelet's are.

mod inbound;
mod names;
mod outbound;

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use ztc_model::evidence::Evidence;
use ztc_model::policy::mesh::ztunnel::{Connection, Decision};
use ztc_model::ztunnel::{self, HBONE_PORT};

use super::hbone::{Ended, Pool, ProxyError, Tls, listen};
use super::netns::NetNs;
use super::pump::Switch;
use super::runtime_thread::RuntimeThread;
use crate::datapath::{INBOUND_PORT, NAMES_PORT, OUTBOUND_PORT, PortId};
use crate::fault::Fault;
use crate::mesh::{AccessLog, End, Mesh, Workload};

/// What a ztunnel is told of its pod.
#[derive(Debug, Clone)]
pub(crate) struct ZtunnelPlan {
    /// The mesh.
    pub(crate) mesh: Arc<Mesh>,
    /// The node, as whose log its lines are.
    pub(crate) node: String,
    /// The pod.
    pub(crate) workload: Arc<Workload>,
    /// Whom it asks for the names that the pod wants; absent where the pod asks by itself.
    pub(crate) resolver: Option<IpAddr>,
}

/// A ztunnel at work in a pod. Dropped, it ends with all of its connections.
#[derive(Debug)]
pub(crate) struct Ztunnel {
    _thread: RuntimeThread,
    realised: watch::Receiver<u64>,
    proxy: Arc<Proxy>,
}

/// What its tasks share.
#[derive(Debug)]
struct Proxy {
    plan: ZtunnelPlan,
    switch: Arc<Switch>,
    pod: PortId,
    tls: Tls,
    pool: Pool,
    open: Open,
    kept: names::Kept,
}

/// The connections into the pod that are open, by a number.
#[derive(Debug, Default)]
struct Open(Mutex<(u64, HashMap<u64, Held>)>);

#[derive(Debug, Clone)]
struct Held {
    connection: Connection,
    /// Told when policy allows it no longer.
    forbidden: Arc<Notify>,
}

/// Keeps a connection among those that are open.
struct Hold<'a> {
    open: &'a Open,
    number: u64,
    forbidden: Arc<Notify>,
}

impl Ztunnel {
    /// Listens in a pod, on all of its addresses. Blocks for some milliseconds.
    pub(crate) fn start(
        plan: ZtunnelPlan,
        netns: &NetNs,
        addresses: &[IpAddr],
        switch: &Arc<Switch>,
        pod: PortId,
    ) -> Result<Self, ProxyError> {
        let thread =
            RuntimeThread::start(&format!("ztunnel {}", plan.workload.reference), Some(netns))?;
        let tls = Tls::of(&plan.mesh, &plan.workload.identity())?;
        let proxy = Arc::new(Proxy {
            plan,
            switch: Arc::clone(switch),
            pod,
            tls,
            pool: Pool::default(),
            open: Open::default(),
            kept: names::Kept::default(),
        });
        for address in addresses {
            let runtime = thread.handle();
            let listen = |port| listen(runtime, netns, SocketAddr::new(*address, port));
            runtime.spawn(Arc::clone(&proxy).accept(listen(OUTBOUND_PORT)?, Proxy::serve_outbound));
            runtime.spawn(Arc::clone(&proxy).accept(listen(INBOUND_PORT)?, Proxy::serve_plain));
            runtime.spawn(Arc::clone(&proxy).accept(listen(HBONE_PORT)?, Proxy::serve_tunnel));
            if proxy.plan.resolver.is_some() {
                let datagrams = names::bind(runtime, netns, SocketAddr::new(*address, NAMES_PORT))?;
                runtime.spawn(Arc::clone(&proxy).serve_names(datagrams));
                runtime
                    .spawn(Arc::clone(&proxy).accept(listen(NAMES_PORT)?, Proxy::serve_names_of));
            }
        }
        let (says, realised) = watch::channel(0);
        thread.handle().spawn(Arc::clone(&proxy).look_again(says));
        thread.handle().spawn(Arc::clone(&proxy).begin_anew());
        Ok(Self { _thread: thread, realised, proxy })
    }

    /// Has it open new tunnels and ask for names anew from now on, as if it had carried nothing yet.
    pub(crate) fn forget(&self) {
        self.proxy.forget();
    }

    /// The last revision of the mesh's policies that holds for new connections and for open ones.
    pub(crate) fn realised(&self) -> u64 {
        *self.realised.borrow()
    }
}

impl Proxy {
    /// Serves every connection to a socket, each on its own, until it is over or ztunnels restart.
    async fn accept<F: Future<Output = ()> + Send + 'static>(
        self: Arc<Self>,
        listener: TcpListener,
        serve: impl Fn(Arc<Self>, TcpStream, SocketAddr) -> F,
    ) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let mut restarts = self.plan.mesh.restarts();
                    let served = serve(Arc::clone(&self), stream, peer);
                    tokio::spawn(async move {
                        // Whoever ends with its process writes no line of what it carried.
                        tokio::select! {
                            () = served => {}
                            _ = restarts.changed() => {}
                        }
                    });
                }
                Err(error) => self.interrupt("accept a connection", &error),
            }
        }
    }

    /// Looks at open connections again whenever a policy has changed, and closes those that are allowed no longer
    /// (`PolicyWatcher` in `src/proxy/connection_manager.rs`).
    async fn look_again(self: Arc<Self>, says: watch::Sender<u64>) {
        let mut changes = self.plan.mesh.changes();
        loop {
            let revision = *changes.borrow_and_update();
            for held in self.open.all() {
                let judged = self.plan.mesh.judge_again(&self.plan.workload, &held.connection);
                if judged != Decision::Allowed {
                    held.forbidden.notify_one();
                }
            }
            says.send_replace(revision);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Forgets, with each restart, what a process keeps in its memory.
    async fn begin_anew(self: Arc<Self>) {
        let mut restarts = self.plan.mesh.restarts();
        while restarts.changed().await.is_ok() {
            self.forget();
        }
    }

    fn forget(&self) {
        self.pool.forget();
        self.kept.forget();
    }

    /// Writes the line of a connection that is over.
    fn log(&self, connection: &AccessLog, begun: Instant, ended: Ended) {
        let Ended { sent, received, error } = ended;
        let end = End { sent, received, after: begun.elapsed(), error };
        self.tell(connection.line(&end, Timestamp::now()));
    }

    fn tell(&self, line: Result<String, serde_json::Error>) {
        match line.and_then(|line| ztunnel::read(&line)) {
            Ok(Some(line)) => {
                if !self.plan.mesh.faults.has(Fault::LoseFlowRecords) {
                    self.switch.say(Evidence::from_ztunnel(&Arc::new(line), &self.plan.node));
                }
            }
            Ok(None) => {}
            Err(error) => self.interrupt("write its log", &error),
        }
    }

    fn interrupt(&self, operation: &str, error: &dyn Error) {
        let pod = &self.plan.workload.reference;
        self.switch.interrupt(format!("the ztunnel of {pod} cannot {operation}: {error}"));
    }
}

impl Open {
    fn hold(&self, connection: &Connection) -> Hold<'_> {
        let forbidden = Arc::new(Notify::new());
        let held = Held { connection: connection.clone(), forbidden: Arc::clone(&forbidden) };
        let mut open = self.lock();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, held);
        Hold { open: self, number, forbidden }
    }

    fn all(&self) -> Vec<Held> {
        self.lock().1.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Held>)> {
        // It is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.open.lock().1.remove(&self.number);
    }
}
