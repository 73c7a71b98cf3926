//! TLS as clients and servers speak it: who is believed, and what is seen when it goes wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use ztc_wire::{
    Family, Host, Leg, Observed, Phase, Service, Stimulus, Target, Tls, Zone, ZoneRecord,
};

use crate::support::{Agent, Authority, NAME, free_ports, loopback, target};

impl Authority {
    fn client(&self) -> Tls {
        Tls { authority: self.certificate.clone(), shows: None }
    }

    /// For these names and for the address of loopback.
    fn server(&self, names: &[&str]) -> Tls {
        self.server_that(names, |_| {})
    }

    fn server_that(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Tls {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let shows = Some(self.issue(&params));
        Tls { authority: self.certificate.clone(), shows }
    }
}

fn tls(to: SocketAddr) -> Stimulus {
    Stimulus::Tls { to: target(to) }
}

fn get(to: Target) -> Stimulus {
    let headers = BTreeMap::new();
    Stimulus::Http { tls: true, method: "GET".into(), to, path: "/balance".into(), headers }
}

fn named(name: &str, port: u16) -> Target {
    Target { host: Host::Name(name.into()), port, family: Some(Family::Ipv4) }
}

/// What a client sees of a server that hears its hello, says these bytes and closes.
async fn observed_of_a_server_that_says(
    says: &'static [u8],
    stimulus: fn(SocketAddr) -> Stimulus,
) -> Observed {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        assert_ne!(stream.read(&mut hello).await.unwrap(), 0);
        stream.write_all(says).await.unwrap();
    });
    let mut agent = Agent::start_over_tls(vec![], Authority::new().client(), "");
    agent.observe(stimulus(address)).await.observed
}

#[tokio::test]
async fn a_server_is_believed_by_its_address_and_names_itself() {
    let [port] = free_ports();
    let serve = vec![Service::Tls { port }];
    let mut agent = Agent::start_over_tls(serve, Authority::new().server(&[]), "");
    let run = agent.observe(tls(loopback(port))).await;
    assert_eq!(run.observed, Observed::Reply { peer: NAME.into(), remote: loopback(port) });
    assert_eq!(run.started.len(), 1, "one socket for handshake and words");
    assert_eq!((run.started[0].0, run.started[0].2), (Leg::Send, loopback(port)));
}

/// An agent that serves both over TLS, and DNS for its names.
struct Named {
    agent: Agent,
    tls: u16,
    https: u16,
}

fn named_agent(names: &[&str], tls: Tls) -> Named {
    let [dns, echo, https] = free_ports();
    let address = [127, 0, 0, 1].into();
    let record = |name: &&str| ZoneRecord { name: (*name).to_owned(), address, ttl: 5 };
    let zone = Zone { records: names.iter().map(record).collect(), aliases: vec![] };
    let serve = vec![
        Service::Tls { port: echo },
        Service::Https { port: https },
        Service::Dns { port: dns, zone },
    ];
    let resolv_conf = format!("nameserver [127.0.0.1]:{dns}\n");
    Named { agent: Agent::start_over_tls(serve, tls, &resolv_conf), tls: echo, https }
}

#[tokio::test]
async fn an_https_server_is_believed_by_each_of_its_names() {
    let names = ["api.zt.test", "also.zt.test"];
    let Named { mut agent, https, .. } = named_agent(&names, Authority::new().server(&names));
    for (id, name) in [(1, "api.zt.test"), (2, "also.zt.test.")] {
        let mut session = agent.attach(0).await;
        let run = session.observe(id, get(named(name, https))).await;
        let Observed::Http { status: 200, peer, body, .. } = &run.observed else {
            panic!("{run:?}")
        };
        assert_eq!(peer.as_deref(), Some(NAME));
        assert!(body.contains("/balance"), "{body}");
    }
}

#[tokio::test]
async fn a_certificate_for_other_names_is_told_with_them() {
    let Named { mut agent, tls, https } =
        named_agent(&["api.zt.test"], Authority::new().server(&["tenant.zt.test"]));
    let seen = Observed::WrongName { names: vec!["tenant.zt.test".into(), "127.0.0.1".into()] };
    let mut session = agent.attach(0).await;
    let over_tls = Stimulus::Tls { to: named("api.zt.test", tls) };
    assert_eq!(session.observe(1, over_tls).await.observed, seen);
    assert_eq!(session.observe(2, get(named("api.zt.test", https))).await.observed, seen);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_believed_whatever_its_names() {
    let [port] = free_ports();
    let serve = vec![Service::Tls { port }];
    let mut server = Agent::start_over_tls(serve, Authority::new().server(&[]), "");
    server.attach(0).await;
    let mut client = Agent::start_over_tls(vec![], Authority::new().client(), "");
    let observed = client.observe(tls(loopback(port))).await.observed;
    assert!(matches!(observed, Observed::Untrusted { .. }), "{observed:?}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_not_believed() {
    let [port] = free_ports();
    let expired =
        Authority::new().server_that(&[], |params| params.not_after = date_time_ymd(2001, 1, 1));
    let mut agent = Agent::start_over_tls(vec![Service::Tls { port }], expired, "");
    let observed = agent.observe(tls(loopback(port))).await.observed;
    assert!(
        matches!(&observed, Observed::Untrusted { error } if error.contains("expired")),
        "{observed:?}"
    );
}

#[tokio::test]
async fn an_alert_is_told_with_its_description() {
    // A record of type 21 with a fatal alert (RFC 8446 §5.1 and §6).
    let handshake_failure = b"\x15\x03\x03\x00\x02\x02\x28";
    let observed = observed_of_a_server_that_says(handshake_failure, tls).await;
    assert_eq!(observed, Observed::TlsAlert { description: "handshake_failure".into() });
    let unrecognised_name = b"\x15\x03\x03\x00\x02\x02\x70";
    let observed = observed_of_a_server_that_says(unrecognised_name, |to| get(target(to))).await;
    assert_eq!(observed, Observed::TlsAlert { description: "unrecognized_name".into() });
}

#[tokio::test]
async fn a_handshake_that_is_cut_is_no_answer_that_ended() {
    let observed = observed_of_a_server_that_says(b"", tls).await;
    assert_eq!(observed, Observed::HandshakeCut { reset: false });

    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.set_zero_linger().unwrap();
    });
    let mut agent = Agent::start_over_tls(vec![], Authority::new().client(), "");
    let observed = agent.observe(tls(address)).await.observed;
    assert_eq!(observed, Observed::HandshakeCut { reset: true });
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_told_by_its_words() {
    let observed = observed_of_a_server_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n", tls).await;
    let Observed::Garbled { got } = &observed else { panic!("{observed:?}") };
    assert!(got.starts_with("HTTP/1.1 400"), "{got}");
}

#[tokio::test]
async fn words_inside_of_tls_that_are_not_ours_are_garbled() {
    let Named { mut agent, https, .. } = named_agent(&[], Authority::new().server(&[]));
    let observed = agent.observe(tls(loopback(https))).await.observed;
    let Observed::Garbled { got } = &observed else { panic!("{observed:?}") };
    assert!(got.starts_with("HTTP/1.1 400"), "{got}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_waited_for_in_the_handshake() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut agent = Agent::start_over_tls(vec![], Authority::new().client(), "");
    let mut session = agent.attach(0).await;
    session.run(1, 300, tls(address)).await;
    assert_eq!(session.ended(1).await.observed, Observed::Timeout { phase: Phase::Handshake });
    drop(listener);
}

#[tokio::test]
async fn a_client_that_knows_no_authority_sends_nothing() {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let run = Agent::start(vec![]).observe(tls(address)).await;
    assert!(matches!(run.observed, Observed::Unsent { .. }) && run.started.is_empty(), "{run:?}");
}

#[tokio::test]
async fn an_agent_without_a_certificate_does_not_serve_in_plain_instead() {
    let [port] = free_ports();
    let client = Authority::new().client();
    let error = Agent::start_over_tls(vec![Service::Https { port }], client, "").error().await;
    assert!(error.contains(&format!("port {port}")), "{error}");
}
