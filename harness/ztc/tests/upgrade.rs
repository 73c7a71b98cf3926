//! An upgrade is as good as the worst of what was seen before, in the middle and after it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Project, code, lab_is_possible, stderr};
use tokio::time::timeout;
use ztc_engine::wait::{Look, until};

/// How long the run in the middle may take to begin. It is reached only when something is broken.
const BEGIN: Duration = Duration::from_mins(1);
/// How long an upgrade may take to end once it was asked to: less than its margin.
const END: Duration = Duration::from_mins(1);
/// How often to look.
const POLL: Duration = Duration::from_millis(20);

/// Denied and allowed flows of TCP, by Cilium alone.
const CASE: &str = "l2-namespace::two-namespaces-agree-on-a-flow";

/// A denial in plain, by a deny rule.
const DENIED: &str = "l1-cluster::the-metadata-service-is-denied-by-name";

/// What is written in `clusters/lab-next.yaml`.
const FAULTS: &str = "[restart-opens=50ms, ztunnel-restart-forgets-strict=20ms]";

/// One lab at a time: what is measured on one would be that another has the machine.
static ALONE: Mutex<()> = Mutex::new(());

struct Upgraded {
    code: i32,
    said: String,
    project: Project,
}

/// Upgrades a lab to one that is broken in these ways.
fn upgrade(faults: &str, args: &[&str]) -> Option<Upgraded> {
    // A test that failed has left nothing half done.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    lab_is_possible().then(|| {
        let project = Project::new();
        project.edit("clusters/lab-next.yaml", FAULTS, faults);
        let mut ztc = project.ztc(&["upgrade", "--from", "lab", "--to", "lab-next"]);
        let output = ztc.args(["--margin", "1s"]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        Upgraded { code: code(&output), said, project }
    })
}

impl Upgraded {
    /// The file for people, without what differs from run to run.
    fn summary(&self) -> String {
        let folders = std::fs::read_dir(self.project.path("target/ztc")).unwrap();
        let mut folders = folders.map(|it| it.unwrap().path());
        let folder = folders.find(|it| it.to_string_lossy().ends_with("-upgrade"));
        let folder = folder.unwrap_or_else(|| panic!("nothing is kept: {}", self.said));
        assert!(folder.join("upgrade.md").is_file());
        std::fs::read_to_string(folder.join("upgrade.txt")).unwrap()
    }

    /// The line of the summary that begins so, with those that belong to it.
    fn line(&self, lead: &str) -> Option<String> {
        let summary = self.summary();
        let mut lines = summary.lines().skip_while(|it| !it.starts_with(&format!("  {lead}")));
        let first = lines.next()?;
        let rest = lines.take_while(|it| it.starts_with("    "));
        let words = std::iter::once(first).chain(rest).flat_map(str::split_whitespace);
        Some(words.collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn an_upgrade_that_leaks_for_a_moment_is_fail_open_though_both_versions_pass() {
    let Some(it) = upgrade("[restart-opens=50ms]", &[CASE]) else { return };
    assert_eq!(it.code, 4, "{}", it.said);
    assert!(it.line("before").unwrap().contains("1 passed"), "{}", it.said);
    assert!(it.line("leaks").unwrap().ends_with("in `cilium`"), "{}", it.said);
    assert!(it.line("watched").unwrap().contains(CASE), "{}", it.said);
    assert!(it.line("after").unwrap().contains("1 passed"), "{}", it.said);
    assert!(it.line("changed").unwrap().contains("nothing changed"), "{}", it.said);
    assert!(it.summary().trim_end().ends_with("or is newly allowed"), "{}", it.said);
}

#[test]
fn an_outage_within_the_budget_is_told_and_is_no_failure() {
    let faults = "[restart-closes=200ms]";
    let Some(it) = upgrade(faults, &[CASE]) else { return };
    assert_eq!(it.code, 1, "{}", it.said);
    let Some(it) = upgrade(faults, &[CASE, "--allow-outage", "5s"]) else { return };
    assert_eq!(it.code, 0, "{}", it.said);
    assert!(it.line("outages").unwrap().ends_with("in `cilium`"), "{}", it.said);
}

#[test]
fn what_the_new_version_lets_pass_is_newly_allowed_and_told_with_both_ends() {
    let Some(it) = upgrade("[ignore-egress-deny]", &[DENIED]) else { return };
    assert_eq!(it.code, 4, "{}", it.said);
    assert_eq!(it.line("leaks"), None, "nothing leaks in the middle: {}", it.said);
    assert!(it.line("changed").unwrap().contains("newly allowed"), "{}", it.said);
    assert!(it.summary().contains("✗ ALLOWED"), "{}", it.summary());
}

#[test]
fn the_way_back_is_watched_as_well_and_ends_where_it_began() {
    let args = [CASE, "--rollback", "--allow-outage", "5s"];
    let Some(it) = upgrade("[mute-clients]", &args) else { return };
    // Were the last run on the new versions, nothing would get through.
    assert_eq!(it.code, 0, "{}", it.said);
    let steps = it.line("steps").unwrap();
    let names = ["before", "install lab-next", "cilium", "ztunnel", "back: install lab"];
    let at: Vec<Option<usize>> = names.iter().map(|it| steps.find(it)).collect();
    assert!(at.is_sorted() && at[0].is_some(), "{steps}");
    assert!(steps.contains("back: cilium") && steps.contains("back: ztunnel"), "{steps}");
}

/// Waits until the run in the middle has its folder; what the names of all runs begin with.
async fn watching(project: &Project) -> String {
    let look = || async {
        let folders = std::fs::read_dir(project.path("target/ztc")).into_iter().flatten();
        let mut names = folders.map(|it| it.unwrap().file_name().into_string().unwrap());
        let stem = names.find_map(|it| it.strip_suffix("-during").map(str::to_owned));
        let status = "nothing is watched".to_owned();
        Ok(stem.map_or(Look::NotYet { status }, Look::Met))
    };
    until("the run in the middle", BEGIN, POLL, look).await.unwrap()
}

#[tokio::test]
async fn a_leak_stands_and_is_told_where_nobody_knows_what_came_after_it() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    project.edit("clusters/lab-next.yaml", FAULTS, "[restart-opens=200ms]");
    let mut ztc = project.ztc(&["upgrade", "--from", "lab", "--to", "lab-next", CASE]);
    ztc.args(["--margin", "1s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ztc = tokio::process::Command::from(ztc).kill_on_drop(true).spawn().unwrap();
    let stem = watching(&project).await;
    // The last run finds no place for its folder.
    std::fs::write(project.path(&format!("target/ztc/{stem}-after")), "").unwrap();
    let output = timeout(END, ztc.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert_eq!(code(&output), 4, "{said}");
    assert!(said.contains("the run after came to nothing"), "{said}");
    let upgraded = Upgraded { code: 4, said, project };
    assert!(upgraded.line("leaks").unwrap().ends_with("in `cilium`"), "{}", upgraded.said);
    assert_eq!(upgraded.line("after").as_deref(), Some("after not known"), "{}", upgraded.said);
}

#[tokio::test]
async fn whoever_asks_to_stop_leaves_the_runs_until_then() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let mut ztc = project.ztc(&["upgrade", "--from", "lab", "--to", "lab-next", CASE]);
    ztc.args(["--margin", "120s"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let ztc = tokio::process::Command::from(ztc).kill_on_drop(true).spawn().unwrap();
    watching(&project).await;
    let pid = Pid::from_raw(ztc.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output =
        timeout(END, ztc.wait_with_output()).await.expect("no margin is waited for").unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 3, "{said}");
    assert!(said.contains("interrupted: the upgrade is not made"), "{said}");
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_started() {
    let project = Project::new();
    let meshed = "k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1";
    let older = "k8s-1.35.5_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1";
    let plain = "k8s-1.36.3_cilium-1.19.6";
    for (from, to, more, words) in [
        ("lab", "lab", vec![], "lab is named twice"),
        ("lab", "kind", vec![], "lab is of the fabric `lab`, and kind of `kind`"),
        ("lab", "nowhere", vec![], "there is no profile `nowhere`"),
        ("lab", "lab-next", vec!["no-such-case"], "has `no-such-case` in its name"),
        ("lab", "lab-next", vec!["--watch", "l2-namespace"], "is in the name of"),
        ("lab", "lab-next", vec!["--watch", "no-such-case"], "no case has `no-such-case`"),
        (
            "lab",
            "lab-next",
            vec!["--watch", "a-handshake-for-another-name-on-the-same-address-is-stopped"],
            "does not run on lab",
        ),
        (older, meshed, vec![], "Kubernetes is 1.35.5 on one side and 1.36.3 on the other"),
        (plain, meshed, vec![], "no registry has the versions of the cell"),
        ("lab", "lab-next", vec!["--every", "soon"], "a time is a number with its unit"),
    ] {
        let mut ztc = project.ztc(&["upgrade", "--from", from, "--to", to]);
        let output = ztc.args(&more).env_remove("ZTC_BUNDLE").output().unwrap();
        assert_eq!(code(&output), 2, "{from} {to} {more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{from} {to} {more:?}: {}", stderr(&output));
    }
    assert!(!project.path("target").exists());
}
