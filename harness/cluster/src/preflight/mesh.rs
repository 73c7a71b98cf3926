//! What has to be true of a mesh, and of Cilium beneath it.

use k8s_openapi::api::core::v1::Pod;
use ztc_engine::profile::MeshSpec;
use ztc_model::policy::mesh::ROOT_NAMESPACE;

use super::{Finding, GATEWAY_DEFINITION, Seen, blocking};

/// The `ConfigMap` of Istio's control plane, with its configuration under `mesh`.
pub(super) const CONFIG: &str = "istio";

/// What a cluster that is there already has where it does not say its version.
pub(crate) const UNKNOWN: &str = "unknown";

/// How ztunnel logs, as its environment says (`src/telemetry.rs` of istio/ztunnel).
const LOG_FORMAT: &str = "LOG_FORMAT";

/// Everything that is wrong.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let others = ztunnels(seen).into_iter().chain(waypoints(seen)).chain(root(seen));
    of_cilium(seen).into_iter().chain(others).chain(dns_capture(seen)).collect()
}

/// The node of a ztunnel, and how it logs.
pub(super) fn log_format(pod: &Pod) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let mut set = spec.containers.iter().flat_map(|it| it.env.iter().flatten());
    let format = set.find(|it| it.name == LOG_FORMAT).and_then(|it| it.value.clone());
    Some((spec.node_name.clone()?, format.unwrap_or_else(|| "plain".to_owned())))
}

/// The node of a ztunnel, and the version that its image is tagged with. An image without a tag says none.
pub(super) fn version(pod: &Pod) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let image = spec.containers.first()?.image.as_deref()?;
    let node = spec.node_name.clone()?;
    Some((node, tag(image).unwrap_or(UNKNOWN).to_owned()))
}

/// The tag of an image: what stands behind the last colon, unless that is the port of a registry.
pub(crate) fn tag(image: &str) -> Option<&str> {
    let named = image.split_once('@').map_or(image, |(named, _digest)| named);
    let (_, tag) = named.rsplit_once(':')?;
    (!tag.contains('/')).then_some(tag)
}

/// Versions that are not the wanted ones, each with the field of the profile that says it.
pub(super) fn versions(seen: &Seen, wanted: &MeshSpec) -> Vec<(String, &'static str)> {
    let MeshSpec { istio, gateway_api, .. } = wanted;
    let others = seen.istio.iter().filter(|(_, version)| !is_of(version, istio));
    let mut found: Vec<(String, &'static str)> = others
        .map(|(node, version)| {
            (format!("the ztunnel on {node} is {version}, the profile says {istio}"), "istio")
        })
        .collect();
    let said = match &seen.gateway_api {
        Some(version) if version == gateway_api => None,
        Some(version) => Some(format!("are {version}")),
        // Definitions that are not there are a finding of their own.
        None if seen.definitions.iter().any(|it| it == GATEWAY_DEFINITION) => {
            Some("do not say their version".to_owned())
        }
        None => None,
    };
    found.extend(said.filter(|_| gateway_api != UNKNOWN).map(|said| {
        let found = format!("the Gateway API's definitions {said}, the profile says {gateway_api}");
        (found, "gatewayApi")
    }));
    found
}

/// Whether a tag is of a version: it may name the variant of the image, too.
fn is_of(tag: &str, version: &str) -> bool {
    let rest = tag.strip_prefix(version);
    rest.is_some_and(|rest| rest.is_empty() || VARIANTS.contains(&rest))
}

/// The variants in which Istio publishes an image of one version.
const VARIANTS: [&str; 2] = ["-distroless", "-debug"];

/// A ztunnel that is not there, or that nobody here can read.
fn ztunnels(seen: &Seen) -> Vec<Finding> {
    let silent = "nobody could say what it denied: its stream would be one gap, and every denied cell inconclusive";
    let of_node = |node: &String| match seen.ztunnels.get(node).map(String::as_str) {
        Some("json") => None,
        Some(format) => Some(blocking(
            format!("the ztunnel on {node} logs as {format} text"),
            silent,
            "set `logAsJson: true` for Istio's ztunnel chart",
        )),
        None => Some(blocking(
            format!("no ztunnel is on {node}"),
            silent,
            "look why: kubectl -n istio-system describe daemonset ztunnel",
        )),
    };
    seen.nodes.iter().filter_map(of_node).collect()
}

/// What is set in the configuration of the mesh, at its top.
fn set<'a>(seen: &'a Seen, key: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix(':').map(str::trim);
    seen.mesh_config.lines().filter_map(value).next_back()
}

fn waypoints(seen: &Seen) -> Option<Finding> {
    let readable = set(seen, "accessLogFile") == Some("/dev/stdout")
        && set(seen, "accessLogEncoding") == Some("JSON");
    (!readable).then(|| Finding {
        blocks: false,
        found: "waypoints do not write access logs as JSON to their standard output".to_owned(),
        consequence: "nobody could say what a waypoint denied: cells that it has to deny would be inconclusive",
        fix: "set `meshConfig.accessLogFile: /dev/stdout` and `meshConfig.accessLogEncoding: JSON`".to_owned(),
    })
}

fn root(seen: &Seen) -> Option<Finding> {
    let root = set(seen, "rootNamespace").filter(|root| *root != ROOT_NAMESPACE)?;
    Some(blocking(
        format!("the mesh's root namespace is {root}"),
        "policies for the whole mesh would be those of one namespace",
        format!("take {ROOT_NAMESPACE}: the manifests of the suites name it"),
    ))
}

/// What Istio ambient needs of Cilium: Istio's own checks (`istio/operator/pkg/apis/validation`,
/// `detectCniIncompatibility`), and host routing, which is what breaks probes (cilium/cilium#36022).
fn of_cilium(seen: &Seen) -> Vec<Finding> {
    let checks = [
        (
            seen.set("cni-exclusive") == Some("true"),
            "`cni-exclusive` is true",
            "Cilium would take Istio's CNI plugin out of the chain, and pods would not be captured",
            "set `cni.exclusive: false`",
        ),
        (
            seen.set("enable-bpf-masquerade") == Some("true"),
            "`enable-bpf-masquerade` is true",
            "kubelet's probes of ambient pods would fail (istio/istio#52208)",
            "set `bpf.masquerade: false`",
        ),
        (
            seen.set("bpf-lb-sock") == Some("true")
                && seen.set("bpf-lb-sock-hostns-only") != Some("true"),
            "`bpf-lb-sock` is true and `bpf-lb-sock-hostns-only` is not",
            "services would be translated before ztunnel sees them, and waypoints passed by",
            "set `socketLB.hostNamespaceOnly: true`",
        ),
        (
            seen.set("enable-host-legacy-routing") != Some("true"),
            "`enable-host-legacy-routing` is not true",
            "replies to kubelet's probes of ambient pods would be lost (cilium/cilium#36022)",
            "set `bpf.hostLegacyRouting: true`",
        ),
    ];
    let wrong = checks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    let wrong = wrong.map(|(_, found, consequence, fix)| {
        blocking(found.to_owned(), consequence, fix.to_owned())
    });
    wrong.collect()
}

/// Istio captures queries of ambient pods since 1.25. Where it does not, they go another way than in the
/// clusters that results are compared with; nothing is enforced less.
fn dns_capture(seen: &Seen) -> Option<Finding> {
    let capture = seen.istio_cni.get("AMBIENT_DNS_CAPTURE").map_or("absent", String::as_str);
    (capture != "true").then(|| Finding {
        blocks: false,
        found: format!("Istio does not capture DNS of ambient pods: AMBIENT_DNS_CAPTURE is {capture}"),
        consequence: "names of the mesh are answered by cluster DNS and not by ztunnel, so cases about names in the \
                      mesh show another cluster than Istio's default",
        fix: "set `ambient.dnsCapture: true` for Istio's CNI chart".to_owned(),
    })
}
