//! The order of the questions that `verdict::judge` asks, one statement a test.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use ztc_model::capture::{AtNode, Wire};
use ztc_model::evidence::{Did, Direction, Evidence, FlowKey, Record};
use ztc_model::hubble;
use ztc_model::manifest::ObjectRef;
use ztc_model::outcome::{EnforcementPoint, Expected, Form, Seen};
use ztc_model::policy::{PolicyKind, PolicyRef, Protocol};
use ztc_model::verdict::{Doubt, Facts, Failure, Sample, Verdict, judge, lost};
use ztc_model::world::NodeSlot;
use ztc_wire::{Canary, DnsRcode, Observed, Phase, Sighting, Speaks, Tunnel};

const EGRESS: Direction = Direction::Egress;

fn policy(name: &str) -> PolicyRef {
    PolicyRef {
        kind: PolicyKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: name.to_owned(),
    }
}

fn denied(by: Option<EnforcementPoint>, form: Option<Form>) -> Expected {
    Expected::Denied { by, form, policy: ObjectRef::from(&policy("block")), behind: vec![] }
}

fn by_cilium() -> Expected {
    denied(Some(EnforcementPoint::Cilium), None)
}

fn peers() -> BTreeSet<String> {
    BTreeSet::from(["zt-pay/ledger".to_owned()])
}

fn answered_by(peer: &str) -> Seen {
    let remote = "10.0.0.2:9000".parse().expect("an address");
    Seen::Client(Observed::Reply { peer: peer.to_owned(), remote })
}

fn through() -> Seen {
    answered_by("zt-pay/ledger")
}

fn silence() -> Seen {
    Seen::Client(Observed::Cancelled { phase: Phase::Connect })
}

fn record(point: EnforcementPoint, did: Did, named: &[&str]) -> Arc<Evidence> {
    Arc::new(Evidence {
        point,
        node: "node-a".to_owned(),
        flow: FlowKey {
            protocol: Protocol::Tcp,
            source: "10.0.0.1:40000".parse().expect("an address"),
            destination: "10.0.0.2:9000".parse().expect("an address"),
        },
        did,
        opening: true,
        policies: named.iter().map(|name| policy(name)).collect(),
        record: Record::Hubble(Arc::new(hubble::Line {
            flow: hubble::Flow::default(),
            node_name: "node-a".to_owned(),
            time: String::new(),
        })),
    })
}

fn sample(seen: Seen, evidence: Vec<Arc<Evidence>>) -> Sample {
    Sample { after_ms: 7, seen, evidence }
}

/// A denial with everything that a pass needs.
fn proven() -> Facts {
    let by_rule =
        record(EnforcementPoint::Cilium, Did::DenyByRule { direction: EGRESS }, &["block"]);
    Facts {
        broken: None,
        control: Some(through()),
        unsettled: None,
        meanwhile: Vec::new(),
        samples: vec![sample(silence(), vec![by_rule]), sample(silence(), vec![])],
        beyond: Vec::new(),
        wire: vec![],
        proof: Some(through()),
        recovery: Some(through()),
    }
}

fn doubt(verdict: &Verdict) -> &Doubt {
    match verdict {
        Verdict::Inconclusive(doubt) => doubt,
        verdict => panic!("not inconclusive: {verdict}"),
    }
}

fn failure(verdict: &Verdict) -> &Failure {
    match verdict {
        Verdict::Fail(failure) => failure,
        verdict => panic!("no failure: {verdict}"),
    }
}

fn judged(expected: &Expected, change: impl FnOnce(&mut Facts)) -> Verdict {
    let mut facts = proven();
    change(&mut facts);
    judge(expected, &peers(), &facts)
}

#[test]
fn a_denial_with_control_record_proof_and_recovery_passes() {
    assert_eq!(judged(&by_cilium(), |_| {}), Verdict::Pass);
}

#[test]
fn a_leak_outranks_every_doubt() {
    let verdict = judged(&by_cilium(), |facts| {
        facts.broken = Some(Doubt::Interrupted);
        facts.control = None;
        facts.proof = None;
        facts.samples.push(sample(through(), vec![]));
    });
    let Failure::FailOpen { seen, after_ms } = failure(&verdict) else {
        panic!("{verdict}");
    };
    assert_eq!((seen.as_str(), *after_ms), ("answered by zt-pay/ledger", 7));
}

#[test]
fn a_nonce_wins_over_the_record_of_the_same_flow() {
    let verdict = judged(&by_cilium(), |facts| facts.samples[0].seen = through());
    assert!(matches!(failure(&verdict), Failure::FailOpen { .. }));
}

#[test]
fn an_answer_from_somebody_else_is_a_leak_too() {
    let verdict = judged(&by_cilium(), |facts| facts.samples[0].seen = answered_by("zt-shop/web"));
    assert!(matches!(failure(&verdict), Failure::FailOpen { .. }));
}

#[test]
fn a_denial_without_a_control_is_inconclusive() {
    for control in [None, Some(silence())] {
        let verdict = judged(&by_cilium(), |facts| facts.control = control);
        assert!(matches!(doubt(&verdict), Doubt::Control(_)), "{verdict}");
    }
}

#[test]
fn a_client_that_could_not_send_decides_nothing() {
    let unsent =
        Seen::Client(Observed::Unsent { operation: "bind".to_owned(), error: "no".to_owned() });
    for expected in [by_cilium(), Expected::Allowed { via: None, wire: None }] {
        let verdict = judged(&expected, |facts| {
            facts.samples = vec![sample(unsent.clone(), vec![])];
        });
        assert!(matches!(doubt(&verdict), Doubt::Client(_)), "{verdict}");
    }
}

#[test]
fn nothing_sent_is_inconclusive() {
    for expected in [by_cilium(), Expected::Allowed { via: None, wire: None }] {
        let verdict = judged(&expected, |facts| facts.samples.clear());
        assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
    }
}

#[test]
fn an_attributed_denial_needs_a_record_and_an_open_one_does_not() {
    let lose = |facts: &mut Facts| facts.samples[0].evidence.clear();
    assert!(matches!(doubt(&judged(&by_cilium(), lose)), Doubt::NoEvidence(_)));
    assert_eq!(judged(&denied(None, None), lose), Verdict::Pass);
}

#[test]
fn a_record_of_another_enforcement_point_is_the_wrong_layer() {
    let verdict = judged(&by_cilium(), |facts| {
        let name = "api.zt.test.".to_owned();
        facts.samples[1].evidence =
            vec![record(EnforcementPoint::DnsProxy, Did::RefuseName { name }, &[])];
    });
    assert!(matches!(failure(&verdict), Failure::WrongLayer { .. }), "{verdict}");
}

#[test]
fn a_denial_in_another_form_is_the_wrong_layer() {
    let expected = denied(Some(EnforcementPoint::Cilium), Some(Form::DefaultDeny));
    let verdict = judged(&expected, |_| {});
    assert!(matches!(failure(&verdict), Failure::WrongLayer { .. }), "{verdict}");
}

#[test]
fn a_record_that_names_another_policy_is_the_wrong_policy() {
    let verdict = judged(&by_cilium(), |facts| {
        let did = Did::DenyByRule { direction: EGRESS };
        facts.samples[0].evidence = vec![record(EnforcementPoint::Cilium, did, &["other"])];
    });
    assert!(matches!(failure(&verdict), Failure::WrongPolicy { .. }), "{verdict}");
}

#[test]
fn an_explicit_deny_that_no_record_names_is_inconclusive() {
    let expected = denied(Some(EnforcementPoint::Cilium), Some(Form::ExplicitDeny));
    let verdict = judged(&expected, |facts| {
        let did = Did::DenyByRule { direction: EGRESS };
        facts.samples[0].evidence = vec![record(EnforcementPoint::Cilium, did, &[])];
    });
    assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
}

#[test]
fn a_drop_that_is_no_policy_attributes_nothing() {
    let verdict = judged(&by_cilium(), |facts| {
        let did = Did::DropOtherwise { reason: "INVALID_SOURCE_IP".to_owned() };
        facts.samples[0].evidence = vec![record(EnforcementPoint::Cilium, did, &[])];
    });
    assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
}

#[test]
fn a_flow_that_stays_denied_without_its_policy_has_no_proof() {
    for proof in [None, Some(silence())] {
        let verdict = judged(&by_cilium(), |facts| facts.proof = proof);
        assert!(matches!(doubt(&verdict), Doubt::NoProof(_)), "{verdict}");
    }
}

#[test]
fn traffic_that_does_not_recover_is_inconclusive() {
    for recovery in [None, Some(silence())] {
        let verdict = judged(&by_cilium(), |facts| facts.recovery = recovery);
        assert!(matches!(doubt(&verdict), Doubt::NoRecovery(_)), "{verdict}");
    }
}

#[test]
fn a_denial_that_never_became_true_is_inconclusive() {
    let verdict = judged(&by_cilium(), |facts| facts.unsettled = Some("too slow".to_owned()));
    assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
}

#[test]
fn one_dropped_sample_of_an_allowed_flow_is_fail_closed_and_names_who_stopped_it() {
    let verdict = judged(&Expected::Allowed { via: None, wire: None }, |facts| {
        facts.samples.insert(0, sample(through(), vec![]));
    });
    let Failure::FailClosed { stopped_by: Some(by), .. } = failure(&verdict) else {
        panic!("{verdict}");
    };
    assert_eq!(
        by,
        "cilium on node-a: denied at egress by a deny rule of CiliumClusterwideNetworkPolicy/block"
    );
}

#[test]
fn an_allowed_flow_that_must_pass_a_point_needs_its_record() {
    let via = Expected::Allowed { via: Some(EnforcementPoint::DnsProxy), wire: None };
    let pass = |evidence| judged(&via, |facts| facts.samples = vec![sample(through(), evidence)]);
    assert!(matches!(doubt(&pass(vec![])), Doubt::NoEvidence(_)));
    let allow = Did::Allow { direction: EGRESS };
    assert_eq!(pass(vec![record(EnforcementPoint::DnsProxy, allow, &[])]), Verdict::Pass);
}

#[test]
fn any_dns_answer_but_a_refusal_proves_that_the_query_got_through() {
    let dns = |rcode| {
        Seen::Client(Observed::Dns {
            rcode,
            answers: vec![],
            peer: None,
            remote: "10.96.0.10:53".parse().unwrap(),
        })
    };
    let verdict = judged(&by_cilium(), |facts| facts.samples[0].seen = dns(DnsRcode::NXDOMAIN));
    assert!(matches!(failure(&verdict), Failure::FailOpen { .. }), "{verdict}");
    let verdict = judged(&by_cilium(), |facts| facts.samples[0].seen = dns(DnsRcode::REFUSED));
    assert_eq!(verdict, Verdict::Pass);
}

/// What became of a denied and of an allowed flow that was seen so.
fn over_tls(observed: &Observed) -> [Verdict; 2] {
    [by_cilium(), Expected::Allowed { via: None, wire: None }].map(|expected| {
        judged(&expected, |facts| facts.samples[0].seen = Seen::Client(observed.clone()))
    })
}

#[test]
fn a_host_of_ours_with_another_name_was_reached_and_is_not_who_was_meant() {
    let [denied, allowed] = over_tls(&Observed::WrongName { names: vec!["a.zt.test".to_owned()] });
    assert!(matches!(failure(&denied), Failure::FailOpen { .. }), "{denied}");
    assert!(matches!(failure(&allowed), Failure::FailClosed { .. }), "{allowed}");
}

#[test]
fn an_alert_and_a_foreign_certificate_prove_no_denial() {
    let alert = Observed::TlsAlert { description: "unrecognized_name".to_owned() };
    let foreign = Observed::Untrusted { error: "expired".to_owned() };
    for observed in [alert, foreign] {
        let [denied, allowed] = over_tls(&observed);
        assert!(matches!(doubt(&denied), Doubt::NoEvidence(_)), "{denied}");
        assert!(matches!(failure(&allowed), Failure::FailClosed { .. }), "{allowed}");
    }
}

#[test]
fn a_handshake_that_is_cut_is_denied_only_with_a_record_of_who_cut_it() {
    let cut = Seen::Client(Observed::HandshakeCut { reset: true });
    let verdict = judged(&by_cilium(), |facts| facts.samples[0].seen = cut.clone());
    assert_eq!(verdict, Verdict::Pass);
    let verdict = judged(&by_cilium(), |facts| facts.samples = vec![sample(cut, vec![])]);
    assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(through()),
        Just(silence()),
        Just(answered_by("zt-shop/web")),
        Just(Seen::Client(Observed::Refused)),
        Just(Seen::Client(Observed::HandshakeCut { reset: false })),
        Just(Seen::Client(Observed::TlsAlert { description: "close_notify".to_owned() })),
        Just(Seen::Client(Observed::Untrusted { error: "expired".to_owned() })),
        Just(Seen::Client(Observed::Garbled { got: "?".to_owned() })),
        Just(Seen::Client(Observed::Unsent {
            operation: "bind".to_owned(),
            error: "no".to_owned()
        })),
        Just(Seen::Kubelet { ready: true, message: None }),
        Just(Seen::Kubelet { ready: false, message: None }),
    ]
}

fn any_evidence() -> impl Strategy<Value = Vec<Arc<Evidence>>> {
    let did = prop_oneof![
        Just(Did::Allow { direction: EGRESS }),
        Just(Did::DenyByRule { direction: EGRESS }),
        Just(Did::DenyByDefault { direction: EGRESS }),
        Just(Did::DropOtherwise { reason: "CT_TRUNC".to_owned() }),
    ];
    let named = prop_oneof![Just(vec![]), Just(vec!["block"]), Just(vec!["other"])];
    prop::collection::vec(
        (did, named).prop_map(|(did, named)| record(EnforcementPoint::Cilium, did, &named)),
        0..3,
    )
}

prop_compose! {
    fn any_facts()(
        broken in prop::option::of(Just(Doubt::Interrupted)),
        control in prop::option::of(any_seen()),
        unsettled in prop::option::of(Just("late".to_owned())),
        meanwhile in prop::collection::vec((any_seen(), any_evidence()), 0..4),
        samples in prop::collection::vec((any_seen(), any_evidence()), 0..4),
        proof in prop::option::of(any_seen()),
        recovery in prop::option::of(any_seen()),
    ) -> Facts {
        let all = |it: Vec<_>| it.into_iter().map(|(seen, evidence)| sample(seen, evidence)).collect();
        let (meanwhile, samples) = (all(meanwhile), all(samples));
        Facts { broken, control, unsettled, meanwhile, samples, beyond: Vec::new(), wire: Vec::new(), proof, recovery }
    }
}

proptest! {
    /// Whatever else is known, a denied flow that was answered is never a pass and never in doubt.
    #[test]
    fn no_set_of_facts_hides_a_leak(mut facts in any_facts(), at in 0_usize..4) {
        facts.samples.insert(at.min(facts.samples.len()), sample(through(), vec![]));
        let verdict = judge(&by_cilium(), &peers(), &facts);
        prop_assert_eq!(verdict.word(), "fail-open");
    }

    /// Taking any one leg away from under a pass leaves no pass.
    #[test]
    fn a_pass_stands_on_every_leg(facts in any_facts()) {
        if judge(&by_cilium(), &peers(), &facts) == Verdict::Pass {
            let kick: [fn(&mut Facts); 4] = [
                |it| it.control = None,
                |it| it.proof = None,
                |it| it.recovery = None,
                |it| it.samples.iter_mut().for_each(|sample| sample.evidence.clear()),
            ];
            for leg in kick {
                let mut lame = facts.clone();
                leg(&mut lame);
                prop_assert_ne!(judge(&by_cilium(), &peers(), &lame), Verdict::Pass);
            }
        }
    }
}

fn interrupted() -> Expected {
    Expected::Interrupted {
        by: Some(EnforcementPoint::Cilium),
        form: Some(Form::DefaultDeny),
        policy: ObjectRef::from(&policy("block")),
    }
}

fn dropped() -> Arc<Evidence> {
    record(EnforcementPoint::Cilium, Did::DenyByDefault { direction: EGRESS }, &[])
}

/// A stream that was stopped for a while, between two policies.
fn paused() -> Facts {
    Facts {
        control: Some(through()),
        meanwhile: vec![
            sample(through(), vec![]),
            sample(silence(), vec![dropped()]),
            sample(through(), vec![]),
        ],
        samples: vec![sample(through(), vec![])],
        ..Facts::default()
    }
}

fn judged_stream(expected: &Expected, change: impl FnOnce(&mut Facts)) -> Verdict {
    let mut facts = paused();
    change(&mut facts);
    judge(expected, &peers(), &facts)
}

#[test]
fn a_flow_that_loses_one_stimulus_is_not_allowed_throughout() {
    let verdict = judged_stream(&Expected::Throughout, |_| ());
    let Failure::FailClosed { stopped_by: Some(by), .. } = failure(&verdict) else {
        panic!("{verdict}")
    };
    assert_eq!(by, "cilium on node-a: denied at egress: nothing allows it");
    let whole = |facts: &mut Facts| facts.meanwhile.truncate(1);
    assert_eq!(judged_stream(&Expected::Throughout, whole), Verdict::Pass);
}

#[test]
fn a_connection_that_came_about_at_the_second_attempt_was_lost_at_the_first() {
    let late = |facts: &mut Facts| facts.meanwhile[1].seen = through();
    let verdict = judged_stream(&Expected::Throughout, late);
    assert_eq!(verdict.word(), "fail-closed");
    assert_eq!(lost(&peers(), &paused()), 1);
}

#[test]
fn an_interruption_has_a_record_of_who_made_it() {
    assert_eq!(judged_stream(&interrupted(), |_| ()), Verdict::Pass);
    let nameless = |facts: &mut Facts| facts.meanwhile[1].evidence.clear();
    assert!(matches!(doubt(&judged_stream(&interrupted(), nameless)), Doubt::NoEvidence(_)));
    let another = |facts: &mut Facts| {
        facts.meanwhile[1].evidence =
            vec![record(EnforcementPoint::DnsProxy, Did::RefuseName { name: "x".into() }, &[])];
    };
    assert_eq!(judged_stream(&interrupted(), another).word(), "wrong-layer");
}

/// As recorded on a real cluster: the agent read the drop when the allowance was there already.
#[test]
fn an_interruption_is_not_the_work_of_the_allowance_that_ends_it() {
    let late = |facts: &mut Facts| {
        let did = Did::DenyByDefault { direction: EGRESS };
        facts.meanwhile[1].evidence = vec![record(EnforcementPoint::Cilium, did, &["allow-dns"])];
    };
    assert_eq!(judged_stream(&interrupted(), late), Verdict::Pass);
    let by_a_rule = |facts: &mut Facts| {
        let did = Did::DenyByRule { direction: EGRESS };
        facts.meanwhile[1].evidence = vec![record(EnforcementPoint::Cilium, did, &["deny-dns"])];
    };
    assert_eq!(judged_stream(&interrupted(), by_a_rule).word(), "wrong-layer");
}

#[test]
fn a_flow_that_goes_on_is_not_interrupted() {
    let whole = |facts: &mut Facts| facts.meanwhile.truncate(1);
    assert_eq!(judged_stream(&interrupted(), whole).word(), "fail-open");
}

#[test]
fn a_flow_that_does_not_come_back_is_not_interrupted() {
    let gone = |facts: &mut Facts| facts.samples[0] = sample(silence(), vec![dropped()]);
    assert_eq!(judged_stream(&interrupted(), gone).word(), "fail-closed");
}

#[test]
fn a_stream_that_was_not_watched_shows_nothing() {
    for expected in [Expected::Throughout, interrupted()] {
        let unwatched = |facts: &mut Facts| facts.meanwhile.clear();
        assert!(matches!(doubt(&judged_stream(&expected, unwatched)), Doubt::NoEvidence(_)));
        let unfinished = |facts: &mut Facts| facts.samples.clear();
        assert!(matches!(doubt(&judged_stream(&expected, unfinished)), Doubt::NoEvidence(_)));
    }
    let uncontrolled = |facts: &mut Facts| facts.control = Some(silence());
    assert!(matches!(doubt(&judged_stream(&interrupted(), uncontrolled)), Doubt::Control(_)));
}

fn tunnel(speaks: Speaks) -> Tunnel {
    Tunnel {
        client: "10.0.1.5:61000".parse().expect("an address"),
        server: "10.0.0.7:15008".parse().expect("an address"),
        sent: 1000,
        received: 1000,
        speaks,
        excerpt: vec![],
    }
}

fn sighting() -> Sighting {
    Sighting {
        canary: Canary::new(1),
        count: 3,
        source: "10.0.1.5:20000".parse().expect("an address"),
        destination: "10.0.0.7:9000".parse().expect("an address"),
        excerpt: vec![],
    }
}

/// What is seen on a node of what is encrypted as it ought to be.
fn at(node: NodeSlot) -> AtNode {
    AtNode {
        node,
        failed: None,
        packets: 100,
        lost: 0,
        in_clear: None,
        tunnels: vec![tunnel(Speaks::Tls13), tunnel(Speaks::TlsUnderWay)],
        controlled: true,
    }
}

type Change = fn(&mut AtNode);

/// What an allowed flow comes to, of which this was on the wires of two nodes.
fn on_the_wire(wire: Wire, change: impl FnOnce(&mut AtNode)) -> Verdict {
    let mut second = at(NodeSlot::B);
    change(&mut second);
    judged(&Expected::Allowed { via: None, wire: Some(wire) }, |facts| {
        facts.samples = vec![sample(through(), vec![])];
        facts.wire = match wire {
            Wire::Encrypted => vec![at(NodeSlot::A), second],
            Wire::Clear => vec![second],
        };
    })
}

#[test]
fn what_is_encrypted_is_in_tunnels_alone_on_every_node() {
    assert_eq!(on_the_wire(Wire::Encrypted, |_| {}), Verdict::Pass);
    let verdict = on_the_wire(Wire::Encrypted, |at| at.in_clear = Some(sighting()));
    assert_eq!(
        verdict.to_string(),
        "fail-open: its nonce was on the wire in clear on node b: 10.0.1.5:20000 -> 10.0.0.7:9000, and 2 more"
    );
    assert_eq!(verdict.severity(), 3);
}

#[test]
fn what_must_be_encrypted_and_is_in_clear_outranks_every_doubt() {
    let expected = Expected::Allowed { via: None, wire: Some(Wire::Encrypted) };
    let verdict = judged(&expected, |facts| {
        facts.broken = Some(Doubt::Interrupted);
        facts.samples.clear();
        let lossy = AtNode { lost: 5, controlled: false, tunnels: vec![], ..at(NodeSlot::A) };
        facts.wire = vec![AtNode { in_clear: Some(sighting()), ..lossy }];
    });
    assert!(matches!(failure(&verdict), Failure::InClear { .. }), "{verdict}");
}

#[test]
fn that_nothing_was_in_clear_proves_nothing_unless_the_capture_saw_everything() {
    let changes: [(Change, &str); 6] = [
        (|at| at.failed = Some("no permission".to_owned()), "no capture on node b: no permission"),
        (|at| at.lost = 1, "could not keep 1 packets"),
        (|at| at.controlled = false, "may be blind"),
        (|at| at.tunnels.clear(), "nothing was seen in a tunnel between the two on node b"),
        (|at| at.tunnels.iter_mut().for_each(|it| it.sent = 0), "nothing was seen in a tunnel"),
        (|at| at.tunnels[1].speaks = Speaks::NotTls, "10.0.0.7:15008 on node b carries no TLS"),
    ];
    for (change, why) in changes {
        let verdict = on_the_wire(Wire::Encrypted, change);
        let Doubt::NoEvidence(told) = doubt(&verdict) else { panic!("{verdict}") };
        assert!(told.contains(why), "{told}");
    }
    for speaks in [Speaks::Unclear, Speaks::OtherTls { version: 771 }] {
        let verdict = on_the_wire(Wire::Encrypted, |at| at.tunnels[0].speaks = speaks);
        assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
    }
    let verdict = judged(&Expected::Allowed { via: None, wire: Some(Wire::Encrypted) }, |facts| {
        facts.samples = vec![sample(through(), vec![])];
    });
    assert!(matches!(doubt(&verdict), Doubt::NoEvidence(_)), "{verdict}");
}

#[test]
fn what_is_in_clear_has_to_be_seen_so() {
    let seen = on_the_wire(Wire::Clear, |at| at.in_clear = Some(sighting()));
    assert_eq!(seen, Verdict::Pass);
    let verdict = on_the_wire(Wire::Clear, |_| {});
    let Doubt::NoEvidence(told) = doubt(&verdict) else { panic!("{verdict}") };
    assert!(told.contains("the capture is blind"), "{told}");
}

#[test]
fn a_wire_is_asked_about_after_the_flow() {
    for wire in [Wire::Clear, Wire::Encrypted] {
        let verdict = judged(&Expected::Allowed { via: None, wire: Some(wire) }, |facts| {
            facts.samples = vec![sample(silence(), vec![])];
            facts.wire = vec![at(NodeSlot::A)];
        });
        assert!(matches!(failure(&verdict), Failure::FailClosed { .. }), "{verdict}");
    }
}
