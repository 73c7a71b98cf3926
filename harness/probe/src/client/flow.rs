//! Datagrams of one flow: all from one port, which connection tracking knows from the first on.
//!
//! The socket lives as long as the agent, so that what is sent after a policy came belongs to what was
//! let pass before it. Answers are told apart by their nonces.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use ztc_wire::{Leg, Observed, Phase};

use super::failure::from_network;
use super::socket;
use crate::run::Run;
use crate::words::{self, Heard, MAX_WORDS};

/// The flows of an agent, by where they go.
#[derive(Debug, Default)]
pub(crate) struct Flows(Mutex<HashMap<SocketAddr, Arc<Flow>>>);

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    local: SocketAddr,
    /// Who waits for the answer to which nonce.
    waiting: Mutex<HashMap<String, oneshot::Sender<String>>>,
}

/// Asks in the flow to there, which begins with the first question.
pub(super) async fn exchange(run: &Run, remote: SocketAddr) -> Result<Observed, Observed> {
    run.wait_for(Phase::Reply);
    let flow = run.flows().to(run, remote)?;
    run.started(Leg::Send, flow.local, remote);
    let nonce = run.nonce();
    let question = words::question(&nonce);
    let answered = flow.expect(nonce);
    let sent = flow.socket.send(question.as_bytes()).await;
    sent.map_err(|error| from_network("send", Phase::Reply, &error))?;
    match answered.await {
        Ok(peer) => Ok(Observed::Reply { peer, remote }),
        // Nobody listens on behalf of the flow any more: the agent is going.
        Err(_ended) => std::future::pending().await,
    }
}

impl Flows {
    fn to(&self, run: &Run, remote: SocketAddr) -> Result<Arc<Flow>, Observed> {
        let mut flows = self.0.lock().expect("nothing panics while it holds the flows");
        if let Some(known) = flows.get(&remote) {
            return Ok(Arc::clone(known));
        }
        let (socket, local) = socket::associated(run, remote)?;
        let flow = Arc::new(Flow { socket, local, waiting: Mutex::default() });
        tokio::spawn(Arc::clone(&flow).listen());
        flows.insert(remote, Arc::clone(&flow));
        Ok(flow)
    }
}

impl Flow {
    fn expect(&self, nonce: String) -> oneshot::Receiver<String> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.retain(|_, waiting| !waiting.is_closed());
        waiting.insert(nonce, answer);
        answered
    }

    /// Hands answers to who waits for them. What ICMP says of one question is not said of the others, and
    /// is passed over: who asked waits until its deadline.
    async fn listen(self: Arc<Self>) {
        let mut datagram = [0; MAX_WORDS];
        loop {
            let Ok(length) = self.socket.recv(&mut datagram).await else { continue };
            let Some(words) = datagram.get(..length) else { continue };
            let mut waiting = self.waiting();
            let heard = waiting.keys().find_map(|nonce| match words::hear(nonce, words) {
                Heard::Peer(peer) => Some((nonce.clone(), peer)),
                Heard::Part | Heard::Garbled => None,
            });
            if let Some((nonce, peer)) = heard
                && let Some(answer) = waiting.remove(&nonce)
            {
                // Whoever asked may have ended: its answer is of no interest then.
                answer.send(peer).ok();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<String>>> {
        self.waiting.lock().expect("nothing panics while it holds the questions")
    }
}
