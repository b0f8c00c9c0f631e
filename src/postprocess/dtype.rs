//! Element types and layouts of answers, and the conversions into them.

use bytes::Bytes;
use half::{f16, slice::HalfFloatSliceExt as _};

/// Element type of an answer; little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DType {
    /// IEEE single.
    #[default]
    F32,
    /// IEEE half, rounded to nearest even.
    F16,
    /// Signed 8-bit integers with one scale a channel.
    I8,
}

impl DType {
    /// Bytes of an element.
    #[must_use]
    pub fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }
}

/// Order of the axes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Rows, columns, channels.
    #[default]
    Hwc,
    /// Channels, rows, columns.
    Chw,
}

/// Single-precision values as little-endian bytes.
pub(super) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        return bytemuck::cast_slice(values).to_vec();
    }
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Owner of bytes that are values in half precision.
struct HalfBytes(Vec<f16>);

impl AsRef<[u8]> for HalfBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Values rounded to half precision, as little-endian bytes.
pub(super) fn f16_bytes(values: &[f32]) -> Bytes {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    if cfg!(target_endian = "little") {
        return Bytes::from_owner(HalfBytes(halves));
    }
    halves.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Scale of each channel, `max |x| / 127` over all cells; 1 for a channel of zeros.
pub(super) fn scales(values: &[f32], n_channels: usize) -> Vec<f32> {
    let mut largest = vec![0f32; n_channels];
    for cell in values.chunks_exact(n_channels) {
        for (largest, value) in largest.iter_mut().zip(cell) {
            *largest = largest.max(value.abs());
        }
    }
    largest.into_iter().map(|largest| if largest > 0.0 { largest / 127.0 } else { 1.0 }).collect()
}

/// Values divided by the scale of their channel and rounded to the nearest whole number, ties to even.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i8")]
pub(super) fn i8_bytes(values: &[f32], scales: &[f32]) -> Vec<u8> {
    let quantise = |(value, scale): (&f32, &f32)| ((value / scale).round_ties_even().clamp(-127.0, 127.0) as i8).cast_unsigned();
    let mut bytes = Vec::with_capacity(values.len());
    values.chunks_exact(scales.len()).for_each(|cell| bytes.extend(cell.iter().zip(scales).map(quantise)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_values_are_within_half_a_step_and_zeros_stay() {
        // Two channels: one up to 2.54 (step 0.02), one of zeros.
        let values = [2.54, 0.0, -1.27, 0.0, 0.03, 0.0];
        let scales = scales(&values, 2);
        assert!((scales[0] - 0.02).abs() < 1e-7 && scales[1].to_bits() == 1f32.to_bits());
        let bytes: Vec<i8> = i8_bytes(&values, &scales).into_iter().map(u8::cast_signed).collect();
        // -1.27 / 0.02 = -63.5 and 0.03 / 0.02 = 1.5 lie between two steps; f32 decides which.
        assert_eq!((bytes[0], bytes[1], bytes[3], bytes[5]), (127, 0, 0, 0));
        for (byte, value) in bytes.iter().zip(values).step_by(2) {
            assert!((f32::from(*byte) * scales[0] - value).abs() <= 0.0101);
        }
    }

    #[test]
    fn halves_are_rounded_to_nearest_even() {
        // 1 + 2^-11 lies half way between 1 and the next half; 1 + 3 * 2^-11 half way between the next two.
        let values = [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 65_504.0];
        let halves: Vec<f16> = f16_bytes(&values).chunks(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]])).collect();
        assert_eq!(halves, [f16::from_f32(1.0), f16::from_f32(1.0 + 2f32.powi(-9)), f16::MAX]);
    }
}
