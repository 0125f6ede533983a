//! The catalogue of journals, segments and spans: where each record is read from.
//!
//! Invariants:
//! - Spans of a journal are sorted and do not overlap: every sequence is read from one segment.
//! - The span of the live segment is open; where it ends is the synced mark and nothing else.
//! - A segment leaves the catalogue before its file is removed, and a file enters it only when its
//!   entry in the folder is durable.
//! - The shelf's lock is never held during I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::disk::Lock;
use super::recover::Report;
use super::segment::Form;
use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// The catalogue lists at most so many damaged ranges of a journal; readers report every one.
const GAPS_MAX: usize = 10_000;

/// One journal as it can be read.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its id.
    pub id: JournalId,
    /// The edge that wrote it.
    pub edge: String,
    /// When it was opened; used to list the oldest first, and for nothing that must be right.
    pub opened_at: UnixMillis,
    /// The first sequence that is still kept; one past `end` when none is.
    pub first: Sequence,
    /// The last synced sequence.
    pub end: Sequence,
    /// Whether this process writes it.
    pub current: bool,
    /// Its bytes on disk.
    pub bytes: u64,
    /// Its segment files.
    pub segments: usize,
    /// What recovery found; absent for the current journal.
    pub report: Option<Report>,
    /// Sequences that can't be read though they were synced, rising.
    pub gaps: Vec<Gap>,
}

/// A range of sequences that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: Sequence,
    /// The last of them.
    pub last: Sequence,
    /// Why.
    pub cause: Cause,
}

/// Why sequences can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Their bytes were damaged.
    Damaged,
    /// They were delivered and kept long enough.
    Expired,
    /// The file that held them is gone.
    Missing,
}

impl Cause {
    /// The word for metrics and output.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Expired => "expired",
            Self::Missing => "missing",
        }
    }
}

/// One journal of the catalogue.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) id: JournalId,
    pub(super) edge: String,
    pub(super) opened_at: UnixMillis,
    pub(super) current: bool,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) spans: Vec<Span>,
    /// The last synced sequence of an older journal.
    pub(super) end: u64,
    pub(super) gaps: Vec<Gap>,
    pub(super) expired_through: u64,
    pub(super) report: Option<Report>,
    /// Files that are kept as evidence, with their bytes.
    pub(super) evidence_bytes: u64,
    /// Files of segments that no record is read from, not yet removed. While one of them is there
    /// nothing after it expires: it would look like the remains of what expired.
    pub(super) remains: BTreeSet<u64>,
    /// How long nothing but evidence has been left.
    pub(super) evidence_for: Duration,
    pub(super) delivered: HashMap<String, u64>,
    pub(super) lock: Option<Box<dyn Lock>>,
}

/// One segment file of the catalogue.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) form: Form,
    pub(super) bytes: u64,
    /// The mill keeps its hands off.
    pub(super) live: bool,
    /// Set when some of its bytes are wrong: its file is then kept when it is compressed.
    pub(super) damaged: bool,
    pub(super) tags: Vec<(Tag, u64)>,
    /// How long it has been delivered to every sink.
    pub(super) delivered_for: Duration,
}

/// Sequences that are read from one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    /// `u64::MAX` while the segment is live.
    pub(super) last: u64,
    pub(super) number: u64,
}

/// How the writer ended a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Behind the synced records lie others, perhaps whole, that are not yet safe elsewhere.
    AfterFailure,
    InOrder,
}

/// Where the next record of a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// In this span, whose last sequence is bounded by the synced mark.
    In(Span, Form),
    /// Nothing more up to this sequence, the journal's last synced one.
    End(u64),
    Unknown,
}

impl Volume {
    pub(super) fn new(id: JournalId, edge: String, opened_at: UnixMillis) -> Self {
        Self {
            id,
            edge,
            opened_at,
            current: false,
            segments: BTreeMap::new(),
            spans: Vec::new(),
            end: 0,
            gaps: Vec::new(),
            expired_through: 0,
            report: None,
            evidence_bytes: 0,
            remains: BTreeSet::new(),
            evidence_for: Duration::ZERO,
            delivered: HashMap::new(),
            lock: None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.evidence_bytes + self.segments.values().map(|segment| segment.bytes).sum::<u64>()
    }

    /// The last sequence that is read from a segment, if any is.
    pub(super) fn last_in(&self, number: u64) -> Option<u64> {
        self.spans.iter().filter(|span| span.number == number).map(|span| span.last).max()
    }

    /// Why a sequence can't be read.
    fn cause(&self, sequence: u64) -> Cause {
        if sequence <= self.expired_through {
            return Cause::Expired;
        }
        let known = self.gaps.iter().find(|gap| gap.first.0 <= sequence && sequence <= gap.last.0);
        known.map_or(Cause::Damaged, |gap| gap.cause)
    }

    fn summary(&self, synced: u64) -> Summary {
        let end = if self.current { synced } else { self.end };
        Summary {
            id: self.id,
            edge: self.edge.clone(),
            opened_at: self.opened_at,
            first: Sequence(self.spans.first().map_or(end + 1, |span| span.first.min(end + 1))),
            end: Sequence(end),
            current: self.current,
            bytes: self.bytes(),
            segments: self.segments.len(),
            report: self.report.clone(),
            gaps: self.gaps.clone(),
        }
    }
}

/// The catalogue.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Oldest first, the current journal last.
    pub(super) volumes: Vec<Volume>,
    /// Prepared segments: number and bytes.
    pub(super) spares: Vec<(u64, u64)>,
    /// Bytes of journals that this process does not own.
    pub(super) foreign_bytes: u64,
    sinks: Vec<String>,
    usage: HashMap<Tag, u64>,
}

impl Shelf {
    /// A catalogue of the current journal alone.
    pub(super) fn new(id: JournalId, edge: String, now: UnixMillis) -> Self {
        let current = Volume { current: true, ..Volume::new(id, edge, now) };
        Self { volumes: vec![current], ..Self::default() }
    }

    pub(super) fn volume(&mut self, id: JournalId) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.id == id)
    }

    pub(super) fn current(&mut self) -> &mut Volume {
        self.volumes.last_mut().expect("the current journal is shelved from the start")
    }

    /// Adds an older journal in its place.
    pub(super) fn insert(&mut self, volume: Volume) {
        for segment in volume.segments.values() {
            add_tags(&mut self.usage, &segment.tags);
        }
        let older =
            |other: &Volume| !other.current && (other.opened_at, other.id) < (volume.opened_at, volume.id);
        let at = self.volumes.partition_point(older);
        self.volumes.insert(at, volume);
    }

    pub(super) fn summaries(&self, synced: u64) -> Vec<Summary> {
        self.volumes.iter().map(|volume| volume.summary(synced)).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        let spares: u64 = self.spares.iter().map(|(_, bytes)| bytes).sum();
        self.foreign_bytes + spares + self.volumes.iter().map(Volume::bytes).sum::<u64>()
    }

    pub(super) fn segment_count(&self) -> usize {
        self.volumes.iter().map(|volume| volume.segments.len()).sum()
    }

    pub(super) fn spare_count(&self) -> usize {
        self.spares.len()
    }

    pub(super) fn usage(&self, tag: Tag) -> u64 {
        self.usage.get(&tag).copied().unwrap_or(0)
    }

    /// The bytes of a tag that some sink lacks, to the nearest segment: what is delivered and only
    /// kept for a restored database can be dropped for others, so it weighs on nobody.
    pub(super) fn undelivered(&self, tag: Tag) -> u64 {
        let delivered = self.volumes.iter().flat_map(|volume| {
            let through = self.delivered_through(volume);
            volume
                .segments
                .iter()
                .filter(move |(number, _)| volume.last_in(**number).is_some_and(|last| last <= through))
                .flat_map(|(_, segment)| &segment.tags)
        });
        let delivered: u64 = delivered.filter(|(owner, _)| *owner == tag).map(|(_, bytes)| bytes).sum();
        self.usage(tag).saturating_sub(delivered)
    }

    pub(super) fn add_usage(&mut self, more: &[(Tag, u64)]) {
        add_tags(&mut self.usage, more);
    }

    pub(super) fn declare_sinks(&mut self, sinks: &[String]) {
        self.sinks = sinks.to_vec();
    }

    pub(super) fn delivered(&mut self, id: JournalId, sink: &str, through: Sequence) {
        if let Some(volume) = self.volume(id) {
            volume.delivered.insert(sink.to_owned(), through.0);
        }
    }

    /// The sequence up to which every sink has everything of a journal.
    pub(super) fn delivered_through(&self, volume: &Volume) -> u64 {
        let through = |sink| volume.delivered.get(sink).copied().unwrap_or(0);
        self.sinks.iter().map(through).min().unwrap_or(0)
    }

    /// Makes a segment the live one: its records begin at `first`.
    pub(super) fn open_segment(&mut self, number: u64, first: u64, bytes: u64) {
        let volume = self.current();
        volume.spans.push(Span { first, last: u64::MAX, number });
        let segment = Segment {
            form: Form::Log,
            bytes,
            live: true,
            damaged: false,
            tags: Vec::new(),
            delivered_for: Duration::ZERO,
        };
        volume.segments.insert(number, segment);
    }

    /// Ends the live segment at the last synced sequence. Says whether any record is read from it;
    /// if not, it is no longer part of the catalogue. One that is left after a failure is kept from
    /// the mill until [`Self::release_segment`].
    pub(super) fn close_segment(
        &mut self,
        number: u64,
        last: u64,
        tags: Vec<(Tag, u64)>,
        end: Ended,
    ) -> bool {
        let volume = self.current();
        let kept = match volume.spans.last_mut() {
            Some(span) if span.number == number && span.first <= last => {
                span.last = last;
                true
            }
            Some(span) if span.number == number => {
                volume.spans.pop();
                false
            }
            _ => false,
        };
        if !kept {
            volume.segments.remove(&number);
            volume.remains.insert(number);
        } else if let Some(segment) = volume.segments.get_mut(&number) {
            segment.live = end == Ended::AfterFailure;
            segment.tags = tags;
        }
        kept
    }

    /// Lets the mill have a segment that was left after a failure.
    pub(super) fn release_segment(&mut self, number: u64) {
        if let Some(segment) = self.current().segments.get_mut(&number) {
            segment.live = false;
        }
    }

    /// Replaces a segment's log by its sealed form.
    pub(super) fn seal_segment(
        &mut self,
        id: JournalId,
        number: u64,
        bytes: u64,
        tags: Vec<(Tag, u64)>,
        kept: u64,
    ) {
        let Some(volume) = self.volume(id) else { return };
        volume.evidence_bytes += kept;
        let Some(segment) = volume.segments.get_mut(&number) else { return };
        segment.form = Form::Sealed;
        segment.bytes = bytes;
        let before = std::mem::replace(&mut segment.tags, tags);
        let after = segment.tags.clone();
        subtract_tags(&mut self.usage, &before);
        add_tags(&mut self.usage, &after);
    }

    /// Takes a segment out of the catalogue; its records have expired.
    pub(super) fn expire_segment(&mut self, id: JournalId, number: u64) -> bool {
        let Some(volume) = self.volume(id) else { return false };
        let last = volume.last_in(number).unwrap_or(0);
        let Some(segment) = volume.segments.remove(&number) else { return false };
        volume.spans.retain(|span| span.number != number);
        volume.expired_through = volume.expired_through.max(last);
        let through = volume.expired_through;
        volume.gaps.retain(|gap| gap.last.0 > through);
        subtract_tags(&mut self.usage, &segment.tags);
        true
    }

    /// Takes an older journal that holds nothing more out of the catalogue.
    pub(super) fn remove(&mut self, id: JournalId) -> Option<Volume> {
        let at = self.volumes.iter().position(|volume| volume.id == id && !volume.current)?;
        let volume = self.volumes.remove(at);
        for segment in volume.segments.values() {
            subtract_tags(&mut self.usage, &segment.tags);
        }
        Some(volume)
    }

    pub(super) fn locate(&mut self, id: JournalId, next: u64, synced: u64) -> Located {
        let Some(volume) = self.volume(id) else { return Located::Unknown };
        let end = if volume.current { synced } else { volume.end };
        let at = volume.spans.partition_point(|span| span.last < next);
        match volume.spans.get(at) {
            Some(&span) if span.first.max(next) <= end => {
                let form = volume.segments.get(&span.number).map_or(Form::Log, |segment| segment.form);
                Located::In(Span { last: span.last.min(end), ..span }, form)
            }
            _ => Located::End(end),
        }
    }

    /// Notes that the file of a range is gone.
    pub(super) fn lose(&mut self, id: JournalId, first: u64, last: u64) {
        if let Some(volume) = self.volume(id) {
            let gap = Gap { first: Sequence(first), last: Sequence(last), cause: Cause::Missing };
            add_gap(&mut volume.gaps, gap);
        }
    }

    /// Names why a range can't be read, and remembers it if it was not known.
    pub(super) fn note_gap(&mut self, id: JournalId, first: u64, last: u64) -> Vec<Gap> {
        let Some(volume) = self.volume(id) else { return Vec::new() };
        let mut gaps = Vec::new();
        let mut at = first;
        while at <= last {
            let cause = volume.cause(at);
            let until = match cause {
                Cause::Expired => last.min(volume.expired_through),
                Cause::Damaged | Cause::Missing => {
                    let around = volume.gaps.iter().find(|gap| gap.first.0 <= at && at <= gap.last.0);
                    let next = volume.gaps.iter().map(|gap| gap.first.0).find(|&start| start > at);
                    match (around, next) {
                        (Some(gap), _) => gap.last.0.min(last),
                        (None, Some(start)) => last.min(start - 1),
                        (None, None) => last,
                    }
                }
            };
            gaps.push(Gap { first: Sequence(at), last: Sequence(until), cause });
            at = until + 1;
        }
        for gap in gaps.iter().filter(|gap| gap.cause != Cause::Expired) {
            add_gap(&mut volume.gaps, *gap);
        }
        gaps
    }
}

/// Adds a range to a sorted list of them, joining it with neighbours that touch and have its cause.
pub(super) fn add_gap(gaps: &mut Vec<Gap>, gap: Gap) {
    let at = gaps.partition_point(|other| other.last < gap.first);
    let known = gaps.get(at).is_some_and(|other| other.first <= gap.first && gap.last <= other.last);
    if known || gaps.len() >= GAPS_MAX {
        return;
    }
    gaps.insert(at, gap);
    for left in [at, at.wrapping_sub(1)] {
        let (Some(&a), Some(&b)) = (gaps.get(left), gaps.get(left.wrapping_add(1))) else { continue };
        if a.cause == b.cause && a.last.0 + 1 >= b.first.0 {
            gaps[left].last = a.last.max(b.last);
            gaps.remove(left + 1);
        }
    }
}

fn add_tags(usage: &mut HashMap<Tag, u64>, more: &[(Tag, u64)]) {
    for &(tag, bytes) in more {
        *usage.entry(tag).or_default() += bytes;
    }
}

fn subtract_tags(usage: &mut HashMap<Tag, u64>, less: &[(Tag, u64)]) {
    for &(tag, bytes) in less {
        if let Some(used) = usage.get_mut(&tag) {
            *used = used.saturating_sub(bytes);
            if *used == 0 {
                usage.remove(&tag);
            }
        }
    }
}
