//! Peers of rules, and what they match.

use ipnet::IpNet;

use crate::dns::DnsRule;
use crate::identity::{Identity, Reserved};
use crate::labels::Labels;
use crate::selector::Selector;

/// The peers that a rule is about: whom any of its parts selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerSelector(Vec<Peer>);

/// One part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Identities by their labels.
    Labels(Selector),
    /// Addresses outside the cluster: pods and nodes have identities of their own, which no range
    /// selects (`policy-cidr-match-mode` is empty by default).
    Cidr {
        /// The range.
        range: IpNet,
        /// Ranges inside it that are left out.
        except: Vec<IpNet>,
    },
    /// Addresses outside the cluster that were learnt for a name of this form.
    Fqdn(DnsRule),
}

impl PeerSelector {
    /// Every peer, whoever it is.
    pub fn all() -> Self {
        Self(vec![Peer::Labels(Selector::all())])
    }

    /// Whom any of these selects.
    pub fn any_of(peers: Vec<Peer>) -> Self {
        Self(peers)
    }

    /// Its parts.
    pub fn parts(&self) -> &[Peer] {
        &self.0
    }

    /// Whether it selects a peer.
    pub fn selects(&self, peer: &Identity) -> bool {
        self.selects_labelled(peer, &peer.view())
    }

    /// The same with the peer's labels at hand, so that many rules need them computed once.
    pub(crate) fn selects_labelled(&self, peer: &Identity, labels: &Labels) -> bool {
        self.0.iter().any(|part| match part {
            Peer::Labels(selector) => selector.matches(labels),
            Peer::Cidr { range, except } => match peer {
                Identity::Cidr(address) | Identity::Fqdn { range: Some(address), .. } => {
                    range.contains(address) && !except.iter().any(|it| it.contains(address))
                }
                // `IPStringToLabel` in `pkg/labels/cidr.go`: a range of length 0 is the world.
                Identity::Reserved(Reserved::World) | Identity::Fqdn { range: None, .. } => {
                    range.prefix_len() == 0
                }
                // With both families it is the world of its own.
                Identity::Reserved(Reserved::WorldIpv4) => {
                    matches!(range, IpNet::V4(_)) && range.prefix_len() == 0
                }
                Identity::Reserved(Reserved::WorldIpv6) => {
                    matches!(range, IpNet::V6(_)) && range.prefix_len() == 0
                }
                Identity::Endpoint(_) | Identity::Reserved(_) => false,
            },
            // `fqdnSelector` in `pkg/policy/types/selector.go`: by the label of this very element.
            Peer::Fqdn(rule) => match peer {
                Identity::Fqdn { names, .. } => names.contains(rule),
                Identity::Endpoint(_) | Identity::Reserved(_) | Identity::Cidr(_) => false,
            },
        })
    }

    /// Every name and pattern of names that it mentions.
    pub fn names(&self) -> impl Iterator<Item = &DnsRule> {
        self.0.iter().filter_map(|part| match part {
            Peer::Fqdn(rule) => Some(rule),
            Peer::Labels(_) | Peer::Cidr { .. } => None,
        })
    }

    /// Every range it mentions, those left out too: each needs an identity of its own, or the
    /// exception could not be told from the rest.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().flat_map(|part| match part {
            Peer::Labels(_) | Peer::Fqdn(_) => Vec::new(),
            Peer::Cidr { range, except } => [&[*range], except.as_slice()].concat(),
        })
    }
}
