//! A scripted agent: its spool, its runs, and the sessions that are attached to it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use ztc_engine::fabric::Session;
use ztc_model::policy::Protocol;
use ztc_model::world::PodRef;
use ztc_wire::{
    Event, FromAgent, Host, Leg, LineSplitter, Observed, PROTOCOL, Phase, RunId, Stimulus, ToAgent,
    decode, encode,
};

use super::network::Network;
use super::script::{Fate, Fault};

/// How long an answer takes.
const LATENCY: Duration = Duration::from_millis(1);
/// What the agent's clock shows at its birth: not what the engine's does.
const CLOCK_US: u64 = 1_000_000_000_000;

/// The agent in one pod.
#[derive(Debug)]
pub(crate) struct Agent {
    pod: PodRef,
    network: Arc<Network>,
    birth: Instant,
    state: Mutex<State>,
    /// Changes when there is something to say, or the sessions end.
    stirred: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    incarnation: u64,
    last: u64,
    spool: VecDeque<(u64, Vec<u8>)>,
    cancels: HashMap<RunId, oneshot::Sender<()>>,
    runs: usize,
    sessions: usize,
    port: u16,
    fault: Option<Fault>,
    /// How often all sessions were ended.
    cuts: u64,
    /// The next thing to say is cut in the middle, and the session with it.
    breaking: bool,
    /// Something that is not the agent's own gets into the session.
    babble: bool,
    absent_until: Option<Instant>,
    mute_until: Option<Instant>,
}

impl Agent {
    pub(crate) fn new(pod: PodRef, network: Arc<Network>) -> Arc<Self> {
        let faulty = pod.to_string() == "shop/web";
        let state = State {
            incarnation: 1,
            last: 0,
            spool: VecDeque::new(),
            cancels: HashMap::new(),
            runs: 0,
            sessions: 0,
            port: 10_000,
            fault: network.script.fault.filter(|_| faulty),
            cuts: 0,
            breaking: false,
            babble: false,
            absent_until: None,
            mute_until: None,
        };
        Arc::new(Self {
            pod,
            network,
            birth: Instant::now(),
            state: Mutex::new(state),
            stirred: watch::Sender::new(0),
        })
    }

    /// A session, unless the agent is away.
    pub(crate) fn session(self: &Arc<Self>) -> Option<Session> {
        if self.state().absent_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.state().sessions += 1;
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(theirs);
        tokio::spawn(Arc::clone(self).hold(ours));
        Some(Session { reader: Box::new(reader), writer: Box::new(writer) })
    }

    /// How often somebody attached.
    pub(crate) fn sessions(&self) -> usize {
        self.state().sessions
    }

    /// Talks until the session ends; `None` is an ordinary end.
    async fn hold(self: Arc<Self>, mut stream: DuplexStream) -> Option<()> {
        let mut stirred = self.stirred.subscribe();
        let cuts = self.state().cuts;
        let mut splitter = LineSplitter::default();
        let mut piece = vec![0; 4096];
        // The number of the last thing that was said in this session, once it is attached.
        let mut sent = None;
        loop {
            stirred.mark_unchanged();
            if self.state().cuts != cuts {
                return None;
            }
            if let Some(last) = &mut sent {
                let (lines, breaks) = self.unsaid(last);
                stream.write_all(&lines).await.ok()?;
                if breaks {
                    // Everything that was sent has been read: only what the agent says is cut.
                    while let Some(Ok(count @ 1..)) = stream.read(&mut piece).now_or_never() {
                        splitter.push(&piece[..count]);
                        self.obey_all(&mut splitter, &mut sent)?;
                    }
                    return None;
                }
            }
            tokio::select! {
                read = stream.read(&mut piece) => match read.ok()? {
                    0 => return None,
                    count => splitter.push(&piece[..count]),
                },
                _ = stirred.changed() => continue,
            }
            let was_attached = sent.is_some();
            self.obey_all(&mut splitter, &mut sent)?;
            if sent.is_some() && !was_attached {
                stream.write_all(&encode(&self.hello())).await.ok()?;
            }
        }
    }

    fn hello(&self) -> FromAgent {
        FromAgent::Hello {
            protocol: PROTOCOL,
            version: "0".to_owned(),
            name: self.pod.to_string(),
            addresses: vec![self.network.address(&self.pod)],
            incarnation: self.state().incarnation,
            now_us: self.now_us(),
        }
    }

    /// Does what it is told; nothing when that is to end the session.
    fn obey_all(
        self: &Arc<Self>,
        splitter: &mut LineSplitter,
        sent: &mut Option<u64>,
    ) -> Option<()> {
        while let Some(line) = splitter.next_line().ok()? {
            match decode(&line).ok()? {
                ToAgent::Attach { after, .. } => *sent = Some(after),
                ToAgent::Run { id, deadline_ms, stimulus, .. } => {
                    self.run(id, deadline_ms, stimulus);
                }
                ToAgent::Cancel { id } => {
                    if let Some(cancel) = self.state().cancels.remove(&id) {
                        cancel.send(()).ok();
                    }
                }
                ToAgent::Ack { seq } => self.state().spool.retain(|(number, _)| *number > seq),
                // No fabric of these tests has a place to capture, and nobody has flows sampled.
                ToAgent::Capture { .. } | ToAgent::Sample { .. } | ToAgent::Bye => return None,
            }
        }
        Some(())
    }

    /// What was not said yet, and whether the session breaks in its middle.
    fn unsaid(&self, sent: &mut u64) -> (Vec<u8>, bool) {
        let mut state = self.state();
        let unsaid: Vec<&(u64, Vec<u8>)> =
            state.spool.iter().filter(|(number, _)| *number > *sent).collect();
        let mut lines: Vec<u8> = unsaid.iter().flat_map(|(_, line)| line.clone()).collect();
        *sent = state.last.max(*sent);
        if std::mem::take(&mut state.babble) {
            lines.extend(b"Segmentation fault\n");
        }
        let breaks = state.breaking && !lines.is_empty();
        if breaks {
            state.breaking = false;
            lines.truncate(lines.len() / 2);
        }
        (lines, breaks)
    }

    /// Starts a run, and with it whatever goes wrong at this run.
    pub(crate) fn run(self: &Arc<Self>, id: RunId, deadline_ms: u64, stimulus: Stimulus) {
        let (cancel, cancelled) = oneshot::channel();
        let (due, incarnation) = {
            let mut state = self.state();
            state.runs += 1;
            state.cancels.insert(id, cancel);
            let runs = state.runs;
            (state.fault.take_if(|fault| fault.at() == runs), state.incarnation)
        };
        if let Some(fault) = due {
            self.fail(fault);
        }
        let deadline = Instant::now() + Duration::from_millis(deadline_ms);
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            if agent.state().incarnation == incarnation {
                let observed = agent.send(id, &stimulus, deadline, cancelled).await;
                agent.conclude(id, observed, incarnation);
            }
        });
    }

    fn fail(&self, fault: Fault) {
        let mut state = self.state();
        match fault {
            Fault::Dies { back_after, .. } => {
                state.incarnation += 1;
                state.cuts += 1;
                state.last = 0;
                state.spool.clear();
                state.absent_until = Some(Instant::now() + back_after);
            }
            Fault::Hangs { until, .. } => state.mute_until = Some(self.birth + until),
            Fault::Babbles { .. } => state.babble = true,
            Fault::Invents { .. } => {
                drop(state);
                self.say(Event::Observed { id: RunId(1 << 60), observed: Observed::Refused });
                return;
            }
            Fault::Skips { .. } => state.last += 1,
            Fault::Breaks { .. } => state.breaking = true,
        }
        drop(state);
        self.stirred.send_modify(|count| *count += 1);
    }

    async fn send(
        &self,
        id: RunId,
        stimulus: &Stimulus,
        deadline: Instant,
        cancelled: oneshot::Receiver<()>,
    ) -> Observed {
        if self.network.script.unsent.is_some_and(|pod| pod == self.pod.to_string()) {
            let error = "Too many open files".to_owned();
            return Observed::Unsent { operation: "open a socket".to_owned(), error };
        }
        let (protocol, to) = match stimulus {
            Stimulus::Tcp { to } => (Protocol::Tcp, to),
            Stimulus::Udp { to } => (Protocol::Udp, to),
            _ => panic!("cases of these tests send tcp and udp"),
        };
        let Host::Ip(address) = to.host else { panic!("cases of these tests name pods") };
        let remote = SocketAddr::new(address, to.port);
        let local = {
            let mut state = self.state();
            state.port += 1;
            SocketAddr::new(self.network.address(&self.pod), state.port)
        };
        self.say(Event::Started { id, leg: Leg::Send, local, remote });
        tokio::select! {
            biased;
            sent = timeout_at(deadline, self.exchange(protocol, local, remote)) => {
                sent.unwrap_or(Observed::Timeout { phase: Phase::Connect })
            }
            Ok(()) = cancelled => Observed::Cancelled { phase: Phase::Connect },
        }
    }

    /// Sends a flow and waits for what comes back, forever if nothing does.
    async fn exchange(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Observed {
        let wait = match self.network.stop(Some(&self.pod), remote) {
            None => LATENCY,
            Some(stop) => {
                let network = Arc::clone(&self.network);
                let fate = stop.fate;
                tokio::spawn(async move { network.testify(&stop, protocol, local, remote).await });
                match fate {
                    Fate::Silence => std::future::pending().await,
                    Fate::Close => return Observed::Closed { reset: false },
                    Fate::Late(after) => after,
                }
            }
        };
        tokio::time::sleep_until(Instant::now() + wait).await;
        let peer = self.network.pod_at(remote.ip()).expect("flows go to pods");
        Observed::Reply { peer: peer.to_string(), remote }
    }

    /// Says what was observed, unless the agent hangs, or is not any more the one that ran it.
    fn conclude(&self, id: RunId, observed: Observed, incarnation: u64) {
        let speaks = {
            let mut state = self.state();
            state.cancels.remove(&id);
            let mute = state.mute_until.is_some_and(|until| Instant::now() < until);
            !mute && state.incarnation == incarnation
        };
        if speaks {
            self.say(Event::Observed { id, observed });
        }
    }

    fn say(&self, event: Event) {
        let mut state = self.state();
        state.last += 1;
        let seq = state.last;
        let line = encode(&FromAgent::Said { seq, at_us: self.now_us(), event });
        state.spool.push_back((seq, line));
        drop(state);
        self.stirred.send_modify(|count| *count += 1);
    }

    fn now_us(&self) -> u64 {
        CLOCK_US + u64::try_from(self.birth.elapsed().as_micros()).expect("a short life")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}
