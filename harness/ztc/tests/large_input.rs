//! Policies of a size and number that nobody wants, and names as long as Kubernetes allows: what is valid is run
//! and decided like anything else.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fmt::Write as _;
use std::fs;

use support::{Project, code, lab_is_possible, stderr};

/// One denial among whatever else is applied.
const SUITE: &str = "
suite: large
about: A denial among many and large policies.
world: two-teams
needs: [cilium]
cases:
  - name: default-deny
    because: Policies about others change nothing.
    apply: [default-deny.yaml, MORE]
    expect:
      - from: zt-shop/web
        send: tcp zt-pay/ledger:9000
        is: denied
        by: cilium
        as: default-deny
        policy: NetworkPolicy/zt-pay/default-deny
";

/// A project with a suite of one case, which applies these files besides a policy that denies.
fn with(files: &[String]) -> Project {
    let project = Project::new();
    fs::create_dir(project.path("suites/large")).unwrap();
    let from = "suites/l2-namespace/default-deny-pay.yaml";
    fs::copy(project.path(from), project.path("suites/large/default-deny.yaml")).unwrap();
    let mut names = Vec::new();
    for (number, text) in files.iter().enumerate() {
        let name = format!("more-{number}.yaml");
        fs::write(project.path("suites/large").join(&name), text).unwrap();
        names.push(name);
    }
    let suite = SUITE.replace("MORE", &names.join(", "));
    fs::write(project.path("suites/large/suite.yaml"), suite).unwrap();
    project
}

fn passes_with(files: &[String]) {
    if !lab_is_possible() {
        return;
    }
    let output = with(files).ztc(&["run", "large::"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
}

/// A policy about pods that nobody has.
fn stranger(name: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{ name: {name}, namespace: zt-shop }}\n\
         spec: {{ podSelector: {{ matchLabels: {{ app: stranger }} }}, policyTypes: [Ingress] }}\n"
    )
}

#[test]
fn a_case_with_ten_thousand_policies_is_decided() {
    let name = |number: usize| format!("stranger-{number}");
    let file = |number: usize| (0..2500).map(|it| stranger(&name(number * 2500 + it))).collect();
    passes_with(&(0..4).map(file).collect::<Vec<String>>());
}

#[test]
fn a_policy_of_a_megabyte_is_decided() {
    let mut policy =
        stranger("everybody-else").replace("[Ingress] }", "[Ingress], ingress: [{ from: [");
    for number in 0.. {
        writeln!(policy, "{{ podSelector: {{ matchLabels: {{ app: stranger-{number} }} }} }},")
            .unwrap();
        if policy.len() > 1_000_000 {
            break;
        }
    }
    policy.push_str("] }] }\n");
    passes_with(&[policy]);
}

#[test]
fn names_as_long_as_kubernetes_allows_are_taken_and_longer_ones_are_not() {
    passes_with(&[stranger(&"a".repeat(253))]);
    let output = with(&[stranger(&"a".repeat(254))]).ztc(&["run", "large::"]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("253"), "{}", stderr(&output));
}

#[test]
fn a_name_may_be_used_once_by_each_kind() {
    passes_with(&["apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: { name: default-deny, namespace: zt-pay }\n\
         spec: { endpointSelector: { matchLabels: { app: stranger } }, ingress: [{}] }\n"
        .to_owned()]);
}
