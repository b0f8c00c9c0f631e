//! Images with one to three objects: boxes and masks in VOC's layout, boxes in COCO20k's.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use densevit::{
    masks::{BitMask, Rle},
    tensor::RgbImage,
};

use crate::{
    checkpoint,
    compose::{
        Plan,
        ground::Ground,
        jpeg,
        scene::{Layer, Scene, is_seen, render},
        split::Split,
        stock::{Share, Stock},
    },
    datasets::{Corners, coco, create_folder, indexed, voc},
    marks::{Marks, TRUTH, tinted},
    segmentation::data::labels::Labels,
};

/// Objects of an image, as often as they stand here.
const N_OBJECTS: [usize; 10] = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3];
/// Longer side of an object, as a share of the image's shorter side.
const SIDE: [f64; 2] = [0.3, 0.75];
/// Share of an object that must be seen.
const SEEN: f64 = 0.6;
/// Attempts to place objects so that all are seen, before there is one object less.
const N_TRIES: usize = 20;

/// An object of an image.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    /// Place of its category among all.
    category: usize,
    corners: Corners,
    is_truncated: bool,
    /// Its number in the scene.
    number: u8,
}

/// An image and its objects.
struct Example {
    scene: Scene,
    objects: Vec<Object>,
}

impl Example {
    fn new(share: &Share<'_>, categories: &[String], size: [u32; 2], mut random: fastrand::Rng) -> anyhow::Result<Self> {
        let photo = share.photo(&mut random);
        let ground = Ground::new(photo, size, 1.0 + 0.3 * random.f64(), &mut random)?.at(0.0)?;
        let mut n = N_OBJECTS[random.usize(..N_OBJECTS.len())];
        loop {
            for _ in 0..N_TRIES {
                let layers: Vec<Layer<'_>> =
                    (0..n).map(|_| Layer::somewhere(share.cut_out(&mut random), size, SIDE, &mut random)).collect();
                let scene = render(&ground, &layers);
                let all_seen = (1u8..).zip(&layers).all(|(number, layer)| is_seen(&scene, number, layer, SEEN));
                if all_seen {
                    let objects = (1u8..).zip(&layers).filter_map(|(number, layer)| object(&scene, number, layer, categories));
                    return Ok(Self { objects: objects.collect(), scene });
                }
            }
            n = n.saturating_sub(1);
        }
    }

    /// A value a pixel: the category's place, from 1 on.
    fn classes(&self) -> Labels {
        let value = |owner: &u8| {
            let object = self.objects.iter().find(|object| object.number == *owner);
            object.map_or(0, |object| u8::try_from(object.category + 1).unwrap_or(u8::MAX))
        };
        Labels { data: self.scene.owners.data.iter().map(value).collect(), ..self.scene.owners.clone() }
    }

    /// For the contact sheet.
    fn picture(&self) -> anyhow::Result<RgbImage> {
        let marks = Marks::new(&tinted(&self.scene.image, &self.scene.owners)?);
        let marks = self.objects.iter().fold(marks, |marks, object| marks.boxed(object.corners, TRUTH));
        marks.into_image().context("an image has no pixels")
    }
}

/// Composes `plan.counts` images in VOC's layout, with `classes.toml` for the layout `voc-own`; gives pictures of the first ones.
///
/// # Errors
/// When the stock does not suffice, or a file cannot be read or written.
pub fn compose_voc(stock: &Stock, plan: &Plan) -> anyhow::Result<Vec<RgbImage>> {
    let categories = stock.categories();
    let out = &plan.out;
    for folder in
        ["JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject", "ImageSets/Main", "ImageSets/Segmentation"]
    {
        create_folder(&out.join(folder))?;
    }
    checkpoint::write_bytes(&out.join("classes.toml"), classes_toml(&categories)?.as_bytes())?;
    let mut lists: Vec<(Split, String)> = Vec::new();
    let mut pictures = Vec::new();
    for (split, count) in plan.splits() {
        let share = stock.share(split, 1)?;
        let mut list = String::new();
        for idx in 0..count {
            let example = Example::new(&share, &categories, plan.size, share.random(plan.seed, idx))?;
            let id = format!("{}_{idx:05}", split.name());
            write_voc(out, &id, &example, &categories)?;
            pictures.push(example.picture()?);
            let _written = writeln!(list, "{id}");
        }
        lists.push((split, list));
    }
    let of = |wanted: &[Split]| {
        lists.iter().filter(|(split, _)| wanted.contains(split)).map(|(_, list)| list.as_str()).collect::<String>()
    };
    for (name, list) in [
        ("train", of(&[Split::Train])),
        ("val", of(&[Split::Val])),
        ("trainval", of(&[Split::Train, Split::Val])),
        ("test", of(&[Split::Test])),
    ] {
        for kind in ["Main", "Segmentation"] {
            checkpoint::write_bytes(&out.join("ImageSets").join(kind).join(format!("{name}.txt")), list.as_bytes())?;
        }
    }
    Ok(pictures)
}

/// Composes `plan.counts` images of the test split in COCO20k's layout, which has no others; gives pictures of the first ones.
///
/// # Errors
/// As [`compose_voc`].
pub fn compose_coco(stock: &Stock, plan: &Plan) -> anyhow::Result<Vec<RgbImage>> {
    let categories = stock.categories();
    let folder = plan.out.join(coco::IMAGES[0]).join(coco::IMAGES[1]);
    create_folder(&folder)?;
    create_folder(plan.out.join(coco::INSTANCES).parent().unwrap_or(&plan.out))?;
    let named = (1u64..).zip(&categories).map(|(id, name)| coco::CategoryEntry { id, name: name.clone() });
    let mut instances = coco::Instances { categories: named.collect(), ..coco::Instances::default() };
    let share = stock.share(Split::Test, 1)?;
    let (mut list, mut pictures) = (String::new(), Vec::new());
    for (id, idx) in (1u64..).zip(0..plan.counts[2]) {
        let example = Example::new(&share, &categories, plan.size, share.random(plan.seed, idx))?;
        let name = coco::file_name(id);
        jpeg::write(&folder.join(&name), &example.scene.image)?;
        let file_name = name.to_string_lossy().into_owned();
        let _written = writeln!(list, "{}/{file_name}", coco::IMAGES[1]);
        let [height, width] = plan.size;
        instances.images.push(coco::ImageEntry { id, file_name, width, height });
        for object in &example.objects {
            let id_of_object = instances.annotations.len() as u64 + 1;
            instances.annotations.push(coco_object(&example.scene, object, [id_of_object, id])?);
        }
        pictures.push(example.picture()?);
    }
    checkpoint::write_bytes(&plan.out.join(coco::LIST), list.as_bytes())?;
    checkpoint::write_bytes(&plan.out.join(coco::INSTANCES), &serde_json::to_vec(&instances)?)?;
    Ok(pictures)
}

fn object(scene: &Scene, number: u8, layer: &Layer<'_>, categories: &[String]) -> Option<Object> {
    let corners = scene.bounds(number)?;
    let (height, width) = (f64::from(scene.image.height()), f64::from(scene.image.width()));
    let is_truncated = corners[0] <= 0.0 || corners[1] <= 0.0 || corners[2] >= width || corners[3] >= height;
    let category = categories.iter().position(|name| *name == layer.cut_out.category)?;
    Some(Object { category, corners, is_truncated, number })
}

fn write_voc(out: &Path, id: &str, example: &Example, categories: &[String]) -> anyhow::Result<()> {
    let image = &example.scene.image;
    jpeg::write(&out.join("JPEGImages").join(format!("{id}.jpg")), image)?;
    let object = |object: &Object| voc::Object {
        category: categories.get(object.category).cloned().unwrap_or_default(),
        corners: object.corners,
        is_truncated: object.is_truncated,
        is_difficult: false,
    };
    let annotation = voc::Annotation {
        filename: format!("{id}.jpg"),
        size: [image.height(), image.width()],
        objects: example.objects.iter().map(object).collect(),
    };
    let xml = out.join("Annotations").join(format!("{id}.xml"));
    fs::write(&xml, annotation.to_xml()).with_context(|| format!("writing {}", xml.display()))?;
    indexed::write(&out.join("SegmentationClass").join(format!("{id}.png")), &example.classes())?;
    indexed::write(&out.join("SegmentationObject").join(format!("{id}.png")), &example.scene.owners)
}

fn coco_object(scene: &Scene, object: &Object, [id, image_id]: [u64; 2]) -> anyhow::Result<coco::ObjectEntry> {
    let [x0, y0, x1, y1] = object.corners;
    let (rows, cols) = (scene.owners.height as usize, scene.owners.width as usize);
    let is_set = |owner: &u8| *owner == object.number;
    let bytes = |row: &[u8]| {
        let byte =
            |part: &[u8]| (0u8..).zip(part).fold(0, |byte, (place, owner)| byte | (u8::from(is_set(owner)) << (7 - place)));
        row.chunks(8).map(byte).collect::<Vec<u8>>()
    };
    let rle = Rle::of_mask(&BitMask::from_bits(rows, cols, scene.owners.data.chunks(cols).flat_map(bytes).collect())?);
    Ok(coco::ObjectEntry {
        id,
        image_id,
        category_id: object.category as u64 + 1,
        bbox: [x0, y0, x1 - x0, y1 - y0],
        area: scene.n_seen(object.number) as f64,
        iscrowd: 0,
        segmentation: Some(coco::RunLengths { size: [scene.owners.height, scene.owners.width], counts: rle.to_coco_string() }),
    })
}

fn classes_toml(categories: &[String]) -> anyhow::Result<String> {
    let palette = indexed::palette()?;
    let names = std::iter::once("background").chain(categories.iter().map(String::as_str));
    let row = |(name, [r, g, b]): (&str, &[u8; 3])| format!("  {{ name = {name:?}, color = [{r}, {g}, {b}] }},\n");
    let rows: String = names.zip(palette.colors()).map(row).collect();
    Ok(format!("ignore = [255]\nclass = [\n{rows}]\n"))
}
