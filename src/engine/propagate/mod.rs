//! Labels along a video: of the first frame as they come, of each next one by its features and those of frames before.
//!
//! # Design
//! Frames are runs of the model like any others: several of one video may wait and run at once. What follows a run depends on the frame
//! before, so it happens frame by frame, in order, each on one of the threads for such work. The maps that are kept are counted as a request
//! in flight for as long as the video goes on; frames come and go beside it.

mod labels;
mod output;
mod request;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

pub use request::{FirstFrame, FirstLabels, FrameMap, PropagateRequest};

use crate::{
    correspond::{Directions, PropagateError, Propagator},
    engine::{
        Admitted, Clock, Engine, ImageSource, InferError, InputRequest, LoadedModel, Segmented, Timing,
        cpu::Wanted,
        input::Sizes,
        map::ImageMap,
        propagate::{labels::Labelled, output::Output},
        request::FeatureRequest,
    },
};

/// What all frames of a video have in common.
#[derive(Debug)]
struct Video {
    engine: Arc<Engine>,
    model: Arc<LoadedModel>,
    /// Of the first frame.
    input: InputRequest,
    features: FeatureRequest,
    /// Rows and columns of the maps.
    grid: [usize; 2],
    output: Output,
}

/// Labels on their way along a video.
#[derive(Debug)]
pub struct Propagation {
    video: Arc<Video>,
    propagator: Arc<Mutex<Propagator>>,
    /// Of what is kept from frame to frame.
    _place: Admitted,
}

impl Engine {
    /// Begins with the first frame of a video and its labels.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind.
    pub async fn propagate(
        self: &Arc<Self>,
        request: PropagateRequest,
        clock: Clock,
    ) -> Result<(Propagation, FirstFrame), InferError> {
        let model = self.model(&request.input.model)?;
        let outcome = self.begin(&model, request, clock).await;
        let timing = outcome.as_ref().ok().map(|(_propagation, first)| &first.masks.timing);
        model.statistics().request(1, clock.arrived.elapsed(), timing);
        outcome.map_err(|error| error.inside("start").renamed("start.image", "start.frame"))
    }

    async fn begin(
        self: &Arc<Self>,
        model: &Arc<LoadedModel>,
        request: PropagateRequest,
        clock: Clock,
    ) -> Result<(Propagation, FirstFrame), InferError> {
        request.check()?;
        let PropagateRequest { input, features, labels, options, shares, format, size } = request;
        let features = FeatureRequest { lift_passes: features.lift_passes.or(Some(0)), ..features };
        let n_channels = model.manifest().architecture.width as usize;
        let mut grid = [0; 2];
        let more = |sizes: Sizes, map_grid| {
            grid = map_grid;
            request::check_work(&options, grid, n_channels, self.limits())?;
            let n_pixels = u64::from(sizes.image.0) * u64::from(sizes.image.1);
            Ok(output::n_bytes(sizes, format).saturating_add(labels::DECODING_BYTES * n_pixels))
        };
        let ready = self.ready(model, (&input, features.clone()), more, clock).await?;
        let n_kept = Propagator::n_values(&options, grid[0] * grid[1], n_channels, labels::MAX_LABELS);
        let place = self.admit(model, clock, 4 * n_kept as u64)?;

        let (image_size, max_bytes) = (ready.geometry.original_size(), self.limits().max_image_bytes);
        let decode = move || labels::decode(labels, image_size, max_bytes);
        let Labelled { pixels, ids, palette } = self.cpu().run("while decoding the labels", clock.deadline, decode).await??;
        let output = Output::new(format, size, shares, (ids, palette), self.limits().masks);
        let map = ready.map(model, clock).await?;
        let (about, timing, ended) = (map.about.clone(), map.timing, map.ended);
        let work = move || {
            let mask = output.soft_mask(&pixels, &map.about)?;
            let masks = output.draw(&mask, &map)?;
            let propagator = Propagator::with_mask(options, directions(&map)?, mask).map_err(failed)?;
            Ok::<_, InferError>((output, masks, propagator))
        };
        let (output, masks, propagator) = self.cpu().run("while placing the labels", clock.deadline, work).await??;
        let masks = timed(masks, timing, ended, clock);
        let (engine, model) = (Arc::clone(self), Arc::clone(model));
        let video = Arc::new(Video { engine, model, input, features, grid, output });
        let propagation = Propagation { video, propagator: Arc::new(Mutex::new(propagator)), _place: place };
        Ok((propagation, FirstFrame { masks, map: about }))
    }
}

impl Propagation {
    /// Runs the model on a frame, whichever frames are there already: several may run at once.
    ///
    /// # Errors
    /// See [`InferError`]; [`InferError::InvalidArgument`] for `frame` when its map has another grid than the first frame's.
    pub fn look(&self, image: ImageSource, clock: Clock) -> impl Future<Output = Result<FrameMap, InferError>> + Send + use<> {
        let video = Arc::clone(&self.video);
        async move {
            let outcome = video.look(image, clock).await.map_err(|error| error.renamed("image", "frame"));
            if outcome.is_err() {
                video.model.statistics().request(1, clock.arrived.elapsed(), None);
            }
            outcome.map(FrameMap)
        }
    }

    /// The labels of the next frame. Call it frame by frame, in their order; a frame that fails leaves no trace.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn next(&self, FrameMap(map): FrameMap, clock: Clock) -> Result<Segmented, InferError> {
        let (video, propagator) = (Arc::clone(&self.video), Arc::clone(&self.propagator));
        let (timing, ended) = (map.timing, map.ended);
        let work = move |wanted: &Wanted| {
            let directions = directions(&map)?;
            let mut propagator = propagator.lock().unwrap_or_else(PoisonError::into_inner);
            let mask = propagator.next_while(directions, || wanted.is_wanted()).map_err(refused)?;
            drop(propagator);
            video.output.draw(&mask, &map)
        };
        let engine = &self.video.engine;
        let outcome = engine.cpu().run_steps("while carrying the labels on", clock.deadline, work).await.flatten();
        let outcome = outcome.map(|masks| timed(masks, timing, ended, clock));
        self.video.model.statistics().request(1, clock.arrived.elapsed(), outcome.as_ref().ok().map(|masks| &masks.timing));
        outcome
    }
}

impl Video {
    async fn look(&self, image: ImageSource, clock: Clock) -> Result<ImageMap, InferError> {
        let input = InputRequest { image, ..self.input.clone() };
        let more = |sizes, grid| {
            if grid != self.grid {
                return Err(other_grid(grid, self.grid));
            }
            Ok(output::n_bytes(sizes, self.output.format()))
        };
        let ready = self.engine.ready(&self.model, (&input, self.features.clone()), more, clock).await?;
        ready.map(&self.model, clock).await
    }
}

fn other_grid([rows, cols]: [usize; 2], first: [usize; 2]) -> InferError {
    let message = format!(
        "makes a map of {rows} x {cols} cells, the first frame made one of {} x {}: frames of one call must give maps of one shape",
        first[0], first[1]
    );
    InferError::invalid("frame", message)
}

fn refused(error: PropagateError) -> InferError {
    match error {
        PropagateError::Frame { got: [rows, cols, _], expected: [first_rows, first_cols, _] } => {
            other_grid([rows, cols], [first_rows, first_cols])
        }
        other => failed(other),
    }
}

fn failed(error: PropagateError) -> InferError {
    InferError::internal("carrying the labels on", error)
}

fn directions(map: &ImageMap) -> Result<Directions, InferError> {
    let missing = || InferError::internal("carrying the labels on", "the map is empty");
    Directions::new(&map.shown(), map.about.grid).ok_or_else(missing)
}

/// The answer with its times.
fn timed(masks: Segmented, timing: Timing, ended: Instant, clock: Clock) -> Segmented {
    let timing = Timing { postprocess: ended.elapsed(), total: clock.arrived.elapsed(), ..timing };
    Segmented { timing, ..masks }
}
