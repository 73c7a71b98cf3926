//! From fields to rules.
//!
//! Follows `pkg/k8s/apis/cilium.io/utils/utils.go` (implicit requirements of selectors),
//! `pkg/policy/api/rule_validation.go` (what is refused) and `pkg/policy/utils/parserules.go`
//! with `mergeL4Filter` in `pkg/policy/rule.go` (what an element becomes).

use crate::dns::DnsRule;
use crate::identity::Reserved;
use crate::labels::{ANY, CLUSTER, DEFAULT_CLUSTER, K8S, NAMESPACE, NAMESPACE_LABELS, RESERVED};
use crate::policy::ports::{is_port_name, read_protocols};
use crate::policy::range::{CidrRule, read_range};
use crate::policy::{
    DirectionPolicy, Effect, EndpointPolicy, Peer, PeerSelector, Policy, PolicyRef, PortMatch,
    PortSelector, Ports, Rule, Spec, Specs,
};
use crate::selector::{Condition, Keys, LabelSelector, Requirement, Selector};
use crate::yaml::{Diagnostic, Document, Spanned};

use super::fields::{
    Egress, Entity, IcmpRule, Ingress, L7Rules, NOT_EVALUATED, NameRule, Object, PortDenyRule,
    PortProtocol, PortRule, Section,
};
use super::icmp;

/// The most ports of one list (`maxPorts` in `rule_validation.go`).
const MAX_PORTS: usize = 40;

/// What is outside the cluster: with both families each has an identity of its own
/// (`EntitySelectorMapping` in `pkg/policy/api/entity.go`).
const WORLDS: [Reserved; 3] = [Reserved::World, Reserved::WorldIpv4, Reserved::WorldIpv6];

type Read<T> = Result<T, Box<Diagnostic>>;

/// Reads a `CiliumNetworkPolicy`.
pub(crate) fn namespaced(document: &Document<'_>, reference: &PolicyRef) -> Read<Policy> {
    specs(document, reference).map(Policy::Cilium)
}

/// Reads a `CiliumClusterwideNetworkPolicy`.
pub(crate) fn clusterwide(document: &Document<'_>, reference: &PolicyRef) -> Read<Policy> {
    specs(document, reference).map(Policy::Clusterwide)
}

fn specs(document: &Document<'_>, reference: &PolicyRef) -> Read<Specs> {
    let object: Object = document.read_manifest(NOT_EVALUATED)?;
    let sections: Vec<_> = object.spec.iter().chain(object.specs.iter().flatten()).collect();
    if sections.is_empty() {
        let message = format!("a {} needs a `spec`", reference.kind);
        return Err(document.diagnostic_at(&object.metadata, message, None));
    }
    let read = |section: &&Spanned<Section>| {
        let init = section.value.endpoint_selector.names_reserved(document, Reserved::Init)?;
        Reader { document, reference, init }.spec(section)
    };
    let specs = sections.iter().map(read).collect::<Read<_>>()?;
    let reads_handshakes = sections.iter().any(|section| section.value.reads_handshakes());
    Ok(Specs { reference: reference.clone(), specs, reads_handshakes })
}

/// The peers of an element of either direction. An absent list asks nothing, an empty one matches
/// nobody.
struct Peers<'a> {
    direction: &'static str,
    endpoints: Option<&'a Spanned<Vec<LabelSelector>>>,
    entities: Option<&'a Spanned<Vec<Entity>>>,
    ranges: Option<&'a Spanned<Vec<Spanned<String>>>>,
    range_sets: Option<&'a Spanned<Vec<CidrRule>>>,
    names: Option<&'a Spanned<Vec<Spanned<NameRule>>>>,
}

/// An entry of `toPorts`; a deny rule has no rules for names.
struct PortList<'a> {
    ports: &'a [PortProtocol],
    rules: Option<&'a Spanned<L7Rules>>,
    server_names: Option<&'a Spanned<Vec<Spanned<String>>>>,
}

/// An element of one of the four lists of a section.
struct Element<'a> {
    peers: Peers<'a>,
    ports: Vec<PortList<'a>>,
    icmps: Option<&'a Spanned<Vec<IcmpRule>>>,
}

impl<'a, P> From<&'a Ingress<P>> for Element<'a>
where
    PortList<'a>: From<&'a P>,
{
    fn from(element: &'a Ingress<P>) -> Self {
        let peers = Peers {
            direction: "from",
            endpoints: element.from_endpoints.as_ref(),
            entities: element.from_entities.as_ref(),
            ranges: element.from_cidr.as_ref(),
            range_sets: element.from_cidr_set.as_ref(),
            names: None,
        };
        let ports = element.to_ports.iter().flatten().map(PortList::from).collect();
        Self { peers, ports, icmps: element.icmps.as_ref() }
    }
}

impl<'a, P> From<&'a Egress<P>> for Element<'a>
where
    PortList<'a>: From<&'a P>,
{
    fn from(element: &'a Egress<P>) -> Self {
        let peers = Peers {
            direction: "to",
            endpoints: element.to_endpoints.as_ref(),
            entities: element.to_entities.as_ref(),
            ranges: element.to_cidr.as_ref(),
            range_sets: element.to_cidr_set.as_ref(),
            names: element.to_fqdns.as_ref(),
        };
        let ports = element.to_ports.iter().flatten().map(PortList::from).collect();
        Self { peers, ports, icmps: element.icmps.as_ref() }
    }
}

impl<'a> From<&'a PortRule> for PortList<'a> {
    fn from(rule: &'a PortRule) -> Self {
        Self {
            ports: rule.ports.as_deref().unwrap_or_default(),
            rules: rule.rules.as_ref(),
            server_names: rule.server_names.as_ref(),
        }
    }
}

impl<'a> From<&'a PortDenyRule> for PortList<'a> {
    fn from(rule: &'a PortDenyRule) -> Self {
        Self { ports: rule.ports.as_deref().unwrap_or_default(), rules: None, server_names: None }
    }
}

struct Reader<'a> {
    document: &'a Document<'a>,
    reference: &'a PolicyRef,
    /// Whether the subject is selected by `reserved:init`; its peers need no namespace then.
    init: bool,
}

impl Reader<'_> {
    fn spec(&self, section: &Spanned<Section>) -> Read<Spec> {
        let Section { endpoint_selector, enable_default_deny, .. } = &section.value;
        let Section { ingress, ingress_deny, egress, egress_deny, .. } = &section.value;
        let flags = enable_default_deny.unwrap_or_default();
        let subject = self.subject(endpoint_selector, section)?;
        let ingress = self.direction(
            flags.ingress,
            elements(ingress.as_ref()),
            elements(ingress_deny.as_ref()),
        )?;
        let egress = self.direction(
            flags.egress,
            elements(egress.as_ref()),
            elements(egress_deny.as_ref()),
        )?;
        match (ingress, egress) {
            (None, None) => {
                let nothing = self.document.diagnostic_at(
                    section,
                    "nothing in `ingress`, `ingressDeny`, `egress` or `egressDeny`: \
                     Cilium accepts the policy and enforces nothing",
                    Some("an empty list is no rule; write `ingress: [{}]` to deny all ingress"),
                );
                // The schema wants one of the four lists; whether it is empty it does not ask.
                Err(if section.value.has_a_list() { nothing.of_invalid() } else { nothing })
            }
            (ingress, egress) => Ok(Spec {
                subject,
                policy: EndpointPolicy {
                    ingress: ingress.unwrap_or_default(),
                    egress: egress.unwrap_or_default(),
                },
            }),
        }
    }

    /// Whom a spec is about: in a namespace its endpoints only, clusterwide whatever it selects,
    /// what is no pod too (`ParseToCiliumRule` in `utils.go`).
    fn subject(&self, selector: &LabelSelector, section: &Spanned<Section>) -> Read<Selector> {
        let selector = selector.read(self.document, Keys::Cilium)?;
        let Some(namespace) = &self.reference.namespace else {
            return Ok(selector);
        };
        let elsewhere = |requirement: &Requirement| {
            let Condition::In(values) = &requirement.condition else { return false };
            is_about(requirement, NAMESPACE) && !(values.len() == 1 && values.contains(namespace))
        };
        if selector.requirements().any(elsewhere) {
            return Err(self.document.diagnostic_at(
                section,
                format!("the endpointSelector names another namespace than `{namespace}`"),
                Some("a CiliumNetworkPolicy is about its own namespace; Cilium drops the match"),
            ));
        }
        Ok(selector.and(Requirement::equals(K8S, NAMESPACE, namespace)))
    }

    /// What a direction's lists say, nothing if they are empty.
    ///
    /// Deny rules flip the endpoint to default-deny as allow rules do (`repository.go`), and
    /// `enableDefaultDeny` only ever takes that back: without an element it does nothing.
    fn direction<'e>(
        &self,
        default_deny: Option<bool>,
        allows: Vec<Element<'e>>,
        denies: Vec<Element<'e>>,
    ) -> Read<Option<DirectionPolicy>> {
        if allows.is_empty() && denies.is_empty() {
            return Ok(None);
        }
        let mut rules = Vec::new();
        for (effect, elements) in [(Effect::Allow, allows), (Effect::Deny, denies)] {
            for element in elements {
                rules.extend(self.rules(effect, &element)?);
            }
        }
        Ok(Some(DirectionPolicy {
            default_deny: default_deny.unwrap_or(true),
            rules,
            ..DirectionPolicy::default()
        }))
    }

    /// The rules of an element: one for each entry of `toPorts` or `icmps`, or one for all ports.
    ///
    /// `{}` selects nobody and allows nothing; with ports and no peers it is about everyone.
    fn rules(&self, effect: Effect, element: &Element<'_>) -> Read<Vec<Rule>> {
        let peers = self.peers(effect, &element.peers)?;
        let mut ports = Vec::new();
        for list in &element.ports {
            let dns = list.rules.map(|rules| self.dns(element, list, rules)).transpose()?;
            list.server_names.map_or(Ok(()), |names| self.server_names(list, names))?;
            ports.push((self.ports(list)?, dns));
        }
        for matches in icmp::messages(self.document, element.icmps, !element.ports.is_empty())? {
            ports.push((matches, None));
        }
        let peers = match peers {
            Selected::Nobody => return Ok(Vec::new()),
            Selected::Unsaid if ports.is_empty() => return Ok(Vec::new()),
            Selected::Unsaid => PeerSelector::all(),
            Selected::Some(peers) => PeerSelector::any_of(peers),
        };
        if ports.is_empty() {
            ports.push((PortSelector::All, None));
        }
        let rule = |(ports, dns)| Rule {
            origin: self.reference.clone(),
            effect,
            peers: peers.clone(),
            ports,
            dns,
        };
        Ok(ports.into_iter().map(rule).collect())
    }

    fn peers(&self, effect: Effect, peers: &Peers<'_>) -> Read<Selected> {
        let Peers { endpoints, entities, ranges, range_sets, names, direction } = *peers;
        let mut lists = Vec::new();
        if let Some(list) = endpoints {
            let read = |selector| self.endpoints(selector).map(Peer::Labels);
            lists.push(("Endpoints", list.referenced, collect(&list.value, read)?));
        }
        if let Some(list) = entities {
            let peers = list.value.iter().flat_map(|entity| entity.selectors());
            lists.push(("Entities", list.referenced, peers.map(Peer::Labels).collect()));
        }
        if let Some(list) = ranges {
            let read = |text| {
                let range = read_range(self.document, text)?;
                Ok(Peer::Cidr { range, except: Vec::new() })
            };
            lists.push(("CIDR", list.referenced, collect(&list.value, read)?));
        }
        if let Some(list) = range_sets {
            let read = |rule: &CidrRule| rule.read(self.document);
            lists.push(("CIDRSet", list.referenced, collect(&list.value, read)?));
        }
        if let Some(list) = names {
            lists.push(("FQDNs", list.referenced, self.learnt(effect, list)?));
        }
        let nobody = lists.iter().any(|(_, _, peers)| peers.is_empty());
        lists.retain(|(_, _, peers)| !peers.is_empty());
        if let [(first, _, _), (second, at, _), ..] = lists.as_slice() {
            // The words of `sanitize` in `rule_validation.go`.
            let message = format!(
                "combining `{direction}{first}` and `{direction}{second}` is not supported yet"
            );
            let help = "write two elements: they add up";
            return Err(self.document.diagnostic(*at, message, Some(help)).of_invalid());
        }
        Ok(match lists.pop() {
            _ if nobody => Selected::Nobody,
            None => Selected::Unsaid,
            Some((_, _, peers)) => Selected::Some(peers),
        })
    }

    /// Peers by the names that their addresses were learnt for.
    ///
    /// The schema of `egressDeny` has no `toFQDNs`, so that the API server would drop it. An empty
    /// list is none of those that select nobody (`mergeEndpointSelectors` in `parserules.go`): an
    /// element with it and with ports would be about everyone.
    fn learnt(&self, effect: Effect, list: &Spanned<Vec<Spanned<NameRule>>>) -> Read<Vec<Peer>> {
        let refuse = |message: &str, help| {
            Err(self.document.diagnostic(list.referenced, message.to_owned(), help))
        };
        if effect == Effect::Deny {
            let help = "deny the addresses with `toCIDR`, or allow fewer names";
            return refuse("`egressDeny` has no `toFQDNs`", Some(help));
        }
        if list.value.is_empty() {
            let help = "Cilium takes it for absent, so that the ports are allowed to everyone";
            return refuse("an empty `toFQDNs` is no list of nobody", Some(help));
        }
        collect(&list.value, |name| self.name(name, "an element of `toFQDNs`").map(Peer::Fqdn))
    }

    /// A peer by labels, with what Cilium asks besides (`getEndpointSelector` in `utils.go`): without a
    /// word about namespaces the policy's own, clusterwide any, and this cluster. One by reserved
    /// labels is taken as it is.
    fn endpoints(&self, selector: &LabelSelector) -> Read<Selector> {
        let mut selector = selector.read(self.document, Keys::Cilium)?;
        let says = |about: &dyn Fn(&Requirement) -> bool| selector.requirements().any(about);
        if says(&|it| it.source == RESERVED) {
            return Ok(selector);
        }
        let says_namespace = says(&|it| is_about(it, NAMESPACE));
        let says_labels = says(&|it| {
            it.key.strip_prefix(NAMESPACE_LABELS).is_some_and(|rest| rest.starts_with('.'))
        });
        let says_cluster = says(&|it| is_about(it, CLUSTER));
        match &self.reference.namespace {
            _ if says_namespace => {}
            Some(_) if says_labels => {}
            Some(namespace) => {
                selector = selector.and(Requirement::equals(K8S, NAMESPACE, namespace));
            }
            None if self.init => {}
            None => selector = selector.and(Requirement::exists(K8S, NAMESPACE)),
        }
        if !says_cluster {
            selector = selector.and(Requirement::equals(K8S, CLUSTER, DEFAULT_CLUSTER));
        }
        Ok(selector)
    }

    fn ports(&self, list: &PortList<'_>) -> Read<PortSelector> {
        if let Some(port) = list.ports.get(MAX_PORTS) {
            let message = format!("more than {MAX_PORTS} ports in one list");
            return Err(self.document.diagnostic_at(&port.port, message, None));
        }
        let read = |port: &PortProtocol| {
            let ports = self.port(port)?;
            let protocols = read_protocols(self.document, port.protocol.as_ref())?;
            Ok(protocols.iter().map(move |&protocol| PortMatch { protocol, ports: ports.clone() }))
        };
        let matches = collect(list.ports, read)?;
        Ok(PortSelector::AnyOf(matches.into_iter().flatten().collect()))
    }

    fn port(&self, PortProtocol { port, end_port, .. }: &PortProtocol) -> Read<Ports> {
        let text = port.value.as_str();
        let end = end_port.as_ref().filter(|end| end.value != 0);
        if is_port_name(text) {
            return match end {
                None => Ok(Ports::Named(text.to_ascii_lowercase())),
                Some(end) => {
                    let message = "a named port has no `endPort`";
                    Err(self.document.diagnostic_at(end, message, None))
                }
            };
        }
        // Cilium reads `010` as octal and `0x10` as hexadecimal; nobody should depend on that.
        let number = text.parse::<u16>().ok().filter(|number| number.to_string() == text);
        match (number, end) {
            (None, _) => Err(self.document.diagnostic_at(
                port,
                format!("`{text}` is no port"),
                Some("a port is a decimal number up to 65535 or a name, both in quotes"),
            )),
            (Some(0), None) => Ok(Ports::All),
            (Some(first), None) => Ok(Ports::One(first)),
            (Some(first), Some(end)) if first > 0 && first <= end.value => {
                Ok(Ports::Range(first, end.value))
            }
            (Some(first), Some(end)) => {
                let message = format!("`endPort` {} is no end for port {first}", end.value);
                Err(self.document.diagnostic_at(end, message, None))
            }
        }
    }

    fn dns(
        &self,
        element: &Element<'_>,
        list: &PortList<'_>,
        rules: &Spanned<L7Rules>,
    ) -> Read<Vec<DnsRule>> {
        let refuse = |message: &str, help| Err(self.document.diagnostic_at(rules, message, help));
        let names = rules.value.dns.as_deref().unwrap_or_default();
        if element.peers.direction == "from" {
            return refuse("DNS rules are not allowed on ingress", None)
                .map_err(Diagnostic::of_invalid);
        }
        if names.is_empty() {
            let help = "write `dns: [{ matchPattern: \"*\" }]`, or leave `rules` out";
            return refuse("`rules` without names restrict nothing", Some(help));
        }
        if list.ports.is_empty() {
            return refuse("DNS rules need the port of the DNS server", None)
                .map_err(Diagnostic::of_invalid);
        }
        for port in list.ports {
            match self.port(port)? {
                Ports::One(_) | Ports::Named(_) => {}
                Ports::All => {
                    return refuse("DNS rules need a port other than 0", None)
                        .map_err(Diagnostic::of_invalid);
                }
                Ports::Range(..) => {
                    return refuse("DNS rules do not support port ranges", None)
                        .map_err(Diagnostic::of_invalid);
                }
            }
        }
        collect(names, |name| self.name(name, "a DNS rule"))
    }

    /// Whether Cilium takes these `serverNames` (`PortRule.sanitize` in `rule_validation.go`).
    fn server_names(&self, list: &PortList<'_>, names: &Spanned<Vec<Spanned<String>>>) -> Read<()> {
        if names.value.is_empty() {
            let help = "name a server, or leave it out";
            let message = "an empty `serverNames` restricts nothing";
            return Err(self.document.diagnostic_at(names, message, Some(help)));
        }
        if list.rules.is_some() {
            let message = "server names are not allowed with L7 rules without TLS termination";
            return Err(self.document.diagnostic_at(names, message, None).of_invalid());
        }
        match names.value.iter().find(|name| name.value.is_empty()) {
            Some(empty) => {
                let message = "an empty server name is not allowed";
                Err(self.document.diagnostic_at(empty, message, None).of_invalid())
            }
            None => Ok(()),
        }
    }

    fn name(&self, rule: &Spanned<NameRule>, what: &str) -> Read<DnsRule> {
        let (text, read) = match (&rule.value.match_name, &rule.value.match_pattern) {
            (Some(name), None) => (name, DnsRule::name(&name.value)),
            (None, Some(pattern)) => (pattern, DnsRule::pattern(&pattern.value)),
            _ => {
                let message = format!("{what} has either `matchName` or `matchPattern`");
                return Err(self.document.diagnostic_at(rule, message, None));
            }
        };
        read.map_err(|bad| self.document.diagnostic_at(text, bad.to_string(), None))
    }
}

/// What the peers of an element come to.
enum Selected {
    /// It has none, which is anybody if it has ports.
    Unsaid,
    /// An empty list is among them.
    Nobody,
    /// These.
    Some(Vec<Peer>),
}

impl Entity {
    /// The identities behind it (`pkg/policy/api/entity.go`).
    fn selectors(self) -> Vec<Selector> {
        let by_name = |name: &str| Selector::all().and(Requirement::equals(RESERVED, name, ""));
        let reserved = |reserved: Reserved| vec![by_name(reserved.name())];
        match self {
            Self::All => vec![Selector::all()],
            Self::World => WORLDS.map(|world| by_name(world.name())).into(),
            Self::Host => reserved(Reserved::Host),
            Self::RemoteNode => reserved(Reserved::RemoteNode),
            Self::KubeApiserver => reserved(Reserved::KubeApiserver),
            Self::Health => reserved(Reserved::Health),
            Self::Init => reserved(Reserved::Init),
            Self::Ingress => reserved(Reserved::Ingress),
            Self::Unmanaged => reserved(Reserved::Unmanaged),
            Self::None => vec![by_name("none")],
            Self::Cluster => {
                let pods = Requirement::equals(K8S, CLUSTER, DEFAULT_CLUSTER);
                Reserved::ALL
                    .into_iter()
                    .filter(|name| !WORLDS.contains(name))
                    .map(|name| by_name(name.name()))
                    .chain([Selector::all().and(pods)])
                    .collect()
            }
        }
    }
}

fn is_about(requirement: &Requirement, key: &str) -> bool {
    requirement.key == key && (requirement.source == K8S || requirement.source == ANY)
}

fn elements<'a, T>(list: Option<&'a Vec<T>>) -> Vec<Element<'a>>
where
    Element<'a>: From<&'a T>,
{
    list.into_iter().flatten().map(Element::from).collect()
}

fn collect<'a, T, U>(list: &'a [T], read: impl FnMut(&'a T) -> Read<U>) -> Read<Vec<U>> {
    list.iter().map(read).collect()
}
