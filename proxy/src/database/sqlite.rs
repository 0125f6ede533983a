//! A database in one SQLite file, shared with the command line and the platform.
//!
//! Invariants:
//! - Opening never creates a database; only [`create`] does, and never over something that is there.
//! - Every operation first holds the open file against its path: a file that was replaced, moved or
//!   emptied is [`Error::Replaced`], never an empty answer. A complete load checks again at its end.
//! - The database file is never opened by other means than SQLite: closing any other handle of it
//!   would drop the POSIX locks of all connections of this process.

mod books;
mod deadline;
mod domains;
mod hits;
mod links;
mod migrations;
mod open;

#[cfg(test)]
mod tests;

pub(super) use migrations::script;
pub use open::{create, open};

use super::books::{Audit, BatchRow, Held};
use super::domains::{DomainRow, DomainsSeen, EachDomain, Unread};
use super::error::{Error, Fault};
use super::hits::{COLUMNS, CommitError, Committed, Delivery, Hit, KnownJournal, Refusal, Twice};
use super::links::{Each, ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, Watermark};
use super::migrations::{Migrate, Migration};
use super::text::{self, escape};
use super::{Access, Changes, Identity, Place};
use deadline::Deadline;
use open::{FileId, Sidecars};
use rusqlite::{Connection, ErrorCode, ffi};
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

impl Error {
    /// Sorts an error of SQLite by what the caller must do.
    fn of(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let sort = match &source {
            rusqlite::Error::SqliteFailure(e, _) | rusqlite::Error::SqlInputError { error: e, .. } => sort(e),
            // Columns of a type or content that our schema does not allow: somebody changed it.
            _ => Self::NotOurs,
        };
        sort(Fault::new(name(path), doing).because(source))
    }

    fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Unavailable(Fault::new(name(path), doing).because(source))
    }

    fn not_ours_file(path: &Path, why: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::NotOurs(Fault::new(name(path), why))
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
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
