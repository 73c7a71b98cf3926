//! What istiod would tell a real ztunnel of a lane, in its own messages.
//!
//! Pure: who sends it, and to whom, is the host's. What policies become is the model's, which a ztunnel of the lab asks too;
//! here it is put into other words and nothing is added.

mod messages;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use prost::Message as _;
use ztc_model::policy::Effect;
use ztc_model::policy::mesh::ztunnel::{self, Account, TextMatch, Values};
use ztc_model::world::WaypointFor;
use ztc_model::ztunnel::HBONE_PORT;

use super::{CLUSTER, Directory, Mesh, MeshService, NamespacedName, Workload};
use messages as message;

/// The type of what is told of workloads and services.
pub(crate) const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";
/// The type of what is told of policies.
pub(crate) const AUTHORIZATION_TYPE: &str = "type.googleapis.com/istio.security.Authorization";

/// Everything that there is to tell, by type and by name, encoded.
pub(crate) type Told = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

impl Mesh {
    /// What a ztunnel is to know now.
    pub(crate) fn told(&self) -> Told {
        let directory = self.directory();
        let encoded = |kind| message::Address { kind: Some(kind) }.encode_to_vec();
        let workloads = directory
            .told_of_workloads()
            .into_values()
            .map(|it| (it.uid.clone(), encoded(message::AddressType::Workload(it))));
        let services = directory
            .told_of_services()
            .into_iter()
            .map(|(name, it)| (name, encoded(message::AddressType::Service(it))));
        let policies = directory
            .distributed
            .told()
            .iter()
            .map(|it| (it.key.to_string(), authorization(it).encode_to_vec()));
        BTreeMap::from([
            (ADDRESS_TYPE, workloads.chain(services).collect()),
            (AUTHORIZATION_TYPE, policies.collect()),
        ])
    }
}

/// What the control plane of a cluster calls a pod (`generatePodUID` in `ambient/workloads.go` of istiod).
pub(crate) fn uid(workload: &Workload) -> String {
    let reference = &workload.reference;
    format!("{CLUSTER}//Pod/{}/{}", reference.namespace, reference.name)
}

/// What a service is called in messages.
fn service_key(service: &MeshService) -> String {
    format!("{}/{}", service.name.namespace, service.hostname)
}

impl Directory {
    fn told_of_workloads(&self) -> BTreeMap<String, message::Workload> {
        let mut told: BTreeMap<String, message::Workload> = BTreeMap::new();
        let mut addresses: Vec<_> = self.workloads.iter().collect();
        addresses.sort_unstable_by_key(|(address, _)| **address);
        for (address, workload) in addresses {
            let it = told.entry(uid(workload)).or_insert_with(|| self.told_of_workload(workload));
            it.addresses.push(octets(*address));
        }
        told
    }

    /// All but its addresses.
    fn told_of_workload(&self, workload: &Workload) -> message::Workload {
        let reference = &workload.reference;
        let protocol = if workload.enrolled {
            message::TunnelProtocol::Hbone
        } else {
            message::TunnelProtocol::None
        };
        let selected =
            ztunnel::Workload { namespace: &reference.namespace, labels: &workload.labels };
        let policies = self.distributed.references(&selected);
        let waypoint = workload.waypoint.as_ref();
        let serves = WaypointFor::serves_workloads;
        message::Workload {
            name: reference.name.clone(),
            namespace: reference.namespace.clone(),
            addresses: Vec::new(),
            tunnel_protocol: protocol.into(),
            service_account: workload.service_account.clone(),
            waypoint: waypoint.and_then(|it| self.gateway_address(it, serves)),
            canonical_name: reference.name.clone(),
            workload_type: message::WorkloadType::Pod.into(),
            workload_name: reference.name.clone(),
            authorization_policies: policies.iter().map(ToString::to_string).collect(),
            cluster_id: CLUSTER.to_owned(),
            uid: uid(workload),
            services: self.services_of(workload),
        }
    }

    /// The services that a workload is behind, and on which ports.
    fn services_of(&self, workload: &Workload) -> HashMap<String, message::PortList> {
        let mut ports: BTreeMap<String, BTreeSet<(u16, u16)>> = BTreeMap::new();
        for service in self.services.values() {
            let behind = service.backends.iter().filter(|(pod, _)| *pod == workload.reference);
            for (_, target) in behind {
                let of_service = ports.entry(service_key(service)).or_default();
                of_service.insert((service.at.port(), *target));
            }
        }
        let list =
            |ports: BTreeSet<_>| message::PortList { ports: ports.into_iter().map(port).collect() };
        ports.into_iter().map(|(service, ports)| (service, list(ports))).collect()
    }

    /// Each service once, with all of its addresses and ports.
    fn told_of_services(&self) -> BTreeMap<String, message::Service> {
        let mut all: Vec<&MeshService> = self.services.values().collect();
        all.sort_unstable_by_key(|it| it.at);
        let mut told: BTreeMap<String, message::Service> = BTreeMap::new();
        for service in all {
            let it = told.entry(service_key(service)).or_insert_with(|| {
                let waypoint = service.waypoint.as_ref();
                message::Service {
                    name: service.name.name.clone(),
                    namespace: service.name.namespace.clone(),
                    hostname: service.hostname.clone(),
                    waypoint: waypoint
                        .and_then(|it| self.gateway_address(it, WaypointFor::serves_services)),
                    ..message::Service::default()
                }
            });
            let address = network_address(service.at.ip());
            // Each workload says which of its own ports it is.
            let port = port((service.at.port(), 0));
            if !it.addresses.contains(&address) {
                it.addresses.push(address);
            }
            if !it.ports.contains(&port) {
                it.ports.push(port);
            }
        }
        told
    }

    /// Where a waypoint is, if it is there and is for what is asked.
    fn gateway_address(
        &self,
        gateway: &NamespacedName,
        serves: impl Fn(WaypointFor) -> bool,
    ) -> Option<message::GatewayAddress> {
        let address = self.waypoint_address(gateway, serves)?;
        Some(message::GatewayAddress {
            address: Some(network_address(address)),
            hbone_mtls_port: HBONE_PORT.into(),
        })
    }
}

/// A policy of ztunnel's in its message.
fn authorization(policy: &ztunnel::Authorization) -> message::Authorization {
    let scope = match policy.scope {
        ztunnel::Scope::Mesh => message::Scope::Global,
        ztunnel::Scope::Namespace => message::Scope::Namespace,
        ztunnel::Scope::Referring => message::Scope::WorkloadSelector,
    };
    let action = match policy.effect {
        Effect::Allow => message::Action::Allow,
        Effect::Deny => message::Action::Deny,
    };
    let clause = |clause: &ztunnel::Clause| message::Clause {
        matches: clause.iter().map(attributes).collect(),
    };
    let rule = |rule: &ztunnel::Rule| message::Rule { clauses: rule.iter().map(clause).collect() };
    message::Authorization {
        name: policy.key.name.clone(),
        namespace: policy.key.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn attributes(it: &ztunnel::Match) -> message::Match {
    let (namespaces, not_namespaces) = both(&it.namespaces, text);
    let (principals, not_principals) = both(&it.principals, text);
    let (source_ips, not_source_ips) = both(&it.sources, range);
    let (destination_ips, not_destination_ips) = both(&it.destinations, range);
    let (destination_ports, not_destination_ports) = both(&it.ports, |port| u32::from(*port));
    let (service_accounts, not_service_accounts) = both(&it.accounts, account);
    message::Match {
        namespaces,
        not_namespaces,
        principals,
        not_principals,
        source_ips,
        not_source_ips,
        destination_ips,
        not_destination_ips,
        destination_ports,
        not_destination_ports,
        service_accounts,
        not_service_accounts,
    }
}

/// The values that are wanted, and those that are not.
fn both<T, U>(values: &Values<T>, told: impl Fn(&T) -> U) -> (Vec<U>, Vec<U>) {
    let all = |values: &[T]| values.iter().map(&told).collect();
    (all(&values.one_of), all(&values.none_of))
}

fn text(it: &TextMatch) -> message::StringMatch {
    let kind = match it {
        TextMatch::Present => message::MatchType::Presence(message::Nothing {}),
        TextMatch::EndsWith(end) => message::MatchType::Suffix(end.clone()),
        TextMatch::BeginsWith(begin) => message::MatchType::Prefix(begin.clone()),
        TextMatch::Is(whole) => message::MatchType::Exact(whole.clone()),
    };
    message::StringMatch { kind: Some(kind) }
}

fn range(it: &IpNet) -> message::Range {
    message::Range { address: octets(it.addr()), length: it.prefix_len().into() }
}

fn account(it: &Account) -> message::ServiceAccount {
    message::ServiceAccount { namespace: it.namespace.clone(), name: it.name.clone() }
}

fn port((service, target): (u16, u16)) -> message::Port {
    message::Port { service_port: service.into(), target_port: target.into() }
}

fn network_address(address: IpAddr) -> message::NetworkAddress {
    message::NetworkAddress { address: octets(address) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message;
    use ztc_model::manifest::manifests;
    use ztc_model::policy::Policy;
    use ztc_model::world::PodRef;
    use ztc_model::yaml::Source;

    use super::*;
    use crate::fault::Faults;

    fn workload(name: &str, waypoint: Option<&NamespacedName>) -> Arc<Workload> {
        let reference: PodRef = name.parse().unwrap();
        let labels = BTreeMap::from([("app".to_owned(), reference.name.clone())]);
        let service_account = format!("{}-account", reference.name);
        let enrolled = waypoint.is_none_or(|it| it.name != reference.name);
        Arc::new(Workload {
            reference,
            service_account,
            labels,
            enrolled,
            waypoint: waypoint.cloned(),
        })
    }

    /// A mesh with a server behind a service, and behind a waypoint that is not there yet.
    fn mesh() -> (Mesh, NamespacedName) {
        let gateway = NamespacedName { namespace: "app".to_owned(), name: "way".to_owned() };
        let service = |at: &str| MeshService {
            name: NamespacedName { namespace: "app".to_owned(), name: "srv".to_owned() },
            is_http: true,
            waypoint: Some(gateway.clone()),
            hostname: "srv.app.svc.cluster.local".to_owned(),
            at: at.parse().unwrap(),
            backends: vec![("app/srv".parse().unwrap(), 8080)],
        };
        let services = [service("10.96.0.20:80"), service("[fd00::20]:80")];
        let mesh = Mesh::new(services, [], Faults::default()).unwrap();
        let addresses = ["10.244.0.40".parse().unwrap(), "fd00::40".parse().unwrap()];
        mesh.add(&addresses, &workload("app/srv", Some(&gateway)));
        (mesh, gateway)
    }

    fn apply(mesh: &Mesh, manifest: &str) {
        for manifest in manifests(&Source::new("check.yaml", manifest)).unwrap() {
            let Policy::Mesh(policy) = manifest.policy else { panic!("no policy of the mesh") };
            mesh.apply(policy, 1);
        }
    }

    fn address(mesh: &Mesh, name: &str) -> message::AddressType {
        let told = mesh.told();
        let encoded = &told[ADDRESS_TYPE][name];
        message::Address::decode(encoded.as_slice()).unwrap().kind.unwrap()
    }

    fn server(mesh: &Mesh) -> message::Workload {
        match address(mesh, "Kubernetes//Pod/app/srv") {
            message::AddressType::Workload(it) => it,
            it @ message::AddressType::Service(_) => panic!("{it:?}"),
        }
    }

    fn service(mesh: &Mesh) -> message::Service {
        match address(mesh, "app/srv.app.svc.cluster.local") {
            message::AddressType::Service(it) => it,
            it @ message::AddressType::Workload(_) => panic!("{it:?}"),
        }
    }

    #[test]
    fn a_workload_is_told_with_all_of_its_addresses_and_services() {
        let (mesh, _) = mesh();
        let server = server(&mesh);
        assert_eq!((server.namespace.as_str(), server.name.as_str()), ("app", "srv"));
        assert_eq!(server.service_account, "srv-account");
        assert_eq!(server.tunnel_protocol(), message::TunnelProtocol::Hbone);
        let lengths: Vec<usize> = server.addresses.iter().map(Vec::len).collect();
        assert_eq!(lengths, [4, 16]);
        let ports = &server.services["app/srv.app.svc.cluster.local"].ports;
        assert_eq!(*ports, [message::Port { service_port: 80, target_port: 8080 }]);
        assert_eq!(service(&mesh).addresses.len(), 2, "one service with two addresses");
        mesh.add(
            &["10.244.0.9".parse().unwrap()],
            &Arc::new(Workload {
                enrolled: false,
                ..Workload::clone(&workload("plain/cli", None))
            }),
        );
        let message::AddressType::Workload(plain) = address(&mesh, "Kubernetes//Pod/plain/cli")
        else {
            panic!("no workload")
        };
        assert_eq!(plain.tunnel_protocol(), message::TunnelProtocol::None);
    }

    #[test]
    fn a_waypoint_is_told_of_where_it_is_there_and_for_that() {
        let (mesh, gateway) = mesh();
        assert!(service(&mesh).waypoint.is_none() && server(&mesh).waypoint.is_none());
        let way = workload("app/way", Some(&gateway));
        mesh.add_waypoint(
            gateway.clone(),
            &["10.244.0.50".parse().unwrap()],
            &way,
            WaypointFor::Service,
        );
        let at = service(&mesh).waypoint.unwrap();
        assert_eq!(at.address.unwrap().address, [10, 244, 0, 50]);
        assert_eq!(at.hbone_mtls_port, 15_008);
        assert!(server(&mesh).waypoint.is_none());
        mesh.remove_waypoint(&gateway);
        assert!(service(&mesh).waypoint.is_none());
    }

    #[test]
    fn a_workload_refers_to_the_policies_that_select_it() {
        let (mesh, _) = mesh();
        apply(
            &mesh,
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: { name: for-srv, namespace: app }\n\
             spec: { selector: { matchLabels: { app: srv } }, rules: [ { from: [ { source: { namespaces: [app] } } ] } ] }\n\
             ---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: { name: default, namespace: istio-system }\nspec: { mtls: { mode: STRICT } }\n",
        );
        let expected = ["app/for-srv", "istio-system/istio_converted_static_strict"];
        assert_eq!(server(&mesh).authorization_policies, expected);
        let told = mesh.told();
        let names: Vec<&str> = told[AUTHORIZATION_TYPE].keys().map(String::as_str).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn every_attribute_of_a_policy_is_told_under_its_own_number() {
        let (mesh, _) = mesh();
        apply(
            &mesh,
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: { name: all, namespace: app }\n\
             spec:\n  action: DENY\n  rules:\n  - from:\n    - source:\n        namespaces: [shop, 'a*']\n        \
             notPrincipals: ['*/sa/b']\n        ipBlocks: [10.0.0.0/8]\n        notIpBlocks: [10.1.0.0/16]\n    \
             to:\n    - operation: { ports: ['80'], notPorts: ['81'] }\n",
        );
        let told = mesh.told();
        let all = &told[AUTHORIZATION_TYPE]["app/all"];
        let all = message::Authorization::decode(all.as_slice()).unwrap();
        assert_eq!((all.scope(), all.action()), (message::Scope::Namespace, message::Action::Deny));
        let mut one = message::Match::default();
        for it in all.rules.iter().flat_map(|it| &it.clauses).flat_map(|it| &it.matches) {
            one.merge(it.encode_to_vec().as_slice()).unwrap();
        }
        let text = |kind| message::StringMatch { kind: Some(kind) };
        let range = |address, length| message::Range { address: Vec::from(address), length };
        let expected = message::Match {
            namespaces: vec![
                text(message::MatchType::Exact("shop".to_owned())),
                text(message::MatchType::Prefix("a".to_owned())),
            ],
            not_principals: vec![text(message::MatchType::Suffix("/sa/b".to_owned()))],
            source_ips: vec![range([10, 0, 0, 0], 8)],
            not_source_ips: vec![range([10, 1, 0, 0], 16)],
            destination_ports: vec![80],
            not_destination_ports: vec![81],
            ..message::Match::default()
        };
        assert_eq!(one, expected);
    }
}
