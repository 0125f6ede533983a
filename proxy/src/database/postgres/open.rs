//! Connecting to the first server that will do, and recognising what it holds.

use super::connection::{Connection, Talk};
use super::fault::Trouble;
use super::foreign::settle;
use super::migrations::{MIGRATIONS, SCHEMA, take};
use super::settings::{Pooler, Settings};
use super::{Access, Database, Error, Fault, Identity, Place, quoted};
use std::time::Duration;
use tokio_postgres::types::Type;
use uuid::Uuid;

/// The first PostgreSQL with 64-bit transaction numbers in its snapshots.
const VERSION_MIN: i32 = 130_000;

/// What is asked of a server before it is used.
struct Server {
    recovering: bool,
    place: Place,
    tables: i64,
}

/// Makes the schema in a database that has none.
pub(in super::super) fn create(settings: &Settings, timeout: Duration) -> Result<Database, Error> {
    let (connection, server) = connect(settings, timeout)?;
    if server.tables > 0 {
        let what = format!("to be created: schema {} has tables already", settings.schema);
        return Err(Error::Refused(Fault::new(connection.name(), what)));
    }
    for step in MIGRATIONS {
        take(&connection, &settings.schema, step)?;
    }
    let server = look(settings, &connection)?;
    recognise(settings, connection, server)
}

/// Whether the schema is there, complete or not.
pub(in super::super) fn exists(settings: &Settings, timeout: Duration) -> Result<bool, Error> {
    connect(settings, timeout).map(|(_, server)| server.tables > 0)
}

/// Opens a database whose schema this release can use.
pub(in super::super) fn open(
    settings: &Settings,
    access: Access,
    timeout: Duration,
) -> Result<Database, Error> {
    let (connection, server) = connect(settings, timeout)?;
    if access == Access::ReadOnly && settings.pooler == Pooler::None {
        connection.run("setting it up", async |talk| {
            talk.batch("SET SESSION default_transaction_read_only = on").await
        })?;
    }
    recognise(settings, connection, server)
}

/// The first server that answers and will do; the last one's fault where none does.
fn connect(settings: &Settings, timeout: Duration) -> Result<(Connection, Server), Error> {
    // Each thread has one job, and holds one connection for it.
    let thread = std::thread::current();
    let role = thread.name().unwrap_or("holdfast");
    let mut fault = None;
    for candidate in settings.candidates(role, timeout) {
        let connected = Connection::open(&candidate, settings.to_string(), timeout, settings.pooler)
            .and_then(|connection| look(settings, &connection).map(|server| (connection, server)));
        match connected {
            Ok((connection, server)) if server.recovering && settings.wants_writes() => {
                let what = "opening it (the server is a standby; a primary was asked for)";
                fault = Some(Error::Unavailable(Fault::new(connection.name(), what)));
            }
            Ok(found) => return Ok(found),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault
        .unwrap_or_else(|| Error::Unavailable(Fault::new(settings.to_string(), "opening it: no server"))))
}

/// Sets the session up and asks what server this is.
fn look(settings: &Settings, connection: &Connection) -> Result<Server, Error> {
    if settings.pooler == Pooler::None {
        // A hit that was reported as delivered survives the server's crash; what asks for more stays.
        let synchronous = "SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
        connection.run("setting it up", async |talk| {
            talk.batch(&format!("{}; {synchronous}", talk.bounds("SESSION"))).await
        })?;
    }
    let not_ours = |why: String| Error::NotOurs(Fault::new(connection.name(), why));
    let (version, encoding, recovering, database) = connection.run("asking what it is", async |talk| {
        let sql = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'),
                 pg_is_in_recovery(), (SELECT oid::int8 FROM pg_database WHERE datname = current_database())";
        let row = talk.one(sql, &[]).await?;
        Ok((row.get::<_, i32>(0), row.get::<_, String>(1), row.get::<_, bool>(2), row.get::<_, i64>(3)))
    })?;
    if version < VERSION_MIN {
        return Err(not_ours(format!("PostgreSQL {} is too old, 13 is needed", version / 10_000)));
    }
    if encoding != "UTF8" {
        return Err(not_ours(format!("its encoding is {encoding}; make the database with ENCODING 'UTF8'")));
    }
    let tables = connection.run("asking what it is", async |talk| {
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = $1
             AND tablename IN ('meta', 'links', 'journals', 'hits', 'cursors', 'batches', 'rejected')";
        Ok(talk.one(sql, &[(&settings.schema, Type::TEXT)]).await?.get::<_, i64>(0))
    })?;
    let (system, timeline) = place(connection, recovering)?;
    Ok(Server { recovering, place: Place::Server { system, timeline, database: database as u64 }, tables })
}

/// The cluster's number and its timeline, which a promotion changes.
///
/// A hosted server may refuse to tell; then the address is all that tells one server from another.
fn place(connection: &Connection, recovering: bool) -> Result<(u64, u64), Error> {
    let ask = async |talk: &Talk<'_>, sql: &str| match talk.one(sql, &[]).await {
        Ok(row) => Ok(row.get::<_, i64>(0) as u64),
        Err(trouble) if trouble.ends_connection() => Err(trouble),
        Err(_) => Ok(0),
    };
    let timeline = match recovering {
        true => "SELECT timeline_id::int8 FROM pg_control_checkpoint()",
        false => "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8",
    };
    connection.run("asking which server it is", async |talk| {
        let system = ask(&talk, "SELECT system_identifier FROM pg_control_system()").await?;
        Ok::<_, Trouble>((system, ask(&talk, timeline).await?))
    })
}

/// Reads whose database this is, and of which schema.
fn recognise(settings: &Settings, connection: Connection, server: Server) -> Result<Database, Error> {
    let not_ours = |why: String| Err(Error::NotOurs(Fault::new(connection.name(), why)));
    let schema = &settings.schema;
    match server.tables {
        0 => {
            return not_ours(format!(
                "it has no schema {schema} with Holdfast's tables; a new one is made by `holdfast migrate --create`, one that moved is restored"
            ));
        }
        1..7 => {
            return not_ours(format!(
                "schema {schema} lacks some of Holdfast's tables: is it being restored?"
            ));
        }
        _ => {}
    }
    let meta = connection.run("reading what it is", async |talk| {
        let sql = format!("SELECT key, value FROM {}.meta", quoted(schema));
        let rows = talk.query(&sql, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, String)>>())
    })?;
    let value = |key: &str| meta.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let Some(Ok(uuid)) = value("uuid").map(Uuid::parse_str) else {
        return not_ours(format!("{schema}.meta holds no identity: is it being restored?"));
    };
    let number = |key: &str| value(key).and_then(|value| value.parse::<u32>().ok());
    let (Some(found), Some(compatible)) = (number("schema"), number("compatible")) else {
        return not_ours(format!("{schema}.meta holds no schema number: is it being restored?"));
    };
    if compatible > SCHEMA {
        return not_ours(format!(
            "its schema {found} is for releases that know {compatible}, this one knows {SCHEMA}"
        ));
    }
    if settings.reading.is_some() || !settings.statements.is_empty() {
        connection.run("setting it up", async |talk| settle(&talk, schema).await)?;
    }
    Ok(Database {
        identity: Identity { uuid, place: server.place },
        recovering: server.recovering,
        schema: schema.clone(),
        found,
        tables: quoted(schema),
        watch: super::changes::Watch::default(),
        lookup: None,
        reading: settings.reading.clone(),
        statements: settings.statements.clone(),
        known: super::foreign::Known::default(),
        connection,
    })
}
