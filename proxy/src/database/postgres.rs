//! A database in a PostgreSQL server, in a schema of our own.
//!
//! Invariants:
//! - Opening never creates anything; only [`super::create`] does, and migrations as far as they are allowed.
//! - No call waits for the server longer than its bound, whatever server and network do.
//! - Changes are told by the server's own transaction numbers: what is given as the place to go on
//!   from never passes the oldest transaction that still writes.
//! - Hits go in by one binary COPY under the cursor, with the server's own promise of durability or more.

mod books;
mod changes;
mod connection;
mod copy;
mod domains;
mod fault;
mod foreign;
mod hits;
mod links;
mod migrations;
mod open;
mod orders;
mod settings;
mod tls;
mod value;

#[cfg(test)]
mod tests;

pub use foreign::Reading;
pub(super) use migrations::script;
pub(super) use open::{create, exists, open};
pub use settings::{ADDRESS, AddressFault, Pooler, Settings, masked};

use super::books::{Audit, BatchRow, Held};
use super::domains::{DomainRow, DomainsSeen, EachDomain, Unread};
use super::error::{Error, Fault};
use super::hits::{COLUMNS, CommitError, Committed, Delivery, Hit, KnownJournal, Reject, Twice};
use super::links::{Each, ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, Watermark};
use super::migrations::{Migrate, Migration};
use super::text::{self, escape};
use super::{Access, Changes, Identity, Place};
use connection::Connection;
use tokio_postgres::Statement;

/// One open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    identity: Identity,
    /// A standby: its snapshots do not name the transactions that still run.
    recovering: bool,
    schema: String,
    /// The schema's number as it was found.
    found: u32,
    /// The schema's name as it stands in statements.
    tables: String,
    watch: changes::Watch,
    lookup: Option<Statement>,
    /// The platform's own tables, where links are read from those.
    reading: Option<Reading>,
    /// What writes hits into the platform's own tables; our own `hits` where there is nothing.
    statements: Vec<String>,
    known: foreign::Known,
}

impl Database {
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn keeps_hits(&self) -> bool {
        self.statements.is_empty()
    }
}

/// A name as it stands in statements.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
