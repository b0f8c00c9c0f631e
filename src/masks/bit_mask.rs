//! Which pixels belong to a thing, one bit each.

use std::ops::Range;

use crate::masks::MaskError;

/// A mask of one bit a pixel.
///
/// # Shapes
/// - `bits`: `[rows, ceil(cols / 8)]` bytes, row-major. The leftmost pixel of a byte is its most significant bit; what fills up the
///   last byte of a row is zero. This is what `numpy.packbits(mask, axis=1)` gives, and `numpy.unpackbits(bits, axis=1, count=cols)`
///   undoes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitMask {
    rows: usize,
    cols: usize,
    bits: Vec<u8>,
}

impl BitMask {
    /// A mask of zeros.
    ///
    /// # Errors
    /// [`MaskError::Empty`]; [`MaskError::TooManyPixels`] above 2^32 - 1, which run lengths cannot count.
    pub fn new(rows: usize, cols: usize) -> Result<Self, MaskError> {
        check_size(rows, cols)?;
        Ok(Self { rows, cols, bits: vec![0; rows * cols.div_ceil(8)] })
    }

    /// A mask of packed bits; bits behind the last column are cleared.
    ///
    /// # Errors
    /// As [`BitMask::new`]; [`MaskError::Length`].
    pub fn from_bits(rows: usize, cols: usize, mut bits: Vec<u8>) -> Result<Self, MaskError> {
        check_size(rows, cols)?;
        if bits.len() != rows * cols.div_ceil(8) {
            return Err(MaskError::Length { what: "a packed mask", rows, cols, len: bits.len() });
        }
        let n_unused = cols.div_ceil(8) * 8 - cols;
        for row in bits.chunks_exact_mut(cols.div_ceil(8)) {
            if let Some(last) = row.last_mut() {
                *last &= u8::MAX << n_unused;
            }
        }
        Ok(Self { rows, cols, bits })
    }

    /// A mask of the pixels that are set, row by row.
    ///
    /// # Errors
    /// As [`BitMask::from_bits`].
    pub fn of_pixels(rows: usize, cols: usize, is_set: &[bool]) -> Result<Self, MaskError> {
        if Some(is_set.len()) != rows.checked_mul(cols) {
            return Err(MaskError::Length { what: "a mask", rows, cols, len: is_set.len() });
        }
        let byte =
            |pixels: &[bool]| pixels.iter().enumerate().fold(0, |byte, (bit, is_set)| byte | (u8::from(*is_set) << (7 - bit)));
        let bits = is_set.chunks(cols.max(1)).flat_map(|row| row.chunks(8).map(byte)).collect();
        Self::from_bits(rows, cols, bits)
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

    /// Rows and columns of the smallest rectangle around the pixels of the mask; `None` when there are none.
    #[must_use]
    pub fn bounds(&self) -> Option<(Range<usize>, Range<usize>)> {
        let n_bytes = self.cols.div_ceil(8);
        let is_set = |row: &&[u8]| row.iter().any(|byte| *byte != 0);
        let rows = || self.bits.chunks_exact(n_bytes);
        let top = rows().position(|row| is_set(&row))?;
        let bottom = self.rows - rows().rev().position(|row| is_set(&row))?;
        let mut any = vec![0u8; n_bytes];
        rows().for_each(|row| any.iter_mut().zip(row).for_each(|(any, byte)| *any |= byte));
        let left = any.iter().position(|byte| *byte != 0)?;
        let right = any.iter().rposition(|byte| *byte != 0)?;
        let cols = 8 * left + any[left].leading_zeros() as usize..8 * right + 8 - any[right].trailing_zeros() as usize;
        Some((top..bottom, cols))
    }

    /// The bits, `[rows, ceil(cols / 8)]`.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Gives the bits away.
    #[must_use]
    pub fn into_bits(self) -> Vec<u8> {
        self.bits
    }

    /// Whether a pixel is set; none outside the mask is.
    #[must_use]
    pub fn is_set(&self, row: usize, col: usize) -> bool {
        row < self.rows && col < self.cols && self.row(row)[col / 8] & 0x80 >> (col % 8) != 0
    }

    /// Pixels that are set.
    #[must_use]
    pub fn area_px(&self) -> u64 {
        self.bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// The bytes of a row.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        let n_bytes = self.cols.div_ceil(8);
        &self.bits[row * n_bytes..(row + 1) * n_bytes]
    }

    /// The bytes of a row, to be written; their unused bits stay zero.
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        let n_bytes = self.cols.div_ceil(8);
        &mut self.bits[row * n_bytes..(row + 1) * n_bytes]
    }
}

/// Sets the bits of some columns of a row.
pub(super) fn set_cols(row: &mut [u8], cols: Range<usize>) {
    if cols.is_empty() {
        return;
    }
    let (first, last) = (cols.start / 8, (cols.end - 1) / 8);
    let head = u8::MAX >> (cols.start % 8);
    let tail = u8::MAX << (7 - (cols.end - 1) % 8);
    if first == last {
        row[first] |= head & tail;
        return;
    }
    row[first] |= head;
    row[first + 1..last].fill(u8::MAX);
    row[last] |= tail;
}

fn check_size(rows: usize, cols: usize) -> Result<(), MaskError> {
    if rows == 0 || cols == 0 {
        return Err(MaskError::Empty { rows, cols });
    }
    let fits = rows.checked_mul(cols).is_some_and(|n_pixels| u32::try_from(n_pixels).is_ok());
    if fits { Ok(()) } else { Err(MaskError::TooManyPixels { rows, cols, max: u64::from(u32::MAX) }) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_the_smallest_rectangle_around_what_is_set() {
        let mut mask = BitMask::new(5, 19).unwrap();
        assert_eq!(mask.bounds(), None);
        for (row, col) in [(1, 9), (3, 17)] {
            mask.row_mut(row)[col / 8] |= 0x80 >> (col % 8);
        }
        assert_eq!(mask.bounds(), Some((1..4, 9..18)));
    }

    #[test]
    fn the_leftmost_pixel_is_the_most_significant_bit() {
        let mask = BitMask::from_bits(2, 10, vec![0x80, 0x7F, 0x01, 0x80]).unwrap();
        assert_eq!(mask.bits(), [0x80, 0x40, 0x01, 0x80], "what fills up a row is cleared");
        let set = [(0, 0), (0, 9), (1, 7), (1, 8)];
        for (row, col) in (0..2).flat_map(|row| (0..10).map(move |col| (row, col))) {
            assert_eq!(mask.is_set(row, col), set.contains(&(row, col)));
        }
        assert!(!mask.is_set(0, 10) && !mask.is_set(2, 0));
        assert_eq!(mask.area_px(), 4);
    }

    #[test]
    fn pixels_that_are_set_become_bits() {
        let is_set = [true, false, false, false, false, false, false, false, true, false].repeat(2);
        let mask = BitMask::of_pixels(2, 10, &is_set).unwrap();
        assert_eq!(mask.bits(), [0x80, 0x80, 0x80, 0x80]);
        assert!(matches!(BitMask::of_pixels(2, 10, &is_set[..19]), Err(MaskError::Length { len: 19, .. })));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(matches!(BitMask::new(0, 3), Err(MaskError::Empty { .. })));
        assert!(matches!(BitMask::new(1 << 16, 1 << 16), Err(MaskError::TooManyPixels { .. })));
        assert!(matches!(BitMask::from_bits(2, 9, vec![0; 3]), Err(MaskError::Length { len: 3, .. })));
    }

    proptest! {
        #[test]
        fn ranges_of_columns_are_set_and_nothing_else(begin in 0usize..70, len in 0usize..70) {
            let cols = begin..(begin + len).min(70);
            let mut mask = BitMask::new(1, 70).unwrap();
            set_cols(mask.row_mut(0), cols.clone());
            prop_assert!((0..70).all(|col| mask.is_set(0, col) == cols.contains(&col)));
        }
    }
}
