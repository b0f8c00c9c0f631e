//! What goes on inside a backbone: its tokens after every block, and where the first of them look.

use tch::Tensor;

use crate::vit::Vit;

/// The way of some images through a backbone. `T` tokens stand before the patches: the class
/// token, where there is one, and the registers.
#[derive(Debug)]
pub struct Watched {
    /// Patches of the embedding, before positions are added, `[B, h, w, D]`.
    pub embedded: Tensor,
    /// All tokens after each block, before any norm, `[B, T + h * w, D]`.
    pub blocks: Vec<Tensor>,
    /// All tokens of the last block after the final norm, `[B, T + h * w, D]`.
    pub normed: Tensor,
    /// Attention of the first `T` tokens in the last block, `[B, heads, T, T + h * w]`; each row adds up to 1.
    pub attention: Tensor,
    /// Rows and columns of patches.
    pub grid: [i64; 2],
    /// `T`.
    pub n_prefix: i64,
    /// Whether the first token is the class token.
    pub has_cls: bool,
}

impl Vit {
    /// Runs the whole network, and keeps what happens.
    ///
    /// # Shapes
    /// - `pixels`: `[B, 3, H, W]` f32, normalised; sides are multiples of the patch
    pub fn watch(&mut self, pixels: &Tensor) -> Watched {
        let (embedded, mut stream) = self.start(pixels);
        let grid = [embedded.size()[1], embedded.size()[2]];
        let n_prefix = self.n_prefix();
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut attention = Tensor::new();
        for (idx, block) in self.blocks.iter().enumerate() {
            if idx + 1 == self.blocks.len() {
                attention = block.looks(&stream, n_prefix);
            }
            stream = block.forward(&stream, None, 0.0);
            blocks.push(stream.shallow_clone());
        }
        Watched { normed: self.normed(&stream), has_cls: self.cls.is_some(), embedded, blocks, attention, grid, n_prefix }
    }
}

impl Watched {
    /// Of all tokens of something, `[B, T + h * w, ...]`, those of the patches.
    pub fn patches(&self, tokens: &Tensor) -> Tensor {
        tokens.narrow(1, self.n_prefix, self.grid[0] * self.grid[1])
    }
}
