//! Following changes by the transactions that made them.
//!
//! ```text
//!   revision   ───────────────┬───────────────────┬───────────────▶
//!                      oldest that still ran    first that had not begun
//!   seen before:   all        │   some, by name   │   none
//! ```
//!
//! Invariants:
//! - A transaction that ran while somebody looked is looked for again at the next look: the place to
//!   go on from is the oldest that still ran.
//! - What one look has to give is decided by its snapshot, in however many portions it is given.
//! - Revisions of another server, which came with a dump, make a link come twice at worst.

use super::fault::Trouble;
use super::links::{COUNT, Columns};
use super::settings::Pooler;
use super::{Changes, Database, Each, Error, Watermark};
use tokio_postgres::types::Type;

/// A snapshot in which nothing was seen, for the transactions of users begin at 3.
const BEFORE_ALL: &str = "1:1:";

/// What was seen of changes on this connection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) listening: bool,
    /// The snapshot at the last question whether anything changed.
    asked: Option<String>,
    /// The last look, and the place that it gave to go on from.
    last: Option<(Watermark, Look)>,
}

/// One look at the changes, given in one portion or more.
#[derive(Clone, Debug)]
struct Look {
    snapshot: Snapshot,
    /// What was seen before it.
    before: Option<Snapshot>,
    /// Up to where it was given, while there is more.
    given: Option<Key>,
}

/// A place in the order of revision and key.
#[derive(Clone, Debug)]
struct Key {
    revision: String,
    namespace: String,
    token: String,
}

/// The server's `pg_snapshot`: which transactions were finished at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    text: String,
    /// The oldest that still ran.
    oldest: u64,
    /// The first that had not begun.
    next: u64,
    /// Those between that still ran, in rising order.
    running: Vec<u64>,
}

impl Snapshot {
    pub(super) fn parse(text: &str) -> Result<Self, Trouble> {
        let parsed = || {
            let mut parts = text.split(':');
            let (oldest, next, running) = (parts.next()?, parts.next()?, parts.next()?);
            let running = running.split(',').filter(|xid| !xid.is_empty());
            Some(Self {
                text: text.to_owned(),
                oldest: oldest.parse().ok()?,
                next: next.parse().ok()?,
                running: running.map(|xid| xid.parse().ok()).collect::<Option<_>>()?,
            })
        };
        parsed().ok_or(Trouble::Odd("its snapshot is none that this release knows"))
    }

    pub(super) fn watermark(&self) -> Watermark {
        Watermark(i64::try_from(self.oldest).unwrap_or(i64::MAX))
    }

    /// The oldest transaction that this snapshot sees and `before` did not; the first that had not
    /// begun then where none of those that ran has ended.
    fn first_unseen(&self, before: &Self) -> u64 {
        let ended = before.running.iter().find(|xid| self.running.binary_search(xid).is_err());
        ended.copied().unwrap_or(before.next)
    }
}

impl Look {
    /// From which revision on its rows are, after `after`.
    fn begins(&self, after: Watermark) -> u64 {
        match &self.before {
            Some(before) => self.snapshot.first_unseen(before),
            None => u64::try_from(after.0).unwrap_or(0),
        }
    }
}

impl Database {
    /// Whether a notification came since the last question.
    pub(in super::super) fn announced(&self) -> bool {
        self.watch.listening && self.connection.listen()
    }

    /// Whether anybody may have written since the last call; true at the first, which subscribes.
    pub(in super::super) fn changed(&mut self) -> Result<bool, Error> {
        let subscribe = !self.watch.listening && !self.recovering && self.connection.pooler() == Pooler::None;
        let snapshot = self.connection.run("asking for changes", async |talk| {
            if subscribe {
                talk.batch("LISTEN holdfast_links").await?;
            }
            Ok(talk.one("SELECT pg_current_snapshot()::text", &[]).await?.get::<_, String>(0))
        })?;
        self.watch.listening |= subscribe;
        let notified = self.connection.take_notified();
        let moved = self.watch.asked.as_ref() != Some(&snapshot);
        self.watch.asked = Some(snapshot);
        Ok(notified || moved)
    }

    /// Gives the links that changed after `after`; see the facade.
    pub(in super::super) fn changes(
        &mut self,
        after: Watermark,
        rows_max: u32,
        each: &mut Each<'_>,
    ) -> Result<Changes, Error> {
        if let Some(reading) = self.reading.clone() {
            return self.foreign_changes(&reading, after, each);
        }
        // What was looked at from another place says nothing about this one.
        let last = self.watch.last.take().filter(|(place, _)| *place == after).map(|(_, look)| look);
        let (next, look) = self.look(after, last, rows_max, each)?;
        let more = look.given.is_some();
        self.watch.last = Some((next, look));
        Ok(Changes { more, ..Changes::up_to(next) })
    }

    fn look(
        &self,
        after: Watermark,
        last: Option<Look>,
        rows_max: u32,
        each: &mut Each<'_>,
    ) -> Result<(Watermark, Look), Error> {
        let done = self.connection.transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", async |talk| {
            let now = talk.one("SELECT pg_current_snapshot()::text", &[]).await?.get::<_, String>(0);
            let now = Snapshot::parse(&now)?;
            if i64::try_from(now.next).unwrap_or(i64::MAX) < after.0 {
                return Ok((now.watermark(), Look { snapshot: now, before: None, given: None }));
            }
            let mut look = match last {
                Some(unfinished) if unfinished.given.is_some() => unfinished,
                Some(finished) if !self.recovering => {
                    Look { snapshot: now, before: Some(finished.snapshot), given: None }
                }
                _ => Look { snapshot: now, before: None, given: None },
            };
            let begins = look.begins(after);
            let sql = format!(
                "SELECT {}, revision::text FROM {}.links
                 WHERE revision >= $1::xid8 AND revision < $2::xid8
                 AND (revision, namespace, token) > ($3::xid8, $4, $5)
                 AND pg_visible_in_snapshot(revision, $6::pg_snapshot)
                 AND NOT pg_visible_in_snapshot(revision, $7::pg_snapshot)
                 ORDER BY revision, namespace, token LIMIT $8",
                Columns::NAMES,
                self.tables
            );
            let (from, until) = (begins.to_string(), look.snapshot.next.to_string());
            let start = || Key {
                revision: begins.saturating_sub(1).to_string(),
                namespace: String::new(),
                token: String::new(),
            };
            let key = look.given.take().unwrap_or_else(start);
            let before = look.before.as_ref().map_or(BEFORE_ALL, |before| &before.text);
            let rows = talk
                .query(
                    &sql,
                    &[
                        (&from, Type::TEXT),
                        (&until, Type::TEXT),
                        (&key.revision, Type::TEXT),
                        (&key.namespace, Type::TEXT),
                        (&key.token, Type::TEXT),
                        (&look.snapshot.text, Type::TEXT),
                        (&before, Type::TEXT),
                        (&i64::from(rows_max), Type::INT8),
                    ],
                )
                .await?;
            for row in &rows {
                Columns::of(row)?.give(each)?;
            }
            if let Some(last) = rows.last().filter(|_| rows.len() == rows_max as usize) {
                let revision = last.get(COUNT);
                look.given = Some(Key { revision, namespace: last.get(0), token: last.get(1) });
                return Ok((after, look));
            }
            // A standby that lags behind the one that was asked before has nothing new to tell.
            Ok((look.snapshot.watermark().max(after), look))
        });
        done.map_err(|trouble| trouble.into_error(self.connection.name(), "reading changes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn a_snapshot_names_what_still_runs() {
        let found = snapshot("700:710:700,703");
        assert_eq!((found.oldest, found.next, found.running), (700, 710, vec![700, 703]));
        assert_eq!(snapshot("5:5:").running, Vec::<u64>::new());
        for text in ["", "5", "5:", "5:6:x", "a:6:"] {
            assert!(Snapshot::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_look_begins_at_the_first_that_ended_since() {
        let check = |before: &str, now: &str, begins: u64| {
            assert_eq!(snapshot(now).first_unseen(&snapshot(before)), begins, "{before} {now}");
        };
        check("700:710:700,703", "700:715:700", 703);
        check("700:710:700,703", "700:715:700,703", 710);
        check("700:710:700,703", "715:715:", 700);
        check("710:710:", "710:710:", 710);
    }
}
