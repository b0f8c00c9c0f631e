//! Pairs of images of the same cut-out under two known maps, in SPair's layout.
//!
//! # Design
//! Keypoints are chosen on the cut-out and go through the map that its pixels go through, so that they are exact. In one of two targets
//! something lies over the object. A keypoint is seen where the scene shows the object at its place. Unlike in SPair-71k both images show the
//! same thing, so that this measures warps, light and ground, not what two birds have in common.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use densevit::tensor::RgbImage;

use crate::{
    checkpoint,
    compose::{
        Plan,
        cut_out::CutOut,
        ground::Ground,
        jpeg, keypoints,
        pose::{Pose, Shape},
        scene::{Layer, Scene, is_seen, render},
        sheet::beside,
        split::Split,
        stock::{Share, Stock, between},
    },
    datasets::{
        Corners, create_folder,
        spair::{ImageAnnotation, PairAnnotation, image_annotation_folder, image_folder, pair_folder},
    },
    marks::{Marks, TRUTH},
};

/// Keypoints of a cut-out.
const N_KEYPOINTS: usize = 12;
/// Fewest that both images must show.
const MIN_COMMON: usize = 4;
/// Longer side of the object, as a share of the image's shorter side.
const SIDE: [f64; 2] = [0.45, 0.9];
/// The same of what lies over it, against the object's.
const OVER: [f64; 2] = [0.3, 0.5];
/// Share of the object that must be seen.
const SEEN: f64 = 0.5;
/// Attempts at a view.
const N_TRIES: usize = 50;

/// One image of a pair.
struct View {
    scene: Scene,
    corners: Corners,
    /// Of each keypoint, where it is seen.
    points: Vec<Option<[f64; 2]>>,
}

/// Composes `plan.counts` pairs; gives pictures of the first ones.
///
/// # Errors
/// When the stock does not suffice, or a file cannot be read or written.
pub fn compose(stock: &Stock, plan: &Plan) -> anyhow::Result<Vec<RgbImage>> {
    let mut pictures = Vec::new();
    for (split, count) in plan.splits() {
        let share = stock.share(split, 2)?;
        create_folder(&pair_folder(&plan.out, name(split)))?;
        for idx in 0..count {
            let mut random = share.random(plan.seed, idx);
            let cut_out = share.cut_out(&mut random);
            let (source, target) = views(&share, cut_out, plan.size, &mut random)?;
            let stem = |part: &str| format!("{}_{idx:05}_{part}", name(split));
            let names = [stem("a"), stem("b")];
            for (view, stem) in [&source, &target].into_iter().zip(&names) {
                write_view(plan, &cut_out.category, stem, view)?;
            }
            let file = format!("{idx:06}-{}-{}_{}.json", names[0], names[1], cut_out.category);
            let annotation = annotation(&cut_out.category, &names, [&source, &target]);
            let json = serde_json::to_vec(&annotation)?;
            checkpoint::write_bytes(&pair_folder(&plan.out, name(split)).join(file), &json)?;
            pictures.push(picture(&annotation, [&source, &target])?);
        }
    }
    Ok(pictures)
}

/// What SPair calls a split.
#[must_use]
pub fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "trn",
        Split::Val => "val",
        Split::Test => "test",
    }
}

/// Two views of a cut-out with keypoints in common.
fn views(share: &Share<'_>, cut_out: &CutOut, size: [u32; 2], random: &mut fastrand::Rng) -> anyhow::Result<(View, View)> {
    let points = keypoints::spread(cut_out, N_KEYPOINTS);
    for _ in 0..N_TRIES {
        let source = view(share, cut_out, &points, (size, false), random)?;
        let is_hidden = random.bool();
        let target = view(share, cut_out, &points, (size, is_hidden), random)?;
        let (Some(source), Some(target)) = (source, target) else { continue };
        if common(&source, &target).count() >= MIN_COMMON {
            return Ok((source, target));
        }
    }
    bail!("{} shows no {MIN_COMMON} common points in {N_TRIES} pairs of views", cut_out.path.display())
}

/// A view of a cut-out, something lying over it if that is wanted; nothing if too little of it is seen.
fn view(
    share: &Share<'_>,
    cut_out: &CutOut,
    points: &[[f64; 2]],
    (size, is_hidden): ([u32; 2], bool),
    random: &mut fastrand::Rng,
) -> anyhow::Result<Option<View>> {
    let photo = share.photo(random);
    let ground = Ground::new(photo, size, 1.0 + 0.5 * random.f64(), random)?.at(0.0)?;
    let longest = cut_out.size.iter().copied().max().unwrap_or(1) as f64;
    let shape = Shape {
        scale: between(random, SIDE) * f64::from(size[0].min(size[1])) / longest,
        angle: between(random, [-0.45, 0.45]),
        stretch: between(random, [0.8, 1.25]),
        shear: between(random, [-0.2, 0.2]),
        is_mirrored: false,
    };
    let middle = |random: &mut fastrand::Rng, extent: u32| f64::from(extent) * between(random, [0.35, 0.65]);
    let centre = [middle(random, size[1]), middle(random, size[0])];
    let mut layers = vec![Layer { cut_out, pose: Pose::new(cut_out.size, centre, shape), gain: between_f32(random, 0.75) }];
    let over = share.cut_out(random);
    let longest_over = over.size.iter().copied().max().unwrap_or(1) as f64;
    let scale = between(random, OVER) * longest * shape.scale / longest_over;
    let place = points[random.usize(..points.len())];
    let pose = Pose::new(over.size, layers[0].pose.apply(place), Shape { scale, is_mirrored: random.bool(), ..shape });
    if is_hidden {
        layers.push(Layer { cut_out: over, pose, gain: 1.0 });
    }
    let scene = render(&ground, &layers);
    let Some(corners) = scene.bounds(1).filter(|_| is_seen(&scene, 1, &layers[0], SEEN)) else { return Ok(None) };
    let hundredths = |axis: f64| (100.0 * axis).round() / 100.0;
    let seen = |point: &[f64; 2]| {
        let place = layers[0].pose.apply(*point).map(hundredths);
        scene.shows(1, place).then_some(place)
    };
    Ok(Some(View { points: points.iter().map(seen).collect(), scene, corners }))
}

/// Keypoints that both show: number, place in the source and in the target.
fn common<'a>(source: &'a View, target: &'a View) -> impl Iterator<Item = (usize, [f64; 2], [f64; 2])> {
    let pairs = source.points.iter().zip(&target.points).enumerate();
    pairs.filter_map(|(number, (source, target))| Some((number, (*source)?, (*target)?)))
}

fn annotation(category: &str, names: &[String; 2], [source, target]: [&View; 2]) -> PairAnnotation {
    let size = |view: &View| vec![view.scene.image.width(), view.scene.image.height(), 3];
    PairAnnotation {
        category: category.to_owned(),
        mirror: 0,
        src_imname: format!("{}.jpg", names[0]),
        trg_imname: format!("{}.jpg", names[1]),
        src_imsize: size(source),
        trg_imsize: size(target),
        src_bndbox: source.corners,
        trg_bndbox: target.corners,
        kps_ids: common(source, target).map(|(number, ..)| number.to_string().into()).collect(),
        src_kps: common(source, target).map(|(_, source, _)| source).collect(),
        trg_kps: common(source, target).map(|(.., target)| target).collect(),
    }
}

fn write_view(plan: &Plan, category: &str, stem: &str, view: &View) -> anyhow::Result<()> {
    let (images, annotations) = (image_folder(&plan.out, category), image_annotation_folder(&plan.out, category));
    create_folder(&images)?;
    create_folder(&annotations)?;
    jpeg::write(&images.join(format!("{stem}.jpg")), &view.scene.image)?;
    let slot = |idx: usize| (idx.to_string(), view.points.get(idx).copied().flatten());
    let annotation = ImageAnnotation {
        filename: format!("{stem}.jpg"),
        image_width: view.scene.image.width(),
        image_height: view.scene.image.height(),
        image_depth: 3,
        category: category.to_owned(),
        bndbox: view.corners,
        kps: (0..N_KEYPOINTS).map(slot).collect::<BTreeMap<_, _>>(),
    };
    checkpoint::write_bytes(&annotations.join(format!("{stem}.json")), &serde_json::to_vec(&annotation)?)
}

fn picture(annotation: &PairAnnotation, [source, target]: [&View; 2]) -> anyhow::Result<RgbImage> {
    let marked = |view: &View, corners: Corners, points: &[[f64; 2]]| {
        let marks = Marks::new(&view.scene.image).boxed(corners, TRUTH);
        let colour = |idx: usize| crate::datasets::indexed::palette().ok().and_then(|all| all.colors().get(idx + 1).copied());
        let dotted = |marks: Marks, (idx, point): (usize, &[f64; 2])| marks.dotted(*point, colour(idx).unwrap_or(TRUTH));
        points.iter().enumerate().fold(marks, dotted).into_image().context("an image has no pixels")
    };
    let left = marked(source, annotation.src_bndbox, &annotation.src_kps)?;
    let right = marked(target, annotation.trg_bndbox, &annotation.trg_kps)?;
    beside(&left, &right).context("an image has no pixels")
}

/// A gain between some darkness and its inverse.
fn between_f32(random: &mut fastrand::Rng, darkest: f32) -> f32 {
    darkest.powf(2.0 * random.f32() - 1.0)
}
