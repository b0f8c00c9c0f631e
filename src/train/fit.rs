//! The training loop: step, log, validate, checkpoint, stop.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use densevit::import::LiftCard;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Tensor, nn};

use crate::{
    checkpoint,
    config::{LiftConfig, Objective},
    curve,
    data::{
        loader::{Loader, Shape},
        source::Source,
    },
    head::{Head, HeadShape, named},
    loss::Loss,
    optim::{Adam, Average},
    validation::{Scores, mean_descriptor, validate},
};

/// Checkpoint of a run.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// The head, as `densevit import --lift` reads it.
pub const HEAD: &str = "lift.safetensors";

/// Losses and scores, one JSON object a line.
const LOG: &str = "log.jsonl";
/// The log as a picture.
const CURVE: &str = "loss.png";

/// What a run works on.
#[derive(Debug)]
pub struct Job<'a> {
    /// Settings.
    pub config: &'a LiftConfig,
    /// Shape of the head.
    pub head: HeadShape,
    /// Shape of the examples.
    pub shape: Shape,
    /// Cached examples to measure on.
    pub validation: Vec<PathBuf>,
    /// What the head's file will say of itself; scores are filled in.
    pub card: LiftCard,
    /// Where log, curve, checkpoint and head go.
    pub out: &'a Path,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// A run in progress.
struct Run<'a> {
    job: &'a Job<'a>,
    loss: Loss,
    store: nn::VarStore,
    head: Head,
    adam: Adam,
    average: Option<Average>,
    step: u64,
    log: File,
}

/// Trains a head on the examples of `source`, from the beginning or from the checkpoint in `out`, and writes it. Returns the last
/// scores.
///
/// # Errors
/// When a file cannot be read or written, and when the loss is not a number: the step and its examples are named, and the last
/// checkpoint stays.
pub fn train(job: &Job<'_>, mut source: Source, resume: bool) -> anyhow::Result<Scores> {
    fs::create_dir_all(job.out).with_context(|| format!("creating {}", job.out.display()))?;
    ensure!(!source.is_empty(), "there are no examples to learn from");
    let mut run = Run::new(job, &mut source, resume)?;
    let bar = progress(job.config.steps, run.step);
    let parts = job.config.accumulate as u64;
    let range = (run.step * parts, job.config.steps * parts);
    let mut loader = Loader::start(source, job.config.batch, range, job.config.seed, job.shape);
    let began = Instant::now();
    let mut last_scores = None;
    while run.step < job.config.steps {
        let loss = run.advance(&mut loader)?;
        bar.set_message(format!("loss {loss:.5}"));
        bar.set_position(run.step);
        let is_last = run.step == job.config.steps;
        if run.step.is_multiple_of(job.config.validate_every) || is_last {
            let scores = run.validate()?;
            bar.suspend(|| println!("step {}: loss {loss:.5}, validation {}", run.step, scores.describe()));
            run.save()?;
            last_scores = Some(scores);
        }
        if job.stop.load(Ordering::Relaxed) && !is_last {
            run.save()?;
            bail!("stopped at step {}; --resume goes on from here", run.step);
        }
    }
    bar.finish_and_clear();
    let share = loader.waited().as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9);
    println!("steps waited for data {:.1} % of the time", 100.0 * share);
    // The last step was validated, unless a finished run was resumed.
    let scores = last_scores.map_or_else(|| run.validate(), Ok)?;
    run.write_head(&scores)?;
    curve::draw(&job.out.join(LOG), &job.out.join(CURVE))?;
    Ok(scores)
}

fn progress(n_steps: u64, first: u64) -> ProgressBar {
    let bar = ProgressBar::new(n_steps).with_position(first);
    if let Ok(style) = ProgressStyle::with_template("train {bar:30} {pos}/{len}  {msg}  {per_sec}  eta {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Resident memory of this process, where the system tells.
fn resident_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

impl<'a> Run<'a> {
    fn new(job: &'a Job<'a>, source: &mut Source, resume: bool) -> anyhow::Result<Self> {
        tch::manual_seed(i64::try_from(job.config.seed).unwrap_or_default());
        let store = nn::VarStore::new(job.shape.device);
        let head = Head::new(&store.root(), job.head).with_products(job.config.products);
        let is_centred = job.config.objective == Objective::Centred;
        let mean = is_centred.then(|| mean_descriptor(source, job.shape)).transpose()?;
        let loss = Loss::new(job.config.objective, job.config.depth, mean);
        let adam = Adam::new(&store);
        let average = (job.config.ema > 0.0).then(|| Average::new(&store, job.config.ema));
        let path = job.out.join(LOG);
        let log = OpenOptions::new().create(true).append(resume).write(true).truncate(!resume).open(&path);
        let log = log.with_context(|| format!("writing {}", path.display()))?;
        let mut run = Self { job, loss, store, head, adam, average, step: 0, log };
        if resume {
            run.restore()?;
        } else {
            checkpoint::write_bytes(&job.out.join("config.toml"), toml::to_string(job.config)?.as_bytes())?;
        }
        Ok(run)
    }

    fn advance(&mut self, loader: &mut Loader) -> anyhow::Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let share = 1.0 / self.job.config.accumulate as f64;
        let mut value = 0.0;
        for _ in 0..self.job.config.accumulate {
            let batch = loader.next_batch()?;
            let loss = self.loss.of(&self.head, &batch, true) * share;
            let part = loss.double_value(&[]);
            if !part.is_finite() {
                let files: Vec<String> = batch.names.iter().map(|name| name.display().to_string()).collect();
                bail!("the loss of step {} is {part}; its examples: {}", self.step, files.join(", "));
            }
            self.adam.accumulate(&loss);
            value += part;
        }
        let rate = self.job.config.rate(self.step);
        self.adam.step(rate);
        self.step += 1;
        if let Some(average) = &mut self.average {
            average.update(&self.store, self.step);
        }
        writeln!(self.log, "{}", serde_json::json!({ "step": self.step, "loss": value, "rate": rate }))?;
        Ok(value)
    }

    /// The weights that are exported: the average, if there is one.
    fn exported(&self) -> anyhow::Result<(nn::VarStore, Head)> {
        let mut store = nn::VarStore::new(self.job.shape.device);
        let head = Head::new(&store.root(), self.job.head);
        match &self.average {
            None => store.copy(&self.store)?,
            Some(average) => {
                let missing = checkpoint::assign(store.variables(), |name| average.tensors().get(name));
                ensure!(missing.is_none(), "the average lacks {missing:?}");
            }
        }
        Ok((store, head))
    }

    fn validate(&mut self) -> anyhow::Result<Scores> {
        let (_store, head) = self.exported()?;
        let scores = validate(&head, &self.job.validation, self.job.config.batch, self.job.shape)?;
        let Scores { head, bilinear } = &scores;
        let line =
            serde_json::json!({ "step": self.step, "validation": head, "bilinear": bilinear, "resident_mib": resident_mib() });
        writeln!(self.log, "{line}")?;
        Ok(scores)
    }

    fn save(&self) -> anyhow::Result<()> {
        let mut tensors: BTreeMap<String, Tensor> =
            self.store.variables().into_iter().map(|(name, tensor)| (format!("weights.{name}"), tensor)).collect();
        tensors.extend(self.adam.state());
        for (name, tensor) in self.average.iter().flat_map(Average::tensors) {
            tensors.insert(format!("average.{name}"), tensor.shallow_clone());
        }
        let config = serde_json::to_string(self.job.config)?;
        checkpoint::write(&self.job.out.join(CHECKPOINT), &tensors, &[("step", self.step.to_string()), ("config", config)])
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        let path = self.job.out.join(CHECKPOINT);
        let (tensors, metadata) = checkpoint::read(&path)?;
        let config: LiftConfig = serde_json::from_str(metadata.get("config").context("the checkpoint holds no settings")?)?;
        ensure!(config == *self.job.config, "{} was made with other settings; they are in config.toml beside it", path.display());
        let missing = checkpoint::assign(self.store.variables(), |name| tensors.get(&format!("weights.{name}")))
            .or_else(|| self.average.as_ref().and_then(|average| average.restore(&tensors)))
            .or_else(|| self.adam.restore(&tensors));
        ensure!(missing.is_none(), "{} lacks a tensor: {}", path.display(), missing.unwrap_or_default());
        self.step = metadata.get("step").and_then(|step| step.parse().ok()).context("the checkpoint holds no step")?;
        println!("resuming at step {}", self.step);
        Ok(())
    }

    fn write_head(&self, scores: &Scores) -> anyhow::Result<()> {
        let (store, _head) = self.exported()?;
        let path = self.job.out.join(HEAD);
        let card = LiftCard { scores: scores.listed(self.job.shape.grid), ..self.job.card.clone() };
        checkpoint::write(&path, &named(&store, self.job.head.form), &[card.metadata()])?;
        println!("wrote {}", path.display());
        Ok(())
    }
}
