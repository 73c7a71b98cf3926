//! What a suite may say, and what a world makes of its outside hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ztc_model::stimulus::Send;
use ztc_model::suite::{Case, Library, load, world};
use ztc_model::world::World;
use ztc_model::yaml::Source;

const WORLD: &str = "\
world: shop
about: A client and a host outside.
namespaces: [{ name: shop }]
pods:
  - { namespace: shop, name: web, node: a }
  - { namespace: shop, name: late, node: a, born: in-a-case }
outside:
  - { name: api, dns: [api.zt.test], aliases: [cdn.zt.test], ttl: 1, serves: [{ speaks: tcp, port: 9000 }, { speaks: https, port: 443 }, { speaks: tls, port: 9443 }] }
  - { name: other, dns: [other.zt.test], serves: [] }
";

const CLOSED: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: closed, namespace: shop }
spec:
  endpointSelector: {}
  egress: [{}]
";

fn shop(text: &str) -> Result<World, String> {
    world(&Source::new("shop.yaml", text)).map_err(|diagnostic| diagnostic.message)
}

/// The first case of a suite with this application and expectation.
fn case(apply: &str, expectation: &str) -> Result<Case, String> {
    let file = |name: &str, text: String| (name.to_owned(), Source::new(name, text));
    let library = Library {
        worlds: BTreeMap::from([("shop".to_owned(), shop(WORLD)?)]),
        manifests: BTreeMap::from([
            file("closed.yaml", CLOSED.to_owned()),
            file("empty.yaml", CLOSED.replace("[{}]", "[]")),
            file("nothing.yaml", CLOSED.replace("  egress: [{}]\n", "")),
            file("broken.yaml", CLOSED.replace("[{}]", "[{ toCIDR: [here] }]")),
            file("two.yaml", format!("{CLOSED}---\n{CLOSED}")),
            file("handshakes.yaml", handshakes("[api.zt.test]")),
        ]),
    };
    let text = format!(
        "suite: one\nabout: A test.\nworld: shop\nneeds: [cilium]\ncases:\n- name: one\n  because: It is.\n  \
         apply: [{apply}]\n  create: [shop/late]\n  expect: [{{ {expectation} }}]\n"
    );
    let suite = load(&Source::new("suite.yaml", text), &library);
    suite.map_err(|diagnostic| diagnostic.message).map(|suite| suite.cases[0].clone())
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
