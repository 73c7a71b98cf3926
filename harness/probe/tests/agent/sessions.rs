//! Sessions break, come back and misbehave; the agent and its spool go on.

use std::net::SocketAddr;

use crate::support::{Agent, CEILING, NAME, free_ports, loopback, target};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;
use ztc_probe::AgentError;
use ztc_wire::{
    AgentConfig, Event, FirstRun, FromAgent, MAX_LINE, Observed, PROTOCOL, RunId, Service,
    Stimulus, ToAgent,
};

fn udp(to: SocketAddr) -> Stimulus {
    Stimulus::Udp { to: target(to) }
}

#[tokio::test]
async fn hello_tells_who_is_there() {
    let mut agent = Agent::start(vec![]);
    let mut incarnations = Vec::new();
    for _ in 0..2 {
        let mut session = agent.connect().await;
        session.send(&ToAgent::Attach { protocol: PROTOCOL, after: 0 }).await;
        let Some(FromAgent::Hello { protocol, name, addresses, incarnation, .. }) =
            session.next().await
        else {
            panic!("no hello")
        };
        assert_eq!((protocol, name.as_str()), (PROTOCOL, NAME));
        assert!(addresses.iter().all(|address| !address.is_loopback()), "{addresses:?}");
        incarnations.push(incarnation);
    }
    assert_eq!(incarnations[0], incarnations[1], "the same agent");
}

#[tokio::test]
async fn another_protocol_is_rejected() {
    let mut agent = Agent::start(vec![]);
    let mut session = agent.connect().await;
    session.send(&ToAgent::Attach { protocol: PROTOCOL + 1, after: 0 }).await;
    assert!(session.rejection().await.contains(&format!("protocol {}", PROTOCOL + 1)));
}

#[tokio::test]
async fn a_session_that_does_not_attach_first_is_rejected() {
    let mut agent = Agent::start(vec![]);
    let mut session = agent.connect().await;
    session.send(&ToAgent::Ack { seq: 0 }).await;
    assert!(session.rejection().await.contains("attach"));
}

#[tokio::test]
async fn garbage_ends_its_own_session_only() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Udp { port }]);
    let mut good = agent.attach(0).await;
    for garbage in [&b"GET / HTTP/1.1\n"[..], &vec![b'x'; MAX_LINE + 1]] {
        let mut bad = agent.attach(0).await;
        bad.send_bytes(garbage).await;
        assert!(!bad.rejection().await.is_empty());
    }
    assert_eq!(good.observe(1, udp(loopback(port))).await.observed.peer(), Some(NAME));
}

#[tokio::test]
async fn a_broken_session_loses_nothing_and_says_nothing_twice() {
    const RUNS: u64 = 50;
    const EVENTS: usize = 100;
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }]);
    let mut session = agent.attach(0).await;
    for id in 1..=RUNS {
        session.run(id, 5_000, Stimulus::Tcp { to: target(loopback(port)) }).await;
    }
    // Every session reads a few entries and breaks; `Session` asserts that the numbers go on.
    let mut events = Vec::new();
    while events.len() < EVENTS {
        for _ in 0..7.min(EVENTS - events.len()) {
            events.push(session.event().await);
        }
        let after = session.last;
        drop(session);
        session = agent.attach(after).await;
    }
    for run in (1..=RUNS).map(RunId) {
        let of_run = |event: &&Event| matches!(event, Event::Started { id, .. } | Event::Observed { id, .. } if *id == run);
        let [Event::Started { .. }, Event::Observed { observed, .. }] =
            events.iter().filter(of_run).collect::<Vec<_>>()[..]
        else {
            panic!("{run:?}")
        };
        assert_eq!(observed.peer(), Some(NAME));
    }
}

#[tokio::test]
async fn acknowledged_entries_are_not_said_again() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Udp { port }]);
    let mut session = agent.attach(0).await;
    session.observe(1, udp(loopback(port))).await;
    session.send(&ToAgent::Ack { seq: 1 }).await;
    // The answer to the next run proves that the acknowledgement was read.
    session.observe(2, udp(loopback(port))).await;
    session.send(&ToAgent::Bye).await;
    assert_eq!(session.next().await, None);

    let mut session = agent.attach(0).await;
    session.last = 1;
    assert!(matches!(session.event().await, Event::Observed { id: RunId(1), .. }));
    assert!(matches!(session.event().await, Event::Started { id: RunId(2), .. }));
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_said_is_rejected() {
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.send(&ToAgent::Ack { seq: 1 }).await;
    assert!(session.rejection().await.contains("acknowledged"));
}

#[tokio::test]
async fn a_number_that_is_under_way_is_rejected() {
    let silent = UdpSocket::bind(loopback(0)).await.unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.run(1, 60_000, udp(silent.local_addr().unwrap())).await;
    session.event().await;
    session.run(1, 60_000, udp(silent.local_addr().unwrap())).await;
    assert!(session.rejection().await.contains("run 1"));
}

#[tokio::test]
async fn two_sessions_hear_the_same() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Udp { port }]);
    let [mut one, mut other] = [agent.attach(0).await, agent.attach(0).await];
    one.run(1, 5_000, udp(loopback(port))).await;
    assert_eq!(one.ended(1).await.observed, other.ended(1).await.observed);
}

#[tokio::test]
async fn first_runs_are_sent_before_anybody_attaches() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let to = target(listener.local_addr().unwrap());
    let first =
        vec![FirstRun { id: RunId(9), deadline_ms: 60_000, stimulus: Stimulus::Tcp { to } }];
    let mut agent = Agent::start_with(vec![], first, "");
    let (stream, client) = timeout(CEILING, listener.accept()).await.unwrap().unwrap();
    drop(stream);
    let mut session = agent.attach(0).await;
    let run = session.ended(9).await;
    assert_eq!(run.started[0].1, client);
    assert!(matches!(run.observed, Observed::Closed { .. }), "{run:?}");
}

#[tokio::test]
async fn too_many_runs_at_once_are_refused_and_each_says_so() {
    const MAX_RUNS: u64 = 4096;
    let silent = UdpSocket::bind(loopback(0)).await.unwrap();
    let to = silent.local_addr().unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    for id in 0..=MAX_RUNS {
        session.run(id, 60_000, udp(to)).await;
    }
    let run = session.ended(MAX_RUNS).await;
    assert!(matches!(run.observed, Observed::Unsent { .. }), "{run:?}");
    session.send(&ToAgent::Cancel { id: RunId(0) }).await;
    session.ended(0).await;
    session.run(MAX_RUNS + 1, 50, udp(to)).await;
    let run = session.ended(MAX_RUNS + 1).await;
    assert!(matches!(run.observed, Observed::Timeout { .. }), "{run:?}");
}

#[tokio::test]
async fn an_agent_without_its_port_does_not_start() {
    let taken = TcpListener::bind(loopback(0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = AgentConfig {
        name: NAME.into(),
        socket: "/nowhere".into(),
        resolv_conf: "/nowhere".into(),
        serve: vec![Service::Tcp { port }],
        tls: None,
        first: vec![],
    };
    let error = ztc_probe::run(config).await.unwrap_err();
    let AgentError::Serve(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.to_string(), format!("bind TCP port {port}"));
}
