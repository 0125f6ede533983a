//! What the journal asks of a disk, and the real one behind it.
//!
//! The trait is as small as the journal's needs and no smaller: positioned reads and writes, a sync
//! of a file, a sync of a folder, and a lock that dies with its process. Everything that can fail on
//! a real machine can fail here, so that [`sim`](super::sim) can make it fail.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file system as the journal uses it.
///
/// Nothing done to a folder (create, rename, remove) is durable before [`Disk::sync_folder`] of it
/// returned success, and nothing written to a file before [`DiskFile::sync`] did.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and those above it; one that exists is no error.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, in no particular order; names that are not UTF-8 are left out,
    /// for the journal never makes them.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a new, empty file; one that exists is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Renames within one folder, replacing what stands under the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a new lock file that is held before it can be seen under its name.
    fn create_lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Tries to hold a lock file that exists. A wrong [`Claim::Mine`] lets two processes read,
    /// compress and delete one journal; a wrong [`Claim::Theirs`] only delays its delivery.
    fn claim(&self, path: &Path) -> io::Result<Claim>;
}

/// One open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads at `offset` until `into` is full or the file ends; says how much was read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`; after an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable. After an error nothing may be assumed of any byte written
    /// since the last success, not even after a later success: the kernel forgets the failure.
    fn sync(&self) -> io::Result<()>;
    /// The length of the file.
    fn bytes(&self) -> io::Result<u64>;
    /// Drops what the page cache holds of the file, so that the next read comes from the disk.
    fn forget_cache(&self) -> io::Result<()>;
    /// Bytes shown as zeros because they could not be read; a plain file fails instead.
    fn unreadable_bytes(&self) -> u64 {
        0
    }
}

/// A lock that is held as long as the value lives.
pub trait Lock: fmt::Debug + Send + Sync {}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; used wherever another process may own the journal.
    Read,
    /// Reading, writing and syncing.
    Write,
}

/// The outcome of an attempt to hold a lock.
#[derive(Debug)]
pub enum Claim {
    /// There is no lock file: the folder is being made, or is not a journal.
    Absent,
    /// The lock is ours for as long as the value lives.
    Mine(Box<dyn Lock>),
    /// Another process, or another journal of this one, holds it.
    Theirs,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name within the folder.
    pub name: String,
    /// The length of a file; 0 for a folder.
    pub bytes: u64,
    /// Whether it is a folder.
    pub folder: bool,
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.make_folder(parent)?;
        }
        match fs::create_dir(path) {
            // Another process was quicker, unless a file stands there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Each level is made durable, for the caller syncs only the last one's parent.
        self.sync_folder(parent.unwrap_or_else(|| Path::new(".")))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(is) => entries.push(Entry { name, bytes: is.len(), folder: is.is_dir() }),
                // Compressed or removed by the process that owns it, between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(File::open(path)?)?)
    }

    fn create_lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let early = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&early)?;
        file.try_lock().map_err(io::Error::from)?;
        fs::rename(&early, path)?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn claim(&self, path: &Path) -> io::Result<Claim> {
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Absent),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(Claim::Mine(Box::new(RealLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(Claim::Theirs),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // Not `File::sync_data`: that repeats the call after EINTR, and a repeated sync proves nothing.
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}

/// The kernel's `flock`, which ends with the last handle of the process, however it dies.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl Lock for RealLock {}
