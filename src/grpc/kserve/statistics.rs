//! A model's counts in Triton's terms.

use std::time::UNIX_EPOCH;

use crate::{
    engine::{Counts, LoadedModel, RunTally, Tally},
    grpc::pb::inference as pb,
};

/// What a model has done since it was loaded.
pub(super) fn statistics(model: &LoadedModel) -> pb::ModelStatistics {
    let counts = model.statistics().counts();
    let last = counts.last_answer.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    pb::ModelStatistics {
        name: model.manifest().name.clone(),
        version: model.manifest().version.to_string(),
        last_inference: last.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).unwrap_or_default(),
        inference_count: counts.n_images,
        execution_count: counts.n_runs(),
        inference_stats: Some(of_requests(&counts)),
        batch_stats: counts.runs.iter().map(|(n_jobs, run)| of_runs(*n_jobs, run)).collect(),
        ..pb::ModelStatistics::default()
    }
}

fn of_requests(counts: &Counts) -> pb::InferStatistics {
    pb::InferStatistics {
        success: Some(duration(counts.success)),
        fail: Some(duration(counts.fail)),
        queue: Some(duration(counts.queue)),
        compute_input: Some(duration(counts.prepare)),
        compute_infer: Some(duration(counts.infer)),
        compute_output: Some(duration(counts.encode)),
        cache_hit: Some(duration(counts.cache_hit)),
        cache_miss: Some(duration(counts.cache_miss)),
    }
}

fn of_runs(n_jobs: usize, run: &RunTally) -> pb::InferBatchStatistics {
    pb::InferBatchStatistics {
        batch_size: n_jobs as u64,
        compute_input: Some(duration(run.assemble)),
        compute_infer: Some(duration(run.infer)),
        compute_output: Some(pb::StatisticDuration { count: run.infer.count, ns: 0 }),
    }
}

fn duration(tally: Tally) -> pb::StatisticDuration {
    pb::StatisticDuration { count: tally.count, ns: u64::try_from(tally.total.as_nanos()).unwrap_or(u64::MAX) }
}
