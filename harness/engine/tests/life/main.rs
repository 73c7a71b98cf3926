//! The life of a case, against a fabric in memory whose every flaw is scripted. Time is paused: a
//! ceiling of seconds passes at once when nothing else is left to do.

mod agents;
mod allowed;
mod attribution;
mod conditions;
mod denials;
mod evidence;
mod fake;
mod interruption;
mod lanes;
mod leaks;
mod mutants;
mod newborns;
mod preconditions;
mod readiness;
mod restarts;
mod streams;
mod worlds;

use ztc_engine::event::Phase;

/// The phases of a case's life.
const PHASES: [Phase; 7] = [
    Phase::Preconditions,
    Phase::Controls,
    Phase::Apply,
    Phase::Settle,
    Phase::Assert,
    Phase::Proof,
    Phase::Recovery,
];

/// A denied flow, by Cilium, because nothing allows it.
const DENIED: &str = r#"
- name: denied
  because: Nothing allows it.
  apply: [default-deny.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, as: default-deny }]
"#;

/// The same, but whoever denies it.
const DENIED_BY_ANYBODY: &str = r#"
- name: denied-by-anybody
  because: Nothing allows it.
  apply: [default-deny.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied }]
"#;

/// An allowed flow under a policy.
const ALLOWED: &str = r#"
- name: allowed
  because: The policy is about another port.
  apply: [default-deny.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9001", is: allowed }]
"#;

/// Two denied flows, each by a policy of its own.
const TWO_DENIALS: &str = r#"
- name: two-denials
  because: Each has a policy of its own.
  apply: [default-deny.yaml, second-deny.yaml]
  expect:
    - { from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, policy: default-deny }
    - { from: shop/web, send: "tcp pay/vault:9001", is: denied, by: cilium, policy: second-deny }
"#;
