//! `Match`: its request into the engine's terms, its answer out of them.

use crate::{
    correspond::MatchOptions,
    engine::{InferError, MatchRequest, Matched, PointMatch},
    grpc::{
        answer,
        convert::{finite_points, input_request},
        map_message::{map_header, map_request, point},
        pb::v1 as pb,
    },
};

/// Parses a request for matches.
///
/// # Errors
/// [`InferError::InvalidArgument`] with the path of the field at fault.
pub(super) fn match_request(request: pb::MatchRequest) -> Result<MatchRequest, InferError> {
    let pb::MatchRequest { model, source, target, preprocess, target_preprocess, features, points, refine } = request;
    let of_target = target_preprocess.is_some();
    let target = input_request(model.clone(), target, target_preprocess.or(preprocess)).map_err(|error| {
        let error = error.renamed("image", "target");
        if of_target { error.renamed("preprocess", "target_preprocess") } else { error }
    });
    Ok(MatchRequest {
        source: input_request(model, source, preprocess).map_err(|error| error.renamed("image", "source"))?,
        target: target?,
        features: map_request(features)?,
        points: finite_points("points", &points)?,
        options: MatchOptions { refine: refine.unwrap_or(true) },
    })
}

/// The answer.
#[must_use]
pub(super) fn match_response(matched: &Matched) -> pb::MatchResponse {
    pb::MatchResponse {
        source: Some(map_header(&matched.source)),
        target: Some(map_header(&matched.target)),
        matches: matched.matches.iter().map(point_match).collect(),
        timing: Some(answer::timing(&matched.timing)),
    }
}

fn point_match(found: &PointMatch) -> pb::PointMatch {
    let PointMatch { point: place, score, margin, back, is_mutual } = *found;
    pb::PointMatch { point: Some(point(place)), score, margin, back: Some(point(back)), is_mutual }
}
