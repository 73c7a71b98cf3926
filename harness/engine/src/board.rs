//! The board on which records of enforcement points are pinned and found by the flow they are about.
//!
//! A record may come before the agent's word about its port has been read, or after: so the board
//! keeps a bounded number of records and also tells watchers of new ones. That Cilium let a packet
//! pass is not kept: it says so of every connection, and a nonce says more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use ztc_model::evidence::{Evidence, FlowKey, Record};
use ztc_model::outcome::EnforcementPoint;
use ztc_model::policy::Protocol;
use ztc_model::waypoint;
use ztc_model::ztunnel::HBONE_PORT;

use crate::fabric::Witness;

/// How many records a board keeps for watchers that come late.
const KEPT: usize = 4096;

/// Which records a watcher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    /// Of the one flow from this address and port: an agent's own.
    Flow { protocol: Protocol, source: SocketAddr },
    /// Of the echo requests from this address to that one: their records have no ports, and no
    /// identifier either. Who watches has one in flight.
    Echo { source: IpAddr, destination: IpAddr },
    /// Of any flow from this address to that address and port: kubelet's, whose port is unknown.
    Probe { source: IpAddr, destination: SocketAddr },
}

/// Where the packets of a flow may lead.
///
/// The port that a flow comes from does not make it the agent's alone: a proxy in the network of its pod connects from
/// ports that the kernel gives it, and one of them may be that of an agent's flow which has ended (seen on a real
/// cluster).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leads {
    /// Where the client sent it.
    pub(crate) remote: Option<SocketAddr>,
    /// Who may serve it, where that is somebody else's address: that of a service leads to pods.
    pub(crate) served_at: BTreeSet<IpAddr>,
}

impl Leads {
    /// Wherever: who serves it is not known.
    pub(crate) const fn anywhere() -> Self {
        Self { remote: None, served_at: BTreeSet::new() }
    }

    /// Whether a record may be about the flow. What proxies say names the client's own port, which they were connected to
    /// from: that is of one flow.
    fn admit(&self, evidence: &Evidence) -> bool {
        let Record::Hubble(_) = &evidence.record else { return true };
        let destination = evidence.flow.destination;
        match self.remote {
            Some(remote) if remote.ip() == destination.ip() => remote.port() == destination.port(),
            None if self.served_at.is_empty() => true,
            // Nobody serves at the port of tunnels: that is where a proxy connects to.
            _ => self.served_at.contains(&destination.ip()) && destination.port() != HBONE_PORT,
        }
    }
}

/// The two sides of connections that a proxy carries in tunnels of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The client.
    pub(crate) client: IpAddr,
    /// The pods that may serve it.
    pub(crate) servers: BTreeSet<IpAddr>,
    /// The hosts outside that may serve it, where a proxy of the client's connects to them for it, from a port of its
    /// own.
    pub(crate) outside: BTreeSet<IpAddr>,
    /// The ports that it may be served on: that of a service, too.
    pub(crate) ports: BTreeSet<u16>,
    /// What a waypoint knows it by.
    pub(crate) asked: Asked,
    /// The name that is asked for, where a proxy of the client's asks DNS for it, from a port of its own.
    pub(crate) name: Option<String>,
}

/// What a waypoint writes down of what a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A connection to this port, of a server's own address or of a service's.
    Connection { port: u16, to_server: bool },
    /// A request.
    Request { method: String, host: String, path: String },
}

impl Asked {
    fn is_in(&self, line: &waypoint::Line, servers: &BTreeSet<IpAddr>) -> bool {
        match self {
            Self::Connection { port, to_server } => {
                let asked = line.downstream_local_address;
                line.method.is_none()
                    && asked.port() == *port
                    && servers.contains(&asked.ip()) == *to_server
            }
            Self::Request { method, host, path } => {
                let authority = line.authority.as_deref().unwrap_or_default();
                // The port is left out where it is the usual one.
                let named = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                line.method.as_ref() == Some(method)
                    && line.path.as_ref() == Some(path)
                    && named == host
            }
        }
    }
}

impl Pair {
    fn covers(&self, evidence: &Evidence) -> bool {
        let FlowKey { source, destination, .. } = evidence.flow;
        let is_meant = self.ports.contains(&destination.port());
        let reaches = match &evidence.record {
            // A waypoint sees the address that was asked for.
            Record::Waypoint(line) => self.asked.is_in(line, &self.servers),
            Record::Hubble(line) if evidence.point == EnforcementPoint::DnsProxy => {
                let query = line.flow.l7.as_ref().and_then(|it| it.dns.as_ref());
                self.name
                    .as_ref()
                    .is_some_and(|name| query.is_some_and(|it| is_same(&it.query, name)))
            }
            Record::Hubble(_) if self.outside.contains(&destination.ip()) => is_meant,
            // Cilium sees the port of the tunnel alone.
            Record::Hubble(_) | Record::Ztunnel(_) => {
                let is_carried = is_meant || destination.port() == HBONE_PORT;
                evidence.is_of_a_tunnel() && self.servers.contains(&destination.ip()) && is_carried
            }
        };
        source.ip() == self.client && reaches
    }
}

/// Whether two names are the same, with or without their last dots.
fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

impl Interest {
    /// The interests that a record is for.
    fn about(evidence: &Evidence) -> [Self; 2] {
        let FlowKey { protocol, source, destination } = evidence.flow;
        let own = match protocol {
            Protocol::Tcp | Protocol::Udp => Self::Flow { protocol, source },
            Protocol::Icmp | Protocol::Icmpv6 => {
                Self::Echo { source: source.ip(), destination: destination.ip() }
            }
        };
        [own, Self::Probe { source: source.ip(), destination }]
    }

    fn covers(self, evidence: &Evidence) -> bool {
        Self::about(evidence).contains(&self)
    }
}

/// The records of one cluster.
#[derive(Debug)]
pub(crate) struct Board {
    shared: Arc<Mutex<Pinned>>,
    pump: AbortHandle,
}

#[derive(Debug, Default)]
struct Pinned {
    kept: VecDeque<(Instant, Arc<Evidence>)>,
    watchers: HashMap<Interest, Watcher>,
    gaps: Vec<(Instant, String)>,
    closed: bool,
}

/// Who is told of records, and of which.
#[derive(Debug)]
struct Watcher {
    leads: Leads,
    sender: mpsc::UnboundedSender<Arc<Evidence>>,
}

impl Board {
    /// Pins everything that the stream brings from now on.
    pub(crate) fn new(mut stream: broadcast::Receiver<Witness>) -> Self {
        let shared = Arc::new(Mutex::new(Pinned::default()));
        let pinned = Arc::clone(&shared);
        let pump = tokio::spawn(async move {
            loop {
                match stream.recv().await {
                    Ok(Witness::Spoke(evidence)) => lock(&pinned).pin(evidence),
                    Ok(Witness::Gap { reason }) => lock(&pinned).tell(reason),
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        lock(&pinned)
                            .tell(format!("{lost} records came faster than they were read"));
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        lock(&pinned).closed = true;
                        return;
                    }
                }
            }
        });
        Self { shared, pump: pump.abort_handle() }
    }

    /// Sends the records about a flow: those that were pinned since a moment, and those that come
    /// until the watch is dropped. One flow has one watcher: its shot. Older records are about an
    /// older flow with the same address and port.
    pub(crate) fn watch(
        &self,
        (interest, leads): (Interest, Leads),
        since: Instant,
        sender: mpsc::UnboundedSender<Arc<Evidence>>,
    ) -> Watch {
        let mut pinned = lock(&self.shared);
        for evidence in pinned.about(interest, &leads, since) {
            // The receiver belongs to the shot that is asking.
            sender.send(Arc::clone(evidence)).ok();
        }
        pinned.watchers.insert(interest, Watcher { leads, sender: sender.clone() });
        Watch { shared: Arc::clone(&self.shared), interest, sender }
    }

    /// The records about a flow that were pinned since a moment.
    pub(crate) fn about(
        &self,
        interest: Interest,
        leads: &Leads,
        since: Instant,
    ) -> Vec<Arc<Evidence>> {
        lock(&self.shared).about(interest, leads, since).cloned().collect()
    }

    /// The records of tunnels between the two that were pinned since a moment, but those of requests that had begun
    /// before it.
    pub(crate) fn between(&self, pair: &Pair, since: Instant) -> Vec<Arc<Evidence>> {
        let begun = Timestamp::now() - since.elapsed();
        let pinned = lock(&self.shared);
        let records = pinned.since(since);
        records.filter(|it| pair.covers(it) && !had_begun(it, begun)).cloned().collect()
    }

    /// The denials of what was sent from these addresses to a port, since a moment.
    pub(crate) fn sent_to(
        &self,
        from: &BTreeSet<IpAddr>,
        port: u16,
        since: Instant,
    ) -> Vec<Arc<Evidence>> {
        let pinned = lock(&self.shared);
        let is_meant = |it: &&Arc<Evidence>| {
            let FlowKey { source, destination, .. } = it.flow;
            from.contains(&source.ip()) && destination.port() == port && it.did.is_denial()
        };
        pinned.since(since).filter(is_meant).cloned().collect()
    }

    /// The interruptions of the stream so far, in words.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let pinned = lock(&self.shared);
        let closed = pinned.closed.then(|| "the stream of records has ended".to_owned());
        pinned.gaps.iter().map(|(_, why)| why.clone()).chain(closed).collect()
    }

    /// Forgets the interruptions since a moment: nobody asks for records of that time.
    pub(crate) fn forget_gaps_since(&self, moment: Instant) {
        lock(&self.shared).gaps.retain(|(at, _)| *at < moment);
    }
}

/// Whether a record is of a request that began before a moment. A waypoint writes its log up to a second late, so what it
/// says first may be about the case before; a line whose time cannot be read is about nobody knows which. All other records
/// come at once.
fn had_begun(evidence: &Evidence, moment: Timestamp) -> bool {
    let Record::Waypoint(line) = &evidence.record else { return false };
    // Its log has milliseconds.
    let began = line.start_time.parse::<Timestamp>().map(Timestamp::as_millisecond);
    !began.is_ok_and(|began| began >= moment.as_millisecond())
}

impl Drop for Board {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Pinned {
    /// The records that were pinned since a moment.
    fn since(&self, moment: Instant) -> impl Iterator<Item = &Arc<Evidence>> {
        let recent = self.kept.partition_point(|(at, _)| *at < moment);
        self.kept.range(recent..).map(|(_, evidence)| evidence)
    }

    /// Those of them that are about a flow.
    fn about(
        &self,
        interest: Interest,
        leads: &Leads,
        since: Instant,
    ) -> impl Iterator<Item = &Arc<Evidence>> {
        self.since(since).filter(move |it| interest.covers(it) && leads.admit(it))
    }

    /// A stream that cannot be opened says so again and again; once is enough for people.
    fn tell(&mut self, gap: String) {
        if !self.gaps.iter().any(|(_, told)| *told == gap) {
            self.gaps.push((Instant::now(), gap));
        }
    }

    fn pin(&mut self, evidence: Arc<Evidence>) {
        if !evidence.did.is_denial() && evidence.point == EnforcementPoint::Cilium {
            return;
        }
        for interest in Interest::about(&evidence) {
            if let Some(watcher) = self.watchers.get(&interest)
                && watcher.leads.admit(&evidence)
            {
                // A watcher that has gone takes itself off the board.
                watcher.sender.send(Arc::clone(&evidence)).ok();
            }
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), evidence));
    }
}

/// Keeps a watcher on the board.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Mutex<Pinned>>,
    interest: Interest,
    sender: mpsc::UnboundedSender<Arc<Evidence>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut pinned = lock(&self.shared);
        // A later shot may have been given the same port.
        if pinned
            .watchers
            .get(&self.interest)
            .is_some_and(|it| it.sender.same_channel(&self.sender))
        {
            pinned.watchers.remove(&self.interest);
        }
    }
}

/// The board's data are whole after every statement, so a panic elsewhere does not spoil them.
fn lock(pinned: &Mutex<Pinned>) -> MutexGuard<'_, Pinned> {
    pinned.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ztc_model::evidence::{Did, Direction};
    use ztc_model::hubble::{Dns, Flow, L7, L7Kind, Line};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_record_that_came_before_its_watcher_is_found() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        stream.send(Witness::Spoke(denial())).unwrap();
        tokio::task::yield_now().await;
        let (sender, mut heard) = mpsc::unbounded_channel();
        let _watch = board.watch((interest(), Leads::anywhere()), begun, sender);
        assert!(heard.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_of_an_older_flow_from_the_same_port_is_not() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        stream.send(Witness::Spoke(denial())).unwrap();
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(1)).await;
        let (sender, mut heard) = mpsc::unbounded_channel();
        let _watch = board.watch((interest(), Leads::anywhere()), Instant::now(), sender);
        assert!(heard.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_of_an_echo_request_is_found_by_its_pair_of_addresses() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let (source, destination) = (source().ip(), IpAddr::from([10, 0, 0, 2]));
        let flow = FlowKey {
            protocol: Protocol::Icmp,
            source: (source, 0).into(),
            destination: (destination, 0).into(),
        };
        let (sender, mut heard) = mpsc::unbounded_channel();
        let _watch = board.watch(
            (Interest::Echo { source, destination }, Leads::anywhere()),
            Instant::now(),
            sender.clone(),
        );
        let (elsewhere, mut silence) = mpsc::unbounded_channel();
        let other = Interest::Echo { source, destination: [10, 0, 0, 3].into() };
        let _other = board.watch((other, Leads::anywhere()), Instant::now(), elsewhere);
        stream.send(Witness::Spoke(Arc::new(Evidence { flow, ..(*denial()).clone() }))).unwrap();
        tokio::task::yield_now().await;
        assert!(heard.try_recv().is_ok());
        assert!(silence.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_from_the_same_port_to_somewhere_else_is_of_another_flow() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        let meant: SocketAddr = (IpAddr::from([10, 0, 0, 2]), 9000).into();
        let led = |to: SocketAddr, served_at: &[[u8; 4]]| Leads {
            remote: Some(to),
            served_at: served_at.iter().map(|it| IpAddr::from(*it)).collect(),
        };
        let (service, metadata) = ("10.96.0.9:80", "169.254.169.254:80");
        let mut heard = Vec::new();
        for (at, leads, is_its_own) in [
            (10_001, led(meant, &[]), true),
            (10_002, led((meant.ip(), 9001).into(), &[]), false),
            (10_003, led(service.parse().unwrap(), &[[10, 0, 0, 2]]), true),
            (10_004, led(service.parse().unwrap(), &[[10, 0, 0, 3]]), false),
            (10_005, led(metadata.parse().unwrap(), &[]), false),
            (10_006, Leads::anywhere(), true),
        ] {
            let source = (source().ip(), at).into();
            let interest = Interest::Flow { protocol: Protocol::Tcp, source };
            let (sender, records) = mpsc::unbounded_channel();
            let watch = board.watch((interest, leads.clone()), begun, sender);
            heard.push((at, interest, leads, is_its_own, records, watch));
            let mut told = Evidence::clone(&denial());
            told.flow.source = source;
            stream.send(Witness::Spoke(Arc::new(told))).unwrap();
        }
        tokio::task::yield_now().await;
        for (at, interest, leads, is_its_own, mut records, _watch) in heard {
            assert_eq!(records.try_recv().is_ok(), is_its_own, "{at}: {leads:?}");
            assert_eq!(board.about(interest, &leads, begun).len() == 1, is_its_own, "{at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_leaves_does_not_take_its_successor_along() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let (sender, _) = mpsc::unbounded_channel();
        let first = board.watch((interest(), Leads::anywhere()), Instant::now(), sender);
        let (sender, mut heard) = mpsc::unbounded_channel();
        let _second = board.watch((interest(), Leads::anywhere()), Instant::now(), sender);
        drop(first);
        stream.send(Witness::Spoke(denial())).unwrap();
        tokio::task::yield_now().await;
        assert!(heard.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_were_missed_and_the_end_of_the_stream_are_gaps() {
        let (stream, records) = broadcast::channel(2);
        let board = Board::new(records);
        for _ in 0..5 {
            stream.send(Witness::Spoke(denial())).unwrap();
        }
        drop(stream);
        tokio::task::yield_now().await;
        assert_eq!(
            board.gaps(),
            ["3 records came faster than they were read", "the stream of records has ended"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_breaks_again_and_again_is_told_once_for_each_reason() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        for reason in ["ended", "no such pod", "no such pod", "ended"] {
            stream.send(Witness::Gap { reason: reason.to_owned() }).unwrap();
        }
        tokio::task::yield_now().await;
        assert_eq!(board.gaps(), ["ended", "no such pod"]);
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_of_a_time_for_which_no_record_is_asked_are_forgotten_and_no_others() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let mut moments = Vec::new();
        for reason in ["before", "meanwhile", "and again"] {
            moments.push(Instant::now());
            stream.send(Witness::Gap { reason: reason.to_owned() }).unwrap();
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        board.forget_gaps_since(moments[1]);
        assert_eq!(board.gaps(), ["before"]);
        stream.send(Witness::Gap { reason: "after".to_owned() }).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(board.gaps(), ["before", "after"]);
    }

    /// As a waypoint wrote it (`docs/facts.md`).
    const REQUEST: &str = r#"{"authority":"vault.pay:8080","bytes_received":0,"bytes_sent":19,"connection_termination_details":null,"downstream_local_address":"10.96.205.13:8080","downstream_remote_address":"10.0.0.1:41196","method":"POST","path":"/gold","response_code":403,"response_code_details":"rbac_access_denied_matched_policy[none]","response_flags":"-","start_time":"2026-11-23T23:11:23.911Z"}"#;

    /// The same, begun at another time.
    fn request(start: &str) -> Arc<Evidence> {
        let line = REQUEST.replace("2026-11-23T23:11:23.911Z", start);
        let line = waypoint::read(&line).unwrap().unwrap();
        Arc::new(Evidence::from_waypoint(&Arc::new(line), "pay/waypoint"))
    }

    /// A time that no test begins after: the clock of records does not stand still with that of the tests.
    fn meanwhile() -> String {
        (Timestamp::now() + Duration::from_mins(1)).to_string()
    }

    fn asked(client: [u8; 4], method: &str, host: &str, path: &str) -> Pair {
        Pair {
            client: client.into(),
            servers: BTreeSet::new(),
            outside: BTreeSet::new(),
            ports: BTreeSet::new(),
            asked: Asked::Request {
                method: method.to_owned(),
                host: host.to_owned(),
                path: path.to_owned(),
            },
            name: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_found_by_its_client_method_host_and_path_alone() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        stream.send(Witness::Spoke(request(&meanwhile()))).unwrap();
        tokio::task::yield_now().await;
        let found = |pair: &Pair| board.between(pair, begun).len();
        let client = [10, 0, 0, 1];
        assert_eq!(found(&asked(client, "POST", "vault.pay", "/gold")), 1);
        for other in [
            asked([10, 0, 0, 2], "POST", "vault.pay", "/gold"),
            asked(client, "GET", "vault.pay", "/gold"),
            asked(client, "POST", "ledger.pay", "/gold"),
            asked(client, "POST", "vault.pay", "/gol"),
        ] {
            assert_eq!(found(&other), 0, "{other:?}");
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(
            board.between(&asked(client, "POST", "vault.pay", "/gold"), Instant::now()).is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_had_begun_before_is_of_another_case_however_late_it_is_told() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        let before = Timestamp::now() - Duration::from_millis(500);
        for time in [before.to_string(), "yesterday".to_owned()] {
            stream.send(Witness::Spoke(request(&time))).unwrap();
        }
        tokio::task::yield_now().await;
        let asked = asked([10, 0, 0, 1], "POST", "vault.pay", "/gold");
        assert_eq!(board.between(&asked, begun).len(), 0);
        stream.send(Witness::Spoke(request(&meanwhile()))).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(board.between(&asked, begun).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_proxy_connects_to_outside_is_found_by_its_client_and_the_port() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        stream.send(Witness::Spoke(denial())).unwrap();
        tokio::task::yield_now().await;
        let found = |client: [u8; 4], outside: &[[u8; 4]], port: u16| {
            let pair = Pair {
                client: client.into(),
                servers: BTreeSet::new(),
                outside: outside.iter().map(|it| IpAddr::from(*it)).collect(),
                ports: BTreeSet::from([port]),
                asked: Asked::Connection { port, to_server: true },
                name: None,
            };
            board.between(&pair, begun).len()
        };
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        assert_eq!(found(client, &[server], 9000), 1);
        assert_eq!(found(client, &[server], 9001), 0);
        assert_eq!(found([10, 0, 0, 3], &[server], 9000), 0);
        assert_eq!(found(client, &[], 9000), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_of_a_proxy_is_found_by_its_client_and_the_name() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        let dns = Dns { query: "rival.zt.test.".to_owned(), ..Dns::default() };
        let l7 = Some(L7 { kind: L7Kind::Request, dns: Some(dns) });
        let flow = Flow { l7, ..Flow::default() };
        let line = Line { flow, node_name: String::new(), time: String::new() };
        let refused = Evidence {
            point: EnforcementPoint::DnsProxy,
            did: Did::RefuseName { name: "rival.zt.test".to_owned() },
            record: Record::Hubble(Arc::new(line)),
            ..Evidence::clone(&denial())
        };
        stream.send(Witness::Spoke(Arc::new(refused))).unwrap();
        tokio::task::yield_now().await;
        let found = |client: [u8; 4], name: Option<&str>| {
            let pair = Pair {
                client: client.into(),
                servers: BTreeSet::new(),
                outside: BTreeSet::new(),
                ports: BTreeSet::new(),
                asked: Asked::Connection { port: 53, to_server: true },
                name: name.map(str::to_owned),
            };
            board.between(&pair, begun).len()
        };
        assert_eq!(found([10, 0, 0, 1], Some("Rival.zt.test")), 1);
        assert_eq!(found([10, 0, 0, 1], Some("partner.zt.test")), 0);
        assert_eq!(found([10, 0, 0, 1], None), 0);
        assert_eq!(found([10, 0, 0, 3], Some("rival.zt.test")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_to_the_server_is_found_whatever_port_is_asked_for() {
        let (stream, records) = broadcast::channel(8);
        let board = Board::new(records);
        let begun = Instant::now();
        let mut told = Evidence::clone(&denial());
        told.flow.destination.set_port(HBONE_PORT);
        stream.send(Witness::Spoke(Arc::new(told))).unwrap();
        tokio::task::yield_now().await;
        let pair = |servers: &[[u8; 4]]| Pair {
            client: [10, 0, 0, 1].into(),
            servers: servers.iter().map(|it| IpAddr::from(*it)).collect(),
            outside: BTreeSet::new(),
            ports: BTreeSet::from([9000]),
            asked: Asked::Connection { port: 9000, to_server: true },
            name: None,
        };
        // Cilium sees the port of the tunnel, whatever is in it.
        assert_eq!(board.between(&pair(&[[10, 0, 0, 2]]), begun).len(), 1);
        assert_eq!(board.between(&pair(&[[10, 0, 0, 4]]), begun).len(), 0);
    }

    fn source() -> SocketAddr {
        (IpAddr::from([10, 0, 0, 1]), 10_001).into()
    }

    fn interest() -> Interest {
        Interest::Flow { protocol: Protocol::Tcp, source: source() }
    }

    fn denial() -> Arc<Evidence> {
        let destination = (IpAddr::from([10, 0, 0, 2]), 9000).into();
        let line = Line { flow: Flow::default(), node_name: String::new(), time: String::new() };
        Arc::new(Evidence {
            point: EnforcementPoint::Cilium,
            node: "node-a".to_owned(),
            flow: FlowKey { protocol: Protocol::Tcp, source: source(), destination },
            opening: true,
            did: Did::DenyByDefault { direction: Direction::Ingress },
            policies: Vec::new(),
            record: Record::Hubble(Arc::new(line)),
        })
    }
}
