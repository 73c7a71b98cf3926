//! What a world may not say.

use std::collections::{BTreeMap, BTreeSet};

use crate::lane::is_a_copys_name;
use crate::policy::Protocol;
use crate::suite::check::{in_text, outside_names, serves};
use crate::world::{Born, NodeSlot, Pod, PodRef, Speaks, Token, World};
use crate::yaml::{Diagnostic, Source};

/// The ports of a node that a pod in its network may serve on: below them are those of root, from
/// 10000 on those that agents send from and those of node ports.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 1024..=9999;

/// Ports of a node on which its own daemons listen: etcd, the API server, Cilium's agent, operator
/// and Envoy with their health and metrics (`Documentation/operations/system_requirements.rst` of
/// Cilium).
const DAEMON_PORTS: [u16; 18] = [
    2379, 2380, 2381, 4240, 4244, 4245, 4250, 4251, 6060, 6061, 6062, 6443, 9234, 9878, 9879, 9890,
    9891, 9901,
];

/// The longest token, in bytes: twice what a waypoint takes of a whole head (`max_request_headers_kb` of Envoy), and half of
/// what an agent takes of an order.
const LONGEST_TOKEN: usize = 128 * 1024;

/// Whether a world can be made.
///
/// # Errors
/// A diagnostic at what cannot.
pub(super) fn world(source: &Source, world: &World) -> Result<(), Box<Diagnostic>> {
    host_network(source, world)?;
    if let Some(it) = world.namespaces.iter().find(|it| is_a_copys_name(&it.name)) {
        let message = format!("`{}` is the name of a copy in a lane", it.name);
        return Err(in_text(source, 1, &it.name, message));
    }
    let mut seen = BTreeSet::new();
    for pod in &world.pods {
        let reference = pod.reference();
        if world.namespace(&pod.namespace).is_none() {
            return Err(in_text(
                source,
                1,
                &pod.namespace,
                format!(
                    "pod {reference} is in namespace `{}`, which the world does not list",
                    pod.namespace
                ),
            ));
        }
        if !seen.insert(reference.clone()) {
            return Err(in_text(source, 1, &pod.name, format!("pod {reference} is listed twice")));
        }
        if pod.dns_capture.is_some() && !world.is_ambient(pod) {
            let message = format!("{reference} is not in the mesh: nobody takes its queries");
            return Err(in_text(source, 1, &pod.name, message));
        }
        if let Some(port) = pod.readiness
            && !serves(&pod.serves, port, &[Speaks::Http])
        {
            return Err(in_text(
                source,
                1,
                &pod.name,
                format!(
                    "the readiness probe of {reference} asks port {port}, which serves no http"
                ),
            ));
        }
    }
    newborn_namespaces(source, world)?;
    outside_names(source, world)?;
    tokens(source, world)?;
    for waypoint in &world.waypoints {
        if world.namespace(&waypoint.namespace).is_none() {
            let message = format!(
                "waypoint {} is in namespace `{}`, which the world does not list",
                waypoint.name, waypoint.namespace
            );
            return Err(in_text(source, 1, &waypoint.namespace, message));
        }
    }
    for service in &world.services {
        if world.backends(service).next().is_none() {
            return Err(in_text(
                source,
                1,
                &service.name,
                format!("service {}/{} selects no pod", service.namespace, service.name),
            ));
        }
    }
    Ok(())
}

/// A namespace that is born in a case has nothing in it but pods that are, and whatever Kubernetes gives it.
fn newborn_namespaces(source: &Source, world: &World) -> Result<(), Box<Diagnostic>> {
    let newborn = |name: &str| world.namespace(name).is_some_and(|it| it.born == Born::InACase);
    let own: BTreeSet<&str> = world.own_namespaces().collect();
    for namespace in world.namespaces.iter().filter(|it| it.born == Born::InACase) {
        let name = &namespace.name;
        let wrong = |message: String| Err(in_text(source, 1, name, message));
        if !own.contains(name.as_str()) {
            return wrong(format!("every cluster has `{name}`: no case can make it"));
        }
        let mut pods = world.pods.iter().filter(|it| it.namespace == *name).peekable();
        if pods.peek().is_none() {
            return wrong(format!("`{name}` is born with the pods in it, and has none"));
        }
        if let Some(pod) =
            pods.find(|it| it.born != Born::InACase || it.service_account != "default")
        {
            return wrong(format!(
                "{} is not born in a case with the default account, as `{name}` is",
                pod.reference()
            ));
        }
    }
    let services = world.services.iter().map(|it| &it.namespace);
    let waypoints = world.waypoints.iter().map(|it| &it.namespace);
    match services.chain(waypoints).find(|it| newborn(it)) {
        Some(name) => {
            let message = format!("`{name}` is born in a case: services and waypoints come before");
            Err(in_text(source, 1, name, message))
        }
        None => Ok(()),
    }
}

/// A token has a name of its own, and is one word of a header.
fn tokens(source: &Source, world: &World) -> Result<(), Box<Diagnostic>> {
    let mut seen = BTreeSet::new();
    for Token { name, text, .. } in &world.tokens {
        if !seen.insert(name) {
            return Err(in_text(source, 1, name, format!("the token `{name}` is there twice")));
        }
        if text.is_empty() || !text.chars().all(|it| it.is_ascii_graphic()) {
            let message = format!("the text of token `{name}` is not one word of ASCII");
            return Err(in_text(source, 1, name, message));
        }
        if text.len() > LONGEST_TOKEN {
            let message = format!(
                "the text of token `{name}` has {} bytes; at most {LONGEST_TOKEN} are sent",
                text.len()
            );
            return Err(in_text(source, 1, name, message));
        }
    }
    Ok(())
}

/// Pods in their nodes' networks share the ports of a node, with each other and with its daemons.
fn host_network(source: &Source, world: &World) -> Result<(), Box<Diagnostic>> {
    let mut taken: BTreeMap<(NodeSlot, u16, Protocol), PodRef> = BTreeMap::new();
    for pod in world.pods.iter().filter(|pod| pod.host_network) {
        let wrong = |message| Err(in_text(source, 1, &pod.name, message));
        for served in &pod.serves {
            let (reference, port) = (pod.reference(), served.port);
            if !NODE_PORTS.contains(&port) || DAEMON_PORTS.contains(&port) {
                return wrong(format!(
                    "{reference} is in its node's network, where port {port} is not free: serve on \
                     one from {} to {} that no daemon of a node has",
                    NODE_PORTS.start(),
                    NODE_PORTS.end()
                ));
            }
            for protocol in served.speaks.protocols() {
                let key = (pod.node, port, *protocol);
                if let Some(other) = taken.insert(key, reference.clone()) {
                    return wrong(format!(
                        "{reference} and {other} serve port {port} in the network of the same node"
                    ));
                }
            }
        }
        if let Some(service) = world.services.iter().find(|service| is_behind(world, service, pod))
        {
            return wrong(format!(
                "{} is in its node's network and behind service {}/{}: no fabric is sure to \
                 translate that",
                pod.reference(),
                service.namespace,
                service.name
            ));
        }
    }
    Ok(())
}

fn is_behind(world: &World, service: &crate::world::KubeService, pod: &Pod) -> bool {
    world.backends(service).any(|it| it.reference() == pod.reference())
}
