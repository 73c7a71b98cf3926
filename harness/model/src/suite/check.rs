//! What a suite or a world may not say, each with the place where it says it.

use std::collections::BTreeSet;

use crate::manifest::{Manifest, ObjectRef};
use crate::outcome::EnforcementPoint;
use crate::policy::Policy;
use crate::stimulus::{Peer, Send, Target};
use crate::suite::file::{ExpectationFile, Is, OneOrMany};
use crate::suite::{Cell, Feature, Origin, tunnels};
use crate::world::{Born, Called, OutsideHost, PodRef, ServedPort, Speaks, World};
use crate::yaml::{Diagnostic, Source, Spanned};
use ztc_wire::Family;

type Checked<T = ()> = Result<T, Box<Diagnostic>>;

/// The port of DNS servers.
const DNS_PORT: u16 = 53;

/// A name has one host, or nobody could say who answers; an alias stands for a name of its host.
pub(super) fn outside_names(source: &Source, world: &World) -> Checked {
    let mut seen = BTreeSet::new();
    for host in &world.outside {
        if let (Some(alias), true) = (host.aliases.first(), host.dns.is_empty()) {
            let message =
                format!("`{alias}` is an alias of nothing: outside/{} has no `dns`", host.name);
            return Err(in_text(source, 1, alias, message));
        }
        for name in host.dns.iter().chain(&host.aliases) {
            if !seen.insert(name) {
                return Err(in_text(source, 1, name, format!("the name `{name}` is given twice")));
            }
        }
    }
    Ok(())
}

/// A diagnostic at the first place from a line on that holds a word, which is what is wrong.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "diagnostics are boxed wherever they are returned"
)]
pub(super) fn in_text(
    source: &Source,
    from: usize,
    word: &str,
    message: String,
) -> Box<Diagnostic> {
    let (line, column) = source
        .text
        .lines()
        .enumerate()
        .skip(from.saturating_sub(1))
        .find_map(|(line, text)| {
            text.split_once(word).map(|(before, _)| (line + 1, before.chars().count() + 1))
        })
        .unwrap_or((1, 1));
    Diagnostic::new(source, (line, column), word.chars().count(), message, None)
}

pub(super) fn case_name(source: &Source, name: &Spanned<String>) -> Checked {
    let text = &name.value;
    let fits = !text.is_empty()
        && text.split('-').all(|word| {
            !word.is_empty()
                && word.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
        });
    if fits {
        Ok(())
    } else {
        Err(source.diagnostic_at(
            name,
            format!("`{text}` is no name of a case"),
            Some("write a statement in lower case, its words joined by `-`"),
        ))
    }
}

/// A namespaced policy has to be in a namespace of the world: elsewhere it would act on strangers.
pub(super) fn manifest(
    source: &Source,
    world: &World,
    needs: &BTreeSet<Feature>,
    manifest: &Manifest,
) -> Checked {
    let kind = manifest.reference.kind.as_str();
    let needed = match &manifest.policy {
        policy if policy.reads_handshakes() => Some((Feature::TlsServerNames, "serverNames")),
        Policy::Unenforced(_) => Some((Feature::AdminNetworkPolicy, kind)),
        Policy::Mode(_) => Some((Feature::EnforcementMode, kind)),
        _ => None,
    };
    if let Some((feature, place)) = needed.filter(|(feature, _)| !needs.contains(feature)) {
        let message = format!("the suite does not say that it needs {feature}");
        return Err(in_text(source, manifest.line, place, message));
    }
    match &manifest.reference.namespace {
        // It is in a namespace of the cluster's, not of the world.
        Some(_) if matches!(manifest.policy, Policy::Mode(_)) => Ok(()),
        Some(namespace) if world.namespace(namespace).is_none() => {
            let message = format!(
                "{} is in namespace `{namespace}`, which the world does not have",
                manifest.reference
            );
            Err(in_text(source, manifest.line, namespace, message))
        }
        Some(namespace)
            if world.namespace(namespace).is_some_and(|it| it.born == Born::InACase) =>
        {
            let message = format!("`{namespace}` is born in a case, after the policies");
            Err(in_text(source, manifest.line, namespace, message))
        }
        _ => Ok(()),
    }
}

pub(super) fn pod<T>(
    source: &Source,
    world: &World,
    at: &Spanned<T>,
    text: &str,
) -> Checked<PodRef> {
    let wrong = |message: String| {
        let known: Vec<String> = world.pods.iter().map(|pod| pod.reference().to_string()).collect();
        source.diagnostic_at(at, message, Some(&format!("the world has: {}", known.join(", "))))
    };
    let reference: PodRef = text.parse().map_err(|error| wrong(format!("{error}")))?;
    match world.pod(&reference) {
        Some(_) => Ok(reference),
        None => Err(wrong(format!("unknown pod `{reference}`"))),
    }
}

pub(super) fn created_pod(
    source: &Source,
    world: &World,
    text: &Spanned<String>,
) -> Checked<PodRef> {
    let reference = pod(source, world, text, &text.value)?;
    match world.pod(&reference).map(|pod| pod.born) {
        Some(Born::InACase) => Ok(reference),
        _ => Err(source.diagnostic_at(
            text,
            format!("{reference} exists before any case"),
            Some("only pods with `born: in-a-case` in the world can be created by a case"),
        )),
    }
}

pub(super) fn twin_reference(
    source: &Source,
    world: &World,
    twin: &Spanned<String>,
    create: &[PodRef],
) -> Checked<PodRef> {
    let reference = pod(source, world, twin, &twin.value)?;
    exists_in_case(world, create, &reference)
        .map_err(|message| source.diagnostic_at(twin, message, None))?;
    Ok(reference)
}

fn exists_in_case(world: &World, create: &[PodRef], pod: &PodRef) -> Result<(), String> {
    let born = world.pod(pod).map(|pod| pod.born);
    if born == Some(Born::InACase) && !create.contains(pod) {
        Err(format!("{pod} exists only in cases that list it under `create`"))
    } else {
        Ok(())
    }
}

/// Whether anybody listens where the stimulus goes. A denial of what nobody serves proves nothing.
pub(super) fn reachable<T>(
    source: &Source,
    (file, at): (&ExpectationFile, &Spanned<T>),
    world: &World,
    create: &[PodRef],
    from: &Origin,
    send: &Send,
) -> Checked {
    let wrong = |message: String| Err(source.diagnostic_at(at, message, None));
    if let Origin::Pod(pod) = from
        && let Err(message) = exists_in_case(world, create, pod)
    {
        return Err(source.diagnostic_at(&file.from, message, None));
    }
    if let Origin::Pod(pod) = from
        && world.pod(pod).is_some_and(|it| it.host_network)
        && asks_cluster_dns(send)
    {
        return wrong(format!("{pod} is in its node's network, and does not ask cluster DNS"));
    }
    match (from, send) {
        (Origin::Kubelet, Send::Readiness(pod)) => match world.pod(pod) {
            None => wrong(format!("unknown pod `{pod}`")),
            Some(it) if it.readiness.is_none() => {
                wrong(format!("{pod} has no readiness probe in the world"))
            }
            Some(_) => Ok(()),
        },
        (Origin::Kubelet, _) => wrong("kubelet sends readiness probes only".to_owned()),
        (Origin::Pod(_), Send::Readiness(_)) => {
            wrong("readiness probes come `from: kubelet`".to_owned())
        }
        (Origin::Pod(_), Send::Tcp(to) | Send::TcpFlow(to)) => {
            listens(world, to, &[Speaks::Tcp]).or_else(wrong)
        }
        (Origin::Pod(_), Send::Udp(to) | Send::UdpFlow(to)) => {
            listens(world, to, &[Speaks::Udp]).or_else(wrong)
        }
        (Origin::Pod(_), Send::Ping(to)) => echoes(world, &to.peer).or_else(wrong),
        (Origin::Pod(_), Send::Tls(to)) => {
            certifies(to).and_then(|()| listens(world, to, &[Speaks::Tls])).or_else(wrong)
        }
        (Origin::Pod(_), Send::Http { tls, to, token, .. }) => {
            let speaks = if *tls { Speaks::Https } else { Speaks::Http };
            let listening = listens(world, to, &[speaks]);
            listening.and_then(|()| has_token(world, token.as_deref())).or_else(wrong)
        }
        (Origin::Pod(pod), Send::Hbone(tunnel)) => tunnels::can_be_opened(world, pod, tunnel)
            .and_then(|()| match file.is {
                // Where nothing gets through nobody has to listen; what is beside it has to.
                Is::Refused => Ok(()),
                _ => tunnels::leads_to_its_end(tunnel)
                    .and_then(|()| listens(world, &tunnel.to, &[Speaks::Tcp])),
            })
            .or_else(wrong),
        (Origin::Pod(_), Send::Dns { server: None, .. }) => Ok(()),
        (Origin::Pod(_), Send::Dns { server: Some(server), .. }) => {
            let to = Target { peer: server.clone(), port: DNS_PORT, family: None };
            listens(world, &to, &[Speaks::Dns]).or_else(wrong)
        }
    }
}

/// Whether it begins at the pod's own resolver, which for a pod in its node's network is the node's
/// (`dnsPolicy: ClusterFirst` falls back to `Default` there).
fn asks_cluster_dns(send: &Send) -> bool {
    matches!(send, Send::Dns { server: None, .. }) || matches!(send.peer(), Some(Peer::Name(_)))
}

pub(super) fn serves(ports: &[ServedPort], port: u16, speaks: &[Speaks]) -> bool {
    ports.iter().any(|it| it.port == port && speaks.contains(&it.speaks))
}

/// Whether there can be a certificate for the target: a pod has its address only when it runs.
fn certifies(to: &Target) -> Result<(), String> {
    match &to.peer {
        Peer::Pod(pod) => Err(format!(
            "no certificate is for the address of {pod}: write the name of its service"
        )),
        Peer::Outside(_) | Peer::Address(_) | Peer::Name(_) => Ok(()),
    }
}

fn listens(world: &World, to: &Target, speaks: &[Speaks]) -> Result<(), String> {
    let found = match &to.peer {
        Peer::Pod(reference) => match world.pod(reference) {
            None => return Err(format!("unknown pod `{reference}`")),
            Some(pod) => serves(&pod.serves, to.port, speaks),
        },
        Peer::Outside(name) => match world.outside(name) {
            None => return Err(format!("unknown outside host `{name}`")),
            Some(host) => serves(&host.serves, to.port, speaks),
        },
        Peer::Address(address) => world
            .outside
            .iter()
            .any(|host| host.has(*address) && serves(&host.serves, to.port, speaks)),
        Peer::Name(name) => match world.called(name) {
            None => return Err(format!("no service and no outside host is called `{name}`")),
            Some(Called::Host(host)) => serves(&host.serves, to.port, speaks),
            Some(Called::Service(service)) => {
                let mut ports = service.ports.iter().filter(|it| it.port == to.port);
                ports.any(|it| {
                    let target = it.target_port.unwrap_or(it.port);
                    world.backends(service).any(|pod| serves(&pod.serves, target, speaks))
                })
            }
        },
    };
    if found {
        Ok(())
    } else {
        Err(format!("nobody serves this at {to}: its control could never pass"))
    }
}

fn has_token(world: &World, name: Option<&str>) -> Result<(), String> {
    match name {
        Some(name) if !world.tokens.iter().any(|it| it.name == name) => {
            let known: Vec<&str> = world.tokens.iter().map(|it| it.name.as_str()).collect();
            Err(format!("unknown token `{name}`; the world has: {}", known.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Every kernel answers an echo request, so it is enough that there is one.
fn echoes(world: &World, peer: &Peer) -> Result<(), String> {
    match peer {
        Peer::Pod(reference) if world.pod(reference).is_none() => {
            Err(format!("unknown pod `{reference}`"))
        }
        Peer::Outside(name) if world.outside(name).is_none() => {
            Err(format!("unknown outside host `{name}`"))
        }
        Peer::Address(address) if !world.outside.iter().any(|it| it.has(*address)) => {
            Err(format!("nobody in the world has {address}: its control could never pass"))
        }
        Peer::Name(name) => Err(format!("an echo request goes to an address, not to `{name}`")),
        Peer::Pod(_) | Peer::Outside(_) | Peer::Address(_) => Ok(()),
    }
}

/// The names that may answer a stimulus; empty when the world cannot tell.
pub fn peers(world: &World, send: &Send) -> BTreeSet<String> {
    // A DNS answer names its server only where the server supports NSID, and a kernel that echoes
    // says no name at all.
    let says_no_name = matches!(send, Send::Dns { .. } | Send::Ping(_));
    let Some(peer) = send.peer().filter(|_| !says_no_name) else {
        return BTreeSet::new();
    };
    if let Send::Hbone(tunnel) = send {
        // Whomever it is asked for, nobody else is behind it.
        return BTreeSet::from([tunnel.through.to_string()]);
    }
    let outside = |host: &OutsideHost| Peer::Outside(host.name.clone()).to_string();
    match peer {
        Peer::Pod(pod) => BTreeSet::from([pod.to_string()]),
        Peer::Outside(_) => BTreeSet::from([peer.to_string()]),
        Peer::Address(address) => {
            world.outside.iter().filter(|it| it.has(*address)).map(outside).collect()
        }
        Peer::Name(name) => match world.called(name) {
            None => BTreeSet::new(),
            Some(Called::Host(host)) => BTreeSet::from([outside(host)]),
            Some(Called::Service(service)) => {
                world.backends(service).map(|pod| pod.reference().to_string()).collect()
            }
        },
    }
}

/// A denied flow needs a moment at which the same stimulus passes. A pod that is born under the
/// policy has none, so it needs a twin; all others have it before the policies and need no twin.
pub(super) fn control_exists(
    source: &Source,
    file: &ExpectationFile,
    world: &World,
    create: &[PodRef],
    cell: &Cell,
) -> Checked {
    let denied = cell.expected.is_denied();
    let Origin::Pod(from) = &cell.from else {
        return Ok(());
    };
    let born_here = create.contains(from);
    match (&file.twin, &cell.twin) {
        (None, _) if denied && born_here => Err(source.diagnostic_at(
            &file.from,
            format!("{from} is born under the policy: nothing can be seen to pass before"),
            Some("name a `twin`: a pod that differs in one attribute and must get through now"),
        )),
        (Some(at), _) if !denied || !born_here => Err(source.diagnostic_at(
            at,
            "only a denied stimulus of a created pod has a twin",
            None,
        )),
        (Some(at), Some(twin)) => differs_in_one_attribute(world, from, twin)
            .map_err(|message| source.diagnostic_at(at, message, None)),
        _ => Ok(()),
    }
}

fn differs_in_one_attribute(world: &World, from: &PodRef, twin: &PodRef) -> Result<(), String> {
    let (Some(one), Some(other)) = (world.pod(from), world.pod(twin)) else {
        return Err(format!("unknown pod `{twin}`"));
    };
    let keys: BTreeSet<&String> = one.labels.keys().chain(other.labels.keys()).collect();
    let labels = keys.into_iter().filter(|key| one.labels.get(*key) != other.labels.get(*key));
    let mut differences: Vec<String> = labels.map(|key| format!("label {key}")).collect();
    for (attribute, differs) in [
        ("namespace", one.namespace != other.namespace),
        ("service account", one.service_account != other.service_account),
        ("node", one.node != other.node),
        ("network", one.host_network != other.host_network),
        ("time of birth", one.born != other.born),
    ] {
        if differs {
            differences.push(attribute.to_owned());
        }
    }
    match differences.as_slice() {
        [_] => Ok(()),
        [] => Err(format!("{twin} differs from {from} in nothing")),
        several => Err(format!(
            "{twin} differs from {from} in more than one attribute: {}",
            several.join(", ")
        )),
    }
}

pub(super) fn nothing_of_denials(source: &Source, file: &ExpectationFile) -> Checked {
    let impossible = |word: &str| format!("an allowed flow has no `{word}`: nobody stops it");
    if let Some(by) = &file.by {
        return Err(source.diagnostic_at(by, impossible("by"), None));
    }
    if let Some(form) = &file.form {
        return Err(source.diagnostic_at(form, impossible("as"), None));
    }
    if let Some(policy) = &file.policy {
        return Err(source.diagnostic_at(policy, impossible("policy"), None));
    }
    if let Some(behind) = file.behind.first() {
        return Err(source.diagnostic_at(behind, impossible("behind"), None));
    }
    Ok(())
}

/// A suite that asks for an enforcement point says that it needs it, or a fabric that lacks it
/// would run the case and fail it.
pub(super) fn needed(
    source: &Source,
    needs: &BTreeSet<Feature>,
    point: &Spanned<EnforcementPoint>,
) -> Checked {
    let feature = match point.value {
        EnforcementPoint::Cilium => Feature::Cilium,
        EnforcementPoint::DnsProxy => Feature::DnsProxy,
        EnforcementPoint::Ztunnel => Feature::Ztunnel,
        EnforcementPoint::Waypoint => Feature::Waypoint,
    };
    if needs.contains(&feature) {
        return Ok(());
    }
    let message = format!("the suite does not say that it needs {feature}");
    Err(source.diagnostic_at(point, message, Some("add it to `needs` at the top of the suite")))
}

/// A suite that sends over IPv6 says that it needs it, or a fabric without would run the case.
pub(super) fn needs_family(
    source: &Source,
    needs: &BTreeSet<Feature>,
    at: &Spanned<OneOrMany>,
    send: &Send,
) -> Checked {
    let by_address = matches!(send.peer(), Some(Peer::Address(address)) if address.is_ipv6());
    let over_ipv6 = by_address || send.family() == Some(Family::Ipv6);
    if !over_ipv6 || needs.contains(&Feature::Ipv6) {
        return Ok(());
    }
    let message = format!("the suite does not say that it needs {}", Feature::Ipv6);
    Err(source.diagnostic_at(at, message, Some("add it to `needs` at the top of the suite")))
}

pub(super) fn nothing_of_passages(source: &Source, file: &ExpectationFile) -> Checked {
    match &file.via {
        Some(via) => Err(source.diagnostic_at(via, "a denied flow has no `via`: say `by`", None)),
        None => Ok(()),
    }
}

/// Cilium lets every flow pass that it does not deny, so its word that it did adds nothing.
pub(super) fn via_says_something(source: &Source, file: &ExpectationFile) -> Checked {
    match &file.via {
        Some(via) if via.value == EnforcementPoint::Cilium => Err(source.diagnostic_at(
            via,
            "every flow passes cilium; `via` is for proxies that only some flows pass",
            None,
        )),
        _ => Ok(()),
    }
}

pub(super) fn form_fits_point(source: &Source, file: &ExpectationFile) -> Checked {
    let (Some(by), Some(form)) = (&file.by, &file.form) else {
        return match &file.form {
            Some(form) => Err(source.diagnostic_at(form, "a form needs a `by`", None)),
            None => Ok(()),
        };
    };
    if !form.value.is_of_policies() && !matches!(file.is, Is::Refused) {
        let message = format!("no policy denies as {}: say `is: refused`", form.value);
        return Err(source.diagnostic_at(form, message, None));
    }
    let points = form.value.points();
    if points.contains(&by.value) {
        Ok(())
    } else {
        let told: Vec<String> = points.iter().map(ToString::to_string).collect();
        let does = if told.len() == 1 { "does" } else { "do" };
        let message =
            format!("{} does not deny as {}; {} {does}", by.value, form.value, told.join(", "));
        Err(source.diagnostic_at(form, message, None))
    }
}

/// The policy whose removal must let the flow pass.
pub(super) fn denying_policy(
    source: &Source,
    file: &ExpectationFile,
    apply: &[Manifest],
) -> Checked<ObjectRef> {
    let applied = || apply.iter().map(|it| it.reference.to_string()).collect::<Vec<_>>().join(", ");
    let wrong = |at: &Spanned<String>, message: String| {
        let help = format!("the case applies: {}", applied());
        Err(source.diagnostic_at(at, message, Some(&help)))
    };
    let denying = match (&file.policy, apply) {
        (None, [only]) => Ok(only.reference.clone()),
        (None, []) => Err(source.diagnostic_at(
            &file.send,
            "a case that applies nothing can deny nothing",
            None,
        )),
        (None, _) => Err(source.diagnostic_at(
            &file.send,
            "which of the applied policies denies this? say `policy: NAME`",
            Some(&format!("the case applies: {}", applied())),
        )),
        (Some(name), _) => {
            let reference = applied_policy(&name.value, apply);
            reference.cloned().or_else(|message| wrong(name, message))
        }
    }?;
    let is_it = |it: &&Manifest| it.reference == denying;
    match apply.iter().find(is_it).map(|it| &it.policy) {
        Some(Policy::Unenforced(_)) => {
            let message = format!("nobody enforces {denying}, so it denies nothing");
            Err(source.diagnostic_at(&file.send, message, None))
        }
        Some(Policy::Gateway { .. }) => {
            let message = format!("{denying} is a waypoint, and denies nothing by itself");
            Err(source.diagnostic_at(&file.send, message, None))
        }
        _ => Ok(denying),
    }
}

/// The policies that would deny what the first one denies.
pub(super) fn behind(
    source: &Source,
    names: &[Spanned<String>],
    first: &ObjectRef,
    apply: &[Manifest],
) -> Checked<Vec<ObjectRef>> {
    let behind = applied_policies(source, names, apply, "named")?;
    match behind.iter().position(|it| it == first) {
        Some(at) => {
            let message = format!("{first} is the policy that denies this, and not behind it");
            Err(source.diagnostic_at(&names[at], message, None))
        }
        None => Ok(behind),
    }
}

/// The applied policies of these names, none of which is `said` twice.
pub(super) fn applied_policies(
    source: &Source,
    names: &[Spanned<String>],
    apply: &[Manifest],
    said: &str,
) -> Checked<Vec<ObjectRef>> {
    let mut all: Vec<ObjectRef> = Vec::new();
    for name in names {
        let wrong = |message: String| Err(source.diagnostic_at(name, message, None));
        match applied_policy(&name.value, apply) {
            Err(message) => return wrong(message),
            Ok(one) if all.contains(one) => return wrong(format!("{one} is {said} twice")),
            Ok(one) => all.push(one.clone()),
        }
    }
    Ok(all)
}

/// The applied policy of that name; where several of different kinds or namespaces have it, it is written in full:
/// `KIND/NAME`, `KIND/NAMESPACE/NAME`.
///
/// # Errors
/// Why it is none, or not one.
pub(super) fn applied_policy<'a>(
    name: &str,
    apply: &'a [Manifest],
) -> Result<&'a ObjectRef, String> {
    let all = || apply.iter().map(|it| &it.reference);
    if let Some(one) = all().find(|it| it.to_string() == name) {
        return Ok(one);
    }
    let mut called = all().filter(|it| it.name == name);
    match (called.next(), called.next()) {
        (None, _) => Err(format!("the case applies no policy `{name}`")),
        (Some(one), None) => Ok(one),
        (Some(one), Some(_)) => {
            Err(format!("several applied policies are called `{name}`: write `{one}`"))
        }
    }
}
