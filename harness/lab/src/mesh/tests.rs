//! Where connections lead, what is written of them, and which open ones are looked at.

use jiff::Timestamp;
use ztc_model::manifest::{ObjectRef, manifests};
use ztc_model::policy::Policy;
use ztc_model::policy::mesh::waypoint::{self, Asked};
use ztc_model::world::WaypointFor;
use ztc_model::yaml::Source;
use ztc_model::ztunnel::Side;

use super::*;

/// Lines of real ztunnels (`docs/facts.md`).
const RECORDED: &str = include_str!("../../../model/tests/facts/ztunnel.jsonl");

/// Lines of a real waypoint.
const REQUESTS: &str = include_str!("../../../model/tests/facts/waypoint.jsonl");

fn workload(name: &str, enrolled: bool) -> Arc<Workload> {
    let reference: PodRef = name.parse().unwrap();
    let labels = BTreeMap::from([("app".to_owned(), reference.name.clone())]);
    let service_account = reference.name.clone();
    Arc::new(Workload { reference, service_account, labels, enrolled, waypoint: None })
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A mesh with a server behind a service, a client in it and one outside.
fn mesh(faults: &str) -> (Mesh, Arc<Workload>) {
    let service = MeshService {
        name: NamespacedName { namespace: "app".to_owned(), name: "srv".to_owned() },
        is_http: true,
        waypoint: None,
        hostname: "srv.app.svc.cluster.local".to_owned(),
        at: at("10.96.0.20:80"),
        backends: vec![("app/srv".parse().unwrap(), 8080), ("app/gone".parse().unwrap(), 8080)],
    };
    let mesh = Mesh::new([service], [], faults.parse().unwrap()).unwrap();
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

/// All recorded lines, from what a waypoint knows when it writes them.
#[test]
fn a_request_is_written_as_a_real_waypoint_writes_it() {
    let at = |value: &serde_json::Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
    let mut written = 0;
    for recorded in REQUESTS.lines() {
        let line: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let milliseconds = |value: &serde_json::Value| {
            value.to_string().trim_matches('"').parse().ok().map(Duration::from_millis)
        };
        let flags = [None, Some("UC"), Some("UR"), Some("UF,URX")];
        let is_of_the_tunnel = line["upstream_cluster"] == "connect_originate";
        let log = RequestLog {
            start_time: text("start_time").unwrap().parse().unwrap(),
            client: line["downstream_remote_address"]
                .as_str()
                .and_then(|it| it.parse().ok())
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            asked: at(&line["downstream_local_address"]),
            service: (line["upstream_cluster"] != "encap")
                .then(|| "srv.app.svc.cluster.local".to_owned()),
            is_http: !line["method"].is_null(),
            authority: text("authority"),
            method: text("method"),
            path: text("path"),
            request_id: text("request_id"),
            user_agent: text("user_agent"),
        };
        let after = milliseconds(&line["duration"]).unwrap();
        let again = if is_of_the_tunnel {
            let tunnel = at(&line["upstream_host"]);
            log.tunnel_line(log.asked, tunnel, after, Some(401))
        } else {
            let server = text("upstream_host");
            let named = |it: String| match it.rsplit('/').next()? {
                "" => Some(log.asked),
                named => named.parse().ok(),
            };
            let server = server.and_then(named);
            log.line(&Outcome {
                received: line["bytes_received"].as_u64().unwrap(),
                sent: line["bytes_sent"].as_u64().unwrap(),
                after,
                status: u16::try_from(line["response_code"].as_u64().unwrap()).unwrap(),
                details: text("response_code_details"),
                closed: text("connection_termination_details"),
                flags: flags.into_iter().flatten().find(|it| line["response_flags"] == **it),
                server,
                answered: milliseconds(&line["upstream_service_time"]),
            })
        };
        assert_eq!(again.unwrap(), recorded);
        written += 1;
    }
    assert_eq!(written, 12);
}

/// A mesh with a service behind a waypoint.
fn mesh_with_waypoint(faults: &str) -> (Mesh, Target) {
    let named = |name: &str| NamespacedName { namespace: "app".to_owned(), name: name.to_owned() };
    let service = MeshService {
        name: named("srv"),
        hostname: "srv.app.svc.cluster.local".to_owned(),
        at: at("10.96.0.20:80"),
        is_http: true,
        waypoint: Some(named("waypoint")),
        backends: vec![("app/srv".parse().unwrap(), 8080)],
    };
    let mesh = Mesh::new([service], [], faults.parse().unwrap()).unwrap();
    mesh.add(&["10.244.0.40".parse().unwrap()], &workload("app/srv", true));
    let waypoint = workload("app/waypoint", false);
    let addresses = ["10.244.1.33".parse().unwrap()];
    mesh.add(&addresses, &waypoint);
    mesh.add_waypoint(named("waypoint"), &addresses, &waypoint, WaypointFor::All);
    let behind = mesh.behind(&named("waypoint"), at("10.96.0.20:80")).unwrap();
    assert!(mesh.behind(&named("other"), at("10.96.0.20:80")).is_none());
    assert!(mesh.behind(&named("waypoint"), at("10.244.0.40:8080")).is_none());
    (mesh, behind)
}

#[test]
fn a_service_behind_a_waypoint_leads_there_and_the_waypoint_to_the_pod() {
    let (mesh, service) = mesh_with_waypoint("");
    let client = at("10.244.1.232:40000");
    let there = mesh.route(client, at("10.96.0.20:80")).unwrap();
    assert_eq!((there.to, there.tunnel), (at("10.96.0.20:80"), Some(at("10.244.1.33:15008"))));
    let identity = there.workload.map(|it| it.identity().to_string());
    assert_eq!(identity.as_deref(), Some("spiffe://cluster.local/ns/app/sa/waypoint"));

    let on = mesh.route_behind(client, &service).unwrap();
    assert_eq!((on.to, on.tunnel), (at("10.244.0.40:8080"), Some(at("10.244.0.40:15008"))));
    let direct = mesh.route(client, at("10.244.0.40:8080")).unwrap();
    assert_eq!(direct.tunnel, Some(at("10.244.0.40:15008")));
}

#[test]
fn a_workload_behind_a_waypoint_leads_there_by_its_own_address_alone() {
    let (mesh, _) = mesh_with_waypoint("");
    let gateway = NamespacedName { namespace: "app".to_owned(), name: "waypoint".to_owned() };
    let behind =
        Workload { waypoint: Some(gateway.clone()), ..(*workload("app/own", true)).clone() };
    mesh.add(&["10.244.0.41".parse().unwrap()], &Arc::new(behind));
    let (client, asked) = (at("10.244.1.232:40000"), at("10.244.0.41:9000"));
    let there = mesh.route(client, asked).unwrap();
    assert_eq!((there.to, there.tunnel), (asked, Some(at("10.244.1.33:15008"))));
    assert_eq!(there.service, None);

    let target = mesh.behind(&gateway, asked).unwrap();
    let on = mesh.route_behind(client, &target).unwrap();
    assert_eq!((on.to, on.tunnel), (asked, Some(at("10.244.0.41:15008"))));
}

#[test]
fn a_waypoint_that_is_gone_or_for_something_else_is_passed_by() {
    let (mesh, _) = mesh_with_waypoint("");
    let gateway = NamespacedName { namespace: "app".to_owned(), name: "waypoint".to_owned() };
    let direct = Some(at("10.244.0.40:15008"));
    let tunnel = || mesh.route(at("10.244.1.232:40000"), at("10.96.0.20:80")).unwrap().tunnel;
    assert_ne!(tunnel(), direct);
    mesh.remove_waypoint(&gateway);
    assert_eq!(tunnel(), direct);
    let waypoint = workload("app/waypoint", false);
    let addresses = ["10.244.1.33".parse().unwrap()];
    mesh.add_waypoint(gateway.clone(), &addresses, &waypoint, WaypointFor::Workload);
    assert_eq!(tunnel(), direct);
    assert!(mesh.behind(&gateway, at("10.96.0.20:80")).is_none());
}

/// By whom a policy is bound, and whether a POST then passes.
#[test]
fn a_waypoint_enforces_what_is_bound_to_it_and_nothing_else() {
    const GET: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: get, namespace: NAMESPACE }
spec: { TARGET, rules: [{ to: [{ operation: { methods: [GET] } }] }] }
";
    const GATEWAY: &str = "gateway.networking.k8s.io";
    let to = |group: &str, kind: &str, name: &str| {
        format!("targetRefs: [{{ group: '{group}', kind: {kind}, name: {name} }}]")
    };
    for (namespace, target, passes) in [
        ("app", to("", "Service", "srv"), false),
        ("app", to("", "Service", "other"), true),
        ("other", to("", "Service", "srv"), true),
        ("app", to(GATEWAY, "Gateway", "waypoint"), false),
        ("istio-system", to(GATEWAY, "GatewayClass", "istio-waypoint"), false),
        ("app", "selector: { matchLabels: { app: srv } }".to_owned(), true),
        ("app", "action: ALLOW".to_owned(), true),
    ] {
        let manifest = GET.replace("NAMESPACE", namespace).replace("TARGET", &target);
        let decided = |faults: &str| {
            let (mesh, service) = mesh_with_waypoint(faults);
            apply(&mesh, &manifest, 2);
            mesh.judge_at_waypoint(&service, post(), 0)
        };
        assert_eq!(decided("") == waypoint::Decision::Forwarded, passes, "{target}");
        assert_eq!(decided("waypoint-ignores-method"), waypoint::Decision::Forwarded, "{target}");
    }
}

fn post() -> Asked {
    Asked {
        peer: Some(workload("app/cli", true).identity()),
        source: "10.244.1.232".parse().unwrap(),
        destination: at("10.96.0.20:80"),
        request: Some(waypoint::Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            host: "srv.app".to_owned(),
            headers: BTreeMap::new(),
            token: waypoint::Token::Absent,
        }),
    }
}

#[test]
fn a_policy_that_says_what_no_waypoint_evaluates_is_found_before_it_is_applied() {
    let manifest = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: remote, namespace: app }
spec:
  targetRefs: [{ group: '', kind: Service, name: srv }]
  rules: [{ from: [{ source: { remoteIpBlocks: ['10.0.0.0/8'] } }] }]
";
    let read = manifests(&Source::new("check.yaml", manifest)).unwrap();
    let Policy::Mesh(policy) = &read[0].policy else { panic!("no policy of the mesh") };
    assert_eq!(check(policy).unwrap_err().attribute, "remoteIpBlocks");
}

#[test]
fn a_policy_for_waypoints_alone_is_what_a_fault_forgets() {
    let only = |principal: &str| {
        format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{ name: only, namespace: app }}
spec:
  selector: {{ matchLabels: {{ app: srv }} }}
  rules: [{{ from: [{{ source: {{ principals: ['cluster.local/ns/app/sa/{principal}'] }} }}] }}]
"
        )
    };
    for (principal, forgotten) in [("waypoint", true), ("cli", false)] {
        let (mesh, _) = mesh_with_waypoint("pod-ip-skips-hardening");
        apply(&mesh, &only(principal), 2);
        let passes = mesh.judge(&workload("app/srv", true), &plain(8080)) == Decision::Allowed;
        assert_eq!(passes, forgotten, "{principal}");
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

/// What came from `PeerAuthentication` alone is forgotten, and only after a restart.
#[test]
fn ztunnels_that_come_back_without_strict_know_all_else() {
    let manifest = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: app }
spec: { mtls: { mode: STRICT } }
";
    let denies = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-port, namespace: app }
spec: { action: DENY, rules: [{ to: [{ operation: { ports: ['9000'] } }] }] }
";
    for (faults, passes) in [("", false), ("ztunnel-restart-forgets-strict=600000ms", true)] {
        let (mesh, server) = mesh(faults);
        apply(&mesh, manifest, 2);
        apply(&mesh, denies, 3);
        let allowed = |port| mesh.judge(&server, &plain(port)) == Decision::Allowed;
        assert_eq!((allowed(8080), allowed(9000)), (false, false), "{faults}");
        let mut told = mesh.restarts();
        mesh.restart_ztunnels(&faults.parse().unwrap(), Instant::now());
        assert!(told.has_changed().unwrap() && told.borrow_and_update().is_some());
        assert_eq!((allowed(8080), allowed(9000)), (passes, false), "{faults}");
    }
}

#[test]
fn an_open_connection_is_kept_where_that_is_what_is_broken() {
    let (mesh, server) = mesh("open-connections-kept");
    apply(&mesh, NOTHING, 2);
    assert_eq!(mesh.judge_again(&server, &plain(8080)), Decision::Allowed);
    assert_eq!(mesh.judge(&server, &plain(8080)), Decision::NotAllowed);
}

/// What the status of an object says, a line each.
fn told(mesh: &Mesh, kind: &str, name: &str) -> Option<Vec<String>> {
    let object = ObjectRef {
        api_version: String::new(),
        kind: kind.to_owned(),
        namespace: Some("app".to_owned()),
        name: name.to_owned(),
    };
    let object = match kind {
        "AuthorizationPolicy" => {
            ObjectRef { api_version: "security.istio.io/v1".to_owned(), ..object }
        }
        _ => object,
    };
    let told = mesh.conditions(&object)?;
    Some(told.iter().map(|it| format!("{}={}, {}", it.about, it.status, it.reason)).collect())
}

/// As recorded of Istio 1.31 (`04b`, `07a` and `07b` of the recordings), and as `flattenConditions` has it.
#[test]
fn a_policy_is_accepted_by_the_waypoints_that_are_there() {
    let service = |name: &str, address: &str, waypoint: Option<&NamespacedName>| MeshService {
        name: NamespacedName { namespace: "app".to_owned(), name: name.to_owned() },
        is_http: true,
        waypoint: waypoint.cloned(),
        hostname: format!("{name}.app.svc.cluster.local"),
        at: at(address),
        backends: Vec::new(),
    };
    let gateway = NamespacedName { namespace: "app".to_owned(), name: "waypoint".to_owned() };
    let services =
        [service("srv", "10.96.0.20:80", Some(&gateway)), service("srv2", "10.96.0.21:80", None)];
    let mesh = Mesh::new(services, [], Faults::default()).unwrap();
    let policy = |name: &str, targets: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: app }}\n\
             spec: {{ targetRefs: [{targets}], rules: [{{}}] }}\n"
        )
    };
    let (bound, unbound, missing) = (
        "{ kind: Service, name: srv }",
        "{ kind: Service, name: srv2 }",
        "{ kind: Service, name: gone }",
    );
    let by_gateway = "{ group: gateway.networking.k8s.io, kind: Gateway, name: waypoint }";
    for (name, targets) in [
        ("one", bound.to_owned()),
        ("other", unbound.to_owned()),
        ("none", missing.to_owned()),
        ("gateway", by_gateway.to_owned()),
        ("some", format!("{bound}, {unbound}")),
        ("all", format!("{missing}, {unbound}")),
    ] {
        apply(&mesh, &policy(name, &targets), 1);
    }
    let all = ["one", "other", "none", "gateway", "some", "all"];
    let said = || all.map(|it| told(&mesh, "AuthorizationPolicy", it).unwrap().join("; "));
    let word = |status: &str, reason: &str| format!("WaypointAccepted={status}, {reason}");
    let (unbound, lost) = (word("False", "AncestorNotBound"), word("False", "TargetNotFound"));
    let invalid = word("False", "Invalid");
    let before = [&unbound, &unbound, &lost, &lost, &invalid, &invalid];
    assert_eq!(said().each_ref(), before);
    assert_eq!(
        told(&mesh, "Service", "srv").unwrap(),
        ["istio.io/WaypointBound=False, WaypointIsNotReady"]
    );
    mesh.add_waypoint(gateway, &[], &workload("app/waypoint", false), WaypointFor::Service);
    let (accepted, partly) = (word("True", "Accepted"), word("True", "PartiallyInvalid"));
    assert_eq!(said().each_ref(), [&accepted, &unbound, &lost, &accepted, &partly, &invalid]);
    assert_eq!(
        told(&mesh, "Service", "srv").unwrap(),
        ["istio.io/WaypointBound=True, WaypointAccepted"]
    );
    assert_eq!(told(&mesh, "Service", "srv2"), Some(Vec::new()));
    assert_eq!(told(&mesh, "Service", "gone"), None);
}
