//! The data folder: made when it is missing, owned by one process at a time.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::front::sockets::{self, SocketError, TakenOver};

/// How long a new program waits for the lock that the old one has just let go.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The folder of one edge, locked.
///
/// The lock is the kernel's: it ends with the process, so `kill -9` leaves nothing to clean up.
#[derive(Debug)]
pub(super) struct DataFolder {
    pub(super) path: PathBuf,
    lock: Option<File>,
}

/// Why the data folder cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// Another edge runs on it.
    Busy(PathBuf),
    /// It cannot be made, opened or locked.
    Io(PathBuf, io::Error),
    /// The edge that runs on it does not hand over.
    HandOver(SocketError),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(path) => write!(
                f,
                "another edge runs on the data folder {}; stop it, or take over from it with --takeover",
                path.display()
            ),
            Self::Io(path, _) => write!(f, "cannot use the data folder {} (`data`)", path.display()),
            Self::HandOver(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FolderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Busy(_) => None,
            Self::Io(_, error) => Some(error),
            Self::HandOver(error) => error.source(),
        }
    }
}

impl DataFolder {
    /// Opens and locks the folder, taking over from a running edge when that is asked for.
    pub(super) fn open(path: &Path, takeover: bool) -> Result<(Self, Option<TakenOver>), FolderError> {
        let io = |error| FolderError::Io(path.to_owned(), error);
        for part in [path, &path.join("journal"), &path.join("links")] {
            fs::create_dir_all(part).map_err(io)?;
        }
        let mut folder = Self { path: path.to_owned(), lock: None };
        let taken = if takeover { sockets::take_over(path).map_err(FolderError::HandOver)? } else { None };
        let mut waited = Duration::ZERO;
        while !folder.lock().map_err(io)? {
            if taken.is_none() || waited > LOCK_WAIT {
                return Err(FolderError::Busy(path.to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
            waited += Duration::from_millis(10);
        }
        Ok((folder, taken))
    }

    /// Takes the lock; false when another process has it.
    pub(super) fn lock(&mut self) -> io::Result<bool> {
        let file =
            File::options().create(true).write(true).truncate(false).open(self.path.join("edge.lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.lock = Some(file);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the lock go: another process takes over.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Whether this process has the folder.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let (mut first, _) = DataFolder::open(&data, false).unwrap();
        assert!(matches!(DataFolder::open(&data, false), Err(FolderError::Busy(_))));
        first.unlock();
        assert!(DataFolder::open(&data, true).is_ok(), "nobody answers, nobody holds it: an ordinary start");
    }
}
