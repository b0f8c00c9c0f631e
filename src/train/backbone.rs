//! The frozen backbone: the server's own sessions on the server's own files, so that a head is trained on what it will be served.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use densevit::{
    engine::GRAPH_TOOLS,
    manifest::{ModelEntry, Tap, load_dir},
    runtime::{FeatureKey, Library, ModelRunner, Provider, RunKey, RuntimeConfig, RuntimeModel},
    tensor::{FeatureMap, RgbImage},
};
use tch::Device;

use crate::data::normalisation::Normalisation;

/// A backbone and the activations that are taken from it.
#[derive(Debug)]
pub struct Backbone {
    runner: ModelRunner,
    entry: ModelEntry,
    tap: Tap,
}

impl Backbone {
    /// Opens `models/NAME/VERSION`, its files compared with their digests.
    ///
    /// # Errors
    /// When the model is not in order or does not offer `tap`, or ONNX Runtime is not there.
    pub fn open(dir: &Path, tap: impl FnOnce(Tap) -> Tap, device: Device) -> anyhow::Result<Self> {
        let entry = load_dir(dir)?;
        entry.verify()?;
        let backbone = &entry.manifest.backbone;
        let tap = tap(backbone.default);
        ensure!(
            backbone.facets.contains(&tap.facet) && backbone.layers.contains(&tap.layer),
            "{} does not offer the {tap}: it has {} of blocks {:?}",
            entry.manifest.name,
            backbone.facets.iter().map(|facet| facet.name()).collect::<Vec<_>>().join(", "),
            backbone.layers
        );
        let from_environment = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let library = Library::load(None, from_environment.as_deref())?;
        let providers = if device.is_cuda() {
            vec![Provider::Cuda { required: true, device_id: 0, deny_cpu_fallback: false, tf32: false }]
        } else {
            vec![Provider::Cpu]
        };
        let config = RuntimeConfig { providers, ..RuntimeConfig::default() };
        let model = RuntimeModel::open(dir, &entry.manifest, &config, &library, GRAPH_TOOLS)?;
        Ok(Self { runner: ModelRunner::new(&model), entry, tap })
    }

    /// The model directory.
    #[must_use]
    pub fn entry(&self) -> &ModelEntry {
        &self.entry
    }

    /// What is taken from it.
    #[must_use]
    pub fn tap(&self) -> Tap {
        self.tap
    }

    /// Pixels on a side of a patch.
    #[must_use]
    pub fn patch(&self) -> u32 {
        self.entry.manifest.architecture.patch
    }

    /// Channels of a descriptor.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.entry.manifest.architecture.width as usize
    }

    /// What the model does to pixels first.
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        let preprocess = &self.entry.manifest.preprocess;
        Normalisation { mean: preprocess.mean, std: preprocess.std }
    }

    /// Features of one image, `[h, w, C]`.
    ///
    /// # Errors
    /// When the run fails.
    pub fn features(&mut self, image: &RgbImage) -> anyhow::Result<FeatureMap> {
        self.run(image, self.tap, 0)
    }

    /// Features of one image after the model's head, `[2h, 2w, C]`.
    ///
    /// # Errors
    /// When the model has no head for these activations, or the run fails.
    pub fn doubled(&mut self, image: &RgbImage) -> anyhow::Result<FeatureMap> {
        self.run(image, self.tap, 1)
    }

    /// Several activations of one image, `[h, w, C]` each, by one run.
    ///
    /// # Errors
    /// When the model does not offer one of them, or the run fails.
    pub fn taps(&mut self, image: &RgbImage, taps: &[Tap]) -> anyhow::Result<Vec<FeatureMap>> {
        let maps: Vec<FeatureMap> = self.runner.run_taps(taps, std::slice::from_ref(image))?.into_iter().flatten().collect();
        ensure!(maps.len() == taps.len(), "the backbone gave {} outputs for {} activations", maps.len(), taps.len());
        Ok(maps)
    }

    /// Features of one image, `[h, w, C]`, and its class token, `[C]`, if that is wanted.
    ///
    /// # Errors
    /// When the model has no class token and it is wanted, or the run fails.
    pub fn described(&mut self, image: &RgbImage, with_cls: bool) -> anyhow::Result<(FeatureMap, Option<Vec<f32>>)> {
        let features = FeatureKey { tap: self.tap, lift_passes: 0, cls: with_cls, registers: false };
        let key = RunKey { height: image.height(), width: image.width(), features: Some(features), segment: false };
        let outputs = self.runner.run(&key, std::slice::from_ref(image))?;
        let features = outputs.into_iter().next().and_then(|output| output.features).context("the backbone gave no output")?;
        Ok((features.map, features.cls.map(|cls| cls.to_vec())))
    }

    /// Scores of the model's segmentation head for one image, `[u * h, u * w, K]`.
    ///
    /// # Errors
    /// When the model has no such head, or the run fails.
    pub fn scores(&mut self, image: &RgbImage) -> anyhow::Result<FeatureMap> {
        let key = RunKey::segment([image.height(), image.width()]);
        let outputs = self.runner.run(&key, std::slice::from_ref(image))?;
        outputs.into_iter().next().and_then(|output| output.scores).context("the head gave no output")
    }

    fn run(&mut self, image: &RgbImage, tap: Tap, lift_passes: u32) -> anyhow::Result<FeatureMap> {
        let key = RunKey::features([image.height(), image.width()], tap, lift_passes);
        let outputs = self.runner.run(&key, std::slice::from_ref(image))?;
        let features = outputs.into_iter().next().and_then(|output| output.features);
        Ok(features.context("the backbone gave no output")?.map)
    }
}
