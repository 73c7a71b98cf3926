//! Where connections lead, what is written of them, and which open ones are looked at.

use std::time::Duration;

use jiff::Timestamp;
use ztc_model::manifest::manifests;
use ztc_model::policy::Policy;
use ztc_model::yaml::Source;
use ztc_model::ztunnel::Side;

use super::*;

/// Lines of real ztunnels (`docs/facts.md`).
const RECORDED: &str = include_str!("../../../model/tests/facts/ztunnel.jsonl");

fn workload(name: &str, enrolled: bool) -> Arc<Workload> {
    let reference: PodRef = name.parse().unwrap();
    let labels = BTreeMap::from([("app".to_owned(), reference.name.clone())]);
    let service_account = reference.name.clone();
    Arc::new(Workload { reference, service_account, labels, enrolled })
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A mesh with a server behind a service, a client in it and one outside.
fn mesh(faults: &str) -> (Mesh, Arc<Workload>) {
    let service = MeshService {
        hostname: "srv.app.svc.cluster.local".to_owned(),
        at: at("10.96.0.20:80"),
        backends: vec![("app/srv".parse().unwrap(), 8080), ("app/gone".parse().unwrap(), 8080)],
    };
    let mesh = Mesh::new([service], faults.parse().unwrap()).unwrap();
    let server = workload("app/srv", true);
    mesh.add(&["10.244.0.40".parse().unwrap()], &server);
    mesh.add(&["10.244.1.148".parse().unwrap()], &workload("plain/cli", false));
    (mesh, server)
}

fn apply(mesh: &Mesh, manifest: &str, revision: u64) {
    let read = manifests(&Source::new("check.yaml", manifest)).unwrap();
    for manifest in read {
        let Policy::Mesh(policy) = manifest.policy else { panic!("no policy of the mesh") };
        mesh.apply(policy, revision);
    }
}

fn plain(port: u16) -> Connection {
    Connection {
        peer: None,
        source: "10.244.1.148".parse().unwrap(),
        destination: SocketAddr::new("10.244.0.40".parse().unwrap(), port),
    }
}

#[test]
fn a_line_is_written_as_a_real_ztunnel_writes_it() {
    let client = workload("app/cli", true);
    let server = workload("app/srv", true);
    let tunnelled = |side, source: &str| AccessLog {
        side,
        source: at(source),
        client: Some(Arc::clone(&client)),
        client_identity: Some(client.identity()),
        destination: at("10.244.0.40:15008"),
        target: Some("10.244.0.40:8080".to_owned()),
        service: Some("srv.app.svc.cluster.local".to_owned()),
        server: Some(Arc::clone(&server)),
        server_identity: Some(server.identity()),
    };
    let in_plain = AccessLog {
        client: Some(workload("plain/cli", false)),
        client_identity: None,
        destination: at("10.244.0.40:9000"),
        target: None,
        server_identity: None,
        ..tunnelled(Side::Inbound, "10.244.1.148:41614")
    };
    let end = |sent, received, milliseconds, error: Option<&str>| End {
        sent,
        received,
        after: Duration::from_millis(milliseconds),
        error: error.map(str::to_owned),
    };
    let strict = "connection closed due to policy rejection: explicitly denied by: \
                  istio-system/istio_converted_static_strict";
    let recorded: Vec<&str> = RECORDED.lines().collect();
    for (number, connection, end) in [
        (0, tunnelled(Side::Inbound, "10.244.1.232:40540"), end(90, 295, 3, None)),
        (1, tunnelled(Side::Outbound, "10.244.1.232:49964"), end(90, 295, 8, None)),
        (4, in_plain, end(0, 0, 0, Some(strict))),
    ] {
        let line: serde_json::Value = serde_json::from_str(recorded[number]).unwrap();
        let time: Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(connection.line(&end, time).unwrap(), recorded[number], "line {number}");
    }
}

#[test]
fn a_service_leads_to_one_of_the_pods_that_are_there() {
    let (mesh, server) = mesh("");
    let client = at("10.244.1.232:40000");
    let route = mesh.route(client, at("10.96.0.20:80")).unwrap();
    assert_eq!(route.to, at("10.244.0.40:8080"));
    assert_eq!(route.workload.as_ref(), Some(&server));
    assert_eq!(route.service.as_deref(), Some("srv.app.svc.cluster.local"));

    mesh.remove(&["10.244.0.40".parse().unwrap()]);
    let nobody = mesh.route(client, at("10.96.0.20:80")).unwrap_err();
    assert_eq!(nobody.to_string(), "no healthy upstream: srv.app.svc.cluster.local");
}

#[test]
fn what_is_no_service_leads_to_where_it_was_for() {
    let (mesh, server) = mesh("");
    let client = at("10.244.1.232:40000");
    let direct = mesh.route(client, at("10.244.0.40:9000")).unwrap();
    assert_eq!((direct.to, direct.workload), (at("10.244.0.40:9000"), Some(server)));
    let outside = mesh.route(client, at("203.0.113.10:443")).unwrap();
    assert_eq!((outside.to, outside.workload), (at("203.0.113.10:443"), None));
}

const NOTHING: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: allow-nothing, namespace: app }
spec: {}
";

const NOTHING_BY_SELECTOR: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: allow-nothing, namespace: app }
spec: { selector: { matchLabels: { app: srv } } }
";

#[test]
fn open_connections_are_held_against_a_policy_that_comes_and_not_against_one_that_is_referred_to_later()
 {
    for (manifest, closes) in [(NOTHING, true), (NOTHING_BY_SELECTOR, false)] {
        let (mesh, server) = mesh("");
        apply(&mesh, manifest, 2);
        assert_eq!(mesh.judge(&server, &plain(8080)), Decision::NotAllowed);
        let again = mesh.judge_again(&server, &plain(8080));
        assert_eq!(again == Decision::NotAllowed, closes, "{manifest}");
        // Whatever changes next, the workload refers to it by then.
        let strict = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: elsewhere }
spec: { mtls: { mode: STRICT } }
";
        apply(&mesh, strict, 3);
        assert_eq!(mesh.judge_again(&server, &plain(8080)), Decision::NotAllowed);
    }
}

#[test]
fn a_policy_that_is_withdrawn_is_gone_and_one_that_never_was_changes_nothing() {
    let (mesh, server) = mesh("");
    apply(&mesh, NOTHING, 2);
    mesh.withdraw(&"AuthorizationPolicy/app/other".parse().unwrap(), 3);
    assert_eq!(mesh.revision(), 2);
    mesh.withdraw(&"AuthorizationPolicy/app/allow-nothing".parse().unwrap(), 4);
    assert_eq!((mesh.revision(), mesh.judge(&server, &plain(8080))), (4, Decision::Allowed));
}

/// Each fault gets one thing wrong, and nothing else.
#[test]
fn a_fault_gets_wrong_what_it_is_about() {
    const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: app }
spec: { mtls: { mode: STRICT } }
";
    const PORT: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-port, namespace: app }
spec: { action: DENY, rules: [{ to: [{ operation: { ports: ['9000'] } }] }] }
";
    let passes = |faults: &str, manifest: &str, port: u16| {
        let (mesh, server) = mesh(faults);
        apply(&mesh, manifest, 2);
        mesh.judge(&server, &plain(port)) == Decision::Allowed
    };
    for (faults, strict, denied_port, other_port) in [
        ("", false, false, true),
        ("strict-accepts-plaintext", true, false, true),
        ("ztunnel-ignores-deny", false, true, true),
        ("ztunnel-ignores-port", false, false, false),
        ("allow-everything", true, true, true),
    ] {
        assert_eq!(passes(faults, STRICT, 9000), strict, "{faults}");
        assert_eq!(passes(faults, PORT, 9000), denied_port, "{faults}");
        assert_eq!(passes(faults, PORT, 8080), other_port, "{faults}");
    }
}

#[test]
fn an_open_connection_is_kept_where_that_is_what_is_broken() {
    let (mesh, server) = mesh("open-connections-kept");
    apply(&mesh, NOTHING, 2);
    assert_eq!(mesh.judge_again(&server, &plain(8080)), Decision::Allowed);
    assert_eq!(mesh.judge(&server, &plain(8080)), Decision::NotAllowed);
}
