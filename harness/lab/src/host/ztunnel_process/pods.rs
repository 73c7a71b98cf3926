//! How a real ztunnel is handed pods: their network namespaces, over its own socket protocol.
//!
//! The protocol is that of `proto/zds.proto` and `src/inpod/` of istio/ztunnel: ztunnel connects to a socket of whole messages,
//! says hello, and answers every message with an acknowledgement. Here, what is istio-cni in a cluster waits for each.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, recv, sendmsg, socket_with,
};

use super::messages::{
    Ack, AddWorkload, DeleteWorkload, Payload, SnapshotSent, WorkloadInfo, WorkloadRequest,
    WorkloadResponse,
};
use crate::mesh::Workload;

/// How long a ztunnel may take for one message.
const ANSWER: Duration = Duration::from_secs(10);

/// How often it is looked whether a ztunnel that is waited for still lives.
const LOOK: Duration = Duration::from_millis(50);

/// The longest message that is read: an acknowledgement with its reason.
const LONGEST: usize = 4096;

/// Why a ztunnel does not take a pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodsError {
    /// There is no socket.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It does not connect.
    #[error("it does not ask for its pods within {ANSWER:?}")]
    Silent(#[source] io::Error),
    /// It cannot be told.
    #[error("cannot tell it of a pod")]
    Tell(#[source] io::Error),
    /// It does not answer.
    #[error("it does not answer within {ANSWER:?}")]
    Answer(#[source] io::Error),
    /// It has ended, or somebody else has: it is asked nothing any more.
    #[error("it does not listen any more")]
    Gone,
    /// What it answers is no message.
    #[error("cannot read what it answers")]
    Read(#[source] prost::DecodeError),
    /// It refuses.
    #[error("it refuses: {0}")]
    Refused(String),
}

/// Waits for a ztunnel to ask.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// A ztunnel that takes pods. It is forgotten with the first thing that goes wrong: a late answer would be taken for one to what
/// comes next.
#[derive(Debug)]
pub(super) struct Pods(Mutex<Option<OwnedFd>>);

impl Listener {
    /// Listens at a path.
    pub(super) fn bind(path: &Path) -> Result<Self, PodsError> {
        let listening = || {
            let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
            let socket = socket_with(kind.0, kind.1, kind.2, None)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            listen(&socket, 1)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
            Ok::<_, Errno>(socket)
        };
        let failed =
            |source: Errno| PodsError::Listen { path: path.to_owned(), source: source.into() };
        Ok(Self(listening().map_err(failed)?))
    }

    /// Waits until ztunnel connects, as long as `lives` says that it may, and tells it that it has no pods yet. Blocks.
    pub(super) fn accept<E: From<PodsError>>(
        self,
        lives: impl Fn() -> Result<(), E>,
    ) -> Result<Pods, E> {
        let begun = Instant::now();
        let socket = loop {
            lives()?;
            match accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => break socket,
                Err(Errno::AGAIN | Errno::INTR) if begun.elapsed() < ANSWER => {}
                Err(source) => return Err(PodsError::Silent(source.into()).into()),
            }
        };
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))
            .map_err(|source| PodsError::Silent(source.into()))?;
        // What it says first is which version of the protocol it speaks, and there is one.
        hear(&socket)?;
        let pods = Pods(Mutex::new(Some(socket)));
        pods.tell(Payload::SnapshotSent(SnapshotSent {}), None)?;
        Ok(pods)
    }
}

impl Pods {
    /// Hands it a pod under a name of its own; returns when it listens there. Blocks.
    pub(super) fn add(
        &self,
        uid: &str,
        workload: &Workload,
        netns: BorrowedFd<'_>,
    ) -> Result<(), PodsError> {
        let info = WorkloadInfo {
            name: workload.reference.name.clone(),
            namespace: workload.reference.namespace.clone(),
            service_account: workload.service_account.clone(),
        };
        let add = AddWorkload { uid: uid.to_owned(), workload_info: Some(info) };
        self.tell(Payload::Add(add), Some(netns))
    }

    /// Takes the pod of that name from it; returns when it knows, and lets go of it. Blocks.
    pub(super) fn delete(&self, uid: &str) -> Result<(), PodsError> {
        self.tell(Payload::Delete(DeleteWorkload { uid: uid.to_owned() }), None)
    }

    fn tell(&self, payload: Payload, netns: Option<BorrowedFd<'_>>) -> Result<(), PodsError> {
        let message = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
        // One at a time: an answer does not say to what.
        let mut connected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = connected.take().ok_or(PodsError::Gone)?;
        send(&socket, &message, netns).map_err(|it| PodsError::Tell(it.into()))?;
        let answer = hear(&socket)?;
        let answer = WorkloadResponse::decode(answer.as_slice()).map_err(PodsError::Read)?;
        let Ack { error } = answer.ack.ok_or(PodsError::Gone)?;
        *connected = Some(socket);
        if error.is_empty() { Ok(()) } else { Err(PodsError::Refused(error)) }
    }
}

/// One message.
fn hear(socket: &OwnedFd) -> Result<Vec<u8>, PodsError> {
    let mut message = vec![0; LONGEST];
    loop {
        match recv(socket, &mut message, RecvFlags::empty()) {
            Ok((0, _)) => return Err(PodsError::Gone),
            Ok((length, _)) => {
                message.truncate(length);
                return Ok(message);
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(PodsError::Answer(source.into())),
        }
    }
}

fn send(
    socket: &OwnedFd,
    message: &[u8],
    netns: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<usize> {
    let rights: Vec<BorrowedFd<'_>> = netns.into_iter().collect();
    let mut space = [std::mem::MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(&rights));
        assert!(fits, "there is room for one descriptor");
    }
    // Whoever has gone is an error, and no signal.
    sendmsg(socket, &[io::IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;
    use std::thread;

    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, connect, recvmsg, send as send_plain,
    };

    use super::*;

    const UID: &str = "zt-bank/teller/7";

    const LIVES: fn() -> Result<(), PodsError> = || Ok(());

    /// Takes messages as ztunnel does, and gives these answers; returns what came, and how many descriptors with each.
    fn ztunnel(path: &Path, answers: &[&str]) -> Vec<(Payload, usize)> {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let socket = socket_with(kind.0, kind.1, kind.2, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        send_plain(&socket, &[8, 1], SendFlags::empty()).unwrap();
        let take = |error: &&str| {
            let mut message = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut pieces = [io::IoSliceMut::new(&mut message)];
            let received =
                recvmsg(&socket, &mut pieces, &mut ancillary, RecvFlags::empty()).unwrap();
            let rights = ancillary.drain().map(|it| match it {
                RecvAncillaryMessage::ScmRights(rights) => rights.count(),
                _ => 0,
            });
            let rights = rights.sum();
            let request = WorkloadRequest::decode(message.get(..received.bytes).unwrap()).unwrap();
            let ack = Some(Ack { error: (*error).to_owned() });
            let answer = WorkloadResponse { ack }.encode_to_vec();
            send_plain(&socket, &answer, SendFlags::empty()).unwrap();
            (request.payload.unwrap(), rights)
        };
        answers.iter().map(take).collect()
    }

    fn teller() -> Workload {
        Workload {
            reference: "zt-bank/teller".parse().unwrap(),
            service_account: "clerks".to_owned(),
            labels: std::collections::BTreeMap::new(),
            enrolled: true,
            waypoint: None,
        }
    }

    #[test]
    fn a_pod_is_handed_over_with_its_network_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.sock");
        let listener = Listener::bind(&path).unwrap();
        let came = thread::scope(|scope| {
            let ztunnel = scope.spawn(|| ztunnel(&path, &["", "", ""]));
            let pods = listener.accept(LIVES).unwrap();
            let netns = File::open("/dev/null").unwrap();
            pods.add(UID, &teller(), netns.as_fd()).unwrap();
            pods.delete(UID).unwrap();
            ztunnel.join().unwrap()
        });
        let info = WorkloadInfo {
            name: "teller".to_owned(),
            namespace: "zt-bank".to_owned(),
            service_account: "clerks".to_owned(),
        };
        let uid = UID.to_owned();
        let added = AddWorkload { uid: uid.clone(), workload_info: Some(info) };
        let expected = [
            (Payload::SnapshotSent(SnapshotSent {}), 0),
            (Payload::Add(added), 1),
            (Payload::Delete(DeleteWorkload { uid }), 0),
        ];
        assert_eq!(came, expected);
    }

    #[test]
    fn what_ztunnel_refuses_is_an_error_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.sock");
        let listener = Listener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| ztunnel(&path, &["", "no such namespace"]));
            let pods = listener.accept(LIVES).unwrap();
            let netns = File::open("/dev/null").unwrap();
            let error = pods.add(UID, &teller(), netns.as_fd()).unwrap_err();
            assert_eq!(error.to_string(), "it refuses: no such namespace");
        });
    }

    #[test]
    fn one_that_has_gone_took_nothing_and_is_asked_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.sock");
        let listener = Listener::bind(&path).unwrap();
        thread::scope(|scope| {
            let ztunnel = scope.spawn(|| ztunnel(&path, &[""]));
            let pods = listener.accept(LIVES).unwrap();
            ztunnel.join().unwrap();
            let netns = File::open("/dev/null").unwrap();
            assert!(pods.add(UID, &teller(), netns.as_fd()).is_err());
            assert!(matches!(pods.delete(UID), Err(PodsError::Gone)));
        });
    }

    #[test]
    fn one_that_has_ended_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&folder.path().join("pods.sock")).unwrap();
        let ended = || Err(PodsError::Refused("ended".to_owned()));
        let error = listener.accept(ended).unwrap_err();
        assert!(matches!(error, PodsError::Refused(_)), "{error}");
    }
}
