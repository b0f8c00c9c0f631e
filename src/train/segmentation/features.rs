//! Where a head's features come from: the server's own sessions, or the backbone in the training framework.
//!
//! # Design
//! A frozen backbone runs through the sessions that will serve it, so that a head is trained on what it will see. Two kinds cannot: one
//! that was or will be trained, and a Shrunk one, whose halved grid no served model has before it is imported. Those run in the training
//! framework, on the file of weights that the model was imported from. It takes an eighth longer than a session for the same (one core of
//! an AMD EPYC Zen 3, default model, 336 x 448 px, 0.83 against 0.73 s of CPU time an image, `train eval segmentation` with and without
//! `--weights`, 2026-11-25).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use densevit::{
    manifest::{Manifest, ModelEntry, SegmentInput, Tap, load_dir, sha256_file},
    tensor::{FeatureMap, RgbImage},
};
use tch::{Device, Tensor, nn};

use crate::{
    backbone::Backbone,
    data::normalisation::Normalisation,
    head as lift,
    segmentation::data::view::Pixels,
    vit::{Source, Vit, VitOptions},
};

/// What is read off a backbone.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Activations.
    pub taps: Vec<Tap>,
    /// As they are, or doubled by a LiFT head.
    pub input: SegmentInput,
    /// Block in which the grid is halved.
    pub downsample: Option<u32>,
    /// Share of the images for which the last block is left out in training.
    pub drop_path: f64,
}

/// Files of weights that a run in the training framework needs.
#[derive(Clone, Debug, Default)]
pub struct WeightFiles {
    /// Of the backbone.
    pub backbone: Option<PathBuf>,
    /// Of the LiFT head.
    pub lift: Option<PathBuf>,
}

/// A source of features.
#[derive(Debug)]
pub enum Features {
    /// The server's sessions.
    Served {
        /// The sessions.
        backbone: Box<Backbone>,
        /// What is read.
        reading: Reading,
    },
    /// The training framework.
    Trained(Box<Network>),
}

/// A backbone in the training framework, and what follows it before the head.
#[derive(Debug)]
pub struct Network {
    vit: Vit,
    reading: Reading,
    lift: Option<lift::Head>,
    normalisation: Normalisation,
    device: Device,
}

/// Opens a model for one run or the other.
#[derive(Debug)]
pub struct Model {
    /// The model directory.
    pub entry: ModelEntry,
}

impl Model {
    /// Opens `models/NAME/VERSION`.
    ///
    /// # Errors
    /// When there is no model.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { entry: load_dir(dir)? })
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.entry.manifest
    }

    /// What it does to pixels first.
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        let preprocess = &self.manifest().preprocess;
        Normalisation { mean: preprocess.mean, std: preprocess.std }
    }

    /// What it wants of pixels.
    #[must_use]
    pub fn pixels(&self) -> Pixels {
        let preprocess = &self.manifest().preprocess;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a byte")]
        let fill = preprocess.mean.map(|mean| (255.0 * mean).round().clamp(0.0, 255.0) as u8);
        Pixels { interpolation: preprocess.interpolation, fill }
    }

    /// The server's sessions.
    ///
    /// # Errors
    /// When the model is not in order, lacks what is read, or ONNX Runtime is not there.
    pub fn served(&self, reading: Reading, device: Device) -> anyhow::Result<Features> {
        ensure!(reading.downsample.is_none(), "a Shrunk backbone needs the weights of the model (--weights)");
        let first = *reading.taps.first().context("no taps are read")?;
        let manifest = self.manifest();
        let missing = reading
            .taps
            .iter()
            .find(|tap| !manifest.backbone.facets.contains(&tap.facet) || !manifest.backbone.layers.contains(&tap.layer));
        ensure!(missing.is_none(), "{} does not offer the {}", manifest.name, missing.unwrap_or(&first));
        if reading.input == SegmentInput::Lift {
            let of_lift = manifest.lift.as_ref().map(|lift| lift.tap);
            ensure!(of_lift == Some(first), "{} has no LiFT head for the {first}", manifest.name);
        }
        let backbone = Box::new(Backbone::open(&self.entry.dir, |_default| first, device)?);
        Ok(Features::Served { backbone, reading })
    }

    /// The training framework; the backbone's tensors are under `root`. `sha256` is that of the file of weights.
    ///
    /// # Errors
    /// When a file of weights is not given, is another one or does not fit.
    pub fn trained(&self, root: &nn::Path<'_>, reading: Reading, files: &WeightFiles, sha256: &str) -> anyhow::Result<Network> {
        let manifest = self.manifest();
        let file = files.backbone.as_ref().with_context(|| {
            format!("the weights of {} are needed (--weights): {}", manifest.name, manifest.provenance.source)
        })?;
        let digest = sha256_file(file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(digest == sha256, "{} holds other weights: its SHA-256 is {digest}, expected {sha256}", file.display());
        let source = Source::read(file, manifest)?;
        let lift = match (reading.input, &files.lift) {
            (SegmentInput::Backbone, _) => None,
            (SegmentInput::Lift, None) => anyhow::bail!("the weights of the LiFT head are needed (--lift)"),
            (SegmentInput::Lift, Some(file)) => {
                let arch = &manifest.architecture;
                Some(lift::open_on(file, arch.width as usize, arch.patch, root.device())?.0)
            }
        };
        let options = VitOptions { downsample: reading.downsample, drop_path: reading.drop_path };
        let vit = Vit::new(root, source, options);
        Ok(Network { vit, reading, lift, normalisation: self.normalisation(), device: root.device() })
    }
}

impl Features {
    /// Maps of an image, `[1, h, w, C]` f32 each, in the order of the taps.
    ///
    /// # Errors
    /// When the run fails.
    pub fn maps(&mut self, image: &RgbImage) -> anyhow::Result<Vec<Tensor>> {
        match self {
            Self::Served { backbone, reading } => {
                let maps = match reading.input {
                    SegmentInput::Backbone => backbone.taps(image, &reading.taps)?,
                    SegmentInput::Lift => vec![backbone.doubled(image)?],
                };
                Ok(maps.iter().map(to_tensor).collect())
            }
            Self::Trained(network) => {
                let size = [1, i64::from(image.height()), i64::from(image.width()), 3];
                let pixels = Tensor::from_slice(image.data()).view(size);
                let maps = tch::no_grad(|| network.maps(&pixels, false));
                Ok(maps.into_iter().map(|map| map.to_device(Device::Cpu)).collect())
            }
        }
    }

    /// Scores of the served model's own segmentation head for an image, `[1, u * h, u * w, K]` f32.
    ///
    /// # Errors
    /// When there is no such head, or the run fails.
    pub fn scores(&mut self, image: &RgbImage) -> anyhow::Result<Tensor> {
        match self {
            Self::Served { backbone, .. } => Ok(to_tensor(&backbone.scores(image)?)),
            Self::Trained(_) => anyhow::bail!("only a served model has a segmentation head of its own"),
        }
    }
}

impl Network {
    /// Maps of a batch, in the order of the taps.
    ///
    /// # Shapes
    /// - `pixels`: `[B, H, W, 3]` u8
    /// - output: `[B, h, w, C]` f32 each
    pub fn maps(&mut self, pixels: &Tensor, train: bool) -> Vec<Tensor> {
        let images = self.normalisation.apply(&pixels.to_device(self.device));
        let layers: Vec<u32> = self.reading.taps.iter().map(|tap| tap.layer).collect();
        let maps = self.vit.taps(&images, &layers, train);
        let Some(lift) = &self.lift else { return maps };
        let doubled = |map: &Tensor| lift.forward(&images, &map.permute([0, 3, 1, 2]), false).permute([0, 2, 3, 1]);
        maps.iter().map(doubled).collect()
    }

    /// The backbone.
    #[must_use]
    pub fn vit(&self) -> &Vit {
        &self.vit
    }
}

/// A map as `[1, h, w, C]` f32.
fn to_tensor(map: &FeatureMap) -> Tensor {
    let extent = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Tensor::from_slice(map.data()).view([1, extent(map.rows()), extent(map.cols()), extent(map.channels())])
}
