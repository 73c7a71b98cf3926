//! What has to be true of a cluster before anything is concluded from it: checked before every run.
//!
//! Gathering does I/O; judging is pure, over what was gathered. Each finding says what would go wrong, and what to do.

pub(crate) mod mesh;
mod names;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, ListParams, PartialObjectMeta};
use ztc_engine::profile::ClusterSpec;

use crate::api::{self, ApiError};
use crate::charts::ISTIO;
use crate::cilium::{AGENTS, Agents, CiliumError, NAMESPACE};
use crate::mesh::ZTUNNELS;

/// The `ConfigMap` that Cilium's agents read.
const CONFIG: &str = "cilium-config";

/// The `ConfigMap` that Istio's CNI agents read.
const ISTIO_CNI: &str = "istio-cni-config";

/// The definitions without which policies cannot be applied.
const POLICY_DEFINITIONS: [&str; 2] =
    ["ciliumnetworkpolicies.cilium.io", "ciliumclusterwidenetworkpolicies.cilium.io"];
/// The one without which there are no waypoints.
pub(crate) const GATEWAY_DEFINITION: &str = "gateways.gateway.networking.k8s.io";
/// The annotation in which the Gateway API's definitions say their version, such as `v1.6.1`.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// Something about a cluster that would make verdicts wrong or impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether a run must not start.
    pub blocks: bool,
    /// What was found.
    pub found: String,
    /// What would go wrong.
    pub consequence: &'static str,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, found, consequence, fix } = self;
        let word = if *blocks { "error" } else { "warning" };
        write!(f, "{word}: {found}\n  what would go wrong: {consequence}\n  what to do: {fix}")
    }
}

/// What was seen of a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The version of the API server, such as `1.36.3`.
    pub(crate) kubernetes: String,
    /// The nodes.
    pub(crate) nodes: Vec<String>,
    /// By node, the version of its Cilium agent.
    pub(crate) cilium: BTreeMap<String, String>,
    /// What Cilium's agents are configured with.
    pub(crate) config: BTreeMap<String, String>,
    /// The endpoints in policy audit mode, in words.
    pub(crate) audited: Vec<String>,
    /// By node, what Hubble says of itself.
    pub(crate) hubble: BTreeMap<String, String>,
    /// The names of the resource definitions.
    pub(crate) definitions: Vec<String>,
    /// What Istio's CNI agents are configured with; nothing where there is no mesh.
    pub(crate) istio_cni: BTreeMap<String, String>,
    /// By node, in which form the ztunnel there logs; `plain` where it is not said.
    pub(crate) ztunnels: BTreeMap<String, String>,
    /// By node, the version of its ztunnel, as its image is tagged.
    pub(crate) istio: BTreeMap<String, String>,
    /// The version of the Gateway API's resource definitions, as they say it themselves.
    pub(crate) gateway_api: Option<String>,
    /// What Istio's control plane is configured with, as YAML.
    pub(crate) mesh_config: String,
    /// How many pods of cluster DNS are Ready.
    pub(crate) dns_servers: usize,
    /// By node, what asking its name server came to.
    pub(crate) name_servers: BTreeMap<String, String>,
}

impl Seen {
    /// Looks at a cluster.
    pub(crate) async fn gather(
        client: &Client,
        agents: &Agents,
        nodes: &[String],
    ) -> Result<Self, CiliumError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source: kube::Error| ApiError::Read { what, source: source.into() }
        };
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let config = maps.get_opt(CONFIG).await.map_err(failed("Cilium's configuration"))?;
        let definitions = Api::<CustomResourceDefinition>::all(client.clone())
            .list_metadata(&ListParams::default())
            .await
            .map_err(failed("the resource definitions"))?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ISTIO);
        let istio_cni =
            maps.get_opt(ISTIO_CNI).await.map_err(failed("Istio's CNI configuration"))?;
        let mesh_config =
            maps.get_opt(mesh::CONFIG).await.map_err(failed("the mesh's configuration"))?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), ISTIO);
        let ztunnels = pods
            .list(&ListParams::default().labels(ZTUNNELS.label))
            .await
            .map_err(failed("the ztunnels"))?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let dns = pods
            .list(&ListParams::default().labels(names::CLUSTER_DNS))
            .await
            .map_err(failed("the pods of cluster DNS"))?;
        let known = nodes.first().map_or("localhost", String::as_str);
        let name_servers = agents.run(&names::script(known)).await?;
        let states = agents.states().await?;
        let audited = states.iter().flat_map(|(node, state)| {
            let audited = state.endpoints.iter().filter(|it| it.audit);
            audited.map(move |it| format!("endpoint {} on {node}", it.id))
        });
        let hubble = agents.run("hubble status || true").await?;
        Ok(Self {
            kubernetes: api::version(client).await?,
            nodes: nodes.to_owned(),
            cilium: agents.versions().await?,
            config: config.and_then(|it| it.data).unwrap_or_default(),
            audited: audited.collect(),
            hubble,
            istio_cni: istio_cni.and_then(|it| it.data).unwrap_or_default(),
            istio: ztunnels.items.iter().filter_map(mesh::version).collect(),
            ztunnels: ztunnels.items.iter().filter_map(mesh::log_format).collect(),
            gateway_api: gateway_api(&definitions.items),
            mesh_config: mesh_config.and_then(|it| it.data?.remove("mesh")).unwrap_or_default(),
            dns_servers: dns.items.iter().filter(|it| names::is_ready(it)).count(),
            name_servers,
            definitions: definitions.items.into_iter().filter_map(|it| it.metadata.name).collect(),
        })
    }

    fn set(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }
}

/// Everything that is wrong with a cluster for this profile, what blocks first.
pub(crate) fn findings(seen: &Seen, spec: &ClusterSpec) -> Vec<Finding> {
    let has_mesh = spec.mesh.is_some();
    let mut findings: Vec<Finding> = [
        versions(seen, spec),
        agents_everywhere(seen),
        definitions(seen, has_mesh),
        enforcement(seen),
        ranges(seen).into_iter().collect(),
        evidence(seen),
        names::findings(seen.dns_servers, &seen.name_servers),
        if has_mesh { mesh::findings(seen) } else { Vec::new() },
    ]
    .concat();
    findings.sort_by_key(|it| !it.blocks);
    findings
}

/// The version that the definitions of the Gateway API say of themselves.
fn gateway_api(definitions: &[PartialObjectMeta<CustomResourceDefinition>]) -> Option<String> {
    let gateways =
        definitions.iter().find(|it| it.metadata.name.as_deref() == Some(GATEWAY_DEFINITION))?;
    bundle_version(&gateways.metadata)
}

/// The version in the annotations of a definition of the Gateway API.
pub(crate) fn bundle_version(of: &ObjectMeta) -> Option<String> {
    let said = of.annotations.as_ref()?.get(BUNDLE_VERSION)?;
    Some(said.strip_prefix('v').unwrap_or(said).to_owned())
}

fn blocking(found: String, consequence: &'static str, fix: impl Into<String>) -> Finding {
    Finding { blocks: true, found, consequence, fix: fix.into() }
}

fn versions(seen: &Seen, spec: &ClusterSpec) -> Vec<Finding> {
    let others = seen.cilium.iter().filter(|(_, version)| **version != spec.cilium);
    let cilium = others.map(|(node, version)| {
        (format!("Cilium on {node} is {version}, the profile says {}", spec.cilium), "cilium")
    });
    let mesh = spec.mesh.iter().flat_map(|wanted| mesh::versions(seen, wanted));
    let kubernetes = (seen.kubernetes != spec.kubernetes).then(|| {
        let (found, wanted) = (&seen.kubernetes, &spec.kubernetes);
        (format!("Kubernetes is {found}, the profile says {wanted}"), "kubernetes")
    });
    let consequence = "results would be reported for a version that was not tested";
    kubernetes
        .into_iter()
        .chain(cilium)
        .chain(mesh)
        .map(|(found, key)| {
            blocking(
                found,
                consequence,
                format!("correct `{key}` in the profile, or `ztc down` and up again"),
            )
        })
        .collect()
}

/// A node without an agent is asked nothing, and nobody would notice.
fn agents_everywhere(seen: &Seen) -> Vec<Finding> {
    let without = seen.nodes.iter().filter(|node| !seen.cilium.contains_key(*node));
    without
        .map(|node| {
            blocking(
                format!("no agent of Cilium runs on {node}"),
                "nobody would say whether policies are realised there, nor who denied what",
                format!("look why: kubectl -n {NAMESPACE} describe pod -l {}", AGENTS.label),
            )
        })
        .collect()
}

fn definitions(seen: &Seen, has_mesh: bool) -> Vec<Finding> {
    let gateway = has_mesh.then_some(GATEWAY_DEFINITION);
    let wanted = POLICY_DEFINITIONS.into_iter().chain(gateway);
    wanted
        .filter(|name| !seen.definitions.iter().any(|it| it == name))
        .map(|name| {
            blocking(
                format!("there is no resource definition {name}"),
                "objects of this kind could not be applied",
                "install Cilium, or the Gateway API, as the profile describes it",
            )
        })
        .collect()
}

/// Whether policies are enforced at all.
fn enforcement(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let nothing = "policies would be evaluated and not enforced: every denial would leak";
    if seen.set("policy-audit-mode") == Some("true") || !seen.audited.is_empty() {
        let whom = match seen.audited.as_slice() {
            [] => "the agents".to_owned(),
            audited => audited.join(", "),
        };
        findings.push(blocking(
            format!("policy audit mode is on for {whom}"),
            nothing,
            "set `policyAuditMode: false`, or `cilium-dbg endpoint config ID PolicyAuditMode=Disabled`",
        ));
    }
    match seen.set("enable-policy") {
        Some("never") => findings.push(blocking(
            "Cilium's enforcement mode is `never`".to_owned(),
            nothing,
            "set `policyEnforcementMode: default`",
        )),
        Some("always") => findings.push(blocking(
            "Cilium's enforcement mode is `always`".to_owned(),
            "everything would be denied without any policy, so no control could pass",
            "set `policyEnforcementMode: default`",
        )),
        _ => {}
    }
    findings
}

/// Ranges of addresses may select nodes, and since 1.20 pods, too (`docs security/policy/layer3`).
fn ranges(seen: &Seen) -> Option<Finding> {
    let mode = seen.set("policy-cidr-match-mode").filter(|mode| !mode.is_empty())?;
    Some(Finding {
        blocks: false,
        found: format!("`policy-cidr-match-mode` is `{mode}`"),
        consequence: "ranges of addresses select pods or nodes, so cases that say they select neither fail",
        fix: "leave `policyCIDRMatchMode` empty, or take `outside-cidrs` out of the profile's features".to_owned(),
    })
}

/// Whether enforcement points would say what they did.
fn evidence(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let silent = "no denial could be attributed: every denied cell would be inconclusive";
    if seen.set("enable-hubble") == Some("true") {
        for (node, status) in seen.hubble.iter().filter(|(_, it)| !it.contains("Ok")) {
            let said = status.lines().next().unwrap_or("nothing");
            findings.push(blocking(
                format!("Hubble on {node} does not answer at its socket: {said}"),
                silent,
                "look at the agent's log; its socket is /var/run/cilium/hubble.sock",
            ));
        }
    } else {
        findings.push(blocking("Hubble is off".to_owned(), silent, "set `hubble.enabled: true`"));
    }
    if seen.set("enable-l7-proxy") != Some("true") {
        findings.push(blocking(
            "Cilium's L7 proxy is off".to_owned(),
            "DNS rules would not be enforced by anybody",
            "set `l7Proxy: true`",
        ));
    }
    for key in ["bpf-events-drop-enabled", "bpf-events-policy-verdict-enabled"] {
        if seen.set(key) == Some("false") {
            findings.push(blocking(
                format!("`{key}` is false"),
                silent,
                "set `bpf.events.drop.enabled` and `bpf.events.policyVerdict.enabled`",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use ztc_model::yaml::{Source, values};

    use super::*;

    const RECORDED: &str = include_str!("../tests/facts/cilium-config.yaml");

    fn spec() -> ClusterSpec {
        let text = "{ kubernetes: 1.36.3, nodes: 2, ipFamily: ipv4, kubeProxy: replaced, cilium: 1.20.2, \
                    mesh: { istio: 1.31.1, gatewayApi: 1.6.1 } }";
        ztc_model::yaml::strict(&Source::new("spec", text)).unwrap()
    }

    fn without_mesh() -> ClusterSpec {
        ClusterSpec { mesh: None, ..spec() }
    }

    /// A cluster with the recorded configuration, in which all is well.
    fn seen() -> Seen {
        let recorded = values(&Source::new("cilium-config.yaml", RECORDED)).unwrap();
        let config = serde_json::from_value(recorded[0]["data"].clone()).unwrap();
        let names = POLICY_DEFINITIONS.into_iter().chain([GATEWAY_DEFINITION]);
        Seen {
            kubernetes: "1.36.3".to_owned(),
            nodes: vec!["one".to_owned()],
            cilium: BTreeMap::from([("one".to_owned(), "1.20.2".to_owned())]),
            config,
            audited: Vec::new(),
            hubble: BTreeMap::from([("one".to_owned(), "Healthcheck (via unix): Ok".to_owned())]),
            definitions: names.map(str::to_owned).collect(),
            dns_servers: 2,
            name_servers: [("one".to_owned(), "172.18.0.1 1".to_owned())].into(),
            istio_cni: [("AMBIENT_DNS_CAPTURE".to_owned(), "true".to_owned())].into(),
            ztunnels: [("one".to_owned(), "json".to_owned())].into(),
            istio: [("one".to_owned(), "1.31.1".to_owned())].into(),
            gateway_api: Some("1.6.1".to_owned()),
            mesh_config:
                "accessLogEncoding: JSON\naccessLogFile: /dev/stdout\nrootNamespace: istio-system\n"
                    .to_owned(),
        }
    }

    fn one(change: impl FnOnce(&mut Seen)) -> String {
        let mut seen = seen();
        change(&mut seen);
        let findings = findings(&seen, &spec());
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].found.clone()
    }

    fn set(key: &str, value: &str) -> String {
        one(|seen| drop(seen.config.insert(key.to_owned(), value.to_owned())))
    }

    #[test]
    fn the_recorded_configuration_is_fit_for_a_run() {
        assert_eq!(findings(&seen(), &spec()), []);
    }

    #[test]
    fn what_would_make_every_denial_leak_is_found() {
        assert!(set("enable-policy", "never").contains("never"));
        assert!(set("policy-audit-mode", "true").contains("audit mode"));
        let audited = one(|seen| seen.audited.push("endpoint 7 on one".to_owned()));
        assert!(audited.contains("endpoint 7 on one"), "{audited}");
    }

    #[test]
    fn what_would_leave_denials_without_evidence_is_found() {
        assert_eq!(set("enable-hubble", "false"), "Hubble is off");
        let hubble = one(|seen| {
            drop(seen.hubble.insert("two".to_owned(), "failed to connect\n".to_owned()));
        });
        assert_eq!(hubble, "Hubble on two does not answer at its socket: failed to connect");
        assert!(set("bpf-events-drop-enabled", "false").contains("bpf-events-drop"));
        assert!(set("enable-l7-proxy", "false").contains("L7 proxy"));
    }

    #[test]
    fn what_breaks_ambient_is_found_where_there_is_a_mesh_only() {
        for (key, value) in [
            ("cni-exclusive", "true"),
            ("enable-bpf-masquerade", "true"),
            ("enable-host-legacy-routing", "false"),
        ] {
            assert!(set(key, value).contains(key));
            let mut seen = seen();
            seen.config.insert(key.to_owned(), value.to_owned());
            assert_eq!(findings(&seen, &without_mesh()), []);
        }
        let sockets = one(|seen| {
            seen.config.insert("bpf-lb-sock".to_owned(), "true".to_owned());
            seen.config.insert("bpf-lb-sock-hostns-only".to_owned(), "false".to_owned());
        });
        assert!(sockets.contains("bpf-lb-sock"), "{sockets}");
    }

    #[test]
    fn another_version_than_the_profile_says_is_found_on_its_node() {
        let found = one(|seen| drop(seen.cilium.insert("two".to_owned(), "1.19.6".to_owned())));
        assert_eq!(found, "Cilium on two is 1.19.6, the profile says 1.20.2");
        assert!(one(|seen| "1.35.0".clone_into(&mut seen.kubernetes)).contains("1.35.0"));
    }

    #[test]
    fn another_mesh_than_the_profile_says_is_found() {
        let found = one(|seen| drop(seen.istio.insert("one".to_owned(), "1.31.0".to_owned())));
        assert_eq!(found, "the ztunnel on one is 1.31.0, the profile says 1.31.1");
        let found = one(|seen| seen.gateway_api = Some("1.5.1".to_owned()));
        assert_eq!(found, "the Gateway API's definitions are 1.5.1, the profile says 1.6.1");
        let found = one(|seen| seen.gateway_api = None);
        assert_eq!(
            found,
            "the Gateway API's definitions do not say their version, the profile says 1.6.1"
        );
    }

    #[test]
    fn the_variant_of_an_image_is_no_other_version() {
        let mut seen = seen();
        seen.istio.insert("one".to_owned(), "1.31.1-distroless".to_owned());
        assert_eq!(findings(&seen, &spec()), []);
        seen.istio.insert("one".to_owned(), "1.31.10".to_owned());
        assert_eq!(findings(&seen, &spec()).len(), 1);
    }

    #[test]
    fn dns_that_is_not_captured_is_a_warning_in_a_mesh() {
        let mut seen = seen();
        seen.istio_cni.clear();
        let findings = findings(&seen, &spec());
        assert!(findings.len() == 1 && !findings[0].blocks, "{findings:?}");
        assert_eq!(super::findings(&seen, &without_mesh()), []);
    }

    #[test]
    fn ranges_that_select_nodes_are_a_warning() {
        let mut seen = seen();
        seen.config.insert("policy-cidr-match-mode".to_owned(), "nodes".to_owned());
        let findings = findings(&seen, &spec());
        assert!(findings.len() == 1 && !findings[0].blocks, "{findings:?}");
        assert!(findings[0].fix.contains("outside-cidrs"), "{findings:?}");
    }

    #[test]
    fn a_node_without_an_agent_is_found() {
        let mut seen = seen();
        seen.nodes.push("two".to_owned());
        let found: Vec<String> =
            findings(&seen, &without_mesh()).into_iter().map(|it| it.found).collect();
        assert_eq!(found, ["no agent of Cilium runs on two"]);
    }

    #[test]
    fn logs_that_cannot_be_read_are_found_before_the_run() {
        let ztunnel = one(|seen| drop(seen.ztunnels.insert("one".to_owned(), "plain".to_owned())));
        assert_eq!(ztunnel, "the ztunnel on one logs as plain text");
        let waypoints = one(|seen| seen.mesh_config = "accessLogFile: /dev/stdout".to_owned());
        assert_eq!(
            waypoints,
            "waypoints do not write access logs as JSON to their standard output"
        );
    }

    #[test]
    fn a_node_without_a_ztunnel_is_found() {
        assert_eq!(one(|seen| seen.ztunnels.clear()), "no ztunnel is on one");
    }

    #[test]
    fn another_root_namespace_is_found() {
        let found = one(|seen| seen.mesh_config.push_str("rootNamespace: mesh\n"));
        assert_eq!(found, "the mesh's root namespace is mesh");
    }

    #[test]
    fn a_finding_says_what_to_do() {
        let mut seen = seen();
        seen.definitions.clear();
        let said = findings(&seen, &without_mesh())[0].to_string();
        assert!(said.contains("what would go wrong: ") && said.contains("what to do: "), "{said}");
    }
}
