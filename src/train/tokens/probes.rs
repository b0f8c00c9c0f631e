//! What tokens know of their patch: where it is, and what it shows. Linear models on frozen tokens (section 2.2 of Darcet et al., ICLR 2024).
//!
//! # Design
//! Both are fitted in closed form or by few steps on all tokens of some photos, and measured on those of others, ordinary tokens and outliers
//! apart. The paper leaves the settings of its probes open, so that only numbers of this module compare with each other.

use tch::{Kind, Tensor};

use crate::linear::{Standard, learn};

/// Steps of the position probe.
const STEPS: u64 = 600;
/// Weight of the ridge, as a part of the mean variance of a channel: it only keeps the solution finite.
const RIDGE: f64 = 1e-4;

/// Tokens of photos, and what is asked of them.
///
/// # Shapes
/// - `tokens`: `[N, D]` f32
/// - `cells`: `[N]` i64, which cell of the grid each is, row by row
/// - `pixels`: `[N, 3 p p]` f32, the normalised patch
/// - `is_outlier`: `[N]` bool
#[derive(Debug)]
pub struct Asked {
    /// Tokens after the final norm.
    pub tokens: Tensor,
    /// Cell of each.
    pub cells: Tensor,
    /// Patch of each.
    pub pixels: Tensor,
    /// Which of them are outliers.
    pub is_outlier: Tensor,
}

/// What one group of tokens knows. All are `None` for a group without tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Known {
    /// Tokens.
    pub n: i64,
    /// Share whose cell is told exactly, in \[0, 1\].
    pub position: Option<f64>,
    /// Mean distance of the told cell to the true one, in patches.
    pub distance: Option<f64>,
    /// Mean Euclidean distance of the told pixels to the true ones, over the `3 p p` normalised values of a patch.
    pub pixels: Option<f64>,
    /// The same for the mean patch, which knows nothing.
    pub pixels_blind: Option<f64>,
}

/// Fits both probes to the tokens of `train`, and measures them on ordinary tokens and on outliers of `test`.
#[must_use]
pub fn measure(train: &Asked, test: &Asked, cols: i64, seed: u64) -> [Known; 2] {
    let standard = Standard::of(&train.tokens);
    let (known, ask) = (standard.apply(&train.tokens), standard.apply(&test.tokens));
    let told_cells = learn(&known, &train.cells, STEPS, seed)(&ask);
    let told_pixels = reconstruction(&known, &train.pixels)(&ask);
    let blind = train.pixels.mean_dim([0i64].as_slice(), true, Kind::Float);
    let far = |a: &Tensor, b: &Tensor| (a - b).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).sqrt();
    let right = told_cells.eq_tensor(&test.cells).to_kind(Kind::Float);
    let distance = apart(&told_cells, &test.cells, cols);
    let (error, error_blind) = (far(&told_pixels, &test.pixels), far(&test.pixels, &blind));
    [test.is_outlier.logical_not(), test.is_outlier.shallow_clone()].map(|group| {
        let n = group.sum(Kind::Int64).int64_value(&[]);
        let mean = |of: &Tensor| (n > 0).then(|| of.masked_select(&group).mean(Kind::Double).double_value(&[]));
        Known { n, position: mean(&right), distance: mean(&distance), pixels: mean(&error), pixels_blind: mean(&error_blind) }
    })
}

/// Ridge regression to the pixels, in closed form.
fn reconstruction(tokens: &Tensor, pixels: &Tensor) -> impl Fn(&Tensor) -> Tensor + use<> {
    let mean = pixels.mean_dim([0i64].as_slice(), true, Kind::Double);
    let tokens = tokens.to_kind(Kind::Double);
    let d = tokens.size()[1];
    let gram = tokens.transpose(0, 1).matmul(&tokens);
    let ridge = gram.trace().double_value(&[]) / as_f64(d) * RIDGE;
    let gram = gram + Tensor::eye(d, (Kind::Double, tokens.device())) * ridge;
    let weight = Tensor::linalg_solve(&gram, &tokens.transpose(0, 1).matmul(&(pixels.to_kind(Kind::Double) - &mean)), true);
    move |tokens| (tokens.to_kind(Kind::Double).matmul(&weight) + &mean).to_kind(Kind::Float)
}

/// Distance of cells, in patches.
fn apart(a: &Tensor, b: &Tensor, cols: i64) -> Tensor {
    let rows = |of: &Tensor| of.divide_scalar_mode(cols, "floor").to_kind(Kind::Float);
    let columns = |of: &Tensor| of.remainder(cols).to_kind(Kind::Float);
    ((rows(a) - rows(b)).square() + (columns(a) - columns(b)).square()).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "channels")]
fn as_f64(n: i64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tch::Device;

    use super::*;

    /// Tokens that hold their cell and their pixels, but for outliers, which hold noise; 6 cells in 2 rows, 8 channels, 3 pixels.
    fn asked(n: i64, seed: i64) -> Asked {
        tch::manual_seed(seed);
        let float = (Kind::Float, Device::Cpu);
        let cells = Tensor::randint(6, [n], (Kind::Int64, Device::Cpu));
        let pixels = Tensor::randn([n, 3], float);
        let is_outlier = Tensor::rand([n], float).lt(0.1);
        let honest = Tensor::cat(&[cells.one_hot(6).to_kind(Kind::Float).narrow(1, 0, 5), pixels.shallow_clone()], 1);
        let tokens = Tensor::randn([n, 8], float).where_self(&is_outlier.unsqueeze(1), &honest);
        Asked { tokens, cells, pixels, is_outlier }
    }

    #[test]
    fn tokens_that_hold_place_and_pixels_give_them_back_and_outliers_do_not() {
        let [ordinary, outliers] = measure(&asked(4000, 1), &asked(1000, 2), 3, 0);
        assert_eq!(ordinary.n + outliers.n, 1000);
        assert!(ordinary.position.unwrap() > 0.95, "{ordinary:?}");
        assert!(outliers.position.unwrap() < 0.5, "{outliers:?}");
        assert!(ordinary.distance.unwrap() < 0.2 && outliers.distance.unwrap() > 0.5);
        assert!(ordinary.pixels.unwrap() < 0.6 * ordinary.pixels_blind.unwrap(), "{ordinary:?}");
        assert!(outliers.pixels.unwrap() > outliers.pixels_blind.unwrap(), "{outliers:?}");
    }

    #[test]
    fn a_group_without_tokens_has_no_numbers() {
        let mut test = asked(200, 3);
        test.is_outlier = test.is_outlier.zeros_like();
        let [_, outliers] = measure(&asked(400, 4), &test, 3, 0);
        assert_eq!(outliers, Known::default());
    }

    #[test]
    fn distances_of_cells_are_in_patches() {
        let told = Tensor::from_slice(&[0i64, 5, 4]);
        let distance = apart(&told, &Tensor::from_slice(&[0i64, 0, 3]), 3);
        let expected = [0.0, 5f64.sqrt(), 1.0];
        assert!(
            expected
                .iter()
                .enumerate()
                .all(|(idx, expected)| (distance.double_value(&[i64::try_from(idx).unwrap()]) - expected).abs() < 1e-6)
        );
    }
}
