//! Properties of the schedule under any order of arrivals, departures, runs and failures, in time that the tests tell.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::batch::caller::Priority;

/// True cost of every key: 10 ms an image of key 0, 20 ms of key 1 and so on, and 5 ms a run.
fn run_time(key: u8, n: usize) -> Duration {
    ms(10 * (u64::from(key) + 1) * n as u64 + 5)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn caller(tenant: u8, priority: Priority) -> Caller {
    Caller { tenant: format!("t{tenant}").parse().unwrap(), priority }
}

/// A job as the tests see it.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    id: u64,
    key: u8,
    caller: Caller,
    arrived: Instant,
    deadline: Option<Instant>,
}

/// A schedule, one worker that takes the true time, and a record of what became of every job.
struct Server {
    schedule: Schedule<u8, Ticket>,
    now: Instant,
    places: BTreeMap<u64, Place>,
    waiting: BTreeMap<u64, Ticket>,
    /// End of the run of now.
    busy_until: Option<Instant>,
    /// Launch time, members.
    launched: Vec<(Instant, Vec<Ticket>)>,
    n_offered: u64,
}

fn config() -> BatchConfig {
    BatchConfig { max_batch_size: 4, max_queue_count: 10_000, horizon_ms: 1000, ..BatchConfig::default() }
}

impl Server {
    fn new(config: BatchConfig) -> Self {
        let (mut schedule, now) = (Schedule::new(config, 1), Instant::now());
        for (key, n) in (0..4).flat_map(|key| [(key, 1), (key, 2), (key, 4)]) {
            schedule.seed(now, &key, 1.0, n, run_time(key, n));
        }
        let (places, waiting) = Default::default();
        Self { schedule, now, places, waiting, busy_until: None, launched: Vec::new(), n_offered: 0 }
    }

    fn offer(&mut self, key: u8, caller: Caller, deadline: Option<Duration>) -> Result<u64, BatchError> {
        let (id, now) = (self.n_offered, self.now);
        self.n_offered += 1;
        let deadline = deadline.map(|after| now + after);
        let ticket = Ticket { id, key, caller, arrived: now, deadline };
        let place = self.schedule.offer(now, Offer { key, size: 1.0, caller, deadline, n_bytes: 1 }, ticket)?;
        self.places.insert(id, place);
        self.waiting.insert(id, ticket);
        Ok(id)
    }

    /// Callers leave at their deadlines, the worker takes what it is given.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.launch();
        while let Some(next) = self.busy_until.filter(|next| *next <= end) {
            self.now = next;
            self.busy_until = None;
            self.schedule.finish(next, 0, true).unwrap();
            self.launch();
        }
        self.now = end;
    }

    fn launch(&mut self) {
        let now = self.now;
        let expired: Vec<u64> =
            self.waiting.values().filter(|ticket| ticket.deadline.is_some_and(|at| at <= now)).map(|ticket| ticket.id).collect();
        expired.into_iter().for_each(|id| self.leave(id));
        if self.busy_until.is_some() {
            return;
        }
        let Some(launch) = self.schedule.pick(now, 0) else {
            assert!(self.waiting.is_empty(), "a worker idles while {:?} wait", self.waiting);
            return;
        };
        for ticket in &launch.jobs {
            assert_eq!(ticket.key, launch.key, "keys are mixed");
            assert!(self.waiting.remove(&ticket.id).is_some(), "job {} left twice", ticket.id);
        }
        self.busy_until = Some(now + run_time(launch.key, launch.jobs.len()));
        self.launched.push((now, launch.jobs));
    }

    fn leave(&mut self, id: u64) {
        match self.schedule.leave(self.places[&id]) {
            Left::Waiting(ticket) => assert_eq!(self.waiting.remove(&ticket.id).map(|ticket| ticket.id), Some(id)),
            other => assert!(!self.waiting.contains_key(&id), "{id} is lost: {other:?}"),
        }
    }

    /// Worker time that the jobs of each caller had, in seconds.
    fn served(&self) -> BTreeMap<(String, usize), f64> {
        let mut served = BTreeMap::new();
        for (_, members) in &self.launched {
            for Ticket { key, caller, .. } in members {
                let time = run_time(*key, members.len()).as_secs_f64() / members.len() as f64;
                *served.entry((caller.tenant.as_str().to_owned(), caller.priority.idx())).or_default() += time;
            }
        }
        served
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer { key: u8, tenant: u8, priority: usize, deadline_ms: Option<u64> },
    Leave { modulus: u64 },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let offer = (0..4_u8, 0..3_u8, 0..3_usize, proptest::option::of(0..400_u64));
    prop_oneof![
        6 => offer.prop_map(|(key, tenant, priority, deadline_ms)| Step::Offer { key, tenant, priority, deadline_ms }),
        1 => (2..9_u64).prop_map(|modulus| Step::Leave { modulus }),
        2 => (0..60_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    #[test]
    fn every_job_leaves_once_and_none_runs_too_late_for_its_companions(
        steps in proptest::collection::vec(step(), 0..150),
        max_batch_size in 1..6_usize,
        quantum in 0..200_u64,
    ) {
        let mut server = Server::new(BatchConfig { max_batch_size, fair_quantum_ms: quantum, ..config() });
        for step in steps {
            match step {
                Step::Offer { key, tenant, priority, deadline_ms } => {
                    let _refused = server.offer(key, caller(tenant, Priority::ALL[priority]), deadline_ms.map(ms));
                }
                Step::Leave { modulus } => {
                    let leaving: Vec<u64> = server.waiting.keys().copied().filter(|id| id % modulus == 0).collect();
                    leaving.into_iter().for_each(|id| server.leave(id));
                }
                Step::Wait { ms: by } => server.advance(ms(by)),
            }
            let n_running = server.busy_until.map_or(0, |_| server.launched.last().unwrap().1.len());
            prop_assert_eq!(server.schedule.load().n_jobs, server.waiting.len() + n_running);
        }
        server.advance(Duration::from_secs(1000));
        prop_assert!(server.waiting.is_empty(), "jobs were lost");
        prop_assert_eq!(server.schedule.load(), Load::default());
        let ids: Vec<u64> = server.launched.iter().flat_map(|(_, members)| members).map(|ticket| ticket.id).collect();
        prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a job ran twice");
        for (launched, members) in &server.launched {
            prop_assert!(members.len() <= max_batch_size);
            for Ticket { key, deadline, .. } in members {
                let Some(deadline) = *deadline else { continue };
                prop_assert!(deadline > *launched, "expired work was launched");
                let (alone, together) = (*launched + run_time(*key, 1), *launched + run_time(*key, members.len()));
                // The line is fitted with a weak wish for a ratio, and deviations are assumed to be a twentieth at least.
                prop_assert!(deadline < alone + ms(1) || deadline + ms(1) >= together, "late because of its companions");
            }
        }
    }

    #[test]
    fn in_a_bucket_the_earliest_due_go_first(deadlines in proptest::collection::vec(proptest::option::of(2000..9000_u64), 1..40)) {
        let mut server = Server::new(BatchConfig { horizon_ms: 6000, ..config() });
        for deadline in &deadlines {
            server.offer(0, Caller::default(), deadline.map(ms)).unwrap();
        }
        server.advance(Duration::from_secs(60));
        let due = |ticket: &Ticket| {
            let horizon = ticket.arrived + ms(6000);
            (ticket.deadline.map_or(horizon, |deadline| deadline.min(horizon)), ticket.id)
        };
        let order: Vec<_> = server.launched.iter().flat_map(|(_, members)| members).map(due).collect();
        prop_assert_eq!(order.len(), deadlines.len());
        prop_assert!(order.is_sorted(), "{:?}", order);
    }

    #[test]
    fn tenants_that_flood_get_their_weights(weights in (1..8_u32, 1..8_u32), keys in (0..4_u8, 0..4_u8), depth in (1..12_usize, 1..12_usize)) {
        let names = ["t0", "t1"].map(str::to_owned);
        let tenant_weights = names.into_iter().zip([weights.0, weights.1]).collect();
        let mut server = Server::new(BatchConfig { tenant_weights, ..config() });
        for _ in 0..1500 {
            for (tenant, key, depth) in [(0, keys.0, depth.0), (1, keys.1, depth.1)] {
                let caller = caller(tenant, Priority::Normal);
                let n_waiting = server.waiting.values().filter(|ticket| ticket.caller == caller).count();
                // At least a batch each, so that nobody lacks work.
                for _ in n_waiting..depth + 8 {
                    server.offer(key, caller, None).unwrap();
                }
            }
            server.advance(ms(20));
        }
        let served = server.served();
        let [first, second] = ["t0", "t1"].map(|tenant| served[&(tenant.to_owned(), 1)]);
        let (share, expected) = (first / (first + second), f64::from(weights.0) / f64::from(weights.0 + weights.1));
        prop_assert!((share / expected - 1.0).abs() < 0.1, "{} of {}", share, expected);
    }
}

#[test]
fn priorities_get_their_weights_and_bulk_is_not_starved() {
    let mut server = Server::new(config());
    for _ in 0..3000 {
        for priority in Priority::ALL {
            let caller = caller(0, priority);
            let n_waiting = server.waiting.values().filter(|ticket| ticket.caller == caller).count();
            (n_waiting..12).for_each(|_| assert!(server.offer(1, caller, None).is_ok()));
        }
        server.advance(ms(20));
    }
    let served = server.served();
    let total: f64 = served.values().sum();
    for priority in Priority::ALL {
        let share = served[&("t0".to_owned(), priority.idx())] / total;
        let expected = f64::from(priority.weight()) / 21.0;
        assert!((share / expected - 1.0).abs() < 0.1, "{priority:?} has {share}, expected {expected}");
    }
}

#[test]
fn urgency_takes_nothing_from_another_tenant() {
    let mut server = Server::new(config());
    for _ in 0..2000 {
        for caller in [caller(0, Priority::Interactive), caller(1, Priority::Bulk)] {
            let n_waiting = server.waiting.values().filter(|ticket| ticket.caller == caller).count();
            (n_waiting..12).for_each(|_| assert!(server.offer(0, caller, None).is_ok()));
        }
        server.advance(ms(20));
    }
    let served = server.served();
    let ratio = served[&("t0".to_owned(), 0)] / served[&("t1".to_owned(), 2)];
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

#[test]
fn a_job_without_deadline_is_not_starved_by_a_flood_of_nearer_deadlines() {
    let mut server = Server::new(config());
    let rare = server.offer(3, Caller::default(), None).unwrap();
    for _ in 0..300 {
        // Twice what the worker can do, due long before the horizon of the other.
        for _ in 0..4 {
            let _refused = server.offer(0, Caller::default(), Some(ms(150)));
        }
        server.advance(ms(20));
    }
    let (launched, members) = server.launched.iter().find(|(_, members)| members.iter().any(|ticket| ticket.id == rare)).unwrap();
    let waited = *launched - members[0].arrived;
    // The horizon, and the run that was on the worker then.
    assert!(waited <= ms(1000 + 45), "waited {waited:?}");
}

#[test]
fn a_long_run_waits_where_it_would_make_a_near_deadline_miss() {
    let mut server = Server::new(config());
    server.offer(3, Caller::default(), None).unwrap();
    server.now += ms(960);
    // Due 1000 ms after the start, before this deadline; but its 45 ms would leave too little of these 50.
    server.offer(0, Caller::default(), Some(ms(50))).unwrap();
    server.advance(ms(100));
    let order: Vec<u8> = server.launched.iter().map(|(_, members)| members[0].key).collect();
    assert_eq!(order, [0, 3]);
}

#[test]
fn a_batch_is_no_larger_than_its_tightest_member_allows() {
    let mut server = Server::new(config());
    // Alone 45 ms, two 85 ms, three 125 ms.
    server.offer(3, Caller::default(), Some(ms(100))).unwrap();
    (0..3).for_each(|_| assert!(server.offer(3, Caller::default(), None).is_ok()));
    server.advance(ms(1000));
    let sizes: Vec<usize> = server.launched.iter().map(|(_, members)| members.len()).collect();
    assert_eq!(sizes.first(), Some(&2), "{sizes:?}");
}

#[test]
fn a_batch_stops_only_when_all_of_its_members_have_left() {
    let mut server = Server::new(config());
    let members: Vec<u64> = (0..3).map(|_| server.offer(0, Caller::default(), None).unwrap()).collect();
    server.schedule.close();
    server.launch();
    assert_eq!(server.launched[0].1.len(), 3);
    let left: Vec<_> = members.iter().map(|id| server.schedule.leave(server.places[id])).collect();
    assert!(matches!(left[..], [Left::Running, Left::Running, Left::Last { worker_idx: 0 }]), "{left:?}");
    server.advance(ms(100));
    assert!(matches!(server.schedule.leave(server.places[&members[0]]), Left::Nothing));
}

#[test]
fn buckets_are_bounded_and_the_idle_one_that_was_used_longest_ago_is_forgotten() {
    let mut server = Server::new(BatchConfig { max_buckets: 4, ..config() });
    server.advance(ms(1));
    server.offer(9, Caller::default(), None).unwrap();
    assert_eq!(server.schedule.buckets.len(), 4);
    assert!(!server.schedule.index.contains_key(&0), "seeded first, used never");
    for key in [1, 2, 3] {
        server.offer(key, Caller::default(), None).unwrap();
    }
    let refused = server.offer(0, Caller::default(), None);
    assert!(matches!(refused, Err(BatchError::Full { limit: Limit::Buckets, max: 4, .. })), "{refused:?}");
    server.advance(Duration::from_secs(1));
    server.offer(0, Caller::default(), None).unwrap();
}

#[test]
fn tenants_are_bounded_and_what_is_more_shares_one_account() {
    let mut schedule = Schedule::new(BatchConfig { max_tenants: 2, ..config() }, 1);
    let now = Instant::now();
    let mut enter = |tenant| {
        let offer = Offer { key: 0, size: 1.0, caller: caller(tenant, Priority::Normal), deadline: None, n_bytes: 1 };
        schedule.offer(now, offer, ()).unwrap().flow.tenant_idx
    };
    assert_eq!([1, 2, 3, 4, 1].map(&mut enter), [1, 2, 0, 0, 1]);
    drop(schedule.take_all());
    let offer = Offer { key: 0, size: 1.0, caller: caller(4, Priority::Normal), deadline: None, n_bytes: 1 };
    assert_eq!(schedule.offer(now, offer, ()).unwrap().flow.tenant_idx, 2, "in place of an idle one");
}

#[test]
fn an_unknown_key_is_expected_to_cost_in_proportion_to_its_size() {
    let mut schedule: Schedule<u8, ()> = Schedule::new(config(), 1);
    let now = Instant::now();
    schedule.seed(now, &0, 2.0, 1, ms(100));
    let offer = Offer { key: 1, size: 8.0, caller: Caller::default(), deadline: None, n_bytes: 1 };
    schedule.offer(now, offer, ()).unwrap();
    // By the usual ratio of 0.3, 100 ms are 76.9 an image of size 2 and 23.1 a run.
    let expected = 4.0 * 76.9 + 23.1;
    assert!((schedule.drain_time(now).as_secs_f64() * 1e3 - expected).abs() < 1.0, "{:?}", schedule.drain_time(now));
}

#[test]
fn a_forecast_without_a_job_says_what_an_offer_would_and_takes_nothing() {
    let mut server = Server::new(BatchConfig { max_queue_count: 3, ..config() });
    let offer = |deadline| Offer { key: 3, size: 1.0, caller: caller(0, Priority::Normal), deadline, n_bytes: 1 };
    for n_waiting in 0..3 {
        let now = server.now;
        // A run of one takes 45 ms: one that must wait for another is late at 60 ms.
        let (soon, late) = (Some(now + ms(60)), Some(now + ms(600)));
        let foreseen = server.schedule.foresee(now, offer(soon));
        assert_eq!(foreseen.is_ok(), n_waiting == 0, "{n_waiting}: {foreseen:?}");
        assert_eq!(matches!(foreseen, Err(BatchError::TooLate { .. })), n_waiting > 0);
        (0..5).for_each(|_| server.schedule.foresee(now, offer(late)).unwrap());
        assert_eq!(server.schedule.load().n_jobs, n_waiting);
        server.offer(3, caller(0, Priority::Normal), Some(ms(600))).unwrap();
        server.schedule.close();
        server.launch();
    }
    let full = server.schedule.foresee(server.now, offer(None));
    assert!(matches!(full, Err(BatchError::Full { limit: Limit::Count, max: 3, .. })), "{full:?}");
    let past = server.schedule.foresee(server.now, offer(Some(server.now)));
    assert!(matches!(past, Err(BatchError::DeadlineExceeded)), "{past:?}");
}

#[test]
fn a_run_that_was_stopped_tells_that_runs_take_longer_and_never_that_they_are_faster() {
    let mut schedule: Schedule<u8, ()> = Schedule::new(config(), 1);
    let mut now = Instant::now();
    schedule.seed(now, &0, 1.0, 1, ms(10));
    let mut stopped_after = |time| {
        let offer = Offer { key: 0, size: 1.0, caller: Caller::default(), deadline: None, n_bytes: 1 };
        let place = schedule.offer(now, offer, ()).unwrap();
        let launch = schedule.pick(now, 0).unwrap();
        now += time;
        assert!(matches!(schedule.leave(place), Left::Last { worker_idx: 0 }));
        schedule.finish(now, 0, false);
        launch.predicted.unwrap()
    };
    (0..20).for_each(|_| assert_eq!(stopped_after(ms(2)), ms(10)));
    (0..20).for_each(|_| assert!(stopped_after(ms(40)) <= ms(40)));
    assert!(stopped_after(ms(40)) > ms(35));
}
