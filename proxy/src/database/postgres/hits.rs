//! The writing side: hits, what was rejected, the cursor and the batch's row, in one transaction.

use super::connection::Talk;
use super::copy::Writer;
use super::fault::{Trouble, said};
use super::foreign::{accounted, batch_table, hand_over, settle_within};
use super::settings::Pooler;
use super::text::push_object;
use super::value::Moment;
use super::{COLUMNS, CommitError, Committed, Database, Delivery, Hit, KnownJournal, Reject, Twice, escape};
use crate::event::Captures;
use bytes::Bytes;
use futures_util::SinkExt as _;
use std::pin::pin;
use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;

/// Rows for which the server has the time of one statement, for a slow one takes a batch longer.
const ROWS_PER_TIMEOUT: usize = 4096;
/// Bytes handed to the connection at once.
const PIECE_BYTES: usize = 128 * 1024;
/// Longest time, in statements', for the rows that are still on their way when the last was sent.
const LAST_ROWS: u32 = 4;
/// Taken by whoever gives a journal its number.
const NUMBERS_LOCK: i64 = 7_402_118_002;
/// How a primary key is named; partitions name theirs after themselves.
const KEY_SUFFIX: &str = "_pkey";
/// Classes of SQLSTATE that blame the server, the connection, the schema or the statement, where every
/// hit would fare the same; any other blames the rows, whoever's trigger or constraint it comes from.
const NOT_THE_ROWS: [&str; 25] = [
    "00", "01", "02", "08", "0A", "0B", "0L", "0P", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D",
    "3F", "40", "42", "53", "55", "57", "58", "XX",
];

/// Why a batch is not written, where the connection is sound.
enum Verdict {
    Content(String),
    /// A primary key of the platform's has the value already.
    KeyTaken(Box<DbError>),
    Doubled,
    Moved(Option<u64>),
}

/// Why writing ended.
enum Ended {
    Verdict(Verdict),
    Trouble(Trouble),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Database {
    pub(in super::super) fn commit(&mut self, delivery: &Delivery<'_>) -> Result<Committed, CommitError> {
        let tables = &self.tables;
        let done = self.connection.try_run(async |talk| {
            talk.begin("").await?;
            let ended = match write(&talk, tables, &self.schema, &self.statements, delivery).await {
                Ok(committed) => match talk.batch("COMMIT").await {
                    Ok(()) => return Ok(Ok(committed)),
                    // A constraint may be put off until now.
                    Err(trouble) => blame(trouble, &self.statements, delivery.twice),
                },
                Err(ended) => ended,
            };
            match ended {
                Ended::Trouble(trouble) if trouble.ends_connection() => Err(trouble),
                Ended::Trouble(trouble) => {
                    talk.batch("ROLLBACK").await?;
                    Err(trouble)
                }
                Ended::Verdict(verdict) => {
                    talk.batch("ROLLBACK").await?;
                    match verdict {
                        Verdict::KeyTaken(error) => key_taken(&talk, &error).await.map(Err),
                        verdict => Ok(Err(verdict)),
                    }
                }
            }
        });
        match done {
            Ok(Ok(committed)) => Ok(committed),
            Ok(Err(Verdict::Content(reason))) => Err(CommitError::Content { reason }),
            Ok(Err(Verdict::KeyTaken(error))) => Err(CommitError::Content { reason: said(&error) }),
            Ok(Err(Verdict::Doubled)) => Err(CommitError::Doubled),
            Ok(Err(Verdict::Moved(found))) => Err(CommitError::Moved { found }),
            Err(trouble) => Err(CommitError::Failed(
                trouble.into_error(self.connection.name(), "writing a batch of hits"),
            )),
        }
    }
}

async fn write(
    talk: &Talk<'_>,
    tables: &str,
    schema: &str,
    statements: &[String],
    delivery: &Delivery<'_>,
) -> Result<Committed, Ended> {
    if !statements.is_empty() {
        settle_within(talk, schema).await?;
    }
    if talk.pooler() == Pooler::Transaction {
        let durable = "SELECT set_config('synchronous_commit', 'on', true)
             WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
        talk.query(durable, &[]).await?;
    }
    let journal = move_cursor(talk, tables, delivery).await?;
    if delivery.last < delivery.first {
        return Ok(Committed::default());
    }
    // Left by an earlier delivery of the same span whose cursor was lost.
    talk.execute(
        &format!("DELETE FROM {tables}.rejected WHERE journal = $1 AND sequence BETWEEN $2 AND $3"),
        &[
            (&journal, Type::INT4),
            (&(delivery.first as i64), Type::INT8),
            (&(delivery.last as i64), Type::INT8),
        ],
    )
    .await?;
    let rows = match insert(talk, tables, statements, journal, delivery).await {
        Ok(rows) => rows,
        Err(trouble) => return Err(blame(trouble, statements, delivery.twice)),
    };
    for rejected in delivery.rejects {
        reject(talk, tables, journal, rejected).await?;
    }
    talk.execute(
        &format!(
            "INSERT INTO {tables}.batches (journal, first, last, rows, rejected, at) VALUES ($1, $2, $3, $4, $5, $6)"
        ),
        &[
            (&journal, Type::INT4),
            (&(delivery.first as i64), Type::INT8),
            (&(delivery.last as i64), Type::INT8),
            (&(rows as i64), Type::INT8),
            (&(delivery.rejects.len() as i64), Type::INT8),
            (&Moment(delivery.at), Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(Committed { rows, skipped: delivery.hits.len() as u64 - rows, refused: Vec::new() })
}

/// Moves the cursor if it is where it is expected, and returns the journal's small number.
async fn move_cursor(talk: &Talk<'_>, tables: &str, delivery: &Delivery<'_>) -> Result<i32, Ended> {
    let journal = match number(talk, tables, &delivery.journal).await? {
        Some(journal) => journal,
        None => register(talk, tables, &delivery.journal).await?,
    };
    let last = delivery.last as i64;
    let moved = match delivery.expected {
        Some(expected) => {
            let sql =
                format!("UPDATE {tables}.cursors SET sequence = $3 WHERE journal = $1 AND sequence = $2");
            let expected = expected as i64;
            talk.execute(&sql, &[(&journal, Type::INT4), (&expected, Type::INT8), (&last, Type::INT8)])
                .await?
        }
        None => {
            let sql = format!(
                "INSERT INTO {tables}.cursors (journal, sequence) VALUES ($1, $2) ON CONFLICT DO NOTHING"
            );
            talk.execute(&sql, &[(&journal, Type::INT4), (&last, Type::INT8)]).await?
        }
    };
    if moved == 1 {
        return Ok(journal);
    }
    let sql = format!("SELECT sequence FROM {tables}.cursors WHERE journal = $1");
    let found = talk.query(&sql, &[(&journal, Type::INT4)]).await?;
    Err(Ended::Verdict(Verdict::Moved(found.first().map(|row| row.get::<_, i64>(0) as u64))))
}

async fn number(talk: &Talk<'_>, tables: &str, journal: &KnownJournal<'_>) -> Result<Option<i32>, Trouble> {
    let sql = format!("SELECT id FROM {tables}.journals WHERE uuid = $1::uuid");
    let rows = talk.query(&sql, &[(&journal.uuid.to_string(), Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Gives a journal a number that nothing in the database has, even where `journals` lost rows.
async fn register(talk: &Talk<'_>, tables: &str, journal: &KnownJournal<'_>) -> Result<i32, Trouble> {
    talk.execute("SELECT pg_advisory_xact_lock($1)", &[(&NUMBERS_LOCK, Type::INT8)]).await?;
    if let Some(known) = number(talk, tables, journal).await? {
        return Ok(known);
    }
    let highest =
        |column: &str, table: &str| format!("coalesce((SELECT max({column}) FROM {tables}.{table}), 0)");
    let sql = format!(
        "INSERT INTO {tables}.journals (id, uuid, edge, opened_at)
         VALUES (1 + greatest({}, {}, {}, {}, {}), $1::uuid, $2, $3) RETURNING id",
        highest("id", "journals"),
        highest("journal", "hits"),
        highest("journal", "cursors"),
        highest("journal", "rejected"),
        highest("journal", "batches"),
    );
    let row = talk
        .one(
            &sql,
            &[
                (&journal.uuid.to_string(), Type::TEXT),
                (&journal.edge, Type::TEXT),
                (&Moment(journal.opened_at), Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(row.get(0))
}

/// All rows by one COPY: straight into the table, or, where some may be there or a platform's
/// statements take them, by way of `batch`.
async fn insert(
    talk: &Talk<'_>,
    tables: &str,
    statements: &[String],
    journal: i32,
    delivery: &Delivery<'_>,
) -> Result<u64, Trouble> {
    if delivery.hits.is_empty() {
        return Ok(0);
    }
    let columns = COLUMNS.join(", ");
    let stretches = u32::try_from(1 + delivery.hits.len() / ROWS_PER_TIMEOUT).unwrap_or(u32::MAX);
    let limit = talk.timeout().saturating_mul(stretches);
    talk.batch(&format!("SET LOCAL statement_timeout = {}", limit.as_millis().min(i32::MAX as u128))).await?;
    if !statements.is_empty() {
        // Nothing but our books tells a row that the platform has already.
        let there = accounted(talk, tables, journal, delivery.first, delivery.last).await?;
        let mut new = delivery.hits.iter().filter(|hit| !there.contains(hit.sequence)).peekable();
        if new.peek().is_none() {
            return Ok(0);
        }
        talk.batch(&batch_table(tables)).await?;
        let rows = copy(talk, &format!("pg_temp.batch ({columns})"), journal, new).await?;
        hand_over(talk, statements, limit).await?;
        return Ok(rows);
    }
    let hits = delivery.hits.iter();
    match delivery.twice {
        Twice::Refuse => copy(talk, &format!("{tables}.hits ({columns})"), journal, hits).await,
        Twice::Skip => {
            talk.batch(&batch_table(tables)).await?;
            copy(talk, &format!("pg_temp.batch ({columns})"), journal, hits).await?;
            let sql = format!(
                "INSERT INTO {tables}.hits ({columns}) SELECT {columns} FROM pg_temp.batch
                 ON CONFLICT (journal, sequence) DO NOTHING"
            );
            talk.within(limit, talk.client.execute_typed(&sql, &[])).await
        }
    }
}

async fn copy<'h>(
    talk: &Talk<'_>,
    into: &str,
    journal: i32,
    hits: impl Iterator<Item = &'h Hit<'h>>,
) -> Result<u64, Trouble> {
    let sql = format!("COPY {into} FROM STDIN (FORMAT binary)");
    let mut rows = pin!(talk.bounded(talk.client.copy_in::<_, Bytes>(&sql)).await?);
    let mut writer = Writer::new(PIECE_BYTES + 64 * 1024);
    let mut scratch = String::new();
    for hit in hits {
        encode(&mut writer, journal, hit, &mut scratch);
        if writer.len() >= PIECE_BYTES {
            talk.bounded(rows.send(writer.take())).await?;
        }
    }
    writer.end();
    talk.bounded(rows.send(writer.take())).await?;
    talk.within(talk.timeout().saturating_mul(LAST_ROWS), rows.finish()).await
}

/// One row; the order is that of [`COLUMNS`].
fn encode(row: &mut Writer, journal: i32, hit: &Hit<'_>, scratch: &mut String) {
    let event = &hit.event;
    row.row(COLUMNS.len());
    row.field(&journal.to_be_bytes());
    row.field(&(hit.sequence as i64).to_be_bytes());
    row.field(&Moment(hit.at).micros().to_be_bytes());
    row.field(escape(event.host).as_bytes());
    row.field(escape(event.site).as_bytes());
    row.field(escape(event.namespace).as_bytes());
    row.field(event.kind.label().as_bytes());
    row.field(escape(event.token).as_bytes());
    row.field(escape(event.campaign).as_bytes());
    scratch.clear();
    push_object(scratch, Captures(event.captures));
    row.field(scratch.as_bytes());
    row.field(escape(event.query).as_bytes());
    row.field(event.method.label().as_bytes());
    row.field(&(event.status as i16).to_be_bytes());
    row.field(event.outcome.label().as_bytes());
    row.field(event.class.label().as_bytes());
    row.field(escape(event.url).as_bytes());
    encode_address(row, event.address);
    row.field(escape(event.user_agent).as_bytes());
    row.field(escape(event.referrer).as_bytes());
    row.field(event.verdict.label().as_bytes());
}

/// An `inet` of one host, or null: family, bits of the mask, whether it is a network, length, bytes.
fn encode_address(row: &mut Writer, address: &[u8]) {
    let (family, bits) = match address.len() {
        4 => (2, 32),
        16 => (3, 128),
        _ => return row.null(),
    };
    let mut inet = [0; 20];
    inet[..4].copy_from_slice(&[family, bits, 0, address.len() as u8]);
    inet[4..4 + address.len()].copy_from_slice(address);
    row.field(&inet[..4 + address.len()]);
}

async fn reject(talk: &Talk<'_>, tables: &str, journal: i32, rejected: &Reject<'_>) -> Result<(), Trouble> {
    let sql = format!(
        "INSERT INTO {tables}.rejected (journal, sequence, at, reason, event) VALUES ($1, $2, $3, $4, $5)"
    );
    let parameters: &[super::connection::Parameter<'_>] = &[
        (&journal, Type::INT4),
        (&(rejected.sequence as i64), Type::INT8),
        (&Moment(rejected.at), Type::TIMESTAMPTZ),
        (&escape(rejected.reason.as_bytes()), Type::TEXT),
        (&rejected.payload, Type::BYTEA),
    ];
    talk.execute(&sql, parameters).await.map(drop)
}

/// Whose fault it was that rows were refused.
fn blame(trouble: Trouble, statements: &[String], twice: Twice) -> Ended {
    let Trouble::Failed(failed) = &trouble else { return Ended::Trouble(trouble) };
    let Some(error) = failed.as_db_error() else { return Ended::Trouble(trouble) };
    let code = error.code().code();
    if code == "23505" && error.constraint().is_some_and(|name| name.ends_with(KEY_SUFFIX)) {
        if !statements.is_empty() {
            return Ended::Verdict(Verdict::KeyTaken(Box::new(error.clone())));
        }
        if twice == Twice::Refuse {
            return Ended::Verdict(Verdict::Doubled);
        }
    }
    if NOT_THE_ROWS.iter().any(|class| code.starts_with(class)) {
        return Ended::Trouble(trouble);
    }
    Ended::Verdict(Verdict::Content(said(error)))
}

/// Tells a row that a platform's key refuses from a sequence that gives numbers which rows have already:
/// with that, every hit would be refused.
async fn key_taken(talk: &Talk<'_>, error: &DbError) -> Result<Verdict, Trouble> {
    let sql = "SELECT EXISTS (SELECT FROM pg_constraint AS key
             JOIN pg_attribute AS part ON part.attrelid = key.conrelid AND part.attnum = ANY (key.conkey)
             LEFT JOIN pg_attrdef AS given ON given.adrelid = part.attrelid AND given.adnum = part.attnum
             WHERE key.conrelid = to_regclass(quote_ident($1) || '.' || quote_ident($2)) AND key.conname = $3
             AND (part.attidentity <> '' OR pg_get_expr(given.adbin, given.adrelid) LIKE 'nextval(%'))";
    let names = [error.schema(), error.table(), error.constraint()].map(Option::unwrap_or_default);
    let numbered = talk.one(sql, &names.each_ref().map(|name| (name as _, Type::TEXT))).await?;
    if numbered.get(0) {
        let [schema, table, _] = names;
        return Err(Trouble::Unfit(format!(
            "the next number for {schema}.{table} is taken already: its sequence is behind the rows, as after a \
             logical replication or a restore in pieces; set it on with setval ({})",
            said(error)
        )));
    }
    Ok(Verdict::Content(said(error)))
}
