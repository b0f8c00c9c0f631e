//! Objects of an image: which are asked for, and how they are drawn.

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    commands::features::{FeatureArgs, encoded},
    grpc::pb::v1::{self as pb, discover_request, mask::Mask as MaskForm},
    masks::{BitMask, LabelMap, Labels, OverlayStyle, Palette, VOID_U8, overlay},
    picture::{Drawing, hues},
    tensor::RgbImage,
};

/// How objects are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// Normalised cut of the graph of similar cells.
    TokenCut,
    /// Growing from the cell that is like the fewest others.
    Lost,
}

/// Texts and their colours, as a legend takes them.
pub(super) type Entries = Vec<(String, [u8; 3])>;

/// Flags of `densevit view --discover`.
#[derive(Debug, Args)]
pub struct ObjectArgs {
    /// How objects are found [default: token-cut].
    #[arg(long, value_enum, requires = "discover")]
    method: Option<MethodArg>,
    /// Objects to look for [default: 1].
    #[arg(long, value_name = "N", requires = "discover")]
    objects: Option<u32>,
    /// Cosine above which two cells are similar (token-cut) [default: 0.2].
    #[arg(long, requires = "discover", allow_hyphen_values = true)]
    tau: Option<f32>,
    /// Corners that an object may hold, 0 to 4: of a cut, the other side of one that holds more is taken (token-cut) [default: 2].
    #[arg(long, value_name = "N", requires = "discover")]
    max_corners: Option<u32>,
    /// Added to the products of all cells (lost) [default: 0].
    #[arg(long, value_name = "BIAS", requires = "discover", allow_hyphen_values = true)]
    gram_bias: Option<f32>,
    /// Whether the mean feature of the cells is subtracted first [default: true for lost, false for token-cut].
    #[arg(long, value_name = "BOOL", requires = "discover")]
    centre: Option<bool>,
}

impl ObjectArgs {
    /// What to ask about an image file.
    pub(super) fn request(&self, features: &FeatureArgs, file: Bytes) -> pb::DiscoverRequest {
        // A bias means LOST, whose only number it is.
        let is_lost = self.method.map_or(self.gram_bias.is_some(), |method| method == MethodArg::Lost);
        let method = if is_lost {
            discover_request::Method::Lost(pb::Lost { gram_bias: self.gram_bias.unwrap_or_default() })
        } else {
            discover_request::Method::TokenCut(pb::TokenCut { tau: self.tau, max_corners: self.max_corners })
        };
        let pb::FeatureOptions { facet, layer, .. } = features.features();
        pb::DiscoverRequest {
            model: Some(features.input.model()),
            image: Some(encoded(file)),
            preprocess: Some(features.input.preprocess()),
            features: Some(pb::MapOptions { facet, layer, lift_passes: None }),
            method: Some(method),
            n_objects: self.objects.unwrap_or_default(),
            cells: pb::MaskFormat::Bits.into(),
            centre: self.centre,
        }
    }
}

/// The photo with the cells, boxes and seeds of its objects, and for each its score and colour.
///
/// # Errors
/// When the answer is not one of this photo.
pub(super) fn draw_objects(found: &pb::DiscoverResponse, photo: &RgbImage) -> anyhow::Result<(RgbImage, Entries)> {
    let colors = hues(found.objects.len());
    let mut drawing = Drawing::new(&tinted(found, photo, &colors)?);
    for (object, color) in found.objects.iter().zip(&colors) {
        let bounds = object.r#box.unwrap_or_default();
        drawing.rect([bounds.x, bounds.y], [bounds.x + bounds.width, bounds.y + bounds.height], *color);
        let seed = object.seed.unwrap_or_default();
        drawing.dot([seed.x, seed.y], *color);
    }
    let entries = found.objects.iter().zip(colors).map(|(object, color)| (format!("{:.2}", object.score), color)).collect();
    Ok((drawing.into_image().context("the photo has no pixels")?, entries))
}

/// The photo under the colours of the objects' cells.
fn tinted(found: &pb::DiscoverResponse, photo: &RgbImage, colors: &[[u8; 3]]) -> anyhow::Result<RgbImage> {
    if colors.is_empty() {
        return Ok(photo.clone());
    }
    let header = found.map.as_ref().context("the answer says nothing of its map")?;
    let affine = header.grid_to_image.context("the answer does not say where its cells are")?;
    let mut labels = vec![VOID_U8; photo.height() as usize * photo.width() as usize];
    for (object, label) in found.objects.iter().zip(0u8..) {
        let Some(MaskForm::Bits(bits)) = object.mask.as_ref().and_then(|mask| mask.mask.as_ref()) else { continue };
        let cells = BitMask::from_bits(header.rows as usize, header.cols as usize, bits.to_vec())?;
        for (y, labels) in labels.chunks_mut(photo.width() as usize).enumerate() {
            let row = cell(y, affine.y0, affine.dy);
            for (x, pixel) in labels.iter_mut().enumerate() {
                if row.zip(cell(x, affine.x0, affine.dx)).is_some_and(|(row, col)| cells.is_set(row, col)) {
                    *pixel = label;
                }
            }
        }
    }
    let map = LabelMap::new(photo.height() as usize, photo.width() as usize, colors.len(), Labels::U8(labels))?;
    let style = OverlayStyle { opacity: 0.3, border: None };
    Ok(overlay(photo, &map, &Palette::new(colors.to_vec())?, &style)?)
}

/// The cell that the centre of a pixel lies in, on an axis whose first cell has its centre at `first`.
fn cell(pixel: usize, first: f64, step: f64) -> Option<usize> {
    let cell = ((pixel as f64 + 0.5 - first) / step).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; masks know their own borders")]
    (cell >= 0.0).then_some(cell as usize)
}
