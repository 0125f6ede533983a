//! The journal on the disk of this machine: many producers, a reader beside them, restart, expiry.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::event::UnixMillis;
use crate::journal::disk::{Disk, FileDisk};
use crate::journal::inspect::{self, Severity};
use crate::journal::{
    Batch, Config, Journal, JournalId, Mode, Opened, Records, Refusal, Sequence, Stager, Tag, open,
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const PRODUCERS: u64 = 8;
const RECORDS: u64 = 8_000;

fn id(number: u8) -> JournalId {
    JournalId::from_bytes([number; 16])
}

fn config(folder: &Path) -> Config {
    Config { segment_bytes: 1 << 20, bytes_max: 1 << 30, ..Config::new(folder.to_owned()) }
}

fn opened(config: Config, number: u8) -> Opened {
    open(config, Arc::new(FileDisk), id(number), "edge", NOW).unwrap()
}

/// A payload like a recorded hit: a few words that repeat and some that do not.
fn payload(producer: u64, n: u64) -> Vec<u8> {
    let mut bytes = [producer.to_le_bytes(), n.to_le_bytes()].concat();
    bytes.extend_from_slice(
        b"click.brand.example GET 302 Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)",
    );
    bytes.extend_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    bytes
}

fn produce(stager: &mut Stager, producer: u64) {
    let mut last = Batch(0);
    for n in 1..=RECORDS {
        loop {
            let tag = Tag(u32::try_from(producer).unwrap());
            match stager.stage(NOW, tag, |out| out.extend_from_slice(&payload(producer, n))) {
                Ok(batch) => break last = batch,
                Err(refusal) => assert_eq!(refusal, Refusal::Behind),
            }
            stager.flush();
            std::thread::yield_now();
        }
        if n % 16 == 0 {
            stager.flush();
        }
    }
    stager.flush();
    while stager.acknowledged().synced < last {
        std::thread::yield_now();
    }
    assert_eq!(stager.acknowledged().written, last);
}

/// Reads until everything was seen: each producer's records in their order, each once.
fn consume(journal: &Journal, id: JournalId, all: u64) {
    let mut reader = journal.reader(id, Sequence(0)).unwrap();
    let mut records = Records::default();
    let mut next: HashMap<u64, u64> = HashMap::new();
    let mut sequence = 1;
    while sequence <= all {
        let filled = reader.fill(1000, 1 << 20, &mut records).unwrap();
        assert!(records.gaps().is_empty());
        for ((found, at, bytes), tag) in records.iter().zip(records.tags()) {
            let producer = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let n = next.entry(producer).or_insert(1);
            assert_eq!((found, at, u64::from(tag.0)), (Sequence(sequence), NOW, producer));
            assert_eq!(bytes, payload(producer, *n));
            *n += 1;
            sequence += 1;
        }
        if filled.caught_up {
            std::thread::yield_now();
        }
    }
}

fn many_producers(mode: Mode) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { mode, sync_every: Duration::from_millis(5), ..config(folder.path()) };
    let Opened { journal, committer, mut mill } = opened(config.clone(), 1);
    let all = PRODUCERS * RECORDS;
    let woken = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| committer.run());
        let reading = scope.spawn(|| consume(&journal, id(1), all));
        let producing: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let woken = Arc::clone(&woken);
                let mut stager = journal.stager(Arc::new(move || {
                    woken.fetch_add(1, Relaxed);
                }));
                scope.spawn(move || produce(&mut stager, producer))
            })
            .collect();
        while !reading.is_finished() {
            let tended = mill.tend(NOW);
            assert!(tended.faults.is_empty(), "{:?}", tended.faults);
        }
        for thread in producing {
            thread.join().unwrap();
        }
        reading.join().unwrap();
        check_inspection(folder.path(), all);
        journal.stop();
        committing.join().unwrap();
    });
    assert!(woken.load(Relaxed) >= PRODUCERS);
    let status = journal.status();
    assert_eq!(
        (status.appended, status.written, status.synced),
        (Sequence(all), Sequence(all), Sequence(all))
    );
    while mill.tend(NOW).busy {}
    consume(&journal, id(1), all);
    let used: u64 = (0..PRODUCERS).map(|tag| journal.usage(Tag(u32::try_from(tag).unwrap()))).sum();
    assert!(used > 0 && used < all * 60, "{used} bytes for {all} sealed records");
    drop((journal, mill));

    let Opened { journal, committer: _committer, mut mill } = opened(config, 2);
    let tended = mill.tend(NOW);
    let (found, report) = &tended.recovered[0];
    assert_eq!((*found, report.records, report.is_sound(), report.sealed), (id(1), all, true, true));
    assert_eq!(journal.journals().iter().map(|journal| journal.id).collect::<Vec<_>>(), [id(1), id(2)]);
    consume(&journal, id(1), all);
}

/// What may be looked at while it is written.
fn check_inspection(folder: &Path, all: u64) {
    assert_eq!(inspect::journals(&FileDisk, folder).unwrap(), [id(1)]);
    let stat = inspect::stat(&FileDisk, folder, id(1)).unwrap();
    assert_eq!((stat.first, stat.end), (Sequence(1), Sequence(all)));
    let findings = inspect::verify(&FileDisk, folder, id(1)).unwrap();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:?}");
    let mut shown = 0;
    inspect::dump(&FileDisk, folder, id(1), Sequence(10), &mut |record| {
        shown += 1;
        assert_eq!(record.sequence, Sequence(10 + shown));
        if shown == 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(shown, 100);
}

#[test]
fn eight_producers_and_a_reader_agree_in_power_mode() {
    many_producers(Mode::Power);
}

#[test]
fn eight_producers_and_a_reader_agree_in_process_mode() {
    many_producers(Mode::Process);
}

fn append_one(opened: Opened) -> (Journal, crate::journal::Mill) {
    let Opened { journal, committer, mill } = opened;
    let mut stager = journal.stager(Arc::new(|| {}));
    stager.stage(NOW, Tag(7), |out| out.extend(b"one")).unwrap();
    stager.flush();
    journal.stop();
    committer.run();
    assert_eq!(stager.acknowledged().synced, Batch(1));
    assert_eq!(stager.stage(NOW, Tag(7), |_| {}), Err(Refusal::Stopped));
    (journal, mill)
}

#[test]
fn a_journal_belongs_to_one_process_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let first = append_one(opened(config(folder.path()), 1));
    let Opened { journal, committer: _committer, mut mill } = opened(config(folder.path()), 2);
    assert!(mill.tend(NOW).recovered.is_empty(), "the lock of a living process is respected");
    assert_eq!(journal.journals().len(), 1);
    assert!(journal.reader(id(1), Sequence(0)).is_err());
    drop(first);
    assert_eq!(mill.tend(NOW).recovered.len(), 1);
    assert_eq!(journal.journals()[0].end, Sequence(1));
}

/// A site's share of the disk once counted what was delivered and only kept for a restored database:
/// a busy site was then shut out for a week although nothing of it was waiting.
#[test]
fn what_is_delivered_and_kept_weighs_on_nobody() {
    let folder = tempfile::tempdir().unwrap();
    drop(append_one(opened(config(folder.path()), 1)));
    let Opened { journal, committer: _committer, mut mill } = opened(config(folder.path()), 2);
    journal.declare_sinks(&["sink".to_owned()]);
    while mill.tend(NOW).busy {}
    assert_eq!(journal.undelivered(Tag(7)), journal.usage(Tag(7)));
    journal.delivered(id(1), "sink", Sequence(1), NOW);
    assert!(journal.usage(Tag(7)) > 0, "it is kept");
    assert_eq!(journal.undelivered(Tag(7)), 0);
    journal.delivered(id(1), "sink", Sequence(0), NOW);
    assert!(journal.undelivered(Tag(7)) > 0, "a restored database lacks it again");
}

#[test]
fn what_was_delivered_and_kept_long_enough_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    drop(append_one(opened(config(folder.path()), 1)));
    let config = Config { retain: Duration::ZERO, spare_segments: 0, ..config(folder.path()) };
    let Opened { journal, committer: _committer, mut mill } = opened(config, 2);
    journal.declare_sinks(&["sink".to_owned()]);
    while mill.tend(NOW).busy {}
    assert!(journal.usage(Tag(7)) > 0);
    let mut reader = journal.reader(id(1), Sequence(0)).unwrap();
    journal.delivered(id(1), "sink", Sequence(1), NOW);
    let tended = mill.tend(NOW);
    assert_eq!((tended.expired, tended.removed.as_slice()), (1, [id(1)].as_slice()));
    assert!(!folder.path().join(id(1).to_string()).exists());
    assert_eq!(journal.usage(Tag(7)), 0);
    assert!(reader.fill(1, 1, &mut Records::default()).is_err());
}

#[test]
fn what_can_not_be_staged_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { staged_bytes_max: 400, record_bytes_max: 100, ..config(folder.path()) };
    let Opened { journal, committer, .. } = opened(config, 1);
    let mut stager = journal.stager(Arc::new(|| {}));
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend([0; 101])), Err(Refusal::TooLong));
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend([0; 100])), Ok(Batch(1)));
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend([0; 100])), Ok(Batch(1)));
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend([0; 100])), Err(Refusal::Behind));
    stager.flush();
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend([0; 100])), Err(Refusal::Behind));
    journal.stop();
    committer.run();
    assert_eq!(journal.status().synced, Sequence(2));
    assert_eq!(journal.stats().refused.load(Relaxed), 3);
}

/// A request whose handling panicked while its record was encoded would have left half a frame in
/// front of the next one, and the committer would have taken its bytes for lengths.
#[test]
fn an_encoder_that_panics_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Opened { journal, committer, .. } = opened(config(folder.path()), 1);
    let mut stager = journal.stager(Arc::new(|| {}));
    let broken = |stager: &mut Stager| {
        let encode = std::panic::AssertUnwindSafe(|| {
            stager.stage(NOW, Tag(1), |out| {
                out.extend([0xff; 50]);
                panic!("half-way");
            })
        });
        assert!(std::panic::catch_unwind(encode).is_err());
    };
    broken(&mut stager);
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend(b"whole")), Ok(Batch(1)));
    broken(&mut stager);
    stager.flush();
    assert_eq!(stager.stage(NOW, Tag(1), |out| out.extend(b"after")), Ok(Batch(2)));
    drop(stager);
    journal.stop();
    committer.run();
    assert_eq!(journal.status().synced, Sequence(2));
    let mut reader = journal.reader(id(1), Sequence(0)).unwrap();
    let mut records = Records::default();
    reader.fill(10, 1 << 20, &mut records).unwrap();
    let payloads: Vec<_> = records.iter().map(|(_, _, bytes)| bytes.to_vec()).collect();
    assert_eq!(payloads, [b"whole", b"after"]);
}

#[test]
fn settings_that_can_not_work_are_refused() {
    let refused = |alter: fn(&mut Config)| {
        let mut config = config(Path::new("/nowhere"));
        alter(&mut config);
        open(config, Arc::new(FileDisk), id(1), "edge", NOW).unwrap_err().to_string()
    };
    assert!(refused(|config| config.segment_bytes = 100).contains("segment_bytes is 100, allowed: "));
    assert!(refused(|config| config.record_bytes_max = 0).contains("record_bytes_max"));
    assert!(refused(|config| config.staged_bytes_max = 1).contains("staged_bytes_max"));
    assert!(refused(|config| config.unsynced_bytes_max = 1).contains("unsynced_bytes_max"));
    assert!(refused(|config| config.block_bytes = 1000).contains("block_bytes"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = config(&file.path().join("journal"));
    let error = open(inside, Arc::new(FileDisk), id(1), "edge", NOW).unwrap_err();
    assert!(error.to_string().starts_with("can't write journals in "), "{error}");
}

#[test]
fn ids_are_written_in_one_way_only() {
    let text = "01010101-0101-0101-0101-0101010101ab";
    let id: JournalId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    for other in ["", "01010101010101010101010101010101", "01010101-0101-0101-0101-0101010101AB", "lock"] {
        assert!(other.parse::<JournalId>().is_err(), "{other}");
    }
    assert!(FileDisk.list(Path::new("/nowhere")).is_err());
}
