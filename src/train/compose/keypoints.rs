//! Points of a cut-out that are spread over it.

use crate::compose::cut_out::CutOut;

/// Pixels that a point stays away from the border of the object.
const INSET: usize = 3;

/// `n` points inside a cut-out, in its pixels: the first nearest to its middle, each further one farthest from those before (of equal ones
/// the first in the file). Fewer where the object has fewer pixels.
#[must_use]
pub fn spread(cut_out: &CutOut, n: usize) -> Vec<[f64; 2]> {
    let inside = inner(cut_out);
    let count = inside.len().max(1) as f64;
    let sum = inside.iter().fold([0.0; 2], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
    let middle = sum.map(|axis| axis / count);
    let square = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
    let first = inside.iter().min_by(|a, b| square(a, &middle).total_cmp(&square(b, &middle)));
    let mut points: Vec<[f64; 2]> = first.copied().into_iter().collect();
    let mut distances = vec![f64::INFINITY; inside.len()];
    while points.len() < n.min(inside.len()) {
        let Some(last) = points.last().copied() else { break };
        let (mut best, mut farthest) = (0, -1.0);
        for (idx, (point, distance)) in inside.iter().zip(&mut distances).enumerate() {
            *distance = distance.min(square(point, &last));
            if *distance > farthest {
                (best, farthest) = (idx, *distance);
            }
        }
        points.push(inside[best]);
    }
    points
}

/// Centres of the pixels of the object that lie [`INSET`] pixels from its border, or of all if none does.
fn inner(cut_out: &CutOut) -> Vec<[f64; 2]> {
    let [width, height] = cut_out.size;
    let places = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let centre = |(x, y): (usize, usize)| [x as f64 + 0.5, y as f64 + 0.5];
    let is_inner = |&(x, y): &(usize, usize)| {
        let around = |at: usize| at.checked_sub(INSET).map(|first| first..=at + INSET);
        around(x).zip(around(y)).is_some_and(|(xs, mut ys)| ys.all(|y| xs.clone().all(|x| cut_out.is_solid(x, y))))
    };
    let inner: Vec<[f64; 2]> = places().filter(is_inner).map(centre).collect();
    if !inner.is_empty() {
        return inner;
    }
    places().filter(|(x, y)| cut_out.is_solid(*x, *y)).map(centre).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use image::{Rgba, RgbaImage};

    use super::*;

    #[test]
    fn points_are_the_middle_and_then_the_corners_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbaImage::from_pixel(21, 21, Rgba([9, 9, 9, 255])).save(&path).unwrap();
        let points = spread(&CutOut::open(&path).unwrap().unwrap(), 5);
        assert_eq!(points, [[10.5, 10.5], [3.5, 3.5], [17.5, 3.5], [3.5, 17.5], [17.5, 17.5]]);
    }
}
