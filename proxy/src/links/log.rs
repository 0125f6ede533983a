//! The changes since a table was begun, on disk: `links-<generation>.log`, append-only.
//!
//! Invariants:
//! - A log is written by the process that created it and by none after it: a restart begins a new
//!   generation, so nothing is ever cut from a file or written behind a torn end.
//! - After a failed write or sync a log takes nothing more. Its owner begins the next generation and
//!   appends the whole overlay, for what was not synced may be gone whatever a later sync says.
//! - Reading changes nothing on disk. What is not a whole record is skipped and reported: at the end of
//!   a file as torn, before a whole record as damaged.
//!
//! ```text
//! file    magic "HFLNKLOG" 8 | version u32 | generation u64 | crc32c of these u32
//! record  mark "HFL+" 4 | bytes of the body u32 | crc32c u32 of generation, place, bytes, body | body
//! body    state u8 | origin u8 | append u8 | expires u64 (0: never)
//!         | bytes of namespace, token, URL, campaign: 4 x u16 | namespace | token | URL | campaign
//! ```
//!
//! The checksum covers the record's place in the file, so that what looks like a record inside another
//! one's texts is never taken for one. Integers are little-endian, times are milliseconds. Records name their namespace, for its number
//! means nothing to another process.

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crc32c::{crc32c, crc32c_append};

use super::namespaces::NAME_BYTES_MAX;
use super::record::take;
use super::snapshot::{Error, generations, sync_folder};
use super::target::TARGET_BYTES_MAX;
use super::{CAMPAIGN_BYTES_MAX, Origin, Row, State, TOKEN_BYTES_MAX};
use crate::event::UnixMillis;

const MAGIC: &[u8; 8] = b"HFLNKLOG";
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 8 + 4 + 8 + 4;
const MARK: &[u8; 4] = b"HFL+";
const FRAME_BYTES: usize = 4 + 4 + 4;
const BODY_BYTES_MIN: usize = 1 + 1 + 1 + 8 + 4 * 2;
const BODY_BYTES_MAX: usize =
    BODY_BYTES_MIN + NAME_BYTES_MAX + TOKEN_BYTES_MAX + TARGET_BYTES_MAX + CAMPAIGN_BYTES_MAX;

/// One change as it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What is known of the link now.
    pub row: Row<'a>,
    /// How it came to be known.
    pub origin: Origin,
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    generation: u64,
    bytes: u64,
    failed: bool,
    /// Encoded records, kept for its capacity.
    buffer: Vec<u8>,
}

impl Log {
    /// Creates the log of `generation`.
    ///
    /// # Blocking
    /// Syncs the file and its folder.
    ///
    /// # Errors
    /// [`Error`] when there is one already or it cannot be created.
    pub fn create(folder: &Path, generation: u64) -> Result<Self, Error> {
        let path = folder.join(file_name(generation));
        let header = encode_header(generation);
        let create = || {
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            file.write_all(&header)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(Error::new("create", &path))?;
        sync_folder(folder)?;
        Ok(Self { file, path, generation, bytes: header.len() as u64, failed: false, buffer: Vec::new() })
    }

    /// Writes `records`; they survive the process at once, and the machine after [`Log::sync`].
    ///
    /// # Errors
    /// [`Error`] when this write or an earlier operation failed: begin the next generation.
    pub fn append<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) -> Result<(), Error> {
        self.buffer.clear();
        for record in records {
            encode(self.generation, self.bytes, &record, &mut self.buffer);
            if self.buffer.len() > 1 << 20 {
                self.write()?;
            }
        }
        self.write()
    }

    /// Syncs what was appended.
    ///
    /// # Blocking
    /// Waits for the disk.
    ///
    /// # Errors
    /// [`Error`] when this sync or an earlier operation failed: begin the next generation.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.latch("sync", |log| log.file.sync_data())
    }

    /// The generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The file's length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&mut self) -> Result<(), Error> {
        self.latch("append to", |log| log.file.write_all(&log.buffer))?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn latch(
        &mut self,
        doing: &'static str,
        operation: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), Error> {
        let result = if self.failed {
            Err(io::Error::other("an earlier operation on this log failed"))
        } else {
            operation(self)
        };
        self.failed = result.is_err();
        result.map_err(Error::new(doing, &self.path))
    }
}

/// What [`replay`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Logs read.
    pub logs: u64,
    /// Records in them.
    pub records: u64,
    /// What was skipped.
    pub faults: Vec<Fault>,
}

/// A part of a log that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// The bytes that were skipped.
    pub bytes: Range<u64>,
    /// What they are.
    pub kind: FaultKind,
}

/// What a skipped part of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Whole records follow: these bytes were changed after they were written.
    Damaged,
    /// The file was written by a later release.
    Later,
    /// Nothing follows: the last write was not finished.
    Torn,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Damaged => "damaged bytes",
            FaultKind::Later => "bytes of a later release",
            FaultKind::Torn => "bytes of a write that was not finished",
        };
        let Range { start, end } = &self.bytes;
        write!(f, "{what} from {start} to {end} in {} are skipped", self.path.display())
    }
}

/// Reads the logs of generation `from` and all later ones, the oldest first.
///
/// # Blocking
/// Reads each log whole into memory.
///
/// # Errors
/// [`Error`] when a log cannot be read; what came before it was passed to `each`.
pub fn replay(folder: &Path, from: u64, each: &mut dyn FnMut(Record<'_>)) -> Result<Report, Error> {
    let mut report = Report::default();
    for (generation, path) in generations(folder, generation_of)? {
        if generation < from {
            continue;
        }
        let bytes = fs::read(&path).map_err(Error::new("read", &path))?;
        report.logs += 1;
        scan(generation, &bytes, |part| match part {
            Part::Record(record) => {
                report.records += 1;
                each(record);
            }
            Part::Skipped(range, kind) => {
                let bytes = range.start as u64..range.end as u64;
                report.faults.push(Fault { path: path.clone(), bytes, kind });
            }
        });
    }
    Ok(report)
}

fn file_name(generation: u64) -> String {
    format!("links-{generation}.log")
}

pub(super) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("links-")?.strip_suffix(".log")?;
    digits.parse().ok().filter(|&generation| file_name(generation) == name)
}

enum Part<'a> {
    Record(Record<'a>),
    Skipped(Range<usize>, FaultKind),
}

fn scan<'a>(generation: u64, bytes: &'a [u8], mut each: impl FnMut(Part<'a>)) {
    let mut at = match read_header(generation, bytes) {
        HeaderRead::Good => HEADER_BYTES,
        HeaderRead::Later => return each(Part::Skipped(0..bytes.len(), FaultKind::Later)),
        // The name says the generation too, so the records can be read without the header.
        HeaderRead::Bad => 0,
    };
    while at < bytes.len() {
        if let Some((record, next)) = decode(generation, bytes, at) {
            each(Part::Record(record));
            at = next;
            continue;
        }
        let rest = bytes.get(at + 1..).unwrap_or_default();
        let next = memchr::memmem::find_iter(rest, MARK)
            .map(|found| at + 1 + found)
            .find(|&next| decode(generation, bytes, next).is_some());
        let kind = if next.is_some() { FaultKind::Damaged } else { FaultKind::Torn };
        let end = next.unwrap_or(bytes.len());
        each(Part::Skipped(at..end, kind));
        at = end;
    }
}

enum HeaderRead {
    Bad,
    Good,
    Later,
}

fn encode_header(generation: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(VERSION as u32).to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

fn read_header(generation: u64, bytes: &[u8]) -> HeaderRead {
    let read = || {
        let (head, checksum) = bytes.get(..HEADER_BYTES)?.split_last_chunk::<4>()?;
        let mut rest = head.strip_prefix(MAGIC)?;
        let version = take::<4>(&mut rest)?;
        let whole = crc32c(head) == u32::from_le_bytes(*checksum) && take::<8>(&mut rest)? == generation;
        whole.then_some(version)
    };
    match read() {
        Some(VERSION) => HeaderRead::Good,
        Some(_) => HeaderRead::Later,
        None => HeaderRead::Bad,
    }
}

/// Appends a record to `out`, which will be written at the place `base`.
fn encode(generation: u64, base: u64, record: &Record<'_>, out: &mut Vec<u8>) {
    let place = base + out.len() as u64;
    let Row { namespace, token, url, campaign, append, expires_at, state } = record.row;
    let texts = [namespace, token, url.as_bytes(), campaign];
    let length: usize = BODY_BYTES_MIN + texts.iter().map(|text| text.len()).sum::<usize>();
    assert!(length <= BODY_BYTES_MAX, "an entry's fields are bounded when it is approved");
    let length = u32::try_from(length).expect("compared with a small bound").to_le_bytes();
    out.extend_from_slice(MARK);
    out.extend_from_slice(&length);
    let checksum_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let body_at = out.len();
    out.extend_from_slice(&[state as u8, record.origin as u8, u8::from(append)]);
    out.extend_from_slice(&expires_at.map_or(0, |at| at.0.max(1)).to_le_bytes());
    for text in texts {
        let length = u16::try_from(text.len()).expect("compared with a small bound");
        out.extend_from_slice(&length.to_le_bytes());
    }
    for text in texts {
        out.extend_from_slice(text);
    }
    let (head, body) = out.split_at_mut(body_at);
    if let Some(slot) = head.get_mut(checksum_at..) {
        slot.copy_from_slice(&checksum(generation, place, &length, body).to_le_bytes());
    }
}

fn checksum(generation: u64, place: u64, length: &[u8; 4], body: &[u8]) -> u32 {
    let place = crc32c_append(crc32c(&generation.to_le_bytes()), &place.to_le_bytes());
    crc32c_append(crc32c_append(place, length), body)
}

/// The record at `at` and where the next one begins.
fn decode(generation: u64, bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let frame = bytes.get(at..)?;
    let (length, rest) = frame.strip_prefix(MARK)?.split_first_chunk::<4>()?;
    let (stored, rest) = rest.split_first_chunk::<4>()?;
    let body_bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body_bytes) {
        return None;
    }
    let body = rest.get(..body_bytes)?;
    if checksum(generation, at as u64, length, body) != u32::from_le_bytes(*stored) {
        return None;
    }
    Some((decode_body(body)?, at + FRAME_BYTES + body_bytes))
}

fn decode_body(body: &[u8]) -> Option<Record<'_>> {
    let (&[state, origin, append], mut rest) = body.split_first_chunk::<3>()?;
    let expires_at = Some(take::<8>(&mut rest)?).filter(|&at| at != 0).map(UnixMillis);
    let mut lengths = [0; 4];
    for length in &mut lengths {
        *length = usize::try_from(take::<2>(&mut rest)?).ok()?;
    }
    let mut texts = [&[][..]; 4];
    for (text, length) in texts.iter_mut().zip(lengths) {
        (*text, rest) = rest.split_at_checked(length)?;
    }
    let [namespace, token, url, campaign] = texts;
    let row = Row {
        namespace,
        token,
        url: std::str::from_utf8(url).ok()?,
        campaign,
        append: append != 0,
        expires_at,
        state: State::from_tag(state)?,
    };
    let origin = Origin::from_tag(origin)?;
    rest.is_empty().then_some(Record { row, origin })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
