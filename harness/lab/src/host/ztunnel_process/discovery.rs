//! The control plane of a real ztunnel: it streams what the mesh has to tell, and signs certificates.
//!
//! Both are services of gRPC over TLS, as istiod's are: `DeltaAggregatedResources` of `proto/xds.proto` and `CreateCertificate`
//! of `proto/citadel.proto` of istio/ztunnel. Whoever comes is believed: it is the one process that its namespace is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::{self, PemObject as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use ztc_engine::mesh_authority::MeshAuthorityError;
use ztc_wire::Der;

use super::messages::{
    Any, CertificateRequest, CertificateResponse, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    Resource,
};
use crate::host::pump::Switch;
use crate::mesh::{ADDRESS_TYPE, AUTHORIZATION_TYPE, Mesh, Told};

/// Where it streams.
const DISCOVERY: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Where it signs.
const CERTIFICATES: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What comes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// The longest message that is read, in bytes: one that lists all that a ztunnel knows.
const LONGEST: usize = 4 * 1024 * 1024;

/// Status codes of gRPC.
const OK: &str = "0";
const INTERNAL: &str = "13";
const UNIMPLEMENTED: &str = "12";

/// Why a call ends.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the stream broke")]
    Stream(#[from] h2::Error),
    #[error("a message is compressed or longer than {LONGEST} bytes")]
    Frame,
    #[error("cannot read a message")]
    Decode(#[from] prost::DecodeError),
    #[error("cannot read a request for a certificate")]
    Request(#[from] pem::Error),
    #[error(transparent)]
    Sign(#[from] MeshAuthorityError),
}

/// The control plane of one ztunnel.
#[derive(Debug)]
pub(super) struct ControlPlane {
    pub(super) mesh: Arc<Mesh>,
    /// The last generation of what there is to tell of which ztunnel has acknowledged everything.
    pub(super) known: watch::Sender<u64>,
    /// What it refuses, as long as it does.
    pub(super) refused: watch::Sender<Option<String>>,
    /// Told when a stream ends while ztunnel lives: it goes on with what it knew.
    pub(super) switch: Arc<Switch>,
    /// As whose ztunnel it is told of.
    pub(super) node: String,
}

impl ControlPlane {
    /// Serves whoever connects.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, tls: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            let (control_plane, tls) = (Arc::clone(&self), tls.clone());
            tokio::spawn(async move {
                // Whoever is cut off comes again.
                drop(control_plane.converse(stream, tls).await);
            });
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, tls: TlsAcceptor) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let stream = tls.accept(stream).await?;
        let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
        while let Some(call) = connection.accept().await {
            let (request, respond) = call.map_err(io::Error::other)?;
            tokio::spawn(Arc::clone(&self).answer(request, respond));
        }
        Ok(())
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let path = request.uri().path().to_owned();
        let mut response = Response::new(());
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        let Ok(mut sends) = respond.send_response(response, false) else { return };
        let mut messages = Messages { stream: request.into_body(), buffered: BytesMut::new() };
        let (status, why) = match path.as_str() {
            DISCOVERY => {
                let ended = self.stream(&mut messages, &mut sends).await;
                let why =
                    ended.as_ref().map_or_else(CallError::to_string, |()| "it left".to_owned());
                let node = &self.node;
                self.switch
                    .interrupt(format!("the ztunnel of {node} is told nothing for a while: {why}"));
                told(ended)
            }
            CERTIFICATES => told(self.sign(&mut messages, &mut sends).await),
            _ => (UNIMPLEMENTED, format!("there is no {path}")),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        if let Ok(why) = HeaderValue::try_from(why) {
            trailers.insert("grpc-message", why);
        }
        // Whoever has gone needs no status.
        drop(sends.send_trailers(trailers));
    }

    async fn sign(
        &self,
        messages: &mut Messages,
        sends: &mut SendStream<Bytes>,
    ) -> Result<(), CallError> {
        let Some(request) = messages.next::<CertificateRequest>().await? else { return Ok(()) };
        let request = CertificateSigningRequestDer::from_pem_slice(request.csr.as_bytes())?;
        let authority = self.mesh.trust().authority();
        let signed = authority.sign(&request)?;
        let cert_chain = vec![as_pem(&signed), as_pem(authority.certificate())];
        send(sends, &CertificateResponse { cert_chain })
    }

    /// Tells everything once, and then what is new, as long as ztunnel listens.
    async fn stream(
        &self,
        messages: &mut Messages,
        sends: &mut SendStream<Bytes>,
    ) -> Result<(), CallError> {
        let mut generations = self.mesh.generations();
        let mut conversation = Conversation::default();
        loop {
            tokio::select! {
                request = messages.next::<DeltaDiscoveryRequest>() => {
                    let Some(request) = request? else { return Ok(()) };
                    conversation.hear(request);
                    self.refused.send_replace(conversation.refused());
                }
                changed = generations.changed() => if changed.is_err() { return Ok(()) },
            }
            // What changes from here on is told next time.
            let generation = *generations.borrow_and_update();
            if conversation.lacks(generation) {
                for response in conversation.say(generation, self.mesh.told()) {
                    send(sends, &response)?;
                }
            }
            if let Some(known) = conversation.known() {
                self.known.send_replace(known);
            }
        }
    }
}

/// What was said in a stream, and what of it was heard.
#[derive(Debug, Default)]
struct Conversation {
    subscribed: BTreeSet<&'static str>,
    said: Told,
    /// What ztunnel knows from an earlier stream, by type.
    remembered: BTreeMap<&'static str, BTreeSet<String>>,
    /// The messages that are not acknowledged yet, by their numbers.
    pending: BTreeMap<u64, &'static str>,
    /// What ztunnel refused of a type, and with which message, until it takes another one.
    refused: BTreeMap<&'static str, (u64, String)>,
    number: u64,
    last: u64,
}

impl Conversation {
    /// Takes a request: a subscription, or an answer to a message.
    fn hear(&mut self, request: DeltaDiscoveryRequest) {
        let known = [ADDRESS_TYPE, AUTHORIZATION_TYPE];
        let Some(kind) = known.into_iter().find(|it| *it == request.type_url) else { return };
        if self.subscribed.insert(kind) {
            let names = request.initial_resource_versions.into_keys().collect();
            self.remembered.insert(kind, names);
        }
        let Ok(number) = request.response_nonce.parse::<u64>() else { return };
        if let Some(error) = request.error_detail {
            // The message stays pending: what was refused is not known.
            self.refused.insert(kind, (number, error.message));
            return;
        }
        self.pending.remove(&number);
        if self.refused.get(kind).is_some_and(|(refused, _)| *refused < number) {
            // What comes later stands in the place of what was refused.
            self.refused.remove(kind);
            self.pending.retain(|it, of| *of != kind || *it > number);
        }
    }

    /// What ztunnel refuses to know.
    fn refused(&self) -> Option<String> {
        self.refused.values().map(|(_, why)| why.clone()).next()
    }

    /// Whether there may be something to say: there is news, or somebody has just begun to listen. An acknowledgement asks
    /// for nothing.
    fn lacks(&self, generation: u64) -> bool {
        generation != self.last || self.subscribed.iter().any(|it| !self.said.contains_key(it))
    }

    /// What is to be said now of all there is to tell. A first message says that there is nothing, if that is so.
    fn say(&mut self, last: u64, mut told: Told) -> Vec<DeltaDiscoveryResponse> {
        self.last = last;
        let mut responses = Vec::new();
        for type_url in &self.subscribed {
            let now = told.remove(type_url).unwrap_or_default();
            let before = self.said.get(type_url);
            let mut response = difference(type_url, before, &now);
            let remembered = self.remembered.remove(type_url).unwrap_or_default();
            let gone = remembered.into_iter().filter(|name| !now.contains_key(name));
            response.removed_resources.extend(gone);
            if before.is_some()
                && response.resources.is_empty()
                && response.removed_resources.is_empty()
            {
                continue;
            }
            self.number += 1;
            self.pending.insert(self.number, type_url);
            responses.push(DeltaDiscoveryResponse { nonce: self.number.to_string(), ..response });
            self.said.insert(type_url, now);
        }
        responses
    }

    /// The generation that ztunnel knows for sure, if all that was said is acknowledged.
    fn known(&self) -> Option<u64> {
        (self.subscribed.len() == 2 && self.pending.is_empty()).then_some(self.last)
    }
}

/// What has to be said of one type.
fn difference(
    type_url: &str,
    before: Option<&BTreeMap<String, Vec<u8>>>,
    now: &BTreeMap<String, Vec<u8>>,
) -> DeltaDiscoveryResponse {
    let was = |name: &String| before.and_then(|it| it.get(name));
    let resource = |(name, value): (&String, &Vec<u8>)| Resource {
        name: name.clone(),
        resource: Some(Any { type_url: type_url.to_owned(), value: value.clone() }),
    };
    let changed = now.iter().filter(|(name, value)| was(name) != Some(value));
    let gone = before.into_iter().flat_map(BTreeMap::keys).filter(|name| !now.contains_key(*name));
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        resources: changed.map(resource).collect(),
        removed_resources: gone.cloned().collect(),
        nonce: String::new(),
    }
}

/// The messages of a call, one after the other.
struct Messages {
    stream: RecvStream,
    buffered: BytesMut,
}

impl Messages {
    /// The next one; nothing when the caller has said all. Nothing is lost of it when this is dropped half-way.
    async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, CallError> {
        loop {
            if let Some(message) = self.buffered_message()? {
                return Ok(Some(M::decode(message)?));
            }
            let Some(piece) = self.stream.data().await else { return Ok(None) };
            let piece = piece?;
            self.buffered.extend_from_slice(&piece);
            self.stream.flow_control().release_capacity(piece.len())?;
        }
    }

    fn buffered_message(&mut self) -> Result<Option<BytesMut>, CallError> {
        let Some(prefix) = self.buffered.first_chunk::<PREFIX>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 || length > LONGEST {
            return Err(CallError::Frame);
        }
        if self.buffered.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffered.advance(PREFIX);
        Ok(Some(self.buffered.split_to(length)))
    }
}

/// Sends a message; the transport keeps it until there is room for it.
fn send(sends: &mut SendStream<Bytes>, message: &impl Message) -> Result<(), CallError> {
    let mut frame = vec![0];
    let length = u32::try_from(message.encoded_len()).map_err(|_too_long| CallError::Frame)?;
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    Ok(sends.send_data(frame.into(), false)?)
}

/// The status of a call that is over, and why it is no good one.
fn told(result: Result<(), CallError>) -> (&'static str, String) {
    match result {
        Ok(()) => (OK, String::new()),
        Err(error) => (INTERNAL, error.to_string()),
    }
}

/// A certificate in PEM (RFC 7468).
pub(super) fn as_pem(certificate: &Der) -> String {
    let body = STANDARD.encode(&certificate.0);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(type_url: &str, nonce: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn told(names: &[&str]) -> Told {
        let all = names.iter().map(|it| ((*it).to_owned(), it.as_bytes().to_vec())).collect();
        Told::from([(ADDRESS_TYPE, all), (AUTHORIZATION_TYPE, BTreeMap::new())])
    }

    #[test]
    fn all_is_known_when_every_message_is_acknowledged() {
        let mut talk = Conversation::default();
        talk.hear(request(ADDRESS_TYPE, ""));
        assert_eq!(talk.say(1, told(&["a"])).len(), 1);
        talk.hear(request(ADDRESS_TYPE, "1"));
        assert!(!talk.lacks(1) && talk.lacks(2));
        assert_eq!(talk.known(), None, "nobody has asked for policies yet");
        talk.hear(request(AUTHORIZATION_TYPE, ""));
        assert!(talk.lacks(1));
        assert_eq!(talk.say(1, told(&["a"])).len(), 1);
        assert_eq!(talk.known(), None);
        talk.hear(request(AUTHORIZATION_TYPE, "2"));
        assert_eq!(talk.known(), Some(1));
        assert_eq!(talk.say(2, told(&["a"])), []);
        assert_eq!(talk.known(), Some(2), "there was nothing to say");
    }

    #[test]
    fn what_has_gone_is_said_and_what_stays_is_not() {
        let mut talk = Conversation::default();
        talk.hear(request(ADDRESS_TYPE, ""));
        talk.say(1, told(&["a", "b"]));
        let said = talk.say(2, told(&["b", "c"]));
        let [response] = &*said else { panic!("{said:?}") };
        assert_eq!(response.removed_resources, ["a"]);
        let names: Vec<_> = response.resources.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn what_is_refused_is_not_known_until_something_else_is_taken() {
        let mut talk = Conversation::default();
        talk.hear(request(ADDRESS_TYPE, ""));
        talk.hear(request(AUTHORIZATION_TYPE, ""));
        talk.say(1, told(&["a"]));
        talk.hear(request(AUTHORIZATION_TYPE, "1"));
        let no = super::super::messages::Status { message: "no".to_owned() };
        let refusal = request(ADDRESS_TYPE, "2");
        talk.hear(DeltaDiscoveryRequest { error_detail: Some(no), ..refusal });
        assert_eq!((talk.known(), talk.refused().as_deref()), (None, Some("no")));
        talk.say(2, told(&[]));
        assert_eq!(talk.known(), None);
        talk.hear(request(ADDRESS_TYPE, "3"));
        assert_eq!((talk.known(), talk.refused()), (Some(2), None));
    }

    #[test]
    fn what_an_earlier_stream_told_is_taken_back_if_it_is_gone() {
        let mut talk = Conversation::default();
        let remembered = ["a", "old"].map(|it| (it.to_owned(), String::new()));
        talk.hear(DeltaDiscoveryRequest {
            initial_resource_versions: remembered.into(),
            ..request(ADDRESS_TYPE, "")
        });
        let said = talk.say(1, told(&["a"]));
        let removed: Vec<&String> = said.iter().flat_map(|it| &it.removed_resources).collect();
        assert_eq!(removed, ["old"]);
    }
}
