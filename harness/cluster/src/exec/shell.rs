//! A shell in a container that stays open: a script costs what its commands cost, and no new session.

use std::time::Duration;

use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use ztc_engine::fabric::Session;

use super::{BUFFER, CEILING, Container, END, ExecError, bridge};

/// A shell in a container. Scripts of several callers run one after the other.
pub(crate) struct Shell {
    container: Container,
    /// Absent before the first script, and after one that was given up in its middle: what it still writes is
    /// nobody's answer.
    session: Mutex<Option<Session>>,
}

impl Shell {
    pub(crate) fn new(container: Container) -> Self {
        Self { container, session: Mutex::new(None) }
    }

    /// The container that it is in.
    pub(crate) const fn container(&self) -> &Container {
        &self.container
    }

    /// Runs a script of the shell to its end; what it wrote. It must not matter whether it is run twice: one that was
    /// cut in a session from before is run again in a new one, as a session that broke since says nothing about now.
    pub(crate) async fn run(&self, client: &Client, script: &str) -> Result<String, ExecError> {
        self.run_within(CEILING, client, script).await
    }

    pub(super) async fn run_within(
        &self,
        ceiling: Duration,
        client: &Client,
        script: &str,
    ) -> Result<String, ExecError> {
        let mut place = self.session.lock().await;
        let work = async {
            if let Some(session) = place.take()
                && let Ok(answered) = self.ask(session, script).await
            {
                return Ok(answered);
            }
            let process = self.container.start(client, &["sh"], true).await?;
            self.ask(bridge(process), script).await
        };
        let (session, bytes) = self.container.bounded(ceiling, script, work).await?;
        *place = Some(session);
        drop(place);
        self.container.concluded(script, &bytes, None)
    }

    /// Has a script run; the session and what it wrote, its mark included.
    async fn ask(
        &self,
        mut session: Session,
        script: &str,
    ) -> Result<(Session, Vec<u8>), ExecError> {
        // The shell reads its scripts from where commands would read.
        let marked = format!("( {script} ) </dev/null 2>&1; echo \"{END}$?\"\n");
        let cut = || ExecError::Cut {
            command: script.to_owned(),
            pod: self.container.told(),
            status: None,
        };
        session.writer.write_all(marked.as_bytes()).await.map_err(|_gone| cut())?;
        let (mut bytes, mut piece) = (Vec::new(), vec![0; BUFFER]);
        loop {
            match session.reader.read(&mut piece).await {
                Ok(length @ 1..) => bytes.extend_from_slice(&piece[..length]),
                _ => return Err(cut()),
            }
            if is_whole(&bytes) {
                return Ok((session, bytes));
            }
        }
    }
}

/// Whether the mark of the end has come, with all of its line.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(said) = bytes.strip_suffix(b"\n") else { return false };
    let digits = said.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && said[..said.len() - digits].ends_with(END.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standin::{Remote, Server, soon};

    fn shell() -> Shell {
        Shell::new(Container {
            namespace: "kube-system".to_owned(),
            pod: "cilium-one".to_owned(),
            name: "cilium-agent".to_owned(),
        })
    }

    async fn answer(remote: &mut Remote, output: &str) -> String {
        let script = soon("a script", remote.hear()).await.unwrap();
        remote.write(format!("{output}\nztc-end:0\n").as_bytes()).await.unwrap();
        String::from_utf8(script).unwrap()
    }

    /// Opens a session and answers its first script.
    async fn begun(server: &mut Server, output: &str) -> (Remote, String) {
        let mut remote = server.next().await.run().await;
        let script = answer(&mut remote, output).await;
        (remote, script)
    }

    #[tokio::test]
    async fn scripts_share_a_session() {
        let mut server = Server::start().await;
        let (client, shell) = (server.client(), shell());
        let (first, (mut remote, script)) =
            tokio::join!(shell.run(&client, "one"), begun(&mut server, "1"));
        assert!(script.starts_with("( one ) </dev/null"));
        let (second, script) = tokio::join!(shell.run(&client, "two"), answer(&mut remote, "2"));
        assert_eq!((first.unwrap().as_str(), second.unwrap().as_str()), ("1\n", "2\n"));
        assert!(script.contains("two"));
        assert_eq!(server.waiting(), 0, "one session for both");
    }

    #[tokio::test]
    async fn a_session_that_broke_between_two_scripts_is_opened_again() {
        let mut server = Server::start().await;
        let (client, shell) = (server.client(), shell());
        let (first, (remote, _)) = tokio::join!(shell.run(&client, "one"), begun(&mut server, "1"));
        first.unwrap();
        remote.reset();
        let (second, _remote) =
            tokio::join!(soon("the answer", shell.run(&client, "two")), begun(&mut server, "2"));
        assert_eq!(second.unwrap(), "2\n");
    }

    #[tokio::test]
    async fn a_new_session_that_breaks_is_a_cut_output() {
        let mut server = Server::start().await;
        let (client, shell) = (server.client(), shell());
        let (cut, ()) = tokio::join!(soon("the end", shell.run(&client, "one")), async {
            let mut remote = server.next().await.run().await;
            soon("a script", remote.hear()).await.unwrap();
            remote.write(b"half of it").await.unwrap();
            remote.reset();
        });
        assert!(matches!(cut, Err(ExecError::Cut { .. })), "{cut:?}");
    }

    #[tokio::test]
    async fn what_a_script_writes_that_nobody_waits_for_is_not_the_next_ones_answer() {
        let mut server = Server::start().await;
        let (client, shell) = (server.client(), shell());
        let late = Duration::from_millis(100);
        let (late, mut remote) = tokio::join!(shell.run_within(late, &client, "one"), async {
            let mut remote = server.next().await.run().await;
            soon("a script", remote.hear()).await.unwrap();
            remote
        });
        assert!(matches!(late, Err(ExecError::Ceiling { .. })), "{late:?}");
        remote.abandoned().await;
        let (second, _remote) =
            tokio::join!(soon("the answer", shell.run(&client, "two")), begun(&mut server, "2"));
        assert_eq!(second.unwrap(), "2\n");
    }

    #[tokio::test]
    async fn a_script_that_fails_is_an_error_and_the_session_stays() {
        let mut server = Server::start().await;
        let (client, shell) = (server.client(), shell());
        let (failed, mut remote) = tokio::join!(shell.run(&client, "one"), async {
            let mut remote = server.next().await.run().await;
            soon("a script", remote.hear()).await.unwrap();
            remote.write(b"no such policy\nztc-end:1\n").await.unwrap();
            remote
        });
        let Err(ExecError::Failed { code, said, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!((code.as_str(), said.trim()), ("1", "no such policy"));
        let (second, _) = tokio::join!(shell.run(&client, "two"), answer(&mut remote, "2"));
        assert_eq!(second.unwrap(), "2\n");
    }

    #[test]
    fn an_output_is_whole_with_the_last_character_of_its_mark() {
        assert!(is_whole(b"ztc-end:0\n") && is_whole(b"[]\nztc-end:137\n"));
        for part in ["", "\n", "7\n", "ztc-end:", "ztc-end:\n", "ztc-end:0", "ztc-end:0\nmore\n"] {
            assert!(!is_whole(part.as_bytes()), "{part:?}");
        }
    }
}
