//! Label selectors, with Kubernetes' operators and Cilium's prefixes of keys.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use crate::identity::Reserved;
use crate::labels::{ANY, K8S, Labels, RESERVED};
use crate::yaml::{Diagnostic, Document, Spanned};

/// What a set of labels must meet, all of it; without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(BTreeSet<Requirement>);

/// What one label must meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The source of the label; [`ANY`] for any.
    pub source: String,
    /// Its key.
    pub key: String,
    /// What is asked of its value.
    pub condition: Condition,
}

/// What is asked of a label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// It is one of these.
    In(BTreeSet<String>),
    /// It is none of these, or there is no such label.
    NotIn(BTreeSet<String>),
    /// There is one.
    Exists,
    /// There is none.
    DoesNotExist,
}

impl Requirement {
    /// That a label has this very value.
    pub fn equals(source: &str, key: &str, value: &str) -> Self {
        Self::new(source, key, Condition::In([value.to_owned()].into()))
    }

    /// That there is such a label.
    pub fn exists(source: &str, key: &str) -> Self {
        Self::new(source, key, Condition::Exists)
    }

    /// A condition on a label.
    pub fn new(source: &str, key: &str, condition: Condition) -> Self {
        Self { source: source.to_owned(), key: key.to_owned(), condition }
    }

    /// Whether labels meet it (`MatchesRequirement` in `pkg/policy/types/requirements.go`).
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.source, &self.key);
        match &self.condition {
            Condition::In(values) => value.is_some_and(|value| values.contains(value)),
            Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Condition::Exists => value.is_some(),
            Condition::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// The one that matches everything.
    pub fn all() -> Self {
        Self(BTreeSet::new())
    }

    /// The same with one more requirement.
    #[must_use]
    pub fn and(mut self, requirement: Requirement) -> Self {
        self.0.insert(requirement);
        self
    }

    /// Whether labels meet all of it.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// What it asks.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Self(requirements.into_iter().collect())
    }
}

/// A selector as manifests have it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelSelector {
    #[serde(default)]
    match_labels: Option<HashMap<Spanned<String>, Spanned<String>>>,
    #[serde(default)]
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: Spanned<String>,
    operator: Spanned<String>,
    #[serde(default)]
    values: Option<Vec<Spanned<String>>>,
}

/// How the keys of a selector are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys<'a> {
    /// Cilium's: `k8s:`, `any:` or `reserved:` in front, any source without.
    Cilium,
    /// Kubernetes': plain, about the labels of pods.
    Pods,
    /// Kubernetes', about labels that identities keep under a prefix.
    Under(&'a str),
}

impl LabelSelector {
    /// Whether it asks nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.match_labels.as_ref().is_none_or(HashMap::is_empty)
            && self.match_expressions.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether it asks for a reserved label.
    pub(crate) fn names_reserved(
        &self,
        document: &Document<'_>,
        name: Reserved,
    ) -> Result<bool, Box<Diagnostic>> {
        let selector = self.read(document, Keys::Cilium)?;
        Ok(selector.requirements().any(|it| it.source == RESERVED && it.key == name.name()))
    }

    /// Checks it and turns it into what it asks.
    pub(crate) fn read(
        &self,
        document: &Document<'_>,
        keys: Keys<'_>,
    ) -> Result<Selector, Box<Diagnostic>> {
        let labels = self.match_labels.iter().flatten().map(|(key, value)| {
            check_value(document, value)?;
            let (source, key) = read_key(document, key, keys)?;
            Ok(Requirement::equals(source, &key, &value.value))
        });
        let expressions = self.match_expressions.iter().flatten().map(|expression| {
            let (source, key) = read_key(document, &expression.key, keys)?;
            Ok(Requirement::new(source, &key, expression.condition(document)?))
        });
        labels.chain(expressions).collect()
    }
}

impl Expression {
    fn condition(&self, document: &Document<'_>) -> Result<Condition, Box<Diagnostic>> {
        let values = self.values.as_deref().unwrap_or_default();
        for value in values {
            check_value(document, value)?;
        }
        let texts = || values.iter().map(|value| value.value.clone()).collect();
        let operator = self.operator.value.as_str();
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let message = format!("`{operator}` needs at least one value");
                Err(document.diagnostic_at(&self.operator, message, None))
            }
            "In" => Ok(Condition::In(texts())),
            "NotIn" => Ok(Condition::NotIn(texts())),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = format!("`{operator}` takes no values");
                Err(document.diagnostic_at(&values[0], message, None))
            }
            "Exists" => Ok(Condition::Exists),
            "DoesNotExist" => Ok(Condition::DoesNotExist),
            _ => Err(document.diagnostic_at(
                &self.operator,
                format!("unknown operator `{operator}`"),
                Some("expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`"),
            )),
        }
    }
}

fn read_key(
    document: &Document<'_>,
    key: &Spanned<String>,
    keys: Keys<'_>,
) -> Result<(&'static str, String), Box<Diagnostic>> {
    let text = key.value.as_str();
    let (source, name) = match (keys, text.split_once(':')) {
        (Keys::Cilium, None) => (ANY, text),
        (Keys::Cilium, Some(("k8s", name))) => (K8S, name),
        (Keys::Cilium, Some(("any", name))) => (ANY, name),
        (Keys::Cilium, Some(("reserved", name))) => (RESERVED, name),
        (Keys::Cilium, Some((source, _))) => {
            return Err(document.diagnostic_at(
                key,
                format!("labels of source `{source}` are not evaluated"),
                Some("a key is written plain or after `k8s:`, `any:` or `reserved:`"),
            ));
        }
        (Keys::Pods | Keys::Under(_), _) => (K8S, text),
    };
    if !is_qualified_name(name) {
        return Err(document.diagnostic_at(
            key,
            format!("`{text}` is no label key"),
            Some(
                "a key is a name of at most 63 letters, digits, `-`, `_` and `.`, \
                 perhaps after a DNS name and `/`",
            ),
        ));
    }
    match keys {
        Keys::Under(prefix) => Ok((source, format!("{prefix}.{name}"))),
        Keys::Cilium | Keys::Pods => Ok((source, name.to_owned())),
    }
}

fn check_value(document: &Document<'_>, value: &Spanned<String>) -> Result<(), Box<Diagnostic>> {
    if value.value.is_empty() || is_name(&value.value) {
        return Ok(());
    }
    Err(document.diagnostic_at(
        value,
        format!("`{}` is no label value", value.value),
        Some("a value is empty or at most 63 letters, digits, `-`, `_` and `.`"),
    ))
}

/// As `k8s.io/apimachinery` validates keys: a name, perhaps after a DNS subdomain and a slash.
fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

fn is_name(text: &str) -> bool {
    let ends = |character: Option<char>| character.is_some_and(|it| it.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.'))
}

/// As `k8s.io/apimachinery` validates names of objects: RFC 1123, in lower case, with dots.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-')
        })
}
