//! JSON Schemas of what a run leaves behind for programs.

use schemars::schema_for;
use serde_json::Value;
use ztc_engine::event::{CaseReport, Event};

use crate::diff::Diff;
use crate::mutations::Mutations;

/// The schemas by the names of their files: of a line of `events.jsonl`, of a diff, of a file in
/// `evidence/`, and of `mutations.json`.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("events.schema.json", schema_for!(Event).to_value()),
        ("diff.schema.json", schema_for!(Diff).to_value()),
        ("evidence.schema.json", schema_for!(CaseReport).to_value()),
        ("mutations.schema.json", schema_for!(Mutations).to_value()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_closed_and_names_every_kind_of_event() {
        let (_, schema) = schemas().swap_remove(0);
        assert_eq!(schema["additionalProperties"], false);
        let kinds = schema["$defs"]["EventKind"].to_string();
        for kind in ["run-started", "lane-up", "case-ignored", "case-started", "case-phase"]
            .into_iter()
            .chain(["case-finished", "interrupted", "run-finished"])
        {
            assert!(kinds.contains(&format!("{kind:?}")), "{kind} is missing in {kinds}");
        }
    }
}
