//! Checks of what the rest of the machine sees of a lab.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use libtest_mimic::Failed;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::stage::{INTERRUPTED, READY, Scene, WAIT};

/// How long the kernel may take to end a pid namespace.
const GONE: Duration = Duration::from_secs(5);

type Check = fn() -> Result<(), Failed>;

/// The checks by name.
pub(crate) const CHECKS: &[(&str, Check)] = &[
    ("nothing_survives_a_kill_of_the_process_outside", || {
        let mut scene = ready()?;
        let members = Members::of(&scene)?;
        scene.kill()?;
        members.are_gone()
    }),
    ("nothing_survives_a_kill_of_the_first_process_inside", || {
        let mut scene = ready()?;
        let members = Members::of(&scene)?;
        kill_process(members.first, Signal::KILL)?;
        let status = scene.end()?;
        if status.code() != Some(128 + Signal::KILL.as_raw()) {
            return Err(format!("the process outside ended with {status}").into());
        }
        members.are_gone()
    }),
    ("a_termination_outside_is_an_interrupt_inside", || {
        let mut scene = ready()?;
        let outside = i32::try_from(scene.id()).ok().and_then(Pid::from_raw).expect("it runs");
        kill_process(outside, Signal::TERM)?;
        match scene.end()?.code() {
            Some(code) if code == i32::from(INTERRUPTED) => Ok(()),
            other => Err(format!("the process outside ended with {other:?}").into()),
        }
    }),
    ("the_machine_keeps_its_interfaces_routes_and_mounts", || {
        let before = Machine::look()?;
        let mut scene = ready()?;
        let during = Machine::look()?;
        scene.kill()?;
        scene.end()?;
        let after = Machine::look()?;
        if before == during && during == after {
            Ok(())
        } else {
            Err(format!("before {before:#?}\nduring {during:#?}\nafter {after:#?}").into())
        }
    }),
];

/// A lane that is up.
fn ready() -> Result<Scene, Failed> {
    let mut scene = Scene::start(WAIT)?;
    match scene.line()? {
        line if line == READY => Ok(scene),
        _ => {
            scene.passes()?;
            Err("the part ended before its lane was up".into())
        }
    }
}

/// The processes of a lab.
struct Members {
    first: Pid,
    all: Vec<OwnedFd>,
}

impl Members {
    fn of(scene: &Scene) -> Result<Self, Failed> {
        let id = scene.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let first: i32 = children.trim().parse()?;
        let namespace = fs::read_link(format!("/proc/{first}/ns/pid"))?;
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
            // Processes of others come and go meanwhile.
            let Ok(theirs) = fs::read_link(entry.path().join("ns/pid")) else { continue };
            if theirs == namespace {
                let pid = Pid::from_raw(id).expect("a directory of /proc is no process 0");
                all.push(pidfd_open(pid, PidfdFlags::empty())?);
            }
        }
        if all.len() < 4 {
            return Err(format!("the lab has only {} processes", all.len()).into());
        }
        Ok(Self { first: Pid::from_raw(first).expect("it runs"), all })
    }

    /// Waits until every one of them has ended.
    fn are_gone(self) -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let count = self.all.len();
            let ended = tokio::time::timeout(GONE, async {
                for process in self.all {
                    // A pidfd is readable when its process has ended (pidfd_open(2)).
                    let process = watch(process)?;
                    drop(process.readable().await?);
                }
                Ok::<_, std::io::Error>(())
            });
            match ended.await {
                Ok(ended) => Ok(ended?),
                Err(_elapsed) => {
                    Err(format!("of {count} processes some live after {GONE:?}").into())
                }
            }
        })
    }
}

#[expect(unsafe_code, reason = "the runtime must be sure of the descriptor")]
fn watch(process: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it is there.
    Ok(unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?)
}

/// What of a machine a lab must not change.
#[derive(Debug, PartialEq)]
struct Machine {
    interfaces: BTreeSet<String>,
    routes: String,
    mounts: String,
}

impl Machine {
    fn look() -> Result<Self, Failed> {
        let devices = fs::read_to_string("/proc/net/dev")?;
        let names =
            devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        Ok(Self {
            interfaces: names.collect(),
            routes: fs::read_to_string("/proc/net/fib_trie")?,
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
        })
    }
}
