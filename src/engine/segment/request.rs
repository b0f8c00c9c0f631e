//! A segmentation request and its answer in the engine's own terms, free of protobuf.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    engine::{Admitted, Extracted, FeatureRequest, InputRequest, LoadedModel, Timing},
    masks::{Palette, Polygon},
    preprocess::{Geometry, Rect},
};

/// What a segmentation looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskFormat {
    /// One label a pixel.
    #[default]
    Labels,
    /// Scores of the classes, f16.
    Scores,
    /// One bit a pixel and class.
    Bits,
    /// Run lengths of COCO, one mask a class.
    Rle,
    /// Outlines, one mask a class.
    Polygons,
    /// Labels as a PNG file.
    Png,
    /// Areas and scores only.
    Nothing,
}

/// Raster of masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskSize {
    /// Pixels of the upright original image.
    #[default]
    Image,
    /// Cells of the head's scores.
    Scores,
}

/// Windows on the model's input. Sizes `[height, width]` in its pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowRequest {
    /// One window for inputs up to four times the pixels of the training size, else windows of the training size.
    #[default]
    Automatic,
    /// One window.
    Whole,
    /// Windows; `None` for the training size, and for two thirds of the size.
    Tiles {
        /// Size of a window.
        size: Option<[u32; 2]>,
        /// Distance of windows.
        stride: Option<[u32; 2]>,
    },
}

/// Which masks are wanted, and how.
#[derive(Clone, Debug, Default)]
pub struct MaskRequest {
    /// What they look like.
    pub format: MaskFormat,
    /// Their raster.
    pub size: MaskSize,
    /// Part of the upright original, in pixels.
    pub region: Option<Rect>,
    /// Names of the wanted classes.
    pub classes: Vec<String>,
    /// Their indices. Without either, all classes are wanted.
    pub class_indices: Vec<u32>,
    /// Lowest score of a pixel that gets a class, in \[0, 1\].
    pub min_score: f32,
    /// Lowest score of a pixel of a class whatever the other classes' scores are, in (0, 1].
    pub threshold: Option<f32>,
    /// How far outlines may be from the border of the mask, in pixels.
    pub tolerance: f32,
    /// Whether classes that cover nothing are listed.
    pub keep_empty: bool,
    /// Windows on the model's input.
    pub windows: WindowRequest,
    /// Whether the scores of the classes come with the labels, f16; [`MaskFormat::Labels`] only.
    pub with_scores: bool,
}

/// One image to segment.
#[derive(Clone, Debug)]
pub struct SegmentRequest {
    /// The image.
    pub input: InputRequest,
    /// The masks.
    pub masks: MaskRequest,
    /// Features of the same run, if wanted.
    pub features: Option<FeatureRequest>,
}

/// A class and what it covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassArea {
    /// Index of the class.
    pub index: usize,
    /// Pixels of the raster.
    pub area: u64,
    /// Mean score over these pixels; 0 when there are none.
    pub score: f32,
}

/// The mask of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMask {
    /// Index of the class.
    pub index: usize,
    /// Smallest rectangle around it, in pixels of the raster; none for an empty mask.
    pub bounds: Option<Rect>,
    /// The mask.
    pub mask: MaskData,
}

/// A mask in one of its formats.
#[derive(Clone, Debug, PartialEq)]
pub enum MaskData {
    /// `[rows, ceil(cols / 8)]`, most significant bit first.
    Bits(Bytes),
    /// COCO's compressed run lengths.
    Rle(String),
    /// Outlines.
    Polygons(Vec<Polygon>),
}

/// The answer to a [`SegmentRequest`], and the labels of a frame of a video. Clones share rasters and tensors.
#[derive(Clone, Debug)]
pub struct Segmented {
    /// The model that answered.
    pub model: Arc<LoadedModel>,
    /// What the masks look like.
    pub format: MaskFormat,
    /// Rows and columns of the raster.
    pub size: [usize; 2],
    /// Top-left corner of the raster and size of one of its pixels, in pixels of the original: `[x, y, dx, dy]`.
    pub raster: [f64; 4],
    /// Bytes of a label.
    pub label_bytes: usize,
    /// What the classes cover: by falling area, or for [`MaskFormat::Scores`] in the order of the values.
    pub classes: Vec<ClassArea>,
    /// Labels `[rows, cols]`, scores `[rows, cols, n]` or a file; empty for the others.
    pub data: Bytes,
    /// Scores `[rows, cols, n]` beside the labels, f16, in the order of the classes' indices, when asked for.
    pub scores: Option<Bytes>,
    /// Bytes of `data` that belong together: a row, or one byte of a file.
    pub unit_bytes: usize,
    /// One mask a class, in the order of `classes`, for the formats that have them.
    pub masks: Vec<ClassMask>,
    /// Relation of model input and original image.
    pub geometry: Geometry,
    /// Windows that were run.
    pub n_windows: usize,
    /// Features of the same run.
    pub features: Option<Extracted>,
    /// Colours of the labels, when they are not the model's classes.
    pub palette: Option<Arc<Palette>>,
    /// Things the caller should know.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub timing: Timing,
    /// Its place among the requests in flight, for as long as the answer is.
    pub place: Option<Arc<Admitted>>,
}
