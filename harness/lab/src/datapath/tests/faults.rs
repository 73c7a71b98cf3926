//! What each fault does, and what it leaves alone.

use std::time::Duration;

use ztc_model::policy::Protocol;

use super::cluster::{CART, Cluster, DNS_VIP, LEDGER, METADATA, NODE_A, VENDOR, WEB, at};
use super::packets::{data, syn, syn_ack, udp};
use super::policies::{BLOCK_METADATA, LEDGER_FROM_WEB, SHOP_DEFAULT_DENY, WEB_DNS};

#[test]
fn ignored_egress_denies_pass_and_nothing_else_does() {
    let mut cluster = Cluster::broken("ignore-egress-deny");
    cluster.apply(BLOCK_METADATA);
    let (web, metadata) = (at(WEB, 4000), at(METADATA, 80));
    assert_eq!(cluster.reaches("web", syn(web, metadata)), Some("metadata"));
    assert_eq!(cluster.reaches("metadata", syn_ack(metadata, web)), Some("web"));
    assert_eq!(cluster.recorded().len(), 2, "it is on record as dropped");
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("cart", syn(at(CART, 4000), at(LEDGER, 8080))), None);
    cluster.apply(SHOP_DEFAULT_DENY);
    assert_eq!(cluster.reaches("web", syn(web, at(VENDOR, 80))), None);
}

#[test]
fn where_everything_is_allowed_both_hooks_and_the_proxy_let_pass() {
    let mut cluster = Cluster::broken("allow-everything");
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.apply(LEDGER_FROM_WEB);
    let (cart, ledger) = (at(CART, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("cart", syn(cart, ledger)), Some("ledger"));
    assert_eq!(cluster.reaches("ledger", syn_ack(ledger, cart)), Some("cart"));
    assert_eq!(cluster.recorded().len(), 4, "two hooks, each with a verdict and a drop");
    cluster.apply(WEB_DNS);
    let web = at(WEB, 4000);
    assert_eq!(cluster.reaches("web", udp(web, at(DNS_VIP, 53))), Some("node-a"));
    let redirect = cluster.datapath.redirected(Protocol::Udp, web, cluster.now).unwrap();
    assert!(cluster.datapath.judge_query(&redirect, "evil.example.", &[], cluster.now).allowed);
}

#[test]
fn where_everything_is_dropped_an_allowed_connection_is_on_record_as_allowed() {
    let mut cluster = Cluster::broken("drop-everything");
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(VENDOR, 80))), None);
    assert_eq!(cluster.recorded(), [""; 0]);
    let (node, ledger) = (at(NODE_A, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("node-a", syn(node, ledger)), Some("ledger"), "kubelet");
    assert_eq!(cluster.reaches("ledger", syn_ack(ledger, node)), Some("node-a"));
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("vendor", syn(at(VENDOR, 4000), at(WEB, 80))), None);
    let later = at(NODE_A, 4001);
    assert_eq!(cluster.reaches("node-a", syn(later, ledger)), None, "where policy is enforced");
}

#[test]
fn lost_records_change_nothing_else() {
    let mut cluster = Cluster::broken("lose-flow-records");
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("cart", syn(at(CART, 4000), at(LEDGER, 8080))), None);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8080))), Some("ledger"));
    assert_eq!(cluster.recorded(), [""; 0]);
}

#[test]
fn a_wrong_name_is_that_of_no_applied_policy() {
    let mut cluster = Cluster::broken("wrong-policy-name");
    cluster.apply(BLOCK_METADATA);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(METADATA, 80))), None);
    assert_eq!(cluster.recorded()[0], "node-a verdict egress POLICY_DENY [somebody-else]");
}

#[test]
fn late_enforcement_lets_pass_without_a_record_until_its_time() {
    let mut cluster = Cluster::broken("late-enforcement=300ms");
    cluster.apply(LEDGER_FROM_WEB);
    let (cart, ledger) = (at(CART, 4000), at(LEDGER, 8080));
    cluster.wait(Duration::from_millis(299));
    assert_eq!(cluster.reaches("cart", syn(cart, ledger)), Some("ledger"));
    assert_eq!(cluster.recorded(), [""; 0]);
    cluster.wait(Duration::from_millis(1));
    assert_eq!(cluster.reaches("cart", data(cart, ledger)), None);
    assert_eq!(cluster.recorded().len(), 2);
}

#[test]
fn one_flow_of_many_leaks_with_all_its_packets_through_both_hooks() {
    let mut cluster = Cluster::broken("leak-one-in=3");
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.apply(LEDGER_FROM_WEB);
    let ledger = at(LEDGER, 8080);
    let mut passed = Vec::new();
    for port in 4000..4009 {
        let cart = at(CART, port);
        let first = cluster.reaches("cart", syn(cart, ledger)).is_some();
        let again = cluster.reaches("cart", syn(cart, ledger)).is_some();
        assert_eq!(first, again, "a flow has one fate");
        if first {
            passed.push(port);
            assert_eq!(cluster.reaches("ledger", syn_ack(ledger, cart)), Some("cart"));
            assert_eq!(cluster.reaches("cart", data(cart, ledger)), Some("ledger"));
        }
    }
    assert_eq!(passed, [4002, 4005, 4008]);
}

#[test]
fn muted_clients_still_answer() {
    let mut cluster = Cluster::broken("mute-clients");
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8080))), None);
    assert_eq!(cluster.recorded(), [""; 0]);
    let (node, ledger) = (at(NODE_A, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("node-a", syn(node, ledger)), Some("ledger"));
    assert_eq!(cluster.reaches("ledger", syn_ack(ledger, node)), Some("node-a"));
}

/// A policy for the shop with this one egress element, and a deny rule for what it allows.
fn shop(subject: &str, egress: &str, deny: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{ name: shop, namespace: zt-shop }}\nspec:\n  \
         endpointSelector: {subject}\n  egress: [{egress}]\n  egressDeny: [{deny}]\n"
    )
}

/// Whether the web reaches the vendor, the ledger and its own node under a policy.
fn reached(faults: &str, policy: &str) -> [bool; 3] {
    let mut cluster = Cluster::broken(faults);
    cluster.apply(policy);
    [VENDOR, LEDGER, NODE_A]
        .map(|to| cluster.reaches("web", syn(at(WEB, 4000), at(to, 80))).is_some())
}

#[test]
fn a_not_in_that_asks_for_the_label_selects_nobody_without_it() {
    let subject = "{ matchExpressions: [{ key: tier, operator: NotIn, values: [front] }] }";
    let policy = shop(subject, "{}", "");
    assert_eq!(reached("", &policy), [false; 3]);
    assert_eq!(reached("notin-skips-missing-key", &policy), [true; 3]);
}

#[test]
fn ranges_select_pods_or_nodes_where_they_must_not() {
    for range in ["0.0.0.0/0", "10.0.0.0/8"] {
        let to_vendor = range == "0.0.0.0/0";
        let policy = shop("{}", &format!("{{ toCIDR: [{range}] }}"), "");
        assert_eq!(reached("", &policy), [to_vendor, false, false]);
        assert_eq!(reached("cidr-matches-pods", &policy), [to_vendor, true, false]);
        assert_eq!(reached("cidr-matches-host", &policy), [to_vendor, false, true]);
    }
}

#[test]
fn a_deny_rule_that_loses_still_drops_what_nothing_allows() {
    let vendor = format!("{{ toCIDR: [{VENDOR}/32] }}");
    let contested = shop("{}", &vendor, "{ toEntities: [all] }");
    assert_eq!(reached("", &contested), [false; 3]);
    assert_eq!(reached("deny-loses-to-allow", &contested), [true, false, false]);
}

#[test]
fn a_connection_that_is_not_rechecked_goes_on_and_a_new_one_does_not() {
    for (faults, goes_on) in [("", None), ("established-not-rechecked", Some("ledger"))] {
        let mut cluster = Cluster::broken(faults);
        let (cart, ledger) = (at(CART, 4000), at(LEDGER, 8080));
        assert_eq!(cluster.reaches("cart", syn(cart, ledger)), Some("ledger"));
        assert_eq!(cluster.reaches("ledger", syn_ack(ledger, cart)), Some("cart"));
        cluster.apply(LEDGER_FROM_WEB);
        assert_eq!(cluster.reaches("cart", data(cart, ledger)), goes_on, "{faults}");
        assert_eq!(cluster.reaches("cart", syn(at(CART, 4001), ledger)), None);
    }
}
