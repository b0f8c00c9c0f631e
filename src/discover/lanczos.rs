//! The largest eigenvector of a symmetric matrix beside one that is known.
//!
//! # Design
//! Lanczos with full reorthogonalisation: the matrix is only ever multiplied with, two or three dozen products are enough for the cut of a
//! graph, and orthogonality costs little beside a product. Everything in double precision: eigenvalues of weakly connected parts lie
//! within 1e-5 of one another. The start is fixed, so that equal images give equal objects.

/// Largest number of products.
pub(super) const MAX_STEPS: usize = 200;
/// Residual of the eigenvector, relative to eigenvalues of at most one, at which it is good enough: it is compared with its mean only.
const TOLERANCE: f64 = 1e-7;
/// Steps between looks at the residual.
const CHECK_EVERY: usize = 5;
/// Halvings of the interval of an eigenvalue: to the last bit.
const HALVINGS: usize = 100;

/// A symmetric matrix with eigenvalues of at most one.
pub(super) trait Symmetric {
    /// Rows.
    fn n(&self) -> usize;
    /// `y = A x`.
    fn apply(&self, x: &[f64], y: &mut [f64]);
}

/// The eigenvector of the largest eigenvalue of `matrix` among vectors orthogonal to `known`, an eigenvector; of length one.
pub(super) fn largest(matrix: &impl Symmetric, known: &[f64]) -> Vec<f64> {
    let n = matrix.n();
    let mut known = known.to_vec();
    normalise(&mut known);
    let mut vector = start(n);
    remove(&mut vector, &known);
    normalise(&mut vector);
    let mut basis = vec![vector];
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    let mut product = vec![0.0; n];
    for step in 1..=MAX_STEPS.min(n.saturating_sub(1)) {
        let last = &basis[step - 1];
        matrix.apply(last, &mut product);
        diagonal.push(dot(last, &product));
        // Twice: once loses digits where the remainder is small.
        for _ in 0..2 {
            remove(&mut product, &known);
            basis.iter().for_each(|vector| remove(&mut product, vector));
        }
        let length = dot(&product, &product).sqrt();
        let is_done = length < TOLERANCE
            || step == MAX_STEPS
            || (step % CHECK_EVERY == 0 && {
                let weights = top_eigenvector(&diagonal, &beside);
                (length * weights.last().copied().unwrap_or_default()).abs() < TOLERANCE
            });
        if is_done {
            break;
        }
        beside.push(length);
        basis.push(product.iter().map(|value| value / length).collect());
    }
    let mut vector = vec![0.0; n];
    beside.truncate(diagonal.len().saturating_sub(1));
    for (weight, direction) in top_eigenvector(&diagonal, &beside).iter().zip(&basis) {
        vector.iter_mut().zip(direction).for_each(|(value, direction)| *value += weight * direction);
    }
    normalise(&mut vector);
    vector
}

/// A start that is orthogonal to nothing in particular.
fn start(n: usize) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// Eigenvector of the largest eigenvalue of a symmetric tridiagonal matrix, of length one.
fn top_eigenvector(diagonal: &[f64], beside: &[f64]) -> Vec<f64> {
    let n = diagonal.len();
    let neighbours = |i: usize| beside.get(i).map_or(0.0, |b| b.abs()) + if i > 0 { beside[i - 1].abs() } else { 0.0 };
    // Gershgorin: every eigenvalue lies within the sum of its neighbours of a diagonal entry.
    let mut low = (0..n).map(|i| diagonal[i] - neighbours(i)).fold(f64::INFINITY, f64::min);
    let mut high = (0..n).map(|i| diagonal[i] + neighbours(i)).fold(f64::NEG_INFINITY, f64::max);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if n_below(diagonal, beside, middle) == n {
            high = middle;
        } else {
            low = middle;
        }
    }
    // Inverse iteration next to the eigenvalue, from above, where the shifted matrix is definite.
    let shift = high + 1e-13 * (1.0 + high.abs());
    let mut vector = vec![1.0; n];
    for _ in 0..3 {
        solve(diagonal, beside, shift, &mut vector);
        normalise(&mut vector);
    }
    vector
}

/// Eigenvalues below `x`: the negative pivots of the matrix less `x` (Sturm).
fn n_below(diagonal: &[f64], beside: &[f64], x: f64) -> usize {
    let mut pivot = 1.0;
    let mut n = 0;
    for (i, value) in diagonal.iter().enumerate() {
        let b = if i > 0 { beside[i - 1] } else { 0.0 };
        pivot = value - x - if i > 0 { b * b / pivot } else { 0.0 };
        if pivot == 0.0 {
            pivot = f64::MIN_POSITIVE.sqrt();
        }
        n += usize::from(pivot < 0.0);
    }
    n
}

/// Solves (T - shift) x = b in place, without pivoting.
fn solve(diagonal: &[f64], beside: &[f64], shift: f64, b: &mut [f64]) {
    let n = diagonal.len();
    let mut pivots = vec![0.0; n];
    for i in 0..n {
        let coupling = if i > 0 { beside[i - 1] } else { 0.0 };
        let factor = if i > 0 { coupling / pivots[i - 1] } else { 0.0 };
        pivots[i] = diagonal[i] - shift - factor * coupling;
        if pivots[i] == 0.0 {
            pivots[i] = -f64::MIN_POSITIVE.sqrt();
        }
        if i > 0 {
            b[i] -= factor * b[i - 1];
        }
    }
    for i in (0..n).rev() {
        let after = if i + 1 < n { beside[i] * b[i + 1] } else { 0.0 };
        b[i] = (b[i] - after) / pivots[i];
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn remove(vector: &mut [f64], direction: &[f64]) {
    let share = dot(vector, direction);
    vector.iter_mut().zip(direction).for_each(|(value, direction)| *value -= share * direction);
}

fn normalise(vector: &mut [f64]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Diagonal(Vec<f64>);

    impl Symmetric for Diagonal {
        fn n(&self) -> usize {
            self.0.len()
        }

        fn apply(&self, x: &[f64], y: &mut [f64]) {
            y.iter_mut().zip(x).zip(&self.0).for_each(|((y, x), d)| *y = d * x);
        }
    }

    #[test]
    fn the_largest_eigenvector_beside_a_known_one_is_found() {
        let values: Vec<f64> = (0..200).map(|i| 1.0 - f64::from(i) / 200.0).collect();
        let mut known = vec![0.0; 200];
        known[0] = 3.0;
        let vector = largest(&Diagonal(values), &known);
        assert!(vector[1].abs() > 1.0 - 1e-9 && vector[0].abs() < 1e-12, "{} {}", vector[0], vector[1]);
    }

    #[test]
    fn a_tridiagonal_matrix_of_three_by_hand() {
        // [[2, 1, 0], [1, 2, 1], [0, 1, 2]]: 2 + sqrt 2 with (1, sqrt 2, 1) / 2.
        let vector = top_eigenvector(&[2.0; 3], &[1.0; 2]);
        let sign = vector[0].signum();
        for (got, expected) in vector.iter().zip([0.5, std::f64::consts::FRAC_1_SQRT_2, 0.5]) {
            assert!((got * sign - expected).abs() < 1e-9, "{got} {expected}");
        }
    }

    #[test]
    fn a_matrix_of_two_has_one_other_eigenvector() {
        let vector = largest(&Diagonal(vec![1.0, 0.5]), &[1.0, 0.0]);
        assert!(vector[0].abs() < 1e-12 && (vector[1].abs() - 1.0).abs() < 1e-12);
    }
}
