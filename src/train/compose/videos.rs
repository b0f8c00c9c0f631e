//! Videos of objects that move over a photo, in DAVIS' layout.
//!
//! # Design
//! Every second object goes the other way, so that objects cross; which one lies above does not change. The camera pans over the photo.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use densevit::tensor::RgbImage;

use crate::{
    checkpoint,
    compose::{
        Plan,
        cut_out::CutOut,
        ground::Ground,
        jpeg,
        path::Path,
        scene::{Layer, Scene, render},
        stock::{Share, Stock, between},
    },
    datasets::{create_folder, davis, indexed},
    marks::tinted,
};

/// Objects of a video.
const N_OBJECTS: [usize; 4] = [1, 2, 2, 3];
/// Longer side of an object, as a share of the image's shorter side.
const SIDE: [f64; 2] = [0.3, 0.6];
/// How much of the photo the camera may see at once: the larger, the farther it pans.
const ZOOM: [f64; 2] = [1.1, 1.5];
/// Fewest pixels that an object shows in the first frame, as a share of its own.
const SEEN: f64 = 0.5;
/// Attempts at a video.
const N_TRIES: usize = 50;
/// Frames of a video on the contact sheet.
const N_SHOWN: usize = 3;

/// A video before it is drawn.
struct Script<'a> {
    ground: Ground,
    objects: Vec<(&'a CutOut, Path)>,
}

impl<'a> Script<'a> {
    /// A script whose objects are all seen in the first frame.
    fn new(share: &Share<'a>, size: [u32; 2], random: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let n = N_OBJECTS[random.usize(..N_OBJECTS.len())].min(share.cut_outs.len());
        for _ in 0..N_TRIES {
            let photo = share.photo(random);
            let ground = Ground::new(photo, size, between(random, ZOOM), random)?;
            let mut cut_outs = share.cut_outs.clone();
            random.shuffle(&mut cut_outs);
            let objects =
                cut_outs.into_iter().take(n).enumerate().map(|(idx, cut_out)| (cut_out, path(cut_out, idx, size, random)));
            let script = Self { ground, objects: objects.collect() };
            let first = script.frame(0.0)?;
            let is_seen = |(number, (cut_out, path)): (u8, &(&CutOut, Path))| {
                first.n_seen(number) as f64 >= SEEN * cut_out.n_solid() as f64 * path.at(0.0, cut_out).area()
            };
            if (1u8..).zip(&script.objects).all(is_seen) {
                return Ok(script);
            }
        }
        bail!("no video in {N_TRIES} shows all its objects at its beginning")
    }

    fn frame(&self, share: f64) -> anyhow::Result<Scene> {
        let layer = |(cut_out, path): &(&'a CutOut, Path)| Layer { cut_out, pose: path.at(share, cut_out), gain: 1.0 };
        let layers: Vec<Layer<'_>> = self.objects.iter().map(layer).collect();
        Ok(render(&self.ground.at(share)?, &layers))
    }
}

/// Composes `plan.counts` videos of `plan.n_frames` frames; gives pictures of the first ones.
///
/// # Errors
/// When the stock does not suffice, or a file cannot be read or written.
pub fn compose(stock: &Stock, plan: &Plan) -> anyhow::Result<Vec<RgbImage>> {
    let mut pictures = Vec::new();
    for (split, count) in plan.splits() {
        let share = stock.share(split, 1)?;
        let mut list = String::new();
        for idx in 0..count {
            let name = format!("{}-{idx:03}", split.name());
            let script = Script::new(&share, plan.size, &mut share.random(plan.seed, idx))?;
            write(plan, &name, &script, &mut pictures)?;
            let _written = writeln!(list, "{name}");
        }
        let path = davis::list(&plan.out, split.name());
        create_folder(path.parent().unwrap_or(&plan.out))?;
        checkpoint::write_bytes(&path, list.as_bytes())?;
    }
    Ok(pictures)
}

fn write(plan: &Plan, name: &str, script: &Script<'_>, pictures: &mut Vec<RgbImage>) -> anyhow::Result<()> {
    let [images, masks] = davis::folders(&plan.out, name);
    create_folder(&images)?;
    create_folder(&masks)?;
    let last = plan.n_frames.saturating_sub(1).max(1);
    for idx in 0..plan.n_frames {
        let scene = script.frame(idx as f64 / last as f64)?;
        jpeg::write(&images.join(format!("{idx:05}.jpg")), &scene.image)?;
        indexed::write(&masks.join(format!("{idx:05}.png")), &scene.owners)?;
        if idx % (plan.n_frames / N_SHOWN).max(1) == 0 {
            pictures.push(tinted(&scene.image, &scene.owners).context("drawing a frame")?);
        }
    }
    Ok(())
}

/// A way from one side to the other; every second object comes from the right.
fn path(cut_out: &CutOut, idx: usize, [height, width]: [u32; 2], random: &mut fastrand::Rng) -> Path {
    let (height, width) = (f64::from(height), f64::from(width));
    let mut point = |from: f64, to: f64| [width * between(random, [from, to]), height * between(random, [0.3, 0.7])];
    let mut points = [point(0.18, 0.35), point(0.35, 0.65), point(0.65, 0.82)];
    if idx % 2 == 1 {
        points.reverse();
    }
    let longest = cut_out.size.iter().copied().max().unwrap_or(1) as f64;
    let scale = between(random, SIDE) * height.min(width) / longest;
    Path {
        points,
        scales: [scale, scale * between(random, [0.75, 1.33])],
        angles: [between(random, [-0.2, 0.2]), between(random, [-0.5, 0.5])],
        wobble: [between(random, [0.0, 0.12]), between(random, [1.0, 2.0])],
        is_mirrored: random.bool(),
    }
}
