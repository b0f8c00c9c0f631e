//! Values that are made of small files, certificates and tokens, and made anew when the files' contents change.
//!
//! # Design
//! Contents are compared, not times: volumes of Kubernetes swap a symbolic link, and certificate tools write files in place. A look costs
//! a read of a few kilobytes every half minute. Contents that make no value leave the one before in force; they are reported once.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use thiserror::Error;
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

/// Why a value could not be made.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// A file cannot be read.
    #[error("cannot read {} ({key})", .file.display())]
    Read {
        /// The configuration key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files hold something else.
    #[error("cannot use {} ({key}): {problem}", .file.display())]
    Content {
        /// The configuration key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A file and the configuration key that names it.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    pub(super) key: &'static str,
    pub(super) file: PathBuf,
}

impl NamedFile {
    /// An error about its contents.
    pub(super) fn problem(&self, problem: impl fmt::Display) -> ReloadError {
        ReloadError::Content { key: self.key, file: self.file.clone(), problem: problem.to_string() }
    }

    fn read(&self) -> Result<Vec<u8>, ReloadError> {
        fs::read(&self.file).map_err(|source| ReloadError::Read { key: self.key, file: self.file.clone(), source })
    }
}

/// Makes a value of the contents of the files.
type Make<T> = Box<dyn Fn(&[NamedFile], &[Vec<u8>]) -> Result<T, ReloadError> + Send + Sync>;

/// A value in force, and how to make the next one.
pub(super) struct Reloaded<T> {
    what: &'static str,
    files: Vec<NamedFile>,
    make: Make<T>,
    current: RwLock<Arc<T>>,
    /// What the files held at the last look.
    seen: Mutex<Vec<Vec<u8>>>,
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("what", &self.what).field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Makes the first value.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub(super) fn open(what: &'static str, files: Vec<NamedFile>, make: Make<T>) -> Result<Self, ReloadError> {
        let contents = files.iter().map(NamedFile::read).collect::<Result<Vec<_>, _>>()?;
        let current = RwLock::new(Arc::new(make(&files, &contents)?));
        Ok(Self { what, files, make, current, seen: Mutex::new(contents) })
    }

    /// The value in force.
    pub(super) fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files once.
    pub(super) fn look(&self) {
        match self.changed() {
            Ok(false) => {}
            Ok(true) => info!(what = self.what, "reloaded the {}", self.what),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(what = self.what, error, "the {} cannot be reloaded, the old ones stay in force", self.what);
            }
        }
    }

    fn changed(&self) -> Result<bool, ReloadError> {
        let contents = self.files.iter().map(NamedFile::read).collect::<Result<Vec<_>, _>>()?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == contents {
                return Ok(false);
            }
            seen.clone_from(&contents);
        }
        let value = Arc::new((self.make)(&self.files, &contents)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(true)
    }

    /// Looks every `every_s` seconds, as long as somebody has the value; 0 is never.
    pub(super) fn watch(self: &Arc<Self>, every_s: u64) {
        if every_s == 0 {
            return;
        }
        let watched = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(every_s)).await;
                let Some(own) = watched.upgrade() else { return };
                let _panicked = spawn_blocking(move || own.look()).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn number(files: &[NamedFile], contents: &[Vec<u8>]) -> Result<u32, ReloadError> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.trim().parse().map_err(|error| files[0].problem(error))
    }

    #[test]
    fn new_contents_come_into_force_and_bad_ones_leave_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        let named = || vec![NamedFile { key: "some.key", file: file.clone() }];
        let missing = Reloaded::open("numbers", named(), Box::new(number)).unwrap_err();
        assert!(missing.to_string().contains("some.key"), "{missing}");
        fs::write(&file, "x").unwrap();
        assert!(matches!(Reloaded::open("numbers", named(), Box::new(number)), Err(ReloadError::Content { .. })));
        fs::write(&file, "1").unwrap();
        let reloaded = Reloaded::open("numbers", named(), Box::new(number)).unwrap();
        for (contents, expected) in [(Some("2"), 2), (Some("nonsense"), 2), (None, 2), (Some("3"), 3)] {
            match contents {
                Some(contents) => fs::write(&file, contents).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            reloaded.look();
            assert_eq!(*reloaded.current(), expected, "after {contents:?}");
        }
    }
}
