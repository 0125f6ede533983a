//! The segment being written: how it is made, where the next write goes, how it is sealed.
//!
//! Invariants:
//! - It exists only when its header, its name and its preallocated bytes are durable.
//! - A write after a sync begins at a new block, so a block with a synced byte is never written again.
//! - Behind the last frame there is always room for a seal.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::disk::{Access, Disk, DiskFile};
use super::frame::{self, HEAD_BYTES, Head, Seeds};
use super::segment::{Form, HEADER_BYTES, Header};
use super::{Sequence, Tag};
use crate::event::UnixMillis;

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Live {
    file: Box<dyn DiskFile>,
    pub(super) number: u64,
    seeds: Seeds,
    block_bytes: u64,
    /// Frames end before this, so that a seal fits behind them.
    usable: u64,
    /// The exact end of what was written, and of what was synced.
    end: u64,
    synced: u64,
    /// Tags of the frames written since the last sync, and of those synced.
    tags_unsynced: HashMap<Tag, u64>,
    pub(super) tags: HashMap<Tag, u64>,
}

/// What a segment is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file of zeros that is ready.
    Spare,
    /// Nothing: zeros have to be written first.
    Scratch,
}

/// What one write put into the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) bytes: usize,
    pub(super) records: u64,
}

impl Live {
    /// Makes the file at `early` into the segment of `header`, under the name `path`.
    pub(super) fn open(
        disk: &dyn Disk,
        early: &Path,
        path: &Path,
        header: &Header,
        origin: Origin,
    ) -> io::Result<Self> {
        let file = match origin {
            Origin::Spare => disk.open(early, Access::Write)?,
            Origin::Scratch => {
                let file = disk.create(early)?;
                fill_with_zeros(&*file, header.capacity)?;
                file
            }
        };
        file.write_at(&header.encode(Form::Log), 0)?;
        file.sync()?;
        disk.rename(early, path)?;
        disk.sync_folder(path.parent().expect("a segment lies in its journal's folder"))?;
        let block_bytes = u64::from(header.block_bytes);
        Ok(Self {
            file,
            number: header.number,
            seeds: Seeds::new(header.id, header.number),
            block_bytes,
            usable: (header.capacity - HEAD_BYTES as u64) / block_bytes * block_bytes,
            end: HEADER_BYTES as u64,
            synced: HEADER_BYTES as u64,
            tags_unsynced: HashMap::new(),
            tags: HashMap::new(),
        })
    }

    /// Stamps and writes as many of `frames` as fit, the first of them with this sequence.
    pub(super) fn write(&mut self, frames: &mut [u8], first: u64) -> io::Result<Wrote> {
        let start = if self.end == self.synced { self.next_block() } else { self.end };
        let room = usize::try_from(self.usable.saturating_sub(start)).unwrap_or(usize::MAX);
        let mark = self.mark();
        let mut wrote = Wrote::default();
        while let Some(rest) = frames.get_mut(wrote.bytes..).filter(|rest| !rest.is_empty()) {
            let (frame_bytes, tag) = frame::measure(rest).expect("the tail is made of whole frames");
            if wrote.bytes + frame_bytes > room {
                break;
            }
            frame::stamp(rest, Sequence(first + wrote.records), mark, self.seeds.head);
            *self.tags_unsynced.entry(tag).or_default() += frame_bytes as u64;
            wrote.bytes += frame_bytes;
            wrote.records += 1;
        }
        if wrote.bytes > 0 {
            self.file.write_at(&frames[..wrote.bytes], start)?;
            self.end = start + wrote.bytes as u64;
        }
        Ok(wrote)
    }

    pub(super) fn is_synced(&self) -> bool {
        self.end == self.synced
    }

    /// Makes everything written durable; says how many bytes of each tag that were.
    pub(super) fn sync(&mut self) -> io::Result<Vec<(Tag, u64)>> {
        self.file.sync()?;
        self.synced = self.end;
        let more: Vec<_> = self.tags_unsynced.drain().collect();
        for &(tag, bytes) in &more {
            *self.tags.entry(tag).or_default() += bytes;
        }
        Ok(more)
    }

    /// Ends the segment, all of which is synced, after the record `last`.
    pub(super) fn seal(&mut self, last: u64, now: UnixMillis) -> io::Result<()> {
        let seal = Head::seal(Sequence(last), now, self.mark(), self.seeds);
        self.file.write_at(&seal, self.next_block())?;
        self.file.sync()
    }

    fn next_block(&self) -> u64 {
        self.end.next_multiple_of(self.block_bytes)
    }

    fn mark(&self) -> u32 {
        u32::try_from(self.synced).expect("segments are capped at 1 GiB")
    }
}

/// Writes zeros, not holes: a sync into blocks that were never written also commits their mapping,
/// and a full disk must be met here and not later.
pub(super) fn fill_with_zeros(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(ZEROS_BYTES)];
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}
