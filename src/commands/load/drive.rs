//! Sends the requests of a profile: when they are due (open loop) or when the one before was answered (closed loop).
//!
//! # Design
//! In an open loop latency counts from when a request was due, not from when it was sent: a client that is held up must not make the
//! server look quick ("coordinated omission"). Requests in flight are bounded; one that is due beyond the bound is not sent, and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::load::{
        arrivals::{Arrivals, Spacing},
        profile::Profile,
    },
    grpc::client::{Call, Ended},
};

/// Answers that wait for being written down.
const BACKLOG: usize = 4096;

/// What became of a request. Times are since the beginning.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it should have been sent.
    pub(super) due: Duration,
    pub(super) sent: Duration,
    /// First message of the answer.
    pub(super) first: Option<Duration>,
    /// End of the answer.
    pub(super) ended: Duration,
    pub(super) n_bytes: u64,
    /// Name of the status code, `OK`.
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) began: SystemTime,
    /// In the order of their ends.
    pub(super) samples: Vec<Sample>,
    /// Due while too many were in flight.
    pub(super) n_unsent: u64,
    /// Until the last answer.
    pub(super) took: Duration,
}

/// How requests are spaced and bounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive {
    pub(super) spacing: Spacing,
    pub(super) seed: u64,
    pub(super) max_in_flight: usize,
}

/// Sends everything, or until `stop`, and waits for all answers. `calls` are connections, used in turn; `messages` are the requests, in turn.
///
/// # Errors
/// Never but for a fault of this program.
pub(super) async fn run(
    profile: &Profile,
    drive: Drive,
    calls: Vec<Call>,
    messages: Vec<Bytes>,
    stop: CancellationToken,
) -> anyhow::Result<Run> {
    let (sender, mut samples) = mpsc::channel(BACKLOG);
    let sending = Sending { began: Instant::now(), timeout: profile.timeout, calls, messages, sender, stop };
    let (began, sending) = (SystemTime::now(), Arc::new(sending));
    let start = sending.began;
    let written = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(sample) = samples.recv().await {
            all.push(sample);
        }
        all
    });
    let n_unsent = match &profile.rate {
        Some(rate) => open(profile, Arrivals::new(rate.clone(), drive.spacing, drive.seed), drive.max_in_flight, sending).await,
        None => closed(profile, sending).await,
    };
    let samples = written.await.context("writing down the answers")?;
    Ok(Run { began, samples, n_unsent, took: start.elapsed() })
}

/// What every request shares.
struct Sending {
    began: Instant,
    timeout: Duration,
    calls: Vec<Call>,
    messages: Vec<Bytes>,
    sender: mpsc::Sender<Sample>,
    /// No further requests.
    stop: CancellationToken,
}

impl Sending {
    /// Sends the `idx`-th request, due at a time, and writes down what becomes of it.
    async fn one(&self, idx: u64, due: Option<Duration>) {
        let of = |n: usize| usize::try_from(idx % n.max(1) as u64).unwrap_or_default();
        let (Some(call), Some(message)) = (self.calls.get(of(self.calls.len())), self.messages.get(of(self.messages.len())))
        else {
            return;
        };
        let sent = self.began.elapsed();
        let Ended { first, last, n_bytes, code, message } = call.send(message.clone(), self.timeout).await;
        let first = first.map(|first| sent + first);
        let sample = Sample { due: due.unwrap_or(sent), sent, first, ended: sent + last, n_bytes, code, message };
        let _closed = self.sender.send(sample).await;
    }
}

/// Whether the `n`-th request (from 0) at a time is still one of the profile's.
fn belongs(profile: &Profile, n: u64, time: Duration) -> bool {
    profile.total.is_none_or(|total| n < total) && profile.duration.is_none_or(|duration| time < duration)
}

/// Returns the number of requests that were due and not sent.
async fn open(profile: &Profile, arrivals: Arrivals, max_in_flight: usize, sending: Arc<Sending>) -> u64 {
    let slots = Arc::new(Semaphore::new(max_in_flight.max(1)));
    let (mut tasks, mut n_unsent) = (JoinSet::new(), 0);
    for (n, due) in (0u64..).zip(arrivals).take_while(|(n, due)| belongs(profile, *n, *due)) {
        tokio::select! {
            () = sleep_until(sending.began + due) => {}
            () = sending.stop.cancelled() => break,
        }
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            n_unsent += 1;
            continue;
        };
        let sending = Arc::clone(&sending);
        tasks.spawn(async move {
            sending.one(n, Some(due)).await;
            drop(slot);
        });
    }
    drop(sending);
    while tasks.join_next().await.is_some() {}
    n_unsent
}

/// Every caller asks again as soon as it was answered.
async fn closed(profile: &Profile, sending: Arc<Sending>) -> u64 {
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..profile.concurrency {
        let (profile, sending, next) = (profile.clone(), Arc::clone(&sending), Arc::clone(&next));
        callers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if sending.stop.is_cancelled() || !belongs(&profile, n, sending.began.elapsed()) {
                    return;
                }
                sending.one(n, None).await;
            }
        });
    }
    drop(sending);
    while callers.join_next().await.is_some() {}
    0
}
