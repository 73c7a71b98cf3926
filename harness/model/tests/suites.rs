//! What a suite may say, and what a world makes of its outside hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ztc_model::stimulus::Send;
use ztc_model::suite::{Case, Cell, Component, Library, load, world};
use ztc_model::world::World;
use ztc_model::yaml::{Diagnostic, Source};

const WORLD: &str = "\
world: shop
about: A client and a host outside.
namespaces: [{ name: shop }]
pods:
  - { namespace: shop, name: web, node: a }
  - { namespace: shop, name: peer, node: b }
  - { namespace: shop, name: late, node: a, born: in-a-case }
outside:
  - { name: api, dns: [api.zt.test], aliases: [cdn.zt.test], ttl: 1, serves: [{ speaks: tcp, port: 9000 }, { speaks: udp, port: 9001 }, { speaks: https, port: 443 }, { speaks: tls, port: 9443 }] }
  - { name: other, dns: [other.zt.test], serves: [] }
tokens: [{ name: one, about: Of one., text: a.b.c }, { name: two, about: Of another., text: d.e.f }]
";

const CLOSED: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: closed, namespace: shop }
spec:
  endpointSelector: {}
  egress: [{}]
";

const CLOSED_BY_KUBERNETES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: shop }
spec: { podSelector: {}, policyTypes: [Egress] }
";

const ADMIN: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: { name: admin }
spec: { priority: 1, subject: { namespaces: {} }, egress: [{ action: Deny, to: [{ namespaces: {} }] }] }
";

const DOORMAN: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: doorman, namespace: shop }
spec: { gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
";

fn shop(text: &str) -> Result<World, String> {
    world(&Source::new("shop.yaml", text)).map_err(|diagnostic| diagnostic.message)
}

/// The first case of a suite with this application and expectation.
fn case(apply: &str, expectation: &str) -> Result<Case, String> {
    suite(apply, &format!("expect: [{{ {expectation} }}]")).map_err(|diagnostic| diagnostic.message)
}

/// The first case of a suite with this application, which expects what these lines say.
fn suite(apply: &str, expects: &str) -> Result<Case, Box<Diagnostic>> {
    let file = |name: &str, text: String| (name.to_owned(), Source::new(name, text));
    let library = Library {
        worlds: BTreeMap::from([("shop".to_owned(), world(&Source::new("shop.yaml", WORLD))?)]),
        manifests: BTreeMap::from([
            file("closed.yaml", CLOSED.to_owned()),
            file("empty.yaml", CLOSED.replace("[{}]", "[]")),
            file("nothing.yaml", CLOSED.replace("  egress: [{}]\n", "")),
            file("broken.yaml", CLOSED.replace("[{}]", "[{ toCIDR: [here] }]")),
            file("two-kinds.yaml", format!("{CLOSED}---\n{CLOSED_BY_KUBERNETES}")),
            file("two.yaml", format!("{CLOSED}---\n{CLOSED}")),
            file("handshakes.yaml", handshakes("[api.zt.test]")),
            file("admin.yaml", ADMIN.to_owned()),
            file("doorman.yaml", DOORMAN.to_owned()),
            file("warden.yaml", DOORMAN.replace("doorman", "warden")),
            file("peer.yaml", DOORMAN.replace("doorman", "peer")),
            file("admin-and-closed.yaml", format!("{ADMIN}---\n{CLOSED}")),
        ]),
    };
    let text = format!(
        "suite: one\nabout: A test.\nworld: shop\nneeds: [cilium, waypoint, agent-restart, admin-network-policy]\ncases:\n- name: one\n  because: It is.\n  \
         apply: [{apply}]\n  create: [shop/late]\n  {expects}\n"
    );
    Ok(load(&Source::new("suite.yaml", text), &library)?.cases.remove(0))
}

const PASSES: &str = "from: shop/web, send: \"tcp outside/api:9000\", is: allowed";

#[test]
fn what_speaks_tls_is_asked_over_tls_and_by_who_has_a_certificate() {
    let sent =
        |send: &str| case("closed.yaml", &format!("from: shop/web, send: {send}, is: allowed"));
    for send in ["GET https://api.zt.test/", "GET https://cdn.zt.test./", "tls outside/api:9443"] {
        sent(&format!("\"{send}\"")).unwrap_or_else(|error| panic!("{send}: {error}"));
    }
    for send in [
        "tls outside/api:443",
        "tls outside/api:9000",
        "GET http://api.zt.test:443/",
        "tcp outside/api:9443",
    ] {
        let error = sent(&format!("\"{send}\"")).unwrap_err();
        assert!(error.starts_with("nobody serves this"), "{send}: {error}");
    }
    let error = sent("\"tls shop/web:9443\"").unwrap_err();
    assert!(error.contains("no certificate is for the address of shop/web"), "{error}");
}

#[test]
fn a_certificate_is_for_every_name_by_which_its_server_is_reached() {
    let text = WORLD.replace(
        "name: web, node: a }",
        "name: web, node: a, labels: { app: web }, serves: [{ speaks: https, port: 8443 }] }",
    );
    let world = shop(&format!(
        "{text}services: [{{ namespace: shop, name: front, selector: {{ app: web }}, ports: [{{ port: 443, targetPort: 8443 }}] }}]\n"
    ))
    .unwrap();
    assert!(world.speaks_tls());
    let names = ["front.shop", "front.shop.svc", "front.shop.svc.cluster.local"];
    assert_eq!(world.names_of(&world.pods[0]), names);
    assert!(world.names_of(&world.pods[1]).is_empty());
    assert_eq!(world.outside[0].names(), ["api.zt.test", "cdn.zt.test"]);
}

/// A waypoint takes half of the longest one; an agent takes no order of a megabyte.
#[test]
fn a_token_of_a_megabyte_is_no_token_of_a_world() {
    let of = |bytes: usize| WORLD.replace("a.b.c", &"a".repeat(bytes));
    let read = |text: String| world(&Source::new("two.yaml", text));
    assert!(read(of(128 * 1024)).is_ok());
    let told = |bytes| read(of(bytes)).unwrap_err().message;
    assert_eq!(told(1 << 19), "the text of token `one` has 524288 bytes; at most 131072 are sent");
    assert!(told(1 << 20).starts_with("the file has "), "no file is read that is as long");
}

#[test]
fn a_request_carries_a_token_that_the_world_has() {
    let carried = |token: &str| {
        let sent = format!("from: shop/web, send: GET https://api.zt.test/ with token {token}");
        case("closed.yaml", &format!("{sent}, is: allowed"))
    };
    let Send::Http { token, .. } = &carried("one").unwrap().cells[0].send else {
        panic!("it is a request")
    };
    assert_eq!(token.as_deref(), Some("one"));
    assert_eq!(carried("three").unwrap_err(), "unknown token `three`; the world has: one, two");
    let wrong = case(
        "closed.yaml",
        "from: shop/web, send: GET https://api.zt.test/ token one, is: allowed",
    );
    assert_eq!(
        wrong.unwrap_err(),
        "`token one` carries no token; a request does `with token NAME`"
    );
}

#[test]
fn requests_that_differ_in_their_token_alone_are_not_told_apart() {
    let sent = |paths: [&str; 2]| {
        let send = format!(
            "[GET https://api.zt.test/{} with token one, GET https://api.zt.test/{} with token two]",
            paths[0], paths[1]
        );
        case("closed.yaml", &format!("from: shop/web, send: {send}, is: allowed"))
    };
    assert!(sent(["a", "b"]).is_ok());
    assert!(
        sent(["a", "a"]).unwrap_err().ends_with("differ in nothing that a waypoint writes down")
    );
    let apart = "expect: [{ from: shop/web, send: GET https://api.zt.test/ with token one, is: allowed }, \
                 { from: shop/peer, send: GET https://api.zt.test/ with token two, is: allowed }]";
    assert!(suite("closed.yaml", apart).is_ok());
}

#[test]
fn a_token_has_a_name_of_its_own_and_is_one_word() {
    let twice = shop(&WORLD.replace("name: two", "name: one")).unwrap_err();
    assert_eq!(twice, "the token `one` is there twice");
    for text in ["\"\"", "\"a b\"", "\"a\\nb\""] {
        let wrong = shop(&WORLD.replace("text: a.b.c", &format!("text: {text}"))).unwrap_err();
        assert_eq!(wrong, "the text of token `one` is not one word of ASCII", "{text}");
    }
}

fn handshakes(names: &str) -> String {
    let rule =
        format!("[{{ toPorts: [{{ ports: [{{ port: \"443\" }}], serverNames: {names} }}] }}]");
    CLOSED.replace("[{}]", &rule)
}

#[test]
fn a_policy_that_reads_handshakes_is_for_fabrics_that_do() {
    assert_eq!(
        case("handshakes.yaml", PASSES).unwrap_err(),
        "the suite does not say that it needs tls-server-names"
    );
    let read = |names| ztc_model::manifest::manifests(&Source::new("x.yaml", handshakes(names)));
    let reads = |names| read(names).map(|it| it[0].policy.reads_handshakes());
    assert_eq!(reads("[api.zt.test, \"*.zt.test\"]").map_err(|it| it.message), Ok(true));
    for (names, wrong) in [("[]", "restricts nothing"), ("[\"\"]", "an empty server name")] {
        let error = reads(names).unwrap_err();
        assert!(error.message.contains(wrong), "{error}");
    }
}

/// Surprise 1 of the recorded facts: it exists, and nothing of it is enforced.
#[test]
fn an_invalid_policy_is_applied_as_it_is_and_says_nothing() {
    let case = case("{ file: empty.yaml, is: invalid }", PASSES).unwrap();
    let manifest = &case.apply[0];
    assert!(manifest.invalid.as_ref().is_some_and(|why| why.starts_with("nothing in `ingress`")));
    assert!(manifest.policy.specs().is_empty());
    assert_eq!(manifest.object["spec"]["egress"], serde_json::json!([]));
    assert_eq!(manifest.reference.to_string(), "CiliumNetworkPolicy/shop/closed");
}

#[test]
fn a_valid_file_may_be_written_either_way() {
    for apply in ["closed.yaml", "{ file: closed.yaml }", "{ file: closed.yaml, is: valid }"] {
        assert_eq!(case(apply, PASSES).unwrap().apply[0].invalid, None);
    }
}

/// `invalid` is no way around what else is wrong: an API server refuses a broken range, and a spec without
/// any of the four lists.
#[test]
fn only_what_is_taken_and_invalid_counts_as_invalid() {
    for (file, message) in [
        ("closed.yaml", "Cilium takes `closed.yaml`: nothing in it is invalid"),
        ("broken.yaml", "`here` is no range of addresses"),
        ("nothing.yaml", "nothing in `ingress`, `ingressDeny`, `egress` or `egressDeny`: "),
        ("two.yaml", "a file of an invalid policy holds that one alone"),
        ("absent.yaml", "there is no manifest `absent.yaml` beside this suite"),
    ] {
        let refusal = case(&format!("{{ file: {file}, is: invalid }}"), PASSES).unwrap_err();
        assert!(refusal.starts_with(message), "{refusal}");
    }
    let refusal = case("empty.yaml", PASSES).unwrap_err();
    assert!(refusal.starts_with("nothing in `ingress`"), "{refusal}");
    assert_eq!(case("{ fiel: a }", PASSES).unwrap_err(), "unknown field `fiel`");
}

#[test]
fn a_policy_that_nobody_enforces_is_applied_as_it_is_and_denies_nothing() {
    let admin = "{ file: admin.yaml, is: unenforced }";
    let case_of = |apply: &str| case(apply, PASSES);
    let manifest = &case_of(admin).unwrap().apply[0];
    assert!(manifest.policy.specs().is_empty() && manifest.policy.is_clusterwide());
    assert_eq!(manifest.object["spec"]["priority"], 1);
    assert_eq!(manifest.reference.to_string(), "AdminNetworkPolicy/admin");
    for (apply, refusal) in [
        (
            "admin.yaml",
            "nobody enforces a AdminNetworkPolicy: Cilium, as it is installed by default",
        ),
        (
            "{ file: closed.yaml, is: unenforced }",
            "`closed.yaml` has policies of kinds that are enforced",
        ),
        (
            "{ file: admin-and-closed.yaml, is: unenforced }",
            "`admin-and-closed.yaml` has policies of",
        ),
        ("{ file: admin.yaml, is: invalid }", "nobody enforces a AdminNetworkPolicy"),
    ] {
        let said = case_of(apply).unwrap_err();
        assert!(said.starts_with(refusal), "{apply}: {said}");
    }
    let denied = "from: shop/web, send: \"tcp outside/api:9000\", is: denied, by: cilium";
    let refusal = "nobody enforces AdminNetworkPolicy/admin, so it denies nothing";
    assert_eq!(case(admin, denied).unwrap_err(), refusal);
    let named = format!("{denied}, policy: admin");
    assert_eq!(case(&format!("{admin}, closed.yaml"), &named).unwrap_err(), refusal);
}

#[test]
fn a_component_is_restarted_once_where_the_suite_needs_it_and_watches_no_stream() {
    let restart = |restart: &str, expectation: &str| {
        let expects = format!("restart: {restart}\n  expect: [{{ {expectation} }}]");
        suite("closed.yaml", &expects).map_err(|diagnostic| diagnostic.message)
    };
    let case = restart("[cilium]", PASSES).unwrap();
    assert_eq!(case.restart, [Component::Cilium]);
    assert!(case.reaches_beyond(&shop(WORLD).unwrap()), "agents enforce for everybody");
    assert_eq!(restart("[cilium, cilium]", PASSES).unwrap_err(), "cilium is restarted twice");
    let refusal = restart("[kubelet]", PASSES).unwrap_err();
    assert!(refusal.contains("kubelet"), "{refusal}");
    let throughout = format!("{PASSES}, throughout: true");
    let refusal = restart("[cilium]", &throughout).unwrap_err();
    assert_eq!(refusal, "nobody records what is dropped while cilium is away");
}

#[test]
fn what_comes_first_is_sent_by_somebody_who_exists() {
    let after = |from: &str, first: &str| {
        let rest = "send: \"tcp outside/api:9000\", is: allowed";
        case("closed.yaml", &format!("from: {from}, after: \"{first}\", {rest}"))
    };
    let case = after("shop/web", "dns A api.zt.test").unwrap();
    assert!(matches!(&case.cells[0].after, Some(Send::Dns { name, .. }) if name == "api.zt.test"));
    let refused = |from, first| after(from, first).unwrap_err();
    assert_eq!(refused("shop/late", "dns A api.zt.test"), "nothing is sent first by shop/late");
    assert!(refused("shop/web", "pong shop/web").contains("is no stimulus"));
    assert!(refused("shop/web", "tcp outside/api:9").contains("nobody serves this"));
}

#[test]
fn an_outside_host_has_names_aliases_and_a_time_to_live() {
    let world = shop(WORLD).unwrap();
    let address = IpAddr::from([203, 0, 113, 10]);
    let zone = world.outside_zone(&BTreeMap::from([("api".to_owned(), address)]));
    let [record] = zone.records.as_slice() else { panic!("{zone:?}") };
    let [alias] = zone.aliases.as_slice() else { panic!("{zone:?}") };
    assert_eq!((record.name.as_str(), record.address, record.ttl), ("api.zt.test", address, 1));
    let told = (alias.name.as_str(), alias.target.as_str(), alias.ttl);
    assert_eq!(told, ("cdn.zt.test", "api.zt.test", 1));
    assert!(world.outside[0].is_called("cdn.zt.test."));
}

#[test]
fn a_name_stands_for_one_host() {
    let twice = WORLD.replace("other.zt.test", "cdn.zt.test");
    assert_eq!(shop(&twice).unwrap_err(), "the name `cdn.zt.test` is given twice");
    let of_nothing = WORLD.replace("dns: [api.zt.test], ", "");
    let refusal = shop(&of_nothing).unwrap_err();
    assert_eq!(refusal, "`cdn.zt.test` is an alias of nothing: outside/api has no `dns`");
}

#[test]
fn what_is_interrupted_is_sent_once_and_by_somebody_who_exists() {
    let interrupted = "is: interrupted, by: cilium, as: default-deny";
    let sent = |from: &str, send: &str| {
        case("closed.yaml", &format!("from: shop/{from}, send: \"{send}\", {interrupted}"))
            .map(|case| case.cells[0].expected.to_string())
    };
    assert_eq!(
        sent("web", "udp outside/api:9001"),
        Ok("interrupted by cilium as default-deny (CiliumNetworkPolicy/shop/closed)".to_owned())
    );
    assert_eq!(
        sent("web", "tcp outside/api:9000"),
        Err("`tcp outside/api:9000` is tried again by itself, and may get through late".to_owned())
    );
    assert_eq!(
        sent("late", "udp outside/api:9001"),
        Err("shop/late sends nothing before the policies".to_owned())
    );
    assert_eq!(
        case("closed.yaml", "from: shop/web, send: ping outside/api, is: denied, throughout: true")
            .map(|_| ()),
        Err("only what is allowed is so throughout".to_owned())
    );
}

#[test]
fn what_is_taken_away_denies_nothing() {
    let taken = |policy: &str, denied_by: &str| {
        let expects = format!(
            "remove: [{policy}]\n  expect: [{{ from: shop/web, send: ping outside/api, is: denied, policy: {denied_by} }}]"
        );
        suite("two-kinds.yaml", &expects).map(|case| case.remove).map_err(|it| it.message)
    };
    let removed = taken("CiliumNetworkPolicy/shop/closed", "NetworkPolicy/shop/closed");
    assert_eq!(
        removed.map(|it| it[0].to_string()).as_deref(),
        Ok("CiliumNetworkPolicy/shop/closed")
    );
    assert_eq!(
        taken("NetworkPolicy/shop/closed", "NetworkPolicy/shop/closed"),
        Err("NetworkPolicy/shop/closed is taken away again, and denies nothing any more".to_owned())
    );
    assert_eq!(
        taken("closed", "NetworkPolicy/shop/closed"),
        Err(
            "several applied policies are called `closed`: write `CiliumNetworkPolicy/shop/closed`"
                .to_owned()
        )
    );
    assert_eq!(
        taken("open", "NetworkPolicy/shop/closed"),
        Err("the case applies no policy `open`".to_owned())
    );
}

#[test]
fn what_stands_behind_a_policy_is_another_one_that_is_there() {
    let behind = |remove: &str, behind: &str| {
        let expects = format!(
            "remove: [{remove}]\n  expect: [{{ from: shop/web, send: ping outside/api, is: denied, \
             policy: NetworkPolicy/shop/closed, behind: [{behind}] }}]"
        );
        let case = suite("two-kinds.yaml", &expects);
        case.map(|case| case.cells[0].expected.to_string()).map_err(|it| it.message)
    };
    let other = "CiliumNetworkPolicy/shop/closed";
    assert_eq!(
        behind("", other),
        Ok(format!("denied (NetworkPolicy/shop/closed, before {other})"))
    );
    assert_eq!(
        behind("", "NetworkPolicy/shop/closed"),
        Err("NetworkPolicy/shop/closed is the policy that denies this, and not behind it"
            .to_owned())
    );
    assert_eq!(behind("", &format!("{other}, {other}")), Err(format!("{other} is named twice")));
    assert_eq!(
        behind(other, other),
        Err(format!("{other} is taken away again, and denies nothing any more"))
    );
    assert_eq!(behind("", "open"), Err("the case applies no policy `open`".to_owned()));
}

/// A table of these rows over a connection, a datagram and an echo request.
fn table(rows: &str) -> String {
    format!(
        "matrix:\n    by: cilium\n    as: default-deny\n    \
         send: [\"tcp outside/api:9000\", \"udp outside/api:9001\", ping outside/api]\n    rows:\n{rows}"
    )
}

#[test]
fn a_table_stands_for_the_expectations_that_it_spells() {
    let rows = "    - { from: shop/web, is: \"- . +\" }\n    - { from: shop/peer, is: \"+--\" }";
    let table = suite("closed.yaml", &table(rows)).expect("a table");
    let written = suite(
        "closed.yaml",
        "expect:
  - { from: shop/web, send: \"tcp outside/api:9000\", is: denied, by: cilium, as: default-deny }
  - { from: shop/web, send: ping outside/api, is: allowed }
  - { from: shop/peer, send: \"tcp outside/api:9000\", is: allowed }
  - from: shop/peer
    send: [\"udp outside/api:9001\", ping outside/api]
    is: denied
    by: cilium
    as: default-deny",
    )
    .expect("expectations");
    let said = |case: &Case| -> Vec<String> {
        let said = |it: &Cell| format!("{} {} {} {:?}", it.from, it.send, it.expected, it.peers);
        case.cells.iter().map(said).collect()
    };
    assert_eq!(said(&table), said(&written));
    assert_eq!(table.cells.iter().map(|it| it.line).collect::<Vec<_>>(), [15, 15, 16, 16, 16]);
}

#[test]
fn what_is_wrong_in_a_table_is_shown_where_it_is() {
    let wrong = |rows: &str| {
        suite("closed.yaml", &table(rows)).expect_err("it must be refused").to_string()
    };
    insta::assert_snapshot!(wrong("    - { from: shop/web, is: \"- +\" }"));
    insta::assert_snapshot!(wrong("    - { from: shop/web, is: \"- x +\" }"));
    insta::assert_snapshot!(wrong("    - { from: shop/nobody, is: \"- . +\" }"));
    insta::assert_snapshot!(wrong("    - { from: shop/web, is: \"+ + +\" }"));
    insta::assert_snapshot!(wrong("    - { from: shop/web, is: \". . .\" }"));
    let twice = "    - { from: shop/web, is: \". . -\" }\n    - { from: shop/web, is: \". . +\" }";
    insta::assert_snapshot!(wrong(twice));
}

/// A suite about the wire: its first expectation is encrypted, the second one says these words of its wire.
fn wires(needs: &str, encrypted: &str, clear: &str) -> Result<Case, Box<Diagnostic>> {
    let bank = WORLD
        .replace(
            "name: web, node: a }",
            "name: web, node: a, serves: [{ speaks: tcp, port: 9000 }] }",
        )
        .replace(
            "name: peer, node: b }",
            "name: peer, node: b, serves: [{ speaks: tcp, port: 9000 }] }",
        )
        .replace(
            "outside:",
            "  - { namespace: shop, name: node, node: a, hostNetwork: true }\noutside:",
        );
    let library = Library {
        worlds: BTreeMap::from([("shop".to_owned(), world(&Source::new("shop.yaml", bank))?)]),
        manifests: BTreeMap::new(),
    };
    let text = format!(
        "suite: one\nabout: A test.\nworld: shop\nneeds: [{needs}]\ncases:\n- name: one\n  because: It is.\n  \
         apply: []\n  create: [shop/late]\n  expect:\n  - {{ {encrypted} }}\n  - {{ {clear} }}\n"
    );
    Ok(load(&Source::new("suite.yaml", text), &library)?.cases.remove(0))
}

const ENCRYPTED: &str =
    "from: shop/web, send: \"tcp shop/peer:9000\", is: allowed, wire: encrypted";
const CLEAR: &str = "from: shop/peer, send: \"tcp shop/web:9000\", is: allowed, wire: clear";

#[test]
fn what_is_encrypted_has_something_in_clear_on_every_node_of_it() {
    let case = wires("capture", ENCRYPTED, CLEAR).expect("a case");
    let told: Vec<String> = case.cells.iter().map(|it| it.expected.to_string()).collect();
    assert_eq!(told, ["allowed, encrypted", "allowed, in clear"]);
    let on_one_node = "from: shop/web, send: \"tcp outside/api:9000\", is: allowed, wire: clear";
    let error = wires("capture", ENCRYPTED, on_one_node).expect_err("it must be refused");
    insta::assert_snapshot!(error.to_string(), @r#"
    error: nothing in the case has to be in clear on node b: a capture that sees nothing would pass
      --> suite.yaml:11:70
       |
    11 |   - { from: shop/web, send: "tcp shop/peer:9000", is: allowed, wire: encrypted }
       |                                                                      ^^^^^^^^^
       |
       = help: add the control: something with `wire: clear` from or to a pod on that node, of a pair outside the mesh
    "#);
}

#[test]
fn a_wire_is_said_of_what_can_be_captured() {
    let wrong = |needs: &str, encrypted: &str| {
        wires(needs, encrypted, CLEAR).expect_err("it must be refused").message
    };
    assert_eq!(wrong("cilium", ENCRYPTED), "the suite does not say that it needs capture");
    for (said, message) in [
        (
            "from: shop/web, send: tls outside/api:9443, is: allowed, wire: encrypted",
            "`tls outside/api:9443` has no nonce that could be seen in clear",
        ),
        (
            "from: shop/web, send: \"udp outside/api:9001\", is: allowed, throughout: true, wire: clear",
            "the wire of a flow that is allowed throughout is not looked at",
        ),
        (
            "from: shop/late, send: \"tcp outside/api:9000\", is: allowed, wire: clear",
            "nothing is captured of what shop/late sends",
        ),
        (
            "from: shop/node, send: \"tcp outside/api:9000\", is: allowed, wire: clear",
            "shop/node is in its node's network, and has no edge of its own",
        ),
    ] {
        assert_eq!(wrong("capture", said), message);
    }
    let denied =
        "expect: [{ from: shop/web, send: \"tcp outside/api:9000\", is: denied, wire: clear }]";
    let error = suite("closed.yaml", denied).expect_err("it must be refused").message;
    assert_eq!(error, "only of what is allowed it is known to be on the wire");
}

#[test]
fn whoever_is_not_in_the_mesh_has_nobody_who_asks_dns_for_it() {
    let world = |labels: &str| {
        shop(&format!(
            "world: shop\nabout: A shop.\nnamespaces: [{{ name: shop, labels: {{ {labels} }} }}]\npods:\n- {{ namespace: \
             shop, name: web, node: a, dnsCapture: true }}\n- {{ namespace: shop, name: cart, node: a }}\n"
        ))
    };
    assert_eq!(
        world("").map(|_| ()),
        Err("shop/web is not in the mesh: nobody takes its queries".to_owned())
    );
    let mesh = world("istio.io/dataplane-mode: ambient").unwrap();
    assert!(mesh.pods.iter().all(|pod| mesh.captures_dns(pod)));
}

/// What may be asked of the readiness of a waypoint, and what not.
#[test]
fn a_waypoint_that_must_not_get_ready_has_a_twin_that_does() {
    let all = "closed.yaml, doorman.yaml, warden.yaml";
    let denied = "from: kubelet, send: readiness shop/doorman, is: denied, policy: closed";
    let made = case(all, &format!("{denied}, by: cilium, twin: shop/warden")).unwrap();
    assert_eq!(
        made.cells[0].twin.as_ref().map(ToString::to_string).as_deref(),
        Some("shop/warden")
    );
    let under = made.world_under(&shop(WORLD).unwrap());
    let there: Vec<&str> = under.waypoints.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(there, ["warden"]);
    for (apply, expectation, message) in [
        (
            all,
            denied,
            "waypoint shop/doorman is born under the policies: nobody knows how long it takes to get ready",
        ),
        (
            all,
            "from: kubelet, send: readiness shop/doorman, is: denied, policy: closed, twin: shop/doorman",
            "shop/doorman does not differ from shop/doorman in its namespace or name alone",
        ),
        (
            all,
            "from: kubelet, send: readiness shop/doorman, is: denied, policy: closed, twin: shop/porter",
            "the case applies no Gateway `shop/porter`",
        ),
        (
            all,
            "from: kubelet, send: readiness shop/doorman, is: denied, policy: closed, by: waypoint, twin: shop/warden",
            "waypoint does not keep a waypoint from its control plane",
        ),
        (
            all,
            "from: kubelet, send: readiness shop/doorman, is: allowed, twin: shop/warden",
            "a waypoint that gets ready needs no twin",
        ),
        (
            all,
            "from: shop/web, send: readiness shop/doorman, is: allowed",
            "readiness probes come `from: kubelet`",
        ),
        (
            all,
            "from: kubelet, send: readiness shop/doorman, is: denied, policy: warden, twin: shop/warden",
            "Gateway/shop/warden is a waypoint, and denies nothing by itself",
        ),
        (
            "closed.yaml",
            "from: kubelet, send: readiness shop/doorman, is: allowed",
            "unknown pod `shop/doorman`",
        ),
        (
            "peer.yaml",
            "from: kubelet, send: readiness shop/peer, is: allowed",
            "the world has a pod shop/peer",
        ),
    ] {
        assert_eq!(case(apply, expectation).unwrap_err(), message, "{expectation}");
    }
}
