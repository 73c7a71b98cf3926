//! What the last run told, for benchmarks that measure whole runs.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use ztc_engine::event::EventKind;

/// The events of the last run whose folder is among these results.
pub(crate) fn of_last_run(results: &Path) -> Result<Vec<EventKind>, String> {
    let path = results.join("latest/events.jsonl");
    let file = File::open(&path).map_err(|it| format!("{}: {it}", path.display()))?;
    ztc_report::jsonl::read(BufReader::new(file))
        .map(|event| event.map(|it| it.kind).map_err(|it| ztc_engine::chain(&it)))
        .collect()
}
