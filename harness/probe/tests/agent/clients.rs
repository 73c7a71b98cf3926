//! Every client against every kind of answer, on loopback.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::{Agent, NAME, free_ports, loopback, target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use ztc_wire::{
    DnsRcode, DnsTransport, Event, Leg, Observed, Phase, RecordType, RunId, Service, Stimulus,
    Target, ToAgent, Zone, ZoneAlias, ZoneRecord,
};

fn tcp(to: SocketAddr) -> Stimulus {
    Stimulus::Tcp { to: target(to) }
}

fn udp(to: SocketAddr) -> Stimulus {
    Stimulus::Udp { to: target(to) }
}

fn get(to: SocketAddr) -> Stimulus {
    Stimulus::Http {
        tls: false,
        method: "GET".into(),
        to: target(to),
        path: "/balance?of=me".into(),
        headers: BTreeMap::new(),
    }
}

/// Whether this process may send echo requests without a capability (icmp(7)).
fn may_ping() -> bool {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
    let [low, high] = range.split_whitespace().collect::<Vec<_>>()[..] else { return false };
    let group = rustix::process::getegid().as_raw();
    (low.parse().unwrap()..=high.parse().unwrap()).contains(&group)
}

fn dns(name: &str, record: RecordType, transport: DnsTransport, server: SocketAddr) -> Stimulus {
    Stimulus::Dns { name: name.into(), record, transport, server: Some(server) }
}

fn zone() -> Zone {
    let record = |name: &str, address: &str| ZoneRecord {
        name: name.into(),
        address: address.parse().unwrap(),
        ttl: 5,
    };
    Zone {
        records: vec![
            record("api.zt.test", "192.0.2.1"),
            record("api.zt.test.", "192.0.2.2"),
            record("six.zt.test", "2001:db8::1"),
        ],
        aliases: vec![ZoneAlias {
            name: "also.zt.test".into(),
            target: "six.zt.test".into(),
            ttl: 5,
        }],
    }
}

/// What an HTTP client sees of a server that says these bytes to anybody and closes.
async fn observed_of_a_server_that_says(
    bytes: &'static [u8],
    stimulus: fn(SocketAddr) -> Stimulus,
) -> Observed {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; 1024];
        assert_ne!(stream.read(&mut question).await.unwrap(), 0);
        stream.write_all(bytes).await.unwrap();
    });
    Agent::start(vec![]).observe(stimulus(address)).await.observed
}

#[tokio::test]
async fn a_tcp_reply_names_its_peer_and_the_start_names_the_socket() {
    let [port] = free_ports();
    let run = Agent::start(vec![Service::Tcp { port }]).observe(tcp(loopback(port))).await;
    let [(Leg::Send, local, remote)] = run.started[..] else { panic!("{run:?}") };
    assert_eq!((local.ip(), remote), (loopback(0).ip(), loopback(port)));
    assert!((15_100..=60_999).contains(&local.port()), "{local}");
    assert_eq!(run.observed, Observed::Reply { peer: NAME.into(), remote });
}

#[tokio::test]
async fn a_tcp_server_sees_the_address_that_was_announced_and_a_reset_at_the_end() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.run(1, 5_000, tcp(listener.local_addr().unwrap())).await;
    let (mut stream, client) = listener.accept().await.unwrap();
    let Event::Started { local, .. } = session.event().await else { panic!() };
    assert_eq!(local, client);

    let mut question = [0; 38];
    stream.read_exact(&mut question).await.unwrap();
    let question = String::from_utf8(question.into()).unwrap();
    stream.write_all(question.replace('\n', " me\n").as_bytes()).await.unwrap();
    let Event::Observed { observed, .. } = session.event().await else { panic!() };
    assert_eq!(observed.peer(), Some("me"));
    let end = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_tcp_service_answers_line_after_line_until_it_hears_something_else() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }]);
    agent.attach(0).await;
    let mut stream = TcpStream::connect(loopback(port)).await.unwrap();
    stream.write_all(b"ztc1 a\nztc1 b\nGET / HTTP/1.1\n").await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers, format!("ztc1 a {NAME}\nztc1 b {NAME}\n"));
}

#[tokio::test]
async fn a_udp_reply_names_its_peer() {
    let [port] = free_ports();
    let run = Agent::start(vec![Service::Udp { port }]).observe(udp(loopback(port))).await;
    let remote = loopback(port);
    assert_eq!(run.observed, Observed::Reply { peer: NAME.into(), remote });
    assert!(matches!(run.started[..], [(Leg::Send, _, to)] if to == remote), "{run:?}");
}

#[tokio::test]
async fn services_answer_over_ipv6_where_there_is_ipv6() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Tcp { port }, Service::Udp { port }]);
    let mut session = agent.attach(0).await;
    let remote = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for (id, stimulus) in [(1, tcp(remote)), (2, udp(remote))] {
        let run = session.observe(id, stimulus).await;
        assert_eq!(run.observed, Observed::Reply { peer: NAME.into(), remote });
        assert_eq!(run.started[0].1.ip(), Ipv6Addr::LOCALHOST);
    }
}

#[tokio::test]
async fn an_echo_reply_tells_an_address_and_a_socket_that_is_refused_says_nothing() {
    let to = loopback(0).ip();
    let run = Agent::start(vec![]).observe(Stimulus::Ping { to }).await;
    if may_ping() {
        assert_eq!(run.observed, Observed::Echo { remote: to });
        assert!(matches!(run.started[..], [(Leg::Send, local, remote)]
            if local.ip() == to && local.port() != 0 && remote.ip() == to));
    } else {
        assert!(matches!(run.observed, Observed::Unsent { .. }), "{run:?}");
        assert!(run.started.is_empty());
    }
}

#[tokio::test]
async fn an_http_response_carries_status_peer_server_and_body() {
    let [port] = free_ports();
    let run = Agent::start(vec![Service::Http { port }]).observe(get(loopback(port))).await;
    assert_eq!(
        run.observed,
        Observed::Http {
            status: 200,
            peer: Some(NAME.into()),
            server: Some("ztc-probe".into()),
            body: format!(r#"{{"peer":"{NAME}","method":"GET","path":"/balance?of=me"}}"#),
            remote: loopback(port),
        }
    );
}

#[tokio::test]
async fn an_http_response_without_our_nonce_has_no_peer() {
    let response = b"HTTP/1.1 403 Forbidden\r\nserver: istio-envoy\r\nx-ztc-peer: liar\r\n\
                     x-ztc-nonce: 0\r\ncontent-length: 19\r\n\r\nRBAC: access denied";
    let observed = observed_of_a_server_that_says(response, get).await;
    let Observed::Http { status: 403, peer: None, server, body, .. } = observed else {
        panic!("{observed:?}")
    };
    assert_eq!((server.as_deref(), body.as_str()), (Some("istio-envoy"), "RBAC: access denied"));
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_unsay_the_status() {
    let response = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 100\r\n\r\nupstream";
    let observed = observed_of_a_server_that_says(response, get).await;
    assert!(
        matches!(&observed, Observed::Http { status: 503, body, .. } if body == "upstream"),
        "{observed:?}"
    );
}

#[tokio::test]
async fn words_that_are_not_ours_are_garbled() {
    let ssh = b"SSH-2.0-OpenSSH_9.9\r\n";
    for stimulus in [tcp, get] {
        let observed = observed_of_a_server_that_says(ssh, stimulus).await;
        assert_eq!(observed, Observed::Garbled { got: "SSH-2.0-OpenSSH_9.9\r\n".into() });
    }
}

#[tokio::test]
async fn another_nonce_is_garbled() {
    let observed = observed_of_a_server_that_says(b"ztc1 0 peer\n", tcp).await;
    assert_eq!(observed, Observed::Garbled { got: "ztc1 0 peer\n".into() });
}

#[tokio::test]
async fn an_end_before_the_answer_is_closed() {
    for stimulus in [tcp, get] {
        let observed = observed_of_a_server_that_says(b"", stimulus).await;
        assert_eq!(observed, Observed::Closed { reset: false });
    }
}

#[tokio::test]
async fn a_reset_before_the_answer_is_told_as_one() {
    for stimulus in [tcp, get] {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_zero_linger().unwrap();
        });
        let run = Agent::start(vec![]).observe(stimulus(address)).await;
        assert_eq!(run.observed, Observed::Closed { reset: true });
    }
}

#[tokio::test]
async fn a_port_without_a_listener_refuses() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    let to = loopback(port);
    let query = |transport| dns("zt.test", RecordType::A, transport, to);
    let all = [tcp(to), udp(to), get(to), query(DnsTransport::Udp), query(DnsTransport::Tcp)];
    for (id, stimulus) in (1..).zip(all) {
        let run = session.observe(id, stimulus).await;
        assert_eq!(run.observed, Observed::Refused, "{run:?}");
        assert_eq!(run.started.len(), 1);
    }
}

#[tokio::test]
async fn a_datagram_with_another_nonce_is_garbled() {
    let server = UdpSocket::bind(loopback(0)).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let (_, client) = server.recv_from(&mut [0; 64]).await.unwrap();
        server.send_to(b"ztc1 0 peer\n", client).await.unwrap();
    });
    let run = Agent::start(vec![]).observe(udp(address)).await;
    assert_eq!(run.observed, Observed::Garbled { got: "ztc1 0 peer\n".into() });
}

#[tokio::test]
async fn silence_is_a_time_out_at_the_deadline() {
    let silent = UdpSocket::bind(loopback(0)).await.unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    let sent = Instant::now();
    session.run(1, 150, udp(silent.local_addr().unwrap())).await;
    let run = session.ended(1).await;
    assert_eq!(run.observed, Observed::Timeout { phase: Phase::Reply });
    let took = sent.elapsed();
    assert!(took >= Duration::from_millis(150), "{took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn an_accepted_connection_without_an_answer_is_cancelled_on_request() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.run(7, 60_000, tcp(listener.local_addr().unwrap())).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0, "the question has come");
    session.send(&ToAgent::Cancel { id: RunId(6) }).await;
    session.send(&ToAgent::Cancel { id: RunId(7) }).await;
    session.send(&ToAgent::Cancel { id: RunId(7) }).await;
    let run = session.ended(7).await;
    assert_eq!(run.observed, Observed::Cancelled { phase: Phase::Reply });
    assert!(stream.read(&mut [0; 1]).await.is_err(), "its socket is gone");
}

#[tokio::test]
async fn a_dns_service_answers_over_both_transports_and_tells_its_name() {
    let [port] = free_ports();
    let mut agent = Agent::start(vec![Service::Dns { port, zone: zone() }]);
    let mut session = agent.attach(0).await;
    let mut id = 0;
    for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
        for (name, record, rcode, expected) in [
            ("api.zt.test", RecordType::A, DnsRcode::NOERROR, &["192.0.2.1", "192.0.2.2"][..]),
            ("API.zt.Test.", RecordType::A, DnsRcode::NOERROR, &["192.0.2.1", "192.0.2.2"]),
            ("six.zt.test", RecordType::Aaaa, DnsRcode::NOERROR, &["2001:db8::1"]),
            ("also.zt.test", RecordType::Aaaa, DnsRcode::NOERROR, &["2001:db8::1"]),
            ("six.zt.test", RecordType::A, DnsRcode::NOERROR, &[]),
            ("no.zt.test", RecordType::A, DnsRcode::NXDOMAIN, &[]),
        ] {
            id += 1;
            let run = session.observe(id, dns(name, record, transport, loopback(port))).await;
            let Observed::Dns { rcode: said, answers, peer, remote } = run.observed else {
                panic!("{run:?}")
            };
            let mut answers: Vec<_> = answers.iter().map(ToString::to_string).collect();
            answers.sort();
            assert_eq!(
                (said, answers),
                (rcode, expected.iter().map(ToString::to_string).collect())
            );
            assert_eq!((peer.as_deref(), remote), (Some(NAME), loopback(port)));
        }
    }
}

#[tokio::test]
async fn a_dns_server_that_talks_nonsense_is_garbled() {
    let server = UdpSocket::bind(loopback(0)).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let (_, client) = server.recv_from(&mut [0; 512]).await.unwrap();
        server.send_to(b"nonsense", client).await.unwrap();
    });
    let query = dns("zt.test", RecordType::A, DnsTransport::Udp, address);
    let run = Agent::start(vec![]).observe(query).await;
    assert_eq!(run.observed, Observed::Garbled { got: "nonsense".into() });
}

#[tokio::test]
async fn a_stimulus_that_cannot_be_sent_says_nothing_about_the_network() {
    let stimulus = Stimulus::Http {
        tls: false,
        method: "GE T".into(),
        to: target(loopback(1)),
        path: "/".into(),
        headers: BTreeMap::new(),
    };
    let run = Agent::start(vec![]).observe(stimulus).await;
    assert!(matches!(run.observed, Observed::Unsent { .. }), "{run:?}");
    assert!(run.started.is_empty());
}

/// Asks one place three times and another in between, in flows; the ports that the questions left from.
async fn ports_of_flows(serves: fn(u16) -> Service, asks: fn(Target) -> Stimulus) -> Vec<u16> {
    let [port, other] = free_ports();
    let mut agent = Agent::start(vec![serves(port), serves(other)]);
    let mut session = agent.attach(0).await;
    let mut ports = Vec::new();
    for (id, to) in [(1, port), (2, port), (3, other), (4, port)] {
        let run = session.observe(id, asks(target(loopback(to)))).await;
        let expected = Observed::Reply { peer: NAME.into(), remote: loopback(to) };
        assert_eq!(run.observed, expected);
        let [(Leg::Send, local, _)] = run.started[..] else { panic!("{run:?}") };
        ports.push(local.port());
    }
    ports
}

#[tokio::test]
async fn a_flow_keeps_its_port_and_answers_find_who_asked() {
    let ports = ports_of_flows(|port| Service::Udp { port }, |to| Stimulus::UdpFlow { to }).await;
    assert!(ports[0] == ports[1] && ports[1] == ports[3], "{ports:?}");
    assert_ne!(ports[0], ports[2], "another destination is another flow");
}

#[tokio::test]
async fn a_question_of_a_flow_that_nobody_answers_times_out_and_the_next_is_answered() {
    let server = UdpSocket::bind(loopback(0)).await.unwrap();
    let stimulus = Stimulus::UdpFlow { to: target(server.local_addr().unwrap()) };
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    session.run(1, 100, stimulus.clone()).await;
    let mut question = [0; 64];
    let (length, client) = server.recv_from(&mut question).await.unwrap();
    let late = [question[..length].trim_ascii_end(), b" late\n"].concat();
    assert!(matches!(session.ended(1).await.observed, Observed::Timeout { .. }));
    server.send_to(&late, client).await.unwrap();

    let answer = async {
        let (length, client) = server.recv_from(&mut question).await.unwrap();
        let answer = [question[..length].trim_ascii_end(), b" server\n"].concat();
        server.send_to(&answer, client).await.unwrap();
    };
    let (run, ()) = tokio::join!(session.observe(2, stimulus), answer);
    assert!(matches!(&run.observed, Observed::Reply { peer, .. } if peer == "server"), "{run:?}");
}

#[tokio::test]
async fn a_flow_over_tcp_keeps_its_connection_and_answers_find_who_asked() {
    let ports = ports_of_flows(|port| Service::Tcp { port }, |to| Stimulus::TcpFlow { to }).await;
    assert!(ports[0] == ports[1] && ports[1] == ports[3], "{ports:?}");
    assert_ne!(ports[0], ports[2], "another destination is another connection");
}

#[tokio::test]
async fn the_end_of_a_flow_over_tcp_is_told_to_everybody_in_it_and_the_next_opens_another() {
    let server = TcpListener::bind(loopback(0)).await.unwrap();
    let stimulus = Stimulus::TcpFlow { to: target(server.local_addr().unwrap()) };
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    for id in [1, 2] {
        session.run(id, 5000, stimulus.clone()).await;
    }
    let (mut connection, first) = server.accept().await.unwrap();
    let mut questions = Vec::new();
    while questions.split(|byte| *byte == b'\n').count() <= 2 {
        connection.read_buf(&mut questions).await.unwrap();
    }
    drop(connection);
    let mut told = 0;
    while told < 2 {
        if let Event::Observed { observed, .. } = session.event().await {
            assert_eq!(observed, Observed::Closed { reset: false });
            told += 1;
        }
    }

    session.run(3, 5000, stimulus).await;
    let (mut connection, second) = server.accept().await.unwrap();
    assert_ne!(first, second);
    let mut question = vec![0; 64];
    let length = connection.read(&mut question).await.unwrap();
    let answer = [question[..length].trim_ascii_end(), b" server\n"].concat();
    connection.write_all(&answer).await.unwrap();
    let run = session.ended(3).await;
    assert!(matches!(&run.observed, Observed::Reply { peer, .. } if peer == "server"), "{run:?}");
}
