//! Tensors by name, as they lie in a file: bytes are slices of the mapped file and become numbers when they are taken.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};
use ndarray::{ArrayD, Dimension, IxDyn};

use crate::weights::WeightsError;

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl StoredType {
    fn n_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Element type; `None` for integers and the like, which no weight is.
    pub element_type: Option<StoredType>,
    /// Extents.
    pub shape: Vec<usize>,
    /// Little-endian, row-major.
    pub bytes: Bytes,
}

/// All tensors of one source.
#[derive(Clone, Debug, Default)]
pub struct NamedTensors(BTreeMap<String, Stored>);

impl NamedTensors {
    /// Adds a tensor; an earlier one of the same name is replaced.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Stored) {
        self.0.insert(name.into(), tensor);
    }

    /// Names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Extents of a tensor, if it is there.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Gives every tensor the name that `rename` returns, and drops those for which it returns none.
    #[must_use]
    pub fn renamed(self, rename: impl Fn(&str) -> Option<String>) -> Self {
        Self(self.0.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect())
    }

    /// Takes a tensor out, as single-precision numbers.
    ///
    /// # Errors
    /// [`WeightsError::Missing`], and [`WeightsError::Tensor`] for a type that is no float and a length that does not fit the shape.
    pub fn take(&mut self, name: &str) -> Result<ArrayD<f32>, WeightsError> {
        let tensor = self.0.remove(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        let bad = |problem: String| WeightsError::Tensor { name: name.to_owned(), problem };
        let element_type = tensor.element_type.ok_or_else(|| bad("holds no float numbers".into()))?;
        let n_values: usize = tensor.shape.iter().product();
        if tensor.bytes.len() != n_values * element_type.n_bytes() {
            return Err(bad(format!("has {} bytes, its shape {:?} needs others", tensor.bytes.len(), tensor.shape)));
        }
        let values = to_f32(&tensor.bytes, element_type);
        ArrayD::from_shape_vec(IxDyn(&tensor.shape), values).map_err(|error| bad(error.to_string()))
    }

    /// Takes a tensor of a known number of axes.
    ///
    /// # Errors
    /// Those of [`NamedTensors::take`], and [`WeightsError::Tensor`] for another number of axes.
    pub fn take_as<D: Dimension>(&mut self, name: &str) -> Result<ndarray::Array<f32, D>, WeightsError> {
        let array = self.take(name)?;
        let shape = array.shape().to_vec();
        array.into_dimensionality().map_err(|_error| WeightsError::Tensor {
            name: name.to_owned(),
            problem: format!("has shape {shape:?}, another number of axes was expected"),
        })
    }

    /// Takes a tensor of a known shape.
    ///
    /// # Errors
    /// Those of [`NamedTensors::take`], and [`WeightsError::Tensor`] with both shapes for another one.
    pub fn take_shaped<D: Dimension>(&mut self, name: &str, shape: D) -> Result<ndarray::Array<f32, D>, WeightsError> {
        let array = self.take(name)?;
        let bad = |got: &[usize]| WeightsError::Tensor {
            name: name.to_owned(),
            problem: format!("has shape {got:?}, {:?} was expected", shape.slice()),
        };
        if array.shape() != shape.slice() {
            return Err(bad(array.shape()));
        }
        array.into_dimensionality().map_err(|_error| bad(shape.slice()))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "weights are used in single precision")]
fn to_f32(bytes: &[u8], element_type: StoredType) -> Vec<f32> {
    match element_type {
        StoredType::F64 => {
            let double = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            bytes.chunks_exact(8).map(|b| double(b) as f32).collect()
        }
        StoredType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        StoredType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        StoredType::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}
