//! The DNS proxy of a node: its sockets.
//!
//! The switch sends to it what policy wants inspected, with the client's address as the source.
//! It asks the datapath about every query, answers the refused ones itself, and puts the others to
//! the server in the client's name. The manners are those of `pkg/fqdn/dnsproxy/proxy.go` of
//! Cilium: a query that the server does not answer in time is not answered at all, one that cannot
//! be put to the server is refused, and so is a name that no rule allows.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::serialize::binary::DecodeError;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use ztc_model::hubble;
use ztc_model::policy::Protocol;

use super::dns_upstream::{Answer, LARGEST, Upstream, over_udp, read_framed, write_framed};
use super::netns::{NetNs, NetnsError};
use super::pump::Switch;
use super::runtime_thread::RuntimeThread;
use crate::datapath::{NodeConfig, Now, Redirect};

/// How long the server has for an answer: `ProxyForwardTimeout` of Cilium.
const FORWARD: Duration = Duration::from_secs(10);

/// How long a client may keep a connection without asking (RFC 7766 §6.2.3 wants seconds).
const IDLE: Duration = Duration::from_secs(10);

/// How many queries and connections are worked on at once, each kind on its own. A query that the
/// server lost stays one of them for all of [`FORWARD`], so few would soon be none; Cilium has no
/// limit (`dnsproxy-concurrency-limit`).
const AT_ONCE: usize = 1 << 12;

/// Why a DNS proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsProxyError {
    /// The node's network namespace cannot be entered.
    #[error(transparent)]
    Enter(#[from] NetnsError),
    /// A socket could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// Why a query was not answered by the server.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("the switch did not send it here")]
    NotRedirected,
    #[error("it is no DNS message")]
    Malformed(#[from] DecodeError),
    #[error("it asks nothing")]
    Empty,
    #[error("the answer cannot be written")]
    Encode(#[from] ProtoError),
    #[error("the client is gone")]
    Client { source: io::Error },
    #[error("the server cannot be asked")]
    Ask { source: io::Error },
    #[error("the server does not answer")]
    Timeout(#[from] Elapsed),
}

/// What is to be done with a query.
enum Judged {
    /// Answer this.
    Refuse(Vec<u8>),
    /// Put it to the server.
    Forward(Redirect, Box<Message>),
}

/// Starts to listen on the node's addresses, over UDP and TCP.
pub(crate) fn start(
    thread: &RuntimeThread,
    netns: &NetNs,
    config: &NodeConfig,
    switch: &Arc<Switch>,
) -> Result<(), DnsProxyError> {
    config.addresses.iter().try_for_each(|address| {
        let address = SocketAddr::new(*address, config.proxy_port);
        listen(thread, netns, address, Arc::clone(switch))
    })
}

fn listen(
    thread: &RuntimeThread,
    netns: &NetNs,
    address: SocketAddr,
    switch: Arc<Switch>,
) -> Result<(), DnsProxyError> {
    let bind = || {
        let datagrams = std::net::UdpSocket::bind(address)?;
        let connections = std::net::TcpListener::bind(address)?;
        datagrams.set_nonblocking(true)?;
        connections.set_nonblocking(true)?;
        let _context = thread.handle().enter();
        Ok((UdpSocket::from_std(datagrams)?, TcpListener::from_std(connections)?))
    };
    let (datagrams, connections) =
        netns.run(bind)?.map_err(|source| DnsProxyError::Listen { address, source })?;
    let proxy = Arc::new(Proxy { switch, address: address.ip() });
    thread.handle().spawn(Arc::clone(&proxy).serve_datagrams(datagrams));
    thread.handle().spawn(proxy.serve_connections(connections));
    Ok(())
}

#[derive(Debug)]
struct Proxy {
    switch: Arc<Switch>,
    address: IpAddr,
}

impl Proxy {
    async fn serve_datagrams(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut buffer = vec![0; LARGEST];
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
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
                let answer = proxy.answer_datagram(client, &query).await;
                if let Some(answer) = proxy.noted(client, answer) {
                    let sent = socket.send_to(&answer, client).await;
                    proxy.noted(client, sent.map_err(|source| QueryError::Client { source }));
                }
                drop(permit);
            });
        }
    }

    async fn serve_connections(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.interrupt("accept a connection", &error);
                    continue;
                }
            };
            let proxy = Arc::clone(&self);
            tokio::spawn(async move {
                let served = proxy.serve_connection(client, stream).await;
                proxy.noted(client, served);
                drop(permit);
            });
        }
    }

    async fn answer_datagram(
        &self,
        client: SocketAddr,
        bytes: &[u8],
    ) -> Result<Vec<u8>, QueryError> {
        let (redirect, query) = match self.judge(Protocol::Udp, client, bytes)? {
            Judged::Refuse(answer) => return Ok(answer),
            Judged::Forward(redirect, query) => (redirect, query),
        };
        let asked = over_udp(&self.switch, self.address, &redirect, &query, bytes);
        match timeout(FORWARD, asked).await? {
            Ok(answer) => Ok(self.pass_on(&redirect, answer)),
            Err(error) => self.refuse_after(client, &query, error),
        }
    }

    /// Answers the queries of one connection, one after the other.
    async fn serve_connection(
        &self,
        client: SocketAddr,
        mut stream: TcpStream,
    ) -> Result<(), QueryError> {
        let mut upstream = None;
        // A client that is silent for too long is left without an error, as is one that is done.
        while let Ok(received) = timeout(IDLE, read_framed(&mut stream)).await {
            let received = received.map_err(|source| QueryError::Client { source })?;
            let Some(bytes) = received else { break };
            let answer = match self.judge(Protocol::Tcp, client, &bytes)? {
                Judged::Refuse(answer) => answer,
                Judged::Forward(redirect, query) => {
                    let asked = self.ask_over_tcp(&mut upstream, &redirect, &query, &bytes);
                    match timeout(FORWARD, asked).await? {
                        Ok(answer) => self.pass_on(&redirect, answer),
                        Err(error) => self.refuse_after(client, &query, error)?,
                    }
                }
            };
            let written = write_framed(&mut stream, &answer).await;
            written.map_err(|source| QueryError::Client { source })?;
        }
        Ok(())
    }

    /// Puts a query to the server over the connection there is, or over a new one.
    async fn ask_over_tcp(
        &self,
        upstream: &mut Option<Upstream>,
        redirect: &Redirect,
        query: &Message,
        bytes: &[u8],
    ) -> io::Result<Answer> {
        // One that fails is not put back.
        let mut open = match upstream.take() {
            Some(open) => open,
            None => Upstream::connect(&self.switch, self.address, redirect).await?,
        };
        let answer = open.exchange(query, bytes).await?;
        *upstream = Some(open);
        Ok(answer)
    }

    /// Asks the datapath about a query and puts its decision on record.
    fn judge(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        bytes: &[u8],
    ) -> Result<Judged, QueryError> {
        let redirect = self.switch.datapath().redirected(protocol, client, Now::read());
        let redirect = redirect.ok_or(QueryError::NotRedirected)?;
        let query = Message::from_vec(bytes)?;
        let name = query.queries.first().ok_or(QueryError::Empty)?.name.to_string();
        let types: Vec<String> = query.queries.iter().map(|it| it.query_type.to_string()).collect();
        let verdict = self.switch.datapath().judge_query(&redirect, &name, &types, Now::read());
        self.publish(verdict.flow);
        if verdict.allowed {
            Ok(Judged::Forward(redirect, Box::new(query)))
        } else {
            Ok(Judged::Refuse(refusal(&query)?))
        }
    }

    /// Puts an answer on record; returns what the client gets.
    fn pass_on(&self, redirect: &Redirect, answer: Answer) -> Vec<u8> {
        let Answer { message, bytes } = answer;
        let record = self.switch.datapath().answer_seen(redirect, &message, Now::read());
        self.publish(record);
        bytes
    }

    fn publish(&self, record: Option<hubble::Line>) {
        if let Some(line) = record {
            self.switch.publish(line);
        }
    }

    fn refuse_after(
        &self,
        client: SocketAddr,
        query: &Message,
        source: io::Error,
    ) -> Result<Vec<u8>, QueryError> {
        self.noted::<()>(client, Err(QueryError::Ask { source }));
        refusal(query)
    }

    /// What was done, if it was. What fails on our side must not look like an answer's absence.
    fn noted<T>(&self, client: SocketAddr, result: Result<T, QueryError>) -> Option<T> {
        match result {
            Ok(done) => return Some(done),
            Err(error @ (QueryError::Ask { .. } | QueryError::Encode(_))) => {
                self.interrupt(&format!("answer {client}"), &error);
            }
            // The client's own doing, or the server's silence, which policy may have brought about.
            Err(
                QueryError::NotRedirected
                | QueryError::Malformed(_)
                | QueryError::Empty
                | QueryError::Client { .. }
                | QueryError::Timeout(_),
            ) => {}
        }
        None
    }

    fn interrupt(&self, operation: &str, error: &dyn Error) {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        let reason = format!("the DNS proxy cannot {operation}: {error}{source}");
        self.switch.interrupt(reason);
    }
}

/// What Cilium answers to a name that no rule allows (`--tofqdns-dns-reject-response-code`).
fn refusal(query: &Message) -> Result<Vec<u8>, QueryError> {
    let Metadata { id, op_code, .. } = query.metadata;
    let mut answer = Message::error_msg(id, op_code, ResponseCode::Refused);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_queries(query.queries.iter().cloned());
    Ok(answer.to_vec()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};

    #[test]
    fn a_refusal_repeats_the_id_and_the_question_as_it_was_written() {
        let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("Ledger.zt-pay.svc.cluster.local.").unwrap();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), RecordType::AAAA));

        let answer = Message::from_vec(&refusal(&query).unwrap()).unwrap();
        assert_eq!(answer.metadata.id, 4711);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert!(answer.metadata.recursion_desired);
        assert_eq!(answer.queries.len(), 1);
        assert!(answer.queries[0].name.eq_case(&name));
        assert!(answer.answers.is_empty());
    }
}
