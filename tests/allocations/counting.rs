//! An allocator that keeps count of what the server allocates: of everything in this process but the threads that said they are a client's.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Largest number of large allocations that are kept one by one.
const MAX_LARGE: usize = 64;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LARGE_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
static N_LARGE: AtomicUsize = AtomicUsize::new(0);
static LARGE: [AtomicUsize; MAX_LARGE] = [const { AtomicUsize::new(0) }; MAX_LARGE];

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

/// What was allocated in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub n_allocations: usize,
    /// Sizes of the large ones, in bytes, in order.
    pub large: Vec<usize>,
}

/// Says that this thread is a client's.
pub fn leave_out_this_thread() {
    IS_CLIENT.set(true);
}

/// Counts while `work` runs. What has at least `large_from` bytes is large.
pub async fn count<T>(large_from: usize, work: impl Future<Output = T>) -> (T, Count) {
    for counter in [&N_ALLOCATIONS, &N_LARGE] {
        counter.store(0, Ordering::SeqCst);
    }
    LARGE_FROM.store(large_from, Ordering::SeqCst);
    IS_COUNTING.store(true, Ordering::SeqCst);
    let done = work.await;
    IS_COUNTING.store(false, Ordering::SeqCst);
    let large = LARGE.iter().take(N_LARGE.load(Ordering::SeqCst)).map(|size| size.load(Ordering::SeqCst)).collect();
    (done, Count { n_allocations: N_ALLOCATIONS.load(Ordering::SeqCst), large })
}

fn note(n_bytes: usize) {
    if !IS_COUNTING.load(Ordering::Relaxed) || IS_CLIENT.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    if n_bytes >= LARGE_FROM.load(Ordering::Relaxed)
        && let Some(slot) = LARGE.get(N_LARGE.fetch_add(1, Ordering::Relaxed))
    {
        slot.store(n_bytes, Ordering::Relaxed);
    }
}

/// The system's allocator, watched.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator cannot be anything else; each call goes to the system's as it came")]
// SAFETY: `System` keeps the contract, and nothing is done to its results. `note` allocates nothing: it touches atomics, and a thread-local
// that needs neither initialisation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
