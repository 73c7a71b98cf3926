//! What a waypoint needs of istiod: somebody behind the switch who tells it what to do.
//!
//! It is a pod, so that Cilium's policies are about what waypoints ask of it: without a way to it none gets ready. It speaks
//! TLS as a workload of the mesh does, and answers whoever names itself with that name; what waypoints and ztunnels are told
//! comes from the mesh itself, at once. A real one streams configuration and certificates to every proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use ztc_model::policy::mesh::SpiffeId;
use ztc_model::waypoint::CONTROL_PLANE_PORT;

use super::hbone::{ProxyError, Tls, listen};
use super::netns::NetNs;
use super::pump::{Plug, Pump};
use super::runtime_thread::RuntimeThread;
use crate::datapath::Attachment;
use crate::mesh::Mesh;

/// How long whoever asks may take.
const ASKING: Duration = Duration::from_secs(5);

/// The longest name of a proxy: that of a namespace and that of an object.
const LONGEST_NAME: u64 = 512;

/// An istiod at work. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Istiod {
    address: SocketAddr,
    identity: SpiffeId,
    _thread: RuntimeThread,
    _plug: Plug,
    _netns: NetNs,
}

/// Where a proxy asks what to do.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    address: SocketAddr,
    identity: SpiffeId,
}

impl Istiod {
    /// Makes it on all of its addresses; returns when it listens. Blocks for some milliseconds.
    pub(crate) fn start(
        mesh: &Mesh,
        identity: SpiffeId,
        attachment: Attachment,
        addresses: &[IpAddr],
        pump: &Pump,
    ) -> Result<Self, ProxyError> {
        let (netns, device) = NetNs::create(addresses)?;
        let plug = pump.attach(attachment, device)?;
        let thread = RuntimeThread::start("istiod", Some(&netns))?;
        let tls = Arc::new(Tls::of(mesh, &identity)?);
        for address in addresses {
            let address = SocketAddr::new(*address, CONTROL_PLANE_PORT);
            let listener = listen(thread.handle(), &netns, address)?;
            thread.handle().spawn(accept(listener, Arc::clone(&tls)));
        }
        let address = SocketAddr::new(addresses[0], CONTROL_PLANE_PORT);
        Ok(Self { address, identity, _thread: thread, _plug: plug, _netns: netns })
    }

    /// Where proxies ask.
    pub(crate) fn control_plane(&self) -> ControlPlane {
        ControlPlane { address: self.address, identity: self.identity.clone() }
    }
}

async fn accept(listener: TcpListener, tls: Arc<Tls>) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = Arc::clone(&tls);
        // Who does not get an answer asks again.
        tokio::spawn(async move { drop(timeout(ASKING, tell(&tls, stream)).await) });
    }
}

/// Tells a proxy that it is known.
async fn tell(tls: &Tls, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(TlsAcceptor::from(tls.server()).accept(stream).await?);
    let mut name = String::new();
    (&mut stream).take(LONGEST_NAME).read_line(&mut name).await?;
    stream.write_all(name.as_bytes()).await?;
    stream.shutdown().await
}

impl ControlPlane {
    /// Asks what a proxy of that name has to do.
    ///
    /// # Errors
    /// Why nobody says.
    pub(super) async fn ask(&self, tls: &Tls, name: &str) -> io::Result<()> {
        let stream = TcpStream::connect(self.address).await?;
        let config = tls.client(&self.identity).map_err(io::Error::other)?;
        let server = ServerName::IpAddress(self.address.ip().into());
        let connected = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
        let mut stream = BufReader::new(connected);
        stream.write_all(format!("{name}\n").as_bytes()).await?;
        let mut answer = String::new();
        (&mut stream).take(LONGEST_NAME).read_line(&mut answer).await?;
        if answer.trim_end() == name {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "istiod does not know it"))
        }
    }
}
