//! Where a cut-out lies in an image: an affine map.

use crate::compose::cut_out::CutOut;

/// How a cut-out is turned and stretched around its middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Pixels of the image a pixel of the cut-out.
    pub scale: f64,
    /// Turn to the right, in radians.
    pub angle: f64,
    /// How much wider than high it becomes.
    pub stretch: f64,
    /// How far lower rows are pushed to the right, as a share of their distance.
    pub shear: f64,
    /// Whether left and right change places.
    pub is_mirrored: bool,
}

/// A map of points of a cut-out to points of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// `[[xx, xy, x], [yx, yy, y]]`.
    matrix: [[f64; 3]; 2],
}

impl Pose {
    /// The middle of a cut-out of some width and height at `centre`.
    #[must_use]
    pub fn new(size: [usize; 2], centre: [f64; 2], shape: Shape) -> Self {
        let Shape { scale, angle, stretch, shear, is_mirrored } = shape;
        let (sin, cos) = angle.sin_cos();
        let (wide, high) = (scale * stretch.sqrt() * if is_mirrored { -1.0 } else { 1.0 }, scale / stretch.sqrt());
        // Turn x shear x scale.
        let linear = [[cos * wide, (cos * shear - sin) * high], [sin * wide, (sin * shear + cos) * high]];
        let middle = size.map(|side| side as f64 / 2.0);
        let offset = |row: usize| centre[row] - linear[row][0] * middle[0] - linear[row][1] * middle[1];
        Self { matrix: [[linear[0][0], linear[0][1], offset(0)], [linear[1][0], linear[1][1], offset(1)]] }
    }

    /// Where a point goes.
    #[must_use]
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        self.matrix.map(|row| row[0] * x + row[1] * y + row[2])
    }

    /// The way back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let [[a, b, x], [c, d, y]] = self.matrix;
        let determinant = a * d - b * c;
        let linear = [[d / determinant, -b / determinant], [-c / determinant, a / determinant]];
        let row = |row: usize| [linear[row][0], linear[row][1], -linear[row][0] * x - linear[row][1] * y];
        Self { matrix: [row(0), row(1)] }
    }

    /// Pixels of the image a pixel of the cut-out, as areas.
    #[must_use]
    pub fn area(&self) -> f64 {
        let [[a, b, _], [c, d, _]] = self.matrix;
        (a * d - b * c).abs()
    }

    /// The box around a cut-out in the image, `[x0, y0, x1, y1]`.
    #[must_use]
    pub fn bounds(&self, cut_out: &CutOut) -> [f64; 4] {
        let [width, height] = cut_out.size.map(|side| side as f64);
        let corners = [[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]].map(|corner| self.apply(corner));
        corners.iter().fold([f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY], |bounds, [x, y]| {
            [bounds[0].min(*x), bounds[1].min(*y), bounds[2].max(*x), bounds[3].max(*y)]
        })
    }

    /// Samples along each axis of a pixel of the image that see every pixel of the cut-out.
    pub(super) fn n_samples(&self) -> usize {
        let [[a, b, _], [c, d, _]] = self.matrix;
        let smallest = a.hypot(c).min(b.hypot(d)).max(f64::MIN_POSITIVE);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 2 and 8")]
        let n = (1.0 / smallest).ceil().clamp(2.0, 8.0) as usize;
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { scale: 2.0, angle: 0.3, stretch: 1.2, shear: 0.1, is_mirrored: true };

    #[test]
    fn the_middle_lies_at_the_centre_and_the_way_back_leads_back() {
        let pose = Pose::new([10, 20], [100.0, 50.0], SHAPE);
        let near = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]) < 1e-9;
        assert!(near(pose.apply([5.0, 10.0]), [100.0, 50.0]));
        assert!(near(pose.inverse().apply(pose.apply([3.0, 17.0])), [3.0, 17.0]));
        assert!((pose.area() - 4.0).abs() < 1e-9, "neither turn, stretch nor shear change areas");
    }

    #[test]
    fn a_quarter_turn_by_hand() {
        let shape = Shape { scale: 1.0, angle: std::f64::consts::FRAC_PI_2, stretch: 1.0, shear: 0.0, is_mirrored: false };
        let pose = Pose::new([4, 2], [0.0, 0.0], shape);
        // The right end turns down.
        let [x, y] = pose.apply([4.0, 1.0]);
        assert!(x.abs() < 1e-9 && (y - 2.0).abs() < 1e-9, "{x} {y}");
    }
}
