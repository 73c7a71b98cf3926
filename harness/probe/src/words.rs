//! The words of the echo. Over TCP and UDP `ztc1 <nonce>` asks and `ztc1 <nonce> <peer>` answers;
//! over HTTP nonce and peer travel in headers.
//!
//! Pure: both sides use these functions, so that they cannot drift apart.

use hyper::header::HeaderName;

/// Carries the nonce of a request, and of the response to it.
pub(crate) const X_ZTC_NONCE: HeaderName = HeaderName::from_static("x-ztc-nonce");

/// Carries the name of who answers.
pub(crate) const X_ZTC_PEER: HeaderName = HeaderName::from_static("x-ztc-peer");

/// The longest question or answer, its end of line included. A nonce is 32 bytes, a peer's name at
/// most 253 and 63 (a namespaced pod's name).
pub(crate) const MAX_WORDS: usize = 512;

/// How much of an answer that is not ours is kept.
pub(crate) const EXCERPT: usize = 256;

const GREETING: &str = "ztc1";

/// What a client sends.
pub(crate) fn question(nonce: &str) -> String {
    format!("{GREETING} {nonce}\n")
}

/// What a server sends back to a question, or `None` if the line is none.
pub(crate) fn answer(question: &[u8], peer: &str) -> Option<String> {
    let nonce = str::from_utf8(question).ok()?.strip_suffix('\n')?;
    let nonce = nonce.strip_prefix(GREETING)?.strip_prefix(' ')?;
    let is_one_word = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
    is_one_word.then(|| format!("{GREETING} {nonce} {peer}\n"))
}

/// What the bytes that came so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The beginning of an answer.
    Part,
    /// Our answer, by this peer.
    Peer(String),
    /// Something else.
    Garbled,
}

/// Compares what came with the answer to a nonce.
pub(crate) fn hear(nonce: &str, bytes: &[u8]) -> Heard {
    let start = format!("{GREETING} {nonce} ").into_bytes();
    let Some(rest) = bytes.strip_prefix(start.as_slice()) else {
        return if start.starts_with(bytes) { Heard::Part } else { Heard::Garbled };
    };
    match rest.strip_suffix(b"\n").map(str::from_utf8) {
        Some(Ok(peer)) if !peer.is_empty() && !peer.contains('\n') => Heard::Peer(peer.to_owned()),
        None if !rest.contains(&b'\n') && bytes.len() < MAX_WORDS => Heard::Part,
        _ => Heard::Garbled,
    }
}

/// The first bytes of something, as text.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..EXCERPT).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_heard_after_any_part_of_it() {
        let whole = answer(question("c0ffee").as_bytes(), "zt-pay/ledger").unwrap();
        for cut in 0..whole.len() {
            assert_eq!(hear("c0ffee", &whole.as_bytes()[..cut]), Heard::Part, "cut at {cut}");
        }
        assert_eq!(hear("c0ffee", whole.as_bytes()), Heard::Peer("zt-pay/ledger".into()));
    }

    #[test]
    fn another_nonce_is_garbled_at_its_first_byte() {
        assert_eq!(hear("c0ffee", b"ztc1 b"), Heard::Garbled);
        assert_eq!(hear("c0ffee", b"HTTP/1.1 400 Bad Request\r\n"), Heard::Garbled);
    }

    #[test]
    fn more_than_one_line_is_garbled() {
        assert_eq!(hear("c0", b"ztc1 c0 peer\nztc1"), Heard::Garbled);
        assert_eq!(hear("c0", b"ztc1 c0 \n"), Heard::Garbled);
    }

    #[test]
    fn an_endless_answer_is_garbled() {
        let endless = ["ztc1 c0 ".into(), "x".repeat(MAX_WORDS)].concat();
        assert_eq!(hear("c0", endless.as_bytes()), Heard::Garbled);
    }

    #[test]
    fn an_answer_is_no_question_so_two_servers_cannot_talk_for_ever() {
        let first = answer(b"ztc1 c0\n", "a").unwrap();
        assert_eq!(answer(first.as_bytes(), "b"), None);
    }

    #[test]
    fn an_excerpt_is_text_and_ends() {
        assert_eq!(excerpt(&[0xff, b'a']), "\u{fffd}a");
        assert_eq!(excerpt(&[b'a'; 1000]).len(), EXCERPT);
    }
}
