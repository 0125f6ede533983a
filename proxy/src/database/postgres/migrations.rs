//! The numbered steps from an empty PostgreSQL database to the schema of this release.

use super::connection::{Connection, Talk};
use super::fault::Trouble;
use super::{Database, Error, Fault, Migrate, Migration, Settings, quoted};
use std::time::Duration;
use tokio_postgres::types::Type;

/// Every step that this release knows, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, compatible: 1, sql: include_str!("migrations/0001.sql") },
    Migration { number: 2, compatible: 1, sql: include_str!("migrations/0002.sql") },
    Migration { number: 3, compatible: 1, sql: include_str!("migrations/0003.sql") },
];

/// The schema number that this release writes.
pub(super) const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// What links and hits need. Whoever needs more says so, where it is missing and nobody may add it.
const ENOUGH: u32 = 1;

/// Taken by whoever changes the schema, whatever it is called; the number is as good as any other.
const LOCK: i64 = 7_402_118_001;
/// A step may rewrite a big table.
const STEP_MAX: Duration = Duration::from_secs(3600);

impl Database {
    /// The number of the schema that was found when this database was opened or last migrated.
    pub(in super::super) fn schema(&self) -> u32 {
        self.found
    }

    /// Whether links and hits have all they need.
    pub(in super::super) fn suffices(&self) -> bool {
        self.found >= ENOUGH
    }

    /// Takes the steps that are missing and returns how many there were.
    pub(in super::super) fn migrate(&mut self, mode: Migrate) -> Result<u32, Error> {
        let missing = MIGRATIONS.get(self.found as usize..).unwrap_or(&[]);
        if missing.is_empty() {
            return Ok(0);
        }
        if mode == Migrate::Never && self.found >= ENOUGH {
            return Ok(0);
        }
        if mode == Migrate::Never {
            let why =
                format!("its schema is {}, this release needs {SCHEMA}; run the migrations", self.found);
            return Err(Error::NotOurs(Fault::new(self.connection.name(), why)));
        }
        for step in missing {
            take(&self.connection, &self.schema, step)?;
            self.found = step.number;
        }
        Ok(missing.len() as u32)
    }
}

/// The SQL of all steps after `from`, for the schema that is configured: one transaction, which refuses a
/// database that stands elsewhere. Nothing where no step is missing.
pub(in super::super) fn script(settings: &Settings, from: u32) -> Option<String> {
    let missing = MIGRATIONS.get(from as usize..).filter(|missing| !missing.is_empty())?;
    let (name, text) = (quoted(&settings.schema), settings.schema.replace('\'', "''"));
    let refuse = "RAISE EXCEPTION 'print this SQL again: the schema is not where it was";
    let begin = match from {
        0 => format!(
            "    IF to_regclass('{0}.meta') IS NOT NULL THEN {refuse}, it is there already'; END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{text}') THEN CREATE SCHEMA {name}; END IF;",
            name.replace('\'', "''")
        ),
        from => format!(
            "    IF (SELECT value FROM {name}.meta WHERE key = 'schema') IS DISTINCT FROM '{from}' THEN
        {refuse}, at step {from}';
    END IF;"
        ),
    };
    let mut sql = format!(
        "BEGIN;\nDO $holdfast$\nBEGIN\n    PERFORM pg_advisory_xact_lock({LOCK});\n{begin}\nEND $holdfast$;\n\
         SET LOCAL statement_timeout = 0;\n\n"
    );
    for step in missing {
        let (step_sql, mark) = (written(step, &settings.schema), marking(step, &settings.schema));
        sql.push_str(&format!("{}\n\n{mark};\n\n", step_sql.trim_end()));
    }
    sql.push_str("COMMIT;\n");
    Some(sql)
}

/// What says that a step was taken.
fn marking(step: &Migration, schema: &str) -> String {
    format!(
        "INSERT INTO {0}.meta (key, value) VALUES ('uuid', gen_random_uuid()::text), ('created_at', now()::text)
    ON CONFLICT DO NOTHING;
INSERT INTO {0}.meta (key, value) VALUES ('schema', '{1}'), ('compatible', '{2}')
    ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        quoted(schema),
        step.number,
        step.compatible
    )
}

fn written(step: &Migration, schema: &str) -> String {
    step.sql.replace("@schema@", &quoted(schema))
}

/// Takes one step unless somebody else took it in the meantime.
pub(super) fn take(connection: &Connection, schema: &str, step: &Migration) -> Result<(), Error> {
    let sql = written(step, schema);
    let done = connection.transaction("", async |talk| {
        talk.execute("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
        if found(&talk, schema).await? >= step.number {
            return Ok(());
        }
        // Nobody may need the right to make schemas where an administrator made this one.
        let there =
            talk.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[(&schema, Type::TEXT)]).await?;
        if there.is_empty() {
            talk.batch(&format!("CREATE SCHEMA {}", quoted(schema))).await?;
        }
        talk.batch("SET LOCAL statement_timeout = 0").await?;
        talk.within(STEP_MAX, talk.client.batch_execute(&sql)).await?;
        talk.batch(&marking(step, schema)).await
    });
    done.map_err(|trouble| trouble.into_error(connection.name(), "taking a migration step"))
}

/// The schema's number; 0 where there is no table `meta`.
async fn found(talk: &Talk<'_>, schema: &str) -> Result<u32, Trouble> {
    let meta = format!("{}.meta", quoted(schema));
    let there = talk.one("SELECT to_regclass($1) IS NOT NULL", &[(&meta, Type::TEXT)]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    let number = talk.query(&format!("SELECT value FROM {meta} WHERE key = 'schema'"), &[]).await?;
    Ok(number.first().and_then(|row| row.get::<_, String>(0).parse().ok()).unwrap_or(0))
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
}
