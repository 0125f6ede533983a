//! The pump into SQLite on real files.

use crate::database::{Access, Migrate, Source, create, open};
use crate::deliver::memory::{Shelf, event};
use crate::deliver::{
    AdoptFrom, Alarm, Config, DatabaseSink, Pump, Ranges, Remembered, Standing, Step, reconcile,
};
use crate::event::{Captures, Event, UnixMillis};
use crate::journal::{JournalId, Sequence};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_millis(300);

/// An edge with its folder, its journals in memory, and its database.
struct Edge {
    folder: tempfile::TempDir,
    shelf: Shelf,
    journal: JournalId,
    now: UnixMillis,
}

type FilePump = Pump<Shelf, DatabaseSink>;

impl Edge {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::default();
        let journal = shelf.open(1);
        let edge = Self { folder, shelf, journal, now: UnixMillis(1_000_000) };
        drop(create(&edge.source(), edge.now).unwrap());
        edge
    }

    fn source(&self) -> Source {
        Source::Sqlite(self.path())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("holdfast.db")
    }

    fn pump(&self) -> FilePump {
        let (remembered, _) = Remembered::open(self.folder.path().join("deliver.json")).unwrap();
        let sink = DatabaseSink::new(self.source(), TIMEOUT, Migrate::Auto);
        Pump::new(Config::new("sqlite"), self.shelf.clone(), sink, remembered, 1)
    }

    fn append(&self, count: u64) {
        (0..count).for_each(|n| self.shelf.append(event(format!("token-{n}").as_bytes())));
    }

    /// Steps until there is nothing to do.
    fn drain(&mut self, pump: &mut FilePump) -> Step {
        loop {
            self.now.0 += 1_000;
            let step = pump.step(self.now, true);
            if !matches!(step, Step::Delivered(_)) {
                return step;
            }
        }
    }

    fn settle(&mut self, pump: &mut FilePump) {
        let step = self.drain(pump);
        assert!(matches!(step, Step::Idle), "{step:?}");
    }

    fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    fn ask(&self, sql: &str) -> i64 {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.query_row(sql, (), |row| row.get(0)).unwrap()
    }

    /// Everything that was appended is there once, the books are balanced.
    fn check(&self, rows: i64, rejected: i64) {
        assert_eq!(self.ask("SELECT count(*) FROM hits"), rows);
        assert_eq!(self.ask("SELECT count(*) FROM rejected"), rejected);
        let mut database = open(&self.source(), Access::ReadOnly, TIMEOUT).unwrap();
        let report = reconcile(&self.shelf, "edge-1", &mut database).unwrap();
        assert!(report.is_balanced(), "{report:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

#[test]
fn rows_hold_what_the_hits_said() {
    let mut edge = Edge::new();
    let mut captures = Vec::new();
    Captures::push(&mut captures, b"account", b"U\"A");
    Captures::push(&mut captures, b"n", b"\xff");
    let mut payload = Vec::new();
    let sample = event(b"");
    let plain = Event::decode(&sample).unwrap();
    let hostile = Event {
        token: b"a\0b\\\xff",
        captures: &captures,
        query: b"x=%00&y=\x1b[2J",
        address: &[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        user_agent: b"'; DROP TABLE hits; --",
        referrer: "https://example.com/\u{202e}é".as_bytes(),
        ..plain
    };
    hostile.encode(&mut payload);
    edge.shelf.append(payload);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    let connection = rusqlite::Connection::open(edge.path()).unwrap();
    let sql = "SELECT json_array(journal, sequence, at, host, site, namespace, kind, token, campaign, captures, query,
               method, status, outcome, class, url, address, user_agent, referrer, verdict) FROM hits";
    let found: String = connection.query_row(sql, (), |row| row.get(0)).unwrap();
    let wanted = serde_json::json!([
        1,
        1,
        1,
        "click.example.com",
        "shop",
        "acme",
        "click",
        "a\\x00b\\\\\\xFF",
        "spring",
        "{\"account\":\"U\\\"A\",\"n\":\"\\\\xFF\"}",
        "x=%00&y=\\x1B[2J",
        "GET",
        302,
        "redirected",
        "synced",
        "",
        "2001:db8:1::",
        "'; DROP TABLE hits; --",
        "https://example.com/\u{202e}é",
        ""
    ]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&found).unwrap(), wanted);
    edge.check(1, 0);
}

#[test]
fn a_kill_between_commit_and_bookkeeping_doubles_nothing() {
    let mut edge = Edge::new();
    for round in 0..5 {
        edge.append(100);
        let mut pump = edge.pump();
        edge.now.0 += 1_000;
        assert!(matches!(pump.step(edge.now, true), Step::Delivered(_)));
        // Dropped before it settles anything; in every other round deliver.json is lost as well.
        drop(pump);
        if round % 2 == 0 {
            fs::remove_file(edge.folder.path().join("deliver.json")).unwrap();
        }
    }
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    edge.check(500, 0);
    assert_eq!(edge.ask("SELECT sum(rows) FROM batches"), 500);
    assert_eq!(pump.stats().doubled.load(Relaxed), 0);
}

#[test]
fn poison_is_found_one_by_one_and_the_rest_is_delivered() {
    let actions = ["ABORT", "FAIL", "ROLLBACK", "CHECK", "UNIQUE", "FUNCTION"];
    for action in actions {
        let mut edge = Edge::new();
        edge.sql(&match action {
            "CHECK" => "ALTER TABLE hits ADD COLUMN extra TEXT CHECK (token NOT LIKE 'token-1_')".to_owned(),
            "UNIQUE" => "INSERT INTO hits SELECT 99, value, 0, '', '', '', '', 'token-1' || value, '', '', '', '', 0,
                         '', '', '', '', '', '', '' FROM json_each('[0,1,2,3,4,5,6,7,8,9]');
                         INSERT INTO journals VALUES (99, 'ffffffff-ffff-4fff-8fff-ffffffffffff', 'edge-2', 0);
                         CREATE UNIQUE INDEX own ON hits (token)"
                .to_owned(),
            "FUNCTION" => "CREATE TRIGGER own BEFORE INSERT ON hits WHEN NEW.token LIKE 'token-1_'
                           BEGIN SELECT json('{') ; END"
                .to_owned(),
            raise => format!(
                "CREATE TRIGGER own AFTER INSERT ON hits WHEN NEW.token LIKE 'token-1_'
                 BEGIN SELECT RAISE({raise}, 'not this one'); END"
            ),
        });
        edge.append(100);
        edge.shelf.append(b"no event".to_vec());
        let mut pump = edge.pump();
        edge.settle(&mut pump);
        let hits = edge.ask("SELECT count(*) FROM hits WHERE journal <> 99");
        assert_eq!((hits, edge.ask("SELECT count(*) FROM rejected")), (90, 11), "{action}");
        assert_eq!(edge.ask("SELECT sum(rejected) FROM batches"), 11, "{action}");
        assert_eq!(edge.ask("SELECT min(sequence) FROM rejected"), 11, "{action}");
        let reasons =
            edge.ask("SELECT count(*) FROM rejected WHERE length(reason) > 8 AND length(event) > 7");
        assert_eq!(reasons, 11, "{action}");
        assert!(pump.take_alarms().iter().all(|a| matches!(a, Alarm::RejectRate { .. })), "{action}");
    }
}

#[test]
fn rows_above_the_cursor_alarm_and_stay() {
    let mut edge = Edge::new();
    edge.append(50);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    edge.sql("UPDATE cursors SET sequence = 20");
    let _ = pump.step(edge.now, false);
    edge.settle(&mut pump);
    let alarms = pump.take_alarms();
    let (journal, first, last) = (edge.journal, Sequence(21), Sequence(50));
    assert!(alarms.contains(&Alarm::Doubled { journal, first, last, rows: 30 }), "{alarms:?}");
    edge.check(50, 0);
}

#[test]
fn an_older_copy_gets_what_it_misses() {
    let mut edge = Edge::new();
    let backup = edge.folder.path().join("backup.db");
    edge.append(40);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    let _ = pump.step(edge.now, false);
    copy(&edge.path(), &backup);
    let second = edge.shelf.open(2);
    edge.append(40);
    edge.settle(&mut pump);
    edge.check(80, 0);
    // The copy knows nothing of the second journal: it gets all of it, without being asked about.
    let _ = pump.step(edge.now, false);
    fs::rename(&backup, edge.path()).unwrap();
    edge.append(1);
    edge.settle(&mut pump);
    edge.check(81, 0);
    let rewound = Alarm::Rewound { journal: second, from: Some(Sequence(40)), to: Sequence(0) };
    assert!(pump.take_alarms().contains(&rewound));
}

#[test]
fn a_lost_cursor_waits_until_somebody_decides() {
    for loss in ["DELETE FROM cursors", "DELETE FROM cursors; DELETE FROM journals"] {
        let mut edge = Edge::new();
        edge.append(30);
        let mut pump = edge.pump();
        edge.settle(&mut pump);
        drop(pump);
        edge.sql(loss);
        edge.append(5);
        let mut pump = edge.pump();
        let step = edge.drain(&mut pump);
        assert!(matches!(step, Step::Standing { reason: Standing::CursorLost { .. } }), "{step:?}");
        assert_eq!(edge.ask("SELECT count(*) FROM hits"), 30);
        pump.adopt(AdoptFrom::Sequence(Sequence(31)), None).unwrap();
        edge.settle(&mut pump);
        assert_eq!(edge.ask("SELECT count(*) FROM hits"), 35, "{loss}");
    }
}

#[test]
fn adoption_from_the_oldest_doubles_nothing() {
    let mut edge = Edge::new();
    edge.append(30);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    edge.sql("DELETE FROM cursors");
    edge.append(5);
    edge.now.0 += 60_000;
    assert!(matches!(edge.drain(&mut pump), Step::Standing { .. }));
    pump.adopt(AdoptFrom::Oldest, None).unwrap();
    edge.settle(&mut pump);
    edge.check(35, 0);
    assert_eq!(pump.stats().skipped.load(Relaxed), 30);
}

#[test]
fn a_file_that_is_gone_locked_or_replaced_is_waited_for() {
    let mut edge = Edge::new();
    edge.append(10);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    let aside = edge.folder.path().join("aside.db");
    fs::rename(edge.path(), &aside).unwrap();
    edge.append(10);
    assert!(matches!(edge.drain(&mut pump), Step::Failed { .. }));
    assert!(matches!(edge.drain(&mut pump), Step::Failed { .. }));
    assert!(!edge.path().exists(), "delivery must not create a database");
    // Another one in its place gets everything; its own identity says that it never had any.
    drop(create(&edge.source(), edge.now).unwrap());
    edge.settle(&mut pump);
    edge.check(20, 0);
    let locked = rusqlite::Connection::open(edge.path()).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    edge.append(1);
    assert!(matches!(edge.drain(&mut pump), Step::Failed { .. }));
    drop(locked);
    edge.settle(&mut pump);
    edge.check(21, 0);
}

#[test]
fn two_pumps_are_fenced_by_the_cursor() {
    let mut edge = Edge::new();
    let (mut one, mut two) = (edge.pump(), edge.pump());
    for _ in 0..10 {
        edge.append(3);
        let _ = one.step(edge.now, true);
        edge.append(3);
        let _ = two.step(edge.now, true);
    }
    edge.settle(&mut one);
    edge.check(60, 0);
    assert!(one.stats().moved.load(Relaxed) > 0 && two.stats().moved.load(Relaxed) > 0);
}

#[test]
fn reconcile_names_what_is_missing_doubled_and_gone() {
    let mut edge = Edge::new();
    edge.append(60);
    edge.shelf.with(edge.journal, |log| {
        log.first = 6;
        log.damaged[9] = true;
    });
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    edge.append(4);
    edge.check(54, 0);
    edge.sql("DELETE FROM hits WHERE sequence IN (20, 21, 40)");
    edge.sql("INSERT INTO rejected SELECT journal, sequence, at, '', x'' FROM hits WHERE sequence = 50");
    edge.sql("UPDATE hits SET sequence = 1000 WHERE sequence = 55");
    let mut database = open(&edge.source(), Access::ReadOnly, TIMEOUT).unwrap();
    let report = reconcile(&edge.shelf, "edge-1", &mut database).unwrap();
    assert!(!report.is_balanced());
    let [journal] = report.journals.as_slice() else { panic!("{report:?}") };
    let ranges = |count, listed: &[(u64, u64)]| Ranges { count, listed: listed.to_vec(), more: false };
    assert_eq!(journal.missing, ranges(4, &[(20, 21), (40, 40), (55, 55)]));
    assert_eq!(journal.doubled, ranges(1, &[(50, 50)]));
    assert_eq!(journal.beyond, ranges(1, &[(1000, 1000)]));
    assert_eq!((journal.appended, journal.delivered, journal.pending), (64, 50, 4));
    assert_eq!((journal.quarantined, journal.expired), (1, 5));
}

#[test]
fn reconcile_accounts_for_what_the_journal_has_dropped() {
    let mut edge = Edge::new();
    edge.append(30);
    edge.shelf.with(edge.journal, |log| log.first = 4);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    let other = edge.shelf.open(2);
    edge.append(7);
    edge.settle(&mut pump);
    edge.sql("DELETE FROM hits WHERE journal = 1 AND sequence BETWEEN 10 AND 12");
    edge.shelf.with(edge.journal, |log| log.first = 31);
    let mut database = open(&edge.source(), Access::ReadOnly, TIMEOUT).unwrap();
    let dropped = reconcile(&edge.shelf, "edge-1", &mut database).unwrap();
    edge.shelf.0.borrow_mut().retain(|log| log.id == other);
    let forgotten = reconcile(&edge.shelf, "edge-1", &mut database).unwrap();
    for report in [dropped, forgotten] {
        let journal = report.journals.iter().find(|j| j.journal == edge.journal.to_string()).unwrap();
        assert_eq!((journal.delivered, journal.expired, journal.missing.count), (24, 3, 3), "{report:?}");
    }
}
