//! Files that are read again when they change, so that tokens and keys can be rotated while the process runs.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

/// The minimum time between two checks of a file.
const LOOK: Duration = Duration::from_millis(500);

/// A file of tokens or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{setting} = {path}: cannot read the file; name one that is readable text")]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its content is invalid.
    #[error("{setting} = {path}: {why}")]
    Refused {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        why: &'static str,
    },
}

/// A file and its content when it was last read successfully.
pub struct Watched<T> {
    setting: &'static str,
    path: PathBuf,
    read: fn(&str) -> Result<T, &'static str>,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    value: Arc<T>,
    stamp: Stamp,
    looked: Instant,
}

/// What distinguishes two versions of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(metadata),
        }
    }
}

impl<T> Watched<T> {
    /// The file that a setting names, if it names one.
    ///
    /// # Errors
    /// If it cannot be read, or its content is invalid.
    pub fn open(
        setting: &'static str,
        path: &Option<PathBuf>,
        read: fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<Self>, FileError> {
        let Some(path) = path else { return Ok(None) };
        let (value, stamp) = load(setting, path, read)?;
        let held = Held { value: Arc::new(value), stamp, looked: Instant::now() };
        Ok(Some(Self { setting, path: path.clone(), read, held: Mutex::new(held) }))
    }

    /// The content of the file; while it cannot be read, its previous content.
    pub fn get(&self) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= LOOK {
            held.looked = Instant::now();
            let stamp = std::fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata));
            if stamp.as_ref().ok() != Some(&held.stamp) {
                self.reload(&mut held);
            }
        }
        held.value.clone()
    }

    fn reload(&self, held: &mut Held<T>) {
        match load(self.setting, &self.path, self.read) {
            Ok((value, stamp)) => {
                info!(setting = self.setting, "reloaded the file");
                (held.value, held.stamp) = (Arc::new(value), stamp);
            }
            Err(error) => warn!(
                "the previous content of the file stays in use: {}",
                crate::error::chain(&error)
            ),
        }
    }
}

fn load<T>(
    setting: &'static str,
    path: &Path,
    read: fn(&str) -> Result<T, &'static str>,
) -> Result<(T, Stamp), FileError> {
    let shown = || format!("{path:?}");
    let unreadable = |source| FileError::Unreadable { setting, path: shown(), source };
    // The stamp first: a file that changes meanwhile is then read once more.
    let stamp = Stamp::of(&std::fs::metadata(path).map_err(unreadable)?);
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let value = read(&text).map_err(|why| FileError::Refused { setting, path: shown(), why })?;
    Ok((value, stamp))
}
