//! The model repository's folder, looked at every so often: models that were copied in are loaded, changed ones replaced, and those whose
//! folders are gone are unloaded.
//!
//! # Design
//! Digests of manifests are compared, not times, and by looking and not by notification of the file system, which network volumes and
//! swapped links do not send. A name is acted upon at the second look that finds it the same, so that a copy in progress has settled; what
//! does not load is not tried again before it changes. Requests name versions or take the highest, so that a rollout is a new folder
//! `NAME/2`, and a rollback its removal.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use crate::engine::{Engine, repository::entries};

/// Versions of a name, each with the digest of its manifest, or with what is wrong.
type Signature = BTreeMap<String, Result<String, String>>;

/// What earlier looks have found.
#[derive(Debug, Default)]
pub struct Watch {
    /// By name, at the last look.
    last: BTreeMap<String, Signature>,
    /// By name, what was acted upon last.
    done: BTreeMap<String, Signature>,
}

/// A model that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Whether it answers requests now.
    pub is_loaded: bool,
}

impl Engine {
    /// Waits for `every`, looks once, and loads and unloads what has changed since. `only` are the names to load; none means all.
    pub async fn watch(self: &Arc<Self>, watch: &mut Watch, only: &[String], every: Duration) -> Vec<Change> {
        sleep(every).await;
        let Ok(repository) = self.repository() else { return Vec::new() };
        let dir = repository.dir.clone();
        let found = match spawn_blocking(move || entries(&dir)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(%error, "the model repository cannot be read, its models stay");
                return Vec::new();
            }
            Err(_stopping) => return Vec::new(),
        };
        let mut seen: BTreeMap<String, Signature> = BTreeMap::new();
        for (folder, entry) in found.into_iter().filter(|(folder, _)| only.is_empty() || only.contains(&folder.name)) {
            seen.entry(folder.name).or_default().insert(folder.version, entry.map(|entry| entry.digest));
        }
        // A name without folders is one too: its models are to go.
        for model in self.models() {
            seen.entry(model.manifest().name.clone()).or_default();
        }
        let mut changes = Vec::new();
        for (name, signature) in &seen {
            let has_settled = watch.last.get(name) == Some(signature);
            if has_settled && watch.done.get(name) != Some(signature) && *signature != self.signature(name) {
                watch.done.insert(name.clone(), signature.clone());
                changes.extend(self.follow(name, signature).await);
            }
        }
        watch.last = seen;
        changes
    }

    /// What is loaded of a name, as a folder would show it.
    fn signature(&self, name: &str) -> Signature {
        let versions = self.versions(name).into_iter();
        versions.map(|model| (model.manifest().version.to_string(), Ok(model.digest().to_owned()))).collect()
    }

    /// Does with one name what its folders ask for.
    async fn follow(self: &Arc<Self>, name: &str, signature: &Signature) -> Option<Change> {
        if signature.is_empty() {
            let removed = self.write().by_name.remove(name);
            self.forget_answers();
            info!(model.name = %name, "model {name} was unloaded: its folder is gone");
            return removed.map(|_versions| Change { name: name.to_owned(), is_loaded: false });
        }
        let repository = self.repository().ok()?;
        let _alone = repository.loading.lock().await;
        // The reason of a failure is in the log and in the index; the old versions answer on.
        self.replace(name).await.ok()?;
        Some(Change { name: name.to_owned(), is_loaded: true })
    }
}
