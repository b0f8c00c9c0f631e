//! The classes that matter between two rows of cells.
//!
//! # Design
//! A score between four cells is a mixture of those at the four. A class whose highest corner is below a level is below it everywhere
//! between them. For the best class there is a level too: where classes win at one corner or another, their mean is a mixture like any
//! score, so nowhere below its own lowest corner, and the best of them is at least their mean. Looking for candidates costs `K`
//! comparisons for each four cells; pixels then ask only the candidates.

use std::ops::Range;

use crate::masks::{
    Sampler,
    axis::{Tap, mix},
    sampler::{RowPair, Span},
};

/// How far rounding may lift a score above the highest of its corners, relative to the largest score: a few units of 2^-24.
const SLACK: f32 = 1e-6;
/// Scores that are compared at once.
const LANES: usize = 8;

/// Which classes matter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Those that may have the highest score of all.
    Best,
    /// Those that may reach this score.
    AtLeast(f32),
}

/// A class that may matter between four cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// In the sampler's set.
    pub(super) place: usize,
    /// Scores above left, above right, below left, below right.
    corners: [f32; 4],
}

/// Candidates between two rows of cells, for each span of columns; the order of the set is kept.
#[derive(Debug)]
pub(super) struct Strip {
    wanted: Wanted,
    rows: Option<(usize, usize)>,
    pair: RowPair,
    /// The higher score of the two rows, `[columns in use, k]`.
    highs: Vec<f32>,
    /// Places of the best classes above and below, `[columns in use]`.
    winners: Vec<[usize; 2]>,
    all: Vec<Candidate>,
    of_span: Vec<Range<usize>>,
}

impl Candidate {
    /// Scores at the two columns of cells, at a height between the rows.
    #[inline]
    pub(super) fn ends(&self, weight: f32) -> [f32; 2] {
        let [above_left, above_right, below_left, below_right] = self.corners;
        [mix(above_left, below_left, weight), mix(above_right, below_right, weight)]
    }
}

impl Strip {
    pub(super) fn new(wanted: Wanted) -> Self {
        let (highs, winners, all, of_span) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { wanted, rows: None, pair: RowPair::default(), highs, winners, all, of_span }
    }

    /// Looks for candidates, unless the last row lay between the same rows of cells.
    pub(super) fn find(&mut self, sampler: &Sampler<'_>, tap: &Tap, spans: &[Span]) {
        if self.rows == Some((tap.first, tap.second)) {
            return;
        }
        self.rows = Some((tap.first, tap.second));
        sampler.load(tap, &mut self.pair);
        let k = sampler.classes().classes().len();
        let RowPair { top, bottom, .. } = &self.pair;
        let bottom = &bottom[..top.len()];
        self.highs.resize(top.len(), 0.0);
        for (idx, high) in self.highs.iter_mut().enumerate() {
            *high = larger(top[idx], bottom[idx]);
        }
        self.winners.clear();
        if matches!(self.wanted, Wanted::Best) {
            let winners = |at: usize| [place_of_best(&top[at..at + k]), place_of_best(&bottom[at..at + k])];
            self.winners.extend((0..top.len()).step_by(k).map(winners));
        }
        self.all.clear();
        self.of_span.clear();
        for span in spans {
            let level = match self.wanted {
                Wanted::Best => self.level_of_best(k, span),
                Wanted::AtLeast(level) => level,
            };
            let begin = self.all.len();
            self.find_between(k, level - SLACK * sampler.scores().largest(), span);
            self.of_span.push(begin..self.all.len());
        }
    }

    /// The candidates of a span.
    pub(super) fn candidates(&self, span: usize) -> &[Candidate] {
        &self.all[self.of_span[span].clone()]
    }

    /// Scores of a class at the four cells around a span.
    fn corners(&self, k: usize, span: &Span, place: usize) -> [f32; 4] {
        let (left, right) = (span.left * k + place, span.right * k + place);
        [self.pair.top[left], self.pair.top[right], self.pair.bottom[left], self.pair.bottom[right]]
    }

    /// What the best class reaches everywhere between four cells: the lowest corner of the mean of those that win at a corner.
    fn level_of_best(&self, k: usize, span: &Span) -> f32 {
        let ([a, b], [c, d]) = (self.winners[span.left], self.winners[span.right]);
        let (mut sums, mut n_classes) = ([0f32; 4], 0f32);
        for (place, is_new) in [(a, true), (b, b != a), (c, c != a && c != b), (d, d != a && d != b && d != c)] {
            if is_new {
                let corners = self.corners(k, span, place);
                sums.iter_mut().enumerate().for_each(|(idx, sum)| *sum += corners[idx]);
                n_classes += 1.0;
            }
        }
        sums.into_iter().fold(f32::INFINITY, f32::min) / n_classes
    }

    /// Adds the classes that reach a level at one of the cells around a span.
    fn find_between(&mut self, k: usize, level: f32, span: &Span) {
        for begin in (0..k).step_by(LANES) {
            let end = (begin + LANES).min(k);
            let lefts = &self.highs[span.left * k + begin..span.left * k + end];
            let rights = &self.highs[span.right * k + begin..span.right * k + end];
            let reaches = |idx: usize| (lefts[idx] >= level) | (rights[idx] >= level);
            // Several classes at once first: most are far below.
            if !(0..lefts.len()).fold(false, |any, idx| any | reaches(idx)) {
                continue;
            }
            for place in (begin..end).filter(|place| reaches(place - begin)) {
                let corners = self.corners(k, span, place);
                self.all.push(Candidate { place, corners });
            }
        }
    }
}

/// The larger of two numbers; compiles to one instruction, as `f32::max`, which knows of what is no number, does not.
#[inline]
pub(super) fn larger(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

/// Where the largest score stands; of several, the first.
fn place_of_best(scores: &[f32]) -> usize {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, highest) in highest.iter_mut().enumerate() {
            *highest = larger(chunk[lane], *highest);
        }
    }
    let highest = highest.iter().chain(rest).fold(f32::NEG_INFINITY, |highest, score| larger(*score, highest));
    scores.iter().position(|score| *score >= highest).unwrap_or_default()
}
