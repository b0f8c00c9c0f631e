//! CorLoc of the boxes that LOST and TokenCut find: VOC07, VOC12 and COCO20k.
//!
//! # Design
//! Two protocols, whose numbers are never mixed. `native`: the papers' own; the image as it is, filled up at its right and lower border to whole
//! patches with what the backbone's normalisation makes nearly zero (a pixel has 256 levels), boxes cut at the image. `square`: LiFT's; the
//! image squeezed to S x S, true boxes scaled with it and their corners cut to whole pixels.

use anyhow::{Context as _, anyhow};
use densevit::{
    discover::{self, DiscoverError, Discovery},
    manifest::Interpolation,
    tensor::RgbImage,
};
use serde::Serialize;

use crate::{
    backbone::Backbone,
    data::{photos, view::resized},
    datasets::{BoxedImage, Corners},
    eval::{
        corloc::corloc,
        rows::{Rows, cells},
    },
};

/// How images are given to the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As they are.
    Native,
    /// Squeezed to so many pixels a side.
    Square(u32),
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Native => f.write_str("native size, padded to whole patches"),
            Self::Square(side) => write!(f, "{side} x {side} px, squeezed (LiFT)"),
        }
    }
}

/// A way to find a box.
#[derive(Clone, Debug, PartialEq)]
pub struct Finder {
    /// For tables.
    pub name: String,
    /// What it does.
    pub method: discover::Method,
    /// Whether the mean feature of the image's cells is subtracted first.
    pub is_centred: bool,
}

/// One number of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// How images were given.
    pub protocol: String,
    /// What features.
    pub row: String,
    /// How boxes were found.
    pub finder: String,
    /// Images that have objects.
    pub n_images: usize,
    /// Share of them whose box is right; none where a grid has more cells than are searched.
    pub corloc: Option<f64>,
}

/// What was found in one image, for pictures: in the coordinates of the image that the backbone saw.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The image that the backbone saw.
    pub image: &'a RgbImage,
    /// Where the objects are.
    pub truth: &'a [Corners],
    /// A box for each row and finder, finders of a row together.
    pub found: &'a [Option<Corners>],
}

/// An image as the backbone sees it, and its boxes there.
struct Input {
    image: RgbImage,
    /// Columns and rows that show the image.
    extent: [f64; 2],
    boxes: Vec<Corners>,
}

/// Measures all rows and finders, after two boxes that look at nothing: the whole image, and its middle.
///
/// # Errors
/// When an image cannot be read or the backbone fails.
pub fn measure(
    backbone: &mut Backbone,
    rows: &Rows,
    (images, protocol): (&[BoxedImage], Protocol),
    finders: &[Finder],
    mut show: impl FnMut(usize, Shown<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Score>> {
    let n_columns = rows.rows().len() * finders.len();
    let mut found: Vec<Option<Vec<Option<Corners>>>> = vec![Some(Vec::new()); n_columns];
    let (mut truth, mut blind) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (idx, boxed) in images.iter().filter(|boxed| !boxed.boxes.is_empty()).enumerate() {
        let input = Input::new(boxed, protocol, backbone)?;
        let mut of_image = Vec::with_capacity(n_columns);
        for map in rows.maps(backbone, &input.image)? {
            let (values, grid) = cells(&map)?;
            for finder in finders {
                of_image.push(find(&values, grid, finder, &input)?);
            }
        }
        let shown: Vec<Option<Corners>> = of_image.iter().map(|corners| corners.unwrap_or_default()).collect();
        show(idx, Shown { image: &input.image, truth: &input.boxes, found: &shown })?;
        for (column, corners) in found.iter_mut().zip(of_image) {
            *column = column.take().zip(corners).map(|(mut column, corners)| {
                column.push(corners);
                column
            });
        }
        let [width, height] = input.extent;
        blind[0].push(Some([0.0, 0.0, width, height]));
        blind[1].push(Some([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]));
        truth.push(input.boxes);
    }
    let score = |row: &str, finder: &str, found: Option<&[Option<Corners>]>| Score {
        protocol: protocol.to_string(),
        row: row.to_owned(),
        finder: finder.to_owned(),
        n_images: truth.len(),
        corloc: found.and_then(|found| corloc(&found.iter().copied().zip(truth.iter().cloned()).collect::<Vec<_>>())),
    };
    let mut scores: Vec<Score> =
        ["the whole image", "its middle half"].iter().zip(&blind).map(|(row, found)| score(row, "-", Some(found))).collect();
    let columns = rows.rows().iter().flat_map(|row| finders.iter().map(move |finder| (row, finder)));
    scores.extend(columns.zip(&found).map(|((row, finder), found)| score(&row.name, &finder.name, found.as_deref())));
    Ok(scores)
}

/// The box of the one object; the outer none where the grid is too large.
fn find(map: &[f32], grid: [usize; 2], finder: &Finder, input: &Input) -> anyhow::Result<Option<Option<Corners>>> {
    let centred = finder.is_centred.then(|| discover::centred(map, map.len() / (grid[0] * grid[1]).max(1)));
    match discover::discover(centred.as_deref().unwrap_or(map), grid, finder.method, 1) {
        Ok(objects) => Ok(Some(objects.first().map(|object| corners(object, grid, input)))),
        Err(DiscoverError::TooManyCells { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn corners(object: &Discovery, [rows, cols]: [usize; 2], input: &Input) -> Corners {
    let [cell_x, cell_y] = [f64::from(input.image.width()) / cols as f64, f64::from(input.image.height()) / rows as f64];
    let bounds = &object.bounds;
    let [x0, x1] = bounds.cols.map(|col| (col as f64 * cell_x).min(input.extent[0]));
    let [y0, y1] = bounds.rows.map(|row| (row as f64 * cell_y).min(input.extent[1]));
    [x0, y0, x1, y1]
}

impl Input {
    fn new(boxed: &BoxedImage, protocol: Protocol, backbone: &Backbone) -> anyhow::Result<Self> {
        let image = photos::open(&boxed.image).map_err(|problem| anyhow!("{}: it {problem}", boxed.image.display()))?;
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        match protocol {
            Protocol::Native => {
                let padded = padded(&image, backbone.patch(), backbone.normalisation().mean).context("an image has no pixels")?;
                Ok(Self { image: padded, extent: [width, height], boxes: boxed.boxes.clone() })
            }
            Protocol::Square(side) => {
                let squeezed = resized(&image, [side; 2], Interpolation::Bilinear, None).map_err(anyhow::Error::msg)?;
                let side = f64::from(side);
                let scaled = |[x0, y0, x1, y1]: &Corners| {
                    let [x, y] = [side / width, side / height];
                    [x0 * x, y0 * y, x1 * x, y1 * y].map(f64::trunc)
                };
                Ok(Self { image: squeezed, extent: [side; 2], boxes: boxed.boxes.iter().map(scaled).collect() })
            }
        }
    }
}

/// The image in the upper left corner of whole patches, the rest of the normalisation's mean.
fn padded(image: &RgbImage, patch: u32, mean: [f32; 3]) -> Option<RgbImage> {
    let (height, width) = (image.height().next_multiple_of(patch), image.width().next_multiple_of(patch));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating")]
    let fill = mean.map(|mean| (255.0 * mean).round() as u8);
    let mut data = fill.repeat(height as usize * width as usize);
    let rows = image.data().chunks_exact(image.width() as usize * 3);
    for (to, from) in data.chunks_exact_mut(width as usize * 3).zip(rows) {
        to[..from.len()].copy_from_slice(from);
    }
    RgbImage::new(height, width, data)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use densevit::discover::Bounds;

    use super::*;

    #[test]
    fn images_are_filled_up_to_whole_patches_and_boxes_are_cut_at_the_image() {
        let image = RgbImage::new(3, 5, (0..45).collect()).unwrap();
        let padded = padded(&image, 4, [0.5, 0.0, 1.0]).unwrap();
        assert_eq!((padded.height(), padded.width()), (4, 8));
        assert_eq!(padded.data()[24 + 12..24 + 18], [27, 28, 29, 128, 0, 255]);
        let input = Input { image: padded, extent: [5.0, 3.0], boxes: Vec::new() };
        let object = Discovery { cells: vec![true; 2], seed: [0, 0], bounds: Bounds { rows: [0, 1], cols: [0, 2] }, score: 0.0 };
        assert_eq!(corners(&object, [1, 2], &input), [0.0, 0.0, 5.0, 3.0]);
        // The same of a map of twice the resolution.
        let object = Discovery { bounds: Bounds { rows: [1, 2], cols: [1, 2] }, ..object };
        assert_eq!(corners(&object, [2, 4], &input), [2.0, 2.0, 4.0, 3.0]);
    }
}
