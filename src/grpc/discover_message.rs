//! `Discover`: its request into the engine's terms, its answer out of them.

use crate::{
    discover::{DEFAULT_MAX_CORNERS, DEFAULT_TAU, Method},
    engine::{DiscoverRequest, Discovered, FoundObject, InferError, MaskFormat},
    grpc::{
        answer,
        convert::input_request,
        map_message::{map_header, map_request, point},
        pb::v1::{self as pb, discover_request},
        segment_answer::{self, to_box},
        segment_convert::format,
    },
};

/// Parses a request for objects.
///
/// # Errors
/// [`InferError::InvalidArgument`] with the path of the field at fault.
pub(super) fn discover_request(request: pb::DiscoverRequest) -> Result<DiscoverRequest, InferError> {
    let method = match request.method {
        None => token_cut(&pb::TokenCut::default()),
        Some(discover_request::Method::TokenCut(asked)) => token_cut(&asked),
        Some(discover_request::Method::Lost(pb::Lost { gram_bias })) => Method::Lost { gram_bias },
    };
    let cells = match request.cells {
        0 => MaskFormat::Nothing,
        cells => format(cells, "cells")?,
    };
    Ok(DiscoverRequest {
        input: input_request(request.model, request.image, request.preprocess)?,
        features: map_request(request.features)?,
        method,
        is_centred: request.centre.unwrap_or(matches!(method, Method::Lost { .. })),
        n_objects: request.n_objects.max(1) as usize,
        cells,
    })
}

fn token_cut(asked: &pb::TokenCut) -> Method {
    Method::TokenCut {
        tau: asked.tau.unwrap_or(DEFAULT_TAU),
        max_corners: asked.max_corners.map_or(DEFAULT_MAX_CORNERS, |most| most as usize),
    }
}

/// The answer.
#[must_use]
pub(super) fn discover_response(discovered: Discovered) -> pb::DiscoverResponse {
    pb::DiscoverResponse {
        map: Some(map_header(&discovered.map)),
        objects: discovered.objects.into_iter().map(object).collect(),
        timing: Some(answer::timing(&discovered.timing)),
    }
}

fn object(object: FoundObject) -> pb::DiscoveredObject {
    pb::DiscoveredObject {
        r#box: Some(to_box(object.bounds)),
        seed: Some(point(object.seed)),
        score: object.score,
        n_cells: answer::to_u32(object.n_cells),
        mask: object.mask.map(segment_answer::mask),
    }
}
