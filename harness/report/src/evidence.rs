//! One file a case, with all that is known of it: `evidence/<suite>/<case>.json`.

use std::path::{Path, PathBuf};

use ztc_engine::event::CaseReport;
use ztc_model::suite::CaseId;

use crate::file::{self, FileError};

/// The name of the folder, in that of the run.
pub const FOLDER: &str = "evidence";

/// The folder that keeps the evidence of a run.
#[derive(Debug)]
pub struct EvidenceFolder {
    path: PathBuf,
}

impl EvidenceFolder {
    /// The folder at this path; it is made when the first case is written.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes all that is known of a case, pretty printed, and says where.
    ///
    /// # Errors
    /// [`FileError`]: the folder cannot be made or the file cannot be written.
    pub fn write(&self, report: &CaseReport) -> Result<PathBuf, FileError> {
        let folder = self.path.join(safe(report.case.suite()));
        let path = self.path.join(file_of(&report.case));
        let mut text = serde_json::to_vec_pretty(report)
            .map_err(|error| FileError::Write { path: path.clone(), source: error.into() })?;
        text.push(b'\n');
        file::make_folder(&folder)?;
        file::replace(&path, &text)?;
        Ok(path)
    }
}

/// The path of a case's file inside [`FOLDER`]. Two cases have two paths.
pub fn file_of(case: &CaseId) -> PathBuf {
    Path::new(&safe(case.suite())).join(format!("{}.json", safe(case.name())))
}

/// A name as a file's name: what is no letter, digit, `-`, `_` or inner `.` becomes `%` and two
/// hexadecimal digits a byte, so that different names stay different and none leaves its folder.
fn safe(name: &str) -> String {
    if name.is_empty() {
        // No other name comes out as this.
        return "%".to_owned();
    }
    let mut safe = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => safe.push(char::from(byte)),
            b'.' if at > 0 => safe.push('.'),
            _ => safe.extend(["%", &format!("{byte:02X}")]),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;
    use crate::sample;

    #[test]
    fn evidence_is_the_report_of_the_case() {
        let folder = tempfile::tempdir().unwrap();
        let report = sample::fail_open();
        let path = EvidenceFolder::new(folder.path().join(FOLDER)).write(&report).unwrap();
        assert_eq!(path, folder.path().join("evidence/l1-cluster/metadata-is-denied.json"));
        let read: CaseReport = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(report).unwrap());
    }

    #[test]
    fn no_name_leaves_the_folder_or_meets_another_one() {
        let names = ["", "%", ".", "..", "a/b", "a%2Fb", "a.b", ".a", "ä", "a b", "a\0"];
        let paths: HashSet<_> = names.map(|name| file_of(&CaseId::new("s", name))).into();
        assert_eq!(paths.len(), names.len());
    }

    proptest! {
        #[test]
        fn every_file_lies_two_levels_down(suite in any::<String>(), case in any::<String>()) {
            let path = file_of(&CaseId::new(&suite, &case));
            let parts: Vec<_> = path.components().collect();
            prop_assert_eq!(parts.len(), 2);
            prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
        }
    }
}
