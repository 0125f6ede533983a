//! Delivery into a real server: whole or nothing, once, and what is refused is named.

use super::*;
use crate::database::{Hit, Reject};
use crate::event::{Class, Event, Kind, Method, Outcome, Verdict};
use uuid::Uuid;

pub(super) const JOURNAL: Uuid = Uuid::from_bytes([7; 16]);

fn event<'a>(token: &'a [u8], address: &'a [u8]) -> Event<'a> {
    Event {
        kind: Kind::Click,
        method: Method::Get,
        outcome: Outcome::Redirected,
        class: Class::Synced,
        verdict: Verdict::Person,
        status: 302,
        host: b"click.example.com",
        site: b"shop",
        namespace: b"acme",
        token,
        campaign: b"spring",
        captures: &[],
        query: b"a=\\\x01\xff",
        url: b"",
        address,
        user_agent: "Grüße\"".as_bytes(),
        referrer: b"",
    }
}

pub(super) fn hits<'a>(sequences: std::ops::RangeInclusive<u64>, token: &'a [u8]) -> Vec<Hit<'a>> {
    sequences
        .map(|sequence| Hit {
            sequence,
            at: UnixMillis(1_700_000_000_123 + sequence),
            payload: b"payload",
            event: event(token, &[192, 0, 2, 0]),
        })
        .collect()
}

pub(super) fn delivery<'a>(
    expected: Option<u64>,
    first: u64,
    last: u64,
    hits: &'a [Hit<'a>],
    rejects: &'a [Reject<'a>],
) -> Delivery<'a> {
    let journal = KnownJournal { uuid: JOURNAL, edge: "edge-1", opened_at: UnixMillis(1_700_000_000_000) };
    let at = UnixMillis(1_700_000_001_000);
    Delivery { journal, expected, first, last, hits, rejects, twice: Twice::Refuse, at }
}

#[test]
fn a_batch_is_written_whole_with_its_cursor() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Nothing);
    let some = hits(1..=3000, b"token\n");
    let rejects =
        [Reject { sequence: 3001, at: UnixMillis(5), payload: b"\0\xff", reason: "no\0".to_owned() }];
    let done = database.commit(&delivery(None, 1, 3001, &some, &rejects)).unwrap();
    assert_eq!((done.rows, done.skipped), (3000, 0));
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Cursor(3001));
    assert_eq!(database.audit(JOURNAL, 1, 3001).unwrap(), Audit { rows: 3000, rejected: 1 });
    let batch = BatchRow { first: 1, last: 3001, rows: 3000, rejected: 1 };
    assert_eq!(database.batch_of(JOURNAL, 17).unwrap(), Some(batch));
    assert_eq!(database.batch_of(JOURNAL, 4000).unwrap(), None);
    assert_eq!(database.batch_after(JOURNAL, 0).unwrap(), Some(batch));
    let (mut found, mut rejected) = (Vec::new(), Vec::new());
    database.hit_sequences(JOURNAL, 2990, 5, &mut found).unwrap();
    database.reject_sequences(JOURNAL, 0, 5, &mut rejected).unwrap();
    assert_eq!((found, rejected), (vec![2991, 2992, 2993, 2994, 2995], vec![3001]));
    assert_eq!(database.journals().unwrap(), [(JOURNAL, "edge-1".to_owned())]);
    let row = "SELECT journal, extract(epoch FROM at), token, captures, query, status, address, user_agent
        FROM holdfast.hits WHERE sequence = 2";
    assert_eq!(fixture.sql(row), "1|1700000000.125000|token\\x0A|{}|a=\\\\\\x01\\xFF|302|192.0.2.0|Grüße\"");
    assert_eq!(fixture.sql("SELECT reason, event FROM holdfast.rejected"), "no\\x00|\\x00ff");
}

#[test]
fn the_cursor_is_compared_and_a_doubled_row_is_told() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    let some = hits(1..=10, b"t");
    database.commit(&delivery(None, 1, 10, &some, &[])).unwrap();
    let again = database.commit(&delivery(None, 1, 10, &some, &[]));
    assert!(matches!(again, Err(CommitError::Moved { found: Some(10) })), "{again:?}");
    let behind = database.commit(&delivery(Some(5), 6, 10, &some[5..], &[]));
    assert!(matches!(behind, Err(CommitError::Moved { found: Some(10) })), "{behind:?}");
    fixture.sql("UPDATE holdfast.cursors SET sequence = 5");
    let overlap = hits(6..=12, b"t");
    let mut batch = delivery(Some(5), 6, 12, &overlap, &[]);
    assert!(matches!(database.commit(&batch), Err(CommitError::Doubled)));
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Cursor(5), "nothing was written");
    batch.twice = Twice::Skip;
    let done = database.commit(&batch).unwrap();
    assert_eq!((done.rows, done.skipped), (2, 5));
    fixture.sql("DELETE FROM holdfast.cursors");
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Absent);
    fixture.sql("DELETE FROM holdfast.journals");
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Absent, "hits whose journal nobody knows");
    let only_cursor = delivery(None, 13, 12, &[], &[]);
    database.commit(&only_cursor).unwrap();
    assert_eq!(fixture.sql("SELECT id FROM holdfast.journals"), "2", "a number that no hit has");
}

#[test]
fn what_a_row_is_refused_for_is_told_from_what_the_server_lacks() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    fixture.sql("ALTER TABLE holdfast.hits ADD CONSTRAINT polite CHECK (token <> 'bad')");
    let mut some = hits(1..=6000, b"good");
    some.extend(hits(6001..=6001, b"bad"));
    some.extend(hits(6002..=9000, b"good"));
    let refused = database.commit(&delivery(None, 1, 9000, &some, &[]));
    assert!(
        matches!(&refused, Err(CommitError::Content { reason }) if reason.contains("polite")),
        "{refused:?}"
    );
    assert_eq!(database.held(JOURNAL).unwrap(), Held::Nothing);
    database.commit(&delivery(None, 1, 6000, &some[..6000], &[])).unwrap();
    fixture.sql("ALTER TABLE holdfast.hits ADD CONSTRAINT once UNIQUE (token, sequence) DEFERRABLE INITIALLY DEFERRED");
    fixture.sql("CREATE UNIQUE INDEX twice ON holdfast.hits (at)");
    let clash = hits(6000..=6000, b"good");
    let clash = [Hit { sequence: 6002, ..clash[0].clone() }];
    let refused = database.commit(&delivery(Some(6000), 6001, 6002, &clash, &[]));
    assert!(
        matches!(&refused, Err(CommitError::Content { reason }) if reason.contains("twice")),
        "{refused:?}"
    );
    fixture.sql("DROP TABLE holdfast.batches");
    let failed = database.commit(&delivery(Some(6000), 6001, 9000, &some[6001..], &[]));
    assert!(matches!(failed, Err(CommitError::Failed(Error::NotOurs(_)))), "{failed:?}");
}

#[test]
fn what_was_delivered_survives_though_the_server_says_it_need_not() {
    let fixture = Fixture::new();
    fixture.sql("ALTER SYSTEM SET synchronous_commit = off");
    fixture.sql("SELECT pg_reload_conf()");
    for pooler in [Pooler::None, Pooler::Transaction] {
        let settings = fixture.cluster.settings("").with_pooler(pooler);
        let mut database = open(&settings, Access::ReadWrite, TIMEOUT).unwrap();
        let seen = "CREATE OR REPLACE FUNCTION holdfast.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('holdfast.seen', current_setting('synchronous_commit'), false);
             IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'lazy'; END IF; RETURN NULL; END $$;
             DROP TRIGGER IF EXISTS see ON holdfast.batches;
             CREATE TRIGGER see AFTER INSERT ON holdfast.batches FOR EACH STATEMENT EXECUTE FUNCTION holdfast.see()";
        fixture.sql(seen);
        let held = match database.held(JOURNAL).unwrap() {
            Held::Cursor(cursor) => Some(cursor),
            _ => None,
        };
        let first = held.unwrap_or(0) + 1;
        let some = hits(first..=first, b"t");
        database.commit(&delivery(held, first, first, &some, &[])).unwrap();
    }
}
