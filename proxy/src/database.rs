//! The database of links and hits: SQLite in one file, or PostgreSQL, behind one set of calls.
//!
//! Invariants, whatever the database:
//! - Opening never creates anything; only [`create`] does.
//! - Hits, rejected hits, the `batches` row and the cursor are written in one transaction, and the
//!   cursor only moves from the value that the batch started from.
//! - Every wait for a lock and every statement ends after the timeout given to [`open()`]; a load may
//!   take longer as long as it gives rows.
//! - After an error the connection may be of no more use; whoever holds it drops it and opens anew.
//!
//! All calls block; they belong on control-side threads. What a token leads to, and when to ask
//! again, is decided elsewhere.

mod books;
mod domains;
mod error;
mod hits;
mod links;
mod migrations;
pub mod postgres;
mod source;
pub mod sqlite;
mod text;

#[cfg(test)]
pub(crate) mod tests;

pub use books::{Audit, BatchRow, Held};
pub use domains::{DomainRow, DomainsSeen, Unread};
pub use error::{Error, Fault};
pub use hits::{CommitError, Committed, Delivery, Hit, KnownJournal, Refusal, Reject, Twice};
pub use links::{Changes, ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, Watermark};
pub use migrations::Migrate;
pub use source::Source;
pub use text::{escape, unescape};

use crate::event::UnixMillis;
use domains::EachDomain;
use links::Each;
use std::time::Duration;
use uuid::Uuid;

/// How long making a database may wait for a slow disk or server.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads and look-ups.
    ReadOnly,
    /// Imports and delivery too.
    ReadWrite,
}

/// Which database this is, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Chosen at random when the database was created; a copy or backup keeps it.
    pub uuid: Uuid,
    /// The same database in another place is a copy of it.
    pub place: Place,
}

/// Where a database lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File {
        /// The file system that it is on.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// A server.
    Server {
        /// The number that its cluster got when it was made; a physical copy keeps it.
        system: u64,
        /// What a promotion or a restore to a point in time adds one to.
        timeline: u64,
        /// The database's number there.
        database: u64,
    },
}

/// One open connection. Dropping it closes it.
#[derive(Debug)]
pub enum Database {
    /// To a SQLite file.
    Sqlite(Box<sqlite::Database>),
    /// To a PostgreSQL server.
    Postgres(Box<postgres::Database>),
}

/// Makes a new database with an identity of its own.
///
/// # Errors
/// [`Error::Refused`] when there is one already.
pub fn create(source: &Source, now: UnixMillis) -> Result<Database, Error> {
    match source {
        Source::Sqlite(path) => sqlite::create(path, now).map(Box::new).map(Database::Sqlite),
        Source::Postgres(settings) => {
            postgres::create(settings, CREATE_TIMEOUT).map(Box::new).map(Database::Postgres)
        }
    }
}

/// The number of the step that the schema of `source` is at; 0 where there is nothing of it yet.
///
/// # Errors
/// As [`open()`]: [`Error::Missing`] and [`Error::Unavailable`] where nobody can be asked.
pub fn standing(source: &Source, timeout: Duration) -> Result<u32, Error> {
    let is_there = match source {
        Source::Sqlite(path) => path.metadata().map_or(true, |file| file.len() > 0),
        Source::Postgres(settings) => postgres::exists(settings, timeout)?,
    };
    if !is_there {
        return Ok(0);
    }
    match open(&source.bare(), Access::ReadOnly, timeout)? {
        Database::Sqlite(database) => Ok(database.schema()),
        Database::Postgres(database) => Ok(database.schema()),
    }
}

/// The SQL that leads from step `from` of the schema to that of this release, in one transaction; nothing where
/// it is there. A database that is at another step refuses it.
#[must_use]
pub fn script(source: &Source, from: u32) -> Option<String> {
    match source {
        Source::Sqlite(_) => sqlite::script(from),
        Source::Postgres(settings) => postgres::script(settings, from),
    }
}

/// Whether there is something under that name that [`create`] must leave alone.
///
/// # Errors
/// When nobody can be asked.
pub fn exists(source: &Source) -> Result<bool, Error> {
    match source {
        Source::Sqlite(path) => Ok(path.exists()),
        Source::Postgres(settings) => postgres::exists(settings, CREATE_TIMEOUT),
    }
}

/// Opens a database that is there, of a schema that this release can use.
///
/// # Errors
/// [`Error::Missing`] where there is none, which is not created; [`Error::NotOurs`] where it is
/// empty or somebody else's; [`Error::Unavailable`] where it does not answer within `timeout`.
pub fn open(source: &Source, access: Access, timeout: Duration) -> Result<Database, Error> {
    match source {
        Source::Sqlite(path) => sqlite::open(path, access, timeout).map(Box::new).map(Database::Sqlite),
        Source::Postgres(settings) => {
            postgres::open(settings, access, timeout).map(Box::new).map(Database::Postgres)
        }
    }
}

/// Does the same with whichever database it is.
macro_rules! each {
    ($self:ident, $database:ident => $do:expr) => {
        match $self {
            Self::Sqlite($database) => $do,
            Self::Postgres($database) => $do,
        }
    };
}

impl Database {
    /// Which database this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        each!(self, database => database.identity())
    }

    /// Whether hits go into our own table, and not into a platform's by its statements.
    #[must_use]
    pub fn keeps_hits(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(database) => database.keeps_hits(),
        }
    }

    /// As [`Self::migrate`], for who needs links and hits only: a step that cannot be taken, for lack of a right
    /// perhaps, is given back instead of failing where the schema is enough for them.
    ///
    /// # Errors
    /// As [`Self::migrate`], where nothing works without the step.
    pub fn migrate_or_make_do(&mut self, mode: Migrate) -> Result<Option<Error>, Error> {
        match self.migrate(mode) {
            Ok(_) => Ok(None),
            Err(error) if each!(self, database => database.suffices()) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Takes the steps of the schema that are missing and returns how many there were.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when steps are missing and `mode` is [`Migrate::Never`]; otherwise as any write.
    pub fn migrate(&mut self, mode: Migrate) -> Result<u32, Error> {
        each!(self, database => database.migrate(mode))
    }

    /// Tidies up while nothing is to be written, without making anybody wait; returns whether all of
    /// it is tidy now.
    ///
    /// # Errors
    /// As any write.
    pub fn checkpoint(&mut self) -> Result<bool, Error> {
        match self {
            Self::Sqlite(database) => database.checkpoint(),
            // The server tidies up by itself.
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Tries every statement that the configuration gives for a platform's own tables without doing it,
    /// and says of each what is wrong with it.
    pub fn try_statements(&mut self) -> Vec<Error> {
        match self {
            Self::Sqlite(_) => Vec::new(),
            Self::Postgres(database) => database.try_statements(),
        }
    }

    /// Whether the database announced a change since the last [`Self::changed`]; takes a millisecond at
    /// most. One that announces nothing, SQLite among them, never does.
    #[must_use]
    pub fn announced(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(database) => database.announced(),
        }
    }

    /// Whether anybody else wrote to the database since the last call; true at the first.
    ///
    /// # Errors
    /// As any read.
    pub fn changed(&mut self) -> Result<bool, Error> {
        each!(self, database => database.changed())
    }

    /// Gives every link, tombstones included, as of one moment, in any order.
    ///
    /// # Errors
    /// Whatever went wrong: then what was given is not complete and must be thrown away.
    pub fn load(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        each!(self, database => database.load(each))
    }

    /// Gives every link that is not deleted, in the order of namespace and token.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn export(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        each!(self, database => database.export(each))
    }

    /// Gives the links that changed after `after`, `rows_max` at most; a link may come again.
    ///
    /// # Errors
    /// As [`Self::load`]; where to go on is then still `after`.
    pub fn changes(
        &mut self,
        after: Watermark,
        rows_max: u32,
        each: &mut Each<'_>,
    ) -> Result<Changes, Error> {
        each!(self, database => database.changes(after, rows_max, each))
    }

    /// One link, or its tombstone.
    ///
    /// # Errors
    /// As any read.
    pub fn lookup(&mut self, namespace: &[u8], token: &[u8]) -> Result<Option<OwnedLinkRow>, Error> {
        each!(self, database => database.lookup(namespace, token))
    }

    /// The links of one token in all namespaces, tombstones included.
    ///
    /// # Errors
    /// As any read.
    pub fn show(&mut self, token: &[u8]) -> Result<Vec<OwnedLinkRow>, Error> {
        each!(self, database => database.show(token))
    }

    /// Writes some links in one transaction: new ones are inserted, different ones updated. Doing
    /// it again changes nothing.
    ///
    /// # Errors
    /// As any write; nothing of the chunk is then in the database.
    pub fn import(&mut self, chunk: &[OwnedLinkRow]) -> Result<ImportedChunk, Error> {
        each!(self, database => database.import(chunk))
    }

    /// Gives every customer's domain, tombstones included, in the order of hosts, and what to ask next time;
    /// none of either where nothing changed since `seen`.
    ///
    /// # Errors
    /// [`Unread`] says whether the rest of the database is concerned; what was given is then not complete. It
    /// may take longer than the timeout as long as rows come.
    pub fn domains(
        &mut self,
        seen: Option<&DomainsSeen>,
        each: &mut EachDomain<'_>,
    ) -> Result<Option<DomainsSeen>, Unread> {
        each!(self, database => database.domains(seen, each))
    }

    /// Writes some domains in one transaction, each host once: new ones are inserted, different ones updated.
    /// Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotOurs`] where the schema is older than domains; otherwise as any write. Nothing of the chunk is
    /// then in the database.
    pub fn import_domains(&mut self, chunk: &[DomainRow]) -> Result<ImportedChunk, Error> {
        each!(self, database => database.import_domains(chunk))
    }

    /// Writes one batch, all of it or nothing, durable when this returns.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(&mut self, delivery: &Delivery<'_>) -> Result<Committed, CommitError> {
        each!(self, database => database.commit(delivery))
    }

    /// What is here of a journal.
    ///
    /// # Errors
    /// As any read.
    pub fn held(&mut self, journal: Uuid) -> Result<Held, Error> {
        each!(self, database => database.held(journal))
    }

    /// The journals that were ever delivered here: uuid and edge.
    ///
    /// # Errors
    /// As any read.
    pub fn journals(&mut self) -> Result<Vec<(Uuid, String)>, Error> {
        each!(self, database => database.journals())
    }

    /// Counts what is there of a stretch of a journal, both ends included.
    ///
    /// # Errors
    /// As any read.
    pub fn audit(&mut self, journal: Uuid, first: u64, last: u64) -> Result<Audit, Error> {
        each!(self, database => database.audit(journal, first, last))
    }

    /// Gives the sequences of a journal in `hits` above `after` in rising order, `rows_max` at most.
    ///
    /// # Errors
    /// As any read.
    pub fn hit_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        each!(self, database => database.hit_sequences(journal, after, rows_max, out))
    }

    /// As [`Self::hit_sequences`], of `rejected`.
    ///
    /// # Errors
    /// As any read.
    pub fn reject_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        each!(self, database => database.reject_sequences(journal, after, rows_max, out))
    }

    /// Takes the order of a name's certificate for `edge`, for the time of `lease` by the database's clock,
    /// unless another edge has it; whether `edge` has it now.
    ///
    /// # Errors
    /// As any write. A file has one edge, which has every name.
    pub fn take_order(&mut self, name: &str, edge: &str, lease: Duration) -> Result<bool, Error> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(database) => database.take_order(name, edge, lease),
        }
    }

    /// Gives a name back that `edge` took.
    ///
    /// # Errors
    /// As any write.
    pub fn release_order(&mut self, name: &str, edge: &str) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(database) => database.release_order(name, edge),
        }
    }

    /// What an edge left last for `name`, sealed.
    ///
    /// # Errors
    /// As any read.
    pub fn shared_certificate(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(database) => database.shared_certificate(name),
        }
    }

    /// Leaves a sealed certificate for the other edges, under a name that was taken.
    ///
    /// # Errors
    /// As any write.
    pub fn share_certificate(&mut self, name: &str, sealed: &[u8]) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(database) => database.share_certificate(name, sealed),
        }
    }

    /// The batch that accounts for a sequence; of several, the one that begins last.
    ///
    /// # Errors
    /// As any read.
    pub fn batch_of(&mut self, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        each!(self, database => database.batch_of(journal, sequence))
    }

    /// The first batch that begins after a sequence.
    ///
    /// # Errors
    /// As any read.
    pub fn batch_after(&mut self, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        each!(self, database => database.batch_after(journal, sequence))
    }
}
