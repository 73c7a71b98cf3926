//! `ztc mutate`: a suite notices when a policy or a rule of it is gone, and a list says why not.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;

use support::{Project, code, lab_is_possible, stderr};

const SURVIVORS: &str = "suites/survivors.yaml";

/// A policy with a rule that nothing asks about, and a case of it.
const RULES: &str = r"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: ledger-callers
  namespace: zt-pay
spec:
  endpointSelector:
    matchLabels: { app: ledger }
  ingress:
    - fromEndpoints:
        - matchLabels: { k8s:io.kubernetes.pod.namespace: zt-shop, app: web }
    - fromEndpoints:
        - matchLabels: { k8s:io.kubernetes.pod.namespace: kube-system, app: watch }
";

const SUITE: &str = "
suite: team-rules
about: The payments team says who may call its ledger.
world: two-teams
needs: [cilium]
cases:
  - name: only-the-shop-web-calls-the-ledger
    because: ledger-callers has rules for web and watch, so everything else that arrives at the ledger is denied by default.
    apply: [ledger-callers.yaml]
    expect:
      - { from: zt-shop/web, send: tcp zt-pay/ledger:9000, is: allowed }
      - { from: zt-shop/cart, send: tcp zt-pay/ledger:9000, is: denied, by: cilium, as: default-deny }
";

const UNASKED: &str = "team-rules::ledger-callers.yaml: spec.ingress[1] deleted";

fn project() -> Project {
    let project = Project::new();
    let folder = project.path("suites/team-rules");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("suite.yaml"), SUITE).unwrap();
    fs::write(folder.join("ledger-callers.yaml"), RULES).unwrap();
    project
}

fn list(project: &Project, mutant: &str) {
    let text =
        format!("survivors:\n  - mutants: [\"{mutant}\"]\n    because: Nobody asks about watch.\n");
    fs::write(project.path(SURVIVORS), text).unwrap();
}

/// What a run on the suite says, and its exit code.
fn mutate(project: &Project) -> (i32, String) {
    let output = project.ztc(&["mutate", "team-rules", "--out", "out"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (code(&output), format!("{said}{}", stderr(&output)))
}

#[test]
fn what_no_case_asks_about_survives_and_needs_a_reason() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    fs::write(project.path(SURVIVORS), "survivors: []\n").unwrap();
    let (exit, said) = mutate(&project);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains(&format!("survived  {UNASKED}")), "{said}");
    assert!(said.contains("no reason is listed"), "{said}");
    assert!(said.contains("score 66.6 %: 2 of 3 mutants killed"), "{said}");
    let file = fs::read_to_string(project.path("out/mutations.json")).unwrap();
    let all: ztc_report::Mutations = serde_json::from_str(&file).unwrap();
    let words: Vec<_> = all.mutants.iter().map(|it| it.fate.word()).collect();
    assert_eq!(words, ["killed", "killed", "survived"]);

    list(&project, UNASKED);
    let (exit, said) = mutate(&project);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("Nobody asks about watch."), "{said}");
}

#[test]
fn a_reason_for_what_does_not_survive_is_stale() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    project.edit(
        "suites/team-rules/suite.yaml",
        "{ from: zt-shop/web,",
        "{ from: [zt-shop/web, kube-system/watch],",
    );
    for (mutant, what) in [
        (UNASKED, "is killed by team-rules::only-the-shop-web-calls-the-ledger"),
        ("team-rules::ledger-callers.yaml: spec.ingress[7] deleted", "does not exist"),
    ] {
        list(&project, mutant);
        let (exit, said) = mutate(&project);
        assert_eq!(exit, 1, "{said}");
        assert!(said.contains(&format!("stale  {mutant}")) && said.contains(what), "{said}");
        assert!(said.contains(&format!("{SURVIVORS}:2")), "{said}");
    }
}

#[test]
fn a_case_that_does_not_pass_by_itself_kills_nothing() {
    if !lab_is_possible() {
        return;
    }
    let project = project();
    list(&project, UNASKED);
    let mut command = project.ztc(&["mutate", "team-rules", "--out", "out"]);
    let output = command.env("ZTC_LAB_FAULT", "allow-everything").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 3, "{said}{}", stderr(&output));
    assert!(said.contains("0 of 0 mutants") && said.contains("3 undecided"), "{said}");
    assert!(said.contains("without the mutant, too: "), "{said}");
}

#[test]
fn mutants_are_listed_without_starting_anything_and_what_is_wrong_is_told_first() {
    let project = project();
    fs::write(project.path(SURVIVORS), "survivors: []\n").unwrap();
    let output = project.ztc(&["mutate", "--list", "team-rules"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.contains(&format!("{UNASKED} (suites/team-rules/ledger-callers.yaml:3)")),
        "{listed}"
    );
    for (arguments, words) in [
        (&["mutate", "no-such-policy"][..], "no mutant has `no-such-policy` in its name"),
        (&["mutate", "--cluster", "kind"], "mutants are tried on the lab alone"),
        (&["mutate", "team-rules", "--shard", "1/9"], "part 1/9 of 3 mutants"),
        (&["mutate", "--shard", "half"], "write I/N, such as `2/4`"),
    ] {
        let output = project.ztc(arguments).output().unwrap();
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{words:?} is not in {}", stderr(&output));
        assert!(!project.path("target").exists(), "something was started");
    }
    fs::write(project.path(SURVIVORS), "survivors:\n  - { mutants: [a], becuase: b }\n").unwrap();
    let output = project.ztc(&["mutate", "team-rules"]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("unknown field `becuase`"), "{}", stderr(&output));
}
