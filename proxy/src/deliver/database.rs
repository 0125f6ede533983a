//! The sink that writes to a database: to our own schema, or by a platform's statements.

use super::sink::{Fault, Holding, Rest, Sink};
use crate::causes::chain;
use crate::database::{
    Access, Audit, CommitError, Committed, Database, Delivery, Error, Migrate, Source, open,
};
use crate::journal::JournalId;
use std::time::Duration;
use uuid::Uuid;

/// One writing connection, opened when it is first needed and again after every failure.
#[derive(Debug)]
pub struct DatabaseSink {
    source: Source,
    timeout: Duration,
    migrate: Migrate,
    database: Option<Database>,
}

impl DatabaseSink {
    /// A sink that opens its database when it is first asked; `timeout` bounds each statement.
    #[must_use]
    pub fn new(source: Source, timeout: Duration, migrate: Migrate) -> Self {
        Self { source, timeout, migrate, database: None }
    }

    fn database(&mut self) -> Result<&mut Database, Fault> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let mut database = open(&self.source, Access::ReadWrite, self.timeout).map_err(failed)?;
                if let Some(error) = database.migrate_or_make_do(self.migrate).map_err(failed)? {
                    tracing::warn!(
                        error = %chain(&error),
                        "the schema cannot be brought up to date; hits are delivered all the same; let somebody who \
                         may run what `holdfast migrate --print` shows"
                    );
                }
                database
            }
        };
        Ok(self.database.insert(database))
    }
}

impl Sink for DatabaseSink {
    fn holds(&mut self, journal: JournalId) -> Result<Holding, Fault> {
        let database = self.database()?;
        let held = database.held(Uuid::from_bytes(*journal.as_bytes())).map_err(failed)?;
        let booked = match database.keeps_hits() {
            true => None,
            false => {
                let known = database.journals().map_err(failed)?;
                Some(known.into_iter().map(|(uuid, _)| JournalId::from_bytes(*uuid.as_bytes())).collect())
            }
        };
        Ok(Holding { store: database.identity().uuid, held, booked })
    }

    fn take(&mut self, batch: &Delivery<'_>) -> Result<Committed, Fault> {
        self.database()?.commit(batch).map_err(|e| match e {
            CommitError::Content { reason } => Fault::Content { reason },
            CommitError::Doubled => Fault::Doubled,
            CommitError::Failed(e) => failed(e),
            CommitError::Moved { found } => Fault::Moved { found },
        })
    }

    fn count(&mut self, journal: JournalId, first: u64, last: u64) -> Result<Audit, Fault> {
        self.database()?.audit(Uuid::from_bytes(*journal.as_bytes()), first, last).map_err(failed)
    }

    /// Resting briefly, SQLite's write-ahead log is emptied: then a copy of the file alone is complete,
    /// and a file that is put in its place meets no log of the old one.
    fn rest(&mut self, rest: Rest) {
        let Some(database) = &mut self.database else { return };
        // A log that could not be emptied now is emptied later; what is wrong, the next batch says.
        let tidied = database.checkpoint();
        if rest == Rest::Long || tidied.is_err() {
            self.database = None;
        }
    }
}

fn failed(error: Error) -> Fault {
    Fault::Failed(Box::new(error))
}
