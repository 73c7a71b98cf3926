//! Targets by name: resolved as a pod does, leg by leg.

use crate::support::{Agent, NAME, free_ports, loopback};
use tokio::net::UdpSocket;
use ztc_wire::{
    DnsRcode, DnsTransport, Host, Leg, Observed, Phase, RecordType, Service, Stimulus, Target,
    Zone, ZoneRecord,
};

const SEARCH: &str = "search zt-shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n";

/// An agent that is its own resolver, on the first port, and serves TCP on the second.
fn agent(dns: u16, tcp: u16) -> Agent {
    let record = |name: &str, address: &str| ZoneRecord {
        name: name.into(),
        address: address.parse().unwrap(),
        ttl: 5,
    };
    let zone = Zone {
        records: vec![
            record("ledger.zt-pay.svc.cluster.local", "127.0.0.1"),
            record("six.zt.test", "::1"),
        ],
        ..Zone::default()
    };
    let serve = vec![Service::Dns { port: dns, zone }, Service::Tcp { port: tcp }];
    let resolv_conf = format!("nameserver [127.0.0.1]:{dns}\n{SEARCH}");
    Agent::start_with(serve, vec![], &resolv_conf)
}

fn tcp(name: &str, port: u16) -> Stimulus {
    Stimulus::Tcp { to: Target { host: Host::Name(name.into()), port, family: None } }
}

#[tokio::test]
async fn a_service_s_name_goes_through_the_search_list() {
    let [dns, port] = free_ports();
    let run = agent(dns, port).observe(tcp("ledger.zt-pay", port)).await;
    let legs: Vec<_> = run.started.iter().map(|(leg, _, to)| (*leg, to.port())).collect();
    assert_eq!(legs, [(Leg::Resolve, dns), (Leg::Resolve, dns), (Leg::Send, port)]);
    assert_eq!(run.observed, Observed::Reply { peer: NAME.into(), remote: loopback(port) });
    let [(_, first, _), (_, second, _), (_, third, _)] = run.started[..] else { panic!() };
    assert!(first != second && second != third, "every query has its own socket");
}

#[tokio::test]
async fn a_name_without_an_ipv4_address_is_asked_for_an_ipv6_address() {
    let [dns, port] = free_ports();
    let run = agent(dns, port).observe(tcp("six.zt.test.", port)).await;
    let legs: Vec<_> = run.started.iter().map(|(leg, ..)| *leg).collect();
    assert_eq!(legs[..2], [Leg::Resolve, Leg::Resolve]);
    // Without IPv6 on this machine the last leg says so; the address was found all the same.
    let reached = matches!(&run.observed, Observed::Reply { remote, .. } if remote.is_ipv6());
    let no_ipv6 = matches!(run.observed, Observed::Unreachable { .. } | Observed::Unsent { .. });
    assert!(reached || no_ipv6, "{run:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unresolved_after_all_candidates() {
    let [dns, port] = free_ports();
    let run = agent(dns, port).observe(tcp("nobody.zt-pay", port)).await;
    let name = "nobody.zt-pay".into();
    assert_eq!(run.observed, Observed::Unresolved { rcode: DnsRcode::NXDOMAIN, name });
    assert_eq!(run.started.len(), 3);
}

#[tokio::test]
async fn a_silent_resolver_is_a_time_out_of_its_own_phase() {
    let silent = UdpSocket::bind(loopback(0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut agent = Agent::start_with(vec![], vec![], &format!("nameserver [127.0.0.1]:{port}\n"));
    let mut session = agent.attach(0).await;
    session.run(1, 100, tcp("ledger", 80)).await;
    let run = session.ended(1).await;
    assert_eq!(run.observed, Observed::Timeout { phase: Phase::Resolve });
}

#[tokio::test]
async fn a_query_without_a_server_goes_to_the_pod_s_resolver() {
    let [dns, port] = free_ports();
    let query = Stimulus::Dns {
        name: "ledger.zt-pay.svc.cluster.local".into(),
        record: RecordType::A,
        transport: DnsTransport::Udp,
        server: None,
    };
    let run = agent(dns, port).observe(query).await;
    assert!(matches!(run.started[..], [(Leg::Send, _, to)] if to == loopback(dns)), "{run:?}");
    let Observed::Dns { rcode, answers, .. } = run.observed else { panic!("{run:?}") };
    assert_eq!((rcode, answers), (DnsRcode::NOERROR, vec![loopback(0).ip()]));
}

#[tokio::test]
async fn a_pod_without_a_resolver_cannot_send_to_a_name() {
    let run = Agent::start(vec![]).observe(tcp("ledger", 80)).await;
    assert!(matches!(run.observed, Observed::Unsent { .. }), "{run:?}");
}
