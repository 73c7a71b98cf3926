//! The fields of manifests that are evaluated, and the names of those that are not.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::policy::ports::IntOrString;
use crate::policy::range::CidrRule;
use crate::selector::LabelSelector;
use crate::yaml::Spanned;

/// Fields of these kinds that are known and not evaluated.
pub(super) const NOT_EVALUATED: &[&str] = &[
    "authentication",
    "cidrGroupRef",
    "cidrGroupSelector",
    "fromGroups",
    "fromNodes",
    "fromRequires",
    "http",
    "kafka",
    "l7",
    "l7proto",
    "labels",
    "listener",
    "log",
    "nodeSelector",
    "originatingTLS",
    "status",
    "terminatingTLS",
    "toGroups",
    "toNodes",
    "toRequires",
    "toServices",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Object {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) metadata: Spanned<IgnoredAny>,
    #[serde(default)]
    pub(super) spec: Option<Spanned<Section>>,
    #[serde(default)]
    pub(super) specs: Option<Vec<Spanned<Section>>>,
}

/// A spec. Absent and null are the same in all of it, as they are in Go.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Section {
    pub(super) endpoint_selector: LabelSelector,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    pub(super) enable_default_deny: Option<EnableDefaultDeny>,
    #[serde(default)]
    pub(super) ingress: Option<Vec<Ingress<PortRule>>>,
    #[serde(default)]
    pub(super) ingress_deny: Option<Vec<Ingress<PortDenyRule>>>,
    #[serde(default)]
    pub(super) egress: Option<Vec<Egress<PortRule>>>,
    #[serde(default)]
    pub(super) egress_deny: Option<Vec<Egress<PortDenyRule>>>,
}

impl Section {
    /// Whether any of its four lists is there, empty or not.
    pub(super) fn has_a_list(&self) -> bool {
        self.ingress.is_some()
            || self.ingress_deny.is_some()
            || self.egress.is_some()
            || self.egress_deny.is_some()
    }

    /// Whether any of its rules has `serverNames`.
    pub(super) fn reads_handshakes(&self) -> bool {
        let ingress = self.ingress.iter().flatten().filter_map(|it| it.to_ports.as_ref());
        let egress = self.egress.iter().flatten().filter_map(|it| it.to_ports.as_ref());
        ingress.chain(egress).flatten().any(|rule| rule.server_names.is_some())
    }
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnableDefaultDeny {
    #[serde(default)]
    pub(super) ingress: Option<bool>,
    #[serde(default)]
    pub(super) egress: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "P: Deserialize<'de>")]
pub(super) struct Ingress<P> {
    #[serde(default)]
    pub(super) from_endpoints: Option<Spanned<Vec<LabelSelector>>>,
    #[serde(default)]
    pub(super) from_entities: Option<Spanned<Vec<Entity>>>,
    #[serde(default, rename = "fromCIDR")]
    pub(super) from_cidr: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default, rename = "fromCIDRSet")]
    pub(super) from_cidr_set: Option<Spanned<Vec<CidrRule>>>,
    #[serde(default)]
    pub(super) to_ports: Option<Vec<P>>,
    #[serde(default)]
    pub(super) icmps: Option<Spanned<Vec<IcmpRule>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "P: Deserialize<'de>")]
pub(super) struct Egress<P> {
    #[serde(default)]
    pub(super) to_endpoints: Option<Spanned<Vec<LabelSelector>>>,
    #[serde(default)]
    pub(super) to_entities: Option<Spanned<Vec<Entity>>>,
    #[serde(default, rename = "toCIDR")]
    pub(super) to_cidr: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default, rename = "toCIDRSet")]
    pub(super) to_cidr_set: Option<Spanned<Vec<CidrRule>>>,
    #[serde(default, rename = "toFQDNs")]
    pub(super) to_fqdns: Option<Spanned<Vec<Spanned<NameRule>>>>,
    #[serde(default)]
    pub(super) to_ports: Option<Vec<P>>,
    #[serde(default)]
    pub(super) icmps: Option<Spanned<Vec<IcmpRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IcmpRule {
    #[serde(default)]
    pub(super) fields: Option<Vec<IcmpField>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IcmpField {
    #[serde(default)]
    pub(super) family: Option<Spanned<String>>,
    #[serde(rename = "type")]
    pub(super) kind: Spanned<IntOrString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortRule {
    #[serde(default)]
    pub(super) ports: Option<Vec<PortProtocol>>,
    #[serde(default)]
    pub(super) server_names: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) rules: Option<Spanned<L7Rules>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortDenyRule {
    #[serde(default)]
    pub(super) ports: Option<Vec<PortProtocol>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortProtocol {
    pub(super) port: Spanned<String>,
    #[serde(default)]
    pub(super) end_port: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) protocol: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct L7Rules {
    #[serde(default)]
    pub(super) dns: Option<Vec<Spanned<NameRule>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NameRule {
    #[serde(default)]
    pub(super) match_name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) match_pattern: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Entity {
    All,
    World,
    Cluster,
    Host,
    RemoteNode,
    KubeApiserver,
    Health,
    Init,
    Ingress,
    Unmanaged,
    None,
}
