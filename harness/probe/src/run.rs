//! Runs: who is under way, when each has to end, and that each ends in exactly one observation.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use ztc_wire::{Canary, Event, Leg, Observed, Phase, RunId, Sent, Stimulus, Stretch, Watch};

use crate::capture;
use crate::client::{self, Flows, Streams};
use crate::exit::chain;
use crate::ports::Ports;
use crate::random;
use crate::sample;
use crate::spool::{self, Spool};
use crate::tls::Tls;

/// Runs under way at once before more are refused: each holds a socket.
pub(crate) const MAX_RUNS: usize = 4096;

/// The longest deadline; a longer one is cut, as the clock cannot count to the end of 64 bits.
pub(crate) const LONGEST: Duration = Duration::from_hours(24);

/// Why a run cannot even be refused with an observation.
#[derive(Debug, Error)]
pub enum RunError {
    /// The number is taken: its observations could not be told apart.
    #[error("run {} is under way already", .0.0)]
    Duplicate(RunId),
    /// The spool has no room even for a refusal.
    #[error("run {} is not taken: {held} entries wait for an acknowledgement", .id.0)]
    SpoolFull {
        /// The run.
        id: RunId,
        /// How many entries the spool holds.
        held: usize,
    },
}

/// The runs of an agent.
#[derive(Debug)]
pub(crate) struct Runs {
    spool: Arc<Spool>,
    ports: Ports,
    flows: Flows,
    streams: Streams,
    tls: Tls,
    resolv_conf: PathBuf,
    cancels: Mutex<HashMap<RunId, oneshot::Sender<()>>>,
}

impl Runs {
    pub(crate) fn new(spool: Arc<Spool>, tls: Tls, resolv_conf: PathBuf) -> Self {
        Self {
            spool,
            ports: Ports::new(),
            flows: Flows::default(),
            streams: Streams::default(),
            tls,
            resolv_conf,
            cancels: Mutex::default(),
        }
    }

    /// Starts a run on the current runtime. From here on it ends in one [`Event::Observed`].
    pub(crate) fn start(
        self: &Arc<Self>,
        id: RunId,
        deadline_ms: u64,
        stimulus: Stimulus,
        canary: Option<Canary>,
    ) -> Result<(), RunError> {
        let deadline = deadline(deadline_ms);
        match self.take(id)? {
            Ok(cancelled) => {
                let run = Run { canary, ..Run::new(id, Arc::clone(self)) };
                tokio::spawn(run.end(stimulus, deadline, cancelled));
            }
            Err(error) => {
                let observed = Observed::Unsent { operation: "take the run".into(), error };
                self.spool.say(Event::Observed { id, observed });
            }
        }
        Ok(())
    }

    /// Starts a capture. From here on it ends in one [`Event::Captured`] or [`Event::CaptureFailed`].
    pub(crate) fn capture(
        self: &Arc<Self>,
        id: RunId,
        deadline_ms: u64,
        watch: Watch,
    ) -> Result<(), RunError> {
        let deadline = deadline(deadline_ms);
        match self.take(id)? {
            Ok(cancelled) => {
                let runs = Arc::clone(self);
                tokio::spawn(async move {
                    let begun = || runs.spool.say(Event::Capturing { id });
                    let over = async { drop(timeout_at(deadline, cancelled).await) };
                    let captured = capture::run(watch, begun, over).await;
                    runs.cancels().remove(&id);
                    runs.spool.say(match captured {
                        Ok(captured) => Event::Captured { id, captured },
                        Err(error) => Event::CaptureFailed { id, error: chain(&error) },
                    });
                });
            }
            Err(error) => self.spool.say(Event::CaptureFailed { id, error }),
        }
        Ok(())
    }

    /// Starts samples. From here on they end in one [`Event::Sampled`] that is the last.
    pub(crate) fn sample(self: &Arc<Self>, order: sample::Order) -> Result<(), RunError> {
        let id = order.id;
        match self.take(id)? {
            Ok(cancelled) => {
                let runs = Arc::clone(self);
                tokio::spawn(async move {
                    sample::run(Arc::clone(&runs), order, cancelled).await;
                    runs.cancels().remove(&id);
                });
            }
            Err(error) => {
                let seen = Observed::Unsent { operation: "take the samples".into(), error };
                let sent = Sent { at_us: spool::now_us(), local: None };
                let stretches = vec![Stretch::of(seen, sent, 0)];
                self.spool.say(Event::Sampled { id, stretches, over: true });
            }
        }
        Ok(())
    }

    /// Says something on behalf of what is under way.
    pub(crate) fn say(&self, event: Event) {
        self.spool.say(event);
    }

    /// Whether there is room for what one more sample may see.
    pub(crate) fn has_room(&self) -> bool {
        self.spool.len() < spool::CAPACITY
    }

    /// Takes a number: what cancels it, or why it is refused.
    fn take(&self, id: RunId) -> Result<Result<oneshot::Receiver<()>, String>, RunError> {
        let held = self.spool.len();
        let mut cancels = self.cancels();
        if cancels.contains_key(&id) {
            return Err(RunError::Duplicate(id));
        }
        if held >= spool::CEILING {
            return Err(RunError::SpoolFull { id, held });
        }
        if held >= spool::CAPACITY {
            return Ok(Err(format!("{held} entries wait for an acknowledgement")));
        }
        if cancels.len() >= MAX_RUNS {
            return Ok(Err("too many runs at once".into()));
        }
        let (cancel, cancelled) = oneshot::channel();
        cancels.insert(id, cancel);
        Ok(Ok(cancelled))
    }

    /// Ends a run now. One that is over, or never was, is ignored.
    pub(crate) fn cancel(&self, id: RunId) {
        if let Some(cancel) = self.cancels().remove(&id) {
            // The receiver is gone when the run has just ended by itself: it was faster.
            cancel.send(()).ok();
        }
    }

    fn cancels(&self) -> MutexGuard<'_, HashMap<RunId, oneshot::Sender<()>>> {
        self.cancels.lock().expect("nothing panics while it holds the runs")
    }
}

fn deadline(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms).min(LONGEST)
}

/// One run, as its client sees it.
#[derive(Debug)]
pub(crate) struct Run {
    id: RunId,
    runs: Arc<Runs>,
    phase: Mutex<Phase>,
    canary: Option<Canary>,
    /// Of a sample, when its socket was about to send: it is told of with the others.
    sampled: Option<Mutex<Sent>>,
}

impl Run {
    fn new(id: RunId, runs: Arc<Runs>) -> Self {
        Self { id, runs, phase: Mutex::new(Phase::Connect), canary: None, sampled: None }
    }

    /// One of samples.
    pub(crate) fn sample(id: RunId, runs: Arc<Runs>) -> Self {
        let sent = Sent { at_us: spool::now_us(), local: None };
        Self { sampled: Some(Mutex::new(sent)), ..Self::new(id, runs) }
    }

    /// Of a sample, when it was sent and from where; of one that got no socket, when it was to be.
    pub(crate) fn sent(&self) -> Sent {
        let sent =
            self.sampled.as_ref().map(|it| *it.lock().expect("nothing panics while it holds it"));
        sent.unwrap_or(Sent { at_us: spool::now_us(), local: None })
    }

    async fn end(self, stimulus: Stimulus, deadline: Instant, cancelled: oneshot::Receiver<()>) {
        // An answer that has arrived wins over a deadline or a cancel that comes at the same time.
        let observed = tokio::select! {
            biased;
            ended = timeout_at(deadline, client::send(&self, &stimulus)) => {
                ended.unwrap_or_else(|_| Observed::Timeout { phase: self.phase() })
            }
            _ = cancelled => Observed::Cancelled { phase: self.phase() },
        };
        self.runs.cancels().remove(&self.id);
        self.runs.spool.say(Event::Observed { id: self.id, observed });
    }

    /// Says that a bound socket is about to send its first packet.
    pub(crate) fn started(&self, leg: Leg, local: SocketAddr, remote: SocketAddr) {
        match &self.sampled {
            None => self.runs.spool.say(Event::Started { id: self.id, leg, local, remote }),
            Some(sent) if leg == Leg::Send => {
                let sent = &mut *sent.lock().expect("nothing panics while it holds it");
                *sent = Sent { at_us: spool::now_us(), local: Some(local) };
            }
            Some(_) => {}
        }
    }

    /// From now on the client waits for this.
    pub(crate) fn wait_for(&self, phase: Phase) {
        *self.phase.lock().expect("nothing panics while it holds the phase") = phase;
    }

    /// What the client waits for.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock().expect("nothing panics while it holds the phase")
    }

    /// A nonce for what it sends.
    pub(crate) fn nonce(&self) -> String {
        random::nonce(self.canary.as_ref())
    }

    /// Where local ports come from.
    pub(crate) fn ports(&self) -> &Ports {
        &self.runs.ports
    }

    /// The flows that go on from run to run.
    pub(crate) fn flows(&self) -> &Flows {
        &self.runs.flows
    }

    /// The connections that go on from run to run.
    pub(crate) fn streams(&self) -> &Streams {
        &self.runs.streams
    }

    /// What it needs to speak TLS.
    pub(crate) fn tls(&self) -> &Tls {
        &self.runs.tls
    }

    /// Where the pod's resolver is written down.
    pub(crate) fn resolv_conf(&self) -> &Path {
        &self.runs.resolv_conf
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ztc_wire::{Host, Target};

    use super::*;

    fn refused_at_once() -> Stimulus {
        let host = Host::Ip(Ipv4Addr::LOCALHOST.into());
        Stimulus::Udp { to: Target { host, port: 1, family: None } }
    }

    /// Fills a spool with entries that are of no interest.
    fn fill(spool: &Spool, entries: usize) {
        while spool.len() < entries {
            spool.say(Event::Observed { id: RunId(0), observed: Observed::Refused });
        }
    }

    #[tokio::test]
    async fn a_full_spool_refuses_runs_first_with_an_entry_and_then_without() {
        let spool = Arc::new(Spool::new());
        let runs =
            Arc::new(Runs::new(Arc::clone(&spool), Tls::default(), "/etc/resolv.conf".into()));
        fill(&spool, spool::CAPACITY);
        runs.start(RunId(1), 1000, refused_at_once(), None).unwrap();
        assert_eq!(spool.len(), spool::CAPACITY + 1, "refused with an entry");
        assert!(runs.cancels().is_empty());

        fill(&spool, spool::CEILING);
        let error = runs.start(RunId(2), 1000, refused_at_once(), None).unwrap_err();
        assert!(matches!(error, RunError::SpoolFull { id: RunId(2), .. }), "{error}");
        assert_eq!(spool.len(), spool::CEILING);

        spool.acknowledge(spool::CEILING as u64).unwrap();
        runs.start(RunId(3), 1000, refused_at_once(), None).unwrap();
        assert!(runs.cancels().contains_key(&RunId(3)), "taken");
    }

    #[tokio::test]
    async fn the_longest_deadline_does_not_overflow_the_clock() {
        let runs =
            Arc::new(Runs::new(Arc::new(Spool::new()), Tls::default(), "/etc/resolv.conf".into()));
        runs.start(RunId(1), u64::MAX, refused_at_once(), None).unwrap();
        let mut said = runs.spool.subscribe();
        said.wait_for(|last| *last == 2).await.unwrap();
        assert!(runs.cancels().is_empty(), "over");
    }
}
