//! A map, or a part of it, into bytes.
//!
//! # Design
//! The whole map in single precision, channels last, is the buffer that ONNX Runtime wrote: no copy is made. Every other choice
//! costs one pass over the values that are returned.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    postprocess::{
        dtype::{DType, Layout, f16_bytes, f32_bytes, i8_bytes, scales},
        select::{Selection, points, region},
    },
    tensor::{F32View, FeatureMap},
};

/// What to return of a map, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodeOptions {
    /// Part of the map.
    pub selection: Selection,
    /// Element type.
    pub dtype: DType,
    /// Order of the axes; points have only one.
    pub layout: Layout,
    /// Whether to scale each descriptor to unit Euclidean length; zero vectors stay.
    pub l2_normalize: bool,
}

/// A tensor as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `[rows, cols, C]`, `[C, rows, cols]` or `[n, C]`.
    pub dims: Vec<usize>,
    /// One scale a channel, for [`DType::I8`].
    pub scale: Vec<f32>,
    /// Little-endian, row-major.
    pub data: Bytes,
}

/// Why a map cannot be encoded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The region does not lie inside the map.
    #[error("the region does not lie inside the map")]
    Region,
}

/// Owner of bytes that are the values of a view.
struct ViewBytes(F32View);

impl AsRef<[u8]> for ViewBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Encodes a part of a map.
///
/// # Errors
/// [`EncodeError::Region`].
pub fn encode(map: &FeatureMap, options: &EncodeOptions) -> Result<Encoded, EncodeError> {
    let channels = map.channels();
    let (mut dims, picked) = match &options.selection {
        Selection::All => (vec![map.rows(), map.cols(), channels], None),
        Selection::Region { rows, cols } => {
            (vec![rows.len(), cols.len(), channels], Some(region(map, rows, cols).ok_or(EncodeError::Region)?))
        }
        Selection::Points(positions) => (vec![positions.len(), channels], Some(points(map, positions))),
    };
    let is_chw = options.layout == Layout::Chw && dims.len() == 3;
    let is_plain = options.dtype == DType::F32 && !is_chw && !options.l2_normalize;
    if is_plain && picked.is_none() && cfg!(target_endian = "little") {
        return Ok(Encoded { dims, scale: Vec::new(), data: Bytes::from_owner(ViewBytes(map.data().clone())) });
    }
    let mut owned;
    let mut values: &[f32] = match picked {
        Some(picked) => {
            owned = picked;
            &owned
        }
        None => map.data(),
    };
    if options.l2_normalize {
        owned = normalised(values, channels);
        values = &owned;
    }
    // Scales belong to channels, so they are found while channels are still last.
    let scale = if options.dtype == DType::I8 { scales(values, channels) } else { Vec::new() };
    let data = match options.dtype {
        DType::F32 => f32_bytes(values).into(),
        DType::F16 => f16_bytes(values),
        DType::I8 => i8_bytes(values, &scale).into(),
    };
    let data = if is_chw { transposed(&data, channels, options.dtype.n_bytes()).into() } else { data };
    if is_chw {
        dims.rotate_right(1);
    }
    Ok(Encoded { dims, scale, data })
}

/// Descriptors of unit length.
fn normalised(values: &[f32], channels: usize) -> Vec<f32> {
    let mut unit = Vec::with_capacity(values.len());
    for cell in values.chunks_exact(channels) {
        let norm = cell.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        let factor = if norm > 0.0 { norm.recip() } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, reason = "back to the precision of the map")]
        unit.extend(cell.iter().map(|value| (f64::from(*value) * factor) as f32));
    }
    unit
}

/// `[cells, C]` elements as `[C, cells]`, in tiles that stay in the cache.
fn transposed(data: &[u8], channels: usize, n_bytes: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let n_cells = data.len() / (channels * n_bytes);
    let mut output = vec![0; data.len()];
    for first_cell in (0..n_cells).step_by(TILE) {
        for first_channel in (0..channels).step_by(TILE) {
            for cell in first_cell..(first_cell + TILE).min(n_cells) {
                for channel in first_channel..(first_channel + TILE).min(channels) {
                    let (from, to) = ((cell * channels + channel) * n_bytes, (channel * n_cells + cell) * n_bytes);
                    output[to..to + n_bytes].copy_from_slice(&data[from..from + n_bytes]);
                }
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// 2 rows, 3 columns, 2 channels; value = 100 row + 10 col + channel.
    fn map() -> FeatureMap {
        let values: Vec<f32> =
            (0..2).flat_map(|row| (0..3).flat_map(move |col| (0..2).map(move |c| (100 * row + 10 * col + c) as f32))).collect();
        FeatureMap::new(2, 3, 2, values.into()).unwrap()
    }

    fn values(encoded: &Encoded) -> Vec<f32> {
        encoded.data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn the_whole_plain_map_is_not_copied() {
        let map = map();
        let encoded = encode(&map, &EncodeOptions::default()).unwrap();
        assert_eq!(encoded.data.as_ptr(), map.data().as_ptr().cast());
        assert_eq!(encoded.dims, [2, 3, 2]);
    }

    #[test]
    fn channels_first_moves_channels_to_the_front() {
        let encoded = encode(&map(), &EncodeOptions { layout: Layout::Chw, ..Default::default() }).unwrap();
        assert_eq!(encoded.dims, [2, 2, 3]);
        assert_eq!(values(&encoded), [0.0, 10.0, 20.0, 100.0, 110.0, 120.0, 1.0, 11.0, 21.0, 101.0, 111.0, 121.0]);
    }

    #[test]
    fn a_region_holds_its_cells_in_order() {
        let selection = Selection::Region { rows: 1..2, cols: 1..3 };
        let encoded = encode(&map(), &EncodeOptions { selection, ..Default::default() }).unwrap();
        assert_eq!((encoded.dims.as_slice(), values(&encoded)), ([1, 2, 2].as_slice(), vec![110.0, 111.0, 120.0, 121.0]));
        let selection = Selection::Region { rows: 1..3, cols: 0..1 };
        assert_eq!(encode(&map(), &EncodeOptions { selection, ..Default::default() }), Err(EncodeError::Region));
    }

    #[test]
    fn points_are_bilinear_and_clamped() {
        let selection = Selection::Points(vec![[0.5, 0.0], [1.0, 0.25], [-3.0, 9.0]]);
        let encoded = encode(&map(), &EncodeOptions { selection, layout: Layout::Chw, ..Default::default() }).unwrap();
        assert_eq!((encoded.dims.as_slice(), values(&encoded)), ([3, 2].as_slice(), vec![5.0, 6.0, 35.0, 36.0, 100.0, 101.0]));
    }

    #[test]
    fn unit_length_comes_before_the_element_type_and_spares_zeros() {
        let map = FeatureMap::new(1, 2, 2, vec![3.0, 4.0, 0.0, 0.0].into()).unwrap();
        let encoded = encode(&map, &EncodeOptions { l2_normalize: true, ..Default::default() }).unwrap();
        assert_eq!(values(&encoded), [0.6, 0.8, 0.0, 0.0]);
    }
}
