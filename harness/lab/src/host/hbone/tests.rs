//! Who may be at the other end of a tunnel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use ztc_model::policy::mesh::SpiffeId;

use super::tls::{Tls, identity_of};
use super::{NotAccepted, Pool, Tunnelled, accept, carry};
use crate::fault::Faults;
use crate::mesh::Trust;

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/zt-bank/sa/{account}").parse().unwrap()
}

/// What believes one authority and shows a certificate of another one, or of the same.
fn tls(believed: &Trust, shown: &Trust, account: &str) -> Tls {
    Tls::new(believed.roots(), shown.issue(&identity(account)).unwrap(), &Faults::default())
        .unwrap()
}

/// Opens a tunnel to whom the client takes the server for; returns whom the server takes the client for.
async fn meet(client: &Tls, server: &Tls, wanted: &str) -> io::Result<Option<SpiffeId>> {
    let (here, there) = duplex(1 << 16);
    let config = Arc::new(client.client(&identity(wanted)).unwrap());
    let name = ServerName::try_from("10.244.0.40").unwrap();
    let connecting = TlsConnector::from(config).connect(name, here);
    let accepting = TlsAcceptor::from(server.server()).accept(there);
    let (connected, accepted) = tokio::join!(connecting, accepting);
    drop(connected?);
    let accepted = accepted?;
    let (_, session) = accepted.get_ref();
    Ok(session.peer_certificates().and_then(|it| identity_of(&it[0])))
}

#[tokio::test]
async fn peers_of_one_mesh_know_each_other_by_their_identities() {
    let authority = Trust::new().unwrap();
    let client = tls(&authority, &authority, "teller");
    let server = tls(&authority, &authority, "ledger");
    assert_eq!(meet(&client, &server, "ledger").await.unwrap(), Some(identity("teller")));
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let authority = Trust::new().unwrap();
    let client = tls(&authority, &authority, "teller");
    let server = tls(&authority, &authority, "clerk");
    assert!(meet(&client, &server, "ledger").await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused_on_either_side() {
    let (ours, theirs) = (Trust::new().unwrap(), Trust::new().unwrap());
    let server = tls(&ours, &ours, "ledger");
    assert!(meet(&tls(&ours, &theirs, "teller"), &server, "ledger").await.is_err());
    let client = tls(&ours, &ours, "teller");
    assert!(meet(&client, &tls(&ours, &theirs, "ledger"), "ledger").await.is_err());
}

/// Longer than anything here may take.
const CEILING: Duration = Duration::from_mins(1);

/// Accepts every tunnel, and opens every connection in one, to somebody who says back what he is told.
async fn echo(tls: Tls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(tls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                let Ok(mut tunnel) = accept(&tls, stream, || None).await else { return };
                while let Some(Ok((request, mut respond))) = tunnel.connections.accept().await {
                    let sends = respond.send_response(Response::new(()), false).unwrap();
                    let client = Tunnelled::new(sends, request.into_body(), None);
                    tokio::spawn(async move {
                        let (here, there) = duplex(64);
                        let echoing = async {
                            let (mut reads, mut writes) = tokio::io::split(there);
                            tokio::io::copy(&mut reads, &mut writes).await
                        };
                        tokio::join!(carry(client, here), echoing)
                    });
                }
            });
        }
    });
    address
}

/// Two thousand connections in twenty tunnels, none of which says a word, and a hundred peers that do not even begin.
#[tokio::test]
async fn who_idles_keeps_nobody_out() {
    const IDLE: usize = 2000;
    const MUTE: usize = 100;
    let authority = Trust::new().unwrap();
    let server = echo(tls(&authority, &authority, "ledger")).await;
    let client = tls(&authority, &authority, "teller");
    let pool = Pool::default();
    let opening = async {
        let mut held = Vec::new();
        for _ in 0..MUTE {
            held.push(TcpStream::connect(server).await.unwrap());
        }
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            let opened = pool.open(&client, &identity("ledger"), server, server).await;
            idle.push(opened.unwrap());
        }
        let mut asks = pool.open(&client, &identity("ledger"), server, server).await.unwrap();
        asks.write_all(b"gold?").await.unwrap();
        let mut answer = [0; 5];
        asks.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, idle.len(), held.len()), (b"gold?", IDLE, MUTE));
    };
    timeout(CEILING, opening).await.expect("nobody is kept out");
}

#[tokio::test]
async fn who_speaks_in_clear_is_told_apart_from_who_leaves() {
    let authority = Trust::new().unwrap();
    let server = tls(&authority, &authority, "ledger");
    let words = async |says: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(says).await.unwrap();
        client.shutdown().await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        match accept(&server, stream, || None).await {
            Err(error @ NotAccepted::Handshake(_)) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    };
    let said = words(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(
        said,
        "tls handshake error: Custom { kind: InvalidData, error: InvalidMessage(InvalidContentType) }"
    );
    let said = words(b"").await;
    assert!(said.contains("UnexpectedEof") && !said.contains("InvalidData"), "{said}");
}
