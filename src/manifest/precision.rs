//! Number formats of graphs.

use serde::{Deserialize, Serialize};

/// Element type of the weights and the matrix products; inputs and outputs of the graphs are f32 (and u8) in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE single.
    Fp32,
    /// IEEE half; LayerNorm and softmax accumulate in single.
    Fp16,
    /// Linear layers of the backbone in 8-bit integers, with fixed steps from calibration; all else, heads too, in single. CPU only.
    Int8,
}

impl Precision {
    /// The name used in manifests and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }

    /// Precision of the heads of a backbone of this one.
    #[must_use]
    pub fn of_heads(self) -> Self {
        match self {
            Self::Fp32 | Self::Int8 => Self::Fp32,
            Self::Fp16 => Self::Fp16,
        }
    }
}
