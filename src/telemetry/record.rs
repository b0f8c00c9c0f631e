//! Every metric: its name, unit and labels, and one recorder call a stage.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Upper bounds of the buckets of durations, in seconds.
pub const SECONDS_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of the buckets of batch sizes, in images.
pub const IMAGES_BUCKETS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Upper bounds of the buckets of ratios: 1 is as expected.
pub const RATIO_BUCKETS: [f64; 9] = [0.25, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0, 4.0];

const REQUEST: &str = "densevit_request_duration_seconds";
const STAGE: &str = "densevit_stage_duration_seconds";
const BATCH: &str = "densevit_batch_size_images";
const IN_FLIGHT: &str = "densevit_calls_in_flight";
const READY: &str = "densevit_ready";
const REFUSED: &str = "densevit_jobs_dropped_total";
const RUN: &str = "densevit_run_duration_seconds";
const PREDICTION: &str = "densevit_run_prediction_ratio";
const DRAIN: &str = "densevit_queue_drain_seconds";
const HITS: &str = "densevit_cache_hits_total";
const MISSES: &str = "densevit_cache_misses_total";
const SHARED: &str = "densevit_cache_coalesced_total";
const EVICTIONS: &str = "densevit_cache_evictions_total";
const CACHE_BYTES: &str = "densevit_cache_bytes";
const CACHE_ENTRIES: &str = "densevit_cache_entries";
const SPANS: &str = "densevit_spans_total";

/// How an image was answered with a cache there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// From the cache.
    Hit,
    /// By a run of its own.
    Miss,
    /// By the run of an equal request.
    Coalesced,
}

/// Tells the registry what the metrics mean.
pub fn describe() {
    describe_histogram!(REQUEST, Unit::Seconds, "Time from a request's arrival to its answer, by rpc and outcome.");
    describe_histogram!(STAGE, Unit::Seconds, "Time that answered requests spent in each stage.");
    describe_histogram!(BATCH, Unit::Count, "Images that shared a run, one observation a run.");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Calls that are being answered.");
    describe_gauge!(READY, Unit::Count, "1 while the server takes requests.");
    describe_counter!(REFUSED, Unit::Count, "Jobs that left the queue without a run, by reason.");
    describe_histogram!(RUN, Unit::Seconds, "Time of a batch on its executor, as predicted and as it was (kind).");
    describe_histogram!(PREDICTION, Unit::Count, "Predicted time of a batch over its actual time.");
    describe_gauge!(DRAIN, Unit::Seconds, "Predicted time until everything inside is done, after the last run.");
    describe_counter!(HITS, Unit::Count, "Images that were answered from the cache.");
    describe_counter!(MISSES, Unit::Count, "Images that were run although there is a cache.");
    describe_counter!(SHARED, Unit::Count, "Images that were answered by the run of an equal request in flight.");
    describe_counter!(
        EVICTIONS,
        Unit::Count,
        "Answers that left the cache: for space, or because their model was replaced or unloaded."
    );
    describe_gauge!(CACHE_BYTES, Unit::Bytes, "Memory of the answers in the cache.");
    describe_gauge!(CACHE_ENTRIES, Unit::Count, "Answers in the cache.");
    describe_counter!(SPANS, Unit::Count, "Spans of traces, by outcome: sent, failed, dropped.");
}

/// Spans of traces left this process, or did not: "sent", "failed" (the collector did not take them), "dropped" (the queue was full).
pub fn spans(outcome: &'static str, n_spans: u64) {
    counter!(SPANS, "outcome" => outcome).increment(n_spans);
}

/// A request was answered: with the time of its stages, or with the label of an error.
pub fn request(rpc: &'static str, total: Duration, outcome: Result<&[(&'static str, Duration)], &'static str>) {
    match outcome {
        Ok(stages) => {
            histogram!(REQUEST, "rpc" => rpc, "outcome" => "ok").record(total);
            stages.iter().for_each(|(stage, time)| histogram!(STAGE, "stage" => *stage).record(*time));
        }
        Err(label) => histogram!(REQUEST, "rpc" => rpc, "outcome" => label).record(total),
    }
}

/// A batch was run.
pub fn batch(model: &str, n_images: usize) {
    #[expect(clippy::cast_precision_loss, reason = "batch sizes are small")]
    histogram!(BATCH, "model" => model.to_owned()).record(n_images as f64);
}

/// A batch has run for `actual`, perhaps as `predicted`; what is inside now should be done after `drain_time`.
pub fn run(model: &str, predicted: Option<Duration>, actual: Duration, drain_time: Duration) {
    histogram!(RUN, "model" => model.to_owned(), "kind" => "actual").record(actual);
    if let Some(predicted) = predicted {
        histogram!(RUN, "model" => model.to_owned(), "kind" => "predicted").record(predicted);
        histogram!(PREDICTION, "model" => model.to_owned()).record(predicted.as_secs_f64() / actual.as_secs_f64().max(1e-9));
    }
    gauge!(DRAIN, "model" => model.to_owned()).set(drain_time.as_secs_f64());
}

/// A job left the queue without a run: "full", "tenant_full", "buckets", "too_late", "closed", "expired", "cancelled".
pub fn dropped(model: &str, reason: &'static str) {
    counter!(REFUSED, "model" => model.to_owned(), "reason" => reason).increment(1);
}

/// An image was answered with a cache there.
pub fn cached(model: &str, how: Cached) {
    match how {
        Cached::Hit => counter!(HITS, "model" => model.to_owned()).increment(1),
        Cached::Miss => counter!(MISSES, "model" => model.to_owned()).increment(1),
        Cached::Coalesced => counter!(SHARED, "model" => model.to_owned()).increment(1),
    }
}

/// Answers left the cache: for "space", or with their "model".
pub fn cache_evicted(reason: &'static str, n_answers: usize) {
    counter!(EVICTIONS, "reason" => reason).increment(n_answers as u64);
}

/// What the cache holds now.
pub fn cache_size(n_bytes: usize, n_answers: usize) {
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^53 bytes")]
    gauge!(CACHE_BYTES).set(n_bytes as f64);
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    gauge!(CACHE_ENTRIES).set(n_answers as f64);
}

/// Whether the server takes requests.
pub fn ready(is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
}

/// A call that is being answered; ends with the value.
#[derive(Debug)]
pub struct CallInFlight(());

/// A call began.
#[must_use]
pub fn call_began() -> CallInFlight {
    gauge!(IN_FLIGHT).increment(1.0);
    CallInFlight(())
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}
