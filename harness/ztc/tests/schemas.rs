//! The schemas that are committed are those of the types.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use ztc::schemas;

#[test]
fn every_committed_schema_is_the_one_of_its_type() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(schemas::FOLDER);
    for (name, schema) in schemas::all() {
        let committed = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            committed == schemas::text(&schema),
            "{name} is stale: run `cargo run -p ztc -- schema` and commit what it writes"
        );
    }
}
