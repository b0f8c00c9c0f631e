//! Targets and what a benchmark found, for the table of all of them (`benches/table.py`).

use std::{fs, io, path::Path};

/// What was aimed at and what came.
pub struct Row {
    /// What was measured.
    pub what: String,
    pub result: String,
    pub target: String,
    pub is_met: bool,
}

/// Leaves the rows of a benchmark in `target/bench/NAME.json`, with the command that made them.
pub fn write(name: &str, command: &str, rows: &[Row]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!({ "what": row.what, "result": row.result, "target": row.target, "met": row.is_met }))
        .collect();
    let text = serde_json::json!({ "command": command, "rows": rows }).to_string();
    fs::write(folder.join(format!("{name}.json")), text)
}
