//! Cuts a tensor into contiguous bands along its first axis.

use std::ops::Range;

use crate::postprocess::DType;

/// A part of a tensor along its first axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BandRange {
    /// 0-based.
    pub index: usize,
    /// First index along the first axis.
    pub begin: usize,
    /// Indices along the first axis.
    pub count: usize,
    /// Where its bytes lie in the tensor's.
    pub byte_range: Range<usize>,
}

/// Bands of at most `max_bytes` each, in order and without gaps. Where one index of the first axis alone is larger, a band holds
/// just that one.
#[must_use]
pub fn bands(dims: &[usize], dtype: DType, max_bytes: usize) -> Vec<BandRange> {
    let Some((&n, rest)) = dims.split_first() else { return Vec::new() };
    bands_of(n, rest.iter().product::<usize>() * dtype.n_bytes(), max_bytes)
}

/// The same for `n` pieces of `n_bytes` each.
#[must_use]
pub fn bands_of(n: usize, n_bytes: usize, max_bytes: usize) -> Vec<BandRange> {
    let count = (max_bytes / n_bytes.max(1)).max(1);
    let band = |(index, begin): (usize, usize)| {
        let end = (begin + count).min(n);
        BandRange { index, begin, count: end - begin, byte_range: begin * n_bytes..end * n_bytes }
    };
    (0..n).step_by(count).enumerate().map(band).collect()
}

/// CRC-32 of IEEE 802.3, as in zlib.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bands_cover_the_tensor_once_in_order_within_the_limit(n in 0usize..200, cols in 1usize..50, max in 1usize..2000) {
            let all = bands(&[n, cols], DType::F16, max);
            let mut next = 0;
            for (index, band) in all.iter().enumerate() {
                prop_assert_eq!((band.index, band.begin), (index, next));
                prop_assert_eq!(band.byte_range.clone(), next * cols * 2..(next + band.count) * cols * 2);
                prop_assert!(band.count == 1 || band.byte_range.len() <= max);
                next += band.count;
            }
            prop_assert_eq!(next, n);
        }
    }
}
