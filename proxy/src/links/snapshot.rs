//! Tables on disk: one file per generation, `table-<generation>.links`, written whole and read whole.
//!
//! Invariants:
//! - A file under its final name is complete and synced; [`write()`] goes by a temporary name.
//! - Every byte of a file is covered by a checksum, and the file is exactly as long as it says.
//! - The generation before the newest is kept, with the logs that lead from it to now.
//! - A damaged file is set aside under `*.damaged`, never deleted; one of a later release, and one that
//!   cannot be read, stay as they are.
//!
//! ```text
//! header    0  magic "HFLINKS\n"      8  version u32         12  bytes of the header u32
//!          16  generation u64        24  made at u64         32  latest clock u64
//!          40  watermark i64         48  seed u64            56  buckets u64
//!          64  links, live, absent, looked up, targets: 5 x u64
//!         104  six sections: bytes u64, crc32c u32, zero u32
//!         200  crc32c of the header before it u32
//! sections  names (u8 length and name each), database, directory, records, campaigns, targets
//! ```
//!
//! Integers are little-endian, times are milliseconds. The sections hold what the table holds in
//! memory (see `table`), so reading is one pass that copies and checks; a mapped file would be read by
//! page faults on the way of a click, and a bad sector would kill the process.

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crc32c::{crc32c, crc32c_append};

use super::blob::Blob;
use super::log;
use super::namespaces::{NAMES_MAX, Namespaces};
use super::record::take;
use super::table::{Names, Parts, Stats, Table};
use crate::courtesy;
use crate::event::UnixMillis;

const MAGIC: &[u8; 8] = b"HFLINKS\n";
const VERSION: u64 = 1;
const SECTIONS: usize = 6;
const HEADER_BYTES: usize = 64 + 5 * 8 + SECTIONS * 16 + 4;
/// The longest header that a later release may write.
const HEADER_BYTES_MAX: u64 = 64 * 1024;
/// Written and synced at a time, so that a snapshot never fills the disk's queue before the journal.
const SLICE_BYTES: usize = 8 << 20;
/// Read and checked at a time: small enough to be in the processor's cache for both; written at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What a snapshot says beside its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Up to where the table contains the database's changes.
    pub watermark: i64,
    /// Which database it was loaded from.
    pub database: String,
}

/// A table read from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The table.
    pub table: Table,
    /// What its snapshot says beside it.
    pub meta: Meta,
    /// Its generation.
    pub generation: u64,
}

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The newest good snapshot.
    pub loaded: Option<Loaded>,
    /// Newer ones that could not be used.
    pub faults: Vec<Fault>,
}

/// A snapshot that cannot be used.
#[derive(Debug)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where it was set aside, if it was.
    pub set_aside: Option<PathBuf>,
    /// Why.
    pub reason: Unusable,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} cannot be used", self.path.display())?;
        match &self.set_aside {
            Some(path) => write!(f, " and was set aside as {}", path.display()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// Its bytes are not those that were written.
    Damaged(&'static str),
    /// It was written by a later release.
    Later {
        /// The version of its format.
        version: u64,
    },
    /// The disk or the system failed.
    Unreadable(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "file is damaged: {what}"),
            Self::Later { version } => {
                write!(f, "file has version {version}, this release reads {VERSION}")
            }
            Self::Unreadable(_) => f.write_str("file cannot be read"),
        }
    }
}

impl std::error::Error for Unusable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(cause) => Some(cause),
            Self::Damaged(_) | Self::Later { .. } => None,
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(cause: io::Error) -> Self {
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Damaged("it ends too early");
        }
        Self::Unreadable(cause)
    }
}

/// A file or folder of links that could not be read or written.
#[derive(Debug)]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl Error {
    pub(super) fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self { doing, path, cause }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.doing, self.path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// A snapshot that was written.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// Writes `table` as the snapshot of `generation`, then removes what is older than the one before.
///
/// # Blocking
/// Writes and syncs the whole table: seconds for millions of links.
///
/// # Errors
/// [`Error`] when it cannot be written or there is one of this generation; earlier ones are untouched.
pub fn write(folder: &Path, generation: u64, table: &Table, meta: &Meta) -> Result<Written, Error> {
    let path = folder.join(file_name(generation));
    if path.symlink_metadata().is_ok() {
        return Err(Error::new("write", &path)(io::ErrorKind::AlreadyExists.into()));
    }
    let temporary = folder.join(format!("{}.{}{TEMPORARY}", file_name(generation), std::process::id()));
    let bytes = write_file(&temporary, generation, table, meta)
        .and_then(|bytes| fs::rename(&temporary, &path).map(|()| bytes))
        .map_err(|cause| {
            let _ = fs::remove_file(&temporary);
            Error::new("write", &path)(cause)
        })?;
    sync_folder(folder)?;
    prune(folder, generation)?;
    Ok(Written { path, bytes })
}

/// What to do with a damaged snapshot that is found on the way to a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// Rename it: the edge that owns the folder.
    SetAside,
    /// Leave it: whoever only looks.
    Leave,
}

/// Reads the newest snapshot in `folder` that can be used.
///
/// # Blocking
/// Reads the whole file.
///
/// # Errors
/// [`Error`] when the folder cannot be listed; a folder that does not exist holds no snapshot.
pub fn load(folder: &Path, namespaces: &Namespaces, damaged: Damaged) -> Result<Recovered, Error> {
    let mut found = Recovered::default();
    for (generation, path) in generations(folder, generation_of)?.into_iter().rev() {
        match read_file(&path, generation, namespaces) {
            Ok(loaded) => {
                found.loaded = Some(loaded);
                break;
            }
            Err(reason) => {
                let set_aside = match reason {
                    Unusable::Damaged(_) if damaged == Damaged::SetAside => set_aside(&path),
                    Unusable::Damaged(_) | Unusable::Later { .. } | Unusable::Unreadable(_) => None,
                };
                found.faults.push(Fault { path, set_aside, reason });
            }
        }
    }
    if found.faults.iter().any(|fault| fault.set_aside.is_some()) {
        sync_folder(folder)?;
    }
    Ok(found)
}

/// The greatest generation of any snapshot or log in `folder`, damaged ones included; a new generation
/// must be greater. Zero when there is none.
///
/// # Errors
/// [`Error`] when the folder cannot be listed.
pub fn newest_generation(folder: &Path) -> Result<u64, Error> {
    let any = |name: &str| {
        let name = name.strip_suffix(DAMAGED).unwrap_or(name);
        generation_of(name).or_else(|| log::generation_of(name))
    };
    Ok(generations(folder, any)?.last().map_or(0, |(generation, _)| *generation))
}

const TEMPORARY: &str = ".tmp";
const DAMAGED: &str = ".damaged";

/// The name of a generation's snapshot in its folder.
#[must_use]
pub fn file_name(generation: u64) -> String {
    format!("table-{generation}.links")
}

fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("table-")?.strip_suffix(".links")?;
    digits.parse().ok().filter(|&generation| file_name(generation) == name)
}

/// The files of `folder` whose name `generation_of` knows, in the order of their generations.
pub(super) fn generations(
    folder: &Path,
    generation_of: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut known = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(known),
        entries => entries.map_err(Error::new("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::new("list", folder))?;
        if let Some(generation) = entry.file_name().to_str().and_then(&generation_of) {
            known.push((generation, entry.path()));
        }
    }
    known.sort();
    Ok(known)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::new("sync", folder))
}

/// Renames a damaged file; when that fails it stays, and is found damaged again at the next start.
fn set_aside(path: &Path) -> Option<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).ok().map(|()| aside)
}

/// Removes the snapshots older than the one before `newest`, the logs older than that one, and what
/// interrupted writers left.
fn prune(folder: &Path, newest: u64) -> Result<(), Error> {
    let tables = generations(folder, generation_of)?;
    let kept = tables.iter().rev().map(|(generation, _)| *generation).find(|&generation| generation < newest);
    let Some(kept) = kept else { return Ok(()) };
    let logs = generations(folder, log::generation_of)?;
    let is_interrupted = |name: &str| name.starts_with("table-") && name.ends_with(TEMPORARY);
    let interrupted = generations(folder, |name| is_interrupted(name).then_some(0))?;
    let outdated = tables.into_iter().chain(logs).filter(|(generation, _)| *generation < kept);
    for (_, path) in outdated.chain(interrupted) {
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(Error::new("remove", &path)(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write_file(path: &Path, generation: u64, table: &Table, meta: &Meta) -> io::Result<u64> {
    let names = encode_names(table);
    let Parts { directory, records, campaigns, targets, .. } = &table.parts;
    let sections: [&[u8]; SECTIONS] =
        [&names, meta.database.as_bytes(), directory, records, campaigns, targets];
    let header = encode_header(generation, &table.parts, meta, sections);
    let mut file = File::create(path)?;
    let mut bytes = 0;
    for part in std::iter::once(header.as_slice()).chain(sections) {
        for slice in part.chunks(SLICE_BYTES) {
            for chunk in slice.chunks(CHUNK_BYTES) {
                file.write_all(chunk)?;
                courtesy::offer();
            }
            if slice.len() == SLICE_BYTES {
                file.sync_data()?;
            }
        }
        bytes += part.len() as u64;
    }
    file.sync_all()?;
    Ok(bytes)
}

fn encode_names(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    for name in table.names() {
        out.push(u8::try_from(name.len()).expect("names are bounded when they are numbered"));
        out.extend_from_slice(name);
    }
    out
}

fn encode_header(generation: u64, parts: &Parts, meta: &Meta, sections: [&[u8]; SECTIONS]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(VERSION as u32).to_le_bytes());
    out.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    let Stats { links, live, absent, looked_up, targets } = parts.stats;
    let watermark = u64::from_le_bytes(meta.watermark.to_le_bytes());
    let times = [parts.made_at.0, parts.clock_max.0];
    for number in [generation]
        .into_iter()
        .chain(times)
        .chain([watermark, parts.seed, parts.buckets])
        .chain([links, live, absent, looked_up, targets])
    {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for section in sections {
        out.extend_from_slice(&(section.len() as u64).to_le_bytes());
        out.extend_from_slice(&crc32c(section).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    assert_eq!(out.len(), HEADER_BYTES);
    out
}

fn read_file(path: &Path, generation: u64, namespaces: &Namespaces) -> Result<Loaded, Unusable> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let header = decode_header(&read_header(&file, file_bytes)?)?;
    if header.generation != generation {
        return Err(Unusable::Damaged("it belongs to another generation than its name says"));
    }
    let total = header.sections.iter().try_fold(HEADER_BYTES as u64, |sum, part| sum.checked_add(part.bytes));
    if total != Some(file_bytes) {
        return Err(Unusable::Damaged("it is not as long as it says"));
    }
    let mut sections = header.sections.iter();
    let mut next = || match sections.next() {
        Some(section) => read_section(&file, section),
        None => Err(Unusable::Damaged("a section is missing")),
    };
    let names = next()?;
    let database =
        String::from_utf8(next()?.into_vec()).map_err(|_| Unusable::Damaged("its database has no name"))?;
    let parts =
        Parts { directory: next()?, records: next()?, campaigns: next()?, targets: next()?, ..header.parts };
    let names = decode_names(&names).ok_or(Unusable::Damaged("its namespaces have no names"))?;
    let names = Names::of(names, namespaces).map_err(|_| Unusable::Damaged("it has too many namespaces"))?;
    let meta = Meta { watermark: header.watermark, database };
    Ok(Loaded { table: Table::new(parts, names), meta, generation })
}

struct Header {
    generation: u64,
    watermark: i64,
    /// All but the sections.
    parts: Parts,
    sections: [Section; SECTIONS],
}

#[derive(Clone, Copy, Default)]
struct Section {
    bytes: u64,
    checksum: u64,
}

/// Reads the header's bytes and checks them, whatever release wrote them.
fn read_header(mut file: &File, file_bytes: u64) -> Result<Vec<u8>, Unusable> {
    let mut header = vec![0; 16];
    file.read_exact(&mut header)?;
    let mut rest =
        header.strip_prefix(MAGIC).ok_or(Unusable::Damaged("it does not begin like a snapshot"))?;
    let (version, bytes) = (take::<4>(&mut rest), take::<4>(&mut rest));
    let (Some(version), Some(bytes @ 24..=HEADER_BYTES_MAX)) = (version, bytes) else {
        return Err(Unusable::Damaged("its header has no sensible length"));
    };
    if bytes > file_bytes {
        return Err(Unusable::Damaged("it ends too early"));
    }
    file.take(bytes - 16).read_to_end(&mut header)?;
    let (body, checksum) = header.split_last_chunk::<4>().ok_or(Unusable::Damaged("it ends too early"))?;
    if crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(Unusable::Damaged("its header does not match its checksum"));
    }
    if version != VERSION {
        return Err(Unusable::Later { version });
    }
    Ok(header)
}

fn decode_header(header: &[u8]) -> Result<Header, Unusable> {
    let decode = || {
        let mut rest = header.get(16..)?;
        let mut next = || take::<8>(&mut rest);
        let generation = next()?;
        let (made_at, clock_max) = (UnixMillis(next()?), UnixMillis(next()?));
        let watermark = i64::from_le_bytes(next()?.to_le_bytes());
        let (seed, buckets) = (next()?, next()?);
        let stats =
            Stats { links: next()?, live: next()?, absent: next()?, looked_up: next()?, targets: next()? };
        let mut sections = [Section::default(); SECTIONS];
        for section in &mut sections {
            *section = Section { bytes: take::<8>(&mut rest)?, checksum: take::<4>(&mut rest)? };
            take::<4>(&mut rest)?;
        }
        let parts = Parts { seed, buckets, made_at, clock_max, stats, ..Parts::default() };
        (rest.len() == 4).then_some(Header { generation, watermark, parts, sections })
    };
    decode().ok_or(Unusable::Damaged("its header has not the length of its version"))
}

/// Reads one section, whose length was compared with the file's, and checks it on the way.
fn read_section(mut file: &File, section: &Section) -> Result<Blob, Unusable> {
    let bytes = usize::try_from(section.bytes).map_err(|_| Unusable::Damaged("a section is too long"))?;
    let mut content = Blob::zeroed(bytes);
    let mut checksum = 0;
    for chunk in content.chunks_mut(CHUNK_BYTES) {
        file.read_exact(chunk).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Unusable::Damaged("it ends too early"),
            _ => error.into(),
        })?;
        checksum = crc32c_append(checksum, chunk);
    }
    if u64::from(checksum) != section.checksum {
        return Err(Unusable::Damaged("a section does not match its checksum"));
    }
    Ok(content)
}

fn decode_names(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        names.push(name);
        bytes = rest;
    }
    (names.len() <= NAMES_MAX).then_some(names)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
