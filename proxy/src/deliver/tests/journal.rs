//! The pump between a real journal and a real database, on disk.

#![expect(clippy::disallowed_methods, reason = "the committer gets its thread here")]

use crate::database::{Access, Migrate, Source, create, open};
use crate::deliver::memory::event;
use crate::deliver::{Config, DatabaseSink, Pump, Remembered, Step, reconcile};
use crate::event::UnixMillis;
use crate::journal::disk::FileDisk;
use crate::journal::{self, JournalId, Tag};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// One life of an edge: records are appended, some are delivered while it lives.
fn live(folder: &Path, life: u8, records: u64, steps: usize) {
    let mut config = journal::Config::new(folder.join("journals"));
    config.segment_bytes = 128 << 10;
    let now = UnixMillis(1_000 * u64::from(life));
    let id = JournalId::from_bytes([life; 16]);
    let opened = journal::open(config, Arc::new(FileDisk), id, "edge-1", now).unwrap();
    let (journal, committer, mut mill) = (opened.journal, opened.committer, opened.mill);
    let thread = std::thread::spawn(move || committer.run());
    let mut stager = journal.stager(Arc::new(|| {}));
    let payload = |n: u64| event(format!("token-{n}").as_bytes());
    for n in 0..records {
        stager.stage(now, Tag(1), |out| out.extend(payload(n))).unwrap();
        if n % 100 == 0 {
            stager.flush();
        }
    }
    stager.flush();
    let mut waited = 0;
    while journal.status().synced.0 < records {
        std::thread::sleep(Duration::from_millis(2));
        waited += 1;
        assert!(waited < 5_000, "the journal does not sync");
    }
    let _ = mill.tend(now);
    let sink = DatabaseSink::new(source(folder), TIMEOUT, Migrate::Auto);
    let (remembered, _) = Remembered::open(folder.join("deliver.json")).unwrap();
    let mut settings = Config::new("sqlite");
    settings.batch_rows = 300;
    let mut pump = Pump::new(settings, journal.clone(), sink, remembered, 1);
    for _ in 0..steps {
        match pump.step(now, true) {
            Step::Delivered(_) | Step::Idle => {}
            step => panic!("{step:?}"),
        }
    }
    assert_eq!(pump.take_alarms(), []);
    let mut database = open(&source(folder), Access::ReadOnly, TIMEOUT).unwrap();
    let report = reconcile(&journal, "edge-1", &mut database).unwrap();
    assert!(report.is_balanced(), "{report:?}");
    journal.stop();
    thread.join().unwrap();
}

#[test]
fn several_lives_are_drained_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(&source(folder.path()), UnixMillis(1)).unwrap());
    live(folder.path(), 1, 1_000, 2);
    live(folder.path(), 2, 700, 1);
    live(folder.path(), 3, 50, 40);
    let connection = rusqlite::Connection::open(folder.path().join("holdfast.db")).unwrap();
    let sql = "SELECT count(*) FROM hits JOIN journals ON journals.id = hits.journal";
    assert_eq!(connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap(), 1_750);
    let sql = "SELECT group_concat(sequence) FROM cursors";
    assert_eq!(connection.query_row(sql, (), |row| row.get::<_, String>(0)).unwrap(), "1000,700,50");
}

fn source(folder: &Path) -> Source {
    Source::Sqlite(folder.join("holdfast.db"))
}
