//! Weights as constants of a graph, in the precision of the graph.

use ndarray::{Array1, Array2, ArrayBase, Data, Dimension};

use crate::{
    manifest::Precision,
    onnx::{
        GraphBuilder, Value,
        proto::{DataType, TensorProto},
    },
    weights::Linear,
};

/// An array as a constant of `precision`.
pub(super) fn constant<S, D>(graph: &mut GraphBuilder, array: &ArrayBase<S, D>, precision: Precision, name: &str) -> Value
where
    S: Data<Elem = f32>,
    D: Dimension,
{
    let values: Vec<f32> = array.iter().copied().collect();
    let tensor = match precision {
        Precision::Fp32 | Precision::Int8 => TensorProto::f32(array.shape(), &values),
        Precision::Fp16 => TensorProto::f16(array.shape(), &values),
    };
    graph.constant(tensor, name)
}

/// `x W^T + b`, with every output channel multiplied by `scale` when there is one (LayerScale, folded into the weights).
pub(super) fn linear(
    graph: &mut GraphBuilder,
    x: &Value,
    layer: &Linear,
    scale: Option<&Array1<f32>>,
    (precision, name): (Precision, &str),
) -> Value {
    let mut weight: Array2<f32> = layer.weight.t().to_owned();
    let mut bias = layer.bias.clone();
    if let Some(scale) = scale {
        weight *= scale;
        bias *= scale;
    }
    let weight = constant(graph, &weight, precision, &format!("{name}.weight"));
    let bias = constant(graph, &bias, precision, &format!("{name}.bias"));
    let product = graph.matmul(x, &weight);
    graph.add(&product, &bias)
}

/// `x` in the precision of the matrix products; nothing in graphs that are not in half precision.
pub(super) fn narrow(graph: &mut GraphBuilder, x: &Value, precision: Precision) -> Value {
    match precision {
        Precision::Fp32 | Precision::Int8 => x.clone(),
        Precision::Fp16 => graph.cast(x, DataType::Float16),
    }
}

/// `x` in single precision; nothing in graphs that are not in half precision.
pub(super) fn widen(graph: &mut GraphBuilder, x: &Value, precision: Precision) -> Value {
    match precision {
        Precision::Fp32 | Precision::Int8 => x.clone(),
        Precision::Fp16 => graph.cast(x, DataType::Float),
    }
}
