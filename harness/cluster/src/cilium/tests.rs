//! Agents that are asked, that restart, and that are not there.

use super::*;
use crate::standin::{Asked, Remote, Server, soon};

/// A pod of an agent, as a list has it.
fn agent(node: &str, pod: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": { "namespace": NAMESPACE, "name": pod },
        "spec": { "nodeName": node, "containers": [] },
    })
}

/// Answers a list of the agents.
pub(crate) async fn list_agents(server: &mut Server, agents: &[(&str, &str)]) {
    let asked = server.next().await;
    assert_eq!(asked.path(), "/api/v1/namespaces/kube-system/pods");
    assert_eq!(asked.parameter("fieldSelector"), Some("status.phase%3DRunning"));
    let agents: Vec<_> = agents.iter().map(|(node, pod)| agent(node, pod)).collect();
    asked.list("10", &agents);
}

pub(crate) async fn found(server: &mut Server, agents: &[(&str, &str)]) -> Agents {
    let client = server.client();
    let (found, ()) = tokio::join!(Agents::find(client), list_agents(server, agents));
    found.unwrap()
}

/// The pod in which a command is to run.
pub(crate) fn pod(asked: &Asked) -> &str {
    let path = asked.path().strip_prefix("/api/v1/namespaces/kube-system/pods/");
    path.and_then(|it| it.strip_suffix("/exec")).unwrap_or_else(|| panic!("{}", asked.path()))
}

/// Takes the request for a command in that pod.
pub(crate) async fn command_in(server: &mut Server, name: &str) -> Asked {
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

/// Answers how many flows Hubble keeps.
pub(crate) async fn keep_flows(server: &mut Server, pod: &str, count: u64) {
    let mut remote = command_in(server, pod).await.run().await;
    let status = format!(r#"{{"num_flows":"{count}","max_flows":"4095","version":"cilium"}}"#);
    remote.write(format!("{status}\nztc-end:0\n").as_bytes()).await.unwrap();
    remote.succeed().await;
}

pub(crate) fn refuse(asked: Asked) {
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
