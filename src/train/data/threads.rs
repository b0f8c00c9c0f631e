//! Decoding and framing on other threads than the backbone runs on.

use std::{
    num::NonZero,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Things that wait to be taken, for each thread that makes them.
const AHEAD: usize = 2;

/// Makes something of each item on half of the cores; `take` uses it on this thread, in the order in which it arrives, under a progress
/// bar.
///
/// # Errors
/// The first error of `take`; then nothing more is made.
pub fn make_and_take<T: Sync, V: Send>(
    items: &[T],
    make: impl Fn(&T) -> V + Sync,
    mut take: impl FnMut(&T, V, &ProgressBar) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bar = ProgressBar::new(items.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("features {bar:30} {pos}/{len}  {per_sec}  eta {eta}") {
        bar.set_style(style);
    }
    let next = AtomicUsize::new(0);
    let n_threads = n_cores().div_ceil(2);
    thread::scope(|scope| {
        let (sender, made) = sync_channel(AHEAD * n_threads);
        for _ in 0..n_threads {
            let (sender, next, make) = (sender.clone(), &next, &make);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((item, make(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (item, value) in made {
            take(item, value, &bar)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    })
}

/// Makes something of each item on all cores, in order; none where the thread broke.
pub fn make_all<T: Sync, V: Send>(items: &[T], make: impl Fn(&T) -> V + Sync) -> Vec<Option<V>> {
    let share = items.len().div_ceil(n_cores()).max(1);
    let make_part = |part: &[T]| part.iter().map(&make).collect::<Vec<_>>();
    thread::scope(|scope| {
        let threads: Vec<_> = items.chunks(share).map(|part| (part.len(), scope.spawn(move || make_part(part)))).collect();
        let lost = |n: usize| (0..n).map(|_| None).collect::<Vec<_>>();
        let joined = threads.into_iter().map(|(n, thread)| match thread.join() {
            Ok(made) => made.into_iter().map(Some).collect(),
            Err(_panic) => lost(n),
        });
        joined.flatten().collect()
    })
}

fn n_cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
