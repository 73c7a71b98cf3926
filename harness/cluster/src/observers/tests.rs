//! Streams that break or bring nonsense.

use tokio::sync::broadcast::Receiver;
use ztc_model::evidence::Record;
use ztc_model::hubble::POLICY_DENIED;

use super::*;
use crate::cilium::tests::{command_in, found, keep_flows, list_agents, refuse};
use crate::standin::{Events, Remote, Server, soon};

/// Two records of packets that no rule allowed, as Hubble wrote them.
const DROPPED: &str = include_str!("../../tests/facts/hubble-dropped.jsonl");

const LOST: &str = r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"}}"#;

async fn heard(records: &mut Receiver<Witness>) -> Witness {
    soon("a record", records.recv()).await.unwrap()
}

async fn gap(records: &mut Receiver<Witness>) -> String {
    match heard(records).await {
        Witness::Gap { reason } => reason,
        Witness::Spoke(evidence) => panic!("a record in place of a gap: {evidence:?}"),
    }
}

async fn spoken(records: &mut Receiver<Witness>) -> Arc<Evidence> {
    match heard(records).await {
        Witness::Spoke(evidence) => evidence,
        Witness::Gap { reason } => panic!("a gap in place of a record: {reason}"),
    }
}

/// The observers of one node, what they say, and the stream of its agent.
async fn observed(server: &mut Server) -> (Observers, Receiver<Witness>, Remote) {
    let agents = found(server, &[("worker", "cilium-a")]).await;
    let observers = Observers::start(&agents, None, Vec::new()).await;
    let records = observers.subscribe();
    let remote = followed(server, "cilium-a").await;
    (observers, records, remote)
}

/// The stream of an agent whose Hubble has kept some flows.
async fn followed(server: &mut Server, pod: &str) -> Remote {
    keep_flows(server, pod, 2).await;
    let asked = command_in(server, pod).await;
    assert_eq!(asked.parameter("command"), Some("hubble"));
    asked.run().await
}

/// A stream that is opened on an empty ring stays silent until the ring is full, and nobody would know.
#[tokio::test]
async fn a_hubble_that_has_kept_too_few_flows_is_not_followed_yet_and_not_heard() {
    let mut server = Server::start().await;
    let agents = found(&mut server, &[("worker", "cilium-a")]).await;
    let observers = Observers::start(&agents, None, Vec::new()).await;
    let mut records = observers.subscribe();
    keep_flows(&mut server, "cilium-a", 1).await;
    let reason = gap(&mut records).await;
    assert!(reason.contains("has kept 1 flows so far"), "{reason}");
    assert!(observers.unheard_flows().is_some());
    list_agents(&mut server, &[("worker", "cilium-a")]).await;
    let mut remote = followed(&mut server, "cilium-a").await;
    remote.write(DROPPED.as_bytes()).await.unwrap();
    assert_eq!(spoken(&mut records).await.flow.source.port(), 42944);
    assert_eq!(observers.unheard_flows(), None);
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
        let Record::Hubble(line) = &evidence.record else { panic!("{:?}", evidence.record) };
        assert_eq!(line.flow.drop_reason, Some(POLICY_DENIED));
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
    assert!(reason.contains("hubble status"), "{reason}");
    list_agents(&mut server, &[("worker", "cilium-c")]).await;

    let mut remote = followed(&mut server, "cilium-c").await;
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

/// What ztunnels wrote, one line of each kind.
const CONNECTIONS: &str = include_str!("../../tests/facts/ztunnel.jsonl");

/// Answers whoever asks for the ztunnels, then opens the log of the one there is.
async fn open_log(server: &mut Server) -> Events {
    loop {
        let asked = server.next().await;
        match asked.path() {
            "/api/v1/namespaces/istio-system/pods" => asked.list("10", &[ztunnel_pod()]),
            "/api/v1/namespaces/istio-system/pods/ztunnel-1/log" => {
                assert_eq!(asked.parameter("follow"), Some("true"));
                assert_eq!(asked.parameter("tailLines"), Some("0"));
                return asked.watch();
            }
            // The agents are of no interest here.
            _ => asked.refuse(404, "NotFound", "no such pod"),
        }
    }
}

fn ztunnel_pod() -> serde_json::Value {
    serde_json::json!({
        "metadata": { "namespace": "istio-system", "name": "ztunnel-1" },
        "spec": { "nodeName": "worker", "containers": [] },
    })
}

/// Waits for what a ztunnel says, past what is said of Hubble, which is not there.
async fn of_the_log(records: &mut Receiver<Witness>) -> Witness {
    loop {
        match heard(records).await {
            Witness::Gap { reason } if reason.starts_with("flows on") => {}
            witness => return witness,
        }
    }
}

#[tokio::test]
async fn lines_of_ztunnels_log_are_evidence_and_a_log_that_breaks_is_a_gap() {
    let mut server = Server::start().await;
    let agents = found(&mut server, &[("worker", "cilium-a")]).await;
    let ztunnels = Ztunnels::new(server.client());
    let observers = Observers::start(&agents, Some(&ztunnels), Vec::new()).await;
    let mut records = observers.subscribe();
    let log = open_log(&mut server).await;
    let (first, rest) = CONNECTIONS.split_at(700);
    log.write(first.to_owned());
    log.write(rest.to_owned());
    let about_connections = CONNECTIONS.lines().filter(|it| it.contains(r#""scope":"access""#));
    for line in about_connections {
        let Witness::Spoke(evidence) = of_the_log(&mut records).await else { panic!("{line}") };
        assert!(line.contains(&evidence.flow.source.to_string()), "{line}: {evidence:?}");
        assert_eq!(evidence.node, "worker");
    }
    log.write("not JSON\n".to_owned());
    let Witness::Gap { reason } = of_the_log(&mut records).await else { panic!("no gap") };
    assert!(reason.starts_with("ztunnel's log on worker: cannot be read"), "{reason}");
    log.tear();
    let Witness::Gap { reason } = of_the_log(&mut records).await else { panic!("no gap") };
    assert_eq!(reason, "ztunnel's log on worker: the stream ended");
    open_log(&mut server).await.write(format!("{}\n", CONNECTIONS.lines().next().unwrap()));
    assert!(matches!(of_the_log(&mut records).await, Witness::Spoke(_)));
}
