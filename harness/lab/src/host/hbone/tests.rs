//! Who may be at the other end of a tunnel.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::duplex;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use ztc_model::policy::mesh::SpiffeId;

use super::tls::{Tls, identity_of};
use crate::fault::Faults;
use crate::mesh::MeshAuthority;

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/zt-bank/sa/{account}").parse().unwrap()
}

/// What believes one authority and shows a certificate of another one, or of the same.
fn tls(believed: &MeshAuthority, shown: &MeshAuthority, account: &str) -> Tls {
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
    let authority = MeshAuthority::new().unwrap();
    let client = tls(&authority, &authority, "teller");
    let server = tls(&authority, &authority, "ledger");
    assert_eq!(meet(&client, &server, "ledger").await.unwrap(), Some(identity("teller")));
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let authority = MeshAuthority::new().unwrap();
    let client = tls(&authority, &authority, "teller");
    let server = tls(&authority, &authority, "clerk");
    assert!(meet(&client, &server, "ledger").await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused_on_either_side() {
    let (ours, theirs) = (MeshAuthority::new().unwrap(), MeshAuthority::new().unwrap());
    let server = tls(&ours, &ours, "ledger");
    assert!(meet(&tls(&ours, &theirs, "teller"), &server, "ledger").await.is_err());
    let client = tls(&ours, &ours, "teller");
    assert!(meet(&client, &tls(&ours, &theirs, "ledger"), "ledger").await.is_err());
}
