//! What a waypoint makes of bytes that are no proper request: a clear answer, and an end.

use std::time::Duration;

use http::Response;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::timeout;

use super::requests::{Served, converse};

/// Longer than anything here may take.
const CEILING: Duration = Duration::from_secs(30);

/// How long a client may take for the head of its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client sees that sends these bytes and then leaves its side open, or closes it.
async fn sees(bytes: Vec<u8>, closes: bool) -> (Served, String) {
    sees_within(PATIENCE, bytes, closes).await
}

async fn sees_within(patience: Duration, bytes: Vec<u8>, closes: bool) -> (Served, String) {
    // Less than what some send, as it is in a tunnel.
    let (client, server) = duplex(1 << 14);
    let conversation = converse(server, patience, |request| async move {
        let body = request.into_body().collect().await;
        let status = if body.is_ok() { 200 } else { 599 };
        let nothing = Empty::new().map_err(|never: std::convert::Infallible| match never {});
        let mut response = Response::new(nothing.boxed_unsync());
        *response.status_mut() = status.try_into().unwrap();
        response
    });
    let asks = async {
        let (mut reads, mut writes) = split(client);
        let mut seen = String::new();
        let writing = async {
            // A server that has said all need not take all.
            writes.write_all(&bytes).await.ok();
            if closes {
                writes.shutdown().await.ok();
            }
        };
        let reading = reads.read_to_string(&mut seen);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        seen
    };
    timeout(CEILING, async { tokio::join!(conversation, asks) }).await.expect("it comes to an end")
}

fn status(seen: &str) -> u16 {
    seen.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{seen:?}"))
}

fn with(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /gold HTTP/1.1\r\nHost: vault.zt-bank\r\n{headers}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_request_is_answered_and_the_connection_is_over() {
    for (headers, body) in [
        ("", ""),
        ("Content-Length: 3\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        let (served, seen) = sees(with(headers, body), false).await;
        assert_eq!((served, status(&seen)), (Served::Asked, 200), "{headers}");
        assert!(seen.contains("connection: close"), "{seen}");
    }
}

#[tokio::test]
async fn a_second_request_in_the_first_is_never_answered() {
    let smuggled = "GET /admin/keys HTTP/1.1\r\nHost: vault.zt-bank\r\n\r\n";
    let (_, seen) = sees(with("", smuggled), false).await;
    assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
}

#[tokio::test]
async fn what_is_no_proper_request_is_refused() {
    let token = format!("Authorization: Bearer {}\r\n", "a".repeat(1 << 20));
    let many = "x-many: 1\r\n".repeat(200);
    for (bytes, wanted) in [
        (with("Content-Length: 3\r\nContent-Length: 5\r\n", "abcde"), 400),
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), 400),
        (with("Transfer-Encoding: chunked, identity\r\n", "abc"), 400),
        (with("Content-Length: -1\r\n", ""), 400),
        (with("Content-Length: 3, 3\r\n", "abc"), 400),
        (with("no header at all\r\n", ""), 400),
        (with(&token, ""), 431),
        (with(&many, ""), 431),
        (b"\0\x01\x02\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.0\r\nHost: vault\r\n\r\n".to_vec(), 426),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505),
    ] {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let (served, seen) = sees(bytes, false).await;
        assert_eq!(status(&seen), wanted, "{begin}");
        assert!(matches!(served, Served::Refused(_)), "{begin}: {served:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_broken_is_no_second_request() {
    let (_, seen) = sees(with("Transfer-Encoding: chunked\r\n", "zz\r\n\r\n"), false).await;
    assert_eq!(status(&seen), 599);
    assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
}

#[tokio::test]
async fn who_ends_in_the_middle_of_a_head_is_refused_and_who_says_nothing_is_not_missed() {
    let (served, seen) = sees(b"GET / HT".to_vec(), true).await;
    assert_eq!((served, status(&seen)), (Served::Refused(http::StatusCode::BAD_REQUEST), 400));
    assert_eq!(sees(Vec::new(), true).await, (Served::Nothing, String::new()));
}

#[tokio::test]
async fn who_never_ends_a_head_is_not_waited_for_for_ever() {
    let patience = Duration::from_millis(50);
    let begun = b"GET / HTTP/1.1\r\nHost: va".to_vec();
    let (served, seen) = sees_within(patience, begun, false).await;
    assert_eq!(status(&seen), 408);
    assert!(matches!(served, Served::Refused(_)), "{served:?}");
}
