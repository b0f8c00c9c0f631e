//! The server's own schedule.

use std::{collections::HashMap, time::Duration};

use densevit::batch::{
    BatchConfig, Caller,
    schedule::{Left, Offer, Place, Schedule},
};
use tokio::time::Instant;

use crate::{
    costs::{MAX_BATCH, N_SIZES, Profile},
    policy::{Job, Next, Policy},
};

pub struct Ours {
    schedule: Schedule<usize, Job>,
    places: HashMap<usize, Place>,
    sizes: [f64; N_SIZES],
}

impl Ours {
    /// With default settings, and one run of each size as warm-up.
    pub fn new(profile: &Profile) -> Self {
        let config = BatchConfig { max_batch_size: MAX_BATCH, ..BatchConfig::default() };
        let mut schedule = Schedule::new(config, 1);
        let sizes = profile.sizes.map(|size| size.n_tokens as f64);
        for (size_idx, size) in sizes.iter().enumerate() {
            let time = Duration::from_secs_f64(profile.seconds(size_idx, 1));
            schedule.seed(Instant::now(), &size_idx, *size, 1, time);
        }
        Self { schedule, places: HashMap::new(), sizes }
    }
}

impl Policy for Ours {
    fn name(&self) -> &'static str {
        "densevit"
    }

    fn arrive(&mut self, now: Instant, job: Job) -> bool {
        let tenant = if job.request.is_flood { "flood" } else { "victim" };
        let caller = Caller { tenant: tenant.parse().unwrap_or_default(), ..Caller::default() };
        let key = job.request.size_idx;
        let deadline = (!job.request.is_patient()).then_some(job.deadline);
        let offer = Offer { key, size: self.sizes[key], caller, deadline, n_bytes: 1 };
        let place = self.schedule.offer(now, offer, job);
        place.map(|place| self.places.insert(job.id, place)).is_ok()
    }

    fn leave(&mut self, _now: Instant, id: usize) {
        if let Some(place) = self.places.remove(&id) {
            let _left: Left<Job> = self.schedule.leave(place);
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        self.schedule.pick(now, 0).map_or(Next::Nothing, |launch| Next::Run(launch.jobs))
    }

    fn finished(&mut self, now: Instant) {
        self.schedule.finish(now, 0, true);
    }
}
