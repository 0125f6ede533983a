//! Damaged, cut, swapped and foreign files, and a failure or a crash at every single operation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::event::UnixMillis;
use crate::journal::disk::{Access, Disk};
use crate::journal::frame::{self, RECORD_BYTES_CAP, Seeds};
use crate::journal::recover::{self, Fault, Quarantined, Unreadable};
use crate::journal::sealed::{Footer, Press, Unpress};
use crate::journal::segment::{Form, HEADER_BYTES, Header, Name};
use crate::journal::sim::{End, Faults, Random, SimDisk};
use crate::journal::writer::{Moment, Writer};
use crate::journal::{
    Cause, Config, Gap, Journal, JournalId, Mill, Mode, Reason, Records, Report, Sequence, Stager, State,
    Tag, inspect, open_parts,
};

const NOW: UnixMillis = UnixMillis(1_000);
const FOLDER: &str = "/journal";

fn id(number: u8) -> JournalId {
    JournalId::from_bytes([number; 16])
}

fn home(number: u8) -> PathBuf {
    Path::new(FOLDER).join(id(number).to_string())
}

fn config() -> Config {
    let mut config = Config::new(PathBuf::from(FOLDER));
    config.block_bytes = 256;
    // So long that a segment made in haste is no shorter than a prepared one.
    config.record_bytes_max = 900;
    config.segment_bytes = 1536;
    config.spare_segments = 0;
    config
}

fn payload(n: u64) -> Vec<u8> {
    let mut random = Random::new(n);
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((0..n % 40).map(|_| random.bits().to_le_bytes()[0]));
    bytes
}

struct Process {
    journal: Journal,
    writer: Writer,
    mill: Mill,
    stager: Stager,
}

fn process(disk: &SimDisk, number: u8) -> Process {
    process_with(config(), disk, number)
}

fn process_with(config: Config, disk: &SimDisk, number: u8) -> Process {
    let (shared, writer) = open_parts(config, Arc::new(disk.clone()), id(number), "edge", NOW).unwrap();
    let journal = Journal { shared: Arc::clone(&shared) };
    let stager = journal.stager(Arc::new(|| {}));
    Process { journal, writer, mill: Mill::new(shared, NOW), stager }
}

impl Process {
    /// Stages records in groups of `group`, each written and synced.
    fn append(&mut self, records: std::ops::RangeInclusive<u64>, group: u64) {
        for n in records {
            self.stager.stage(NOW, Tag(1), |out| out.extend(payload(n))).unwrap();
            if n.is_multiple_of(group) {
                self.commit();
            }
        }
        self.commit();
    }

    fn commit(&mut self) {
        self.stager.flush();
        self.writer.step(Moment { monotonic: Duration::ZERO, wall: NOW });
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Sealed,
    Open,
}

/// A disk with journal 1 of so many records, whose process has ended.
fn written(records: u64, group: u64, last: Last) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut one = process(&disk, 1);
    one.append(1..=records, group);
    if last == Last::Sealed {
        one.writer.finish(Moment { monotonic: Duration::ZERO, wall: NOW });
    }
    drop(one);
    disk.restart(End::PowerCut);
    disk
}

/// Recovers journal 1 in a new process and reads all of it.
fn recovered(disk: &SimDisk) -> (Report, Vec<u64>, Vec<Gap>) {
    let mut two = process(disk, 2);
    let tended = two.mill.tend(NOW);
    let report = tended.recovered.iter().find(|(found, _)| *found == id(1)).map(|(_, report)| report.clone());
    let report = report.unwrap_or_else(|| panic!("not recovered: {tended:?}"));
    let (sequences, gaps) = read_all(&two.journal, id(1));
    (report, sequences, gaps)
}

fn read_all(journal: &Journal, id: JournalId) -> (Vec<u64>, Vec<Gap>) {
    let Ok(mut reader) = journal.reader(id, Sequence(0)) else { return (Vec::new(), Vec::new()) };
    let (mut sequences, mut gaps) = (Vec::new(), Vec::new());
    let mut records = Records::default();
    loop {
        let filled = reader.fill(7, 1 << 20, &mut records).unwrap();
        for (sequence, at, bytes) in records.iter() {
            assert_eq!((at, bytes), (NOW, payload(sequence.0).as_slice()), "record {sequence} was altered");
            sequences.push(sequence.0);
        }
        gaps.extend_from_slice(records.gaps());
        if filled.caught_up {
            assert!(sequences.is_sorted_by(|a, b| a < b));
            return (sequences, gaps);
        }
    }
}

fn gap(first: u64, last: u64, cause: Cause) -> Gap {
    Gap { first: Sequence(first), last: Sequence(last), cause }
}

/// A disk with journal 1, one of whose segments was altered after the process had ended.
fn damaged(segment: u64, alter: impl Fn(&mut Vec<u8>), records: u64, group: u64, last: Last) -> SimDisk {
    let disk = written(records, group, last);
    let path = home(1).join(Name::log(segment));
    let mut bytes = disk.contents(&path).unwrap();
    alter(&mut bytes);
    disk.rewrite(&path, &bytes);
    disk
}

#[test]
fn an_undamaged_journal_is_sound() {
    let disk = written(40, 3, Last::Sealed);
    let (report, sequences, gaps) = recovered(&disk);
    assert!(report.is_sound() && report.sealed && report.torn_bytes == 0, "{report:?}");
    assert_eq!((sequences, gaps), ((1..=40).collect(), vec![]));
    assert!(report.segments > 1, "the test must cover several segments");
}

#[test]
fn every_flipped_bit_costs_at_most_its_own_record_and_is_seen() {
    let path = home(1).join(Name::log(1));
    let whole = written(8, 4, Last::Sealed).contents(&path).unwrap();
    let clean = recovered(&written(8, 4, Last::Sealed)).0;
    for bit in 0..whole.len() * 8 {
        let disk = damaged(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8), 8, 4, Last::Sealed);
        let (report, sequences, gaps) = recovered(&disk);
        assert_ne!(report, clean, "bit {bit} was flipped unseen");
        assert!(sequences.len() >= 7, "bit {bit} cost {sequences:?}");
        let lost: Vec<u64> = (1..=8).filter(|n| !sequences.contains(n)).collect();
        match lost.as_slice() {
            [] => assert!(gaps.is_empty()),
            [only] => assert_eq!(gaps, [gap(*only, *only, Cause::Damaged)], "bit {bit}"),
            more => panic!("bit {bit} cost {more:?}"),
        }
        assert_eq!(report.gaps, gaps);
    }
}

#[test]
fn a_flipped_bit_in_an_unsealed_end_is_never_silent() {
    let path = home(1).join(Name::log(1));
    let whole = written(8, 4, Last::Open).contents(&path).unwrap();
    let clean = recovered(&written(8, 4, Last::Open)).0;
    for bit in (0..whole.len() * 8).step_by(3) {
        let disk = damaged(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8), 8, 4, Last::Open);
        let (report, sequences, _) = recovered(&disk);
        assert_ne!(report, clean, "bit {bit} was flipped unseen");
        // Only the last group can't be told from an unfinished write.
        let lost = (1..=4).filter(|n| !sequences.contains(n)).count();
        assert!(lost <= 1, "bit {bit} cost {lost} of the groups before the last");
    }
}

#[test]
fn a_segment_cut_anywhere_never_stops_a_start() {
    let path = home(1).join(Name::log(1));
    let whole = written(8, 4, Last::Open).contents(&path).unwrap();
    for cut in 0..whole.len() {
        let disk = damaged(1, |bytes| bytes.truncate(cut), 8, 4, Last::Open);
        let (report, sequences, gaps) = recovered(&disk);
        assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "cut at {cut}");
        assert!(gaps.is_empty() && report.corrupt.is_empty(), "cut at {cut}: {report:?}");
        if cut < HEADER_BYTES {
            assert_eq!(report.quarantined.len(), 1, "cut at {cut}");
        }
    }
}

#[test]
fn a_cut_in_the_middle_of_the_journal_is_an_exact_gap() {
    let disk = written(40, 1, Last::Sealed);
    let first_of = |number: u64| {
        let bytes = disk.contents(&home(1).join(Name::log(number))).unwrap();
        Header::decode(&bytes, Form::Log).unwrap().first.0
    };
    let (second, third) = (first_of(2), first_of(3));
    let bytes = disk.contents(&home(1).join(Name::log(2))).unwrap();
    disk.rewrite(&home(1).join(Name::log(2)), &bytes[..512]);
    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!(sequences, (1..second + 1).chain(third..=40).collect::<Vec<_>>());
    assert_eq!(gaps, [gap(second + 1, third - 1, Cause::Damaged)]);
    assert_eq!(report.gaps, gaps);
}

#[test]
fn tails_of_other_generations_and_segments_are_not_records() {
    let other = {
        let disk = SimDisk::new(2);
        let mut three = process(&disk, 3);
        three.append(1..=8, 4);
        disk.contents(&home(3).join(Name::log(1))).unwrap()
    };
    for tail in
        [other[256..].to_vec(), vec![0xff; 600], b"HJ\x01\x01".repeat(100), [1, 1, b'H', b'J'].repeat(90)]
    {
        let disk = damaged(
            1,
            |bytes| {
                bytes.truncate(768);
                bytes.extend(&tail);
            },
            8,
            4,
            Last::Open,
        );
        let (report, sequences, gaps) = recovered(&disk);
        assert_eq!((sequences, gaps), ((1..=8).collect(), vec![]), "{report:?}");
        assert!(report.torn_bytes > 0);
    }
}

#[test]
fn hostile_lengths_cost_only_what_they_cover() {
    let seeds = Seeds::new(id(1), 1);
    for length in [0, 1, 39, 4096, RECORD_BYTES_CAP, RECORD_BYTES_CAP + 1, u32::MAX, 0x8000_0000] {
        let disk = damaged(
            1,
            |bytes| {
                bytes[256 + 4..256 + 8].copy_from_slice(&length.to_le_bytes());
                frame::stamp(&mut bytes[256..], Sequence(1), 192, seeds.head);
            },
            8,
            4,
            Last::Sealed,
        );
        let (report, sequences, gaps) = recovered(&disk);
        // A true checksum over a false length is believed as far as the file goes, and no further.
        let lost = if (1..4096).contains(&length) && length > 8 { 2 } else { 1 };
        assert_eq!(sequences, (lost + 1..=8).collect::<Vec<_>>(), "length {length}: {report:?}");
        assert_eq!(gaps, [gap(1, lost, Cause::Damaged)]);
    }
}

#[test]
fn a_record_that_looks_like_a_frame_is_only_a_record() {
    let disk = SimDisk::new(1);
    let mut one = process(&disk, 1);
    let forged = {
        let seeds = Seeds::new(id(1), 1);
        let mut out = Vec::new();
        frame::append(&mut out, seeds.payload, (NOW, Tag(1)), 20, |out| out.extend(b"forged")).unwrap();
        frame::stamp(&mut out, Sequence(2), 192, seeds.head);
        out
    };
    one.stager.stage(NOW, Tag(1), |out| out.extend(&forged)).unwrap();
    one.stager.stage(NOW, Tag(1), |out| out.extend(payload(2))).unwrap();
    one.commit();
    let mut reader = one.journal.reader(id(1), Sequence(0)).unwrap();
    let mut records = Records::default();
    reader.fill(10, 1000, &mut records).unwrap();
    let payloads: Vec<&[u8]> = records.iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, [forged.as_slice(), payload(2).as_slice()]);
}

#[test]
fn missing_copied_renamed_and_foreign_segments_are_told_apart() {
    let path = |number: u64| home(1).join(Name::log(number));
    let all: Vec<u64> = (1..=40).collect();

    let disk = written(40, 1, Last::Sealed);
    disk.remove(&path(2)).unwrap();
    disk.sync_folder(&home(1)).unwrap();
    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!((gaps.len(), gaps[0].cause), (1, Cause::Missing));
    assert_eq!(sequences.len() as u64, 40 - (gaps[0].last.0 - gaps[0].first.0 + 1));
    assert_eq!(report.gaps, gaps);

    let disk = written(40, 1, Last::Sealed);
    disk.rewrite(&path(77), &disk.contents(&path(2)).unwrap());
    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!((sequences.as_slice(), gaps.len()), (all.as_slice(), 0));
    assert_eq!(report.quarantined.len(), 1);
    let names: Vec<String> = disk.list(&home(1)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&"0000000077.log.damaged".to_owned()), "{names:?}");

    let disk = written(40, 1, Last::Sealed);
    disk.rename(&path(2), &path(77)).unwrap();
    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!((sequences.as_slice(), gaps.len(), report.renamed), (all.as_slice(), 0, 1));

    let disk = written(40, 1, Last::Sealed);
    let foreign = damaged(1, |_| {}, 3, 1, Last::Open);
    let mut three = process(&foreign, 3);
    three.append(1..=3, 1);
    disk.rewrite(&path(88), &foreign.contents(&home(3).join(Name::log(1))).unwrap());
    let (report, sequences, _) = recovered(&disk);
    assert_eq!((sequences.as_slice(), report.quarantined.len()), (all.as_slice(), 1));

    let disk = written(40, 1, Last::Sealed);
    disk.rewrite(&path(3), &[]);
    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!((report.quarantined.len(), gaps.len()), (1, 1));
    assert!(sequences.len() < 40);
}

#[test]
fn one_sequence_in_two_segments_counts_once_and_a_difference_is_told() {
    for (changed, conflicts) in [(false, 0), (true, 1)] {
        let disk = written(2, 1, Last::Open);
        let bytes = disk.contents(&home(1).join(Name::log(1))).unwrap();
        let seeds = Seeds::new(id(1), 2);
        let mut header = Header::decode(&bytes, Form::Log).unwrap();
        header.number = 2;
        header.first = Sequence(2);
        let mut copy = header.encode(Form::Log).to_vec();
        copy.resize(256, 0);
        let text = if changed { payload(9) } else { payload(2) };
        frame::append(&mut copy, seeds.payload, (NOW, Tag(1)), 100, |out| out.extend(&text)).unwrap();
        frame::stamp(&mut copy[256..], Sequence(2), 192, seeds.head);
        copy.resize(1536, 0);
        disk.rewrite(&home(1).join(Name::log(2)), &copy);
        let mut two = process(&disk, 2);
        let tended = two.mill.tend(NOW);
        let report = &tended.recovered[0].1;
        assert_eq!((report.duplicates, report.conflicts), (1 - conflicts, conflicts));
        assert_eq!(report.records, 2);
    }
}

#[test]
fn a_journal_of_a_later_release_is_left_alone() {
    let later = |bytes: &mut Vec<u8>| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    };
    let disk = damaged(1, later, 8, 4, Last::Open);
    let path = home(1).join(Name::log(1));
    let before = disk.contents(&path);
    let mut two = process(&disk, 2);
    for expected in [1, 0] {
        let tended = two.mill.tend(NOW);
        assert_eq!((tended.faults.len(), tended.recovered.len()), (expected, 0));
    }
    assert_eq!(disk.contents(&path), before);
    assert!(matches!(
        inspect::verify(&disk, Path::new(FOLDER), id(1)),
        Err(inspect::InspectError::Later { version: 2, .. })
    ));
}

#[test]
fn damage_is_kept_as_evidence_when_the_segment_is_compressed() {
    let disk = damaged(1, |bytes| bytes[300] ^= 1, 8, 4, Last::Sealed);
    let hurt = disk.contents(&home(1).join(Name::log(1)));
    let mut two = process(&disk, 2);
    let findings = inspect::verify(&disk, Path::new(FOLDER), id(1)).unwrap();
    assert!(findings.iter().any(|finding| finding.offset == Some(192)), "{findings:?}");
    while two.mill.tend(NOW).busy {}
    let (sequences, gaps) = read_all(&two.journal, id(1));
    assert_eq!((sequences.len(), gaps), (7, vec![gap(1, 1, Cause::Damaged)]));
    let names: Vec<String> = disk.list(&home(1)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["0000000001.log.damaged", "0000000001.zlog", "lock"]);
    assert_eq!(disk.contents(&home(1).join("0000000001.log.damaged")), hurt);
}

#[test]
fn an_older_copy_of_a_log_does_not_take_the_place_of_its_compressed_segment() {
    let disk = written(8, 4, Last::Sealed);
    let log = home(1).join(Name::log(1));
    let whole = disk.contents(&log).unwrap();
    let mut two = process(&disk, 2);
    while two.mill.tend(NOW).busy {}
    drop(two);
    disk.restart(End::PowerCut);

    // As a backup taken while the segment was written would have it: its beginning, then zeros.
    let mut older = whole.clone();
    let frames_end = older.iter().rposition(|&byte| byte != 0).unwrap();
    older[frames_end / 2..].fill(0);
    disk.create(&log).unwrap();
    disk.rewrite(&log, &older);
    let findings = inspect::verify(&disk, Path::new(FOLDER), id(1)).unwrap();
    assert!(findings.iter().any(|finding| finding.file.ends_with("0000000001.log")), "{findings:?}");

    let (report, sequences, gaps) = recovered(&disk);
    assert_eq!((sequences, gaps), ((1..=8).collect(), vec![]));
    let poorer = Quarantined { file: Name::log(1), fault: Fault::Poorer };
    assert_eq!(report.quarantined, [poorer]);

    // The original that compression did not get to remove is compressed again.
    disk.create(&log).unwrap();
    disk.rewrite(&log, &whole);
    let (report, sequences, _) = recovered(&disk);
    assert_eq!((sequences.len(), report.is_sound()), (8, true));
}

/// A sealed file of many small blocks.
fn pressed(disk: &SimDisk) -> (PathBuf, Seeds) {
    let seeds = Seeds::new(id(1), 1);
    let path = PathBuf::from("/sealed");
    let file = disk.create(&path).unwrap();
    let mut press = Press::new(&*file, seeds, 256).unwrap();
    for n in 1..=60 {
        press.add(n, NOW, Tag(1), &payload(n)).unwrap();
    }
    press.finish(vec![(Tag(1), 60)]).unwrap();
    (path, seeds)
}

/// Everything a walk finds; what it finds must be what was put in.
fn unpressed(disk: &SimDisk, path: &Path, seeds: Seeds) -> (Vec<u64>, bool) {
    let file = disk.open(path, Access::Read).unwrap();
    let mut walk = Unpress::new(seeds);
    let mut found = Vec::new();
    while let Some(record) = walk.next(&*file, found.last().map_or(0, |last| last + 1)).unwrap() {
        assert_eq!(
            (record.at, record.tag, record.payload),
            (NOW, Tag(1), payload(record.sequence.0).as_slice())
        );
        found.push(record.sequence.0);
    }
    (found, !walk.damaged.is_empty() || Footer::read(&*file, seeds).unwrap().is_none())
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_costs_at_most_its_block() {
    let disk = SimDisk::new(1);
    let (path, seeds) = pressed(&disk);
    let whole = disk.contents(&path).unwrap();
    let (all, hurt) = unpressed(&disk, &path, seeds);
    assert_eq!((all, hurt), ((1..=60).collect(), false));
    for bit in HEADER_BYTES * 8..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.rewrite(&path, &bytes);
        let (found, hurt) = unpressed(&disk, &path, seeds);
        assert!(hurt, "bit {bit} was flipped unseen");
        assert!(found.len() >= 40, "bit {bit} cost {} records", 60 - found.len());
    }
    for cut in HEADER_BYTES..whole.len() {
        disk.rewrite(&path, &whole[..cut]);
        let (found, hurt) = unpressed(&disk, &path, seeds);
        assert!(hurt && found == (1..=found.len() as u64).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[test]
fn random_damage_to_a_large_journal_alters_nothing() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let disk = written(60, 1 + random.below(5), Last::Sealed);
        let segments = disk.list(&home(1)).unwrap().len() as u64 - 1;
        for _ in 0..1 + random.below(6) {
            let path = home(1).join(Name::log(1 + random.below(segments)));
            let mut bytes = disk.contents(&path).unwrap();
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            let end = (at + usize::try_from(random.below(200)).unwrap()).min(bytes.len());
            match random.below(3) {
                0 => bytes[at..end].fill(0),
                1 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.bits().to_le_bytes()[0]),
                _ => bytes.copy_within(at..end, 0),
            }
            disk.rewrite(&path, &bytes);
        }
        let (report, sequences, gaps) = recovered(&disk);
        let mut covered = sequences.clone();
        covered.extend(gaps.iter().flat_map(|gap| gap.first.0..=gap.last.0));
        covered.sort_unstable();
        let end = covered.last().copied().unwrap_or(0);
        assert_eq!(covered, (1..=end).collect::<Vec<_>>(), "seed {seed}: {report:?}");
        let (again, ..) = recovered(&disk);
        assert_eq!(again.records, report.records, "seed {seed}: recovery is not idempotent");
    }
}

/// A life that appends, rotates, compresses and expires; stops where the disk stops.
fn scenario(disk: &SimDisk) -> u64 {
    let Ok((shared, writer)) = open_parts(config(), Arc::new(disk.clone()), id(1), "edge", NOW) else {
        return 0;
    };
    let journal = Journal { shared: Arc::clone(&shared) };
    journal.declare_sinks(&["sink".to_owned()]);
    let stager = journal.stager(Arc::new(|| {}));
    let mut one = Process { journal, writer, mill: Mill::new(shared, NOW), stager };
    let mut monotonic = Duration::ZERO;
    let mut staged = 0;
    while staged < 24 && !disk.crashed() {
        if one.stager.stage(NOW, Tag(1), |out| out.extend(payload(staged + 1))).is_ok() {
            staged += 1;
        }
        one.stager.flush();
        monotonic += Duration::from_secs(1);
        one.writer.step(Moment { monotonic, wall: NOW });
        if staged % 6 == 0 {
            one.mill.tend(NOW);
        }
    }
    one.writer.finish(Moment { monotonic, wall: NOW });
    one.stager.acknowledged().synced.0
}

#[test]
fn a_failure_at_any_single_operation_loses_nothing() {
    let operations = {
        let disk = SimDisk::new(0);
        assert_eq!(scenario(&disk), 24);
        disk.operations()
    };
    assert!(operations > 60);
    for operation in 1..=operations {
        for seed in 0..3 {
            let disk = SimDisk::new(seed);
            disk.fail_after(operation);
            let synced = scenario(&disk);
            disk.restart(End::PowerCut);
            if synced == 0 {
                continue;
            }
            assert_eq!(synced, 24, "operation {operation} of seed {seed} was not got over");
            let (report, sequences, _) = recovered(&disk);
            assert!(report.is_sound(), "operation {operation} of seed {seed}: {report:?}");
            assert_eq!(sequences, (1..=24).collect::<Vec<_>>(), "operation {operation} of seed {seed}");
        }
    }
}

#[test]
fn a_crash_at_any_single_operation_loses_nothing_acknowledged() {
    let operations = {
        let disk = SimDisk::new(0);
        scenario(&disk);
        disk.operations()
    };
    for operation in 1..=operations {
        for seed in 0..8 {
            let disk = SimDisk::new(seed);
            disk.crash_after(operation);
            let synced = scenario(&disk);
            disk.restart(if seed % 2 == 0 { End::PowerCut } else { End::Kill });
            // Recovery itself crashes at one operation after another, then runs through.
            for again in 1..4 {
                disk.crash_after(again * (1 + seed));
                if let Ok((shared, _writer)) =
                    open_parts(config(), Arc::new(disk.clone()), id(9), "edge", NOW)
                {
                    Mill::new(shared, NOW).tend(NOW);
                }
                disk.restart(End::PowerCut);
            }
            let mut two = process(&disk, 2);
            let tended = two.mill.tend(NOW);
            assert!(tended.faults.is_empty() && tended.recovered.iter().all(|(_, report)| report.is_sound()));
            let (sequences, gaps) = read_all(&two.journal, id(1));
            assert!(
                gaps.is_empty() && sequences.len() as u64 >= synced,
                "operation {operation} of seed {seed}"
            );
            assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn recovery_believes_the_disk_and_not_the_page_cache() {
    let mut lies = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut one = process(&disk, 1);
        one.append(1..=2, 2);
        disk.set_faults(Faults { sync: 1, ..Faults::default() });
        one.append(3..=20, 20);
        drop(one);
        disk.set_faults(Faults::default());
        disk.restart(End::Kill);
        let before = inspect::stat(&disk, Path::new(FOLDER), id(1)).unwrap().end;
        let examine = || {
            let found = recover::examine(&disk, &home(1), id(1), Access::Write, Unreadable::Fail).unwrap();
            found.volume.spans
        };
        let spans = examine();
        disk.restart(End::PowerCut);
        assert_eq!(examine(), spans, "seed {seed}: what recovery found was not on the disk");
        let end = spans.last().map_or(0, |span| span.last);
        assert!(end >= 2, "seed {seed}: synced records are lost");
        lies += u64::from(end < before.0);
    }
    assert!(lies > 5, "the page cache lied {lies} times only");
}

#[test]
fn a_segment_left_after_a_failure_stays_until_all_of_it_is_safe_elsewhere() {
    let disk = SimDisk::new(1);
    let mut config = config();
    config.mode = Mode::Process;
    config.record_bytes_max = 100;
    config.segment_bytes = 8192;
    config.spare_segments = 1;
    let mut one = process_with(config, &disk, 1);
    one.mill.tend(NOW);
    let mut staged = 0;
    // Into the long prepared segment, and on in it without a sync.
    while one.journal.stats().segments.load(Relaxed) < 2 {
        staged += 1;
        one.append(staged..=staged, 1);
    }
    one.append(staged + 1..=staged + 50, 1);
    let written = one.journal.status().written.0;
    assert!(written > one.journal.status().synced.0 + 40);
    // Space for one short segment, which holds only a part of what has to be written again.
    let used: u64 = disk.list(&home(1)).unwrap().iter().map(|entry| entry.bytes).sum();
    disk.set_faults(Faults { space: Some(used + 1024), ..Faults::default() });
    disk.fail_after(1);
    one.append(written + 1..=written + 1, 1);
    assert!(matches!(one.journal.status().state, State::Degraded { reason: Reason::Full, .. }));
    drop(one);
    disk.set_faults(Faults::default());
    disk.restart(End::Kill);
    let (report, sequences, gaps) = recovered(&disk);
    assert!(report.is_sound() && report.duplicates > 0 && gaps.is_empty(), "{report:?}");
    assert!(sequences.len() as u64 >= written, "{} of {written} written records", sequences.len());
}

#[test]
fn a_clock_that_jumps_expires_nothing() {
    let disk = SimDisk::new(1);
    let mut one = process(&disk, 1);
    one.journal.declare_sinks(&["sink".to_owned()]);
    one.append(1..=40, 1);
    one.journal.delivered(id(1), "sink", Sequence(40), NOW);
    let years = Duration::from_secs(10 * 365 * 24 * 3600);
    for now in [NOW.after(years), UnixMillis(0), NOW.after(years), UnixMillis(0)] {
        assert_eq!(one.mill.tend(now).expired, 0);
    }
    let mut now = NOW;
    for _ in 0..8 * 24 * 60 {
        now = now.after(Duration::from_secs(60));
        one.mill.tend(now);
    }
    assert_eq!(one.journal.journals()[0].segments, 1, "in the end only the live segment is left");
    let (sequences, gaps) = read_all(&one.journal, id(1));
    assert_eq!(gaps.first().map(|gap| (gap.first.0, gap.cause)), Some((1, Cause::Expired)));
    assert_eq!(sequences.last(), Some(&40));
    assert_eq!(one.journal.usage(Tag(2)), 0);
}

#[test]
fn when_full_delivered_records_go_and_others_stay() {
    let disk = SimDisk::new(1);
    let mut config = config();
    config.bytes_max = 6 * 1536;
    let (shared, writer) = open_parts(config, Arc::new(disk), id(1), "edge", NOW).unwrap();
    let journal = Journal { shared: Arc::clone(&shared) };
    journal.declare_sinks(&["a".to_owned(), "b".to_owned()]);
    let stager = journal.stager(Arc::new(|| {}));
    let mut one = Process { journal, writer, mill: Mill::new(shared, NOW), stager };
    let mut staged = 0;
    while one.stager.stage(NOW, Tag(1), |out| out.extend(payload(staged + 1))).is_ok() {
        staged += 1;
        one.commit();
        assert!(staged < 1000, "the journal never fills");
    }
    one.journal.delivered(id(1), "a", Sequence(staged), NOW);
    let retry = |one: &mut Process| one.writer.step(Moment { monotonic: Duration::from_secs(60), wall: NOW });
    retry(&mut one);
    assert!(matches!(one.journal.status().state, State::Degraded { .. }));
    one.journal.delivered(id(1), "b", Sequence(staged / 2), NOW);
    while one.mill.tend(NOW).busy {}
    one.writer.step(Moment { monotonic: Duration::from_secs(120), wall: NOW });
    assert_eq!(one.journal.status().state, State::Up);
    let (sequences, gaps) = read_all(&one.journal, id(1));
    assert!(gaps.iter().all(|gap| gap.cause == Cause::Expired && gap.last.0 <= staged / 2), "{gaps:?}");
    assert_eq!(sequences.last(), Some(&staged));
}
