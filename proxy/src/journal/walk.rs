//! The walk over the frames of a log segment, which survives damage, and the verdict on what it met.
//!
//! Invariants:
//! - The walk yields only frames whose checksums hold, in rising sequence, and never allocates more
//!   than [`RECORD_BYTES_CAP`](frame::RECORD_BYTES_CAP) for what a file claims.
//! - It ends on every input: each step moves forward.
//! - A break is corruption when it lies before the synced mark, or when a seal or a later segment
//!   proves that the missing sequences had been synced; otherwise it is a torn write ([`classify`]).

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io;

use super::Tag;
use super::disk::DiskFile;
use super::frame::{self, Head, Kind, Seeds};
use super::segment::HEADER_BYTES;

const WINDOW_BYTES: usize = 256 << 10;

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
