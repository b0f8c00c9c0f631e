//! How long do masks take after the model? Every step from scores to bytes, on one core. `make bench` runs it.
//!
//! The realistic map has 11 classes in a few hundred regions and 15 thousand runs: CamVid's annotations, at this size, have 7 to 17
//! thousand. The noisy one is what an untrained head says, with three times the runs. The checkerboard, where every pixel is a run, is
//! what no picture is. MB/s count the labels that a step reads or writes, at the median of the rounds; on a busy machine the best round
//! says more.

use std::{hint::black_box, time::Instant};

use anyhow::{Context as _, ensure};
use densevit::{
    masks::{
        ClassSet, LabelMap, LabelOptions, Labels, MaskLimits, Palette, Raster, Rle, Sampler, Scores, label, label_png,
        masks_of_labels, masks_of_scores, overlay, polygons_of_labels, probabilities,
    },
    tensor::{FeatureMap, RgbImage},
};

/// Side of the maps, in pixels.
const SIDE: usize = 1024;
/// Rounds of a step.
const N_ROUNDS: usize = 21;
/// Milliseconds that the run lengths of the realistic map may take.
const TARGET_MS: f64 = 1.0;

fn main() -> anyhow::Result<()> {
    let limits = MaskLimits::default();
    println!("{SIDE} x {SIDE} px, medians of {N_ROUNDS} rounds:");
    println!("{:<58} {:>10} {:>10} {:>10}", "", "best ms", "median ms", "MB/s");
    let realistic = labels(&scores(64, 11, 0.1)?, [SIDE, SIDE])?;
    let noisy = labels(&scores(32, 11, 1.0)?, [SIDE, SIDE])?;
    let board = (0..SIDE * SIDE).map(|idx| u8::from((idx / SIDE + idx) % 2 == 1)).collect();
    let board = LabelMap::new(SIDE, SIDE, 11, Labels::U8(board))?;
    let rle_ms = encodings("realistic", &realistic, &limits)?;
    encodings("noisy", &noisy, &limits)?;
    encodings("checkerboard", &board, &MaskLimits { max_points: u64::MAX, ..limits })?;
    pictures(&realistic)?;
    println!("\nfrom scores, {N_ROUNDS} rounds:");
    println!("{:<58} {:>10} {:>10} {:>10}", "", "best ms", "median ms", "MB/s");
    // As a trained head answers: one class clearly ahead. And as an untrained one does: all about equal.
    from_scores("11 classes", &scores(128, 11, 0.1)?, [SIDE, SIDE], N_ROUNDS, &limits)?;
    from_scores("150 classes", &scores(128, 150, 0.1)?, [SIDE, SIDE], N_ROUNDS, &limits)?;
    from_scores("150 classes", &scores(128, 150, 0.1)?, [3000, 4000], 5, &limits)?;
    from_scores("150 classes, none ahead", &scores(128, 150, 1.0)?, [SIDE, SIDE], 5, &limits)?;
    println!("\nbench: target {}", if rle_ms <= TARGET_MS { "met" } else { "missed" });
    ensure!(rle_ms <= TARGET_MS, "the run lengths of a realistic map take more than {TARGET_MS} ms");
    Ok(())
}

/// Everything that is made of labels; returns the milliseconds of run lengths.
fn encodings(name: &str, map: &LabelMap, limits: &MaskLimits) -> anyhow::Result<f64> {
    let classes = ClassSet::all(map.n_classes())?;
    let n_bytes = map.rows() * map.cols();
    let rle_ms = row(&format!("{name}: RLE of all classes"), n_bytes, N_ROUNDS, || Ok(Rle::of_labels(map, &classes)?))?;
    let rles = Rle::of_labels(map, &classes)?;
    let n_counts: usize = rles.iter().map(|rle| rle.counts().len()).sum();
    row(&format!("{name}: {n_counts} counts as COCO strings"), n_bytes, N_ROUNDS, || {
        Ok(rles.iter().map(Rle::to_coco_string).collect::<Vec<_>>())
    })?;
    row(&format!("{name}: packed masks of all classes"), n_bytes, N_ROUNDS, || Ok(masks_of_labels(map, &classes, limits)?))?;
    let masks = masks_of_labels(map, &classes, limits)?;
    row(&format!("{name}: RLE of these masks"), n_bytes, N_ROUNDS, || Ok(masks.iter().map(Rle::of_mask).collect::<Vec<_>>()))?;
    for tolerance_px in [0.0, 1.0] {
        let polygons = polygons_of_labels(map, &classes, tolerance_px, limits)?;
        let title = format!("{name}: {} polygons, tolerance {tolerance_px} px", polygons.iter().map(Vec::len).sum::<usize>());
        row(&title, n_bytes, 5, || Ok(polygons_of_labels(map, &classes, tolerance_px, limits)?))?;
    }
    Ok(rle_ms)
}

fn pictures(map: &LabelMap) -> anyhow::Result<()> {
    let palette = Palette::distinct(map.n_classes())?;
    let photo = RgbImage::new(u32::try_from(map.rows())?, u32::try_from(map.cols())?, vec![90; map.rows() * map.cols() * 3]);
    let photo = photo.context("no photo")?;
    let n_bytes = map.rows() * map.cols();
    row("realistic: PNG", n_bytes, N_ROUNDS, || Ok(label_png(map, &palette)?))?;
    row("realistic: overlay on a photo", n_bytes, N_ROUNDS, || Ok(overlay(&photo, map, &palette, &Default::default())?))?;
    Ok(())
}

/// Everything that is made of scores.
fn from_scores(name: &str, scores: &Scores, size: [usize; 2], n_rounds: usize, limits: &MaskLimits) -> anyhow::Result<()> {
    let classes = ClassSet::all(scores.n_classes())?;
    let raster = Raster::resized(scores.grid(), size, limits)?;
    let sampler = Sampler::new(scores, &raster, &classes)?;
    let (name, n_pixels) = (format!("{name}, {} x {}", size[0], size[1]), size[0] * size[1]);
    row(&format!("{name}: labels"), n_pixels, n_rounds, || Ok(label(&sampler, &LabelOptions::default())?))?;
    row(&format!("{name}: labels by comparing all"), n_pixels, n_rounds.min(3), || compare_all(&sampler))?;
    row(&format!("{name}: masks above 0.5"), n_pixels, n_rounds, || Ok(masks_of_scores(&sampler, 0.5, limits)?))?;
    if n_pixels * scores.n_classes() <= usize::try_from(limits.max_values)? {
        row(&format!("{name}: probabilities in f16"), n_pixels, n_rounds.min(5), || {
            Ok(probabilities(&sampler, limits.max_values)?)
        })?;
    }
    Ok(())
}

/// What the labels cost without a choice of candidates.
fn compare_all(sampler: &Sampler<'_>) -> anyhow::Result<Vec<u16>> {
    let n_classes = sampler.classes().classes().len();
    let mut labels = Vec::with_capacity(sampler.rows() * sampler.cols());
    for row in 0..sampler.rows() {
        let values = sampler.band(row..row + 1, u64::MAX)?;
        labels.extend(values.chunks_exact(n_classes).map(|pixel| {
            let best = pixel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            pixel.iter().position(|value| value.to_bits() == best.to_bits()).and_then(|at| u16::try_from(at).ok()).unwrap_or(0)
        }));
    }
    Ok(labels)
}

/// Prints the median of a step and returns it, in milliseconds.
fn row<T>(name: &str, n_bytes: usize, n_rounds: usize, step: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(n_rounds);
    // The first round only warms up.
    for _ in 0..=n_rounds {
        let began = Instant::now();
        black_box(step()?);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    let (best, median) = times.first().zip(times.get(times.len() / 2)).context("no rounds")?;
    #[expect(clippy::cast_precision_loss, reason = "sizes of pictures")]
    let mb_per_s = n_bytes as f64 / median / 1e3;
    println!("{name:<58} {best:>10.3} {median:>10.3} {mb_per_s:>10.0}");
    Ok(*median)
}

fn labels(scores: &Scores, size: [usize; 2]) -> anyhow::Result<LabelMap> {
    let classes = ClassSet::all(scores.n_classes())?;
    let raster = Raster::resized(scores.grid(), size, &MaskLimits::default())?;
    Ok(label(&Sampler::new(scores, &raster, &classes)?, &LabelOptions::default())?.map)
}

/// Random scores of blocks of 4 x 4 cells: one class at 0.6 to 1, the others from 0 to `rest`.
fn scores(side: usize, n_classes: usize, rest: f32) -> anyhow::Result<Scores> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::from_be_bytes([state.to_be_bytes()[0], state.to_be_bytes()[1]])) / 65_536.0
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a class")]
    let ahead: Vec<usize> = (0..side.div_ceil(4).pow(2)).map(|_| (next() * n_classes as f32) as usize).collect();
    let mut values = Vec::with_capacity(side * side * n_classes);
    for (row, col) in (0..side).flat_map(|row| (0..side).map(move |col| (row, col))) {
        let ahead = ahead.get(row / 4 * side.div_ceil(4) + col / 4).copied().unwrap_or_default();
        let is_ahead = |class: usize| rest < 1.0 && class == ahead;
        values.extend((0..n_classes).map(|class| if is_ahead(class) { 0.6 + 0.4 * next() } else { rest * next() }));
    }
    Ok(Scores::new(FeatureMap::new(side, side, n_classes, values.into()).context("no scores")?)?)
}
