//! Captures of a case: begun before anything is sent that they are about, ended when all of it has been sent.
//!
//! What a cell sends has a canary of its own in every nonce, so that whoever finds it in a packet knows whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use ztc_model::capture::{AtNode, Wire};
use ztc_model::suite::{Cell, Origin};
use ztc_model::verdict::Doubt;
use ztc_model::world::{NodeSlot, PodRef, World};
use ztc_model::ztunnel::HBONE_PORT;
use ztc_wire::{Canary, Captured, Sighting, Watch};

use super::Life;
use crate::agent::{Agent, Flight, News};
use crate::chain;
use crate::fabric::AddressBook;

/// How long a capture goes on that nobody ends any more.
const ABANDONED: Duration = Duration::from_mins(10);

/// What came of the captures, by node: what they saw, or why they saw nothing.
type Seen = BTreeMap<NodeSlot, Result<Captured, String>>;

/// The captures that go on.
#[derive(Debug, Default)]
pub(super) struct Captures {
    book: AddressBook,
    points: BTreeMap<NodeSlot, Result<Capture, String>>,
}

#[derive(Debug)]
struct Capture {
    agent: Arc<Agent>,
    flight: Flight,
}

/// A canary for each cell whose wire is asked about.
pub(super) fn canaries(cells: &[Cell]) -> Vec<Option<Canary>> {
    let random = || getrandom::u64().expect("getrandom(2) cannot fail once the machine has booted");
    cells.iter().map(|cell| cell.wire().map(|_| Canary::new(random()))).collect()
}

impl Life<'_> {
    /// Begins a capture on every node, if a cell asks for any.
    pub(super) async fn begin_captures(&self) -> Result<Captures, Doubt> {
        let mut captures = Captures::default();
        if self.canaries.iter().all(Option::is_none) {
            return Ok(captures);
        }
        captures.book = self.addresses().await?;
        let watch = Watch {
            addresses: watched(&self.case.cells, &captures.book),
            canaries: self.canaries.iter().flatten().cloned().collect(),
            tunnel_port: HBONE_PORT,
        };
        let points = self.lane.cluster.capture_points().await;
        let points = points.map_err(|error| Doubt::Fabric(chain(&error)))?;
        for (node, pod) in points {
            captures.points.insert(node, self.begin_capture(&pod, watch.clone()).await);
        }
        Ok(captures)
    }

    async fn begin_capture(&self, pod: &PodRef, watch: Watch) -> Result<Capture, String> {
        let agent = self.lane.agent(pod, &self.pace).await?;
        let mut flight = agent.capture(watch, ABANDONED);
        match flight.next(Instant::now() + self.pace.ready_ceiling()).await {
            News::Capturing => Ok(Capture { agent, flight }),
            news => Err(why_not(news)),
        }
    }

    /// Ends the captures, and gives each cell what they saw of it.
    pub(super) async fn end_captures(&mut self, begun: Captures) {
        let Captures { book, points } = begun;
        let mut seen = Seen::new();
        for (node, capture) in points {
            let captured = match capture {
                Ok(Capture { agent, mut flight }) => {
                    agent.cancel(flight.id);
                    match flight.next(Instant::now() + self.pace.ready_ceiling()).await {
                        News::Captured(captured) => Ok(captured),
                        news => Err(why_not(news)),
                    }
                }
                Err(why) => Err(why),
            };
            seen.insert(node, captured);
        }
        let cells: Vec<(&Cell, Option<&Canary>)> =
            self.case.cells.iter().zip(self.canaries.iter().map(Option::as_ref)).collect();
        let wires =
            cells.iter().map(|cell| at_nodes(*cell, &cells, &self.lane.world, &book, &seen));
        for (outcome, wire) in self.outcomes.iter_mut().zip(wires) {
            outcome.facts.wire = wire;
        }
    }
}

/// The news that come in place of those that are due.
fn why_not(news: News) -> String {
    match news {
        News::CaptureFailed(error) => error,
        News::Lost { reason } => reason,
        _ => "the agent spoke of something else".to_owned(),
    }
}

/// The addresses of the pods whose wire is asked about.
fn watched(cells: &[Cell], book: &AddressBook) -> BTreeSet<IpAddr> {
    let asked = cells.iter().filter(|cell| cell.wire().is_some());
    asked.flat_map(|cell| client(cell, book).into_iter().chain(servers(cell, book))).collect()
}

fn client(cell: &Cell, book: &AddressBook) -> BTreeSet<IpAddr> {
    match &cell.from {
        Origin::Pod(pod) => addresses(pod, book).collect(),
        Origin::Kubelet => BTreeSet::new(),
    }
}

fn servers(cell: &Cell, book: &AddressBook) -> BTreeSet<IpAddr> {
    cell.served_by().iter().flat_map(|pod| addresses(pod, book)).collect()
}

fn addresses(pod: &PodRef, book: &AddressBook) -> impl Iterator<Item = IpAddr> {
    [book.pods.get(pod), book.second_of_pods.get(pod)].into_iter().flatten().copied()
}

/// What was seen of a cell: on the nodes of its pods, and wherever else it was in clear.
fn at_nodes(
    (cell, canary): (&Cell, Option<&Canary>),
    all: &[(&Cell, Option<&Canary>)],
    world: &World,
    book: &AddressBook,
    seen: &Seen,
) -> Vec<AtNode> {
    let Some(canary) = canary else { return Vec::new() };
    let (own, client, servers) = (cell.nodes(world), client(cell, book), servers(cell, book));
    let nothing = Err("there is no agent for it".to_owned());
    [NodeSlot::A, NodeSlot::B]
        .into_iter()
        .filter_map(|node| {
            let captured = seen.get(&node).unwrap_or(&nothing);
            let captured = match captured {
                Ok(captured) => captured,
                Err(why) => {
                    let failed = own.contains(&node).then(|| why.clone())?;
                    return Some(AtNode::without_capture(node, failed));
                }
            };
            let in_clear = sighting(captured, canary).cloned();
            if !own.contains(&node) && in_clear.is_none() {
                return None;
            }
            let tunnels = captured
                .tunnels
                .iter()
                .filter(|it| client.contains(&it.client.ip()) && servers.contains(&it.server.ip()));
            Some(AtNode {
                node,
                failed: None,
                packets: captured.packets,
                lost: captured.lost,
                in_clear,
                tunnels: tunnels.cloned().collect(),
                controlled: all.iter().any(|(other, canary)| {
                    let seen = canary.and_then(|canary| sighting(captured, canary));
                    other.wire() == Some(Wire::Clear)
                        && other.nodes(world).contains(&node)
                        && seen.is_some()
                }),
            })
        })
        .collect()
}

fn sighting<'a>(captured: &'a Captured, canary: &Canary) -> Option<&'a Sighting> {
    captured.sightings.iter().find(|it| it.canary == *canary)
}

#[cfg(test)]
mod tests {
    use ztc_model::outcome::Expected;
    use ztc_model::suite::peers;
    use ztc_model::yaml::Source;
    use ztc_wire::{Speaks, Tunnel};

    use super::*;

    fn world() -> World {
        let text = "\
world: bank
about: Two on one node, two on another.
namespaces: [{ name: bank }]
pods:
  - { namespace: bank, name: one, node: a, serves: [{ speaks: tcp, port: 9000 }] }
  - { namespace: bank, name: two, node: b, serves: [{ speaks: tcp, port: 9000 }] }
  - { namespace: bank, name: three, node: a, serves: [{ speaks: tcp, port: 9000 }] }
";
        ztc_model::suite::world(&Source::new("bank.yaml", text)).unwrap()
    }

    fn book() -> AddressBook {
        let pods = [("one", 1), ("two", 2), ("three", 3)];
        let pods = pods.map(|(name, last)| (pod(name), IpAddr::from([10, 0, 0, last])));
        AddressBook { pods: pods.into(), ..AddressBook::default() }
    }

    fn pod(name: &str) -> PodRef {
        format!("bank/{name}").parse().unwrap()
    }

    fn cell(from: &str, to: &str, wire: Wire) -> Cell {
        let send = format!("tcp bank/{to}:9000").parse().unwrap();
        Cell {
            from: Origin::Pod(pod(from)),
            peers: peers(&world(), &send),
            send,
            after: None,
            expected: Expected::Allowed { via: None, wire: Some(wire) },
            twin: None,
            beside: None,
            line: 1,
        }
    }

    fn sighted(canary: &Canary) -> Captured {
        let nobody = "0.0.0.0:0".parse().unwrap();
        let sighting = Sighting {
            canary: canary.clone(),
            count: 1,
            source: nobody,
            destination: nobody,
            excerpt: vec![],
        };
        let tunnel = |client: &str, server: &str| Tunnel {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            sent: 1,
            received: 1,
            speaks: Speaks::Tls13,
            excerpt: vec![],
        };
        Captured {
            packets: 9,
            sightings: vec![sighting],
            tunnels: vec![
                tunnel("10.0.0.1:61000", "10.0.0.2:15008"),
                tunnel("10.0.0.3:61000", "10.0.0.2:15008"),
                tunnel("10.0.0.2:61000", "10.0.0.1:15008"),
            ],
            ..Captured::default()
        }
    }

    #[test]
    fn a_cell_has_its_own_tunnels_and_its_control_from_another_cell_on_each_node() {
        let (encrypted, clear) =
            (cell("one", "two", Wire::Encrypted), cell("three", "one", Wire::Clear));
        let canaries = [Canary::new(1), Canary::new(2)];
        let cells = [(&encrypted, Some(&canaries[0])), (&clear, Some(&canaries[1]))];
        // On node b somebody sees the second canary, too; it is not expected there.
        let seen = Seen::from([
            (NodeSlot::A, Ok(sighted(&canaries[1]))),
            (NodeSlot::B, Ok(sighted(&canaries[1]))),
        ]);
        let at = at_nodes(cells[0], &cells, &world(), &book(), &seen);
        let [a, b] = at.as_slice() else { panic!("{at:?}") };
        assert_eq!((a.controlled, b.controlled), (true, false));
        assert!(a.in_clear.is_none() && b.in_clear.is_none());
        let clients: Vec<String> = a.tunnels.iter().map(|it| it.client.to_string()).collect();
        assert_eq!(clients, ["10.0.0.1:61000"]);
        let at = at_nodes(cells[1], &cells, &world(), &book(), &seen);
        let nodes: Vec<_> = at.iter().map(|it| (it.node, it.in_clear.is_some())).collect();
        assert_eq!(nodes, [(NodeSlot::A, true), (NodeSlot::B, true)], "wherever it is in clear");
    }

    #[test]
    fn a_node_without_a_capture_is_told_of_where_the_cell_is() {
        let cell = cell("one", "three", Wire::Encrypted);
        let canary = Canary::new(1);
        let cells = [(&cell, Some(&canary))];
        let seen = Seen::from([(NodeSlot::A, Err("no permission".to_owned()))]);
        let at = at_nodes(cells[0], &cells, &world(), &book(), &seen);
        let told: Vec<_> = at.iter().map(|it| (it.node, it.failed.as_deref())).collect();
        assert_eq!(told, [(NodeSlot::A, Some("no permission"))]);
    }
}
