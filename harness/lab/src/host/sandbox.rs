//! The lab's own world: it executes itself again as the first process of new pid, mount and
//! network namespaces.
//!
//! Everything that the lab makes lives in there: agents, pods' network namespaces, TUN devices,
//! mounts. The kernel ends it all with that first process, and that one ends with its parent, so
//! that nothing survives either of them, `kill -9` included. The host's routes, rules, interfaces,
//! mounts and cgroups are never touched.
//!
//! To look inside while a run goes on, find the first process of the lab (there may be several
//! labs), or an agent, which has its pod's network namespace, and enter its namespaces:
//!
//! ```text
//! ps -o pid,args -C ztc-lab; pgrep --list-full --full ztc-agent
//! sudo nsenter --all --target PID ps -ef
//! sudo nsenter --all --target PID-OF-AN-AGENT ss -tan
//! ```
//!
//! Without root it is `nsenter --user --mount --pid --net --preserve-credentials --target PID`.

use std::env::{self, VarError};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, UnshareFlags};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::tun;

/// Set for the process inside: the number of the pipe by which it knows that its parent lives.
pub(crate) const PARENT_ENV: &str = "ZTC_LAB_PARENT";

/// Where the lab keeps its sockets and files: in memory, and visible to the lab only. Every Linux
/// has the directory, and nobody's work tree is in it.
pub(crate) const WORK_DIR: &str = "/dev/shm";

static INSIDE: AtomicBool = AtomicBool::new(false);

/// On which side of the new namespaces [`enter`] returned.
#[derive(Debug)]
pub enum Entered {
    /// The caller is the parent, and all is over: to be returned from `main`.
    Outside(ExitCode),
    /// The caller is the first process inside: go on.
    Inside,
}

/// Why the lab's namespaces could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// TUN devices cannot be made.
    #[error("cannot open {}; {hint}", tun::DEVICE)]
    Tun {
        /// What to do about it.
        hint: &'static str,
        /// The operating system's reason.
        source: Errno,
    },
    /// The namespaces cannot be made.
    #[error("cannot make new namespaces; {hint}")]
    Unshare {
        /// What to do about it.
        hint: &'static str,
        /// The operating system's reason.
        source: Errno,
    },
    /// The caller cannot become root of its own user namespace.
    #[error("cannot write {file}; {hint}")]
    MapUser {
        /// Which file of `user_namespaces(7)`.
        file: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A step of the parent failed.
    #[error("cannot {operation}")]
    Supervise {
        /// What it was doing.
        operation: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A mount inside failed.
    #[error("cannot mount {what}; {hint}")]
    Mount {
        /// What was to be mounted.
        what: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// The operating system's reason.
        source: Errno,
    },
    /// Something else than this lab set the variable that marks the process inside.
    #[error("{PARENT_ENV} is set, but this process was not started by the lab; unset it")]
    Marker,
    /// The parent ended before the process inside could tie itself to it.
    #[error("the parent process has ended")]
    Orphaned,
    /// The process inside could not be set up.
    #[error("cannot {operation}")]
    Settle {
        /// What it was doing.
        operation: &'static str,
        /// The operating system's reason.
        source: Errno,
    },
}

/// Enters the lab's namespaces by executing this program again, with the same arguments.
///
/// Call it first thing in `main`, before there is a second thread: outside it returns when the
/// program inside has ended, with its exit code, or 128 and the signal that ended it. An interrupt
/// or a termination is handed on once, as an interrupt; a second one ends the program inside at
/// once, and so does the first if the program does not listen for it.
///
/// # Errors
/// Any [`SandboxError`]; those of missing privileges say how to get them.
pub fn enter() -> Result<Entered, SandboxError> {
    match env::var(PARENT_ENV) {
        Err(VarError::NotPresent) => outside().map(Entered::Outside),
        Err(VarError::NotUnicode(_)) => Err(SandboxError::Marker),
        Ok(parent) => inside(&parent).map(|()| Entered::Inside),
    }
}

/// Whether this process is the first inside.
pub(crate) fn is_inside() -> bool {
    INSIDE.load(Ordering::Relaxed)
}

fn outside() -> Result<ExitCode, SandboxError> {
    tun::probe().map_err(|source| SandboxError::Tun { hint: tun_hint(source), source })?;
    make_pid_namespace()?;
    // One thread: after unshare(CLONE_NEWPID) the kernel refuses to start another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SandboxError::Supervise { operation: "start a runtime", source })?;
    runtime.block_on(supervise()).map(exit_code)
}

/// One text for everybody: whether the caller is in a container cannot be told for sure.
const PRIVILEGES: &str = "run as root or allow unprivileged user namespaces (sysctl \
    user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 on Debian, \
    kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu); in a container, start it with \
    `--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt apparmor=unconfined`";

fn tun_hint(error: Errno) -> &'static str {
    match error {
        Errno::ACCESS => "its permissions exclude this user: `chmod 0666 /dev/net/tun` as root",
        _ => {
            "load the module with `modprobe tun` as root; in a container, start it with \
              `--device /dev/net/tun`"
        }
    }
}

/// Whether the caller may make the namespaces as it is, without a user namespace of its own.
fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Gives the caller's children a new pid namespace and, without privileges, the caller and them a
/// user namespace in which they have all.
fn make_pid_namespace() -> Result<(), SandboxError> {
    if is_privileged() {
        return unshare(UnshareFlags::NEWPID);
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(UnshareFlags::NEWPID | UnshareFlags::NEWUSER)?;
    // `user_namespaces(7)`: an unprivileged gid_map needs setgroups(2) denied before.
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())),
    ] {
        fs::write(file, text).map_err(|source| SandboxError::MapUser {
            file,
            hint: PRIVILEGES,
            source,
        })?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "unshare(2) has no safe form")]
fn unshare(flags: UnshareFlags) -> Result<(), SandboxError> {
    // SAFETY: the danger is in CLONE_FILES, which no caller asks for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|source| SandboxError::Unshare { hint: PRIVILEGES, source })
}

/// Runs this program inside and waits for it.
async fn supervise() -> Result<ExitStatus, SandboxError> {
    let failed = |operation| move |source| SandboxError::Supervise { operation, source };
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(failed("listen for interrupts"))?;
    let mut terminations =
        signal(SignalKind::terminate()).map_err(failed("listen for terminations"))?;

    // The writing end stays open as long as this process lives, and it alone holds it.
    let (alive, _this_process_lives) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make a pipe")(errno.into()))?;
    fcntl_setfd(&alive, FdFlags::empty())
        .map_err(|errno| failed("hand on a pipe")(errno.into()))?;

    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // A group of its own: a terminal's Ctrl-C reaches this process alone and is handed on once,
    // exactly as a signal that was sent to this process alone.
    command.args(arguments).env(PARENT_ENV, alive.as_raw_fd().to_string()).process_group(0);
    let mut child = command.spawn().map_err(failed("execute this program again"))?;
    drop(alive);

    let mut requests = 0;
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(failed("wait for the program inside")),
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        requests += 1;
        let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { continue };
        let polite = requests == 1 && catches(pid, Signal::INT);
        let signal = if polite { Signal::INT } else { Signal::KILL };
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(failed("signal the program inside")(errno.into())),
        }
    }
}

/// Whether a process handles a signal; the first of a pid namespace ignores it otherwise.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let mask = status.ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// The shell's convention: the exit code, or 128 and the number of the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn inside(parent: &str) -> Result<(), SandboxError> {
    let settle = |operation| move |source| SandboxError::Settle { operation, source };
    die_with_parent(parent)?;
    rustix::thread::set_name(c"ztc-lab").map_err(settle("name the process"))?;
    raise_file_limit().map_err(settle("raise the limit of open files"))?;

    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
    let mounting = |what| move |source| SandboxError::Mount { what, hint: PRIVILEGES, source };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(mounting("everything as private"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let nothing: Option<&CStr> = None;
    mount("proc", "/proc", "proc", flags, nothing).map_err(mounting("a fresh /proc"))?;
    mount("tmpfs", WORK_DIR, "tmpfs", flags, c"mode=0700,size=64m")
        .map_err(mounting("a directory in memory"))?;
    INSIDE.store(true, Ordering::Relaxed);
    Ok(())
}

/// Has the kernel kill this process when its parent ends, whenever that is.
#[expect(unsafe_code, reason = "the descriptor comes by number, through execve(2)")]
fn die_with_parent(pipe: &str) -> Result<(), SandboxError> {
    let pipe: Option<RawFd> = pipe.parse().ok();
    let (Some(pipe @ 3..), Pid::INIT) = (pipe, rustix::process::getpid()) else {
        return Err(SandboxError::Marker);
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|source| {
        SandboxError::Settle { operation: "ask to end with the parent", source }
    })?;

    // SAFETY: `supervise` left exactly this descriptor open for us, and nothing else knows it. That
    // `supervise` started us is seen above: this is the first process of a pid namespace.
    let pipe = unsafe { OwnedFd::from_raw_fd(pipe) };
    // The parent may have ended before the request; getppid(2) is 0 here in any case, but then
    // nobody holds the other end of the pipe.
    let reading =
        |source| SandboxError::Settle { operation: "see whether the parent lives", source };
    let flags = fcntl_getfl(&pipe).map_err(reading)?;
    fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).map_err(reading)?;
    match rustix::io::read(&pipe, &mut [0]) {
        Err(Errno::AGAIN) => Ok(()),
        Ok(_) => Err(SandboxError::Orphaned),
        Err(source) => Err(reading(source)),
    }
}

/// Several lanes hold more descriptors than the usual soft limit of 1024.
fn raise_file_limit() -> Result<(), Errno> {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}
