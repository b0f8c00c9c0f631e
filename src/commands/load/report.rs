//! What a run measured: for people, and as JSON of the shape that ghz writes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    commands::load::{
        drive::{Run, Sample},
        profile::Profile,
    },
    grpc::client::rfc3339,
};

/// Bars of the histogram.
const N_BARS: u32 = 10;
/// Percentiles that are listed.
const PERCENTILES: [f64; 7] = [10.0, 25.0, 50.0, 90.0, 95.0, 99.0, 99.9];

/// Latencies of the answers, and what became of the other requests.
#[derive(Debug)]
pub(super) struct Report<'a> {
    profile: &'a Profile,
    run: &'a Run,
    /// Those that count.
    samples: &'a [Sample],
    /// From due to answered, ascending, `OK` only.
    latencies: Vec<Duration>,
    /// From due to the first message, ascending, `OK` only.
    firsts: Vec<Duration>,
}

impl<'a> Report<'a> {
    pub(super) fn new(profile: &'a Profile, run: &'a Run) -> Self {
        let skipped = usize::try_from(profile.skip_first).unwrap_or(usize::MAX).min(run.samples.len());
        let samples = run.samples.get(skipped..).unwrap_or_default();
        let answered = || samples.iter().filter(|sample| sample.code == "OK");
        let sorted = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times
        };
        let latencies = sorted(answered().map(latency).collect());
        let firsts = sorted(answered().filter_map(|sample| Some(sample.first?.saturating_sub(sample.due))).collect());
        Self { profile, run, samples, latencies, firsts }
    }

    /// Nearest-rank percentile of the answers' latency.
    pub(super) fn percentile(&self, percent: f64) -> Option<Duration> {
        percentile(&self.latencies, percent)
    }

    /// Share of the requests that were not answered, those that could not be sent among them.
    pub(super) fn failed_share(&self) -> f64 {
        let n = self.samples.len() as u64 + self.run.n_unsent;
        ratio(n - self.latencies.len() as u64, n)
    }

    /// Answers a second.
    pub(super) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.run.took.as_secs_f64().max(1e-9)
    }

    /// Requests by status.
    fn statuses(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        self.samples.iter().for_each(|sample| *counts.entry(sample.code).or_default() += 1);
        counts
    }

    /// For people.
    pub(super) fn print(&self) {
        let ms = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3));
        let listed = |times: &[Duration]| {
            let each = [50.0, 95.0, 99.0, 99.9].map(|percent| format!("p{percent} {}", ms(percentile(times, percent))));
            format!("{}  max {} ms", each.join("  "), ms(times.last().copied()))
        };
        let bytes: u64 = self.samples.iter().map(|sample| sample.n_bytes).sum();
        println!(
            "{}: {} requests in {:.1} s, {:.2} answered/s, {:.1} MB/s",
            self.profile.name,
            self.samples.len(),
            self.run.took.as_secs_f64(),
            self.rate(),
            bytes as f64 / 1e6 / self.run.took.as_secs_f64().max(1e-9)
        );
        println!("  latency        {}", listed(&self.latencies));
        println!("  first message  {}", listed(&self.firsts));
        for (code, n) in self.statuses() {
            let mut times: Vec<Duration> = self.samples.iter().filter(|sample| sample.code == code).map(latency).collect();
            times.sort_unstable();
            println!("  {code:<18} {n:>7}   {}", listed(&times));
        }
        if self.run.n_unsent > 0 {
            println!("  not sent           {:>7}   too many were in flight (--max-in-flight)", self.run.n_unsent);
        }
    }

    /// For programs: ghz's keys, times in nanoseconds, and beside them `unsent`, `firstMessageDistribution` and, of each request, when
    /// it was due.
    pub(super) fn json(&self) -> Value {
        let n = self.latencies.len() as u64;
        let average =
            self.latencies.iter().sum::<Duration>().checked_div(u32::try_from(n).unwrap_or(u32::MAX)).unwrap_or_default();
        let errors = self.samples.iter().filter(|sample| sample.code != "OK");
        let mut by_message: BTreeMap<String, usize> = BTreeMap::new();
        errors.for_each(|sample| *by_message.entry(format!("{}: {}", sample.code, sample.message)).or_default() += 1);
        json!({
            "name": self.profile.name,
            "date": rfc3339(self.run.began),
            "options": { "call": self.profile.call, "concurrency": self.profile.concurrency, "connections": self.profile.connections },
            "count": self.samples.len(),
            "total": nanos(self.run.took),
            "average": nanos(average),
            "fastest": nanos(self.latencies.first().copied().unwrap_or_default()),
            "slowest": nanos(self.latencies.last().copied().unwrap_or_default()),
            "rps": self.rate(),
            "unsent": self.run.n_unsent,
            "errorDistribution": by_message,
            "statusCodeDistribution": self.statuses(),
            "latencyDistribution": distribution(&self.latencies),
            "firstMessageDistribution": distribution(&self.firsts),
            "histogram": self.histogram(),
            "details": self.samples.iter().map(|sample| self.detail(sample)).collect::<Vec<_>>(),
        })
    }

    fn detail(&self, sample: &Sample) -> Value {
        json!({
            "timestamp": rfc3339(self.run.began + sample.ended),
            "due": rfc3339(self.run.began + sample.due),
            "latency": nanos(latency(sample)),
            "sentAfter": nanos(sample.sent.saturating_sub(sample.due)),
            "error": sample.message,
            "status": sample.code,
        })
    }

    /// Answers by latency, in bars of equal width.
    fn histogram(&self) -> Vec<Value> {
        let (Some(first), Some(last)) = (self.latencies.first(), self.latencies.last()) else { return Vec::new() };
        let width = (*last - *first) / N_BARS;
        let mark = |bar: u32| *first + width * bar;
        let up_to = |bar: u32| {
            if bar == N_BARS { self.latencies.len() } else { self.latencies.partition_point(|time| *time <= mark(bar)) }
        };
        let bar = |bar: u32| {
            let count = if bar == 0 { up_to(0) } else { up_to(bar) - up_to(bar - 1) };
            json!({ "mark": mark(bar).as_secs_f64(), "count": count, "frequency": ratio(count as u64, self.latencies.len() as u64) })
        };
        (0..=N_BARS).map(bar).collect()
    }
}

/// From when it was due.
fn latency(sample: &Sample) -> Duration {
    sample.ended.saturating_sub(sample.due)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Nearest rank: the smallest time that so many per cent do not exceed.
fn percentile(sorted: &[Duration], percent: f64) -> Option<Duration> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the length")]
    sorted.get(rank as usize - 1).copied()
}

fn distribution(sorted: &[Duration]) -> Vec<Value> {
    let row = |percent: f64| percentile(sorted, percent).map(|time| json!({ "percentage": percent, "latency": nanos(time) }));
    PERCENTILES.into_iter().filter_map(row).collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let at = |percent| percentile(&times, percent).unwrap().as_millis();
        assert_eq!([at(0.0), at(50.0), at(99.0), at(99.9), at(100.0)], [1, 100, 198, 200, 200]);
        assert_eq!(percentile(&[], 50.0), None);
    }
}
