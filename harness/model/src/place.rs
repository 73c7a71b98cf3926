//! Places in an object: the way to a field or to an entry, as people write it.
//!
//! This room must not know what stands there.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// A step into an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// To what a field holds.
    Field(String),
    /// To an entry of a list, from 0.
    Entry(usize),
}

/// The way to something in an object; written `spec.egress[1].toPorts[0]`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Place(Vec<Step>);

/// A text that is no way to anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no place in an object; write `spec.egress[1].toPorts[0]`")]
pub struct NotAPlace {
    text: String,
}

impl Place {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// What a field there holds.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.then(Step::Field(name.to_owned()))
    }

    /// An entry of the list there.
    #[must_use]
    pub fn entry(&self, index: usize) -> Self {
        self.then(Step::Entry(index))
    }

    /// A step further.
    #[must_use]
    pub fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The way there.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What stands there, if anything does.
    pub fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |at, step| match step {
            Step::Field(name) => at.get(name),
            Step::Entry(index) => at.get(index),
        })
    }
}

impl FromIterator<Step> for Place {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Entry(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

/// Reads a place as it is written, where no field has a dot or a bracket in its name.
impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let wrong = || NotAPlace { text: text.to_owned() };
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, entries) = part.split_once('[').unwrap_or((part, ""));
            if name.is_empty() {
                return Err(wrong());
            }
            steps.push(Step::Field(name.to_owned()));
            let Some(entries) = entries.strip_suffix(']') else {
                if entries.is_empty() && !part.contains('[') {
                    continue;
                }
                return Err(wrong());
            };
            for entry in entries.split("][") {
                steps.push(Step::Entry(entry.parse().map_err(|_no_number| wrong())?));
            }
        }
        Ok(Self(steps))
    }
}

impl TryFrom<String> for Place {
    type Error = NotAPlace;

    fn try_from(text: String) -> Result<Self, NotAPlace> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_as_it_is_written() {
        for text in ["spec", "spec.egress[1].toPorts[0]", "specs[0].ingressDeny[12]", "a[0][1].b"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for text in ["", ".", "spec.", "[0]", "spec[", "spec[]", "spec[x]", "spec[0]]", "spec[0"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_finds_what_stands_there() {
        let object = serde_json::json!({"spec": {"egress": [{}, {"toPorts": ["x"]}]}});
        let at = |text: &str| text.parse::<Place>().unwrap().of(&object).cloned();
        assert_eq!(at("spec.egress[1].toPorts[0]"), Some("x".into()));
        assert_eq!((at("spec.egress[2]"), at("spec.ingress")), (None, None));
    }
}
