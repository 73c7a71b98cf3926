//! `NetworkPolicy`, from manifest to rules.
//!
//! Follows `pkg/k8s/network_policy.go` of Cilium and, for what the API server fills in or refuses,
//! `pkg/apis/networking` of Kubernetes.

use serde::Deserialize;

use crate::labels::{CLUSTER, DEFAULT_CLUSTER, K8S, NAMESPACE, NAMESPACE_LABELS};
use crate::selector::{Keys, LabelSelector, Requirement, Selector};
use crate::yaml::{Diagnostic, Document, Spanned};

use super::object::Object;
use super::ports::{IntOrString, is_port_name};
use super::range::CidrRule;
use super::{
    DirectionPolicy, Effect, EndpointPolicy, Peer, PeerSelector, Policy, PolicyRef, PortMatch,
    PortSelector, Ports, Protocol, Rule, Spec, Specs,
};

type Read<T> = Result<T, Box<Diagnostic>>;

/// A spec. Absent and null are the same in all of it, as they are in Go.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    pod_selector: LabelSelector,
    #[serde(default)]
    policy_types: Option<Vec<PolicyType>>,
    #[serde(default)]
    ingress: Option<Spanned<Vec<Ingress>>>,
    #[serde(default)]
    egress: Option<Spanned<Vec<Egress>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum PolicyType {
    Ingress,
    Egress,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ingress {
    #[serde(default)]
    from: Option<Vec<Spanned<NetworkPeer>>>,
    #[serde(default)]
    ports: Option<Vec<NetworkPort>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    #[serde(default)]
    to: Option<Vec<Spanned<NetworkPeer>>>,
    #[serde(default)]
    ports: Option<Vec<NetworkPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkPeer {
    #[serde(default)]
    pod_selector: Option<LabelSelector>,
    #[serde(default)]
    namespace_selector: Option<LabelSelector>,
    #[serde(default)]
    ip_block: Option<CidrRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkPort {
    #[serde(default)]
    protocol: Option<Spanned<String>>,
    #[serde(default)]
    port: Option<Spanned<IntOrString>>,
    #[serde(default)]
    end_port: Option<Spanned<u16>>,
}

/// Reads a `NetworkPolicy`.
pub(crate) fn network(document: &Document<'_>, reference: &PolicyRef) -> Read<Policy> {
    let Object::<Section> { spec, .. } = document.read_manifest(&["status"])?;
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let reader = Reader { document, reference, namespace };
    let specs = vec![reader.spec(&spec)?];
    Ok(Policy::Network(Specs { reference: reference.clone(), specs, reads_handshakes: false }))
}

struct Reader<'a> {
    document: &'a Document<'a>,
    reference: &'a PolicyRef,
    namespace: &'a str,
}

impl Reader<'_> {
    fn spec(&self, section: &Section) -> Read<Spec> {
        let pods = section.pod_selector.read(self.document, Keys::Pods)?;
        let subject = pods.and(Requirement::equals(K8S, NAMESPACE, self.namespace));
        let mut ingress = Vec::new();
        for Ingress { from, ports } in section.ingress.iter().flat_map(|list| &list.value) {
            ingress.push(self.rule(from.as_deref(), ports.as_deref())?);
        }
        let mut egress = Vec::new();
        for Egress { to, ports } in section.egress.iter().flat_map(|list| &list.value) {
            egress.push(self.rule(to.as_deref(), ports.as_deref())?);
        }
        let (about_ingress, about_egress) = self.types(section, !egress.is_empty())?;
        let direction = |default_deny, rules| DirectionPolicy {
            default_deny,
            rules,
            ..DirectionPolicy::default()
        };
        let policy = EndpointPolicy {
            ingress: direction(about_ingress, ingress),
            egress: direction(about_egress, egress),
        };
        Ok(Spec { subject, policy })
    }

    /// Whether it is about ingress and about egress.
    ///
    /// The API server fills in `policyTypes`: ingress always, egress if there are rules for it.
    /// Where the list is given and leaves out a direction that has rules, Kubernetes ignores these
    /// rules and Cilium enforces them, so that the manifest means two things.
    fn types(&self, section: &Section, has_egress: bool) -> Read<(bool, bool)> {
        let types = match section.policy_types.as_deref().unwrap_or_default() {
            [] => return Ok((true, has_egress)),
            types => types,
        };
        let about = |one: PolicyType| types.contains(&one);
        let ingress = section.ingress.as_ref().filter(|list| !list.value.is_empty());
        let egress = section.egress.as_ref().filter(|list| !list.value.is_empty());
        let refuse = |at, name| {
            Err(self.document.diagnostic(
                at,
                format!("rules for a direction that `policyTypes` leaves out: `{name}`"),
                Some("Kubernetes ignores them, Cilium enforces them"),
            ))
        };
        match (ingress, egress) {
            (Some(list), _) if !about(PolicyType::Ingress) => refuse(list.referenced, "ingress"),
            (_, Some(list)) if !about(PolicyType::Egress) => refuse(list.referenced, "egress"),
            _ => Ok((about(PolicyType::Ingress), about(PolicyType::Egress))),
        }
    }

    /// A rule: without peers it is about everyone, without ports about all of them.
    fn rule(
        &self,
        peers: Option<&[Spanned<NetworkPeer>]>,
        ports: Option<&[NetworkPort]>,
    ) -> Read<Rule> {
        let peers = match peers.unwrap_or_default() {
            [] => PeerSelector::all(),
            peers => {
                PeerSelector::any_of(peers.iter().map(|peer| self.peer(peer)).collect::<Read<_>>()?)
            }
        };
        let ports = match ports.unwrap_or_default() {
            [] => PortSelector::All,
            ports => {
                PortSelector::AnyOf(ports.iter().map(|port| self.port(port)).collect::<Read<_>>()?)
            }
        };
        let origin = self.reference.clone();
        Ok(Rule { origin, effect: Effect::Allow, peers, ports, dns: None })
    }

    /// A peer: a range, or pods of this cluster in the namespaces it names, or in this one.
    fn peer(&self, peer: &Spanned<NetworkPeer>) -> Read<Peer> {
        let NetworkPeer { pod_selector, namespace_selector, ip_block } = &peer.value;
        let namespace = match (ip_block, pod_selector, namespace_selector) {
            (Some(block), None, None) => return block.read(self.document),
            (None, _, Some(namespaces)) if namespaces.is_empty() => {
                Selector::all().and(Requirement::exists(K8S, NAMESPACE))
            }
            (None, _, Some(namespaces)) => {
                namespaces.read(self.document, Keys::Under(NAMESPACE_LABELS))?
            }
            (None, Some(_), None) => {
                Selector::all().and(Requirement::equals(K8S, NAMESPACE, self.namespace))
            }
            (Some(_), ..) | (None, None, None) => {
                let message = "a peer is either an `ipBlock`, or pods by `podSelector` and \
                               `namespaceSelector`";
                return Err(self.document.diagnostic_at(peer, message, None));
            }
        };
        let mut pods = namespace.and(Requirement::equals(K8S, CLUSTER, DEFAULT_CLUSTER));
        if let Some(selector) = pod_selector {
            for requirement in selector.read(self.document, Keys::Pods)?.requirements() {
                pods = pods.and(requirement.clone());
            }
        }
        Ok(Peer::Labels(pods))
    }

    fn port(&self, NetworkPort { protocol, port, end_port }: &NetworkPort) -> Read<PortMatch> {
        let protocol = match protocol.as_ref().map(|it| (it, it.value.as_str())) {
            None | Some((_, "TCP")) => Protocol::Tcp,
            Some((_, "UDP")) => Protocol::Udp,
            Some((at, other)) => {
                let message = format!("protocol `{other}` is not evaluated");
                let help = "expected one of `TCP`, `UDP`";
                return Err(self.document.diagnostic_at(at, message, Some(help)));
            }
        };
        let ports = match (port.as_ref().map(|it| (it, &it.value)), end_port) {
            (None, None) => Ports::All,
            (Some((_, IntOrString::String(name))), None) if is_port_name(name) => {
                Ports::Named(name.to_ascii_lowercase())
            }
            (Some((at, IntOrString::Int(number))), end) => {
                let first = u16::try_from(*number).ok().filter(|&first| first > 0);
                match (first, end) {
                    (None, _) => {
                        let message = format!("`{number}` is no port");
                        return Err(self.document.diagnostic_at(at, message, None));
                    }
                    (Some(first), None) => Ports::One(first),
                    (Some(first), Some(end)) if first <= end.value => {
                        Ports::Range(first, end.value)
                    }
                    (Some(_), Some(end)) => {
                        let message = "`endPort` is before `port`";
                        return Err(self.document.diagnostic_at(end, message, None));
                    }
                }
            }
            (Some((at, IntOrString::String(name))), None) => {
                let message = format!("`{name}` is no name of a port");
                return Err(self.document.diagnostic_at(at, message, None));
            }
            (_, Some(end)) => {
                let message = "`endPort` needs a `port` that is a number";
                return Err(self.document.diagnostic_at(end, message, None));
            }
        };
        Ok(PortMatch { protocol, ports })
    }
}
