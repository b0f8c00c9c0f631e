//! Cuts a graph to what some of its outputs need.
//!
//! # Design
//! ONNX Runtime computes every output of a graph, also those that a caller does not ask for. A backbone offers every facet of
//! every block, so each session gets a graph of its own with the outputs that it serves: with keys of block L the rest of that
//! block, and all later blocks, are gone. Tensor bytes are shared, not copied.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;

use crate::onnx::{
    OnnxError,
    proto::{GraphProto, ModelProto},
};

/// A copy of `model` with only the named outputs and what they need. Inputs that nothing reads any more are dropped.
///
/// # Errors
/// [`OnnxError::Dangling`] when the model has no such output, [`OnnxError::NoGraph`] when it holds no graph.
pub fn prune(model: &ModelProto, outputs: &[&str]) -> Result<ModelProto, OnnxError> {
    let graph = model.graph.as_ref().ok_or(OnnxError::NoGraph)?;
    if let Some(missing) = outputs.iter().find(|name| !graph.output.iter().any(|output| output.name == **name)) {
        return Err(OnnxError::Dangling { reader: "the caller".into(), name: (*missing).to_owned() });
    }
    let mut needed: HashSet<&str> = outputs.iter().copied().collect();
    // Nodes stand in the order of computation, so that one pass from the end finds all that lead to the outputs.
    let mut kept: Vec<bool> = vec![false; graph.node.len()];
    for (node, kept) in graph.node.iter().zip(&mut kept).rev() {
        if node.output.iter().any(|name| needed.contains(name.as_str())) {
            *kept = true;
            needed.extend(node.input.iter().map(String::as_str));
        }
    }
    let is_needed = |name: &str| needed.contains(name);
    let pruned = GraphProto {
        node: graph.node.iter().zip(kept).filter(|(_, kept)| *kept).map(|(node, _)| node.clone()).collect(),
        name: graph.name.clone(),
        initializer: graph.initializer.iter().filter(|tensor| is_needed(&tensor.name)).cloned().collect(),
        input: graph.input.iter().filter(|input| is_needed(&input.name)).cloned().collect(),
        output: graph.output.iter().filter(|output| outputs.contains(&output.name.as_str())).cloned().collect(),
    };
    Ok(ModelProto { graph: Some(pruned), ..model_head(model) })
}

/// The same for a serialised model.
///
/// # Errors
/// [`OnnxError::Malformed`] for bytes that are no model, and those of [`prune`].
pub fn prune_bytes(onnx: Vec<u8>, outputs: &[&str]) -> Result<Vec<u8>, OnnxError> {
    let model = ModelProto::decode(Bytes::from(onnx)).map_err(OnnxError::Malformed)?;
    Ok(prune(&model, outputs)?.encode_to_vec())
}

/// Everything of a model but its graph.
fn model_head(model: &ModelProto) -> ModelProto {
    ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        graph: None,
        opset_import: model.opset_import.clone(),
        metadata_props: model.metadata_props.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::onnx::{Dim, GraphBuilder, proto::DataType};

    /// `a = relu(x)`, `b = a + y`.
    fn model() -> ModelProto {
        let mut graph = GraphBuilder::new("g");
        let shape = [Dim::Any("n")];
        let x = graph.input("x", DataType::Float, &shape);
        let y = graph.input("y", DataType::Float, &shape);
        let a = graph.relu(&x);
        let b = graph.add(&a, &y);
        graph.output(&a, "a", DataType::Float, &shape);
        graph.output(&b, "b", DataType::Float, &shape);
        graph.finish().unwrap()
    }

    #[test]
    fn an_early_output_needs_neither_later_nodes_nor_their_inputs() {
        let graph = prune(&model(), &["a"]).unwrap().graph.unwrap();
        let ops: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Relu", "Identity"]);
        assert_eq!(graph.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(graph.output.len(), 1);
    }

    #[test]
    fn all_outputs_together_keep_everything() {
        let model = model();
        assert_eq!(prune(&model, &["a", "b"]).unwrap(), model);
    }

    #[test]
    fn an_output_that_is_not_there_is_an_error() {
        assert!(prune(&model(), &["c"]).unwrap_err().to_string().contains("\"c\""));
    }
}
