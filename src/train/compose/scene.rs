//! Cut-outs over a ground: the picture, and whose each pixel is.
//!
//! # Design
//! A pixel is the mean of `n x n` samples of the cut-out, taken bilinearly with colours times alpha, so that transparent pixels have no
//! colour; there are as many samples as see every pixel of the cut-out (2 x 2 at least, 8 x 8 at most). It is laid over what is below:
//! `alpha * colour + (1 - alpha) * below`, on the levels as they are stored (sRGB). The truth: a pixel belongs to the uppermost layer whose
//! own alpha there exceeds one half ([`SOLID`]).

use densevit::tensor::RgbImage;

use crate::{
    compose::{
        cut_out::{CutOut, SOLID},
        pose::{Pose, Shape},
        stock::between,
    },
    datasets::Corners,
    segmentation::data::labels::Labels,
};

/// A cut-out in an image.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// What.
    pub cut_out: &'a CutOut,
    /// Where.
    pub pose: Pose,
    /// What its levels are multiplied by: another light.
    pub gain: f32,
}

impl<'a> Layer<'a> {
    /// A cut-out somewhere in an image of `[rows, columns]`, most of it inside. Its longer side is a share of the image's shorter one, from
    /// `side[0]` to `side[1]`.
    #[must_use]
    pub fn somewhere(cut_out: &'a CutOut, [height, width]: [u32; 2], side: [f64; 2], random: &mut fastrand::Rng) -> Self {
        let longest = cut_out.size.iter().copied().max().unwrap_or(1) as f64;
        let shape = Shape {
            scale: between(random, side) * f64::from(height.min(width)) / longest,
            angle: between(random, [-0.3, 0.3]),
            stretch: between(random, [0.9, 1.1]),
            shear: 0.0,
            is_mirrored: random.bool(),
        };
        let half = cut_out.size.map(|side| shape.scale * side as f64 / 2.0);
        // Up to two fifths of the half outside.
        let place = |random: &mut fastrand::Rng, half: f64, extent: u32| {
            let margin = (0.6 * half).min(f64::from(extent) / 2.0);
            between(random, [margin, f64::from(extent) - margin])
        };
        let centre = [place(random, half[0], width), place(random, half[1], height)];
        Self { cut_out, pose: Pose::new(cut_out.size, centre, shape), gain: 1.0 }
    }
}

/// A picture and its truth.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The picture.
    pub image: RgbImage,
    /// For each pixel the number of its layer from 1 on, 0 for the ground.
    pub owners: Labels,
}

/// Lays layers, the first one lowest, over a ground.
#[must_use]
pub fn render(ground: &RgbImage, layers: &[Layer<'_>]) -> Scene {
    let (height, width) = (ground.height(), ground.width());
    let mut pixels = ground.data().to_vec();
    let mut owners = vec![0; height as usize * width as usize];
    for (number, layer) in (1u8..).zip(layers) {
        let [x0, y0, x1, y1] = layer.pose.bounds(layer.cut_out);
        let inverse = layer.pose.inverse();
        let n_samples = layer.pose.n_samples();
        for y in span(y0, y1, height) {
            for x in span(x0, x1, width) {
                let [red, green, blue, alpha] = sample(layer.cut_out, &inverse, [x, y], n_samples);
                if alpha <= 0.0 {
                    continue;
                }
                let place = y * width as usize + x;
                for (level, colour) in pixels[3 * place..3 * place + 3].iter_mut().zip([red, green, blue]) {
                    let mixed = (colour * layer.gain).min(alpha) * 255.0 + (1.0 - alpha) * f32::from(*level);
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
                    let mixed = mixed.round() as u8;
                    *level = mixed;
                }
                if alpha > SOLID {
                    owners[place] = number;
                }
            }
        }
    }
    let image = RgbImage::new(height, width, pixels).unwrap_or_else(|| ground.clone());
    Scene { image, owners: Labels { height, width, data: owners } }
}

impl Scene {
    /// Pixels of a layer that are seen.
    #[must_use]
    pub fn n_seen(&self, number: u8) -> usize {
        self.owners.data.iter().filter(|owner| **owner == number).count()
    }

    /// The box around what is seen of a layer.
    #[must_use]
    pub fn bounds(&self, number: u8) -> Option<Corners> {
        let width = self.owners.width as usize;
        let places = (0..self.owners.data.len()).filter(|place| self.owners.data[*place] == number);
        let bounds = places.map(|place| (place % width, place / width)).fold(None, |bounds, (x, y)| {
            let [x0, y0, x1, y1] = bounds.unwrap_or([usize::MAX, usize::MAX, 0, 0]);
            Some([x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)])
        });
        bounds.map(|corners: [usize; 4]| corners.map(|corner| corner as f64))
    }

    /// Whether a point shows a layer.
    #[must_use]
    pub fn shows(&self, number: u8, [x, y]: [f64; 2]) -> bool {
        let inside = x >= 0.0 && y >= 0.0 && x < f64::from(self.owners.width) && y < f64::from(self.owners.height);
        inside && self.owners.at(y, x) == number
    }
}

/// Whether a layer is seen well enough: a share of its pixels, those outside the image being hidden.
#[must_use]
pub fn is_seen(scene: &Scene, number: u8, layer: &Layer<'_>, share: f64) -> bool {
    let whole = layer.cut_out.n_solid() as f64 * layer.pose.area();
    scene.n_seen(number) as f64 >= share * whole
}

/// Pixels between two places.
fn span(from: f64, to: f64, extent: u32) -> std::ops::Range<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the image")]
    let clamped = |place: f64| place.clamp(0.0, f64::from(extent)) as usize;
    clamped(from.floor())..clamped(to.ceil())
}

fn sample(cut_out: &CutOut, inverse: &Pose, [x, y]: [usize; 2], n: usize) -> [f32; 4] {
    let mut sum = [0.0; 4];
    for (column, row) in (0..n).flat_map(|row| (0..n).map(move |column| (column, row))) {
        let within = |index: usize| (index as f64 + 0.5) / n as f64;
        let value = cut_out.sample(inverse.apply([x as f64 + within(column), y as f64 + within(row)]));
        sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 64")]
    let n_samples = (n * n) as f32;
    sum.map(|sum| sum / n_samples)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use image::{Rgba, RgbaImage};

    use super::*;
    const PLAIN: Shape = Shape { scale: 1.0, angle: 0.0, stretch: 1.0, shear: 0.0, is_mirrored: false };

    /// A square of 4 x 4 pixels of one colour.
    fn square(alpha: u8) -> CutOut {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbaImage::from_pixel(4, 4, Rgba([200, 100, 0, alpha])).save(&path).unwrap();
        CutOut::open(&path).unwrap().unwrap()
    }

    fn at(scene: &Scene, x: usize, y: usize) -> (u8, [u8; 3]) {
        let place = y * scene.owners.width as usize + x;
        (scene.owners.data[place], [0, 1, 2].map(|channel| scene.image.data()[3 * place + channel]))
    }

    #[test]
    fn what_is_above_hides_what_is_below_and_boxes_go_around_what_is_seen() {
        let cut_out = square(255);
        let layer = |x, gain| Layer { cut_out: &cut_out, pose: Pose::new([4, 4], [x, 4.0], PLAIN), gain };
        let ground = RgbImage::new(8, 10, vec![50; 240]).unwrap();
        let scene = render(&ground, &[layer(3.0, 1.0), layer(5.0, 0.5)]);
        assert_eq!(at(&scene, 0, 0), (0, [50; 3]));
        assert_eq!(at(&scene, 2, 3), (1, [200, 100, 0]));
        assert_eq!(at(&scene, 4, 3), (2, [100, 50, 0]));
        assert_eq!(
            (scene.bounds(1), scene.bounds(2), scene.bounds(3)),
            (Some([1.0, 2.0, 3.0, 6.0]), Some([3.0, 2.0, 7.0, 6.0]), None)
        );
        assert_eq!((scene.n_seen(1), scene.n_seen(2)), (8, 16));
        assert!(is_seen(&scene, 1, &layer(3.0, 1.0), 0.5) && !is_seen(&scene, 1, &layer(3.0, 1.0), 0.51));
        assert!(scene.shows(2, [6.9, 5.9]) && !scene.shows(2, [7.0, 5.9]) && !scene.shows(2, [-0.1, 3.0]));
    }

    #[test]
    fn alpha_mixes_levels_and_the_border_runs_at_one_half() {
        // 128 of 255 is above one half.
        let cut_out = square(128);
        let ground = RgbImage::new(8, 8, vec![50; 192]).unwrap();
        let pose = |x| Pose::new([4, 4], [x, 4.0], PLAIN);
        let scene = render(&ground, &[Layer { cut_out: &cut_out, pose: pose(4.0), gain: 1.0 }]);
        assert_eq!(at(&scene, 3, 4), (1, [125, 75, 25]));
        // Moved by a quarter of a pixel the first column is covered by three quarters of 128 / 255, less than one half.
        let moved = render(&ground, &[Layer { cut_out: &cut_out, pose: pose(4.25), gain: 1.0 }]);
        assert_eq!([at(&moved, 2, 4).0, at(&moved, 3, 4).0], [0, 1]);
    }
}
