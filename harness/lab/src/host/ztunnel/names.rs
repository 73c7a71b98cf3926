//! The names that the pod asks for: those of services are answered from what the mesh knows, all others are put to
//! cluster DNS, from a socket in the pod, whomever the pod has asked.
//!
//! The manners are those of `src/dns/` of istio/ztunnel and of the resolver in it: a query is asked anew, over UDP first,
//! without the options of the client's; an answer is kept for as long as it says; what the server refuses is refused, and
//! where it says nothing the client is told after a while that something failed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Proxy;
use crate::fault::Fault;
use crate::host::dns_upstream::{LARGEST, read_framed, write_framed};
use crate::host::hbone::ProxyError;
use crate::host::netns::NetNs;
use crate::mesh::KnownName;

const DNS_PORT: u16 = 53;

/// How long what ztunnel knows by itself may be kept, in seconds (`DEFAULT_TTL_SECONDS`).
const OWN_TTL: u32 = 30;

/// How long the server has for an answer: three attempts of five seconds each, as a real ztunnel was seen to make.
const FORWARD: Duration = Duration::from_secs(15);

/// How long a connection may be silent (`DEFAULT_TCP_REQUEST_TIMEOUT`).
const IDLE: Duration = Duration::from_secs(5);

/// The most answers kept.
const KEPT: usize = 8192;

/// The answers of a server that still hold.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<Query, (Instant, Vec<Record>)>>);

impl Kept {
    /// Knows none of them any more.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What a client is told.
struct Told {
    code: ResponseCode,
    is_own: bool,
    records: Vec<Record>,
}

impl Told {
    fn only(code: ResponseCode) -> Self {
        Self { code, is_own: false, records: Vec::new() }
    }
}

/// A socket for datagrams.
pub(super) fn bind(
    runtime: &Handle,
    netns: &NetNs,
    address: SocketAddr,
) -> Result<UdpSocket, ProxyError> {
    let bind = || {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let _context = runtime.enter();
        UdpSocket::from_std(socket)
    };
    netns.run(bind)?.map_err(|source| ProxyError::Listen { address, source })
}

impl Proxy {
    /// Answers the queries that come as datagrams, each on its own.
    pub(super) async fn serve_names(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; LARGEST];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    self.interrupt("receive a query", &error);
                    continue;
                }
            };
            let (proxy, socket) = (Arc::clone(&self), Arc::clone(&socket));
            let query = buffer[..length].to_vec();
            tokio::spawn(async move {
                let Some(answer) = proxy.answer(&query).await else { return };
                if let Err(error) = socket.send_to(&answer, client).await {
                    proxy.interrupt("answer a query", &error);
                }
            });
        }
    }

    /// Answers the queries of one connection, one after the other.
    pub(super) async fn serve_names_of(
        self: Arc<Self>,
        mut stream: TcpStream,
        _client: SocketAddr,
    ) {
        // One that is silent for too long, is done or is gone is left.
        while let Ok(Ok(Some(query))) = timeout(IDLE, read_framed(&mut stream)).await {
            let Some(answer) = self.answer(&query).await else { return };
            if write_framed(&mut stream, &answer).await.is_err() {
                return;
            }
        }
    }

    /// What is answered to the bytes of a query; nothing to what is none.
    async fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).ok()?;
        let question = query.queries.first()?;
        let told = if query.metadata.message_type != MessageType::Query {
            Told::only(ResponseCode::FormErr)
        } else if query.metadata.op_code == OpCode::Query {
            match self.known(question) {
                Some(told) => told,
                None => self.forwarded(question).await,
            }
        } else {
            Told::only(ResponseCode::NotImp)
        };
        match written(&query, told).to_vec() {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.interrupt("write an answer", &error);
                None
            }
        }
    }

    /// The addresses of a service, of the family that is asked for; not even a service that has none is somebody else's.
    fn known(&self, question: &Query) -> Option<Told> {
        if !matches!(question.query_type, RecordType::A | RecordType::AAAA) {
            return None;
        }
        let namespace = &self.plan.workload.reference.namespace;
        let known = self.plan.mesh.known(namespace, &question.name.to_ascii())?;
        Some(Told { code: ResponseCode::NoError, is_own: true, records: records(question, known) })
    }

    async fn forwarded(&self, question: &Query) -> Told {
        let keeps = !self.plan.mesh.faults.has(Fault::ZtunnelKeepsNoAnswers);
        if let Some(records) = self.kept.get(question).filter(|_| keeps) {
            return Told { code: ResponseCode::NoError, is_own: false, records };
        }
        let Some(server) = self.plan.resolver else { return Told::only(ResponseCode::ServFail) };
        // That the server cannot be reached, or says nothing, may be what policy wants.
        match timeout(FORWARD, ask(SocketAddr::new(server, DNS_PORT), question)).await {
            Ok(Ok(answer)) => {
                let code = answer.metadata.response_code;
                let records = answer.answers;
                if code == ResponseCode::NoError {
                    self.kept.keep(question, &records);
                }
                Told { code, is_own: false, records }
            }
            Ok(Err(_)) | Err(_) => Told::only(ResponseCode::ServFail),
        }
    }
}

impl Kept {
    fn get(&self, question: &Query) -> Option<Vec<Record>> {
        let mut kept = self.lock();
        let (until, records) = kept.get(question)?;
        if *until > Instant::now() {
            return Some(records.clone());
        }
        kept.remove(question);
        None
    }

    /// Keeps an answer for as long as the first of its records that were asked for holds.
    fn keep(&self, question: &Query, records: &[Record]) {
        let asked_for = records.iter().filter(|it| it.record_type() == question.query_type);
        let Some(ttl) = asked_for.map(|it| it.ttl).min() else { return };
        let now = Instant::now();
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() < KEPT {
            let until = now + Duration::from_secs(ttl.into());
            kept.insert(question.clone(), (until, records.to_vec()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Query, (Instant, Vec<Record>)>> {
        // It is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records that say what is known of a name: where a search list has made it, it is an alias of what it was made of.
fn records(question: &Query, known: KnownName) -> Vec<Record> {
    let stripped = known.stripped.and_then(|name| {
        let mut name = Name::from_ascii(name).ok()?;
        name.set_fqdn(true);
        Some(name)
    });
    let alias = stripped
        .clone()
        .map(|name| Record::from_rdata(question.name.clone(), OWN_TTL, RData::CNAME(CNAME(name))));
    let name = stripped.unwrap_or_else(|| question.name.clone());
    let data = known.addresses.into_iter().filter_map(|address| match address {
        IpAddr::V4(it) if question.query_type == RecordType::A => Some(RData::A(A(it))),
        IpAddr::V6(it) if question.query_type == RecordType::AAAA => Some(RData::AAAA(AAAA(it))),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    let addresses: Vec<Record> =
        data.map(|data| Record::from_rdata(name.clone(), OWN_TTL, data)).collect();
    if addresses.is_empty() { addresses } else { alias.into_iter().chain(addresses).collect() }
}

/// The answer to a query, without any option of the server's.
fn written(query: &Message, told: Told) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.response_code = told.code;
    answer.metadata.authoritative = told.is_own;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    answer.add_answers(told.records);
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().max(512));
        answer.set_edns(edns);
    }
    answer
}

/// Puts a question to a server in a query of its own: over UDP, and over TCP where the answer does not fit.
async fn ask(server: SocketAddr, question: &Query) -> io::Result<Message> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(question.clone());
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let answer = over_udp(server, &query, &bytes).await?;
    if answer.metadata.truncation { over_tcp(server, &query, &bytes).await } else { Ok(answer) }
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = answer_to(query, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, bytes).await?;
    loop {
        let frame = read_framed(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(answer) = answer_to(query, &frame) {
            return Ok(answer);
        }
    }
}

/// A message, if it answers this query: the same id and the same question.
fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    // Whatever cannot be read is for somebody else.
    let message = Message::from_vec(bytes).ok()?;
    let matches = message.metadata.id == query.metadata.id && message.queries == query.queries;
    matches.then_some(message)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption, NSIDPayload};

    use super::*;

    fn question(name: &str, record: RecordType) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), record)
    }

    fn address(name: &str, ttl: u32) -> Record {
        let data = RData::A(A([203, 0, 113, 10].into()));
        Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
    }

    #[test]
    fn an_answer_is_kept_for_as_long_as_it_says_and_for_its_question_alone() {
        let kept = Kept::default();
        let (asked, other) =
            (question("a.zt.test.", RecordType::A), question("b.zt.test.", RecordType::A));
        kept.keep(&asked, &[address("a.zt.test.", 30)]);
        assert_eq!(kept.get(&asked).map(|it| it.len()), Some(1));
        assert_eq!(kept.get(&other), None);
        assert_eq!(kept.get(&question("a.zt.test.", RecordType::AAAA)), None);
        kept.keep(&other, &[address("b.zt.test.", 0)]);
        assert_eq!(kept.get(&other), None);
    }

    #[test]
    fn a_name_that_a_search_list_made_is_an_alias_of_what_it_was_made_of() {
        let asked = question("ledger.zt-bank.zt-bank.svc.cluster.local.", RecordType::A);
        let known = KnownName {
            stripped: Some("ledger.zt-bank".to_owned()),
            addresses: vec![[10, 96, 0, 20].into(), "fd00:10:96::14".parse().unwrap()],
        };
        let text: Vec<_> = records(&asked, known.clone()).iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].contains("CNAME ledger.zt-bank."), "{text:?}");
        assert!(text[1].starts_with("ledger.zt-bank. 30 IN A 10.96.0.20"), "{text:?}");
        let text = records(&question("x.", RecordType::TXT), known);
        assert!(text.is_empty(), "a family that it has no address of");
    }

    #[test]
    fn the_client_is_told_what_the_server_says_and_not_who_the_server_is() {
        let mut query = Message::query();
        query.add_query(question("a.zt.test.", RecordType::A));
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.options_mut().insert(EdnsOption::NSID(NSIDPayload::new([]).unwrap()));
        query.set_edns(edns);
        let told = Told::only(ResponseCode::Refused);
        let answer = Message::from_vec(&written(&query, told).to_vec().unwrap()).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert_eq!(answer.queries, query.queries);
        assert!(answer.edns.unwrap().option(EdnsCode::NSID).is_none());
    }
}
