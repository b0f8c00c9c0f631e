#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::masks::{Labels, masks_of_labels};

/// `#` is set.
fn mask(rows: &[&str]) -> BitMask {
    let pixel = |row: usize, col: usize| rows[row].as_bytes()[col] == b'#';
    mask_of(rows.len(), rows[0].len(), pixel)
}

fn mask_of(rows: usize, cols: usize, pixel: impl Fn(usize, usize) -> bool) -> BitMask {
    let n_bytes = cols.div_ceil(8);
    let byte = |row: usize, byte: usize| {
        (byte * 8..(byte * 8 + 8).min(cols)).fold(0, |bits, col| bits | u8::from(pixel(row, col)) << (7 - col % 8))
    };
    BitMask::from_bits(rows, cols, (0..rows * n_bytes).map(|idx| byte(idx / n_bytes, idx % n_bytes)).collect()).unwrap()
}

fn outlines(mask: &BitMask) -> Vec<Polygon> {
    polygons_of_mask(mask, 0.0, &MaskLimits::default()).unwrap()
}

fn rings(polygons: &[Polygon]) -> impl Iterator<Item = &Vec<[u32; 2]>> {
    polygons.iter().flat_map(|polygon| polygon.holes.iter().chain([&polygon.outer]))
}

/// Whether the centre of a pixel lies inside: a ray to the left crosses an odd number of sides.
fn is_inside(polygons: &[Polygon], row: usize, col: usize) -> bool {
    let (x, y) = (col as f64 + 0.5, row as f64 + 0.5);
    let is_crossed = |(from, to): (&[u32; 2], &[u32; 2])| {
        let (y0, y1) = (f64::from(from[1]), f64::from(to[1]));
        let at = f64::from(from[0]) + (y - y0) / (y1 - y0) * (f64::from(to[0]) - f64::from(from[0]));
        (y0 > y) != (y1 > y) && at < x
    };
    rings(polygons)
        .map(|ring| ring.iter().zip(ring.iter().cycle().skip(1)).filter(|side| is_crossed(*side)).count())
        .sum::<usize>()
        % 2
        == 1
}

/// Twice the area; positive when counter-clockwise as one sees the picture, where y points down.
fn area2(ring: &[[u32; 2]]) -> i64 {
    let sides = ring.iter().zip(ring.iter().cycle().skip(1));
    -sides.map(|(from, to)| i64::from(from[0]) * i64::from(to[1]) - i64::from(to[0]) * i64::from(from[1])).sum::<i64>()
}

/// Regions connected along sides, by flooding.
fn regions(mask: &BitMask) -> Vec<HashSet<(usize, usize)>> {
    let mut seen = HashSet::new();
    let mut regions = Vec::new();
    for start in (0..mask.rows()).flat_map(|row| (0..mask.cols()).map(move |col| (row, col))) {
        if !mask.is_set(start.0, start.1) || !seen.insert(start) {
            continue;
        }
        let (mut region, mut front) = (HashSet::from([start]), vec![start]);
        while let Some((row, col)) = front.pop() {
            let beside = [(row + 1, col), (row.wrapping_sub(1), col), (row, col + 1), (row, col.wrapping_sub(1))];
            for pixel in beside.into_iter().filter(|(row, col)| mask.is_set(*row, *col)) {
                if seen.insert(pixel) {
                    region.insert(pixel);
                    front.push(pixel);
                }
            }
        }
        regions.push(region);
    }
    regions
}

fn check(mask: &BitMask) {
    let polygons = outlines(mask);
    // Filled one by one, polygons are the regions; so filled together, they are the mask.
    let filled = polygons.iter().map(|polygon| {
        let pixels = (0..mask.rows()).flat_map(|row| (0..mask.cols()).map(move |col| (row, col)));
        pixels.filter(|(row, col)| is_inside(std::slice::from_ref(polygon), *row, *col)).collect::<HashSet<_>>()
    });
    assert_eq!(filled.collect::<Vec<_>>(), regions(mask));
    for polygon in &polygons {
        assert!(area2(&polygon.outer) > 0 && polygon.holes.iter().all(|hole| area2(hole) < 0));
    }
    for ring in rings(&polygons) {
        let n = ring.len();
        let turns = |idx: usize| {
            let [before, here, behind] = [ring[idx], ring[(idx + 1) % n], ring[(idx + 2) % n]];
            (before[0] == here[0]) != (before[1] == here[1]) && (before[0] == here[0]) == (here[1] == behind[1])
        };
        assert!((0..n).all(turns), "{ring:?}");
    }
}

#[test]
fn a_pixel_is_a_square_counter_clockwise() {
    let polygons = outlines(&mask(&["...", ".#.", "..."]));
    assert_eq!(polygons, [Polygon { outer: vec![[1, 1], [1, 2], [2, 2], [2, 1]], holes: vec![] }]);
}

#[test]
fn holes_belong_to_the_region_around_them_and_islands_are_regions() {
    let polygons = outlines(&mask(&["#######.#", "#.....#..", "#.###.#..", "#.#.#.#..", "#.###.#..", "#.....#..", "#######.."]));
    let square = |begin: u32, end: u32| vec![[begin, begin], [begin, end], [end, end], [end, begin]];
    let hole = |begin: u32, end: u32| vec![[begin, begin], [end, begin], [end, end], [begin, end]];
    let expected = [
        Polygon { outer: square(0, 7), holes: vec![hole(1, 6)] },
        Polygon { outer: vec![[8, 0], [8, 1], [9, 1], [9, 0]], holes: vec![] },
        Polygon { outer: square(2, 5), holes: vec![hole(3, 4)] },
    ];
    assert_eq!(polygons, expected);
}

#[test]
fn regions_that_touch_at_a_corner_are_two() {
    assert_eq!(outlines(&mask(&["#.", ".#"])).len(), 2);
    assert_eq!(outlines(&mask(&[".#", "#."])).len(), 2);
    // A hole whose parts touch at a corner is one ring.
    let polygons = outlines(&mask(&["####", "#.##", "##.#", "####"]));
    assert_eq!((polygons.len(), polygons[0].holes.len()), (1, 1));
}

#[test]
fn hand_made_shapes_fill_back() {
    for rows in [
        vec!["."],
        vec!["#"],
        vec!["#.#.#", ".#.#.", "#.#.#", ".#.#."],
        vec!["#####", "#.#.#", "#####", "#.#.#", "#####"],
        vec!["..###..", ".#...#.", "#..#..#", ".#...#.", "..###.."],
    ] {
        check(&mask(&rows));
    }
    check(&mask_of(5, 200, |row, col| (row + col) % 67 != 0));
    check(&mask_of(3, 128, |row, col| row != 1 || col == 0 || col == 127));
}

proptest! {
    #[test]
    fn polygons_fill_back_to_their_regions(
        (rows, cols) in (1usize..14, prop_oneof![1usize..14, 60usize..70, 125usize..131]),
        noise in proptest::collection::vec(0u8..100, 14 * 131),
        share in 5u8..95,
    ) {
        check(&mask_of(rows, cols, |row, col| noise[row * cols + col] < share));
    }

    #[test]
    fn a_tolerance_leaves_corners_out_and_moves_no_border_farther(noise in proptest::collection::vec(0u8..100, 20 * 20), tolerance_px in 0.1..4.0) {
        let mask = mask_of(20, 20, |row, col| noise[row / 4 * 20 + col / 4] < 60);
        let (exact, simple) = (outlines(&mask), polygons_of_mask(&mask, tolerance_px, &MaskLimits::default()).unwrap());
        prop_assert!(rings(&simple).all(|ring| ring.len() >= 3));
        prop_assert!(rings(&simple).flatten().count() <= rings(&exact).flatten().count());
    }
}

#[test]
fn classes_share_one_limit() {
    let labels: Vec<u8> = (0..64).map(|idx| (idx / 8 + idx) % 2).collect();
    let map = LabelMap::new(8, 8, 2, Labels::U8(labels)).unwrap();
    let classes = ClassSet::all(2).unwrap();
    let limits = |max_points| MaskLimits { max_points, ..Default::default() };
    // 32 squares of 4 corners each class.
    let all = polygons_of_labels(&map, &classes, 0.0, &limits(256)).unwrap();
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32]);
    let masks = masks_of_labels(&map, &classes, &MaskLimits::default()).unwrap();
    assert_eq!(all, masks.iter().map(outlines).collect::<Vec<_>>());
    for max_points in [255, 100] {
        let error = polygons_of_labels(&map, &classes, 0.0, &limits(max_points)).unwrap_err();
        assert!(error.to_string().contains(&format!("the limit is {max_points} (limits.masks.max_points)")), "{error}");
    }
}

#[test]
fn tolerances_that_are_no_distances_are_refused() {
    for tolerance_px in [-1.0, f64::NAN, f64::INFINITY] {
        let result = polygons_of_mask(&mask(&["#"]), tolerance_px, &MaskLimits::default());
        assert!(matches!(result, Err(MaskError::Tolerance { .. })));
    }
}
