//! Images of one object each, in a folder a class: what `train eval classify` reads.
//!
//! # Design
//! A class needs at least [`MIN_CUT_OUTS`] cut-outs in every split that is asked for, so that telling it is more than to know one picture
//! again; others are left out and named. All classes have as many images, give or take one, and take their cut-outs in turn: neither
//! prior nor a frequent cut-out can be learned.

use std::path::Path;

use anyhow::ensure;
use densevit::tensor::RgbImage;

use crate::{
    compose::{
        Plan,
        cut_out::CutOut,
        ground::Ground,
        jpeg,
        scene::{Layer, render},
        stock::{Share, Stock},
    },
    datasets::create_folder,
};

/// Cut-outs that a class has in a split, at least.
pub const MIN_CUT_OUTS: usize = 2;
/// Longer side of the object, as a share of the image's shorter side.
const SIDE: [f64; 2] = [0.5, 0.9];

/// A class in a split.
struct Class<'a> {
    name: &'a str,
    cut_outs: Vec<&'a CutOut>,
}

/// Composes `plan.counts` images as `OUT/SPLIT/CLASS/NUMBER.jpg`; gives pictures of the first ones.
///
/// # Errors
/// When fewer than two classes have the cut-outs that they need, or a file cannot be read or written.
pub fn compose(stock: &Stock, plan: &Plan) -> anyhow::Result<Vec<RgbImage>> {
    let shares = plan.splits().map(|(split, count)| Ok((stock.share(split, 1)?, count))).collect::<anyhow::Result<Vec<_>>>()?;
    let categories = stock.categories();
    let has_enough = |name: &&String| shares.iter().all(|(share, _)| class(share, name).cut_outs.len() >= MIN_CUT_OUTS);
    let (names, left_out): (Vec<&String>, Vec<&String>) = categories.iter().partition(has_enough);
    println!("{} classes: {names:?}; fewer than {MIN_CUT_OUTS} cut-outs in a split: {left_out:?}", names.len());
    ensure!(names.len() >= 2, "{} classes have {MIN_CUT_OUTS} cut-outs in every split; at least two are needed", names.len());
    let mut pictures = Vec::new();
    for (share, count) in &shares {
        let classes: Vec<Class<'_>> = names.iter().map(|name| class(share, name)).collect();
        let folder = plan.out.join(share.split.name());
        for class in &classes {
            create_folder(&folder.join(class.name))?;
        }
        for idx in 0..*count {
            let class = &classes[idx % classes.len()];
            let cut_out = class.cut_outs[(idx / classes.len()) % class.cut_outs.len()];
            let image = image(share, cut_out, plan.size, share.random(plan.seed, idx))?;
            write(&folder.join(class.name), idx, &image)?;
            pictures.push(image);
        }
    }
    Ok(pictures)
}

fn class<'a>(share: &Share<'a>, name: &'a str) -> Class<'a> {
    Class { name, cut_outs: share.cut_outs.iter().copied().filter(|cut_out| cut_out.category == name).collect() }
}

fn image(share: &Share<'_>, cut_out: &CutOut, size: [u32; 2], mut random: fastrand::Rng) -> anyhow::Result<RgbImage> {
    let photo = share.photo(&mut random);
    let ground = Ground::new(photo, size, 1.0 + 0.3 * random.f64(), &mut random)?.at(0.0)?;
    Ok(render(&ground, &[Layer::somewhere(cut_out, size, SIDE, &mut random)]).image)
}

fn write(folder: &Path, idx: usize, image: &RgbImage) -> anyhow::Result<()> {
    jpeg::write(&folder.join(format!("{idx:05}.jpg")), image)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        compose::cut_out::{self, Rules},
        eval::classify::ImageFolder,
    };

    /// Noise around a hole (a full box is no cut-out), whose digest says which split it belongs to.
    fn noise(path: &Path, random: &mut fastrand::Rng) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_hole = |x: u32, y: u32| (20..50).contains(&x) && (20..50).contains(&y);
        let pixel = |x, y| image::Rgba([random.u8(..), random.u8(..), random.u8(..), if is_hole(x, y) { 0 } else { 255 }]);
        image::RgbaImage::from_fn(70, 70, pixel).save(path).unwrap();
    }

    #[test]
    fn classes_have_equally_many_images_and_those_with_too_few_cut_outs_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for (class, n) in [("ant", 30), ("bee", 30), ("cow", 1)] {
            (0..n).for_each(|idx| noise(&folder.path().join(format!("cut/{class}/{idx}.png")), &mut random));
        }
        let photos = folder.path().join("photos");
        std::fs::create_dir_all(&photos).unwrap();
        for idx in 0..20 {
            let pixel = |_x, _y| image::Rgb([random.u8(..), random.u8(..), random.u8(..)]);
            image::RgbImage::from_fn(40, 40, pixel).save(photos.join(format!("{idx}.png"))).unwrap();
        }
        let found = cut_out::find(&[folder.path().join("cut")], &Rules { min_side: 30, ..Rules::default() }).unwrap();
        let stock = Stock::new(found, &[photos]).unwrap();
        let out = folder.path().join("out");
        let plan = Plan { out: out.clone(), seed: 0, counts: [7, 0, 4], size: [32, 48], n_frames: 2 };
        assert_eq!(compose(&stock, &plan).unwrap().len(), 11);
        for (split, counts) in [("train", [4, 3]), ("test", [2, 2])] {
            let images = ImageFolder::open(&out.join(split)).unwrap();
            assert_eq!(images.classes, ["ant", "bee"], "{split}");
            let mut of_class = BTreeMap::new();
            images.images.iter().for_each(|(_, class)| *of_class.entry(*class).or_insert(0) += 1);
            assert_eq!(of_class.into_values().collect::<Vec<_>>(), counts, "{split}");
        }
    }
}
