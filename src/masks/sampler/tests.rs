#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{
    masks::{Axis, MaskLimits},
    tensor::FeatureMap,
};

/// Sums and differences of a few values up to 1, in single precision.
const TOLERANCE: f32 = 1e-6;

fn scores(rows: usize, cols: usize, n_classes: usize, seed: u64) -> Scores {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let values: Vec<f32> = (0..rows * cols * n_classes).map(|_| next()).collect();
    Scores::new(FeatureMap::new(rows, cols, n_classes, values.into()).unwrap()).unwrap()
}

/// Bilinear sampling by its other definition: every cell weighted by a tent around the clamped position.
fn tent(scores: &Scores, y: f64, x: f64, class: usize) -> f32 {
    let [rows, cols] = scores.grid();
    let (y, x) = (y.clamp(0.0, (rows - 1) as f64), x.clamp(0.0, (cols - 1) as f64));
    let weight = |distance: f64| (1.0 - distance.abs()).max(0.0);
    let cells = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
    let sum =
        cells.map(|(row, col)| weight(y - row as f64) * weight(x - col as f64) * f64::from(scores.map().at(row, col)[class]));
    sum.sum::<f64>() as f32
}

proptest! {
    #[test]
    fn whole_factors_agree_with_tents_at_every_pixel(
        (rows, cols, n_classes) in (1usize..6, 1usize..6, 1usize..11),
        factor in 1usize..6,
        seed in 0u64..1000,
    ) {
        let scores = scores(rows, cols, n_classes, seed);
        let raster = Raster::resized([rows, cols], [rows * factor, cols * factor], &MaskLimits::default()).unwrap();
        let classes = ClassSet::all(n_classes).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        let band = sampler.band(0..rows * factor, u64::MAX).unwrap();
        for (idx, value) in band.iter().enumerate() {
            let (pixel, class) = (idx / n_classes, idx % n_classes);
            let centre = |idx: usize| (idx as f64 + 0.5) / factor as f64 - 0.5;
            let expected = tent(&scores, centre(pixel / (cols * factor)), centre(pixel % (cols * factor)), class);
            prop_assert!((value - expected).abs() <= TOLERANCE, "{value} {expected}");
        }
    }

    #[test]
    fn any_axes_and_subsets_agree_with_tents(
        (offset_y, step_y, offset_x, step_x) in (-3.0..6.0, -0.9..0.9, -3.0..6.0, -0.9..0.9),
        seed in 0u64..1000,
    ) {
        let scores = scores(5, 6, 4, seed);
        let (rows, cols) = (Axis::new(offset_y, step_y, 7).unwrap(), Axis::new(offset_x, step_x, 9).unwrap());
        let classes = ClassSet::new(&[3, 1], 4).unwrap();
        let raster = Raster::new(rows, cols, &MaskLimits::default()).unwrap();
        let band = Sampler::new(&scores, &raster, &classes).unwrap().band(2..7, u64::MAX).unwrap();
        for (idx, value) in band.iter().enumerate() {
            let (row, col, class) = (2 + idx / 18, idx / 2 % 9, [3, 1][idx % 2]);
            let expected = tent(&scores, offset_y + step_y * row as f64, offset_x + step_x * col as f64, class);
            prop_assert!((value - expected).abs() <= TOLERANCE, "{value} {expected}");
        }
    }
}

#[test]
fn at_the_size_of_the_grid_scores_are_untouched() {
    let scores = scores(4, 5, 3, 1);
    let (raster, classes) = (Raster::resized([4, 5], [4, 5], &MaskLimits::default()).unwrap(), ClassSet::all(3).unwrap());
    let band = Sampler::new(&scores, &raster, &classes).unwrap().band(0..4, 60).unwrap();
    assert_eq!(band, scores.map().data().to_vec());
}

#[test]
fn bands_outside_the_output_or_above_the_limit_are_refused() {
    let scores = scores(4, 5, 3, 1);
    let (raster, classes) = (Raster::resized([4, 5], [8, 10], &MaskLimits::default()).unwrap(), ClassSet::all(3).unwrap());
    let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
    assert!(matches!(sampler.band(0..9, u64::MAX), Err(MaskError::Rows { end: 9, rows: 8, .. })));
    assert!(matches!(sampler.band(3..3, u64::MAX), Err(MaskError::Rows { .. })));
    assert!(sampler.band(0..2, 60).is_ok());
    assert!(matches!(sampler.band(0..2, 59), Err(MaskError::TooManyValues { max: 59, .. })));
    let other = ClassSet::all(4).unwrap();
    assert!(matches!(Sampler::new(&scores, &raster, &other), Err(MaskError::ForeignClasses { .. })));
}
