#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::masks::{MaskLimits, masks_of_labels};

/// COCO's definition, pixel by pixel.
fn count_pixel_by_pixel(mask: &BitMask) -> Vec<u32> {
    let mut counts = vec![0];
    let mut is_set = false;
    for (col, row) in (0..mask.cols()).flat_map(|col| (0..mask.rows()).map(move |row| (col, row))) {
        if mask.is_set(row, col) != is_set {
            is_set = !is_set;
            counts.push(0);
        }
        *counts.last_mut().unwrap() += 1;
    }
    counts
}

/// Maps of up to 150 columns (three strips, the last one cut), with long and short runs and void.
fn maps() -> impl Strategy<Value = LabelMap> {
    let runs = proptest::collection::vec((0u8..5, prop_oneof![1usize..4, 1usize..200]), 1..60);
    (1usize..40, 1usize..150, runs, proptest::bool::ANY, proptest::bool::ANY).prop_map(
        |(rows, cols, runs, is_turned, is_wide)| {
            let labels = runs.into_iter().flat_map(|(label, len)| vec![if label == 4 { 255u8 } else { label }; len]);
            let labels: Vec<u8> = labels.collect::<Vec<_>>().into_iter().cycle().take(rows * cols).collect();
            // Runs down the columns or along the rows.
            let at = |idx: usize| if is_turned { labels[idx % cols * rows + idx / cols] } else { labels[idx] };
            let labels: Vec<u8> = (0..rows * cols).map(at).collect();
            let wide = |label: &u8| if *label == 255 { 65_535 } else { u16::from(*label) };
            let stored = if is_wide { Labels::U16(labels.iter().map(wide).collect()) } else { Labels::U8(labels) };
            LabelMap::new(rows, cols, 4, stored).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn all_classes_at_once_are_each_mask_alone(map in maps()) {
        let classes = ClassSet::new(&[3, 0, 1], 4).unwrap();
        let masks = masks_of_labels(&map, &classes, &MaskLimits::default()).unwrap();
        let all = Rle::of_labels(&map, &classes).unwrap();
        prop_assert_eq!(all.len(), 3);
        for (rle, mask) in all.iter().zip(&masks) {
            prop_assert_eq!(rle, &Rle::of_mask(mask));
            prop_assert_eq!(rle.counts(), count_pixel_by_pixel(mask));
            prop_assert_eq!(rle.area_px(), mask.area_px());
            prop_assert_eq!(&rle.decode().unwrap(), mask);
            prop_assert_eq!(&Rle::new(rle.rows(), rle.cols(), rle.counts().to_vec()).unwrap(), rle);
        }
    }

    #[test]
    fn masks_and_run_lengths_go_round(rows in 1usize..70, cols in 1usize..150, seed: u64) {
        let mut state = seed;
        let mut next = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); state.to_be_bytes()[0] };
        let mask = BitMask::from_bits(rows, cols, (0..rows * cols.div_ceil(8)).map(|_| next()).collect()).unwrap();
        let rle = Rle::of_mask(&mask);
        prop_assert_eq!(rle.counts(), count_pixel_by_pixel(&mask));
        prop_assert_eq!(rle.decode().unwrap(), mask);
    }
}

#[test]
fn counts_begin_with_pixels_that_are_not_set() {
    let rle = |bits: Vec<u8>| Rle::of_mask(&BitMask::from_bits(2, 3, bits).unwrap()).counts().to_vec();
    assert_eq!(rle(vec![0, 0]), [6], "nothing is set");
    assert_eq!(rle(vec![0xE0, 0xE0]), [0, 6], "all is set");
    // Columns 10, 01, 11: the run goes on from the second to the third.
    assert_eq!(rle(vec![0b1010_0000, 0b0110_0000]), [0, 1, 2, 3]);
}

#[test]
fn run_lengths_that_describe_no_mask_are_refused() {
    for counts in [vec![], vec![5], vec![7], vec![3, 0, 3], vec![u32::MAX, 7], vec![6, 0]] {
        assert!(matches!(Rle::new(2, 3, counts), Err(MaskError::Rle { rows: 2, cols: 3, .. })));
    }
    assert!(matches!(Rle::new(0, 3, vec![]), Err(MaskError::Empty { .. })));
    assert!(matches!(Rle::new(usize::MAX, 3, vec![1]), Err(MaskError::Rle { .. })));
    assert!(Rle::new(2, 3, vec![0, 6]).is_ok());
}
