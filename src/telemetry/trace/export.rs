//! From ended spans to the collector: a bounded queue, a thread that sends batches of it, and what became of them.
//!
//! # Design
//! Queue and thread are the library's. It counts what it drops, but tells the count to nobody before its end, and a failed export to nobody
//! but its own log, each time. So spans pass a gate in front of its queue that knows how many are inside and counts those that it turns away,
//! and the exporter behind the queue counts what was sent and what was not, and says once that the collector has gone and once that it is back.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tracing::{info, warn};

use crate::telemetry::record;

/// A processor that keeps at most `max_spans` for `exporter`.
pub(super) fn bounded(exporter: impl SpanExporter + 'static, max_spans: usize) -> impl SpanProcessor + 'static {
    let gate = Arc::new(Gate { n_inside: AtomicUsize::new(0), max_spans });
    let exporter = Counted { exporter, gate: Arc::clone(&gate), is_failing: AtomicBool::new(false) };
    // What is inside the gate is in this queue or being sent, so the queue itself is never full.
    let config = BatchConfigBuilder::default().with_max_queue_size(max_spans).build();
    Gated { queue: BatchSpanProcessor::builder(exporter).with_batch_config(config).build(), gate }
}

/// Spans that have ended and were not sent yet.
#[derive(Debug)]
struct Gate {
    n_inside: AtomicUsize,
    max_spans: usize,
}

impl Gate {
    fn enter(&self) -> bool {
        let one_more = |n_inside: usize| (n_inside < self.max_spans).then_some(n_inside + 1);
        self.n_inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn leave(&self, n_spans: usize) {
        self.n_inside.fetch_sub(n_spans, Ordering::Relaxed);
    }
}

/// The queue behind its gate.
#[derive(Debug)]
struct Gated {
    queue: BatchSpanProcessor,
    gate: Arc<Gate>,
}

impl SpanProcessor for Gated {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.gate.enter() {
            self.queue.on_end(span);
        } else {
            record::spans("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// An exporter whose successes and failures are counted.
struct Counted<E> {
    exporter: E,
    gate: Arc<Gate>,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n_spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        self.gate.leave(n_spans);
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        record::spans(if outcome.is_ok() { "sent" } else { "failed" }, n_spans as u64);
        match &outcome {
            Err(error) if !was_failing => {
                warn!(error = error as &dyn Error, "traces cannot be sent, they are lost until the collector answers");
            }
            Ok(()) if was_failing => info!("traces are sent again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E> fmt::Debug for Counted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("gate", &self.gate).field("is_failing", &self.is_failing).finish_non_exhaustive()
    }
}
