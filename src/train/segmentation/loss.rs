//! The objective of SegViT (Zhang et al., NeurIPS 2022, section 3.1): class `c` belongs to query `c`, so that there is nothing to match.
//!
//! Of an image with the classes P, query `c` should say `c` if P holds it and "no object" otherwise, and its mask should be the pixels of
//! `c`. With `n` masks in a batch, a stage costs
//!
//! ```text
//! CE  = sum w_i CE_i / sum w_i                      over all queries, w = 0.1 where there is no object
//! FOC = 1/n sum mean a_t (1 - p_t)^2 BCE            over the masks of P and their pixels, a = 0.25 (Lin et al., ICCV 2017)
//! DICE = 1/n sum 1 - (2 sum p t + 1) / (sum p + sum t + 1)
//! CE + 20 FOC + DICE
//! ```
//!
//! # Design
//! Pixels that do not count are background of every mask in the authors' code; [`Ignored::Masked`], the default here, leaves them out of
//! both sums. What either brought is in README.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::segmentation::{
    data::classes::IGNORED,
    output::{Masks, Output, upsampled},
};

/// Weight of "no object" in the cross entropy.
const NO_OBJECT: f64 = 0.1;
/// Weight of the focal term.
const FOCAL: f64 = 20.0;
/// Weight of pixels of the mask in the focal term; the others have the rest.
const ALPHA: f64 = 0.25;

/// What pixels are that do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// Left out.
    Masked,
    /// Background of every mask, as in the authors' code.
    Parity,
}

/// What an image's labels ask of the masks.
struct Target {
    /// Class of each query, K for "no object", `[B, K]`.
    classes: Tensor,
    /// Places `b * K + c` of the classes that are there, `[P]`.
    places: Tensor,
    /// Their masks, `[P, H, W]`, 0 or 1.
    masks: Tensor,
    /// Which pixels count, `[P, H, W]`, 0 or 1; all if there is none.
    counts: Option<Tensor>,
}

/// The loss of a batch, summed over all stages; of a linear head, the mean cross entropy over the pixels that count.
///
/// # Shapes
/// - `labels`: `[B, H, W]` i64, 255 for pixels that do not count
pub fn loss(output: &Output, labels: &Tensor, ignored: Ignored) -> Tensor {
    match output {
        Output::Logits(logits) => linear_loss(logits, labels),
        Output::Masks(stages) => {
            let n_classes = stages.last().map_or(1, |stage| stage.masks.size()[1]);
            let target = Target::new(labels, n_classes, ignored);
            stages.iter().map(|stage| stage_loss(stage, &target)).sum()
        }
    }
}

impl Target {
    fn new(labels: &Tensor, n_classes: i64, ignored: Ignored) -> Self {
        let (kind, device) = (Kind::Int64, labels.device());
        let flat = labels.flatten(1, 2);
        let seen = Tensor::zeros([flat.size()[0], i64::from(IGNORED) + 1], (kind, device)).scatter_value(1, &flat, 1);
        let present = seen.narrow(1, 0, n_classes).gt(0);
        let classes = Tensor::arange(n_classes, (kind, device)).where_scalarother(&present, n_classes);
        let places = present.flatten(0, 1).nonzero().squeeze_dim(1);
        let (image, class) = (places.divide_scalar_mode(n_classes, "floor"), places.remainder(n_classes));
        let of_mask = labels.index_select(0, &image);
        let masks = of_mask.eq_tensor(&class.view([-1, 1, 1])).to_kind(Kind::Float);
        let counts = (ignored == Ignored::Masked).then(|| of_mask.ne(i64::from(IGNORED)).to_kind(Kind::Float));
        Self { classes, places, masks, counts }
    }
}

fn stage_loss(stage: &Masks, target: &Target) -> Tensor {
    let n_classes = stage.classes.size()[1];
    let mut weights = vec![1.0f32; usize::try_from(n_classes).unwrap_or_default()];
    #[expect(clippy::cast_possible_truncation, reason = "a small number")]
    weights.push(NO_OBJECT as f32);
    let weights = Tensor::from_slice(&weights).to_device(stage.classes.device());
    let logits = stage.classes.flatten(0, 1);
    let classes = logits.cross_entropy_loss(&target.classes.flatten(0, 1), Some(weights), Reduction::Mean, -100, 0.0);
    if target.places.numel() == 0 {
        return classes;
    }
    let size = target.masks.size();
    let chosen = stage.masks.flatten(0, 1).index_select(0, &target.places).unsqueeze(0);
    let logits = upsampled(&chosen, [size[1], size[2]]).squeeze_dim(0);
    classes + focal(&logits, target) * FOCAL + dice(&logits, target)
}

/// Mean over the masks of the mean over the pixels that count.
fn focal(logits: &Tensor, target: &Target) -> Tensor {
    let masks = &target.masks;
    let bce = logits.binary_cross_entropy_with_logits::<Tensor>(masks, None, None, Reduction::None);
    // 1 - p_t is |p - t|.
    let miss = (logits.sigmoid() - masks).square();
    let weights = masks * (2.0 * ALPHA - 1.0) + (1.0 - ALPHA);
    let values = weights * miss * bce;
    let pixels = [1i64, 2];
    match &target.counts {
        None => values.mean(Kind::Float),
        Some(counts) => {
            let sums = (values * counts).sum_dim_intlist(pixels.as_slice(), false, Kind::Float);
            (sums / counts.sum_dim_intlist(pixels.as_slice(), false, Kind::Float).clamp_min(1.0)).mean(Kind::Float)
        }
    }
}

/// Mean over the masks.
fn dice(logits: &Tensor, target: &Target) -> Tensor {
    let shares = logits.sigmoid();
    let shares = target.counts.as_ref().map_or_else(|| shares.shallow_clone(), |counts| &shares * counts);
    let sum = |x: &Tensor| x.sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float);
    let overlap = sum(&(&shares * &target.masks)) * 2.0 + 1.0;
    let costs: Tensor = 1.0 - overlap / (sum(&shares) + sum(&target.masks) + 1.0);
    costs.mean(Kind::Float)
}

fn linear_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let size = labels.size();
    let logits = upsampled(logits, [size[1], size[2]]);
    let sum = logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, i64::from(IGNORED), 0.0);
    sum / labels.ne(i64::from(IGNORED)).sum(Kind::Float).clamp_min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of a dozen single-precision numbers.
    const CLOSE: f64 = 1e-5;

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Two classes, one image of 1 x 4 pixels with the labels 0, 0, ignored, ignored: class 1 is not there.
    fn case() -> (Output, Tensor) {
        let classes = Tensor::from_slice(&[2f32, 0.0, 1.0, 0.5, 0.0, -1.0]).view([1, 2, 3]);
        let masks = Tensor::from_slice(&[1f32, -1.0, 2.0, 0.5, 3.0, 3.0, 3.0, 3.0]).view([1, 2, 1, 4]);
        let labels = Tensor::from_slice(&[0i64, 0, 255, 255]).view([1, 1, 4]);
        (Output::Masks(vec![Masks { classes, masks }]), labels)
    }

    /// The same, worked out number by number.
    fn by_hand(ignored: Ignored) -> f64 {
        let ce = |logits: [f64; 3], class: usize| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[class];
        let classes = (ce([2.0, 0.0, 1.0], 0) + 0.1 * ce([0.5, 0.0, -1.0], 2)) / 1.1;
        let pixels: &[(f64, f64)] = match ignored {
            Ignored::Masked => &[(1.0, 1.0), (-1.0, 1.0)],
            Ignored::Parity => &[(1.0, 1.0), (-1.0, 1.0), (2.0, 0.0), (0.5, 0.0)],
        };
        let focal = |(x, t): &(f64, f64)| {
            let p = if *t > 0.5 { sigmoid(*x) } else { 1.0 - sigmoid(*x) };
            (if *t > 0.5 { 0.25 } else { 0.75 }) * (1.0 - p).powi(2) * -p.ln()
        };
        let focal = pixels.iter().map(focal).sum::<f64>() / f64::from(u32::try_from(pixels.len()).unwrap_or_default());
        let overlap: f64 = pixels.iter().map(|(x, t)| sigmoid(*x) * t).sum();
        let total: f64 = pixels.iter().map(|(x, t)| sigmoid(*x) + t).sum();
        classes + 20.0 * focal + 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    }

    #[test]
    fn the_loss_is_what_its_definition_gives_by_hand() {
        for ignored in [Ignored::Masked, Ignored::Parity] {
            let (output, labels) = case();
            let (got, expected) = (loss(&output, &labels, ignored).double_value(&[]), by_hand(ignored));
            assert!((got - expected).abs() < CLOSE, "{ignored:?}: {got}, by hand {expected}");
        }
    }

    #[test]
    fn masks_are_averaged_over_the_batch_and_stages_are_summed() {
        let (output, labels) = case();
        let twice = |x: &Tensor| Tensor::cat(&[x, x], 0);
        let Output::Masks(stages) = &output else { return };
        let double = || Masks { classes: twice(&stages[0].classes), masks: twice(&stages[0].masks) };
        let got = loss(&Output::Masks(vec![double(), double()]), &twice(&labels), Ignored::Masked).double_value(&[]);
        assert!((got - 2.0 * by_hand(Ignored::Masked)).abs() < CLOSE, "{got}");
    }

    #[test]
    fn an_image_of_which_nothing_counts_teaches_that_there_is_nothing() {
        let (output, labels) = case();
        let nothing = labels.full_like(i64::from(IGNORED));
        let ce = |logits: [f64; 3]| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[2];
        let got = loss(&output, &nothing, Ignored::Masked).double_value(&[]);
        assert!((got - (ce([2.0, 0.0, 1.0]) + ce([0.5, 0.0, -1.0])) / 2.0).abs() < CLOSE, "{got}");
        let linear = Output::Logits(Tensor::ones([1, 2, 1, 2], (Kind::Float, tch::Device::Cpu)));
        assert_eq!(loss(&linear, &nothing, Ignored::Masked).double_value(&[]), 0.0);
        let half = loss(&linear, &labels, Ignored::Masked).double_value(&[]);
        assert!((half - 2f64.ln()).abs() < CLOSE, "{half}");
    }
}
