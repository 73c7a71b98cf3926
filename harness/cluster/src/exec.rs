//! Commands in containers, through API server, kubelet and runtime. No policy under test is on that way.
//!
//! The rules for a session, each learnt from a fault of exec streams: the process is owned for as long
//! as the session lives; every read waits for the status as well, because a connection that breaks
//! does not end the stream (kube 5.0.0, `remote_command.rs`); standard error is not asked for, because
//! one pipe that nobody drains stops them all; and what is read to its end carries a mark of that end,
//! because a stream can be cut without an error (kubernetes/kubernetes#124571).

mod shell;

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use ztc_engine::fabric::Session;

use crate::objects::{CONTAINER, SOCKET};
use crate::refusal::Refusal;

pub(crate) use shell::Shell;

/// What one read of a stream takes at most, bytes. The default of 1 KiB would be a bottleneck.
const BUFFER: usize = 256 * 1024;

/// How long a command may take that reads something.
const CEILING: Duration = Duration::from_secs(20);

/// What a command writes last, followed by its exit code.
const END: &str = "ztc-end:";

/// Why a command in a container did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("cannot run `{command}` in {pod}")]
    Open {
        /// What.
        command: String,
        /// Where.
        pod: String,
        /// Why.
        source: Refusal,
    },
    /// Its output ended too early.
    #[error("the output of `{command}` in {pod} was cut{}", status_clause(status.as_ref()))]
    Cut {
        /// What.
        command: String,
        /// Where.
        pod: String,
        /// What the runtime said, if it said something.
        status: Option<String>,
    },
    /// It failed.
    #[error("`{command}` in {pod} failed with code {code}: {said}")]
    Failed {
        /// What.
        command: String,
        /// Where.
        pod: String,
        /// Its exit code.
        code: String,
        /// What it wrote last.
        said: String,
    },
    /// It took too long.
    #[error("`{command}` in {pod} took longer than {} ms", ceiling.as_millis())]
    Ceiling {
        /// What.
        command: String,
        /// Where.
        pod: String,
        /// How long it may take.
        ceiling: Duration,
    },
}

fn status_clause(status: Option<&String>) -> String {
    status.map_or_else(String::new, |it| format!(": {it}"))
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) name: String,
}

impl Container {
    fn told(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// Starts a command.
    async fn start(
        &self,
        client: &Client,
        command: &[&str],
        stdin: bool,
    ) -> Result<AttachedProcess, ExecError> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let parameters = AttachParams::default()
            .container(&self.name)
            .stdin(stdin)
            .stdout(true)
            .stderr(false)
            .max_stdout_buf_size(BUFFER)
            .max_stdin_buf_size(BUFFER);
        pods.exec(&self.pod, command.to_vec(), &parameters).await.map_err(|source| {
            ExecError::Open { command: command.join(" "), pod: self.told(), source: source.into() }
        })
    }

    /// Runs a script of the shell to its end; what it wrote to standard output.
    pub(crate) async fn run(&self, client: &Client, script: &str) -> Result<String, ExecError> {
        self.run_within(CEILING, client, script).await
    }

    async fn run_within(
        &self,
        ceiling: Duration,
        client: &Client,
        script: &str,
    ) -> Result<String, ExecError> {
        self.bounded(ceiling, script, self.run_to_end(client, script)).await
    }

    async fn bounded<T>(
        &self,
        ceiling: Duration,
        command: &str,
        work: impl Future<Output = Result<T, ExecError>>,
    ) -> Result<T, ExecError> {
        timeout(ceiling, work).await.unwrap_or_else(|_elapsed| {
            Err(ExecError::Ceiling { command: command.to_owned(), pod: self.told(), ceiling })
        })
    }

    async fn run_to_end(&self, client: &Client, script: &str) -> Result<String, ExecError> {
        let marked = format!("( {script} ) 2>&1; echo \"{END}$?\"");
        let mut process = self.start(client, &["sh", "-c", &marked], false).await?;
        let output = Output::of(&mut process);
        let (bytes, status) = output.read_to_end().await;
        process.abort();
        self.concluded(script, &bytes, status.and_then(|it| it.message))
    }

    /// What a script wrote before its mark, if it ended well.
    fn concluded(
        &self,
        script: &str,
        bytes: &[u8],
        status: Option<String>,
    ) -> Result<String, ExecError> {
        let text = String::from_utf8_lossy(bytes);
        let (said, code) = conclusion(&text).ok_or_else(|| ExecError::Cut {
            command: script.to_owned(),
            pod: self.told(),
            status,
        })?;
        if code == "0" {
            return Ok(said.to_owned());
        }
        Err(ExecError::Failed {
            command: script.to_owned(),
            pod: self.told(),
            code: code.to_owned(),
            said: crate::program::tail(said),
        })
    }

    /// Starts a command that writes on and on; its output, until it ends or the connection breaks.
    pub(crate) async fn follow(
        &self,
        client: &Client,
        command: &[&str],
    ) -> Result<DuplexStream, ExecError> {
        self.follow_within(CEILING, client, command).await
    }

    async fn follow_within(
        &self,
        ceiling: Duration,
        client: &Client,
        command: &[&str],
    ) -> Result<DuplexStream, ExecError> {
        let started = self.start(client, command, false);
        let mut process = self.bounded(ceiling, &command.join(" "), started).await?;
        let output = Output::of(&mut process);
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        tokio::spawn(async move {
            output.copy_to(theirs).await;
            process.abort();
        });
        Ok(ours)
    }
}

/// What a command said and its exit code; nothing when the end is missing, be it by one character.
fn conclusion(text: &str) -> Option<(&str, &str)> {
    let (said, code) = text.strip_suffix('\n')?.rsplit_once(END)?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
    is_code.then_some((said, code))
}

/// Opens a session with the agent in a pod of a world.
pub(crate) async fn session(
    client: &Client,
    namespace: &str,
    pod: &str,
) -> Result<Session, ExecError> {
    let container = Container {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        name: CONTAINER.to_owned(),
    };
    let command = [crate::image::PROBE, "attach", "--socket", SOCKET];
    let process = container.start(client, &command, true).await?;
    Ok(bridge(process))
}

/// The streams of a process, as a session that ends when the process or its connection does.
fn bridge(mut process: AttachedProcess) -> Session {
    let stdin = process.stdin();
    let output = Output::of(&mut process);
    let (reader, written) = tokio::io::duplex(BUFFER);
    let (writer, mut orders) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let send = async {
            if let Some(mut stdin) = stdin {
                let mut piece = vec![0; BUFFER];
                // It ends when the session is dropped; a process that does not take what it is
                // told has ended, and the other half says so.
                while let Ok(length @ 1..) = orders.read(&mut piece).await {
                    if stdin.write_all(&piece[..length]).await.is_err() {
                        break;
                    }
                }
            }
        };
        tokio::select! {
            () = output.copy_to(written) => {}
            () = send => {}
        }
        // Dropping alone would leave the remote process to its fate until the next ping.
        process.abort();
    });
    Session { reader: Box::new(reader), writer: Box::new(writer) }
}

/// The output of a process, and how it ends.
struct Output {
    stdout: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    ending: Ending,
}

enum Ending {
    /// Not yet.
    Awaited(Pin<Box<dyn Future<Output = Option<Status>> + Send>>),
    /// With this status; with none when the connection was lost.
    Over(Option<Box<Status>>),
}

impl Output {
    fn of(process: &mut AttachedProcess) -> Self {
        let ended = process.take_status().expect("a new process has a status");
        let stdout = process.stdout().expect("standard output was asked for");
        Self { stdout: Box::new(stdout), ending: Ending::Awaited(Box::pin(ended)) }
    }

    /// The next bytes; none when the process has ended or the connection is lost. What has
    /// arrived by then is read first.
    async fn read(&mut self, piece: &mut [u8]) -> usize {
        if let Ending::Awaited(ended) = &mut self.ending {
            let status = tokio::select! {
                biased;
                read = self.stdout.read(piece) => match read {
                    Ok(length @ 1..) => return length,
                    // It is ended after the status was sent, or with the connection.
                    _ => ended.await,
                },
                status = &mut *ended => status,
            };
            self.ending = Ending::Over(status.map(Box::new));
        }
        let rest = async { self.stdout.read(piece).await.unwrap_or(0) };
        // It is polled once, and must not be put off in favour of other tasks.
        unconstrained(rest).now_or_never().unwrap_or(0)
    }

    /// Passes everything on, until it ends or nobody reads it any more.
    async fn copy_to(mut self, sink: DuplexStream) {
        let (mut reader, mut sink) = tokio::io::split(sink);
        let mut piece = vec![0; BUFFER];
        let copied = async {
            loop {
                let length = self.read(&mut piece).await;
                if length == 0 || sink.write_all(&piece[..length]).await.is_err() {
                    return;
                }
            }
        };
        // Nobody writes to the sink: a read ends when its other side is dropped. A process that is
        // silent would not be told so by a write.
        let mut nothing = [0];
        tokio::select! {
            () = copied => {}
            _ = reader.read(&mut nothing) => {}
        }
    }

    async fn read_to_end(mut self) -> (Vec<u8>, Option<Box<Status>>) {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; BUFFER]);
        loop {
            let length = self.read(&mut piece).await;
            bytes.extend_from_slice(&piece[..length]);
            if length == 0 {
                let status = match self.ending {
                    Ending::Over(status) => status,
                    Ending::Awaited(_) => None,
                };
                return (bytes, status);
            }
        }
    }
}

#[cfg(test)]
mod tests;
