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

/// The SQL of all steps after `from` in one transaction; a file that stands elsewhere is refused. Nothing where
/// no step is missing.
pub(in super::super) fn script(from: u32) -> Option<String> {
    let missing = Some(missing(from)).filter(|missing| !missing.is_empty())?;
    let mut sql = "BEGIN IMMEDIATE;\n".to_owned();
    match from {
        // Outside of the transaction, and it stays with the file.
        0 => sql.insert_str(0, "PRAGMA journal_mode = WAL;\n"),
        from => sql.push_str(&format!(
            "CREATE TEMP TABLE printed_for (step CONSTRAINT print_this_sql_again CHECK (step = {from}));
INSERT INTO temp.printed_for SELECT value FROM main.meta WHERE key = 'schema';
DROP TABLE temp.printed_for;\n"
        )),
    }
    for step in missing {
        sql.push_str(&format!("\n{}\n\n{};\n", step.sql.trim_end(), marking(step)));
    }
    if from == 0 {
        sql.push_str(IDENTITY);
    }
    sql.push_str("\nCOMMIT;\n");
    Some(sql)
}

/// A random uuid of version 4, and the time.
const IDENTITY: &str = "\nINSERT INTO meta (key, value) VALUES
    ('uuid', lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'
        || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    ('created_at', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));\n";

/// What says that a step was taken.
fn marking(step: &Migration) -> String {
    format!(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('schema', {}), ('compatible', {})",
        step.number, step.compatible
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
    transaction.execute_batch(step.sql)?;
    transaction.execute(&marking(step), ())?;
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

    /// The SQL once lacked what marks a step as taken, and had every step whatever the file had already.
    #[test]
    fn what_is_printed_leads_from_any_step_to_the_newest() {
        for from in 0..SCHEMA {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("printed.db");
            let mut connection = Connection::open(&path).unwrap();
            for step in MIGRATIONS.iter().take(from as usize) {
                take(&mut connection, step).unwrap();
            }
            if from > 0 {
                connection.execute_batch(IDENTITY).unwrap();
            }
            connection.execute_batch(&script(from).unwrap()).unwrap();
            assert_eq!(found(&connection).unwrap(), SCHEMA, "from {from}");
            assert!(connection.execute_batch(&script(from).unwrap()).is_err(), "taken already: {from}");
            drop(connection);
            let timeout = std::time::Duration::from_secs(5);
            let mut opened = super::super::open(&path, super::super::Access::ReadWrite, timeout).unwrap();
            assert_eq!((opened.schema(), opened.migrate(Migrate::Never).unwrap()), (SCHEMA, 0));
            assert!(opened.domains(None, &mut |_| Ok(())).unwrap().is_some());
        }
        assert_eq!((script(SCHEMA), script(SCHEMA + 1)), (None, None));
    }
}
