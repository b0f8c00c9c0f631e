//! Where examples come from: the cache, or the photos themselves each time.
//!
//! # Design
//! With a cache the backbone runs once a photo and view; an ImageNet of examples would take a terabyte, so without one it runs in every
//! step, and every epoch sees new views.

use std::{
    collections::BTreeSet,
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use anyhow::ensure;

use crate::{
    backbone::Backbone,
    config::LiftConfig,
    data::{
        cache::{Example, make_example, read},
        photos::Photo,
        view::{View, make_view},
    },
};

/// Where examples come from.
#[derive(Debug)]
pub enum Source {
    /// Files of the cache.
    Cached(Vec<PathBuf>),
    /// Photos and the backbone.
    Live(Box<Live>),
}

/// Photos that run through the backbone each time they are wanted.
#[derive(Debug)]
pub struct Live {
    photos: Vec<Photo>,
    backbone: Backbone,
    config: LiftConfig,
    /// Photos that were reported as broken.
    reported: BTreeSet<usize>,
}

impl Source {
    /// Photos without a cache.
    #[must_use]
    pub fn live(photos: Vec<Photo>, backbone: Backbone, config: &LiftConfig) -> Self {
        Self::Live(Box::new(Live { photos, backbone, config: config.clone(), reported: BTreeSet::new() }))
    }

    /// Number of examples of an epoch.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Cached(files) => files.len(),
            Self::Live(live) => live.photos.len(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the examples with these epochs and indices. Photos that cannot be read are reported, once, and left out.
    ///
    /// # Errors
    /// When a file of the cache cannot be read, the backbone fails, or not one of the photos can be used.
    pub fn read(&mut self, picked: &[(u64, usize)]) -> anyhow::Result<Vec<Example>> {
        match self {
            Self::Cached(files) => picked.iter().filter_map(|(_, idx)| files.get(*idx)).map(|file| read(file)).collect(),
            Self::Live(live) => live.read(picked),
        }
    }
}

impl Live {
    fn read(&mut self, picked: &[(u64, usize)]) -> anyhow::Result<Vec<Example>> {
        let mut examples = Vec::with_capacity(picked.len());
        for ((_, idx), view) in picked.iter().zip(self.views(picked)) {
            let path = self.photos.get(*idx).map_or(Path::new(""), |photo| &photo.path);
            match view {
                Ok(view) => examples.push(make_example(&view, &mut self.backbone, path)?),
                Err(problem) if self.reported.insert(*idx) => eprintln!("train: {} is skipped: it {problem}", path.display()),
                Err(_reported) => {}
            }
        }
        ensure!(!examples.is_empty(), "none of the {} photos of this batch can be used", picked.len());
        Ok(examples)
    }

    /// Views, made on as many threads as there are cores.
    fn views(&self, picked: &[(u64, usize)]) -> Vec<Result<View, String>> {
        let make = |epoch: u64, idx: usize| {
            let photo = self.photos.get(idx).ok_or("is not there")?;
            make_view(&photo.path, &photo.digest, u32::try_from(epoch).unwrap_or(u32::MAX), &self.config)
        };
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = picked.len().div_ceil(n_threads).max(1);
        thread::scope(|scope| {
            let make_all = |part: &'_ [(u64, usize)]| part.iter().map(|(epoch, idx)| make(*epoch, *idx)).collect::<Vec<_>>();
            let threads: Vec<_> = picked.chunks(share).map(|part| (part.len(), scope.spawn(move || make_all(part)))).collect();
            let lost = |n: usize| (0..n).map(|_| Err("broke the decoder".to_owned())).collect();
            threads.into_iter().flat_map(|(n, thread)| thread.join().unwrap_or_else(|_panic| lost(n))).collect()
        })
    }
}
