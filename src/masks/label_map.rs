//! One label a pixel.

use crate::masks::{MaskError, class_set::MAX_CLASSES};

/// Label of a pixel without class in a map of 8-bit labels.
pub const VOID_U8: u8 = u8::MAX;
/// Label of a pixel without class in a map of 16-bit labels.
pub const VOID_U16: u16 = u16::MAX;

/// The labels of a map, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Of up to 256 classes.
    U8(Vec<u8>),
    /// Of more classes, or of exactly 256 and void.
    U16(Vec<u16>),
}

/// Classes of the pixels of an image.
///
/// # Shapes
/// - `labels`: `[rows, cols]` u8 or u16, row-major; a class's index in the model, or [`VOID_U8`] / [`VOID_U16`]. With 256 classes in
///   8 bits every label is a class and none is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    rows: usize,
    cols: usize,
    n_classes: usize,
    labels: Labels,
}

/// An integer that holds labels.
pub(super) trait Label: bytemuck::Pod + Eq + Send + Into<u16> {
    /// Bits of a label.
    const BITS: usize = 8 * size_of::<Self>();
    /// Labels in eight bytes.
    const IN_WORD: usize = 8 / size_of::<Self>();
    /// The label of a pixel without class.
    const VOID: Self;
    /// A word whose first label, the lowest, is of all ones.
    const ONES: u64 = u64::MAX >> (64 - Self::BITS);

    /// The low bits of a label: of a class that fits, the class; of all ones, void.
    fn truncated(label: u32) -> Self;
}

impl Label for u8 {
    const VOID: Self = VOID_U8;

    #[expect(clippy::cast_possible_truncation, reason = "what it is for")]
    fn truncated(label: u32) -> Self {
        label as Self
    }
}

impl Label for u16 {
    const VOID: Self = VOID_U16;

    #[expect(clippy::cast_possible_truncation, reason = "what it is for")]
    fn truncated(label: u32) -> Self {
        label as Self
    }
}

impl LabelMap {
    /// Wraps labels of `n_classes`.
    ///
    /// # Errors
    /// [`MaskError::ClassCount`], [`MaskError::Empty`], [`MaskError::Length`], [`MaskError::Label`].
    pub fn new(rows: usize, cols: usize, n_classes: usize, labels: Labels) -> Result<Self, MaskError> {
        if n_classes == 0 || n_classes > MAX_CLASSES {
            return Err(MaskError::ClassCount { n_classes });
        }
        if rows == 0 || cols == 0 {
            return Err(MaskError::Empty { rows, cols });
        }
        let map = Self { rows, cols, n_classes, labels };
        let (len, odd) = match &map.labels {
            Labels::U8(labels) => (labels.len(), map.odd_label(labels)),
            Labels::U16(labels) => (labels.len(), map.odd_label(labels)),
        };
        // Run lengths are 32-bit numbers.
        let n_pixels = rows.checked_mul(cols).filter(|n_pixels| u32::try_from(*n_pixels).is_ok());
        if n_pixels != Some(len) {
            return Err(MaskError::Length { what: "a label map", rows, cols, len });
        }
        match odd {
            Some(label) => Err(MaskError::Label { label, n_classes }),
            None => Ok(map),
        }
    }

    /// Rows, in pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, in pixels.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Classes of the model.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The labels, `[rows, cols]`.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Gives the labels away.
    #[must_use]
    pub fn into_labels(self) -> Labels {
        self.labels
    }

    /// The class of a pixel; `None` where it is void or lies outside the map.
    #[must_use]
    pub fn class_at(&self, row: usize, col: usize) -> Option<u16> {
        if row >= self.rows || col >= self.cols {
            return None;
        }
        let idx = row * self.cols + col;
        let label = match &self.labels {
            Labels::U8(labels) => u16::from(*labels.get(idx)?),
            Labels::U16(labels) => *labels.get(idx)?,
        };
        (usize::from(label) < self.n_classes).then_some(label)
    }

    /// For each label, class or void, whether any pixel has it.
    pub(super) fn presence(&self) -> Vec<bool> {
        match &self.labels {
            Labels::U8(labels) => presence(labels),
            Labels::U16(labels) => presence(labels),
        }
    }

    /// A label that is neither a class nor void.
    fn odd_label<T: Label>(&self, labels: &[T]) -> Option<u16> {
        let is_odd = |label: &u16| usize::from(*label) >= self.n_classes && *label != T::VOID.into();
        labels.iter().map(|label| (*label).into()).find(is_odd)
    }
}

fn presence<T: Label>(labels: &[T]) -> Vec<bool> {
    let mut is_present = vec![false; usize::from(u16::MAX) + 1];
    for run in labels.chunk_by(|one, other| one == other) {
        is_present[usize::from(run[0].into())] = true;
    }
    is_present
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn labels_that_are_no_class_and_wrong_lengths_are_refused() {
        let map = |labels: &[u8]| LabelMap::new(1, 3, 2, Labels::U8(labels.to_vec()));
        assert!(matches!(map(&[0, 1, 2]), Err(MaskError::Label { label: 2, n_classes: 2 })));
        assert!(matches!(map(&[0, 1]), Err(MaskError::Length { len: 2, .. })));
        assert!(matches!(LabelMap::new(0, 3, 2, Labels::U8(Vec::new())), Err(MaskError::Empty { .. })));
        assert!(matches!(LabelMap::new(1, 1, 300, Labels::U16(vec![300])), Err(MaskError::Label { label: 300, .. })));
        assert!(matches!(LabelMap::new(usize::MAX, 3, 2, Labels::U8(Vec::new())), Err(MaskError::Length { .. })));
    }

    #[test]
    fn void_is_no_class() {
        let map = LabelMap::new(1, 3, 2, Labels::U8(vec![0, 255, 1])).unwrap();
        assert_eq!([0, 1, 2, 3].map(|col| map.class_at(0, col)), [Some(0), None, Some(1), None]);
        let map = LabelMap::new(1, 2, 300, Labels::U16(vec![255, 65_535])).unwrap();
        assert_eq!([0, 1].map(|col| map.class_at(0, col)), [Some(255), None]);
    }
}
