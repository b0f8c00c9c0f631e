//! How far a head's features are from those of the larger image, on examples that it did not learn from.

use std::path::PathBuf;

use densevit::manifest::LiftScore;
use tch::{Kind, Tensor};

use crate::{
    data::{
        cache::read,
        loader::{Shape, stack},
        source::Source,
    },
    head::Head,
    loss::cosine_distance,
};

/// Examples that the mean descriptor is taken from.
const N_FOR_MEAN: usize = 64;

/// Mean cosine distance on the validation examples, one a scale: half to full, quarter to half and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Of the head.
    pub head: Vec<f64>,
    /// Of bilinear upsampling.
    pub bilinear: Vec<f64>,
}

impl Scores {
    /// How much smaller the head's distance is than bilinear's, over all scales: 0.1 for a tenth.
    #[must_use]
    pub fn gain(&self) -> f64 {
        1.0 - self.head.iter().sum::<f64>() / self.bilinear.iter().sum::<f64>()
    }

    /// For logs.
    #[must_use]
    pub fn describe(&self) -> String {
        let listed = |values: &[f64]| values.iter().map(|value| format!("{value:.5}")).collect::<Vec<_>>().join(" / ");
        format!("{} (bilinear {}, {:+.1} %)", listed(&self.head), listed(&self.bilinear), -100.0 * self.gain())
    }

    /// For a manifest. `grid` is the number of cells on a side of the full image.
    #[must_use]
    pub fn listed(&self, grid: i64) -> Vec<LiftScore> {
        let pairs = self.head.iter().zip(&self.bilinear).enumerate();
        let score = |(idx, (distance, bilinear)): (usize, (&f64, &f64))| LiftScore {
            grid: u32::try_from(grid >> (idx + 1)).unwrap_or_default(),
            distance: *distance,
            bilinear: *bilinear,
        };
        pairs.map(score).collect()
    }
}

/// Mean distances of a head and of bilinear upsampling on cached examples.
///
/// # Errors
/// When an example cannot be read.
pub fn validate(head: &Head, files: &[PathBuf], batch: usize, shape: Shape) -> anyhow::Result<Scores> {
    let zeros = || vec![0.0; shape.scales as usize];
    let mut sums = Scores { head: zeros(), bilinear: zeros() };
    for part in files.chunks(batch) {
        let batch = stack(part.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?, shape)?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let share = part.len() as f64 / files.len() as f64;
        let scales = batch.images.iter().zip(batch.features.windows(2)).zip(sums.head.iter_mut().zip(&mut sums.bilinear));
        tch::no_grad(|| {
            for ((image, maps), (of_head, of_bilinear)) in scales {
                let [large, small] = maps else { continue };
                let bilinear = small.upsample_bilinear2d([large.size()[2], large.size()[3]], false, None, None);
                *of_head += share * cosine_distance(&head.forward(image, small, false), large).double_value(&[]);
                *of_bilinear += share * cosine_distance(&bilinear, large).double_value(&[]);
            }
        });
    }
    Ok(sums)
}

/// Mean descriptor of the first examples' half-size images, `[1, C, 1, 1]`.
///
/// # Errors
/// When an example cannot be read.
pub fn mean_descriptor(source: &mut Source, shape: Shape) -> anyhow::Result<Tensor> {
    let first: Vec<(u64, usize)> = (0..source.len().min(N_FOR_MEAN)).map(|idx| (0, idx)).collect();
    let batch = stack(source.read(&first)?, shape)?;
    Ok(batch.features[1].mean_dim([0i64, 2, 3].as_slice(), true, Kind::Float))
}
