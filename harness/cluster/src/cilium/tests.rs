//! Agents that restart, and streams of flows that break or bring nonsense.

use ztc_model::hubble::POLICY_DENIED;

use super::*;
use crate::standin::{Asked, Remote, Server, soon};

/// Two records of packets that no rule allowed, as Hubble wrote them.
const DROPPED: &str = include_str!("../../tests/facts/hubble-dropped.jsonl");

const LOST: &str = r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"}}"#;

/// A pod of an agent, as a list has it.
fn agent(node: &str, pod: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": { "namespace": NAMESPACE, "name": pod },
        "spec": { "nodeName": node, "containers": [] },
    })
}

/// Answers a list of the agents.
async fn list_agents(server: &mut Server, agents: &[(&str, &str)]) {
    let asked = server.next().await;
    assert_eq!(asked.path(), "/api/v1/namespaces/kube-system/pods");
    assert_eq!(asked.parameter("fieldSelector"), Some("status.phase%3DRunning"));
    let agents: Vec<_> = agents.iter().map(|(node, pod)| agent(node, pod)).collect();
    asked.list("10", &agents);
}

async fn found(server: &mut Server, agents: &[(&str, &str)]) -> Agents {
    let client = server.client();
    let (found, ()) = tokio::join!(Agents::find(client), list_agents(server, agents));
    found.unwrap()
}

/// The pod in which a command is to run.
fn pod(asked: &Asked) -> &str {
    let path = asked.path().strip_prefix("/api/v1/namespaces/kube-system/pods/");
    path.and_then(|it| it.strip_suffix("/exec")).unwrap_or_else(|| panic!("{}", asked.path()))
}

/// Takes the request for a command in that pod.
async fn command_in(server: &mut Server, name: &str) -> Asked {
    let asked = server.next().await;
    assert_eq!(pod(&asked), name);
    asked
}

/// Answers the first script of a shell.
async fn answer(asked: Asked, output: &str) -> Remote {
    assert_eq!(asked.parameter("command"), Some("sh"));
    let mut remote = asked.run().await;
    soon("a script", remote.hear()).await.unwrap();
    remote.write(format!("{output}\nztc-end:0\n").as_bytes()).await.unwrap();
    remote
}

fn refuse(asked: Asked) {
    asked.refuse(404, "NotFound", "pods not found");
}

#[tokio::test]
async fn no_agent_is_an_error() {
    let mut server = Server::start().await;
    let client = server.client();
    let (found, ()) = tokio::join!(Agents::find(client), list_agents(&mut server, &[]));
    assert!(matches!(found, Err(CiliumError::None)));
}

#[tokio::test]
async fn every_agent_is_asked() {
    let mut server = Server::start().await;
    let agents = found(&mut server, &[("worker", "cilium-a"), ("worker2", "cilium-b")]).await;
    let (outputs, ()) = tokio::join!(soon("the outputs", agents.run("true")), async {
        for _ in 0..2 {
            let asked = server.next().await;
            let output = format!("I am {}", pod(&asked));
            answer(asked, &output).await;
        }
    });
    let outputs = outputs.unwrap();
    assert_eq!(outputs["worker"], "I am cilium-a\n");
    assert_eq!(outputs["worker2"], "I am cilium-b\n");
}

#[tokio::test]
async fn an_agent_that_was_replaced_is_asked_under_its_new_name() {
    let mut server = Server::start().await;
    let agents = found(&mut server, &[("worker", "cilium-a")]).await;
    let (failed, ()) = tokio::join!(soon("the failure", agents.run("true")), async {
        refuse(command_in(&mut server, "cilium-a").await);
        list_agents(&mut server, &[("worker", "cilium-b")]).await;
    });
    assert!(matches!(failed, Err(CiliumError::Exec(_))), "{failed:?}");
    let (outputs, ()) = tokio::join!(soon("the output", agents.run("true")), async {
        answer(command_in(&mut server, "cilium-b").await, "here").await;
    });
    assert_eq!(outputs.unwrap()["worker"], "here\n");
}

/// While an agent restarts, what it has realised is not known: leaving it out would call a change
/// realised that is not.
#[tokio::test]
async fn an_agent_that_is_away_is_not_forgotten() {
    let mut server = Server::start().await;
    let agents = found(&mut server, &[("worker", "cilium-a"), ("worker2", "cilium-b")]).await;
    for _ in 0..2 {
        let (failed, ()) = tokio::join!(soon("the failure", agents.run("true")), async {
            let both = [server.next().await, server.next().await];
            for asked in both {
                if pod(&asked) == "cilium-a" {
                    refuse(asked);
                }
            }
            list_agents(&mut server, &[("worker2", "cilium-b")]).await;
        });
        assert!(matches!(failed, Err(CiliumError::Exec(_))), "{failed:?}");
    }
}

async fn heard(records: &mut broadcast::Receiver<Witness>) -> Witness {
    soon("a record", records.recv()).await.unwrap()
}

async fn gap(records: &mut broadcast::Receiver<Witness>) -> String {
    match heard(records).await {
        Witness::Gap { reason } => reason,
        Witness::Spoke(evidence) => panic!("a record in place of a gap: {evidence:?}"),
    }
}

async fn spoken(records: &mut broadcast::Receiver<Witness>) -> Arc<Evidence> {
    match heard(records).await {
        Witness::Spoke(evidence) => evidence,
        Witness::Gap { reason } => panic!("a gap in place of a record: {reason}"),
    }
}

/// The observers of one node, what they say, and the stream of its agent.
async fn observed(server: &mut Server) -> (Observers, broadcast::Receiver<Witness>, Remote) {
    let agents = found(server, &[("worker", "cilium-a")]).await;
    let observers = agents.observe().await;
    let records = observers.subscribe();
    let remote = command_in(server, "cilium-a").await.run().await;
    (observers, records, remote)
}

#[tokio::test]
async fn a_recorded_drop_is_evidence_however_the_stream_is_cut() {
    let mut server = Server::start().await;
    let (_observers, mut records, mut remote) = observed(&mut server).await;
    for piece in DROPPED.as_bytes().chunks(100) {
        remote.write(piece).await.unwrap();
    }
    for port in [42944, 49294] {
        let evidence = spoken(&mut records).await;
        assert_eq!(evidence.flow.source.port(), port);
        assert_eq!(evidence.node, "ztc-bench-worker");
        assert_eq!(evidence.record.flow.drop_reason, Some(POLICY_DENIED));
    }
}

#[tokio::test]
async fn lost_records_and_garbage_are_gaps_and_the_stream_goes_on() {
    let mut server = Server::start().await;
    let (_observers, mut records, mut remote) = observed(&mut server).await;
    let first = DROPPED.lines().next().unwrap();
    let lines = format!("{LOST}\nfailed to connect\n{{\"node_status\":{{}}}}\n{first}\n");
    remote.write(lines.as_bytes()).await.unwrap();
    assert_eq!(gap(&mut records).await, "flows on worker: Hubble lost 7 records");
    let reason = gap(&mut records).await;
    assert!(
        reason.contains("cannot be read") && reason.ends_with(": failed to connect"),
        "{reason}"
    );
    assert_eq!(spoken(&mut records).await.flow.source.port(), 42944);
}

#[tokio::test]
async fn a_stream_that_breaks_is_a_gap_and_is_opened_again_with_the_agent_of_then() {
    let mut server = Server::start().await;
    let (_observers, mut records, remote) = observed(&mut server).await;
    remote.reset();
    assert_eq!(gap(&mut records).await, "flows on worker: the stream ended");
    list_agents(&mut server, &[("worker", "cilium-b")]).await;

    refuse(command_in(&mut server, "cilium-b").await);
    let reason = gap(&mut records).await;
    assert!(reason.contains("cannot run `hubble observe"), "{reason}");
    list_agents(&mut server, &[("worker", "cilium-c")]).await;

    let mut remote = command_in(&mut server, "cilium-c").await.run().await;
    remote.write(DROPPED.as_bytes()).await.unwrap();
    assert_eq!(spoken(&mut records).await.flow.source.port(), 42944);
}

#[tokio::test]
async fn a_line_without_end_is_a_gap_and_the_stream_is_opened_again() {
    let mut server = Server::start().await;
    let (_observers, mut records, mut remote) = observed(&mut server).await;
    let line = vec![b'.'; ztc_wire::MAX_LINE + 1];
    remote.write(&line).await.unwrap();
    let reason = gap(&mut records).await;
    assert!(reason.starts_with("flows on worker: "), "{reason}");
    assert_eq!(gap(&mut records).await, "flows on worker: the stream ended");
    remote.abandoned().await;
    list_agents(&mut server, &[("worker", "cilium-a")]).await;
    command_in(&mut server, "cilium-a").await;
}

#[tokio::test]
async fn observers_that_are_dropped_end_their_streams() {
    let mut server = Server::start().await;
    let (observers, _records, mut remote) = observed(&mut server).await;
    drop(observers);
    remote.abandoned().await;
}
