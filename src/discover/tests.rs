//! What the methods find where the answer is known.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const GRID: [usize; 2] = [8, 10];

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
    for method in [Method::Lost { gram_bias: 0.0 }, Method::TokenCut { tau: DEFAULT_TAU }] {
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
    for method in [Method::Lost { gram_bias: 0.0 }, Method::TokenCut { tau: DEFAULT_TAU }] {
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
    let found = discover(&half, [1, 6], Method::TokenCut { tau: 0.2 }, 1).unwrap();
    assert_eq!(found[0].cells, [true, true, false, false, false, false], "the smaller side has the larger values");
}

#[test]
fn a_second_object_is_looked_for_outside_the_first() {
    let method = Method::TokenCut { tau: DEFAULT_TAU };
    let found = discover(&map(0.01), GRID, method, 3).unwrap();
    assert!(found.len() >= 2);
    let both = found[0].cells.iter().zip(&found[1].cells).filter(|(first, second)| **first && **second).count();
    assert_eq!(both, 0);
}

#[test]
fn features_without_direction_and_single_cells_are_no_fault() {
    for method in [Method::Lost { gram_bias: 0.0 }, Method::TokenCut { tau: DEFAULT_TAU }] {
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
