//! `ztc run --repeat` and `--until-fail`, as somebody runs them who looks for a verdict that varies.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use support::{Project, code, lab_is_possible, stderr};

/// What is left of runs, by the ends of their names.
fn left(project: &Project) -> Vec<String> {
    let folders = std::fs::read_dir(project.path("target/ztc")).unwrap();
    let names = folders.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut ends: Vec<String> = names
        .filter(|it| it != "latest")
        .map(|it| it.rsplit('-').next().unwrap().to_owned())
        .collect();
    ends.sort();
    ends
}

#[test]
fn a_case_that_passes_each_time_passes() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let output = project.ztc(&["run", "l2-namespace", "--repeat", "2"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
    assert!(said.trim_end().ends_with("cases passed in each"), "{said}");
    assert_eq!(left(&project), ["1", "2"]);
}

#[test]
fn the_first_run_that_is_not_as_expected_is_the_last() {
    if !lab_is_possible() {
        return;
    }
    let project = Project::new();
    let mut command = project.ztc(&["run", "l2-namespace", "--until-fail"]);
    let output = command.env("ZTC_LAB_FAULT", "allow-everything").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 4, "{said}{}", stderr(&output));
    assert!(said.contains("1 run: ") && said.contains("never as expected"), "{said}");
    assert_eq!(left(&project), ["1"]);
}

#[test]
fn one_run_is_no_repetition_and_nothing_is_started_for_a_wrong_filter() {
    let project = Project::new();
    for (arguments, words) in [
        (&["run", "--repeat", "1"][..], "1 is not in 2.."),
        (&["run", "--repeat", "2", "--compare", "lab,kind"], "cannot be used with"),
        (&["run", "no-such-case", "--repeat", "2"], "no case has `no-such-case` in its name"),
    ] {
        let output = project.ztc(arguments).output().unwrap();
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{words:?} is not in {}", stderr(&output));
        assert!(!project.path("target").exists(), "something was started");
    }
}
