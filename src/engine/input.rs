//! From the image of a request to the model's input: sizes before anything is decoded, then pixels.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, debug_span};

use crate::{
    engine::{
        Clock, Engine, InferError,
        request::{ImageSource, InputRequest},
    },
    preprocess::{DecodeError, Geometry, Recipe, decode, plan_size, prepare, probe, raw},
    tensor::RgbImage,
};

/// A decoded and resized image.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) image: RgbImage,
    pub(super) geometry: Geometry,
    /// Within the time that the caller waited.
    pub(super) resize: Duration,
}

/// Rows and columns, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Of the image as it came.
    pub(super) image: (u32, u32),
    /// Of the model's input.
    pub(super) input: (u32, u32),
}

impl Sizes {
    /// Memory that the image holds as it came, as pixels and as the model's input, in bytes.
    pub(super) fn n_bytes(&self, image: &ImageSource) -> u64 {
        let n_pixels = |(height, width): (u32, u32)| u64::from(height) * u64::from(width);
        image.n_bytes().saturating_add((n_pixels(self.image) + n_pixels(self.input)).saturating_mul(3))
    }
}

impl Engine {
    /// Reads the size of the image from its header.
    pub(super) fn sizes(&self, request: &InputRequest, recipe: &Recipe) -> Result<Sizes, InferError> {
        let (height, width) = match &request.image {
            ImageSource::Encoded(bytes) => probe(bytes, &self.limits().decode()).map_err(|error| decode_failed(&error, false))?,
            ImageSource::Raw { height, width, .. } => (*height, *width),
        };
        let input = plan_size(height, width, recipe).map_err(|error| InferError::invalid(error.field(), error.to_string()))?;
        Ok(Sizes { image: (height, width), input })
    }

    /// Decodes and resizes.
    pub(super) async fn prepare_input(&self, request: &InputRequest, recipe: &Recipe, clock: Clock) -> Result<Input, InferError> {
        let (source, recipe) = (request.image.clone(), recipe.clone());
        let limits = self.limits().decode();
        // As in `Timing`, waiting for a thread is part of decoding.
        let (request_span, decoding) = (Span::current(), debug_span!("decode"));
        let work = move || {
            let pixels = decoding.in_scope(|| match &source {
                ImageSource::Encoded(bytes) => decode(bytes, &limits),
                ImageSource::Raw { height, width, data } => raw(*height, *width, data, &limits),
            });
            let pixels = pixels.map_err(|error| decode_failed(&error, matches!(source, ImageSource::Raw { .. })))?;
            let decoded = Instant::now();
            let _resizing = debug_span!(parent: &request_span, "resize").entered();
            let prepared = prepare(pixels, &recipe).map_err(|error| InferError::invalid(error.field(), error.to_string()))?;
            Ok(Input { image: prepared.image, geometry: prepared.geometry, resize: decoded.elapsed() })
        };
        self.cpu().run("while decoding the image", clock.deadline, work).await?
    }
}

fn decode_failed(error: &DecodeError, is_raw: bool) -> InferError {
    InferError::invalid(error.field(is_raw), error.to_string())
}
