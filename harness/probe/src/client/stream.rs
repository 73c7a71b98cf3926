//! Questions in one TCP connection, which goes on from run to run until somebody ends it.
//!
//! The connection lives as long as the agent, so that what is asked after a policy came belongs to what was let
//! pass before it. When it has ended, the next question opens another one. Answers are told apart by their
//! nonces.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use ztc_wire::{Leg, Observed, Phase};

use super::failure::from_network;
use super::socket;
use crate::run::Run;
use crate::words::{self, Heard, MAX_WORDS};

/// The connection to one place, if there is one; held by whoever opens it.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Stream>>>>;

/// The connections of an agent that go on, by where they go.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<SocketAddr, Slot>>);

#[derive(Debug)]
struct Stream {
    local: SocketAddr,
    questions: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Who waits for the answer to which nonce; nothing once the connection has ended.
    waiting: Mutex<Option<Waiting>>,
}

type Waiting = HashMap<String, oneshot::Sender<Observed>>;

/// Asks in the connection to there, which the first question opens.
pub(super) async fn exchange(run: &Run, remote: SocketAddr) -> Result<Observed, Observed> {
    run.wait_for(Phase::Connect);
    let nonce = run.nonce();
    let (stream, answered) = run.streams().ask(run, remote, &nonce).await?;
    run.wait_for(Phase::Reply);
    let question = words::question(&nonce);
    let sent = stream.questions.lock().await.write_all(question.as_bytes()).await;
    sent.map_err(|error| from_network("send", Phase::Reply, &error))?;
    match answered.await {
        Ok(observed) => Ok(observed),
        // Nobody listens on behalf of the connection any more: the agent is going.
        Err(_ended) => std::future::pending().await,
    }
}

impl Streams {
    /// The connection to there that stands, or a new one, with the answer to be.
    async fn ask(
        &self,
        run: &Run,
        remote: SocketAddr,
        nonce: &str,
    ) -> Result<(Arc<Stream>, oneshot::Receiver<Observed>), Observed> {
        let slot = {
            let mut slots = self.0.lock().expect("nothing panics while it holds the connections");
            Arc::clone(slots.entry(remote).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(stream) = slot.as_ref()
            && let Some(answered) = stream.expect(nonce)
        {
            run.started(Leg::Send, stream.local, remote);
            return Ok((Arc::clone(stream), answered));
        }
        let connection = socket::connect(run, Leg::Send, remote).await?;
        let failed = |error: io::Error| from_network("connect", Phase::Connect, &error);
        let local = connection.local_addr().map_err(failed)?;
        let (answers, questions) = connection.into_split();
        let stream = Arc::new(Stream {
            local,
            questions: tokio::sync::Mutex::new(questions),
            waiting: Mutex::new(Some(Waiting::new())),
        });
        // It has just been made, and nobody has listened yet.
        let answered = stream.expect(nonce).ok_or(Observed::Closed { reset: false })?;
        tokio::spawn(Arc::clone(&stream).listen(remote, answers));
        *slot = Some(Arc::clone(&stream));
        Ok((stream, answered))
    }
}

impl Stream {
    fn expect(&self, nonce: &str) -> Option<oneshot::Receiver<Observed>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting();
        let waiting = waiting.as_mut()?;
        waiting.retain(|_, waits| !waits.is_closed());
        waiting.insert(nonce.to_owned(), answer);
        Some(answered)
    }

    /// Hands answers to who waits for them, and the end of the connection to everybody who does.
    async fn listen(self: Arc<Self>, remote: SocketAddr, answers: OwnedReadHalf) {
        let mut answers = BufReader::with_capacity(MAX_WORDS, answers);
        let mut line = Vec::with_capacity(MAX_WORDS);
        let end = loop {
            line.clear();
            match answers.read_until(b'\n', &mut line).await {
                Ok(0) => break Observed::Closed { reset: false },
                Ok(_) => self.answer(remote, &line),
                Err(error) => break from_network("receive", Phase::Reply, &error),
            }
        };
        for (_, waits) in self.waiting().take().into_iter().flatten() {
            waits.send(end.clone()).ok();
        }
    }

    fn answer(&self, remote: SocketAddr, line: &[u8]) {
        let mut waiting = self.waiting();
        let Some(waiting) = waiting.as_mut() else { return };
        let heard = waiting.keys().find_map(|nonce| match words::hear(nonce, line) {
            Heard::Peer(peer) => Some((nonce.clone(), peer)),
            Heard::Part | Heard::Garbled => None,
        });
        if let Some((nonce, peer)) = heard
            && let Some(waits) = waiting.remove(&nonce)
        {
            // Whoever asked may have ended: its answer is of no interest then.
            waits.send(Observed::Reply { peer, remote }).ok();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().expect("nothing panics while it holds the questions")
    }
}
