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
use tempfile::TempDir;

use super::{
    cut::Cut,
    error::{RuntimeError, Source},
    lru::Lru,
    model::RuntimeModel,
    placement::Placement,
    provider::Provider,
    session::ViewSession,
    termination::Termination,
    values::Values,
    view::{Features, RunKey, RunOutput, View},
};
use crate::{
    manifest::{SegmentInput, Tap, io_names},
    tensor::{FeatureMap, RgbImage},
};

/// Sessions of one model, for one thread.
#[derive(Debug)]
pub struct ModelRunner {
    model: Arc<RuntimeModel>,
    sessions: Lru<View, ViewSession>,
    /// Pixels of a batch, kept between runs.
    stacked: Vec<u8>,
    /// What ends the run of now.
    termination: Option<Termination>,
    /// Time that creating sessions took in all.
    creation: Duration,
    /// Where sessions that are created now write down their runs.
    profiles: Option<TempDir>,
}

/// What a first run told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Names of the providers used.
    pub providers: Vec<&'static str>,
    /// Time of the run, without that of creating sessions.
    pub run_time: Duration,
    /// Who ran the nodes of the sessions that were created for it; empty where the CPU is the only provider.
    pub placement: Placement,
}

impl ModelRunner {
    /// A runner of a model, with sessions of its own, none of which is created yet.
    #[must_use]
    pub fn new(model: &Arc<RuntimeModel>) -> Self {
        let sessions = Lru::new(model.max_sessions);
        Self {
            model: Arc::clone(model),
            sessions,
            stacked: Vec::new(),
            termination: None,
            creation: Duration::ZERO,
            profiles: None,
        }
    }

    /// The shared part of the model.
    #[must_use]
    pub fn model(&self) -> &Arc<RuntimeModel> {
        &self.model
    }

    /// Runs a grey image, so that the sessions of `key` exist and have their memory.
    ///
    /// # Errors
    /// Those of [`ModelRunner::run`].
    pub fn warm_up(&mut self, key: &RunKey) -> Result<WarmUp, RuntimeError> {
        let is_mixed = self.model.sessions.providers.iter().any(|provider| *provider != Provider::Cpu);
        self.warm_up_with(key, is_mixed)
    }

    fn warm_up_with(&mut self, key: &RunKey, is_profiled: bool) -> Result<WarmUp, RuntimeError> {
        let n_bytes = key.height as usize * key.width as usize * 3;
        let unsupported = || self.unsupported_size(key);
        let image = RgbImage::new(key.height, key.width, vec![127; n_bytes]).ok_or_else(unsupported)?;
        let no_place = |error| tracing::debug!(%error, "no place for profiles: which provider runs what will not be known");
        self.profiles = if is_profiled { tempfile::tempdir().map_err(no_place).ok() } else { None };
        let (started, creation) = (Instant::now(), self.creation);
        let ran = self.run(key, &[image]);
        let placement = self.placement();
        self.profiles = None;
        ran?;
        let run_time = started.elapsed().saturating_sub(self.creation - creation);
        let view = View::backbone(key, &self.model.manifest);
        let providers = self.sessions.find(&view).map(|session| session.providers.clone()).unwrap_or_default();
        Ok(WarmUp { providers, run_time, placement })
    }

    /// Who ran what in sessions that were written down.
    fn placement(&mut self) -> Placement {
        let mut placement = Placement::new();
        for session in self.sessions.values_mut() {
            let of_session = session.placement().unwrap_or_else(|error| {
                tracing::debug!(%error, "a profile cannot be read: which provider runs what is not known");
                Placement::new()
            });
            of_session.into_iter().for_each(|(provider, n_nodes)| *placement.entry(provider).or_default() += n_nodes);
        }
        placement
    }

    /// Runs a batch that `termination` can end.
    ///
    /// # Errors
    /// Those of [`ModelRunner::run`], and [`RuntimeError::Run`] when it was ended.
    pub fn run_until(
        &mut self,
        key: &RunKey,
        images: &[RgbImage],
        termination: Termination,
    ) -> Result<Vec<RunOutput>, RuntimeError> {
        self.termination = Some(termination);
        let outputs = self.run(key, images);
        self.termination = None;
        outputs
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
        let started = Instant::now();
        let mut made = self.run_backbone(key, &View::backbone(key, &self.model.manifest), images)?;
        let backbone = started.elapsed();
        let started = Instant::now();
        let mut lifted = self.run_lift(key, &made)?;
        let lift = started.elapsed();
        let started = Instant::now();
        let scores = self.run_segmenter(key, images.len(), (&made, lifted.first()))?;
        let segment = started.elapsed();

        let mut features = self.collect_features(key, images.len(), &mut made, &mut lifted)?.into_iter();
        let mut scores = scores.into_iter();
        let output = |_image| RunOutput { features: features.next(), scores: scores.next(), backbone, lift, segment };
        Ok(images.iter().map(output).collect())
    }

    /// Maps of several activations, each named once, by one run of the backbone: for each activation those of all images. For training;
    /// the service asks for features and scores.
    ///
    /// # Errors
    /// Those of [`ModelRunner::run`].
    pub fn run_taps(&mut self, taps: &[Tap], images: &[RgbImage]) -> Result<Vec<Vec<FeatureMap>>, RuntimeError> {
        let (Some(image), Some(first)) = (images.first(), taps.first()) else { return Ok(Vec::new()) };
        let size = [image.height(), image.width()];
        taps.iter().try_for_each(|tap| self.check(&RunKey::features(size, *tap, 0), images))?;
        let view = View::Backbone { outputs: taps.iter().map(|tap| io_names::patches(*tap)).collect() };
        let mut made = self.run_backbone(&RunKey::features(size, *first, 0), &view, images)?;
        let maps = |tap: &Tap| self.collect_features(&RunKey::features(size, *tap, 0), images.len(), &mut made, &mut Vec::new());
        let maps: Vec<_> = taps.iter().map(maps).collect::<Result<_, _>>()?;
        Ok(maps.into_iter().map(|maps| maps.into_iter().map(|features| features.map).collect()).collect())
    }

    fn check(&self, key: &RunKey, images: &[RgbImage]) -> Result<(), RuntimeError> {
        let RunKey { height, width, .. } = *key;
        let manifest = &self.model.manifest;
        let model = || manifest.name.clone();
        let patch = manifest.architecture.patch.max(1);
        let is_other = manifest.backbone.baked_size.is_some_and(|baked| baked != [height, width]);
        if height == 0 || width == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) || is_other {
            return Err(self.unsupported_size(key));
        }
        if key.features.is_none() && !key.segment {
            return Err(RuntimeError::NothingAsked { model: model() });
        }
        if let Some(tap) = key.features.as_ref().map(|features| features.tap) {
            if !manifest.backbone.offers(tap) {
                return Err(RuntimeError::UnsupportedTap { model: model(), tap });
            }
            if key.feature_passes() > 0 && manifest.lift.as_ref().is_none_or(|lift| lift.tap != tap) {
                return Err(RuntimeError::NoHead { model: model(), tap });
            }
        }
        if key.segment && manifest.segmenter.is_none() {
            return Err(RuntimeError::NoSegmenter { model: model() });
        }
        match images.iter().find(|image| (image.height(), image.width()) != (height, width)) {
            Some(image) => {
                Err(RuntimeError::ImageSize { height: image.height(), width: image.width(), expected: [height, width] })
            }
            None => Ok(()),
        }
    }

    fn run_backbone(&mut self, key: &RunKey, view: &View, images: &[RgbImage]) -> Result<Values, RuntimeError> {
        let grid = self.grid(key);
        let position = self.model.position(grid).map_err(|source| self.failed(source))?;
        let mut stacked = mem::take(&mut self.stacked);
        let pixels = stack(images, &mut stacked);
        let names = view.outputs();
        let termination = self.termination.clone();
        let session = self.session(view)?;
        let run = BackboneRun { key, n_images: images.len(), position: position.as_deref().map(Vec::as_slice), grid };
        let result = run.run(session, pixels, termination.as_ref());
        self.stacked = stacked;
        result.map(|outputs| Values::new(names, outputs)).map_err(|source| self.failed(source))
    }

    /// The map after each LiFT pass; none when no pass is needed.
    fn run_lift(&mut self, key: &RunKey, made: &Values) -> Result<Vec<DynValue>, RuntimeError> {
        let manifest = &self.model.manifest;
        let n_passes = key.lift_passes(manifest);
        let Some(tap) = manifest.lift.as_ref().map(|lift| lift.tap) else { return Ok(Vec::new()) };
        let (mut maps, mut doubled): (Vec<DynValue>, Option<DynValue>) = (Vec::new(), None);
        let termination = self.termination.clone();
        for pass in 1..=n_passes {
            let missing = || self.failed("the backbone left nothing for the LiFT head");
            let map = maps.last().or_else(|| made.find(&io_names::patches(tap))).ok_or_else(missing)?;
            let pixels = doubled.as_ref().or_else(|| made.find(io_names::PIXELS)).ok_or_else(missing)?;
            let inputs = vec![(io_names::FEATURES, map.into()), (io_names::PIXELS, pixels.into())];
            let session = self.session(&View::Lift { is_last: pass == n_passes })?;
            let mut outputs = session.run(inputs, termination.as_ref()).map_err(|source| self.failed(source))?.into_iter();
            maps.push(outputs.next().ok_or_else(|| self.failed("the LiFT head has no output"))?);
            doubled = outputs.next();
        }
        Ok(maps)
    }

    /// Scores of each image, when asked for, from what the backbone left or from the map after one LiFT pass.
    fn run_segmenter(
        &mut self,
        key: &RunKey,
        n_images: usize,
        (made, lifted): (&Values, Option<&DynValue>),
    ) -> Result<Vec<FeatureMap>, RuntimeError> {
        let model = Arc::clone(&self.model);
        let Some(segmenter) = key.segmenter(&model.manifest) else { return Ok(Vec::new()) };
        let names: Vec<String> = (0..segmenter.taps.len()).map(io_names::map).collect();
        let mut inputs = Vec::with_capacity(names.len());
        for (name, tap) in names.iter().zip(&segmenter.taps) {
            let map = match segmenter.input {
                SegmentInput::Backbone => made.find(&io_names::patches(*tap)),
                SegmentInput::Lift => lifted,
            };
            let map = map.ok_or_else(|| self.failed("nothing was left for the segmentation head"))?;
            inputs.push((name.as_str(), map.into()));
        }
        let termination = self.termination.clone();
        let outputs = self.session(&View::Segment)?.run(inputs, termination.as_ref()).map_err(|source| self.failed(source))?;
        let scores = outputs.into_iter().next().zip(model.manifest.scores_shape([key.height, key.width]));
        let (scores, shape) = scores.ok_or_else(|| self.failed("the segmentation head has no output"))?;
        Cut { manifest: &model.manifest, n_images }.maps((io_names::PROBABILITIES, scores), shape)
    }

    /// Features of each image, when asked for.
    fn collect_features(
        &self,
        key: &RunKey,
        n_images: usize,
        made: &mut Values,
        lifted: &mut Vec<DynValue>,
    ) -> Result<Vec<Features>, RuntimeError> {
        let Some(features) = &key.features else { return Ok(Vec::new()) };
        let (name, map) = match features.lift_passes {
            0 => (io_names::patches(features.tap), made.take(&io_names::patches(features.tap))),
            _ => (io_names::UPSAMPLED.to_owned(), lifted.pop()),
        };
        let map = map.ok_or_else(|| self.failed("the graph has no output"))?;
        Cut { manifest: &self.model.manifest, n_images }.features(key, features, (&name, map), made)
    }

    /// The session of a view, created when it is not there.
    fn session(&mut self, view: &View) -> Result<&mut ViewSession, RuntimeError> {
        if self.sessions.find(view).is_none() {
            // Before, so that the memory of the old one is free for the new one.
            self.sessions.make_room();
            let graph = match view {
                View::Backbone { .. } => Some(&self.model.backbone),
                View::Lift { .. } => self.model.lift.as_ref(),
                View::Segment => self.model.segmenter.as_ref(),
            };
            let graph = graph.ok_or_else(|| self.failed("the model has no head"))?;
            // The runtime adds the second to the name, in which more sessions than one may be created.
            let profile = self.profiles.as_ref().map(|folder| folder.path().join(self.creation.as_nanos().to_string()));
            let started = Instant::now();
            let session = ViewSession::create(graph, view.outputs(), &self.model.sessions, profile.as_deref())?;
            let elapsed = started.elapsed();
            self.creation += elapsed;
            let model = &self.model.manifest.name;
            tracing::info!(%model, providers = ?session.providers, ?view, ?elapsed, "{model} has a session on {:?}", session.providers);
            self.sessions.insert(view.clone(), session);
        }
        self.sessions.find(view).ok_or_else(|| RuntimeError::Run {
            model: self.model.manifest.name.clone(),
            source: "the session is not there".into(),
        })
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

/// What the backbone's inputs are made of.
struct BackboneRun<'a> {
    key: &'a RunKey,
    n_images: usize,
    position: Option<&'a [f32]>,
    grid: [usize; 2],
}

impl BackboneRun<'_> {
    fn run(&self, session: &mut ViewSession, pixels: &[u8], termination: Option<&Termination>) -> Result<Vec<DynValue>, Source> {
        let shape = [self.n_images, self.key.height as usize, self.key.width as usize, 3];
        let image: SessionInputValue<'_> = TensorRef::from_array_view((shape, pixels))?.into();
        let mut inputs = vec![(io_names::IMAGE, image)];
        if let Some(position) = self.position.filter(|_| session.has_input(io_names::POSITION)) {
            let n_cells = self.grid.iter().product::<usize>();
            let shape = [1, n_cells, position.len() / n_cells];
            inputs.push((io_names::POSITION, TensorRef::from_array_view((shape, position))?.into()));
        }
        session.run(inputs, termination)
    }
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

#[cfg(test)]
mod tests;
