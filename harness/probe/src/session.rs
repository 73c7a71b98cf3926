//! One session: lines in, lines out, over a socket that may break at any byte.
//!
//! A session holds nothing that the agent needs. What it was about to say is still in the spool
//! when it breaks, and what it was told has been done or was never heard.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::time::timeout;
use ztc_wire::{FromAgent, LineSplitter, PROTOCOL, ToAgent, decode, encode};

use crate::agent::Agent;
use crate::run::LONGEST;
use crate::sample::Order;

/// Bytes collected before a write: many entries in one system call, little memory a session.
const BATCH: usize = 64 * 1024;

/// How long a rejected peer may take to read why.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shortest from one sample to the next: that of the timers.
const FASTEST: Duration = Duration::from_millis(1);

/// Why a session ends.
enum End {
    /// The other side said so or went away.
    Over,
    /// The other side said something that cannot be answered.
    Rejected(String),
}

/// Talks to one peer until the session ends.
pub(crate) async fn hold(agent: &Agent, mut stream: UnixStream) {
    let (reader, mut writer) = stream.split();
    let mut inbox = Inbox { reader, splitter: LineSplitter::default(), piece: BytesMut::new() };
    let mut outbox = BytesMut::new();

    let end = talk(agent, &mut inbox, &mut outbox, &mut writer).await;
    if let End::Rejected(reason) = end {
        // Whatever is left of a line goes first: the reason is a line of its own.
        outbox.extend_from_slice(&encode(&FromAgent::Rejected { reason }));
        // A peer that does not read its rejection is closed without.
        timeout(PATIENCE, writer.write_all_buf(&mut outbox)).await.ok();
    }
}

async fn talk(
    agent: &Agent,
    inbox: &mut Inbox<'_>,
    outbox: &mut BytesMut,
    writer: &mut WriteHalf<'_>,
) -> End {
    let after = match attach(inbox).await {
        Ok(after) => after,
        Err(end) => return end,
    };
    match agent.hello() {
        Ok(hello) => outbox.extend_from_slice(&encode(&hello)),
        Err(error) => return End::Rejected(format!("list the addresses: {error}")),
    }
    // Both at once: a peer that writes while it does not read must not block the two of us.
    tokio::select! {
        end = listen(agent, inbox) => end,
        end = follow(agent, after, outbox, writer) => end,
    }
}

/// Waits for the first message and returns the number after which the spool is wanted. It may be
/// one that an earlier incarnation said: the hello tells, and the peer attaches again after 0.
async fn attach(inbox: &mut Inbox<'_>) -> Result<u64, End> {
    match inbox.next().await? {
        ToAgent::Attach { protocol: PROTOCOL, after } => Ok(after),
        ToAgent::Attach { protocol, .. } => {
            Err(End::Rejected(format!("protocol {protocol} is not spoken here, only {PROTOCOL}")))
        }
        _ => Err(End::Rejected("the first message of a session is attach".into())),
    }
}

/// Does what it is told until the session ends.
async fn listen(agent: &Agent, inbox: &mut Inbox<'_>) -> End {
    loop {
        if let Err(end) = inbox.next().await.and_then(|message| obey(agent, message)) {
            return end;
        }
    }
}

fn obey(agent: &Agent, message: ToAgent) -> Result<(), End> {
    match message {
        ToAgent::Run { id, deadline_ms, stimulus, canary } => {
            agent.runs.start(id, deadline_ms, stimulus, canary).map_err(reject)
        }
        ToAgent::Capture { id, deadline_ms, watch } => {
            agent.runs.capture(id, deadline_ms, watch).map_err(reject)
        }
        ToAgent::Sample { id, every_us, deadline_ms, stimulus } => {
            let every = Duration::from_micros(every_us).max(FASTEST);
            let deadline = Duration::from_millis(deadline_ms).min(LONGEST);
            agent.runs.sample(Order { id, stimulus, every, deadline }).map_err(reject)
        }
        ToAgent::Cancel { id } => {
            agent.runs.cancel(id);
            Ok(())
        }
        ToAgent::Ack { seq } => agent.spool.acknowledge(seq).map_err(reject),
        ToAgent::Bye => Err(End::Over),
        ToAgent::Attach { .. } => Err(End::Rejected("this session is attached already".into())),
    }
}

fn reject(error: impl std::error::Error) -> End {
    End::Rejected(error.to_string())
}

/// Says everything after number `sent`, and then whatever comes, until the peer goes away.
/// `outbox` always holds exactly what was not yet written.
async fn follow(
    agent: &Agent,
    mut sent: u64,
    outbox: &mut BytesMut,
    writer: &mut WriteHalf<'_>,
) -> End {
    let mut said = agent.spool.subscribe();
    loop {
        // Seen before looked at: an entry said in between wakes us again.
        said.mark_unchanged();
        sent = agent.spool.copy_after(sent, BATCH, outbox);
        if outbox.has_remaining() {
            if writer.write_all_buf(outbox).await.is_err() {
                return End::Over;
            }
        } else {
            said.changed().await.expect("the agent owns the spool");
        }
    }
}

/// The lines of a peer.
struct Inbox<'a> {
    reader: ReadHalf<'a>,
    splitter: LineSplitter,
    piece: BytesMut,
}

impl Inbox<'_> {
    /// The next message. A session that breaks, at a line's end or within, is over.
    async fn next(&mut self) -> Result<ToAgent, End> {
        loop {
            if let Some(line) = self.splitter.next_line().map_err(reject)? {
                return decode(&line).map_err(reject);
            }
            self.piece.clear();
            match self.reader.read_buf(&mut self.piece).await {
                Ok(0) | Err(_) => return Err(End::Over),
                Ok(_) => self.splitter.push(&self.piece),
            }
        }
    }
}
