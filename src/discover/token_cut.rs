//! TokenCut: "Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", Wang et al., CVPR 2022.

use super::{
    Part,
    bits::BitMatrix,
    features::Cells,
    lanczos::{self, Symmetric},
};

/// Weight of edges between cells that are not similar.
const WEAK: f64 = 1e-5;

/// Cells in two parts.
pub(super) struct Cut {
    /// The second smallest eigenvector of (D - A) v = lambda D v.
    vector: Vec<f64>,
    /// Whether a cell lies above its mean.
    is_above: Vec<bool>,
}

/// The normalised cut of the graph of cells whose edges weigh 1 where cosines exceed `tau` and [`WEAK`] elsewhere. Nothing if there are fewer
/// than two cells.
pub(super) fn cut(cells: &Cells, free: &[usize], tau: f32) -> Option<Cut> {
    if free.len() < 2 {
        return None;
    }
    let graph = Graph::new(BitMatrix::above(&cells.cosines(free), tau));
    let vector = graph.second_eigenvector();
    let mean = vector.iter().sum::<f64>() / vector.len() as f64;
    let is_above = vector.iter().map(|value| *value > mean).collect();
    Some(Cut { vector, is_above })
}

impl Cut {
    /// The side with the largest absolute value, the seed (the sign of an eigenvector is free); when it holds more than `max_corners` of
    /// `corners` the other side, if there is one, whose seed is the cell furthest out on it.
    pub(super) fn part(self, corners: &[usize], max_corners: usize) -> Part {
        let Self { vector, is_above } = self;
        let furthest = |of: &dyn Fn(f64) -> f64| {
            vector.iter().enumerate().fold(0, |seed, (cell, value)| if of(*value) > of(vector[seed]) { cell } else { seed })
        };
        let seed = furthest(&f64::abs);
        let side = is_above[seed];
        let n_corners = corners.iter().filter(|corner| is_above[**corner] == side).count();
        let has_other = is_above.contains(&!side);
        let (side, seed) = match n_corners > max_corners && has_other {
            true if side => (false, furthest(&|value| -value)),
            true => (true, furthest(&|value| value)),
            false => (side, seed),
        };
        Part { is_foreground: is_above.into_iter().map(|is_above| is_above == side).collect(), seed }
    }
}

/// D^-1/2 A D^-1/2 of the graph.
struct Graph {
    strong: BitMatrix,
    /// D^1/2 and D^-1/2.
    root: Vec<f64>,
    inverse_root: Vec<f64>,
}

impl Graph {
    fn new(strong: BitMatrix) -> Self {
        let n = strong.n_rows() as f64;
        let degree = |row: usize| {
            let n_strong = strong.n_set(row) as f64;
            n_strong + WEAK * (n - n_strong)
        };
        let root: Vec<f64> = (0..strong.n_rows()).map(|row| degree(row).sqrt()).collect();
        let inverse_root = root.iter().map(|root| root.recip()).collect();
        Self { strong, root, inverse_root }
    }

    /// The vector v of the second smallest eigenvalue of (D - A) v = lambda D v. With u = D^1/2 v this is the second largest one of
    /// D^-1/2 A D^-1/2, whose largest has u = D^1/2 1.
    fn second_eigenvector(&self) -> Vec<f64> {
        let u = lanczos::largest(self, &self.root);
        u.iter().zip(&self.inverse_root).map(|(u, inverse_root)| u * inverse_root).collect()
    }
}

impl Symmetric for Graph {
    fn n(&self) -> usize {
        self.root.len()
    }

    /// A = WEAK 11^T + (1 - WEAK) B with B of zeros and ones.
    fn apply(&self, x: &[f64], y: &mut [f64]) {
        let scaled: Vec<f64> = x.iter().zip(&self.inverse_root).map(|(x, inverse_root)| x * inverse_root).collect();
        let total: f64 = scaled.iter().sum();
        self.strong.apply(&scaled, total, y);
        for (y, inverse_root) in y.iter_mut().zip(&self.inverse_root) {
            *y = (WEAK * total + (1.0 - WEAK) * *y) * inverse_root;
        }
    }
}
