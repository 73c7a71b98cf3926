//! Readiness probes, as a node's kubelet sends them: HTTP GET from the node's network namespace.
//!
//! Kubelet's rules are those of `pkg/probe/http/http.go` in kubernetes/kubernetes; only its pace
//! is the lab's.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use ztc_engine::fabric::Readiness;

/// `periodSeconds` of a pod, made short.
const PERIOD: Duration = Duration::from_millis(50);

/// The pace before the first success: the agent starts within milliseconds.
const PERIOD_AT_START: Duration = Duration::from_millis(5);

/// `timeoutSeconds` of a pod, made short. `failureThreshold` is 1.
const TIMEOUT: Duration = Duration::from_millis(200);

/// How much of a response is read for its status line, in bytes.
const HEAD: usize = 256;

/// The probing of one pod. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Prober {
    state: watch::Receiver<Readiness>,
    task: AbortHandle,
}

impl Prober {
    /// Probes `target` from `source` for ever. `node` is the runtime whose sockets are the node's.
    pub(crate) fn start(node: &Handle, source: IpAddr, target: SocketAddr) -> Self {
        let unknown = Readiness { ready: false, probes: Some(0), message: None };
        let (says, state) = watch::channel(unknown);
        let task = node.spawn(probe_for_ever(source, target, says)).abort_handle();
        Self { state, task }
    }

    /// Returns when the last probe has passed.
    pub(crate) async fn passes(&self) {
        // It fails only when the probing has ended, which this very object prevents.
        drop(self.state.clone().wait_for(|state| state.ready).await);
    }

    /// What kubelet says of the pod now.
    pub(crate) fn readiness(&self) -> Readiness {
        self.state.borrow().clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn probe_for_ever(source: IpAddr, target: SocketAddr, says: watch::Sender<Readiness>) {
    let mut period = pace(PERIOD_AT_START);
    loop {
        period.tick().await;
        let failure = probe(source, target).await.err();
        if failure.is_none() && period.period() != PERIOD {
            period = pace(PERIOD);
            period.reset();
        }
        says.send_modify(|state| {
            state.ready = failure.is_none();
            state.probes = state.probes.map(|probes| probes + 1);
            // The last failure stays readable after the pod has recovered, as in its events.
            if let Some(failure) = failure {
                state.message = Some(format!("Readiness probe failed: {failure}"));
            }
        });
    }
}

fn pace(period: Duration) -> Interval {
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// One probe; a failure in kubelet's words.
async fn probe(source: IpAddr, target: SocketAddr) -> Result<(), String> {
    let answer = tokio::time::timeout(TIMEOUT, get(source, target)).await;
    match answer {
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Err(format!("Get \"http://{target}/\": {error}")),
        Err(_elapsed) => Err(format!("Get \"http://{target}/\": context deadline exceeded")),
    }
}

/// The status code of a GET of `/`.
async fn get(source: IpAddr, target: SocketAddr) -> io::Result<u16> {
    let mut stream = connect(source, target).await?;
    let mut request = String::new();
    write!(
        request,
        "GET / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .map_err(io::Error::other)?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(HEAD);
    while !head.contains(&b'\n') && head.len() < HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    status_code(&head).ok_or_else(|| io::Error::other("malformed HTTP response"))
}

async fn connect(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(target).await
}

/// The code of a status line (RFC 9112 §4).
fn status_code(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_with_and_without_its_reason() {
        assert_eq!(status_code(b"HTTP/1.1 200 OK\r\nserver: x\r\n"), Some(200));
        assert_eq!(status_code(b"HTTP/1.1 503\r\n"), Some(503));
        assert_eq!(status_code(b"HTTP/1.0 403 Forbidden"), Some(403));
    }

    #[test]
    fn an_answer_that_is_no_http_has_no_status() {
        assert_eq!(status_code(b"ztc1 nonce peer\n"), None);
        assert_eq!(status_code(b"\xff\xfe"), None);
    }
}
