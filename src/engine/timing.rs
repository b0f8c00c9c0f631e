//! Where the time of a request went.
//!
//! # Design
//! Each stage ends where the next one begins, so that the times add up to the total and nothing hides between them: waiting for a thread
//! belongs to the stage that needs it, and what a run took beyond its graphs is a stage of its own.

use std::time::Duration;

/// How an answer came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// By a run for this request.
    #[default]
    Run,
    /// By the run of an equal request that was in flight.
    Shared,
    /// It was kept from an equal request.
    Cache,
}

/// Time spent in each stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Receiving the message after its headers, and checking what was asked.
    pub receive: Duration,
    /// The cache: hashing and looking up, waiting for the run of an equal request, checking or keeping the answer.
    pub cache: Duration,
    /// Waiting for and running the decoder.
    pub decode: Duration,
    /// Crop and resize.
    pub resize: Duration,
    /// Waiting for an executor.
    pub queue: Duration,
    /// The backbone, for the whole batch.
    pub backbone: Duration,
    /// The LiFT head, for the whole batch.
    pub lift: Duration,
    /// The segmentation head, for the whole batch.
    pub segment: Duration,
    /// Around the graphs: putting the batch and its windows together and taking them apart, and handing over between threads.
    pub assemble: Duration,
    /// Region, points, normalisation, dtype and layout; masks.
    pub postprocess: Duration,
    /// From arrival to answer: the sum of all.
    pub total: Duration,
    /// Images that shared the run.
    pub batch_size: usize,
    /// How the answer came about.
    pub source: Source,
}

impl Timing {
    /// Name and time of each stage that the request went through, for telemetry.
    #[must_use]
    pub fn stages(&self) -> Vec<(&'static str, Duration)> {
        let before = vec![("receive", self.receive), ("cache", self.cache)];
        if self.source != Source::Run {
            return before;
        }
        let of_run = [
            ("decode", self.decode),
            ("resize", self.resize),
            ("queue", self.queue),
            ("backbone", self.backbone),
            ("lift", self.lift),
            ("segment", self.segment),
            ("assemble", self.assemble),
            ("postprocess", self.postprocess),
        ];
        [before, of_run.to_vec()].concat()
    }

    /// The graphs.
    #[must_use]
    pub fn infer(&self) -> Duration {
        self.backbone + self.lift + self.segment
    }

    /// With the time between submission and answer, of which queue and graphs are known.
    pub(super) fn with_run(self, elapsed: Duration) -> Self {
        Self { assemble: elapsed.saturating_sub(self.queue + self.infer()), ..self }
    }
}
