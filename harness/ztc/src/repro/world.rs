//! `world.yaml`: plain pods of one public image, forced onto two nodes.

use std::collections::BTreeMap;

use serde_json::json;
use ztc_model::world::{
    DNS_CAPTURE, KubeService, NodeSlot, Pod, ServedPort, ServiceProtocol, Speaks, Waypoint, World,
};
use ztc_model::ztunnel::HBONE_PORT;

use super::scene::Scene;

/// The label by which pods find the node of their like. It is no label that policies are about.
const NODE: &str = "ztc.dev/repro-node";

/// The text of the file.
pub(super) fn world(scene: &Scene<'_>, image: &str) -> String {
    let Scene { namespaces, pods, services, waypoints, .. } = scene;
    let accounts = pods.iter().map(|pod| (&pod.namespace, &pod.service_account));
    let accounts = accounts.filter(|(_, name)| *name != "default").map(|(namespace, name)| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: {name}, namespace: {namespace} }}\n"
        )
    });
    let mut accounts: Vec<String> = accounts.collect();
    accounts.dedup();
    let documents: Vec<String> = namespaces
        .iter()
        .map(|name| namespace(scene.world, name))
        .chain(accounts)
        .chain(services.iter().map(|it| service(scene.world, it)))
        .chain(waypoints.iter().map(|it| waypoint(it)))
        .chain(pods.iter().map(|it| pod(it, image, scene.over_ipv6)))
        .collect();
    documents.join("---\n")
}

/// A mapping in one line; JSON is YAML.
fn inline(labels: &BTreeMap<String, String>) -> String {
    json!(labels).to_string()
}

fn namespace(world: &World, name: &str) -> String {
    let mut labels = world.namespace(name).map(|it| it.labels.clone()).unwrap_or_default();
    // The pods run as root, and one in its node's network is more than the baseline profile allows.
    labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {}\n",
        inline(&labels)
    )
}

fn service(world: &World, service: &KubeService) -> String {
    let KubeService { namespace, name, labels, selector, ports } = service;
    let ports: Vec<String> = ports
        .iter()
        .map(|port| {
            let protocol = match port.protocol {
                ServiceProtocol::Tcp => "TCP",
                ServiceProtocol::Udp => "UDP",
            };
            let target = port.target_port.unwrap_or(port.port);
            let http = if world.speaks_http(service, port) { ", appProtocol: http" } else { "" };
            format!(
                "  - {{ name: {}-{}, port: {}, targetPort: {target}, protocol: {protocol}{http} }}\n",
                protocol.to_lowercase(),
                port.port,
                port.port
            )
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {}\nspec:\n  \
         selector: {}\n  ipFamilyPolicy: PreferDualStack\n  ports:\n{}",
        inline(labels),
        inline(selector),
        ports.concat()
    )
}

fn waypoint(waypoint: &Waypoint) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: {}\n  namespace: {}\n  labels: {{ \
         istio.io/waypoint-for: {} }}\nspec:\n  gatewayClassName: istio-waypoint\n  listeners: [{{ name: mesh, port: \
         {HBONE_PORT}, protocol: HBONE }}]\n",
        waypoint.name,
        waypoint.namespace,
        waypoint.serves.label()
    )
}

fn pod(pod: &Pod, image: &str, over_ipv6: bool) -> String {
    let (slot, other) = match pod.node {
        NodeSlot::A => ("a", "b"),
        NodeSlot::B => ("b", "a"),
    };
    let mut labels = pod.labels.clone();
    labels.insert(NODE.to_owned(), slot.to_owned());
    let near = |slot| {
        format!(
            "      requiredDuringSchedulingIgnoredDuringExecution:\n      - topologyKey: kubernetes.io/hostname\n        \
             namespaceSelector: {{}}\n        labelSelector: {{ matchLabels: {{ {NODE}: {slot} }} }}\n"
        )
    };
    let mut text = vec![format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  labels: {}\n{}spec:\n  # Pods of one letter are \
         on one node, those of the other letter on another.\n  affinity:\n    podAffinity:\n{}    podAntiAffinity:\n{}",
        pod.name,
        pod.namespace,
        inline(&labels),
        annotations(pod),
        near(slot),
        near(other)
    )];
    text.push("  tolerations: [{ operator: Exists }]\n".to_owned());
    if pod.host_network {
        text.push("  hostNetwork: true\n".to_owned());
    }
    let account = &pod.service_account;
    text.push(format!(
        "  serviceAccountName: {account}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    \
         image: {image}\n"
    ));
    if let Some(port) = pod.readiness {
        text.push(format!(
            "    readinessProbe:\n      httpGet: {{ path: /, port: {port} }}\n      periodSeconds: 1\n      \
             failureThreshold: 1\n"
        ));
    }
    text.push(ports(&pod.serves));
    text.push("    command: [sh, -c]\n    args:\n    - |\n".to_owned());
    for line in servers(pod, over_ipv6) {
        text.push(format!("      {line}\n"));
    }
    text.concat()
}

fn annotations(pod: &Pod) -> String {
    let captured = pod.dns_capture;
    captured
        .map_or_else(String::new, |it| format!("  annotations: {{ {DNS_CAPTURE}: \"{it}\" }}\n"))
}

/// The ports that policies may name; they open nothing.
fn ports(serves: &[ServedPort]) -> String {
    let named = serves.iter().filter_map(|it| Some((it, it.name.as_ref()?)));
    let lines: Vec<String> = named
        .map(|(port, name)| {
            let protocol = if port.speaks == Speaks::Udp { "UDP" } else { "TCP" };
            format!(
                "    - {{ name: {name}, containerPort: {}, protocol: {protocol} }}\n",
                port.port
            )
        })
        .collect();
    if lines.is_empty() { String::new() } else { format!("    ports:\n{}", lines.concat()) }
}

/// What the pod runs: servers that answer with the pod's name.
fn servers(pod: &Pod, over_ipv6: bool) -> Vec<String> {
    let (v, both) = if over_ipv6 { ("6", ",ipv6only=0") } else { ("", "") };
    let name = pod.reference().to_string();
    let length = name.len() + 1;
    let mut lines = vec![
        "# TCP and UDP: a line is answered with the name of the pod.".to_owned(),
        format!("echo 'read -r line; echo {name}' >/tmp/line"),
    ];
    if pod.serves.iter().any(|it| it.speaks == Speaks::Http) {
        lines.extend([
            "# HTTP: the request is read to its empty line, and any is answered with 200.".to_owned(),
            "cat >/tmp/http <<'END'".to_owned(),
            "while read -r line && [ \"${#line}\" -gt 1 ]; do :; done".to_owned(),
            format!(
                "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: {length}\\r\\nConnection: close\\r\\n\\r\\n{name}\\n'"
            ),
            "END".to_owned(),
        ]);
    }
    for ServedPort { speaks, port, .. } in &pod.serves {
        let server = match speaks {
            Speaks::Tcp => format!("TCP{v}-LISTEN:{port}{both},fork,reuseaddr EXEC:'sh /tmp/line'"),
            Speaks::Udp => format!("UDP{v}-RECVFROM:{port}{both},fork EXEC:'sh /tmp/line'"),
            Speaks::Http => {
                format!("TCP{v}-LISTEN:{port}{both},fork,reuseaddr EXEC:'sh /tmp/http'")
            }
            // No stimulus of a scene asks these.
            Speaks::Dns | Speaks::Https | Speaks::Tls => continue,
        };
        lines.push(format!("socat {server} &"));
    }
    lines.push("sleep infinity".to_owned());
    lines
}
