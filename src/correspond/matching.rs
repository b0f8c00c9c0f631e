//! Points of one image in another.
//!
//! # Design
//! The score of a point for all places of the other image is a product with its map of features, computed on the grid. A dot product
//! commutes with bilinear interpolation, `<q, up(f)> = up(<q, f>)`, so no map has to be upsampled; and since bilinear interpolation has
//! its largest values at the nodes, the best place at any resolution lies at a cell. `refine` goes between cells: the mean of the 3 x 3
//! cells around the best, weighted by a softmax of their scores.
//!
//! Points are multiplied with a map together: one by one, a map is read once a point, and reading is what takes the time.

use ndarray::{Array2, ArrayView1};

use crate::correspond::directions::Directions;

/// Temperature of the softmax that refines: cosines of neighbouring cells differ by hundredths.
const TEMPERATURE: f64 = 0.02;

/// How points are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchOptions {
    /// Whether matches lie between cells.
    pub refine: bool,
}

/// Where a point was found. Places are rows and columns in cells: cell (i, j) has its centre at (i, j).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// The place in the other image.
    pub place: [f64; 2],
    /// Cosine of the two features.
    pub score: f32,
    /// The score less the best one elsewhere, more than a cell away along either axis; 0 where there is no elsewhere.
    pub margin: f32,
    /// Where the way back leads: the best place in the first image of what was found in the other. Near the point for a match to trust.
    pub back: [f64; 2],
}

/// Finds each of `points` (in cells of `source`) in `target`; `None` if the two have another number of channels. Holds a number for each
/// point and cell: call it with some points at a time.
#[must_use]
pub fn match_points(source: &Directions, target: &Directions, points: &[[f64; 2]], options: MatchOptions) -> Option<Vec<Match>> {
    if source.n_channels() != target.n_channels() {
        return None;
    }
    let found = best(target, source, points, options.refine);
    let places: Vec<[f64; 2]> = found.iter().map(|found| found.place).collect();
    let back = best(source, target, &places, options.refine);
    let both = found.into_iter().zip(back);
    Some(both.map(|(Best { place, score, margin }, back)| Match { place, score, margin, back: back.place }).collect())
}

/// The best place for a feature.
struct Best {
    place: [f64; 2],
    score: f32,
    margin: f32,
}

/// The best place on `map` for the features of another at each of `points`.
fn best(map: &Directions, of: &Directions, points: &[[f64; 2]], refine: bool) -> Vec<Best> {
    let mut samples = Array2::zeros((points.len(), of.n_channels()));
    for (mut sample, point) in samples.rows_mut().into_iter().zip(points) {
        sample.assign(&ArrayView1::from(&of.sample(*point)));
    }
    let scores = samples.dot(&map.cells().t());
    let each = samples.rows().into_iter().zip(scores.rows());
    each.map(|(sample, scores)| best_of(scores, sample.dot(&sample).sqrt(), map.grid(), refine)).collect()
}

/// The best place by the scores of all cells for a feature of this length.
fn best_of(scores: ArrayView1<'_, f32>, length: f32, [rows, cols]: [usize; 2], refine: bool) -> Best {
    let first_of = |best: usize, other: usize| if scores[other] > scores[best] { other } else { best };
    let cell = (0..scores.len()).fold(0, first_of);
    let (row, col) = (cell / cols, cell % cols);
    let is_near = |other: usize| (other / cols).abs_diff(row) <= 1 && (other % cols).abs_diff(col) <= 1;
    let elsewhere = (0..scores.len()).filter(|other| !is_near(*other)).map(|other| scores[other]).reduce(f32::max);
    let to_cosine = |score: f32| if length > 0.0 { score / length } else { 0.0 };
    let (score, margin) = (to_cosine(scores[cell]), elsewhere.map_or(0.0, |other| to_cosine(scores[cell] - other)));
    let around = |index: usize, n: usize| index.saturating_sub(1)..(index + 2).min(n);
    let (mut sum, mut place) = (0.0, [0.0; 2]);
    for (row, col) in around(row, rows).flat_map(|row| around(col, cols).map(move |col| (row, col))) {
        let behind = f64::from(scores[row * cols + col] - scores[cell]) / f64::from(length).max(f64::MIN_POSITIVE);
        let weight = (behind / TEMPERATURE).exp();
        sum += weight;
        #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
        let (row, col) = (row as f64, col as f64);
        place = [place[0] + weight * row, place[1] + weight * col];
    }
    #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
    let centre = [row as f64, col as f64];
    let refined = place.map(|axis| axis / sum);
    let place = if refine && refined.iter().all(|axis| axis.is_finite()) { refined } else { centre };
    Best { place, score, margin }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const OPTIONS: MatchOptions = MatchOptions { refine: false };

    /// Features that say where they are: smooth in rows and columns.
    fn places(rows: usize, cols: usize, shift: [f32; 2]) -> Directions {
        let feature = |row: f32, col: f32| [(row * 0.3).sin(), (row * 0.3).cos(), (col * 0.3).sin(), (col * 0.3).cos()];
        let map: Vec<f32> =
            (0..rows * cols).flat_map(|cell| feature((cell / cols) as f32 + shift[0], (cell % cols) as f32 + shift[1])).collect();
        Directions::new(&map, [rows, cols]).unwrap()
    }

    #[test]
    fn a_shifted_image_gives_shifted_points_that_lead_back() {
        let (source, target) = (places(8, 10, [0.0; 2]), places(8, 10, [2.0, 3.0]));
        let found = match_points(&source, &target, &[[4.0, 5.0], [7.0, 9.0]], OPTIONS).unwrap();
        assert_eq!(found[0].place, [2.0, 2.0]);
        assert_eq!((found[1].place, found[1].back), ([5.0, 6.0], [7.0, 9.0]));
        assert!((found[0].score - 1.0).abs() < 1e-5);
        assert!(found[0].margin > 0.0 && found[0].margin < 1.0, "{found:?}");
    }

    #[test]
    fn a_place_that_there_is_twice_has_no_margin() {
        let source = Directions::new(&[1.0, 0.0], [1, 1]).unwrap();
        let twice = Directions::new(&[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0], [1, 4]).unwrap();
        let once = Directions::new(&[1.0, 0.0, 0.6, 0.8, 0.0, 1.0, 0.0, 1.0], [1, 4]).unwrap();
        let margin = |target: &Directions| match_points(&source, target, &[[0.0; 2]], OPTIONS).unwrap()[0].margin;
        assert_eq!((margin(&twice), margin(&once)), (0.0, 1.0), "a neighbour is no elsewhere");
        assert_eq!(margin(&source), 0.0, "nor is there one on a single cell");
    }

    #[test]
    fn refined_matches_lie_between_cells() {
        let (source, target) = (places(8, 10, [0.0; 2]), places(8, 10, [0.5, 0.0]));
        let point = [[4.0, 5.0]];
        let coarse = match_points(&source, &target, &point, OPTIONS).unwrap()[0];
        let fine = match_points(&source, &target, &point, MatchOptions { refine: true }).unwrap()[0];
        assert!((coarse.place[0] - 3.5).abs() > 0.4);
        assert!((fine.place[0] - 3.5).abs() < 0.15 && (fine.place[1] - 5.0).abs() < 0.1, "{:?}", fine.place);
    }

    #[test]
    fn maps_of_other_channels_do_not_match_and_empty_features_are_no_fault() {
        let (source, other) = (places(2, 2, [0.0; 2]), Directions::new(&[1.0; 4], [2, 2]).unwrap());
        assert_eq!(match_points(&source, &other, &[[0.0; 2]], OPTIONS), None);
        let nothing = Directions::new(&[0.0; 16], [2, 2]).unwrap();
        let found = match_points(&nothing, &source, &[[0.0; 2]], MatchOptions { refine: true }).unwrap();
        assert!(found[0].place.iter().all(|axis| axis.is_finite()) && found[0].score == 0.0);
    }
}
