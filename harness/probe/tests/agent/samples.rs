//! Samples keep their pace, are told of once and in order, and survive a session that breaks.

use std::net::SocketAddr;

use crate::support::{Agent, Session, free_ports, loopback, target};
use ztc_wire::{Event, FromAgent, Observed, RunId, Service, Stimulus, Stretch, ToAgent};

const ID: RunId = RunId(7);

fn sample(stimulus: Stimulus) -> ToAgent {
    ToAgent::Sample { id: ID, every_us: 2000, deadline_ms: 500, stimulus }
}

fn tcp(to: SocketAddr) -> Stimulus {
    Stimulus::Tcp { to: target(to) }
}

/// The next word of the samples, and its number.
async fn told(session: &mut Session) -> (Vec<Stretch>, bool, u64) {
    loop {
        match session.next().await {
            Some(FromAgent::Said {
                seq,
                event: Event::Sampled { id: ID, stretches, over },
                ..
            }) => {
                return (stretches, over, seq);
            }
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}

/// Everything that is told from here on.
async fn rest(session: &mut Session) -> Vec<Stretch> {
    let mut all = Vec::new();
    loop {
        let (stretches, over, _) = told(session).await;
        all.extend(stretches);
        if over {
            return all;
        }
    }
}

#[tokio::test]
async fn samples_are_new_connections_each_told_of_once_and_in_order() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }]);
    let mut session = agent.attach(0).await;
    session.send(&sample(tcp(loopback(port)))).await;
    let (mut all, _, _) = told(&mut session).await;
    session.send(&ToAgent::Cancel { id: ID }).await;
    all.extend(rest(&mut session).await);
    let count: u64 = all.iter().map(|it| it.count).sum();
    assert!(count > 1, "{all:?}");
    for stretch in &all {
        assert!(matches!(stretch.seen, Observed::Reply { .. }), "{stretch:?}");
        assert!(stretch.first.at_us <= stretch.last.at_us, "{stretch:?}");
    }
    assert!(all.is_sorted_by_key(|it| it.first.at_us), "{all:?}");
    let ends = [all[0].first.local.unwrap(), all[all.len() - 1].last.local.unwrap()];
    assert_ne!(ends[0], ends[1], "each has a socket of its own");
}

#[tokio::test]
async fn a_session_that_breaks_loses_no_sample() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }]);
    let mut session = agent.attach(0).await;
    session.send(&sample(tcp(loopback(port)))).await;
    let (_, _, heard) = told(&mut session).await;
    drop(session);
    let mut session = agent.attach(heard).await;
    let (stretches, _, next) = told(&mut session).await;
    assert_eq!(next, heard + 1);
    assert!(!stretches.is_empty(), "it went on by itself");
    session.send(&ToAgent::Cancel { id: ID }).await;
    rest(&mut session).await;
}

#[tokio::test]
async fn a_connection_that_goes_on_has_one_port() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }]);
    let mut session = agent.attach(0).await;
    session.send(&sample(Stimulus::TcpFlow { to: target(loopback(port)) })).await;
    told(&mut session).await;
    session.send(&ToAgent::Cancel { id: ID }).await;
    let all = rest(&mut session).await;
    let mut ports: Vec<_> = all.iter().flat_map(|it| [it.first.local, it.last.local]).collect();
    ports.dedup();
    assert!(ports.len() <= 1, "{all:?}");
}

#[tokio::test]
async fn what_nobody_answers_is_given_up_at_its_deadline() {
    // A socket that listens and whose queue is never read: it is accepted by the kernel, and nobody answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.send(&sample(tcp(mute.local_addr().unwrap()))).await;
    let (stretches, _, _) = told(&mut session).await;
    assert!(matches!(stretches[0].seen, Observed::Timeout { .. }), "{stretches:?}");
    assert!(stretches[0].slowest_us >= 500_000, "{stretches:?}");
    session.send(&ToAgent::Cancel { id: ID }).await;
    rest(&mut session).await;
}
