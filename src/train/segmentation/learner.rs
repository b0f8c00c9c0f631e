//! Teaches a segmentation head, and with it the backbone if that is wanted: what the loop of `fit` learns for `train segvit`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::ensure;
use densevit::{import::SegmentCard, manifest::sha256_file};
use serde_json::Value;
use tch::{Device, Tensor, nn};

use crate::{
    checkpoint,
    curve::{Chart, Line},
    data::loader::{Loader, order},
    fit::{Learner, Plan, Score, fit},
    optim::{Adam, Clip, Group},
    segmentation::{
        card::TrainingCard,
        config::SegvitConfig,
        confusion::{Confusion, Scores},
        data::{
            example::{Content, Example},
            layout::Dataset,
            recipe::Recipe,
        },
        features::Network,
        head::{Head, Shape},
        loss::loss,
        segmenter::labels,
        source::{Batch, Given, Source, given, stack},
    },
};

/// The head, in the folder of a run.
pub const HEAD: &str = "segment.safetensors";
/// The backbone, if it learned, in the folder of a run.
pub const BACKBONE: &str = "backbone";
/// Tensors of the head in a store.
const HEAD_PREFIX: &str = "head";
/// Tensors of the backbone in a store.
const BACKBONE_PREFIX: &str = "backbone";

/// What a run works on.
#[derive(Debug)]
pub struct Job<'a> {
    /// Settings.
    pub config: &'a SegvitConfig,
    /// Shape of the head.
    pub shape: Shape,
    /// Images to measure on.
    pub validation: Arc<Dataset>,
    /// Their features; none if the backbone learns.
    pub cached: Option<Vec<PathBuf>>,
    /// How images are fitted.
    pub recipe: Recipe,
    /// File of a head whose weights it begins with; none for fresh ones.
    pub from: Option<&'a Path>,
    /// What the head's file will say of itself; scores are filled in.
    pub card: SegmentCard,
    /// What the trainer will have to know beside it.
    pub training: TrainingCard,
    /// Where log, curve, checkpoint and head go.
    pub out: &'a Path,
    /// Where the steps run.
    pub device: Device,
    /// Turns true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// A head that is learning.
struct SegvitLearner<'a> {
    job: &'a Job<'a>,
    store: nn::VarStore,
    head: Head,
    /// The backbone, if it learns.
    network: Option<Network>,
}

/// Trains a head on the examples of `source`, from the beginning or from the checkpoint in `out`, and writes it. `network` makes the
/// backbone under a path if it learns too. Returns the last scores.
///
/// # Errors
/// Those of [`fit`], and an empty source.
pub fn train(
    job: &Job<'_>,
    mut source: Source,
    network: Option<impl FnOnce(&nn::Path<'_>) -> anyhow::Result<Network>>,
    resume: bool,
) -> anyhow::Result<Scores> {
    ensure!(!source.is_empty(), "there are no examples to learn from");
    let config = job.config;
    tch::manual_seed(i64::try_from(config.seed).unwrap_or_default());
    let store = nn::VarStore::new(job.device);
    let head = Head::new(&(store.root() / HEAD_PREFIX), &job.shape);
    if let Some(file) = job.from {
        begin_with(file, &store)?;
    }
    let network = network.map(|make| make(&(store.root() / BACKBONE_PREFIX))).transpose()?;
    let depth = network.as_ref().map_or(0, |network| network.vit().arch().depth);
    let adam = Adam::with_groups(&store, |name, tensor| group(config, depth, name, tensor));
    let mut learner = SegvitLearner { job, store, head, network };
    let plan = Plan {
        settings: config,
        steps: config.steps,
        accumulate: config.accumulate,
        validate_every: config.validate_every,
        ema: config.ema,
        clip: (config.clip > 0.0).then_some(Clip::Whole(config.clip)),
        seed: config.seed,
        chart: &chart(),
        out: job.out,
        stop: job.stop,
    };
    let (batch, seed, stride, device) = (config.batch, config.seed, config.label_stride, job.device);
    let make = move |number| {
        let picked = order(source.len(), number, batch, seed);
        source.read(&picked).and_then(|examples| stack(examples, stride, device))
    };
    fit(&plan, (&mut learner, adam), |range| Loader::start(range, make), resume)
}

/// Gives a head the weights in a file.
fn begin_with(file: &Path, store: &nn::VarStore) -> anyhow::Result<()> {
    let (weights, _metadata) = checkpoint::read(file)?;
    let prefix = format!("{HEAD_PREFIX}.");
    let missing = checkpoint::assign(store.variables(), |name| weights.get(name.strip_prefix(&prefix)?));
    ensure!(
        missing.is_none(),
        "{} holds another head than the settings describe: {}",
        file.display(),
        missing.unwrap_or_default()
    );
    Ok(())
}

/// The head learns faster, earlier blocks slower than later ones; only matrices decay.
fn group(config: &SegvitConfig, depth: u32, name: &str, tensor: &Tensor) -> Group {
    let is_matrix = tensor.dim() > 1 && !name.ends_with("position") && !name.ends_with("registers");
    let decay = if is_matrix { config.weight_decay } else { 0.0 };
    let Some(of_backbone) = name.strip_prefix(BACKBONE_PREFIX) else { return Group { rate: config.head_factor, decay } };
    let mut parts = of_backbone.trim_start_matches('.').split('.');
    // Layers as usually counted: the embedding is 0, block i is i + 1, what follows the blocks is the last.
    let layer = match (parts.next(), parts.next().and_then(|idx| idx.parse::<u32>().ok())) {
        (Some("blocks"), Some(idx)) => idx + 1,
        (Some("norm"), _) => depth + 1,
        _ => 0,
    };
    Group { rate: config.layer_decay.powf(f64::from(depth + 1 - layer.min(depth + 1))), decay }
}

fn chart() -> Chart {
    let line = |key, name| Line { key, idx: None, name };
    Chart { title: "validation", lines: vec![line("miou", "mIoU"), line("pixel_accuracy", "pixel accuracy")] }
}

impl SegvitLearner<'_> {
    fn maps(&mut self, given: &Given, train: bool) -> Vec<Tensor> {
        match (given, &mut self.network) {
            (Given::Pixels(pixels), Some(network)) => network.maps(pixels, train),
            (Given::Pixels(_), None) => Vec::new(),
            (Given::Maps(maps), _) => maps.iter().map(Tensor::shallow_clone).collect(),
        }
    }

    /// An image to measure on.
    fn example(&self, idx: usize) -> anyhow::Result<Example> {
        let dataset = &self.job.validation;
        let sample = &dataset.samples[idx];
        if let Some(file) = self.job.cached.as_ref().and_then(|files| files.get(idx)) {
            return Example::read(file, &sample.image);
        }
        let view = self.job.recipe.whole(sample, &dataset.classes)?;
        Ok(Example { name: sample.image.clone(), content: Content::Pixels(view.image), labels: view.labels })
    }
}

impl Learner for SegvitLearner<'_> {
    type Settings = SegvitConfig;
    type Batch = Batch;
    type Scores = Scores;

    fn store(&self) -> &nn::VarStore {
        &self.store
    }

    fn rate(&self, step: u64) -> f64 {
        self.job.config.rate(step)
    }

    fn loss(&mut self, batch: &Batch) -> Tensor {
        let maps = self.maps(&batch.given, true);
        loss(&self.head.forward(&maps, true), &batch.labels, self.job.config.ignored)
    }

    fn names(batch: &Batch) -> &[PathBuf] {
        &batch.names
    }

    fn validate(&mut self) -> anyhow::Result<Scores> {
        let mut confusion = Confusion::new(self.job.validation.classes.len());
        for idx in 0..self.job.validation.samples.len() {
            let example = self.example(idx)?;
            let size = [i64::from(example.labels.height), i64::from(example.labels.width)];
            let given = given(std::slice::from_ref(&example))?.on(self.job.device);
            let predicted = tch::no_grad(|| {
                let maps = self.maps(&given, false);
                labels(&self.head.forward(&maps, false), self.job.config.upscale, size)
            });
            confusion.add(&predicted, &example.labels)?;
        }
        Ok(confusion.scores())
    }

    fn export(&mut self, scores: &Scores) -> anyhow::Result<()> {
        let mut card = SegmentCard { scores: (*scores).into(), ..self.job.card.clone() };
        if let Some(network) = &self.network {
            let folder = self.job.out.join(BACKBONE);
            let file = network.vit().write(&folder)?;
            card.backbone_source_sha256 = sha256_file(&file)?;
            println!("wrote {}", file.display());
        }
        let prefix = format!("{HEAD_PREFIX}.");
        let named = self.store.variables().into_iter();
        let named = named.filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor))).collect();
        let path = self.job.out.join(HEAD);
        checkpoint::write(&path, &named, &[card.metadata(), self.job.training.metadata()])?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

impl Score for Scores {
    fn describe(&self) -> String {
        format!("mIoU {:.4}, pixel accuracy {:.4}", self.miou, self.pixel_accuracy)
    }

    fn line(&self) -> Value {
        serde_json::json!({ "miou": self.miou, "pixel_accuracy": self.pixel_accuracy })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn earlier_blocks_learn_slower_and_only_matrices_decay() {
        let config = SegvitConfig { layer_decay: 0.5, head_factor: 10.0, weight_decay: 0.1, ..SegvitConfig::default() };
        let of = |name: &str, size: &[i64]| {
            let Group { rate, decay } = group(&config, 3, name, &Tensor::zeros(size, (Kind::Float, Device::Cpu)));
            (rate, decay)
        };
        assert_eq!(of("head.q.weight", &[2, 2]), (10.0, 0.1));
        assert_eq!(of("head.proj_norm_1.weight", &[2]), (10.0, 0.0));
        assert_eq!(of("backbone.blocks.2.qkv.weight", &[2, 2]), (0.5, 0.1));
        assert_eq!(of("backbone.blocks.0.norm1.weight", &[2]), (0.125, 0.0));
        assert_eq!(of("backbone.position", &[2, 2, 2]), (0.0625, 0.0));
        assert_eq!(of("backbone.norm.weight", &[2]), (1.0, 0.0));
    }
}
