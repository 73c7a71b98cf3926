//! A runner on a fake fabric, and cases from YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use ztc_engine::event::{CaseReport, CellReport, Event, EventKind};
use ztc_engine::profile::{FabricKind, LaneKind, Lanes, Pace, Profile, ZtunnelKind};
use ztc_engine::runner::{EventSink, Runner};
use ztc_model::suite::{Case, Library, load, world};
use ztc_model::world::World;
use ztc_model::yaml::Source;

use super::cluster::FakeCluster;
use super::fabric::FakeFabric;
use super::script::Script;

/// The world of these tests.
const WORLD: &str = "
world: two
about: A client, a server, and two pods that are born in cases.
namespaces: [{ name: shop }, { name: pay }]
pods:
  - { namespace: shop, name: web, node: a, labels: { app: web } }
  - { namespace: shop, name: cart, node: b, labels: { app: cart } }
  - { namespace: shop, name: late, node: a, labels: { app: late }, born: in-a-case }
  - { namespace: shop, name: twin, node: a, labels: { app: twin }, born: in-a-case }
  - namespace: pay
    name: vault
    node: b
    labels: { app: vault }
    serves: [{ speaks: tcp, port: 9000 }, { speaks: tcp, port: 9001 }, { speaks: udp, port: 9000 }, { speaks: http, port: 8080 }]
    readiness: 8080
";

/// The manifests of these tests. The fake network knows policies by their names only.
const MANIFESTS: [(&str, &str); 6] = [
    (
        "allow-shop.yaml",
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: allow-shop, namespace: pay }
spec: { rules: [{ from: [{ source: { namespaces: [shop] } }] }] }
",
    ),
    (
        "default-deny.yaml",
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: default-deny, namespace: pay }
spec: { podSelector: {}, policyTypes: [Ingress] }
",
    ),
    (
        "second-deny.yaml",
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: second-deny, namespace: pay }
spec: { podSelector: {}, policyTypes: [Ingress] }
",
    ),
    (
        "deny-web.yaml",
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: deny-web, namespace: pay }
spec:
  endpointSelector: {}
  ingressDeny: [{ fromEndpoints: [{ matchLabels: { k8s:app: web } }] }]
",
    ),
    (
        "deny-principal.yaml",
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-principal, namespace: pay }
spec: { action: DENY, rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/web] } }] }] }
",
    ),
    (
        "wide-deny.yaml",
        "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: wide-deny }
spec:
  endpointSelector: {}
  ingressDeny: [{ fromEndpoints: [{ matchLabels: { k8s:app: web } }] }]
",
    ),
];

/// The pace of these tests: that of the lab.
pub(crate) const PACE: Pace = Pace {
    ready_ceiling_ms: 10_000,
    pass_ceiling_ms: 1000,
    settle_ceiling_ms: 2000,
    probe_deadline_ms: 400,
    hold_ms: 500,
    hold_samples: 20,
    allowed_samples: 5,
    stream_every_ms: 5,
    poll_ms: 2,
};

fn two() -> World {
    world(&Source::new("two.yaml", WORLD)).unwrap_or_else(|error| panic!("{error}"))
}

/// Reads the cases of a suite.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let manifests = MANIFESTS
        .iter()
        .map(|(file, text)| ((*file).to_owned(), Source::new(*file, *text)))
        .collect();
    let library = Library { worlds: BTreeMap::from([("two".to_owned(), two())]), manifests };
    let text = format!(
        "suite: fake\nabout: What a test asks.\nworld: two\nneeds: [cilium, dns-proxy, ztunnel, agent-restart]\ncases:{text}"
    );
    let suite = load(&Source::new("suite.yaml", text), &library);
    suite.unwrap_or_else(|error| panic!("{error}")).cases
}

/// A runner, and everything around it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) runner: Arc<Runner>,
    pub(crate) interrupt: watch::Sender<bool>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    fabric: Arc<FakeFabric>,
}

impl Bench {
    /// One lane, of which every cluster follows the script.
    pub(crate) fn new(script: Script) -> Self {
        Self::with(vec![script], Lanes { count: 1, each: LaneKind::Cluster })
    }

    /// Lanes whose clusters follow the scripts in the order in which they are made.
    pub(crate) fn with(scripts: Vec<Script>, lanes: Lanes) -> Self {
        Self::at(PACE, scripts, lanes)
    }

    /// The same at another pace.
    pub(crate) fn at(pace: Pace, scripts: Vec<Script>, lanes: Lanes) -> Self {
        let fabric = Arc::new(FakeFabric::new(scripts));
        let profile = Profile {
            profile: "fake".to_owned(),
            about: "In memory.".to_owned(),
            fabric: FabricKind::Lab,
            lanes,
            features: BTreeSet::new(),
            cluster: None,
            outside: BTreeMap::new(),
            faults: Vec::new(),
            ztunnel: ZtunnelKind::Any,
            pace,
        };
        let (sink, events) = EventSink::new();
        let (interrupt, interrupted) = watch::channel(false);
        let worlds = BTreeMap::from([("two".to_owned(), Arc::new(two()))]);
        let shared: Arc<FakeFabric> = Arc::clone(&fabric);
        let runner = Arc::new(Runner::new(shared, profile, worlds, sink, interrupted));
        Self { runner, interrupt, events, fabric }
    }

    /// The same with a runner that only looks whether cases notice something.
    pub(crate) fn hunting(self) -> Self {
        let runner = Arc::into_inner(self.runner).expect("nobody runs anything yet");
        Self { runner: Arc::new(runner.until_broken().forgetful_lanes()), ..self }
    }

    /// Runs the first case of a text.
    pub(crate) async fn run(&self, text: &str) -> CaseReport {
        self.runner.run(&cases(text)[0]).await.expect("nobody interrupts")
    }

    /// Runs the first case of a text; its only cell.
    pub(crate) async fn cell(&self, text: &str) -> CellReport {
        let mut report = self.run(text).await;
        assert_eq!(report.cells.len(), 1, "{report:?}");
        report.cells.remove(0)
    }

    /// The clusters that were made so far.
    pub(crate) fn clusters(&self) -> Vec<Arc<FakeCluster>> {
        self.fabric.clusters()
    }

    /// How often the fabric was asked for a cluster.
    pub(crate) fn asked(&self) -> usize {
        self.fabric.asked()
    }

    /// When the next event comes that is looked for, microseconds.
    pub(crate) async fn moment(&mut self, mut look: impl FnMut(&EventKind) -> Option<()>) -> u64 {
        loop {
            let event = self.events.recv().await.expect("the runner owns the sink");
            if look(&event.kind).is_some() {
                return event.at_us;
            }
        }
    }

    /// The next event that is looked for.
    pub(crate) async fn event<T>(&mut self, mut look: impl FnMut(&EventKind) -> Option<T>) -> T {
        loop {
            let event = self.events.recv().await.expect("the runner owns the sink");
            if let Some(found) = look(&event.kind) {
                return found;
            }
        }
    }
}
