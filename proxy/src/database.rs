//! The database of links and hits: SQLite in one file, shared with the command line and the platform.
//!
//! Invariants:
//! - Opening never creates a database; only [`create`] does, and never over something that is there.
//! - Every operation first holds the open file against its path: a file that was replaced, moved or
//!   emptied is [`Error::Replaced`], never an empty answer. A complete load checks again at its end.
//! - The database file is never opened by other means than SQLite: closing any other handle of it
//!   would drop the POSIX locks of all connections of this process.
//! - Hits, rejected hits, the `batches` row and the cursor are written in one transaction, and the
//!   cursor only moves from the value that the batch started from.
//! - Every wait for a lock and every statement ends after the timeout given to [`open()`]; a load may
//!   take longer as long as it gives rows.
//!
//! All calls block; they belong on control-side threads. What a token leads to, and when to ask
//! again, is decided elsewhere.

mod books;
mod deadline;
mod hits;
mod links;
mod migrations;
mod open;
mod text;

#[cfg(test)]
mod tests;

pub use books::{Audit, BatchRow, Held};
pub use hits::{CommitError, Committed, Delivery, Hit, KnownJournal, Refusal, Reject, Twice};
pub use links::{ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, Watermark};
pub use migrations::{MIGRATIONS, Migrate, Migration, SCHEMA};
pub use open::{Access, Identity, create, open};
pub use text::{escape, unescape};

use deadline::Deadline;
use open::{FileId, Sidecars};
use rusqlite::{Connection, ErrorCode, ffi};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// One open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    deadline: Deadline,
    path: PathBuf,
    file: FileId,
    sidecars: Sidecars,
    uuid: Uuid,
    schema: u32,
    /// SQLite's `data_version` at the last [`Database::changed`].
    version_seen: Option<i64>,
}

impl Database {
    /// Ends the statement that runs on this connection from another thread; it fails with
    /// [`Error::Unavailable`].
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.connection.get_interrupt_handle())
    }

    /// Moves the write-ahead log into the database file and empties it, unless that would have to
    /// wait for anybody; returns whether it is empty now.
    ///
    /// # Errors
    /// As any write.
    pub fn checkpoint(&mut self) -> Result<bool, Error> {
        self.check_identity()?;
        let result = self.checkpoint_at_once();
        let restored = self.connection.busy_timeout(self.deadline.timeout());
        result
            .and_then(|empty| restored.map(|()| empty))
            .map_err(|e| self.error("moving the log into the file", e))
    }

    fn checkpoint_at_once(&self) -> rusqlite::Result<bool> {
        self.deadline.arm();
        self.connection.busy_timeout(std::time::Duration::ZERO)?;
        let busy =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, bool>(0));
        match busy {
            Ok(busy) => Ok(!busy),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn error(&self, doing: &'static str, source: rusqlite::Error) -> Error {
        Error::of(&self.path, doing, source)
    }
}

/// See [`Database::interrupter`].
pub struct Interrupter(rusqlite::InterruptHandle);

impl Interrupter {
    /// Ends the running statement; nothing happens where none runs.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupter")
    }
}

/// Why a database did not do what it was asked, divided by what the caller must do.
#[derive(Debug)]
pub enum Error {
    /// The bytes of the file contradict themselves: alarm, restore it.
    Corrupt(Fault),
    /// There is no file: a wrong path, or it was moved while closed. Alarm, try again slowly.
    Missing(Fault),
    /// The file is no database that this release can use: another program's, no schema, a schema
    /// that is too new or not migrated, or one that somebody changed. Alarm, an operator acts.
    NotOurs(Fault),
    /// What was to be written is not acceptable; writing the same again is refused again.
    Refused(Fault),
    /// The open file is not what stands under its path any more. Close every connection to it, then
    /// open again and take a new complete load through the guard.
    Replaced(Fault),
    /// The callback asked to stop; what was given so far is not complete.
    Stopped,
    /// Locked, out of time, interrupted, out of disk, unreadable: try again later.
    Unavailable(Fault),
}

/// The file, what is wrong with it or was being done, and the cause.
#[derive(Debug)]
pub struct Fault {
    path: PathBuf,
    what: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn not_ours(path: &Path, why: impl Into<Cow<'static, str>>) -> Self {
        Self::NotOurs(Fault { path: path.into(), what: why.into(), source: None })
    }

    fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Unavailable(Fault { path: path.into(), what: doing.into(), source: Some(Box::new(source)) })
    }

    /// Sorts an error of SQLite by what the caller must do.
    fn of(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let sort = match &source {
            rusqlite::Error::SqliteFailure(e, _) | rusqlite::Error::SqlInputError { error: e, .. } => sort(e),
            // Columns of a type or content that our schema does not allow: somebody changed it.
            _ => Self::NotOurs,
        };
        sort(Fault { path: path.into(), what: doing.into(), source: Some(Box::new(source)) })
    }
}

fn sort(error: &ffi::Error) -> fn(Fault) -> Error {
    match (error.code, error.extended_code) {
        (_, ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA) => {
            Error::Corrupt
        }
        (_, ffi::SQLITE_READONLY_DBMOVED) => Error::Replaced,
        (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => Error::Corrupt,
        (ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch, _) => Error::Refused,
        (ErrorCode::Unknown | ErrorCode::NotFound | ErrorCode::ApiMisuse, _) => Error::NotOurs,
        _ => Error::Unavailable,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(fault) => {
                write!(f, "database {} is damaged, found while {}", fault.path.display(), fault.what)
            }
            Self::Missing(fault) => write!(f, "database {} does not exist", fault.path.display()),
            Self::NotOurs(fault) => {
                write!(
                    f,
                    "database {} is not one that this release can use: {}",
                    fault.path.display(),
                    fault.what
                )
            }
            Self::Refused(fault) => write!(f, "database {} refused {}", fault.path.display(), fault.what),
            Self::Replaced(fault) => write!(f, "database {} {}", fault.path.display(), fault.what),
            Self::Stopped => f.write_str("reading the database was stopped"),
            Self::Unavailable(fault) => {
                write!(f, "database {} can't be used now, found while {}", fault.path.display(), fault.what)
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stopped => None,
            Self::Corrupt(fault)
            | Self::Missing(fault)
            | Self::NotOurs(fault)
            | Self::Refused(fault)
            | Self::Replaced(fault)
            | Self::Unavailable(fault) => match &fault.source {
                Some(source) => Some(source.as_ref()),
                None => None,
            },
        }
    }
}
