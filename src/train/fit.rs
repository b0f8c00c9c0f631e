//! The training loop, the same for every kind of head: step, log, validate, checkpoint, stop.
//!
//! In: a [`Plan`], a [`Learner`] and batches. Out: the learner's own files, and in the folder of the run its settings, log, curve and
//! checkpoint. Called by `lift`, by `segmentation` and by `pretrain`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tch::{Tensor, nn};

use crate::{
    checkpoint,
    curve::{self, Chart},
    data::loader::Loader,
    optim::{Adam, Average, Clip, Pace},
};

/// Checkpoint of a run.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Settings of a run.
const SETTINGS: &str = "config.toml";
/// Losses and scores, one JSON object a line.
const LOG: &str = "log.jsonl";
/// The log as a picture.
const CURVE: &str = "loss.png";

/// What a validation gives.
pub trait Score {
    /// For people, in one line.
    fn describe(&self) -> String;
    /// For the log: an object.
    fn line(&self) -> Value;
}

/// What is learned, and how it is measured.
pub trait Learner {
    /// Settings: a checkpoint goes on only under the same.
    type Settings: Serialize + DeserializeOwned + PartialEq;
    /// Examples of one pass.
    type Batch;
    /// What a validation gives.
    type Scores: Score;

    /// All tensors of a checkpoint but the optimiser's.
    fn store(&self) -> &nn::VarStore;

    /// Learning rate of a step (0-based).
    fn rate(&self, step: u64) -> f64;

    /// Factor on the decay of weights in a step (0-based).
    fn decay(&self, _step: u64) -> f64 {
        1.0
    }

    /// Whether a tensor stays as it is in a step (0-based).
    fn holds(&self, _step: u64, _name: &str) -> bool {
        false
    }

    /// What comes before a step (0-based).
    fn begin(&mut self, _step: u64) {}

    /// What follows a step (0-based).
    fn end(&mut self, _step: u64) {}

    /// More numbers of the last step, for the log: an object.
    fn details(&self) -> Value {
        Value::Null
    }

    /// The loss of a batch, to make small.
    fn loss(&mut self, batch: &Self::Batch) -> Tensor;

    /// Files of the examples, for messages.
    fn names(batch: &Self::Batch) -> &[PathBuf];

    /// Measures the weights that would be exported; they are in the store meanwhile.
    ///
    /// # Errors
    /// When an example cannot be read or run.
    fn validate(&mut self) -> anyhow::Result<Self::Scores>;

    /// Writes the weights that are in the store.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn export(&mut self, scores: &Self::Scores) -> anyhow::Result<()>;
}

/// How a run goes.
#[derive(Debug)]
pub struct Plan<'a, S> {
    /// Settings, written beside the checkpoint and into it.
    pub settings: &'a S,
    /// Steps of the whole run.
    pub steps: u64,
    /// Batches whose gradients are summed for one step.
    pub accumulate: usize,
    /// Steps between validations and checkpoints.
    pub validate_every: u64,
    /// Share of the old value in the moving average of the weights, a step; 0 for none.
    pub ema: f64,
    /// What of a step's gradient is shortened.
    pub clip: Option<Clip>,
    /// Of everything that a step draws.
    pub seed: u64,
    /// What is drawn beside the loss.
    pub chart: &'a Chart,
    /// Where log, curve and checkpoint go.
    pub out: &'a Path,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// A run in progress.
struct Run<'a, L: Learner> {
    plan: &'a Plan<'a, L::Settings>,
    learner: &'a mut L,
    adam: Adam,
    average: Option<Average>,
    step: u64,
    log: File,
}

/// Trains from the beginning or from the checkpoint in the folder of the run, and exports. `batches` starts a loader over a range of
/// batches, `accumulate` a step. Returns the last scores.
///
/// # Errors
/// When a file cannot be read or written, and when the loss is not a number: the step and its examples are named, and the last
/// checkpoint stays.
pub fn fit<L: Learner>(
    plan: &Plan<'_, L::Settings>,
    (learner, adam): (&mut L, Adam),
    batches: impl FnOnce((u64, u64)) -> Loader<L::Batch>,
    resume: bool,
) -> anyhow::Result<L::Scores> {
    let mut run = Run::new(plan, learner, adam, resume)?;
    let bar = progress(plan.steps, run.step);
    let parts = plan.accumulate as u64;
    let mut loader = batches((run.step * parts, plan.steps * parts));
    let began = Instant::now();
    let mut last_scores = None;
    while run.step < plan.steps {
        let loss = run.advance(&mut loader)?;
        bar.set_message(format!("loss {loss:.5}"));
        bar.set_position(run.step);
        let is_last = run.step == plan.steps;
        if run.step.is_multiple_of(plan.validate_every) || is_last {
            let scores = run.validate()?;
            bar.suspend(|| println!("step {}: loss {loss:.5}, validation {}", run.step, scores.describe()));
            run.save()?;
            last_scores = Some(scores);
        }
        if plan.stop.load(Ordering::Relaxed) && !is_last {
            run.save()?;
            bail!("stopped at step {}; --resume goes on from here", run.step);
        }
    }
    bar.finish_and_clear();
    let share = loader.waited().as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9);
    println!("steps waited for data {:.1} % of the time", 100.0 * share);
    // The last step was validated, unless a finished run was resumed.
    let scores = last_scores.map_or_else(|| run.validate(), Ok)?;
    run.with_exported(|learner| learner.export(&scores))?;
    curve::draw(&plan.out.join(LOG), &plan.out.join(CURVE), plan.chart)?;
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

impl<'a, L: Learner> Run<'a, L> {
    fn new(plan: &'a Plan<'a, L::Settings>, learner: &'a mut L, adam: Adam, resume: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(plan.out).with_context(|| format!("creating {}", plan.out.display()))?;
        let average = (plan.ema > 0.0).then(|| Average::new(learner.store(), plan.ema));
        let path = plan.out.join(LOG);
        let log = OpenOptions::new().create(true).append(resume).write(true).truncate(!resume).open(&path);
        let log = log.with_context(|| format!("writing {}", path.display()))?;
        let mut run = Self { plan, learner, adam, average, step: 0, log };
        if resume {
            run.restore()?;
        } else {
            checkpoint::write_bytes(&plan.out.join(SETTINGS), toml::to_string(plan.settings)?.as_bytes())?;
        }
        Ok(run)
    }

    fn advance(&mut self, loader: &mut Loader<L::Batch>) -> anyhow::Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let share = 1.0 / self.plan.accumulate as f64;
        // What a step draws depends on the step alone: a run that was interrupted draws the same.
        #[expect(clippy::cast_possible_wrap, reason = "any number will do")]
        tch::manual_seed((self.plan.seed ^ (self.step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as i64);
        self.learner.begin(self.step);
        let mut value = 0.0;
        for _ in 0..self.plan.accumulate {
            let batch = loader.next_batch()?;
            let loss = self.learner.loss(&batch) * share;
            let part = loss.double_value(&[]);
            if !part.is_finite() {
                let files: Vec<String> = L::names(&batch).iter().map(|name| name.display().to_string()).collect();
                bail!("the loss of step {} is {part}; its examples: {}", self.step, files.join(", "));
            }
            self.adam.accumulate(&loss);
            value += part;
        }
        let rate = self.learner.rate(self.step);
        let norm = self.plan.clip.map(|clip| self.adam.clip(clip));
        let (learner, step) = (&*self.learner, self.step);
        self.adam.step_but(Pace { rate, decay: learner.decay(step) }, |name| learner.holds(step, name));
        self.learner.end(step);
        self.step += 1;
        if let Some(average) = &mut self.average {
            average.update(self.learner.store(), self.step);
        }
        let mut line = serde_json::json!({ "step": self.step, "loss": value, "rate": rate });
        if let Some(norm) = norm {
            line["gradient"] = norm.into();
        }
        if let (Value::Object(line), Value::Object(mut details)) = (&mut line, self.learner.details()) {
            line.append(&mut details);
        }
        writeln!(self.log, "{line}")?;
        Ok(value)
    }

    /// Runs something while the weights that are exported, the average if there is one, are in the store.
    fn with_exported<T>(&mut self, run: impl FnOnce(&mut L) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let Some(average) = &self.average else { return run(self.learner) };
        let held: BTreeMap<String, Tensor> =
            self.learner.store().variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
        let missing = checkpoint::assign(self.learner.store().variables(), |name| average.tensors().get(name));
        ensure!(missing.is_none(), "the average lacks {missing:?}");
        let result = run(self.learner);
        checkpoint::assign(self.learner.store().variables(), |name| held.get(name));
        result
    }

    fn validate(&mut self) -> anyhow::Result<L::Scores> {
        let scores = self.with_exported(L::validate)?;
        let mut line = scores.line();
        line["step"] = self.step.into();
        line["resident_mib"] = resident_mib().into();
        writeln!(self.log, "{line}")?;
        Ok(scores)
    }

    fn save(&self) -> anyhow::Result<()> {
        let mut tensors: BTreeMap<String, Tensor> =
            self.learner.store().variables().into_iter().map(|(name, tensor)| (format!("weights.{name}"), tensor)).collect();
        tensors.extend(self.adam.state());
        for (name, tensor) in self.average.iter().flat_map(Average::tensors) {
            tensors.insert(format!("average.{name}"), tensor.shallow_clone());
        }
        let config = serde_json::to_string(self.plan.settings)?;
        checkpoint::write(&self.plan.out.join(CHECKPOINT), &tensors, &[("step", self.step.to_string()), ("config", config)])
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        let path = self.plan.out.join(CHECKPOINT);
        let (tensors, metadata) = checkpoint::read(&path)?;
        let config = metadata.get("config").context("the checkpoint holds no settings")?;
        let is_same = serde_json::from_str::<L::Settings>(config)? == *self.plan.settings;
        ensure!(is_same, "{} was made with other settings; they are in {SETTINGS} beside it", path.display());
        let missing = checkpoint::assign(self.learner.store().variables(), |name| tensors.get(&format!("weights.{name}")))
            .or_else(|| self.average.as_ref().and_then(|average| average.restore(&tensors)))
            .or_else(|| self.adam.restore(&tensors));
        ensure!(missing.is_none(), "{} lacks a tensor: {}", path.display(), missing.unwrap_or_default());
        self.step = metadata.get("step").and_then(|step| step.parse().ok()).context("the checkpoint holds no step")?;
        println!("resuming at step {}", self.step);
        Ok(())
    }
}
