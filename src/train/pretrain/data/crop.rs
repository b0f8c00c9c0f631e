//! Random crops of a photo: where they are cut, and how they are resized, mirrored and recoloured.

use densevit::{manifest::Interpolation, preprocess::Rect, tensor::RgbImage};

use crate::{
    data::view::{mirrored, resized},
    pretrain::{config::PretrainConfig, data::colour::Odds},
};

/// Width over height of a crop: least and most.
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Places that are tried before the middle is taken.
const N_TRIES: usize = 10;
/// Global crops of a photo.
pub const N_GLOBAL: usize = 2;
/// Blur of the first global crop, of the second, of local ones; only the second global one is solarised.
const ODDS: [Odds; 3] = [Odds { blur: 1.0, solarise: 0.0 }, Odds { blur: 0.1, solarise: 0.2 }, Odds { blur: 0.5, solarise: 0.0 }];

/// How one crop is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropRecipe {
    /// Pixels on a side.
    pub size: u32,
    /// Share of the photo that it takes: least and most.
    pub scale: [f64; 2],
    /// How likely the rarer changes of its colours are.
    pub odds: Odds,
}

/// The crops of a photo.
#[derive(Clone, Debug)]
pub struct Crops {
    /// Both global ones.
    pub global: Vec<RgbImage>,
    /// Local ones.
    pub local: Vec<RgbImage>,
}

impl CropRecipe {
    /// One of a photo.
    ///
    /// # Errors
    /// When the photo cannot be resized.
    pub fn cut(&self, photo: &RgbImage, random: &mut fastrand::Rng) -> Result<RgbImage, String> {
        let part = self.place([photo.height(), photo.width()], random);
        let crop = resized(photo, [self.size; 2], Interpolation::Bicubic, Some(part))?;
        let crop = if random.bool() { mirrored(&crop) } else { crop };
        Ok(self.odds.apply(crop, random))
    }

    /// A random part of an image of so many rows and columns, in whole pixels. When none of some tries fits, the largest in the middle
    /// whose sides are not too unequal.
    pub fn place(&self, [rows, cols]: [u32; 2], random: &mut fastrand::Rng) -> Rect {
        let (height, width) = (f64::from(rows), f64::from(cols));
        for _ in 0..N_TRIES {
            let area = height * width * between(self.scale, random);
            let aspect = between(ASPECT.map(f64::ln), random).exp();
            let [part_width, part_height] = [(area * aspect).sqrt().round(), (area / aspect).sqrt().round()];
            if part_width >= 1.0 && part_width <= width && part_height >= 1.0 && part_height <= height {
                let within = |free: f64, random: &mut fastrand::Rng| (random.f64() * (free + 1.0)).floor().min(free);
                let y = within(height - part_height, random);
                let x = within(width - part_width, random);
                return Rect { x, y, width: part_width, height: part_height };
            }
        }
        let part_width = width.min((height * ASPECT[1]).round());
        let part_height = height.min((width / ASPECT[0]).round());
        let middle = |whole: f64, part: f64| ((whole - part) / 2.0).floor();
        Rect { x: middle(width, part_width), y: middle(height, part_height), width: part_width, height: part_height }
    }
}

/// All crops of a photo.
///
/// # Errors
/// When it cannot be resized.
pub fn crops(photo: &RgbImage, config: &PretrainConfig, random: &mut fastrand::Rng) -> Result<Crops, String> {
    let [first, second, local] = ODDS;
    let global = |odds| CropRecipe { size: config.global_size, scale: config.global_scale, odds };
    let local = CropRecipe { size: config.local_size, scale: config.local_scale, odds: local };
    Ok(Crops {
        global: [global(first), global(second)].iter().map(|recipe| recipe.cut(photo, random)).collect::<Result<_, _>>()?,
        local: (0..config.n_local).map(|_| local.cut(photo, random)).collect::<Result<_, _>>()?,
    })
}

fn between([least, most]: [f64; 2], random: &mut fastrand::Rng) -> f64 {
    least + (most - least) * random.f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(scale: [f64; 2]) -> CropRecipe {
        CropRecipe { size: 32, scale, odds: ODDS[2] }
    }

    #[test]
    fn crops_lie_inside_and_take_their_share() {
        let mut random = fastrand::Rng::with_seed(1);
        let parts: Vec<Rect> = (0..2000).map(|_| recipe([0.05, 0.25]).place([300, 500], &mut random)).collect();
        let share = |part: &Rect| part.width * part.height / 150_000.0;
        for part in &parts {
            assert!(part.x >= 0.0 && part.y >= 0.0 && part.x + part.width <= 500.0 && part.y + part.height <= 300.0, "{part:?}");
            let aspect = part.width / part.height;
            // Sides are rounded to pixels.
            assert!((0.74..1.35).contains(&aspect) && (0.049..0.252).contains(&share(part)), "{part:?}");
        }
        let mean = parts.iter().map(share).sum::<f64>() / 2000.0;
        assert!((mean - 0.15).abs() < 0.005, "{mean}");
        let is_at = |x: f64| parts.iter().any(|part| part.x == x);
        assert!(is_at(0.0) && parts.iter().any(|part| part.x + part.width == 500.0), "both borders are reached");
    }

    #[test]
    fn a_photo_that_no_crop_fits_gives_its_middle() {
        let part = recipe([1.0, 1.0]).place([10, 1000], &mut fastrand::Rng::with_seed(1));
        assert_eq!((part.x, part.y, part.width, part.height), (493.0, 0.0, 13.0, 10.0));
    }

    #[test]
    fn a_photo_gives_two_large_and_some_small_squares_the_same_for_a_seed() {
        let photo = RgbImage::new(90, 120, (0..90 * 120 * 3).map(|idx| u8::try_from(idx % 251).unwrap_or_default()).collect());
        let photo = photo.unwrap_or_else(|| unreachable!());
        let config = PretrainConfig { global_size: 64, local_size: 32, n_local: 3, ..PretrainConfig::default() };
        let of = |seed| crops(&photo, &config, &mut fastrand::Rng::with_seed(seed)).unwrap_or_else(|problem| panic!("{problem}"));
        let sizes = |images: &[RgbImage]| images.iter().map(|image| [image.height(), image.width()]).collect::<Vec<_>>();
        assert_eq!((sizes(&of(5).global), sizes(&of(5).local)), (vec![[64; 2]; 2], vec![[32; 2]; 3]));
        assert_eq!((of(5).global, of(5).local), (of(5).global, of(5).local));
        assert_ne!(of(5).global, of(6).global);
    }
}
