//! A row of the table.

use std::time::Duration;

use crate::{
    costs::Profile,
    rows::Row,
    simulation::{Answer, Outcome},
    trace::Trace,
};

/// Least share of the throughput of single sizes that a mix of four must reach.
const MIXED_TARGET: f64 = 0.9;

/// What a policy made of a trace.
pub struct Report {
    trace: &'static str,
    policy: &'static str,
    /// Images answered in a second, and of these in time.
    throughput: f64,
    goodput: f64,
    /// Work answered in time, of what the executor can do at best or of what was asked, whichever is less.
    useful: f64,
    p50: Duration,
    p99: Duration,
    mean_batch: f64,
    pub n_expired_launches: usize,
    refused: f64,
    /// Of who does not flood: the 99th percentile, that without a flood, and the part answered in time.
    victim: Option<(Duration, Duration, f64)>,
}

impl Report {
    pub fn new(profile: &Profile, trace: &Trace, outcome: &Outcome, solo: Option<&Outcome>) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let in_time = || outcome.answers.iter().filter(|answer| answer.is_in_time);
        let work = |size_idx: usize| profile.best(size_idx);
        let asked: f64 = trace.requests.iter().map(|request| work(request.size_idx)).sum();
        let useful: f64 = in_time().map(|answer| work(answer.request.size_idx)).sum();
        let n_requests = trace.requests.len() as f64;
        let latencies = |answers: &[Answer]| {
            let mut latencies: Vec<Duration> =
                answers.iter().filter(|answer| !answer.request.is_flood).map(|answer| answer.latency).collect();
            latencies.sort_unstable();
            latencies
        };
        let mut all: Vec<Duration> = outcome.answers.iter().map(|answer| answer.latency).collect();
        all.sort_unstable();
        let n_victims = trace.requests.iter().filter(|request| !request.is_flood).count() as f64;
        let victims_in_time = in_time().filter(|answer| !answer.request.is_flood).count() as f64;
        let victim = solo.map(|solo| {
            let (with, without) = (latencies(&outcome.answers), latencies(&solo.answers));
            (percentile(&with, 0.99), percentile(&without, 0.99), victims_in_time / n_victims)
        });
        Self {
            trace: trace.name,
            policy: outcome.policy,
            throughput: outcome.answers.len() as f64 / seconds,
            goodput: in_time().count() as f64 / seconds,
            useful: useful / asked.min(seconds),
            p50: percentile(&all, 0.5),
            p99: percentile(&all, 0.99),
            mean_batch: outcome.answers.len() as f64 / outcome.n_launches as f64,
            n_expired_launches: outcome.n_expired_launches,
            refused: outcome.n_refused as f64 / n_requests,
            victim,
        }
    }

    /// Whether this is the scheduler of the server.
    pub fn is_ours(&self) -> bool {
        self.policy == "densevit"
    }

    /// For the table: what mixed sizes leave of what single sizes would bring, where nobody leaves early.
    pub fn mixed_sizes(&self, costs: &str) -> Option<Row> {
        let what = format!("mixed four sizes, of the throughput of single ones, costs of {costs}");
        let (result, is_met) = (format!("{:.2}", self.useful), self.useful >= MIXED_TARGET);
        let row = Row { what, result, target: MIXED_TARGET.to_string(), is_met };
        self.trace.starts_with("no deadlines").then_some(row)
    }

    pub fn print_header() {
        println!(
            "| trace, load | policy | answers/s | in time/s | work in time | p50 ms | p99 ms | mean batch | launched expired | refused | victim: \
             p99 ms (alone), in time |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
    }

    pub fn print(&self) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let victim = self.victim.map_or("-".to_owned(), |(with, without, in_time)| {
            format!("{:.0} ({:.0}), {:.1} %", ms(with), ms(without), 100.0 * in_time)
        });
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.1} % | {:.0} | {:.0} | {:.2} | {} | {:.1} % | {victim} |",
            self.trace,
            self.policy,
            self.throughput,
            self.goodput,
            100.0 * self.useful,
            ms(self.p50),
            ms(self.p99),
            self.mean_batch,
            self.n_expired_launches,
            100.0 * self.refused,
        );
    }
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let idx = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(idx.saturating_sub(1)).copied().unwrap_or_default()
}
