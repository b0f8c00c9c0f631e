//! What the runtime needs to know of graphs: it sees bytes only, so that it does not depend on how graphs are made.

use bytes::Bytes;
use ndarray::ArrayView3;
use prost::Message as _;

use crate::{
    graph::position::interpolate,
    onnx::{ModelProto, prune},
    runtime::{GraphTools, PositionTable, Source},
};

/// The graph tools of this program.
pub const GRAPH_TOOLS: GraphTools = GraphTools { prune: prune_bytes, fit_position };

fn prune_bytes(onnx: &[u8], outputs: &[&str]) -> Result<Vec<u8>, Source> {
    let model = ModelProto::decode(Bytes::copy_from_slice(onnx))?;
    Ok(prune(&model, outputs)?.encode_to_vec())
}

fn fit_position(table: &PositionTable, [rows, cols]: [usize; 2]) -> Result<Vec<f32>, Source> {
    let stored = ArrayView3::from_shape(table.shape, &table.values)?;
    Ok(interpolate(stored, rows, cols, table.variant).into_raw_vec_and_offset().0)
}
