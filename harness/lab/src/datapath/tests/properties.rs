//! What holds for all packets and all policies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire::TcpControl;
use ztc_model::dns::DnsRule;
use ztc_model::hubble::{EVENT_DROP, Line};
use ztc_model::identity::{Identity, Reserved};
use ztc_model::labels::{K8S, Labels};
use ztc_model::policy::{
    DirectionPolicy, Effect, NamedPorts, Peer as RulePeer, PeerSelector, PolicyKind, PolicyRef,
    PortMatch, PortSelector, Ports, Protocol, Rule,
};
use ztc_model::selector::{Requirement, Selector};

use super::super::packet::{Content, Packet};
use super::super::policy_map::{KnownPeer, Peer, PolicyMap};
use super::cluster::{
    AMBIENT_PROBE, CART, COREDNS, Cluster, DNS_VIP, LEDGER, METADATA, NODE_A, VENDOR, WEB, at,
};
use super::packets::{data, ends, port_unreachable, quoted, syn, syn_ack, tcp, udp};
use super::policies::{BLOCK_METADATA, LEDGER_FROM_WEB, SHOP_DEFAULT_DENY, WEB_DNS};

fn peers() -> [Identity; 8] {
    let pod = |name: &str| Identity::Endpoint(Labels::new().with(K8S, "app", name));
    [
        pod("web"),
        pod("cart"),
        Identity::Reserved(Reserved::Host),
        Identity::Reserved(Reserved::World),
        Identity::Cidr("10.0.0.0/8".parse().unwrap()),
        Identity::Cidr("10.1.0.0/16".parse().unwrap()),
        Identity::Fqdn { names: [api()].into(), range: None },
        Identity::Fqdn { names: [api()].into(), range: Some("10.1.0.0/16".parse().unwrap()) },
    ]
}

fn api() -> DnsRule {
    DnsRule::name("api.zt.test").unwrap()
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Icmpv6])
}

/// Few enough that rules meet, with both ends of the range of all ports.
fn ports() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0, 1, 53, 79, 80, 81, 443, 8080, 65_534, 65_535])
}

fn selectors() -> impl Strategy<Value = PeerSelector> {
    let label = |name| RulePeer::Labels(Selector::all().and(Requirement::equals(K8S, "app", name)));
    let range = |range: &str, except: &[&str]| RulePeer::Cidr {
        range: range.parse().unwrap(),
        except: except.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let parts = vec![
        label("web"),
        label("cart"),
        range("10.0.0.0/8", &[]),
        range("10.0.0.0/8", &["10.1.0.0/16"]),
        range("0.0.0.0/0", &[]),
        RulePeer::Fqdn(api()),
    ];
    prop_oneof![
        1 => Just(PeerSelector::all()),
        4 => prop::sample::subsequence(parts, 1..3).prop_map(PeerSelector::any_of),
    ]
}

fn port_selectors() -> impl Strategy<Value = PortSelector> {
    let ports = prop_oneof![
        Just(Ports::All),
        ports().prop_map(Ports::One),
        (ports(), ports()).prop_map(|(a, b)| Ports::Range(a.min(b), a.max(b))),
        Just(Ports::Named("http".to_owned())),
    ];
    let matches = (protocols(), ports).prop_map(|(protocol, ports)| PortMatch { protocol, ports });
    prop_oneof![Just(PortSelector::All), vec(matches, 1..3).prop_map(PortSelector::AnyOf)]
}

fn rules() -> impl Strategy<Value = Rule> {
    let names = prop::sample::select(vec!["one", "two", "three"]);
    let effects = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let dns = prop_oneof![
        3 => Just(None),
        1 => Just(Some(vec![DnsRule::pattern("*.zt.test").unwrap()])),
    ];
    (names, effects, selectors(), port_selectors(), dns).prop_map(
        |(name, effect, peers, ports, dns)| Rule {
            origin: PolicyRef {
                kind: PolicyKind::CiliumClusterwideNetworkPolicy,
                namespace: None,
                name: name.to_owned(),
            },
            effect,
            peers,
            ports,
            dns: dns.filter(|_| effect == Effect::Allow),
        },
    )
}

fn policies() -> impl Strategy<Value = DirectionPolicy> {
    (any::<bool>(), any::<bool>(), vec(rules(), 0..6)).prop_map(
        |(default_deny, allows_host, rules)| DirectionPolicy { default_deny, allows_host, rules },
    )
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

fn sockets() -> impl Strategy<Value = SocketAddr> {
    (addresses(), any::<u16>()).prop_map(SocketAddr::from)
}

fn places() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("web", WEB),
        ("cart", CART),
        ("ledger", LEDGER),
        ("coredns", COREDNS),
        ("node-a", NODE_A),
        ("node-a", AMBIENT_PROBE),
        ("vendor", VENDOR),
        ("metadata", METADATA),
    ])
}

/// Policies that select one pod, one namespace and everybody, with and without ranges.
const CHANGING: [(&str, &str); 4] = [
    ("CiliumClusterwideNetworkPolicy/block-metadata", BLOCK_METADATA),
    ("CiliumNetworkPolicy/zt-pay/ledger-from-web", LEDGER_FROM_WEB),
    ("NetworkPolicy/zt-shop/default-deny", SHOP_DEFAULT_DENY),
    ("CiliumNetworkPolicy/zt-shop/web-dns", WEB_DNS),
];

const PODS: [(&str, &str); 3] = [("web", WEB), ("cart", CART), ("ledger", LEDGER)];

fn guarded() -> Cluster {
    let mut cluster = Cluster::new();
    for policy in [BLOCK_METADATA, LEDGER_FROM_WEB, SHOP_DEFAULT_DENY, WEB_DNS] {
        cluster.apply(policy);
    }
    cluster
}

proptest! {
    #[test]
    fn a_compiled_policy_decides_as_the_model_does(
        policy in policies(),
        protocol in protocols(),
        port in ports(),
        http in ports(),
    ) {
        let named: NamedPorts =
            [((Protocol::Tcp, "http".to_owned()), http)].into_iter().collect();
        let peers = peers();
        let known: Vec<KnownPeer<'_>> = (0_u32..)
            .zip(&peers)
            .map(|(number, identity)| KnownPeer {
                peer: Peer::nameless(number),
                identity,
                named: &named,
            })
            .collect();
        let compiled = PolicyMap::compile(&policy, &known);
        for KnownPeer { peer, identity, .. } in known {
            prop_assert_eq!(
                &compiled.lookup(peer, protocol, port).decision,
                &policy.decide(identity, protocol, port, &named),
                "{:?}", identity
            );
        }
    }

    #[test]
    fn translation_leaves_checksums_right(
        from in sockets(),
        to in sockets(),
        new_source in sockets(),
        new_destination in sockets(),
        is_tcp in any::<bool>(),
    ) {
        let bytes = if is_tcp { data(from, to) } else { udp(from, to) };
        let mut packet = Packet::parse(bytes).unwrap();
        packet.set_source(new_source);
        packet.set_destination(new_destination);
        let flow = packet.flow();
        prop_assert_eq!((flow.source, flow.destination), (new_source, new_destination));
        prop_assert_eq!(ends(&packet.into_bytes()), (new_source, new_destination));
    }

    #[test]
    fn translation_of_version_six_leaves_checksums_right(
        [from, to, new] in any::<[u128; 3]>(),
        ports in any::<[u16; 3]>(),
    ) {
        let socket = |address: u128, port| SocketAddr::new(IpAddr::V6(address.into()), port);
        let new = socket(new, ports[2]);
        let bytes = udp(socket(from, ports[0]), socket(to, ports[1]));
        let mut packet = Packet::parse(bytes).unwrap();
        packet.set_destination(new);
        prop_assert_eq!(ends(&packet.into_bytes()), (socket(from, ports[0]), new));
    }

    #[test]
    fn translation_of_an_icmp_error_leaves_checksums_right(
        from in sockets(),
        to in sockets(),
        asked in sockets(),
    ) {
        let mut packet = Packet::parse(port_unreachable(&udp(from, to))).unwrap();
        packet.set_source(asked);
        packet.set_quoted_destination(asked);
        prop_assert!(
            matches!(packet.content(), Content::Icmp(it)
                if it.quoted.is_some_and(|it| it.flow.destination == asked))
        );
        let bytes = packet.into_bytes();
        prop_assert_eq!(ends(&bytes).0.ip(), asked.ip());
        prop_assert_eq!(quoted(&bytes), (from, asked));
    }

}

proptest! {
    // Each case makes a cluster.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..120), from in places()) {
        let mut cluster = guarded();
        for version in [4, 6] {
            let mut bytes = bytes.clone();
            if let Some(first) = bytes.first_mut() {
                *first = (version << 4) | 5;
            }
            cluster.send(from.0, bytes);
        }
    }

    #[test]
    fn a_real_packet_with_arbitrary_bytes_in_it_is_survived(
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in 0..3,
        length in any::<prop::sample::Index>(),
    ) {
        let mut cluster = guarded();
        let query = udp(at(WEB, 4000), at(DNS_VIP, 53));
        let mut bytes = match which {
            0 => query,
            1 => syn(at(WEB, 4000), at(LEDGER, 8080)),
            _ => port_unreachable(&query),
        };
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        cluster.send("web", bytes);
    }

    #[test]
    fn a_reply_passes_if_and_only_if_what_it_answers_did(
        from in places(),
        to in places(),
        port in prop::sample::select(vec![53, 80, 8080]),
        is_tcp in any::<bool>(),
    ) {
        prop_assume!(from.0 != to.0);
        // Both nodes have this address, and each talks from it to its own pods alone.
        prop_assume!(from.1 != AMBIENT_PROBE && to.1 != AMBIENT_PROBE);
        // Without DNS rules, as a redirected query is answered by the proxy.
        let mut cluster = guarded();
        cluster.remove("CiliumNetworkPolicy/zt-shop/web-dns");
        let (source, destination) = (at(from.1, 4000), at(to.1, port));
        let (request, reply) = if is_tcp {
            (syn(source, destination), syn_ack(destination, source))
        } else {
            (udp(source, destination), udp(destination, source))
        };
        let asked = cluster.reaches(from.0, request);
        if let Some(asked) = asked {
            prop_assert_eq!(asked, to.0);
            prop_assert_eq!(cluster.reaches(to.0, reply), Some(from.0));
            return Ok(());
        }
        // What was stopped opens nothing: the reply fares as one to nothing at all.
        let mut fresh = guarded();
        fresh.remove("CiliumNetworkPolicy/zt-shop/web-dns");
        prop_assert_eq!(cluster.reaches(to.0, reply.clone()), fresh.reaches(to.0, reply));
    }

    /// A change is compiled for whom it touches, which must make no difference to compiling everything.
    #[test]
    fn what_is_enforced_depends_on_the_policies_that_are_there_and_not_on_the_way(
        steps in vec((0..CHANGING.len(), any::<bool>()), 1..10),
    ) {
        let mut changed = Cluster::new();
        let mut left = BTreeSet::new();
        for (index, stays) in steps {
            let (reference, policy) = CHANGING[index];
            if stays {
                changed.apply(policy);
                left.insert(index);
            } else {
                changed.remove(reference);
                left.remove(&index);
            }
        }
        let mut fresh = Cluster::new();
        for index in left {
            fresh.apply(CHANGING[index].1);
        }
        for (from, source) in PODS {
            for (_, to) in PODS {
                let flow = || syn(at(source, 4000), at(to, 8080));
                prop_assert_eq!(changed.reaches(from, flow()), fresh.reaches(from, flow()));
            }
            let outside = || syn(at(source, 4001), at(METADATA, 80));
            prop_assert_eq!(changed.reaches(from, outside()), fresh.reaches(from, outside()));
        }
    }

    #[test]
    fn what_is_stopped_has_a_drop_on_record_and_what_passes_has_none(
        from in places(),
        to in places(),
        port in prop::sample::select(vec![53, 80, 8080]),
        kind in 0..3,
    ) {
        let mut cluster = guarded();
        let (source, destination) = (at(from.1, 4000), at(to.1, port));
        let packet = match kind {
            0 => syn(source, destination),
            1 => udp(source, destination),
            _ => tcp(source, destination, TcpControl::Rst, true),
        };
        let passed = cluster.send(from.0, packet).is_some();
        let is_drop = |line: &Line| {
            line.flow.event_type.is_some_and(|it| it.kind == EVENT_DROP)
        };
        prop_assert_eq!(cluster.flows.iter().any(is_drop), !passed);
    }
}
