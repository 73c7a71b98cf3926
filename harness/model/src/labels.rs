//! Security labels: what Cilium identities are made of.
//!
//! The words are Cilium's (`pkg/labels`). This room must not know policies.

use std::collections::BTreeMap;
use std::fmt;

/// The source of labels that come from Kubernetes.
pub const K8S: &str = "k8s";
/// The source of labels that Cilium reserves for what is no pod.
pub const RESERVED: &str = "reserved";
/// The source of labels that stand for a range of addresses.
pub const CIDR: &str = "cidr";
/// The source of labels that stand for a name that was learnt, or for a pattern of names.
pub const FQDN: &str = "fqdn";
/// In a selector: any source.
pub const ANY: &str = "any";

/// The key of the namespace that a pod is in.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Before the keys of that namespace's labels.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// The key of a pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// The key of the cluster that a pod is in.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The name of a cluster that was given none.
pub const DEFAULT_CLUSTER: &str = "default";

/// A set of labels, at most one value for each source and key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(BTreeMap<(String, String), String>);

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same set with one more label, or another value for it.
    #[must_use]
    pub fn with(mut self, source: &str, key: &str, value: &str) -> Self {
        self.insert(source, key, value);
        self
    }

    /// Adds a label or replaces its value.
    pub fn insert(&mut self, source: &str, key: &str, value: &str) {
        self.0.insert((source.to_owned(), key.to_owned()), value.to_owned());
    }

    /// The value of a key; [`ANY`] looks under every source, in their order.
    pub fn get(&self, source: &str, key: &str) -> Option<&str> {
        self.iter()
            .find(|label| label.key == key && (source == ANY || label.source == source))
            .map(|label| label.value)
    }

    /// Whether it has a reserved label of that name.
    pub fn is_reserved(&self, name: &str) -> bool {
        self.get(RESERVED, name).is_some()
    }

    /// The namespace of the pod that these are the labels of.
    pub fn namespace(&self) -> Option<&str> {
        self.get(K8S, NAMESPACE)
    }

    /// Its labels, ordered by source and key.
    pub fn iter(&self) -> impl Iterator<Item = Label<'_>> {
        self.0.iter().map(|((source, key), value)| Label { source, key, value })
    }

    /// Its labels as Cilium prints them, `source:key=value`.
    pub fn to_strings(&self) -> Vec<String> {
        self.iter().map(|label| label.to_string()).collect()
    }
}

/// Reads labels as Cilium prints them; one without a source gets the source `unspec`, as there.
impl<'a> FromIterator<&'a str> for Labels {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut labels = Self::new();
        for text in texts {
            let (source, rest) = text.split_once(':').unwrap_or(("unspec", text));
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            labels.insert(source, key, value);
        }
        labels
    }
}

/// One label of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<'a> {
    /// Where it comes from, such as [`K8S`].
    pub source: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its value, empty for reserved and CIDR labels.
    pub value: &'a str,
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_back_as_they_are_printed() {
        let printed = ["cidr:10.0.0.0/8", "k8s:app=web", "k8s:note=a:b=c", "reserved:world"];
        assert_eq!(Labels::from_iter(printed).to_strings(), printed);
        let bare = Labels::from_iter(["app=web"]);
        assert_eq!(bare.get("unspec", "app"), Some("web"));
    }

    /// `pkg/labels` Label.Has: the source `any` of a selector stands for every source.
    #[test]
    fn any_source_finds_the_key_under_every_source() {
        let labels = Labels::from_iter(["container:app=api", "k8s:tier=front"]);
        assert_eq!(labels.get(ANY, "app"), Some("api"));
        assert_eq!(labels.get(ANY, "tier"), Some("front"));
        assert_eq!(labels.get(K8S, "app"), None);
    }
}
