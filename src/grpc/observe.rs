//! What became of each request, for the metrics.

use crate::{
    engine::{Clock, Extracted, InferError},
    telemetry::record,
};

/// Records what became of a request.
pub(super) fn observe(rpc: &'static str, clock: Clock, outcome: &Result<Extracted, InferError>) {
    let total = clock.arrived.elapsed();
    match outcome {
        Ok(done) => record::request(rpc, total, Ok(&done.timing.stages())),
        Err(error) => record::request(rpc, total, Err(error.code().label())),
    }
}
