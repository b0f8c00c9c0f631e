//! What the runtime needs to know of graphs: it sees bytes only, so that it does not depend on how graphs are made.

use ndarray::ArrayView3;

use crate::{
    graph::position::interpolate,
    onnx::prune_bytes,
    runtime::{GraphTools, PositionTable, Source},
};

/// The graph tools of this program.
pub const GRAPH_TOOLS: GraphTools = GraphTools { prune, fit_position };

fn prune(onnx: Vec<u8>, outputs: &[&str]) -> Result<Vec<u8>, Source> {
    Ok(prune_bytes(onnx, outputs)?)
}

fn fit_position(table: &PositionTable, [rows, cols]: [usize; 2]) -> Result<Vec<f32>, Source> {
    let stored = ArrayView3::from_shape(table.shape, &table.values)?;
    Ok(interpolate(stored, rows, cols, table.variant).into_raw_vec_and_offset().0)
}
