//! The writing side: hits, what was rejected, the cursor and the batch's row, in one transaction.

use super::text::{push_address, push_object};
use super::{COLUMNS, CommitError, Committed, Database, Delivery, Hit, KnownJournal, Refusal, Twice, escape};
use crate::event::Captures;
use rusqlite::{ErrorCode, OptionalExtension as _, Statement, Transaction, TransactionBehavior, ffi};
use std::sync::LazyLock;

/// Rows of one INSERT statement. More of them spare steps of SQLite's machine; beyond ten or so
/// nothing more is gained (measured: 256 k rows/s with 1, 325 k with 10, 304 k with 40).
const ROWS_PER_INSERT: usize = 16;
/// Rows between two restarts of the deadline, which holds for any such stretch.
const ROWS_PER_DEADLINE: usize = 1024;

impl Database {
    /// Writes one batch, all of it or nothing, durable when this returns.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(&mut self, delivery: &Delivery<'_>) -> Result<Committed, CommitError> {
        self.begin().map_err(CommitError::Failed)?;
        let plainly = self.transact(delivery, &mut insert_plainly);
        let outcome = match plainly {
            // One bad row ends a plain insert; which one it is, the second, slower way finds out.
            Err(Trouble::Content(_)) => self.transact(delivery, &mut insert_carefully),
            other => other,
        };
        outcome.map_err(|trouble| match trouble {
            Trouble::Content(reason) => CommitError::Content { reason },
            Trouble::Doubled => CommitError::Doubled,
            Trouble::Moved(found) => CommitError::Moved { found },
            Trouble::Failed(e) => CommitError::Failed(self.error("a batch of hits", e)),
        })
    }

    /// The transaction around one way of inserting.
    fn transact(&mut self, delivery: &Delivery<'_>, insert: &mut Insert<'_>) -> Result<Committed, Trouble> {
        self.deadline.arm();
        let arm = || self.deadline.arm();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let journal = move_cursor(&transaction, delivery)?;
        if delivery.last < delivery.first {
            transaction.commit()?;
            return Ok(Committed::default());
        }
        // Left by an earlier delivery of the same span whose cursor was lost.
        transaction.execute(
            "DELETE FROM rejected WHERE journal = ?1 AND sequence BETWEEN ?2 AND ?3",
            (journal, delivery.first as i64, delivery.last as i64),
        )?;
        let (rows, refused) = insert(&Inserting { transaction: &transaction, journal, delivery, arm: &arm })?;
        arm();
        reject(&transaction, journal, delivery, &refused)?;
        let rejected = (refused.len() + delivery.rejects.len()) as u64;
        transaction.prepare_cached("INSERT INTO batches (journal, first, last, rows, rejected, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
            journal,
            delivery.first as i64,
            delivery.last as i64,
            rows as i64,
            rejected as i64,
            delivery.at.0 as i64,
        ))?;
        arm();
        transaction.commit()?;
        let skipped = delivery.hits.len() as u64 - rows - refused.len() as u64;
        Ok(Committed { rows, skipped, refused })
    }
}

type Insert<'a> = dyn FnMut(&Inserting<'_>) -> Result<(u64, Vec<Refusal>), Trouble> + 'a;

/// What the two ways of inserting need.
struct Inserting<'a> {
    transaction: &'a Transaction<'a>,
    journal: i64,
    delivery: &'a Delivery<'a>,
    arm: &'a dyn Fn(),
}

/// Why a transaction ended, before the database's name is added.
#[derive(Debug)]
enum Trouble {
    Content(String),
    Doubled,
    Failed(rusqlite::Error),
    Moved(Option<u64>),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Moves the cursor if it is where it is expected, and returns the journal's small number.
fn move_cursor(transaction: &Transaction<'_>, delivery: &Delivery<'_>) -> Result<i64, Trouble> {
    let known = transaction
        .prepare_cached("SELECT id FROM journals WHERE uuid = ?1")?
        .query_row([delivery.journal.uuid.to_string()], |row| row.get::<_, i64>(0))
        .optional()?;
    let journal = match known {
        Some(journal) => journal,
        None => register(transaction, &delivery.journal)?,
    };
    let moved = match delivery.expected {
        Some(expected) => transaction
            .prepare_cached("UPDATE cursors SET sequence = ?3 WHERE journal = ?1 AND sequence = ?2")?
            .execute((journal, expected as i64, delivery.last as i64))?,
        None => transaction
            .prepare_cached("INSERT INTO cursors (journal, sequence) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute((journal, delivery.last as i64))?,
    };
    if moved == 1 {
        return Ok(journal);
    }
    let found = transaction
        .prepare_cached("SELECT sequence FROM cursors WHERE journal = ?1")?
        .query_row([journal], |row| row.get::<_, i64>(0))
        .optional()?;
    Err(Trouble::Moved(found.map(|sequence| sequence as u64)))
}

/// Gives a journal a number that nothing in the database has, even where `journals` lost rows.
fn register(transaction: &Transaction<'_>, journal: &KnownJournal<'_>) -> rusqlite::Result<i64> {
    transaction.query_row(
        "INSERT INTO journals (id, uuid, edge, opened_at) VALUES (1 + max(
            coalesce((SELECT max(id) FROM journals), 0), coalesce((SELECT max(journal) FROM hits), 0),
            coalesce((SELECT max(journal) FROM cursors), 0), coalesce((SELECT max(journal) FROM rejected), 0)),
            ?1, ?2, ?3) RETURNING id",
        (journal.uuid.to_string(), journal.edge, journal.opened_at.0 as i64),
        |row| row.get(0),
    )
}

/// All rows at full speed; the first that is refused ends it.
fn insert_plainly(work: &Inserting<'_>) -> Result<(u64, Vec<Refusal>), Trouble> {
    let mut rows = 0;
    for stretch in work.delivery.hits.chunks(ROWS_PER_DEADLINE) {
        (work.arm)();
        rows += insert_rows(work, stretch).map_err(|e| blame(e, work.delivery.twice))?;
    }
    Ok((rows, Vec::new()))
}

/// Halves what is refused until each refused row stands alone.
fn insert_carefully(work: &Inserting<'_>) -> Result<(u64, Vec<Refusal>), Trouble> {
    // Prepared anew: should the schema have changed, preparing fails, and no hit is blamed for it.
    work.transaction.flush_prepared_statement_cache();
    let mut rows = 0;
    let mut refused = Vec::new();
    let mut left: Vec<&[Hit<'_>]> = vec![work.delivery.hits];
    while let Some(part) = left.pop() {
        (work.arm)();
        work.transaction.execute_batch("SAVEPOINT part")?;
        match insert_rows(work, part).map_err(|e| blame(e, work.delivery.twice)) {
            Ok(inserted) => {
                rows += inserted;
                work.transaction.execute_batch("RELEASE part")?;
            }
            // A trigger may have ended the transaction itself: the caller starts again with less.
            Err(Trouble::Content(reason)) if work.transaction.is_autocommit() => {
                return Err(Trouble::Content(reason));
            }
            Err(Trouble::Content(reason)) => {
                work.transaction.execute_batch("ROLLBACK TO part; RELEASE part")?;
                match part {
                    [alone] => refused.push(Refusal { sequence: alone.sequence, reason }),
                    _ => {
                        let (head, tail) = part.split_at(part.len() / 2);
                        left.push(tail);
                        left.push(head);
                    }
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok((rows, refused))
}

/// Whose fault it was that a row was refused.
fn blame(error: rusqlite::Error, twice: Twice) -> Trouble {
    let rusqlite::Error::SqliteFailure(cause, message) = &error else { return Trouble::Failed(error) };
    if twice == Twice::Refuse && cause.extended_code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY {
        return Trouble::Doubled;
    }
    match cause.code {
        // `Unknown` is SQLITE_ERROR: a function in somebody's trigger that did not like the row.
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch | ErrorCode::Unknown => {
            Trouble::Content(message.clone().unwrap_or_else(|| cause.to_string()))
        }
        _ => Trouble::Failed(error),
    }
}

fn insert_rows(work: &Inserting<'_>, hits: &[Hit<'_>]) -> rusqlite::Result<u64> {
    static SQL: LazyLock<[String; 4]> = LazyLock::new(|| {
        [(1, ""), (ROWS_PER_INSERT, ""), (1, SKIP), (ROWS_PER_INSERT, SKIP)]
            .map(|(rows, conflict)| insert_sql(rows) + conflict)
    });
    const SKIP: &str = " ON CONFLICT (journal, sequence) DO NOTHING";
    let [one, many, one_skipping, many_skipping] = &*SQL;
    let (one, many) = match work.delivery.twice {
        Twice::Refuse => (one, many),
        Twice::Skip => (one_skipping, many_skipping),
    };
    let mut scratch = Scratch::default();
    let mut rows = 0;
    let (whole, rest) = hits.as_chunks::<ROWS_PER_INSERT>();
    if !whole.is_empty() {
        let mut statement = work.transaction.prepare_cached(many)?;
        for chunk in whole {
            for (row, hit) in chunk.iter().enumerate() {
                bind(&mut statement, row * COLUMNS.len(), work.journal, hit, &mut scratch)?;
            }
            rows += statement.raw_execute()?;
        }
    }
    if !rest.is_empty() {
        let mut statement = work.transaction.prepare_cached(one)?;
        for hit in rest {
            bind(&mut statement, 0, work.journal, hit, &mut scratch)?;
            rows += statement.raw_execute()?;
        }
    }
    Ok(rows as u64)
}

fn insert_sql(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS.len()].join(", "));
    format!("INSERT INTO hits ({}) VALUES {}", COLUMNS.join(", "), vec![row; rows].join(", "))
}

/// Texts that are built rather than borrowed, kept from row to row.
#[derive(Default)]
struct Scratch {
    captures: String,
    address: String,
}

/// Binds one row; the order is that of [`COLUMNS`].
fn bind(
    statement: &mut Statement<'_>,
    offset: usize,
    journal: i64,
    hit: &Hit<'_>,
    scratch: &mut Scratch,
) -> rusqlite::Result<()> {
    let event = &hit.event;
    scratch.captures.clear();
    push_object(&mut scratch.captures, Captures(event.captures));
    scratch.address.clear();
    push_address(&mut scratch.address, event.address);
    let mut column = offset;
    let mut next = || {
        column += 1;
        column
    };
    statement.raw_bind_parameter(next(), journal)?;
    statement.raw_bind_parameter(next(), hit.sequence as i64)?;
    statement.raw_bind_parameter(next(), hit.at.0 as i64)?;
    statement.raw_bind_parameter(next(), escape(event.host))?;
    statement.raw_bind_parameter(next(), escape(event.site))?;
    statement.raw_bind_parameter(next(), escape(event.namespace))?;
    statement.raw_bind_parameter(next(), event.kind.label())?;
    statement.raw_bind_parameter(next(), escape(event.token))?;
    statement.raw_bind_parameter(next(), escape(event.campaign))?;
    statement.raw_bind_parameter(next(), scratch.captures.as_str())?;
    statement.raw_bind_parameter(next(), escape(event.query))?;
    statement.raw_bind_parameter(next(), event.method.label())?;
    statement.raw_bind_parameter(next(), event.status)?;
    statement.raw_bind_parameter(next(), event.outcome.label())?;
    statement.raw_bind_parameter(next(), event.class.label())?;
    statement.raw_bind_parameter(next(), escape(event.url))?;
    statement.raw_bind_parameter(next(), scratch.address.as_str())?;
    statement.raw_bind_parameter(next(), escape(event.user_agent))?;
    statement.raw_bind_parameter(next(), escape(event.referrer))?;
    statement.raw_bind_parameter(next(), event.verdict.label())?;
    debug_assert_eq!(column - offset, COLUMNS.len(), "every column has its value");
    Ok(())
}

fn reject(
    transaction: &Transaction<'_>,
    journal: i64,
    delivery: &Delivery<'_>,
    refused: &[Refusal],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO rejected (journal, sequence, at, reason, event) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for reject in delivery.rejects {
        let (sequence, at) = (reject.sequence as i64, reject.at.0 as i64);
        statement.execute((journal, sequence, at, escape(reject.reason.as_bytes()), reject.payload))?;
    }
    for refusal in refused {
        let Ok(index) = delivery.hits.binary_search_by_key(&refusal.sequence, |hit| hit.sequence) else {
            unreachable!("a refusal names a hit of its own batch");
        };
        let hit = &delivery.hits[index];
        let (sequence, at) = (hit.sequence as i64, hit.at.0 as i64);
        statement.execute((journal, sequence, at, escape(refusal.reason.as_bytes()), hit.payload))?;
    }
    Ok(())
}
