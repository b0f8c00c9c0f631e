//! One output an image: where each goes, which are due, and all of them with a progress bar.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::bail;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use thiserror::Error;

use crate::commands::{
    inputs::{InputImage, collect},
    journal::{Entry, Journal, Outcome},
    shard::Shard,
    target::TargetArgs,
};
use crate::grpc::client::{Client, ClientError};

/// Flags of commands that write one file an image.
#[derive(Debug, Args)]
pub struct FolderArgs {
    /// Images, or folders of images.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A file for a single image, else a folder.
    #[arg(short, long, value_name = "OUT")]
    pub out: PathBuf,
    /// Write again what is there already; without it, images whose output exists are skipped.
    #[arg(long)]
    force: bool,
    /// Images in flight.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    /// Only the images of worker INDEX, from 0, of COUNT workers, each with the same arguments otherwise. Their names decide.
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<Shard>,
    /// Write what became of each image to this file, a JSON object a line; images that it calls refused are not tried again.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Images that would fail again, and no others failed: what a script need not repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{n_refused} of {n_all} images were refused, trying again will not help")]
pub struct AllRefused {
    n_refused: usize,
    n_all: usize,
}

/// One image and where its result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The image.
    pub image: PathBuf,
    /// The file to write.
    pub out: PathBuf,
}

impl FolderArgs {
    /// What there is to do. `is_file` tells whether the output names a file; files in an output folder get `extension`.
    ///
    /// # Errors
    /// Inputs that cannot be used, and one output file for several images.
    pub fn tasks(&self, is_file: bool, extension: &str) -> anyhow::Result<Vec<Task>> {
        let mut images = collect(&self.images)?;
        if let (true, [InputImage { path, .. }], None) = (is_file, images.as_slice(), self.shard) {
            return Ok(vec![Task { image: path.clone(), out: self.out.clone() }]);
        }
        if is_file {
            let what = if self.shard.is_some() { "a shard".into() } else { format!("{} images", images.len()) };
            bail!("{} names one file, but there are {what}: give a folder", self.out.display());
        }
        images.retain(|image| self.shard.is_none_or(|shard| shard.takes(&image.name)));
        let out = |name: &Path| {
            let mut file = self.out.join(name).into_os_string();
            file.push(".");
            file.push(extension);
            PathBuf::from(file)
        };
        Ok(images.iter().map(|image| Task { image: image.path.clone(), out: out(&image.name) }).collect())
    }

    /// Does all tasks that are due, some at once, and tells what became of them; `done` is the word for it.
    ///
    /// # Errors
    /// When the server or the journal cannot be used, and at the end when images failed ([`AllRefused`] when all of these would fail again);
    /// what succeeded is kept.
    pub fn run(
        &self,
        tasks: Vec<Task>,
        done: &str,
        work: impl AsyncFn(&Client, &Task) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let n_all = tasks.len();
        let mut journal = self.journal.as_deref().map(Journal::open).transpose()?;
        let (due, n_refused_before) = self.due(tasks, journal.as_mut())?;
        let n_skipped = n_all - due.len() - n_refused_before;
        let mut tally = Tally { n_failed: 0, n_refused: n_refused_before };
        if due.is_empty() && n_refused_before == 0 {
            println!("nothing to do: {n_skipped} of {n_all} outputs exist (--force writes them again)");
            return Ok(());
        }
        if !due.is_empty() {
            let run = async |client| self.run_due(&client, &due, journal.as_mut(), &work).await;
            tally += self.target.with_client(run)?;
        }
        let n_bad = tally.n_failed + tally.n_refused;
        let n_done = due.len() + n_refused_before - n_bad;
        println!("{done} {n_done} image(s) to {}, skipped {n_skipped}, failed {n_bad}", self.out.display());
        if tally.n_failed > 0 {
            bail!("{n_bad} of {n_all} images failed");
        }
        if tally.n_refused > 0 {
            return Err(AllRefused { n_refused: tally.n_refused, n_all }.into());
        }
        Ok(())
    }

    /// Tasks without an output, and the number of images that the journal calls refused.
    fn due(&self, tasks: Vec<Task>, mut journal: Option<&mut Journal>) -> anyhow::Result<(Vec<Task>, usize)> {
        if self.force {
            return Ok((tasks, 0));
        }
        let (mut due, mut n_refused) = (Vec::new(), 0);
        for task in tasks {
            let known = journal.as_ref().and_then(|journal| journal.outcome(&task.out));
            match (n_bytes(&task.out), known) {
                (Some(_), Some(Outcome::Done | Outcome::Found)) => {}
                (Some(bytes), _) => {
                    if let Some(journal) = journal.as_deref_mut() {
                        journal.write(&task.entry(Outcome::Found, Some(bytes)))?;
                    }
                }
                (None, Some(Outcome::Refused)) => n_refused += 1,
                (None, _) => due.push(task),
            }
        }
        Ok((due, n_refused))
    }

    /// Returns how many images failed. An error of the journal ends the run.
    async fn run_due(
        &self,
        client: &Client,
        tasks: &[Task],
        mut journal: Option<&mut Journal>,
        work: &impl AsyncFn(&Client, &Task) -> anyhow::Result<()>,
    ) -> anyhow::Result<Tally> {
        let bar = ProgressBar::new(tasks.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} images  {per_sec}  eta {eta}  {msg}") {
            bar.set_style(style);
        }
        let all = tasks.iter().map(|task| async move {
            let begun = Instant::now();
            let outcome = work(client, task).await;
            (task, outcome, begun.elapsed())
        });
        let mut outcomes = stream::iter(all).buffer_unordered(usize::from(self.in_flight));
        let mut tally = Tally::default();
        while let Some((task, outcome, time)) = outcomes.next().await {
            let mut entry = task.entry(Outcome::Done, None);
            match outcome {
                Ok(()) => {
                    entry.bytes = n_bytes(&task.out);
                    entry.ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                }
                Err(error) => {
                    entry.outcome = tally.count(&error);
                    entry.error = Some(format!("{error:#}"));
                    bar.suspend(|| eprintln!("densevit: {}: {error:#}", task.image.display()));
                }
            }
            if let Some(journal) = journal.as_deref_mut() {
                journal.write(&entry)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(tally)
    }
}

impl Task {
    fn entry(&self, outcome: Outcome, bytes: Option<u64>) -> Entry {
        Entry { image: self.image.clone(), out: self.out.clone(), outcome, bytes, ms: None, error: None }
    }
}

/// Images that failed.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// That may not fail the next time.
    n_failed: usize,
    /// That would fail again.
    n_refused: usize,
}

impl Tally {
    fn count(&mut self, error: &anyhow::Error) -> Outcome {
        if error.downcast_ref::<ClientError>().is_some_and(ClientError::is_lasting) {
            self.n_refused += 1;
            return Outcome::Refused;
        }
        self.n_failed += 1;
        Outcome::Failed
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.n_failed += other.n_failed;
        self.n_refused += other.n_refused;
    }
}

/// Size of an output that is there. One counts as there when it is a file: outputs appear complete or not at all.
fn n_bytes(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|about| about.len())
}
