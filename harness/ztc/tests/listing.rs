//! The conformance test keeps the contract of libtest and nextest: what it lists, runs, prints and
//! exits with.
//!
//! The process under test is this executable again, told by a variable to be the conformance test.
//! So it is never an older one than the code.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::env;
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Completion, Trial};

use support::{Project, code, lab_is_possible, stderr};

/// The variable that makes this executable the conformance test.
const CONFORMANCE: &str = "ZTC_TEST_CONFORMANCE";

/// What nextest and others list with.
const LIST: [&str; 3] = ["--list", "--format", "terse"];

/// A case that one fault of the lab breaks.
const METADATA: &str = "lab::l1-cluster::the-metadata-service-is-denied-by-name";

type Check = fn();

/// Checks of what is decided by files alone.
const ON_FILES: &[(&str, Check)] = &[
    ("every_case_is_listed_by_its_name_and_nothing_is_started", || {
        let project = Project::new();
        let listed = list(&project, &[]);
        assert!(listed.contains(&METADATA.to_owned()), "{listed:?}");
        for name in &listed {
            let parts: Vec<&str> = name.split("::").collect();
            let [fabric, suite, case] = parts[..] else { panic!("{name} is no name of a case") };
            assert!(fabric == "lab" && !suite.is_empty() && !case.is_empty(), "{name}");
        }
        let shown = project.ztc(&["list"]).output().unwrap();
        let shown: Vec<String> = lines(&shown)
            .iter()
            .map(|line| line.split_once(" (ignored: ").map_or(line.as_str(), |it| it.0).to_owned())
            .collect();
        assert_eq!(shown, listed, "`ztc list` names them otherwise");
        assert!(!project.path("target").exists(), "something was started");
    }),
    ("a_case_that_the_fabric_cannot_run_is_listed_as_ignored_not_hidden", || {
        let project = Project::new();
        let all = list(&project, &[]);
        let before = list(&project, &["--ignored"]);
        assert!(before.iter().all(|name| !name.contains("-probes::")), "{before:?}");

        lacks_ambient_probes(&project);
        assert_eq!(list(&project, &[]), all);
        let lacking = |name: &String| name.contains("-probes::") || before.contains(name);
        let lacking: Vec<String> = all.into_iter().filter(lacking).collect();
        assert!(lacking.len() > before.len());
        assert_eq!(list(&project, &["--ignored"]), lacking);
        assert!(!project.path("target").exists(), "something was started");
    }),
    ("a_filter_narrows_the_list", || {
        let project = Project::new();
        assert_eq!(list(&project, &["the-metadata-service-is-denied-by"]), [METADATA]);
        assert_eq!(list(&project, &[METADATA, "--exact"]), [METADATA]);
        assert!(list(&project, &["the-metadata-service-is-denied-by", "--exact"]).is_empty());
    }),
    ("a_wrong_file_lists_nothing", || {
        let project = Project::new();
        project.edit("suites/l2-namespace/suite.yaml", "because:", "becuase:");
        let output = conformance(&project, &LIST).output().unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert_eq!(lines(&output), [""; 0]);
        assert!(said.contains("suites/l2-namespace/suite.yaml:") && said.contains('^'), "{said}");
        assert!(!project.path("target").exists(), "something was started");
    }),
    ("a_profile_that_is_not_there_lists_nothing", || {
        let project = Project::new();
        let output = conformance(&project, &LIST).env("ZTC_CLUSTER", "moon").output().unwrap();
        assert_eq!(code(&output), 2);
        assert_eq!(lines(&output), [""; 0]);
        assert!(stderr(&output).contains("there is no profile `moon`"), "{}", stderr(&output));
    }),
    ("a_filter_that_selects_nothing_is_refused", || {
        let project = Project::new();
        // A part of a name is a filter, but no exact one.
        for args in [&["no-such-case"][..], &["the-metadata-service", "--exact"]] {
            let output = conformance(&project, args).output().unwrap();
            assert_eq!(code(&output), 2, "{args:?}");
            assert_eq!(lines(&output), [""; 0]);
            assert!(stderr(&output).contains("selects no case"), "{}", stderr(&output));
            assert!(!project.path("target").exists(), "something was started");
        }
    }),
];

/// Checks of what happens on the lab.
const ON_THE_LAB: &[(&str, Check)] = &[
    ("one_case_runs_by_its_exact_name_and_prints_what_libtest_prints", || {
        let project = Project::new();
        let output = conformance(&project, &[METADATA, "--exact", "--nocapture"]).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let printed = lines(&output);
        let [before, running, case, between, result, after] = &printed[..] else {
            panic!("{printed:#?}")
        };
        assert_eq!([before, between, after], ["", "", ""]);
        assert_eq!(running, "running 1 test");
        assert_eq!(*case, format!("test {METADATA} ... ok"));
        assert!(result.starts_with("test result: ok. 1 passed; 0 failed; 0 ignored;"), "{result}");
        let cases: Vec<String> = project.reports().iter().map(|it| it.case.to_string()).collect();
        assert_eq!(cases, [METADATA.trim_start_matches("lab::")]);
    }),
    ("a_process_of_nextest_leaves_its_reports_under_the_names_of_run_and_case", || {
        let project = Project::new();
        let mut command = conformance(&project, &[METADATA, "--exact", "--nocapture"]);
        let output = command.env("NEXTEST_RUN_ID", "a1").output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let folder = format!("target/ztc/nextest-a1-{}", METADATA.replace("::", "-"));
        for report in ["junit.xml", "events.jsonl"] {
            assert!(project.path(&folder).join(report).is_file(), "no {report} in {folder}");
        }
    }),
    ("a_leak_ends_with_its_exit_code_and_is_told_in_three_lines", || {
        let project = Project::new();
        let mut command = conformance(&project, &[METADATA, "--exact", "--nocapture"]);
        let output = command.env("ZTC_LAB_FAULT", "ignore-egress-deny").output().unwrap();
        let printed = lines(&output);
        assert_eq!(code(&output), 4, "{printed:#?}");
        let begin = [
            "",
            "running 1 test",
            &format!("test {METADATA} ... FAILED"),
            "",
            "failures:",
            "",
            &format!("---- {METADATA} ----"),
        ];
        assert!(printed.len() > begin.len() + 3, "{printed:#?}");
        let (before, told) = printed.split_at(begin.len());
        assert_eq!(before, begin);
        let sent = "zt-shop/web sent GET http://169.254.169.254:80/latest/meta-data/";
        assert_eq!(told[0], sent);
        let came = "got through: HTTP 200 from outside/metadata, sent ";
        assert!(told[1].starts_with(came), "{}", told[1]);
        let who = "should have been denied by cilium as explicit-deny \
                   (CiliumClusterwideNetworkPolicy/block-metadata); nobody stopped it";
        assert_eq!(told[2], who);
        let [.., title, case, between, result, after] = told else { panic!("{told:#?}") };
        assert_eq!([title, between, after], ["failures:", "", ""]);
        assert_eq!(*case, format!("    {METADATA}"));
        assert!(result.starts_with("test result: FAILED. 0 passed; 1 failed;"), "{result}");
    }),
    ("what_failed_as_expected_is_ignored_and_a_pass_of_it_fails", || {
        let project = Project::new();
        let known = "a-deny-rule-for-an-ipv4-address-leaves-the-ipv6-address-open";
        let entry = format!(
            "expected-failures: [{{ case: l1-ipv6-metadata::{known}, comes-to: fail-open, fabric: lab, \
             issue: https://example.org/1, until: 9999-12-31, because: It is so. }}]"
        );
        project.edit("suites/expected-failures.yaml", "expected-failures: []", &entry);
        project.edit("clusters/lab.yaml", "streamEveryMs: 5", "streamEveryMs: 20");
        let mut command = conformance(&project, &[known]);
        let output = command.env("ZTC_LAB_FAULT", "ignore-egress-deny").output().unwrap();
        let printed = lines(&output);
        assert_eq!(code(&output), 0, "{printed:#?}{}", stderr(&output));
        let result = "test result: ok. 0 passed; 0 failed; 1 ignored;";
        assert!(printed.iter().any(|line| line.starts_with(result)), "{printed:#?}");
        let told = stderr(&output);
        for words in ["failed as expected", "nobody stopped it", "https://example.org/1"] {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
        let output = conformance(&project, &[known]).output().unwrap();
        let printed = lines(&output);
        assert_eq!(code(&output), 1, "{printed:#?}");
        assert!(printed.iter().any(|line| line.contains("take the entry out")), "{printed:#?}");
    }),
    ("a_run_of_nothing_but_ignored_cases_says_so_and_is_no_failure", || {
        let project = Project::new();
        lacks_ambient_probes(&project);
        let output = conformance(&project, &["l1-probes"]).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let result = "test result: ok. 0 passed; 0 failed; 3 ignored;";
        let printed = lines(&output);
        assert!(printed.iter().any(|line| line.starts_with(result)), "{printed:#?}");
        assert!(project.reports().is_empty(), "an ignored case was run");
    }),
];

fn main() -> ExitCode {
    // The lab and its agents are this executable, too, with the same variable: it comes first.
    if env::var_os(CONFORMANCE).is_some() {
        return ztc::conformance::main();
    }
    let arguments = Arguments::from_args();
    let on_files = ON_FILES.iter().map(|(name, check)| {
        Trial::test(*name, || {
            check();
            Ok(())
        })
    });
    let on_the_lab = ON_THE_LAB.iter().map(|(name, check)| {
        Trial::ignorable_test(*name, || {
            if !lab_is_possible() {
                return Ok(Completion::ignored_with("the lab cannot be entered here"));
            }
            check();
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&arguments, on_files.chain(on_the_lab).collect()).exit_code()
}

/// The conformance test in a project.
fn conformance(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(&env::current_exe().unwrap(), args);
    command.env(CONFORMANCE, "1").env_remove("NEXTEST_RUN_ID");
    command
}

/// The names that it lists, and it must print nothing else.
fn list(project: &Project, args: &[&str]) -> Vec<String> {
    let output = conformance(project, &[&LIST, args].concat()).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let name = |line: String| match line.strip_suffix(": test") {
        Some(name) => name.to_owned(),
        None => panic!("{line:?} is no line of a list"),
    };
    lines(&output).into_iter().map(name).collect()
}

/// What was printed on standard output.
fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Takes from the project's lab what the cases of kubelet's probes need.
fn lacks_ambient_probes(project: &Project) {
    project.edit("clusters/lab.yaml", ", ambient-probes,", ",");
}
