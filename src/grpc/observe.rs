//! What became of each request, for the metrics.

use crate::{
    engine::{Clock, InferError, Timing},
    telemetry::record,
};

/// Records what became of a request.
pub(super) fn observe(rpc: &'static str, clock: Clock, outcome: Result<&Timing, &InferError>) {
    let total = clock.arrived.elapsed();
    match outcome {
        Ok(timing) => record::request(rpc, total, Ok(&timing.stages())),
        Err(error) => record::request(rpc, total, Err(error.code().label())),
    }
}
