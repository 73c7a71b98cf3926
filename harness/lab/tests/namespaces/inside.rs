//! Checks of a lane, from inside the lab.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};
use ztc_engine::fabric::{Cluster, Endpoint, Fabric, Lane, Settling, Witness};
use ztc_engine::wait::{self, Look};
use ztc_lab::{AgentCommand, Lab};
use ztc_model::evidence::Did;
use ztc_model::manifest::{Manifest, manifests};
use ztc_model::world::{
    AMBIENT_LABEL, Born, KubeService, Namespace, NodeSlot, OutsideHost, Pod, ServedPort,
    ServicePort, ServiceProtocol, Speaks, USE_WAYPOINT, Waypoint, WaypointFor, World,
};
use ztc_model::yaml::Source;
use ztc_wire::{
    AGENT_ENV, AgentConfig, DnsRcode, DnsTransport, FirstRun, Host, Observed, Phase, RecordType,
    RunId, Stimulus, Target,
};

use crate::client::Client;
use crate::mesh;
use crate::stage::{INTERRUPTED, READY, with_causes};

pub(crate) type Played = Result<(), Box<dyn Error>>;
pub(crate) type Check = fn() -> Pin<Box<dyn Future<Output = Played>>>;

/// How long anything here may take.
pub(crate) const CEILING: Duration = Duration::from_secs(5);

/// A deadline for stimuli that are expected to pass, in milliseconds.
pub(crate) const PASSES: u64 = 5_000;

/// A deadline for stimuli that are expected to be met with silence, in milliseconds.
const SILENCE: u64 = 200;

/// All checks by name.
pub(crate) fn checks() -> impl Iterator<Item = &'static (&'static str, Check)> {
    CHECKS.iter().chain(mesh::CHECKS)
}

const CHECKS: &[(&str, Check)] = &[
    ("packets_pass_on_one_node_between_nodes_and_to_the_outside", || Box::pin(packets_pass())),
    ("a_denied_flow_meets_silence_and_is_on_record", || Box::pin(a_denied_flow_is_silent())),
    ("a_name_that_no_rule_allows_is_refused_over_udp_and_tcp", || Box::pin(names_are_refused())),
    ("a_denied_kubelet_makes_an_ambient_pod_unready", || Box::pin(a_denied_kubelet())),
    ("a_pod_born_in_a_case_sends_from_its_first_instant", || Box::pin(a_pod_is_born())),
    ("an_agent_that_died_is_named_with_its_end", || Box::pin(an_agent_dies())),
    ("several_lanes_come_up_side_by_side", || Box::pin(several_lanes())),
];

/// Brings a lane up and waits for an interrupt.
#[expect(clippy::print_stdout, reason = "the check outside reads it there")]
pub(crate) async fn wait() -> Result<ExitCode, Box<dyn Error>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let cluster = lane(0).await?;
    println!("{READY}");
    interrupts.recv().await;
    cluster.down().await?;
    Ok(ExitCode::from(INTERRUPTED))
}

async fn packets_pass() -> Played {
    let cluster = lane(0).await?;
    let book = cluster.addresses().await?;
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;
    let by_name =
        |host: &str, port| Target { host: Host::Name(host.to_owned()), port, family: None };
    let near = by_name("cart", 9000);
    let far = by_name("ledger.zt-pay", 80);
    let outside = by_name("api.zt.test", 9000);
    let metadata = Target { host: Host::Ip([169, 254, 169, 254].into()), port: 80, family: None };

    expect_peer(&web.send(Stimulus::Tcp { to: near.clone() }, PASSES).await?, "zt-shop/cart")?;
    expect_peer(&web.send(Stimulus::Udp { to: near }, PASSES).await?, "zt-shop/cart")?;
    expect_peer(&web.send(get(far), PASSES).await?, "zt-pay/ledger")?;
    expect_peer(&web.send(Stimulus::Tcp { to: outside }, PASSES).await?, "outside/api")?;
    expect_peer(&web.send(get(metadata), PASSES).await?, "outside/metadata")?;
    let ledger: ztc_model::world::PodRef = "zt-pay/ledger".parse()?;
    let echoed = web.send(Stimulus::Ping { to: book.pods[&ledger] }, PASSES).await?;
    if echoed != (Observed::Echo { remote: book.pods[&ledger] }) {
        return Err(format!("the client that pinged saw: {echoed}").into());
    }
    let direct = Target { host: Host::Ip(book.pods[&ledger]), port: 9000, family: None };
    expect_peer(&web.send(Stimulus::Tcp { to: direct }, PASSES).await?, "zt-pay/ledger")?;
    Ok(cluster.down().await?)
}

async fn a_denied_flow_is_silent() -> Played {
    let cluster = lane(0).await?;
    let mut evidence = cluster.evidence();
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;
    let to = Target { host: Host::Name("ledger.zt-pay".to_owned()), port: 9000, family: None };
    let stimulus = Stimulus::Tcp { to };
    expect_peer(&web.send(stimulus.clone(), PASSES).await?, "zt-pay/ledger")?;

    let policy = read(DEFAULT_DENY)?;
    realise(cluster.as_ref(), &policy).await?;
    match web.send(stimulus.clone(), SILENCE).await? {
        Observed::Timeout { phase: Phase::Connect } => {}
        other => return Err(format!("the denied client saw: {other}").into()),
    }
    timeout(CEILING, async {
        loop {
            if let Witness::Spoke(said) = evidence.recv().await?
                && matches!(said.did, Did::DenyByDefault { .. })
                && said.flow.destination.port() == 9000
            {
                return Ok::<_, Box<dyn Error>>(());
            }
        }
    })
    .await??;

    cluster.delete(&policy.reference).await?;
    expect_peer(&web.send(stimulus, PASSES).await?, "zt-pay/ledger")?;
    Ok(cluster.down().await?)
}

async fn names_are_refused() -> Played {
    let cluster = lane(0).await?;
    let mut evidence = cluster.evidence();
    let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;
    realise(cluster.as_ref(), &read(ONE_NAME)?).await?;
    for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
        let query = |name: &str| Stimulus::Dns {
            name: name.to_owned(),
            record: RecordType::A,
            transport,
            server: None,
        };
        match web.send(query("api.zt.test"), PASSES).await? {
            Observed::Dns { rcode: DnsRcode::NOERROR, answers, .. } if answers.len() == 1 => {}
            other => return Err(format!("{transport:?}, allowed: {other}").into()),
        }
        match web.send(query("metadata.zt.test"), PASSES).await? {
            Observed::Dns { rcode: DnsRcode::REFUSED, answers, .. } if answers.is_empty() => {}
            other => return Err(format!("{transport:?}, not allowed: {other}").into()),
        }
        timeout(CEILING, async {
            loop {
                if let Witness::Spoke(said) = evidence.recv().await?
                    && matches!(&said.did, Did::RefuseName { name } if name.starts_with("metadata"))
                {
                    return Ok::<_, Box<dyn Error>>(());
                }
            }
        })
        .await??;
    }
    Ok(cluster.down().await?)
}

async fn a_denied_kubelet() -> Played {
    let cluster = lane(0).await?;
    let ready = |endpoints: &[Endpoint], pod: &str| {
        let endpoint = endpoints.iter().find(|it| it.pod.to_string() == pod);
        endpoint.is_some_and(|it| it.readiness.ready)
    };
    if !ready(&cluster.endpoints().await?, "zt-mesh/ambient") {
        return Err("the lane is up, and a pod is not ready".into());
    }
    let policy = read(MESH_DENY)?;
    realise(cluster.as_ref(), &policy).await?;
    until(cluster.as_ref(), |endpoints| !ready(endpoints, "zt-mesh/ambient")).await?;
    let endpoints = cluster.endpoints().await?;
    if !ready(&endpoints, "zt-mesh/plain") {
        return Err("the node's own probes do not pass".into());
    }
    cluster.delete(&policy.reference).await?;
    until(cluster.as_ref(), |endpoints| ready(endpoints, "zt-mesh/ambient")).await?;
    Ok(cluster.down().await?)
}

async fn a_pod_is_born() -> Played {
    let cluster = lane(0).await?;
    let pod = "zt-shop/newborn".parse()?;
    for _ in 0..2 {
        let to = Target { host: Host::Name("ledger.zt-pay".to_owned()), port: 9000, family: None };
        let stimulus = Stimulus::Tcp { to };
        let first = vec![FirstRun { id: RunId(1000), deadline_ms: PASSES, stimulus }];
        cluster.create_pod(&pod, first).await?;
        let mut newborn = Client::open(cluster.as_ref(), "zt-shop/newborn").await?;
        expect_peer(&newborn.observed(RunId(1000)).await?, "zt-pay/ledger")?;
        if cluster.create_pod(&pod, Vec::new()).await.is_ok() {
            return Err("a pod was made twice".into());
        }
        cluster.delete_pod(&pod).await?;
        if cluster.endpoints().await?.iter().any(|it| it.pod == pod) {
            return Err("a deleted pod is still an endpoint".into());
        }
    }
    cluster.delete_pod(&pod).await?;
    Ok(cluster.down().await?)
}

async fn an_agent_dies() -> Played {
    let cluster = lane(0).await?;
    kill_process(agent_of("zt-shop/web")?, Signal::KILL)?;
    let error = timeout(CEILING, async {
        let mut looks = interval(Duration::from_millis(1));
        loop {
            looks.tick().await;
            if let Err(error) = cluster.session(&"zt-shop/web".parse()?).await {
                return Ok::<_, Box<dyn Error>>(with_causes(&error));
            }
        }
    });
    let error = error.await??;
    if error.contains("the agent of zt-shop/web has ended: signal: 9") {
        Ok(cluster.down().await?)
    } else {
        Err(error.into())
    }
}

async fn several_lanes() -> Played {
    let (first, second, third) = tokio::try_join!(lane(0), lane(1), lane(2))?;
    for cluster in [first, second, third] {
        let mut web = Client::open(cluster.as_ref(), "zt-shop/web").await?;
        let to = Target { host: Host::Name("ledger.zt-pay".to_owned()), port: 80, family: None };
        expect_peer(&web.send(get(to), PASSES).await?, "zt-pay/ledger")?;
        cluster.down().await?;
        if cluster.endpoints().await.is_ok() {
            return Err("a lane that was taken down still answers".into());
        }
    }
    Ok(())
}

pub(crate) fn expect_peer(observed: &Observed, peer: &str) -> Played {
    match observed.peer() {
        Some(who) if who == peer => Ok(()),
        _ => Err(format!("instead of {peer}: {observed}").into()),
    }
}

fn get(to: Target) -> Stimulus {
    let (method, path) = ("GET".to_owned(), "/".to_owned());
    Stimulus::Http { tls: false, method, to, path, headers: BTreeMap::new() }
}

pub(crate) async fn realise(cluster: &dyn Cluster, policy: &Manifest) -> Played {
    let receipt = cluster.apply(policy).await?;
    let receipts = [receipt];
    // Ztunnels look at their open connections in their own time.
    let realised = wait::until("the policy", CEILING, Duration::from_millis(2), || async {
        match cluster.settled(&receipts).await {
            Ok(Settling::Realised) => Ok(Look::Met(())),
            Ok(Settling::NotYet { status }) => Ok(Look::NotYet { status }),
            Err(error) => Err(ztc_engine::chain(&error)),
        }
    });
    Ok(realised.await?)
}

async fn until(cluster: &dyn Cluster, holds: impl Fn(&[Endpoint]) -> bool) -> Played {
    timeout(CEILING, async {
        let mut looks = interval(Duration::from_millis(2));
        loop {
            looks.tick().await;
            if holds(&cluster.endpoints().await?) {
                return Ok(());
            }
        }
    })
    .await?
}

/// The process of an agent, found as `ps` finds it: by what it was told.
fn agent_of(pod: &str) -> Result<Pid, Box<dyn Error>> {
    let name = format!("\"name\":\"{pod}\"");
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if String::from_utf8_lossy(&environment).contains(&name) {
            return Pid::from_raw(id).ok_or_else(|| "a process 0".into());
        }
    }
    Err(format!("no process is the agent of {pod}").into())
}

pub(crate) fn read(manifest: &str) -> Result<Manifest, Box<dyn Error>> {
    let mut read = manifests(&Source::new("check.yaml", manifest))
        .map_err(|diagnostic| format!("{diagnostic:?}"))?;
    read.pop().ok_or_else(|| "a file without manifests".into())
}

const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: default-deny, namespace: zt-pay }
spec: { podSelector: {}, policyTypes: [Ingress] }
";

const MESH_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: default-deny, namespace: zt-mesh }
spec: { podSelector: {}, policyTypes: [Ingress] }
";

const ONE_NAME: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: one-name, namespace: zt-shop }
spec:
  endpointSelector: {}
  egress:
    - toEndpoints:
        - matchLabels:
            io.kubernetes.pod.namespace: kube-system
            k8s-app: kube-dns
      toPorts:
        - ports:
            - { port: '53', protocol: ANY }
          rules:
            dns:
              - matchName: api.zt.test
";

pub(crate) async fn lane(number: usize) -> Result<Arc<dyn Cluster>, Box<dyn Error>> {
    let agents = AgentCommand::new(|config: AgentConfig| {
        let mut command = Command::new("/proc/self/exe");
        command.env(AGENT_ENV, config.to_json().expect("a configuration is plain data"));
        command
    });
    Ok(Lab::new(agents)?.up(Arc::new(world()), Lane(number)).await?)
}

fn world() -> World {
    let namespace = |name: &str| Namespace {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        born: Born::WithTheWorld,
    };
    let mut ambient = pod("zt-mesh/ambient", NodeSlot::A);
    let (key, value) = AMBIENT_LABEL;
    ambient.labels.insert(key.to_owned(), value.to_owned());
    ambient.readiness = Some(8080);
    let mut peer = pod("zt-mesh/peer", NodeSlot::B);
    peer.labels.insert(key.to_owned(), value.to_owned());
    let plain = Pod { readiness: Some(8080), ..pod("zt-mesh/plain", NodeSlot::A) };
    let newborn = Pod { born: Born::InACase, ..pod("zt-shop/newborn", NodeSlot::B) };
    let metadata = OutsideHost {
        name: "metadata".to_owned(),
        address: Some([169, 254, 169, 254].into()),
        address_ipv6: None,
        dns: vec!["metadata.zt.test".to_owned()],
        aliases: Vec::new(),
        ttl: None,
        serves: vec![serves(Speaks::Http, 80)],
    };
    let api = OutsideHost {
        name: "api".to_owned(),
        address: None,
        address_ipv6: None,
        dns: vec!["api.zt.test".to_owned()],
        aliases: Vec::new(),
        ttl: None,
        serves: vec![serves(Speaks::Tcp, 9000)],
    };
    // The same pods, through a waypoint.
    let mut through = service("zt-mesh", "through");
    through.selector = BTreeMap::from([("app".to_owned(), "peer".to_owned())]);
    through.labels.insert(USE_WAYPOINT.to_owned(), "waypoint".to_owned());
    let waypoint = Waypoint {
        namespace: "zt-mesh".to_owned(),
        name: "waypoint".to_owned(),
        serves: WaypointFor::Service,
    };
    World {
        waypoints: vec![waypoint],
        world: "two-teams".to_owned(),
        about: "Two teams and a mesh.".to_owned(),
        namespaces: ["zt-shop", "zt-pay", "zt-mesh"].map(namespace).into(),
        pods: vec![
            pod("zt-shop/web", NodeSlot::A),
            pod("zt-shop/cart", NodeSlot::A),
            pod("zt-pay/ledger", NodeSlot::B),
            ambient,
            peer,
            plain,
            newborn,
        ],
        services: vec![
            service("zt-shop", "cart"),
            service("zt-pay", "ledger"),
            service("zt-mesh", "peer"),
            through,
        ],
        outside: vec![metadata, api],
        tokens: Vec::new(),
    }
}

fn serves(speaks: Speaks, port: u16) -> ServedPort {
    ServedPort { speaks, port, name: None }
}

fn pod(name: &str, node: NodeSlot) -> Pod {
    let (namespace, name) = name.split_once('/').expect("it is written here");
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        node,
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        service_account: name.to_owned(),
        serves: vec![
            serves(Speaks::Tcp, 9000),
            serves(Speaks::Udp, 9000),
            serves(Speaks::Http, 8080),
        ],
        readiness: None,
        host_network: false,
        dns_capture: None,
        born: Born::WithTheWorld,
    }
}

fn service(namespace: &str, name: &str) -> KubeService {
    let port = |port, target_port, protocol| ServicePort { port, target_port, protocol };
    KubeService {
        labels: BTreeMap::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ports: vec![
            port(80, Some(8080), ServiceProtocol::Tcp),
            port(9000, None, ServiceProtocol::Tcp),
            port(9000, None, ServiceProtocol::Udp),
        ],
    }
}
