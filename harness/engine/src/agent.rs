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
    Canary, Captured, Event, FrameError, FromAgent, Leg, LineSplitter, Observed, PROTOCOL, RunId,
    Stimulus, Stretch, ToAgent, Watch, decode, encode,
};

use crate::fabric::{Cluster, FabricError, Session};

/// How long an answer may be late before the agent counts as hung.
const GRACE: Duration = Duration::from_secs(5);

/// How soon what was heard is acknowledged, if no order takes the acknowledgement along. Two small
/// writes in a row would cost 40 ms on a real cluster: the second waits for the peer's delayed
/// acknowledgement of the first (RFC 896, RFC 1122 §4.2.3.2).
const ACK_WITHIN: Duration = Duration::from_millis(20);

/// The first id for an agent that may have a life behind it. It may still have something to say to an
/// earlier run of ztc, which must not be taken for an answer to this one: the clock gives ids that no
/// earlier one has given, as far fewer than a million are given in a second.
pub(crate) fn first_run() -> RunId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    RunId(u64::try_from(now.as_micros()).unwrap_or(1))
}

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
    #[error("the agent said no hello within {} ms", ceiling.as_millis())]
    Mute { ceiling: Duration },
}

impl AgentError {
    /// Whether opening the session again may help.
    const fn is_transport(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Broken(_) | Self::Closed | Self::Mute { .. })
    }
}

/// What is heard of one run.
#[derive(Debug)]
pub(crate) enum News {
    /// A socket is about to send.
    Started { leg: Leg, local: SocketAddr, remote: SocketAddr },
    /// The run is over.
    Observed { observed: Observed, at: Instant },
    /// A capture has begun.
    Capturing,
    /// A capture is over.
    Captured(Captured),
    /// A capture could not begin, or broke off.
    CaptureFailed(String),
    /// What came of samples since the last word of them, and whether these are the last.
    Sampled { stretches: Vec<Dated>, over: bool },
    /// Nothing more will be heard.
    Lost { reason: String },
}

/// A stretch of samples, dated on the engine's clock.
#[derive(Debug, Clone)]
pub(crate) struct Dated {
    pub(crate) stretch: Stretch,
    /// When its first was sent.
    pub(crate) first: Instant,
    /// When its last was.
    pub(crate) last: Instant,
}

/// The agent in one pod.
#[derive(Debug)]
pub(crate) struct Agent {
    pod: PodRef,
    shared: Arc<Mutex<Shared>>,
    outbox: mpsc::UnboundedSender<ToAgent>,
    session: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    /// The first id of this attachment. An agent may still speak of lower ones, and of whatever
    /// else before its first word about a run of ours: an attachment before this one had sent and
    /// given them up.
    first: u64,
    /// The agent has spoken about a run of ours.
    answered: bool,
    /// The next id to give; every lower one has been given.
    next: u64,
    runs: HashMap<RunId, mpsc::UnboundedSender<News>>,
    /// The number of the last thing that was heard; nothing where any number may be the first,
    /// because nobody can tell how much the agent has said to others and forgotten.
    heard: Option<u64>,
    incarnation: Option<u64>,
    clock: Option<Clock>,
    /// A run was never answered.
    hung: bool,
    lost: Option<String>,
}

impl Agent {
    /// Attaches to an agent that has a life behind it: its runs get ids from `next` on. `ceiling`
    /// is how long it may take to say hello, and how long it may be gone before it is given up.
    pub(crate) fn attach(
        cluster: Arc<dyn Cluster>,
        pod: PodRef,
        next: RunId,
        ceiling: Duration,
    ) -> Self {
        Self::open(cluster, pod, Shared::new(next.0, None), ceiling)
    }

    /// Attaches to an agent that has just been born. It sends `first` by itself, and everything
    /// that it ever says has to be heard.
    pub(crate) fn attach_newborn(
        cluster: Arc<dyn Cluster>,
        pod: PodRef,
        first: &[RunId],
        ceiling: Duration,
    ) -> (Self, Vec<Flight>) {
        let mut state = Shared::new(1, Some(0));
        let mut expected = Vec::new();
        for id in first {
            let (sender, news) = mpsc::unbounded_channel();
            state.next = state.next.max(id.0 + 1);
            state.runs.insert(*id, sender);
            expected.push((*id, news));
        }
        let agent = Self::open(cluster, pod, state, ceiling);
        let flights = expected
            .into_iter()
            .map(|(id, news)| Flight { id, news, shared: Arc::clone(&agent.shared) })
            .collect();
        (agent, flights)
    }

    fn open(cluster: Arc<dyn Cluster>, pod: PodRef, state: Shared, ceiling: Duration) -> Self {
        let (outbox, orders) = mpsc::unbounded_channel();
        let shared = Arc::new(Mutex::new(state));
        let link = Link { cluster, pod: pod.clone(), shared: Arc::clone(&shared), ceiling };
        let session = tokio::spawn(link.serve(orders)).abort_handle();
        Self { pod, shared, outbox, session }
    }

    /// Sends a stimulus, with a nonce that begins with a canary where there is one.
    pub(crate) fn run(
        &self,
        stimulus: Stimulus,
        canary: Option<Canary>,
        deadline: Duration,
    ) -> Flight {
        let deadline_ms = millis(deadline);
        self.order(|id| ToAgent::Run { id, deadline_ms, stimulus, canary })
    }

    /// Has it capture packets until that is taken back.
    pub(crate) fn capture(&self, watch: Watch, deadline: Duration) -> Flight {
        let deadline_ms = millis(deadline);
        self.order(|id| ToAgent::Capture { id, deadline_ms, watch })
    }

    /// Has it send a stimulus again and again until that is taken back.
    pub(crate) fn sample(&self, stimulus: Stimulus, every: Duration, deadline: Duration) -> Flight {
        let every_us = micros(every);
        let deadline_ms = millis(deadline);
        self.order(|id| ToAgent::Sample { id, every_us, deadline_ms, stimulus })
    }

    fn order(&self, order: impl FnOnce(RunId) -> ToAgent) -> Flight {
        let (sender, news) = mpsc::unbounded_channel();
        let mut shared = lock(&self.shared);
        let id = RunId(shared.next);
        shared.next += 1;
        let flight = Flight { id, news, shared: Arc::clone(&self.shared) };
        if let Some(reason) = &shared.lost {
            sender.send(News::Lost { reason: reason.clone() }).ok();
            return flight;
        }
        shared.runs.insert(id, sender);
        // The session task ends only by losing all runs, which answers this one as well.
        self.outbox.send(order(id)).ok();
        flight
    }

    /// Takes a run back; its last news is then not far.
    pub(crate) fn cancel(&self, id: RunId) {
        self.outbox.send(ToAgent::Cancel { id }).ok();
    }

    /// Whether the next case may use this attachment: nothing was lost in it.
    pub(crate) fn is_sound(&self) -> bool {
        let shared = lock(&self.shared);
        shared.lost.is_none() && !shared.hung
    }

    /// The first id that was not given in this attachment.
    pub(crate) fn next_id(&self) -> RunId {
        RunId(lock(&self.shared).next)
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
    shared: Arc<Mutex<Shared>>,
}

impl Flight {
    /// The next news; silence beyond `deadline` and a grace means that the agent hangs.
    pub(crate) async fn next(&mut self, deadline: Instant) -> News {
        match timeout_at(deadline + GRACE, self.news.recv()).await {
            Ok(Some(news)) => news,
            Ok(None) => News::Lost { reason: "the session with the agent ended".to_owned() },
            Err(_elapsed) => {
                lock(&self.shared).hung = true;
                let reason = format!(
                    "the agent said nothing within {} ms of the deadline",
                    GRACE.as_millis()
                );
                News::Lost { reason }
            }
        }
    }
}

/// The task that keeps a session open.
struct Link {
    cluster: Arc<dyn Cluster>,
    pod: PodRef,
    shared: Arc<Mutex<Shared>>,
    ceiling: Duration,
}

impl Link {
    async fn serve(self, mut orders: mpsc::UnboundedReceiver<ToAgent>) {
        let mut gone_since: Option<Instant> = None;
        // Orders that were taken from the queue while no session could carry them.
        let mut undelivered = Vec::new();
        loop {
            let heard = lock(&self.shared).heard;
            let opened = Instant::now();
            let error = self.session(&mut orders, &mut undelivered).await;
            let stood =
                !matches!(error, AgentError::Mute { .. }) && opened.elapsed() > self.ceiling;
            if stood || lock(&self.shared).heard > heard {
                gone_since = None;
            }
            let gone = *gone_since.get_or_insert_with(Instant::now);
            if !error.is_transport() || gone.elapsed() > self.ceiling {
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
        let hello_by = Instant::now() + self.ceiling;
        let session = match timeout_at(hello_by, self.cluster.session(&self.pod)).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return AgentError::Open(error),
            Err(_elapsed) => return AgentError::Mute { ceiling: self.ceiling },
        };
        match self.converse(session, hello_by, orders, undelivered).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn converse(
        &self,
        session: Session,
        hello_by: Instant,
        orders: &mut mpsc::UnboundedReceiver<ToAgent>,
        undelivered: &mut Vec<ToAgent>,
    ) -> Result<std::convert::Infallible, AgentError> {
        let Session { mut reader, mut writer } = session;
        let after = lock(&self.shared).heard.unwrap_or(0);
        let attached = Instant::now();
        let mut hello_by = Some(hello_by);
        let (mut acknowledged, mut ack_by) = (lock(&self.shared).heard, None);
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
                    let greeted = self.hear_all(&mut splitter, attached);
                    if lock(&self.shared).heard > acknowledged {
                        ack_by.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
                    }
                    // What ends the session is acknowledged as well: nobody is told it again.
                    if greeted.is_err() {
                        let ack = self.acknowledge(&mut acknowledged);
                        writer.write_all(&ack).await.map_err(AgentError::Broken)?;
                    }
                    if greeted? {
                        hello_by = None;
                    }
                }
                order = orders.recv() => {
                    // The handle owns the sender and aborts this task when it is dropped.
                    let Some(order) = order else { return Err(AgentError::Closed) };
                    let mut bytes = self.acknowledge(&mut acknowledged);
                    ack_by = None;
                    bytes.extend(encode(&order));
                    undelivered.push(order);
                    while let Ok(order) = orders.try_recv() {
                        bytes.extend(encode(&order));
                        undelivered.push(order);
                    }
                    writer.write_all(&bytes).await.map_err(AgentError::Broken)?;
                    undelivered.clear();
                }
                () = past(ack_by) => {
                    ack_by = None;
                    let ack = self.acknowledge(&mut acknowledged);
                    writer.write_all(&ack).await.map_err(AgentError::Broken)?;
                }
                () = past(hello_by) => {
                    return Err(AgentError::Mute { ceiling: self.ceiling });
                }
            }
        }
    }

    /// The acknowledgement of everything that was heard, if there is something to acknowledge.
    fn acknowledge(&self, acknowledged: &mut Option<u64>) -> Vec<u8> {
        let heard = lock(&self.shared).heard;
        match heard.filter(|_| heard > *acknowledged) {
            Some(seq) => {
                *acknowledged = heard;
                encode(&ToAgent::Ack { seq })
            }
            None => Vec::new(),
        }
    }

    /// Takes in every whole line; true if there was a hello among them.
    fn hear_all(&self, splitter: &mut LineSplitter, attached: Instant) -> Result<bool, AgentError> {
        let mut greeted = false;
        while let Some(line) = splitter.next_line().map_err(AgentError::Garbage)? {
            let message = decode(&line).map_err(AgentError::Garbage)?;
            greeted |= self.hear(message, attached)?;
        }
        Ok(greeted)
    }

    /// Takes in one message; true for a hello.
    fn hear(&self, message: FromAgent, attached: Instant) -> Result<bool, AgentError> {
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
                shared.clock = Some(Clock::read(attached, Instant::now(), now_us));
                Ok(true)
            }
            FromAgent::Said { seq, at_us, event } => {
                let mut shared = lock(&self.shared);
                if shared.incarnation.is_none() {
                    return Err(violation("it spoke before its hello"));
                }
                if let Some(due) = shared.heard.map(|heard| heard + 1).filter(|due| *due != seq) {
                    return Err(violation(format!("number {seq} came where {due} was due")));
                }
                shared.heard = Some(seq);
                shared.tell(at_us, event).map(|()| false)
            }
            FromAgent::Rejected { reason } => Err(AgentError::Rejected { reason }),
        }
    }
}

impl Shared {
    fn new(first: u64, heard: Option<u64>) -> Self {
        Self {
            first,
            answered: false,
            next: first,
            runs: HashMap::new(),
            heard,
            incarnation: None,
            clock: None,
            hung: false,
            lost: None,
        }
    }

    fn tell(&mut self, at_us: u64, event: Event) -> Result<(), AgentError> {
        let (id, news) = match event {
            Event::Started { id, leg, local, remote } => (id, News::Started { leg, local, remote }),
            Event::Observed { id, observed } => {
                let at = self.clock.map_or_else(Instant::now, |clock| clock.engine_time(at_us));
                (id, News::Observed { observed, at })
            }
            Event::Capturing { id } => (id, News::Capturing),
            Event::Captured { id, captured } => (id, News::Captured(captured)),
            Event::CaptureFailed { id, error } => (id, News::CaptureFailed(error)),
            Event::Sampled { id, stretches, over } => {
                let dated = stretches.into_iter().map(|it| self.dated(it)).collect();
                (id, News::Sampled { stretches: dated, over })
            }
        };
        let over = !matches!(
            news,
            News::Started { .. } | News::Capturing | News::Sampled { over: false, .. }
        );
        let Some(sender) = self.runs.get(&id) else {
            let is_past = id.0 < self.first || !self.answered;
            let what = || format!("it spoke of run {}, which it was not sent or had ended", id.0);
            return if is_past { Ok(()) } else { Err(violation(what())) };
        };
        self.answered = true;
        // Whoever sent the run may have lost interest in it.
        sender.send(news).ok();
        if over {
            self.runs.remove(&id);
        }
        Ok(())
    }

    fn dated(&self, stretch: Stretch) -> Dated {
        let at = |at_us| self.clock.map_or_else(Instant::now, |clock| clock.engine_time(at_us));
        Dated { first: at(stretch.first.at_us), last: at(stretch.last.at_us), stretch }
    }
}

/// One moment on both clocks. The engine's does not jump when somebody sets the time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    engine: Instant,
    agent_us: u64,
}

impl Clock {
    /// The agent's word lies, at best knowledge, in the middle between asking and hearing
    /// (Cristian's algorithm).
    fn read(asked: Instant, heard: Instant, now_us: u64) -> Self {
        Self { engine: asked + heard.duration_since(asked) / 2, agent_us: now_us }
    }

    fn engine_time(self, at_us: u64) -> Instant {
        let apart = Duration::from_micros(at_us.abs_diff(self.agent_us));
        let moment = if at_us >= self.agent_us {
            self.engine.checked_add(apart)
        } else {
            self.engine.checked_sub(apart)
        };
        // A moment that no clock of the engine can show is an agent's nonsense.
        moment.unwrap_or(self.engine)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn violation(what: impl Into<String>) -> AgentError {
    AgentError::Violation { what: what.into() }
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
