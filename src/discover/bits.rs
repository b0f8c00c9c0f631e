//! A square matrix of zeros and ones, a bit each.

use ndarray::Array2;

/// Bits of a word.
const WORD: usize = 64;

/// A symmetric matrix of zeros and ones.
pub(super) struct BitMatrix {
    /// Words of row after row; bits beyond the last column are 0.
    words: Vec<u64>,
    n_rows: usize,
    n_words: usize,
    n_set: Vec<usize>,
}

impl BitMatrix {
    /// Ones where `matrix` exceeds `threshold`.
    pub(super) fn above(matrix: &Array2<f32>, threshold: f32) -> Self {
        let n_rows = matrix.nrows();
        let n_words = n_rows.div_ceil(WORD);
        let mut words = Vec::with_capacity(n_rows * n_words);
        for row in matrix.rows() {
            let row: Vec<f32> = row.to_vec();
            let word = |part: &[f32]| {
                part.iter().enumerate().fold(0, |word, (bit, value)| word | (u64::from(*value > threshold) << bit))
            };
            words.extend(row.chunks(WORD).map(word));
        }
        let count = |row: &[u64]| row.iter().map(|word| word.count_ones() as usize).sum();
        let n_set = words.chunks(n_words.max(1)).map(count).collect();
        Self { words, n_rows, n_words, n_set }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Ones of a row.
    pub(super) fn n_set(&self, row: usize) -> usize {
        self.n_set[row]
    }

    /// Its product with `x`, whose sum is `total`, into `y`. Of rows with more ones than zeros the zeros are added up and subtracted.
    pub(super) fn apply(&self, x: &[f64], total: f64, y: &mut [f64]) {
        for ((row, y), n_set) in self.words.chunks(self.n_words.max(1)).zip(y).zip(&self.n_set) {
            *y = if 2 * n_set <= self.n_rows { sum(row, 0, x) } else { total - sum(row, u64::MAX, x) };
        }
    }
}

/// Sum of the values whose bits differ from those of `flip`.
fn sum(row: &[u64], flip: u64, x: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (word, values) in row.iter().zip(x.chunks(WORD)) {
        let mut bits = word ^ flip;
        if values.len() < WORD {
            bits &= (1 << values.len()) - 1;
        }
        while bits != 0 {
            sum += values[bits.trailing_zeros() as usize];
            bits &= bits - 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_dense_matrix() {
        let n = 131;
        for threshold in [-0.9f32, 0.0, 0.9] {
            let dense = Array2::from_shape_fn((n, n), |(row, col)| ((row * col) as f32 * 0.37).sin());
            let bits = BitMatrix::above(&dense, threshold);
            let x: Vec<f64> = (0..n).map(|i| (i as f64).cos()).collect();
            let mut y = vec![0.0; n];
            bits.apply(&x, x.iter().sum(), &mut y);
            for (row, y) in y.iter().enumerate() {
                let expected: f64 = (0..n).filter(|col| dense[(row, *col)] > threshold).map(|col| x[col]).sum();
                assert!((y - expected).abs() < 1e-9, "{y} {expected}");
                assert_eq!(bits.n_set(row), (0..n).filter(|col| dense[(row, *col)] > threshold).count());
            }
        }
    }
}
