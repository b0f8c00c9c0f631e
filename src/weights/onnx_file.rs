//! Reads the weights out of an ONNX export whose constants kept most of their PyTorch names.
//!
//! # Design
//! Exporters keep the names of biases and norms, but the weights of linear layers come out transposed and without name, and the
//! position table comes out as loose constants. A weight is found again by the bias of the `Add` that follows its `MatMul`: the
//! file says nothing else about it. The table is the unnamed `[1, 1, D]` constant of a `Concat` (CLS) and the unnamed `[1, N, D]`
//! constant of a `Reshape` (patches); together they get the name that Hugging Face gives to the whole.

use std::{collections::HashMap, path::Path};

use bytes::Bytes;
use ndarray::Array2;

use crate::{
    onnx::{
        self,
        proto::{GraphProto, TensorProto},
    },
    weights::{
        WeightsError,
        named::{NamedTensors, Stored, StoredType},
    },
};

/// Prefix of constants that lost their names.
const ANONYMOUS: &str = "onnx::";
/// Last part of the position table's name in Hugging Face models.
const POSITION: &str = "embeddings.position_embeddings";

/// Reads the constants of `path` under their PyTorch names.
///
/// # Errors
/// [`WeightsError::Onnx`] when the file is no ONNX model or a constant cannot be read.
pub fn read(path: &Path) -> Result<NamedTensors, WeightsError> {
    let bad = |source| WeightsError::Onnx { path: path.to_path_buf(), source };
    let model = onnx::load(path).map_err(bad)?;
    let graph = model.graph.ok_or_else(|| bad(onnx::OnnxError::NoGraph))?;
    let constants: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut tensors = NamedTensors::default();
    for tensor in graph.initializer.iter().filter(|tensor| !tensor.name.starts_with(ANONYMOUS)) {
        tensors.insert(tensor.name.clone(), stored(&tensor.shape().map_err(bad)?, &tensor.to_f32().map_err(bad)?));
    }
    for (name, weight) in linear_weights(&graph, &constants) {
        let shape = weight.shape().map_err(bad)?;
        let values = weight.to_f32().map_err(bad)?;
        let &[n_in, n_out] = shape.as_slice() else { continue };
        let Ok(transposed) = Array2::from_shape_vec((n_in, n_out), values) else { continue };
        let values: Vec<f32> = transposed.t().iter().copied().collect();
        tensors.insert(name, stored(&[n_out, n_in], &values));
    }
    if let Some((name, shape, values)) = position(&graph, &constants).map_err(bad)? {
        tensors.insert(name, stored(&shape, &values));
    }
    Ok(tensors)
}

fn stored(shape: &[usize], values: &[f32]) -> Stored {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Stored { element_type: Some(StoredType::F32), shape: shape.to_vec(), bytes: Bytes::from(bytes) }
}

/// Unnamed right-hand sides of `MatMul`, named after the bias that is added to the product.
fn linear_weights<'a>(graph: &GraphProto, constants: &HashMap<&str, &'a TensorProto>) -> Vec<(String, &'a TensorProto)> {
    let mut biases: HashMap<&str, &str> = HashMap::new();
    for node in graph.node.iter().filter(|node| node.op_type == "Add") {
        let [a, b] = node.input.as_slice() else { continue };
        for (bias, product) in [(a, b), (b, a)] {
            if bias.ends_with(".bias") && constants.contains_key(bias.as_str()) {
                biases.insert(product, bias);
            }
        }
    }
    let named = graph.node.iter().filter(|node| node.op_type == "MatMul").filter_map(|node| {
        let weight = constants.get(node.input.get(1)?.as_str()).filter(|weight| weight.name.starts_with(ANONYMOUS))?;
        let bias = biases.get(node.output.first()?.as_str())?;
        Some((format!("{}.weight", bias.trim_end_matches(".bias")), *weight))
    });
    named.collect()
}

/// Name, shape `[1, 1 + N, D]` and values of the position table.
type Position = (String, Vec<usize>, Vec<f32>);

fn position(graph: &GraphProto, constants: &HashMap<&str, &TensorProto>) -> Result<Option<Position>, onnx::OnnxError> {
    let Some(cls_name) =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).find(|name| name.ends_with("embeddings.cls_token"))
    else {
        return Ok(None);
    };
    let prefix = cls_name.trim_end_matches("embeddings.cls_token");
    let operand = |op_type: &str, is_cls: bool| {
        let nodes = graph.node.iter().filter(|node| node.op_type == op_type);
        let mut tensors = nodes.filter_map(|node| constants.get(node.input.first()?.as_str()).copied());
        tensors.find(|tensor| {
            let fits = matches!(tensor.dims.as_slice(), &[1, n, _] if (n == 1) == is_cls);
            fits && tensor.name.starts_with(ANONYMOUS)
        })
    };
    let (Some(cls), Some(patches)) = (operand("Concat", true), operand("Reshape", false)) else { return Ok(None) };
    let (cls_shape, shape) = (cls.shape()?, patches.shape()?);
    let mut values = cls.to_f32()?;
    values.extend(patches.to_f32()?);
    Ok(Some((format!("{prefix}{POSITION}"), vec![1, cls_shape[1] + shape[1], shape[2]], values)))
}
