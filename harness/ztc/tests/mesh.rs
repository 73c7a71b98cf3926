//! What the suites of the mesh expect is what the model decides: the suites pass on real clusters, so that a rule that the
//! model has wrong is found here. Each denial has its control and its proof, too.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ztc::project::Project;
use ztc_model::manifest::ObjectRef;
use ztc_model::outcome::{EnforcementPoint, Expected, Form};
use ztc_model::policy::Policy;
use ztc_model::policy::mesh::waypoint::{self, Asked, Named, Request, Token, WaypointPolicies};
use ztc_model::policy::mesh::ztunnel::{self, Connection, Distributed, Workload};
use ztc_model::policy::mesh::{CONVERTED_PEERS, MeshPolicy, STATIC_STRICT, SpiffeId};
use ztc_model::stimulus::{Bearer, Hbone, Peer, Send, Target};
use ztc_model::suite::{Case, Cell, Origin};
use ztc_model::world::{Called, KubeService, Pod, World};

const SUITES: [&str; 7] = [
    "l3-mtls",
    "l4-ztunnel",
    "l4-hbone",
    "l5-waypoint",
    "l5-waypoint-kinds",
    "l5-gateway",
    "l5-jwt",
];

/// A moment of 2026.
const NOW: u64 = 1_795_000_000;

/// Who stops a flow, and how.
type Stopped = Option<(EnforcementPoint, Form)>;

/// A world with addresses.
struct Scene<'a> {
    world: &'a World,
    policies: Vec<&'a MeshPolicy>,
}

/// Where a stimulus goes in the end.
struct Server<'a> {
    pod: &'a Pod,
    port: u16,
    service: Option<&'a KubeService>,
}

impl<'a> Scene<'a> {
    fn new(world: &'a World, case: &'a Case, without: Option<&ObjectRef>) -> Self {
        let kept = case.apply.iter().filter(|it| Some(&it.reference) != without);
        let policies = kept.filter_map(|it| match &it.policy {
            Policy::Mesh(policy) => Some(policy),
            _ => None,
        });
        Self { world, policies: policies.collect() }
    }

    fn address(&self, pod: &Pod) -> IpAddr {
        let index = self.world.pods.iter().position(|it| it.reference() == pod.reference());
        let index = index.and_then(|it| u8::try_from(it).ok()).expect("the world has the pod");
        [10, 1, 0, index].into()
    }

    fn identity(&self, pod: &Pod) -> Option<SpiffeId> {
        self.world.is_ambient(pod).then(|| id(&pod.namespace, &pod.service_account))
    }

    fn server(&self, to: &Target) -> Server<'a> {
        match &to.peer {
            Peer::Pod(pod) => {
                let pod = self.world.pod(pod).expect("the world has the pod");
                Server { pod, port: to.port, service: None }
            }
            Peer::Name(name) => {
                let Some(Called::Service(service)) = self.world.called(name) else {
                    panic!("{name} is no service")
                };
                let port = service.ports.iter().find(|it| it.port == to.port);
                let port = port.expect("the service has the port");
                let pod = self.world.backends(service).next().expect("it has a backend");
                Server { pod, port: port.target_port.unwrap_or(port.port), service: Some(service) }
            }
            other => panic!("{other} is not in the mesh"),
        }
    }

    fn stopped(&self, cell: &Cell) -> Stopped {
        let Origin::Pod(client) = &cell.from else { panic!("kubelet is not asked about") };
        let client = self.world.pod(client).expect("the world has the pod");
        if let Send::Hbone(tunnel) = &cell.send {
            return self.at_end_of(tunnel, self.address(client));
        }
        let (Send::Tcp(to) | Send::TcpFlow(to) | Send::Http { to, .. }) = &cell.send else {
            panic!("{} is not asked about", cell.send)
        };
        let server = self.server(to);
        let peer = self.identity(client);
        let gateway = match server.service {
            Some(service) => self.world.waypoint_of(service),
            None => self.world.waypoint_of_pod(server.pod),
        };
        let Some(name) = gateway.filter(|_| peer.is_some()) else {
            return self.at_server(&server, peer, self.address(client));
        };
        let asked = Asked {
            peer,
            source: self.address(client),
            destination: SocketAddr::new([10, 2, 0, 1].into(), to.port),
            request: None,
        };
        let namespace = &server.pod.namespace;
        let gateway = Named { namespace, name };
        self.at_waypoint(gateway, server.service, asked, &cell.send).or_else(|| {
            let waypoint = id(namespace, name);
            self.at_server(&server, Some(waypoint), [10, 1, 0, 250].into())
        })
    }

    /// What policy says of a tunnel that somebody opened by himself.
    fn at_end_of(&self, tunnel: &Hbone, source: IpAddr) -> Stopped {
        let Bearer::Pod { pod, flaw: None } = &tunnel.speaks else {
            panic!("no policy is asked about a tunnel {}", tunnel.speaks)
        };
        let [bearer, pod] = [pod, &tunnel.through].map(|it| self.world.pod(it));
        let (bearer, pod) = bearer.zip(pod).expect("the world has the pods");
        let server = Server { pod, port: tunnel.to.port, service: None };
        self.at_server(&server, self.identity(bearer), source)
    }

    fn at_waypoint(
        &self,
        gateway: Named<'_>,
        service: Option<&KubeService>,
        mut asked: Asked,
        send: &Send,
    ) -> Stopped {
        let service = service.map(|it| Named { namespace: &it.namespace, name: &it.name });
        let policies = self.policies.iter().copied();
        let policies = WaypointPolicies::of(policies, gateway, service);
        let policies = policies.expect("all of it is evaluated");
        asked.request = self.request(send, &policies);
        let form = match policies.decide(&asked) {
            waypoint::Decision::Forwarded => return None,
            waypoint::Decision::TokenRefused { .. } => Form::TokenRefused,
            waypoint::Decision::Denied { .. } => Form::ExplicitDeny,
            waypoint::Decision::NotAllowed => Form::DefaultDeny,
        };
        Some((EnforcementPoint::Waypoint, form))
    }

    fn request(&self, send: &Send, policies: &WaypointPolicies) -> Option<Request> {
        let Send::Http { method, to, path, token, .. } = send else { return None };
        let token = self.world.tokens.iter().find(|it| Some(&it.name) == token.as_ref());
        let header = |text: &str| ("authorization".to_owned(), format!("Bearer {text}"));
        let mut request = Request {
            method: method.clone(),
            path: path.clone(),
            host: to.peer.to_string(),
            headers: token.iter().map(|it| header(&it.text)).collect(),
            token: Token::Absent,
        };
        let verify = |rule: &_, text: &_| waypoint::verify(rule, text, NOW);
        request.token = policies.token(&request.headers, verify);
        Some(request)
    }

    fn at_server(&self, server: &Server<'_>, peer: Option<SpiffeId>, source: IpAddr) -> Stopped {
        if !self.world.is_ambient(server.pod) {
            return None;
        }
        let told = Distributed::of(self.policies.iter().copied());
        let Pod { namespace, labels, .. } = server.pod;
        let destination = SocketAddr::new(self.address(server.pod), server.port);
        let decision = told.of_workload(&Workload { namespace, labels }).decide(&Connection {
            peer,
            source,
            destination,
        });
        let form = match decision {
            ztunnel::Decision::Allowed => return None,
            ztunnel::Decision::NotAllowed => Form::DefaultDeny,
            ztunnel::Decision::Denied { by } => {
                let of_modes =
                    |name: &str| name == STATIC_STRICT || name.starts_with(CONVERTED_PEERS);
                if of_modes(&by[0].name) { Form::PlaintextRefused } else { Form::ExplicitDeny }
            }
        };
        Some((EnforcementPoint::Ztunnel, form))
    }
}

fn id(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
    }
}

/// What is wrong with a cell, if anything is.
fn disagreement(world: &World, case: &Case, cell: &Cell) -> Option<String> {
    let stopped = || Scene::new(world, case, None).stopped(cell);
    let said = format!("{}: {} from {}", case.id, cell.send, cell.from);
    match &cell.expected {
        Expected::Allowed { .. } => stopped().map(|it| format!("{said} is stopped: {it:?}")),
        Expected::Denied { by, form, policy, .. } => {
            let Some((point, how)) = stopped() else { return Some(format!("{said} passes")) };
            if by.is_some_and(|it| it != point) || form.is_some_and(|it| it != how) {
                return Some(format!("{said} is stopped by {point} as {how:?}"));
            }
            let proof = Scene::new(world, case, Some(policy)).stopped(cell);
            proof.map(|it| format!("{said} is stopped without {policy}, too: {it:?}"))
        }
        // What happens meanwhile is no question of policies, and neither is what is refused without one.
        Expected::Refused { .. } | Expected::Throughout | Expected::Interrupted { .. } => None,
    }
}

#[test]
fn the_suites_of_the_mesh_expect_what_the_model_decides() {
    let suites = Project::at(Project::sources()).suites().unwrap();
    let mut asked = BTreeMap::new();
    let mut wrong = Vec::new();
    for suite in suites.suites.iter().filter(|it| SUITES.contains(&it.name.as_str())) {
        let world = &suites.worlds[&suite.world];
        for case in &suite.cases {
            let cells = case.cells.iter().filter(|cell| matches!(cell.from, Origin::Pod(_)));
            for cell in cells {
                *asked.entry(suite.name.as_str()).or_insert(0) += 1;
                wrong.extend(disagreement(&case.world_under(world), case, cell));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        SUITES.iter().all(|suite| asked.get(suite).is_some_and(|count| *count > 10)),
        "{asked:?}"
    );
}
