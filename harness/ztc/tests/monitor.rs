//! What happens to flows while something changes is seen, for as long as it lasts.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::sync::{Mutex, PoisonError};

use support::{Project, code, lab_is_possible, stderr};
use ztc_engine::event::{ChangeReport, Event, EventKind, WatchedFlow};
use ztc_model::window::{Window, WindowKind};

/// Denied and allowed flows of TCP, by Cilium alone.
const CASE: &str = "l2-namespace::two-namespaces-agree-on-a-flow";

/// Flows of TCP and HTTP in plain that STRICT refuses.
const STRICT: &str = "l3-mtls::strict-refuses-a-peer-that-speaks-in-plain";

/// Flows that ztunnels carry.
const MESHED: &str = "l3-mtls::strict-lets-the-mesh-pass";

/// Flows of pods that are born in the case.
const BORN: &str = "l1-cluster::a-pod-born-under-default-deny-is-covered-from-its-first-packet";

/// Between two samples further apart than so many times the pace somebody is blind: no window is further off than that at
/// either end without saying so.
const APART: u64 = 3;

/// One lab at a time: what is measured on one would be that another has the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// A run that watches the case, on a lab that is broken in some way.
fn watch(fault: &str, args: &[&str]) -> Option<(i32, ChangeReport, String)> {
    watch_case(CASE, fault, args)
}

fn watch_case(case: &str, fault: &str, args: &[&str]) -> Option<(i32, ChangeReport, String)> {
    // A test that failed has left nothing half done.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    lab_is_possible().then(|| {
        let project = Project::new();
        let mut ztc = project.ztc(&["monitor", case, "--margin", "1s"]);
        let output = ztc.args(args).env("ZTC_LAB_FAULT", fault).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let changed = project.events().into_iter().find_map(|Event { kind, .. }| match kind {
            EventKind::ChangeWatched(report) => Some(*report),
            _ => None,
        });
        let changed = changed.unwrap_or_else(|| panic!("no change: {stdout}{}", stderr(&output)));
        (code(&output), changed, stdout)
    })
}

fn windows(report: &ChangeReport, kind: WindowKind) -> Vec<(&WatchedFlow, &Window)> {
    let all = report.flows.iter().flat_map(|flow| flow.windows.iter().map(move |it| (flow, it)));
    all.filter(|(_, it)| it.kind == kind).collect()
}

#[test]
fn where_nothing_changes_nothing_leaks_and_nothing_is_cut() {
    let Some((code, report, stdout)) = watch("", &["--for", "3s"]) else { return };
    assert_eq!(code, 0, "{stdout}");
    let steps: Vec<&str> = report.steps.iter().map(|it| it.step.as_str()).collect();
    assert_eq!(steps, ["before", "nothing", "after"]);
    assert!(report.flows.iter().any(|it| it.denied) && report.flows.iter().any(|it| !it.denied));
    for flow in &report.flows {
        assert!(flow.samples > 20, "{}: {} samples", flow.send, flow.samples);
    }
}

#[test]
fn agents_that_leave_the_door_open_leak_for_as_long() {
    for open in [50, 200, 1000] {
        let fault = format!("restart-opens={open}ms");
        let Some((code, report, stdout)) = watch(&fault, &["--restart", "cilium"]) else { return };
        assert_eq!(code, 4, "{stdout}");
        let leaks = windows(&report, WindowKind::Leak);
        assert!(!leaks.is_empty(), "{stdout}");
        // A shorter one may be between two samples where the machine is busy; whoever missed a longer one was blind.
        if open * 1000 > APART * report.every_us {
            let missed = |it: &&WatchedFlow| it.denied && it.windows.is_empty();
            let missed: Vec<&WatchedFlow> = report.flows.iter().filter(missed).collect();
            assert!(missed.is_empty(), "{missed:?}: {stdout}");
        }
        for (flow, leak) in leaks {
            // A window longer than the restart may be parted, and its rest begin after it.
            let step = report.step_of(leak).unwrap();
            assert_ne!(step.step, "before", "{stdout}");
            // Blind spots may part it, but nothing makes it longer; where nothing parts it, it is all that was injected.
            let apart = 2 * APART * report.every_us;
            assert!(leak.long_us() <= open * 1000 + apart, "{}: {leak:?} of {open} ms", flow.send);
            if flow.windows.len() == 1 {
                assert_eq!(step.step, "restart cilium", "{stdout}");
                let off = leak.long_us().abs_diff(open * 1000);
                assert!(off <= apart, "{}: {leak:?} of {open} ms", flow.send);
            }
            assert!(leak.first.is_some() && leak.samples > 0);
        }
        assert!(stdout.contains("FAIL-OPEN"), "{stdout}");
    }
}

#[test]
fn agents_that_cut_everything_are_an_outage_and_within_the_budget_none() {
    let cut = "restart-closes=200ms";
    let Some((code, report, stdout)) = watch(cut, &["--restart", "cilium"]) else { return };
    assert_eq!(code, 1, "{stdout}");
    let outages = windows(&report, WindowKind::Outage);
    assert!(!outages.is_empty() && outages.iter().all(|(flow, _)| !flow.denied), "{stdout}");
    assert!(windows(&report, WindowKind::Leak).is_empty(), "{stdout}");
    let budget = ["--restart", "cilium", "--allow-outage", "5s"];
    let Some((code, report, stdout)) = watch(cut, &budget) else { return };
    assert_eq!(code, 0, "{stdout}");
    assert!(!windows(&report, WindowKind::Outage).is_empty(), "it is told all the same");
}

#[test]
fn ztunnels_that_come_back_without_strict_leak_for_as_long() {
    for forgets in [20, 200] {
        let fault = format!("ztunnel-restart-forgets-strict={forgets}ms");
        let watched = watch_case(STRICT, &fault, &["--restart", "ztunnel"]);
        let Some((code, report, stdout)) = watched else { return };
        assert_eq!(code, 4, "{stdout}");
        let leaks = windows(&report, WindowKind::Leak);
        assert!(!leaks.is_empty(), "{stdout}");
        for (flow, leak) in leaks {
            assert_eq!(report.step_of(leak).unwrap().step, "restart ztunnel", "{stdout}");
            let apart = 2 * APART * report.every_us;
            assert!(leak.long_us() <= forgets * 1000 + apart, "{}: {leak:?}", flow.send);
        }
    }
    let Some((code, _, stdout)) = watch_case(STRICT, "", &["--restart", "ztunnel"]) else { return };
    assert_eq!(code, 0, "{stdout}");
}

#[test]
fn connections_that_a_ztunnel_carried_end_with_it() {
    let budget = ["--restart", "ztunnel", "--allow-outage", "5s"];
    let Some((code, report, stdout)) = watch_case(MESHED, "", &budget) else { return };
    assert_eq!(code, 0, "{stdout}");
    let kept = report.flows.iter().filter_map(|it| it.reconnects);
    assert!(kept.clone().count() > 1 && kept.sum::<usize>() > 0, "{stdout}");
}

#[test]
fn pods_are_born_while_agents_restart_and_none_leaks() {
    let Some((code, report, stdout)) = watch_case(BORN, "", &["--restart", "cilium"]) else {
        return;
    };
    assert_eq!(code, 0, "{stdout}");
    assert!(windows(&report, WindowKind::Leak).is_empty(), "{stdout}");
    for denied in [true, false] {
        let flows: Vec<_> = report.flows.iter().filter(|it| it.denied == denied).collect();
        assert_eq!(flows.len(), 3, "{stdout}");
        assert!(flows.iter().all(|it| it.births.is_some_and(|it| it.count > 1)), "{flows:?}");
        // One was on its way while agents were away, or somebody would be blind.
        assert!(flows.iter().all(|it| it.windows.is_empty()), "{flows:?}");
        assert!(flows.iter().all(|it| it.samples >= 5), "{flows:?}");
    }
    assert!(report.unwatched.is_empty(), "{stdout}");
}

#[test]
fn a_pod_that_is_born_without_its_policy_leaks() {
    let fault = "first-packet-leaks";
    let Some((code, report, stdout)) = watch_case(BORN, fault, &["--for", "1s"]) else { return };
    assert_eq!(code, 4, "{stdout}");
    let leaks = windows(&report, WindowKind::Leak);
    assert!(leaks.len() > 1, "{stdout}");
    assert!(leaks.iter().all(|(flow, leak)| flow.denied && leak.first.is_some()), "{stdout}");
    assert!(windows(&report, WindowKind::Outage).is_empty(), "{stdout}");
}

#[test]
fn a_command_that_fails_proves_nothing() {
    let Some((code, report, stdout)) = watch("", &["--", "false"]) else { return };
    assert_eq!(code, 3, "{stdout}");
    assert_eq!(report.trouble.as_deref(), Some("false: it ended with exit status: 1"));
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_started() {
    let project = Project::new();
    for (args, words) in [
        (
            vec!["monitor", CASE],
            "nothing changes: give --restart, --upgrade-to, --for, or a command after `--`",
        ),
        (vec!["monitor", "l2-namespace", "--for", "1s"], "is in the name of"),
        (vec!["monitor", CASE, "--for", "soon"], "a time is a number with its unit"),
        (
            vec!["monitor", CASE, "--restart", "kubelet"],
            "what can be restarted is `cilium` or `ztunnel`",
        ),
        (vec!["monitor", CASE, "--for", "1s", "--every", "10us"], "--every is at least 1 ms"),
        (vec!["monitor", "no-such-case", "--for", "1s"], "no case has `no-such-case` in its name"),
    ] {
        let output = project.ztc(&args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
}
