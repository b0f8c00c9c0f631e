//! Tensors of constants: from slices into messages, and back.

use bytes::Bytes;
use half::{bf16, f16};

use crate::onnx::{
    OnnxError,
    proto::{DataType, TensorProto},
};

/// `data_location` of a tensor whose bytes lie in another file.
pub(super) const EXTERNAL: i32 = 1;

impl TensorProto {
    /// A tensor of single-precision numbers.
    #[must_use]
    pub fn f32(dims: &[usize], values: &[f32]) -> Self {
        Self::from_bytes(DataType::Float, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor of half-precision numbers, rounded to nearest.
    #[must_use]
    pub fn f16(dims: &[usize], values: &[f32]) -> Self {
        Self::from_bytes(DataType::Float16, dims, values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
    }

    /// A tensor of 64-bit integers.
    #[must_use]
    pub fn i64(dims: &[usize], values: &[i64]) -> Self {
        Self::from_bytes(DataType::Int64, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor of signed bytes.
    #[must_use]
    pub fn i8(dims: &[usize], values: &[i8]) -> Self {
        Self::from_bytes(DataType::Int8, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor of bytes.
    #[must_use]
    pub fn u8(dims: &[usize], values: &[u8]) -> Self {
        Self::from_bytes(DataType::Uint8, dims, values.to_vec())
    }

    fn from_bytes(data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> Self {
        let dims = dims.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        Self { dims, data_type: data_type as i32, raw_data: Bytes::from(bytes), ..Self::default() }
    }

    /// Extents of the tensor.
    ///
    /// # Errors
    /// [`OnnxError::Tensor`] when one is negative.
    pub fn shape(&self) -> Result<Vec<usize>, OnnxError> {
        self.dims.iter().map(|dim| usize::try_from(*dim).map_err(|_negative| self.bad("has a negative dimension"))).collect()
    }

    /// The values as single-precision numbers, whatever float type they are stored in.
    ///
    /// # Errors
    /// [`OnnxError::Tensor`] for other types, external data, and a length that does not fit the shape.
    pub fn to_f32(&self) -> Result<Vec<f32>, OnnxError> {
        if self.data_location == EXTERNAL {
            return Err(self.bad("keeps its data in another file, which was not loaded"));
        }
        let raw = &self.raw_data;
        let values: Vec<f32> = match DataType::try_from(self.data_type) {
            Ok(DataType::Float) if raw.is_empty() => self.float_data.clone(),
            Ok(DataType::Float) => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Ok(DataType::Float16) => raw.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Ok(DataType::Bfloat16) => raw.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => return Err(self.bad("holds no float numbers")),
        };
        let n_values: usize = self.shape()?.iter().product();
        if values.len() != n_values {
            return Err(self.bad("holds fewer or more values than its shape says"));
        }
        Ok(values)
    }

    fn bad(&self, problem: &'static str) -> OnnxError {
        OnnxError::Tensor { name: self.name.clone(), problem }
    }
}
