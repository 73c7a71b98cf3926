//! `suites/expected-failures.yaml`: failures of cases that are known, where they are followed, and until when they are no news.
//!
//! An entry must not rot: it has a last day, a case that there is, and, once its case passes, the run fails until it is gone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use ztc_engine::expected::{Day, Entry, FailureKind};
use ztc_engine::profile::FabricKind;
use ztc_model::suite::{CaseId, Part, Versions};
use ztc_model::yaml::{self, Diagnostic, Source, Spanned};

/// The file, in a project.
pub const FILE: &str = "suites/expected-failures.yaml";

/// The form of the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExpectedFailuresFile {
    /// What it is for, one sentence.
    pub about: String,
    /// The failures.
    #[schemars(with = "Vec<EntryFile>")]
    expected_failures: Vec<EntryFile>,
}

/// A failure of a case that is known.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EntryFile {
    /// The case: `SUITE::CASE`.
    #[schemars(with = "String")]
    case: Spanned<String>,
    /// What it comes to, in the word of the verdict. A leak is `fail-open` and nothing else.
    #[schemars(with = "FailureKind")]
    comes_to: Spanned<String>,
    /// The versions that it does so with, of parts of the cluster, such as `{ cilium: "<1.20.3" }`. Only an entry of one fabric
    /// may say none.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Part, String>")]
    versions: BTreeMap<Part, Spanned<String>>,
    /// The fabric that it does so on; any, where it is not said.
    #[serde(default)]
    fabric: Option<FabricKind>,
    /// Where it is followed: an address that begins with `https://`.
    #[schemars(with = "String")]
    issue: Spanned<String>,
    /// The last day, in UTC, on which it is expected, such as `2026-12-31`.
    #[schemars(with = "Day")]
    until: Spanned<String>,
    /// Why it is so, one sentence.
    #[schemars(with = "String")]
    because: Spanned<String>,
}

/// The failures that are known.
#[derive(Debug, Clone, Default)]
pub struct ExpectedFailures(Vec<Known>);

/// An entry and the runs that it is about.
#[derive(Debug, Clone)]
struct Known {
    case: CaseId,
    versions: Versions,
    fabric: Option<FabricKind>,
    entry: Entry,
}

impl Known {
    fn is_about(&self, fabric: FabricKind, cluster: &BTreeMap<String, String>) -> bool {
        self.fabric.is_none_or(|it| it == fabric) && self.versions.exclude(cluster).is_none()
    }
}

impl ExpectedFailures {
    /// What is known of a case on a cluster of these versions, by the name of the part. Of several entries that are about it,
    /// the one that holds longest.
    pub fn of(
        &self,
        case: &CaseId,
        fabric: FabricKind,
        cluster: &BTreeMap<String, String>,
    ) -> Option<&Entry> {
        let known = self.0.iter().filter(|it| it.case == *case && it.is_about(fabric, cluster));
        known.map(|it| &it.entry).max_by_key(|it| it.until)
    }
}

/// Reads the file; the cases that there are come in.
///
/// # Errors
/// A diagnostic at what is wrong.
pub fn read<'a, I: IntoIterator<Item = &'a CaseId>>(
    source: &Source,
    cases: I,
) -> Result<ExpectedFailures, Box<Diagnostic>> {
    let file: ExpectedFailuresFile = yaml::strict(source)?;
    let cases: Vec<&CaseId> = cases.into_iter().collect();
    let mut known: Vec<Known> = Vec::new();
    for written in &file.expected_failures {
        let entry = entry(source, written, &cases)?;
        let is_twice = |it: &Known| {
            (&it.case, &it.versions, it.fabric) == (&entry.case, &entry.versions, entry.fabric)
        };
        if known.iter().any(is_twice) {
            let message =
                format!("`{}` is here twice with the same versions and fabric", entry.case);
            let help = "leave one of them out";
            return Err(source.diagnostic_at(&written.case, message, Some(help)));
        }
        known.push(entry);
    }
    Ok(ExpectedFailures(known))
}

fn entry(
    source: &Source,
    written: &EntryFile,
    cases: &[&CaseId],
) -> Result<Known, Box<Diagnostic>> {
    let EntryFile { case: name, comes_to, versions, fabric, issue, until, because, .. } = written;
    let Some(case) = cases.iter().find(|it| it.as_str() == name.value) else {
        let message = format!("there is no case `{}`", name.value);
        let help = "`ztc list` shows them all; the entry of one that is gone goes, too";
        return Err(source.diagnostic_at(name, message, Some(help)));
    };
    let comes_to = failure(source, comes_to)?;
    let versions = Versions::read(source, versions)?;
    if versions.is_about_all() && fabric.is_none() {
        let message = format!("this entry would be about every run of `{case}`");
        let help = "say the `versions` that it fails with, or the one `fabric`";
        return Err(source.diagnostic_at(name, message, Some(help)));
    }
    if !is_link(&issue.value) {
        let message = format!("`{}` is no address that begins with `https://`", issue.value);
        let help = "name the issue in which the failure is followed";
        return Err(source.diagnostic_at(issue, message, Some(help)));
    }
    let until = until.value.parse().map_err(|_error| {
        let message = format!("`{}` is no day", until.value);
        let help = "write the last day on which it is expected, such as `2026-12-31`";
        source.diagnostic_at(until, message, Some(help))
    })?;
    let text = because.value.trim();
    if text.is_empty() {
        let help = "say what is wrong, and in what";
        return Err(source.diagnostic_at(because, "an expected failure has a reason", Some(help)));
    }
    let place = format!("{}:{}", source.file, name.referenced.line());
    let (issue, because) = (issue.value.clone(), text.to_owned());
    let entry = Entry { comes_to, issue, until, because, place };
    Ok(Known { case: (*case).clone(), versions, fabric: *fabric, entry })
}

fn failure(source: &Source, word: &Spanned<String>) -> Result<FailureKind, Box<Diagnostic>> {
    if let Some(kind) = FailureKind::ALL.into_iter().find(|it| it.word() == word.value) {
        return Ok(kind);
    }
    let (message, help) = match word.value.as_str() {
        "inconclusive" => (
            "that there is no proof is never expected".to_owned(),
            "find out what keeps the case from its proof: docs/outcomes.md".to_owned(),
        ),
        "pass" => (
            "a pass is no failure".to_owned(),
            "leave the entry out: a case without one has to pass".to_owned(),
        ),
        other => {
            let words = FailureKind::ALL.map(FailureKind::word).join("`, `");
            (format!("`{other}` is no failure"), format!("write one of `{words}`"))
        }
    };
    Err(source.diagnostic_at(word, message, Some(&help)))
}

/// Whether a text can be an address of a page: a host, and nothing that an address does not have.
fn is_link(text: &str) -> bool {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = host.contains('.') && !host.starts_with('.') && !host.ends_with('.');
    is_host && text.bytes().all(|it| it.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUE: &str = "https://github.com/cilium/cilium/issues/40404";

    fn cases() -> [CaseId; 2] {
        ["one", "two"].map(|it| CaseId::new("l1-cluster", it))
    }

    /// A file with these entries, a line each.
    fn file(entries: &[String]) -> String {
        let lines: Vec<String> = entries.iter().map(|it| format!("  - {{ {it} }}\n")).collect();
        format!("about: Known.\nexpected-failures:\n{}", lines.concat())
    }

    /// An entry whose fields are those of a sound one, but for this one.
    fn but(field: &str, value: &str) -> String {
        let fields = [
            ("case", "l1-cluster::one"),
            ("comes-to", "fail-closed"),
            ("versions", "{ cilium: \"<1.20.3\" }"),
            ("issue", ISSUE),
            ("until", "2026-12-31"),
            ("because", "It is so."),
        ];
        let sound = fields.iter().filter(|it| it.0 != field);
        let mut fields: Vec<String> = sound.map(|(it, value)| format!("{it}: {value}")).collect();
        if !field.is_empty() {
            fields.push(format!("{field}: {value}"));
        }
        fields.join(", ")
    }

    fn known(entries: &[String]) -> ExpectedFailures {
        read(&Source::new(FILE, file(entries)), &cases()).unwrap()
    }

    fn refusal(entries: &[String]) -> String {
        read(&Source::new(FILE, file(entries)), &cases()).unwrap_err().to_string()
    }

    fn cluster(cilium: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("cilium".to_owned(), cilium.to_owned())])
    }

    #[test]
    fn an_entry_is_about_its_case_on_its_versions_and_its_fabric() {
        let [one, two] = cases();
        let known = known(&[but("fabric", "kind"), but("case", "l1-cluster::two")]);
        let entry = known.of(&one, FabricKind::Kind, &cluster("1.20.2")).unwrap();
        assert_eq!(entry.comes_to, FailureKind::FailClosed);
        assert_eq!((entry.issue.as_str(), entry.until.to_string().as_str()), (ISSUE, "2026-12-31"));
        assert_eq!(entry.place, "suites/expected-failures.yaml:3");
        assert_eq!(known.of(&one, FabricKind::Kind, &cluster("1.20.3")), None);
        assert_eq!(known.of(&one, FabricKind::Lab, &cluster("1.20.2")), None);
        assert_eq!(known.of(&one, FabricKind::Kind, &BTreeMap::new()), None, "nobody knows");
        assert!(known.of(&two, FabricKind::Lab, &cluster("1.20.2")).is_some());
    }

    #[test]
    fn of_several_entries_the_one_that_holds_longest_counts() {
        let [one, _] = cases();
        let later = but("until", "2027-01-31").replace("<1.20.3", "<1.21.0");
        let known = known(&[but("", ""), later, but("fabric", "lab")]);
        let entry = known.of(&one, FabricKind::Lab, &cluster("1.20.2")).unwrap();
        assert_eq!(entry.until.to_string(), "2027-01-31");
    }

    #[test]
    fn versions_may_be_left_out_of_one_fabric_and_a_list_may_be_empty() {
        let [one, _] = cases();
        let entry = but("", "").replace("versions: { cilium: \"<1.20.3\" }", "fabric: attach");
        assert!(known(&[entry]).of(&one, FabricKind::Attach, &BTreeMap::new()).is_some());
        let source = Source::new(FILE, "about: Known.\nexpected-failures: []\n");
        assert!(read(&source, &cases()).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_shown_where_it_is() {
        let refusals = [
            vec![but("", "").replace("until", "untill")],
            vec![but("case", "l1-cluster::three")],
            vec![but("comes-to", "inconclusive")],
            vec![but("comes-to", "pass")],
            vec![but("comes-to", "leak")],
            vec![but("versions", "{}")],
            vec![but("versions", "{ cilium: \"\" }")],
            vec![but("versions", "{ cilium: \">=1.21.0, <1.20.0\" }")],
            vec![but("versions", "{ envoy: \"<1.20.3\" }")],
            vec![but("fabric", "moon")],
            vec![but("issue", "\"#40404\"")],
            vec![but("until", "2026-02-30")],
            vec![but("because", "\" \"")],
            vec![but("", ""), but("", "")],
        ];
        let refusals: Vec<String> = refusals.iter().map(|it| refusal(it)).collect();
        insta::assert_snapshot!(refusals.join("\n\n"));
    }

    #[test]
    fn a_link_has_a_host_and_no_space() {
        for link in [ISSUE, "https://github.com", "https://bugs.example.org?id=1#c2"] {
            assert!(is_link(link), "{link}");
        }
        for other in [
            "",
            "https://",
            "https://localhost/1",
            "http://github.com/1",
            "https:///x.y",
            "https://.com",
            "https://github.com/a b",
            "https://github.com/\u{202e}",
            "https://github.com/<x>",
            "javascript:https://github.com",
        ] {
            assert!(!is_link(other), "{other}");
        }
    }
}
