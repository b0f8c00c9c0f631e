//! What arrives when. The same for every policy.

use std::time::Duration;

use crate::{
    costs::{N_SIZES, Profile},
    random::Random,
};

/// Requests of a trace.
const N_REQUESTS: usize = 20_000;
/// Deadlines, in times that an image takes alone in the mean: from impatient to patient, each as often.
const PATIENCE: [f64; 4] = [5.0, 10.0, 20.0, 40.0];

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub at: Duration,
    pub size_idx: usize,
    pub is_flood: bool,
    /// After its arrival.
    pub deadline: Duration,
}

impl Request {
    /// Whether its caller waits for ever.
    pub fn is_patient(&self) -> bool {
        self.deadline == FOR_EVER
    }
}

/// Requests by arrival.
#[derive(Clone, Debug)]
pub struct Trace {
    pub name: &'static str,
    pub requests: Vec<Request>,
    pub has_flood: bool,
}

/// Kinds of traces.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Poisson arrivals of four sizes, at 0.8 of what the executor can do at best.
    Mixed,
    /// The same in the mean: half of the time at 1.4, half at 0.2, for exponential times of 50 images each.
    Bursty,
    /// One tenant at 0.14, another sends ten times as much.
    Flood,
    /// Twice what the executor can do at best.
    Overload,
    /// The same, of callers that wait for ever.
    Patient,
}

pub const TRACES: [Kind; 5] = [Kind::Mixed, Kind::Bursty, Kind::Flood, Kind::Overload, Kind::Patient];
/// What callers that wait for ever wait.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

impl Kind {
    pub fn trace(self, profile: &Profile) -> Trace {
        let mut random = Random::new(2026);
        let (name, load) = match self {
            Self::Mixed => ("mixed, 0.8", 0.8),
            Self::Bursty => ("bursty, 0.8", 0.8),
            Self::Flood => ("flood, 0.14 + 1.4", 1.54),
            Self::Overload => ("overload, 2", 2.0),
            Self::Patient => ("no deadlines, 2", 2.0),
        };
        let unit = profile.mean_best();
        let (mut now, mut requests) = (0.0, Vec::with_capacity(N_REQUESTS));
        let (mut is_burst, mut phase_ends) = (false, 0.0);
        while requests.len() < N_REQUESTS {
            if matches!(self, Self::Bursty) && now >= phase_ends {
                is_burst = !is_burst;
                phase_ends = now + 50.0 * unit * random.exponential();
            }
            let rate = match self {
                Self::Bursty if is_burst => 1.4,
                Self::Bursty => 0.2,
                _ => load,
            };
            now += random.exponential() * unit / rate;
            let is_flood = matches!(self, Self::Flood) && random.uniform() > 1.0 / 11.0;
            let deadline = Duration::from_secs_f64(PATIENCE[random.pick(PATIENCE.len())] * profile.mean_alone());
            let deadline = if matches!(self, Self::Patient) { FOR_EVER } else { deadline };
            requests.push(Request { at: Duration::from_secs_f64(now), size_idx: random.pick(N_SIZES), is_flood, deadline });
        }
        Trace { name, requests, has_flood: matches!(self, Self::Flood) }
    }
}

impl Trace {
    /// The requests of the other tenant, where one floods.
    pub fn without_flood(&self) -> Option<Self> {
        let requests = self.requests.iter().copied().filter(|request| !request.is_flood).collect();
        self.has_flood.then_some(Self { name: self.name, requests, has_flood: false })
    }
}
