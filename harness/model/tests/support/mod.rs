//! How tests of policies write them down.

use std::collections::BTreeMap;

use ztc_model::manifest::manifests;
use ztc_model::policy::Policy;
use ztc_model::yaml::Source;

/// The policies of a text of manifests.
pub(crate) fn policies(text: &str) -> Vec<Policy> {
    match manifests(&Source::new("policies.yaml", text)) {
        Ok(manifests) => manifests.into_iter().map(|manifest| manifest.policy).collect(),
        Err(diagnostic) => panic!("{diagnostic}"),
    }
}

/// The message about a text of manifests that must be refused.
pub(crate) fn refusal(text: &str) -> String {
    let refused = manifests(&Source::new("policies.yaml", text));
    refused.expect_err("it must be refused").message
}

pub(crate) fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
