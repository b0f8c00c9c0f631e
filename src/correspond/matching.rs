//! Points of one image in another.
//!
//! # Design
//! The score of a point for all places of the other image is a product with its map of features, computed on the grid. A dot product
//! commutes with bilinear interpolation, `<q, up(f)> = up(<q, f>)`, so no map has to be upsampled; and since bilinear interpolation has
//! its largest values at the nodes, the best place at any resolution lies at a cell. `refine` goes between cells: the mean of the 3 x 3
//! cells around the best, weighted by a softmax of their scores.

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
    /// Where the way back leads: the best place in the first image of what was found in the other. Near the point for a match to trust.
    pub back: [f64; 2],
}

/// Finds each of `points` (in cells of `source`) in `target`; `None` if the two have another number of channels.
#[must_use]
pub fn match_points(source: &Directions, target: &Directions, points: &[[f64; 2]], options: MatchOptions) -> Option<Vec<Match>> {
    if source.n_channels() != target.n_channels() {
        return None;
    }
    let find = |point: &[f64; 2]| {
        let (place, score) = best(target, &source.sample(*point), options.refine);
        let (back, _) = best(source, &target.sample(place), options.refine);
        Match { place, score, back }
    };
    Some(points.iter().map(find).collect())
}

/// The best place for a feature, and its cosine.
fn best(map: &Directions, feature: &[f32], refine: bool) -> ([f64; 2], f32) {
    let scores = map.cells().dot(&ndarray::aview1(feature));
    let length = feature.iter().map(|value| value * value).sum::<f32>().sqrt();
    let mut cell = 0;
    for (other, score) in scores.iter().enumerate() {
        if *score > scores[cell] {
            cell = other;
        }
    }
    let [rows, cols] = map.grid();
    let (row, col) = (cell / cols, cell % cols);
    let score = if length > 0.0 { scores[cell] / length } else { 0.0 };
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
    (if refine && refined.iter().all(|axis| axis.is_finite()) { refined } else { centre }, score)
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
