//! The next batch: whose turn, which bucket, how many.

use std::{cmp::Reverse, hash::Hash};

use tokio::time::Instant;

use super::{
    Launch, Member, Run, Schedule,
    bucket::{Bucket, Entry, Rank},
    cost::{Line, count, duration},
    shares::{Flow, Turn},
};

/// What a batch may cost more for each image than the largest one, so that its members need not wait for more companions. A
/// twentieth: of the order of what runs on a shared machine differ by anyhow.
pub(super) const TOLERANCE: f64 = 0.05;

/// The most urgent job of a bucket.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    bucket_idx: usize,
    rank: Rank,
    is_soft: bool,
    /// When the bucket must start at the latest; only where a deadline is still in reach.
    latest_start: Option<Instant>,
    /// The end of a run of one that started now.
    ends: Instant,
}

impl<K: Clone + Eq + Hash, T> Schedule<K, T> {
    /// Gives an idle worker its next batch, or nothing when no bucket is ready.
    pub fn pick(&mut self, now: Instant, worker_idx: usize) -> Option<Launch<K, T>> {
        self.set_late_aside(now);
        let (bucket_idx, entries) = match self.choose(now) {
            Some(bucket_idx) => (bucket_idx, self.take_batch(now, bucket_idx)),
            None => self.take_late(now)?,
        };
        self.launch(now, worker_idx, bucket_idx, entries)
    }

    /// When the next bucket gets ready by waiting alone; only of interest after `pick` found nothing.
    #[must_use]
    pub fn next_ready(&self) -> Option<Instant> {
        self.buckets.iter().filter_map(Bucket::ready_at).min()
    }

    fn set_late_aside(&mut self, now: Instant) {
        let shares = &mut self.shares;
        let waiting = self.buckets.iter_mut().filter(|bucket| bucket.n_waiting() > 0);
        waiting.for_each(|bucket| bucket.set_late_aside(now, |flow| shares.stop_waiting(flow)));
    }

    /// The bucket that runs next.
    fn choose(&self, now: Instant) -> Option<usize> {
        let turn = self.shares.turn();
        let mut candidates: Vec<Candidate> = self.candidates(now, |flow| turn.is_of(flow)).collect();
        if candidates.is_empty() {
            // Whoever has credit still waits for companions.
            candidates = self.candidates(now, |_| true).collect();
        }
        let first = candidates.iter().min_by_key(|candidate| candidate.rank)?;
        let lets_pass = first.is_soft && first.rank.0 > now;
        let is_urgent = |other: &&Candidate| other.latest_start.is_some_and(|latest| latest < first.ends);
        let urgent = candidates.iter().filter(is_urgent).min_by_key(|candidate| candidate.rank);
        Some(urgent.filter(|_| lets_pass).unwrap_or(first).bucket_idx)
    }

    /// The most urgent job of each bucket that is ready, among flows that may run.
    fn candidates(&self, now: Instant, may_run: impl Fn(Flow) -> bool) -> impl Iterator<Item = Candidate> {
        let waiting = self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.n_waiting() > 0);
        waiting.filter(move |(_, bucket)| self.is_ready(bucket, now)).filter_map(move |(bucket_idx, bucket)| {
            let heads = || bucket.lanes.iter().filter(|lane| may_run(lane.flow)).filter_map(|lane| lane.head());
            let head = heads().min_by_key(|head| head.rank)?;
            let alone = duration(self.line(bucket).seconds(1));
            let latest = heads().filter_map(|head| head.deadline?.checked_sub(alone)).min();
            Some(Candidate {
                bucket_idx,
                rank: head.rank,
                is_soft: head.is_soft(),
                latest_start: latest.filter(|latest| *latest >= now),
                ends: now + alone,
            })
        })
    }

    fn is_ready(&self, bucket: &Bucket<K, T>, now: Instant) -> bool {
        let never_waits = self.is_closing || self.config.max_queue_delay_ms == 0;
        never_waits || bucket.n_waiting() >= self.config.max_batch_size || bucket.ready_at().is_some_and(|at| at <= now)
    }

    /// Takes the most urgent jobs of a bucket: those whose turn it is, then others, as long as these add no more time than a run of their own
    /// would have cost anyhow. So a tenant that floods fills the batches of another, but does not stretch them.
    fn take_batch(&mut self, now: Instant, bucket_idx: usize) -> Vec<Entry<T>> {
        let backlog = self.backlog();
        let Some(line) = self.buckets.get(bucket_idx).map(|bucket| self.line(bucket)) else { return Vec::new() };
        let careful = self.buckets.get(bucket_idx).map_or(line, |bucket| bucket.cost.careful(line));
        let Self { buckets, shares, config, .. } = self;
        let Some(bucket) = buckets.get_mut(bucket_idx) else { return Vec::new() };

        let turn = shares.turn();
        let pays = line.paying_size(config.max_batch_size, backlog, TOLERANCE);
        let mut entries = Vec::with_capacity(pays.min(bucket.n_waiting()));
        let mut fits = pays;
        let mut n_riders = Line { b: 0.0, ..line }.size_within(line.b, pays);
        while entries.len() < fits
            && let Some((lane_idx, is_in_turn)) = next_lane(bucket, &turn)
        {
            if !is_in_turn && !entries.is_empty() {
                if n_riders == 0 {
                    break;
                }
                n_riders -= 1;
            }
            let deadline = bucket.lanes.get(lane_idx).and_then(|lane| lane.head()).and_then(|head| head.deadline);
            let own_fits = deadline.map_or(pays, |deadline| size_until(careful, now, deadline, pays));
            if own_fits <= entries.len() && !entries.is_empty() {
                // It would be late in this company.
                break;
            }
            // One that is late even alone binds nobody.
            fits = if own_fits == 0 { fits } else { fits.min(own_fits) };
            entries.extend(bucket.pop(lane_idx));
        }
        entries.iter().for_each(|entry| shares.stop_waiting(entry.flow));
        entries
    }

    /// Takes the most urgent job among those set aside.
    fn take_late(&mut self, now: Instant) -> Option<(usize, Vec<Entry<T>>)> {
        let waits = self.buckets.iter().any(|bucket| bucket.n_waiting() > 0);
        if waits {
            return None;
        }
        let late = self.buckets.iter().enumerate().filter_map(|(idx, bucket)| Some((bucket.late_rank(now)?, idx)));
        let (rank, bucket_idx) = late.min()?;
        let entry = self.buckets.get_mut(bucket_idx)?.take_late(rank)?;
        Some((bucket_idx, vec![entry]))
    }

    fn launch(&mut self, now: Instant, worker_idx: usize, bucket_idx: usize, entries: Vec<Entry<T>>) -> Option<Launch<K, T>> {
        let line = self.buckets.get(bucket_idx).map(|bucket| self.line(bucket))?;
        let bucket = self.buckets.get_mut(bucket_idx)?;
        bucket.n_running += 1;
        let (key, is_known) = (bucket.key.clone(), bucket.cost.line().is_some());
        let predicted = line.seconds(entries.len());
        let share = predicted / count(entries.len().max(1));
        let longest_wait = entries.iter().map(|entry| now.saturating_duration_since(entry.arrived)).max().unwrap_or_default();
        let (mut members, mut jobs) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for Entry { rank, flow, tenant, n_bytes, job, .. } in entries {
            self.shares.charge(flow, share);
            members.push(Member { rank, flow, tenant, n_bytes, is_wanted: true });
            jobs.push(job);
        }
        *self.running.get_mut(worker_idx)? = Some(Run { bucket_idx, members, launched: now, predicted, is_known });
        Some(Launch { key, jobs, predicted: is_known.then(|| duration(predicted)), longest_wait })
    }
}

/// The lane whose head is next, and whether it is its turn.
fn next_lane<K, T>(bucket: &Bucket<K, T>, turn: &Turn) -> Option<(usize, bool)> {
    let heads =
        bucket.lanes.iter().enumerate().filter_map(|(idx, lane)| Some((Reverse(turn.is_of(lane.flow)), lane.head()?.rank, idx)));
    heads.min().map(|(Reverse(is_in_turn), _, idx)| (idx, is_in_turn))
}

/// Images of a run that starts now and ends in time.
fn size_until(line: Line, now: Instant, end: Instant, max: usize) -> usize {
    line.size_within(end.saturating_duration_since(now).as_secs_f64(), max)
}
