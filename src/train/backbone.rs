//! The frozen backbone: the server's own sessions on the server's own files, so that a head is trained on what it will be served.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use densevit::{
    engine::GRAPH_TOOLS,
    manifest::{ModelEntry, Tap, load_dir},
    runtime::{Library, ModelRunner, RunKey, RuntimeConfig, RuntimeModel},
    tensor::{FeatureMap, RgbImage},
};

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
    pub fn open(dir: &Path, tap: impl FnOnce(Tap) -> Tap) -> anyhow::Result<Self> {
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
        let model = RuntimeModel::open(dir, &entry.manifest, &RuntimeConfig::default(), &library, GRAPH_TOOLS)?;
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

    /// Features of one image, `[h, w, C]`.
    ///
    /// # Errors
    /// When the run fails.
    pub fn features(&mut self, image: &RgbImage) -> anyhow::Result<FeatureMap> {
        let (height, width) = (image.height(), image.width());
        let key = RunKey { height, width, tap: self.tap, lift_passes: 0, cls: false, registers: false };
        let outputs = self.runner.run(&key, std::slice::from_ref(image))?;
        let output = outputs.into_iter().next().context("the backbone gave no output")?;
        Ok(output.map)
    }
}
