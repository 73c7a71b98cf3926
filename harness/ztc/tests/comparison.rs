//! Runs are held against each other: those that are alike agree, and what a fault changes is shown
//! with the evidence of both sides.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;
use std::process::Output;

use support::{Project, code, lab_is_possible, stderr};

/// A case with two denied cells, of a deny rule, and three allowed ones.
const METADATA: &str = "the-metadata-service-is-denied-by-name";

/// A project with a copy of the lab's profile beside it.
fn with_a_copy() -> Project {
    let project = Project::new();
    fs::copy(project.path("clusters/lab.yaml"), project.path("clusters/copy.yaml")).unwrap();
    project.edit("clusters/copy.yaml", "profile: lab", "profile: copy");
    project
}

/// Makes a run of that name, with a fault if one is given.
fn run(project: &Project, name: &str, fault: &str) {
    let mut command = project.ztc(&["run", METADATA, "--run-name", name]);
    let output = command.env("ZTC_LAB_FAULT", fault).output().unwrap();
    let events = project.path("target/ztc").join(name).join("events.jsonl");
    assert!(events.is_file(), "{}", stderr(&output));
}

/// A run without a fault and one with this, held against each other.
fn against(fault: &str) -> (i32, String) {
    of_two_runs("compare", fault)
}

/// What a command says of a run without a fault and of one with this.
fn of_two_runs(command: &str, fault: &str) -> (i32, String) {
    let project = Project::new();
    run(&project, "sound", "");
    run(&project, "broken", fault);
    let mut command = project.ztc(&[command, "sound", "broken"]);
    // Wide enough for every line: words are looked for, not where they are broken.
    let output = command.env("COLUMNS", "500").output().unwrap();
    (code(&output), stdout(&output))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn runs_on_two_profiles_that_are_alike_agree() {
    if !lab_is_possible() {
        return;
    }
    let project = with_a_copy();
    let mut command = project.ztc(&["run", "--compare", "lab,copy", METADATA]);
    // What is named for other runs does not matter to this one.
    let output = command.env("ZTC_CLUSTER", "moon").output().unwrap();
    let shown = stdout(&output);
    assert_eq!(code(&output), 0, "{shown}\n{}", stderr(&output));
    assert!(shown.contains("29 cells compared, 0 disagree, 0 not compared\n"), "{shown}");

    let folders: Vec<_> = fs::read_dir(project.path("target/ztc"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.is_symlink())
        .collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    for folder in folders {
        let kept = fs::read_to_string(folder.join("comparison.txt")).unwrap();
        assert!(kept.contains("29 cells compared, 0 disagree, 0 not compared\n"), "{kept}");
        assert!(kept.contains("lab: run ") && kept.contains("copy: run "), "{kept}");
    }
}

#[test]
fn a_fault_is_a_disagreement_with_the_evidence_of_both_sides() {
    if !lab_is_possible() {
        return;
    }
    let (code, shown) = against("wrong-policy-name");
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("29 cells compared, 12 disagree, 0 not compared\n"), "{shown}");
    for words in [
        "≠ DISAGREE      l1-cluster::the-metadata-service-is-denied-by-name\n",
        "zt-shop/cart sent GET http://169.254.169.254:80/latest/meta-data/\n",
        "verdict: pass on sound, wrong-policy on broken\n",
        "on sound: pass\n",
        "on broken: wrong-policy: CiliumClusterwideNetworkPolicy/block-metadata should have stopped it",
        "by a deny rule of CiliumClusterwideNetworkPolicy/block-metadata (TCP ",
        "by a deny rule of CiliumClusterwideNetworkPolicy/somebody-else (TCP ",
        "faults injected on purpose: wrong-policy-name",
    ] {
        assert!(shown.contains(words), "{words:?} is not in:\n{shown}");
    }
}

#[test]
fn a_leak_comes_first_and_has_the_exit_code_of_a_leak() {
    if !lab_is_possible() {
        return;
    }
    let (code, shown) = against("ignore-egress-deny");
    assert_eq!(code, 4, "{shown}");
    assert!(shown.starts_with("✗ FAIL-OPEN     l1-cluster::"), "{shown}");
    assert!(shown.contains("verdict: pass on sound, fail-open on broken\n"), "{shown}");
}

#[test]
fn what_a_fault_lets_through_is_newly_allowed() {
    if !lab_is_possible() {
        return;
    }
    let (code, shown) = of_two_runs("diff", "allow-everything");
    assert_eq!(code, 4, "{shown}");
    assert!(shown.starts_with("✗ ALLOWED"), "{shown}");
    assert!(
        shown.contains("before    stopped by cilium: denied at egress by a deny rule"),
        "{shown}"
    );
}

#[test]
fn what_is_inconclusive_on_one_side_is_not_compared() {
    if !lab_is_possible() {
        return;
    }
    let (code, shown) = against("lose-flow-records");
    assert_eq!(code, 3, "{shown}");
    assert!(shown.contains("17 cells compared, 0 disagree, 12 not compared\n"), "{shown}");
}

#[test]
fn a_case_that_one_profile_cannot_run_is_listed_as_not_compared() {
    if !lab_is_possible() {
        return;
    }
    let project = with_a_copy();
    project.edit("clusters/copy.yaml", ", ambient-probes,", ",");
    // Among them two about the probes.
    let output = project.ztc(&["run", "--compare", "copy,lab", "with"]).output().unwrap();
    let shown = stdout(&output);
    assert_eq!(code(&output), 0, "{shown}\n{}", stderr(&output));
    assert!(shown.contains("not compared\n  l1-probes::an-ambient-pod-is-not-ready"), "{shown}");
    assert!(shown.contains("copy: ignored: copy lacks ambient-probes\n"), "{shown}");
    assert!(shown.contains("lab: pass\n"), "{shown}");
    assert!(shown.contains(" cells compared, 0 disagree, "), "{shown}");
    assert!(!shown.contains(" 0 not compared\n"), "{shown}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_started() {
    let project = with_a_copy();
    for (args, words) in [
        (&["run", "--compare", "lab"][..], "name two profiles with a comma between"),
        (&["run", "--compare", "lab,copy,kind"], "name two profiles with a comma between"),
        (&["run", "--compare", "lab,lab"], "`lab` is named twice"),
        (&["run", "--compare", "lab,clusters/lab.yaml"], "are one profile, `lab`"),
        (&["run", "--compare", "lab,moon"], "there is no profile `moon`"),
        (&["run", "--compare", "lab,copy", "--cluster", "lab"], "leave out --cluster"),
        (&["run", "--compare", "lab,copy", "no-such-case"], "no case has `no-such-case`"),
        (&["run", "--compare", "lab,copy", "lab::l1"], "no case has `lab::l1`"),
        (&["run", "--compare", "lab,copy", "copy"], "no case has `copy`"),
        (&["compare", "here", "there"], "there is no run `here`"),
    ] {
        let output = project.ztc(args).output().unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{args:?}: {said}");
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
        assert!(!project.path("target").exists(), "{args:?} started something");
    }
}

#[test]
fn a_run_is_not_compared_with_itself() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    run(&project, "sound", "");
    let output = project.ztc(&["compare", "sound", "target/ztc/latest"]).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("are the same run"), "{}", stderr(&output));
    // Nor does a second run take its place.
    let again = project.ztc(&["run", METADATA, "--run-name", "sound"]).output().unwrap();
    assert_eq!(code(&again), 3);
    assert!(stderr(&again).contains("is another run's folder"), "{}", stderr(&again));
}
