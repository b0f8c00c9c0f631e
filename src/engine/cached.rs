//! Answers by way of the cache, if there is one: looked up, waited for, or run for and kept. [`cache`](crate::cache) has the rules and their
//! reasons.
//!
//! # Design
//! A hit takes a place among the requests in flight for what it sends, though it holds no memory of its own: a client that reads slowly would
//! keep answers alive that have left the cache. Answers of a run share the place of the run. Who waits for the run of another takes one as
//! well, for the image that it may yet have to run itself. An error that is about the caller that began a run (its deadline, its limits)
//! says nothing to those who waited: they ask anew, and one of them leads. Any other error is everybody's.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::{
    cache::{Asked, Cache, CacheConfig, Outcome, Question, Seat, Terms},
    engine::{
        Admitted, Clock, Engine, ExtractRequest, Extracted, ImageSource, InferError, LoadedModel, SegmentRequest, Segmented,
        kept::{Keep, Kept},
        question::{Ask, question},
        timing::{Source, Timing},
    },
    telemetry::record::{self, Cached},
};

/// Images up to this size are hashed where the request is handled, and answers up to this size copied there, in bytes: about a quarter of a
/// millisecond, less than changing threads may take.
const INLINE_BYTES: usize = 512 << 10;
/// The same for comparing a checksum, which is several times as fast.
const INLINE_CHECK_BYTES: usize = 4 << 20;

/// The answers that an engine keeps.
#[derive(Debug)]
pub(super) struct AnswerCache {
    answers: Arc<Cache<Given, InferError>>,
    is_per_tenant: bool,
}

/// An answer as it is handed over.
#[derive(Clone, Debug)]
pub(super) struct Given {
    kept: Arc<Kept>,
    /// The place of the run that gave it; none for what comes from the cache.
    place: Option<Arc<Admitted>>,
}

/// A request whose answer can be kept.
pub(super) trait Cacheable: Ask + Clone + Send + Sync + 'static {
    /// Its answer.
    type Answer: Keep;

    /// Answers it by a run of the model.
    fn run(
        self,
        engine: &Engine,
        model: &Arc<LoadedModel>,
        clock: Clock,
    ) -> impl Future<Output = Result<Self::Answer, InferError>> + Send;
}

impl Cacheable for ExtractRequest {
    type Answer = Extracted;

    async fn run(self, engine: &Engine, model: &Arc<LoadedModel>, clock: Clock) -> Result<Extracted, InferError> {
        engine.run_extract(model, self, clock).await
    }
}

impl Cacheable for SegmentRequest {
    type Answer = Segmented;

    async fn run(self, engine: &Engine, model: &Arc<LoadedModel>, clock: Clock) -> Result<Segmented, InferError> {
        engine.run_segment(model, self, clock).await
    }
}

impl AnswerCache {
    /// A cache as configured, if one is.
    pub(super) fn new(config: &CacheConfig) -> Option<Self> {
        (config.max_bytes > 0).then(|| Self { answers: Cache::new(config.max_bytes), is_per_tenant: config.per_tenant })
    }

    fn record_size(&self) {
        let (n_bytes, n_answers) = self.answers.size();
        record::cache_size(n_bytes, n_answers);
    }
}

impl Engine {
    /// Answers a request of a model that was found.
    pub(super) async fn answer<R: Cacheable>(
        self: &Arc<Self>,
        model: &Arc<LoadedModel>,
        request: R,
        clock: Clock,
    ) -> Result<R::Answer, InferError> {
        let Some(cache) = &self.cache else { return request.run(self, model, clock).await };
        if clock.is_expired() {
            return Err(InferError::DeadlineExceeded { stage: "before it was looked up" });
        }
        let asked = Instant::now();
        let question = self.ask(cache, model, &request, clock).await?;
        let terms = terms(model, clock);
        let answered = |answer: &R::Answer, source: Source, timing: Timing, place: Option<Arc<Admitted>>| {
            model.statistics().cached(source, timing.cache);
            let how = match source {
                Source::Run => Cached::Miss,
                Source::Shared => Cached::Coalesced,
                Source::Cache => Cached::Hit,
            };
            record::cached(&model.manifest().name, how);
            answer.clone().with_timing(timing).with_place(place)
        };
        let receive = asked.duration_since(clock.arrived);
        let without_run = |source| {
            let (cache, total) = (asked.elapsed(), clock.arrived.elapsed());
            Timing { receive, cache, total, source, ..Timing::default() }
        };
        loop {
            let looked_up = asked.elapsed();
            let start = || run_and_keep(Arc::clone(self), Arc::clone(model), request.clone(), (question.clone(), clock));
            let seat = match cache.answers.ask(&question, terms, start) {
                Asked::Known(Given { kept, .. }) => match self.verified::<R::Answer>(&kept, model, clock).await? {
                    Some(answer) => {
                        let place = self.admit(model, clock, answer.n_bytes() as u64)?;
                        return Ok(answered(answer, Source::Cache, without_run(Source::Cache), Some(Arc::new(place))));
                    }
                    None => {
                        error!(?question, "an answer in the cache is not what was put there: the machine's memory fails");
                        cache.answers.remove(&question);
                        continue;
                    }
                },
                Asked::Running(seat) => seat,
            };
            let Given { kept, place } = match self.wait(&seat, model, (request.image(), clock)).await? {
                Ok(given) => given,
                Err(error) if error.is_of_caller() && !seat.leads() => continue,
                Err(error) => return Err(error.for_another()),
            };
            let missing = || InferError::internal("answering a request", "the cache gave an answer of another kind");
            let answer = kept.answer::<R::Answer>().ok_or_else(missing)?;
            if !seat.leads() {
                return Ok(answered(answer, Source::Shared, without_run(Source::Shared), place));
            }
            let (run, total) = (kept.timing, clock.arrived.elapsed());
            let cache = looked_up + total.saturating_sub(run.total);
            let receive = run.receive.saturating_sub(looked_up);
            return Ok(answered(answer, Source::Run, Timing { receive, cache, total, ..run }, place));
        }
    }

    /// Memory and number of the answers that are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        self.cache.as_ref().map(|cache| cache.answers.size()).unwrap_or_default()
    }

    /// Forgets the answers of models that answer no more.
    pub(super) fn forget_answers(&self) {
        if let Some(cache) = &self.cache {
            let n_gone = cache.answers.retain(|given| self.serves(given.kept.model()));
            record::cache_evicted("model", n_gone);
            cache.record_size();
        }
    }

    async fn ask<R: Cacheable>(
        &self,
        cache: &AnswerCache,
        model: &Arc<LoadedModel>,
        request: &R,
        clock: Clock,
    ) -> Result<Question, InferError> {
        let tenant = cache.is_per_tenant.then_some(clock.caller.tenant);
        let is_small = request.image().n_bytes() <= INLINE_BYTES as u64;
        if is_small {
            return Ok(question(request, model, tenant));
        }
        let (request, model) = (request.clone(), Arc::clone(model));
        self.cpu().run("while hashing the image", clock.deadline, move || question(&request, &model, tenant)).await
    }

    /// The answer that was kept, or nothing when it is not what was put there.
    async fn verified<'a, T: Keep>(
        &self,
        kept: &'a Arc<Kept>,
        model: &Arc<LoadedModel>,
        clock: Clock,
    ) -> Result<Option<&'a T>, InferError> {
        let is_small = kept.answer::<T>().is_some_and(|answer| answer.n_bytes() <= INLINE_CHECK_BYTES);
        let is_intact = if is_small {
            kept.is_intact::<T>(model.digest())
        } else {
            let (kept, model) = (Arc::clone(kept), Arc::clone(model));
            let check = move || kept.is_intact::<T>(model.digest());
            self.cpu().run("while checking the answer", clock.deadline, check).await?
        };
        Ok(kept.answer().filter(|_answer| is_intact))
    }

    /// Waits for a run: to the end for the own one, which knows its deadline, or up to the deadline for that of another. The outer error is
    /// about the waiting, the inner one that of the run.
    async fn wait(
        &self,
        seat: &Seat<Given, InferError>,
        model: &LoadedModel,
        (image, clock): (&ImageSource, Clock),
    ) -> Result<Outcome<Given, InferError>, InferError> {
        if seat.leads() {
            return Ok(seat.landed().await);
        }
        let _place = self.admit(model, clock, image.n_bytes())?;
        let Some(deadline) = clock.deadline else { return Ok(seat.landed().await) };
        let too_late = |_elapsed| InferError::DeadlineExceeded { stage: "while waiting for the run of an equal request" };
        timeout_at(deadline, seat.landed()).await.map_err(too_late)
    }
}

/// Whose a request is, and when it is due as the batcher sees it.
fn terms(model: &LoadedModel, clock: Clock) -> Terms {
    let horizon = Instant::now() + Duration::from_millis(model.batch_config().horizon_ms);
    let due = clock.deadline.map_or(horizon, |deadline| deadline.min(horizon));
    Terms { tenant: clock.caller.tenant, priority: clock.caller.priority, due }
}

/// Runs for a question and keeps the answer, unless it is too large or its model has gone meanwhile.
async fn run_and_keep<R: Cacheable>(
    engine: Arc<Engine>,
    model: Arc<LoadedModel>,
    request: R,
    (question, clock): (Question, Clock),
) -> Result<Given, InferError> {
    let mut answer = request.run(&engine, &model, clock).await?;
    let place = answer.take_place();
    let n_bytes = Kept::n_bytes(&answer);
    let Some(cache) = engine.cache.as_ref().filter(|cache| cache.answers.takes(&question, n_bytes)) else {
        return Ok(Given { kept: Arc::new(Kept::passing(answer)), place });
    };
    let kept = if n_bytes <= INLINE_BYTES {
        Kept::copied(&answer)
    } else {
        // Without a deadline: who began the run may be gone, and others wait.
        engine.cpu().run("while keeping the answer", None, move || Kept::copied(&answer)).await?
    };
    let kept = Arc::new(kept);
    let from_cache = Given { kept: Arc::clone(&kept), place: None };
    let n_evicted = cache.answers.insert(&question, from_cache, n_bytes, || engine.serves(&model));
    record::cache_evicted("space", n_evicted);
    cache.record_size();
    Ok(Given { kept, place })
}
