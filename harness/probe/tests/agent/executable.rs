//! `ztc-probe` as a pod runs it: one process is the agent, another one bridges to it.

use std::process::Stdio;

use crate::support::{CEILING, NAME, free_ports, loopback, target};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use ztc_wire::{
    AGENT_ENV, AgentConfig, Event, FromAgent, PROTOCOL, RunId, Service, Stimulus, ToAgent, decode,
    encode,
};

fn executable() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztc-probe"));
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn an_exec_session_reaches_the_agent_of_its_pod() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("agent.sock");
    let [port] = free_ports();
    let config = AgentConfig {
        name: NAME.into(),
        socket: socket.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        serve: vec![Service::Tcp { port }],
        tls: None,
        first: vec![],
    };
    let environment = config.to_json().unwrap();
    let mut agent = executable().env(AGENT_ENV, &environment).spawn().unwrap();
    timeout(CEILING, async {
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();

    // The environment is the container's, so the bridge sees the variable too.
    let mut bridge = executable();
    bridge.env(AGENT_ENV, &environment).arg("attach").arg("--socket").arg(&socket);
    let mut bridge = bridge.spawn().unwrap();
    let mut stdin = bridge.stdin.take().unwrap();
    let mut lines = BufReader::new(bridge.stdout.take().unwrap()).lines();
    let stimulus = Stimulus::Tcp { to: target(loopback(port)) };
    for message in [
        ToAgent::Attach { protocol: PROTOCOL, after: 0 },
        ToAgent::Run { id: RunId(1), deadline_ms: 5_000, stimulus, canary: None },
    ] {
        stdin.write_all(&encode(&message)).await.unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        let line = timeout(CEILING, lines.next_line()).await.unwrap().unwrap().unwrap();
        heard.push(decode::<FromAgent>(line.as_bytes()).unwrap());
    }
    let [
        FromAgent::Hello { name, .. },
        FromAgent::Said { event: Event::Started { .. }, .. },
        FromAgent::Said { event: Event::Observed { observed, .. }, .. },
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((name.as_str(), observed.peer()), (NAME, Some(NAME)));

    // The agent ends the session, and the bridge does not wait for more of its own stdin.
    stdin.write_all(&encode(&ToAgent::Bye)).await.unwrap();
    assert!(timeout(CEILING, bridge.wait()).await.unwrap().unwrap().success());

    let pid = Pid::from_raw(agent.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(timeout(CEILING, agent.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn an_agent_that_cannot_start_says_why() {
    let output = executable().env(AGENT_ENV, "{}").output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("read the configuration") && words.contains("missing field"), "{words}");
}

#[tokio::test]
async fn neither_a_command_nor_a_configuration_is_wrong_usage() {
    let output = executable().env_remove(AGENT_ENV).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}
