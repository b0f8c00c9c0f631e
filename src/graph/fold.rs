//! Makes the inputs of a block's linear layers fit for bytes, without a change of what the block computes.
//!
//! # Design
//! A layer's input x has channels of very different width, and one step for all of them (what integer products need) is too coarse for
//! the narrow ones. With x = c + s u, c the middle of each channel and s a width of it,
//!
//! ```text
//! W x + b = (W diag(s)) u + (b + W c)
//! ```
//!
//! so the layer can read u instead, whose channels lie around zero and are alike, if whatever makes x makes u. After a LayerNorm that is
//! free: scale and shift of the norm become g / s and (beta - c) / s. For the output projection of the attention too: rows of a softmax
//! sum to one, so that the value projection gets it, (`W_v / s`, (`b_v` - c) / s), and the value facet is made whole again where it is
//! offered. Behind an activation function nothing is free; there c = 0 and one multiplication by 1 / s is added.
//!
//! The width is that of SmoothQuant (Xiao et al., ICML 2023, equation 4), s = r^a / m^(1 - a), with r half the range of the channel and m
//! the largest weight that reads it: what is taken from the activations is given to the weights.
//! README has what it keeps on the default model, and `benches/int8_forms.py` measures it beside other forms.

use ndarray::{Array1, Axis};

use crate::weights::{BlockRanges, Ffn, Linear, Norm, Range, VitBlock};

/// Share `a` of the activations' width that goes to the weights.
const SMOOTHING: f32 = 0.7;
/// Smallest half range and weight: for channels that never change, or that nothing reads.
const FLOOR: f32 = 1e-6;
/// Largest value of a byte.
const LEVELS: f32 = 255.0;

/// A block whose inputs of linear layers are alike in all channels, and the steps of these inputs. LayerScale is folded in.
#[derive(Clone, Debug)]
pub(super) struct FoldedBlock {
    /// The block; its `scale1` and `scale2` are none.
    pub(super) block: VitBlock,
    /// Steps of what query, key and value projections read.
    pub(super) attention: Step,
    /// Steps of what the output projection reads.
    pub(super) projection: Step,
    /// Steps of what the first layer of the feed-forward network reads.
    pub(super) ffn: Step,
    /// Steps of what its last layer reads, after the multiplication by `hidden_factor`.
    pub(super) hidden: Step,
    /// 1 / s of the last layer's input.
    pub(super) hidden_factor: Array1<f32>,
    /// s and c of the values: what the value projection was divided by, and what was subtracted before.
    pub(super) value: (Array1<f32>, Array1<f32>),
}

/// Bytes for numbers: q = round(x / scale) + zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

/// Middle `c` and width `s` of the channels.
struct Spread {
    middle: Array1<f32>,
    width: Array1<f32>,
}

/// Folds a block.
pub(super) fn fold(block: &VitBlock, ranges: &BlockRanges) -> FoldedBlock {
    let mut block = without_layer_scale(block);
    let attention = Spread::new(&ranges.attention, &[&block.query, &block.key, &block.value]);
    attention.leave(&mut block.norm1);
    for layer in [&mut block.query, &mut block.key, &mut block.value] {
        attention.enter(layer);
    }
    let projection = Spread::new(&ranges.projection, &[&block.proj]);
    projection.leave_layer(&mut block.value);
    projection.enter(&mut block.proj);
    let (first, last) = ffn_layers(&mut block.ffn);
    let ffn = Spread::new(&ranges.ffn, &[first]);
    ffn.leave(&mut block.norm2);
    ffn.enter(first);
    let hidden = Spread { middle: Array1::zeros(ranges.hidden.low.len()), ..Spread::new(&ranges.hidden, &[last]) };
    hidden.enter(last);
    FoldedBlock {
        attention: attention.step(&ranges.attention),
        projection: projection.step(&ranges.projection),
        ffn: ffn.step(&ranges.ffn),
        hidden: hidden.step(&ranges.hidden),
        hidden_factor: hidden.width.mapv(f32::recip),
        value: (projection.width, projection.middle),
        block,
    }
}

impl Spread {
    /// Of an input that all of `readers` read; widths with a geometric mean of one.
    fn new(range: &Range, readers: &[&Linear]) -> Self {
        let middle = (&range.low + &range.high) / 2.0;
        let half = ((&range.high - &range.low) / 2.0).mapv(|half| half.max(FLOOR));
        let largest = |channel: usize| {
            let weights = readers.iter().flat_map(|layer| layer.weight.column(channel).into_iter());
            weights.fold(FLOOR, |largest, weight| largest.max(weight.abs()))
        };
        let width: Array1<f32> = half
            .iter()
            .enumerate()
            .map(|(channel, half)| half.powf(SMOOTHING) / largest(channel).powf(1.0 - SMOOTHING))
            .collect();
        let mean = width.mapv(f32::ln).mean().unwrap_or(0.0).exp();
        Self { middle, width: width / mean }
    }

    /// The layer reads u = (x - c) / s.
    fn enter(&self, layer: &mut Linear) {
        layer.bias += &layer.weight.dot(&self.middle);
        layer.weight *= &self.width;
    }

    /// The norm makes u.
    fn leave(&self, norm: &mut Norm) {
        norm.weight /= &self.width;
        norm.bias = (&norm.bias - &self.middle) / &self.width;
    }

    /// The layer makes u.
    fn leave_layer(&self, layer: &mut Linear) {
        layer.weight /= &self.width.view().insert_axis(Axis(1));
        layer.bias = (&layer.bias - &self.middle) / &self.width;
    }

    /// The step of u that holds the range of x, and zero.
    fn step(&self, range: &Range) -> Step {
        let bound = |values: &Array1<f32>, pick: fn(f32, f32) -> f32| {
            let folded = (values - &self.middle) / &self.width;
            folded.iter().fold(0.0, |bound, value| pick(bound, *value))
        };
        let (low, high) = (bound(&range.low, f32::min), bound(&range.high, f32::max));
        let scale = ((high - low) / LEVELS).max(FLOOR);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255, and `as` saturates")]
        let zero = (-low / scale).round() as u8;
        Step { scale, zero }
    }
}

fn without_layer_scale(block: &VitBlock) -> VitBlock {
    let mut block = block.clone();
    let (scale1, scale2) = (block.scale1.take(), block.scale2.take());
    let (_first, last) = ffn_layers(&mut block.ffn);
    for (layer, scale) in [(last, scale2), (&mut block.proj, scale1)] {
        if let Some(scale) = scale {
            layer.weight *= &scale.view().insert_axis(Axis(1));
            layer.bias *= &scale;
        }
    }
    block
}

fn ffn_layers(ffn: &mut Ffn) -> (&mut Linear, &mut Linear) {
    match ffn {
        Ffn::Mlp { fc1, fc2 } => (fc1, fc2),
        Ffn::Swiglu { w12, w3 } => (w12, w3),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use ndarray::Array2;

    use super::*;

    fn numbers(n: usize, seed: f32) -> Array1<f32> {
        (0..n).map(|i| (seed + i as f32 * 1.37).sin() * (1.0 + (i % 5) as f32 * 4.0)).collect()
    }

    fn matrix(rows: usize, cols: usize, seed: f32) -> Array2<f32> {
        numbers(rows * cols, seed).into_shape_with_order((rows, cols)).unwrap()
    }

    #[test]
    fn a_layer_that_reads_folded_inputs_gives_what_it_gave() {
        let layer = Linear { weight: matrix(6, 8, 0.3), bias: numbers(6, 2.0) };
        let range = Range { low: numbers(8, 5.0) - 30.0, high: numbers(8, 1.0) + 30.0 };
        let spread = Spread::new(&range, &[&layer]);
        let mut norm = Norm { weight: numbers(8, 9.0), bias: numbers(8, 4.0) };
        let normalised = numbers(8, 7.0);
        let expected = layer.weight.dot(&(&normalised * &norm.weight + &norm.bias)) + &layer.bias;
        let mut folded = layer;
        spread.enter(&mut folded);
        spread.leave(&mut norm);
        let got = folded.weight.dot(&(&normalised * &norm.weight + &norm.bias)) + &folded.bias;
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 1e-4 * expected.abs().max(100.0), "{got} {expected}");
        }
    }

    #[test]
    fn the_step_holds_the_whole_range_and_zero() {
        let layer = Linear { weight: matrix(4, 3, 0.1), bias: Array1::zeros(4) };
        let range = Range { low: ndarray::array![-8.0, 0.0, 2.0], high: ndarray::array![2.0, 0.0, 3.0] };
        let spread = Spread::new(&range, &[&layer]);
        let Step { scale, zero } = spread.step(&range);
        for bound in [&range.low, &range.high] {
            for value in &((bound - &spread.middle) / &spread.width) {
                let level = value / scale + f32::from(zero);
                // Half a level: the zero point is rounded.
                assert!((-0.51..=255.51).contains(&level), "{level}");
            }
        }
    }
}
