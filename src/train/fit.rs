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
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Tensor, nn};

use crate::{
    checkpoint,
    config::LiftConfig,
    data::loader::{Loader, Shape, stack},
    head::{Head, HeadShape, named},
    loss::{cosine_distance, two_scales},
    optim::{Adam, Average},
};

/// Checkpoint of a run.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// The head, as `densevit import --lift` reads it.
pub const HEAD: &str = "lift.safetensors";

/// What a run works on.
#[derive(Debug)]
pub struct Job<'a> {
    /// Settings.
    pub config: &'a LiftConfig,
    /// Shape of the head.
    pub head: HeadShape,
    /// Shape of the examples.
    pub shape: Shape,
    /// Cached examples to learn from.
    pub train: Vec<PathBuf>,
    /// Cached examples to measure on.
    pub validation: Vec<PathBuf>,
    /// Where log, checkpoint and head go.
    pub out: &'a Path,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// Mean cosine distance on the validation examples: quarter to half and half to full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Of the head.
    pub head: [f64; 2],
    /// Of bilinear upsampling.
    pub bilinear: [f64; 2],
}

impl Scores {
    /// How much smaller the head's distance is than bilinear's, over both scales: 0.1 for a tenth.
    #[must_use]
    pub fn gain(&self) -> f64 {
        1.0 - self.head.iter().sum::<f64>() / self.bilinear.iter().sum::<f64>()
    }
}

/// A run in progress.
struct Run<'a> {
    job: &'a Job<'a>,
    store: nn::VarStore,
    head: Head,
    adam: Adam,
    average: Option<Average>,
    step: u64,
    log: File,
}

/// Trains a head, from the beginning or from the checkpoint in `out`, and writes it. Returns the last scores.
///
/// # Errors
/// When a file cannot be read or written, and when the loss is not a number: the step and its examples are named, and the last
/// checkpoint stays.
pub fn train(job: &Job<'_>, resume: bool) -> anyhow::Result<Scores> {
    fs::create_dir_all(job.out).with_context(|| format!("creating {}", job.out.display()))?;
    ensure!(!job.train.is_empty(), "there are no examples to learn from");
    let mut run = Run::new(job, resume)?;
    let bar = progress(job.config.steps, run.step);
    let mut loader = Loader::start(job.train.clone(), job.config.batch, (run.step, job.config.steps), job.config.seed, job.shape);
    let began = Instant::now();
    let mut last_scores = None;
    while run.step < job.config.steps {
        let loss = run.advance(&mut loader)?;
        bar.set_message(format!("loss {loss:.5}"));
        bar.set_position(run.step);
        let is_last = run.step == job.config.steps;
        if run.step.is_multiple_of(job.config.validate_every) || is_last {
            let scores = run.validate()?;
            bar.suspend(|| println!("step {}: loss {loss:.5}, validation {}", run.step, describe(&scores)));
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
    Ok(scores)
}

fn describe(scores: &Scores) -> String {
    let ([head1, head2], [bilinear1, bilinear2]) = (scores.head, scores.bilinear);
    format!("{head1:.5} / {head2:.5} (bilinear {bilinear1:.5} / {bilinear2:.5}, {:+.1} %)", -100.0 * scores.gain())
}

fn progress(n_steps: u64, first: u64) -> ProgressBar {
    let bar = ProgressBar::new(n_steps).with_position(first);
    if let Ok(style) = ProgressStyle::with_template("train {bar:30} {pos}/{len}  {msg}  {per_sec}  eta {eta}") {
        bar.set_style(style);
    }
    bar
}

impl<'a> Run<'a> {
    fn new(job: &'a Job<'a>, resume: bool) -> anyhow::Result<Self> {
        tch::manual_seed(i64::try_from(job.config.seed).unwrap_or_default());
        let store = nn::VarStore::new(Device::Cpu);
        let head = Head::new(&store.root(), job.head);
        let adam = Adam::new(&store);
        let average = (job.config.ema > 0.0).then(|| Average::new(&store, job.config.ema));
        let path = job.out.join("log.jsonl");
        let log = OpenOptions::new().create(true).append(resume).write(true).truncate(!resume).open(&path);
        let log = log.with_context(|| format!("writing {}", path.display()))?;
        let mut run = Self { job, store, head, adam, average, step: 0, log };
        if resume {
            run.restore()?;
        } else {
            checkpoint::write_bytes(&job.out.join("config.toml"), toml::to_string(job.config)?.as_bytes())?;
        }
        Ok(run)
    }

    fn advance(&mut self, loader: &mut Loader) -> anyhow::Result<f64> {
        let batch = loader.next_batch()?;
        let loss = two_scales(&self.head, &batch, true);
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            let files: Vec<String> = batch.files.iter().map(|file| file.display().to_string()).collect();
            bail!("the loss of step {} is {value}; its examples: {}", self.step, files.join(", "));
        }
        let rate = self.job.config.rate(self.step);
        self.adam.step(&loss, rate);
        self.step += 1;
        if let Some(average) = &mut self.average {
            average.update(&self.store, self.step);
        }
        writeln!(self.log, "{}", serde_json::json!({ "step": self.step, "loss": value, "rate": rate }))?;
        Ok(value)
    }

    /// The weights that are exported: the average, if there is one.
    fn exported(&self) -> anyhow::Result<(nn::VarStore, Head)> {
        let mut store = nn::VarStore::new(Device::Cpu);
        let head = Head::new(&store.root(), self.job.head);
        match &self.average {
            None => store.copy(&self.store)?,
            Some(average) => tch::no_grad(|| {
                for (name, mut tensor) in store.variables() {
                    average.tensors().get(&name).iter().for_each(|value| tensor.copy_(value));
                }
            }),
        }
        Ok((store, head))
    }

    fn validate(&mut self) -> anyhow::Result<Scores> {
        let (_store, head) = self.exported()?;
        let scores = validate(&head, &self.job.validation, self.job.config.batch, self.job.shape)?;
        let Scores { head, bilinear } = scores;
        writeln!(self.log, "{}", serde_json::json!({ "step": self.step, "validation": head, "bilinear": bilinear }))?;
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
        let find = |name: &str| tensors.get(name).map(Tensor::shallow_clone);
        let restored = tch::no_grad(|| {
            for (name, mut tensor) in self.store.variables() {
                tensor.copy_(&find(&format!("weights.{name}"))?);
            }
            self.average.as_mut().map_or(Some(()), |average| average.restore(find))?;
            self.adam.restore(find)
        });
        restored.with_context(|| format!("{} lacks a tensor", path.display()))?;
        self.step = metadata.get("step").and_then(|step| step.parse().ok()).context("the checkpoint holds no step")?;
        println!("resuming at step {}", self.step);
        Ok(())
    }

    fn write_head(&self, scores: &Scores) -> anyhow::Result<()> {
        let (store, _head) = self.exported()?;
        let path = self.job.out.join(HEAD);
        let metadata = [("scores", serde_json::json!({ "head": scores.head, "bilinear": scores.bilinear }).to_string())];
        checkpoint::write(&path, &named(&store, self.job.head.form), &metadata)?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

/// Mean distances of a head and of bilinear upsampling on cached examples.
///
/// # Errors
/// When an example cannot be read.
pub fn validate(head: &Head, files: &[PathBuf], batch: usize, shape: Shape) -> anyhow::Result<Scores> {
    let mut sums = Scores { head: [0.0; 2], bilinear: [0.0; 2] };
    for part in files.chunks(batch) {
        let batch = stack(part.to_vec(), shape)?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let share = part.len() as f64 / files.len() as f64;
        let [full, half, quarter] = &batch.features;
        let pairs = [(&batch.images[1], quarter, half), (&batch.images[0], half, full)];
        tch::no_grad(|| {
            for (scale, (image, small, large)) in pairs.into_iter().enumerate() {
                let side = large.size()[2];
                let bilinear = small.upsample_bilinear2d([side, side], false, None, None);
                sums.head[scale] += share * cosine_distance(&head.forward(image, small, false), large).double_value(&[]);
                sums.bilinear[scale] += share * cosine_distance(&bilinear, large).double_value(&[]);
            }
        });
    }
    Ok(sums)
}
