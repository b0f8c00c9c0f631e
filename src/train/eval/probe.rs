//! Linear segmentation probe on CamVid: how much of a street scene's layout a linear layer reads off the features, as they are and
//! upsampled.
//!
//! # Design
//! The protocol of recent upsampler papers (frozen features, BatchNorm and 1x1 convolution, cross entropy) with the rate falling along
//! one cosine over all steps. Features and their doubles are computed once, so there is no augmentation. Logits are upsampled
//! bilinearly: to half the label size in training, to the full label size for the score.
//!
//! The features need no gradient, so that BatchNorm and convolution are one linear map whose small weights do: three passes over the
//! features a step instead of ten.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, ensure};
use densevit::{
    manifest::{Interpolation, ResizePolicy},
    preprocess::{Recipe, prepare},
};
use serde::Serialize;
use tch::{Device, Kind, Tensor, nn};

use crate::{
    backbone::Backbone,
    config::half_cosine,
    data::photos,
    eval::{Method, to_tensor},
    head::conv,
    optim::Adam,
};

/// Classes of CamVid that count; the label after them is void.
const N_CLASSES: i64 = 11;
/// Frames of a step.
const BATCH: usize = 4;
/// Highest learning rate. At a tenth of it the probes of all methods, bilinear's too, are far from done after 20 epochs.
const RATE: f64 = 1e-2;

/// Frames of one split.
///
/// # Shapes
/// - `features`: `[1, C, h, w]` f16 each
/// - `image`: `[1, 3, H, W]` f32 each, normalised
/// - `labels`: `[H', W']` i64 each
#[derive(Debug)]
pub struct Frames {
    features: Vec<Tensor>,
    images: Vec<Tensor>,
    labels: Vec<Tensor>,
}

/// Score of one method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeScore {
    /// Name of the method.
    pub method: String,
    /// How often it doubled.
    pub passes: u32,
    /// Mean over classes of intersection over union, one a seed.
    pub miou: Vec<f64>,
}

impl ProbeScore {
    /// Mean over the seeds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let n = self.miou.len().max(1) as f64;
        self.miou.iter().sum::<f64>() / n
    }
}

/// Reads a split, runs the backbone at `height` x `width` pixels, and puts all on a device.
///
/// # Errors
/// When a frame, its labels or a run fails.
pub fn load(
    backbone: &mut Backbone,
    data: &Path,
    split: &str,
    (height, width): (u32, u32),
    device: Device,
) -> anyhow::Result<Frames> {
    let mut names: Vec<PathBuf> = list(&data.join("images").join(split))?;
    names.sort();
    ensure!(!names.is_empty(), "{} holds no frames", data.join("images").join(split).display());
    let mut frames = Frames { features: Vec::new(), images: Vec::new(), labels: Vec::new() };
    for path in names {
        let frame = photos::open(&path).map_err(|problem| anyhow!("{}: it {problem}", path.display()))?;
        let recipe = Recipe {
            resize: ResizePolicy::Exact { height, width },
            interpolation: Interpolation::Bicubic,
            crop: None,
            patch: backbone.patch(),
            fill: [0; 3],
            max_input_pixels: u64::from(height) * u64::from(width),
        };
        let image = prepare(frame, &recipe)?.image;
        frames.features.push(to_tensor(&backbone.features(&image)?).to_device(device).to_kind(Kind::Half));
        frames.images.push(backbone.normalisation().of(&image).to_device(device));
        let labels = data.join("annotations").join(split).join(path.file_stem().unwrap_or_default()).with_extension("png");
        frames.labels.push(read_labels(&labels)?.to_device(device));
    }
    Ok(frames)
}

fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn read_labels(path: &Path) -> anyhow::Result<Tensor> {
    let labels = image::open(path).with_context(|| format!("reading {}", path.display()))?.into_luma8();
    let (height, width) = (i64::from(labels.height()), i64::from(labels.width()));
    let labels = Tensor::from_slice(labels.as_raw()).to_kind(Kind::Int64).view([height, width]);
    let largest = labels.max().int64_value(&[]);
    ensure!(largest <= N_CLASSES, "{} holds label {largest}; CamVid has 0 to {N_CLASSES}", path.display());
    Ok(labels)
}

/// Trains and scores probes on the features, doubled by a method so many times (none: as they are).
///
/// # Errors
/// Never but for an empty split.
pub fn score(
    train: &Frames,
    validation: &Frames,
    method: Option<(&Method, u32)>,
    (epochs, seeds): (u64, u64),
) -> anyhow::Result<ProbeScore> {
    ensure!(!train.features.is_empty() && !validation.features.is_empty(), "a split is empty");
    let prepared = |frames: &Frames| -> Vec<Tensor> {
        let pairs = frames.features.iter().zip(&frames.images);
        tch::no_grad(|| match method {
            None => frames.features.iter().map(Tensor::shallow_clone).collect(),
            Some((method, passes)) => {
                let applied = |map: &Tensor, image| method.apply(image, &map.to_kind(Kind::Float), passes).to_kind(Kind::Half);
                pairs.map(|(map, image)| applied(map, image)).collect()
            }
        })
    };
    let (learn, measure) = (prepared(train), prepared(validation));
    let miou = (0..seeds).map(|seed| probe((&learn, &train.labels), (&measure, &validation.labels), epochs, seed)).collect();
    let (name, passes) = method.map_or(("grid", 0), |(method, passes)| (method.name(), passes));
    Ok(ProbeScore { method: name.to_owned(), passes, miou })
}

/// Features and labels of a split.
type Pairs<'a> = (&'a [Tensor], &'a [Tensor]);

/// Share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;
/// Added to variances.
const EPSILON: f64 = 1e-5;

/// BatchNorm and a 1x1 convolution as one linear map. Vectors are `[C]`.
struct Linear {
    scale: Tensor,
    shift: Tensor,
    conv: nn::Conv2D,
    /// Running mean and variance.
    running: [Tensor; 2],
}

impl Linear {
    fn new(root: &nn::Path<'_>, channels: i64) -> Self {
        let vector = |value| Tensor::full([channels], value, (Kind::Float, root.device()));
        Self {
            scale: root.var("scale", &[channels], nn::Init::Const(1.0)),
            shift: root.var("shift", &[channels], nn::Init::Const(0.0)),
            conv: conv(root / "conv", (channels, N_CLASSES), 1, nn::ConvConfig::default()),
            running: [vector(0.0), vector(1.0)],
        }
    }

    /// Logits `[B, N, h, w]` of features `[B, C, h, w]` with the statistics of the batch, which go into the running ones. `moments` are
    /// those of the frames, `[B, 2, C]`.
    fn train(&mut self, map: &Tensor, moments: &Tensor) -> Tensor {
        let moments = moments.mean_dim([0i64].as_slice(), false, Kind::Double);
        let (mean, square) = (moments.get(0), moments.get(1));
        let variance = square - mean.square();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 cells")]
        let n = (map.numel() as f64 / mean.numel() as f64).max(2.0);
        for (running, batch) in self.running.iter_mut().zip([mean.shallow_clone(), &variance * (n / (n - 1.0))]) {
            *running = &*running * (1.0 - MOMENTUM) + batch.to_kind(Kind::Float) * MOMENTUM;
        }
        self.apply(map, [&mean, &variance].map(|of| of.to_kind(Kind::Float)))
    }

    /// Logits with the running statistics.
    fn infer(&self, map: &Tensor) -> Tensor {
        self.apply(map, self.running.each_ref().map(Tensor::shallow_clone))
    }

    fn apply(&self, map: &Tensor, [mean, variance]: [Tensor; 2]) -> Tensor {
        let scale = &self.scale * (variance + EPSILON).rsqrt();
        let shift = &self.shift - mean * &scale;
        let bias = self.conv.ws.flatten(1, 3).mv(&shift);
        let bias = self.conv.bs.as_ref().map_or_else(|| bias.shallow_clone(), |of_conv| of_conv + &bias);
        map.conv2d(&(&self.conv.ws * scale.view([1, -1, 1, 1])), Some(bias), [1, 1], [0, 0], [1, 1], 1)
    }
}

/// Mean and mean square of each channel of a frame `[1, C, h, w]`: `[2, C]` in double precision, `[C]` each.
fn moments(map: &Tensor) -> Tensor {
    let values = map.flatten(2, 3).get(0).to_kind(Kind::Double);
    let mean = |of: &Tensor| of.mean_dim([1i64].as_slice(), false, Kind::Double);
    Tensor::stack(&[mean(&values), mean(&values.square())], 0)
}

fn probe((features, labels): Pairs<'_>, validation: Pairs<'_>, epochs: u64, seed: u64) -> f64 {
    tch::manual_seed(i64::try_from(seed).unwrap_or_default());
    let store = nn::VarStore::new(features[0].device());
    let mut linear = Linear::new(&store.root(), features[0].size()[1]);
    let mut adam = Adam::new(&store);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..features.len()).collect();
    let moments: Vec<Tensor> = features.iter().map(moments).collect();
    let n_steps = epochs * (features.len() / BATCH).max(1) as u64;
    let mut step = 0u64;
    while step < n_steps {
        random.shuffle(&mut order);
        for part in order.chunks(BATCH).filter(|part| part.len() == BATCH.min(features.len())) {
            let pick = |from: &[Tensor]| part.iter().map(|&idx| from[idx].shallow_clone()).collect::<Vec<_>>();
            let map = Tensor::cat(&pick(features), 0).to_kind(Kind::Float);
            let target = Tensor::stack(&pick(labels), 0).slice(1, 0, i64::MAX, 2).slice(2, 0, i64::MAX, 2).contiguous();
            let size = [target.size()[1], target.size()[2]];
            let logits = linear.train(&map, &Tensor::stack(&pick(&moments), 0));
            let logits = logits.upsample_bilinear2d(size, false, None, None);
            let loss = logits.cross_entropy_loss::<Tensor>(&target, None, tch::Reduction::Mean, N_CLASSES, 0.0);
            #[expect(clippy::cast_precision_loss, reason = "steps are few")]
            let rate = RATE * half_cosine(step as f64 / n_steps as f64);
            adam.accumulate(&loss);
            adam.step(rate);
            step += 1;
        }
    }
    tch::no_grad(|| mean_iou(|map| linear.infer(map), validation))
}

/// Mean over the classes that occur of intersection over union, over all frames together.
fn mean_iou(logits: impl Fn(&Tensor) -> Tensor, (features, labels): Pairs<'_>) -> f64 {
    let device = labels.first().map_or(Device::Cpu, Tensor::device);
    let mut confusion = Tensor::zeros([(N_CLASSES + 1) * N_CLASSES], (Kind::Int64, device));
    for (map, labels) in features.iter().zip(labels) {
        let size = [labels.size()[0], labels.size()[1]];
        let predicted =
            logits(&map.to_kind(Kind::Float)).upsample_bilinear2d(size, false, None, None).argmax(1, false).view([-1]);
        let cells = labels.view([-1]) * N_CLASSES + predicted;
        confusion += cells.bincount::<Tensor>(None, (N_CLASSES + 1) * N_CLASSES);
    }
    // Rows are labels; the last, void, does not count.
    let confusion = confusion.view([N_CLASSES + 1, N_CLASSES]).slice(0, 0, N_CLASSES, 1).to_kind(Kind::Double);
    let hit = confusion.diag(0);
    let union = confusion.sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
        + confusion.sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
        - &hit;
    let occurs = union.gt(0.0);
    (hit / union.clamp_min(1.0)).masked_select(&occurs).mean(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use tch::nn::{Module as _, ModuleT as _};

    use super::*;

    #[test]
    fn the_linear_map_is_batch_norm_and_convolution_in_value_gradient_and_statistics() {
        tch::manual_seed(0);
        let map = Tensor::randn([3, 5, 4, 6], (Kind::Float, Device::Cpu)) * 3.0 + 2.0;
        let store = nn::VarStore::new(Device::Cpu);
        let mut linear = Linear::new(&store.root(), 5);
        let other = nn::VarStore::new(Device::Cpu);
        let norm = crate::head::batch_norm(other.root() / "norm", 5);
        let mut plain = conv(other.root() / "conv", (5, N_CLASSES), 1, nn::ConvConfig::default());
        tch::no_grad(|| {
            plain.ws.copy_(&linear.conv.ws);
            if let (Some(to), Some(from)) = (plain.bs.as_mut(), linear.conv.bs.as_ref()) {
                to.copy_(from);
            }
        });
        let of_frames: Vec<Tensor> = (0..3).map(|idx| moments(&map.narrow(0, idx, 1))).collect();
        let ours = linear.train(&map, &Tensor::stack(&of_frames, 0));
        let theirs = plain.forward(&norm.forward_t(&map, true));
        let far = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        // Rounding of sums of 72 values in single precision.
        assert!(far(&ours, &theirs) < 1e-5);
        ours.square().sum(Kind::Float).backward();
        theirs.square().sum(Kind::Float).backward();
        let scale = theirs.square().sum(Kind::Float).double_value(&[]);
        assert!(far(&linear.conv.ws.grad(), &plain.ws.grad()) < 1e-5 * scale);
        assert!(norm.ws.is_some_and(|ws| far(&linear.scale.grad(), &ws.grad()) < 1e-5 * scale));
        assert!(norm.bs.is_some_and(|bs| far(&linear.shift.grad(), &bs.grad()) < 1e-5 * scale));
        assert!(far(&linear.running[0], &norm.running_mean) < 1e-5 && far(&linear.running[1], &norm.running_var) < 1e-4);
    }

    #[test]
    fn intersection_over_union_counts_all_frames_together_and_no_void() {
        // Two classes in a row of four pixels; the prediction is class 1 everywhere, the last pixel is void.
        let labels = [Tensor::from_slice(&[0i64, 1, 1, N_CLASSES]).view([1, 4])];
        let map = [Tensor::zeros([1, 1, 1, 4], (Kind::Float, Device::Cpu))];
        let always_one = |_map: &Tensor| {
            let scores: Vec<f32> = (0..N_CLASSES).flat_map(|class| [if class == 1 { 1.0 } else { 0.0 }; 4]).collect();
            Tensor::from_slice(&scores).view([1, N_CLASSES, 1, 4])
        };
        // Class 0: 0 of 1; class 1: 2 of 3.
        let miou = mean_iou(always_one, (&map, &labels));
        assert!((miou - (0.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12, "{miou}");
    }
}
