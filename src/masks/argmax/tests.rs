#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{
    masks::{Axis, ClassSet, MaskLimits, Raster, Scores},
    tensor::FeatureMap,
};

/// Scores of a few levels, so that ties occur.
fn scores(rows: usize, cols: usize, n_classes: usize, levels: u64, seed: u64) -> Scores {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % levels) as f32 / levels as f32 - 0.3
    };
    let values: Vec<f32> = (0..rows * cols * n_classes).map(|_| next()).collect();
    Scores::new(FeatureMap::new(rows, cols, n_classes, values.into()).unwrap()).unwrap()
}

/// Labels (void as `None`) and summaries by comparing all classes of every pixel.
fn compare_all(sampler: &Sampler<'_>, min_score: Option<f32>) -> (Vec<Option<u16>>, Vec<ClassSummary>) {
    let classes = sampler.classes().classes();
    let values = sampler.band(0..sampler.rows(), u64::MAX).unwrap();
    let mut tally = vec![(0u64, 0f64); classes.len()];
    let mut labels = Vec::new();
    for pixel in values.chunks(classes.len()) {
        let mut best = 0;
        for place in 1..pixel.len() {
            if pixel[place] > pixel[best] {
                best = place;
            }
        }
        let is_void = min_score.is_some_and(|min_score| pixel[best] < min_score);
        labels.push((!is_void).then_some(classes[best]));
        if !is_void {
            tally[best] = (tally[best].0 + 1, tally[best].1 + f64::from(pixel[best]));
        }
    }
    let summary = |(class, (area_px, sum)): (&u16, (u64, f64))| ClassSummary {
        class: *class,
        area_px,
        mean_score: (sum / area_px.max(1) as f64) as f32,
    };
    (labels, classes.iter().zip(tally).map(summary).collect())
}

fn labels(map: &LabelMap) -> Vec<Option<u16>> {
    (0..map.rows() * map.cols()).map(|idx| map.class_at(idx / map.cols(), idx % map.cols())).collect()
}

proptest! {
    #[test]
    fn labels_are_those_of_comparing_all_classes(
        (rows, cols, n_classes) in (1usize..6, 1usize..6, 1usize..40),
        (height, width) in (1usize..40, 1usize..40),
        levels in prop_oneof![Just(3u64), Just(1 << 20)],
        min_score in proptest::option::of(0f32..0.7),
        n_threads in 1usize..4,
        is_part in proptest::bool::ANY,
        seed in 0u64..1 << 40,
    ) {
        let scores = scores(rows, cols, n_classes, levels, seed);
        let limits = MaskLimits::default();
        let raster = if is_part {
            let axis = |len: usize| Axis::new(1.3, -0.11, len).unwrap();
            Raster::new(axis(height), axis(width), &limits).unwrap()
        } else {
            Raster::resized([rows, cols], [height, width], &limits).unwrap()
        };
        let some: Vec<usize> = (0..n_classes).rev().filter(|class| *class == 0 || (seed >> (class % 40)) & 1 == 1).collect();
        for classes in [ClassSet::all(n_classes).unwrap(), ClassSet::new(&some, n_classes).unwrap()] {
            let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
            let options = LabelOptions { min_score, n_threads: NonZeroUsize::new(n_threads).unwrap() };
            let labelled = label(&sampler, &options).unwrap();
            let (expected, summaries) = compare_all(&sampler, min_score);
            prop_assert_eq!(labels(&labelled.map), expected);
            for (got, expected) in labelled.summaries.iter().zip(&summaries) {
                prop_assert_eq!((got.class, got.area_px), (expected.class, expected.area_px));
                prop_assert!((got.mean_score - expected.mean_score).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn labels_are_as_wide_as_classes_and_void_need() {
    let width = |n_classes: usize, min_score: Option<f32>| {
        let scores = scores(1, 1, n_classes, 7, 3);
        let raster = Raster::resized([1, 1], [1, 1], &MaskLimits::default()).unwrap();
        let classes = ClassSet::all(n_classes).unwrap();
        let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
        let labelled = label(&sampler, &LabelOptions { min_score, ..Default::default() }).unwrap();
        if matches!(labelled.map.labels(), Labels::U8(_)) { 8 } else { 16 }
    };
    assert_eq!([width(255, None), width(256, None), width(257, None)], [8, 8, 16]);
    assert_eq!([width(255, Some(0.5)), width(256, Some(0.5))], [8, 16]);
}

#[test]
fn a_least_score_that_is_no_number_is_refused() {
    let scores = scores(1, 1, 2, 7, 3);
    let raster = Raster::resized([1, 1], [1, 1], &MaskLimits::default()).unwrap();
    let classes = ClassSet::all(2).unwrap();
    let sampler = Sampler::new(&scores, &raster, &classes).unwrap();
    let options = LabelOptions { min_score: Some(f32::NAN), ..Default::default() };
    assert!(matches!(label(&sampler, &options), Err(MaskError::Threshold)));
}
