//! The bridge from an exec session's stdio to the agent of the same pod. It looks at no byte.

use std::future;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::UnixStream;

/// Why a bridge breaks.
#[derive(Debug, Error)]
pub enum AttachError {
    /// No runtime for its tasks.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// Nobody listens at the socket.
    #[error("connect to the agent at {}", path.display())]
    Connect {
        /// The agent's socket.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// From the agent to stdout.
    #[error("pass on from the agent")]
    FromAgent(#[source] io::Error),
}

/// Passes bytes both ways until the agent closes. The end of `stdin` is passed on, and the agent
/// closes then.
pub async fn attach(
    socket: &Path,
    mut stdin: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin,
) -> Result<(), AttachError> {
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AttachError::Connect { path: socket.to_owned(), source })?;
    let (mut from_agent, mut to_agent) = stream.split();
    let up = async {
        // However stdin ends, the agent is told; whether that arrives shows on its side.
        copy(&mut stdin, &mut to_agent).await.ok();
        to_agent.shutdown().await.ok();
        future::pending::<()>().await;
    };
    let down = async {
        copy(&mut from_agent, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::select! {
        ended = down => ended.map_err(AttachError::FromAgent),
        () = up => Ok(()),
    }
}
