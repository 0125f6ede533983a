//! A platform's own tables: links are read, and hits are written, by statements of the configuration.
//!
//! Invariants:
//! - A statement is wrapped, never changed; what it gives is known by the names of its columns.
//! - Our own books (journals, cursors, batches, rejected) move in the transaction of the platform's rows.
//! - The time from which changes are read never passes the beginning of the oldest transaction that
//!   still runs, as far as the server lets us see it.

use super::connection::{Parameter, Talk};
use super::fault::Trouble;
use super::links::{Columns, owned};
use super::settings::Pooler;
use super::value::Moment;
use super::{Changes, Database, Each, Error, LinkRow, OwnedLinkRow, Watermark};
use crate::event::UnixMillis;
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::types::Type;
use xxhash_rust::xxh3::Xxh3;

/// How links are read from a platform's own tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The namespace of links that name none.
    pub namespace: String,
    /// Gives every link; its columns are described in `docs/holdfast.toml`.
    pub preload: String,
    /// Gives those that changed since `$1`; `None` when complete loads are enough.
    pub changed: Option<String>,
    /// Gives the link of namespace `$1` and token `$2`, or nothing.
    pub lookup: String,
}

/// The relation that statements about hits read from; it has the columns of our own `hits`.
const BATCH: &str = "batch";
/// Most rows that are taken as changes; where there are more, all links are loaded.
const ROWS_MAX: u32 = 100_000;
/// Changes are read again for so long: clocks differ, and not every transaction may be seen.
const OVERLAP: Duration = Duration::from_secs(60);

/// A column of a link: its name, its type, and what it is where it is absent or null.
struct Column {
    name: &'static str,
    /// With `{}` for the column itself.
    given: &'static str,
    /// `None` where every link needs it.
    absent: Option<&'static str>,
}

/// The columns of [`Columns::NAMES`] but for the namespace, in its order. Texts are escaped as ours are.
const COLUMNS: [Column; 7] = [
    Column { name: "token", given: r"coalesce(replace({}::text, '\', '\\'), '')", absent: None },
    Column { name: "url", given: "coalesce({}::text, '')", absent: None },
    Column { name: "campaign", given: "coalesce({}::text, '')", absent: Some("''::text") },
    Column { name: "append", given: "coalesce({}::boolean, true)", absent: Some("true") },
    Column { name: "expires_at", given: "{}::timestamptz", absent: Some("NULL::timestamptz") },
    Column { name: "disabled", given: "coalesce({}::boolean, false)", absent: Some("false") },
    Column { name: "deleted", given: "coalesce({}::boolean, false)", absent: Some("false") },
];
const NAMESPACE: &str = "namespace";

/// What a connection knows of the platform's statements.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Wrapped statements by what they are for.
    wrapped: HashMap<&'static str, String>,
    /// What the last look at changes gave, by key and content: what comes again is not told again.
    seen: HashMap<u128, u128>,
}

/// A statement that gives links, and the setting that holds it.
struct Source<'a> {
    setting: &'static str,
    sql: &'a str,
    parameters: &'static [Type],
}

impl Reading {
    fn preload(&self) -> Source<'_> {
        Source { setting: "links.preload", sql: &self.preload, parameters: &[] }
    }

    fn changed(&self) -> Option<Source<'_>> {
        let sql = self.changed.as_deref()?;
        Some(Source { setting: "links.changed", sql, parameters: &[Type::TIMESTAMPTZ] })
    }

    fn lookup(&self) -> Source<'_> {
        Source { setting: "links.lookup", sql: &self.lookup, parameters: &[Type::TEXT, Type::TEXT] }
    }
}

/// Makes a statement of the configuration give the columns of a link, whatever of them it has.
async fn wrap(talk: &Talk<'_>, source: &Source<'_>, namespace: &str) -> Result<String, Trouble> {
    let sql = bare(source.sql);
    let prepared = talk.bounded(talk.client.prepare_typed(sql, source.parameters)).await?;
    let names: Vec<&str> = prepared.columns().iter().map(tokio_postgres::Column::name).collect();
    let unfit = |what: String| Err(Trouble::Unfit(format!("{} {what}", source.setting)));
    if prepared.params().len() > source.parameters.len() {
        return unfit(format!("asks for ${}", prepared.params().len()));
    }
    let is_known = |name: &&str| *name == NAMESPACE || COLUMNS.iter().any(|column| column.name == *name);
    if let Some(stranger) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        return unfit(format!("gives a column {stranger}; allowed: {NAMESPACE}, {}", known.join(", ")));
    }
    let own = format!("'{}'", namespace.replace('\\', r"\\").replace('\'', "''"));
    let namespace = match names.contains(&NAMESPACE) {
        true => format!(r"coalesce(replace(given.namespace::text, '\', '\\'), {own})"),
        false => format!("{own}::text"),
    };
    let mut columns = vec![format!("{namespace} AS {NAMESPACE}")];
    for Column { name, given, absent } in COLUMNS {
        let value = match (names.contains(&name), absent) {
            (true, _) => given.replace("{}", &format!("given.\"{name}\"")),
            (false, Some(absent)) => absent.to_owned(),
            (false, None) => return unfit(format!("gives no column {name}; it gives {}", names.join(", "))),
        };
        columns.push(format!("{value} AS {name}"));
    }
    // On lines of their own, for the statement may end with a comment.
    Ok(format!("SELECT {} FROM (\n{sql}\n) AS given", columns.join(", ")))
}

/// The statement without the semicolon that people like to end it with.
fn bare(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}

/// Takes our schema out of those in which names without one are looked for: a user who is called like it
/// would find our tables where the platform's are meant.
async fn step_aside(talk: &Talk<'_>, schema: &str, scope: Scope) -> Result<(), Trouble> {
    let sql = "SELECT set_config('search_path', coalesce((SELECT string_agg(quote_ident(name), ', ')
         FROM unnest(current_schemas(false)) AS name WHERE name <> $1), 'public'), $2)";
    let local = scope == Scope::Transaction;
    talk.query(sql, &[(&schema, Type::TEXT), (&local, Type::BOOL)]).await.map(drop)
}

/// How long a setting holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Transaction,
}

/// Makes names mean the platform's tables on a whole connection, where it is ours alone.
pub(super) async fn settle(talk: &Talk<'_>, schema: &str) -> Result<(), Trouble> {
    match talk.pooler() {
        Pooler::None => step_aside(talk, schema, Scope::Session).await,
        Pooler::Transaction => Ok(()),
    }
}

/// The same in one transaction, where that is all we have.
pub(super) async fn settle_within(talk: &Talk<'_>, schema: &str) -> Result<(), Trouble> {
    match talk.pooler() {
        Pooler::None => Ok(()),
        Pooler::Transaction => step_aside(talk, schema, Scope::Transaction).await,
    }
}

/// The time from which on changes have yet to be read: asked before they are.
pub(super) async fn mark(talk: &Talk<'_>) -> Result<Watermark, Trouble> {
    let sql = "SELECT least(now(), min(xact_start)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let Moment(UnixMillis(oldest)) = talk.one(sql, &[]).await?.get(0);
    let overlap = u64::try_from(OVERLAP.as_millis()).unwrap_or(u64::MAX);
    Ok(Watermark(i64::try_from(oldest.saturating_sub(overlap)).unwrap_or(i64::MAX)))
}

/// The same value for the same bytes, one after the other.
fn digest(parts: &[&[u8]]) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

fn key_and_content(row: &LinkRow<'_>) -> (u128, u128) {
    let flags = [row.append, row.disabled, row.deleted].map(u8::from);
    let expires = row.expires_at.map_or([0xff; 8], |at| at.0.to_le_bytes());
    let content = digest(&[row.url.as_bytes(), row.campaign.as_bytes(), &flags, &expires]);
    (digest(&[row.namespace, row.token]), content)
}

impl Database {
    /// The statement that gives every link of the platform's.
    pub(super) async fn foreign_preload(
        &self,
        talk: &Talk<'_>,
        reading: &Reading,
    ) -> Result<String, Trouble> {
        settle_within(talk, &self.schema).await?;
        wrap(talk, &reading.preload(), &reading.namespace).await
    }

    /// As [`Database::changes`], from the platform's tables.
    pub(super) fn foreign_changes(
        &mut self,
        reading: &Reading,
        after: Watermark,
        each: &mut Each<'_>,
    ) -> Result<Changes, Error> {
        let Some(source) = reading.changed() else {
            return Ok(Changes::up_to(after));
        };
        let since = Moment(UnixMillis(u64::try_from(after.0).unwrap_or(0)));
        let schema = &self.schema;
        let Known { wrapped, seen } = &mut self.known;
        let done = self.connection.try_run(async |talk| {
            let next = mark(&talk).await?.max(after);
            talk.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            settle_within(&talk, schema).await?;
            if !wrapped.contains_key(source.setting) {
                wrapped.insert(source.setting, wrap(&talk, &source, &reading.namespace).await?);
            }
            let sql = format!("{} LIMIT {}", wrapped[source.setting], ROWS_MAX + 1);
            let rows = talk.query(&sql, &[(&since, Type::TIMESTAMPTZ)]).await?;
            talk.batch("COMMIT").await?;
            if rows.len() > ROWS_MAX as usize {
                seen.clear();
                return Ok(Changes { reload: true, ..Changes::up_to(next) });
            }
            let mut now = HashMap::with_capacity(rows.len());
            for row in &rows {
                Columns::of(row)?.give(&mut |link| {
                    let (key, content) = key_and_content(&link);
                    now.insert(key, content);
                    if seen.get(&key) == Some(&content) { Ok(()) } else { each(link) }
                })?;
            }
            *seen = now;
            Ok(Changes::up_to(next))
        });
        let doing = "reading changes by links.changed";
        match done {
            // The platform's tables are not what they were, and everything else may go on.
            Err(trouble) if trouble.is_about_statement() => {
                self.connection.run("ending a transaction", async |talk| talk.batch("ROLLBACK").await)?;
                let unfit = trouble.into_error(self.connection.name(), doing);
                Ok(Changes { unfit: Some(unfit), ..Changes::up_to(after) })
            }
            done => done.map_err(|trouble| trouble.into_error(self.connection.name(), doing)),
        }
    }

    /// As [`Database::lookup`], from the platform's tables.
    pub(super) fn foreign_lookup(
        &mut self,
        reading: &Reading,
        namespace: &[u8],
        token: &[u8],
    ) -> Result<Option<OwnedLinkRow>, Error> {
        // Tokens that are no text are none of the platform's.
        let (Ok(namespace), Ok(token)) = (str::from_utf8(namespace), str::from_utf8(token)) else {
            return Ok(None);
        };
        let source = reading.lookup();
        let (schema, wrapped) = (&self.schema, &mut self.known.wrapped);
        let found = self.connection.transaction("READ ONLY", async |talk| {
            settle_within(&talk, schema).await?;
            if !wrapped.contains_key(source.setting) {
                wrapped.insert(source.setting, wrap(&talk, &source, &reading.namespace).await?);
            }
            let asked: &[Parameter<'_>] = &[(&namespace, Type::TEXT), (&token, Type::TEXT)];
            owned(&talk.query(&wrapped[source.setting], asked).await?)
        });
        match found {
            // A statement that does not look at $1 must not find a link for another namespace.
            Ok(rows) => Ok(rows.into_iter().find(|link| link.namespace == namespace.as_bytes())),
            // A token that is none of the type of the platform's column.
            Err(trouble) if trouble.is_about_data() => Ok(None),
            Err(trouble) => {
                Err(trouble.into_error(self.connection.name(), "looking a link up by links.lookup"))
            }
        }
    }

    /// Tries every statement of the configuration without doing it, and says of each what is wrong.
    pub(in super::super) fn try_statements(&mut self) -> Vec<Error> {
        let mut faults = Vec::new();
        let mut note = |done: Result<(), Trouble>, setting: &str| {
            if let Err(trouble) = done {
                faults.push(trouble.into_error(self.connection.name(), format!("trying {setting}")));
            }
        };
        if let Some(reading) = &self.reading {
            for source in
                [Some(reading.preload()), reading.changed(), Some(reading.lookup())].into_iter().flatten()
            {
                let tried = self.connection.transaction("READ ONLY", async |talk| {
                    settle_within(&talk, &self.schema).await?;
                    let sql = wrap(&talk, &source, &reading.namespace).await?;
                    explain(&talk, &sql, source.parameters).await
                });
                note(tried, source.setting);
            }
        }
        for (index, statement) in self.statements.iter().enumerate() {
            let tried = self.connection.try_run(async |talk| {
                // The table that it reads from goes away with the transaction.
                talk.begin("READ WRITE").await?;
                let explained = async {
                    settle_within(&talk, &self.schema).await?;
                    talk.batch(&batch_table(&self.tables)).await?;
                    explain(&talk, bare(statement), &[]).await
                };
                let explained = explained.await;
                if explained.as_ref().is_err_and(Trouble::ends_connection) {
                    return explained;
                }
                talk.batch("ROLLBACK").await?;
                explained
            });
            note(tried, &format!("deliver.statements[{}]", index + 1));
        }
        faults
    }
}

/// Checks a statement without doing it: its names and types, and the rights that it needs.
async fn explain(talk: &Talk<'_>, sql: &str, types: &[Type]) -> Result<(), Trouble> {
    let nothing = [None::<&str>, None];
    let no_time = None::<Moment>;
    let parameters: Vec<Parameter<'_>> = types
        .iter()
        .zip(&nothing)
        .map(|(of, nothing)| match *of {
            Type::TIMESTAMPTZ => (&no_time as _, Type::TIMESTAMPTZ),
            _ => (nothing as _, Type::TEXT),
        })
        .collect();
    talk.query(&format!("EXPLAIN {sql}"), &parameters).await.map(drop)
}

/// Makes the relation that statements read from.
pub(super) fn batch_table(tables: &str) -> String {
    format!("CREATE TEMP TABLE {BATCH} (LIKE {tables}.hits) ON COMMIT DROP")
}

/// Hands what lies in `batch` to the platform's statements.
pub(super) async fn hand_over(
    talk: &Talk<'_>,
    statements: &[String],
    limit: Duration,
) -> Result<(), Trouble> {
    for statement in statements {
        talk.within(limit, talk.client.execute_typed(bare(statement), &[])).await?;
    }
    Ok(())
}

/// Spans of sequences, in order and apart from each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Takes spans in the order of their beginnings; they may overlap.
    fn merged(spans: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut apart: Vec<(u64, u64)> = Vec::new();
        for (first, last) in spans {
            match apart.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => apart.push((first, last)),
            }
        }
        Self(apart)
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= sequence);
        after > 0 && sequence <= self.0[after - 1].1
    }
}

/// What earlier batches account for between `first` and `last`: there is some after an adoption, and
/// where the cursor was set back and the batches were not.
pub(super) async fn accounted(
    talk: &Talk<'_>,
    tables: &str,
    journal: i32,
    first: u64,
    last: u64,
) -> Result<Spans, Trouble> {
    let sql = format!(
        "SELECT first, last FROM {tables}.batches WHERE journal = $1 AND last >= $2 AND first <= $3 ORDER BY first"
    );
    let asked: &[Parameter<'_>] =
        &[(&journal, Type::INT4), (&(first as i64), Type::INT8), (&(last as i64), Type::INT8)];
    let rows = talk.query(&sql, asked).await?;
    Ok(Spans::merged(rows.iter().map(|row| (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_those_of_a_link() {
        let names: Vec<_> =
            std::iter::once(NAMESPACE).chain(COLUMNS.iter().map(|column| column.name)).collect();
        assert_eq!(names.join(", "), Columns::NAMES);
    }

    #[test]
    fn spans_that_touch_are_one() {
        let spans = Spans::merged([(3, 5), (4, 4), (6, 7), (10, 12), (11, 20)].into_iter());
        assert_eq!(spans, Spans(vec![(3, 7), (10, 20)]));
        let inside: Vec<u64> = (0..25).filter(|&sequence| spans.contains(sequence)).collect();
        assert_eq!(inside, (3..=7).chain(10..=20).collect::<Vec<_>>());
        assert!(!Spans::default().contains(0));
    }

    #[test]
    fn a_statement_may_end_as_people_end_it() {
        assert_eq!(bare(" SELECT 1 ;\n"), "SELECT 1");
        assert_eq!(bare("SELECT ';'"), "SELECT ';'");
    }

    #[test]
    fn another_content_is_another_change() {
        let row = OwnedLinkRow { token: b"t".to_vec(), url: "https://a/".into(), ..OwnedLinkRow::default() };
        let (key, content) = key_and_content(&row.as_row());
        let moved = OwnedLinkRow { url: "https://b/".into(), ..row.clone() };
        assert_eq!(key_and_content(&moved.as_row()).0, key);
        assert_ne!(key_and_content(&moved.as_row()).1, content);
        let other = OwnedLinkRow { namespace: b"t".to_vec(), token: Vec::new(), ..row };
        assert_ne!(key_and_content(&other.as_row()).0, key);
    }
}
