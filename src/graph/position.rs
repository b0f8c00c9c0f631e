//! Fits a stored position table to the grid of an image, exactly as the code that the weights come from does.
//!
//! # Design
//! The three variants differ in kernel, sampling step and border, and none can be had from ONNX operators, so the server computes
//! the table here, once a grid, and feeds it to the graph. Weights of the taps are computed in f32, as PyTorch does for f32 tables.
//!
//! | variant | kernel | source coordinate of target i | border |
//! |---|---|---|---|
//! | offset | cubic a = -0.75, 4 taps | `(i + 0.5) * M / (g + 0.1) - 0.5` | index clamped |
//! | antialias | cubic a = -0.5, support `2 max(1, M / g)` | centre `(i + 0.5) * M / g` | taps outside dropped, rest rescaled |
//! | exact | cubic a = -0.75, 4 taps | `(i + 0.5) * M / g - 0.5` | index clamped |
//!
//! Origin: DINO and DINOv2 `vision_transformer.py` (`interpolate_pos_encoding`), Hugging Face `modeling_dinov2.py`.

use ndarray::{Array2, Array3, ArrayView3, Axis};

use crate::manifest::PositionVariant;

/// Taps and weights of one target index along one axis.
#[derive(Clone, Debug, PartialEq)]
struct Taps(Vec<(usize, f32)>);

/// The table of a grid of `rows` x `cols` cells.
///
/// The stored table is returned as it is when the grid is its own; square only in that case, as in the original code, where the
/// check is on the number of cells and on the image being square.
///
/// # Shapes
/// - `table`: `[M, M', D]`
/// - output: `[rows * cols, D]`, row-major
#[must_use]
pub fn interpolate(table: ArrayView3<'_, f32>, rows: usize, cols: usize, variant: PositionVariant) -> Array2<f32> {
    let (own_rows, own_cols, width) = table.dim();
    let fitted = if (rows, cols) == (own_rows, own_cols) {
        table.to_owned()
    } else {
        // Columns first, then rows: the order in which PyTorch's antialiased kernel rounds.
        let wide = resample(table, 1, &taps(own_cols, cols, variant));
        resample(wide.view(), 0, &taps(own_rows, rows, variant))
    };
    let flat = Array2::from_shape_vec((rows * cols, width), fitted.iter().copied().collect());
    flat.unwrap_or_else(|_shape| Array2::zeros((rows * cols, width)))
}

fn resample(table: ArrayView3<'_, f32>, axis: usize, taps: &[Taps]) -> Array3<f32> {
    let mut shape = table.raw_dim();
    shape[axis] = taps.len();
    let mut output = Array3::zeros(shape);
    for (mut target, Taps(taps)) in output.axis_iter_mut(Axis(axis)).zip(taps) {
        for (source, weight) in taps {
            target.scaled_add(*weight, &table.index_axis(Axis(axis), *source));
        }
    }
    output
}

fn taps(own: usize, grid: usize, variant: PositionVariant) -> Vec<Taps> {
    #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^24")]
    let (own_f, grid_f) = (own as f32, grid as f32);
    (0..grid)
        .map(|idx| match variant {
            // The factor g + 0.1 is formed in double precision and passed on as the sampling step.
            #[expect(clippy::cast_possible_truncation, reason = "PyTorch rounds the step to f32 too")]
            PositionVariant::Offset => clamped(idx, own, (f64::from(own_f) / (f64::from(grid_f) + 0.1)) as f32),
            PositionVariant::Exact => clamped(idx, own, own_f / grid_f),
            PositionVariant::Antialias => antialiased(idx, own, own_f / grid_f),
        })
        .collect()
}

/// Four taps of the kernel with a = -0.75; indices outside are moved to the border.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "grids are small, clamped"
)]
fn clamped(idx: usize, own: usize, step: f32) -> Taps {
    const A: f32 = -0.75;
    let centre = (idx as f32 + 0.5) * step - 0.5;
    let below = centre.floor();
    let fraction = centre - below;
    let offsets = [fraction + 1.0, fraction, 1.0 - fraction, 2.0 - fraction];
    let index = |tap: i64| (below as i64 + tap - 1).clamp(0, own as i64 - 1) as usize;
    Taps((0i64..).zip(offsets).map(|(tap, offset)| (index(tap), cubic(offset, A))).collect())
}

/// All taps within the stretched support of the kernel with a = -0.5; taps outside are dropped and the rest rescaled to sum 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "grids are small, clamped"
)]
fn antialiased(idx: usize, own: usize, step: f32) -> Taps {
    const A: f32 = -0.5;
    let stretch = step.max(1.0);
    let support = 2.0 * stretch;
    let centre = (idx as f32 + 0.5) * step;
    let begin = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(own);
    let weights: Vec<f32> = (begin..end).map(|tap| cubic((tap as f32 - centre + 0.5).abs() / stretch, A)).collect();
    let total: f32 = weights.iter().sum();
    Taps((begin..end).zip(weights).map(|(tap, weight)| (tap, weight / total)).collect())
}

/// Keys' cubic kernel at distance `x >= 0`.
fn cubic(x: f32, a: f32) -> f32 {
    if x <= 1.0 {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    }
    if x < 2.0 {
        return ((x - 5.0) * x + 8.0) * x * a - 4.0 * a;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values are given with six decimals.
    const SIX_DECIMALS: f32 = 1.5e-6;

    fn assert_taps(own: usize, grid: usize, idx: usize, variant: PositionVariant, expected: &[(usize, f32)]) {
        let all = taps(own, grid, variant);
        let Taps(got) = &all[idx];
        assert_eq!(got.len(), expected.len(), "{variant:?} {own} -> {grid}, {idx}: {got:?}");
        for ((tap, weight), (expected_tap, expected_weight)) in got.iter().zip(expected) {
            let close = (weight - expected_weight).abs() <= SIX_DECIMALS;
            assert!(tap == expected_tap && close, "{variant:?} {own} -> {grid}, {idx}: {got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn offset_taps_drift_as_in_the_original_code() {
        let offset = PositionVariant::Offset;
        assert_taps(14, 28, 0, offset, &[(0, -0.035365), (0, 0.262845), (0, 0.878113), (1, -0.105593)]);
        assert_taps(14, 28, 1, offset, &[(0, -0.105087), (0, 0.881274), (1, 0.258345), (2, -0.034532)]);
        assert_taps(14, 28, 27, offset, &[(12, -0.096255), (13, 0.919198), (13, 0.201282), (13, -0.024225)]);
        assert_taps(37, 16, 0, offset, &[(0, -0.059951), (0, 0.393905), (1, 0.776929), (2, -0.110883)]);
        assert_taps(37, 32, 1, offset, &[(0, -0.102090), (1, 0.897042), (2, 0.235365), (3, -0.030318)]);
    }

    #[test]
    fn exact_taps_are_symmetric_at_both_borders() {
        let exact = PositionVariant::Exact;
        assert_taps(14, 28, 0, exact, &[(0, -0.035156), (0, 0.261719), (0, 0.878906), (1, -0.105469)]);
        assert_taps(14, 28, 1, exact, &[(0, -0.105469), (0, 0.878906), (1, 0.261719), (2, -0.035156)]);
        assert_taps(14, 28, 27, exact, &[(12, -0.105469), (13, 0.878906), (13, 0.261719), (13, -0.035156)]);
        assert_taps(37, 16, 0, exact, &[(0, -0.058159), (0, 0.384285), (1, 0.784904), (2, -0.111031)]);
        assert_taps(37, 32, 1, exact, &[(0, -0.103040), (1, 0.892497), (2, 0.242085), (3, -0.031543)]);
    }

    #[test]
    fn antialiased_taps_drop_what_lies_outside() {
        let antialias = PositionVariant::Antialias;
        assert_taps(14, 28, 0, antialias, &[(0, 1.088235), (1, -0.088235)]);
        assert_taps(14, 28, 1, antialias, &[(0, 0.810219), (1, 0.211679), (2, -0.021898)]);
        assert_taps(14, 28, 27, antialias, &[(12, -0.088235), (13, 1.088235)]);
        let six = [(0, 0.387186), (1, 0.441451), (2, 0.209256), (3, -0.003056), (4, -0.031817), (5, -0.003020)];
        assert_taps(37, 16, 0, antialias, &six);
        assert_taps(37, 32, 1, antialias, &[(0, -0.025304), (1, 0.783746), (2, 0.292341), (3, -0.050783)]);
    }

    #[test]
    fn the_own_grid_is_returned_untouched_and_constants_stay_constant() {
        let table = Array3::from_shape_fn((3, 3, 2), |(row, col, d)| 0.1 + (row * 7 + col * 3 + d) as f32);
        for variant in [PositionVariant::Offset, PositionVariant::Antialias, PositionVariant::Exact] {
            let own = interpolate(table.view(), 3, 3, variant);
            assert_eq!(own.iter().collect::<Vec<_>>(), table.iter().collect::<Vec<_>>());
            let constant = interpolate(Array3::from_elem((3, 3, 2), 2.5).view(), 5, 4, variant);
            assert_eq!(constant.dim(), (20, 2));
            assert!(constant.iter().all(|value| (value - 2.5).abs() < 1e-5), "{variant:?}");
        }
    }
}
