//! Smooth ways of objects through a video.

use crate::compose::{
    cut_out::CutOut,
    pose::{Pose, Shape},
};

/// Way, size and turn of an object, as functions of the share of the video that has passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// Start, middle and end of a curve (quadratic Bézier).
    pub points: [[f64; 2]; 3],
    /// Pixels of the image a pixel of the cut-out, at the start and at the end; in between by equal factors.
    pub scales: [f64; 2],
    /// Angles at the start and at the end, in radians.
    pub angles: [f64; 2],
    /// Turns back and forth on the way: how far, in radians, and how often.
    pub wobble: [f64; 2],
    /// Whether left and right change places.
    pub is_mirrored: bool,
}

impl Path {
    /// Where the object is when a share of the video has passed.
    #[must_use]
    pub fn at(&self, share: f64, cut_out: &CutOut) -> Pose {
        // Slow at both ends.
        let eased = share * share * (3.0 - 2.0 * share);
        let [start, middle, end] = self.points;
        let centre = [0, 1].map(|axis| {
            let (first, second) =
                (start[axis] + eased * (middle[axis] - start[axis]), middle[axis] + eased * (end[axis] - middle[axis]));
            first + eased * (second - first)
        });
        let turn = self.wobble[0] * (std::f64::consts::TAU * self.wobble[1] * share).sin();
        let shape = Shape {
            scale: self.scales[0] * (self.scales[1] / self.scales[0]).powf(eased),
            angle: self.angles[0] + eased * (self.angles[1] - self.angles[0]) + turn,
            stretch: 1.0,
            shear: 0.0,
            is_mirrored: self.is_mirrored,
        };
        Pose::new(cut_out.size, centre, shape)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use image::{Rgba, RgbaImage};

    use super::*;

    #[test]
    fn ways_begin_and_end_where_they_should_and_make_no_jumps() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        RgbaImage::from_pixel(10, 10, Rgba([9, 9, 9, 255])).save(&file).unwrap();
        let cut_out = CutOut::open(&file).unwrap().unwrap();
        let path = Path {
            points: [[0.0, 0.0], [50.0, 80.0], [100.0, 0.0]],
            scales: [1.0, 4.0],
            angles: [0.0, 1.0],
            wobble: [0.1, 2.0],
            is_mirrored: false,
        };
        let middle = |share: f64| path.at(share, &cut_out).apply([5.0, 5.0]);
        let far = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        assert!(far(middle(0.0), [0.0, 0.0]) < 1e-9 && far(middle(1.0), [100.0, 0.0]) < 1e-9);
        assert!(far(middle(0.5), [50.0, 40.0]) < 1e-9);
        assert!((path.at(0.5, &cut_out).area() - 4.0).abs() < 1e-9, "twice as large on each side");
        let steps = (0..100).map(|idx| f64::from(idx) / 100.0).map(|share| far(middle(share), middle(share + 0.01)));
        assert!(steps.fold(0.0, f64::max) < 4.0);
    }
}
