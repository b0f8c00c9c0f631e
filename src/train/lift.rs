//! Teaches a LiFT head: what the loop of `fit` learns for `train lift`.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::ensure;
use densevit::import::LiftCard;
use serde_json::Value;
use tch::{Tensor, nn};

use crate::{
    checkpoint,
    config::{LiftConfig, Objective},
    curve::{Chart, Line},
    data::{
        loader::{Batch, Loader, Shape, order, stack},
        source::Source,
    },
    fit::{Learner, Plan, Score, fit},
    head::{Head, HeadShape, named},
    loss::Loss,
    optim::Adam,
    validation::{Scores, mean_descriptor, validate},
};

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
    /// Cached examples to measure on.
    pub validation: Vec<PathBuf>,
    /// What the head's file will say of itself; scores are filled in.
    pub card: LiftCard,
    /// Where log, curve, checkpoint and head go.
    pub out: &'a Path,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// A head that is learning.
struct LiftLearner<'a> {
    job: &'a Job<'a>,
    loss: Loss,
    store: nn::VarStore,
    head: Head,
}

/// Trains a head on the examples of `source`, from the beginning or from the checkpoint in `out`, and writes it. Returns the last
/// scores.
///
/// # Errors
/// Those of [`fit`], and an empty source.
pub fn train(job: &Job<'_>, mut source: Source, resume: bool) -> anyhow::Result<Scores> {
    ensure!(!source.is_empty(), "there are no examples to learn from");
    let LiftConfig { steps, accumulate, validate_every, ema, seed, batch, .. } = *job.config;
    let mut learner = LiftLearner::new(job, &mut source)?;
    let adam = Adam::new(&learner.store);
    let chart = chart();
    let plan = Plan {
        settings: job.config,
        steps,
        accumulate,
        validate_every,
        ema,
        clip: None,
        seed,
        chart: &chart,
        out: job.out,
        stop: job.stop,
    };
    let shape = job.shape;
    let make = move |step| {
        let picked = order(source.len(), step, batch, seed);
        source.read(&picked).and_then(|examples| stack(examples, shape))
    };
    fit(&plan, (&mut learner, adam), |range| Loader::start(range, make), resume)
}

/// The distances beside bilinear's.
fn chart() -> Chart {
    let names = ["head, half to full", "head, quarter to half", "head, eighth to quarter", "head, 16th to eighth"];
    let pair = |(scale, name): (usize, &'static str)| {
        [Line { key: "validation", idx: Some(scale), name }, Line { key: "bilinear", idx: Some(scale), name: "bilinear" }]
    };
    Chart { title: "validation: mean of 1 - cos", lines: names.into_iter().enumerate().flat_map(pair).collect() }
}

impl<'a> LiftLearner<'a> {
    fn new(job: &'a Job<'a>, source: &mut Source) -> anyhow::Result<Self> {
        tch::manual_seed(i64::try_from(job.config.seed).unwrap_or_default());
        let store = nn::VarStore::new(job.shape.device);
        let head = Head::new(&store.root(), job.head).with_products(job.config.products);
        let is_centred = job.config.objective == Objective::Centred;
        let mean = is_centred.then(|| mean_descriptor(source, job.shape)).transpose()?;
        Ok(Self { job, loss: Loss::new(job.config.objective, job.config.depth, mean), store, head })
    }
}

impl Learner for LiftLearner<'_> {
    type Settings = LiftConfig;
    type Batch = Batch;
    type Scores = Scores;

    fn store(&self) -> &nn::VarStore {
        &self.store
    }

    fn rate(&self, step: u64) -> f64 {
        self.job.config.rate(step)
    }

    fn loss(&mut self, batch: &Batch) -> Tensor {
        self.loss.of(&self.head, batch, true)
    }

    fn names(batch: &Batch) -> &[PathBuf] {
        &batch.names
    }

    fn validate(&mut self) -> anyhow::Result<Scores> {
        validate(&self.head, &self.job.validation, self.job.config.batch, self.job.shape)
    }

    fn export(&mut self, scores: &Scores) -> anyhow::Result<()> {
        let path = self.job.out.join(HEAD);
        let card = LiftCard { scores: scores.listed(self.job.shape.grid), ..self.job.card.clone() };
        checkpoint::write(&path, &named(&self.store, self.job.head.form), &[card.metadata()])?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

impl Score for Scores {
    fn describe(&self) -> String {
        Scores::describe(self)
    }

    fn line(&self) -> Value {
        serde_json::json!({ "validation": self.head, "bilinear": self.bilinear })
    }
}
