//! What goes into the linear layers of a backbone: smallest and largest value of every channel over some photos. `densevit calibrate`
//! measures them, an 8-bit graph is built from them.

use ndarray::{Array1, Ix1};

use crate::weights::{Ffn, VitWeights, WeightsError, named::NamedTensors};

/// Smallest and largest value of each channel.
///
/// # Shapes
/// - both: `[K]`, `low <= high`
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Smallest value.
    pub low: Array1<f32>,
    /// Largest value.
    pub high: Array1<f32>,
}

/// Where in a block a linear layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerInput {
    /// What query, key and value projections read: the output of the first LayerNorm, `[D]`.
    Attention,
    /// What the output projection of the attention reads, `[D]`.
    Projection,
    /// What the first layer of the feed-forward network reads: the output of the second LayerNorm, `[D]`.
    Ffn,
    /// What its last layer reads, after the activation, `[hidden]`.
    Hidden,
}

impl LayerInput {
    /// All, in the order of the data.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Projection, Self::Ffn, Self::Hidden];

    /// Its name in a block.
    #[must_use]
    pub fn name(self, block: usize) -> String {
        let part = match self {
            Self::Attention => "attention",
            Self::Projection => "projection",
            Self::Ffn => "ffn",
            Self::Hidden => "hidden",
        };
        format!("ranges.{block}.{part}")
    }

    /// Names of its smallest and largest values: in files, and as outputs of graphs that measure them.
    #[must_use]
    pub fn names(self, block: usize) -> [String; 2] {
        ["low", "high"].map(|bound| format!("{}.{bound}", self.name(block)))
    }

    fn n_channels(self, weights: &VitWeights, block: usize) -> usize {
        let hidden = |ffn: &Ffn| match ffn {
            Ffn::Mlp { fc2: last, .. } | Ffn::Swiglu { w3: last, .. } => last.weight.ncols(),
        };
        match self {
            Self::Hidden => weights.blocks.get(block).map_or(0, |block| hidden(&block.ffn)),
            _ => weights.arch.width as usize,
        }
    }
}

/// The ranges of one block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockRanges {
    /// See [`LayerInput::Attention`].
    pub attention: Range,
    /// See [`LayerInput::Projection`].
    pub projection: Range,
    /// See [`LayerInput::Ffn`].
    pub ffn: Range,
    /// See [`LayerInput::Hidden`].
    pub hidden: Range,
}

/// Takes the ranges of every block of `weights` out of a file of them.
///
/// # Errors
/// [`WeightsError::Missing`] and [`WeightsError::Tensor`]: a tensor that is not there, does not fit the backbone, or is no range;
/// [`WeightsError::Unmatched`] for more blocks than the backbone has.
pub fn assemble_ranges(mut tensors: NamedTensors, weights: &VitWeights) -> Result<Vec<BlockRanges>, WeightsError> {
    let mut take = |block: usize, input: LayerInput| range(&mut tensors, &input.names(block), input.n_channels(weights, block));
    let blocks = (0..weights.blocks.len()).map(|block| {
        let [attention, projection, ffn, hidden] = LayerInput::ALL.map(|input| take(block, input));
        Ok(BlockRanges { attention: attention?, projection: projection?, ffn: ffn?, hidden: hidden? })
    });
    let blocks = blocks.collect::<Result<_, WeightsError>>()?;
    match tensors.names().next() {
        None => Ok(blocks),
        Some(name) => Err(WeightsError::Unmatched { key_map: "ranges", missing: String::new(), left_over: name.to_owned() }),
    }
}

fn range(tensors: &mut NamedTensors, [low, high]: &[String; 2], n_channels: usize) -> Result<Range, WeightsError> {
    let range = Range { low: tensors.take_shaped(low, Ix1(n_channels))?, high: tensors.take_shaped(high, Ix1(n_channels))? };
    let is_range = |(low, high): (&f32, &f32)| low.is_finite() && high.is_finite() && low <= high;
    if range.low.iter().zip(&range.high).all(is_range) {
        return Ok(range);
    }
    Err(WeightsError::Tensor { name: low.clone(), problem: "is not everywhere below its upper bound, or not finite".to_owned() })
}
