//! Reports of every kind, for the tests of this crate.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;
use ztc_engine::event::{
    CaseReport, CellReport, ChangeReport, ConditionReport, Event, EventKind, EvidenceReport, Phase,
    PolicyText, RunStarted, SCHEMA, StepReport, Summary, WatchedFlow,
};
use ztc_engine::expected::Entry;
use ztc_model::evidence::{Did, Direction, FlowKey};
use ztc_model::manifest::ObjectRef;
use ztc_model::outcome::EnforcementPoint;
use ztc_model::policy::Protocol;
use ztc_model::ruling::{Part, Ruling, Teller};
use ztc_model::suite::CaseId;
use ztc_model::verdict::{Doubt, Failure, Verdict};
use ztc_model::window::{Window, WindowKind};

use crate::comparison::Side;

const BLOCK_METADATA: &str = "CiliumClusterwideNetworkPolicy/block-metadata";

/// A leak in one cell; the other one is as expected.
pub(crate) fn fail_open() -> CaseReport {
    let verdict = Verdict::Fail(Failure::FailOpen {
        seen: "HTTP 200 from outside/metadata".to_owned(),
        after_ms: 12,
    });
    case(
        "metadata-is-denied",
        vec![
            CellReport { send: "tcp outside/web:80".to_owned(), ..allowed(Verdict::Pass) },
            CellReport {
                seen: "HTTP 200 from outside/metadata".to_owned(),
                time_to_enforce_ms: None,
                evidence: vec![
                    record(Did::Allow { direction: Direction::Egress }, 41_000, &[]),
                    record(Did::Allow { direction: Direction::Egress }, 41_001, &[]),
                    record(
                        Did::DenyByRule { direction: Direction::Egress },
                        41_002,
                        &[BLOCK_METADATA],
                    ),
                ],
                ..denied(verdict)
            },
        ],
    )
}

/// An allowed flow that was stopped, and one of which nobody says so.
pub(crate) fn fail_closed() -> CaseReport {
    let seen = "time-out: no answer to the connect".to_owned();
    let stopped_by = "cilium on lab-1: denied at egress: nothing allows it".to_owned();
    case(
        "the-web-is-allowed",
        vec![
            CellReport {
                seen: seen.clone(),
                ..allowed(Verdict::Fail(Failure::FailClosed {
                    seen: seen.clone(),
                    stopped_by: Some(stopped_by),
                }))
            },
            CellReport {
                from: "zt-pay/ledger".to_owned(),
                seen: seen.clone(),
                ..allowed(Verdict::Fail(Failure::FailClosed { seen, stopped_by: None }))
            },
        ],
    )
}

/// A denial by somebody else.
pub(crate) fn wrong_layer() -> CaseReport {
    let did = Did::RefuseName { name: "metadata.example.".to_owned() };
    let evidence = EvidenceReport { point: EnforcementPoint::DnsProxy, ..record(did, 41_000, &[]) };
    let found = "dns-proxy on lab-1: refused the query for metadata.example.".to_owned();
    let verdict = Verdict::Fail(Failure::WrongLayer {
        expected: "cilium as explicit-deny".to_owned(),
        found,
    });
    case(
        "metadata-is-denied",
        vec![CellReport {
            seen: "REFUSED for metadata.example.".to_owned(),
            evidence: vec![evidence],
            ..denied(verdict)
        }],
    )
}

/// A denial by another policy.
pub(crate) fn wrong_policy() -> CaseReport {
    let found = "CiliumNetworkPolicy/zt-shop/no-egress";
    let verdict = Verdict::Fail(Failure::WrongPolicy {
        expected: ObjectRef {
            api_version: "cilium.io/v2".to_owned(),
            kind: "CiliumClusterwideNetworkPolicy".to_owned(),
            namespace: None,
            name: "block-metadata".to_owned(),
        },
        found: vec![found.to_owned()],
    });
    let did = Did::DenyByRule { direction: Direction::Egress };
    case(
        "metadata-is-denied",
        vec![CellReport { evidence: vec![record(did, 41_000, &[found])], ..denied(verdict) }],
    )
}

/// A denial without proof.
pub(crate) fn no_proof() -> CaseReport {
    let seen = "time-out: no answer to the connect";
    let verdict = Verdict::Inconclusive(Doubt::NoProof(format!(
        "after removing {BLOCK_METADATA} alone: {seen}"
    )));
    let did = Did::DenyByDefault { direction: Direction::Egress };
    case(
        "metadata-is-denied",
        vec![CellReport {
            proof: Some(seen.to_owned()),
            evidence: vec![record(did, 41_000, &[])],
            ..denied(verdict)
        }],
    )
}

/// A denial that says nothing: the control did not pass either.
pub(crate) fn no_control() -> CaseReport {
    let seen = "refused".to_owned();
    case(
        "metadata-is-denied",
        vec![CellReport {
            control: Some(seen.clone()),
            proof: None,
            samples: 0,
            settled_by_evidence: 0,
            settled_by_time_out: 0,
            settle_median_us: None,
            time_to_enforce_ms: None,
            seen: "nothing".to_owned(),
            ..denied(Verdict::Inconclusive(Doubt::Control(seen)))
        }],
    )
}

/// A case that could not begin.
pub(crate) fn no_fabric() -> CaseReport {
    let doubt = Doubt::Fabric("lane 0 did not come up: no TUN device".to_owned());
    CaseReport {
        verdict: Verdict::Inconclusive(doubt),
        settled_ms: None,
        ..case("metadata-is-denied", Vec::new())
    }
}

/// A case whose flows are as expected, and of whose policy a controller says something else.
pub(crate) fn wrong_condition() -> CaseReport {
    let object = ObjectRef {
        api_version: "security.istio.io/v1".to_owned(),
        kind: "AuthorizationPolicy".to_owned(),
        namespace: Some("zt-bank".to_owned()),
        name: "deny-post".to_owned(),
    };
    let expected = "ZtunnelAccepted=True, UnsupportedValue".to_owned();
    let verdict = Verdict::Fail(Failure::WrongCondition {
        object: Box::new(object.clone()),
        expected: expected.clone(),
        found: "ZtunnelAccepted=True, Accepted: attached to ztunnel".to_owned(),
    });
    let object = object.to_string();
    let condition = ConditionReport { object, expected, verdict: verdict.clone(), found: None };
    let flows = case("metadata-is-denied", vec![allowed(Verdict::Pass)]);
    CaseReport { verdict, conditions: vec![condition], ..flows }
}

/// A case that is as expected.
pub(crate) fn pass() -> CaseReport {
    CaseReport {
        settled_ms: Some(2),
        ..case("metadata-is-denied", vec![denied(Verdict::Pass), allowed(Verdict::Pass)])
    }
}

/// A case of a few cells.
pub(crate) fn case(name: &str, cells: Vec<CellReport>) -> CaseReport {
    CaseReport {
        case: CaseId::new("l1-cluster", name),
        because:
            "A metadata service gives the credentials of the node to every pod that can reach \
                  it."
            .to_owned(),
        gap: None,
        place: "suites/l1-cluster/metadata.yaml:14".to_owned(),
        lane: 0,
        verdict: Verdict::worst(cells.iter().map(|cell| cell.verdict.clone())),
        took_ms: 612,
        settled_ms: Some(2),
        applied: vec![block_metadata().place],
        cells,
        residue: None,
        conditions: Vec::new(),
        inspections: Vec::new(),
        expected_failure: None,
    }
}

/// What the cases of the sample apply; its text is as bad as one may be.
pub(crate) fn block_metadata() -> PolicyText {
    PolicyText {
        policy: BLOCK_METADATA.to_owned(),
        place: "suites/l1-cluster/block-metadata.yaml:2".to_owned(),
        text: "kind: CiliumClusterwideNetworkPolicy # </pre><script>alert(1)</script>".to_owned(),
    }
}

/// A policy whose rules are on lines of their own: its text begins at line 3 of its file.
pub(crate) fn default_deny() -> PolicyText {
    PolicyText {
        policy: "CiliumNetworkPolicy/zt-shop/default-deny".to_owned(),
        place: "suites/l2-namespace/default-deny.yaml:4".to_owned(),
        text: "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: default-deny, namespace: zt-shop }
spec:
  endpointSelector: {}
  egress:
    - toEntities: [cluster]
      toPorts:
        # <b>of</b> DNS
        - ports: [{ port: \"53\" }]
  egressDeny:
    - toCIDR: [169.254.169.254/32]
"
        .to_owned(),
    }
}

/// What of it decided.
pub(crate) fn ruling(part: Part) -> Ruling {
    Ruling { policy: default_deny().policy.parse().unwrap(), part, by: Teller::Model }
}

/// A case of which a failure is known until a day, as it stands to that on 24 November 2026.
pub(crate) fn known(comes_to: &str, until: &str, mut report: CaseReport) -> CaseReport {
    let entry = Entry {
        comes_to: serde_json::from_value(comes_to.into()).unwrap(),
        issue: "https://github.com/cilium/cilium/issues/40404".to_owned(),
        until: until.parse().unwrap(),
        because: "The agent forgets the rule when it restarts.".to_owned(),
        place: "suites/expected-failures.yaml:5".to_owned(),
    };
    report.hold_against(&entry, "2026-11-24".parse().unwrap());
    report
}

/// A cell that must be denied.
pub(crate) fn denied(verdict: Verdict) -> CellReport {
    CellReport {
        from: "zt-shop/web".to_owned(),
        send: "GET http://169.254.169.254:80/".to_owned(),
        expected: format!("denied by cilium as explicit-deny ({BLOCK_METADATA})"),
        expected_by: Some(EnforcementPoint::Cilium),
        verdict,
        seen: "silence so far: no answer to the connect".to_owned(),
        control: Some("HTTP 200 from outside/metadata".to_owned()),
        proof: Some("HTTP 200 from outside/metadata".to_owned()),
        time_to_enforce_ms: Some(3),
        samples: 20,
        settled_by_evidence: 19,
        settled_by_time_out: 1,
        settle_median_us: Some(3_140),
        loss: None,
        evidence: Vec::new(),
        wire: Vec::new(),
    }
}

/// A cell that must be allowed.
pub(crate) fn allowed(verdict: Verdict) -> CellReport {
    CellReport {
        expected: "allowed".to_owned(),
        expected_by: None,
        seen: "answered by outside/web".to_owned(),
        control: None,
        proof: None,
        time_to_enforce_ms: None,
        settled_by_evidence: 0,
        settled_by_time_out: 0,
        settle_median_us: None,
        ..denied(verdict)
    }
}

pub(crate) fn record(did: Did, port: u16, policies: &[&str]) -> EvidenceReport {
    EvidenceReport {
        point: EnforcementPoint::Cilium,
        node: "lab-1".to_owned(),
        flow: FlowKey {
            protocol: Protocol::Tcp,
            source: SocketAddr::from(([10, 0, 1, 5], port)),
            destination: SocketAddr::from(([169, 254, 169, 254], 80)),
        },
        did,
        policies: policies.iter().map(ToString::to_string).collect(),
        rulings: Vec::new(),
        record: json!({"flow": {"verdict": "DROPPED", "uuid": port}}),
    }
}

/// The first event of a run of these cases on the lab.
pub(crate) fn started(cases: Vec<CaseId>) -> Event {
    at(
        0,
        EventKind::RunStarted(RunStarted {
            schema: SCHEMA,
            run: "2026-11-24-0410-a1".to_owned(),
            started: "2026-11-24T04:10:00Z".to_owned(),
            ztc: "0.1.0".to_owned(),
            profile: "clusters/lab.yaml".to_owned(),
            fabric: "lab".to_owned(),
            lanes: 2,
            cases,
            versions: BTreeMap::new(),
            questions: BTreeMap::new(),
            unproven: Vec::new(),
            faults: None,
        }),
    )
}

/// A run on the lab: a leak, a pass, an ignored case.
pub(crate) fn run() -> Vec<Event> {
    let [leak, pass] = [
        fail_open(),
        CaseReport {
            case: CaseId::new("l1-cluster", "dns-is-allowed-through-the-proxy"),
            took_ms: 1_234,
            ..pass()
        },
    ];
    let cases = vec![leak.case.clone(), pass.case.clone()];
    let summary =
        Summary { passed: 1, failed_open: 1, ignored: 1, took_ms: 2_480, ..Summary::default() };
    vec![
        started(cases),
        at(
            10,
            EventKind::CaseIgnored {
                case: CaseId::new("l5-waypoint", "post-is-denied"),
                reason: "the fabric lacks: waypoint".to_owned(),
            },
        ),
        at(20, EventKind::PolicyRead(block_metadata())),
        at(400_000, EventKind::LaneUp { lane: 0, world: "two-teams".to_owned(), took_ms: 400 }),
        at(400_100, EventKind::CaseStarted { case: leak.case.clone(), lane: 0 }),
        at(400_200, EventKind::CasePhase { case: leak.case.clone(), phase: Phase::Controls }),
        at(1_012_000, EventKind::CaseFinished(Box::new(leak))),
        at(1_012_100, EventKind::CaseStarted { case: pass.case.clone(), lane: 0 }),
        at(2_246_100, EventKind::CaseFinished(Box::new(pass))),
        at(2_480_000, EventKind::RunFinished(summary)),
    ]
}

/// An event of that kind, that many microseconds after the start.
pub(crate) fn at(at_us: u64, kind: EventKind) -> Event {
    Event { at_us, kind }
}

/// The events of a run of these cases on a profile of that name.
pub(crate) fn events(profile: &str, reports: &[CaseReport]) -> Vec<Event> {
    let mut started = started(reports.iter().map(|it| it.case.clone()).collect());
    if let EventKind::RunStarted(run) = &mut started.kind {
        run.run = format!("2026-11-24-0410-{profile}");
        run.profile = profile.to_owned();
        run.fabric = profile.to_owned();
    }
    let mut summary = Summary { took_ms: 2_480, ..Summary::default() };
    for report in reports {
        summary.count(report);
    }
    let finished = reports.iter().map(|it| EventKind::CaseFinished(Box::new(it.clone())));
    let finished = finished.chain([EventKind::RunFinished(summary)]);
    [started].into_iter().chain(finished.map(|kind| at(0, kind))).collect()
}

/// The same, put together.
pub(crate) fn side(profile: &str, reports: &[CaseReport]) -> Side {
    Side::of(events(profile, reports)).unwrap()
}

/// A window of a flow, known to samples of every 10 ms.
pub(crate) fn window(kind: WindowKind, from_us: u64, until_us: u64, seen: &str) -> Window {
    let end = |port| Some(([10, 0, 1, 2], port).into());
    let samples = (until_us - from_us) / 10_000;
    let (first, last) = (end(4001), end(4006));
    Window { kind, from_us, until_us, samples, first, last, seen: seen.to_owned() }
}

/// A flow that was watched while something changed.
pub(crate) fn watched(send: &str, denied: bool, windows: Vec<Window>) -> WatchedFlow {
    WatchedFlow {
        cell: 0,
        from: "zt-shop/web".to_owned(),
        send: send.to_owned(),
        expected: if denied { "denied by cilium as default-deny (…)" } else { "allowed" }
            .to_owned(),
        denied,
        point: denied.then_some(EnforcementPoint::Cilium),
        samples: 420,
        slowest_us: if denied { 0 } else { 31_000 },
        reconnects: (!denied).then_some(1),
        births: None,
        windows,
        evidence: Vec::new(),
    }
}

/// A restart of Cilium while these flows were watched.
pub(crate) fn change(flows: Vec<WatchedFlow>) -> ChangeReport {
    let step =
        |step: &str, from_us, until_us| StepReport { step: step.to_owned(), from_us, until_us };
    ChangeReport {
        case: CaseId::new("l1-cluster", "baseline"),
        steps: vec![
            step("before", 0, 2_000_000),
            step("restart cilium", 2_000_000, 2_210_000),
            step("after", 2_210_000, 4_210_000),
        ],
        every_us: 10_000,
        outage_us: 0,
        after_ms: 40,
        flows,
        unwatched: Vec::new(),
        trouble: None,
    }
}
