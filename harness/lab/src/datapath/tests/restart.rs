//! Agents that restart: what is in the datapath goes on without them.

use std::time::Duration;

use super::cluster::{Cluster, DNS_VIP, LEDGER, VENDOR, WEB, at};
use super::names::{answered, web_reaches, with_names};
use super::packets::{syn, udp};

/// Longer than agents are away.
const BACK: Duration = Duration::from_secs(1);

/// Restarts the agents; those who come back are broken in these ways.
fn restart(cluster: &mut Cluster, as_broken: &str) {
    cluster.datapath.restart_agents(as_broken.parse().unwrap(), cluster.now);
}

#[test]
fn denials_hold_and_nobody_records_them_while_agents_are_away() {
    let (mut cluster, _) = with_names("");
    let denied = || syn(at(WEB, 4002), at(LEDGER, 9000));
    restart(&mut cluster, "");
    cluster.flows.clear();
    assert_eq!(cluster.reaches("web", denied()), None);
    assert_eq!(cluster.recorded(), [""; 0]);
    cluster.wait(BACK);
    assert_eq!(cluster.reaches("web", denied()), None);
    assert!(!cluster.recorded().is_empty());
}

#[test]
fn queries_get_no_answer_while_agents_are_away() {
    let (mut cluster, _) = with_names("");
    let query = || udp(at(WEB, 4003), at(DNS_VIP, 53));
    restart(&mut cluster, "");
    assert_eq!(cluster.reaches("web", query()), None);
    cluster.wait(BACK);
    assert_eq!(cluster.reaches("web", query()), Some("node-a"));
}

/// `pkg/endpoint/restore.go`, `pkg/fqdn/namemanager`.
#[test]
fn names_that_were_learnt_outlive_the_agent_and_none_is_learnt_without_it() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    restart(&mut cluster, "");
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    cluster.wait(BACK);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));

    let (mut cluster, redirect) = with_names("");
    restart(&mut cluster, "");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    cluster.wait(BACK);
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
}

#[test]
fn what_a_broken_restart_does_is_over_when_agents_are_back() {
    let (mut cluster, _) = with_names("");
    let denied = |cluster: &mut Cluster, port| {
        cluster.reaches("web", syn(at(WEB, port), at(LEDGER, 9000))).is_none()
    };
    assert!(denied(&mut cluster, 4004));
    restart(&mut cluster, "restart-opens=200ms");
    assert!(!denied(&mut cluster, 4005));
    cluster.wait(BACK);
    assert!(denied(&mut cluster, 4006));
}

#[test]
fn a_restart_that_forgets_names_closes_what_was_open() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    restart(&mut cluster, "restart-forgets-names");
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
}
