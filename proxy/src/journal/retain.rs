//! The mill's part: recovers journals whose writer has ended, keeps spares ready, compresses, expires.
//!
//! Invariants:
//! - A file is removed only after what replaces it is synced, read back and named durably, or after
//!   its records are delivered to every declared sink and were kept for `retain`. When space is
//!   short, delivered records go before their time; undelivered ones never go.
//! - How long something was kept is counted in time that this process saw pass, in small steps, so
//!   that a clock that jumps expires nothing. A restart begins the count anew: too late, never too early.
//! - It never touches the live segment, nor a journal whose lock another process holds.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Access, Claim};
use super::frame::Seeds;
use super::live::fill_with_zeros;
use super::recover::{self, Report, Unfit, Unreadable};
use super::sealed::{BLOCK_BYTES, Press, Unpress};
use super::segment::{Form, HEADER_BYTES, Header, Name};
use super::shared::Shared;
use super::shelf::Volume;
use super::walk;
use super::writer::LOCK;
use super::{JournalId, Sequence};
use crate::event::UnixMillis;

/// The longest time that one call of [`Mill::tend`] lets records age, whatever the clock says.
const STEP_MAX: Duration = Duration::from_secs(60);
/// After so many failures to read a journal, what can't be read is taken for damaged.
const ATTEMPTS: u32 = 8;

/// Does the journal's slow work in small portions.
#[derive(Debug)]
pub struct Mill {
    shared: Arc<Shared>,
    tended_at: UnixMillis,
    spare_next: u64,
    failures: HashMap<JournalId, u32>,
    /// Expired segments whose files are not yet durably removed.
    doomed: HashMap<JournalId, u64>,
    /// Journals of a later release, already told of.
    told: HashSet<JournalId>,
}

/// What one call of [`Mill::tend`] did.
#[derive(Debug, Default)]
pub struct Tended {
    /// Journals whose writer has ended, now readable here, with what was found in them.
    pub recovered: Vec<(JournalId, Report)>,
    /// Segments compressed.
    pub sealed: u64,
    /// Segments expired.
    pub expired: u64,
    /// Journals that held nothing more and were removed.
    pub removed: Vec<JournalId>,
    /// Segments prepared.
    pub spares: u64,
    /// What went wrong; all of it is tried again.
    pub faults: Vec<TendFault>,
    /// There is more to do at once.
    pub busy: bool,
}

/// Something that the mill could not do.
#[derive(Debug)]
pub struct TendFault {
    /// What it was doing, and to what.
    pub doing: String,
    /// Why it failed.
    pub cause: io::Error,
}

impl fmt::Display for TendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {}", self.doing)
    }
}

impl std::error::Error for TendFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Mill {
    pub(super) fn new(shared: Arc<Shared>, now: UnixMillis) -> Self {
        Self {
            shared,
            tended_at: now,
            spare_next: 1,
            failures: HashMap::new(),
            doomed: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// One portion of work; meant to be called about once a second, and again at once while the
    /// answer is `busy`. Blocks on the disk.
    pub fn tend(&mut self, now: UnixMillis) -> Tended {
        let mut tended = Tended::default();
        let passed = now.since(self.tended_at).min(STEP_MAX);
        self.tended_at = now;
        self.rescan(&mut tended);
        self.expire(passed, &mut tended);
        self.prepare_spares(&mut tended);
        self.seal_one(&mut tended);
        tended
    }

    /// Finds journals whose writer has ended, and counts the bytes of those that others own.
    fn rescan(&mut self, tended: &mut Tended) {
        let folder = self.shared.config.folder.clone();
        let entries = match self.shared.disk.list(&folder) {
            Ok(entries) => entries,
            Err(cause) => return tended.fault(format!("list {}", folder.display()), cause),
        };
        let mut foreign_bytes = 0;
        for entry in entries.into_iter().filter(|entry| entry.folder) {
            if let Some(id) = entry.name.strip_suffix(".new") {
                self.remove_unborn(id, &folder.join(&entry.name));
                continue;
            }
            let Ok(id) = entry.name.parse::<JournalId>() else { continue };
            if self.shared.shelf().volume(id).is_some() {
                continue;
            }
            let outcome = self.adopt(id, tended);
            if let Err(cause) = outcome {
                *self.failures.entry(id).or_default() += 1;
                tended.fault(format!("recover journal {id}"), cause);
            }
            if self.shared.shelf().volume(id).is_none() {
                let files = self.shared.disk.list(&self.shared.home(id)).unwrap_or_default();
                foreign_bytes += files.iter().map(|file| file.bytes).sum::<u64>();
            }
        }
        self.shared.shelf().foreign_bytes = foreign_bytes;
    }

    /// Removes the folder of a journal whose start ended before it had its name.
    fn remove_unborn(&self, id: &str, folder: &Path) {
        let disk = &self.shared.disk;
        if id == self.shared.id.to_string() {
            return;
        }
        // Without a lock file it may be coming into being this very moment.
        if let Ok(Claim::Mine(_lock)) = disk.claim(&folder.join(LOCK)) {
            for entry in disk.list(folder).unwrap_or_default() {
                let _ = disk.remove(&folder.join(entry.name));
            }
            let _ = disk.remove_folder(folder);
        }
    }

    /// Takes over one journal, if its writer has ended.
    fn adopt(&mut self, id: JournalId, tended: &mut Tended) -> io::Result<()> {
        let disk = &self.shared.disk;
        let home = self.shared.home(id);
        let lock = match disk.claim(&home.join(LOCK))? {
            Claim::Mine(lock) => lock,
            Claim::Theirs => return Ok(()),
            // Copied here without its lock, or lost with an unsynced folder: nobody writes it.
            Claim::Absent => disk.create_lock(&home.join(LOCK))?,
        };
        let patience = self.failures.get(&id).copied().unwrap_or(0) < ATTEMPTS;
        let unreadable = if patience { Unreadable::Fail } else { Unreadable::Damage };
        let mut examined = match recover::examine(&**disk, &home, id, Access::Write, unreadable) {
            Ok(examined) => examined,
            Err(Unfit::Disk(error)) => return Err(error),
            Err(Unfit::Later { file, version }) => {
                if self.told.insert(id) {
                    let cause = io::Error::other(format!("{file} has format version {version}"));
                    tended.fault(format!("read journal {id}: a later release wrote it"), cause);
                }
                return Ok(());
            }
        };
        recover::tidy(&**disk, &home, &mut examined)?;
        let mut volume = examined.volume;
        volume.lock = Some(lock);
        let report = volume.report.clone().unwrap_or_default();
        self.failures.remove(&id);
        if volume.segments.is_empty() && volume.evidence_bytes == 0 {
            self.remove_home(volume, tended);
        } else {
            self.shared.shelf().insert(volume);
        }
        tended.recovered.push((id, report));
        Ok(())
    }

    /// Ages what is delivered to every sink, and removes what is old enough or must make room.
    fn expire(&mut self, passed: Duration, tended: &mut Tended) {
        let ids: Vec<JournalId> = self.shared.shelf().volumes.iter().map(|volume| volume.id).collect();
        for id in ids {
            self.age(id, passed);
            if self.expire_some(id, tended) {
                self.remove_if_empty(id, passed, tended);
            }
        }
    }

    /// Removes what may go of one journal. Each removal is durable before the next, and one that
    /// fails is tried again before any other: a segment that came back, or stayed, before one that
    /// is gone would look like a loss.
    fn expire_some(&mut self, id: JournalId, tended: &mut Tended) -> bool {
        let home = self.shared.home(id);
        loop {
            if let Some(&number) = self.doomed.get(&id) {
                if let Err(cause) = self.remove_durably(&home, number) {
                    tended.fault(format!("remove segment {number} of {}", home.display()), cause);
                    return false;
                }
                self.doomed.remove(&id);
            }
            let Some(number) = self.next_to_expire(id) else { return true };
            tended.expired += u64::from(self.shared.shelf().expire_segment(id, number));
            self.doomed.insert(id, number);
        }
    }

    fn remove_durably(&self, home: &Path, number: u64) -> io::Result<()> {
        // First what was removed before, by whomever: the oldest must be gone before the next goes.
        self.shared.disk.sync_folder(home)?;
        // Both, for the log stays when its removal failed after it was compressed.
        for form in [Form::Log, Form::Sealed] {
            match self.shared.disk.remove(&home.join(Name::segment(number, form))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.shared.disk.sync_folder(home)
    }

    fn age(&self, id: JournalId, passed: Duration) {
        let mut shelf = self.shared.shelf();
        let Some(at) = shelf.volumes.iter().position(|volume| volume.id == id) else { return };
        let through = shelf.delivered_through(&shelf.volumes[at]);
        let volume = &mut shelf.volumes[at];
        let lasts: HashMap<u64, u64> = volume.spans.iter().map(|span| (span.number, span.last)).collect();
        for (number, segment) in &mut volume.segments {
            let delivered = lasts.get(number).is_none_or(|&last| last <= through);
            segment.delivered_for =
                if delivered && !segment.live { segment.delivered_for + passed } else { Duration::ZERO };
        }
    }

    /// The oldest segment of a journal, if it may go now. Segments go in their order, so that what
    /// is left is never interrupted by what expired.
    fn next_to_expire(&self, id: JournalId) -> Option<u64> {
        let mut shelf = self.shared.shelf();
        let config = &self.shared.config;
        let bytes = shelf.bytes();
        let at = shelf.volumes.iter().position(|volume| volume.id == id)?;
        let through = shelf.delivered_through(&shelf.volumes[at]);
        let spares_missing = (config.spare_segments as usize).saturating_sub(shelf.spare_count()) as u64;
        let short_of_space = bytes + spares_missing * config.segment_bytes > config.bytes_max;
        let volume = shelf.volume(id)?;
        let (&number, segment) = volume.segments.first_key_value()?;
        if volume.remains.first().is_some_and(|&remains| remains < number) {
            return None;
        }
        let delivered = volume.last_in(number).is_none_or(|last| last <= through);
        let old = segment.delivered_for >= config.retain && !config.retain.is_zero();
        // Without a declared sink nothing is ever delivered, not even an empty segment.
        let may = !segment.live && delivered && through > 0;
        (may && (old || config.retain.is_zero() || short_of_space)).then_some(number)
    }

    fn remove_if_empty(&self, id: JournalId, passed: Duration, tended: &mut Tended) {
        let removed = {
            let mut shelf = self.shared.shelf();
            let Some(volume) =
                shelf.volume(id).filter(|volume| !volume.current && volume.segments.is_empty())
            else {
                return;
            };
            volume.evidence_for += passed;
            if volume.evidence_bytes > 0 && volume.evidence_for < self.shared.config.retain {
                return;
            }
            shelf.remove(id)
        };
        if let Some(volume) = removed {
            self.remove_home(volume, tended);
        }
    }

    /// Removes the folder of a journal that holds nothing more; its lock file goes last.
    fn remove_home(&self, volume: Volume, tended: &mut Tended) {
        let (disk, home) = (&self.shared.disk, self.shared.home(volume.id));
        let remove = || {
            for entry in disk.list(&home)?.into_iter().filter(|entry| entry.name != LOCK) {
                disk.remove(&home.join(entry.name))?;
            }
            disk.remove(&home.join(LOCK))?;
            disk.remove_folder(&home)?;
            disk.sync_folder(&self.shared.config.folder)
        };
        match remove() {
            Ok(()) => tended.removed.push(volume.id),
            // It is found again as a journal without records.
            Err(cause) => tended.fault(format!("remove {}", home.display()), cause),
        }
        drop(volume.lock);
    }

    /// Prepares one spare segment, if one is missing and there is room.
    fn prepare_spares(&mut self, tended: &mut Tended) {
        let (disk, config) = (&self.shared.disk, &self.shared.config);
        let (bytes, ready, housed) = {
            let mut shelf = self.shared.shelf();
            (shelf.bytes(), shelf.spare_count(), shelf.current().lock.is_some())
        };
        if !housed
            || ready >= config.spare_segments as usize
            || bytes + config.segment_bytes > config.bytes_max
        {
            return;
        }
        let number = self.spare_next;
        self.spare_next += 1;
        let path = self.shared.home(self.shared.id).join(Name::spare(number));
        let made = disk.create(&path).and_then(|file| {
            fill_with_zeros(&*file, config.segment_bytes)?;
            file.sync()
        });
        match made {
            Ok(()) => {
                self.shared.shelf().spares.push((number, config.segment_bytes));
                tended.spares += 1;
                tended.busy |= ready + 1 < config.spare_segments as usize;
            }
            Err(cause) => {
                let _ = disk.remove(&path);
                tended.fault(format!("prepare {}", path.display()), cause);
            }
        }
    }

    /// Compresses one segment that is no longer written.
    fn seal_one(&self, tended: &mut Tended) {
        let next = {
            let shelf = self.shared.shelf();
            let waiting = |volume: &Volume| {
                let id = volume.id;
                volume
                    .segments
                    .iter()
                    .filter(|(_, segment)| segment.form == Form::Log && !segment.live)
                    .map(move |(&number, segment)| (id, number, segment.damaged))
                    .collect::<Vec<_>>()
            };
            let mut all = shelf.volumes.iter().flat_map(waiting);
            (all.next(), all.next().is_some())
        };
        let (Some((id, number, damaged)), more) = next else { return };
        match self.seal(id, number, damaged) {
            Ok(()) => {
                tended.sealed += 1;
                tended.busy |= more;
            }
            Err(cause) => {
                let home = self.shared.home(id);
                let _ = self.shared.disk.remove(&home.join(Name::unfinished(number)));
                tended.fault(format!("compress {}", home.join(Name::log(number)).display()), cause);
            }
        }
    }

    /// Writes the sealed form of a segment, reads it back, names it, and only then lets the log go.
    fn seal(&self, id: JournalId, number: u64, damaged: bool) -> io::Result<()> {
        let (disk, home) = (&self.shared.disk, self.shared.home(id));
        let (early, log) = (home.join(Name::unfinished(number)), home.join(Name::log(number)));
        let source = disk.open(&log, Access::Read)?;
        let ranges = self.ranges(id, number);
        let seeds = Seeds::new(id, number);
        let mut head = [0; HEADER_BYTES];
        source.read_at(&mut head, 0)?;
        let header =
            Header::decode(&head, Form::Log).unwrap_or_else(|_| self.guess_header(id, number, &ranges));
        let file = match disk.create(&early) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&early)?;
                disk.create(&early)?
            }
            created => created?,
        };
        file.write_at(&header.encode(Form::Sealed), 0)?;
        let mut press = Press::new(&*file, seeds, BLOCK_BYTES)?;
        let wanted = |sequence: u64| ranges.iter().any(|&(first, last)| (first..=last).contains(&sequence));
        let (mut digest, mut failed) = (0, Ok(()));
        let mut tags = HashMap::new();
        walk::scan(&*source, seeds, None, &mut |head, _, payload| {
            let sequence = head.sequence.0;
            if failed.is_ok() && wanted(sequence) {
                digest = digest_of(digest, sequence, head.at, payload);
                *tags.entry(head.tag).or_default() += head.frame_bytes() as u64;
                failed = press.add(sequence, head.at, head.tag, payload);
            }
        })?;
        failed?;
        let (bytes, footer) = press.finish(tags.into_iter().collect())?;
        file.sync()?;
        file.forget_cache()?;
        verify(&*file, seeds, digest, footer.records)?;
        disk.rename(&early, &home.join(Name::sealed(number)))?;
        disk.sync_folder(&home)?;
        let kept = if damaged { source.bytes()? } else { 0 };
        let tags = recover::scale_tags(&footer.tags, bytes);
        self.shared.shelf().seal_segment(id, number, bytes, tags, kept);
        if damaged {
            recover::set_aside(&**disk, &home, &Name::log(number))?;
        } else {
            disk.remove(&log)?;
        }
        disk.sync_folder(&home)
    }

    fn ranges(&self, id: JournalId, number: u64) -> Vec<(u64, u64)> {
        let mut shelf = self.shared.shelf();
        let spans = shelf.volume(id).map(|volume| volume.spans.as_slice()).unwrap_or_default();
        spans.iter().filter(|span| span.number == number).map(|span| (span.first, span.last)).collect()
    }

    /// A header for a segment whose own is damaged, from what its neighbours and its folder say.
    fn guess_header(&self, id: JournalId, number: u64, ranges: &[(u64, u64)]) -> Header {
        let mut shelf = self.shared.shelf();
        let volume = shelf.volume(id);
        let (edge, opened_at) =
            volume.map_or((String::new(), UnixMillis(0)), |volume| (volume.edge.clone(), volume.opened_at));
        let first = if number == 1 { 1 } else { ranges.first().map_or(1, |range| range.0) };
        Header {
            id,
            number,
            first: Sequence(first),
            capacity: self.shared.config.segment_bytes,
            block_bytes: self.shared.config.block_bytes,
            opened_at,
            created_at: opened_at,
            edge,
        }
    }
}

impl Tended {
    fn fault(&mut self, doing: String, cause: io::Error) {
        self.faults.push(TendFault { doing, cause });
    }
}

/// A checksum over a chain of records.
fn digest_of(before: u32, sequence: u64, at: UnixMillis, payload: &[u8]) -> u32 {
    let one = crc32c::crc32c_append(before, &sequence.to_le_bytes());
    let two = crc32c::crc32c_append(one, &at.0.to_le_bytes());
    crc32c::crc32c_append(two, payload)
}

/// Reads a sealed file back from the disk and compares it with what was put in.
fn verify(file: &dyn super::disk::DiskFile, seeds: Seeds, digest: u32, records: u64) -> io::Result<()> {
    let mut unpress = Unpress::new(seeds);
    let (mut found, mut count, mut next) = (0, 0, 0);
    while let Some(record) = unpress.next(file, next)? {
        found = digest_of(found, record.sequence.0, record.at, record.payload);
        next = record.sequence.0 + 1;
        count += 1;
    }
    if (found, count) != (digest, records) || !unpress.damaged.is_empty() {
        return Err(io::Error::other("the compressed segment does not read back as it was written"));
    }
    Ok(())
}
