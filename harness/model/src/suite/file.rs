//! The form of a suite file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::capture::Wire;
use crate::condition::{ConditionStatus, ConditionType};
use crate::outcome::{EnforcementPoint, Form};
use crate::suite::matrix::MatrixFile;
use crate::suite::{Component, Feature, Part};
use crate::yaml::Spanned;

/// A suite: one YAML file in a folder under `suites/`, next to the manifests that it applies.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuiteFile {
    /// Its name, the same as the folder's.
    #[schemars(with = "String")]
    pub suite: Spanned<String>,
    /// What it shows, one sentence.
    pub about: String,
    /// The world that its cases run against: a file under `suites/worlds/`, without `.yaml`.
    #[schemars(with = "String")]
    pub world: Spanned<String>,
    /// What a fabric must have; a fabric that lacks one lists the cases as ignored.
    #[serde(default)]
    pub needs: BTreeSet<Feature>,
    /// The cases.
    #[schemars(with = "Vec<CaseFile>")]
    pub cases: Vec<Spanned<CaseFile>>,
}

/// A case.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// Its name: a statement in lower case, words joined by `-`.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// Why its expectations should hold: the rule, in a sentence that a reader can check.
    #[schemars(with = "String")]
    pub because: Spanned<String>,
    /// The manifests to apply, in this order: `FILE` beside the suite, or `../SUITE/FILE` beside
    /// another one; `{ file: FILE, is: invalid }` for a policy that exists and enforces nothing, as
    /// Cilium does not take it, `{ file: FILE, is: unenforced }` for one of a kind that nobody enforces.
    #[schemars(with = "Vec<Applied>")]
    pub apply: Vec<Spanned<Applied>>,
    /// The versions that it is about, of parts of the cluster, such as `{ cilium: ">=1.20.0" }`: others list it as ignored.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Part, String>")]
    pub versions: BTreeMap<Part, Spanned<String>>,
    /// The documented hole that the case shows on purpose, in one sentence: what gets through, and past
    /// what.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub gap: Option<Spanned<String>>,
    /// The case of this suite that closes the gap, or `none`; every gap says it.
    #[serde(default, rename = "closed-by")]
    #[schemars(with = "Option<String>")]
    pub closed_by: Option<Spanned<String>>,
    /// The names of applied policies to take away again once all are enforced: what is denied stays denied by
    /// the others.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub remove: Vec<Spanned<String>>,
    /// Pods whose labels change once the policies are enforced: to Cilium each is somebody else from then on.
    #[serde(default)]
    #[schemars(with = "Vec<RelabelFile>")]
    pub relabel: Vec<Spanned<RelabelFile>>,
    /// What is restarted once the policies are enforced: what they deny has to stay denied meanwhile, and everything
    /// as it was afterwards.
    #[serde(default)]
    #[schemars(with = "Vec<Component>")]
    pub restart: Vec<Spanned<Component>>,
    /// Pods of the world to make after the policies are enforced.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub create: Vec<Spanned<String>>,
    /// What to send and what to expect of it.
    #[serde(default)]
    #[schemars(with = "Vec<ExpectationFile>")]
    pub expect: Vec<Spanned<ExpectationFile>>,
    /// More of it, as a truth table.
    #[serde(default)]
    #[schemars(with = "Option<MatrixFile>")]
    pub matrix: Option<Spanned<MatrixFile>>,
    /// What controllers are expected to say of policies and services, once everything is enforced.
    #[serde(default)]
    #[schemars(with = "Vec<ConditionFile>")]
    pub conditions: Vec<Spanned<ConditionFile>>,
}

/// A condition in the status of an object.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionFile {
    /// Of what: the name of an applied policy, or `Service/NAMESPACE/NAME` of the world.
    #[schemars(with = "String")]
    pub of: Spanned<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub about: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, in a word; any when absent.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A change of a pod's labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelabelFile {
    /// The pod, as `namespace/name`.
    #[schemars(with = "String")]
    pub pod: Spanned<String>,
    /// The labels that it gets, and as `null` those that it loses.
    #[schemars(with = "BTreeMap<String, Option<String>>")]
    pub labels: Spanned<BTreeMap<String, Option<String>>>,
}

/// An expectation: every source with every stimulus is a cell of its own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectationFile {
    /// Who sends: a pod as `namespace/name`, or `kubelet`; one or a list.
    #[schemars(with = "OneOrMany")]
    pub from: Spanned<OneOrMany>,
    /// What: `tcp`, `tls`, `udp`, `ping`, `dns`, `METHOD http://…` or `https://…`, `hbone`, `readiness`; one or a list.
    #[schemars(with = "OneOrMany")]
    pub send: Spanned<OneOrMany>,
    /// What each source has to get through with first, under the policies: only what is sent after
    /// that counts.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub after: Option<Spanned<String>>,
    /// Whether it gets through.
    pub is: Is,
    /// Of an allowed flow: whether every stimulus counts from before the first policy on, so that none may be
    /// lost.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub throughout: Option<Spanned<bool>>,
    /// Who must say that it let the flow pass.
    #[serde(default)]
    #[schemars(with = "Option<EnforcementPoint>")]
    pub via: Option<Spanned<EnforcementPoint>>,
    /// Of an allowed flow: how it is on the wire, at the edges of the pods.
    #[serde(default)]
    #[schemars(with = "Option<Wire>")]
    pub wire: Option<Spanned<Wire>>,
    /// Who denies it.
    #[serde(default)]
    #[schemars(with = "Option<EnforcementPoint>")]
    pub by: Option<Spanned<EnforcementPoint>>,
    /// The form of the denial.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<Form>")]
    pub form: Option<Spanned<Form>>,
    /// The name of the applied policy that denies it; may be left out when the case applies one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub policy: Option<Spanned<String>>,
    /// The names of applied policies that would deny it if the first one did not: for the proof they are removed
    /// with it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub behind: Vec<Spanned<String>>,
    /// A pod that differs in one attribute and must get through at the same moment.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub twin: Option<Spanned<String>>,
    /// Of a refused flow: a stimulus that differs in one attribute and must get through at the same time.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub beside: Option<Spanned<String>>,
}

/// A file of manifests that a case applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The file.
    pub file: String,
    /// What becomes of what is in it.
    pub is: Taken,
}

/// What becomes of a manifest that the API server has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It is enforced.
    #[default]
    Valid,
    /// Cilium says that it is not valid, and enforces nothing of it.
    Invalid,
    /// It is of a kind that nobody enforces.
    Unenforced,
}

/// An applied file as it is written out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AppliedFile {
    file: String,
    #[serde(default)]
    is: Taken,
}

// By hand, as `OneOrMany` is.
impl<'de> Deserialize<'de> for Applied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Applied;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a file, `{ file: FILE, is: invalid }`, or `{ file: FILE, is: unenforced }`",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Applied, E> {
                Ok(Applied { file: text.to_owned(), is: Taken::Valid })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Applied, A::Error> {
                let AppliedFile { file, is } =
                    AppliedFile::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Applied { file, is })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Applied {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Applied".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let written_out = generator.subschema_for::<AppliedFile>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, written_out] })
    }
}

/// Whether a stimulus gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Is {
    /// It does.
    Allowed,
    /// It does not.
    Denied,
    /// It does before the policies and once all of them are enforced, and does not in between.
    Interrupted,
    /// It does not, whatever policies say.
    Refused,
}

/// One text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

// By hand rather than `untagged`, whose errors name no place and no expectation.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<OneOrMany, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = texts.next_element()? {
                    all.push(text);
                }
                Ok(OneOrMany(all))
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMany".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 }
            ]
        })
    }
}
