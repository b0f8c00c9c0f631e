//! Which spans are sent.
//!
//! # Design
//! A child goes with its parent, also with one in another process. A root that links to others, a batch, is sent if any of them is: of a batch
//! only the calls can say whether it matters. All other roots are sent at a ratio, decided by the trace's id, so that services with the same
//! ratio keep the same traces.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::trace::{Sampler as Rule, SamplingDecision, SamplingResult, ShouldSample};

/// Obeys parents, then links, then a ratio.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    by_ratio: Rule,
}

impl Sampler {
    pub(super) fn new(ratio: f64) -> Self {
        Self { by_ratio: Rule::TraceIdRatioBased(ratio) }
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent_span = parent.map(|parent| parent.span().span_context().clone()).filter(|span| span.is_valid());
        let is_sampled = match &parent_span {
            Some(parent) => parent.is_sampled(),
            None if !links.is_empty() => links.iter().any(|link| link.span_context.is_sampled()),
            None => return self.by_ratio.should_sample(parent, trace_id, name, kind, attributes, links),
        };
        SamplingResult {
            decision: if is_sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: parent_span.map(|parent| parent.trace_state().clone()).unwrap_or_default(),
        }
    }
}
