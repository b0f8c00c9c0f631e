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
const DROPPED: &str = "densevit_jobs_dropped_total";
const REFUSED: &str = "densevit_refusals_total";
const CONNECTIONS: &str = "densevit_connections_open";
const CONNECTIONS_ENDED: &str = "densevit_connections_ended_total";
const IN_FLIGHT_BYTES: &str = "densevit_requests_in_flight_bytes";
const IN_FLIGHT_REQUESTS: &str = "densevit_requests_in_flight";
const QUEUE_JOBS: &str = "densevit_queue_jobs";
const QUEUE_BYTES: &str = "densevit_queue_bytes";
const IMAGE_COST: &str = "densevit_image_cost_seconds";
const MODEL: &str = "densevit_model_info";
const PLACEMENT: &str = "densevit_provider_nodes";
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
    describe_counter!(DROPPED, Unit::Count, "Jobs that left the queue without a run, by reason.");
    describe_counter!(REFUSED, Unit::Count, "Calls that were refused before they came to a queue, by reason.");
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open, in handshakes too.");
    describe_counter!(CONNECTIONS_ENDED, Unit::Count, "Connections that have ended, by reason.");
    describe_gauge!(IN_FLIGHT_REQUESTS, Unit::Count, "Requests that were admitted, from arrival to answer.");
    describe_gauge!(IN_FLIGHT_BYTES, Unit::Bytes, "Memory of admitted requests as limits.max_in_flight_bytes counts it.");
    describe_gauge!(QUEUE_JOBS, Unit::Count, "Jobs of a model's batcher, waiting or running.");
    describe_gauge!(QUEUE_BYTES, Unit::Bytes, "Memory of their inputs.");
    describe_histogram!(IMAGE_COST, Unit::Seconds, "Time of a run over its images, by patches of an image and outputs.");
    describe_gauge!(MODEL, Unit::Count, "1 for a model that answers requests, with the providers of its sessions.");
    describe_gauge!(PLACEMENT, Unit::Count, "Nodes that a provider ran in warm-up, where there are several.");
    describe_histogram!(RUN, Unit::Seconds, "Time of a batch on its executor, as predicted and as it was (kind).");
    describe_histogram!(PREDICTION, Unit::Count, "Predicted time of a batch over its actual time.");
    describe_gauge!(DRAIN, Unit::Seconds, "Predicted time until everything inside is done, after the last run.");
    describe_counter!(HITS, Unit::Count, "Images that were answered from the cache.");
    describe_counter!(MISSES, Unit::Count, "Images that were run although there is a cache.");
    describe_counter!(SHARED, Unit::Count, "Images that were answered by the run of an equal request in flight.");
    describe_counter!(EVICTIONS, Unit::Count, "Answers that left the cache, for space or with their model.");
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

/// A run of `n_images` of `n_cells` patches each took `time`; `outputs` is "features", "masks" or "both". Patches are told by the next power
/// of two, so that any number of sizes makes few series.
pub fn image_cost(model: &str, outputs: &'static str, n_cells: usize, (n_images, time): (usize, Duration)) {
    let cells = n_cells.next_power_of_two().to_string();
    #[expect(clippy::cast_precision_loss, reason = "batch sizes are small")]
    let cost = time.as_secs_f64() / n_images.max(1) as f64;
    histogram!(IMAGE_COST, "model" => model.to_owned(), "outputs" => outputs, "cells" => cells).record(cost);
}

/// What waits and runs in a model's batcher now.
pub fn queue(model: &str, n_jobs: usize, n_bytes: usize, drain_time: Duration) {
    gauge!(QUEUE_JOBS, "model" => model.to_owned()).set(count(n_jobs));
    gauge!(QUEUE_BYTES, "model" => model.to_owned()).set(count(n_bytes));
    gauge!(DRAIN, "model" => model.to_owned()).set(drain_time.as_secs_f64());
}

/// What is admitted now.
pub fn admitted(n_requests: usize, n_bytes: usize) {
    gauge!(IN_FLIGHT_REQUESTS).set(count(n_requests));
    gauge!(IN_FLIGHT_BYTES).set(count(n_bytes));
}

/// Whether a model answers requests, and on which providers.
pub fn model(name: &str, version: u32, provider: &str, is_loaded: bool) {
    let (version, provider) = (version.to_string(), provider.to_owned());
    gauge!(MODEL, "model" => name.to_owned(), "version" => version, "provider" => provider).set(f64::from(u8::from(is_loaded)));
}

/// Nodes that a provider ran.
pub fn placement(model: &str, provider: &str, n_nodes: usize) {
    gauge!(PLACEMENT, "model" => model.to_owned(), "provider" => provider.to_owned()).set(count(n_nodes));
}

/// The last part of an answer was given to the connection.
pub fn sent(time: Duration) {
    histogram!(STAGE, "stage" => "send").record(time);
}

/// A call was refused before it came to a queue: "token", "metadata", "message_size", "message_form", "requests", "bytes",
/// "tenant_requests", "tenant_bytes".
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A job left the queue without a run: "full", "tenant_full", "buckets", "too_late", "closed", "expired", "cancelled".
pub fn dropped(model: &str, reason: &'static str) {
    counter!(DROPPED, "model" => model.to_owned(), "reason" => reason).increment(1);
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
    gauge!(CACHE_BYTES).set(count(n_bytes));
    gauge!(CACHE_ENTRIES).set(count(n_answers));
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

/// A connection that is open; ends with the value.
#[derive(Debug)]
pub struct OpenConnection {
    /// Why it ended: "peer", "drain", "age", "idle", "handshake", "protocol"; "dropped" while nobody says another.
    pub reason: &'static str,
}

/// A connection was accepted.
#[must_use]
pub fn connection_opened() -> OpenConnection {
    gauge!(CONNECTIONS).increment(1.0);
    OpenConnection { reason: "dropped" }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
        counter!(CONNECTIONS_ENDED, "reason" => self.reason).increment(1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and memory are far below 2^53")]
fn count(value: usize) -> f64 {
    value as f64
}
