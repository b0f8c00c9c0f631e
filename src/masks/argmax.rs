//! The class of each pixel: the one with the highest score.
//!
//! # Design
//! Most classes cannot win anywhere between four cells. Those that can are looked for once for each four cells (`strip.rs` has the rule),
//! and pixels compare only these: most often one, a few along borders. The labels are those of the comparison of all classes, bit by
//! bit, because both use the same formula.
//!
//! Rejected: comparing all, `H W K` steps. For 3000 x 4000 pixels and 150 classes, one of them ahead, that takes 2.3 to 3.5 s, this 0.10
//! to 0.30 s (`cargo bench --bench masks`, medians of three runs on one busy core of an AMD EPYC Zen 3, 2026-11-25). Where no class is
//! ahead, both take the same time.
//!
//! Rows go one after the other, or in as many stripes as the caller gives threads; beside the labels, memory holds a few rows.

use std::{num::NonZeroUsize, ops::Range, thread};

use crate::masks::{
    ClassSummary, LabelMap, Labels, MaskError, Sampler,
    axis::{Tap, mix},
    label_map::Label,
    sampler::{Span, spans},
    strip::{Strip, Wanted, larger},
    tally::Tally,
};

/// Scores that are compared at once.
const LANES: usize = 8;
/// A label that is no class; its low bits are the void labels of 8 and of 16 bits.
const VOID: u32 = u32::MAX;

/// How labels are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelOptions {
    /// Score below which a pixel is void. `None`, the default: no pixel is.
    pub min_score: Option<f32>,
    /// Threads that share the rows. Default 1: the caller's own.
    pub n_threads: NonZeroUsize,
}

/// Labels and what they amount to.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The labels: 8-bit for up to 256 classes of the model, else 16-bit. With exactly 256 and a least score, 16-bit too, because
    /// 8 bits have no room for void.
    pub map: LabelMap,
    /// One entry a class of the set, in its order.
    pub summaries: Vec<ClassSummary>,
}

/// A class that may win along a row between two columns of cells.
#[derive(Clone, Copy, Debug)]
struct Line {
    label: u32,
    left: f32,
    right: f32,
}

/// Columns of the output between the same two columns of cells, as many as are compared at once; what is left of the weights is 0.
#[derive(Clone, Debug)]
struct Block {
    cols: Range<usize>,
    weights: [f32; LANES],
    /// The span that they are a part of.
    span: usize,
}

impl Default for LabelOptions {
    fn default() -> Self {
        Self { min_score: None, n_threads: NonZeroUsize::MIN }
    }
}

/// Labels every pixel with the best of the sampler's classes. Of equal scores, the class that stands first in the set wins.
///
/// # Errors
/// [`MaskError::Threshold`] when the least score is no number, [`MaskError::Thread`].
pub fn label(sampler: &Sampler<'_>, options: &LabelOptions) -> Result<Labelled, MaskError> {
    if options.min_score.is_some_and(f32::is_nan) {
        return Err(MaskError::Threshold);
    }
    let (rows, cols, n_classes) = (sampler.rows(), sampler.cols(), sampler.classes().n_classes());
    let n_small = if options.min_score.is_some() { 255 } else { 256 };
    let mut tally = Tally::new(n_classes);
    let labels = if n_classes <= n_small {
        let mut labels = vec![0u8; rows * cols];
        label_stripes(sampler, options, &mut labels, &mut tally)?;
        Labels::U8(labels)
    } else {
        let mut labels = vec![0u16; rows * cols];
        label_stripes(sampler, options, &mut labels, &mut tally)?;
        Labels::U16(labels)
    };
    Ok(Labelled { map: LabelMap::new(rows, cols, n_classes, labels)?, summaries: tally.summaries(sampler.classes()) })
}

/// Gives each thread a stripe of rows.
fn label_stripes<T: Label>(
    sampler: &Sampler<'_>,
    options: &LabelOptions,
    labels: &mut [T],
    tally: &mut Tally,
) -> Result<(), MaskError> {
    let n_threads = options.n_threads.get().min(sampler.rows());
    if n_threads <= 1 {
        label_rows(sampler, options.min_score, 0, labels, tally);
        return Ok(());
    }
    let n_rows = sampler.rows().div_ceil(n_threads);
    let n_classes = sampler.classes().n_classes();
    thread::scope(|scope| {
        let start = |(idx, stripe)| {
            let work = move || {
                let mut tally = Tally::new(n_classes);
                label_rows(sampler, options.min_score, idx * n_rows, stripe, &mut tally);
                tally
            };
            thread::Builder::new().spawn_scoped(scope, work).map_err(MaskError::Thread)
        };
        let stripes = labels.chunks_mut(n_rows * sampler.cols()).enumerate();
        let threads = stripes.map(start).collect::<Result<Vec<_>, _>>()?;
        for thread in threads {
            tally.merge(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        Ok(())
    })
}

/// Labels rows from `first_row` on, as many as `labels` holds.
fn label_rows<T: Label>(sampler: &Sampler<'_>, min_score: Option<f32>, first_row: usize, labels: &mut [T], tally: &mut Tally) {
    let spans = spans(sampler.col_taps());
    let blocks = blocks(&spans, sampler.col_taps());
    let classes = sampler.classes().classes();
    let (mut strip, mut lines) = (Strip::new(Wanted::Best), Vec::new());
    let (mut best, mut scores) = (vec![VOID; sampler.cols()], vec![0f32; sampler.cols()]);
    for (row, target) in (first_row..).zip(labels.chunks_exact_mut(sampler.cols())) {
        let tap = sampler.row_tap(row);
        strip.find(sampler, &tap, &spans);
        for block in &blocks {
            lines.clear();
            for candidate in strip.candidates(block.span) {
                let [left, right] = candidate.ends(tap.weight);
                lines.push(Line { label: classes[candidate.place].into(), left, right });
            }
            let (labels, values) = best_of_block(&lines, &block.weights);
            for (lane, col) in block.cols.clone().enumerate() {
                (best[col], scores[col]) = (labels[lane], values[lane]);
            }
        }
        if let Some(min_score) = min_score {
            for (col, best) in best.iter_mut().enumerate() {
                *best = if scores[col] < min_score { VOID } else { *best };
            }
        }
        tally.add(&best, &scores);
        for (col, target) in target.iter_mut().enumerate() {
            *target = T::truncated(best[col]);
        }
    }
}

/// The best class at each position along lines, and its score.
// Written as the vector instructions that it should become, and kept apart: inlined, or with a branch, it compiles to single steps.
#[inline(never)]
fn best_of_block(lines: &[Line], weights: &[f32; LANES]) -> ([u32; LANES], [f32; LANES]) {
    let (mut labels, mut scores) = ([VOID; LANES], [f32::NEG_INFINITY; LANES]);
    for line in lines {
        let (mut own, mut is_better) = ([0.0; LANES], [0; LANES]);
        for lane in 0..LANES {
            own[lane] = mix(line.left, line.right, weights[lane]);
        }
        for lane in 0..LANES {
            is_better[lane] = if own[lane] > scores[lane] { u32::MAX } else { 0 };
        }
        for lane in 0..LANES {
            labels[lane] = (line.label & is_better[lane]) | (labels[lane] & !is_better[lane]);
        }
        for lane in 0..LANES {
            scores[lane] = larger(own[lane], scores[lane]);
        }
    }
    (labels, scores)
}

/// The columns of an output, cut at the borders of spans and every few columns.
fn blocks(spans: &[Span], taps: &[Tap]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (idx, span) in spans.iter().enumerate() {
        for begin in span.cols.clone().step_by(LANES) {
            let cols = begin..(begin + LANES).min(span.cols.end);
            let mut weights = [0.0; LANES];
            weights.iter_mut().zip(&taps[cols.clone()]).for_each(|(weight, tap)| *weight = tap.weight);
            blocks.push(Block { cols, weights, span: idx });
        }
    }
    blocks
}

#[cfg(test)]
mod tests;
