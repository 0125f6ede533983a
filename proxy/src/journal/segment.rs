//! One segment file: its name, its header, and the walk over its frames that survives damage.
//!
//! Invariants:
//! - The walk yields only frames whose checksums hold, in rising sequence, and never allocates more
//!   than [`RECORD_BYTES_CAP`](frame::RECORD_BYTES_CAP) for what a file claims.
//! - It ends on every input: each step moves forward.
//! - A break is corruption when it lies before the synced mark, or when a later segment proves that
//!   the missing sequences had been synced; otherwise it is a torn write ([`classify`]).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io;

use super::disk::DiskFile;
use super::frame::{self, Head, Kind, Seeds, u32_at, u64_at};
use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// The format that this release writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 192;
/// The longest name of an edge that a header holds.
pub const EDGE_BYTES_MAX: usize = 64;
/// A segment is never longer, so that offsets in it fit in 32 bits.
pub const SEGMENT_BYTES_CAP: u64 = 1 << 30;

const WINDOW_BYTES: usize = 256 << 10;
const EDGE_AT: usize = 72;

/// Which of the two forms a segment file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Frames as they were appended.
    Log,
    /// Compressed blocks.
    Sealed,
}

impl Form {
    /// The first eight bytes of a file of this form.
    #[must_use]
    pub const fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"holdfjrn",
            Self::Sealed => *b"holdfjrz",
        }
    }
}

/// What a name in a journal's folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64, Form),
    /// A file of zeros that waits to become a segment.
    Spare(u64),
    /// A compressed segment that was not finished.
    Unfinished(u64),
    Damaged,
    Other,
}

impl Name {
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with(".damaged") {
            return Self::Damaged;
        }
        let number = |digits: &str| match digits.len() {
            10 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        let parts = (name.split_once('.'), name.split_once('-'));
        match parts {
            (Some((digits, "log")), _) => number(digits).map_or(Self::Other, |n| Self::Segment(n, Form::Log)),
            (Some((digits, "zlog")), _) => {
                number(digits).map_or(Self::Other, |n| Self::Segment(n, Form::Sealed))
            }
            (Some((digits, "zlog.new")), _) => number(digits).map_or(Self::Other, Self::Unfinished),
            (_, Some(("spare", digits))) => number(digits).map_or(Self::Other, Self::Spare),
            _ => Self::Other,
        }
    }

    pub(super) fn log(number: u64) -> String {
        format!("{number:010}.log")
    }

    pub(super) fn sealed(number: u64) -> String {
        format!("{number:010}.zlog")
    }

    pub(super) fn segment(number: u64, form: Form) -> String {
        match form {
            Form::Log => Self::log(number),
            Form::Sealed => Self::sealed(number),
        }
    }

    pub(super) fn unfinished(number: u64) -> String {
        format!("{number:010}.zlog.new")
    }

    pub(super) fn spare(number: u64) -> String {
        format!("spare-{number:010}")
    }
}

/// What stands at the start of every segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The journal.
    pub id: JournalId,
    /// The segment's number, rising in order of creation; not always without gaps.
    pub number: u64,
    /// The sequence of the first record that may stand here. Everything before it was synced in
    /// segments with lower numbers when this header was written.
    pub first: Sequence,
    /// Bytes that were preallocated.
    pub capacity: u64,
    /// No byte of such a block is written again once one of it was synced.
    pub block_bytes: u32,
    /// When the journal was opened.
    pub opened_at: UnixMillis,
    /// When this segment was made.
    pub created_at: UnixMillis,
    /// The name of the edge that wrote it.
    pub edge: String,
}

/// Why a header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// It is shorter than a header, carries no magic number, or its checksum fails.
    Damaged,
    /// It was written by a later release, whole and well.
    Later {
        /// The version it names.
        version: u16,
    },
}

impl Header {
    /// The bytes of the header of a file of this form.
    #[must_use]
    pub fn encode(&self, form: Form) -> [u8; HEADER_BYTES] {
        assert!(self.edge.len() <= EDGE_BYTES_MAX, "the configuration bounds the edge's name");
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(form.magic());
        out.extend(VERSION.to_le_bytes());
        out.extend(u16::try_from(HEADER_BYTES).expect("a small constant").to_le_bytes());
        out.extend(self.block_bytes.to_le_bytes());
        out.extend(self.id.as_bytes());
        for field in [self.number, self.first.0, self.capacity, self.opened_at.0, self.created_at.0] {
            out.extend(field.to_le_bytes());
        }
        debug_assert_eq!(out.len(), EDGE_AT);
        out.push(u8::try_from(self.edge.len()).expect("bounded above"));
        out.extend(self.edge.as_bytes());
        out.resize(HEADER_BYTES - 4, 0);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the parts add up to the header")
    }

    /// Reads the header of a file of this form.
    pub fn decode(bytes: &[u8], form: Form) -> Result<Self, HeaderFault> {
        Self::decode_parts(bytes, form).unwrap_or(Err(HeaderFault::Damaged))
    }

    /// `None` where bytes are missing or a checksum fails.
    fn decode_parts(bytes: &[u8], form: Form) -> Option<Result<Self, HeaderFault>> {
        if *bytes.first_chunk::<8>()? != form.magic() {
            return None;
        }
        let version = u16::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        // The place of the checksum is part of every version: the last four bytes of the header.
        let header_bytes = usize::from(u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?));
        let (covered, crc) = bytes.get(..header_bytes)?.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        if version > VERSION {
            return Some(Err(HeaderFault::Later { version }));
        }
        if version == 0 || header_bytes != HEADER_BYTES {
            return None;
        }
        let edge_bytes = usize::from(*bytes.get(EDGE_AT)?);
        let edge = bytes.get(EDGE_AT + 1..EDGE_AT + 1 + edge_bytes.min(EDGE_BYTES_MAX))?;
        let block_bytes = u32_at(bytes, 12)?;
        let header = Self {
            id: JournalId::from_bytes(*bytes.get(16..)?.first_chunk()?),
            number: u64_at(bytes, 32)?,
            first: Sequence(u64_at(bytes, 40)?),
            capacity: u64_at(bytes, 48)?,
            block_bytes,
            opened_at: UnixMillis(u64_at(bytes, 56)?),
            created_at: UnixMillis(u64_at(bytes, 64)?),
            edge: String::from_utf8_lossy(edge).into_owned(),
        };
        let sane = block_bytes.is_power_of_two() && header.number > 0 && header.first.0 > 0;
        sane.then_some(Ok(header))
    }
}

/// A sliding view of a file, so that a walk reads it in large pieces.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    start: u64,
}

impl Window {
    /// The bytes at `offset`: as many as asked for, fewer only at the end of the file.
    pub(super) fn bytes(&mut self, file: &dyn DiskFile, offset: u64, count: usize) -> io::Result<&[u8]> {
        if !self.holds(offset, count) {
            let wanted = count.max(WINDOW_BYTES);
            self.buffer.resize(wanted, 0);
            self.start = offset;
            match file.read_at(&mut self.buffer, offset) {
                Ok(bytes) => self.buffer.truncate(bytes),
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            }
        }
        let at = usize::try_from(offset - self.start).expect("the window holds the offset");
        let rest = self.buffer.get(at..).unwrap_or(&[]);
        Ok(rest.get(..count).unwrap_or(rest))
    }

    /// Drops what is held, for a file that may have changed since.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }

    fn holds(&self, offset: u64, count: usize) -> bool {
        let end = self.start + self.buffer.len() as u64;
        offset >= self.start && offset + count as u64 <= end
    }
}

/// A walk over the frames of one log segment.
#[derive(Debug)]
pub(super) struct Walker {
    seeds: Seeds,
    offset: u64,
    /// The sequence that comes next; unknown at the start of a segment with a damaged header.
    expected: Option<u64>,
}

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Frame(Placed),
    /// No more frames; `junk_end` is the end of the last byte that is not zero, if one follows.
    End {
        junk_end: Option<u64>,
    },
}

/// A good frame and what lay before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) head: Head,
    pub(super) offset: u64,
    pub(super) end: u64,
    /// Where the walk stood before it found this frame.
    pub(super) from: u64,
    /// Bytes that are neither zero nor a good frame lay between.
    pub(super) junk: bool,
}

impl Walker {
    pub(super) fn new(seeds: Seeds, expected: Option<u64>) -> Self {
        Self { seeds, offset: HEADER_BYTES as u64, expected }
    }

    /// The next good frame. Its payload is at `offset + HEAD_BYTES`.
    pub(super) fn next(&mut self, file: &dyn DiskFile, window: &mut Window) -> io::Result<Step> {
        let from = self.offset;
        let mut at = from;
        let mut junk_end = None;
        loop {
            let bytes = window.bytes(file, at, frame::HEAD_BYTES)?;
            if bytes.is_empty() {
                return Ok(Step::End { junk_end });
            }
            if let Some(head) =
                Head::read(bytes, self.seeds.head).filter(|head| self.plausible(head, from, at))
            {
                let end = at + head.frame_bytes() as u64;
                match payload_holds(file, window, at, &head, self.seeds.payload)? {
                    Payload::Absent => {}
                    Payload::Bad => {
                        junk_end = Some(end);
                        at = end;
                        continue;
                    }
                    Payload::Good { filling_clean } => {
                        self.offset = end;
                        self.expected = Some(head.sequence.0.saturating_add(1));
                        let junk = junk_end.is_some() || !filling_clean;
                        return Ok(Step::Frame(Placed { head, offset: at, end, from, junk }));
                    }
                }
            }
            at = skip(file, window, at, &mut junk_end)?;
        }
    }

    /// Whether a frame found at `at` can be the next one: not seen before, and not farther ahead
    /// than the skipped bytes could have held frames.
    fn plausible(&self, head: &Head, from: u64, at: u64) -> bool {
        let Some(expected) = self.expected else { return true };
        let ahead = match head.kind {
            Kind::Record => head.sequence.0.checked_sub(expected),
            Kind::Seal => head.sequence.0.saturating_add(1).checked_sub(expected),
        };
        ahead.is_some_and(|ahead| ahead <= (at - from) / frame::HEAD_BYTES as u64)
    }
}

enum Payload {
    /// The file ends before it.
    Absent,
    Bad,
    Good {
        filling_clean: bool,
    },
}

fn payload_holds(
    file: &dyn DiskFile,
    window: &mut Window,
    at: u64,
    head: &Head,
    seed: u32,
) -> io::Result<Payload> {
    let bytes = window.bytes(file, at, head.frame_bytes())?;
    if bytes.len() < head.frame_bytes() {
        return Ok(Payload::Absent);
    }
    let rest = bytes.get(frame::HEAD_BYTES..).unwrap_or(&[]);
    let (payload, filling) = rest.split_at_checked(head.payload_bytes as usize).unwrap_or((rest, &[]));
    if crc32c::crc32c_append(seed, payload) != head.payload_crc {
        return Ok(Payload::Bad);
    }
    Ok(Payload::Good { filling_clean: filling.iter().all(|&byte| byte == 0) })
}

/// Moves on from bytes at `at` that are no frame: over zeros at once, else by one alignment.
fn skip(file: &dyn DiskFile, window: &mut Window, at: u64, junk_end: &mut Option<u64>) -> io::Result<u64> {
    const ALIGN: u64 = frame::ALIGN_BYTES as u64;
    let mut bytes = window.bytes(file, at, frame::HEAD_BYTES)?;
    if bytes.iter().all(|&byte| byte == 0) {
        bytes = window.bytes(file, at, WINDOW_BYTES / 4)?;
    }
    let zeros = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len()) as u64;
    if zeros == bytes.len() as u64 {
        return Ok(at + zeros);
    }
    if zeros >= ALIGN {
        return Ok(at + zeros / ALIGN * ALIGN);
    }
    let word = bytes.get(..frame::ALIGN_BYTES).unwrap_or(bytes);
    let used = word.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    *junk_end = Some(at + used as u64);
    Ok(at + ALIGN)
}

/// Everything one pass over a log segment finds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) runs: Vec<Run>,
    /// The furthest offset that any good frame says was synced.
    pub(super) mark: u64,
    /// The last sequence, from the seal.
    pub(super) sealed: Option<u64>,
    /// The end of the last good frame.
    pub(super) end: u64,
    /// The end of the bytes after it that are not zero.
    pub(super) junk_end: Option<u64>,
    /// Places where bytes are wrong but no record is missing.
    pub(super) scratches: Vec<(u64, u64)>,
    pub(super) records: u64,
    pub(super) tags: HashMap<Tag, u64>,
}

/// Good frames without a break between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Where the frames before end, and where these begin.
    pub(super) from: u64,
    pub(super) offset: u64,
}

/// Walks a whole log segment; `each` is shown every good record.
pub(super) fn scan(
    file: &dyn DiskFile,
    seeds: Seeds,
    first: Option<u64>,
    each: &mut dyn FnMut(&Head, u64, &[u8]),
) -> io::Result<Scanned> {
    let mut window = Window::default();
    let mut walker = Walker::new(seeds, first);
    let mut scanned = Scanned { end: HEADER_BYTES as u64, ..Scanned::default() };
    let mut expected = first;
    loop {
        let placed = match walker.next(file, &mut window)? {
            Step::Frame(placed) => placed,
            Step::End { junk_end } => {
                scanned.junk_end = junk_end;
                return Ok(scanned);
            }
        };
        let head = placed.head;
        scanned.mark = scanned.mark.max(u64::from(head.synced_through));
        scanned.end = placed.end;
        if head.kind == Kind::Seal {
            scanned.sealed = Some(head.sequence.0);
            if placed.junk && expected == Some(head.sequence.0 + 1) {
                scanned.scratches.push((placed.from, placed.end));
            }
            scanned.junk_end = junk_after(file, &mut window, placed.end)?;
            return Ok(scanned);
        }
        let sequence = head.sequence.0;
        let payload =
            window.bytes(file, placed.offset + frame::HEAD_BYTES as u64, head.payload_bytes as usize)?;
        each(&head, placed.offset, payload);
        scanned.records += 1;
        *scanned.tags.entry(head.tag).or_default() += head.frame_bytes() as u64;
        match scanned.runs.last_mut() {
            Some(run) if expected == Some(sequence) => run.last = sequence,
            _ => scanned.runs.push(Run {
                first: sequence,
                last: sequence,
                from: placed.from,
                offset: placed.offset,
            }),
        }
        if placed.junk && expected.is_none_or(|expected| expected == sequence) {
            scanned.scratches.push((placed.from, placed.end));
        }
        expected = Some(sequence + 1);
    }
}

fn junk_after(file: &dyn DiskFile, window: &mut Window, from: u64) -> io::Result<Option<u64>> {
    let (mut at, mut junk_end) = (from, None);
    loop {
        let bytes = window.bytes(file, at, WINDOW_BYTES / 4)?;
        if bytes.is_empty() {
            return Ok(junk_end);
        }
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            junk_end = Some(at + last as u64 + 1);
        }
        at += bytes.len() as u64;
    }
}

/// What recovery takes from a scanned log segment, and what it says about the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Classified {
    /// Sequences to read from this segment, rising.
    pub(super) spans: Vec<(u64, u64)>,
    /// Offsets between which bytes that had been synced are wrong.
    pub(super) corrupt: Vec<(u64, u64)>,
    /// Bytes of an unfinished write at the end.
    pub(super) torn_bytes: u64,
    /// The last sequence that is known to have been synced here, if something says so.
    pub(super) proved_through: Option<u64>,
}

/// Tells clean end, torn write and corruption apart. `next_first` is the first sequence of the next
/// segment, when there is one: whatever comes before that had been synced.
pub(super) fn classify(scanned: &Scanned, first: Option<u64>, next_first: Option<u64>) -> Classified {
    let mut found = Classified { corrupt: scanned.scratches.clone(), ..Classified::default() };
    let proved_end = scanned.sealed.map(|last| last + 1).or(next_first).unwrap_or(0);
    found.proved_through = proved_end.checked_sub(1).filter(|&last| last > 0);
    let mut expected = first.or_else(|| scanned.runs.first().map(|run| run.first)).unwrap_or(0);
    let data_end = scanned.junk_end.unwrap_or(scanned.end).max(scanned.end);
    for run in &scanned.runs {
        if run.first > expected {
            if run.from >= scanned.mark && expected >= proved_end {
                found.torn_bytes = data_end - run.from;
                return found;
            }
            found.corrupt.push((run.from, run.offset));
        }
        match found.spans.last_mut() {
            Some(span) if run.first == expected => span.1 = run.last,
            _ => found.spans.push((run.first, run.last)),
        }
        expected = run.last + 1;
    }
    if expected < proved_end {
        // Without a seal and without other bytes nothing tells a zeroed end from a missing file.
        if scanned.sealed.is_some() || scanned.junk_end.is_some() {
            found.corrupt.push((scanned.end, data_end));
        }
    } else if let Some(junk_end) = scanned.junk_end {
        found.torn_bytes = junk_end.saturating_sub(scanned.end);
    }
    found
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn check(name: &str, expected: Name) {
        assert_eq!(Name::of(name), expected, "{name}");
    }

    #[test]
    fn names_mean_one_thing() {
        check(&Name::log(7), Name::Segment(7, Form::Log));
        check(&Name::sealed(7), Name::Segment(7, Form::Sealed));
        check(&Name::unfinished(7), Name::Unfinished(7));
        check(&Name::spare(7), Name::Spare(7));
        check("0000000007.log.damaged", Name::Damaged);
        check("lock", Name::Other);
        check("7.log", Name::Other);
        check("+000000007.log", Name::Other);
        check("0000000007.log.bak", Name::Other);
    }

    fn header() -> Header {
        Header {
            id: JournalId::from_bytes([3; 16]),
            number: 2,
            first: Sequence(9),
            capacity: 4096,
            block_bytes: 512,
            opened_at: UnixMillis(1),
            created_at: UnixMillis(2),
            edge: "edge".to_owned(),
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_seen() {
        let bytes = header().encode(Form::Log);
        assert_eq!(Header::decode(&bytes, Form::Log), Ok(header()));
        assert_eq!(Header::decode(&bytes, Form::Sealed), Err(HeaderFault::Damaged));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad, Form::Log), Err(HeaderFault::Damaged), "bit {bit}");
        }
        for cut in 0..HEADER_BYTES {
            assert_eq!(Header::decode(&bytes[..cut], Form::Log), Err(HeaderFault::Damaged));
        }
    }

    #[test]
    fn a_header_of_a_later_release_is_told_from_damage() {
        let mut bytes = header().encode(Form::Log);
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes, Form::Log), Err(HeaderFault::Later { version: 2 }));
    }
}
