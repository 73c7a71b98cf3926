//! `ztc run --shard` and `ztc report merge`: a run that several machines have a part of.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;

use support::{Project, code, lab_is_possible, stderr};

/// The cases of the suite, by the list of all.
fn listed(project: &Project) -> usize {
    let output = project.ztc(&["list", "l2-namespace"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn the_parts_of_a_run_make_the_whole_of_it() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    for (part, name) in [("1/2", "part-1"), ("2/2", "part-2")] {
        let args = ["run", "l2-namespace", "--shard", part, "--run-name", name];
        let output = project.ztc(&args).output().unwrap();
        assert_eq!(code(&output), 0, "{part}: {}", stderr(&output));
    }
    let args = ["report", "merge", "part-1", "part-2", "--name", "whole"];
    let output = project.ztc(&args).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let whole = project.path("target/ztc/whole");
    for report in ["events.jsonl", "junit.xml", "report.html", "report.md", "evidence"] {
        assert!(whole.join(report).exists(), "{report} is missing");
    }
    let reports = project.reports();
    assert_eq!(reports.len(), listed(&project), "the last run is the whole");
    let junit = fs::read_to_string(whole.join("junit.xml")).unwrap();
    assert!(reports.iter().all(|it| junit.contains(it.case.name())), "{junit}");

    let again = ["report", "merge", "part-1", "whole"];
    let output = project.ztc(&again).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("is in part-1 and in whole"), "{}", stderr(&output));
    let taken = ["report", "merge", "part-1", "part-2", "--name", "whole"];
    let output = project.ztc(&taken).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("is another run's folder"), "{}", stderr(&output));
}

#[test]
fn a_part_that_is_none_is_refused() {
    let project = Project::new();
    for (shard, words) in [
        ("3/2", "write I/N, such as `2/4`"),
        ("half", "write I/N, such as `2/4`"),
        ("1/900", "part 1/900 of "),
    ] {
        let output = project.ztc(&["run", "--shard", shard]).output().unwrap();
        assert_eq!(code(&output), 2, "{shard}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{words:?} is not in {}", stderr(&output));
        assert!(!project.path("target").exists(), "something was started");
    }
    let output = project.ztc(&["report", "merge", "one"]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}
