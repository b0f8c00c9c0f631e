//! What a head says of an image, and how scores are made of it.

use tch::{Kind, Tensor};

/// Class and mask logits of one stage.
///
/// # Shapes
/// - `classes`: `[B, K, K + 1]`, the last column is "no object"
/// - `masks`: `[B, K, h, w]`
#[derive(Debug)]
pub struct Masks {
    /// Of each query, over the classes.
    pub classes: Tensor,
    /// Of each query, over the grid.
    pub masks: Tensor,
}

/// What a head says.
#[derive(Debug)]
pub enum Output {
    /// Of all stages (or layers) that are taught; the last is the prediction.
    Masks(Vec<Masks>),
    /// Of a linear head, `[B, K, h, w]`.
    Logits(Tensor),
}

impl Output {
    /// Rows and columns of its grid.
    #[must_use]
    pub fn grid(&self) -> [i64; 2] {
        let size = match self {
            Self::Masks(stages) => stages.last().map(|stage| stage.masks.size()),
            Self::Logits(logits) => Some(logits.size()),
        };
        size.map_or([0, 0], |size| [size[2], size[3]])
    }

    /// Scores of the classes, `[B, K, H, W]`: the sum over the queries of softmax(class) x sigmoid(mask), or softmax of the logits.
    /// Logits of masks (or classes) are resized bilinearly to `size` before.
    pub fn scores(&self, size: [i64; 2]) -> Tensor {
        match self {
            Self::Logits(logits) => upsampled(logits, size).softmax(1, Kind::Float),
            Self::Masks(stages) => {
                let Some(last) = stages.last() else { return Tensor::new() };
                let n_classes = last.classes.size()[1];
                let shares = last.classes.softmax(-1, Kind::Float).narrow(2, 0, n_classes);
                let masks = upsampled(&last.masks, size).sigmoid().flatten(2, 3);
                shares.transpose(1, 2).matmul(&masks).view([-1, n_classes, size[0], size[1]])
            }
        }
    }
}

/// A map `[B, N, h, w]` at another size: bilinear, half-pixel centres.
pub fn upsampled(map: &Tensor, size: [i64; 2]) -> Tensor {
    let own = map.size();
    if own[2..] == size { map.shallow_clone() } else { map.to_kind(Kind::Float).upsample_bilinear2d(size, false, None, None) }
}
