//! Where examples come from: the cache, or the photos themselves each time.
//!
//! # Design
//! With a cache the backbone runs once a photo and view; an ImageNet of examples would take a terabyte, so without one it runs in every
//! step, and every epoch sees new views.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::ensure;

use crate::{
    backbone::Backbone,
    config::LiftConfig,
    data::{
        cache::{Example, make_example, read},
        photos::Photo,
        threads::make_all,
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

    fn views(&self, picked: &[(u64, usize)]) -> Vec<Result<View, String>> {
        let make = |(epoch, idx): &(u64, usize)| {
            let photo = self.photos.get(*idx).ok_or("is not there")?;
            make_view(&photo.path, &photo.digest, u32::try_from(*epoch).unwrap_or(u32::MAX), &self.config)
        };
        let views = make_all(picked, make).into_iter();
        views.map(|view| view.unwrap_or_else(|| Err("broke the decoder".to_owned()))).collect()
    }
}
