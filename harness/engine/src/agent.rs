//! The engine's side of a session with the agent in a pod.
//!
//! Runs are told apart by ids, answers come in any order, and a session that breaks is opened again
//! where it ended. What an agent may not do (answer for a run that was never sent, say things out
//! of order, send what is no message) ends the trust in it: every run of it is lost, with the reason.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use ztc_model::world::PodRef;
use ztc_wire::{
    Event, FrameError, FromAgent, Leg, LineSplitter, Observed, PROTOCOL, RunId, Stimulus, ToAgent,
    decode, encode,
};

use crate::fabric::{Cluster, FabricError, Session};

/// How long an agent may take to say hello, and how long it may be gone before it is given up.
const ATTACH_CEILING: Duration = Duration::from_secs(5);
/// How long an answer may be late before the agent counts as hung.
const GRACE: Duration = Duration::from_secs(1);

/// Why a session with an agent failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The session could not be opened.
    #[error("cannot reach the agent")]
    Open(#[source] FabricError),
    /// The stream failed.
    #[error("the session broke")]
    Broken(#[source] std::io::Error),
    /// The agent ended the stream.
    #[error("the agent closed the session")]
    Closed,
    /// What came is no message.
    #[error("the agent answered garbage")]
    Garbage(#[source] FrameError),
    /// The agent is of another version.
    #[error("the agent speaks protocol {theirs}, the engine {PROTOCOL}")]
    Protocol { theirs: u32 },
    /// The agent refused the session.
    #[error("the agent refused the session: {reason}")]
    Rejected { reason: String },
    /// The agent broke the rules of the protocol.
    #[error("the agent broke the protocol: {what}")]
    Violation { what: String },
    /// No hello came.
    #[error("the agent said no hello within {} ms", ATTACH_CEILING.as_millis())]
    Mute,
}

impl AgentError {
    /// Whether opening the session again may help.
    const fn is_transport(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Broken(_) | Self::Closed | Self::Mute)
    }
}

/// What is heard of one run.
#[derive(Debug)]
pub(crate) enum News {
    /// A socket is about to send.
    Started { leg: Leg, local: SocketAddr },
    /// The run is over.
    Observed { observed: Observed, at: SystemTime },
    /// Nothing more will be heard.
    Lost { reason: String },
}

/// The agent in one pod.
#[derive(Debug)]
pub(crate) struct Agent {
    pod: PodRef,
    shared: Arc<Mutex<Shared>>,
    outbox: mpsc::UnboundedSender<ToAgent>,
    session: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    /// The next id to give; every lower one has been given.
    next: u64,
    runs: HashMap<RunId, mpsc::UnboundedSender<News>>,
    heard: u64,
    incarnation: Option<u64>,
    /// What to add to the agent's clock to get the engine's, microseconds.
    offset_us: i128,
    lost: Option<String>,
}

impl Agent {
    /// Attaches to the agent. `first` are the ids of the runs that it sends by itself.
    pub(crate) fn attach(
        cluster: Arc<dyn Cluster>,
        pod: PodRef,
        first: &[RunId],
    ) -> (Self, Vec<Flight>) {
        let (outbox, orders) = mpsc::unbounded_channel();
        let shared = Arc::new(Mutex::new(Shared { next: 1, ..Shared::default() }));
        let mut flights = Vec::new();
        for id in first {
            let (sender, news) = mpsc::unbounded_channel();
            let mut state = lock(&shared);
            state.next = state.next.max(id.0 + 1);
            state.runs.insert(*id, sender);
            flights.push(Flight { id: *id, news });
        }
        let link = Link { cluster, pod: pod.clone(), shared: Arc::clone(&shared) };
        let session = tokio::spawn(link.serve(orders)).abort_handle();
        (Self { pod, shared, outbox, session }, flights)
    }

    /// Sends a stimulus.
    pub(crate) fn run(&self, stimulus: Stimulus, deadline: Duration) -> Flight {
        let (sender, news) = mpsc::unbounded_channel();
        let mut shared = lock(&self.shared);
        let id = RunId(shared.next);
        shared.next += 1;
        if let Some(reason) = &shared.lost {
            sender.send(News::Lost { reason: reason.clone() }).ok();
            return Flight { id, news };
        }
        shared.runs.insert(id, sender);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        // The session task ends only by losing all runs, which answers this one as well.
        self.outbox.send(ToAgent::Run { id, deadline_ms, stimulus }).ok();
        Flight { id, news }
    }

    /// Takes a run back; its last news is then not far.
    pub(crate) fn cancel(&self, id: RunId) {
        self.outbox.send(ToAgent::Cancel { id }).ok();
    }

    /// Why the agent cannot be used any more, if so.
    pub(crate) fn lost(&self) -> Option<String> {
        lock(&self.shared).lost.clone()
    }

    /// Waits until the agent has said hello.
    ///
    /// # Errors
    /// The reason why it never will.
    pub(crate) async fn hello(&self, ceiling: Duration, poll: Duration) -> Result<(), String> {
        use crate::wait::{Look, until};
        until(&format!("the hello of the agent in {}", self.pod), ceiling, poll, || async {
            let shared = lock(&self.shared);
            match (&shared.lost, shared.incarnation) {
                (Some(reason), _) => Err(reason.clone()),
                (None, Some(_)) => Ok(Look::Met(())),
                (None, None) => Ok(Look::NotYet { status: "no hello".to_owned() }),
            }
        })
        .await
        .map_err(|error| error.to_string())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// One run in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Its id.
    pub(crate) id: RunId,
    news: mpsc::UnboundedReceiver<News>,
}

impl Flight {
    /// The next news; silence beyond `deadline` and a grace means that the agent hangs.
    pub(crate) async fn next(&mut self, deadline: Instant) -> News {
        match timeout_at(deadline + GRACE, self.news.recv()).await {
            Ok(Some(news)) => news,
            Ok(None) => News::Lost { reason: "the session with the agent ended".to_owned() },
            Err(_elapsed) => News::Lost {
                reason: format!(
                    "the agent said nothing within {} ms of the deadline",
                    GRACE.as_millis()
                ),
            },
        }
    }
}

/// The task that keeps a session open.
struct Link {
    cluster: Arc<dyn Cluster>,
    pod: PodRef,
    shared: Arc<Mutex<Shared>>,
}

impl Link {
    async fn serve(self, mut orders: mpsc::UnboundedReceiver<ToAgent>) {
        let mut gone_since: Option<Instant> = None;
        // Orders that were taken from the queue while no session could carry them.
        let mut undelivered = Vec::new();
        loop {
            let heard = lock(&self.shared).heard;
            let error = self.session(&mut orders, &mut undelivered).await;
            if lock(&self.shared).heard > heard {
                gone_since = None;
            }
            let gone = *gone_since.get_or_insert_with(Instant::now);
            if !error.is_transport() || gone.elapsed() > ATTACH_CEILING {
                self.lose(&error);
                return;
            }
            // Re-attaching at once would spin while a kubelet restarts.
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            pause.tick().await;
            pause.tick().await;
        }
    }

    fn lose(&self, error: &AgentError) {
        let reason = format!("agent in {}: {}", self.pod, crate::chain(error));
        let mut shared = lock(&self.shared);
        for (_, sender) in shared.runs.drain() {
            sender.send(News::Lost { reason: reason.clone() }).ok();
        }
        shared.lost = Some(reason);
    }

    /// One session, from its opening to the error that ended it.
    async fn session(
        &self,
        orders: &mut mpsc::UnboundedReceiver<ToAgent>,
        undelivered: &mut Vec<ToAgent>,
    ) -> AgentError {
        let session = match self.cluster.session(&self.pod).await {
            Ok(session) => session,
            Err(error) => return AgentError::Open(error),
        };
        match self.converse(session, orders, undelivered).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn converse(
        &self,
        session: Session,
        orders: &mut mpsc::UnboundedReceiver<ToAgent>,
        undelivered: &mut Vec<ToAgent>,
    ) -> Result<std::convert::Infallible, AgentError> {
        let Session { mut reader, mut writer } = session;
        let after = lock(&self.shared).heard;
        let attached = SystemTime::now();
        let mut hello_by = Some(Instant::now() + ATTACH_CEILING);
        let mut splitter = LineSplitter::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut unsent = encode(&ToAgent::Attach { protocol: PROTOCOL, after });
        for order in undelivered.iter() {
            unsent.extend(encode(order));
        }
        writer.write_all(&unsent).await.map_err(AgentError::Broken)?;
        undelivered.clear();
        loop {
            tokio::select! {
                read = reader.read(&mut buffer) => {
                    match read.map_err(AgentError::Broken)? {
                        0 => return Err(AgentError::Closed),
                        count => splitter.push(&buffer[..count]),
                    }
                    let before = lock(&self.shared).heard;
                    while let Some(line) = splitter.next_line().map_err(AgentError::Garbage)? {
                        let message = decode(&line).map_err(AgentError::Garbage)?;
                        if self.hear(message, attached)? {
                            hello_by = None;
                        }
                    }
                    let heard = lock(&self.shared).heard;
                    if heard > before {
                        let ack = encode(&ToAgent::Ack { seq: heard });
                        writer.write_all(&ack).await.map_err(AgentError::Broken)?;
                    }
                }
                order = orders.recv() => {
                    // The handle owns the sender and aborts this task when it is dropped.
                    let Some(order) = order else { return Err(AgentError::Closed) };
                    let mut bytes = encode(&order);
                    undelivered.push(order);
                    while let Ok(order) = orders.try_recv() {
                        bytes.extend(encode(&order));
                        undelivered.push(order);
                    }
                    writer.write_all(&bytes).await.map_err(AgentError::Broken)?;
                    undelivered.clear();
                }
                () = past(hello_by) => return Err(AgentError::Mute),
            }
        }
    }

    /// Takes in one message; true for a hello.
    fn hear(&self, message: FromAgent, attached: SystemTime) -> Result<bool, AgentError> {
        match message {
            FromAgent::Hello { protocol, incarnation, now_us, .. } => {
                if protocol != PROTOCOL {
                    return Err(AgentError::Protocol { theirs: protocol });
                }
                let mut shared = lock(&self.shared);
                if shared.incarnation.is_some_and(|known| known != incarnation) {
                    return Err(violation("it was restarted: what it had seen is gone"));
                }
                shared.incarnation = Some(incarnation);
                shared.offset_us = clock_offset_us(attached, SystemTime::now(), now_us);
                Ok(true)
            }
            FromAgent::Said { seq, at_us, event } => {
                let mut shared = lock(&self.shared);
                if shared.incarnation.is_none() {
                    return Err(violation("it spoke before its hello"));
                }
                if seq != shared.heard + 1 {
                    let expected = shared.heard + 1;
                    return Err(violation(format!("number {seq} came where {expected} was due")));
                }
                shared.heard = seq;
                shared.tell(at_us, event).map(|()| false)
            }
            FromAgent::Rejected { reason } => Err(AgentError::Rejected { reason }),
        }
    }
}

impl Shared {
    fn tell(&mut self, at_us: u64, event: Event) -> Result<(), AgentError> {
        let (id, news) = match event {
            Event::Started { id, leg, local, .. } => (id, News::Started { leg, local }),
            Event::Observed { id, observed } => {
                (id, News::Observed { observed, at: self.engine_time(at_us) })
            }
        };
        let over = matches!(news, News::Observed { .. });
        let Some(sender) = self.runs.get(&id) else {
            return Err(violation(format!(
                "it spoke of run {}, which it was not sent or had ended",
                id.0
            )));
        };
        // Whoever sent the run may have lost interest in it.
        sender.send(news).ok();
        if over {
            self.runs.remove(&id);
        }
        Ok(())
    }

    fn engine_time(&self, at_us: u64) -> SystemTime {
        let us = (i128::from(at_us) + self.offset_us).max(0);
        UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }
}

fn violation(what: impl Into<String>) -> AgentError {
    AgentError::Violation { what: what.into() }
}

/// What to add to the agent's clock: its word lies, at best knowledge, in the middle between
/// asking and hearing (Cristian's algorithm).
fn clock_offset_us(asked: SystemTime, heard: SystemTime, now_us: u64) -> i128 {
    let us = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |it| i128::try_from(it.as_micros()).unwrap_or(0))
    };
    i128::midpoint(us(asked), us(heard)) - i128::from(now_us)
}

async fn past(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
