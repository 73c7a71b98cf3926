//! Cilium's kinds and `NetworkPolicy`: which of their rules match a packet.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::dns::DnsRule;
use crate::evidence::{Did, Direction, Evidence};
use crate::hubble;
use crate::identity::Identity;
use crate::labels::Labels;
use crate::manifest::{Manifest, reread};
use crate::outcome::EnforcementPoint;
use crate::place::Place;
use crate::policy::{Decision, EndpointPolicy, NamedPorts, Policy, PolicyKind, Protocol};
use crate::world::{PodRef, World};

/// The label in which Cilium keeps the names of an endpoint's ports: `NAME.PROTOCOL.PORT`, with `_` in between
/// (recorded; `tests/facts/hubble-forwarded.jsonl`).
const NAMED_PORTS: &str = "io.cilium.k8s.named-ports";

/// What policies are asked about: a packet at one of the two hooks of an endpoint.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Which of its hooks.
    pub direction: Direction,
    /// The labels of the endpoint.
    pub subject: Labels,
    /// The endpoint, as people call it.
    pub whom: String,
    /// The other side.
    pub peer: Identity,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of its destination; of ICMP, the type of the message.
    pub port: u16,
    /// What the destination calls its ports.
    pub named: NamedPorts,
    /// The name that is asked for, of a query that the DNS proxy saw.
    pub name: Option<String>,
}

impl Packet {
    /// The packet of a record of Hubble's, as far as that says who the two sides are.
    pub(super) fn of(flow: &hubble::Flow, evidence: &Evidence, world: &World) -> Option<Self> {
        let direction = match evidence.did {
            Did::Allow { direction }
            | Did::DenyByRule { direction }
            | Did::DenyByDefault { direction } => direction,
            Did::RefuseName { .. } => Direction::Egress,
            _ => return None,
        };
        let (source, destination) = (flow.source.as_ref()?, flow.destination.as_ref()?);
        let (endpoint, other) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        let labels =
            |it: &hubble::Endpoint| it.labels.iter().map(String::as_str).collect::<Labels>();
        let subject = labels(endpoint);
        subject.namespace()?;
        let protocol = evidence.flow.protocol;
        let name = match evidence.point {
            EnforcementPoint::DnsProxy => Some(flow.l7.as_ref()?.dns.as_ref()?.query.clone()),
            _ => None,
        };
        Some(Self {
            direction,
            subject,
            whom: format!("{}/{}", endpoint.namespace, endpoint.pod_name),
            peer: Identity::of_labels(&labels(other))?,
            protocol,
            // Policies see the type of a message as its port; only requests open flows.
            port: match protocol {
                Protocol::Icmp => hubble::ICMPV4_ECHO.into(),
                Protocol::Icmpv6 => hubble::ICMPV6_ECHO.into(),
                Protocol::Tcp | Protocol::Udp => evidence.flow.destination.port(),
            },
            named: named_ports(destination, &labels(destination), world),
            name,
        })
    }

    /// What becomes of it by what policies say about its endpoint.
    pub fn decided_by(&self, policy: &EndpointPolicy) -> Decision {
        let direction = match self.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        direction.decide(&self.peer, self.protocol, self.port, &self.named)
    }

    /// What becomes of it by one policy alone; nothing where that is not about its endpoint.
    pub fn decided_alone_by(&self, policy: &Policy) -> Option<Decision> {
        policy.select(&self.subject).map(|policy| self.decided_by(&policy))
    }

    /// Whether a policy isolates its endpoint and allows it by no rule.
    pub(super) fn is_isolated_by(&self, manifest: &Manifest) -> bool {
        self.decided_alone_by(&manifest.policy) == Some(Decision::NotAllowed)
    }

    /// Where a policy says that it is about this endpoint: the selector of the first spec that isolates it.
    pub(super) fn isolated_at(&self, manifest: &Manifest) -> Option<Place> {
        let isolates = |policy: &EndpointPolicy| match self.direction {
            Direction::Ingress => policy.ingress.default_deny,
            Direction::Egress => policy.egress.default_deny,
        };
        let mut specs = manifest.policy.specs().iter();
        let position =
            specs.position(|it| it.subject.matches(&self.subject) && isolates(&it.policy))?;
        let section = sections(&manifest.object).nth(position)?;
        let selectors = ["podSelector", "endpointSelector"].map(|it| section.field(it));
        selectors.into_iter().find(|it| it.of(&manifest.object).is_some())
    }
}

/// What the destination of a flow calls its ports: as its record says, or its world.
fn named_ports(endpoint: &hubble::Endpoint, labels: &Labels, world: &World) -> NamedPorts {
    let pod = PodRef { namespace: endpoint.namespace.clone(), name: endpoint.pod_name.clone() };
    if let Some(pod) = world.pod(&pod) {
        return pod.named_ports();
    }
    let written = labels.iter().filter(|it| it.key.starts_with(NAMED_PORTS));
    let ports = written.flat_map(|it| it.value.split('_')).filter_map(|port| {
        let mut parts = port.split('.');
        let (name, protocol) = (parts.next()?, parts.next()?);
        let protocol = match protocol {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        Some(((protocol, name.to_owned()), parts.next()?.parse().ok()?))
    });
    ports.collect()
}

/// The specs of an object, in the order in which they are read.
fn sections(object: &Value) -> impl Iterator<Item = Place> {
    let several = object.get("specs").and_then(Value::as_array).map_or(0, Vec::len);
    let one = object.get("spec").map(|_| Place::root().field("spec"));
    let specs = Place::root().field("specs");
    one.into_iter().chain((0..several).map(move |index| specs.entry(index)))
}

/// A policy as policies of one rule each.
#[derive(Debug, Clone)]
pub struct Dissected(Vec<Alone>);

/// A policy with one of its rules alone.
#[derive(Debug, Clone)]
struct Alone {
    /// The rule: an element of a direction, or one entry of its ports where it has several.
    place: Place,
    /// Its names of DNS.
    names: Vec<(Place, DnsRule)>,
    /// Where these are written.
    asks: Option<Place>,
    /// Whether it denies.
    denies: bool,
    policy: Policy,
}

impl Dissected {
    /// Takes a policy apart. What Cilium would not take alone, or has another meaning than its rules say
    /// (`serverNames`), is left out, and so is whatever Cilium does not know.
    pub fn of(manifest: &Manifest) -> Self {
        let kinds = [
            PolicyKind::NetworkPolicy,
            PolicyKind::CiliumNetworkPolicy,
            PolicyKind::CiliumClusterwideNetworkPolicy,
        ];
        if manifest.invalid.is_some() || !kinds.contains(&manifest.policy.reference().kind) {
            return Self(Vec::new());
        }
        let object = &manifest.object;
        let rules = sections(object).flat_map(|section| rules(object, &section));
        Self(rules.filter_map(|rule| rule.alone(manifest)).collect())
    }

    /// The rules that allow a packet.
    pub fn allowing(&self, packet: &Packet) -> Vec<Place> {
        let allows = |it: &&Alone| match packet.decided_alone_by(&it.policy) {
            Some(Decision::Allowed { by }) => !by.is_empty(),
            Some(Decision::Inspected { .. }) => true,
            _ => false,
        };
        self.0.iter().filter(|it| !it.denies).filter(allows).map(|it| it.place.clone()).collect()
    }

    /// The rules that deny a packet.
    pub fn denying(&self, packet: &Packet) -> Vec<Place> {
        let denies = |it: &&Alone| {
            matches!(packet.decided_alone_by(&it.policy), Some(Decision::Denied { .. }))
        };
        self.0.iter().filter(denies).map(|it| it.place.clone()).collect()
    }

    /// The names that let a query pass.
    pub(super) fn names(&self, packet: &Packet) -> Vec<Place> {
        let asked = packet.name.as_deref().unwrap_or_default();
        let names = self.inspecting(packet).flat_map(|it| &it.names);
        names.filter(|(_, rule)| rule.matches(asked)).map(|(place, _)| place.clone()).collect()
    }

    /// The lists of names that a query is held against.
    pub(super) fn asking(&self, packet: &Packet) -> Vec<Place> {
        self.inspecting(packet).filter_map(|it| it.asks.clone()).collect()
    }

    fn inspecting(&self, packet: &Packet) -> impl Iterator<Item = &Alone> {
        self.0.iter().filter(|it| {
            matches!(packet.decided_alone_by(&it.policy), Some(Decision::Inspected { .. }))
        })
    }
}

/// A rule by its way through an object.
#[derive(Debug)]
struct Way {
    section: Place,
    /// The list of rules that it is in.
    list: String,
    rule: usize,
    /// Of several entries of its ports or messages, which one.
    part: Option<(&'static str, usize)>,
}

/// The rules of a spec.
fn rules(object: &Value, section: &Place) -> Vec<Way> {
    let lists = [Direction::Ingress, Direction::Egress]
        .into_iter()
        .flat_map(|it| [it.to_string(), format!("{it}Deny")]);
    let mut all = Vec::new();
    for list in lists {
        let rules = section.field(&list).of(object).and_then(Value::as_array);
        for (rule, value) in rules.into_iter().flatten().enumerate() {
            let way = |part| Way { section: section.clone(), list: list.clone(), rule, part };
            let several = ["toPorts", "icmps"].into_iter().find_map(|name| {
                let count = value.get(name)?.as_array()?.len();
                (count > 1).then_some((name, count))
            });
            match several {
                Some((name, count)) => all.extend((0..count).map(|it| way(Some((name, it))))),
                None => all.push(way(None)),
            }
        }
    }
    all
}

impl Way {
    /// The policy with this rule and no other.
    fn alone(&self, manifest: &Manifest) -> Option<Alone> {
        let object = &manifest.object;
        let rule = self.section.field(&self.list).entry(self.rule);
        let mut value = Cow::Borrowed(rule.of(object)?.as_object()?);
        let mut place = rule.clone();
        if let Some((name, index)) = self.part {
            place = rule.field(name).entry(index);
            let part = Value::Array(vec![place.of(object)?.clone()]);
            value.to_mut().insert(name.to_owned(), part);
        }
        let mut section = self.section.of(object)?.as_object()?.clone();
        section.retain(|name, _| !is_a_list(name));
        let list = Value::Array(vec![Value::Object(value.into_owned())]);
        section.insert(self.list.clone(), list);
        let mut less: Map<String, Value> = object.as_object()?.clone();
        less.remove("specs");
        less.insert("spec".to_owned(), Value::Object(section));
        let policy = reread(manifest, Value::Object(less)).ok()?.policy;
        if policy.reads_handshakes() {
            return None;
        }
        // An entry of the ports, be it the only one.
        let ports = match self.part {
            Some(_) => place.clone(),
            None => rule.field("toPorts").entry(0),
        };
        let asks = ports.field("rules").field("dns");
        let names = asks.of(object).and_then(Value::as_array);
        Some(Alone {
            names: names
                .into_iter()
                .flatten()
                .enumerate()
                .filter_map(|(index, name)| Some((asks.entry(index), dns_rule(name)?)))
                .collect(),
            asks: names.is_some().then_some(asks),
            denies: self.list.ends_with("Deny"),
            place,
            policy,
        })
    }
}

fn is_a_list(name: &str) -> bool {
    let name = name.strip_suffix("Deny").unwrap_or(name);
    matches!(name, "ingress" | "egress")
}

fn dns_rule(value: &Value) -> Option<DnsRule> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match (text("matchName"), text("matchPattern")) {
        (Some(name), None) => DnsRule::name(name).ok(),
        (None, Some(pattern)) => DnsRule::pattern(pattern).ok(),
        _ => None,
    }
}
