//! Runs of equal labels down the columns, one column after the other: what COCO's run lengths count.
//!
//! # Design
//! Rows are what lies together in memory, columns are what the runs follow. Walking columns fetches a cache line a pixel; turning the
//! map around first writes it once more. Here a strip of 64 columns is read row by row, each row compared with the one above it, many
//! labels at once, and only where a label changes is something noted, in a list of its column. Then the lists are read column by
//! column. Work that is done label by label grows with the length of the borders, not with the area.

use std::ops::Range;

use crate::masks::{BitMask, label_map::Label};

/// Columns that are walked together: the cache line of 8-bit labels.
const STRIP: usize = 64;

/// A label that differs from the one above it.
#[derive(Clone, Copy, Debug)]
struct Change {
    row: u32,
    label: u16,
}

/// Rows of labels that can be compared quickly. Less than 2^32 pixels.
pub(super) trait Grid {
    /// Rows and columns.
    fn size(&self) -> [usize; 2];
    /// The label of a pixel.
    fn label(&self, row: usize, col: usize) -> u16;
    /// Calls `visit(column in the strip, label)` where row `row`, which is not the first, differs from the one above it.
    fn changes(&self, row: usize, strip: Range<usize>, visit: impl FnMut(usize, u16));
}

/// Labels, row-major.
#[derive(Debug)]
pub(super) struct LabelGrid<'a, T> {
    pub(super) labels: &'a [T],
    pub(super) cols: usize,
}

/// Calls `visit(label, length)` for each run: column after column, each from the top; a run goes on from the end of a column to the
/// beginning of the next.
pub(super) fn for_each_run(grid: &impl Grid, mut visit: impl FnMut(u16, u32)) {
    let [rows, cols] = grid.size();
    let mut changes: [Vec<Change>; STRIP] = std::array::from_fn(|_| Vec::new());
    let mut run = (grid.label(0, 0), 0);
    let mut extend = |label: u16, len: u32| {
        if label != run.0 {
            visit(run.0, run.1);
            run = (label, 0);
        }
        run.1 += len;
    };
    for first_col in (0..cols).step_by(STRIP) {
        let strip = first_col..(first_col + STRIP).min(cols);
        for row in 1..rows {
            let row_number = as_u32(row);
            grid.changes(row, strip.clone(), |col, label| changes[col].push(Change { row: row_number, label }));
        }
        for (col, changes) in strip.zip(&mut changes) {
            let mut begin = Change { row: 0, label: grid.label(0, col) };
            for change in changes.drain(..) {
                extend(begin.label, change.row - begin.row);
                begin = change;
            }
            extend(begin.label, as_u32(rows) - begin.row);
        }
    }
    visit(run.0, run.1);
}

/// Of a grid of less than 2^32 pixels.
pub(super) fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl<T: Label> Grid for LabelGrid<'_, T> {
    fn size(&self) -> [usize; 2] {
        [self.labels.len() / self.cols, self.cols]
    }

    fn label(&self, row: usize, col: usize) -> u16 {
        self.labels[row * self.cols + col].into()
    }

    fn changes(&self, row: usize, strip: Range<usize>, mut visit: impl FnMut(usize, u16)) {
        let here = &self.labels[row * self.cols..][strip.clone()];
        let above = &self.labels[(row - 1) * self.cols..][strip];
        let (words, rest) = bytemuck::cast_slice::<T, u8>(here).as_chunks::<8>();
        let (words_above, rest_above) = bytemuck::cast_slice::<T, u8>(above).as_chunks::<8>();
        let words_above = &words_above[..words.len()];
        let differing = |word: usize| u64::from_le_bytes(words[word]) ^ u64::from_le_bytes(words_above[word]);
        // All at once first: in most rows nothing changes.
        if (0..words.len()).fold(0, |any, word| any | differing(word)) != 0 {
            for word in 0..words.len() {
                let mut bits = differing(word);
                while bits != 0 {
                    let lane = bits.trailing_zeros() as usize / T::BITS;
                    bits &= !(T::ONES << (lane * T::BITS));
                    let idx = word * T::IN_WORD + lane;
                    visit(idx, here[idx].into());
                }
            }
        }
        if rest != rest_above {
            let first = here.len() - rest.len() / size_of::<T>();
            for (idx, (here, above)) in here.iter().zip(above).enumerate().skip(first) {
                if here != above {
                    visit(idx, (*here).into());
                }
            }
        }
    }
}

impl Grid for BitMask {
    fn size(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn label(&self, row: usize, col: usize) -> u16 {
        self.is_set(row, col).into()
    }

    fn changes(&self, row: usize, strip: Range<usize>, mut visit: impl FnMut(usize, u16)) {
        let word = |row: usize| word(self.row(row), strip.start / STRIP);
        let here = word(row);
        let mut changed = here ^ word(row - 1);
        while changed != 0 {
            let bit = changed.leading_zeros();
            changed ^= 1 << (63 - bit);
            visit(bit as usize, u16::from(here >> (63 - bit) & 1 == 1));
        }
    }
}

/// The 64 bits of a packed row from column `64 * idx` on, the leftmost in the most significant bit; zeros behind the end.
pub(super) fn word(row: &[u8], idx: usize) -> u64 {
    let bytes = row.get(idx * 8..).unwrap_or_default();
    if let Some(bytes) = bytes.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    padded.iter_mut().zip(bytes).for_each(|(padded, byte)| *padded = *byte);
    u64::from_be_bytes(padded)
}
