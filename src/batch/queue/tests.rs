//! Properties of the queue under any order of arrivals, picks and expiries.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push { key: u8, deadline_ms: Option<u64> },
    Pick,
    Expire,
    Leave { modulus: u64 },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, proptest::option::of(0..200_u64)).prop_map(|(key, deadline_ms)| Step::Push { key, deadline_ms }),
        2 => Just(Step::Pick),
        1 => Just(Step::Expire),
        1 => (2..9_u64).prop_map(|modulus| Step::Leave { modulus }),
        2 => (0..50_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// A job as the tests see it.
#[derive(Clone, Debug)]
struct Ticket {
    id: u64,
    key: u8,
    due: Instant,
    deadline: Option<Instant>,
}

proptest! {
    #[test]
    fn every_job_leaves_once_with_its_own_kind(steps in proptest::collection::vec(step(), 0..120), max in 1..5_usize, delay_ms in 0..20_u64) {
        let (max_delay, slack) = (Duration::from_millis(delay_ms), Duration::from_millis(100));
        let mut queue = Queue::new(Policy { max_batch_size: max, max_delay, slack });
        let mut now = Instant::now();
        let mut waiting: BTreeSet<u64> = BTreeSet::new();
        let mut dues: HashMap<u64, Instant> = HashMap::new();
        let mut n_pushed = 0;
        for step in steps {
            let left = match step {
                Step::Push { key, deadline_ms } => {
                    let deadline = deadline_ms.map(|ms| now + Duration::from_millis(ms));
                    let due = deadline.unwrap_or(now + slack).min(now + slack);
                    queue.push(now, key, deadline, Ticket { id: n_pushed, key, due, deadline });
                    waiting.insert(n_pushed);
                    dues.insert(n_pushed, due);
                    n_pushed += 1;
                    Vec::new()
                }
                Step::Pick => {
                    let picked = queue.pick(now);
                    if picked.is_none() {
                        prop_assert!(waiting.is_empty() || queue.next_ready().unwrap() > now, "an idle worker waits although a bucket is ready");
                        prop_assert!(waiting.is_empty() || delay_ms > 0, "without a delay any waiting job is ready");
                    }
                    let (key, jobs) = picked.unwrap_or_default();
                    prop_assert!(jobs.len() <= max);
                    prop_assert!(jobs.iter().all(|job| job.key == key), "keys are mixed");
                    prop_assert!(jobs.is_sorted_by_key(|job| job.due), "the most urgent goes first");
                    if delay_ms == 0 && let Some(head) = jobs.first() {
                        prop_assert!(waiting.iter().all(|id| dues[id] >= head.due), "a more urgent job was left");
                    }
                    jobs
                }
                Step::Expire => {
                    let expired = queue.take_expired(now);
                    prop_assert!(expired.iter().all(|job| job.deadline.unwrap() <= now));
                    expired
                }
                Step::Leave { modulus } => queue.take_gone(|job| job.id % modulus == 0),
                Step::Wait { ms } => {
                    now += Duration::from_millis(ms);
                    Vec::new()
                }
            };
            for job in left {
                prop_assert!(waiting.remove(&job.id), "job {} left twice", job.id);
            }
        }
        let rest: BTreeSet<_> = queue.take_all().into_iter().map(|job| job.id).collect();
        prop_assert_eq!(rest, waiting, "jobs were lost");
    }
}
