//! What is fuzzed: one function for each way in which bytes from outside, or from a disk, are read.
//!
//! Each takes any bytes and panics when a promise breaks. They run under libFuzzer from `targets/`, and
//! for a bounded time on stable from `proxy/tests/smoke.rs`, which includes this file; so it knows no
//! fuzzer, and takes its randomness from the bytes alone.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast::config;
use holdfast::event::{Captures, Event, Kind, UnixMillis};
use holdfast::front::peers::{self, Network};
use holdfast::front::preface;
use holdfast::journal::disk::Disk;
use holdfast::journal::frame::{Head, Seeds};
use holdfast::journal::segment::{Form, Header};
use holdfast::journal::sim::SimDisk;
use holdfast::journal::{self, JournalId, Records, Sequence, Tag, inspect};
use holdfast::links::namespaces::Namespaces;
use holdfast::links::{log, snapshot, target as link_target};
use holdfast::respond::language::Language;
use holdfast::route::{Host, HostMap, HostPattern, Manner, RawRoute, Route, Routes};
use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderValue};

/// Some language comes out, whatever a reader sends.
pub fn accept_language(bytes: &[u8]) {
    let mut fields = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(ACCEPT_LANGUAGE, value);
        }
    }
    for default in Language::ALL {
        assert!(Language::ALL.contains(&Language::wanted(&fields, default)));
    }
}

/// A text is a configuration or has faults that can be shown.
pub fn config(bytes: &[u8]) {
    in_folder(|folder| {
        let file = folder.join("holdfast.toml");
        fs::write(&file, bytes).expect("the folder is ours");
        match config::load(&file, &[]) {
            // What took effect, written out, is a configuration with the same effect.
            Ok(config) => {
                let text = config.effective_toml();
                fs::write(&file, &text).expect("the folder is ours");
                let again = config::load(&file, &[]).expect("an effective configuration has no fault");
                assert_eq!(again.effective_toml(), text);
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
            }
        }
    });
}

/// What decodes is encoded to the same event again.
pub fn event(bytes: &[u8]) {
    if let Ok(event) = Event::decode(bytes) {
        let pairs = Captures(event.captures).count();
        assert!(pairs <= event.captures.len());
        let mut again = Vec::new();
        event.encode(&mut again);
        assert_eq!(Event::decode(&again), Ok(event));
    }
}

/// Heads are read from any bytes; what is read lies within its bounds.
pub fn frame(bytes: &[u8]) {
    let seeds = Seeds::new(JournalId::from_bytes([7; 16]), 1);
    if let Some(head) = Head::read(bytes, seeds.head) {
        assert!(head.frame_bytes() > head.payload_bytes as usize);
    }
    for form in [Form::Log, Form::Sealed] {
        if let Ok(header) = Header::decode(bytes, form) {
            assert_eq!(Header::decode(&header.encode(form), form).as_ref(), Ok(&header));
        }
    }
}

/// The first line is a host pattern, the second a request's host.
pub fn host(bytes: &[u8]) {
    let (first, second) = two_lines(bytes);
    let (mut scratch, mut again) = (Vec::new(), Vec::new());
    if let Ok(host) = Host::parse(first, &mut scratch) {
        let spelling = host.as_bytes();
        let same = Host::parse(spelling, &mut again).expect("the one spelling of a host is a host");
        assert_eq!(same.as_bytes(), spelling);
    }
    let Ok(pattern) = HostPattern::parse(&String::from_utf8_lossy(first)) else { return };
    let mut hosts = HostMap::default();
    hosts.insert(pattern.clone(), ());
    let mut scratch = Vec::new();
    if let Ok(host) = Host::parse(second, &mut scratch) {
        let belongs = match &pattern {
            HostPattern::Exact(name) => host.as_bytes() == &**name,
            HostPattern::Below(name) => host
                .as_bytes()
                .strip_suffix(&**name)
                .is_some_and(|below| below.len() > 1 && below.ends_with(b".")),
        };
        assert_eq!(hosts.find(host).is_some(), belongs);
    }
}

/// Damages one file of a journal: every record that is still read is the one that was written.
pub fn journal(bytes: &[u8]) {
    let Some((&[which, low, high, how], damage)) = bytes.split_first_chunk::<4>() else { return };
    let (disk, folder) = (Arc::new(SimDisk::new(1)), Path::new("/journals"));
    let id = JournalId::from_bytes([1; 16]);
    write_journal(&disk, folder, id);

    let home = folder.join(id.to_string());
    let files: Vec<PathBuf> = disk
        .list(&home)
        .expect("no faults are set")
        .into_iter()
        .filter(|entry| entry.name != "lock")
        .map(|entry| home.join(entry.name))
        .collect();
    let file = &files[usize::from(which) % files.len()];
    let written = disk.contents(file).expect("it was listed");
    let mut content = written.clone();
    let at = usize::from(u16::from_le_bytes([low, high])) % (content.len() + 1);
    match how % 3 {
        0 => content.truncate(at),
        1 => content.iter_mut().skip(at).zip(damage).for_each(|(byte, damage)| *byte = *damage),
        _ => content.iter_mut().skip(at).zip(damage).for_each(|(byte, damage)| *byte ^= *damage),
    }
    disk.rewrite(file, &content);

    inspect::verify(&*disk, folder, id).ok();
    let mut last = 0;
    let dumped = inspect::dump(&*disk, folder, id, Sequence(0), &mut |record| {
        check_record(record.sequence, record.payload, &mut last);
        ControlFlow::Continue(())
    });
    // Only a version of a later release may stop it, for the simulated disk does not fail here.
    assert!(!matches!(dumped, Err(inspect::InspectError::Disk { .. })), "{dumped:?}");
    let recovered = recover_journal(&disk, folder, id);
    if content == written {
        assert_eq!((last, recovered), (RECORDS, RECORDS), "nothing is damaged");
    }
}

/// A log of changed links is replayed up to where it is damaged.
pub fn links_log(bytes: &[u8]) {
    in_folder(|folder| {
        fs::write(folder.join("links-1.log"), bytes).expect("the folder is ours");
        let mut records = 0;
        let report = log::replay(folder, 1, &mut |_| records += 1).expect("the folder can be read");
        assert_eq!(report.records, records);
    });
}

/// A header of the PROXY protocol ends where it says, whatever follows it; networks and addresses of
/// proxies are read or refused.
pub fn preface(bytes: &[u8]) {
    if let Ok((said, length)) = preface::parse(bytes) {
        assert_eq!(preface::parse(&bytes[..length]), Ok((said, length)));
        assert!(preface::parse(&bytes[..length - 1]).is_err());
    }
    let (first, second) = two_lines(bytes);
    let trusted: Vec<Network> = String::from_utf8_lossy(first).parse().into_iter().collect();
    for network in &trusted {
        assert_eq!(network.to_string().parse(), Ok(*network));
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(second) {
        headers.insert("x-forwarded-for", value);
        // With nobody trusted, the last address is the client, whatever stands before it.
        let last = peers::forwarded(&headers, &[]);
        assert!(last.is_none() || trusted.is_empty() || peers::forwarded(&headers, &trusted).is_some());
    }
}

/// The first line is a pattern, the rest a path.
pub fn route(bytes: &[u8]) {
    let (first, path) = two_lines(bytes);
    let pattern = String::from_utf8_lossy(first);
    let names: Vec<String> = pattern
        .split('{')
        .skip(1)
        .filter_map(|part| part.split([':', '}']).next())
        .map(str::to_owned)
        .collect();
    let append = names.first().map_or_else(String::new, |name| format!("a={{{name}}}"));
    let raw = RawRoute {
        kind: Kind::Click,
        path: pattern.into_owned(),
        token: names,
        append,
        manner: Manner::default(),
    };
    let route = match Route::new(&raw) {
        Ok(route) => route,
        Err(faults) => {
            assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
            return;
        }
    };
    let routes = Routes::new(vec![route]);
    let mut scratch = Vec::new();
    let Some(matched) = routes.find(path, &mut scratch) else { return };
    assert!(!matched.token.is_empty());
    assert!(matched.captures().all(|(_, value)| !value.is_empty() && contains(path, value)));
    let mut appended = Vec::new();
    matched.route.append().write(&matched.values, &mut appended);
    assert!(appended.iter().all(u8::is_ascii_graphic), "{}", appended.escape_ascii());
}

/// A snapshot is loaded whole or set aside; nothing in a loaded one leads outside of it.
pub fn snapshot(bytes: &[u8]) {
    in_folder(|folder| {
        fs::write(folder.join("table-1.links"), bytes).expect("the folder is ours");
        let names = Namespaces::default();
        let found =
            snapshot::load(folder, &names, snapshot::Damaged::SetAside).expect("the folder can be listed");
        assert_eq!(found.loaded.is_some(), found.faults.is_empty());
        if let Some(loaded) = found.loaded {
            for listed in loaded.table.iter() {
                assert!(loaded.table.get(listed.namespace, listed.token).is_some());
            }
        }
    });
}

/// An approved target is its own approval, and appending to it leaves it a URL.
pub fn target(bytes: &[u8]) {
    let Ok(approved) = link_target::approve(&String::from_utf8_lossy(bytes)) else { return };
    let text = approved.as_str();
    assert!(text.starts_with("http://") || text.starts_with("https://"), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    let again = link_target::approve(text).expect("what was approved is approved again");
    assert_eq!((again.as_str(), again.repaired()), (text, false));

    let mut longer = Vec::new();
    approved.target().append(&mut longer, |out| out.extend_from_slice(b"dm_i=1,2"));
    let longer = String::from_utf8(longer).expect("both parts are ASCII");
    let (before, fragment) =
        text.split_once('#').map_or((text, None), |(before, after)| (before, Some(after)));
    assert!(longer.starts_with(before), "{longer}");
    assert_eq!(longer.split_once('#').map(|(_, after)| after), fragment);
}

/// Records of the journal that is damaged.
const RECORDS: u64 = 60;

fn payload(sequence: u64) -> Vec<u8> {
    format!("{sequence:07} ").repeat(1 + sequence as usize % 20).into_bytes()
}

fn settings(folder: &Path) -> journal::Config {
    journal::Config {
        segment_bytes: 2048,
        spare_segments: 1,
        record_bytes_max: 256,
        staged_bytes_max: 64 << 10,
        block_bytes: 256,
        ..journal::Config::new(folder.to_owned())
    }
}

fn write_journal(disk: &Arc<SimDisk>, folder: &Path, id: JournalId) {
    let disk: Arc<dyn Disk> = disk.clone();
    let mut opened =
        journal::open(settings(folder), disk, id, "edge", UnixMillis(1)).expect("the settings are good");
    opened.mill.tend(UnixMillis(1));
    let mut stager = opened.journal.stager(Arc::new(|| {}));
    for sequence in 1..=RECORDS {
        let staged =
            stager.stage(UnixMillis(sequence), Tag(1), |out| out.extend_from_slice(&payload(sequence)));
        staged.expect("there is room");
        if sequence % 8 == 0 {
            stager.flush();
        }
    }
    stager.flush();
    opened.journal.stop();
    opened.committer.run();
}

/// The last sequence that a later start still reads.
fn recover_journal(disk: &Arc<SimDisk>, folder: &Path, damaged: JournalId) -> u64 {
    let disk: Arc<dyn Disk> = disk.clone();
    let id = JournalId::from_bytes([2; 16]);
    let mut opened =
        journal::open(settings(folder), disk, id, "edge", UnixMillis(2)).expect("the settings are good");
    for now in 2..20 {
        opened.mill.tend(UnixMillis(now));
    }
    let Ok(mut reader) = opened.journal.reader(damaged, Sequence(0)) else { return 0 };
    let (mut records, mut last) = (Records::default(), 0);
    while let Ok(filled) = reader.fill(7, 4096, &mut records) {
        for (sequence, _, payload) in records.iter() {
            check_record(sequence, payload, &mut last);
        }
        if filled.records == 0 {
            break;
        }
    }
    last
}

fn check_record(sequence: Sequence, found: &[u8], last: &mut u64) {
    assert!(sequence.0 > *last, "{} after {last}", sequence.0);
    assert_eq!(found, payload(sequence.0), "record {}", sequence.0);
    *last = sequence.0;
}

fn two_lines(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

fn contains(path: &[u8], part: &[u8]) -> bool {
    path.windows(part.len()).any(|window| window == part)
}

/// Runs `with` in a new folder, in memory where the machine has a file system for that.
fn in_folder(with: impl FnOnce(&Path)) {
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(above).expect("a folder for temporary files can be written");
    with(folder.path());
}

/// One fuzzed function.
pub type Target = fn(&[u8]);

/// Every function by the name of its target and of its folder of kept inputs.
#[must_use]
pub fn all() -> BTreeMap<&'static str, Target> {
    BTreeMap::from([
        ("accept_language", accept_language as Target),
        ("config", config),
        ("event", event),
        ("frame", frame),
        ("host", host),
        ("journal", journal),
        ("links_log", links_log),
        ("preface", preface),
        ("route", route),
        ("snapshot", snapshot),
        ("target", target),
    ])
}
