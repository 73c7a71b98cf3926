//! What exec streams do wrong, done by a stand-in: none of it may make a session or a command hang, nor lose what
//! was written.

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use ztc_engine::wait::{Look, until};

use super::*;
use crate::standin::{BOUND, POLL, PROTOCOLS, Remote, Server, soon};

/// What the buffers of a session take without a reader. A remote that writes on is soon stuck.
const FLOOD: usize = 2 * BUFFER;

fn container() -> Container {
    Container {
        namespace: "kube-system".to_owned(),
        pod: "cilium-one".to_owned(),
        name: "cilium-agent".to_owned(),
    }
}

async fn open_as(server: &mut Server, protocol: &'static str) -> (Session, Remote) {
    let client = server.client();
    let (session, remote) = tokio::join!(session(&client, "zt-pay", "ledger"), async {
        server.next().await.run_as(protocol).await
    });
    (session.unwrap(), remote)
}

async fn open(server: &mut Server) -> (Session, Remote) {
    open_as(server, PROTOCOLS[0]).await
}

/// Starts to follow a command.
async fn follow(server: &mut Server) -> (DuplexStream, Remote) {
    let (client, container) = (server.client(), container());
    let command = ["hubble", "observe", "--follow"];
    let (stream, remote) = tokio::join!(container.follow(&client, &command), async {
        server.next().await.run().await
    });
    (stream.unwrap(), remote)
}

/// What comes of a script when the other side does this.
async fn run<F: Future<Output = ()>>(play: impl FnOnce(Remote) -> F) -> Result<String, ExecError> {
    let mut server = Server::start().await;
    let (client, container) = (server.client(), container());
    let (result, ()) =
        tokio::join!(soon("the result", container.run(&client, "cilium-dbg policy get")), async {
            play(server.next().await.run().await).await;
        });
    result
}

/// What a session's reader still brings.
async fn rest(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon("the end of the session", session.reader.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_session_carries_bytes_both_ways() {
    let mut server = Server::start().await;
    let (mut session, mut remote) = open(&mut server).await;
    session.writer.write_all(b"attach\n").await.unwrap();
    assert_eq!(soon("the order", remote.hear()).await.unwrap(), b"attach\n");
    remote.write(b"hello\n").await.unwrap();
    let mut heard = [0; 6];
    soon("the hello", session.reader.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello\n");
}

#[tokio::test]
async fn a_session_that_nobody_reads_ends_when_it_is_dropped() {
    let mut server = Server::start().await;
    let (session, remote) = open(&mut server).await;
    let (full, filled) = oneshot::channel();
    let writing = tokio::spawn(remote.write_on(FLOOD, full));
    soon("a flood", filled).await.unwrap();
    drop(session);
    soon("the end of the remote", writing).await.unwrap();
}

#[tokio::test]
async fn a_session_that_nobody_reads_ends_when_its_writer_is_shut() {
    let mut server = Server::start().await;
    let (mut session, remote) = open(&mut server).await;
    let (full, filled) = oneshot::channel();
    let writing = tokio::spawn(remote.write_on(FLOOD, full));
    soon("a flood", filled).await.unwrap();
    session.writer.shutdown().await.unwrap();
    soon("the end of the remote", writing).await.unwrap();
    rest(&mut session).await;
}

#[tokio::test]
async fn a_connection_that_dies_ends_the_reader_that_waits() {
    for die in [drop, Remote::reset] {
        let mut server = Server::start().await;
        let (mut session, mut remote) = open(&mut server).await;
        remote.write(b"last words").await.unwrap();
        let mut heard = [0; 10];
        soon("the last words", session.reader.read_exact(&mut heard)).await.unwrap();
        let (rest, ()) = tokio::join!(rest(&mut session), async { die(remote) });
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn what_was_written_before_a_connection_died_is_read() {
    let mut server = Server::start().await;
    let (mut session, mut remote) = open(&mut server).await;
    remote.write(b"last words").await.unwrap();
    drop(remote);
    assert_eq!(rest(&mut session).await, b"last words");
}

#[tokio::test]
async fn a_session_that_is_dropped_while_the_remote_writes_releases_it() {
    let mut server = Server::start().await;
    let (mut session, remote) = open(&mut server).await;
    let (full, filled) = oneshot::channel();
    let writing = tokio::spawn(remote.write_on(2 * FLOOD, full));
    let mut heard = vec![0; FLOOD];
    soon("some of it", session.reader.read_exact(&mut heard)).await.unwrap();
    drop(session);
    soon("the end of the remote", writing).await.unwrap();
    drop(filled);
}

#[tokio::test]
async fn a_session_that_is_dropped_while_the_remote_is_silent_releases_it() {
    let mut server = Server::start().await;
    let (session, mut remote) = open(&mut server).await;
    drop(session);
    remote.abandoned().await;
}

#[tokio::test]
async fn a_session_whose_reader_is_dropped_releases_a_silent_remote() {
    let mut server = Server::start().await;
    let (Session { reader, writer }, mut remote) = open(&mut server).await;
    drop(reader);
    remote.abandoned().await;
    drop(writer);
}

/// A container that is frozen takes nothing from its standard input.
#[tokio::test]
async fn a_session_that_is_dropped_while_the_remote_takes_nothing_releases_it() {
    let mut server = Server::start().await;
    let (mut session, remote) = open(&mut server).await;
    let piece = vec![b'.'; 64 * 1024];
    let stuck = async { while session.writer.write_all(&piece).await.is_ok() {} };
    // No condition tells that the kernel's buffers are full, too. If they are not yet, this test
    // shows less, and does not fail.
    timeout(Duration::from_millis(500), stuck).await.unwrap_err();
    // The connection cannot tell the remote before what is under way has been taken.
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    drop(session);
    until("the end of both tasks of a session", BOUND, POLL, || async {
        let now = alive();
        let status = format!("{now} tasks of {before}");
        Ok(if now + 2 <= before { Look::Met(()) } else { Look::NotYet { status } })
    })
    .await
    .unwrap();
    drop(remote);
}

#[tokio::test]
async fn standard_error_is_not_asked_for_and_blocks_nothing() {
    let mut server = Server::start().await;
    let client = server.client();
    let (session, mut remote) = tokio::join!(session(&client, "zt-pay", "ledger"), async {
        let asked = server.next().await;
        assert_ne!(asked.parameter("stderr"), Some("true"));
        assert_eq!(asked.parameter("stdin"), Some("true"));
        assert_eq!(asked.parameter("stdout"), Some("true"));
        assert_eq!(asked.path(), "/api/v1/namespaces/zt-pay/pods/ledger/exec");
        asked.run().await
    });
    let complaint = vec![b'.'; 64 * 1024];
    for _ in 0..16 {
        soon("a complaint", remote.complain(&complaint)).await.unwrap();
    }
    remote.write(b"hello\n").await.unwrap();
    let mut heard = [0; 6];
    let mut session = session.unwrap();
    soon("the hello", session.reader.read_exact(&mut heard)).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_is_shut_or_dropped_ends_the_remote_in_every_protocol() {
    for protocol in PROTOCOLS {
        let mut server = Server::start().await;
        let (mut session, mut remote) = open_as(&mut server, protocol).await;
        session.writer.shutdown().await.unwrap();
        remote.abandoned().await;
        assert!(rest(&mut session).await.is_empty());

        let (Session { mut reader, writer }, mut remote) = open_as(&mut server, protocol).await;
        drop(writer);
        remote.abandoned().await;
        let read = soon("the end of the session", reader.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_clean_close_without_a_status_is_the_end_of_the_session() {
    let mut server = Server::start().await;
    let (mut session, remote) = open(&mut server).await;
    let (rest, ()) = tokio::join!(rest(&mut session), remote.close());
    assert!(rest.is_empty());
}

#[tokio::test]
async fn what_a_session_brought_before_its_status_is_all_read() {
    let mut server = Server::start().await;
    let (mut session, mut remote) = open(&mut server).await;
    let (rest, ()) = tokio::join!(rest(&mut session), async {
        for _ in 0..1024 {
            remote.write(&[b'.'; 1024]).await.unwrap();
        }
        remote.succeed().await;
    });
    assert_eq!(rest.len(), 1024 * 1024);
}

#[tokio::test]
async fn a_pod_that_is_not_there_is_an_error_in_the_servers_words() {
    let mut server = Server::start().await;
    let (client, container) = (server.client(), container());
    let (result, ()) = tokio::join!(container.run(&client, "true"), async {
        server.next().await.refuse(404, "NotFound", r#"pods "cilium-one" not found"#);
    });
    let error = ztc_engine::chain(&result.unwrap_err());
    assert!(error.contains("cannot run `sh -c"), "{error}");
    assert!(error.contains(r#"pods "cilium-one" not found"#), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_followed_ends_with_its_command() {
    let mut server = Server::start().await;
    let (mut stream, mut remote) = follow(&mut server).await;
    let mut text = String::new();
    let (read, ()) = tokio::join!(soon("the end", stream.read_to_string(&mut text)), async {
        remote.write(b"one\ntwo\n").await.unwrap();
        remote.succeed().await;
    });
    read.unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[tokio::test]
async fn a_stream_that_nobody_follows_any_more_releases_a_silent_remote() {
    let mut server = Server::start().await;
    let (stream, mut remote) = follow(&mut server).await;
    drop(stream);
    remote.abandoned().await;
}

#[tokio::test]
async fn a_stream_that_does_not_open_reaches_the_ceiling() {
    let mut server = Server::start().await;
    let (client, container) = (server.client(), container());
    let following = container.follow_within(Duration::from_millis(100), &client, &["hubble"]);
    let (result, asked) = tokio::join!(soon("the ceiling", following), server.next());
    assert!(matches!(result, Err(ExecError::Ceiling { .. })), "{result:?}");
    drop(asked);
}

#[tokio::test]
async fn a_large_output_right_before_the_status_is_all_there() {
    let said = run(async |mut remote: Remote| {
        for _ in 0..1024 {
            remote.write(&[b'.'; 1024]).await.unwrap();
        }
        remote.write(b"ztc-end:0\n").await.unwrap();
        remote.succeed().await;
    });
    assert_eq!(said.await.unwrap().len(), 1024 * 1024);
}

#[tokio::test]
async fn an_output_without_its_end_is_cut_even_with_a_good_status() {
    let error = run(async |mut remote: Remote| {
        remote.write(b"half of a poli").await.unwrap();
        remote.succeed().await;
    });
    let error = error.await.unwrap_err();
    assert!(matches!(error, ExecError::Cut { status: None, .. }), "{error:?}");
}

#[tokio::test]
async fn an_output_that_was_cut_says_what_the_runtime_said() {
    let error = run(async |mut remote: Remote| {
        remote.write(b"half of a poli").await.unwrap();
        remote.fail("container is not running").await;
    });
    assert_eq!(
        error.await.unwrap_err().to_string(),
        "the output of `cilium-dbg policy get` in kube-system/cilium-one was cut: \
         container is not running"
    );
}

#[tokio::test]
async fn a_connection_that_dies_in_a_command_is_a_cut_output() {
    for die in [drop, Remote::reset] {
        let error = run(async |mut remote: Remote| {
            remote.write(b"half of a poli").await.unwrap();
            die(remote);
        });
        let error = error.await.unwrap_err();
        assert!(matches!(error, ExecError::Cut { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_command_that_fails_is_an_error_with_its_code_and_its_words() {
    let error = run(async |mut remote: Remote| {
        remote.write(b"Error: cannot connect to the agent\nztc-end:1\n").await.unwrap();
        remote.succeed().await;
    });
    assert_eq!(
        error.await.unwrap_err().to_string(),
        "`cilium-dbg policy get` in kube-system/cilium-one failed with code 1: \
         Error: cannot connect to the agent"
    );
}

#[tokio::test]
async fn a_command_that_never_ends_reaches_the_ceiling_and_is_released() {
    let mut server = Server::start().await;
    let (client, container) = (server.client(), container());
    let ceiling = Duration::from_millis(100);
    let (result, ()) = tokio::join!(
        soon("the ceiling", container.run_within(ceiling, &client, "sleep infinity")),
        async {
            let mut remote = server.next().await.run().await;
            remote.write(b"and on").await.ok();
            remote.abandoned().await;
        }
    );
    assert_eq!(
        result.unwrap_err().to_string(),
        "`sleep infinity` in kube-system/cilium-one took longer than 100 ms"
    );
}

#[test]
fn an_output_cut_anywhere_has_no_conclusion() {
    let whole = "ztc-end:0\nRevision: 6\nztc-end:127\n";
    assert_eq!(conclusion(whole), Some(("ztc-end:0\nRevision: 6\n", "127")));
    let last = "ztc-end:0\nRevision: 6\n".len();
    for end in last..whole.len() {
        assert_eq!(conclusion(whole.get(..end).unwrap()), None, "{end}");
    }
    assert_eq!(conclusion("no end of line ztc-end:0\n"), Some(("no end of line ", "0")));
    assert_eq!(conclusion(""), None);
}

/// A read that is polled once must not be put off: what it would have brought is lost.
#[tokio::test]
async fn a_task_that_has_used_up_its_turn_still_reads_what_has_arrived() {
    let (stdout, mut remote) = tokio::io::simplex(BUFFER);
    remote.write_all(b"last words").await.unwrap();
    let mut output = Output { stdout: Box::new(stdout), ending: Ending::Over(None) };
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::consume_budget().await;
    }
    let mut piece = [0; 16];
    assert_eq!(output.read(&mut piece).await, 10);
    drop(remote);
}
