//! What is inside now, for the metrics: asked whenever they are read, so that nothing has to be kept up to date in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    batch::Load,
    engine::{Engine, LoadedModel},
    telemetry::record,
};

/// What earlier looks have shown, and must not be shown for ever.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<BTreeSet<(String, u32, String)>>);

impl Engine {
    /// Records queues, admission and models as they are at this moment.
    pub fn observe(&self) {
        let Load { n_jobs, n_bytes } = self.admission.load();
        record::admitted(n_jobs, n_bytes);
        let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queues: BTreeMap<String, (Load, Duration)> =
            shown.iter().map(|(name, ..)| (name.clone(), Default::default())).collect();
        let models = self.models();
        for model in &models {
            let (load, drain_time) = queues.entry(model.manifest().name.clone()).or_default();
            let own = model.batcher().load();
            *load = Load { n_jobs: load.n_jobs + own.n_jobs, n_bytes: load.n_bytes + own.n_bytes };
            // Versions have executors of their own.
            *drain_time = (*drain_time).max(model.batcher().drain_time());
        }
        for (name, (Load { n_jobs, n_bytes }, drain_time)) in &queues {
            record::queue(name, *n_jobs, *n_bytes, *drain_time);
        }
        let key = |model: &LoadedModel| (model.manifest().name.clone(), model.manifest().version, model.provider().to_owned());
        let loaded: BTreeSet<_> = models.iter().map(|model| key(model)).collect();
        for (name, version, provider) in shown.union(&loaded) {
            record::model(name, *version, provider, loaded.contains(&(name.clone(), *version, provider.clone())));
        }
        // What has gone was shown as gone.
        *shown = loaded;
    }
}
