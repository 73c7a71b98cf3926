//! What people see when a file is wrong.

use std::fmt::Write as _;

use serde::Deserialize;
use ztc_model::manifest::manifests;
use ztc_model::yaml::{MAX_BYTES, Source, Spanned, strict};

/// A small file of ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    slow: bool,
}

fn file(text: &str) -> Result<File, String> {
    strict(&Source::new("suites/x.yaml", text)).map_err(|diagnostic| diagnostic.to_string())
}

fn about_file(text: &str) -> String {
    file(text).expect_err("it must be refused")
}

fn about_manifests(text: &str) -> String {
    let refused = manifests(&Source::new("suites/l1/policy.yaml", text));
    refused.expect_err("it must be refused").to_string()
}

const POLICY: &str = "\
# Keeps the metadata service from workloads.
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: block-metadata
spec:
  endpointSelector: {}
  egressDeny:
    - toCIDR: [\"169.254.169.254/32\"]
";

#[test]
fn an_unknown_field_is_shown_with_those_that_exist() {
    insta::assert_snapshot!(about_file("name: x\nsolw: true\n"));
}

#[test]
fn a_boolean_is_true_or_false() {
    assert!(file("name: x\nslow: true\ntags: [a]\n").is_ok_and(|it| it.slow && it.tags == ["a"]));
    insta::assert_snapshot!(about_file("name: x\nslow: yes\n"));
}

#[test]
fn a_missing_field_is_named() {
    insta::assert_snapshot!(about_file("tags: [a, b]\n"));
}

#[test]
fn a_key_twice_is_an_error() {
    insta::assert_snapshot!(about_file("name: x\nname: y\n"));
}

#[test]
fn a_tag_is_an_error() {
    insta::assert_snapshot!(about_file("name: !secret x\n"));
}

#[test]
fn a_second_document_is_an_error() {
    insta::assert_snapshot!(about_file("name: x\n---\nname: y\n"));
}

#[test]
fn a_file_of_ours_may_start_with_a_mark() {
    assert!(file("\u{feff}# about it\n---\nname: x\n").is_ok());
}

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    insta::assert_snapshot!(about_file("name: x\ntags: [a, b\n"));
}

#[test]
fn an_empty_file_is_an_error() {
    insta::assert_snapshot!(about_file(""));
}

#[test]
fn a_meaning_that_is_wrong_points_at_its_value() {
    let source = Source::new("suites/x.yaml", "tags: []\nname:   größer als x # no\n");
    let file: File = strict(&source).unwrap();
    let help = Some("a name is one word");
    let diagnostic = source.diagnostic_at(&file.name, "this is no name", help);
    assert_eq!((diagnostic.line, diagnostic.column, diagnostic.length), (2, 9, 12));
    insta::assert_snapshot!(diagnostic);
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let text = format!("name: x\n{}", "#".repeat(MAX_BYTES));
    insta::assert_snapshot!(about_file(&text));
}

#[test]
fn one_endless_line_is_shown_in_part() {
    let text = format!("name: {}\ntags: x\n", "y".repeat(MAX_BYTES - 100));
    assert!(about_file(&text).contains("suites/x.yaml:2:7"));
    let text = format!("nmae: {}", "y".repeat(MAX_BYTES - 100));
    assert!(about_file(&text).len() < 2000);
}

/// Each level is nine times the one before: a billion at the ninth.
fn alias_bomb() -> String {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").expect("strings take all text");
    }
    text
}

#[test]
fn an_alias_bomb_ends_with_a_line() {
    let bomb = alias_bomb();
    insta::assert_snapshot!(
        strict::<serde_json::Value>(&Source::new("suites/x.yaml", bomb.clone())).unwrap_err()
    );
    let annotated = POLICY.replace("  name", &format!("  {}  name", bomb.replace('\n', "\n  ")));
    assert!(about_manifests(&annotated).contains("unknown field `a0`"));
    insta::assert_snapshot!(about_manifests(&format!("{POLICY}{bomb}")));
}

#[test]
fn a_deep_nest_is_an_error() {
    let text = format!("tags: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    insta::assert_snapshot!(about_file(&text));
}

#[test]
fn a_field_that_is_not_evaluated_is_named() {
    let text = POLICY.replace("egressDeny", "egress").replace("toCIDR", "toNodes");
    insta::assert_snapshot!(about_manifests(&text));
}

#[test]
fn names_and_ranges_in_one_element_are_refused_with_the_reason_of_cilium() {
    let text = POLICY
        .replace("egressDeny", "egress")
        .replace("    - toCIDR", "    - toFQDNs: [{ matchName: api.zt.test }]\n      toCIDR");
    insta::assert_snapshot!(about_manifests(&text));
}

#[test]
fn no_field_is_ignored() {
    let refused = |text: String, field: &str| {
        let said = about_manifests(&text);
        assert!(said.contains(&format!("`{field}`")), "{said}");
    };
    let section = "  endpointSelector: {}\n";
    for field in ["nodeSelector: {}", "labels: []", "log: { value: x }", "order: 1"] {
        let name = field.split(':').next().unwrap();
        refused(POLICY.replace(section, &format!("{section}  {field}\n")), name);
    }
    let element = "    - toCIDR: [\"169.254.169.254/32\"]\n";
    for field in ["authentication", "toServices", "toGroups", "toNodes", "toRequires"] {
        let text = POLICY.replace("egressDeny", "egress");
        refused(text.replace(element, &format!("{element}      {field}: []\n")), field);
    }
    for field in ["http", "kafka"] {
        let rules = format!(
            "    - toPorts:\n        - ports: [{{ port: \"80\" }}]\n          rules: {{ {field}: [] }}\n"
        );
        refused(POLICY.replace("egressDeny", "egress").replace(element, &rules), field);
    }
    for field in ["serverNames", "listener", "terminatingTLS", "originatingTLS"] {
        let rules = format!(
            "    - toPorts:\n        - ports: [{{ port: \"80\" }}]\n          {field}: []\n"
        );
        refused(POLICY.replace("egressDeny", "egress").replace(element, &rules), field);
    }
    let group = "    - toCIDRSet: [{ cidrGroupRef: g }]\n";
    refused(POLICY.replace(element, group), "cidrGroupRef");
    refused(format!("{POLICY}status: {{}}\n"), "status");
    refused(POLICY.replace("  name:", "  finalizers: []\n  name:"), "finalizers");
    let deny = "    - toPorts: [{ ports: [{ port: \"80\" }], rules: { dns: [] } }]\n";
    refused(POLICY.replace(element, deny), "rules");
}

#[test]
fn a_kind_that_is_not_known_is_named() {
    let text = POLICY.replace("CiliumClusterwideNetworkPolicy", "CiliumEgressGatewayPolicy");
    insta::assert_snapshot!(about_manifests(&text));
}

#[test]
fn a_kind_of_another_group_is_an_error() {
    insta::assert_snapshot!(about_manifests(&POLICY.replace("cilium.io/v2", "cilium.io/v1")));
}

#[test]
fn a_clusterwide_policy_has_no_namespace() {
    let text = POLICY.replace("metadata:\n", "metadata:\n  namespace: shop\n");
    insta::assert_snapshot!(about_manifests(&text));
}

#[test]
fn a_namespaced_policy_names_its_namespace() {
    insta::assert_snapshot!(about_manifests(&POLICY.replace("Clusterwide", "")));
}

#[test]
fn a_broken_name_is_an_error() {
    insta::assert_snapshot!(about_manifests(&POLICY.replace("block-metadata", "Block_Metadata")));
}

#[test]
fn an_entity_that_is_not_evaluated_is_named() {
    let element = "toCIDR: [\"169.254.169.254/32\"]";
    insta::assert_snapshot!(about_manifests(&POLICY.replace(element, "toEntities: [world-ipv4]")));
}

#[test]
fn a_broken_range_is_an_error() {
    insta::assert_snapshot!(about_manifests(&POLICY.replace("254/32", "254")));
}

#[test]
fn an_exception_outside_its_range_is_an_error() {
    let element = "toCIDR: [\"169.254.169.254/32\"]";
    let set = "toCIDRSet: [{ cidr: 10.0.0.0/8, except: [192.0.2.0/24] }]";
    insta::assert_snapshot!(about_manifests(&POLICY.replace(element, set)));
}

#[test]
fn a_number_in_place_of_a_text_is_an_error() {
    let element = "toCIDR: [\"169.254.169.254/32\"]";
    let ports = "toPorts: [{ ports: [{ port: 80, protocol: TCP }] }]";
    insta::assert_snapshot!(about_manifests(&POLICY.replace(element, ports)));
}

#[test]
fn a_policy_without_a_section_is_shown() {
    let lists = "  egressDeny:\n    - toCIDR: [\"169.254.169.254/32\"]\n";
    insta::assert_snapshot!(about_manifests(&POLICY.replace(lists, "  egressDeny: []\n")));
}

#[test]
fn a_policy_without_a_spec_is_shown() {
    let start = POLICY.find("spec").unwrap();
    insta::assert_snapshot!(about_manifests(POLICY.get(..start).unwrap()));
}

#[test]
fn broken_selectors_are_shown() {
    let said: Vec<_> = [
        "matchExpressions: [{ key: app, operator: Equals, values: [web] }]",
        "matchExpressions: [{ key: app, operator: In }]",
        "matchExpressions: [{ key: app, operator: NotIn, values: [] }]",
        "matchExpressions: [{ key: app, operator: Exists, values: [web] }]",
        "matchLabels: { \"app!\": web }",
        "matchLabels: { app: \"-web\" }",
        "matchLabels: { \"cidr:10.0.0.0/8\": \"\" }",
        "matchLabels: { app: true }",
        "matchNames: []",
    ]
    .map(|selector| {
        about_manifests(&POLICY.replace("Selector: {}", &format!("Selector: {{ {selector} }}")))
    })
    .into();
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn lines_are_those_of_the_file_in_every_document() {
    let text =
        format!("---\n# nothing\n---\n{POLICY}--- # the next\n\n{}", POLICY.replace("/32", "/33"));
    insta::assert_snapshot!(about_manifests(&text));
}

#[test]
fn documents_are_read_in_order_with_their_lines() {
    let other = POLICY.replace("block-metadata", "other");
    let text = format!("{POLICY}---\n---\n# nothing\n---   \n{other}...\n---\n");
    let read = manifests(&Source::new("l1.yaml", text)).unwrap();
    let found: Vec<_> = read.iter().map(|it| (it.reference.to_string(), it.line)).collect();
    let kind = "CiliumClusterwideNetworkPolicy";
    assert_eq!(found, [(format!("{kind}/block-metadata"), 3), (format!("{kind}/other"), 16)]);
    assert!(read.iter().all(|it| it.file == "l1.yaml"));
}

#[test]
fn the_object_is_the_document() {
    let text = POLICY.replace("  name:", "  annotations: { mode: \"0755\" }\n  name:");
    let read = manifests(&Source::new("l1.yaml", text)).unwrap();
    let object = serde_json::json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "annotations": { "mode": "0755" }, "name": "block-metadata" },
        "spec": {
            "endpointSelector": {},
            "egressDeny": [{ "toCIDR": ["169.254.169.254/32"] }],
        },
    });
    assert_eq!(read[0].object, object);
    assert!(read[0].reference.names(&read[0].policy.reference()));
}

/// As `kubectl` reads them: YAML 1.1, in which `0120` is 80 and `off` is a boolean.
#[test]
fn scalars_are_those_of_kubectl() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: one, namespace: shop }
spec:
  ingress: [{ ports: [{ port: 0120 }] }]
";
    let read = manifests(&Source::new("l2.yaml", text)).unwrap();
    assert_eq!(read[0].object["spec"]["ingress"][0]["ports"][0]["port"], 80);
    let text = POLICY.replace("  egressDeny", "  enableDefaultDeny: { egress: off }\n  egressDeny");
    let read = manifests(&Source::new("l1.yaml", text)).unwrap();
    assert_eq!(read[0].object["spec"]["enableDefaultDeny"]["egress"], false);
}

/// The longest name that Kubernetes takes is a DNS subdomain of 253 characters.
#[test]
fn a_name_is_as_long_as_kubernetes_takes_it_and_no_longer() {
    let named = |length: usize| POLICY.replace("block-metadata", &"n".repeat(length));
    let longest = manifests(&Source::new("policy.yaml", named(253))).expect("it is a name");
    assert_eq!(longest[0].reference.name.len(), 253);
    let refused = about_manifests(&named(254));
    assert!(refused.contains("is no name of an object"), "{refused}");
}
