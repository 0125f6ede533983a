//! Torn ends, damage in the middle, and what is read all the same.

use super::*;

fn record<'a>(token: &'a [u8], url: &'a str) -> Record<'a> {
    let row = Row {
        namespace: b"brand",
        token,
        url,
        campaign: b"spring",
        append: true,
        expires_at: Some(UnixMillis(5)),
        state: State::Live,
    };
    Record { row, origin: Origin::Change }
}

const GONE: Record<'static> = Record {
    row: Row {
        namespace: b"",
        token: b"gone",
        url: "",
        campaign: b"",
        append: false,
        expires_at: None,
        state: State::Deleted,
    },
    origin: Origin::LookUp,
};

fn records() -> [Record<'static>; 3] {
    [record(b"one", "https://example.com/1"), GONE, record(b"two \xff", "https://example.com/2")]
}

fn written(folder: &Path, generation: u64) -> PathBuf {
    let mut log = Log::create(folder, generation).unwrap();
    let [one, gone, two] = records();
    log.append([one, gone]).unwrap();
    log.append([two]).unwrap();
    log.append([]).unwrap();
    log.sync().unwrap();
    let path = folder.join(file_name(generation));
    assert_eq!((log.generation(), log.bytes()), (generation, fs::metadata(&path).unwrap().len()));
    path
}

fn read(folder: &Path, from: u64) -> (Vec<String>, Report) {
    let mut seen = Vec::new();
    let report = replay(folder, from, &mut |record| seen.push(format!("{record:?}"))).unwrap();
    assert_eq!(report.records, seen.len() as u64);
    (seen, report)
}

fn texts(records: &[Record<'_>]) -> Vec<String> {
    records.iter().map(|record| format!("{record:?}")).collect()
}

#[test]
fn logs_are_read_from_a_generation_on_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    for generation in [9, 10, 2] {
        Log::create(folder.path(), generation)
            .unwrap()
            .append([record(&[generation as u8], "https://example.com/")])
            .unwrap();
    }
    let (seen, report) = read(folder.path(), 3);
    assert_eq!(seen, texts(&[record(&[9], "https://example.com/"), record(&[10], "https://example.com/")]));
    assert_eq!(report, Report { logs: 2, records: 2, faults: vec![] });
    assert_eq!(read(&folder.path().join("none"), 0).1, Report::default());
}

#[test]
fn a_log_is_created_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    let before = fs::read(&path).unwrap();
    assert!(Log::create(folder.path(), 1).is_err());
    assert_eq!(fs::read(path).unwrap(), before);
}

#[test]
fn a_tail_torn_at_any_byte_costs_its_record_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = {
        let mut ends = vec![HEADER_BYTES];
        while let Some((_, next)) = decode(1, &whole, *ends.last().unwrap()) {
            ends.push(next);
        }
        ends
    };
    assert_eq!((ends.len(), ends.last()), (4, Some(&whole.len())));
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (seen, report) = read(folder.path(), 1);
        let kept = ends.iter().filter(|&&end| end <= length).count().saturating_sub(1);
        assert_eq!(seen, texts(&records()[..kept]), "{length}");
        let from = ends.iter().rfind(|&&end| end <= length).copied().unwrap_or(0);
        let torn = Fault { path: path.clone(), bytes: from as u64..length as u64, kind: FaultKind::Torn };
        let expected = if from == length { vec![] } else { vec![torn] };
        assert_eq!(report.faults, expected, "{length}");
        assert_eq!(fs::read(&path).unwrap(), &whole[..length]);

        // The rest of the file may have reached the disk as zeros.
        let mut zeros = whole[..length].to_vec();
        zeros.resize(whole.len() + 100, 0);
        fs::write(&path, &zeros).unwrap();
        let kept = ends.iter().filter(|&&end| zeros[..end] == whole[..end]).count().saturating_sub(1);
        assert_eq!(read(folder.path(), 1).0, texts(&records()[..kept]), "{length}");
    }
}

#[test]
fn a_flipped_bit_costs_its_record_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    let whole = fs::read(&path).unwrap();
    let (_, second) = decode(1, &whole, HEADER_BYTES).unwrap();
    let (_, third) = decode(1, &whole, second).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let (seen, report) = read(folder.path(), 1);
        let mut expected = texts(&records());
        let (skipped, kind) = match bit / 8 {
            at if at < HEADER_BYTES => (0..HEADER_BYTES, FaultKind::Damaged),
            at if at < second => (HEADER_BYTES..second, FaultKind::Damaged),
            at if at < third => (second..third, FaultKind::Damaged),
            _ => (third..whole.len(), FaultKind::Torn),
        };
        if skipped.start > 0 {
            expected
                .remove([HEADER_BYTES, second, third].iter().position(|&at| at == skipped.start).unwrap());
        }
        assert_eq!(seen, expected, "{bit}");
        let bytes = skipped.start as u64..skipped.end as u64;
        assert_eq!(report.faults, [Fault { path: path.clone(), bytes, kind }], "{bit}");
    }
}

#[test]
fn a_log_of_another_generation_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    fs::rename(path, folder.path().join(file_name(2))).unwrap();
    let (seen, report) = read(folder.path(), 1);
    assert!(seen.is_empty());
    assert!(matches!(report.faults[..], [Fault { kind: FaultKind::Torn, .. }]));
}

#[test]
fn a_later_release_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let checksum = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let (seen, report) = read(folder.path(), 1);
    assert!(seen.is_empty());
    assert!(matches!(report.faults[..], [Fault { kind: FaultKind::Later, .. }]));
}

/// A campaign holds what looks like a record; damage before it must not bring it to life.
#[test]
fn a_record_inside_a_record_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut inner = Vec::new();
    encode(1, HEADER_BYTES as u64, &record(b"stolen", "https://evil.example/"), &mut inner);
    let outer = Record {
        row: Row { campaign: &inner, ..record(b"mine", "https://example.com/").row },
        origin: Origin::Change,
    };
    let mut log = Log::create(folder.path(), 1).unwrap();
    log.append([outer, GONE]).unwrap();
    let path = folder.path().join(file_name(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(read(folder.path(), 1).0, texts(&[GONE]));
}

#[test]
fn a_log_that_failed_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), 1);
    let before = fs::read(&path).unwrap();
    let mut log = Log::create(folder.path(), 2).unwrap();
    let good = std::mem::replace(&mut log.file, File::open(&path).unwrap());
    assert!(log.append([GONE]).is_err());
    log.file = good;
    let error = log.append([GONE]).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "an earlier operation on this log failed");
    assert!(log.sync().is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(read(folder.path(), 2).1, Report { logs: 1, records: 0, faults: vec![] });
}

#[test]
fn many_records_go_out_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("https://example.com/{}", "x".repeat(4000));
    let mut log = Log::create(folder.path(), 1).unwrap();
    let tokens: Vec<[u8; 2]> = (0..600u16).map(u16::to_le_bytes).collect();
    log.append(tokens.iter().map(|token| record(token, &url))).unwrap();
    assert!(log.bytes() > 2 << 20);
    assert_eq!(read(folder.path(), 1).1, Report { logs: 1, records: 600, faults: vec![] });
}
