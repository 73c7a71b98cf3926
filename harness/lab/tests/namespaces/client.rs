//! A session with one agent, as much of it as the checks need.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ztc_engine::fabric::{Cluster, Session};
use ztc_wire::{
    Event, FromAgent, LineSplitter, Observed, PROTOCOL, RunId, Stimulus, ToAgent, decode, encode,
};

/// A session that has been opened.
pub(crate) struct Client {
    session: Session,
    lines: LineSplitter,
    next: u64,
}

impl Client {
    /// Opens a session with the agent in a pod, written `namespace/name`.
    pub(crate) async fn open(cluster: &dyn Cluster, pod: &str) -> Result<Self, Box<dyn Error>> {
        let session = cluster.session(&pod.parse()?).await?;
        let mut client = Self { session, lines: LineSplitter::default(), next: 1 };
        client.say(&ToAgent::Attach { protocol: PROTOCOL, after: 0 }).await?;
        Ok(client)
    }

    /// Has the agent send something, and returns what it saw.
    pub(crate) async fn send(
        &mut self,
        stimulus: Stimulus,
        deadline_ms: u64,
    ) -> Result<Observed, Box<dyn Error>> {
        let id = RunId(self.next);
        self.next += 1;
        self.say(&ToAgent::Run { id, deadline_ms, stimulus, canary: None }).await?;
        self.observed(id).await
    }

    /// Waits for what the agent saw of a run.
    pub(crate) async fn observed(&mut self, run: RunId) -> Result<Observed, Box<dyn Error>> {
        loop {
            match self.hear().await? {
                FromAgent::Said { event: Event::Observed { id, observed }, .. } if id == run => {
                    return Ok(observed);
                }
                FromAgent::Rejected { reason } => return Err(reason.into()),
                FromAgent::Hello { .. } | FromAgent::Said { .. } => {}
            }
        }
    }

    async fn say(&mut self, message: &ToAgent) -> Result<(), Box<dyn Error>> {
        Ok(self.session.writer.write_all(&encode(message)).await?)
    }

    async fn hear(&mut self) -> Result<FromAgent, Box<dyn Error>> {
        let mut piece = [0; 4096];
        loop {
            if let Some(line) = self.lines.next_line()? {
                return Ok(decode(&line)?);
            }
            match self.session.reader.read(&mut piece).await? {
                0 => return Err("the agent closed the session".into()),
                length => self.lines.push(&piece[..length]),
            }
        }
    }
}
