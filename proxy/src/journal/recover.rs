//! Reads the folder of a journal whose writer has ended, and says what it holds and what it lost.
//!
//! Invariants:
//! - [`examine`] changes no file. What an owner changes afterwards ([`tidy`]) is only: names of
//!   damaged or misnamed files, and files that hold nothing that is not safe elsewhere. It may stop
//!   at any point and be done again, with the same result.
//! - An owner syncs and drops the page cache of a file before it reads it: what it finds is on disk.
//! - Every sequence up to the end of the journal is in one span or in one gap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::disk::{Access, Disk, DiskFile};
use super::frame::Seeds;
use super::lenient::Lenient;
use super::sealed::{Footer, Unpress};
use super::segment::{Form, HEADER_BYTES, Header, HeaderFault, Name};
use super::shelf::{Cause, Gap, Segment, Span, Volume, add_gap};
use super::walk::{self, Classified, Scanned};
use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// What recovery found in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files that are read.
    pub segments: u64,
    /// Records that can be read.
    pub records: u64,
    /// Bytes of unfinished writes, cut off.
    pub torn_bytes: u64,
    /// Files with the offsets between which synced bytes are wrong, whether or not that cost a record.
    pub corrupt: Vec<Corrupt>,
    /// Sequences that are lost.
    pub gaps: Vec<Gap>,
    /// Sequences found in two segments, byte for byte the same; each is read once.
    pub duplicates: u64,
    /// Sequences found in two segments with different bytes; the later segment is read.
    pub conflicts: u64,
    /// Files set aside.
    pub quarantined: Vec<Quarantined>,
    /// Segments found under a wrong name, and given the right one.
    pub renamed: u64,
    /// Bytes that the disk could not read, taken for damaged.
    pub unreadable_bytes: u64,
    /// Whether the journal ends with a seal, as after an orderly end.
    pub sealed: bool,
}

impl Report {
    /// Whether nothing that was promised is lost, wrong or set aside.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty()
            && self.gaps.iter().all(|gap| gap.cause == Cause::Expired)
            && self.conflicts == 0
            && self.quarantined.is_empty()
            && self.unreadable_bytes == 0
    }
}

/// Wrong bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The file's name in the journal's folder.
    pub file: String,
    /// Where they begin.
    pub from: u64,
    /// Where the next good frame or block begins, or the file's contents end.
    pub to: u64,
}

/// A file set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The name it had.
    pub file: String,
    /// Why.
    pub fault: Fault,
}

/// Why a segment file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its header says that it holds a segment that is there under its own name.
    Duplicate,
    /// Its header names another journal.
    Foreign,
    /// Neither its header nor any record in it can be read.
    Unreadable,
    /// The compressed segment beside it holds records that it has not, or has no longer.
    Poorer,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "a copy of another segment of this journal",
            Self::Foreign => "a segment of another journal",
            Self::Unreadable => "no header and no record can be read",
            Self::Poorer => "the compressed segment of the same number holds more records",
        })
    }
}

/// Why a journal can't be read at all, for now.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The disk failed.
    Disk(io::Error),
    /// A later release wrote it.
    Later { file: String, version: u16 },
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// How bytes that the disk can't read are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// As a failure that may pass.
    Fail,
    /// As damage.
    Damage,
}

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) volume: Volume,
    /// Files that hold nothing of worth: spares, unfinished and superseded ones.
    pub(super) clutter: Vec<String>,
    /// Misnamed files with their right names.
    pub(super) misnamed: Vec<(String, String)>,
}

/// One segment file while a folder is examined.
struct Candidate {
    name: String,
    number: u64,
    form: Form,
    bytes: u64,
    header: Option<Header>,
    seeds: Seeds,
    file: Box<dyn DiskFile>,
    synced: bool,
    found: Found,
}

enum Found {
    Log(Scanned),
    Sealed { footer: Footer, corrupt: Vec<(u64, u64)> },
}

impl Candidate {
    /// The first sequence that this segment may hold, as far as it says.
    fn first(&self) -> Option<u64> {
        let header = self.header.as_ref().map(|header| header.first.0);
        header.or_else(|| match &self.found {
            Found::Log(scanned) => scanned.runs.first().map(|run| run.first),
            Found::Sealed { footer, .. } => footer.spans.first().map(|span| span.0),
        })
    }

    /// How many records can be read of it.
    fn records(&self) -> u64 {
        match &self.found {
            Found::Log(scanned) => scanned.records,
            Found::Sealed { footer, .. } => footer.records,
        }
    }

    fn holds_nothing(&self) -> bool {
        match &self.found {
            Found::Log(scanned) => scanned.runs.is_empty() && scanned.sealed.is_none(),
            Found::Sealed { footer, .. } => footer.spans.is_empty(),
        }
    }
}

/// Reads everything in a journal's folder. An owner ([`Access::Write`]) first makes sure that what
/// it reads is on disk; anyone else reads what the page cache shows.
pub(super) fn examine(
    disk: &dyn Disk,
    folder: &Path,
    id: JournalId,
    access: Access,
    unreadable: Unreadable,
) -> Result<Examined, Unfit> {
    let mut report = Report::default();
    let mut clutter = Vec::new();
    let mut evidence_bytes = 0;
    let mut named = Vec::new();
    for entry in disk.list(folder)?.into_iter().filter(|entry| !entry.folder) {
        match Name::of(&entry.name) {
            Name::Segment(number, form) => named.push((number, form, entry)),
            Name::Spare(_) | Name::Unfinished(_) => clutter.push(entry.name),
            Name::Other if entry.name.ends_with(".log.new") => clutter.push(entry.name),
            Name::Damaged => evidence_bytes += entry.bytes,
            Name::Other => {}
        }
    }
    named.sort_by(|a, b| (a.0, a.2.name.as_str()).cmp(&(b.0, b.2.name.as_str())));
    let mut candidates: BTreeMap<u64, Candidate> = BTreeMap::new();
    let mut misnamed = Vec::new();
    let taken: BTreeSet<u64> = named.iter().map(|(number, ..)| *number).collect();
    for (number, form, entry) in named {
        let path = folder.join(&entry.name);
        // What a second form of the same segment costs is told only if it is the one that is read.
        let before = (form == Form::Sealed && candidates.contains_key(&number)).then(|| report.clone());
        let opened = match open_candidate(
            disk,
            &path,
            &entry.name,
            (number, form),
            id,
            access,
            unreadable,
            &mut report,
        ) {
            // The log can be read; what is beside it is left for another time.
            Err(_) if let Some(before) = before.clone() => {
                report = before;
                continue;
            }
            opened => opened?,
        };
        if let (Some(before), Some(log)) = (before, candidates.get(&number)) {
            match opened {
                Opened::Candidate(sealed) if sealed.number == number && sealed.records() > log.records() => {
                    // The log was cut, damaged or put back from an older copy since it was compressed.
                    let file = log.name.clone();
                    report.corrupt.retain(|corrupt| corrupt.file != file);
                    report.quarantined.push(Quarantined { file, fault: Fault::Poorer });
                    candidates.insert(number, *sealed);
                }
                // Compression did not get as far as removing the log, which is the original.
                Opened::Candidate(_) | Opened::Quarantine(_) => {
                    report = before;
                    clutter.push(entry.name);
                }
            }
            continue;
        }
        match opened {
            Opened::Quarantine(fault) => {
                report.quarantined.push(Quarantined { file: entry.name, fault });
            }
            Opened::Candidate(candidate) if candidate.number != number => {
                let file = entry.name;
                if taken.contains(&candidate.number) || candidates.contains_key(&candidate.number) {
                    report.quarantined.push(Quarantined { file, fault: Fault::Duplicate });
                } else {
                    misnamed.push((file, Name::segment(candidate.number, form)));
                    report.renamed += 1;
                    candidates.insert(candidate.number, *candidate);
                }
            }
            Opened::Candidate(candidate) => {
                candidates.insert(number, *candidate);
            }
        }
    }
    let mut volume = assemble(id, &candidates, &mut report, &mut clutter)?;
    volume.evidence_bytes = evidence_bytes;
    volume.report = Some(report);
    Ok(Examined { volume, clutter, misnamed })
}

enum Opened {
    Candidate(Box<Candidate>),
    Quarantine(Fault),
}

#[expect(clippy::too_many_arguments, reason = "one use; a struct for it would only rename the arguments")]
fn open_candidate(
    disk: &dyn Disk,
    path: &Path,
    name: &str,
    (number, form): (u64, Form),
    id: JournalId,
    access: Access,
    unreadable: Unreadable,
    report: &mut Report,
) -> Result<Opened, Unfit> {
    let file = disk.open(path, access)?;
    let mut synced = true;
    if access == Access::Write {
        // After a failed sync the cache may show what the disk does not have; dropping it helps.
        synced = file.sync().is_ok();
        file.forget_cache()?;
    }
    let file: Box<dyn DiskFile> = match unreadable {
        Unreadable::Fail => file,
        Unreadable::Damage => Box::new(Lenient::new(file)),
    };
    let bytes = file.bytes()?;
    let mut head = [0; HEADER_BYTES];
    let got = file.read_at(&mut head, 0)?;
    let header = match Header::decode(&head[..got], form) {
        Ok(header) if header.id != id => return Ok(Opened::Quarantine(Fault::Foreign)),
        Ok(header) => Some(header),
        Err(HeaderFault::Damaged) => None,
        Err(HeaderFault::Later { version }) => return Err(Unfit::Later { file: name.to_owned(), version }),
    };
    let number = header.as_ref().map_or(number, |header| header.number);
    let seeds = Seeds::new(id, number);
    let first = header.as_ref().map(|header| header.first.0);
    let found = match form {
        Form::Log => Found::Log(walk::scan(&*file, seeds, first, &mut |_, _, _| {})?),
        Form::Sealed => survey(&*file, seeds)?,
    };
    report.unreadable_bytes += file.unreadable_bytes();
    let candidate =
        Candidate { name: name.to_owned(), number, form, bytes, header, seeds, file, synced, found };
    if candidate.header.is_none() {
        if candidate.holds_nothing() {
            return Ok(Opened::Quarantine(Fault::Unreadable));
        }
        report.corrupt.push(Corrupt { file: name.to_owned(), from: 0, to: HEADER_BYTES as u64 });
    }
    Ok(Opened::Candidate(Box::new(candidate)))
}

/// What a sealed segment holds: its footer, or what its blocks say.
fn survey(file: &dyn DiskFile, seeds: Seeds) -> io::Result<Found> {
    if let Some(footer) = Footer::read(file, seeds)? {
        return Ok(Found::Sealed { footer, corrupt: Vec::new() });
    }
    let mut unpress = Unpress::new(seeds);
    let mut footer = Footer::default();
    let mut tags: HashMap<Tag, u64> = HashMap::new();
    let mut next = 0;
    while let Some(record) = unpress.next(file, next)? {
        let sequence = record.sequence.0;
        match footer.spans.last_mut() {
            Some(span) if span.1 + 1 == sequence => span.1 = sequence,
            _ => footer.spans.push((sequence, sequence)),
        }
        footer.records += 1;
        *tags.entry(record.tag).or_default() += record.payload.len() as u64;
        next = sequence + 1;
    }
    footer.tags = tags.into_iter().collect();
    Ok(Found::Sealed { footer, corrupt: unpress.damaged })
}

/// Puts the segments together: which sequences are read from which, and which from none.
fn assemble(
    id: JournalId,
    candidates: &BTreeMap<u64, Candidate>,
    report: &mut Report,
    clutter: &mut Vec<String>,
) -> io::Result<Volume> {
    let named = candidates.values().find_map(|candidate| candidate.header.as_ref());
    let edge = named.map_or_else(String::new, |header| header.edge.clone());
    let mut volume = Volume::new(id, edge, named.map_or(UnixMillis(0), |header| header.opened_at));
    let mut proved_through = 0;
    let all_synced = candidates.values().all(|candidate| candidate.synced);
    for (&number, candidate) in candidates {
        let next_first = candidates.range(number + 1..).find_map(|(_, later)| later.first());
        let found = match &candidate.found {
            Found::Log(scanned) => {
                let first = candidate.header.as_ref().map(|header| header.first.0);
                walk::classify(scanned, first, next_first)
            }
            Found::Sealed { footer, corrupt } => {
                let proved_through = footer.spans.last().map(|span| span.1);
                let (spans, corrupt) = (footer.spans.clone(), corrupt.clone());
                Classified { spans, corrupt, torn_bytes: 0, proved_through }
            }
        };
        proved_through = proved_through.max(found.proved_through.unwrap_or(0));
        report.torn_bytes += found.torn_bytes;
        for &(from, to) in &found.corrupt {
            report.corrupt.push(Corrupt { file: candidate.name.clone(), from, to });
        }
        for (first, last) in found.spans {
            let overlaps = cover(&mut volume.spans, Span { first, last, number });
            for overlap in overlaps {
                let earlier = candidates.get(&overlap.number).expect("spans come from candidates");
                let differing = compare(earlier, candidate, overlap)?;
                report.conflicts += differing;
                report.duplicates += overlap.last - overlap.first + 1 - differing;
            }
        }
        let damaged = !found.corrupt.is_empty() || candidate.header.is_none();
        volume.segments.insert(number, shelved(candidate, damaged));
    }
    let used: BTreeSet<u64> = volume.spans.iter().map(|span| span.number).collect();
    let last_number = candidates.keys().next_back();
    report.sealed =
        last_number.and_then(|number| candidates.get(number)).is_some_and(|last| match &last.found {
            Found::Log(scanned) => scanned.sealed.is_some(),
            Found::Sealed { .. } => true,
        });
    volume.end = proved_through.max(volume.spans.last().map_or(0, |span| span.last));
    find_gaps(&mut volume, candidates);
    volume.segments.retain(|number, segment| {
        let keep = used.contains(number) || segment.damaged || !all_synced;
        if !keep && let Some(candidate) = candidates.get(number) {
            clutter.push(candidate.name.clone());
        }
        keep
    });
    report.segments = volume.segments.len() as u64;
    report.records = volume.spans.iter().map(|span| span.last - span.first + 1).sum();
    report.gaps = volume.gaps.clone();
    Ok(volume)
}

fn shelved(candidate: &Candidate, damaged: bool) -> Segment {
    let tags = match &candidate.found {
        Found::Log(scanned) => scanned.tags.iter().map(|(&tag, &bytes)| (tag, bytes)).collect(),
        Found::Sealed { footer, .. } => scale_tags(&footer.tags, candidate.bytes),
    };
    Segment {
        form: candidate.form,
        bytes: candidate.bytes,
        live: false,
        damaged,
        tags,
        delivered_for: Duration::ZERO,
    }
}

/// Shares the bytes of a compressed file among tags as they had shared it before.
pub(super) fn scale_tags(tags: &[(Tag, u64)], file_bytes: u64) -> Vec<(Tag, u64)> {
    let whole: u128 = tags.iter().map(|&(_, bytes)| u128::from(bytes)).sum();
    let part = |bytes: u64| u128::from(bytes) * u128::from(file_bytes) / whole.max(1);
    tags.iter().map(|&(tag, bytes)| (tag, u64::try_from(part(bytes)).unwrap_or(u64::MAX))).collect()
}

/// Adds a span of a later segment over those of earlier ones; gives the parts that it replaces.
fn cover(spans: &mut Vec<Span>, new: Span) -> Vec<Span> {
    let mut replaced = Vec::new();
    let mut kept = Vec::with_capacity(spans.len() + 2);
    for span in spans.drain(..) {
        if span.last < new.first || span.first > new.last {
            kept.push(span);
            continue;
        }
        if span.first < new.first {
            kept.push(Span { last: new.first - 1, ..span });
        }
        if span.last > new.last {
            kept.push(Span { first: new.last + 1, ..span });
        }
        replaced.push(Span { first: span.first.max(new.first), last: span.last.min(new.last), ..span });
    }
    kept.push(new);
    kept.sort_by_key(|span| span.first);
    *spans = kept;
    replaced
}

/// Counts the sequences of `range` whose records differ between two segments.
fn compare(earlier: &Candidate, later: &Candidate, range: Span) -> io::Result<u64> {
    let one = digests(earlier, range)?;
    let other = digests(later, range)?;
    Ok((range.first..=range.last).filter(|sequence| one.get(sequence) != other.get(sequence)).count() as u64)
}

/// Everything of each record in a range that is the same wherever it is written.
fn digests(candidate: &Candidate, range: Span) -> io::Result<HashMap<u64, (UnixMillis, Tag, u32)>> {
    let mut digests = HashMap::new();
    let wanted = range.first..=range.last;
    match candidate.form {
        Form::Log => {
            let first = candidate.header.as_ref().map(|header| header.first.0);
            walk::scan(&*candidate.file, candidate.seeds, first, &mut |head, _, _| {
                if wanted.contains(&head.sequence.0) {
                    digests.insert(head.sequence.0, (head.at, head.tag, head.payload_crc));
                }
            })?;
        }
        Form::Sealed => {
            let mut unpress = Unpress::new(candidate.seeds);
            let mut next = range.first;
            while let Some(record) = unpress.next(&*candidate.file, next)? {
                next = record.sequence.0 + 1;
                if !wanted.contains(&record.sequence.0) {
                    break;
                }
                let crc = crc32c::crc32c_append(candidate.seeds.payload, record.payload);
                digests.insert(record.sequence.0, (record.at, record.tag, crc));
            }
        }
    }
    Ok(digests)
}

/// Names every sequence up to the end that no span holds.
fn find_gaps(volume: &mut Volume, candidates: &BTreeMap<u64, Candidate>) {
    let lowest = candidates.first_key_value();
    let begins = lowest.map_or(1, |(&number, lowest)| match &lowest.header {
        None if number == 1 => 1,
        _ => lowest.first().unwrap_or(1),
    });
    volume.expired_through = begins - 1;
    let mut expected = begins;
    let mut before = lowest.map_or(0, |(&number, _)| number);
    let mut gaps = Vec::new();
    let end = Span { first: volume.end + 1, last: volume.end, number: u64::MAX };
    for span in volume.spans.iter().chain([&end]) {
        if span.first > expected {
            let absent = before + 1 < span.number
                && candidates.range(before + 1..span.number).next().is_none()
                && span.number != u64::MAX;
            let cause = if absent { Cause::Missing } else { Cause::Damaged };
            let (first, last) = (Sequence(expected), Sequence(span.first - 1));
            add_gap(&mut gaps, Gap { first, last, cause });
        }
        expected = expected.max(span.last + 1);
        before = span.number;
    }
    volume.gaps = gaps;
}

/// Carries out what [`examine`] found, as the owner of the folder. Errors are left for the next
/// recovery: what could not be done now is found again then.
pub(super) fn tidy(disk: &dyn Disk, folder: &Path, examined: &mut Examined) -> io::Result<()> {
    for (from, to) in &examined.misnamed {
        disk.rename(&folder.join(from), &folder.join(to))?;
    }
    let quarantined = examined.volume.report.iter().flat_map(|report| &report.quarantined);
    let files: Vec<String> = quarantined.map(|quarantined| quarantined.file.clone()).collect();
    for file in files {
        let bytes = disk.open(&folder.join(&file), Access::Read)?.bytes()?;
        set_aside(disk, folder, &file)?;
        examined.volume.evidence_bytes += bytes;
    }
    for file in &examined.clutter {
        match disk.remove(&folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.sync_folder(folder)
}

/// Renames a file to say that it is damaged, over nothing that is there already.
pub(super) fn set_aside(disk: &dyn Disk, folder: &Path, file: &str) -> io::Result<()> {
    let there: BTreeSet<String> = disk.list(folder)?.into_iter().map(|entry| entry.name).collect();
    let name = |copy: u32| match copy {
        0 => format!("{file}.damaged"),
        _ => format!("{file}.{copy}.damaged"),
    };
    let free = (0..).map(name).find(|name| !there.contains(name)).expect("numbers do not end");
    disk.rename(&folder.join(file), &folder.join(free))
}
