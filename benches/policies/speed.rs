//! What the schedule itself costs.

use std::{
    hint::black_box,
    time::{Duration, Instant as Clock},
};

use densevit::batch::{
    BatchConfig, Caller,
    schedule::{Offer, Schedule},
};
use tokio::time::Instant;

use crate::rows::Row;

/// Requests that wait while the time is taken.
const N_WAITING: usize = 256;
const N_REQUESTS: usize = 200_000;
const TARGET_US: f64 = 5.0;

/// Prints what a decision costs; a row for the table.
pub fn run() -> Vec<Row> {
    let mut rows = Vec::new();
    println!(
        "\nmicroseconds a request (offer, pick and finish; {N_WAITING} waiting, batches of up to 8, deadlines on half of them):"
    );
    for (n_buckets, n_tenants) in [(1, 1), (32, 1), (32, 8), (32, 32)] {
        let us = (0..5).map(|_| measure(n_buckets, n_tenants)).fold(f64::INFINITY, f64::min);
        let target = if (n_buckets, n_tenants) == (32, 1) { format!(", target {TARGET_US}") } else { String::new() };
        println!("  {n_buckets:>3} buckets, {n_tenants:>3} tenants: {us:.2}{target}");
        if n_buckets == 32 {
            let what = format!("a decision of the scheduler, 32 buckets, {n_tenants} tenants");
            rows.push(Row { what, result: format!("{us:.1} us"), target: format!("{TARGET_US} us"), is_met: us <= TARGET_US });
        }
    }
    rows
}

/// The time of a request in a schedule that is always full: as many arrive as are launched.
fn measure(n_buckets: usize, n_tenants: usize) -> f64 {
    let config = BatchConfig { max_queue_count: 4 * N_WAITING, max_tenant_percent: 100, ..BatchConfig::default() };
    let mut schedule: Schedule<usize, usize> = Schedule::new(config, 1);
    let callers: Vec<Caller> =
        (0..n_tenants).map(|idx| Caller { tenant: format!("t{idx}").parse().unwrap_or_default(), ..Caller::default() }).collect();
    let mut now = Instant::now();
    for key in 0..n_buckets {
        for n in [1, 8] {
            schedule.seed(now, &key, 1.0, n, Duration::from_micros(8000 + 100 * n as u64));
        }
    }
    let offer = |schedule: &mut Schedule<usize, usize>, now: Instant, idx: usize| {
        let deadline = idx.is_multiple_of(2).then(|| now + Duration::from_secs(3600));
        let caller = callers[(idx / n_buckets) % n_tenants];
        black_box(schedule.offer(now, Offer { key: idx % n_buckets, size: 1.0, caller, deadline, n_bytes: 1 }, idx)).is_ok()
    };
    let mut n_offered = (0..N_WAITING).filter(|idx| offer(&mut schedule, now, *idx)).count();
    let began = Clock::now();
    while n_offered < N_REQUESTS {
        let n_launched = schedule.pick(now, 0).map_or(0, |launch| black_box(launch.jobs).len());
        now += Duration::from_millis(9);
        black_box(schedule.finish(now, 0, true));
        for _ in 0..n_launched {
            offer(&mut schedule, now, n_offered);
            n_offered += 1;
        }
    }
    began.elapsed().as_secs_f64() * 1e6 / (N_REQUESTS - N_WAITING) as f64
}
