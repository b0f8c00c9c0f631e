//! The aggregation head of SelfPatch: a learned query looks at tokens through two blocks of class attention and becomes one token.
//!
//! In: patch tokens of a backbone, as they leave it. Out: a token of the image, and tokens of the patches. Of the student's patches, each is
//! its own token; of the teacher's, each is what the same query finds in its neighbours.
//!
//! # Design
//! Keys and values depend on one token alone, and patches do not change between the blocks: they are computed once a token and then
//! gathered, instead of once for each patch that has the token as its neighbour.

use tch::{
    Tensor,
    nn::{self, Init},
};

use crate::pretrain::neighbours::Chosen;

/// Blocks of class attention.
const N_BLOCKS: usize = 2;
/// Of every LayerNorm.
const NORM_EPS: f64 = 1e-6;
/// Spread of matrices and of the query at the beginning.
const BEGIN: Init = Init::Randn { mean: 0.0, stdev: 0.02 };

/// The head, under the authors' names.
#[derive(Debug)]
pub struct Aggregation {
    /// The query, `[1, 1, D]`.
    query: Tensor,
    blocks: Vec<ClassBlock>,
    norm: Pair,
}

/// What the head makes of an image.
#[derive(Debug)]
pub struct Aggregated {
    /// `[B, D]`.
    pub image: Tensor,
    /// `[B, N, D]`.
    pub patches: Tensor,
}

/// Weight and bias.
type Pair = [Tensor; 2];

/// One block: only the query goes on.
#[derive(Debug)]
struct ClassBlock {
    heads: i64,
    norm1: Pair,
    query: Pair,
    key: Pair,
    value: Pair,
    proj: Pair,
    norm2: Pair,
    wide: Pair,
    narrow: Pair,
}

/// A projection of tokens into keys and values, `[M, n, D]` each, and which of them are there, `[M, n]`; all, if not said.
struct Memory {
    keys: Tensor,
    values: Tensor,
    is_there: Option<Tensor>,
}

impl Aggregation {
    /// A fresh one for tokens of so many channels.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, channels: i64, heads: i64) -> Self {
        let query = root.var("cls_token", &[1, 1, channels], BEGIN);
        let blocks = (0..N_BLOCKS).map(|idx| ClassBlock::new(&(root / "cls_blocks" / idx), channels, heads)).collect();
        Self { query, blocks, norm: norm(&(root / "norm"), channels) }
    }

    /// Tokens of images and of their patches; `chosen` are the neighbours that speak for each patch, of a teacher.
    ///
    /// # Shapes
    /// - `patches`: `[B, N, D]` f32
    pub fn forward(&self, patches: &Tensor, chosen: Option<&Chosen>) -> Aggregated {
        let memories: Vec<Memory> = self.blocks.iter().map(|block| block.memory(patches)).collect();
        let image = self.looked(&memories).squeeze_dim(1);
        let patches = chosen.map_or_else(|| patches.shallow_clone(), |chosen| self.of_neighbours(&memories, chosen));
        Aggregated { image: normed(&image, &self.norm), patches: normed(&patches, &self.norm) }
    }

    /// What the query becomes, `[M, 1, D]`.
    fn looked(&self, memories: &[Memory]) -> Tensor {
        let steps = self.blocks.iter().zip(memories);
        steps.fold(self.query.shallow_clone(), |query, (block, memory)| block.forward(&query, memory))
    }

    /// What the query becomes for each patch, `[B, N, D]`.
    fn of_neighbours(&self, memories: &[Memory], chosen: &Chosen) -> Tensor {
        let size = chosen.indices.size();
        let (n_images, n_patches, k) = (size[0], size[1], size[2]);
        let first = Tensor::arange(n_images, (tch::Kind::Int64, chosen.indices.device())).view([-1, 1, 1]) * n_patches;
        let indices = (&chosen.indices + first).view([-1]);
        let gather = |tokens: &Tensor| tokens.flatten(0, 1).index_select(0, &indices).view([n_images * n_patches, k, -1]);
        let is_there = chosen.is_there.view([n_images * n_patches, k]);
        let gathered = |memory: &Memory| Memory {
            keys: gather(&memory.keys),
            values: gather(&memory.values),
            is_there: Some(is_there.shallow_clone()),
        };
        let memories: Vec<Memory> = memories.iter().map(gathered).collect();
        self.looked(&memories).view([n_images, n_patches, -1])
    }
}

impl ClassBlock {
    fn new(path: &nn::Path<'_>, channels: i64, heads: i64) -> Self {
        let (attention, mlp) = (path / "attn", path / "mlp");
        let square = |name: &str| linear(&(&attention / name), channels, channels);
        Self {
            heads,
            norm1: norm(&(path / "norm1"), channels),
            query: square("q"),
            key: square("k"),
            value: square("v"),
            proj: square("proj"),
            norm2: norm(&(path / "norm2"), channels),
            wide: linear(&(&mlp / "fc1"), channels, 4 * channels),
            narrow: linear(&(&mlp / "fc2"), 4 * channels, channels),
        }
    }

    fn memory(&self, tokens: &Tensor) -> Memory {
        let tokens = normed(tokens, &self.norm1);
        Memory { keys: applied(&tokens, &self.key), values: applied(&tokens, &self.value), is_there: None }
    }

    /// The query, `[1 or M, 1, D]`, after it has looked at itself and at a memory: `[M, 1, D]`.
    fn forward(&self, query: &Tensor, memory: &Memory) -> Tensor {
        let query = query + self.attention(query, memory);
        let hidden = applied(&normed(&query, &self.norm2), &self.wide).gelu("none");
        &query + applied(&hidden, &self.narrow)
    }

    fn attention(&self, query: &Tensor, memory: &Memory) -> Tensor {
        let size = memory.keys.size();
        let (n_queries, width) = (size[0], size[2]);
        let own = normed(query, &self.norm1);
        let of_own = |layer: &Pair| applied(&own, layer).expand([n_queries, -1, -1], false);
        let heads = |tokens: &Tensor| tokens.reshape([n_queries, -1, self.heads, width / self.heads]).transpose(1, 2);
        let keys = heads(&Tensor::cat(&[of_own(&self.key), memory.keys.shallow_clone()], 1));
        let values = heads(&Tensor::cat(&[of_own(&self.value), memory.values.shallow_clone()], 1));
        // The query itself is always there.
        let mask = memory.is_there.as_ref().map(|is_there| is_there.constant_pad_nd([1, 0]).logical_or(&first(is_there)));
        let mask = mask.map(|mask| mask.view([n_queries, 1, 1, -1]));
        let mixed =
            Tensor::scaled_dot_product_attention(&heads(&of_own(&self.query)), &keys, &values, mask, 0.0, false, None, false);
        applied(&mixed.transpose(1, 2).flatten(2, 3), &self.proj)
    }
}

/// `[1, 1 + n]` bool: the first alone.
fn first(is_there: &Tensor) -> Tensor {
    let n = is_there.size().last().copied().unwrap_or_default();
    Tensor::arange(1 + n, (tch::Kind::Int64, is_there.device())).eq(0).unsqueeze(0)
}

fn norm(path: &nn::Path<'_>, channels: i64) -> Pair {
    [path.ones("weight", &[channels]), path.zeros("bias", &[channels])]
}

fn linear(path: &nn::Path<'_>, n_inputs: i64, n_outputs: i64) -> Pair {
    [path.var("weight", &[n_outputs, n_inputs], BEGIN), path.zeros("bias", &[n_outputs])]
}

fn applied(x: &Tensor, [weight, bias]: &Pair) -> Tensor {
    x.linear(weight, Some(bias))
}

fn normed(x: &Tensor, [weight, bias]: &Pair) -> Tensor {
    x.layer_norm(weight.size(), Some(weight), Some(bias), NORM_EPS, true)
}
