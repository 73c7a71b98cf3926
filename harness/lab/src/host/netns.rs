//! Network namespaces, each kept alive by a descriptor.
//!
//! A namespace belongs to a thread, so everything is done on threads made for it: no thread of the
//! caller ever changes its own. A namespace vanishes, with its devices, with the last of: its
//! descriptor, its processes, its sockets.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::netlink::{self, NetlinkError};
use super::tun::{self, Tun};

/// The groups that may send echo requests without a capability (icmp(7)). In a cluster the container
/// runtime opens it to all groups; agents of the lab have this one, and without root no other is known
/// to the kernel.
const ECHO_GROUPS: &str = "0 0";

/// Where they are set.
const ECHO_GROUPS_FILE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Why a network namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// No thread for it.
    #[error("cannot start a thread for a network namespace")]
    Thread {
        /// The operating system's reason.
        source: io::Error,
    },
    /// It could not be made.
    #[error("cannot make a network namespace")]
    Unshare {
        /// The operating system's reason.
        source: Errno,
    },
    /// It was made and could not be opened.
    #[error("cannot open a network namespace")]
    Open {
        /// The operating system's reason.
        source: io::Error,
    },
    /// Its TUN device could not be made.
    #[error("cannot make a TUN device")]
    Device {
        /// The operating system's reason.
        source: Errno,
    },
    /// Its network could not be configured.
    #[error("cannot configure the network of a namespace")]
    Configure {
        /// Which step failed.
        source: NetlinkError,
    },
    /// A setting of the kernel could not be made in it.
    #[error("cannot write {file} in a network namespace")]
    Sysctl {
        /// Which.
        file: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It could not be entered.
    #[error("cannot enter a network namespace")]
    Enter {
        /// The operating system's reason.
        source: Errno,
    },
}

/// A network namespace.
#[derive(Debug, Clone)]
pub(crate) struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// A new one: its loopback is up, and a TUN device with these addresses leads everywhere.
    #[expect(unsafe_code, reason = "unshare(2) has no safe form")]
    pub(crate) fn create(addresses: &[IpAddr]) -> Result<(Self, Tun), NetnsError> {
        on_a_thread(|| {
            // SAFETY: the danger is in CLONE_FILES, which is not among the flags.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|source| NetnsError::Unshare { source })?;
            let file = File::open("/proc/thread-self/ns/net")
                .map_err(|source| NetnsError::Open { source })?;
            let device = Tun::create().map_err(|source| NetnsError::Device { source })?;
            netlink::configure(tun::NAME, addresses)
                .map_err(|source| NetnsError::Configure { source })?;
            write(ECHO_GROUPS_FILE, ECHO_GROUPS)?;
            Ok((Self(Arc::new(file.into())), device))
        })?
    }

    /// Writes a setting of the kernel, under `/proc/sys/net`, for this namespace.
    pub(crate) fn set(&self, file: &'static str, value: &'static str) -> Result<(), NetnsError> {
        self.run(|| write(file, value))?
    }

    /// Moves the calling thread into it, for good.
    pub(crate) fn enter(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|source| NetnsError::Enter { source })
    }

    /// Does `work` on a thread of its own inside, and waits for it. Processes that `work` starts
    /// and sockets that it makes stay inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_a_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes a setting for the namespace of the calling thread.
fn write(file: &'static str, value: &str) -> Result<(), NetnsError> {
    fs::write(file, value).map_err(|source| NetnsError::Sysctl { file, source })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| NetnsError::Thread { source })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
