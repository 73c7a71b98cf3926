//! Tunnels that a client opens by itself: what a case may say of them, and what becomes of what is refused without a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ztc_model::evidence::{Did, Evidence};
use ztc_model::outcome::{EnforcementPoint, Expected, Form, Seen};
use ztc_model::suite::{Cell, Library, load, world};
use ztc_model::verdict::{Doubt, Facts, Failure, Sample, Verdict, judge};
use ztc_model::yaml::Source;
use ztc_model::ztunnel;
use ztc_wire::{Observed, TunnelAnswer};

const WORLD: &str = "\
world: bank
about: Two pods of the mesh and one outside.
namespaces: [{ name: bank, labels: { istio.io/dataplane-mode: ambient } }, { name: visit }]
pods:
  - { namespace: bank, name: ledger, node: a, serviceAccount: ledger, serves: [{ speaks: tcp, port: 9000 }] }
  - { namespace: bank, name: teller, node: a, serviceAccount: teller }
  - { namespace: visit, name: near, node: b }
  - { namespace: visit, name: late, node: b, born: in-a-case }
";

const NOTHING: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: nothing, namespace: bank }
spec: {}
";

/// The only cell of a case that expects this.
fn cell(needs: &str, apply: &str, expectation: &str) -> Result<Cell, String> {
    let known = world(&Source::new("bank.yaml", WORLD)).expect("it is a world");
    let library = Library {
        worlds: BTreeMap::from([("bank".to_owned(), known)]),
        manifests: BTreeMap::from([(
            "nothing.yaml".to_owned(),
            Source::new("nothing.yaml", NOTHING),
        )]),
    };
    let text = format!(
        "suite: one\nabout: A test.\nworld: bank\nneeds: [{needs}]\ncases:\n- name: one\n  because: It is.\n  apply: [{apply}]\n  \
         create: [visit/late]\n  expect: [{{ {expectation} }}]\n"
    );
    let suite = load(&Source::new("suite.yaml", text), &library);
    suite.map(|mut it| it.cases.remove(0).cells.remove(0)).map_err(|it| it.message)
}

fn said(expectation: &str) -> Result<Cell, String> {
    cell("ztunnel, mesh-authority", "nothing.yaml", expectation)
}

const REFUSED: &str = "from: visit/near, send: hbone bank/ledger:9000 without certificate, is: refused, by: ztunnel, as: \
                       certificate-refused, beside: hbone bank/ledger:9000 as bank/teller";

#[test]
fn what_is_refused_has_something_beside_it_that_differs_in_one_attribute() {
    let cell = said(REFUSED).unwrap();
    assert_eq!(
        cell.beside.map(|it| it.to_string()).unwrap(),
        "hbone bank/ledger:9000 as bank/teller"
    );
    assert_eq!(cell.peers, BTreeSet::from(["bank/ledger".to_owned()]));
    let beside = ", beside: hbone bank/ledger:9000 as bank/teller";
    for (from, to, words) in [
        (beside, "", "nothing shows that this is refused for what it is"),
        ("without certificate, is", "as bank/teller, is", "differs from"),
        (
            "ledger:9000 without",
            "ledger:15008 without",
            "in more than one attribute: the port, as whom",
        ),
        (
            "beside: hbone bank/ledger:9000 as bank/teller",
            "beside: tcp bank/ledger:9000",
            "only tunnels are",
        ),
        ("beside: hbone bank/ledger:9000", "beside: hbone bank/ledger:9001", "nobody serves this"),
        (", as: certificate-refused", "", "says `by` and `as`"),
        (
            "as: certificate-refused",
            "as: default-deny",
            "nobody refuses as default-deny without a policy",
        ),
        (
            "as: certificate-refused",
            "as: certificate-refused, policy: nothing",
            "a refused flow has no `policy`",
        ),
        ("visit/near", "visit/late", "what visit/late sends has nothing beside it"),
    ] {
        let error = said(&REFUSED.replace(from, to)).unwrap_err();
        assert!(error.contains(words), "{to}: {error}");
    }
}

#[test]
fn a_tunnel_is_opened_outside_the_mesh_for_who_is_in_it() {
    let passes = "from: visit/near, send: hbone bank/ledger:9000 as bank/teller, is: allowed";
    assert!(said(passes).is_ok());
    for (from, to, words) in [
        (
            "visit/near",
            "bank/teller",
            "bank/teller is in the mesh, where tunnels are opened for it",
        ),
        ("as bank/teller", "as visit/near", "visit/near is not in the mesh"),
        ("hbone bank/ledger", "hbone visit/near", "no tunnel ends there"),
        ("as bank/teller", "as bank/clerk", "unknown pod `bank/clerk`"),
        ("bank/ledger:9000", "bank/ledger:9001", "nobody serves this"),
        ("as bank/teller", "as bank/teller through bank/teller", "leads to bank/teller alone"),
        ("is: allowed", "is: allowed, beside: ping bank/ledger", "only a refused flow"),
        (
            "is: allowed",
            "is: denied, by: ztunnel, as: target-refused",
            "no policy denies as target-refused",
        ),
    ] {
        let error = said(&passes.replace(from, to)).unwrap_err();
        assert!(error.contains(words), "{to}: {error}");
    }
    let error = cell("ztunnel", "nothing.yaml", passes).unwrap_err();
    assert_eq!(error, "the suite does not say that it needs mesh-authority");
}

/// What a ztunnel says of a connection to it, in the form of `log_early_deny`.
fn early(error: &str) -> Arc<Evidence> {
    let line = serde_json::json!({
        "level": "warn", "time": "2026-11-29T00:00:00.000000Z", "scope": "access", "message": "connection failed",
        "src.addr": "10.244.1.7:40000", "dst.addr": "10.244.0.7:15008", "direction": "inbound", "error": error,
    });
    let line =
        ztunnel::read(&line.to_string()).expect("it is JSON").expect("it is of a connection");
    Arc::new(Evidence::from_ztunnel(&Arc::new(line), "node-a"))
}

#[test]
fn what_a_ztunnel_refuses_without_a_policy_is_read_from_its_log() {
    let fault_of_tls = |what: &str| {
        early(&format!("tls handshake error: Custom {{ kind: InvalidData, error: {what} }}"))
            .did
            .clone()
    };
    for what in [
        "NoCertificatesPresented",
        "InvalidCertificate(UnknownIssuer)",
        "InvalidCertificate(Expired)",
    ] {
        assert_eq!(fault_of_tls(what), Did::RefuseCertificate { why: what.to_owned() });
    }
    assert_eq!(fault_of_tls("InvalidMessage(InvalidContentType)"), Did::RefusePlaintext);
    for target in ["ip mismatch: 10.244.0.7 != 127.0.0.1", "attempted recursive call to ourselves"]
    {
        assert_eq!(early(target).did, Did::RefuseTarget { why: target.to_owned() });
    }
    // Neither who leaves by himself nor who is cut off was refused.
    assert!(!fault_of_tls("AlertReceived(UnknownCA)").is_denial());
    assert!(!early("tls handshake error: Kind(UnexpectedEof)").did.is_denial());
    // The record is of the client's own connection.
    assert!(!early("ip mismatch: 10.244.0.7 != 127.0.0.1").is_of_a_tunnel());
}

fn through() -> Seen {
    let remote = "10.244.0.7:15008".parse().expect("it is an address");
    Seen::Client(Observed::Reply { peer: "bank/ledger".to_owned(), remote })
}

fn no_tunnel(answer: TunnelAnswer) -> Seen {
    Seen::Client(Observed::NoTunnel { identity: None, answer })
}

/// What becomes of a refusal that is proven, changed so.
fn judged(form: Form, change: impl FnOnce(&mut Facts)) -> Verdict {
    let alert = TunnelAnswer::Alert("certificate_required".to_owned());
    let record =
        early("tls handshake error: Custom { kind: InvalidData, error: NoCertificatesPresented }");
    let mut facts = Facts {
        control: Some(through()),
        samples: vec![Sample { after_ms: 1, seen: no_tunnel(alert), evidence: vec![record] }],
        proof: Some(through()),
        ..Facts::default()
    };
    change(&mut facts);
    let expected = Expected::Refused { by: EnforcementPoint::Ztunnel, form };
    judge(&expected, &BTreeSet::from(["bank/ledger".to_owned()]), &facts)
}

/// What is taken from the facts, and whether a doubt is about that.
type Lack = (fn(&mut Facts), fn(&Doubt) -> bool);

#[test]
fn a_refusal_is_proven_by_its_record_and_by_what_is_beside_it() {
    assert_eq!(judged(Form::CertificateRefused, |_| ()), Verdict::Pass);
    let lacks: [Lack; 4] = [
        (|it| it.control = None, |it| matches!(it, Doubt::Control(_))),
        (|it| it.samples[0].evidence.clear(), |it| matches!(it, Doubt::NoEvidence(_))),
        (|it| it.proof = None, |it| matches!(it, Doubt::NoProof(_))),
        (
            |it| it.proof = Some(no_tunnel(TunnelAnswer::Status(401))),
            |it| matches!(it, Doubt::NoProof(_)),
        ),
    ];
    for (change, is_it) in lacks {
        let verdict = judged(Form::CertificateRefused, change);
        assert!(matches!(&verdict, Verdict::Inconclusive(doubt) if is_it(doubt)), "{verdict}");
    }
}

#[test]
fn a_refusal_in_another_form_is_another_layer_and_an_answer_is_a_leak() {
    let verdict = judged(Form::TargetRefused, |_| ());
    assert!(matches!(verdict, Verdict::Fail(Failure::WrongLayer { .. })), "{verdict}");
    let leaks: fn(&mut Facts) = |it| {
        it.samples[0].seen = through();
        it.control = None;
    };
    let verdict = judged(Form::CertificateRefused, leaks);
    assert!(matches!(verdict, Verdict::Fail(Failure::FailOpen { .. })), "{verdict}");
}

#[test]
fn nobody_listening_is_what_the_proxy_says_it_is() {
    let unserved: fn(&mut Facts) = |it| {
        it.samples[0].seen = no_tunnel(TunnelAnswer::Status(503));
        it.samples[0].evidence =
            vec![early("connection failed: Connection refused (os error 111)")];
    };
    assert_eq!(judged(Form::Unserved, unserved), Verdict::Pass);
    let verdict = judged(Form::TargetRefused, unserved);
    assert!(matches!(verdict, Verdict::Fail(Failure::WrongLayer { .. })), "{verdict}");
}
