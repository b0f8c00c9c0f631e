//! One mask a class from a label map: each pixel in at most one.

use crate::masks::{BitMask, ClassSet, LabelMap, Labels, MaskError, MaskLimits, label_map::Label};

/// Masks of some classes, in the order of the set, in one pass over the labels.
///
/// # Errors
/// [`MaskError::ForeignClasses`], [`MaskError::TooManyMasks`].
pub fn masks_of_labels(map: &LabelMap, classes: &ClassSet, limits: &MaskLimits) -> Result<Vec<BitMask>, MaskError> {
    classes.check(map.n_classes())?;
    let mut masks = empty_masks(classes.classes().len(), map.rows(), map.cols(), limits)?;
    match map.labels() {
        Labels::U8(labels) => set_all(labels, classes, &mut masks),
        Labels::U16(labels) => set_all(labels, classes, &mut masks),
    }
    Ok(masks)
}

/// The mask of one class.
///
/// # Errors
/// [`MaskError::UnknownClass`].
pub fn mask_of_class(map: &LabelMap, class: u16) -> Result<BitMask, MaskError> {
    if usize::from(class) >= map.n_classes() {
        return Err(MaskError::UnknownClass { class: class.into(), n_classes: map.n_classes() });
    }
    let mut mask = BitMask::new(map.rows(), map.cols())?;
    match map.labels() {
        Labels::U8(labels) => set_one(labels, class, &mut mask),
        Labels::U16(labels) => set_one(labels, class, &mut mask),
    }
    Ok(mask)
}

/// Masks of zeros, when all together are within the limit.
pub(super) fn empty_masks(n_masks: usize, rows: usize, cols: usize, limits: &MaskLimits) -> Result<Vec<BitMask>, MaskError> {
    let max = limits.max_mask_bytes;
    let n_bytes = rows.checked_mul(cols.div_ceil(8)).and_then(|n_bytes| n_bytes.checked_mul(n_masks));
    if !n_bytes.is_some_and(|n_bytes| u64::try_from(n_bytes).is_ok_and(|n_bytes| n_bytes <= max)) {
        return Err(MaskError::TooManyMasks { n_masks, rows, cols, max });
    }
    (0..n_masks).map(|_| BitMask::new(rows, cols)).collect()
}

fn set_all<T: Label>(labels: &[T], classes: &ClassSet, masks: &mut [BitMask]) {
    let places = classes.places();
    let Some(cols) = masks.first().map(BitMask::cols) else { return };
    for (row, labels) in labels.chunks_exact(cols).enumerate() {
        for (byte, labels) in labels.chunks(8).enumerate() {
            // Equal neighbours share a write: inside a region, a byte is one.
            let mut rest = labels;
            while let Some(first) = rest.first() {
                let begin = labels.len() - rest.len();
                let len = rest.iter().position(|label| label != first).unwrap_or(rest.len());
                rest = &rest[len..];
                let place = places.get(usize::from((*first).into())).copied().flatten();
                if let Some(mask) = place.and_then(|place| masks.get_mut(place)) {
                    mask.row_mut(row)[byte] |= bit_range(begin, begin + len);
                }
            }
        }
    }
}

/// Bits `begin` to `end` of a byte from the left, of 0 to 8.
fn bit_range(begin: usize, end: usize) -> u8 {
    (u8::MAX >> begin) & !(u16::from(u8::MAX) >> end).to_le_bytes()[0]
}

fn set_one<T: Label>(labels: &[T], class: u16, mask: &mut BitMask) {
    let wanted = T::truncated(class.into());
    let cols = mask.cols();
    for (row, labels) in labels.chunks_exact(cols).enumerate() {
        let bits = mask.row_mut(row);
        let (bytes, rest) = labels.as_chunks::<8>();
        for (idx, labels) in bytes.iter().enumerate() {
            bits[idx] = packed(labels, wanted);
        }
        for (idx, label) in rest.iter().enumerate() {
            bits[bytes.len()] |= u8::from(*label == wanted) << (7 - idx);
        }
    }
}

/// Which of eight labels are the wanted one, the first in the highest bit.
fn packed<T: Label>(labels: &[T; 8], wanted: T) -> u8 {
    /// Shifts byte `i` of a word of zeros and ones to bit `63 - i`: the sum of `2^(63 - 9 i)`.
    const GATHER: u64 = 0x8040_2010_0804_0201;
    let mut hits = [0; 8];
    for (idx, hit) in hits.iter_mut().enumerate() {
        *hit = u8::from(labels[idx] == wanted);
    }
    u64::from_le_bytes(hits).wrapping_mul(GATHER).to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bit_is_set_where_the_label_is_the_class(cols in 1usize..30, labels in proptest::collection::vec(0u8..4, 1..200), wide: bool) {
            let rows = labels.len().div_ceil(cols);
            let labels: Vec<u8> = labels.iter().map(|label| if *label == 3 { 255 } else { *label }).cycle().take(rows * cols).collect();
            let stored = match wide {
                false => Labels::U8(labels),
                true => Labels::U16(labels.iter().map(|label| if *label == 255 { 65_535 } else { u16::from(*label) }).collect()),
            };
            let map = LabelMap::new(rows, cols, 3, stored).unwrap();
            let classes = ClassSet::new(&[2, 0], 3).unwrap();
            let masks = masks_of_labels(&map, &classes, &MaskLimits::default()).unwrap();
            prop_assert_eq!(masks.len(), 2);
            for (mask, class) in masks.iter().zip([2, 0]) {
                for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                    prop_assert_eq!(mask.is_set(row, col), map.class_at(row, col) == Some(class));
                }
                prop_assert_eq!(mask, &mask_of_class(&map, class).unwrap());
            }
        }
    }

    #[test]
    fn masks_above_the_limit_and_other_models_classes_are_refused() {
        let map = LabelMap::new(2, 9, 3, Labels::U8(vec![0; 18])).unwrap();
        let limits = MaskLimits { max_mask_bytes: 11, ..Default::default() };
        let error = masks_of_labels(&map, &ClassSet::all(3).unwrap(), &limits).unwrap_err();
        assert!(error.to_string().contains("the limit is 11 bytes in all (limits.masks.max_mask_bytes)"), "{error}");
        let other = ClassSet::all(4).unwrap();
        assert!(matches!(masks_of_labels(&map, &other, &MaskLimits::default()), Err(MaskError::ForeignClasses { .. })));
        assert!(matches!(mask_of_class(&map, 3), Err(MaskError::UnknownClass { .. })));
    }
}
