//! Tests of the database on real files: what users do to it, and what happens to files.

#![expect(clippy::disallowed_methods, reason = "deadlines are held against real time")]

use super::*;
use crate::event::UnixMillis;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(200);

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        drop(create(&fixture.path(), UnixMillis(1)).unwrap());
        fixture
    }

    /// With `count` links in namespace `acme`.
    fn with_links(count: u32) -> Self {
        let fixture = Self::new();
        let links: Vec<_> = (0..count).map(|n| link(&format!("token-{n}"), "https://example.com/")).collect();
        fixture.open(Access::ReadWrite).import(&links).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("holdfast.db")
    }

    fn open(&self, access: Access) -> Database {
        open(&self.path(), access, TIMEOUT).unwrap()
    }

    /// Somebody else's connection, as the sqlite3 shell would have it.
    fn other(&self) -> Connection {
        Connection::open(self.path()).unwrap()
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

fn tokens(result: &mut Vec<(String, bool)>) -> impl FnMut(LinkRow<'_>) -> Result<(), Stop> + '_ {
    |row| {
        result.push((String::from_utf8(row.token.to_vec()).unwrap(), row.deleted));
        Ok(())
    }
}

fn load(database: &mut Database) -> Result<u64, Error> {
    database.load(&mut |_| Ok(())).map(|loaded| loaded.rows)
}

#[test]
fn creating_makes_a_whole_database_and_never_over_another() {
    let fixture = Fixture::new();
    let first = fixture.open(Access::ReadWrite).identity();
    assert!(matches!(create(&fixture.path(), UnixMillis(2)), Err(Error::Refused(_))));
    assert_eq!(fixture.open(Access::ReadWrite).identity(), first);
    assert_eq!(fixture.open(Access::ReadOnly).schema(), migrations::SCHEMA);
    assert_ne!(Fixture::new().open(Access::ReadOnly).identity().uuid, first.uuid);
}

#[test]
fn opening_never_creates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        assert!(matches!(open(&path, access, TIMEOUT), Err(Error::Missing(_))));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_ours_is_told_from_what_is_damaged() {
    let fixture = Fixture::with_links(10);
    let check = |path: &Path| open(path, Access::ReadOnly, TIMEOUT).unwrap_err();
    let path = fixture.folder.path().join("other.db");
    fs::write(&path, b"").unwrap();
    assert!(matches!(check(&path), Error::NotOurs(_)));
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(matches!(check(&path), Error::Corrupt(_)));
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE clicks (id)").unwrap();
    assert!(matches!(check(&path), Error::NotOurs(_)));
    fixture.other().execute_batch("UPDATE meta SET value = 99 WHERE key = 'compatible'").unwrap();
    assert!(matches!(check(&fixture.path()), Error::NotOurs(_)));
}

#[test]
fn rule_29_holds_for_a_dump_that_was_read_back() {
    let fixture = Fixture::with_links(10);
    fixture.other().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    assert_eq!(load(&mut fixture.open(Access::ReadOnly)).unwrap(), 10);
    let database = fixture.open(Access::ReadWrite);
    let text =
        |name| database.connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
    let number =
        |name| database.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!((number("synchronous"), number("mmap_size")), (2, 0));
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
    links[3].expires_at = Some(UnixMillis(2_000_000_000_000));
    links[4].campaign = "spring".into();
    links[5].disabled = true;
    let some_new = ImportedChunk { updated: 3, unchanged: 997, ..ImportedChunk::default() };
    assert_eq!(database.import(&links).unwrap(), some_new);
    let mut changed = Vec::new();
    database.changes(watermark, 100, &mut tokens(&mut changed)).unwrap();
    assert_eq!(changed, [3, 4, 5].map(|n| (format!("token-{n}"), false)));
}

#[test]
fn an_import_is_whole_or_nothing() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    let mut late = link("late", "https://example.com/");
    late.expires_at = Some(UnixMillis(1_700_000_000)); // seconds, by mistake
    assert!(matches!(database.import(&[link("a", "https://example.com/"), late]), Err(Error::Refused(_))));
    assert_eq!(load(&mut database).unwrap(), 0);
}

#[test]
fn any_bytes_of_a_token_come_back() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadWrite);
    let token: Vec<u8> = (0..=255).collect();
    let row = OwnedLinkRow { token: token.clone(), ..link("", "https://example.com/") };
    database.import(&[row]).unwrap();
    assert_eq!(database.lookup(b"acme", &token).unwrap().unwrap().token, token);
    assert_eq!(database.lookup(b"acme", b"other").unwrap(), None);
    assert_eq!(database.lookup(b"other", &token).unwrap(), None);
    let mut loaded = Vec::new();
    database
        .load(&mut |row| {
            loaded = row.token.to_vec();
            Ok(())
        })
        .unwrap();
    assert_eq!(loaded, token);
}

#[test]
fn a_token_is_shown_in_every_namespace() {
    let fixture = Fixture::with_links(50);
    let mut database = fixture.open(Access::ReadWrite);
    let elsewhere = OwnedLinkRow { namespace: b"zeta".into(), ..link("token-7", "https://example.org/") };
    database.import(&[elsewhere]).unwrap();
    let found: Vec<_> = database.show(b"token-7").unwrap().into_iter().map(|row| row.namespace).collect();
    assert_eq!(found, [b"acme".to_vec(), b"zeta".to_vec()]);
    assert_eq!(database.show(b"none").unwrap(), []);
}

/// Everything that anybody may do with plain SQL is seen by polling, once and in order.
#[test]
fn plain_statements_are_followed() {
    let fixture = Fixture::with_links(5);
    let mut database = fixture.open(Access::ReadOnly);
    let mut watermark = database.load(&mut |_| Ok(())).unwrap().watermark;
    let other = fixture.other();
    let cases: &[(&str, &[(&str, bool)])] = &[
        ("INSERT INTO links (namespace, token, url) VALUES ('acme', 'new', 'https://a/')", &[("new", false)]),
        ("UPDATE links SET url = 'https://b/' WHERE token = 'new'", &[("new", false)]),
        ("UPDATE links SET url = 'https://b/', updated_at = 5 WHERE token = 'new'", &[("new", false)]),
        ("UPDATE links SET updated_at = 9000000000000000 WHERE token = 'new'", &[("new", false)]),
        (
            "INSERT OR REPLACE INTO links (namespace, token, url) VALUES ('acme', 'new', 'https://c/')",
            &[("new", false)],
        ),
        (
            "INSERT INTO links (namespace, token, url, updated_at) VALUES ('acme', 'far', 'https://a/', 9e15)",
            &[("far", false)],
        ),
        (
            "UPDATE links SET disabled = 1 WHERE token LIKE 'token-%' AND token < 'token-2'",
            &[("token-0", false), ("token-1", false)],
        ),
        ("DELETE FROM links WHERE token = 'new'", &[("new", true)]),
        ("UPDATE links SET token = 'renamed' WHERE token = 'far'", &[("renamed", false), ("far", true)]),
        (
            "INSERT INTO links (namespace, token, url) VALUES ('acme', 'new', 'https://a/') ON CONFLICT DO UPDATE SET url = excluded.url, deleted = 0",
            &[("new", false)],
        ),
        ("DELETE FROM links WHERE deleted = 1", &[]),
        ("DELETE FROM links WHERE token = 'none'", &[]),
        ("PRAGMA recursive_triggers = ON; DELETE FROM links WHERE token = 'new'", &[("new", true)]),
        ("UPDATE links SET url = 'https://d/' WHERE token = 'renamed'", &[("renamed", false)]),
    ];
    for (sql, wanted) in cases {
        other.execute_batch(sql).unwrap();
        let mut found = Vec::new();
        watermark = database.changes(watermark, 100, &mut tokens(&mut found)).unwrap().next;
        found.sort();
        let mut wanted: Vec<_> = wanted.iter().map(|&(token, deleted)| (token.to_owned(), deleted)).collect();
        wanted.sort();
        assert_eq!(found, wanted, "{sql}");
    }
    let distinct = "SELECT count(*) = count(DISTINCT updated_at) AND min(updated_at) > 0 FROM links";
    assert!(other.query_row(distinct, (), |row| row.get::<_, bool>(0)).unwrap());
}

#[test]
fn changes_come_in_portions_and_a_step_back_shows() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    let mut found = Vec::new();
    let mut watermark = Watermark::default();
    let end = database.load(&mut |_| Ok(())).unwrap().watermark;
    while watermark < end {
        watermark = database.changes(watermark, 3, &mut tokens(&mut found)).unwrap().next;
    }
    assert_eq!(found.len(), 10);
    let beyond = Watermark(end.0 + 1_000_000);
    assert_eq!(database.changes(beyond, 3, &mut |_| Ok(())).unwrap().next, end);
}

#[test]
fn only_others_writes_count_as_changes() {
    let fixture = Fixture::new();
    let mut database = fixture.open(Access::ReadOnly);
    assert!(database.changed().unwrap());
    assert!(!database.changed().unwrap());
    fixture.open(Access::ReadWrite).import(&[link("a", "https://example.com/")]).unwrap();
    assert!(database.changed().unwrap());
    assert!(!database.changed().unwrap());
}

#[test]
fn a_load_that_is_stopped_is_not_complete() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    assert!(matches!(database.load(&mut |_| Err(Stop)), Err(Error::Stopped)));
    assert_eq!(load(&mut database).unwrap(), 10);
}

#[test]
fn a_text_that_is_no_text_fails_no_load() {
    let fixture = Fixture::new();
    fixture
        .other()
        .execute_batch("INSERT INTO links (namespace, token, url) VALUES ('acme', CAST(x'61ff' AS TEXT), CAST(x'ff' AS TEXT))")
        .unwrap();
    let mut seen = Vec::new();
    fixture
        .open(Access::ReadOnly)
        .load(&mut |row| {
            seen.push((row.token.to_vec(), row.url.to_owned()));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(b"a\xff".to_vec(), String::new())]);
}

#[test]
fn a_locked_file_is_waited_for_and_then_unavailable() {
    let fixture = Fixture::with_links(10);
    let mut reader = fixture.open(Access::ReadOnly);
    let mut writer = fixture.open(Access::ReadWrite);
    let other = fixture.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    assert!(matches!(writer.import(&[link("a", "https://example.com/")]), Err(Error::Unavailable(_))));
    assert!(began.elapsed() >= TIMEOUT && began.elapsed() < TIMEOUT * 20);
    assert_eq!(load(&mut reader).unwrap(), 10, "a writer does not stop readers");
    other.execute_batch("COMMIT").unwrap();
    drop((reader, writer));
    other
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE meta SET value = value")
        .unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        assert!(matches!(open(&fixture.path(), access, TIMEOUT), Err(Error::Unavailable(_))));
    }
}

#[test]
fn a_lock_that_comes_later_makes_a_load_unavailable_not_empty() {
    let fixture = Fixture::with_links(10);
    let other = fixture.other();
    other.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let mut reader = fixture.open(Access::ReadOnly);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(load(&mut reader), Err(Error::Unavailable(_))));
    assert!(matches!(reader.lookup(b"acme", b"token-1"), Err(Error::Unavailable(_))));
    assert!(matches!(reader.changed(), Ok(_) | Err(Error::Unavailable(_))));
}

#[test]
fn a_file_that_was_moved_away_is_told_at_once() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    fs::rename(fixture.path(), fixture.folder.path().join("aside.db")).unwrap();
    assert!(matches!(load(&mut database), Err(Error::Replaced(_))));
    assert!(matches!(database.lookup(b"acme", b"token-1"), Err(Error::Replaced(_))));
    assert!(matches!(database.changed(), Err(Error::Replaced(_))));
    assert!(!fixture.path().exists());
}

/// Without care SQLite plays the old file's log into the new file at its next opening.
#[test]
fn a_replaced_file_is_told_and_does_not_get_the_old_files_log() {
    let (fixture, spare) = (Fixture::with_links(10), Fixture::with_links(3));
    let spare_uuid = spare.open(Access::ReadOnly).identity().uuid;
    let mut reader = fixture.open(Access::ReadOnly);
    let mut writer = fixture.open(Access::ReadWrite);
    let many: Vec<_> = (0..5000).map(|n| link(&format!("more-{n}"), "https://example.com/")).collect();
    writer.import(&many).unwrap();
    assert!(fs::metadata(fixture.folder.path().join("holdfast.db-wal")).unwrap().len() > 0);
    fs::rename(spare.path(), fixture.path()).unwrap();
    assert!(matches!(load(&mut reader), Err(Error::Replaced(_))));
    assert!(matches!(writer.import(&many), Err(Error::Replaced(_))));
    drop((reader, writer));
    let mut database = fixture.open(Access::ReadOnly);
    assert_eq!((load(&mut database).unwrap(), database.identity().uuid), (3, spare_uuid));
    let names: Vec<_> =
        fs::read_dir(fixture.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains("-wal.orphaned-")), "{names:?}");
}

#[test]
fn a_file_that_is_replaced_during_a_load_is_not_believed() {
    let (fixture, spare) = (Fixture::with_links(10), Fixture::with_links(3));
    let mut database = fixture.open(Access::ReadOnly);
    let replace = database.load(&mut |_| {
        let _ = fs::rename(spare.path(), fixture.path());
        Ok(())
    });
    assert!(matches!(replace, Err(Error::Replaced(_))));
}

#[test]
fn an_emptied_file_is_told_at_once() {
    let fixture = Fixture::with_links(10);
    let mut reader = fixture.open(Access::ReadOnly);
    let mut writer = fixture.open(Access::ReadWrite);
    fs::OpenOptions::new().write(true).open(fixture.path()).unwrap().set_len(0).unwrap();
    assert!(matches!(load(&mut reader), Err(Error::Replaced(_))));
    assert!(matches!(writer.import(&[link("a", "https://example.com/")]), Err(Error::Replaced(_))));
    // Closing the last connection once played the write-ahead log into the empty file, and removed it.
    drop((reader, writer));
    assert_eq!(fs::metadata(fixture.path()).unwrap().len(), 0);
    let kept = fs::read_dir(fixture.path().parent().unwrap()).unwrap().filter_map(Result::ok);
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("-wal.orphaned-")).count();
    assert_eq!(kept, 1, "what was committed is in the log, which is kept");
}

#[test]
fn a_file_that_was_shortened_or_overwritten_is_damaged_not_shorter() {
    let damage: [fn(&mut fs::File); 2] = [
        |file| file.set_len(3 * 4096).unwrap(),
        |file| {
            let length = file.metadata().unwrap().len();
            file.rewind().unwrap();
            file.write_all(&vec![b'x'; length as usize]).unwrap();
        },
    ];
    for change in damage {
        let fixture = Fixture::with_links(5000);
        let mut open_before = fixture.open(Access::ReadOnly);
        load(&mut open_before).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(fixture.path()).unwrap();
        change(&mut file);
        let after = load(&mut open_before);
        assert!(matches!(after, Err(Error::Corrupt(_))), "{after:?}");
        drop(open_before);
        let anew =
            open(&fixture.path(), Access::ReadOnly, TIMEOUT).and_then(|mut database| load(&mut database));
        assert!(matches!(anew, Err(Error::Corrupt(_))), "{anew:?}");
    }
}

#[test]
fn a_statement_ends_at_its_deadline_and_the_next_one_works() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    let endless = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let began = Instant::now();
    database.deadline.arm();
    let ended = database.connection.query_row(endless, (), |row| row.get::<_, i64>(0));
    assert!(matches!(database.error("waiting", ended.unwrap_err()), Error::Unavailable(_)));
    assert!(began.elapsed() >= TIMEOUT && began.elapsed() < TIMEOUT * 20);
    assert_eq!(load(&mut database).unwrap(), 10);
}

#[test]
fn the_log_is_emptied_when_nobody_holds_it() {
    let fixture = Fixture::with_links(10);
    let mut writer = fixture.open(Access::ReadWrite);
    writer.import(&[link("a", "https://example.com/")]).unwrap();
    let log = fixture.folder.path().join("holdfast.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let other = fixture.other();
    other.execute_batch("BEGIN; SELECT count(*) FROM links").unwrap();
    writer.import(&[link("b", "https://example.com/")]).unwrap();
    assert!(!writer.checkpoint().unwrap(), "a reader holds it");
    drop(other);
    assert!(writer.checkpoint().unwrap());
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
}

#[test]
fn a_full_disk_writes_nothing_and_is_waited_for() {
    let fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadWrite);
    let many: Vec<_> = (0..5000).map(|n| link(&format!("more-{n}"), "https://example.com/")).collect();
    let limit = |database: &Database, pages: i64| {
        database.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&database, 30);
    assert!(matches!(database.import(&many), Err(Error::Unavailable(_))));
    assert_eq!(load(&mut database).unwrap(), 10);
    limit(&database, 1 << 30);
    assert_eq!(database.import(&many).unwrap().inserted, 5000);
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.db");
    fs::write(&path, b"").unwrap();
    let error = open(&path, Access::ReadOnly, TIMEOUT).unwrap_err().to_string();
    assert!(error.contains("empty.db") && error.contains("holdfast init"), "{error}");
}
