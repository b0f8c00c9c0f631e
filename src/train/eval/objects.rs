//! J and F of masks that are propagated from the first frame of a video: DAVIS 2017, semi-supervised.
//!
//! # Design
//! Two protocols, whose numbers are never mixed. LiFT's: frames squeezed to S x S. DINO's: 480 rows (or columns, if those are fewer), the other
//! side cut to a multiple of 64; with a patch that does not divide these, both sides are cut to whole patches, and the protocol's name says so.
//! DINO's slip in a normalisation constant (0.228 for 0.229) is not repeated. Scores are taken at the size of the masks, the first and the last
//! frame left out.

use anyhow::anyhow;
use densevit::{correspond::PropagateOptions, manifest::Interpolation, tensor::RgbImage};
use serde::Serialize;

use crate::{
    backbone::Backbone,
    data::{photos, view::resized},
    datasets::{davis::Sequence, indexed},
    eval::{
        propagation::Propagators,
        rows::Rows,
        video_metrics::{Mask, Statistics, boundary_accuracy, region_similarity},
    },
    segmentation::data::labels::Labels,
};

/// Shorter side of frames in DINO's protocol, and what the other side is a multiple of.
const SHORT_SIDE: u32 = 480;
const LONG_STEP: u32 = 64;

/// How frames are given to the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Squeezed to so many pixels a side: LiFT's.
    Square(u32),
    /// About 480 pixels on the shorter side: DINO's.
    Dino,
}

impl Protocol {
    /// For tables.
    #[must_use]
    pub fn label(self, patch: u32) -> String {
        match self {
            Self::Square(side) => format!("{side} x {side} px, squeezed (LiFT)"),
            Self::Dino if LONG_STEP.is_multiple_of(patch) => "480p (DINO)".to_owned(),
            Self::Dino => format!("480p (DINO, cut to whole patches of {patch})"),
        }
    }

    /// Rows and columns for a frame.
    fn size(self, frame: &RgbImage, patch: u32) -> [u32; 2] {
        let Self::Square(side) = self else {
            let step = if LONG_STEP.is_multiple_of(patch) { LONG_STEP } else { patch };
            let cut = |pixels: u64, step: u32| (u32::try_from(pixels).unwrap_or(u32::MAX) / step * step).max(step);
            let long = |long: u32, short: u32| cut(u64::from(SHORT_SIDE) * u64::from(long) / u64::from(short), step);
            let short = cut(SHORT_SIDE.into(), patch);
            let (height, width) = (frame.height(), frame.width());
            return if height <= width { [short, long(width, height)] } else { [long(height, width), short] };
        };
        [side; 2]
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// How frames were given.
    pub protocol: String,
    /// What features.
    pub row: String,
    /// Objects of all videos.
    pub n_objects: usize,
    /// Mean over objects of J's mean, recall and decay.
    pub j: [f64; 3],
    /// The same of F.
    pub f: [f64; 3],
    /// Mean of both means.
    pub j_and_f: f64,
}

/// Masks of one frame, for pictures.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Name of the video.
    pub video: &'a str,
    /// Number of the frame.
    pub idx: usize,
    /// The frame.
    pub frame: &'a RgbImage,
    /// What is true.
    pub truth: &'a Labels,
    /// What each row gave.
    pub found: &'a [Labels],
}

/// J and F of one object, frame by frame.
#[derive(Clone, Debug, Default)]
struct Track {
    j: Vec<f64>,
    f: Vec<f64>,
}

/// Measures all rows, after one that leaves the first masks where they are.
///
/// # Errors
/// When a file cannot be read or the backbone fails.
pub fn measure(
    backbone: &mut Backbone,
    rows: &Rows,
    (sequences, protocol): (&[Sequence], Protocol),
    options: PropagateOptions,
    mut show: impl FnMut(Shown<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Score>> {
    let names: Vec<&str> = std::iter::once("the first masks").chain(rows.rows().iter().map(|row| row.name.as_str())).collect();
    let mut tracks: Vec<Vec<Track>> = vec![Vec::new(); names.len()];
    for sequence in sequences {
        let (first, maps) = frame(backbone, rows, sequence, 0, protocol)?;
        let masks = indexed::read(&sequence.masks[0])?;
        let n_objects = masks.data.iter().copied().max().unwrap_or_default();
        let mut propagators = Propagators::new(&maps, &masks, options, backbone.patch())?;
        drop(first);
        let mut own: Vec<Vec<Track>> = vec![vec![Track::default(); n_objects.into()]; names.len()];
        // The last frame is not scored, and nothing follows it.
        for idx in 1..sequence.frames.len().saturating_sub(1) {
            let (image, maps) = frame(backbone, rows, sequence, idx, protocol)?;
            let truth = indexed::read(&sequence.masks[idx])?;
            let found = propagators.next(&maps, [truth.height, truth.width])?;
            for (tracks, found) in own.iter_mut().zip(std::iter::once(&masks).chain(&found)) {
                add(tracks, found, &truth);
            }
            show(Shown { video: &sequence.name, idx, frame: &image, truth: &truth, found: &found })?;
        }
        tracks.iter_mut().zip(own).for_each(|(tracks, own)| tracks.extend(own));
    }
    let label = protocol.label(backbone.patch());
    Ok(names.iter().zip(&tracks).map(|(row, tracks)| score(&label, row, tracks)).collect())
}

/// A frame as it is, and its maps.
fn frame(
    backbone: &mut Backbone,
    rows: &Rows,
    sequence: &Sequence,
    idx: usize,
    protocol: Protocol,
) -> anyhow::Result<(RgbImage, Vec<tch::Tensor>)> {
    let path = &sequence.frames[idx];
    let image = photos::open(path).map_err(|problem| anyhow!("{}: it {problem}", path.display()))?;
    let size = protocol.size(&image, backbone.patch());
    let input = resized(&image, size, Interpolation::Bicubic, None).map_err(anyhow::Error::msg)?;
    let maps = rows.maps(backbone, &input)?;
    Ok((image, maps))
}

/// Adds J and F of a frame to each object's.
fn add(tracks: &mut [Track], found: &Labels, truth: &Labels) {
    let size = [truth.height as usize, truth.width as usize];
    for (object, track) in (1u8..=u8::MAX).zip(tracks) {
        let bits = |labels: &Labels| labels.data.iter().map(|label| *label == object).collect::<Vec<bool>>();
        let (found, truth) = (bits(found), bits(truth));
        let (found, truth) = (Mask { bits: &found, size }, Mask { bits: &truth, size });
        track.j.push(region_similarity(found, truth));
        track.f.push(boundary_accuracy(found, truth));
    }
}

fn score(protocol: &str, row: &str, tracks: &[Track]) -> Score {
    let mean = |of: fn(&Track) -> &[f64]| {
        let statistics: Vec<Statistics> = tracks.iter().filter_map(|track| Statistics::new(of(track))).collect();
        let n = statistics.len().max(1) as f64;
        let part = |part: fn(&Statistics) -> f64| statistics.iter().map(part).sum::<f64>() / n;
        [part(|own| own.mean), part(|own| own.recall), part(|own| own.decay)]
    };
    let (j, f) = (mean(|track| &track.j), mean(|track| &track.f));
    let j_and_f = f64::midpoint(j[0], f[0]);
    Score { protocol: protocol.to_owned(), row: row.to_owned(), n_objects: tracks.len(), j, f, j_and_f }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn frames_are_cut_as_the_protocols_say() {
        let frame = |height, width| RgbImage::new(height, width, vec![0; (3 * height * width) as usize]).unwrap();
        assert_eq!(Protocol::Square(224).size(&frame(48, 90), 16), [224, 224]);
        // 480 * 90 / 48 = 900.
        assert_eq!(Protocol::Dino.size(&frame(48, 90), 16), [480, 896]);
        assert_eq!(Protocol::Dino.size(&frame(90, 48), 8), [896, 480]);
        assert_eq!(Protocol::Dino.size(&frame(48, 90), 14), [476, 896]);
        assert_eq!(Protocol::Dino.label(14), "480p (DINO, cut to whole patches of 14)");
        assert_eq!(Protocol::Dino.label(8), "480p (DINO)");
    }

    #[test]
    fn scores_are_means_over_objects_of_all_videos() {
        let track = |j: &[f64]| Track { j: j.to_vec(), f: vec![1.0; j.len()] };
        let score = score("p", "r", &[track(&[1.0, 0.4]), track(&[0.5, 0.1, 0.0])]);
        assert!((score.j[0] - (0.7 + 0.2) / 2.0).abs() < 1e-12 && (score.j[1] - (0.5 + 0.0) / 2.0).abs() < 1e-12);
        assert_eq!((score.n_objects, score.f[0]), (2, 1.0));
        assert!((score.j_and_f - (0.45 + 1.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn each_object_is_compared_with_its_own_mask() {
        let labels = |data: &[u8]| Labels { height: 2, width: 2, data: data.to_vec() };
        let mut tracks = vec![Track::default(); 3];
        add(&mut tracks, &labels(&[1, 1, 2, 0]), &labels(&[1, 0, 2, 0]));
        let j: Vec<f64> = tracks.iter().map(|track| track.j[0]).collect();
        assert_eq!(j, [0.5, 1.0, 1.0], "nothing of the third object is anywhere");
    }
}
