//! Linear layers in the precision of the graph: products of floats, or of bytes.

use ndarray::{Array0, Array1, Array2};

use crate::{
    graph::{
        byte_matrix::ByteMatrix,
        constants::{constant, linear},
        fold::Step,
    },
    manifest::Precision,
    onnx::{GraphBuilder, QuantizedValue, QuantizedWeight, Value, proto::TensorProto},
    weights::Linear,
};

/// What a linear layer reads, in the form that it multiplies.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// Numbers in the precision of the graph.
    Float(Value),
    /// Bytes.
    Bytes(QuantizedValue),
}

impl Operand {
    /// `x` as it is, or in bytes where there is a step for it.
    pub(super) fn new(graph: &mut GraphBuilder, x: &Value, step: Option<Step>, name: &str) -> Self {
        let Some(Step { scale, zero }) = step else { return Self::Float(x.clone()) };
        let scale = constant(graph, &Array0::from_elem((), scale), Precision::Fp32, &format!("{name}.scale"));
        let zero = graph.constant(TensorProto::u8(&[], &[zero]), &format!("{name}.zero"));
        let values = graph.quantize(x, &scale, &zero);
        Self::Bytes(QuantizedValue { values, scale, zero })
    }

    /// `x W^T + b`, with every output channel multiplied by `scale` when there is one.
    pub(super) fn product(
        &self,
        graph: &mut GraphBuilder,
        layer: &Linear,
        scale: Option<&Array1<f32>>,
        (precision, name): (Precision, &str),
    ) -> Value {
        match self {
            Self::Float(x) => linear(graph, x, layer, scale, (precision, name)),
            Self::Bytes(x) => {
                let weight = bytes(graph, layer, name);
                graph.matmul_integer(x, &weight)
            }
        }
    }
}

/// The layer's weights in bytes. LayerScale is folded in before.
fn bytes(graph: &mut GraphBuilder, layer: &Linear, name: &str) -> QuantizedWeight {
    let weight: Array2<f32> = layer.weight.t().to_owned();
    let ByteMatrix { values, scale } = ByteMatrix::round(&weight);
    let n_columns = scale.len();
    let flat: Vec<i8> = values.iter().copied().collect();
    QuantizedWeight {
        values: graph.constant(TensorProto::i8(values.shape(), &flat), &format!("{name}.weight")),
        scale: constant(graph, &scale, Precision::Fp32, &format!("{name}.weight.scale")),
        zero: graph.constant(TensorProto::i8(&[n_columns], &vec![0; n_columns]), &format!("{name}.weight.zero")),
        bias: constant(graph, &layer.bias, Precision::Fp32, &format!("{name}.bias")),
    }
}
