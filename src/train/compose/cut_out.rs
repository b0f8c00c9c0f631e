//! Cut-outs: objects with an alpha channel, found in folders, and told from drawings.
//!
//! # Design
//! What is photographic is measured, not listed: a photo has nearly as many colours as pixels, a drawing few however large it is. Folders of
//! drawings that were drawn with many colours are left out by their names (`cartoon`).

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use densevit::manifest::sha256_file;
use serde::Serialize;

use crate::compose::split::Split;

/// Alpha above which a pixel belongs to the object.
pub const SOLID: f32 = 0.5;
/// What a copy that was turned around is called.
const MIRRORED: &str = "_mirror";

/// Which files are taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rules {
    /// Names of folders that are passed by.
    pub skip: Vec<String>,
    /// Smallest shorter side of the object's box, in pixels.
    pub min_side: u32,
    /// Smallest number of different colours, as a share of the object's pixels.
    pub min_colours: f64,
    /// Smallest and largest share of the object's box that the object fills. A full box is a photo without a cut.
    pub fill: [f64; 2],
}

impl Default for Rules {
    fn default() -> Self {
        let skip = ["cartoon", "plastic", "toys"].map(str::to_owned).to_vec();
        Self { skip, min_side: 64, min_colours: 0.15, fill: [0.15, 0.97] }
    }
}

/// An object.
#[derive(Clone)]
pub struct CutOut {
    /// What it is: the name of the folder that it lies in.
    pub category: String,
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// Width and height of its box, in pixels.
    pub size: [usize; 2],
    /// Pixels of the box, row by row: red, green and blue times alpha, and alpha, in \[0, 1\].
    pixels: Vec<[f32; 4]>,
    /// Pixels with an alpha above [`SOLID`].
    n_solid: usize,
}

impl std::fmt::Debug for CutOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CutOut({}, {}x{})", self.path.display(), self.size[0], self.size[1])
    }
}

impl CutOut {
    /// Reads a file; nothing if it is fully transparent.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let image = image::open(path).with_context(|| format!("reading {}", path.display()))?.into_rgba8();
        let solid = |pixel: &image::Rgba<u8>| f32::from(pixel.0[3]) / 255.0 > SOLID;
        let places = image.enumerate_pixels().filter(|(_, _, pixel)| solid(pixel));
        let start = (u32::MAX, u32::MAX, 0, 0);
        let (left, top, right, bottom) = places
            .fold(start, |(left, top, right, bottom), (x, y, _)| (left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)));
        if right == 0 {
            return Ok(None);
        }
        // A pixel more on each side: its thin alpha belongs to the object's border.
        let (left, top) = (left.saturating_sub(1), top.saturating_sub(1));
        let (right, bottom) = ((right + 1).min(image.width()), (bottom + 1).min(image.height()));
        let places = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
        let pixels: Vec<[f32; 4]> = places
            .map(|(x, y)| {
                let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(|level| f32::from(level) / 255.0);
                [red * alpha, green * alpha, blue * alpha, alpha]
            })
            .collect();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        Ok(Some(Self {
            category: folder.to_string_lossy().replace([' ', '/'], "-"),
            path: path.to_path_buf(),
            digest: sha256_file(path)?,
            size: [(right - left) as usize, (bottom - top) as usize],
            n_solid: pixels.iter().filter(|pixel| pixel[3] > SOLID).count(),
            pixels,
        }))
    }

    /// The split that it belongs to.
    #[must_use]
    pub fn split(&self) -> Split {
        Split::of(&self.digest)
    }

    /// Pixels of the object.
    #[must_use]
    pub fn n_solid(&self) -> usize {
        self.n_solid
    }

    /// Whether a pixel belongs to the object.
    #[must_use]
    pub fn is_solid(&self, x: usize, y: usize) -> bool {
        self.at(x, y)[3] > SOLID
    }

    /// Colour times alpha, and alpha, at a point; bilinear, and nothing outside.
    #[must_use]
    pub fn sample(&self, [x, y]: [f64; 2]) -> [f32; 4] {
        let (x, y) = (x - 0.5, y - 0.5);
        let mut sum = [0.0; 4];
        for (column, share_x) in [(x.floor(), 1.0 - x + x.floor()), (x.floor() + 1.0, x - x.floor())] {
            for (row, share_y) in [(y.floor(), 1.0 - y + y.floor()), (y.floor() + 1.0, y - y.floor())] {
                if column < 0.0 || row < 0.0 {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative, saturating")]
                let pixel = self.at(column as usize, row as usize);
                #[expect(clippy::cast_possible_truncation, reason = "a share")]
                let share = (share_x * share_y) as f32;
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += share * value);
            }
        }
        sum
    }

    fn at(&self, x: usize, y: usize) -> [f32; 4] {
        let inside = x < self.size[0] && y < self.size[1];
        if inside { self.pixels[y * self.size[0] + x] } else { [0.0; 4] }
    }

    /// Different colours of the object's pixels, as a share of them.
    #[must_use]
    pub fn colours(&self) -> f64 {
        let solid = self.pixels.iter().filter(|pixel| pixel[3] > SOLID);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
        let level = |value: f32, alpha: f32| (255.0 * value / alpha).round() as u8;
        let colours: HashSet<[u8; 3]> = solid.map(|pixel| [0, 1, 2].map(|channel| level(pixel[channel], pixel[3]))).collect();
        colours.len() as f64 / self.n_solid as f64
    }

    /// Why the rules leave it out.
    #[must_use]
    pub fn refusal(&self, rules: &Rules) -> Option<&'static str> {
        let fill = self.n_solid as f64 / (self.size[0] * self.size[1]) as f64;
        if self.size.iter().any(|side| *side < rules.min_side as usize) {
            return Some("too small");
        }
        if fill < rules.fill[0] || fill > rules.fill[1] {
            return Some("thin or not cut out");
        }
        (self.colours() < rules.min_colours).then_some("drawn")
    }
}

/// What was found in folders.
#[derive(Debug, Default)]
pub struct Found {
    /// What is used, by digest.
    pub cut_outs: Vec<CutOut>,
    /// Files that were left out, and why.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

/// Finds the cut-outs below folders; each content counts once.
///
/// # Errors
/// When a folder or a file cannot be read.
pub fn find(folders: &[PathBuf], rules: &Rules) -> anyhow::Result<Found> {
    let mut paths = Vec::new();
    for folder in folders {
        search(folder, rules, &mut paths).with_context(|| format!("reading {}", folder.display()))?;
    }
    paths.sort();
    let mut found = Found::default();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if stem.ends_with(MIRRORED) {
            found.left_out.push((path, "a mirrored copy"));
            continue;
        }
        let Some(cut_out) = CutOut::open(&path)? else {
            found.left_out.push((path, "empty"));
            continue;
        };
        match cut_out.refusal(rules) {
            Some(reason) => found.left_out.push((path, reason)),
            None => found.cut_outs.push(cut_out),
        }
    }
    found.cut_outs.sort_by(|a, b| a.digest.cmp(&b.digest));
    found.cut_outs.dedup_by(|a, b| a.digest == b.digest);
    if found.cut_outs.is_empty() {
        return Err(anyhow!("there are no cut-outs among {} files", found.left_out.len()));
    }
    Ok(found)
}

fn search(folder: &Path, rules: &Rules, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !rules.skip.contains(&name) {
                search(&path, rules, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use image::{Rgba, RgbaImage};

    use super::*;

    /// A disk of many colours, or of one.
    fn disk(folder: &Path, name: &str, is_photo: bool) {
        let pixel = |x: u32, y: u32| {
            let is_inside = x.abs_diff(50).pow(2) + y.abs_diff(50).pow(2) < 40 * 40;
            let level = |value: u32| if is_photo { u8::try_from(value % 256).unwrap() } else { 90 };
            Rgba([level(2 * x), level(2 * y), level(x + y), if is_inside { 255 } else { 0 }])
        };
        RgbaImage::from_fn(120, 110, pixel).save(folder.join(name)).unwrap();
    }

    #[test]
    fn photos_are_told_from_drawings_and_copies_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("birds");
        fs::create_dir_all(folder.join("cartoon")).unwrap();
        disk(&folder, "photo.png", true);
        disk(&folder, "photo_mirror.png", true);
        disk(&folder, "copy.png", true);
        disk(&folder, "drawn.png", false);
        disk(&folder.join("cartoon"), "other.png", true);
        RgbaImage::new(9, 9).save(folder.join("nothing.png")).unwrap();
        let found = find(&[root.path().to_path_buf()], &Rules::default()).unwrap();
        assert_eq!(found.cut_outs.len(), 1, "{found:?}");
        let cut_out = &found.cut_outs[0];
        assert_eq!((cut_out.category.as_str(), cut_out.size), ("birds", [81, 81]));
        let reasons: Vec<&str> = found.left_out.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, ["drawn", "empty", "a mirrored copy"]);
        let strict = Rules { min_side: 200, ..Rules::default() };
        assert_eq!(cut_out.refusal(&strict), Some("too small"));
        assert!(find(&[root.path().to_path_buf()], &strict).unwrap_err().to_string().contains("no cut-outs among 5 files"));
    }

    #[test]
    fn samples_lie_between_pixels_and_nothing_is_outside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.png");
        RgbaImage::from_fn(2, 1, |x, _| Rgba([if x == 0 { 255 } else { 0 }, 0, 0, 255])).save(&path).unwrap();
        let cut_out = CutOut::open(&path).unwrap().unwrap();
        assert_eq!(cut_out.sample([0.5, 0.5]), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(cut_out.sample([1.0, 0.5]), [0.5, 0.0, 0.0, 1.0]);
        assert_eq!(cut_out.sample([0.0, 0.5]), [0.5, 0.0, 0.0, 0.5]);
        assert_eq!(cut_out.sample([-9.0, 0.5]), [0.0; 4]);
    }
}
