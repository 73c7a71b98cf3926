//! The objects that a world is made of in a real cluster.
//!
//! Pure: it says what is to be applied and applies nothing. Pods run under the restricted profile of pod
//! security: no privileges, no root, nothing of the node but its network where a world asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use ztc_engine::authority::{Authority, AuthorityError};
use ztc_model::world::{
    Born, DNS_CAPTURE, KubeService, Namespace, NodeSlot, Pod, ServiceProtocol, USE_WAYPOINT,
    Waypoint, World,
};
use ztc_model::ztunnel::HBONE_PORT;
use ztc_wire::{AGENT_ENV, AgentConfig, FirstRun, Zone};

/// The label that tells who made an object.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "ztc");
/// The label that tells which run applied a policy.
pub(crate) const RUN: &str = "ztc.dev/run";
/// The label that tells to which world an object belongs.
pub(crate) const WORLD: &str = "ztc.dev/world";

/// The container of a pod.
pub(crate) const CONTAINER: &str = "agent";

/// Where the agent listens for sessions. The folder is a volume in memory: the image has none.
const SOCKET_DIR: &str = "/run/ztc";
/// Its socket.
pub(crate) const SOCKET: &str = "/run/ztc/agent.sock";

/// Any user but root will do.
const USER: i64 = 65_532;

/// What all objects of a world have in common.
///
/// The run is not part of it: a world outlives it, and labels of namespaces and pods are labels of
/// Cilium's identities, so a label that changed would change who everybody is.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// The reference of the probe's image.
    pub(crate) image: String,
    /// Where nodes have it from.
    pub(crate) pull: Pull,
    /// The names of the nodes of both slots.
    pub(crate) nodes: BTreeMap<NodeSlot, String>,
    /// Where certificates come from.
    pub(crate) authority: Arc<Authority>,
}

impl Setting {
    fn labels(world: &World) -> BTreeMap<String, String> {
        BTreeMap::from([
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (WORLD.to_owned(), world.world.clone()),
        ])
    }

    fn metadata(world: &World, namespace: Option<&str>, name: &str) -> Value {
        let mut metadata = json!({ "name": name, "labels": Self::labels(world) });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata
    }
}

/// Where nodes have an image from, in the words of `imagePullPolicy`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pull {
    /// It was put into them; no registry has it.
    Never,
    /// A registry.
    IfNotPresent,
}

impl Pull {
    const fn policy(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
        }
    }
}

/// Everything of a world that has to exist before its pods, in the order in which it is applied.
pub(crate) fn before_pods(world: &World) -> Vec<Value> {
    let own: BTreeSet<&str> = world.own_namespaces().collect();
    let namespaces = world.namespaces.iter().filter(|it| own.contains(it.name.as_str()));
    let namespaces =
        namespaces.filter(|it| it.born == Born::WithTheWorld).map(|it| namespace(world, it));
    let accounts: BTreeSet<(&str, &str)> = world
        .pods
        .iter()
        .map(|pod| (pod.namespace.as_str(), pod.service_account.as_str()))
        .filter(|(_, name)| *name != "default")
        .collect();
    let accounts = accounts.into_iter().map(|(namespace, name)| {
        let metadata = Setting::metadata(world, Some(namespace), name);
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })
    });
    let services = world.services.iter().map(|it| service(world, it));
    let waypoints = world.waypoints.iter().map(|it| waypoint(world, it));
    namespaces.chain(accounts).chain(services).chain(waypoints).collect()
}

/// A namespace.
pub(crate) fn namespace(world: &World, namespace: &Namespace) -> Value {
    let mut metadata = Setting::metadata(world, None, &namespace.name);
    for (key, value) in &namespace.labels {
        metadata["labels"][key] = value.as_str().into();
    }
    metadata["labels"]["pod-security.kubernetes.io/enforce"] =
        security(world, &namespace.name).into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

/// The profile of pod security that the pods of a namespace need, and no more.
fn security(world: &World, namespace: &str) -> &'static str {
    let mut pods = world.pods.iter().filter(|it| it.namespace == namespace);
    if pods.any(|pod| pod.host_network) {
        // A pod in its node's network is more than the baseline profile allows.
        return "privileged";
    }
    if has_waypoints(world, namespace) {
        // Istio's own waypoints need not be as restricted as our pods are (`files/waypoint.yaml` of istiod's
        // chart: without `gateways.seccompProfile` they have no seccomp profile).
        return "baseline";
    }
    "restricted"
}

/// Whether there are waypoints in a namespace, or may be in a case: something in it is put behind one.
fn has_waypoints(world: &World, namespace: &str) -> bool {
    let services =
        world.services.iter().filter(|it| it.namespace == namespace).map(|it| &it.labels);
    let pods = world.pods.iter().filter(|it| it.namespace == namespace).map(|it| &it.labels);
    let of_namespace = world.namespace(namespace).map(|it| &it.labels);
    world.waypoints.iter().any(|it| it.namespace == namespace)
        || services.chain(pods).chain(of_namespace).any(|it| it.contains_key(USE_WAYPOINT))
}

/// The pods that are made with the world.
pub(crate) fn pods(
    world: &World,
    setting: &Setting,
    zone: &Zone,
) -> Result<Vec<Value>, AuthorityError> {
    let pods = world.pods.iter().filter(|pod| pod.born == Born::WithTheWorld);
    pods.map(|it| pod(world, setting, zone, it, Vec::new())).collect()
}

/// A waypoint, of which istiod makes a deployment and a service.
fn waypoint(world: &World, waypoint: &Waypoint) -> Value {
    let mut metadata = Setting::metadata(world, Some(&waypoint.namespace), &waypoint.name);
    metadata["labels"]["istio.io/waypoint-for"] = waypoint.serves.label().into();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{ "name": "mesh", "port": HBONE_PORT, "protocol": "HBONE" }],
        },
    })
}

fn service(world: &World, service: &KubeService) -> Value {
    let ports = service.ports.iter().map(|port| {
        let protocol = match port.protocol {
            ServiceProtocol::Tcp => "TCP",
            ServiceProtocol::Udp => "UDP",
        };
        let mut told = json!({
            "name": format!("{}-{}", protocol.to_lowercase(), port.port),
            "port": port.port,
            "targetPort": port.target_port.unwrap_or(port.port),
            "protocol": protocol,
        });
        if world.speaks_http(service, port) {
            // Else a waypoint takes it for any TCP, and rules about requests do not apply.
            told["appProtocol"] = "http".into();
        }
        told
    });
    let mut metadata = Setting::metadata(world, Some(&service.namespace), &service.name);
    for (key, value) in &service.labels {
        metadata["labels"][key] = value.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": service.selector,
            // A second address where the cluster has both families, and no error where it has not.
            "ipFamilyPolicy": "PreferDualStack",
            "ports": ports.collect::<Vec<_>>(),
        },
    })
}

/// A pod; its agent sends `first` from its first instant on.
///
/// # Panics
/// Never: the configuration of an agent has nothing that JSON cannot say.
pub(crate) fn pod(
    world: &World,
    setting: &Setting,
    zone: &Zone,
    pod: &Pod,
    first: Vec<FirstRun>,
) -> Result<Value, AuthorityError> {
    let config = AgentConfig {
        name: pod.reference().to_string(),
        socket: SOCKET.into(),
        resolv_conf: "/etc/resolv.conf".into(),
        serve: pod.serves.iter().map(|port| port.service(zone)).collect(),
        tls: setting.authority.pod(world, pod)?,
        first,
    };
    let config = config.to_json().expect("an agent's configuration has text keys");
    let mut metadata = Setting::metadata(world, Some(&pod.namespace), &pod.name);
    for (key, value) in &pod.labels {
        metadata["labels"][key] = value.as_str().into();
    }
    if let Some(captured) = pod.dns_capture {
        metadata["annotations"][DNS_CAPTURE] = captured.to_string().into();
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": setting.image,
        "imagePullPolicy": setting.pull.policy(),
        "env": [{ "name": AGENT_ENV, "value": config }],
        "ports": ports(pod),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{ "name": "run", "mountPath": SOCKET_DIR }],
    });
    if let Some(port) = pod.readiness {
        container["readinessProbe"] = json!({
            "httpGet": { "path": "/", "port": port },
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 1,
        });
    }
    let mut security = json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "fsGroup": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if !pod.host_network {
        // Echo requests without a capability (icmp(7)), whatever the runtime's default is: a safe
        // sysctl, which the restricted profile of pod security allows. The node's are not ours.
        security["sysctls"] =
            json!([{ "name": "net.ipv4.ping_group_range", "value": "0 2147483647" }]);
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": setting.nodes.get(&pod.node) },
            "tolerations": [{ "operator": "Exists" }],
            "serviceAccountName": pod.service_account,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": security,
            "containers": [container],
            "volumes": [{ "name": "run", "emptyDir": { "medium": "Memory" } }],
        },
    });
    if pod.host_network {
        object["spec"]["hostNetwork"] = true.into();
    }
    Ok(object)
}

/// The namespace of the pods that capture for a world. They are in their nodes' networks, which no profile of pod
/// security but this one allows, and no namespace of the world is opened for them.
pub(crate) fn capture_namespace(world: &World) -> Value {
    let mut metadata = Setting::metadata(world, None, &capture_namespace_name(world));
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = "privileged".into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

fn capture_namespace_name(world: &World) -> String {
    format!("ztc-capture-{}", world.world)
}

/// A pod that captures in the network of a node. It needs that network and one capability, `NET_RAW`, for a packet
/// socket; a capability reaches a process that is not root by no field of a pod, so it is root without any other.
///
/// # Panics
/// Never: the configuration of an agent has nothing that JSON cannot say.
pub(crate) fn capturing_pod(world: &World, setting: &Setting, slot: NodeSlot) -> Value {
    let namespace = capture_namespace_name(world);
    let name = format!("node-{slot}");
    let config = AgentConfig {
        name: format!("{namespace}/{name}"),
        socket: SOCKET.into(),
        resolv_conf: "/etc/resolv.conf".into(),
        serve: Vec::new(),
        tls: None,
        first: Vec::new(),
    };
    let config = config.to_json().expect("an agent's configuration has text keys");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": Setting::metadata(world, Some(&namespace), &name),
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": setting.nodes.get(&slot) },
            "tolerations": [{ "operator": "Exists" }],
            "hostNetwork": true,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsUser": 0, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": CONTAINER,
                "image": setting.image,
                "imagePullPolicy": setting.pull.policy(),
                "env": [{ "name": AGENT_ENV, "value": config }],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"], "add": ["NET_RAW"] },
                    "readOnlyRootFilesystem": true,
                },
                "volumeMounts": [{ "name": "run", "mountPath": SOCKET_DIR }],
            }],
            "volumes": [{ "name": "run", "emptyDir": { "medium": "Memory" } }],
        },
    })
}

fn ports(pod: &Pod) -> Vec<Value> {
    let all = pod.serves.iter().flat_map(|port| {
        port.speaks.protocols().iter().map(move |protocol| {
            let protocol = protocol.to_string();
            let mut container_port = json!({ "containerPort": port.port, "protocol": protocol });
            if let Some(name) = &port.name {
                container_port["name"] = name.as_str().into();
            }
            container_port
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let text = "\
world: small
about: One pod.
namespaces: [{ name: zt-pay, labels: { team: pay } }, { name: zt-node }, { name: kube-system }]
pods:
  - namespace: zt-pay
    name: ledger
    node: b
    labels: { app: ledger }
    serviceAccount: ledger
    serves: [{ speaks: http, port: 8080, name: http }, { speaks: dns, port: 5353 }]
    readiness: 8080
  - { namespace: zt-pay, name: late, node: a, born: in-a-case }
  - { namespace: zt-node, name: node, node: a, hostNetwork: true }
services:
  - { namespace: zt-pay, name: ledger, selector: { app: ledger }, ports: [{ port: 80, targetPort: 8080 }] }
";
        ztc_model::suite::world(&ztc_model::yaml::Source::new("small.yaml", text)).unwrap()
    }

    fn setting() -> Setting {
        Setting {
            image: "ztc.local/probe:1".to_owned(),
            pull: Pull::Never,
            nodes: BTreeMap::from([
                (NodeSlot::A, "one".to_owned()),
                (NodeSlot::B, "two".to_owned()),
            ]),
            authority: Arc::new(Authority::new([7; 32]).unwrap()),
        }
    }

    #[test]
    fn a_world_is_made_of_these_objects() {
        let mut objects = before_pods(&world());
        objects.extend(pods(&world(), &setting(), &Zone::default()).unwrap());
        let text = serde_json::to_string_pretty(&objects).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_pod_that_captures_has_its_nodes_network_and_one_capability() {
        let objects =
            [capture_namespace(&world()), capturing_pod(&world(), &setting(), NodeSlot::B)];
        let text = serde_json::to_string_pretty(&objects).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_namespace_that_is_born_in_a_case_is_not_made_with_the_world() {
        let text = "world: w\nabout: A newborn.\nnamespaces: [{ name: zt-new, born: in-a-case }]\n\
                    pods: [{ namespace: zt-new, name: late, node: a, born: in-a-case }]\n";
        let world = ztc_model::suite::world(&ztc_model::yaml::Source::new("w.yaml", text)).unwrap();
        assert_eq!(before_pods(&world), [] as [Value; 0]);
        assert_eq!(namespace(&world, &world.namespaces[0])["metadata"]["name"], "zt-new");
    }

    #[test]
    fn a_pod_says_who_asks_dns_for_it_where_the_world_does() {
        let text = "world: w\nabout: A mesh.\nnamespaces: [{ name: zt-m, labels: { istio.io/dataplane-mode: ambient } }]\n\
                    pods:\n- { namespace: zt-m, name: taken, node: a, dnsCapture: true }\n\
                    - { namespace: zt-m, name: own, node: a, dnsCapture: false }\n\
                    - { namespace: zt-m, name: silent, node: a }\n";
        let world = ztc_model::suite::world(&ztc_model::yaml::Source::new("w.yaml", text)).unwrap();
        let pods = pods(&world, &setting(), &Zone::default()).unwrap();
        let said = pods.iter().map(|pod| pod["metadata"]["annotations"][DNS_CAPTURE].as_str());
        assert_eq!(said.collect::<Vec<_>>(), [Some("true"), Some("false"), None]);
    }

    #[test]
    fn a_namespace_that_every_cluster_has_is_not_made() {
        let objects = before_pods(&world());
        assert!(objects.iter().all(|it| it["metadata"]["name"] != "kube-system"));
        assert_eq!(world().own_namespaces().collect::<Vec<_>>(), ["zt-pay", "zt-node"]);
    }
}
