//! The arrays that travel through the service: images, feature maps, and views into the output of a batch.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;

/// An image of 8-bit RGB pixels. Clones share them, and they may be a part of a larger buffer: pixels that came in a message stay there.
///
/// # Shapes
/// - `data`: `[height, width, 3]` u8, row-major, R G B interleaved
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    height: u32,
    width: u32,
    data: Bytes,
}

impl RgbImage {
    /// Wraps `data`, or returns `None` when its length is not `height * width * 3` or a side is zero.
    #[must_use]
    pub fn new(height: u32, width: u32, data: Vec<u8>) -> Option<Self> {
        Self::from_bytes(height, width, data.into())
    }

    /// The same of a buffer that is shared.
    #[must_use]
    pub fn from_bytes(height: u32, width: u32, data: Bytes) -> Option<Self> {
        let n_bytes = (height as usize).checked_mul(width as usize)?.checked_mul(3)?;
        (n_bytes > 0 && n_bytes == data.len()).then_some(Self { height, width, data })
    }

    /// Rows, in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns, in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The pixels, `[height, width, 3]`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Gives the pixels away; copies them if somebody else holds them too.
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data.into()
    }
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.height, self.width)
    }
}

/// A range of a shared f32 buffer: one image's part of the output of a batch. Cloning shares the buffer.
#[derive(Clone)]
pub struct F32View {
    owner: Arc<dyn AsRef<[f32]> + Send + Sync>,
    offset: usize,
    len: usize,
}

impl F32View {
    /// Views `len` values from `offset`, or returns `None` when they do not lie inside the buffer.
    #[must_use]
    pub fn new(owner: Arc<dyn AsRef<[f32]> + Send + Sync>, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= owner.as_ref().as_ref().len()).then_some(Self { owner, offset, len })
    }
}

impl From<Vec<f32>> for F32View {
    fn from(values: Vec<f32>) -> Self {
        let len = values.len();
        Self { owner: Arc::new(values), offset: 0, len }
    }
}

impl Deref for F32View {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.owner.as_ref().as_ref()[self.offset..self.offset + self.len]
    }
}

impl AsRef<[f32]> for F32View {
    fn as_ref(&self) -> &[f32] {
        self
    }
}

impl fmt::Debug for F32View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F32View({} values)", self.len)
    }
}

/// A dense feature map.
///
/// # Shapes
/// - `data`: `[rows, cols, channels]` f32, row-major: the descriptor of a cell is contiguous
#[derive(Clone, Debug)]
pub struct FeatureMap {
    rows: usize,
    cols: usize,
    channels: usize,
    data: F32View,
}

impl FeatureMap {
    /// Wraps `data`, or returns `None` when its length is not `rows * cols * channels` or an axis is empty.
    #[must_use]
    pub fn new(rows: usize, cols: usize, channels: usize, data: F32View) -> Option<Self> {
        let n_values = rows.checked_mul(cols)?.checked_mul(channels)?;
        (n_values > 0 && n_values == data.len()).then_some(Self { rows, cols, channels, data })
    }

    /// Rows, in cells.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, in cells.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Length of a descriptor.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The values, `[rows, cols, channels]`.
    #[must_use]
    pub fn data(&self) -> &F32View {
        &self.data
    }

    /// The descriptor of a cell, `[channels]`.
    ///
    /// # Panics
    /// When the cell lies outside the map, like slice indexing.
    #[must_use]
    pub fn at(&self, row: usize, col: usize) -> &[f32] {
        let start = (row * self.cols + col) * self.channels;
        &self.data[start..start + self.channels]
    }
}
