//! The DNS client: one query, one response, over UDP or TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption, NSIDPayload};
use hickory_proto::rr::{self, Name, RData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ztc_wire::{DnsRcode, DnsTransport, Leg, Observed, Phase, RecordType};

use super::failure::{from_network, unsent};
use super::socket;
use crate::run::Run;
use crate::words::excerpt;

/// The payload that passes without fragments nearly everywhere (DNS Flag Day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// What a server answered.
pub(super) struct Response {
    pub(super) rcode: DnsRcode,
    pub(super) answers: Vec<IpAddr>,
    pub(super) peer: Option<String>,
}

/// Asks for exactly this name, and for the server's own (NSID, RFC 5001).
pub(super) async fn exchange(
    run: &Run,
    server: SocketAddr,
    transport: DnsTransport,
    name: &str,
    record: RecordType,
) -> Result<Observed, Observed> {
    let mut query = plain_query(name, record)?;
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    let nsid = NSIDPayload::new([]).map_err(|error| unsent("write a query", error))?;
    edns.options_mut().insert(EdnsOption::NSID(nsid));
    query.set_edns(edns);
    run.wait_for(match transport {
        DnsTransport::Udp => Phase::Reply,
        DnsTransport::Tcp => Phase::Connect,
    });
    let Response { rcode, answers, peer } = ask(run, Leg::Send, server, transport, &query).await?;
    Ok(Observed::Dns { rcode, answers, peer, remote: server })
}

/// A recursive query as libc sends it, with a random id.
pub(super) fn plain_query(name: &str, record: RecordType) -> Result<Message, Observed> {
    let mut name = Name::from_ascii(name).map_err(|error| unsent("read a name", error))?;
    name.set_fqdn(true);
    let record = match record {
        RecordType::A => rr::RecordType::A,
        RecordType::Aaaa => rr::RecordType::AAAA,
    };
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record));
    Ok(message)
}

/// Sends a query and waits for its response. Anything else that comes is garbled.
pub(super) async fn ask(
    run: &Run,
    leg: Leg,
    server: SocketAddr,
    transport: DnsTransport,
    query: &Message,
) -> Result<Response, Observed> {
    let question = query.to_vec().map_err(|error| unsent("write a query", error))?;
    let answer = match transport {
        DnsTransport::Udp => socket::exchange_datagrams(run, leg, server, &question).await?,
        DnsTransport::Tcp => over_tcp(run, leg, server, &question).await?,
    };
    response(query, &answer).ok_or_else(|| Observed::Garbled { got: excerpt(&answer) })
}

/// One message each way, each after its length (RFC 1035 §4.2.2).
async fn over_tcp(
    run: &Run,
    leg: Leg,
    server: SocketAddr,
    question: &[u8],
) -> Result<Vec<u8>, Observed> {
    let mut stream = socket::connect(run, leg, server).await?;
    run.wait_for(Phase::Reply);
    let length = u16::try_from(question.len()).map_err(|error| unsent("write a query", error))?;
    let framed = [&length.to_be_bytes(), question].concat();
    let received = async {
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    received.await.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Observed::Closed { reset: false },
        _ => from_network("ask over TCP", Phase::Reply, &error),
    })
}

/// The response to this very query, or `None` if the bytes are anything else.
fn response(query: &Message, bytes: &[u8]) -> Option<Response> {
    let message = Message::from_vec(bytes).ok()?;
    let is_ours = message.metadata.message_type == MessageType::Response
        && message.metadata.id == query.metadata.id
        && message.queries == query.queries;
    is_ours.then(|| Response {
        rcode: DnsRcode(message.metadata.response_code.into()),
        answers: message.answers.iter().filter_map(|record| address(&record.data)).collect(),
        peer: message.edns.as_ref().and_then(server_name),
    })
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn server_name(edns: &Edns) -> Option<String> {
    match edns.option(EdnsCode::NSID)? {
        EdnsOption::NSID(name) => Some(String::from_utf8_lossy(name.as_ref()).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, ResponseCode};

    use super::*;

    fn query() -> Message {
        plain_query("ledger.zt-pay.svc.cluster.local", RecordType::A).unwrap()
    }

    /// A refusal of `query`, changed before it is written.
    fn refusal(query: &Message, change: impl Fn(&mut Message)) -> Vec<u8> {
        let mut message =
            Message::error_msg(query.metadata.id, OpCode::Query, ResponseCode::Refused);
        message.add_queries(query.queries.iter().cloned());
        change(&mut message);
        message.to_vec().unwrap()
    }

    #[test]
    fn the_response_to_our_query_is_read() {
        let query = query();
        let response = response(&query, &refusal(&query, |_| {})).unwrap();
        assert_eq!(response.rcode, DnsRcode::REFUSED);
        assert!(response.answers.is_empty() && response.peer.is_none());
    }

    #[test]
    fn another_id_another_question_or_a_query_is_no_response_of_ours() {
        let query = query();
        let id = refusal(&query, |message| message.metadata.id ^= 1);
        let question = refusal(&query, |message| {
            message.queries = plain_query("a.", RecordType::A).unwrap().queries;
        });
        let query_again = refusal(&query, |m| m.metadata.message_type = MessageType::Query);
        for bytes in [id, question, query_again, b"ztc1 no dns".to_vec()] {
            assert!(response(&query, &bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_not_sent() {
        let long = "x".repeat(64);
        assert!(matches!(plain_query(&long, RecordType::A), Err(Observed::Unsent { .. })));
    }
}
