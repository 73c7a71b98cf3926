//! `suites/survivors.yaml`: mutants that no case notices, each with the reason why that is as it should be, or what is
//! missing. It must not rot: a name that is no survivor is an error of the run that finds it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use ztc_model::yaml::{self, Diagnostic, Source, Spanned};

/// The file, in a project.
pub const FILE: &str = "suites/survivors.yaml";

/// The form of the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SurvivorsFile {
    /// The survivors.
    #[schemars(with = "Vec<SurvivorsOfOneReason>")]
    survivors: Vec<SurvivorsOfOneReason>,
}

/// Mutants that survive for the same reason.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SurvivorsOfOneReason {
    /// Why no case notices them: an equivalent policy, another layer that stands behind, or a hole in the suites.
    #[schemars(with = "String")]
    because: Spanned<String>,
    /// Their names, as `ztc mutate --list` shows them.
    #[schemars(with = "Vec<String>")]
    mutants: Vec<Spanned<String>>,
}

/// The survivors by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survivors(BTreeMap<String, Reason>);

/// Why a mutant survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The reason.
    pub because: String,
    /// The line that names the mutant.
    pub line: u64,
}

impl Survivors {
    /// The reason of a mutant, if one is listed.
    pub fn reason(&self, mutant: &str) -> Option<&Reason> {
        self.0.get(mutant)
    }

    /// Every name that is listed.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Reason)> {
        self.0.iter().map(|(name, reason)| (name.as_str(), reason))
    }
}

/// Reads the file.
///
/// # Errors
/// A diagnostic at what is wrong.
pub fn read(source: &Source) -> Result<Survivors, Box<Diagnostic>> {
    let file: SurvivorsFile = yaml::strict(source)?;
    let mut survivors = BTreeMap::new();
    for SurvivorsOfOneReason { because, mutants } in file.survivors {
        let text = because.value.trim().to_owned();
        if text.is_empty() {
            let help = "say why no case notices it";
            return Err(source.diagnostic_at(&because, "a survivor has a reason", Some(help)));
        }
        for mutant in mutants {
            let reason = Reason { because: text.clone(), line: mutant.referenced.line() };
            if survivors.insert(mutant.value.clone(), reason).is_some() {
                let message = format!("`{}` is listed twice", mutant.value);
                return Err(source.diagnostic_at(&mutant, message, Some("leave one of them out")));
            }
        }
    }
    Ok(Survivors(survivors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        read(&Source::new(FILE, text)).unwrap_err().to_string()
    }

    #[test]
    fn survivors_are_read_with_their_lines() {
        let text = "survivors:\n  - because: >-\n      A trap.\n    mutants:\n      - \"a::b.yaml: deleted\"\n";
        let survivors = read(&Source::new(FILE, text)).unwrap();
        let reason = survivors.reason("a::b.yaml: deleted").unwrap();
        assert_eq!(reason, &Reason { because: "A trap.".to_owned(), line: 5 });
        assert_eq!(survivors.reason("a::b.yaml"), None);
    }

    #[test]
    fn what_is_wrong_with_survivors_is_shown_where_it_is() {
        insta::assert_snapshot!(
            [
                "survivors:\n  - mutants: [\"a::b.yaml: deleted\"]\n    becuase: A trap.\n",
                "survivors:\n  - mutants: [\"a::b.yaml: deleted\"]\n    because: \" \"\n",
                "survivors:\n  - { mutants: [a, b], because: A trap. }\n  - { mutants: [b], because: Another. }\n",
            ]
            .map(refusal)
            .join("\n\n")
        );
    }
}
