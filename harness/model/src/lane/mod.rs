//! Lanes of one cluster: copies of a world whose own namespaces have other names.
//!
//! The first lane has everything as it is written. In another one a case is the same question about other
//! namespaces: what is renamed are the fields that hold the name of a namespace, and never free text. A case may
//! run beside others if its policies reach no further than the namespaces of its lane. Where that or the renaming
//! is not sure, the case is refused a lane of its own and runs alone, in the first one.
//!
//! Pure: which lane a case gets and when is not known here.

mod object;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::condition::ExpectedCondition;
use crate::dns::DnsRule;
use crate::manifest::{Manifest, ObjectRef, manifests};
use crate::outcome::Expected;
use crate::stimulus::{Bearer, Echo, Hbone, Peer, Send, Target};
use crate::suite::{Case, Cell, Component, Origin, Relabelled};
use crate::world::{PodRef, World};
use crate::yaml::Source;

/// Why a case cannot run beside others.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsound {
    /// A policy is about more than the namespaces of the world.
    #[error("{policy} reaches beyond the namespaces that its world makes")]
    Reach {
        /// Which.
        policy: ObjectRef,
    },
    /// A name or a pattern would mean something else in a lane.
    #[error("{policy}: `{text}` would match other names in a lane")]
    Name {
        /// Whose.
        policy: ObjectRef,
        /// It.
        text: String,
    },
    /// A field is not known to hold no namespace.
    #[error("{policy}: it is not known whether `{field}` names a namespace")]
    Field {
        /// Whose.
        policy: ObjectRef,
        /// It.
        field: String,
    },
    /// A renamed policy cannot be read.
    #[error("{policy} cannot be read with other namespaces: {message}")]
    Unreadable {
        /// Which.
        policy: ObjectRef,
        /// Why.
        message: String,
    },
    /// A world has a service that its lanes would share.
    #[error("service {namespace}/{name} is in a namespace that the world does not make")]
    SharedService {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A pod is in its node's network, where its copies would want the same ports.
    #[error("{pod} is in its node's network, of which there is one")]
    NodeNetwork {
        /// Which.
        pod: PodRef,
    },
    /// What is restarted enforces the policies of all lanes.
    #[error("{component} is restarted, which enforces the policies of all lanes")]
    Restart {
        /// What.
        component: Component,
    },
    /// A word is the name of a namespace and of something else, so names with it are ambiguous.
    #[error("`{word}` is a namespace, and a service or a part of a name outside as well")]
    Ambiguous {
        /// The word.
        word: String,
    },
}

/// The names that things of a world have in a lane other than the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renaming {
    suffix: String,
    /// The namespaces that the world makes, and what they are called in the lane.
    namespaces: BTreeMap<String, String>,
}

/// The end of the names of a lane's namespaces.
fn suffix(lane: usize) -> String {
    format!("-lane{lane}")
}

/// Whether a namespace is called as a copy in a lane is.
pub(crate) fn is_a_copys_name(namespace: &str) -> bool {
    namespace.rsplit_once("-lane").is_some_and(|(_, number)| number.parse::<usize>().is_ok())
}

/// Whether a case may run beside others in lanes of one cluster.
///
/// # Errors
/// Why it has to run alone.
pub fn keeps_to_its_lane(case: &Case, world: &World) -> Result<(), Unsound> {
    Renaming::of(world, 1)?.case(case).map(drop)
}

impl Renaming {
    /// The names in a lane, from 1: lane 0 has everything as it is written.
    ///
    /// # Errors
    /// What of the world lanes cannot have a copy of.
    pub fn of(world: &World, lane: usize) -> Result<Self, Unsound> {
        let suffix = suffix(lane);
        let own: BTreeSet<&str> = world.own_namespaces().collect();
        let shared = world.services.iter().find(|it| !own.contains(it.namespace.as_str()));
        if let Some(service) = shared {
            let (namespace, name) = (service.namespace.clone(), service.name.clone());
            return Err(Unsound::SharedService { namespace, name });
        }
        if let Some(pod) = world.pods.iter().find(|it| it.host_network) {
            return Err(Unsound::NodeNetwork { pod: pod.reference() });
        }
        let outside = world.outside.iter().flat_map(|host| &host.dns).flat_map(|it| it.split('.'));
        let mut words = world.services.iter().map(|it| it.name.as_str()).chain(outside);
        if let Some(word) = words.find(|word| own.contains(word)) {
            return Err(Unsound::Ambiguous { word: word.to_owned() });
        }
        let namespaces = own.iter().map(|it| ((*it).to_owned(), format!("{it}{suffix}")));
        Ok(Self { namespaces: namespaces.collect(), suffix })
    }

    /// The copy of the world. What is outside is not copied: lanes share it.
    #[must_use]
    pub fn world(&self, world: &World) -> World {
        let mut copy = world.clone();
        copy.world = format!("{}{}", world.world, self.suffix);
        for namespace in &mut copy.namespaces {
            namespace.name = self.namespace(&namespace.name);
        }
        for pod in &mut copy.pods {
            let PodRef { namespace, name } = self.pod(&pod.reference());
            (pod.namespace, pod.name) = (namespace, name);
        }
        for waypoint in &mut copy.waypoints {
            waypoint.namespace = self.namespace(&waypoint.namespace);
        }
        for service in &mut copy.services {
            service.namespace = self.namespace(&service.namespace);
        }
        copy
    }

    /// The same case about the copy of its world.
    ///
    /// # Errors
    /// Why it would not be the same, or would reach beyond the lane.
    pub fn case(&self, case: &Case) -> Result<Case, Unsound> {
        if let Some(component) = case.restart.first() {
            return Err(Unsound::Restart { component: *component });
        }
        let apply = case.apply.iter().map(|it| self.manifest(it)).collect::<Result<_, _>>()?;
        Ok(Case {
            world: format!("{}{}", case.world, self.suffix),
            apply,
            remove: case.remove.iter().map(|it| self.object_ref(it)).collect(),
            relabel: case.relabel.iter().map(|it| self.relabelled(it)).collect(),
            create: case.create.iter().map(|it| self.pod(it)).collect(),
            cells: case.cells.iter().map(|it| self.cell(it)).collect(),
            conditions: case.conditions.iter().map(|it| self.condition(it)).collect(),
            ..case.clone()
        })
    }

    /// The same policy in the lane.
    ///
    /// # Errors
    /// Why it would not be the same, or would reach beyond the lane.
    pub fn manifest(&self, manifest: &Manifest) -> Result<Manifest, Unsound> {
        let policy = &manifest.reference;
        let own = policy.namespace.as_ref().filter(|it| self.namespaces.contains_key(*it));
        if own.is_none() {
            return Err(Unsound::Reach { policy: policy.clone() });
        }
        let object = object::renamed(self, manifest)?;
        // JSON is YAML, and the reader is the only one who knows what a manifest means.
        let read = manifests(&Source::new(&manifest.file, object.to_string()));
        let unreadable = |message: String| Unsound::Unreadable { policy: policy.clone(), message };
        let mut read = read.map_err(|error| unreadable(error.message.clone()))?;
        let renamed = read.pop().ok_or_else(|| unreadable("nothing is left of it".to_owned()))?;
        Ok(Manifest { line: manifest.line, ..renamed })
    }

    fn cell(&self, cell: &Cell) -> Cell {
        let peer = |text: &String| match text.parse::<Peer>() {
            Ok(peer) => self.peer(&peer).to_string(),
            Err(_) => text.clone(),
        };
        Cell {
            from: match &cell.from {
                Origin::Pod(pod) => Origin::Pod(self.pod(pod)),
                Origin::Kubelet => Origin::Kubelet,
            },
            send: self.send(&cell.send),
            after: cell.after.as_ref().map(|it| self.send(it)),
            expected: match &cell.expected {
                Expected::Denied { by, form, policy, behind } => Expected::Denied {
                    by: *by,
                    form: *form,
                    policy: self.object_ref(policy),
                    behind: behind.iter().map(|it| self.object_ref(it)).collect(),
                },
                Expected::Interrupted { by, form, policy } => {
                    Expected::Interrupted { by: *by, form: *form, policy: self.object_ref(policy) }
                }
                expected @ (Expected::Allowed { .. }
                | Expected::Throughout
                | Expected::Refused { .. }) => expected.clone(),
            },
            peers: cell.peers.iter().map(peer).collect(),
            twin: cell.twin.as_ref().map(|it| self.pod(it)),
            beside: cell.beside.as_ref().map(|it| self.send(it)),
            line: cell.line,
        }
    }

    fn condition(&self, expected: &ExpectedCondition) -> ExpectedCondition {
        ExpectedCondition { object: self.object_ref(&expected.object), ..expected.clone() }
    }

    fn relabelled(&self, change: &Relabelled) -> Relabelled {
        Relabelled { pod: self.pod(&change.pod), labels: change.labels.clone() }
    }

    fn object_ref(&self, object: &ObjectRef) -> ObjectRef {
        let namespace = object.namespace.as_ref().map(|it| self.namespace(it));
        ObjectRef { namespace, ..object.clone() }
    }

    /// The same stimulus in the lane.
    #[must_use]
    pub fn send(&self, send: &Send) -> Send {
        let target = |to: &Target| Target { peer: self.peer(&to.peer), ..to.clone() };
        match send {
            Send::Tcp(to) => Send::Tcp(target(to)),
            Send::Udp(to) => Send::Udp(target(to)),
            Send::UdpFlow(to) => Send::UdpFlow(target(to)),
            Send::TcpFlow(to) => Send::TcpFlow(target(to)),
            Send::Ping(to) => Send::Ping(Echo { peer: self.peer(&to.peer), ..to.clone() }),
            Send::Tls(to) => Send::Tls(target(to)),
            Send::Http { tls, method, to, path, token } => Send::Http {
                tls: *tls,
                method: method.clone(),
                to: target(to),
                path: path.clone(),
                token: token.clone(),
            },
            Send::Dns { name, ipv6, tcp, server } => Send::Dns {
                name: self.name(name),
                ipv6: *ipv6,
                tcp: *tcp,
                server: server.as_ref().map(|it| self.peer(it)),
            },
            Send::Hbone(Hbone { to, through, speaks }) => Send::Hbone(Hbone {
                to: target(to),
                through: self.pod(through),
                speaks: match speaks {
                    Bearer::Pod { pod, flaw } => Bearer::Pod { pod: self.pod(pod), flaw: *flaw },
                    speaks => speaks.clone(),
                },
            }),
            Send::Readiness(pod) => Send::Readiness(self.pod(pod)),
        }
    }

    fn peer(&self, peer: &Peer) -> Peer {
        match peer {
            Peer::Pod(pod) => Peer::Pod(self.pod(pod)),
            Peer::Name(name) => Peer::Name(self.name(name)),
            Peer::Outside(_) | Peer::Address(_) => peer.clone(),
        }
    }

    /// A pod in a namespace that every cluster has gets another name: the namespace cannot.
    fn pod(&self, pod: &PodRef) -> PodRef {
        match self.namespaces.get(&pod.namespace) {
            Some(namespace) => PodRef { namespace: namespace.clone(), name: pod.name.clone() },
            None => PodRef {
                namespace: pod.namespace.clone(),
                name: format!("{}{}", pod.name, self.suffix),
            },
        }
    }

    /// What a namespace is called; one that the world does not make keeps its name.
    pub(crate) fn namespace(&self, name: &str) -> String {
        self.namespaces.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// A DNS name, label by label. That keeps search lists right as well, which put one namespace behind another.
    pub fn name(&self, name: &str) -> String {
        let labels = name.split('.').map(|label| self.namespace(&label.to_ascii_lowercase()));
        let renamed: Vec<String> = labels.collect();
        if renamed.join(".").eq_ignore_ascii_case(name) {
            name.to_owned()
        } else {
            renamed.join(".")
        }
    }

    /// A pattern of DNS names; nothing where one of its labels would match a namespace and not its copy, or the other
    /// way round.
    pub fn pattern(&self, pattern: &str) -> Option<String> {
        let labels = pattern.split('.').map(|label| {
            if self.namespaces.contains_key(&label.to_ascii_lowercase()) {
                return Some(self.name(label));
            }
            let rule = DnsRule::pattern(label).ok();
            let matches = |name: &str| rule.as_ref().is_some_and(|rule| rule.matches(name));
            let mut copies = self.namespaces.iter();
            copies.all(|(name, copy)| matches(name) == matches(copy)).then(|| label.to_owned())
        });
        labels.collect::<Option<Vec<String>>>().map(|labels| labels.join("."))
    }
}
