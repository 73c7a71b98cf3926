//! Names in DNS rules and in `toFQDNs`.
//!
//! Follows `pkg/fqdn/matchpattern` of Cilium. This room must not know who asks or who answers.

use std::fmt;

use serde::Serialize;

/// The longest name or pattern (`matchpattern.MaxFQDNLength`), in bytes.
const MAX_LENGTH: usize = 255;

/// What a DNS rule lets pass, or what names an element of `toFQDNs` is about. The texts are lower-case and end with a dot, but for a lone `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DnsRule {
    /// This very name.
    MatchName(String),
    /// The names of this form: `*` stands for characters of one label, none too; `**.` in front
    /// for one label or more; a pattern of stars alone for every name.
    MatchPattern(String),
}

/// A text that no DNS rule may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDnsRule {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It is too long.
    #[error("the name has {0} bytes, at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    /// It has characters that do not belong.
    #[error("`{0}` does not belong into a name here")]
    Character(char),
}

impl DnsRule {
    /// The rule that lets every name pass.
    pub fn any() -> Self {
        Self::MatchPattern("*".to_owned())
    }

    /// A rule for one name: letters, digits, `-`, `_` and dots.
    pub fn name(name: &str) -> Result<Self, BadDnsRule> {
        check(name, is_label_character)?;
        Ok(Self::MatchName(absolute(name)))
    }

    /// A rule for a pattern: what a name may have, and `*`.
    pub fn pattern(pattern: &str) -> Result<Self, BadDnsRule> {
        check(pattern, |character| is_label_character(character) || character == '*')?;
        if pattern.trim_end_matches('.').chars().all(|character| character == '*') {
            return Ok(Self::any());
        }
        Ok(Self::MatchPattern(absolute(pattern)))
    }

    /// Its text as manifests have it, without the last dot.
    pub fn text(&self) -> &str {
        let (Self::MatchName(text) | Self::MatchPattern(text)) = self;
        text.trim_end_matches('.')
    }

    /// Whether it lets a name pass, written with or without its last dot, in any case.
    pub fn matches(&self, name: &str) -> bool {
        let name = absolute(name);
        match self {
            Self::MatchName(rule) => *rule == name,
            Self::MatchPattern(pattern) if pattern == "*" => true,
            Self::MatchPattern(pattern) => matches_pattern(pattern, &name),
        }
    }
}

impl fmt::Display for DnsRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchName(name) => write!(f, "matchName {name}"),
            Self::MatchPattern(pattern) => write!(f, "matchPattern {pattern}"),
        }
    }
}

fn check(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), BadDnsRule> {
    if text.is_empty() {
        return Err(BadDnsRule::Empty);
    }
    if text.len() > MAX_LENGTH {
        return Err(BadDnsRule::TooLong(text.len()));
    }
    match text.chars().find(|&character| character != '.' && !allowed(character)) {
        Some(character) => Err(BadDnsRule::Character(character)),
        None => Ok(()),
    }
}

fn is_label_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

fn absolute(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

/// Compares label by label, as no star but a leading `**.` crosses a dot.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (mut patterns, mut labels): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), name.split('.').collect());
    if is_subdomain_wildcard(patterns[0]) {
        patterns.remove(0);
        let Some(extra @ 1..) = labels.len().checked_sub(patterns.len()) else {
            return false;
        };
        let whole = |label: &str| !label.is_empty() && label.chars().all(is_label_character);
        if !labels.drain(..extra).all(whole) {
            return false;
        }
    }
    patterns.len() == labels.len()
        && patterns.iter().zip(labels).all(|(pattern, label)| matches_label(pattern, label))
}

fn is_subdomain_wildcard(label: &str) -> bool {
    label.len() > 1 && label.bytes().all(|byte| byte == b'*')
}

fn matches_label(pattern: &str, label: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == label;
    };
    let Some(label) = label.strip_prefix(head) else {
        return false;
    };
    // Every end of what this star stands for, the nearest first.
    label
        .char_indices()
        .take_while(|(_, character)| is_label_character(*character))
        .map(|(index, _)| index)
        .chain([label.len()])
        .filter(|&end| label.chars().take(end).all(is_label_character))
        .filter_map(|end| label.get(end..))
        .any(|label| matches_label(rest, label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        DnsRule::pattern(pattern).unwrap().matches(name)
    }

    /// `pkg/policy/api/fqdn.go`: names are compared without regard to case and the last dot.
    #[test]
    fn a_name_matches_itself_in_any_spelling() {
        let rule = DnsRule::name("Api.zt.test").unwrap();
        assert!(rule.matches("api.zt.test") && rule.matches("API.ZT.TEST."));
        assert!(!rule.matches("x.api.zt.test") && !rule.matches("zt.test"));
    }

    /// Recorded on a real cluster: `*.zt.test` did not match `d.e.zt.test`, `**.zt.test` did.
    #[test]
    fn one_star_stays_within_a_label() {
        assert!(matches("*.zt.test", "d.zt.test."));
        assert!(!matches("*.zt.test", "d.e.zt.test."));
        assert!(!matches("*.zt.test", "zt.test."));
        assert!(matches("a*c.zt.test", "abc.zt.test") && matches("a*c.zt.test", "ac.zt.test"));
        assert!(!matches("a*c.zt.test", "a.c.zt.test"));
        assert!(matches("*b*.test", "abc.test") && !matches("*b*.test", "acc.test"));
        assert!(matches("*a*ab", "aaab") && !matches("*a*ab", "ab"));
    }

    /// `pkg/fqdn/matchpattern`: two stars and a dot in front are whole labels, elsewhere one star.
    #[test]
    fn two_stars_in_front_are_one_label_or_more() {
        assert!(matches("**.zt.test", "d.zt.test."));
        assert!(matches("**.zt.test", "d.e.zt.test."));
        assert!(!matches("**.zt.test", "zt.test."));
        assert!(!matches("**.zt.test", ".zt.test."));
        assert!(!matches("a.**.test", "a.b.c.test"));
        assert!(matches("a.**.test", "a.b.test"));
        assert!(!matches("**zt.test", "a.zt.test"));
    }

    /// The same place: a pattern of stars alone is every name, the root too.
    #[test]
    fn stars_alone_match_every_name() {
        for pattern in ["*", "**", "*.", "**."] {
            for name in ["zt.test.", "a.b.c.d", "."] {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    /// The same place: `allowedPatternChars`, `allowedMatchNameChars` and `MaxFQDNLength`.
    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(DnsRule::name(""), Err(BadDnsRule::Empty));
        assert_eq!(DnsRule::name("*.test"), Err(BadDnsRule::Character('*')));
        assert_eq!(DnsRule::pattern("zt test"), Err(BadDnsRule::Character(' ')));
        assert_eq!(DnsRule::pattern(&"a".repeat(256)), Err(BadDnsRule::TooLong(256)));
    }
}
