//! A linear classifier on frozen features: how much of something can be read off them.

use tch::{Kind, Tensor, nn};

use crate::{config::half_cosine, optim::Adam};

/// Vectors of a step, and the highest learning rate, on features of deviation 1.
const BATCH: i64 = 2048;
const RATE: f64 = 1e-2;

/// Mean and deviation of each channel of some vectors, `[1, D]`.
#[derive(Debug)]
pub struct Standard {
    mean: Tensor,
    deviation: Tensor,
}

impl Standard {
    /// Of vectors `[N, D]`.
    #[must_use]
    pub fn of(vectors: &Tensor) -> Self {
        let mean = vectors.mean_dim([0i64].as_slice(), true, Kind::Float);
        let deviation = (vectors - &mean).square().mean_dim([0i64].as_slice(), true, Kind::Float).sqrt().clamp_min(1e-6);
        Self { mean, deviation }
    }

    /// Vectors `[N, D]` with a mean of 0 and a deviation of 1, as far as they are like those that it is of.
    pub fn apply(&self, vectors: &Tensor) -> Tensor {
        (vectors - &self.mean) / &self.deviation
    }
}

/// Learns to tell the classes of vectors, by Adam along one cosine, from weights of zero; gives what it then says of others.
///
/// # Shapes
/// - `vectors`: `[N, D]` f32, of deviation 1 or so
/// - `classes`: `[N]` i64 from 0
pub fn learn(vectors: &Tensor, classes: &Tensor, n_steps: u64, seed: u64) -> impl Fn(&Tensor) -> Tensor + use<> {
    tch::manual_seed(i64::try_from(seed).unwrap_or_default());
    let n_classes = classes.max().int64_value(&[]) + 1;
    let store = nn::VarStore::new(vectors.device());
    let weight = store.root().var("weight", &[n_classes, vectors.size()[1]], nn::Init::Const(0.0));
    let bias = store.root().var("bias", &[n_classes], nn::Init::Const(0.0));
    let mut adam = Adam::new(&store);
    let n = vectors.size()[0];
    for step in 0..n_steps {
        let part = Tensor::randint(n, [BATCH.min(n)], (Kind::Int64, vectors.device()));
        let logits = vectors.index_select(0, &part).linear(&weight, Some(&bias));
        adam.accumulate(&logits.cross_entropy_for_logits(&classes.index_select(0, &part)));
        #[expect(clippy::cast_precision_loss, reason = "steps are few")]
        adam.step(RATE * half_cosine(step as f64 / n_steps as f64));
    }
    move |vectors| tch::no_grad(|| vectors.linear(&weight, Some(&bias)).argmax(1, false))
}
