//! `repro.sh`: what is particular to a cell, as functions, and then the order of things, which all cells share.

use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::outcome::{EnforcementPoint, Expected, Form};
use ztc_model::policy::Policy;
use ztc_model::stimulus::{Peer, Send, Target};
use ztc_model::suite::{Cell, Origin};
use ztc_model::world::{Called, PodRef};

use super::scene::Scene;
use super::stimulus::{function, variable};
use super::{Question, line};

const COMMON: &str = include_str!("common.sh");
const DENIED: &str = include_str!("denied.sh");
const ALLOWED: &str = include_str!("allowed.sh");

/// The text of the script.
pub(super) fn script(question: &Question<'_>, cell: &Cell, scene: &Scene<'_>) -> String {
    let Question { case, number, .. } = question;
    let mut parts = vec![format!(
        "#!/usr/bin/env bash\n# {}, cell {number}:\n# {}\n#\n# Ends with 0 when that is shown and with 1 when it is \
         not. README.md says what it needs.\n# With KEEP=1 everything stays for a look around.\nset -euo pipefail\ncd \
         \"$(dirname \"${{BASH_SOURCE[0]}}\")\"\n",
        case.id,
        line(cell)
    )];
    let given = scene.hosts.iter().filter(|host| host.address.is_none());
    let given = given.map(|host| {
        let variable = variable(&host.name);
        format!(": \"${{{variable}:?the address of a host outside the cluster; README.md says what it serves}}\"\n")
    });
    let given: Vec<String> = given.collect();
    if !given.is_empty() {
        parts.push(given.concat());
    }
    parts.push(COMMON.to_owned());
    if let Origin::Pod(PodRef { namespace, name }) = &cell.from {
        parts.push(format!(
            "# Runs a command where the stimulus comes from.\nclient() {{ kubectl -n {namespace} exec {name} -- \"$@\" \
             2>/dev/null; }}\n"
        ));
    }
    parts.push(function("send", &cell.send, scene));
    parts.push(before(cell, scene));
    parts.push(enforced(question));
    parts.push(evidence(cell, scene));
    parts.push(match &cell.expected {
        Expected::Denied { policy, behind, .. } => {
            format!(
                "{}\n{DENIED}",
                without(&std::iter::once(policy).chain(behind).collect::<Vec<_>>())
            )
        }
        // Streams and tunnels are refused before.
        Expected::Allowed { .. }
        | Expected::Throughout
        | Expected::Interrupted { .. }
        | Expected::Refused { .. } => ALLOWED.to_owned(),
    });
    parts.join("\n")
}

/// What has to get through first, under the policies.
fn before(cell: &Cell, scene: &Scene<'_>) -> String {
    match &cell.after {
        None => "# Nothing has to get through first.\nfirst() { :; }\n".to_owned(),
        Some(send) => format!(
            "{}first() {{\n  within 60 send_first || not_shown 'what has to get through first does not'\n}}\n",
            function("send_first", send, scene)
        ),
    }
}

/// A wait until the policies are enforced.
fn enforced(question: &Question<'_>) -> String {
    let apply = &question.case.apply;
    let is_istios = |object: &ObjectRef| object.api_version.contains("istio.io");
    let mesh = apply.iter().any(|it| is_istios(&it.reference));
    let is_ciliums = |it: &&Manifest| {
        let unenforced = it.invalid.is_some() || matches!(it.policy, Policy::Unenforced(_));
        !is_istios(&it.reference) && !unenforced
    };
    let ciliums = apply.iter().filter(is_ciliums);
    let mut lines = Vec::new();
    for manifest in ciliums {
        let ObjectRef { kind, namespace, name, .. } = &manifest.reference;
        let namespace = namespace.as_ref().map(|it| format!("-n {it} ")).unwrap_or_default();
        let uid = format!(
            "  uid=$(kubectl {namespace}get {kind} {name} -o jsonpath='{{.metadata.uid}}')\n"
        );
        lines.push(format!(
            "{uid}  for agent in $(agents); do\n    within 60 has_policy \"$agent\" \"$uid\" || not_shown \"$agent has no \
             {kind} {name}\"\n  done\n"
        ));
    }
    if !lines.is_empty() {
        lines.insert(0, "  local agent uid revision\n".to_owned());
        lines.push(
            "  # Every endpoint of an agent has to enforce what is in the agent's repository.\n  for agent in \
             $(agents); do\n    revision=$(in_agent \"$agent\" cilium-dbg policy get | sed -n 's/^Revision: //p')\n    \
             in_agent \"$agent\" cilium-dbg policy wait \"$revision\" --max-wait-time 120 >/dev/null ||\n      not_shown \
             \"$agent does not enforce revision $revision\"\n  done\n"
                .to_owned(),
        );
    }
    if mesh {
        lines.push(
            "  # No command says what ztunnels and waypoints enforce; they take well under a second as a rule.\n  \
             sleep 10\n"
                .to_owned(),
        );
    }
    if lines.is_empty() {
        lines.push(
            "  # Cilium takes none of these policies, so there is nothing to wait for but that it has seen them.\n  \
             sleep 10\n"
                .to_owned(),
        );
    }
    format!("# Waits until the policies are enforced.\nenforced() {{\n{}}}\n", lines.concat())
}

/// The records of who should have stopped the flow; it ends well when there are some.
fn evidence(cell: &Cell, scene: &Scene<'_>) -> String {
    let (by, form) = match &cell.expected {
        Expected::Denied { by, form, .. } => (*by, *form),
        Expected::Allowed { .. }
        | Expected::Throughout
        | Expected::Interrupted { .. }
        | Expected::Refused { .. } => (Some(EnforcementPoint::Cilium), None),
    };
    let body = match by {
        None => "  # The case leaves open who stops it.\n  return 0\n".to_owned(),
        Some(EnforcementPoint::Cilium) => hubble(&filter(cell, scene, true)),
        Some(EnforcementPoint::DnsProxy) => {
            format!(
                "  [[ $status == REFUSED ]] || return 1\n{}",
                hubble(&filter(cell, scene, false))
            )
        }
        Some(EnforcementPoint::Waypoint) => waypoint(form, scene, &cell.send),
        Some(EnforcementPoint::Ztunnel) => ztunnel(scene, &cell.send),
    };
    format!("evidence() {{\n{body}}}\n")
}

fn hubble(filter: &str) -> String {
    format!(
        "  local agent records found=1\n  for agent in $(agents); do\n    records=$(in_agent \"$agent\" hubble observe \
         --since 2m --last 5 --verdict DROPPED{filter}) || true\n    if [[ -n $records ]]; then\n      found=0\n      \
         printf '%s:\\n%s\\n' \"$agent\" \"$records\"\n    fi\n  done\n  return \"$found\"\n"
    )
}

/// What tells the flow from others. Hubble knows no pod by the name of its node.
fn filter(cell: &Cell, scene: &Scene<'_>, with_port: bool) -> String {
    let to_pod = |pod: &PodRef| format!(" --to-pod {pod}");
    let mut filter = match &cell.from {
        Origin::Kubelet => String::new(),
        Origin::Pod(pod) if scene.pod(pod).is_some_and(|it| it.host_network) => String::new(),
        Origin::Pod(pod) => format!(" --from-pod {pod}"),
    };
    match (&cell.send, cell.send.peer()) {
        (Send::Readiness(pod), _) => filter.push_str(&to_pod(pod)),
        (_, Some(Peer::Pod(pod))) if scene.pod(pod).is_some_and(|it| !it.host_network) => {
            filter.push_str(&to_pod(pod));
        }
        _ => {}
    }
    let port = match &cell.send {
        Send::Tcp(to) | Send::Udp(to) | Send::Http { to, .. } => Some(backend_port(scene, to)),
        Send::Dns { .. } => Some(53),
        _ => None,
    };
    if let Some(port) = port.filter(|_| with_port) {
        filter.push_str(" --to-port ");
        filter.push_str(&port.to_string());
    }
    filter
}

/// A service's port is translated before policies are asked.
fn backend_port(scene: &Scene<'_>, to: &Target) -> u16 {
    let Peer::Name(name) = &to.peer else { return to.port };
    let Some(Called::Service(service)) = scene.world.called(name) else { return to.port };
    let port = service.ports.iter().find(|it| it.port == to.port);
    port.and_then(|it| it.target_port).unwrap_or(to.port)
}

/// The pods that a stimulus may end at.
fn ends<'a>(scene: &Scene<'a>, send: &Send) -> Vec<&'a str> {
    let pods = match send.peer() {
        Some(Peer::Pod(pod)) => scene.pod(pod).into_iter().collect(),
        Some(Peer::Name(name)) => match scene.world.called(name) {
            Some(Called::Service(service)) => scene.world.backends(service).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    pods.iter().map(|pod| pod.name.as_str()).collect()
}

fn ztunnel(scene: &Scene<'_>, send: &Send) -> String {
    let ends = ends(scene, send).join("|");
    format!(
        "  kubectl -n istio-system logs -l app=ztunnel --since=2m --tail=-1 --prefix |\n    grep -E \
         'policy rejection|401 Unauthorized' |\n    grep -E 'dst[.]workload\"?[=:]\"({ends})\"' | tail -n 5\n"
    )
}

/// A waypoint answers; its access log is there only where the mesh asks for one.
fn waypoint(form: Option<Form>, scene: &Scene<'_>, send: &Send) -> String {
    let logs = scene.waypoints.iter().map(|it| {
        format!(
            "  kubectl -n {} logs deployment/{} --since=2m --tail=-1 | grep -E 'rbac|jwt' | tail -n 5 || true\n",
            it.namespace, it.name
        )
    });
    let logs: Vec<String> = logs.collect();
    let answered = match (send, form) {
        (Send::Http { .. }, Some(Form::TokenRefused)) => "  [[ $status == 40[13] ]]\n",
        (Send::Http { .. }, _) => "  [[ $status == 403 ]]\n",
        _ => "  return 0\n",
    };
    format!("{}{answered}", logs.concat())
}

/// The removal of what is said to deny, and of nothing else.
fn without(policies: &[&ObjectRef]) -> String {
    let deletions = policies.iter().map(|ObjectRef { kind, namespace, name, .. }| {
        let namespace = namespace.as_ref().map(|it| format!("-n {it} ")).unwrap_or_default();
        format!("kubectl {namespace}delete {kind} {name}")
    });
    format!("without() {{ {}; }}\n", deletions.collect::<Vec<_>>().join(" && "))
}
