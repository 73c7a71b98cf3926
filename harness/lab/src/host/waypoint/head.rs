//! The head of a request, before it is parsed: what Envoy refuses that parsers take, or take in another way.
//!
//! A request whose end two proxies may see at two places is refused, as Envoy refuses it
//! (`source/common/http/http1/balsa_parser.cc`, and `allow_chunked_length`, which is off). Limits are Envoy's own.

use http::StatusCode;

/// The longest head, in bytes (`max_request_headers_kb`).
pub(super) const LONGEST: usize = 60 * 1024;

/// The most headers (`max_headers_count`).
pub(super) const MOST: usize = 100;

/// How clients of HTTP/2 begin (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What is there of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Not all of it.
    Partial,
    /// All of it, and nothing that is refused here.
    Whole,
    /// What is answered at once.
    Refused(StatusCode),
}

/// Looks at what has come so far.
pub(super) fn look(bytes: &[u8]) -> Head {
    let end = head_end(bytes);
    if end.unwrap_or(bytes.len()) > LONGEST {
        return Head::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if bytes.starts_with(PREFACE) {
        return Head::Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    let Some(head) = end.and_then(|end| bytes.get(..end)) else { return Head::Partial };
    let mut lines = head.split(|it| *it == b'\n').map(<[u8]>::trim_ascii_end);
    // Empty lines before a request are passed over (RFC 9112 §2.2).
    let first = lines.by_ref().find(|it| !it.is_empty()).unwrap_or_default();
    if first.ends_with(b" HTTP/1.0") {
        return Head::Refused(StatusCode::UPGRADE_REQUIRED);
    }
    let names: Vec<&[u8]> = lines
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|it| *it == b':').next().unwrap_or_default())
        .collect();
    if names.len() > MOST {
        return Head::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let count =
        |name: &[u8]| names.iter().filter(|it| it.trim_ascii().eq_ignore_ascii_case(name)).count();
    let (lengths, encodings) = (count(b"content-length"), count(b"transfer-encoding"));
    if lengths + encodings > 1 || count(b"host") != 1 {
        return Head::Refused(StatusCode::BAD_REQUEST);
    }
    Head::Whole
}

/// Where the body begins: after the first empty line that follows another.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut has_begun = false;
    let mut at = 0;
    for line in bytes.split_inclusive(|it| *it == b'\n') {
        at += line.len();
        let is_empty = matches!(line, b"\n" | b"\r\n");
        if is_empty && has_begun {
            return Some(at);
        }
        has_begun |= !is_empty;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> Option<u16> {
        match look(text.as_bytes()) {
            Head::Refused(status) => Some(status.as_u16()),
            Head::Whole => None,
            Head::Partial => panic!("{text:?} is not whole"),
        }
    }

    fn with(headers: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: vault\r\n{headers}\r\n")
    }

    #[test]
    fn a_request_is_taken() {
        assert_eq!(refused(&with("")), None);
        assert_eq!(refused(&with("Content-Length: 3\r\n")), None);
        assert_eq!(refused(&with("Transfer-Encoding: chunked\r\n")), None);
        assert_eq!(refused(&format!("\r\n{}", with(""))), None);
    }

    #[test]
    fn a_request_with_two_ends_is_refused() {
        for headers in [
            "Content-Length: 3\r\nContent-Length: 5\r\n",
            "Content-Length: 3\r\ncontent-length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Content-Length: 3\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(refused(&with(headers)), Some(400), "{headers}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Some(400));
        assert_eq!(refused(&with("host: ledger\r\n")), Some(400));
    }

    #[test]
    fn other_versions_are_refused_by_their_names() {
        assert_eq!(refused("GET / HTTP/1.0\r\nHost: vault\r\n\r\n"), Some(426));
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(505));
    }

    #[test]
    fn a_head_that_is_too_long_is_refused_before_its_end() {
        let token = format!("Authorization: Bearer {}", "a".repeat(1 << 20));
        let begun = format!("GET / HTTP/1.1\r\nHost: vault\r\n{token}");
        assert_eq!(refused(&begun), Some(431));
        let many = "x-many: 1\r\n".repeat(MOST + 1);
        assert_eq!(refused(&with(&many)), Some(431));
    }

    #[test]
    fn a_body_is_not_counted() {
        let long = format!("{}{}", with("Content-Length: 100000\r\n"), "a".repeat(100_000));
        assert_eq!(refused(&long), None);
    }

    proptest! {
        /// However a request is cut, nothing is said of it before it is whole, unless it is too long.
        #[test]
        fn what_is_not_whole_is_partial(cut in 0_usize..1000) {
            let whole = with("Content-Length: 3\r\nAccept: */*\r\n");
            let cut = cut % whole.len();
            prop_assert_eq!(look(&whole.as_bytes()[..cut]), Head::Partial);
        }

        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            look(&bytes);
        }
    }
}
