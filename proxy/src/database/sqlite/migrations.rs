//! The numbered steps from an empty file to the schema of this release.

use super::{Database, Error, Migrate, Migration};
use rusqlite::{Connection, TransactionBehavior};

/// Every step that this release knows, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, compatible: 1, sql: include_str!("migrations/0001.sql") },
    Migration { number: 2, compatible: 1, sql: include_str!("migrations/0002.sql") },
];

/// The schema number that this release writes.
pub(super) const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// What links and hits need. Whoever needs more does without where it is missing.
const ENOUGH: u32 = 1;

impl Database {
    /// The number of the schema that was found when this database was opened or last migrated.
    #[must_use]
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// Whether links and hits have all they need.
    pub(in super::super) fn suffices(&self) -> bool {
        self.schema >= ENOUGH
    }

    /// Takes the steps that are missing and returns how many there were.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when steps are missing and `mode` is [`Migrate::Never`]; otherwise as any write.
    pub fn migrate(&mut self, mode: Migrate) -> Result<u32, Error> {
        let missing = missing(self.schema);
        if missing.is_empty() {
            return Ok(0);
        }
        if mode == Migrate::Never && self.schema >= ENOUGH {
            return Ok(0);
        }
        if mode == Migrate::Never {
            let why =
                format!("its schema is {}, this release needs {SCHEMA}; run the migrations", self.schema);
            return Err(Error::not_ours_file(&self.path, why));
        }
        self.check_identity()?;
        for step in missing {
            self.deadline.arm();
            take(&mut self.connection, step)
                .map_err(|e| Error::of(&self.path, "taking a migration step", e))?;
            self.schema = step.number;
        }
        Ok(missing.len() as u32)
    }
}

/// What takes the steps after `found` one by one.
pub(in super::super) fn steps(found: u32) -> Vec<String> {
    let whole = |step: &Migration| {
        let sql = written(step);
        match step.number {
            1 => format!("PRAGMA journal_mode = WAL;\nBEGIN IMMEDIATE;\n{sql}\n{BORN}\nCOMMIT;"),
            _ => format!("BEGIN IMMEDIATE;\n{sql}\nCOMMIT;"),
        }
    };
    missing(found).iter().map(whole).collect()
}

/// What a new file is told of itself; each part of the number is random.
const BORN: &str = "INSERT INTO meta (key, value)
    SELECT 'uuid', lower(printf('%s-%s-4%s-8%s-%s', hex(randomblob(4)), hex(randomblob(2)),
        substr(hex(randomblob(2)), 2), substr(hex(randomblob(2)), 2), hex(randomblob(6))))
    UNION ALL SELECT 'created_at', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);";

/// A step, and the note that it was taken.
fn written(step: &Migration) -> String {
    let Migration { number, compatible, sql } = step;
    format!(
        "{sql}\nINSERT OR REPLACE INTO meta (key, value) VALUES ('schema', {number}), ('compatible', {compatible});"
    )
}

fn missing(schema: u32) -> &'static [Migration] {
    MIGRATIONS.get(schema as usize..).unwrap_or(&[])
}

/// Takes one step unless somebody else took it in the meantime.
pub(super) fn take(connection: &mut Connection, step: &Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found(&transaction)? >= step.number {
        return Ok(());
    }
    transaction.execute_batch(&written(step))?;
    transaction.commit()
}

/// The schema's number; 0 where there is no table `meta`.
fn found(connection: &Connection) -> rusqlite::Result<u32> {
    let meta = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta')";
    if !connection.query_row(meta, (), |row| row.get::<_, bool>(0))? {
        return Ok(0);
    }
    connection.query_row("SELECT value FROM meta WHERE key = 'schema'", (), |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_a_hole() {
        for (index, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.number as usize, index + 1);
            assert!(step.compatible <= step.number);
        }
    }

    #[test]
    fn a_step_is_taken_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS {
            take(&mut connection, step).unwrap();
            take(&mut connection, step).unwrap();
        }
        assert_eq!(found(&connection).unwrap(), SCHEMA);
    }
}
