//! Looks at journals without touching them, beside a running edge or without one: stat, verify, dump.
//!
//! It takes no lock, changes no file and makes nothing durable: of a journal that is being written
//! it shows what the page cache shows, so the last few records may come and go.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::disk::{Access, Disk};
use super::frame::Seeds;
use super::recover::{self, Examined, Report, Unfit, Unreadable};
use super::sealed::Unpress;
use super::segment::{self, Form, Name};
use super::shelf::{Gap, Span};
use super::walk::scan;
use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// One journal as it lies on disk.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Its id.
    pub id: JournalId,
    /// The edge that wrote it; empty when no header can be read.
    pub edge: String,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// The first sequence kept; one past `end` when none is.
    pub first: Sequence,
    /// The last sequence found.
    pub end: Sequence,
    /// Bytes of its files.
    pub bytes: u64,
    /// Segments not yet compressed.
    pub logs: usize,
    /// Compressed segments.
    pub sealed: usize,
    /// What is wrong and missing.
    pub report: Report,
}

/// One thing that is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the folder where a file is missing.
    pub file: PathBuf,
    /// Where in the file, if it is a place.
    pub offset: Option<u64>,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: &'static str,
    /// Whether something that was promised is lost.
    pub severity: Severity,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// To be expected after a crash.
    Note,
    /// Records are lost, or bytes are wrong.
    Damage,
}

/// Why a folder can't be inspected.
#[derive(Debug)]
pub enum InspectError {
    /// The disk failed, or the folder is not there.
    Disk {
        /// The folder.
        folder: PathBuf,
        /// What the disk said.
        cause: io::Error,
    },
    /// A later release wrote the journal.
    Later {
        /// The file that says so.
        file: PathBuf,
        /// The format's version.
        version: u16,
    },
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { folder, .. } => write!(f, "can't read {}", folder.display()),
            Self::Later { file, version } => write!(
                f,
                "{} has format version {version}, this release reads up to {}",
                file.display(),
                segment::VERSION
            ),
        }
    }
}

impl std::error::Error for InspectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { cause, .. } => Some(cause),
            Self::Later { .. } => None,
        }
    }
}

/// The journals in a folder, oldest first.
///
/// # Errors
/// When the folder can't be listed.
pub fn journals(disk: &dyn Disk, folder: &Path) -> Result<Vec<JournalId>, InspectError> {
    let entries = disk.list(folder).map_err(|cause| failed(folder, cause))?;
    let mut ids = Vec::new();
    for id in entries.iter().filter(|entry| entry.folder).filter_map(|entry| entry.name.parse().ok()) {
        let opened_at = examined(disk, folder, id).map(|examined| examined.volume.opened_at);
        ids.push((opened_at.unwrap_or_default(), id));
    }
    ids.sort();
    Ok(ids.into_iter().map(|(_, id)| id).collect())
}

/// What one journal holds.
///
/// # Errors
/// When its files can't be read.
pub fn stat(disk: &dyn Disk, folder: &Path, id: JournalId) -> Result<Stat, InspectError> {
    let volume = examined(disk, folder, id)?.volume;
    let form = |form| volume.segments.values().filter(|segment| segment.form == form).count();
    Ok(Stat {
        id,
        opened_at: volume.opened_at,
        first: Sequence(volume.spans.first().map_or(volume.end + 1, |span| span.first)),
        end: Sequence(volume.end),
        bytes: volume.bytes(),
        logs: form(Form::Log),
        sealed: form(Form::Sealed),
        report: volume.report.clone().unwrap_or_default(),
        edge: volume.edge,
    })
}

/// Reads every byte of one journal and names everything that is not as it should be.
///
/// # Errors
/// When its files can't be read.
pub fn verify(disk: &dyn Disk, folder: &Path, id: JournalId) -> Result<Vec<Finding>, InspectError> {
    let home = folder.join(id.to_string());
    let examined = examined(disk, folder, id)?;
    let report = examined.volume.report.clone().unwrap_or_default();
    let mut findings = Vec::new();
    let mut say = |file: &str, offset, found: String, advice, severity| {
        findings.push(Finding { file: home.join(file), offset, found, advice, severity });
    };
    for corrupt in &report.corrupt {
        let found = format!("bytes {} to {} are damaged", corrupt.from, corrupt.to);
        say(&corrupt.file, Some(corrupt.from), found, kept(&corrupt.file), Severity::Damage);
    }
    for quarantined in &report.quarantined {
        say(&quarantined.file, None, quarantined.fault.to_string(), SET_ASIDE, Severity::Damage);
    }
    for (file, right) in &examined.misnamed {
        say(file, Some(0), format!("its header says that it is {right}"), RENAME, Severity::Damage);
    }
    if report.torn_bytes > 0 {
        let found = format!("{} bytes of an unfinished write at the end", report.torn_bytes);
        say("", None, found, TORN, Severity::Note);
    }
    if report.conflicts > 0 {
        let found = format!("{} sequences lie in two segments with different bytes", report.conflicts);
        say("", None, found, CONFLICT, Severity::Damage);
    }
    let mut gaps = report.gaps;
    let read = walk(disk, folder, &examined, Sequence(0), &mut |_| ControlFlow::Continue(()));
    let Walked { damaged, missing } = read.map_err(|cause| failed(&home, cause))?;
    for (file, from, to) in damaged {
        let found = format!("bytes {from} to {to} are damaged");
        say(&file, Some(from), found, kept(&file), Severity::Damage);
    }
    for gap in missing {
        super::shelf::add_gap(&mut gaps, gap);
    }
    for gap in gaps {
        let found = format!("sequences {} to {} are {}", gap.first, gap.last, gap.cause.label());
        say("", None, found, LOST, Severity::Damage);
    }
    Ok(findings)
}

/// One record of a dump.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    /// Its place.
    pub sequence: Sequence,
    /// When it was made.
    pub at: UnixMillis,
    /// Whom it is counted for.
    pub tag: Tag,
    /// Its bytes.
    pub payload: &'r [u8],
}

/// Shows every record after `after`, in order, until `each` breaks off.
///
/// # Errors
/// When its files can't be read.
pub fn dump(
    disk: &dyn Disk,
    folder: &Path,
    id: JournalId,
    after: Sequence,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<(), InspectError> {
    let examined = examined(disk, folder, id)?;
    walk(disk, folder, &examined, after, each).map_err(|cause| failed(folder, cause))?;
    Ok(())
}

const KEPT: &str = "what is lost is named as sequences and the rest is delivered; the file is kept as *.damaged \
                    when it is compressed; look for other damage on this disk";
const KEPT_SEALED: &str = "what is lost is named as sequences and the rest is delivered; keep a copy of the file \
                           if you want to look into it, for it goes when its records expire; look for other \
                           damage on this disk";
const SET_ASIDE: &str = "the edge sets it aside as *.damaged; move it away once you know where it came from";
const RENAME: &str = "the edge gives it its right name when it starts; find out who renamed it";
const TORN: &str = "nothing to do: it was never promised, and is not read";
const CONFLICT: &str = "the later segment is read; keep a copy of the folder and report this";
const LOST: &str = "restore the files of this journal from a copy before they expire, or let it be: \
                    delivery goes on behind the gap";

/// What becomes of a damaged file.
fn kept(file: &str) -> &'static str {
    match Name::of(file) {
        Name::Segment(_, Form::Sealed) => KEPT_SEALED,
        _ => KEPT,
    }
}

fn failed(folder: &Path, cause: io::Error) -> InspectError {
    InspectError::Disk { folder: folder.to_owned(), cause }
}

/// How often a listing that changed under us is taken again.
const LISTINGS_MAX: u32 = 5;

fn examined(disk: &dyn Disk, folder: &Path, id: JournalId) -> Result<Examined, InspectError> {
    let home = folder.join(id.to_string());
    let mut listings = 0;
    loop {
        listings += 1;
        match recover::examine(disk, &home, id, Access::Read, Unreadable::Damage) {
            Ok(examined) => return Ok(examined),
            Err(Unfit::Later { file, version }) => {
                return Err(InspectError::Later { file: home.join(file), version });
            }
            // Compressed or expired by the running edge between the listing and the opening.
            Err(Unfit::Disk(cause)) if cause.kind() == io::ErrorKind::NotFound && listings < LISTINGS_MAX => {
            }
            Err(Unfit::Disk(cause)) => return Err(failed(&home, cause)),
        }
    }
}

/// What a walk over all records met besides them.
#[derive(Default)]
struct Walked {
    damaged: Vec<(String, u64, u64)>,
    missing: Vec<Gap>,
}

fn walk(
    disk: &dyn Disk,
    folder: &Path,
    examined: &Examined,
    after: Sequence,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> io::Result<Walked> {
    let volume = &examined.volume;
    let mut walked = Walked::default();
    for span in volume.spans.iter().filter(|span| span.last > after.0) {
        let form = volume.segments.get(&span.number).map_or(Form::Log, |segment| segment.form);
        let right = Name::segment(span.number, form);
        let found = examined.misnamed.iter().find(|(_, name)| *name == right);
        let name = found.map_or(right, |(name, _)| name.clone());
        let path = folder.join(volume.id.to_string()).join(&name);
        let file = match disk.open(&path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Compressed meanwhile; the sealed form holds the same.
                disk.open(&path.with_extension("zlog"), Access::Read)?
            }
            opened => opened?,
        };
        let seeds = Seeds::new(volume.id, span.number);
        let wanted = Span { first: span.first.max(after.0 + 1), ..*span };
        let form =
            if path.extension().is_some_and(|extension| extension == "zlog") { Form::Sealed } else { form };
        if walk_span(&*file, form, seeds, (wanted, &name), &mut walked, each)?.is_break() {
            break;
        }
    }
    Ok(walked)
}

fn walk_span(
    file: &dyn super::disk::DiskFile,
    form: Form,
    seeds: Seeds,
    (span, name): (Span, &str),
    walked: &mut Walked,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut flow = ControlFlow::Continue(());
    let mut expected = span.first;
    let mut show = |record: Record<'_>| {
        let sequence = record.sequence.0;
        if flow.is_break() || sequence < span.first || sequence > span.last {
            return;
        }
        if sequence > expected {
            walked.missing.push(lost(expected, sequence - 1));
        }
        expected = sequence + 1;
        flow = each(record);
    };
    match form {
        Form::Log => {
            scan(file, seeds, None, &mut |head, _, payload| {
                show(Record { sequence: head.sequence, at: head.at, tag: head.tag, payload });
            })?;
        }
        Form::Sealed => {
            let mut unpress = Unpress::new(seeds);
            let mut next = span.first;
            while let Some(record) = unpress.next(file, next)? {
                next = record.sequence.0 + 1;
                show(Record {
                    sequence: record.sequence,
                    at: record.at,
                    tag: record.tag,
                    payload: record.payload,
                });
            }
            walked.damaged.extend(unpress.damaged.iter().map(|&(from, to)| (name.to_owned(), from, to)));
        }
    }
    if expected <= span.last && flow.is_continue() {
        walked.missing.push(lost(expected, span.last));
    }
    Ok(flow)
}

fn lost(first: u64, last: u64) -> Gap {
    Gap { first: Sequence(first), last: Sequence(last), cause: super::Cause::Damaged }
}
