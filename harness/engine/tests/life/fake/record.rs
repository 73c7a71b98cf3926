//! Records in the words of those who write them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ztc_model::evidence::Evidence;
use ztc_model::hubble::{
    self, Addresses, Dns, Flow, FlowKind, FlowVerdict, L4, L7, L7Kind, NamedPolicy, POLICY_DENIED,
    POLICY_DENY, Tcp, TrafficDirection, Udp,
};
use ztc_model::policy::{PolicyRef, Protocol};
use ztc_model::ztunnel::{HBONE_PORT, Line, Side};

use super::script::Record;

/// What is said of a flow.
pub(crate) fn evidence(
    record: Record,
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
) -> Arc<Evidence> {
    let tunnel = |line| Arc::new(Evidence::from_ztunnel(&Arc::new(line), "node-b"));
    let said = match record {
        Record::TunnelRefused => {
            return tunnel(Line {
                direction: Side::Outbound,
                error: Some("http status: 401 Unauthorized".to_owned()),
                ..connection(source, destination)
            });
        }
        Record::TunnelDenied(policy) => {
            let why = "connection closed due to policy rejection: explicitly denied by";
            return tunnel(Line {
                direction: Side::Inbound,
                error: Some(format!("{why}: {policy}")),
                // The tunnel has a port of its own.
                ..connection(SocketAddr::new(source.ip(), 40_404), destination)
            });
        }
        Record::DefaultDeny => Flow {
            drop_reason: Some(POLICY_DENIED),
            traffic_direction: Some(TrafficDirection::Ingress),
            ..Flow::default()
        },
        Record::DenyRule(policy) => {
            let policy: PolicyRef = policy.parse().expect("a test names a policy");
            Flow {
                drop_reason: Some(POLICY_DENY),
                traffic_direction: Some(TrafficDirection::Ingress),
                ingress_denied_by: vec![NamedPolicy::new(&policy, 2)],
                ..Flow::default()
            }
        }
        Record::NameRefused | Record::NameAllowed => Flow {
            kind: FlowKind::L7,
            l7: Some(L7 {
                kind: L7Kind::Request,
                dns: Some(Dns { query: "vault.pay.".to_owned(), ..Dns::default() }),
            }),
            ..Flow::default()
        },
    };
    let verdict = match record {
        Record::NameAllowed => FlowVerdict::Forwarded,
        _ => FlowVerdict::Dropped,
    };
    let (source_port, destination_port) = (source.port(), destination.port());
    let l4 = if protocol == Protocol::Udp {
        L4 { udp: Some(Udp { source_port, destination_port }), ..L4::default() }
    } else {
        let tcp = Tcp { source_port, destination_port, ..Tcp::default() };
        L4 { tcp: Some(tcp), ..L4::default() }
    };
    let flow = Flow {
        verdict,
        ip: Some(Addresses::new(source.ip(), destination.ip())),
        l4: Some(l4),
        ..said
    };
    let line = hubble::Line { flow, node_name: "node-b".to_owned(), time: String::new() };
    Arc::new(Evidence::from_hubble(&Arc::new(line)).expect("a record of a flow with ports"))
}

/// A connection of the mesh.
fn connection(source: SocketAddr, destination: SocketAddr) -> Line {
    Line {
        time: String::new(),
        direction: Side::Outbound,
        source,
        destination: SocketAddr::new(destination.ip(), HBONE_PORT),
        target: Some(destination.to_string()),
        principal: Some("spiffe://cluster.local/ns/shop/sa/web".to_owned()),
        error: None,
        other: BTreeMap::new(),
    }
}
