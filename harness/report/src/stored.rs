//! A run as it is stored, read for people: as much of it as can be understood, and what was skipped.
//!
//! A comparison refuses events of another version, as it must not hold unlike things against each
//! other. A page that says what it skipped may show the rest.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;
use ztc_engine::event::{Event, EventKind, SCHEMA};

use crate::account::Account;

/// How many names that are not known here are taken out of one line, before it is given up.
const PATIENCE: usize = 32;

/// How many skipped lines are told one by one.
const TOLD: usize = 20;

/// The account of the lines of an `events.jsonl`. Lines that cannot be understood are noted in it.
pub fn account(lines: impl BufRead) -> Account {
    let mut account = Account::new();
    let mut skipped = Skipped::default();
    for (number, line) in (1..).zip(lines.split(b'\n')) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                skipped.line(number, &error.to_string());
                break;
            }
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match understood(&line, &mut skipped.names) {
            Ok(event) => {
                if let EventKind::RunStarted(run) = &event.kind
                    && run.schema != SCHEMA
                {
                    account.note_unread(format!(
                        "its events are of version {}, and this ztc reads version {SCHEMA}; they may mean something else",
                        run.schema
                    ));
                }
                account.event(&event);
            }
            Err(error) if error.is_eof() => skipped.line(number, "it was cut short"),
            Err(error) => {
                // What else there might have been helps nobody.
                let why = error.to_string();
                skipped.line(number, why.split(", expected").next().unwrap_or(&why));
            }
        }
    }
    skipped.tell(&mut account);
    account
}

/// What of the lines was not understood.
#[derive(Debug, Default)]
struct Skipped {
    lines: Vec<String>,
    /// The names of fields that were taken out.
    names: Vec<String>,
}

impl Skipped {
    fn line(&mut self, number: usize, why: &str) {
        self.lines.push(format!("line {number} of the events: {why}"));
    }

    fn tell(self, account: &mut Account) {
        let untold = self.lines.len().saturating_sub(TOLD);
        for line in self.lines.into_iter().take(TOLD) {
            account.note_unread(line);
        }
        if untold > 0 {
            account.note_unread(format!("{untold} more lines of the events"));
        }
        if !self.names.is_empty() {
            let names = self.names.join(", ");
            account
                .note_unread(format!("what a newer ztc wrote under names not known here: {names}"));
        }
    }
}

/// The event of a line, without the fields that this version does not know. Their names are added.
fn understood(line: &[u8], names: &mut Vec<String>) -> Result<Event, serde_json::Error> {
    let mut error = match serde_json::from_slice(line) {
        Ok(event) => return Ok(event),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(line)?;
    for _ in 0..PATIENCE {
        let Some(name) = unknown_field(&error) else { break };
        if !take_out(&mut value, &name) {
            break;
        }
        if !names.contains(&name) {
            names.push(name);
        }
        error = match Event::deserialize(&value) {
            Ok(event) => return Ok(event),
            Err(error) => error,
        };
    }
    Err(error)
}

/// The field that a decoder complains about. Nothing but its words has the name.
fn unknown_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let name = text.strip_prefix("unknown field `")?.split('`').next()?;
    Some(name.to_owned())
}

/// Takes every field of that name out, but what enforcement points wrote is left as it is.
fn take_out(value: &mut Value, name: &str) -> bool {
    match value {
        Value::Object(fields) => {
            let mut found = fields.remove(name).is_some();
            for (key, value) in fields {
                found |= key != "record" && take_out(value, name);
            }
            found
        }
        Value::Array(values) => {
            let mut found = false;
            for value in values {
                found |= take_out(value, name);
            }
            found
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Mark;
    use crate::sample;

    fn lines(events: &[Event]) -> Vec<String> {
        events.iter().map(|it| serde_json::to_string(it).unwrap()).collect()
    }

    #[test]
    fn a_whole_run_is_read_without_a_note() {
        let account = account(lines(&sample::run()).join("\n").as_bytes());
        assert_eq!(account.unread, [""; 0]);
        assert_eq!(account.reports.len(), 2);
        assert!(account.is_finished());
    }

    #[test]
    fn a_torn_line_is_skipped_and_said() {
        let text = lines(&sample::run()).join("\n");
        let account = account(&text.as_bytes()[..text.len() - 10]);
        assert_eq!(account.unread, ["line 10 of the events: it was cut short"]);
        assert_eq!(account.reports.len(), 2);
        assert!(!account.is_finished());
    }

    #[test]
    fn bytes_that_are_no_text_cost_their_line_alone() {
        let mut bytes = b"\xff\xfe\n".to_vec();
        bytes.extend(lines(&sample::run()).join("\n").bytes());
        let account = account(bytes.as_slice());
        assert_eq!((account.unread.len(), account.reports.len()), (1, 2));
    }

    #[test]
    fn fields_and_kinds_of_a_newer_version_are_skipped_and_named() {
        let report = sample::fail_open();
        let mut value = serde_json::to_value(sample::events("kind", &[report])).unwrap();
        value[0]["kind"]["run-started"]["schema"] = 2.into();
        value[1]["kind"]["case-finished"]["mood"] = "good".into();
        value[1]["kind"]["case-finished"]["cells"][0]["weather"] = "fine".into();
        value[1]["kind"]["case-finished"]["cells"][1]["evidence"][0]["record"]["mood"] =
            "kept".into();
        let mut text: Vec<String> =
            value.as_array().unwrap().iter().map(ToString::to_string).collect();
        text.push(r#"{"at_us":9,"kind":{"moon-rose":{}}}"#.to_owned());
        let account = account(text.join("\n").as_bytes());
        assert_eq!(account.reports[0].cells.len(), 2);
        assert_eq!(account.reports[0].cells[1].evidence[0].record["mood"], "kept");
        assert!(account.unread[0].contains("version 2"), "{:?}", account.unread);
        assert!(account.unread[1].contains("moon-rose"), "{:?}", account.unread);
        assert!(account.unread[2].ends_with("weather, mood"), "{:?}", account.unread);
        assert_eq!(account.verdict().0, Mark::FailOpen);
    }
}
