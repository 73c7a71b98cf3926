//! Secrets that a record may carry, taken out before it is shown to more people than the cluster's own.
//!
//! Events name the tokens of a world and do not hold them. The records of enforcement points are kept as
//! they were written, though, and what their tools print is anybody's guess.

use std::borrow::Cow;

/// What stands where a secret was.
pub(crate) const REDACTED: &str = "[redacted]";

/// How a JSON Web Token begins: `{"` in base64.
const TOKEN: &str = "eyJ";
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &str = "-----END ";

/// Words after which a credential follows, up to the end of its line or of its quotes.
const HEADERS: [&str; 4] = ["set-cookie", "cookie", "proxy-authorization", "authorization"];
const SCHEME: &str = "bearer ";

/// The text without what looks like a token, a private key, a cookie or credentials of HTTP.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(rest) = text.get(at..) {
        let Some(next) = rest.chars().next() else { break };
        let Some((keep, hide)) = secret(text, at, rest) else {
            at += next.len_utf8();
            continue;
        };
        let begin = at + keep;
        shown.extend([text.get(kept..begin).unwrap_or_default(), REDACTED]);
        kept = begin + hide;
        at = kept;
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(shown)
}

/// Whether a secret begins here: how much stands before it, and how long it is.
fn secret(text: &str, at: usize, rest: &str) -> Option<(usize, usize)> {
    let first = rest.as_bytes().first()?.to_ascii_lowercase();
    if !matches!(first, b'e' | b'-' | b'b' | b's' | b'c' | b'p' | b'a') {
        return None;
    }
    if rest.starts_with(KEY_BEGINS) {
        return private_key(rest).map(|hide| (0, hide));
    }
    let before = at.checked_sub(1).and_then(|it| text.as_bytes().get(it));
    if before.is_some_and(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_')) {
        return None;
    }
    if rest.starts_with(TOKEN) {
        return token(rest).map(|hide| (0, hide));
    }
    if begins_with(rest, SCHEME) {
        let credential = rest.get(SCHEME.len()..)?;
        let hide = credential.find(|c: char| !is_of_a_token(c) && !"+/=~".contains(c));
        let hide = hide.unwrap_or(credential.len());
        // Prose has short words there.
        return (hide >= 16).then_some((SCHEME.len(), hide));
    }
    HEADERS.iter().find(|it| begins_with(rest, it)).and_then(|it| header(rest, it.len()))
}

fn begins_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word))
}

const fn is_of_a_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// How long the token is that begins here: three parts with dots between, the last may be empty.
fn token(rest: &str) -> Option<usize> {
    let length = rest.find(|c| !is_of_a_token(c)).unwrap_or(rest.len());
    let parts = rest.get(..length)?.split('.').count();
    (parts >= 3 && length >= 16).then_some(length)
}

/// How long the private key is that begins here. One that is cut has no end.
fn private_key(rest: &str) -> Option<usize> {
    let heading = rest.get(KEY_BEGINS.len()..)?.split("-----").next()?;
    if !heading.ends_with("PRIVATE KEY") {
        return None;
    }
    let Some(end) = rest.find(KEY_ENDS) else { return Some(rest.len()) };
    let footer = end + KEY_ENDS.len();
    let closing = rest.get(footer..)?.find("-----").map(|it| footer + it + "-----".len());
    Some(closing.unwrap_or(rest.len()))
}

/// The value of a header: `cookie: a=b`, `"cookie":"a=b"`, `"key":"cookie","value":"a=b"`.
fn header(rest: &str, name: usize) -> Option<(usize, usize)> {
    let after = rest.get(name..)?;
    let mut gap = after.len() - after.trim_start_matches(['"', '\\', ' ']).len();
    let named = after.get(gap..)?;
    let named = named.strip_prefix([':', '=', ',']).inspect(|_| gap += 1)?;
    let value = named.trim_start_matches([' ', '"', '\\']);
    gap += named.len() - value.len();
    // Hubble's headers are pairs of a key and a value.
    let value =
        match value.strip_prefix("value").map(|it| it.trim_start_matches(['"', '\\', ' ', ':'])) {
            Some(inner) => {
                gap += value.len() - inner.len();
                inner
            }
            None => value,
        };
    let hide = value.find(['"', '\\', '\n', '\r']).unwrap_or(value.len());
    (hide > 0).then_some((name + gap, hide))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ0ZWxsZXIifQ.c2lnbmF0dXJl_-x";

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        for (text, shown) in [
            (format!("token {JWT}, refused"), "token [redacted], refused"),
            (format!(r#"{{"jwt":"{JWT}"}}"#), r#"{"jwt":"[redacted]"}"#),
            ("Bearer abcdefghijklmnopqrstu.".into(), "Bearer [redacted]"),
            (format!("Authorization: Bearer {JWT}\nHost: x"), "Authorization: [redacted]\nHost: x"),
            (
                r#""authorization":"Basic dXNlcg==","x":1"#.into(),
                r#""authorization":"[redacted]","x":1"#,
            ),
            (r#"{\"Set-Cookie\": \"id=1; Secure\"}"#.into(), r#"{\"Set-Cookie\": \"[redacted]\"}"#),
            (
                r#"{"key":"Cookie","value":"id=1"}"#.into(),
                r#"{"key":"Cookie","value":"[redacted]"}"#,
            ),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb".into(),
                "a\n[redacted]\nb",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMHc".into(), "[redacted]"),
        ] {
            assert_eq!(redacted(&text), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_left_alone() {
        for text in [
            "",
            "with token teller",
            "the bearer of the certificate",
            "an AuthorizationPolicy, authorization denied",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "spiffe://cluster.local/ns/zt-shop/sa/web",
            "eyJ",
        ] {
            assert!(matches!(redacted(text), Cow::Borrowed(_)), "{text}: {}", redacted(text));
        }
    }

    proptest! {
        #[test]
        fn no_token_is_shown_whatever_stands_around_it(
            before in "(.*[^A-Za-z0-9_-])?",
            after in "([^A-Za-z0-9_.-].*)?",
        ) {
            let text = format!("{before}{JWT}{after}");
            prop_assert!(!redacted(&text).contains("c2lnbmF0dXJl"));
        }
    }
}
