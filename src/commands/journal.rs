//! What a run did with each image, one JSON object a line, so that a later run goes on where it stopped.
//!
//! ```text
//! {"image":"photos/a.jpg","out":"features/a.npy","outcome":"done","bytes":196736,"ms":141}
//! {"image":"photos/b.jpg","out":"features/b.npy","outcome":"refused","error":"Client specified an invalid argument: image.encoded: ..."}
//! ```
//!
//! Lines are only ever added; the last one of an output counts.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its output was written.
    Done,
    /// Its output was there, and no line said so: the run that wrote it was stopped in between.
    Found,
    /// It would fail again: an image that the server refuses.
    Refused,
    /// It failed, and may not fail the next time.
    Failed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The image, as the command was given it.
    pub image: PathBuf,
    /// Its output.
    pub out: PathBuf,
    /// What became of it.
    pub outcome: Outcome,
    /// Size of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// From the read of the image to the end of the write, in milliseconds of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Last outcome of each output.
    outcomes: HashMap<PathBuf, Outcome>,
}

impl Journal {
    /// Opens or creates a journal; a last line that was broken off is cut away.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds a line that is none of a journal's.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("reading the journal {}", path.display()))?,
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut outcomes = HashMap::new();
        for (idx, line) in text.get(..whole).unwrap_or_default().lines().enumerate() {
            let entry: Entry = serde_json::from_str(line)
                .with_context(|| format!("line {} of {} is none of a journal", idx + 1, path.display()))?;
            outcomes.insert(entry.out, entry.outcome);
        }
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.with_context(|| format!("opening the journal {}", path.display()))?;
        if whole < text.len() {
            file.set_len(whole as u64).with_context(|| format!("repairing the journal {}", path.display()))?;
        }
        Ok(Self { path: path.to_path_buf(), file, outcomes })
    }

    /// What the last line about an output says.
    pub fn outcome(&self, out: &Path) -> Option<Outcome> {
        self.outcomes.get(out).copied()
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(entry).context("writing a line of the journal")?);
        self.file.write_all(line.as_bytes()).with_context(|| format!("writing the journal {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn entry(out: &str, outcome: Outcome) -> Entry {
        Entry { image: "a.jpg".into(), out: out.into(), outcome, bytes: None, ms: None, error: None }
    }

    #[test]
    fn the_last_line_of_an_output_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        for outcome in [Outcome::Failed, Outcome::Done] {
            journal.write(&entry("a.npy", outcome)).unwrap();
        }
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.outcome(Path::new("a.npy")), journal.outcome(Path::new("b.npy"))), (Some(Outcome::Done), None));
    }

    #[test]
    fn a_line_that_was_broken_off_is_cut_away_and_a_strange_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        Journal::open(&path).unwrap().write(&entry("a.npy", Outcome::Done)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"image\":\"b.j")).unwrap();
        Journal::open(&path).unwrap().write(&entry("c.npy", Outcome::Done)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(Journal::open(&path).unwrap().outcome(Path::new("c.npy")), Some(Outcome::Done));
        fs::write(&path, "a photo\n").unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("line 1"));
    }
}
