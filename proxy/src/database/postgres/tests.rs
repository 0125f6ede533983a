//! Tests of the database in a real server: what users do to it, and what happens to servers.

#![expect(clippy::disallowed_methods, reason = "deadlines are held against real time")]

mod faults;
mod foreign;
mod hits;
mod orders;
mod tls;

use super::*;
use crate::database::tests::cluster::Cluster;
use crate::event::UnixMillis;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(500);

struct Fixture {
    cluster: Cluster,
}

impl Fixture {
    fn new() -> Self {
        let cluster = Cluster::start();
        drop(crate::database::create(&cluster.source(), UnixMillis(1)).unwrap());
        Self { cluster }
    }

    /// With `count` links in namespace `acme`.
    fn with_links(count: u32) -> Self {
        let fixture = Self::new();
        let links: Vec<_> = (0..count).map(|n| link(&format!("token-{n}"), "https://example.com/")).collect();
        fixture.open(Access::ReadWrite).import(&links).unwrap();
        fixture
    }

    fn open(&self, access: Access) -> Database {
        self.try_open(access).unwrap()
    }

    fn try_open(&self, access: Access) -> Result<Database, Error> {
        open(&self.cluster.settings(""), access, TIMEOUT)
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.sql(sql)
    }
}

fn link(token: &str, url: &str) -> OwnedLinkRow {
    OwnedLinkRow {
        namespace: b"acme".into(),
        token: token.into(),
        url: url.into(),
        append: true,
        ..OwnedLinkRow::default()
    }
}

fn load(database: &mut Database) -> Result<u64, Error> {
    database.load(&mut |_| Ok(())).map(|loaded| loaded.rows)
}

/// All that changed, in portions of `rows_max`, and where to go on.
fn changes(database: &mut Database, mut from: Watermark, rows_max: u32) -> (Vec<(String, bool)>, Watermark) {
    let mut found = Vec::new();
    loop {
        let changed = database
            .changes(from, rows_max, &mut |row| {
                found.push((String::from_utf8(row.token.to_vec()).unwrap(), row.deleted));
                Ok(())
            })
            .unwrap();
        from = changed.next;
        if !changed.more {
            found.sort();
            return (found, from);
        }
    }
}

#[test]
fn creating_makes_a_whole_database_and_never_over_another() {
    let fixture = Fixture::new();
    let first = fixture.open(Access::ReadWrite).identity();
    let settings = fixture.cluster.settings("");
    assert!(matches!(create(&settings, TIMEOUT), Err(Error::Refused(_))));
    assert_eq!(fixture.open(Access::ReadOnly).identity(), first);
    assert!(
        matches!(first.place, Place::Server { system, timeline: 1, database } if system > 0 && database > 0)
    );
    let other = create(&settings.with_schema("other \"one\"".to_owned()), TIMEOUT).unwrap();
    assert_ne!(other.identity().uuid, first.uuid);
}

#[test]
fn opening_never_creates_and_tells_what_is_not_ours() {
    let cluster = Cluster::start();
    let check = || open(&cluster.settings(""), Access::ReadWrite, TIMEOUT).unwrap_err();
    let error = check();
    assert!(matches!(error, Error::NotOurs(_)) && error.to_string().contains("--create"), "{error}");
    assert_eq!(cluster.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'holdfast'"), "0");
    drop(create(&cluster.settings(""), Duration::from_secs(20)).unwrap());
    cluster.sql("ALTER TABLE holdfast.hits RENAME TO gone");
    let error = check();
    assert!(matches!(error, Error::NotOurs(_)) && error.to_string().contains("restored"), "{error}");
    cluster.sql("ALTER TABLE holdfast.gone RENAME TO hits; UPDATE holdfast.meta SET value = 99 WHERE key = 'compatible'");
    assert!(matches!(check(), Error::NotOurs(_)));
    let elsewhere = format!("postgres://postgres@127.0.0.1:{}/none", cluster.port());
    let elsewhere = Settings::parse(&elsewhere, |file| file.into()).unwrap();
    assert!(matches!(open(&elsewhere, Access::ReadOnly, TIMEOUT), Err(Error::Missing(_))));
}

#[test]
fn importing_twice_changes_nothing() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    let mut links: Vec<_> = (0..1000).map(|n| link(&format!("token-{n}"), "https://example.com/")).collect();
    let all_new = ImportedChunk { inserted: 1000, ..ImportedChunk::default() };
    assert_eq!(database.import(&links).unwrap(), all_new);
    let watermark = database.load(&mut |_| Ok(())).unwrap().watermark;
    let none_new = ImportedChunk { unchanged: 1000, ..ImportedChunk::default() };
    assert_eq!(database.import(&links).unwrap(), none_new);
    links[3].expires_at = Some(UnixMillis(2_000_000_000_123));
    links[4].campaign = "spring".into();
    links[5].disabled = true;
    let some_new = ImportedChunk { updated: 3, unchanged: 997, ..ImportedChunk::default() };
    assert_eq!(database.import(&links).unwrap(), some_new);
    assert_eq!(database.import(&links).unwrap(), ImportedChunk { unchanged: 1000, ..Default::default() });
    let (changed, _) = changes(&mut database, watermark, 100);
    assert_eq!(changed, [3, 4, 5].map(|n| (format!("token-{n}"), false)));
    let found = database.lookup(b"acme", b"token-3").unwrap().unwrap();
    assert_eq!(found.expires_at, Some(UnixMillis(2_000_000_000_123)));
}

#[test]
fn any_bytes_of_a_token_come_back() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    let token: Vec<u8> = (0..=255).collect();
    let row =
        OwnedLinkRow { token: token.clone(), expires_at: Some(UnixMillis(7)), ..link("", "https://é/") };
    database.import(std::slice::from_ref(&row)).unwrap();
    for _ in 0..2 {
        assert_eq!(database.lookup(b"acme", &token).unwrap().as_ref(), Some(&row));
    }
    assert_eq!(database.lookup(b"acme", b"other").unwrap(), None);
    assert_eq!(database.lookup(b"other", &token).unwrap(), None);
    let mut loaded = Vec::new();
    let mut each = |link: LinkRow<'_>| {
        loaded.push(OwnedLinkRow::from(link));
        Ok(())
    };
    database.load(&mut each).unwrap();
    database.export(&mut each).unwrap();
    assert_eq!(loaded, [row.clone(), row]);
}

#[test]
fn a_token_is_shown_in_every_namespace_and_exported_in_order() {
    let fixture = Fixture::with_links(50);
    let mut database = fixture.open(Access::ReadWrite);
    let elsewhere = OwnedLinkRow { namespace: b"Zeta".into(), ..link("token-7", "https://example.org/") };
    database.import(&[elsewhere]).unwrap();
    let found: Vec<_> = database.show(b"token-7").unwrap().into_iter().map(|row| row.namespace).collect();
    assert_eq!(found, [b"Zeta".to_vec(), b"acme".to_vec()]);
    assert_eq!(database.show(b"none").unwrap(), []);
    fixture.sql("DELETE FROM holdfast.links WHERE token = 'token-3'");
    let mut keys = Vec::new();
    database
        .export(&mut |row| {
            keys.push((row.namespace.to_vec(), row.token.to_vec()));
            Ok(())
        })
        .unwrap();
    assert!(keys.is_sorted() && keys.len() == 50);
}

/// Everything that anybody may do with plain SQL is seen by polling, once.
#[test]
fn plain_statements_are_followed() {
    let fixture = Fixture::with_links(5);
    let mut database = fixture.open(Access::ReadOnly);
    let mut watermark = database.load(&mut |_| Ok(())).unwrap().watermark;
    changes(&mut database, watermark, 100);
    let cases: &[(&str, &[(&str, bool)])] = &[
        ("INSERT INTO links (namespace, token, url) VALUES ('acme', 'new', 'https://a/')", &[("new", false)]),
        ("UPDATE links SET url = 'https://b/' WHERE token = 'new'", &[("new", false)]),
        ("UPDATE links SET revision = '9' WHERE token = 'new'", &[("new", false)]),
        (
            "INSERT INTO links (namespace, token, url, revision) VALUES ('acme', 'far', 'https://a/', '99999999')",
            &[("far", false)],
        ),
        (
            "UPDATE links SET disabled = true WHERE token LIKE 'token-%' AND token < 'token-2'",
            &[("token-0", false), ("token-1", false)],
        ),
        ("DELETE FROM links WHERE token = 'new'", &[("new", true)]),
        ("UPDATE links SET token = 'renamed' WHERE token = 'far'", &[("far", true), ("renamed", false)]),
        (
            "INSERT INTO links (namespace, token, url) VALUES ('acme', 'new', 'https://a/')
             ON CONFLICT (namespace, token) DO UPDATE SET url = excluded.url, deleted = false",
            &[("new", false)],
        ),
        ("DELETE FROM links WHERE deleted", &[]),
        ("DELETE FROM links WHERE token = 'none'", &[]),
        ("BEGIN; UPDATE links SET url = 'https://no/'; ROLLBACK", &[]),
        ("UPDATE links SET url = 'https://d/' WHERE token = 'renamed'", &[("renamed", false)]),
    ];
    for (sql, wanted) in cases {
        fixture.sql(&format!("SET search_path = holdfast; {sql}"));
        let (found, next) = changes(&mut database, watermark, 100);
        watermark = next;
        let wanted: Vec<_> = wanted.iter().map(|&(token, deleted)| (token.to_owned(), deleted)).collect();
        assert_eq!(found, wanted, "{sql}");
    }
}

/// A transaction that began before the load and ended after other changes were taken is not missed.
#[test]
fn a_long_transaction_is_not_missed_and_portions_are_whole() {
    let fixture = Fixture::with_links(10);
    let writer = fixture.open(Access::ReadWrite);
    let mut reader = fixture.open(Access::ReadOnly);
    let begun = "BEGIN; INSERT INTO holdfast.links (namespace, token, url)
        SELECT 'acme', 'late-' || n, 'https://late/' FROM generate_series(1, 25) n";
    writer.connection.run("test", async |talk| talk.batch(begun).await).unwrap();
    let loaded = reader.load(&mut |_| Ok(())).unwrap();
    assert_eq!(loaded.rows, 10);
    let (found, next) = changes(&mut reader, loaded.watermark, 4);
    assert_eq!((found, next), (vec![], loaded.watermark));
    fixture.sql("UPDATE holdfast.links SET url = 'https://other/' WHERE token = 'token-1'");
    let (found, next) = changes(&mut reader, next, 4);
    assert_eq!((found, next), (vec![("token-1".to_owned(), false)], loaded.watermark));
    let (found, next) = changes(&mut reader, next, 4);
    assert_eq!(found, vec![], "what was given is not given again");
    writer.connection.run("test", async |talk| talk.batch("COMMIT").await).unwrap();
    let (found, next) = changes(&mut reader, next, 4);
    assert_eq!(found.len(), 25, "{found:?}");
    assert!(next > loaded.watermark);
    // A new connection begins from the place alone, and is given a link again rather than not.
    let mut another = fixture.open(Access::ReadOnly);
    assert_eq!(changes(&mut another, loaded.watermark, 4).0.len(), 26);
}

#[test]
fn rows_that_change_between_portions_come_later() {
    let fixture = Fixture::with_links(10);
    let mut reader = fixture.open(Access::ReadOnly);
    let mut found = Vec::new();
    let mut from = Watermark(0);
    for round in 0.. {
        let changed = reader
            .changes(from, 3, &mut |row| {
                found.push(row.url.to_owned());
                Ok(())
            })
            .unwrap();
        if round == 0 {
            fixture.sql("UPDATE holdfast.links SET url = 'https://new/'");
        }
        from = changed.next;
        if !changed.more && round > 0 {
            break;
        }
    }
    found.clear();
    let (found, _) = changes(&mut reader, from, 3);
    assert_eq!(found.len(), 10, "those that were changed meanwhile");
}

#[test]
fn an_older_copy_is_told_by_its_numbers() {
    let fixture = Fixture::with_links(10);
    let mut reader = fixture.open(Access::ReadOnly);
    let beyond = Watermark(1_000_000_000);
    let changed = reader.changes(beyond, 3, &mut |_| Ok(())).unwrap();
    assert!(changed.next < beyond && !changed.more);
}

#[test]
fn others_writes_count_as_changes() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadOnly);
    assert!(database.changed().unwrap());
    assert!(!database.changed().unwrap());
    assert!(database.watch.listening);
    fixture.open(Access::ReadWrite).import(&[link("a", "https://example.com/")]).unwrap();
    assert!(database.changed().unwrap());
    assert!(!database.changed().unwrap());
    fixture.sql("SELECT pg_notify('holdfast_links', '')");
    assert!(database.changed().unwrap());
}

#[test]
fn a_load_that_is_stopped_is_not_complete() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    assert!(matches!(database.load(&mut |_| Err(Stop)), Err(Error::Stopped)));
    assert!(matches!(load(&mut database), Err(Error::Unavailable(_))), "it is not used again");
    assert_eq!(load(&mut fixture.open(Access::ReadOnly)).unwrap(), 10);
}

#[test]
fn behind_a_transaction_pooler_nothing_belongs_to_a_session() {
    let fixture = Fixture::with_links(10);
    let settings = fixture.cluster.settings("").with_pooler(Pooler::Transaction);
    let mut database = open(&settings, Access::ReadWrite, TIMEOUT).unwrap();
    assert!(database.changed().unwrap() && !database.watch.listening);
    assert!(database.lookup(b"acme", b"token-1").unwrap().is_some() && database.lookup.is_none());
    let limits = database.connection.run("test", async |talk| {
        Ok(talk.one("SELECT current_setting('statement_timeout')", &[]).await?.get::<_, String>(0))
    });
    assert_eq!(limits.unwrap(), "0");
    let inside = database.connection.transaction("READ ONLY", async |talk| {
        Ok(talk.one("SELECT current_setting('statement_timeout')", &[]).await?.get::<_, String>(0))
    });
    assert_eq!(inside.unwrap(), "500ms");
}

#[test]
fn connections_say_whose_they_are_and_go_at_once() {
    let fixture = Fixture::with_links(1);
    let ours = "SELECT string_agg(application_name, ',') FROM pg_stat_activity WHERE application_name LIKE 'holdfast%'";
    let database = fixture.open(Access::ReadOnly);
    let names = fixture.sql(ours);
    assert!(names.starts_with("holdfast test "), "{names}");
    drop(database);
    for _ in 0..50 {
        if fixture.sql(ours).is_empty() {
            return;
        }
        crate::database::tests::cluster::pause(Duration::from_millis(20));
    }
    panic!("a connection stayed: {}", fixture.sql(ours));
}

#[test]
fn migrations_are_taken_once_by_whoever_comes_first() {
    let fixture = Fixture::new();
    let uuid = fixture.open(Access::ReadOnly).identity().uuid;
    let mut database = fixture.open(Access::ReadWrite);
    database.found = 0;
    assert!(matches!(database.migrate(Migrate::Never), Err(Error::NotOurs(_))));
    assert_eq!(database.migrate(Migrate::Auto).unwrap(), 3, "somebody else took them: nothing is done");
    assert_eq!(database.migrate(Migrate::Auto).unwrap(), 0);
    assert_eq!(fixture.open(Access::ReadOnly).identity().uuid, uuid);
}
