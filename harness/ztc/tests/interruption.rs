//! A run that is asked to stop ends soon, with whole reports; one that is killed leaves nobody.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs::{self, File};
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::process::Child;
use tokio::time::timeout;
use ztc_engine::event::{Event, EventKind, Phase, Summary};
use ztc_engine::wait::{self, Look};
use ztc_report::evidence::file_of;
use ztc_report::jsonl;

use support::{Project, code, lab_is_possible, stderr, word};

/// How long a case may take to begin. It is reached only when something is broken.
const BEGIN: Duration = Duration::from_secs(30);
/// How long a run may take to end once it was asked to: it still cleans up.
const END: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a pid namespace.
const GONE: Duration = Duration::from_secs(5);
/// How often to look.
const POLL: Duration = Duration::from_millis(5);

/// The cases that the filter takes, of which one is running.
const CASES: &str = "l1-baseline::default-deny-stops-tcp";

/// A run with a single lane that is in the middle of the first of its two cases.
///
/// It waits for policies that are enforced later than a run may take to end: only an interruption
/// gets it out of there.
async fn in_the_middle(project: &Project) -> Child {
    in_the_middle_of(project, &["run", CASES]).await
}

/// The same of any command that makes such a run first of all.
async fn in_the_middle_of(project: &Project, args: &[&str]) -> Child {
    project.edit("clusters/lab.yaml", "lanes: { count: 12", "lanes: { count: 1");
    project.edit("clusters/lab.yaml", "settleCeilingMs: 2000", "settleCeilingMs: 60000");
    let mut command = project.ztc(args);
    command.env("ZTC_LAB_FAULT", "late-enforcement=60000ms");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ztc = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let asserting =
        |kind: &EventKind| matches!(kind, EventKind::CasePhase { phase: Phase::Assert, .. });
    let look = || async {
        let Ok(file) = File::open(project.path("target/ztc/latest/events.jsonl")) else {
            return Ok(Look::NotYet { status: "no events".to_owned() });
        };
        // The last line may be half written: whole ones are all that is needed.
        let events: Vec<Event> = jsonl::read(BufReader::new(file)).filter_map(Result::ok).collect();
        if events.iter().any(|event| asserting(&event.kind)) {
            return Ok(Look::Met(()));
        }
        Ok(Look::NotYet { status: format!("{:?}", events.last()) })
    };
    wait::until("a case that asserts", BEGIN, POLL, look).await.unwrap();
    ztc
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(process.id().expect("it runs").cast_signed()).unwrap()
}

/// Sends a signal to `ztc` alone and waits for its end.
async fn ended_by(signal: Signal, ztc: Child) -> Output {
    kill_process(pid(&ztc), signal).unwrap();
    timeout(END, ztc.wait_with_output()).await.expect("it ends soon").unwrap()
}

/// How a run says that it was interrupted, in its exit code and in every report.
fn tells_of_the_interruption(project: &Project, output: &Output) {
    assert_eq!(code(output), 3, "{}", stderr(output));

    let events = project.events();
    let count = |of: fn(&EventKind) -> bool| events.iter().filter(|it| of(&it.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Interrupted)), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::RunFinished(_))), 1);
    let EventKind::RunFinished(summary) = &events.last().unwrap().kind else {
        panic!("the last event is {:?}", events.last())
    };
    let Summary { inconclusive: 1, not_run: 1, interrupted: true, .. } = summary else {
        panic!("{summary:?}")
    };
    assert_eq!(summary.passed + summary.failed + summary.failed_open + summary.ignored, 0);

    // The case that was under way has a report like any other, and claims nothing.
    let reports = project.reports();
    let [report] = &reports[..] else { panic!("{} reports", reports.len()) };
    assert_eq!(word(&report.verdict), "inconclusive Interrupted", "{}", report.verdict);
    assert_eq!(report.residue, None);
    let evidence = project.path("target/ztc/latest/evidence").join(file_of(&report.case));
    assert!(evidence.is_file(), "there is no {}", evidence.display());

    let junit = fs::read_to_string(project.path("target/ztc/latest/junit.xml")).unwrap();
    assert!(junit.trim_end().ends_with("</testsuites>"), "{junit}");
    assert!(junit.contains(r#"tests="2" skipped="1" failures="0" errors="1""#), "{junit}");
    assert!(junit.contains("not run: the run was interrupted"), "{junit}");
    let page = fs::read_to_string(project.path("target/ztc/latest/report.html")).unwrap();
    assert!(page.contains("The run was interrupted"), "the page does not say so");

    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("the run was interrupted"), "{shown}");
}

#[tokio::test]
async fn an_interrupted_run_ends_soon_with_whole_reports() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let ztc = in_the_middle(&project).await;
    let output = ended_by(Signal::INT, ztc).await;
    tells_of_the_interruption(&project, &output);
}

#[tokio::test]
async fn a_termination_is_an_interruption() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let ztc = in_the_middle(&project).await;
    let output = ended_by(Signal::TERM, ztc).await;
    tells_of_the_interruption(&project, &output);
}

#[tokio::test]
async fn an_interrupted_comparison_ends_its_first_run_and_begins_no_second() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    fs::copy(project.path("clusters/lab.yaml"), project.path("clusters/copy.yaml")).unwrap();
    project.edit("clusters/copy.yaml", "profile: lab", "profile: copy");
    let ztc = in_the_middle_of(&project, &["run", "--compare", "lab,copy", CASES]).await;
    let output = ended_by(Signal::INT, ztc).await;
    tells_of_the_interruption(&project, &output);
    assert!(stderr(&output).contains("the run on copy is not made"), "{}", stderr(&output));
    let runs = fs::read_dir(project.path("target/ztc")).unwrap().count();
    assert_eq!(runs, 2, "one run, and the link to it");
}

#[tokio::test]
async fn an_interruption_leaves_nobody() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let ztc = in_the_middle(&project).await;
    let members = members(pid(&ztc));
    ended_by(Signal::INT, ztc).await;
    are_gone(&members);
}

#[tokio::test]
async fn a_killed_run_leaves_nobody_and_does_not_hinder_the_next() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let mut ztc = in_the_middle(&project).await;
    let members = members(pid(&ztc));
    // As `kill -9` does. Its output is not read to the end, which survivors would hold open.
    ztc.kill().await.unwrap();
    are_gone(&members);

    // It could not say that it was over, but what it had said is whole.
    let events = project.events();
    assert!(!matches!(events.last().unwrap().kind, EventKind::RunFinished(_)), "{events:?}");

    let (code, reports) = project.run("the-metadata-service-is-denied-by-name", None);
    assert_eq!((code, reports.len()), (0, 1));
}

/// All processes in the pid namespace that `ztc` made, its first one included.
fn members(ztc: Pid) -> Vec<OwnedFd> {
    let id = ztc.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let first: u32 = children.trim().parse().expect("it has one child, the first process inside");
    let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
        // Processes of others come and go meanwhile.
        let Ok(theirs) = fs::read_link(entry.path().join("ns/pid")) else { continue };
        if theirs == namespace {
            let pid = Pid::from_raw(id).expect("a directory of /proc is no process 0");
            members.push(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        }
    }
    assert!(members.len() >= 4, "the lab has only {} processes", members.len());
    members
}

/// Waits until every one of them has ended.
fn are_gone(members: &[OwnedFd]) {
    let deadline = Instant::now() + GONE;
    for member in members {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        // A pidfd is readable when its process has ended (pidfd_open(2)).
        let mut process = [PollFd::new(member, PollFlags::IN)];
        let ended = poll(&mut process, Some(&left)).unwrap();
        assert_eq!(ended, 1, "of {} processes some live after {GONE:?}", members.len());
    }
}
