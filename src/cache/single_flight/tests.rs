//! Who runs, who waits, and who is left alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::*;
use crate::cache::Fields;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Failure(&'static str);

impl From<JoinError> for Failure {
    fn from(_broken: JoinError) -> Self {
        Self("broken")
    }
}

type Numbers = Cache<u32, Failure>;

/// Counts runs that began and that ended by themselves.
#[derive(Clone, Debug, Default)]
struct Runs {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Runs {
    /// A run of a second.
    async fn run(self, outcome: Result<u32, &'static str>) -> Result<u32, Failure> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        sleep(SECOND).await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(Failure)
    }

    fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

fn question(name: &str) -> Question {
    Question::new(Fields::default(), name.as_bytes())
}

fn terms() -> Terms {
    Terms { tenant: Tenant::default(), priority: Priority::Normal, due: Instant::now() + 5 * SECOND }
}

fn seat(cache: &Arc<Numbers>, name: &str, terms: Terms, runs: &Runs, outcome: Result<u32, &'static str>) -> Seat<u32, Failure> {
    match cache.ask(&question(name), terms, || runs.clone().run(outcome)) {
        Asked::Running(seat) => seat,
        Asked::Known(value) => panic!("{value} was known"),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_equal_questions_run_once_and_a_different_one_by_itself() {
    let (cache, runs) = (Numbers::new(1 << 20), Runs::default());
    let seats: Vec<_> = (0..10).map(|_| seat(&cache, "a", terms(), &runs, Ok(7))).collect();
    assert_eq!(seats.iter().map(Seat::leads).filter(|leads| *leads).count(), 1);
    let other = seat(&cache, "b", terms(), &runs, Ok(8));
    let values = join_all(seats.iter().map(Seat::landed)).await;
    assert!(values.into_iter().all(|value| value.unwrap() == 7));
    assert_eq!((other.landed().await.unwrap(), runs.counts()), (8, (2, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_without_who_began_it_and_ends_with_the_last_who_waits() {
    let (cache, runs) = (Numbers::new(1 << 20), Runs::default());
    let leader = seat(&cache, "a", terms(), &runs, Ok(7));
    let followers = [seat(&cache, "a", terms(), &runs, Ok(0)), seat(&cache, "a", terms(), &runs, Ok(0))];
    sleep(SECOND / 2).await;
    drop(leader);
    let [first, second] = followers;
    drop(first);
    assert_eq!((second.landed().await.unwrap(), runs.counts()), (7, (1, 1)));

    let seats = [seat(&cache, "b", terms(), &runs, Ok(7)), seat(&cache, "b", terms(), &runs, Ok(7))];
    sleep(SECOND / 2).await;
    drop(seats);
    sleep(2 * SECOND).await;
    assert_eq!(runs.counts(), (2, 1), "nobody waited any more");
    assert_eq!(cache.state().flights.len(), 1, "the seat of \"a\" is still taken");
    drop(second);
    assert!(cache.state().flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_may_leave_at_a_time_of_their_own() {
    let (cache, runs) = (Numbers::new(1 << 20), Runs::default());
    let (leader, follower) = (seat(&cache, "a", terms(), &runs, Ok(7)), seat(&cache, "a", terms(), &runs, Ok(7)));
    assert!(timeout(SECOND / 4, follower.landed()).await.is_err());
    drop(follower);
    assert_eq!(leader.landed().await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_error_and_a_panic_reach_everybody_who_waits_and_nobody_later() {
    let (cache, runs) = (Numbers::new(1 << 20), Runs::default());
    let seats = [seat(&cache, "a", terms(), &runs, Err("bad")), seat(&cache, "a", terms(), &runs, Ok(7))];
    let errors = join_all(seats.iter().map(Seat::landed)).await;
    assert!(errors.iter().all(|error| error.as_ref().unwrap_err().0 == "bad"));
    // Both still sit: the run has landed all the same.
    let later = seat(&cache, "a", terms(), &runs, Ok(7));
    assert_eq!((later.leads(), later.landed().await.unwrap()), (true, 7));
    drop(seats);

    let begun = || async { panic!("a run that panics") };
    let Asked::Running(seat) = cache.ask(&question("c"), terms(), begun) else { panic!("nothing is known") };
    assert_eq!(seat.landed().await.unwrap_err().0, "broken");
}

#[tokio::test(start_paused = true)]
async fn only_those_wait_for_a_run_who_lose_nothing_by_it() {
    let cache = Numbers::new(1 << 20);
    let (tenant, other) = (Tenant::default(), "other".parse().unwrap());
    let left = 5 * SECOND;
    let cases = [
        (tenant, Priority::Normal, left, true),
        (tenant, Priority::Bulk, left, true),
        (tenant, Priority::Interactive, left, false),
        (other, Priority::Normal, left, false),
        // Moments earlier is no matter, long before is.
        (tenant, Priority::Normal, left - Duration::from_millis(10), true),
        (tenant, Priority::Normal, 3600 * SECOND, true),
        (tenant, Priority::Normal, SECOND * 3 / 2, false),
    ];
    for (idx, (tenant, priority, left, joins)) in cases.into_iter().enumerate() {
        let (name, runs) = (idx.to_string(), Runs::default());
        let (normal, other) = (terms(), Terms { tenant, priority, due: Instant::now() + left });
        let first = seat(&cache, &name, normal, &runs, Ok(1));
        let second = seat(&cache, &name, other, &runs, Ok(1));
        assert_eq!(!second.leads(), joins, "case {idx}");
        assert_eq!((first.landed().await.unwrap(), second.landed().await.unwrap()), (1, 1));
        assert_eq!(runs.counts().0, if joins { 1 } else { 2 }, "case {idx}");
    }
    assert!(cache.state().flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_kept_value_is_given_without_a_run_until_it_is_forgotten() {
    let (cache, runs) = (Numbers::new(1 << 20), Runs::default());
    assert!(cache.takes(&question("a"), 1000) && !cache.takes(&question("a"), 1 << 18));
    assert_eq!(cache.insert(&question("a"), 7, 1000, || true), 0);
    assert_eq!(cache.size(), (1000 + Numbers::ENTRY_BYTES, 1));
    assert!(matches!(cache.ask(&question("a"), terms(), || runs.clone().run(Ok(0))), Asked::Known(7)));
    assert_eq!(cache.retain(|value| *value != 7), 1);
    assert_eq!(seat(&cache, "a", terms(), &runs, Ok(8)).landed().await.unwrap(), 8);
    cache.insert(&question("a"), 8, 1000, || false);
    assert_eq!(cache.size(), (0, 0), "what may not stay is not kept");
}

#[tokio::test(start_paused = true)]
async fn many_different_questions_stay_within_the_bytes() {
    let cache = Numbers::new(100_000);
    let n_evicted: usize = (0..1000u32).map(|idx| cache.insert(&question(&idx.to_string()), idx, 2000, || true)).sum();
    let (n_bytes, n_values) = cache.size();
    assert!(n_bytes <= 100_000 && n_values == 1000 - n_evicted && n_values == 100_000 / (2000 + Numbers::ENTRY_BYTES));
}
