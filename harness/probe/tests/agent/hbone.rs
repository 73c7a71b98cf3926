//! Tunnels of the mesh as a client opens them: who is believed, and what is seen when one is not opened.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use rcgen::{CertificateParams, SanType, date_time_ymd};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use ztc_wire::{Certified, Der, Observed, Papers, Phase, RunId, Stimulus, ToAgent, TunnelAnswer};

use crate::support::{Agent, Authority, loopback};

const LEDGER: &str = "spiffe://cluster.local/ns/zt-bank/sa/ledger";
const TELLER: &str = "spiffe://cluster.local/ns/zt-bank/sa/teller";
const ASKED: &str = "10.244.0.7:9000";

/// The authority of a mesh.
struct Mesh(Authority);

impl Mesh {
    fn new() -> Self {
        Self(Authority::new())
    }

    fn issue(&self, identity: &str, until: i32) -> Certified {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.not_after = date_time_ymd(until, 1, 1);
        self.0.issue(&params)
    }

    /// What a client needs to meet the ledger.
    fn papers(&self, shows: Option<Certified>) -> Papers {
        Papers { authority: self.0.certificate.clone(), peer: LEDGER.into(), shows }
    }

    /// A server of tunnels, which believes this mesh and shows this; each connection is answered by `answer`.
    async fn server(
        &self,
        own: Certified,
        answer: fn(SendResponse<Bytes>, RecvStream),
    ) -> SocketAddr {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.0.certificate.0.clone())).unwrap();
        let provider = Arc::new(default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key.0));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![CertificateDer::from(own.certificate.0)], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut tunnel = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = tunnel.accept().await {
                        assert_eq!(request.uri().authority().unwrap(), ASKED);
                        answer(respond, request.into_body());
                    }
                });
            }
        });
        address
    }
}

fn opened(mut respond: SendResponse<Bytes>, mut body: RecvStream) {
    let mut sends = respond.send_response(hyper::Response::new(()), false).unwrap();
    tokio::spawn(async move {
        let question = body.data().await.unwrap().unwrap();
        let question = String::from_utf8(question.to_vec()).unwrap();
        let answer = format!("{} zt-bank/ledger\n", question.trim_end());
        // In two pieces, as it may come.
        let (one, other) = answer.split_at(7);
        sends.send_data(Bytes::copy_from_slice(one.as_bytes()), false).unwrap();
        sends.send_data(Bytes::copy_from_slice(other.as_bytes()), true).unwrap();
    });
}

fn refused(mut respond: SendResponse<Bytes>, _body: RecvStream) {
    let mut response = hyper::Response::new(());
    *response.status_mut() = hyper::StatusCode::UNAUTHORIZED;
    respond.send_response(response, true).unwrap();
}

/// Neither opened nor refused, for as long as its tunnel stands.
fn left_open(respond: SendResponse<Bytes>, body: RecvStream) {
    tokio::spawn(async move {
        let _held = (respond, body);
        std::future::pending::<()>().await;
    });
}

async fn seen(at: SocketAddr, papers: Option<Papers>) -> Observed {
    let authority = ASKED.parse().unwrap();
    Agent::start(vec![]).observe(Stimulus::Hbone { at, authority, papers }).await.observed
}

fn no_tunnel(seen: &Observed) -> (Option<&str>, &TunnelAnswer) {
    let Observed::NoTunnel { identity, answer } = seen else { panic!("{seen}") };
    (identity.as_deref(), answer)
}

#[tokio::test]
async fn a_peer_of_the_mesh_opens_a_tunnel_and_is_answered_in_it() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), opened).await;
    let seen = seen(server, Some(mesh.papers(Some(mesh.issue(TELLER, 2100))))).await;
    assert_eq!(seen, Observed::Reply { peer: "zt-bank/ledger".into(), remote: server });
}

#[tokio::test]
async fn a_status_is_told_with_who_proved_to_have_said_it() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), refused).await;
    let seen = seen(server, Some(mesh.papers(Some(mesh.issue(TELLER, 2100))))).await;
    assert_eq!(no_tunnel(&seen), (Some(LEDGER), &TunnelAnswer::Status(401)));
}

/// The alert may be lost where the server closes with bytes unread: the kernel then resets the connection.
fn is_an_end_of_tls(answer: &TunnelAnswer, alert: &str) -> bool {
    matches!(answer, TunnelAnswer::Alert(it) if it == alert)
        || matches!(answer, TunnelAnswer::Closed { .. })
}

#[tokio::test]
async fn a_client_without_a_certificate_sees_tls_end() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), opened).await;
    let seen = seen(server, Some(mesh.papers(None))).await;
    let (identity, answer) = no_tunnel(&seen);
    assert_eq!(identity, Some(LEDGER));
    assert!(is_an_end_of_tls(answer, "certificate_required"), "{answer}");
}

#[tokio::test]
async fn a_client_whose_certificate_is_over_sees_tls_end() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), opened).await;
    let seen = seen(server, Some(mesh.papers(Some(mesh.issue(TELLER, 2020))))).await;
    let (_, answer) = no_tunnel(&seen);
    assert!(is_an_end_of_tls(answer, "certificate_expired"), "{answer}");
}

#[tokio::test]
async fn a_client_in_clear_sees_that_its_peer_speaks_tls() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), opened).await;
    let seen = seen(server, None).await;
    let (identity, answer) = no_tunnel(&seen);
    assert_eq!(identity, None);
    assert!(is_an_end_of_tls(answer, "decode_error"), "{answer}");
}

#[tokio::test]
async fn a_peer_with_another_identity_is_told_by_it() {
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(TELLER, 2100), opened).await;
    let seen = seen(server, Some(mesh.papers(Some(mesh.issue(TELLER, 2100))))).await;
    assert_eq!(seen, Observed::WrongName { names: vec![TELLER.into()] });
}

#[tokio::test]
async fn a_peer_whose_certificate_is_over_or_of_another_mesh_is_not_believed() {
    let [mesh, other] = [Mesh::new(), Mesh::new()];
    for own in [mesh.issue(LEDGER, 2020), other.issue(LEDGER, 2100)] {
        let server = mesh.server(own, opened).await;
        let seen = seen(server, Some(mesh.papers(Some(mesh.issue(TELLER, 2100))))).await;
        assert!(matches!(seen, Observed::Untrusted { .. }), "{seen}");
    }
}

#[tokio::test]
async fn papers_that_are_none_are_not_sent() {
    let mesh = Mesh::new();
    let mut broken = mesh.papers(None);
    broken.authority = Der(vec![1, 2, 3]);
    let seen = seen(loopback(1), Some(broken)).await;
    assert!(matches!(seen, Observed::Unsent { .. }), "{seen}");
}

/// Half-open CONNECTs: however many there are, each ends with its deadline, and the agent goes on.
#[tokio::test]
async fn connects_that_nobody_answers_end_with_their_deadlines() {
    const MANY: u64 = 200;
    let mesh = Mesh::new();
    let server = mesh.server(mesh.issue(LEDGER, 2100), left_open).await;
    let papers = Some(mesh.papers(Some(mesh.issue(TELLER, 2100))));
    let authority = ASKED.parse().unwrap();
    let mut agent = Agent::start(vec![]);
    let mut session = agent.attach(0).await;
    for id in 1..=MANY {
        let stimulus = Stimulus::Hbone { at: server, authority, papers: papers.clone() };
        session.run(id, 8_000, stimulus).await;
    }
    // The first is over last, as all have the same time.
    for id in (1..=MANY).rev() {
        session.send(&ToAgent::Cancel { id: RunId(id) }).await;
    }
    for _ in 1..=MANY {
        let observed = session.next_observed().await;
        let waits = matches!(
            observed,
            Observed::Cancelled { phase: Phase::Connect | Phase::Handshake | Phase::Reply }
        );
        assert!(waits, "{observed}");
    }
}

/// A peer that answers nothing at all, and one that answers no TLS.
#[tokio::test]
async fn a_peer_that_is_no_proxy_is_told_as_what_it_is() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        assert_ne!(stream.read(&mut hello).await.unwrap(), 0);
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let seen = seen(server, Some(mesh.papers(None))).await;
    assert!(
        matches!(&seen, Observed::Garbled { got } if got.starts_with("HTTP/1.1 400")),
        "{seen}"
    );
}
