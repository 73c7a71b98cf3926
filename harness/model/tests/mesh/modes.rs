//! `PeerAuthentication`: who may speak in plain.

use super::*;

const MESH_STRICT: &str = "{ mtls: { mode: STRICT } }";
const PERMISSIVE: &str = "{ mtls: { mode: PERMISSIVE } }";

/// A spec for the ledger with a mode and modes of ports.
fn ledger(mode: &str, ports: &str) -> String {
    let selector = "selector: { matchLabels: { app: ledger } }";
    format!("{{ {selector}, mtls: {{ mode: {mode} }}, portLevelMtls: {{ {ports} }} }}")
}

/// Recorded, `istio/02-strict-mtls.txt`.
#[test]
fn strict_refuses_peers_in_plain_by_the_static_policy_and_no_others() {
    let strict = peers("bank", "default", MESH_STRICT);
    assert_eq!(decide(&strict, IN_PLAIN, 9000), denied_by(STATIC_STRICT));
    assert_eq!(decide(&strict, TELLER, 9000), Decision::Allowed);
}

/// Recorded, `istio/02-strict-mtls.txt`: this is what evidence reads.
#[test]
fn a_refusal_is_logged_as_ztunnel_writes_it() {
    let strict = peers("bank", "default", MESH_STRICT);
    let error = decide(&strict, IN_PLAIN, 9000).error();
    assert_eq!(
        error.as_deref(),
        Some(
            "connection closed due to policy rejection: explicitly denied by: \
             istio-system/istio_converted_static_strict"
        )
    );
    assert_eq!(decide(&strict, TELLER, 9000).error(), None);
}

#[test]
fn without_any_policy_everybody_passes() {
    assert_eq!(decide("", IN_PLAIN, 9000), Decision::Allowed);
}

/// `isMtlsModeStrict` alone makes a policy: DISABLE is as good as PERMISSIVE.
#[test]
fn permissive_and_disable_refuse_nobody() {
    for mode in ["PERMISSIVE", "DISABLE", "UNSET"] {
        let policy = peers("bank", "default", &format!("{{ mtls: {{ mode: {mode} }} }}"));
        assert!(passes(&policy, IN_PLAIN, 9000), "{mode}");
    }
}

/// `convertedSelectorPeerAuthentications`: mesh, namespace, workload, and UNSET inherits.
#[test]
fn the_closer_level_counts_and_a_mode_that_is_not_set_does_not() {
    let mesh = peers("istio-system", "default", MESH_STRICT);
    let open = peers("bank", "open", PERMISSIVE);
    let unset = peers("bank", "unset", "{}");
    assert!(!passes(&mesh, IN_PLAIN, 9000));
    assert!(passes(&(mesh.clone() + &open), IN_PLAIN, 9000));
    assert!(!passes(&(mesh.clone() + &unset), IN_PLAIN, 9000));
    let workload = peers("bank", "ledger", "{ selector: { matchLabels: { app: ledger } } }");
    assert!(!passes(&(mesh.clone() + &workload), IN_PLAIN, 9000));
    let workload = workload.replace("} } }", "} }, mtls: { mode: PERMISSIVE } }");
    assert!(passes(&(mesh + &workload), IN_PLAIN, 9000));
}

/// `getOldestPeerAuthn`.
#[test]
fn the_oldest_of_a_level_counts() {
    let strict = peers("bank", "a", MESH_STRICT);
    let open = peers("bank", "b", PERMISSIVE);
    assert!(!passes(&(strict.clone() + &open), IN_PLAIN, 9000));
    assert!(passes(&(open + &strict), IN_PLAIN, 9000));
}

#[test]
fn a_policy_of_another_namespace_or_for_other_workloads_does_not_count() {
    assert!(passes(&peers("visit", "default", MESH_STRICT), IN_PLAIN, 9000));
    let other = "{ selector: { matchLabels: { app: teller } }, mtls: { mode: STRICT } }";
    assert!(passes(&peers("bank", "teller", other), IN_PLAIN, 9000));
}

/// `convertedSelectorPeerAuthentications`: `else if cfg.Namespace != rootNamespace`.
#[test]
fn a_policy_with_a_selector_in_the_root_namespace_is_for_nobody() {
    let selecting = "{ selector: { matchLabels: { app: ledger } }, mtls: { mode: STRICT } }";
    assert!(passes(&peers("istio-system", "ledger", selecting), IN_PLAIN, 9000));
    let text = peers("istio-system", "ledger", selecting);
    let connection = connection(IN_PLAIN, 9000);
    assert_eq!(decide_at("istio-system", &text, &connection), Decision::Allowed);
}

/// `ambient/testdata/peer-authn-strict-and-permissive-port-mtls.yaml`.
#[test]
fn a_port_may_be_left_out_of_strict_and_the_policy_is_named_as_converted() {
    let policy = peers("bank", "but", &ledger("STRICT", r#""9000": { mode: PERMISSIVE }"#));
    assert!(passes(&policy, IN_PLAIN, 9000));
    let by = denied_by("bank/converted_peer_authentication_but");
    assert_eq!(decide(&policy, IN_PLAIN, 8080), by);
    assert!(passes(&policy, TELLER, 8080));
}

/// `ambient/testdata/peer-authn-permissive-port-mtls-strict.yaml`.
#[test]
fn a_port_alone_may_be_strict() {
    let policy = peers("bank", "alone", &ledger("PERMISSIVE", r#""9000": { mode: STRICT }"#));
    let by = denied_by("bank/converted_peer_authentication_alone");
    assert_eq!(decide(&policy, IN_PLAIN, 9000), by);
    assert!(passes(&policy, IN_PLAIN, 8080));
    assert!(passes(&policy, TELLER, 9000));
}

/// `ambient/testdata/peer-authn-strict-and-strict-port-mtls.yaml`: nothing is made of it.
#[test]
fn a_strict_port_of_a_strict_workload_is_the_static_policy() {
    let policy = peers("bank", "all", &ledger("STRICT", r#""9000": { mode: STRICT }"#));
    assert_eq!(decide(&policy, IN_PLAIN, 9000), denied_by(STATIC_STRICT));
    assert_eq!(decide(&policy, IN_PLAIN, 8080), denied_by(STATIC_STRICT));
}

/// `ambient/testdata/peer-authn-strict-root-unset-workload-port-mtls-strict-and-permissive.yaml`: the mode above is merged
/// in, as the static policy beside it would deny the port.
#[test]
fn a_port_may_be_left_out_of_the_strict_mode_of_the_mesh() {
    let ports = r#""9000": { mode: PERMISSIVE }, "8080": { mode: STRICT }"#;
    let text = peers("istio-system", "default", MESH_STRICT)
        + &peers("bank", "but", &ledger("UNSET", ports));
    assert!(passes(&text, IN_PLAIN, 9000));
    let by = denied_by("bank/converted_peer_authentication_but");
    assert_eq!(decide(&text, IN_PLAIN, 8080), by);
    assert_eq!(decide(&text, IN_PLAIN, 7000), by);
}

/// `ambient/testdata/peer-authn-permissive-root-strict-namespace-permissive-workload.yaml`.
#[test]
fn a_port_may_be_left_out_of_the_strict_mode_of_the_namespace() {
    let text = peers("istio-system", "mesh", PERMISSIVE)
        + &peers("bank", "default", MESH_STRICT)
        + &peers("bank", "but", &ledger("UNSET", r#""9000": { mode: PERMISSIVE }"#));
    assert!(passes(&text, IN_PLAIN, 9000));
    assert!(!passes(&text, IN_PLAIN, 8080));
}

/// `convertedSelectorPeerAuthentications`: for a workload without a mode only `isMtlsModePermissive` is asked.
#[test]
fn a_port_with_disable_is_no_exception_of_a_workload_without_a_mode() {
    let text = peers("bank", "default", MESH_STRICT)
        + &peers("bank", "but", &ledger("UNSET", r#""9000": { mode: DISABLE }"#));
    assert_eq!(decide(&text, IN_PLAIN, 9000), denied_by(STATIC_STRICT));
    let set = peers("bank", "but", &ledger("STRICT", r#""9000": { mode: DISABLE }"#));
    assert!(passes(&set, IN_PLAIN, 9000));
}

/// `convertPeerAuthentication` leaves the port to "the parent mTLS mode", which it asks of the mesh without looking at that of
/// the workload, while `convertedSelectorPeerAuthentications` refers to what was not made; ztunnel then says
/// `skipping unknown policy` (`src/state.rs`).
#[test]
fn a_strict_port_of_a_permissive_workload_is_open_under_a_strict_mesh() {
    let mesh = peers("istio-system", "default", MESH_STRICT);
    let alone = peers("bank", "alone", &ledger("PERMISSIVE", r#""9000": { mode: STRICT }"#));
    assert!(passes(&(mesh.clone() + &alone), IN_PLAIN, 9000));
    let namespace = peers("bank", "default", MESH_STRICT);
    assert!(!passes(&(mesh + &namespace + &alone), IN_PLAIN, 9000));
}

/// The same disagreement the other way round: under a policy of the namespace that sets no mode, the port is no exception
/// for the one and is for the other.
#[test]
fn an_open_port_opens_the_workload_under_a_namespace_that_sets_no_mode() {
    let mesh = peers("istio-system", "default", MESH_STRICT);
    let unset = peers("bank", "unset", "{}");
    let but = peers("bank", "but", &ledger("UNSET", r#""9000": { mode: PERMISSIVE }"#));
    assert!(!passes(&(mesh.clone() + &but), IN_PLAIN, 8080));
    assert!(passes(&(mesh + &unset + &but), IN_PLAIN, 8080));
}

#[test]
fn a_workload_refers_to_what_its_modes_become() {
    let refers = |text: &str| {
        let labels = labels([("app", "ledger")]);
        let told = Distributed::of(&policies(text));
        let keys = told.references(&Workload { namespace: "bank", labels: &labels });
        keys.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let strict = peers("bank", "default", MESH_STRICT);
    assert_eq!(refers(&strict), [STATIC_STRICT]);
    let but = peers("bank", "but", &ledger("STRICT", r#""9000": { mode: PERMISSIVE }"#));
    assert_eq!(refers(&(strict + &but)), ["bank/converted_peer_authentication_but"]);
    assert!(refers(&peers("bank", "open", PERMISSIVE)).is_empty());
}

#[test]
fn a_selector_without_labels_is_refused() {
    for spec in ["{ selector: {}, mtls: { mode: STRICT } }", "{ selector: { matchLabels: {} } }"] {
        assert!(refusal(&peers("bank", "x", spec)).starts_with("a selector without labels"));
    }
}
