//! One output an image: where each goes, which are due, and all of them with a progress bar.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::{
    inputs::{InputImage, collect},
    target::TargetArgs,
};
use crate::grpc::client::Client;

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
    #[command(flatten)]
    pub target: TargetArgs,
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
        let images = collect(&self.images)?;
        if let (true, [InputImage { path, .. }]) = (is_file, images.as_slice()) {
            return Ok(vec![Task { image: path.clone(), out: self.out.clone() }]);
        }
        if is_file {
            bail!("{} names one file, but there are {} images: give a folder", self.out.display(), images.len());
        }
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
    /// When the server cannot be used, and at the end when images failed; what succeeded is kept.
    pub fn run(
        &self,
        tasks: Vec<Task>,
        done: &str,
        work: impl AsyncFn(&Client, &Task) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let n_all = tasks.len();
        let due: Vec<Task> = tasks.into_iter().filter(|task| self.force || !is_there(&task.out)).collect();
        let n_skipped = n_all - due.len();
        if due.is_empty() {
            println!("nothing to do: {n_skipped} of {n_all} outputs exist (--force writes them again)");
            return Ok(());
        }
        let n_failed = self.target.with_client(async |client| Ok(self.run_due(&client, &due, &work).await))?;
        let n_done = due.len() - n_failed;
        println!("{done} {n_done} image(s) to {}, skipped {n_skipped}, failed {n_failed}", self.out.display());
        if n_failed > 0 {
            bail!("{n_failed} of {} images failed", due.len());
        }
        Ok(())
    }

    /// Returns the number of images that failed.
    async fn run_due(&self, client: &Client, tasks: &[Task], work: &impl AsyncFn(&Client, &Task) -> anyhow::Result<()>) -> usize {
        let bar = ProgressBar::new(tasks.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} images  {per_sec}  eta {eta}  {msg}") {
            bar.set_style(style);
        }
        let all = tasks.iter().map(|task| async move { (task, work(client, task).await) });
        let mut outcomes = stream::iter(all).buffer_unordered(usize::from(self.in_flight));
        let mut n_failed = 0;
        while let Some((task, outcome)) = outcomes.next().await {
            if let Err(error) = outcome {
                n_failed += 1;
                bar.suspend(|| eprintln!("densevit: {}: {error:#}", task.image.display()));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        n_failed
    }
}

/// An output counts as there when it is a file: outputs appear complete or not at all.
fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file())
}
