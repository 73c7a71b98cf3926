//! Mutation: what is left of policies when one thing of them is taken away, which some case has to notice.
//!
//! Mutants of a policy are: the whole of it gone; each of its rules gone, the last one too; each of the parts that a rule is
//! made of gone, where the rule keeps another (whom it is about, on which ports, under which condition); and each
//! alternative of a list gone, where the list keeps another: peers, ports, names, values. Exceptions of ranges, modes of
//! ports and rules about tokens go down to the last. Selectors of subjects, labels of selectors, names and numbers stay as
//! they are, and nothing is ever added: those are other mutations.
//!
//! A mutant of which the API server, Cilium or Istio would not take what is left is refused, and one that says the same as
//! its policy is equivalent: no case can tell either from what is there already. Both are told with their reason, and neither
//! is counted as noticed.
//!
//! This room only says what mutants there are and how a case reads with one. It must not know who runs cases, nor what
//! became of them.

mod places;

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use serde_json::Value;

use crate::manifest::{self, Manifest, ObjectRef};
use crate::outcome::Expected;
use crate::policy::PolicyKind;
use crate::suite::Case;

/// A policy with one thing of it taken away.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutant {
    /// Its name: `SUITE::FILE: PLACE deleted`.
    pub name: String,
    /// The suite whose folder has the policy.
    pub suite: String,
    /// The file of the policy.
    pub file: String,
    /// The line at which the policy begins.
    pub line: usize,
    /// The policy.
    pub policy: ObjectRef,
    /// What is left of it.
    pub left: Left,
}

/// What is left of a policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// Nothing: it is not applied.
    Nothing,
    /// Less.
    Less(Box<Manifest>),
    /// What would not be taken, and why.
    Refused(String),
    /// What says the same, and why.
    Equivalent(String),
}

/// All mutants of the policies that cases apply, each once, by file. What a case applies besides policies has none.
pub fn mutants<'a, I: IntoIterator<Item = &'a Case>>(cases: I) -> Vec<Mutant> {
    let mut files: BTreeMap<&str, Vec<&Manifest>> = BTreeMap::new();
    for manifest in cases.into_iter().flat_map(|case| &case.apply) {
        let policies = files.entry(&manifest.file).or_default();
        if !policies.iter().any(|it| it.reference == manifest.reference) {
            policies.push(manifest);
        }
    }
    let mut all = Vec::new();
    for policies in files.values_mut() {
        policies.sort_by_key(|it| it.line);
        let alone = policies.len() == 1;
        all.extend(policies.iter().flat_map(|policy| of_policy(policy, alone)));
    }
    all
}

/// The mutants of a policy, which is named where it is not alone in its file.
fn of_policy(policy: &Manifest, alone: bool) -> Vec<Mutant> {
    let kind = PolicyKind::ALL.into_iter().find(|it| it.name() == policy.reference.kind);
    let Some(kind) = kind.filter(|it| *it != PolicyKind::Gateway) else { return Vec::new() };
    let file = FilePath::new(&policy.file);
    let name = |path: Option<&FilePath>| {
        path.and_then(FilePath::file_name).map(|it| it.to_string_lossy().into_owned())
    };
    let suite = name(file.parent()).unwrap_or_default();
    let begin = format!("{suite}::{}:", name(Some(file)).unwrap_or_default());
    let mutant = |place: &str, left: Left| {
        let policy_name = (!alone).then(|| policy.reference.to_string());
        let words: Vec<&str> = [Some(begin.as_str()), policy_name.as_deref(), Some(place)]
            .into_iter()
            .flatten()
            .filter(|it| !it.is_empty())
            .chain(["deleted"])
            .collect();
        Mutant {
            name: words.join(" "),
            suite: suite.clone(),
            file: policy.file.clone(),
            line: policy.line,
            policy: policy.reference.clone(),
            left,
        }
    };
    let whole = match &policy.invalid {
        _ if kind.is_unenforced() => Left::Equivalent(format!("nobody enforces a {kind}")),
        Some(why) => Left::Equivalent(format!(
            "Cilium does not take the policy, and enforces nothing: {why}"
        )),
        None => Left::Nothing,
    };
    let mut all = vec![mutant("", whole)];
    for place in places::places(kind, &policy.object) {
        // A place is one of this very object.
        if let Some(object) = places::without(&policy.object, &place) {
            all.push(mutant(&place.to_string(), left(policy, object)));
        }
    }
    all
}

/// What an object is that was made of a policy by taking something away.
fn left(policy: &Manifest, object: Value) -> Left {
    match manifest::reread(policy, object) {
        Ok(less) if less.policy == policy.policy => {
            Left::Equivalent("the policy says the same without it".to_owned())
        }
        Ok(less) => Left::Less(Box::new(less)),
        Err(refusal) if refusal.taken_and_invalid && policy.invalid.is_some() => Left::Equivalent(
            format!("Cilium does not take what is left, either: {}", refusal.message),
        ),
        Err(refusal) => Left::Refused(refusal.message),
    }
}

impl Mutant {
    /// Where its policy is: file and line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Whether a case applies its policy.
    pub fn concerns(&self, case: &Case) -> bool {
        case.apply.iter().any(|it| self.is_of(it))
    }

    fn is_of(&self, manifest: &Manifest) -> bool {
        manifest.file == self.file && manifest.reference == self.policy
    }

    /// The cases that may notice it, those first that are about its policy: that say what it stops, and then those that apply
    /// the fewest others beside it, the smallest first.
    pub fn candidates<'a>(&self, cases: impl IntoIterator<Item = &'a Case>) -> Vec<&'a Case> {
        let mut concerned: Vec<&Case> = cases.into_iter().filter(|it| self.concerns(it)).collect();
        concerned.sort_by_key(|case| {
            let elsewhere = case.id.suite() != self.suite;
            let (beside, cells) = (case.apply.len(), case.cells.len());
            (!self.is_named_in(case), !case.restart.is_empty(), beside, elsewhere, cells)
        });
        concerned
    }

    /// Whether a case says of the policy that it stops something.
    fn is_named_in(&self, case: &Case) -> bool {
        case.cells.iter().any(|cell| match &cell.expected {
            Expected::Denied { policy, behind, .. } => {
                *policy == self.policy || behind.contains(&self.policy)
            }
            Expected::Interrupted { policy, .. } => *policy == self.policy,
            Expected::Allowed { .. } | Expected::Throughout | Expected::Refused { .. } => false,
        })
    }

    /// The case with it in the place of its policy; nothing where there is nothing to run. What the case expects stays, but
    /// for what a controller would say of an object that is not there.
    pub fn in_case(&self, case: &Case) -> Option<Case> {
        let position = case.apply.iter().position(|it| self.is_of(it))?;
        let mut case = case.clone();
        match &self.left {
            Left::Nothing => {
                case.apply.remove(position);
                case.remove.retain(|it| *it != self.policy);
                case.conditions.retain(|it| it.object != self.policy);
            }
            Left::Less(less) => case.apply[position] = Manifest::clone(less),
            Left::Refused(_) | Left::Equivalent(_) => return None,
        }
        Some(case)
    }
}

#[cfg(test)]
mod tests;
