//! Text that came from a cluster, so that it is text and nothing else wherever it is put.
//!
//! It is redacted, made legible and escaped, in this order: what is escaped no longer looks like
//! what it is.

use crate::page::legible;
use crate::redact::redacted;

/// For HTML: between tags, and in attributes that are quoted. At most `longest` characters of it,
/// and how many are left out.
pub(crate) fn push_html(page: &mut String, text: &str, longest: usize) {
    let text = redacted(text);
    let (shown, left_out) = clip(&text, longest);
    for line in shown.split_inclusive('\n') {
        let content = line.strip_suffix('\n');
        for letter in legible(content.unwrap_or(line)).chars() {
            match letter {
                '<' => page.push_str("&lt;"),
                '>' => page.push_str("&gt;"),
                '&' => page.push_str("&amp;"),
                '"' => page.push_str("&quot;"),
                '\'' => page.push_str("&#39;"),
                letter => page.push(letter),
            }
        }
        if content.is_some() {
            page.push('\n');
        }
    }
    if left_out > 0 {
        page.push_str(&more(left_out));
    }
}

/// For Markdown: no markup, no other column and no other line.
pub(crate) fn markdown(text: &str) -> String {
    let text = redacted(text);
    let mut plain = String::with_capacity(text.len());
    for word in text.split(['\n', '\r']) {
        if !plain.is_empty() {
            plain.push(' ');
        }
        for letter in legible(word).chars() {
            match letter {
                '<' => plain.push_str("&lt;"),
                '>' => plain.push_str("&gt;"),
                '&' => plain.push_str("&amp;"),
                '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' | '#' | '@' => {
                    plain.push('\\');
                    plain.push(letter);
                }
                letter => plain.push(letter),
            }
        }
    }
    plain
}

/// The same, of at most so many characters before it is escaped.
pub(crate) fn short_markdown(text: &str, longest: usize) -> String {
    let text = redacted(text);
    match clip(&text, longest) {
        (shown, 0) => markdown(shown),
        (shown, left_out) => markdown(&format!("{shown}{}", more(left_out))),
    }
}

fn more(left_out: usize) -> String {
    format!(" … ({left_out} more characters)")
}

/// The first characters of a text, and how many follow.
fn clip(text: &str, longest: usize) -> (&str, usize) {
    // No text has more characters than bytes.
    if text.len() <= longest {
        return (text, 0);
    }
    match text.char_indices().nth(longest) {
        Some((end, _)) => {
            let (shown, rest) = text.split_at(end);
            (shown, rest.chars().count())
        }
        None => (text, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(text: &str, longest: usize) -> String {
        let mut page = String::new();
        push_html(&mut page, text, longest);
        page
    }

    #[test]
    fn markup_becomes_text() {
        assert_eq!(
            html("<b a=\"x\" c='y'>&\n\u{202e}", 99),
            "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\n\\u{202e}"
        );
    }

    #[test]
    fn a_long_text_says_how_much_is_left_out() {
        assert_eq!(html("ääää", 4), "ääää");
        assert_eq!(html("äääää", 3), "äää … (2 more characters)");
        assert_eq!(short_markdown("a|bcd", 2), "a\\| … (3 more characters)");
    }

    #[test]
    fn a_secret_is_not_saved_by_being_cut_or_escaped() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ0ZWxsZXIifQ.c2lnbmF0dXJl";
        assert_eq!(html(token, 30), "[redacted]");
        assert_eq!(short_markdown(token, 30), "\\[redacted\\]");
    }
}
