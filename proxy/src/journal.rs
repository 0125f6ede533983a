//! The append log on local disk: opaque bytes get a sequence, become durable, and are read back.
//!
//! Invariants:
//! - `synced` is acknowledged only after a sync that covers the record returned success, `written`
//!   only after the write did. After a failed write or sync that file is never trusted beyond its
//!   last good sync; what came later is written again, under the same sequences, to a new segment.
//! - A record's identity is (journal id, sequence), fixed when the committer takes it in. Sequences
//!   of one journal run from 1 without gaps; order comes from them and never from a clock.
//! - Readers see synced records only, so what was read once can be read again after any crash.
//! - A byte that was synced is never written again, nor is the block of the disk that it lies in.
//! - Damage costs exactly the damaged records: it is reported as a range of sequences, the file is
//!   kept, and everything else is read.
//! - Memory, queues and disk are bounded by [`Config`]; a slow or full disk makes [`Stager::stage`]
//!   refuse, it never makes it wait.
//!
//! The journal does not know what a record means, who waits for an acknowledgement, or where
//! records are delivered to. The format on disk and every crash point are in `docs/journal.md`.

pub mod disk;
pub mod frame;
pub mod inspect;
pub mod sealed;
pub mod segment;
pub mod sim;

mod committer;
mod lenient;
mod live;
mod read;
mod recover;
mod retain;
mod shared;
mod shelf;
mod stager;
mod status;
mod tail;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use crate::event::UnixMillis;
use disk::Disk;
use shared::Shared;
use writer::Writer;

pub use committer::Committer;
pub use read::{Filled, ReadError, Reader, Records};
pub use recover::Report;
pub use retain::{Mill, Tended};
pub use shelf::{Cause, Gap, Summary};
pub use stager::{Acknowledged, Refusal, Stager};
pub use status::{Reason, State, Stats, Status};

/// The random name of a journal, new at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalId([u8; 16]);

impl JournalId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

impl FromStr for JournalId {
    type Err = NotAnId;

    /// Reads the hyphenated, lower-case form and no other, for it is also the name of a folder.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = uuid::Uuid::try_parse(text).map(|uuid| Self(*uuid.as_bytes())).map_err(|_| NotAnId)?;
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

/// A text that is no journal id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a journal id (lower-case hyphenated uuid)")
    }
}

impl std::error::Error for NotAnId {}

/// A record's place in its journal; the first is 1, and 0 stands for "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom a record's bytes are counted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// The number of a stager's batch: 1, 2, 3, …; 0 stands for "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(pub u64);

/// When the committer syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After every group, before anything of it is acknowledged: survives power loss.
    Power,
    /// At least every [`Config::sync_every`]; acknowledged when written: survives `kill -9`.
    Process,
}

/// The journal's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the journals of this edge lie, each in a folder named by its id.
    pub folder: PathBuf,
    /// When the committer syncs.
    pub mode: Mode,
    /// The size of a segment that the mill prepares.
    pub segment_bytes: u64,
    /// Prepared segments kept ready: what still fits when the disk is full.
    pub spare_segments: u32,
    /// What all journals of this edge may take on disk.
    pub bytes_max: u64,
    /// How long records are kept after every sink has them.
    pub retain: Duration,
    /// In [`Mode::Process`], the longest time between a write and its sync.
    pub sync_every: Duration,
    /// The longest record.
    pub record_bytes_max: u32,
    /// What one stager may hold that the committer has not taken.
    pub staged_bytes_max: usize,
    /// What the committer holds until it is synced.
    pub unsynced_bytes_max: usize,
    /// In [`Mode::Power`], the shortest time between the starts of two group commits under load.
    pub pace: Duration,
    /// The block of the disk: bytes that may change when a neighbour in it is written.
    pub block_bytes: u32,
}

impl Config {
    /// The defaults, for journals in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            mode: Mode::Power,
            segment_bytes: 64 << 20,
            spare_segments: 2,
            bytes_max: 16 << 30,
            retain: Duration::from_secs(7 * 24 * 60 * 60),
            sync_every: Duration::from_secs(1),
            record_bytes_max: 64 << 10,
            staged_bytes_max: 8 << 20,
            unsynced_bytes_max: 32 << 20,
            pace: Duration::ZERO,
            block_bytes: 4096,
        }
    }

    /// The first setting that can't work, if any.
    fn fault(&self) -> Option<OpenError> {
        let frame_bytes = frame::frame_bytes(self.record_bytes_max as usize);
        let block_bytes = u64::from(self.block_bytes);
        let least = 2 * block_bytes + (frame_bytes as u64).next_multiple_of(block_bytes);
        let refuse = |setting, found, allowed| Some(OpenError::Setting { setting, found, allowed });
        if !self.block_bytes.is_power_of_two() || self.block_bytes < 256 {
            return refuse("block_bytes", block_bytes, "a power of two, at least 256".to_owned());
        }
        if self.record_bytes_max == 0 || self.record_bytes_max > frame::RECORD_BYTES_CAP {
            let allowed = format!("1 to {}", frame::RECORD_BYTES_CAP);
            return refuse("record_bytes_max", u64::from(self.record_bytes_max), allowed);
        }
        if self.segment_bytes < least || self.segment_bytes > segment::SEGMENT_BYTES_CAP {
            let allowed = format!("{least} to {}", segment::SEGMENT_BYTES_CAP);
            return refuse("segment_bytes", self.segment_bytes, allowed);
        }
        if self.staged_bytes_max < frame_bytes {
            return refuse(
                "staged_bytes_max",
                self.staged_bytes_max as u64,
                format!("at least {frame_bytes}"),
            );
        }
        if self.unsynced_bytes_max < self.staged_bytes_max {
            let allowed = format!("at least staged_bytes_max ({})", self.staged_bytes_max);
            return refuse("unsynced_bytes_max", self.unsynced_bytes_max as u64, allowed);
        }
        None
    }
}

/// Everything that opening a journal gives.
#[derive(Debug)]
pub struct Opened {
    /// The handle that everyone else uses.
    pub journal: Journal,
    /// The life of the committer's thread.
    pub committer: Committer,
    /// The slow work: older journals, spare segments, compression, retention.
    pub mill: Mill,
}

/// Opens a new journal under `id` in the configured folder.
///
/// Older journals are not read here, so that a start is quick whatever they hold: the first
/// [`Mill::tend`] recovers them. A disk that is full or fails is no error either: the journal
/// starts degraded and heals by itself.
///
/// # Errors
/// When the settings contradict each other, the name of the edge is too long, or the folder can't
/// be made or written at all.
pub fn open(
    config: Config,
    disk: Arc<dyn Disk>,
    id: JournalId,
    edge: &str,
    now: UnixMillis,
) -> Result<Opened, OpenError> {
    let (shared, writer) = open_parts(config, disk, id, edge, now)?;
    Ok(Opened {
        journal: Journal { shared: Arc::clone(&shared) },
        committer: Committer::new(writer, now),
        mill: Mill::new(shared, now),
    })
}

fn open_parts(
    config: Config,
    disk: Arc<dyn Disk>,
    id: JournalId,
    edge: &str,
    now: UnixMillis,
) -> Result<(Arc<Shared>, Writer), OpenError> {
    if let Some(fault) = config.fault() {
        return Err(fault);
    }
    if edge.len() > segment::EDGE_BYTES_MAX {
        let allowed = format!("at most {} bytes", segment::EDGE_BYTES_MAX);
        return Err(OpenError::Setting { setting: "edge", found: edge.len() as u64, allowed });
    }
    let shared = Arc::new(Shared::new(config, disk, id, edge.to_owned(), now));
    let mut writer = Writer::new(Arc::clone(&shared));
    if let Err(cause) = writer.start(now)
        && is_refused(&cause)
    {
        return Err(OpenError::folder(&shared.config.folder, cause));
    }
    Ok((shared, writer))
}

/// Whether an error says that we may not write here, which waiting will not change.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

/// Why a journal can't be opened; all of it is for people to mend.
#[derive(Debug)]
pub enum OpenError {
    /// The folder can't be made or written.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the disk said.
        cause: io::Error,
    },
    /// A setting can't work.
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        found: u64,
        /// What it may be.
        allowed: String,
    },
}

impl OpenError {
    fn folder(folder: &Path, cause: io::Error) -> Self {
        Self::Folder { folder: folder.to_owned(), cause }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { folder, .. } => write!(f, "can't write journals in {}", folder.display()),
            Self::Setting { setting, found, allowed } => {
                write!(f, "journal setting {setting} is {found}, allowed: {allowed}")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { cause, .. } => Some(cause),
            Self::Setting { .. } => None,
        }
    }
}

/// A handle to the journal of this process and to the older ones beside it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl Journal {
    /// A staging buffer for one data thread. `wake` is called by the committer's thread after each
    /// acknowledgement; it must be quick, and may be called without news.
    #[must_use]
    pub fn stager(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Stager {
        Stager::new(&self.shared, wake)
    }

    /// How the journal is.
    #[must_use]
    pub fn status(&self) -> Status {
        status::of(&self.shared)
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// The journals known so far, oldest first, the one of this process last.
    #[must_use]
    pub fn journals(&self) -> Vec<Summary> {
        self.shared.shelf().summaries(self.shared.synced.load(Acquire))
    }

    /// Reads the records of a journal after `after`, from its own position.
    ///
    /// # Errors
    /// When the journal is not known, or no longer.
    pub fn reader(&self, id: JournalId, after: Sequence) -> Result<Reader, ReadError> {
        Reader::new(&self.shared, id, after)
    }

    /// Names the sinks that must have a record before it may expire. Until this was called with at
    /// least one, nothing expires.
    pub fn declare_sinks(&self, sinks: &[String]) {
        self.shared.shelf().declare_sinks(sinks);
    }

    /// Says that `sink` durably holds everything of a journal up to `through`. It may go back, when
    /// a database was restored; records that have not yet expired are then kept for it again.
    pub fn delivered(&self, id: JournalId, sink: &str, through: Sequence, _now: UnixMillis) {
        self.shared.shelf().delivered(id, sink, through);
    }

    /// The bytes on disk of a tag's records.
    #[must_use]
    pub fn usage(&self, tag: Tag) -> u64 {
        self.shared.shelf().usage(tag)
    }

    /// The bytes on disk of a tag's records that some sink does not have yet, to the nearest segment.
    #[must_use]
    pub fn undelivered(&self, tag: Tag) -> u64 {
        self.shared.shelf().undelivered(tag)
    }

    /// Lets the committer write, sync and seal what was flushed, and return; staging is refused
    /// from now on.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Release);
        self.shared.bell.ring();
    }
}
