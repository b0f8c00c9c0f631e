//! Runs batches of images through a model. One thread owns it.
//!
//! # Design
//! A session computes all of its graph, so there is one session for each set of outputs in use, created when first needed and
//! kept in a small cache. Outputs stay in the buffers that ONNX Runtime made; the views that leave here share them.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use ort::{
    session::SessionInputValue,
    value::{DynValue, TensorRef},
};

use super::{
    error::{RuntimeError, Source},
    lru::Lru,
    model::RuntimeModel,
    session::{ViewSession, split},
    view::{RunKey, RunOutput, View},
};
use crate::{
    manifest::io_names,
    tensor::{F32View, FeatureMap, RgbImage},
};

/// Sessions of one model, for one thread.
#[derive(Debug)]
pub struct ModelRunner {
    model: Arc<RuntimeModel>,
    sessions: Lru<View, ViewSession>,
    /// Pixels of a batch, kept between runs.
    stacked: Vec<u8>,
}

impl ModelRunner {
    /// A runner of a model, with sessions of its own, none of which is created yet.
    #[must_use]
    pub fn new(model: &Arc<RuntimeModel>) -> Self {
        let sessions = Lru::new(model.max_sessions);
        Self { model: Arc::clone(model), sessions, stacked: Vec::new() }
    }

    /// The shared part of the model.
    #[must_use]
    pub fn model(&self) -> &Arc<RuntimeModel> {
        &self.model
    }

    /// Runs a grey image, so that the sessions of `key` exist and have their memory. Returns the names of the providers used.
    ///
    /// # Errors
    /// Those of [`ModelRunner::run`].
    pub fn warm_up(&mut self, key: &RunKey) -> Result<Vec<&'static str>, RuntimeError> {
        let n_bytes = key.height as usize * key.width as usize * 3;
        let unsupported = || self.unsupported_size(key);
        let image = RgbImage::new(key.height, key.width, vec![127; n_bytes]).ok_or_else(unsupported)?;
        self.run(key, &[image])?;
        let view = self.backbone_view(key);
        Ok(self.sessions.find(&view).map(|session| session.providers.clone()).unwrap_or_default())
    }

    /// Runs a batch; one output per image, in order.
    ///
    /// # Errors
    /// When the key does not fit the model or an image does not fit the key, when a session cannot be created or run, and
    /// when the map is not finite.
    pub fn run(&mut self, key: &RunKey, images: &[RgbImage]) -> Result<Vec<RunOutput>, RuntimeError> {
        self.check(key, images)?;
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let n_images = images.len();
        let started = Instant::now();
        let outputs = self.run_backbone(key, images)?;
        let backbone = started.elapsed();

        let mut named: Vec<_> = self.backbone_view(key).outputs().into_iter().zip(outputs).collect();
        let started = Instant::now();
        // The image for the head comes last, when there is one.
        let pixels = if key.lift_passes > 0 { named.pop() } else { None };
        let mut named = named.into_iter();
        let (mut name, mut map) = named.next().ok_or_else(|| self.failed("the graph has no output"))?;
        if let Some((_, pixels)) = pixels {
            (name, map) = (io_names::UPSAMPLED.to_owned(), self.run_lift(map, pixels, key.lift_passes)?);
        }
        let lift = started.elapsed();
        let tokens: Vec<_> = named.collect();
        self.collect(key, n_images, (name, map), tokens, [backbone, lift])
    }

    fn check(&self, key: &RunKey, images: &[RgbImage]) -> Result<(), RuntimeError> {
        let RunKey { height, width, tap, .. } = *key;
        let manifest = &self.model.manifest;
        let patch = manifest.architecture.patch.max(1);
        let is_other = manifest.backbone.baked_size.is_some_and(|baked| baked != [height, width]);
        if height == 0 || width == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) || is_other {
            return Err(self.unsupported_size(key));
        }
        if !manifest.backbone.facets.contains(&tap.facet) || !manifest.backbone.layers.contains(&tap.layer) {
            return Err(RuntimeError::UnsupportedTap { model: manifest.name.clone(), tap });
        }
        if key.lift_passes > 0 && manifest.lift.as_ref().is_none_or(|lift| lift.tap != tap) {
            return Err(RuntimeError::NoHead { model: manifest.name.clone(), tap });
        }
        match images.iter().find(|image| (image.height(), image.width()) != (height, width)) {
            Some(image) => {
                Err(RuntimeError::ImageSize { height: image.height(), width: image.width(), expected: [height, width] })
            }
            None => Ok(()),
        }
    }

    fn run_backbone(&mut self, key: &RunKey, images: &[RgbImage]) -> Result<Vec<DynValue>, RuntimeError> {
        let grid = self.grid(key);
        let position = self.model.position(grid).map_err(|source| self.failed(source))?;
        let mut stacked = mem::take(&mut self.stacked);
        let pixels = stack(images, &mut stacked);
        let session = self.session(self.backbone_view(key))?;
        let result = run_backbone(session, key, images.len(), pixels, position.as_deref().map(Vec::as_slice), grid);
        self.stacked = stacked;
        result.map_err(|source| self.failed(source))
    }

    fn run_lift(&mut self, mut map: DynValue, mut pixels: DynValue, n_passes: u32) -> Result<DynValue, RuntimeError> {
        for pass in 1..=n_passes {
            let session = self.session(View::Lift { is_last: pass == n_passes })?;
            let inputs = vec![(io_names::FEATURES, (&map).into()), (io_names::PIXELS, (&pixels).into())];
            let mut outputs = session.run(inputs).map_err(|source| self.failed(source))?.into_iter();
            map = outputs.next().ok_or_else(|| self.failed("the head has no output"))?;
            if let Some(doubled) = outputs.next() {
                pixels = doubled;
            }
        }
        Ok(map)
    }

    /// Cuts the outputs of a batch into those of its images.
    fn collect(
        &self,
        key: &RunKey,
        n_images: usize,
        map: (String, DynValue),
        tokens: Vec<(String, DynValue)>,
        [backbone, lift]: [Duration; 2],
    ) -> Result<Vec<RunOutput>, RuntimeError> {
        let arch = &self.model.manifest.architecture;
        let [rows, cols] = self.grid(key).map(|cells| cells << key.lift_passes);
        let channels = arch.width as usize;
        let name = map.0.clone();
        let maps = self.split(map, &[n_images, rows, cols, channels])?;

        let mut tokens = tokens.into_iter();
        let mut next = |is_wanted: bool, shape: &[usize]| match is_wanted.then(|| tokens.next()).flatten() {
            Some(output) => Ok(self.split(output, shape)?.into_iter().map(Some).collect()),
            None => Ok(vec![None; n_images]),
        };
        let cls: Vec<_> = next(key.cls, &[n_images, channels])?;
        let registers = next(key.registers, &[n_images, arch.registers as usize, channels])?;

        let malformed = || RuntimeError::NotFinite { model: self.model.manifest.name.clone(), output: name.clone() };
        let assemble = |((view, cls), registers): ((F32View, _), _)| {
            if !is_finite(&view) {
                return Err(malformed());
            }
            let map = FeatureMap::new(rows, cols, channels, view).ok_or_else(malformed)?;
            Ok(RunOutput { map, cls, registers, backbone, lift })
        };
        maps.into_iter().zip(cls).zip(registers).map(assemble).collect()
    }

    fn split(&self, (output, value): (String, DynValue), shape: &[usize]) -> Result<Vec<F32View>, RuntimeError> {
        let expected: Vec<i64> = shape.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect();
        let model = &self.model.manifest.name;
        split(value, &expected).map_err(|shape| RuntimeError::Output { model: model.clone(), output, shape, expected })
    }

    /// The session of a view, created when it is not there.
    fn session(&mut self, view: View) -> Result<&mut ViewSession, RuntimeError> {
        if self.sessions.find(&view).is_none() {
            // Before, so that the memory of the old one is free for the new one.
            self.sessions.make_room();
            let graph = match view {
                View::Backbone { .. } => Some(&self.model.backbone),
                View::Lift { .. } => self.model.lift.as_ref(),
            };
            let graph = graph.ok_or_else(|| self.failed("the model has no head"))?;
            let started = Instant::now();
            let session = ViewSession::create(graph, view.outputs(), &self.model.sessions)?;
            let (model, elapsed) = (&self.model.manifest.name, started.elapsed());
            tracing::info!(%model, providers = ?session.providers, ?view, ?elapsed, "{model} has a session on {:?}", session.providers);
            self.sessions.insert(view, session);
        }
        self.sessions.find(&view).ok_or_else(|| RuntimeError::Run {
            model: self.model.manifest.name.clone(),
            source: "the session is not there".into(),
        })
    }

    fn backbone_view(&self, key: &RunKey) -> View {
        View::backbone(key, self.model.manifest.architecture.registers > 0)
    }

    /// Rows and columns of the patch grid.
    fn grid(&self, key: &RunKey) -> [usize; 2] {
        [key.height, key.width].map(|side| (side / self.model.manifest.architecture.patch.max(1)) as usize)
    }

    fn failed(&self, source: impl Into<Source>) -> RuntimeError {
        RuntimeError::Run { model: self.model.manifest.name.clone(), source: source.into() }
    }

    fn unsupported_size(&self, key: &RunKey) -> RuntimeError {
        RuntimeError::UnsupportedSize { model: self.model.manifest.name.clone(), height: key.height, width: key.width }
    }
}

fn run_backbone(
    session: &mut ViewSession,
    key: &RunKey,
    n_images: usize,
    pixels: &[u8],
    position: Option<&[f32]>,
    [rows, cols]: [usize; 2],
) -> Result<Vec<DynValue>, Source> {
    let shape = [n_images, key.height as usize, key.width as usize, 3];
    let image: SessionInputValue<'_> = TensorRef::from_array_view((shape, pixels))?.into();
    let mut inputs = vec![(io_names::IMAGE, image)];
    if let Some(position) = position.filter(|_| session.has_input(io_names::POSITION)) {
        let n_cells = rows * cols;
        inputs.push((io_names::POSITION, TensorRef::from_array_view(([1, n_cells, position.len() / n_cells], position))?.into()));
    }
    session.run(inputs)
}

/// Pixels of a batch one after another; of a single image, its own.
fn stack<'a>(images: &'a [RgbImage], stacked: &'a mut Vec<u8>) -> &'a [u8] {
    if let [image] = images {
        return image.data();
    }
    stacked.clear();
    images.iter().for_each(|image| stacked.extend_from_slice(image.data()));
    stacked
}

/// Whether no value is NaN or infinite. Compares exponents as integers, which the compiler turns into vector code.
fn is_finite(values: &[f32]) -> bool {
    let largest = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    largest < f32::INFINITY.to_bits()
}

#[cfg(test)]
mod tests;
