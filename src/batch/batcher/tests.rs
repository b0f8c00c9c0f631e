//! The rules of time, with a paused clock. Executors are async tasks that "run" by sleeping, so every duration is exact.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use tokio::{
    task::JoinHandle,
    time::{advance, sleep},
};
use tracing::Span;

use super::*;
use crate::batch::{Caller, Limit, RunError, Stop};

/// Time that every simulated run takes.
const RUN: Duration = Duration::from_millis(10);
/// An input that fails whatever batch it is in.
const POISON: u32 = 666;
/// An input that panics.
const BOMB: u32 = 667;

/// Key and inputs of a run.
type Ran = (char, Vec<u32>);

/// Doubles its inputs; records what it ran.
#[derive(Clone, Default)]
struct Doubler {
    runs: Arc<Mutex<Vec<Ran>>>,
}

impl Runner for Doubler {
    type Key = char;
    type Input = u32;
    type Output = u32;

    fn run(&mut self, key: &char, inputs: &[u32], _stop: &Stop) -> Result<Vec<u32>, RunError> {
        self.runs.lock().unwrap().push((*key, inputs.to_vec()));
        assert!(!inputs.contains(&BOMB), "boom");
        if inputs.contains(&POISON) {
            return Err(RunError::new("poisoned"));
        }
        Ok(inputs.iter().map(|input| input * 2).collect())
    }
}

#[derive(Default)]
struct Counts {
    refused: AtomicUsize,
    expired: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Observer for Counts {
    fn refused(&self, _: &BatchError) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
    fn expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }
    fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    batcher: Batcher<Doubler>,
    doubler: Doubler,
    counts: Arc<Counts>,
    start: Instant,
}

type Answered = JoinHandle<Result<Completed<u32>, BatchError>>;

impl Bench {
    /// One simulated worker.
    fn new(config: BatchConfig) -> Self {
        let (doubler, counts) = (Doubler::default(), Arc::new(Counts::default()));
        let (batcher, scheduler, ends) = wire::<Doubler>(config, 1, Arc::new(|_| 1.0), Arc::clone(&counts) as Arc<dyn Observer>);
        tokio::spawn(scheduler.run());
        for mut end in ends {
            let mut runner = doubler.clone();
            tokio::spawn(async move {
                while end.idle.send(end.worker_idx).await.is_ok() {
                    let Some(batch) = end.batches.recv().await else { return };
                    sleep(RUN).await;
                    let well = worker::execute(&mut runner, batch);
                    end.shared.finish(end.worker_idx, well);
                }
            });
        }
        Self { batcher, doubler, counts, start: Instant::now() }
    }

    fn submit(&self, key: char, input: u32, deadline_ms: Option<u64>) -> Answered {
        let batcher = self.batcher.clone();
        let deadline = deadline_ms.map(|ms| self.start + Duration::from_millis(ms));
        tokio::spawn(async move { batcher.submit(Submit { deadline, ..job(key, input, 10) }).await })
    }

    fn submit_as(&self, tenant: &str, key: char, input: u32) -> Answered {
        let batcher = self.batcher.clone();
        let caller = Caller { tenant: tenant.parse().unwrap(), ..Caller::default() };
        tokio::spawn(async move { batcher.submit(Submit { caller, ..job(key, input, 10) }).await })
    }

    fn runs(&self) -> Vec<Ran> {
        self.doubler.runs.lock().unwrap().clone()
    }
}

/// A job of nobody in particular.
fn job(key: char, input: u32, n_bytes: usize) -> Submit<char, u32> {
    Submit { key, input, n_bytes, caller: Caller::default(), deadline: None, span: Span::none() }
}

/// Lets every task do what it can without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn config() -> BatchConfig {
    BatchConfig { max_batch_size: 4, max_tenant_percent: 100, ..BatchConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn lone_job_runs_at_once() {
    let bench = Bench::new(config());
    let done = bench.submit('a', 1, None).await.unwrap().unwrap();
    assert_eq!((done.output, done.batch_size, done.queue_time), (2, 1, Duration::ZERO));
    assert_eq!(bench.start.elapsed(), RUN);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_together_run_together_by_key() {
    let bench = Bench::new(config());
    let first = bench.submit('a', 0, None);
    settle().await;
    let rest: Vec<_> =
        [('a', 1), ('b', 2), ('a', 3), ('b', 4), ('a', 5)].map(|(key, input)| bench.submit(key, input, None)).into();
    first.await.unwrap().unwrap();
    for (answer, expected) in rest.into_iter().zip([2, 4, 6, 8, 10]) {
        assert_eq!(answer.await.unwrap().unwrap().output, expected);
    }
    assert_eq!(bench.runs(), [('a', vec![0]), ('a', vec![1, 3, 5]), ('b', vec![2, 4])]);
}

#[tokio::test(start_paused = true)]
async fn delay_gathers_companions_but_a_full_batch_leaves_at_once() {
    let bench = Bench::new(BatchConfig { max_queue_delay_ms: 5, ..config() });
    // A batch of four takes as long as one job, so four are worth waiting for.
    [1, 4].iter().for_each(|n| bench.batcher.seed(&'a', *n, RUN));
    let first = bench.submit('a', 1, None);
    sleep(Duration::from_millis(3)).await;
    let second = bench.submit('a', 2, None);
    assert_eq!(first.await.unwrap().unwrap().queue_time, Duration::from_millis(5));
    assert_eq!(second.await.unwrap().unwrap().batch_size, 2);

    let full: Vec<_> = (0..4).map(|input| bench.submit('a', input, None)).collect();
    for answer in full {
        assert_eq!(answer.await.unwrap().unwrap().queue_time, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn earliest_deadline_goes_first() {
    let bench = Bench::new(config());
    let all = [
        bench.submit('z', 0, None),
        bench.submit('a', 1, None),
        bench.submit('b', 2, Some(500)),
        bench.submit('c', 3, Some(100)),
    ];
    for answer in all {
        answer.await.unwrap().unwrap();
    }
    let order: Vec<_> = bench.runs().into_iter().map(|(key, _)| key).collect();
    assert_eq!(order, ['c', 'b', 'z', 'a']);
}

#[tokio::test(start_paused = true)]
async fn rare_bucket_is_not_starved_by_a_busy_one() {
    let bench = Bench::new(BatchConfig { horizon_ms: 100, ..config() });
    let mut busy = Vec::new();
    let rare_answer = bench.submit('r', 1, None);
    let rare = tokio::spawn(async move { (rare_answer.await.unwrap().unwrap(), Instant::now()) });
    // Three times what one worker can run, all with deadlines that are earlier than the rare job's at first.
    for tick in 0..60 {
        let deadline = bench.start.elapsed() + Duration::from_millis(60);
        busy.extend((0..12).map(|_| bench.submit('b', tick, Some(u64::try_from(deadline.as_millis()).unwrap()))));
        sleep(RUN).await;
    }
    let (_, answered) = rare.await.unwrap();
    assert!(answered - bench.start <= Duration::from_millis(130), "waited {:?}", answered - bench.start);
    busy.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn deadline_is_answered_on_time_and_the_job_never_runs() {
    let bench = Bench::new(config());
    let blocker = bench.submit('a', 0, None);
    settle().await;
    let late = bench.submit('a', 1, Some(4));
    assert!(matches!(late.await.unwrap(), Err(BatchError::DeadlineExceeded)));
    assert!(bench.start.elapsed() <= Duration::from_millis(6), "answered after {:?}", bench.start.elapsed());
    settle().await;
    assert_eq!(bench.batcher.load(), Load { n_jobs: 1, n_bytes: 10 }, "its permit is released although the worker is busy");

    blocker.await.unwrap().unwrap();
    settle().await;
    assert_eq!(bench.runs(), [('a', vec![0])]);
    assert_eq!(bench.counts.expired.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelled_job_leaves_the_queue_at_once() {
    let bench = Bench::new(config());
    let blocker = bench.submit('a', 0, None);
    settle().await;
    let cancelled = bench.submit('a', 1, None);
    settle().await;
    assert_eq!(bench.batcher.load().n_jobs, 2);
    cancelled.abort();
    settle().await;
    assert_eq!(bench.batcher.load().n_jobs, 1);
    assert_eq!(bench.counts.cancelled.load(Ordering::Relaxed), 1);
    blocker.await.unwrap().unwrap();
    advance(RUN).await;
    assert_eq!(bench.runs(), [('a', vec![0])]);
}

#[tokio::test(start_paused = true)]
async fn full_queue_refuses_and_names_the_limit() {
    let bench = Bench::new(BatchConfig { max_queue_count: 3, max_queue_bytes: 25, ..config() });
    let _inside = [bench.submit('a', 0, None), bench.submit('a', 1, None)];
    settle().await;
    let refused = bench.submit('a', 2, None).await.unwrap();
    assert!(matches!(refused, Err(BatchError::Full { limit: Limit::Bytes, max: 25, .. })));

    let small = job('a', 3, 1);
    let _third = tokio::spawn({
        let batcher = bench.batcher.clone();
        async move { batcher.submit(small).await }
    });
    settle().await;
    let refused = bench.submit('a', 4, None).await.unwrap();
    assert!(matches!(refused, Err(BatchError::Full { limit: Limit::Count, max: 3, .. })));
    assert!(matches!(bench.batcher.submit(job('a', 5, 26)).await, Err(BatchError::TooLarge { n_bytes: 26, max: 25, .. })));
    assert_eq!(bench.counts.refused.load(Ordering::Relaxed), 3);
    assert_eq!(bench.start.elapsed(), Duration::ZERO, "refusals take no time");
}

#[tokio::test(start_paused = true)]
async fn bad_job_fails_alone() {
    for bad in [POISON, BOMB] {
        let bench = Bench::new(config());
        let answers = [1, bad, 3].map(|input| bench.submit('a', input, None));
        let [first, second, third] = answers;
        assert_eq!(first.await.unwrap().unwrap().output, 2);
        let failed = second.await.unwrap();
        match bad {
            POISON => assert!(matches!(failed, Err(BatchError::Failed(RunError::Failed(_))))),
            _ => assert!(matches!(failed, Err(BatchError::Failed(RunError::Panicked { message })) if message == "boom")),
        }
        assert_eq!(third.await.unwrap().unwrap().output, 6);
        assert_eq!(bench.submit('a', 4, None).await.unwrap().unwrap().output, 8, "the worker lives");
    }
}

#[tokio::test(start_paused = true)]
async fn drain_finishes_what_is_inside_and_refuses_the_rest() {
    let bench = Bench::new(BatchConfig { max_queue_delay_ms: 10_000, ..config() });
    let inside = [('a', 0), ('b', 1)].map(|(key, input)| bench.submit(key, input, None));
    settle().await;
    assert!(bench.batcher.drain(3 * RUN).await);
    for answer in inside {
        answer.await.unwrap().unwrap();
    }
    assert!(matches!(bench.submit('a', 2, None).await.unwrap(), Err(BatchError::Closed)));
    assert_eq!(bench.start.elapsed(), 2 * RUN);
}

#[tokio::test(start_paused = true)]
async fn drain_closes_what_its_budget_does_not_cover() {
    let bench = Bench::new(config());
    let inside = ['a', 'b', 'c'].map(|key| bench.submit(key, 1, None));
    settle().await;
    assert!(!bench.batcher.drain(RUN + RUN / 2).await);
    let [first, running, waiting] = inside;
    first.await.unwrap().unwrap();
    assert!(matches!(running.await.unwrap(), Err(BatchError::Closed)));
    assert!(matches!(waiting.await.unwrap(), Err(BatchError::Closed)));
    assert_eq!(bench.start.elapsed(), RUN + RUN / 2);
}

#[tokio::test]
async fn threads_run_jobs_and_survive_a_panic() {
    let runners = vec![Doubler::default(), Doubler::default()];
    let batcher = Batcher::start(config(), runners, |_| 1.0, Arc::new(())).unwrap();
    let submit = |input| batcher.submit(job('a', input, 1));
    for input in [1, BOMB, BOMB, BOMB, 2] {
        let answer = submit(input).await;
        assert_eq!(answer.ok().map(|done| done.output), (input != BOMB).then_some(input * 2));
    }
    assert!(batcher.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn values_out_of_range_and_a_lack_of_runners_are_refused() {
    let none = Batcher::<Doubler>::start(config(), Vec::new(), |_| 1.0, Arc::new(()));
    assert!(matches!(none, Err(StartError::NoRunner)));
    let start = |config| Batcher::start(config, vec![Doubler::default()], |_| 1.0, Arc::new(()));
    let zero = start(BatchConfig { max_batch_size: 0, ..config() });
    assert!(matches!(zero, Err(StartError::ZeroLimit { field: "max_batch_size" })));
    let percent = start(BatchConfig { max_tenant_percent: 101, ..config() });
    assert!(matches!(percent, Err(StartError::OutOfRange { field: "max_tenant_percent", value: 101, min: 1, max: 100 })));
    for (name, weight) in [("a b", 1), ("a", 0), ("a", 1001)] {
        let weights = start(BatchConfig { tenant_weights: [(name.to_owned(), weight)].into(), ..config() });
        assert!(matches!(weights, Err(StartError::Weight { .. })), "{name} {weight}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_be_late_is_refused_at_once_and_told_when_to_retry() {
    let bench = Bench::new(BatchConfig { max_batch_size: 1, ..config() });
    bench.submit('a', 0, None).await.unwrap().unwrap();
    let waiting: Vec<_> = (1..=5).map(|input| bench.submit('a', input, Some(10 + 55))).collect();
    settle().await;
    let begun = Instant::now();
    // Five runs of 10 ms stand before it.
    let refused = bench.submit('a', 6, Some(10 + 58)).await.unwrap();
    let Err(BatchError::TooLate { predicted, retry_after }) = refused else { panic!("{refused:?}") };
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!((predicted.as_millis(), retry_after.as_millis()), (60, 2));
    bench.submit('a', 7, Some(10 + 61)).await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_tries_what_the_forecast_gives_no_chance() {
    let bench = Bench::new(config());
    bench.submit('a', 0, None).await.unwrap().unwrap();
    let hopeless = bench.submit('a', 1, Some(10 + 5));
    assert!(matches!(hopeless.await.unwrap(), Err(BatchError::DeadlineExceeded)));
    sleep(RUN).await;
    assert_eq!(bench.runs(), [('a', vec![0]), ('a', vec![1])], "the run tells whether the forecast was right");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_tenant_delays_another_by_one_batch() {
    let bench = Bench::new(BatchConfig { max_queue_count: 1000, ..config() });
    ['a', 'b'].iter().for_each(|key| bench.batcher.seed(key, 4, RUN));
    let flood: Vec<_> = (0..200).map(|input| bench.submit_as("flood", 'a', input)).collect();
    settle().await;
    // Longer than what the flood may be ahead.
    sleep(10 * RUN + RUN / 2).await;
    let victim = bench.submit_as("victim", 'b', 7);
    let done = victim.await.unwrap().unwrap();
    assert!(done.queue_time <= RUN, "waited {:?}", done.queue_time);
    flood.iter().for_each(JoinHandle::abort);
}

/// Runs until it is stopped.
struct Endless;

impl Runner for Endless {
    type Key = char;
    type Input = u32;
    type Output = u32;

    fn run(&mut self, _key: &char, _inputs: &[u32], stop: &Stop) -> Result<Vec<u32>, RunError> {
        let (end, ended) = std::sync::mpsc::channel();
        stop.during(move || end.send(()).unwrap(), || ended.recv()).map_err(RunError::new)?;
        Err(RunError::new("stopped"))
    }
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_stopped() {
    let batcher = Batcher::start(config(), vec![Endless], |_| 1.0, Arc::new(())).unwrap();
    let lone = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.submit(job('a', 1, 1)).await }
    });
    while batcher.load().n_jobs == 0 {
        tokio::task::yield_now().await;
    }
    lone.abort();
    assert!(batcher.drain(Duration::from_secs(5)).await, "the run ends although nothing but the stop ends it");
}

#[tokio::test(start_paused = true)]
async fn without_workers_jobs_are_refused_instead_of_waiting_for_ever() {
    let (batcher, scheduler, ends) = wire::<Doubler>(config(), 1, Arc::new(|_| 1.0), Arc::new(()));
    tokio::spawn(scheduler.run());
    let waiting = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.submit(job('a', 1, 10)).await }
    });
    settle().await;
    assert_eq!(batcher.load().n_jobs, 1);
    drop(ends);
    assert!(matches!(waiting.await.unwrap(), Err(BatchError::Closed)));
    let later = timeout(Duration::from_secs(3600), batcher.submit(job('a', 2, 10))).await;
    assert!(matches!(later, Ok(Err(BatchError::Closed))), "{later:?}");
    assert_eq!(batcher.load(), Load::default());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_vanishes_with_its_batch_tells_the_callers() {
    let (batcher, scheduler, mut ends) = wire::<Doubler>(config(), 1, Arc::new(|_| 1.0), Arc::new(()));
    tokio::spawn(scheduler.run());
    let mut end = ends.pop().unwrap();
    end.idle.send(end.worker_idx).await.unwrap();
    let [running, waiting] = ['a', 'b'].map(|key| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(job(key, 1, 10)).await })
    });
    let batch = end.batches.recv().await.unwrap();
    settle().await;
    drop((batch, end));
    assert!(matches!(running.await.unwrap(), Err(BatchError::Lost)));
    assert!(matches!(waiting.await.unwrap(), Err(BatchError::Closed)));
}

/// Panics where nothing is expected to: when it hears of a run.
#[derive(Default)]
struct Shaky(AtomicUsize);

impl Observer for Shaky {
    fn ran(&self, _: &dyn Debug, _: usize, _: Option<Duration>, _: Duration, _: Duration) {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) % 2 == 1, "shaky");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_job_is_answered_although_runs_fail_and_panic() {
    for observer in [Arc::new(()) as Arc<dyn Observer>, Arc::new(Shaky::default())] {
        let runners = vec![Doubler::default(), Doubler::default()];
        let batcher = Batcher::start(BatchConfig { max_queue_count: 1000, ..config() }, runners, |_| 1.0, observer).unwrap();
        let callers: Vec<_> = (0..300)
            .map(|n| {
                let input = [n, POISON, n, n, BOMB, n, n][n as usize % 7];
                let batcher = batcher.clone();
                tokio::spawn(async move { (input, batcher.submit(job('a', input, 10)).await) })
            })
            .collect();
        for caller in callers {
            let (input, outcome) = timeout(Duration::from_secs(60), caller).await.expect("nobody waits for ever").unwrap();
            match outcome {
                Ok(done) => assert_eq!(done.output, 2 * input),
                Err(BatchError::Failed(_)) => assert!(input == POISON || input == BOMB, "{input} failed for another"),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(batcher.drain(Duration::from_secs(5)).await, "no place is lost");
        assert_eq!(batcher.load(), Load::default());
    }
}
