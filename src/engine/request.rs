//! A request and its answer in the engine's own terms, free of protobuf.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    batch::Caller,
    engine::{Admitted, LoadedModel, Timing},
    manifest::{Facet, Interpolation, ResizePolicy, Tap},
    postprocess::{DType, Encoded, Layout},
    preprocess::{Geometry, Rect},
    tensor::F32View,
};

/// Which model; empty strings mean the default model and its newest version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSelector {
    /// Name, or empty.
    pub name: String,
    /// Version, or empty.
    pub version: String,
}

/// The image of a request.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// An image file.
    Encoded(Bytes),
    /// 8-bit RGB pixels.
    Raw {
        /// Rows, in pixels.
        height: u32,
        /// Columns, in pixels.
        width: u32,
        /// `[height, width, 3]`.
        data: Bytes,
    },
}

impl ImageSource {
    /// Size of the image as it came, in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        match self {
            Self::Encoded(data) | Self::Raw { data, .. } => data.len() as u64,
        }
    }

    /// Path of the request field that holds the image.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Encoded(_) => "image.encoded",
            Self::Raw { .. } => "image.raw",
        }
    }
}

/// Which part of the map to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Part {
    /// All cells.
    #[default]
    All,
    /// The cells that touch this rectangle of the upright image, in pixels.
    Region(Rect),
    /// The descriptors at these positions `[x, y]` of the upright image, in pixels.
    Points(Vec<[f64; 2]>),
}

/// When a request came, when its answer is worthless, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Arrival of the request's headers.
    pub arrived: Instant,
    /// The caller's deadline, if any.
    pub deadline: Option<Instant>,
    /// Tenant and priority.
    pub caller: Caller,
}

impl Clock {
    /// A request of nobody in particular that arrives now and may take for ever.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { arrived: Instant::now(), deadline: None, caller: Caller::default() }
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Which model gets which image, and how the image is prepared. `None` means the model's default.
#[derive(Clone, Debug)]
pub struct InputRequest {
    /// Which model.
    pub model: ModelSelector,
    /// The image.
    pub image: ImageSource,
    /// Resize policy.
    pub resize: Option<ResizePolicy>,
    /// Kernel of the resize.
    pub interpolation: Option<Interpolation>,
    /// Part of the upright image to use.
    pub crop: Option<Rect>,
}

/// Which features are wanted, and how. `None` means the model's default.
#[derive(Clone, Debug)]
pub struct FeatureRequest {
    /// Facet.
    pub facet: Option<Facet>,
    /// Block, 0-based.
    pub layer: Option<u32>,
    /// LiFT passes.
    pub lift_passes: Option<u32>,
    /// Element type of the answer.
    pub dtype: DType,
    /// Layout of the answer.
    pub layout: Layout,
    /// Whether to scale descriptors to unit length.
    pub l2_normalize: bool,
    /// Part of the map.
    pub part: Part,
    /// Whether to return the CLS token.
    pub cls_token: bool,
    /// Whether to return the register tokens.
    pub register_tokens: bool,
}

/// One image to extract features from.
#[derive(Clone, Debug)]
pub struct ExtractRequest {
    /// The image.
    pub input: InputRequest,
    /// What is wanted of it.
    pub features: FeatureRequest,
}

/// Extent of a map, or of a part of one, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

/// The answer to an [`ExtractRequest`]. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The model that answered.
    pub model: Arc<LoadedModel>,
    /// Facet and block.
    pub tap: Tap,
    /// LiFT passes that were run.
    pub lift_passes: u32,
    /// Element type of `tensor`.
    pub dtype: DType,
    /// Layout of `tensor`.
    pub layout: Layout,
    /// The tensor as it goes over the wire.
    pub tensor: Encoded,
    /// Rows and columns of the whole map.
    pub grid: [usize; 2],
    /// The returned part; zero rows and columns for points.
    pub extent: Extent,
    /// Pixels of the model's input per cell.
    pub stride: f64,
    /// Relation of model input and original image.
    pub geometry: Geometry,
    /// `[C]`, when asked for.
    pub cls_token: Option<F32View>,
    /// `[R, C]`, when asked for.
    pub register_tokens: Option<F32View>,
    /// Whether descriptors were scaled to unit length; holds for the CLS and register tokens too.
    pub l2_normalize: bool,
    /// Things the caller should know.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub timing: Timing,
    /// Its place among the requests in flight, for as long as the answer is; none, when it is part of another answer.
    pub place: Option<Arc<Admitted>>,
}
