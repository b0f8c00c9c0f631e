//! What the methods find where the answer is known.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const GRID: [usize; 2] = [8, 10];
/// As in the paper.
const TOKEN_CUT: Method = Method::TokenCut { tau: DEFAULT_TAU, max_corners: CORNERS };

/// Two directions: an object of 3 x 4 cells at row 2, column 5, on a ground. `slope` makes the cells of each differ a little.
fn map(slope: f32) -> Vec<f32> {
    let cell = |row: usize, col: usize| {
        let is_object = (2..5).contains(&row) && (5..9).contains(&col);
        let wobble = slope * ((row * 31 + col * 17) % 7) as f32;
        if is_object { [0.1 + wobble, 1.0, -0.3] } else { [1.0, -0.2 - wobble, 0.3] }
    };
    (0..GRID[0]).flat_map(|row| (0..GRID[1]).flat_map(move |col| cell(row, col))).collect()
}

const OBJECT: Bounds = Bounds { rows: [2, 5], cols: [5, 9] };

#[test]
fn both_methods_find_an_object_on_a_ground() {
    for method in [Method::Lost { gram_bias: 0.0 }, TOKEN_CUT] {
        let found = discover(&map(0.01), GRID, method, 1).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bounds, OBJECT, "{method:?}");
        assert_eq!(found[0].cells.iter().filter(|is_inside| **is_inside).count(), 12, "{method:?}");
        assert!(found[0].score > 0.8, "{method:?}: {}", found[0].score);
    }
}

#[test]
fn what_all_cells_share_hides_an_object_until_it_is_subtracted() {
    let shared = map(0.01).chunks(3).flat_map(|cell| [cell[0] + 50.0, cell[1] - 30.0, cell[2]]).collect::<Vec<f32>>();
    for method in [Method::Lost { gram_bias: 0.0 }, TOKEN_CUT] {
        assert_ne!(discover(&shared, GRID, method, 1).unwrap()[0].bounds, OBJECT, "{method:?}");
        assert_eq!(discover(&centred(&shared, 3), GRID, method, 1).unwrap()[0].bounds, OBJECT, "{method:?}");
    }
    assert_eq!(centred(&[1.0, 5.0, 3.0, 7.0], 2), [-1.0, -1.0, 1.0, 1.0]);
    assert!(centred(&[], 0).is_empty());
}

#[test]
fn of_cells_of_equal_degree_the_first_is_the_seed_of_lost() {
    let found = discover(&map(0.0), GRID, Method::Lost { gram_bias: 0.0 }, 1).unwrap();
    assert_eq!(found[0].seed, [2, 5], "all twelve cells of the object have the same degree");
}

#[test]
fn the_cut_of_two_blocks_is_their_border() {
    // The eigenvector of two groups with no similar cells between them is constant on each.
    let half: Vec<f32> = (0..6).flat_map(|cell| if cell < 2 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
    let found = discover(&half, [1, 6], TOKEN_CUT, 1).unwrap();
    assert_eq!(found[0].cells, [true, true, false, false, false, false], "the smaller side has the larger values");
}

#[test]
fn a_side_that_holds_the_corners_is_the_ground() {
    // A ground of 32 cells around an object of 48: the smaller side has the larger values, and is taken for the object.
    let is_object = |row: usize, col: usize| (1..7).contains(&row) && (1..9).contains(&col);
    let cell = |row: usize, col: usize| if is_object(row, col) { [1.0, 0.0] } else { [0.0f32, 1.0] };
    let map: Vec<f32> = (0..GRID[0]).flat_map(|row| (0..GRID[1]).flat_map(move |col| cell(row, col))).collect();
    let with = |max_corners| discover(&map, GRID, Method::TokenCut { tau: DEFAULT_TAU, max_corners }, 1).unwrap().remove(0);
    assert_eq!(with(CORNERS).bounds, Bounds { rows: [0, 8], cols: [0, 10] });
    for max_corners in [0, 2, 3] {
        let object = with(max_corners);
        assert_eq!(object.bounds, Bounds { rows: [1, 7], cols: [1, 9] }, "{max_corners}");
        assert!(is_object(object.seed[0], object.seed[1]) && object.score > 0.9, "{object:?}");
    }
    // An object in a corner holds one.
    let found = discover(&map_in_corner(), GRID, Method::TokenCut { tau: DEFAULT_TAU, max_corners: 1 }, 1).unwrap();
    assert_eq!(found[0].bounds, Bounds { rows: [0, 3], cols: [0, 4] });
}

/// An object of 3 x 4 cells in a corner.
fn map_in_corner() -> Vec<f32> {
    let cell = |row: usize, col: usize| if row < 3 && col < 4 { [1.0, 0.0] } else { [0.0f32, 1.0] };
    (0..GRID[0]).flat_map(|row| (0..GRID[1]).flat_map(move |col| cell(row, col))).collect()
}

#[test]
fn a_second_object_is_looked_for_outside_the_first() {
    let found = discover(&map(0.01), GRID, TOKEN_CUT, 3).unwrap();
    assert!(found.len() >= 2);
    let both = found[0].cells.iter().zip(&found[1].cells).filter(|(first, second)| **first && **second).count();
    assert_eq!(both, 0);
}

#[test]
fn features_without_direction_and_single_cells_are_no_fault() {
    for method in [Method::Lost { gram_bias: 0.0 }, TOKEN_CUT] {
        let found = discover(&[0.0; 12], [2, 3], method, 2).unwrap();
        assert!(found.iter().all(|object| object.score.is_finite()));
        discover(&[1.0, 2.0], [1, 1], method, 1).unwrap();
        let not_numbers = discover(&[f32::NAN; 12], [2, 3], method, 1).unwrap();
        assert!(not_numbers.len() <= 1);
    }
}

#[test]
fn a_grid_that_is_too_large_or_not_filled_is_refused() {
    let method = Method::Lost { gram_bias: 0.0 };
    assert_eq!(discover(&[0.0; 8], [65, 64], method, 1), Err(DiscoverError::TooManyCells { rows: 65, cols: 64 }));
    assert_eq!(discover(&[0.0; 7], [2, 2], method, 1), Err(DiscoverError::Shape { n_values: 7, rows: 2, cols: 2 }));
    assert!(discover(&[], [0, 4], method, 1).is_err());
}
