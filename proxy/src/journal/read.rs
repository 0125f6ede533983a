//! Reads synced records in order, beside the committer that appends and the mill that compresses.
//!
//! Invariants:
//! - Only records up to the synced mark are delivered, each once, in rising sequence.
//! - What can't be read is named as an exact range of sequences; nothing is passed over in silence.
//! - A reader keeps the file that it reads open: compressing or removing it takes nothing away.
//!
//! A reader never writes, not even the catalogue's marks; it only notes damage that it is the first
//! to see.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use super::disk::{Access, DiskFile};
use super::frame::{self, Kind, Seeds};
use super::lenient::Lenient;
use super::sealed::Unpress;
use super::segment::{Form, Name};
use super::shared::Shared;
use super::shelf::{Gap, Located, Span};
use super::walk::{Step, Walker, Window};
use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// So often the same place must fail to be read before it is taken for damaged.
const ATTEMPTS: u32 = 8;

/// Reads one journal from a position of its own.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    id: JournalId,
    next: u64,
    open: Option<Open>,
    failures: u32,
}

/// What one [`Reader::fill`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Records delivered.
    pub records: usize,
    /// Everything up to here was delivered now or before, or named as a gap.
    pub through: Sequence,
    /// Whether nothing more was synced.
    pub caught_up: bool,
}

/// Records read, and the ranges between them that can't be.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: Sequence,
    at: UnixMillis,
    tag: Tag,
    payload: Range<usize>,
}

impl Records {
    /// The records, rising.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Sequence, UnixMillis, &[u8])> {
        self.entries.iter().map(|entry| (entry.sequence, entry.at, &self.bytes[entry.payload.clone()]))
    }

    /// Each record's tag, in the same order.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = Tag> {
        self.entries.iter().map(|entry| entry.tag)
    }

    /// The ranges that can't be read, rising.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all payloads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.gaps.clear();
    }

    fn push(&mut self, sequence: u64, at: UnixMillis, tag: Tag, payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let payload = start..self.bytes.len();
        self.entries.push(Entry { sequence: Sequence(sequence), at, tag, payload });
    }
}

/// Why reading stopped.
#[derive(Debug)]
pub enum ReadError {
    /// The disk failed; reading again may succeed, and after some failures at one place that place
    /// is taken for damaged.
    Disk(io::Error),
    /// There is no such journal here, or no longer.
    Unknown(JournalId),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(_) => f.write_str("can't read the journal"),
            Self::Unknown(id) => write!(f, "there is no journal {id} here"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(error) => Some(error),
            Self::Unknown(_) => None,
        }
    }
}

/// The segment file being read.
#[derive(Debug)]
struct Open {
    number: u64,
    file: Box<dyn DiskFile>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Log { window: Window, walker: Walker },
    Sealed(Box<Unpress>),
}

/// What came of opening a span's file.
enum Place {
    Ready,
    /// Its records are in another file now.
    Moved,
    /// The catalogue names it, but somebody removed it.
    Gone,
}

/// What came of looking for the next record of a span.
enum Looked {
    /// It was delivered; its sequence.
    Found(u64),
    /// The next record in the file lies beyond the span, or there is none.
    Beyond,
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>, id: JournalId, after: Sequence) -> Result<Self, ReadError> {
        if shared.shelf().volume(id).is_none() {
            return Err(ReadError::Unknown(id));
        }
        Ok(Self { shared: Arc::clone(shared), id, next: after.0.saturating_add(1), open: None, failures: 0 })
    }

    /// Everything up to here was delivered, or named as a gap.
    #[must_use]
    pub fn position(&self) -> Sequence {
        Sequence(self.next - 1)
    }

    /// Replaces what `out` holds by the next synced records: at most `records_max`, and no more
    /// after `bytes_max` is reached. Does not wait for more to come.
    ///
    /// # Errors
    /// When the disk fails or the journal is gone. What `out` holds then is good, and the next call
    /// goes on behind it.
    pub fn fill(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        out: &mut Records,
    ) -> Result<Filled, ReadError> {
        out.clear();
        let mut caught_up = false;
        let full = |out: &Records| out.entries.len() >= records_max || out.bytes.len() >= bytes_max;
        while !full(out) {
            let synced = self.shared.synced.load(Acquire);
            let located = self.shared.shelf().locate(self.id, self.next, synced);
            let (span, form) = match located {
                Located::Unknown => return Err(ReadError::Unknown(self.id)),
                Located::End(end) => {
                    self.pass_over(end + 1, out);
                    caught_up = true;
                    break;
                }
                Located::In(span, form) => (span, form),
            };
            self.pass_over(span.first, out);
            match self.ensure_open(span, form)? {
                Place::Ready => {}
                Place::Moved => continue,
                Place::Gone => {
                    self.shared.shelf().lose(self.id, self.next, span.last);
                    self.pass_over(span.last + 1, out);
                    continue;
                }
            }
            while self.next <= span.last && !full(out) {
                match self.look(span, out) {
                    Ok(Looked::Found(sequence)) => self.next = sequence + 1,
                    Ok(Looked::Beyond) => {
                        // The rest of the span was good once; now it can't be read.
                        self.open = None;
                        self.pass_over(span.last + 1, out);
                    }
                    Err(error) => return self.failed(error),
                }
                self.failures = 0;
            }
        }
        Ok(Filled { records: out.len(), through: self.position(), caught_up })
    }

    /// Moves to `to`, naming what lies between as a gap.
    fn pass_over(&mut self, to: u64, out: &mut Records) {
        if to > self.next {
            let gaps = self.shared.shelf().note_gap(self.id, self.next, to - 1);
            out.gaps.extend(gaps);
            self.next = to;
        }
    }

    /// Opens the span's file, unless it is open.
    fn ensure_open(&mut self, span: Span, form: Form) -> Result<Place, ReadError> {
        if let Some(open) = self.open.as_mut().filter(|open| open.number == span.number) {
            if let Source::Log { window, .. } = &mut open.source {
                // What was read ahead of the synced mark may have been written since.
                window.forget();
            }
            return Ok(Place::Ready);
        }
        self.open = None;
        let path = self.shared.home(self.id).join(Name::segment(span.number, form));
        let file = match self.shared.disk.open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if self.has_moved(span, form) { Place::Moved } else { Place::Gone });
            }
            Err(error) => return Err(ReadError::Disk(error)),
        };
        let seeds = Seeds::new(self.id, span.number);
        let source = match form {
            Form::Log => Source::Log { window: Window::default(), walker: Walker::new(seeds, None) },
            Form::Sealed => Source::Sealed(Box::new(Unpress::new(seeds))),
        };
        self.open = Some(Open { number: span.number, file, source });
        Ok(Place::Ready)
    }

    /// Whether the catalogue has another place for the next record now.
    fn has_moved(&self, span: Span, form: Form) -> bool {
        let synced = self.shared.synced.load(Acquire);
        match self.shared.shelf().locate(self.id, self.next, synced) {
            Located::In(now, now_form) => (now.number, now_form) != (span.number, form),
            Located::End(_) | Located::Unknown => true,
        }
    }

    /// Delivers the next record of the span, after naming what is missing before it.
    fn look(&mut self, span: Span, out: &mut Records) -> io::Result<Looked> {
        let (id, next) = (self.id, self.next);
        let open = self.open.as_mut().expect("the span's file was opened");
        let shared = &self.shared;
        let note = |sequence: u64, out: &mut Records| {
            if sequence > next {
                out.gaps.extend(shared.shelf().note_gap(id, next, sequence - 1));
            }
        };
        match &mut open.source {
            Source::Log { window, walker } => loop {
                let Step::Frame(placed) = walker.next(&*open.file, window)? else {
                    return Ok(Looked::Beyond);
                };
                let sequence = placed.head.sequence.0;
                if placed.head.kind == Kind::Seal || sequence > span.last {
                    return Ok(Looked::Beyond);
                }
                if sequence < next {
                    continue;
                }
                note(sequence, out);
                let (at, bytes) =
                    (placed.offset + frame::HEAD_BYTES as u64, placed.head.payload_bytes as usize);
                let payload = window.bytes(&*open.file, at, bytes)?;
                out.push(sequence, placed.head.at, placed.head.tag, payload);
                return Ok(Looked::Found(sequence));
            },
            Source::Sealed(walk) => {
                let Some(record) = walk.next(&*open.file, next)? else { return Ok(Looked::Beyond) };
                let sequence = record.sequence.0;
                if sequence > span.last {
                    return Ok(Looked::Beyond);
                }
                note(sequence, out);
                out.push(sequence, record.at, record.tag, record.payload);
                Ok(Looked::Found(sequence))
            }
        }
    }

    /// Counts a failure at this place; in the end takes what can't be read there for damaged.
    fn failed(&mut self, error: io::Error) -> Result<Filled, ReadError> {
        self.failures += 1;
        if self.failures >= ATTEMPTS
            && let Some(open) = self.open.take()
        {
            let file = Box::new(Lenient::new(open.file));
            let seeds = Seeds::new(self.id, open.number);
            let source = match open.source {
                Source::Log { .. } => {
                    Source::Log { window: Window::default(), walker: Walker::new(seeds, None) }
                }
                Source::Sealed(_) => Source::Sealed(Box::new(Unpress::new(seeds))),
            };
            self.open = Some(Open { number: open.number, file, source });
            self.failures = 0;
        }
        Err(ReadError::Disk(error))
    }
}
