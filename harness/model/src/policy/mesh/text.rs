//! Texts of a policy, in which a star may stand for the rest.

/// What a text of a policy matches.
///
/// Source: `stringToMatch` in `ambient/authorization.go` and `StringMatcher` in
/// `pilot/pkg/security/authz/matcher/string.go` of istiod, which agree, and `StringMatch` in `src/rbac.rs` of
/// istio/ztunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// `*`: any text but the empty one.
    Present,
    /// `*end`.
    EndsWith(String),
    /// `begin*`.
    BeginsWith(String),
    /// No star: this very text.
    Is(String),
}

impl TextMatch {
    /// Reads a text. A star at its beginning goes before one at its end, which then stands for itself.
    pub(super) fn read(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Present,
            (Some(end), _) => Self::EndsWith(end.to_owned()),
            (None, Some(begin)) => Self::BeginsWith(begin.to_owned()),
            (None, None) => Self::Is(text.to_owned()),
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::EndsWith(end) => text.ends_with(end.as_str()),
            Self::BeginsWith(begin) => text.starts_with(begin.as_str()),
            Self::Is(whole) => text == whole,
        }
    }
}

/// Whether a text is one of a pattern in which every star stands for anything.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let begin = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(begin) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest_at_one_end() {
        for (pattern, matches, others) in [
            ("*", vec!["a", "*"], vec![""]),
            ("*pay", vec!["zt-pay", "pay"], vec!["zt-pay-old", ""]),
            ("zt-*", vec!["zt-pay", "zt-"], vec!["my-zt-pay", ""]),
            ("zt-pay", vec!["zt-pay"], vec!["zt-pay2", "zt", ""]),
            ("*-*", vec!["zt-*"], vec!["zt-pay"]),
            ("zt*pay", vec!["zt*pay"], vec!["zt-pay"]),
        ] {
            let pattern = TextMatch::read(pattern);
            for text in matches {
                assert!(pattern.matches(text), "{pattern:?} {text}");
            }
            for text in others {
                assert!(!pattern.matches(text), "{pattern:?} {text}");
            }
        }
    }

    #[test]
    fn every_star_of_a_glob_stands_for_anything() {
        for (pattern, text, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*a", "a", false),
            ("*/ns/ba*/*", "d/ns/bank/sa/x", true),
            ("*/ns/ban/*", "d/ns/bank/sa/x", false),
            ("*b*b*", "abcb", true),
            ("*b*b*", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }
}
