//! The LiFT head in the training framework (Suri et al., ECCV 2024), in its four forms. `densevit::graph` builds the same from the same
//! names; `tests/train` compares both.

use std::{collections::BTreeMap, path::Path};

use anyhow::{bail, ensure};
use densevit::{graph::bilinear_prior, manifest::LiftForm, weights::recognise_lift};
use tch::{
    Device, Kind, Tensor,
    nn::{self, ModuleT as _},
};

use crate::{
    checkpoint,
    config::{LiftConfig, Products},
};

/// Channels of the guidance.
pub(crate) const GUIDANCE: i64 = 32;

/// Shape of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// What the last layer's values mean.
    pub form: LiftForm,
    /// Channels of a descriptor.
    pub channels: i64,
    /// Pixels on a side of a patch.
    pub patch: i64,
    /// Width of the trunk, but for official heads.
    pub width: i64,
    /// Side of the window of guided and corrected heads.
    pub window: i64,
}

impl HeadShape {
    /// The head that `config` asks for on a backbone.
    #[must_use]
    pub fn new(config: &LiftConfig, channels: usize, patch: u32) -> Self {
        let channels = i64::try_from(channels).unwrap_or(i64::MAX);
        Self { form: config.form, channels, patch: i64::from(patch), width: config.width, window: config.window }
    }

    /// Widths of the trunk and number of outputs.
    pub(crate) fn widths(&self) -> [i64; 3] {
        match self.form {
            LiftForm::Official => [(self.channels + GUIDANCE) / 2, self.channels / 2, self.channels],
            LiftForm::Residual => [self.width, self.width, self.channels],
            LiftForm::Guided | LiftForm::Corrected => [self.width, self.width, self.window * self.window],
        }
    }

    /// Pixels of guidance a cell.
    pub(crate) fn guidance(&self) -> i64 {
        if self.patch == 8 { 8 } else { 16 }
    }
}

/// A convolution and its BatchNorm.
#[derive(Debug)]
struct ConvBn {
    conv: nn::Conv2D,
    stride: i64,
    norm: nn::BatchNorm,
}

/// Uniform in ±1/√fan-in, as the authors' framework begins: the training framework's own default is √6 times wider.
fn begin(fan_in: i64) -> nn::Init {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let bound = 1.0 / (fan_in as f64).sqrt();
    nn::Init::Uniform { lo: -bound, up: bound }
}

/// BatchNorm that begins as the identity: the training framework's own default draws the scales.
pub(crate) fn batch_norm(path: nn::Path<'_>, channels: i64) -> nn::BatchNorm {
    nn::batch_norm2d(path, channels, nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..nn::BatchNormConfig::default() })
}

/// A square convolution, uniform in ±1/√fan-in.
pub(crate) fn conv(path: nn::Path<'_>, (n_in, n_out): (i64, i64), kernel: i64, config: nn::ConvConfig) -> nn::Conv2D {
    let init = begin(n_in * kernel * kernel);
    nn::conv2d(path, n_in, n_out, kernel, nn::ConvConfig { ws_init: init, bs_init: init, ..config })
}

impl ConvBn {
    fn new(parent: &nn::Path<'_>, idx: i64, (n_in, n_out): (i64, i64), stride: i64, bias: bool) -> Self {
        let config = nn::ConvConfig { stride, padding: 1, bias, ..nn::ConvConfig::default() };
        Self { conv: conv(parent / idx, (n_in, n_out), 3, config), stride, norm: batch_norm(parent / (idx + 1), n_out) }
    }

    fn forward(&self, x: &Tensor, products: Products, train: bool) -> Tensor {
        self.norm.forward_t(&self.convolved(x, products), train).relu()
    }

    fn convolved(&self, x: &Tensor, products: Products) -> Tensor {
        let Self { conv, stride, .. } = self;
        product(products, (x, &conv.ws, conv.bs.as_ref()), |x, weight, bias| {
            x.conv2d(weight, bias, [*stride; 2], [1, 1], [1, 1], 1)
        })
    }
}

/// A product of an input with weights, in another element type; the result is single precision again.
fn product(
    products: Products,
    (x, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
    run: impl FnOnce(&Tensor, &Tensor, Option<Tensor>) -> Tensor,
) -> Tensor {
    let kind = match products {
        Products::Fp32 => return run(x, weight, bias.map(Tensor::shallow_clone)),
        Products::Bf16 => Kind::BFloat16,
    };
    run(&x.to_kind(kind), &weight.to_kind(kind), bias.map(|bias| bias.to_kind(kind))).to_kind(Kind::Float)
}

/// A LiFT head.
#[derive(Debug)]
pub struct Head {
    shape: HeadShape,
    products: Products,
    features: Option<nn::BatchNorm>,
    image1: ConvBn,
    image2: ConvBn,
    image3: ConvBn,
    up: nn::ConvTranspose2D,
    double1: ConvBn,
    double2: ConvBn,
    out: nn::Conv2D,
    /// Corrected form only.
    correction: Option<nn::Conv2D>,
    /// `[2, 2, K * K]`, guided and corrected forms.
    prior: Option<Tensor>,
}

impl Head {
    /// A head with fresh weights under the authors' names. The last layers of our own forms begin at zero: they begin as bilinear
    /// upsampling.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, shape: HeadShape) -> Self {
        let [up, mid, n_outputs] = shape.widths();
        let (first, second, double) = (root / "image_convs_1", root / "image_convs_2", root / "up1" / "conv_1" / "double_conv");
        let (is_ours, is_corrected) = (shape.form != LiftForm::Official, shape.form == LiftForm::Corrected);
        // The authors' framework takes the outputs times the kernel for the fan-in of a transposed convolution.
        let up_init = begin(up * 4);
        let up_config =
            nn::ConvTransposeConfig { stride: 2, ws_init: up_init, bs_init: up_init, ..nn::ConvTransposeConfig::default() };
        let zero = nn::ConvConfig { ws_init: nn::Init::Const(0.0), ..nn::ConvConfig::default() };
        let last = |path| match is_ours {
            true => nn::conv2d(path, mid, n_outputs, 1, zero),
            false => conv(path, (mid, n_outputs), 1, nn::ConvConfig::default()),
        };
        let window = usize::try_from(shape.window).unwrap_or(1);
        let prior = || {
            let prior = bilinear_prior(window);
            let prior = Tensor::from_slice(&prior.iter().copied().collect::<Vec<f32>>()).to_device(root.device());
            prior.view([2, 2, shape.window * shape.window])
        };
        Self {
            shape,
            products: Products::Fp32,
            features: is_ours.then(|| batch_norm(root / "features", shape.channels)),
            image1: ConvBn::new(&first, 0, (3, GUIDANCE), 2, true),
            image2: ConvBn::new(&first, 3, (GUIDANCE, GUIDANCE), 2, true),
            image3: ConvBn::new(&second, 0, (GUIDANCE, GUIDANCE), 2, true),
            up: nn::conv_transpose2d(root / "up1" / "up", shape.channels + GUIDANCE, up, 2, up_config),
            double1: ConvBn::new(&double, 0, (up + GUIDANCE, mid), 1, false),
            double2: ConvBn::new(&double, 3, (mid, mid), 1, false),
            out: last(root / "outc"),
            correction: is_corrected.then(|| nn::conv2d(root / "correction", mid, shape.channels, 1, zero)),
            prior: (is_corrected || shape.form == LiftForm::Guided).then(prior),
        }
    }

    /// The same head with products of another element type.
    #[must_use]
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// Features of twice the resolution.
    ///
    /// # Shapes
    /// - `image`: `[B, 3, h * patch, w * patch]` f32, normalised
    /// - `features`: `[B, C, h, w]` f32
    /// - output: `[B, C, 2h, 2w]` f32
    pub fn forward(&self, image: &Tensor, features: &Tensor, train: bool) -> Tensor {
        let (rows, cols) = (features.size()[2], features.size()[3]);
        let guidance = self.shape.guidance();
        let is_fitted = self.shape.patch == guidance;
        let image = if is_fitted {
            image.shallow_clone()
        } else {
            image.upsample_bilinear2d([guidance * rows, guidance * cols], false, None, None)
        };
        let quarter = self.image2.forward(&self.image1.forward(&image, self.products, train), self.products, train);
        let fine = if guidance == 16 { quarter.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false) } else { quarter };
        let coarse = self.image3.forward(&fine, self.products, train);
        let scaled = self.features.as_ref().map_or_else(|| features.shallow_clone(), |norm| norm.forward_t(features, train));
        let joined = Tensor::cat(&[&scaled, &coarse], 1);
        let up = product(self.products, (&joined, &self.up.ws, self.up.bs.as_ref()), |x, weight, bias| {
            x.conv_transpose2d(weight, bias, [2, 2], [0, 0], [0, 0], 1, [1, 1])
        });
        let once = self.double1.forward(&Tensor::cat(&[&up, &fine], 1), self.products, train);
        let twice = self.double2.forward(&once, self.products, train);
        let raw = self.pointwise(&self.out, &twice);
        match (&self.prior, &self.correction) {
            (Some(prior), None) => combine(&raw, features, prior, self.shape.window),
            (Some(prior), Some(correction)) => {
                combine(&raw, features, prior, self.shape.window) + self.pointwise(correction, &twice)
            }
            _ if self.shape.form == LiftForm::Residual => {
                features.upsample_bilinear2d([2 * rows, 2 * cols], false, None, None) + raw
            }
            _ => raw,
        }
    }

    /// A 1x1 convolution.
    fn pointwise(&self, conv: &nn::Conv2D, x: &Tensor) -> Tensor {
        product(self.products, (x, &conv.ws, conv.bs.as_ref()), |x, weight, bias| {
            x.conv2d(weight, bias, [1, 1], [0, 0], [1, 1], 1)
        })
    }
}

/// Convex combinations of the `window` x `window` coarse cells around each fine one: softmax of `logits` `[B, K * K, 2h, 2w]` plus the
/// prior, times the features `[B, C, h, w]`.
fn combine(logits: &Tensor, features: &Tensor, prior: &Tensor, window: i64) -> Tensor {
    let &[batch, channels, rows, cols] = features.size().as_slice() else { return features.shallow_clone() };
    let (n_taps, n_cells, reach) = (window * window, batch * rows * cols, window / 2);
    let by_phase = logits.view([batch, n_taps, rows, 2, cols, 2]).permute([0, 2, 4, 3, 5, 1]);
    let shares = (by_phase + prior).softmax(-1, logits.kind()).reshape([n_cells, 4, n_taps]);
    let padded = features.replication_pad2d([reach; 4]);
    let windows = padded.im2col([window; 2], [1, 1], [0, 0], [1, 1]).view([batch, channels, n_taps, rows * cols]);
    let windows = windows.permute([0, 3, 2, 1]).reshape([n_cells, n_taps, channels]);
    let fine = shares.bmm(&windows).view([batch, rows, cols, 2, 2, channels]);
    fine.permute([0, 5, 1, 3, 2, 4]).reshape([batch, channels, 2 * rows, 2 * cols])
}

/// A head from its file: form and widths are read from names and shapes.
///
/// # Errors
/// When the file cannot be read or holds no head for a backbone of so many channels.
pub fn open(file: &Path, channels: usize, patch: u32) -> anyhow::Result<(Head, HeadShape)> {
    open_on(file, channels, patch, Device::Cpu)
}

/// The same on a device.
///
/// # Errors
/// Those of [`open`].
pub fn open_on(file: &Path, channels: usize, patch: u32, device: Device) -> anyhow::Result<(Head, HeadShape)> {
    let (weights, _metadata) = checkpoint::read(file)?;
    let (form, _prefix) = recognise_lift(weights.keys().map(String::as_str));
    let last = weights.get(&format!("{}outc.weight", form.prefix())).map(Tensor::size).unwrap_or_default();
    let &[n_outputs, width, ..] = last.as_slice() else { bail!("{} holds no LiFT head", file.display()) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the root of a small square")]
    let window = (n_outputs as f64).sqrt() as i64;
    let shape = HeadShape { form, channels: i64::try_from(channels)?, patch: i64::from(patch), width, window };
    let mut store = nn::VarStore::new(device);
    let head = Head::new(&store.root(), shape);
    store.freeze();
    let missing = checkpoint::assign(named(&store, form), |name| weights.get(name));
    ensure!(missing.is_none(), "{} does not fit this model: {}", file.display(), missing.unwrap_or_default());
    Ok((head, shape))
}

/// Every tensor of a head by name, for files: trainable ones and statistics. Heads that are not official carry their form in front.
#[must_use]
pub fn named(store: &nn::VarStore, form: LiftForm) -> BTreeMap<String, Tensor> {
    store.variables().into_iter().map(|(name, tensor)| (format!("{}{name}", form.prefix()), tensor)).collect()
}
