//! Everything that enforcement points say, from one stream a node and source, as one stream of evidence.
//!
//! Cilium's flows come from Hubble in each agent; the connections of ztunnels and the requests of waypoints from
//! their logs through the API server. A
//! stream that breaks is opened again, and whatever may be missing is said: a gap is never silence.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt as _};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use ztc_engine::fabric::Witness;
use ztc_model::evidence::Evidence;
use ztc_model::{hubble, waypoint, ztunnel};
use ztc_wire::LineSplitter;

use crate::cilium::{Agents, CiliumError};
use crate::mesh::{MeshError, Waypoint, Ztunnels};

/// Between two attempts to listen again. A stream that breaks usually does so because its source
/// restarts, which takes seconds.
const AGAIN: Duration = Duration::from_millis(500);

/// How many records wait for a slow reader before some are lost, and said to be.
const BACKLOG: usize = 65_536;

/// The streams of all nodes, as one.
#[derive(Debug)]
pub(crate) struct Observers {
    sender: broadcast::Sender<Witness>,
    listening: Vec<AbortHandle>,
    /// The streams of flows, by node.
    flows: Vec<(String, Hearing)>,
    /// The streams of ztunnels' logs, by node.
    connections: Vec<(String, Hearing)>,
    /// The streams of waypoints that come and go, by name.
    waypoints: Mutex<BTreeMap<String, (Hearing, AbortHandle)>>,
}

impl Observers {
    /// Those of a lane that is not ready: nothing is ever said.
    pub(crate) fn of_nobody() -> Self {
        Self {
            sender: broadcast::Sender::new(1),
            listening: Vec::new(),
            flows: Vec::new(),
            connections: Vec::new(),
            waypoints: Mutex::default(),
        }
    }

    /// Listens on every node from now on; to ztunnels where the cluster has a mesh, and to these waypoints.
    pub(crate) async fn start(
        agents: &Agents,
        ztunnels: Option<&Ztunnels>,
        waypoints: Vec<Waypoint>,
    ) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let mut sources = Vec::new();
        for node in agents.nodes().await {
            sources.push((Source::Hubble(agents.clone()), node.clone()));
            sources.extend(ztunnels.map(|it| (Source::Ztunnel(it.clone()), node)));
        }
        sources.extend(waypoints.into_iter().map(|it| {
            let name = it.to_string();
            (Source::Waypoint(it), name)
        }));
        let (mut listening, mut flows, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        for (source, place) in sources {
            let heard = match source {
                Source::Hubble(_) => Some(&mut flows),
                Source::Ztunnel(_) => Some(&mut connections),
                Source::Waypoint(_) => None,
            };
            let (hearing, listener) = listen(source, place.clone(), &sender);
            if let Some(heard) = heard {
                heard.push((place, hearing));
            }
            listening.push(listener);
        }
        Self { sender, listening, flows, connections, waypoints: Mutex::default() }
    }

    /// Listens to one more waypoint, if nobody does yet; whether what it says is heard.
    pub(crate) fn hear_waypoint(&self, waypoint: Waypoint) -> bool {
        let mut waypoints = self.waypoints.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waypoint.to_string();
        let (hearing, _) = waypoints
            .entry(place.clone())
            .or_insert_with(|| listen(Source::Waypoint(waypoint), place, &self.sender));
        hearing.is_sound()
    }

    /// Does not listen to a waypoint any more.
    pub(crate) fn leave_waypoint(&self, name: &str) {
        let mut waypoints = self.waypoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, listening)) = waypoints.remove(name) {
            listening.abort();
        }
    }

    /// A node whose flows are not heard now, in words.
    pub(crate) fn unheard_flows(&self) -> Option<String> {
        Some(format!("flows on {} are not heard yet", unheard(&self.flows)?))
    }

    /// A node whose ztunnel is not heard now, in words.
    pub(crate) fn unheard_connections(&self) -> Option<String> {
        Some(format!("the ztunnel on {} is not heard yet", unheard(&self.connections)?))
    }

    /// What is said from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Witness> {
        self.sender.subscribe()
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        let waypoints = self.waypoints.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in self.listening.iter().chain(waypoints.values().map(|(_, task)| task)) {
            task.abort();
        }
    }
}

/// The first that brings nothing now.
fn unheard(streams: &[(String, Hearing)]) -> Option<&str> {
    let unheard = streams.iter().find(|(_, hearing)| !hearing.is_sound());
    unheard.map(|(place, _)| place.as_str())
}

/// Listens to a source from now on; whether it is heard, and how to stop.
fn listen(
    source: Source,
    place: String,
    sender: &broadcast::Sender<Witness>,
) -> (Hearing, AbortHandle) {
    let hearing = Hearing::default();
    let sender = sender.clone();
    let listener = Listener { source, place, sender, hearing: hearing.clone() };
    (hearing, tokio::spawn(listener.listen()).abort_handle())
}

/// How long a stream may be silent before it is taken for one that has nothing to say, rather than for one that is about to
/// break.
const SILENT: Duration = Duration::from_secs(1);

/// After so long without a flow an agent has nothing to say: whatever is sent on a node of a world leaves flows at once.
const QUIET: Duration = Duration::from_secs(10);

/// Whether a stream brings what is said.
#[derive(Debug, Clone, Default)]
struct Hearing(Arc<Mutex<Option<Open>>>);

/// A stream that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    has_spoken: bool,
}

impl Hearing {
    fn set(&self, open: Option<Open>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    fn is_sound(&self) -> bool {
        let open = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_some_and(|it| it.has_spoken || it.since.elapsed() >= SILENT)
    }
}

/// Who speaks.
enum Source {
    Hubble(Agents),
    Ztunnel(Ztunnels),
    Waypoint(Waypoint),
}

/// Why a source cannot be listened to.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Cilium(#[from] CiliumError),
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

impl Source {
    fn told(&self) -> &'static str {
        match self {
            Self::Hubble(_) => "flows on",
            Self::Ztunnel(_) => "ztunnel's log on",
            Self::Waypoint(_) => "the log of waypoint",
        }
    }

    async fn open(&self, place: &str) -> Result<Stream, SourceError> {
        Ok(match self {
            Self::Hubble(agents) => Stream::Exec(agents.flows(place).await?),
            Self::Ztunnel(ztunnels) => Stream::Log(ztunnels.log(place).await?),
            Self::Waypoint(waypoint) => Stream::Log(waypoint.log().await?),
        })
    }

    /// Whoever restarts comes back under another name.
    async fn find_again(&self) -> Result<(), SourceError> {
        match self {
            Self::Hubble(agents) => Ok(agents.find_again().await?),
            Self::Ztunnel(_) | Self::Waypoint(_) => Ok(()),
        }
    }
}

/// Bytes from a source.
enum Stream {
    Exec(DuplexStream),
    Log(Pin<Box<dyn AsyncRead + Send>>),
}

impl Stream {
    async fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Exec(stream) => stream.read(piece).await,
            Self::Log(stream) => stream.read(piece).await,
        }
    }
}

/// Listens to one source.
struct Listener {
    source: Source,
    /// The node, or the name of a waypoint.
    place: String,
    sender: broadcast::Sender<Witness>,
    hearing: Hearing,
}

impl Listener {
    /// Listens on and on. Whenever the stream breaks, records may be missing, and that is said.
    async fn listen(self) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut young: Option<Instant> = None;
        loop {
            again.tick().await;
            let streamed = self.stream().await;
            let is_young =
                matches!(streamed, Err(SourceError::Cilium(CiliumError::TooYoung { .. })));
            young = is_young.then(|| young.unwrap_or_else(Instant::now));
            if let Some(since) = young.filter(|it| it.elapsed() >= QUIET) {
                self.hearing.set(Some(Open { since, has_spoken: false }));
                continue;
            }
            let why = match streamed {
                Ok(()) => "the stream ended".to_owned(),
                Err(error) => ztc_engine::chain(&error),
            };
            self.hearing.set(None);
            self.gap(&why);
            if let Err(error) = self.source.find_again().await {
                self.gap(&ztc_engine::chain(&error));
            }
        }
    }

    async fn stream(&self) -> Result<(), SourceError> {
        let mut stream = self.source.open(&self.place).await?;
        let since = Instant::now();
        self.hearing.set(Some(Open { since, has_spoken: false }));
        let (mut lines, mut piece) = (LineSplitter::default(), vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(length) => lines.push(&piece[..length]),
            }
            loop {
                match lines.next_line() {
                    Ok(Some(line)) => {
                        self.hearing.set(Some(Open { since, has_spoken: true }));
                        self.hear(&String::from_utf8_lossy(&line));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.gap(&error.to_string());
                        return Ok(());
                    }
                }
            }
        }
    }

    fn hear(&self, line: &str) {
        let read = match self.source {
            Source::Hubble(_) => self.hear_flow(line),
            Source::Ztunnel(_) => self.hear_connection(line),
            Source::Waypoint(_) => self.hear_request(line),
        };
        if let Err(error) = read {
            self.gap(&format!("cannot be read: {error}: {line}"));
        }
    }

    fn hear_flow(&self, line: &str) -> Result<(), serde_json::Error> {
        match hubble::read(line)? {
            hubble::Record::Flow(flow) => {
                if let Some(evidence) = Evidence::from_hubble(&Arc::from(flow)) {
                    self.say(Witness::Spoke(Arc::new(evidence)));
                }
            }
            hubble::Record::Lost(count) => self.gap(&format!("Hubble lost {count} records")),
            hubble::Record::Other => {}
        }
        Ok(())
    }

    fn hear_connection(&self, line: &str) -> Result<(), serde_json::Error> {
        if let Some(line) = ztunnel::read(line)? {
            let evidence = Evidence::from_ztunnel(&Arc::new(line), &self.place);
            self.say(Witness::Spoke(Arc::new(evidence)));
        }
        Ok(())
    }

    fn hear_request(&self, line: &str) -> Result<(), serde_json::Error> {
        if let Some(line) = waypoint::read(line)? {
            let evidence = Evidence::from_waypoint(&Arc::new(line), &self.place);
            self.say(Witness::Spoke(Arc::new(evidence)));
        }
        Ok(())
    }

    fn gap(&self, why: &str) {
        let reason = format!("{} {}: {why}", self.source.told(), self.place);
        self.say(Witness::Gap { reason });
    }

    fn say(&self, witness: Witness) {
        // Between two lanes nobody listens.
        self.sender.send(witness).ok();
    }
}

#[cfg(test)]
mod tests;
