//! Which map an answer is computed from, and what it was: parts of several messages.

use crate::{
    engine::{FeatureRequest, InferError, MapInfo},
    grpc::{answer, convert::feature_request, pb::v1 as pb},
};

/// Parses the choice of a map.
pub(super) fn map_request(options: Option<pb::MapOptions>) -> Result<FeatureRequest, InferError> {
    let pb::MapOptions { facet, layer, lift_passes } = options.unwrap_or_default();
    feature_request(pb::FeatureOptions { facet, layer, lift_passes, ..Default::default() })
}

/// What a map is.
#[must_use]
pub(super) fn map_header(map: &MapInfo) -> pb::MapHeader {
    let manifest = map.model.manifest();
    let ([x0, y0], [dx, dy]) = (map.geometry.cell_centre(0, 0, map.stride), map.cell_size());
    pb::MapHeader {
        model: manifest.name.clone(),
        version: manifest.version.to_string(),
        digest: map.model.digest().to_owned(),
        facet: answer::facet(map.tap.facet) as i32,
        layer: map.tap.layer,
        lift_passes: map.lift_passes,
        rows: answer::to_u32(map.grid[0]),
        cols: answer::to_u32(map.grid[1]),
        input: Some(answer::size(map.geometry.input_size())),
        original: Some(answer::size(map.geometry.original_size())),
        stride: map.stride,
        grid_to_image: Some(pb::Affine { x0, dx, y0, dy }),
        warnings: map.warnings.clone(),
    }
}

/// A position in pixels.
pub(super) fn point([x, y]: [f64; 2]) -> pb::Point {
    pb::Point { x, y }
}
