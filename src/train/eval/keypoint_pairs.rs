//! PCK of keypoints that are found by the nearest feature: SPair-71k.
//!
//! # Design
//! Features are normalised cell by cell and upsampled bilinearly to the image, and the place of a point is the pixel with the largest product.
//! A product commutes with the interpolation, so the map of scores is upsampled, not the features.
//!
//! Two protocols, whose numbers are never mixed. LiFT's: images letterboxed in black, the padding searched too, pairs drawn with replacement,
//! distances on the letterboxed image. The authors draw from a directory listing, so their sample depends on the machine; here categories and
//! pairs are sorted. The usual one: all pairs, images squeezed, distances on the image as it is.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use densevit::{correspond::Directions, manifest::Interpolation, tensor::RgbImage};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::{
    backbone::Backbone,
    data::{photos, view::resized},
    datasets::spair::Pair,
    eval::{
        keypoints::{Average, Pair as Points, Tolerance, pck},
        rows::{Rows, cells},
    },
};

/// Tolerances, as shares of the longer side of the object's box.
pub const ALPHAS: [f64; 3] = [0.1, 0.05, 0.01];

/// How an image fills the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Whole and undistorted in the middle of black; distances count in pixels of the square.
    Letterbox,
    /// Squeezed; distances count in pixels of the image.
    Squeeze,
}

/// How pairs count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Protocol {
    /// How images fill the square.
    pub framing: Framing,
    /// Over what shares are averaged.
    pub average: Average,
    /// Whether a distance of exactly the tolerance is right.
    pub is_inclusive: bool,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Side of the square, in pixels.
    pub size: u32,
    /// What features.
    pub row: String,
    /// Keypoints.
    pub n_points: usize,
    /// PCK at [`ALPHAS`].
    pub pck: [f64; 3],
}

/// What was found in one pair, for pictures: in the coordinates of the images that the backbone saw.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Source and target.
    pub images: [&'a RgbImage; 2],
    /// Points in the source and in the target.
    pub points: [&'a [[f64; 2]]; 2],
    /// Points of each row.
    pub found: &'a [Vec<[f64; 2]>],
}

/// An image in the square.
struct Framed {
    image: RgbImage,
    /// Pixels of the square a pixel of the image, and where the image begins.
    scale: [f64; 2],
    offset: [f64; 2],
}

/// Pairs of a protocol: all, or `n` of each category with replacement.
#[must_use]
pub fn sampled(pairs: &[Pair], drawn: Option<(usize, u64)>) -> Vec<&Pair> {
    let Some((n, seed)) = drawn else { return pairs.iter().collect() };
    let mut random = fastrand::Rng::with_seed(seed);
    let categories = pairs.chunk_by(|a, b| a.annotation.category == b.annotation.category);
    categories.flat_map(|own| (0..n).map(|_| &own[random.usize(..own.len())]).collect::<Vec<_>>()).collect()
}

/// Measures all rows at a size, after a row that leaves every point where it is in the source.
///
/// # Errors
/// When an image cannot be read or the backbone fails.
pub fn measure(
    backbone: &mut Backbone,
    rows: &Rows,
    (pairs, size): (&[&Pair], u32),
    protocol: Protocol,
    mut show: impl FnMut(usize, Shown<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Score>> {
    let mut of_rows: Vec<Vec<Points>> = vec![Vec::new(); rows.rows().len() + 1];
    for (idx, pair) in pairs.iter().enumerate() {
        let annotation = &pair.annotation;
        let [source, target] =
            [Framed::new(&pair.source, size, protocol.framing)?, Framed::new(&pair.target, size, protocol.framing)?];
        let points: Vec<[f64; 2]> = annotation.src_kps.iter().map(|point| source.to_square(*point)).collect();
        let truth: Vec<[f64; 2]> = annotation.trg_kps.iter().map(|point| target.to_square(*point)).collect();
        let maps = rows.maps(backbone, &source.image)?.into_iter().zip(rows.maps(backbone, &target.image)?);
        let mut found = vec![points.clone()];
        for (from, to) in maps {
            found.push(tch::no_grad(|| matched(&from, &to, &points, size))?);
        }
        show(idx, Shown { images: [&source.image, &target.image], points: [&points, &truth], found: &found[1..] })?;
        let [x0, y0, x1, y1] = annotation.trg_bndbox;
        let longer = (x1 - x0).max(y1 - y0);
        for (own, found) in of_rows.iter_mut().zip(found) {
            let category = annotation.category.clone();
            own.push(match protocol.framing {
                Framing::Letterbox => {
                    Points { category, predicted: found, truth: truth.clone(), scale: longer * target.scale[0] }
                }
                Framing::Squeeze => {
                    let predicted = found.into_iter().map(|point| target.to_image(point)).collect();
                    Points { category, predicted, truth: annotation.trg_kps.clone(), scale: longer }
                }
            });
        }
    }
    let names = std::iter::once("the same place").chain(rows.rows().iter().map(|row| row.name.as_str()));
    let score = |(row, points): (&str, Vec<Points>)| {
        let at = |alpha| pck(&points, Tolerance { alpha, is_inclusive: protocol.is_inclusive }, protocol.average);
        let n_points = points.iter().map(|pair| pair.truth.len()).sum();
        Score { size, row: row.to_owned(), n_points, pck: ALPHAS.map(|alpha| at(alpha).unwrap_or_default()) }
    };
    Ok(names.zip(of_rows).map(score).collect())
}

/// The pixel of the target's square with the most similar feature, for each point of the source's.
fn matched(source: &Tensor, target: &Tensor, points: &[[f64; 2]], size: u32) -> anyhow::Result<Vec<[f64; 2]>> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let (values, grid) = cells(source)?;
    let directions = Directions::new(&values, grid).context("a map is empty")?;
    let side = f64::from(size);
    // The pixel that a point lies in, in cells.
    let place = |axis: f64, n_cells: usize| (axis.floor().clamp(0.0, side - 1.0) + 0.5) * n_cells as f64 / side - 0.5;
    let queries: Vec<f32> =
        points.iter().flat_map(|[x, y]| directions.sample([place(*y, grid[0]), place(*x, grid[1])])).collect();
    let (_, channels, rows, cols) = target.size4()?;
    let queries = Tensor::from_slice(&queries).view([-1, channels]).to_device(target.device());
    let length =
        target.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt().clamp_min(f64::from(f32::MIN_POSITIVE));
    let scores = queries.matmul(&(target / length).view([channels, rows * cols])).view([-1, 1, rows, cols]);
    let upsampled = scores.upsample_bilinear2d([i64::from(size); 2], false, None, None);
    let best = Vec::<i64>::try_from(upsampled.flatten(1, 3).argmax(1, false))?;
    let pixel = |best: i64| [best % i64::from(size), best / i64::from(size)].map(|axis| axis as f64);
    Ok(best.into_iter().map(pixel).collect())
}

impl Framed {
    fn new(path: &Path, size: u32, framing: Framing) -> anyhow::Result<Self> {
        let image = photos::open(path).map_err(|problem| anyhow!("{}: it {problem}", path.display()))?;
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let side = f64::from(size);
        if framing == Framing::Squeeze {
            let image = resized(&image, [size; 2], Interpolation::Bilinear, None).map_err(anyhow::Error::msg)?;
            return Ok(Self { image, scale: [side / width, side / height], offset: [0.0; 2] });
        }
        let scale = side / width.max(height);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the side")]
        let extent = |own: f64| (own * scale).round_ties_even().clamp(1.0, side) as u32;
        let (cols, rows) = (extent(width), extent(height));
        let small = resized(&image, [rows, cols], Interpolation::Lanczos, None).map_err(anyhow::Error::msg)?;
        let [left, top] = [cols, rows].map(|extent| (size - extent) / 2);
        let image = framed(&small, size, [left, top]).context("an image has no pixels")?;
        Ok(Self { image, scale: [scale; 2], offset: [f64::from(left), f64::from(top)] })
    }

    fn to_square(&self, point: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| point[axis] * self.scale[axis] + self.offset[axis])
    }

    /// Where the middle of a pixel lies in the image.
    fn to_image(&self, pixel: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| (pixel[axis].floor() + 0.5 - self.offset[axis]) / self.scale[axis])
    }
}

/// An image on a black square.
fn framed(image: &RgbImage, size: u32, [left, top]: [u32; 2]) -> Option<RgbImage> {
    let row_bytes = size as usize * 3;
    let mut data = vec![0; size as usize * row_bytes];
    let own_bytes = image.width() as usize * 3;
    for (to, from) in data.chunks_exact_mut(row_bytes).skip(top as usize).zip(image.data().chunks_exact(own_bytes)) {
        let start = left as usize * 3;
        to[start..start + own_bytes].copy_from_slice(from);
    }
    RgbImage::new(size, size, data)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use tch::Device;

    use super::*;

    #[test]
    fn letterboxed_points_lie_where_their_pixels_lie() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::RgbImage::from_fn(80, 40, |x, y| image::Rgb([if x >= 40 && y >= 20 { 255 } else { 0 }; 3])).save(&path).unwrap();
        let framed = Framed::new(&path, 56, Framing::Letterbox).unwrap();
        // 56 x 28 in the middle.
        assert_eq!((framed.to_square([40.0, 20.0]), framed.to_square([0.0, 0.0])), ([28.0, 28.0], [0.0, 14.0]));
        let level = |x: usize, y: usize| framed.image.data()[3 * (56 * y + x)];
        assert_eq!([level(40, 34), level(40, 46), level(10, 34)], [255, 0, 0]);
        let squeezed = Framed::new(&path, 56, Framing::Squeeze).unwrap();
        assert_eq!(squeezed.to_square([40.0, 20.0]), [28.0, 28.0]);
        assert_eq!(squeezed.to_image([27.0, 27.9]), [27.5 * 80.0 / 56.0, 27.5 * 40.0 / 56.0]);
    }

    #[test]
    fn the_same_map_leads_every_point_into_its_cell() {
        tch::manual_seed(0);
        let map = Tensor::randn([1, 16, 4, 4], (Kind::Float, Device::Cpu));
        // Cells have 8 pixels; points in the middle of cells.
        let points = [[4.0, 4.0], [20.0, 12.0], [28.9, 28.9]];
        for (point, found) in points.iter().zip(matched(&map, &map, &points, 32).unwrap()) {
            assert!((found[0] - point[0]).abs() <= 4.0 && (found[1] - point[1]).abs() <= 4.0, "{point:?} {found:?}");
        }
        assert!(matched(&map, &map, &[], 32).unwrap().is_empty());
    }
}
