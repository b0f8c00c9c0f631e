//! Values that are there, and runs that will give some: equal questions at one time run once.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, future::Shared};
use tokio::{task::JoinError, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use crate::{
    batch::{Priority, Tenant},
    cache::{Lru, Question, Stored},
};

/// What a run gives to everybody who waits for it.
pub type Outcome<V, E> = Result<V, Arc<E>>;

/// A run that many can wait for. It ends with the last of them.
type Landing<V, E> = Shared<Pin<Box<dyn Future<Output = Outcome<V, E>> + Send>>>;

/// Whose a run is, and how urgent: what it does for others depends on that.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Who pays for it, and whose turn it waits for.
    pub tenant: Tenant,
    /// Its precedence among the tenant's own.
    pub priority: Priority,
    /// When it must be there at the latest.
    pub due: Instant,
}

/// Values by question, and runs in flight. `V` is cheap to clone.
pub struct Cache<V, E> {
    state: Mutex<State<V, E>>,
}

struct State<V, E> {
    values: Lru<Question, V>,
    flights: HashMap<(Question, Tenant), Flight<V, E>>,
    n_started: u64,
}

struct Flight<V, E> {
    id: u64,
    n_waiting: usize,
    terms: Terms,
    landing: Landing<V, E>,
}

/// What there is for a question.
#[derive(Debug)]
pub enum Asked<V, E> {
    /// The value.
    Known(V),
    /// A run that will give it.
    Running(Seat<V, E>),
}

/// A place among those who wait for a run; dropping it gives it up, and the last one ends the run.
pub struct Seat<V, E> {
    cache: Arc<Cache<V, E>>,
    key: (Question, Tenant),
    id: u64,
    landing: Landing<V, E>,
    /// Whether the run was started for this place.
    leads: bool,
}

impl Terms {
    /// Whether who has `other` terms loses nothing by waiting for a run on these: it is the tenant's own, has the precedence, and what is due
    /// is due at about the same time. Callers that send at once with one timeout differ by moments, in either order; half of the time that
    /// the run has left is more than that, and little enough to be lost.
    fn suit(&self, other: &Self, now: Instant) -> bool {
        let left = |due: Instant| due.saturating_duration_since(now);
        self.tenant == other.tenant && self.priority.weight() >= other.priority.weight() && left(other.due) >= left(self.due) / 2
    }
}

impl<V, E> Cache<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: From<JoinError> + Send + Sync + 'static,
{
    /// Memory of an entry beside that of its value and of its question's options, in bytes.
    pub const ENTRY_BYTES: usize = Lru::<Question, V>::ENTRY_BYTES;

    /// Nothing, and room for `max_bytes` of values.
    #[must_use]
    pub fn new(max_bytes: usize) -> Arc<Self> {
        let state = State { values: Lru::new(max_bytes), flights: HashMap::new(), n_started: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The value of a question, or else a run that gives it: one that is in flight on terms that suit, or a new one of `start`.
    ///
    /// # Panics
    /// Outside a tokio runtime, like `tokio::spawn`.
    pub fn ask<F>(self: &Arc<Self>, question: &Question, terms: Terms, start: impl FnOnce() -> F) -> Asked<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let key = (question.clone(), terms.tenant);
        let now = Instant::now();
        let mut state = self.state();
        if let Some(value) = state.values.find(question) {
            return Asked::Known(value.clone());
        }
        let seat = |id, landing, leads, key| Asked::Running(Seat { cache: Arc::clone(self), key, id, landing, leads });
        // One that has landed left a value, or an error that is nobody's any more.
        let suits = |flight: &Flight<V, E>| flight.landing.peek().is_none() && flight.terms.suit(&terms, now);
        if let Some(flight) = state.flights.get_mut(&key).filter(|flight| suits(flight)) {
            flight.n_waiting += 1;
            return seat(flight.id, flight.landing.clone(), false, key);
        }
        let landing = landing(start());
        state.n_started += 1;
        let id = state.n_started;
        let replaced = state.flights.insert(key.clone(), Flight { id, n_waiting: 1, terms, landing: landing.clone() });
        drop(state);
        drop(replaced);
        seat(id, landing, true, key)
    }

    /// Whether a value of so many bytes would be kept for a question.
    #[must_use]
    pub fn takes(&self, question: &Question, n_bytes: usize) -> bool {
        self.state().values.takes(all_told::<V>(question, n_bytes))
    }

    /// Keeps the value of a question if it `may_stay`, which is asked while nothing can be forgotten. Says how many others had to go.
    pub fn insert(&self, question: &Question, value: V, n_bytes: usize, may_stay: impl FnOnce() -> bool) -> usize {
        let mut state = self.state();
        if !may_stay() {
            return 0;
        }
        let stored = state.values.insert(question.clone(), value, all_told::<V>(question, n_bytes));
        drop(state);
        match stored {
            Stored::Kept(gone) => gone.len(),
            Stored::TooLarge(_) => 0,
        }
    }

    /// Forgets all values that are not to stay. Says how many went.
    pub fn retain(&self, stays: impl Fn(&V) -> bool) -> usize {
        let gone = self.state().values.retain(stays);
        gone.len()
    }

    /// Forgets the value of a question.
    pub fn remove(&self, question: &Question) {
        let gone = self.state().values.remove(question);
        drop(gone);
    }
}

impl<V, E> Cache<V, E> {
    /// Bytes and number of the values.
    #[must_use]
    pub fn size(&self) -> (usize, usize)
    where
        V: Clone,
    {
        let state = self.state();
        (state.values.n_bytes(), state.values.len())
    }

    fn state(&self) -> MutexGuard<'_, State<V, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, key: &(Question, Tenant), id: u64) {
        let mut state = self.state();
        let Some(flight) = state.flights.get_mut(key).filter(|flight| flight.id == id) else { return };
        flight.n_waiting -= 1;
        let gone = if flight.n_waiting == 0 { state.flights.remove(key) } else { None };
        drop(state);
        drop(gone);
    }
}

impl<V: Clone, E> Seat<V, E> {
    /// Whether the run was started for this place, on its terms.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Waits for the run.
    ///
    /// # Errors
    /// That of the run, the same for everybody who waits.
    pub async fn landed(&self) -> Outcome<V, E> {
        self.landing.clone().await
    }
}

impl<V, E> Drop for Seat<V, E> {
    fn drop(&mut self) {
        self.cache.leave(&self.key, self.id);
    }
}

impl<V, E> fmt::Debug for Cache<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Cache")
            .field("n_flights", &state.flights.len())
            .field("n_started", &state.n_started)
            .finish_non_exhaustive()
    }
}

impl<V, E> fmt::Debug for Seat<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("key", &self.key).field("id", &self.id).field("leads", &self.leads).finish_non_exhaustive()
    }
}

/// Starts a run in a task that lives as long as somebody has a clone of what is returned.
fn landing<V, E>(run: impl Future<Output = Result<V, E>> + Send + 'static) -> Landing<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: From<JoinError> + Send + Sync + 'static,
{
    let task = AbortOnDropHandle::new(tokio::spawn(run.instrument(Span::current())));
    task.map(|ended| ended.unwrap_or_else(|broken| Err(broken.into())).map_err(Arc::new)).boxed().shared()
}

/// Memory of an entry, in bytes.
fn all_told<V>(question: &Question, n_bytes: usize) -> usize {
    n_bytes.saturating_add(question.n_bytes()).saturating_add(Lru::<Question, V>::ENTRY_BYTES)
}

#[cfg(test)]
mod tests;
