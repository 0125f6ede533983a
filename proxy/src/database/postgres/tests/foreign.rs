//! A platform's own tables: what may be in them, and what its statements may meet.

use super::hits::{delivery, hits};
use super::*;
use crate::database::postgres::foreign::Reading;
use crate::database::postgres::settings::Settings;
use uuid::Uuid;

const PRELOAD: &str = "SELECT code AS token, target AS url, off AS disabled FROM short";
const CLICKS: &str = "INSERT INTO clicks (code) SELECT token FROM batch ORDER BY sequence";

/// A platform with a table of links and one of clicks, and the rights that an edge needs.
fn platform() -> Fixture {
    let fixture = Fixture::new();
    fixture.sql(
        "CREATE TABLE short (code text, target text, off boolean, changed_at timestamptz DEFAULT now());
         CREATE TABLE clicks (id serial PRIMARY KEY, code text NOT NULL);
         INSERT INTO short VALUES ('b', 'https://example.com/b'), ('a', 'https://example.com/a');
         CREATE ROLE edge LOGIN; GRANT USAGE ON SCHEMA holdfast TO edge;
         GRANT ALL ON ALL TABLES IN SCHEMA holdfast TO edge;
         GRANT SELECT ON short TO edge; GRANT INSERT ON clicks TO edge; GRANT USAGE ON clicks_id_seq TO edge",
    );
    fixture
}

fn settings(fixture: &Fixture, statement: &str) -> Settings {
    let reading = Reading {
        namespace: String::new(),
        preload: PRELOAD.to_owned(),
        changed: Some(format!("{PRELOAD} WHERE changed_at >= $1")),
        lookup: format!("{PRELOAD} WHERE code = $2"),
    };
    let url = format!("postgres://edge@127.0.0.1:{}/postgres", fixture.cluster.port());
    let settings = Settings::parse(&url, |file| file.into()).unwrap();
    settings.with_reading(Some(reading)).with_statements(vec![statement.to_owned()])
}

fn opened(fixture: &Fixture, statement: &str) -> Database {
    open(&settings(fixture, statement), Access::ReadWrite, TIMEOUT).unwrap()
}

/// A draft without a code ended every edge: what a column of theirs lacks is no fault of ours.
#[test]
fn a_row_without_a_token_ends_nothing() {
    let fixture = platform();
    let mut database = opened(&fixture, CLICKS);
    let loaded = database.load(&mut |_| Ok(())).unwrap();
    assert_eq!(loaded.rows, 2);
    fixture.sql("INSERT INTO short VALUES (NULL, 'https://example.com/draft'), ('c', NULL)");
    let mut seen = Vec::new();
    database
        .changes(loaded.watermark, 10, &mut |link| {
            seen.push((String::from_utf8_lossy(link.token).into_owned(), link.url.to_owned()));
            Ok(())
        })
        .unwrap();
    for row in [("", "https://example.com/draft"), ("c", "")] {
        assert!(seen.contains(&(row.0.to_owned(), row.1.to_owned())), "{seen:?}");
    }
    assert_eq!(database.load(&mut |_| Ok(())).unwrap().rows, 4);
}

#[test]
fn an_export_leaves_out_what_is_gone_and_is_in_order() {
    let fixture = platform();
    let mut database = opened(&fixture, CLICKS);
    let mut tokens = Vec::new();
    database
        .export(&mut |link| {
            tokens.push(String::from_utf8_lossy(link.token).into_owned());
            Ok(())
        })
        .unwrap();
    assert_eq!(tokens, ["a", "b"]);
}

/// The table that changes are read from may be altered while everything else does.
#[test]
fn a_statement_for_changes_that_broke_is_told_apart_from_an_outage() {
    let fixture = platform();
    let mut database = opened(&fixture, CLICKS);
    let watermark = database.load(&mut |_| Ok(())).unwrap().watermark;
    fixture.sql("ALTER TABLE short RENAME changed_at TO updated_at");
    let changes = database.changes(watermark, 10, &mut |_| Ok(())).unwrap();
    assert!(matches!(changes.unfit, Some(Error::NotOurs(_))), "{changes:?}");
    assert_eq!(changes.next, watermark, "nothing is passed over");
    assert!(database.lookup(b"", b"a").unwrap().is_some(), "the connection goes on");
    fixture.sql("ALTER TABLE short RENAME updated_at TO changed_at");
    let changes = database.changes(watermark, 10, &mut |_| Ok(())).unwrap();
    assert!(changes.unfit.is_none(), "{changes:?}");
}

#[test]
fn more_changes_than_are_taken_ask_for_a_load() {
    let fixture = platform();
    let mut database = opened(&fixture, CLICKS);
    let watermark = database.load(&mut |_| Ok(())).unwrap().watermark;
    fixture.sql(
        "INSERT INTO short SELECT 'n' || n, 'https://example.com/' FROM generate_series(1, 100001) AS n",
    );
    let mut given = 0;
    let mut count = |_: LinkRow<'_>| {
        given += 1;
        Ok(())
    };
    let changes = database.changes(watermark, 10, &mut count).unwrap();
    assert!(changes.reload && !changes.more, "{changes:?}");
    assert_eq!(given, 0);
}

#[test]
fn a_statement_whose_right_is_missing_is_told_before_anything_is_served() {
    let fixture = platform();
    assert!(opened(&fixture, CLICKS).try_statements().is_empty());
    fixture.sql("REVOKE INSERT ON clicks FROM edge; REVOKE SELECT ON short FROM edge");
    let faults = opened(&fixture, CLICKS).try_statements();
    let faults: Vec<_> = faults.iter().map(|fault| crate::causes::chain(fault)).collect();
    assert_eq!(faults.len(), 4, "three statements about links and one about hits: {faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("permission denied")), "{faults:?}");
    assert_eq!(fixture.sql("SELECT count(*) FROM clicks"), "0", "nothing is done by trying");
}

/// What earlier batches account for is not handed over again, whatever the cursor says.
#[test]
fn what_the_books_have_is_not_handed_over_again() {
    let fixture = platform();
    let mut database = opened(&fixture, CLICKS);
    let some = hits(1..=20, b"a");
    database.commit(&delivery(None, 1, 5, &some[..5], &[])).unwrap();
    database.commit(&delivery(Some(5), 6, 10, &some[5..10], &[])).unwrap();
    // A restore in pieces: the cursor is older than the batches.
    fixture.sql("UPDATE holdfast.cursors SET sequence = 2");
    let taken = database.commit(&delivery(Some(2), 3, 12, &some[2..12], &[])).unwrap();
    assert_eq!((taken.rows, taken.skipped), (2, 8));
    assert_eq!(fixture.sql("SELECT count(*) FROM clicks"), "12");
    fixture.sql("UPDATE holdfast.cursors SET sequence = 0");
    let taken = database.commit(&delivery(Some(0), 1, 12, &some[..12], &[])).unwrap();
    assert_eq!((taken.rows, taken.skipped), (0, 12));
    // Another journal may not get the number under which these are accounted for.
    fixture.sql("TRUNCATE holdfast.journals, holdfast.cursors");
    let other = Uuid::from_bytes([8; 16]);
    let mut order = delivery(None, 1, 3, &some[..3], &[]);
    order.journal.uuid = other;
    assert_eq!(database.commit(&order).unwrap().rows, 3);
}

/// Delivery stopped for ever at what a trigger raised with a code of its own.
#[test]
fn whatever_the_platform_refuses_a_row_for_is_about_the_row() {
    let fixture = platform();
    fixture.sql(
        "CREATE FUNCTION strict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.code = 'own' THEN RAISE 'not this one' USING ERRCODE = '45000'; END IF;
             IF NEW.code = 'many' THEN PERFORM 1 WHERE 1 = (SELECT n FROM generate_series(1, 2) AS n); END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER strict BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION strict()",
    );
    let mut database = opened(&fixture, CLICKS);
    for (token, said) in [("own", "not this one"), ("many", "more than one row")] {
        let bad = hits(1..=1, token.as_bytes());
        let refused = database.commit(&delivery(None, 1, 1, &bad, &[]));
        assert!(
            matches!(&refused, Err(CommitError::Content { reason }) if reason.contains(said)),
            "{refused:?}"
        );
    }
}

/// After a logical replication the platform's sequence gives numbers that are taken: every click would
/// go to `rejected`.
#[test]
fn a_sequence_that_is_behind_stops_delivery_and_rejects_nothing() {
    let fixture = platform();
    fixture.sql("INSERT INTO clicks VALUES (1, 'x'), (2, 'x')");
    let mut database = opened(&fixture, CLICKS);
    let some = hits(1..=1, b"a");
    let order = delivery(None, 1, 1, &some, &[]);
    let failed = database.commit(&order);
    assert!(
        matches!(&failed, Err(CommitError::Failed(error)) if crate::causes::chain(error).contains("setval")),
        "{failed:?}"
    );
    fixture.sql("SELECT setval('clicks_id_seq', 2)");
    assert_eq!(database.commit(&order).unwrap().rows, 1);
    // A key that no sequence gives is a matter of the row.
    fixture.sql("CREATE TABLE once (code text PRIMARY KEY); GRANT INSERT ON once TO edge");
    let mut database = opened(&fixture, "INSERT INTO once SELECT token FROM batch");
    let two = hits(2..=3, b"same");
    let refused = database.commit(&delivery(Some(1), 2, 3, &two, &[]));
    assert!(matches!(refused, Err(CommitError::Content { .. })), "{refused:?}");
}
