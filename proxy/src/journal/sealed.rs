//! Sealed segments: records in small compressed blocks, each with its own checksums.
//!
//! Invariants:
//! - A block stands alone: a damaged one costs its own records and no others.
//! - No length is used before the checksum of its header has proved it, and what is decompressed is
//!   bounded by the length that the header names, which is capped.
//! - The footer is a hint: without it the blocks say the same.
//!
//! The byte tables are in `docs/journal.md`.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::io;

use super::disk::DiskFile;
use super::frame::{RECORD_BYTES_CAP, Seeds, u32_at, u64_at};
use super::segment::HEADER_BYTES;
use super::walk::Window;
use super::{Sequence, Tag};
use crate::courtesy::{self, Courtesy};
use crate::event::UnixMillis;

/// Bytes of a block before what is compressed.
pub const BLOCK_HEAD_BYTES: usize = 32;
/// A block is closed before it grows beyond this, unless one record alone is longer.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes at the end of a file that say where its footer begins.
pub const TRAILER_BYTES: usize = 16;
/// The level of compression.
pub const LEVEL: i32 = 3;

const BLOCK_MARKER: [u8; 4] = *b"HJBK";
const FOOTER_MARKER: [u8; 8] = *b"holdfend";
/// Time, tag and length of a record, written out.
const COLUMN_BYTES_MAX: usize = 10 + 5 + 5;
const RAW_BYTES_CAP: usize = BLOCK_BYTES + RECORD_BYTES_CAP as usize + COLUMN_BYTES_MAX;

/// What a sealed segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) records: u64,
    /// Sequences, rising, without overlap.
    pub(super) spans: Vec<(u64, u64)>,
    /// Bytes of each tag's records before compression.
    pub(super) tags: Vec<(Tag, u64)>,
}

/// Writes the blocks and the footer of a sealed segment behind its header.
pub(super) struct Press<'f> {
    file: &'f dyn DiskFile,
    seeds: Seeds,
    block_bytes: usize,
    offset: u64,
    compressor: zstd::bulk::Compressor<'static>,
    columns: Columns,
    out: Vec<u8>,
    footer: Footer,
    courtesy: Courtesy,
}

/// The records of one block, field by field, because like compresses with like.
#[derive(Default)]
struct Columns {
    first: u64,
    count: u32,
    previous_at: u64,
    times: Vec<u8>,
    tags: Vec<u8>,
    lengths: Vec<u8>,
    payloads: Vec<u8>,
}

impl Columns {
    fn bytes(&self) -> usize {
        self.times.len() + self.tags.len() + self.lengths.len() + self.payloads.len()
    }
}

impl<'f> Press<'f> {
    /// Begins behind the header; blocks are closed before they grow beyond `block_bytes`.
    pub(super) fn new(file: &'f dyn DiskFile, seeds: Seeds, block_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            file,
            seeds,
            block_bytes,
            offset: HEADER_BYTES as u64,
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            columns: Columns::default(),
            out: Vec::new(),
            footer: Footer::default(),
            courtesy: Courtesy::default(),
        })
    }

    /// Adds a record; sequences rise.
    pub(super) fn add(&mut self, sequence: u64, at: UnixMillis, tag: Tag, payload: &[u8]) -> io::Result<()> {
        self.courtesy.step();
        let follows = self.columns.first + u64::from(self.columns.count) == sequence;
        let fits = self.columns.bytes() + payload.len() + COLUMN_BYTES_MAX <= self.block_bytes;
        if self.columns.count > 0 && !(follows && fits) {
            self.close_block()?;
        }
        let columns = &mut self.columns;
        if columns.count == 0 {
            columns.first = sequence;
            columns.previous_at = 0;
        }
        columns.count += 1;
        put_varint(&mut columns.times, zigzag(at.0.wrapping_sub(columns.previous_at)));
        columns.previous_at = at.0;
        put_varint(&mut columns.tags, u64::from(tag.0));
        put_varint(&mut columns.lengths, payload.len() as u64);
        columns.payloads.extend_from_slice(payload);
        match self.footer.spans.last_mut() {
            Some(span) if span.1 + 1 == sequence => span.1 = sequence,
            _ => self.footer.spans.push((sequence, sequence)),
        }
        self.footer.records += 1;
        Ok(())
    }

    /// Closes the file with its footer; says how long it became. The caller syncs it.
    pub(super) fn finish(mut self, tags: Vec<(Tag, u64)>) -> io::Result<(u64, Footer)> {
        self.close_block()?;
        self.footer.tags = tags;
        let footer = self.footer.encode(self.seeds);
        self.file.write_at(&footer, self.offset)?;
        Ok((self.offset + footer.len() as u64, self.footer))
    }

    fn close_block(&mut self) -> io::Result<()> {
        let columns = &mut self.columns;
        if columns.count == 0 {
            return Ok(());
        }
        let payloads = std::mem::take(&mut columns.payloads);
        columns.times.append(&mut columns.tags);
        columns.times.append(&mut columns.lengths);
        columns.times.extend_from_slice(&payloads);
        let raw = std::mem::take(&mut columns.times);
        let stored = self.compressor.compress(&raw)?;
        courtesy::offer();
        let head = BlockHead {
            stored_bytes: length(stored.len()),
            raw_bytes: length(raw.len()),
            records: columns.count,
            first: columns.first,
            crc: crc32c::crc32c_append(self.seeds.payload, &stored),
        };
        self.out.clear();
        head.write(&mut self.out, self.seeds.head);
        self.out.extend_from_slice(&stored);
        self.file.write_at(&self.out, self.offset)?;
        self.offset += self.out.len() as u64;
        *columns = Columns { times: cleared(raw), payloads: cleared(payloads), ..Columns::default() };
        Ok(())
    }
}

fn cleared(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("blocks are capped far below 4 GiB")
}

/// The header of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockHead {
    stored_bytes: u32,
    raw_bytes: u32,
    records: u32,
    first: u64,
    crc: u32,
}

impl BlockHead {
    fn write(&self, out: &mut Vec<u8>, seed: u32) {
        let start = out.len();
        out.extend(BLOCK_MARKER);
        out.extend(self.stored_bytes.to_le_bytes());
        out.extend(self.raw_bytes.to_le_bytes());
        out.extend(self.records.to_le_bytes());
        out.extend(self.first.to_le_bytes());
        out.extend(self.crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, out.get(start..).unwrap_or(&[]));
        out.extend(crc.to_le_bytes());
        debug_assert_eq!(out.len() - start, BLOCK_HEAD_BYTES);
    }

    fn read(bytes: &[u8], seed: u32) -> Option<Self> {
        let head: &[u8; BLOCK_HEAD_BYTES] = bytes.first_chunk()?;
        let (covered, crc) = head.split_last_chunk::<4>()?;
        let holds = *head.first_chunk::<4>()? == BLOCK_MARKER
            && crc32c::crc32c_append(seed, covered) == u32::from_le_bytes(*crc);
        let read = Self {
            stored_bytes: u32_at(head, 4)?,
            raw_bytes: u32_at(head, 8)?,
            records: u32_at(head, 12)?,
            first: u64_at(head, 16)?,
            crc: u32_at(head, 24)?,
        };
        let sane = read.raw_bytes as usize <= RAW_BYTES_CAP
            && read.stored_bytes as usize <= zstd::zstd_safe::compress_bound(RAW_BYTES_CAP)
            && read.records > 0
            && read.first.checked_add(u64::from(read.records)).is_some();
        (holds && sane).then_some(read)
    }
}

impl Footer {
    fn encode(&self, seeds: Seeds) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.records.to_le_bytes());
        out.extend(length(self.spans.len()).to_le_bytes());
        out.extend(length(self.tags.len()).to_le_bytes());
        for (first, last) in &self.spans {
            out.extend(first.to_le_bytes());
            out.extend(last.to_le_bytes());
        }
        for (tag, bytes) in &self.tags {
            out.extend(tag.0.to_le_bytes());
            out.extend(bytes.to_le_bytes());
        }
        let bytes = length(out.len());
        let crc = crc32c::crc32c_append(seeds.head, &out);
        out.extend(bytes.to_le_bytes());
        out.extend(crc.to_le_bytes());
        out.extend(FOOTER_MARKER);
        out
    }

    /// The footer of a file; `None` when it is absent or damaged.
    pub(super) fn read(file: &dyn DiskFile, seeds: Seeds) -> io::Result<Option<Self>> {
        let end = file.bytes()?;
        let mut trailer = [0; TRAILER_BYTES];
        let Some(trailer_at) = end.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        file.read_at(&mut trailer, trailer_at)?;
        let (Some(bytes), Some(crc)) = (u32_at(&trailer, 0), u32_at(&trailer, 4)) else { return Ok(None) };
        let room = trailer_at.saturating_sub(HEADER_BYTES as u64);
        if !trailer.ends_with(&FOOTER_MARKER) || u64::from(bytes) > room {
            return Ok(None);
        }
        let mut body = vec![0; bytes as usize];
        let got = file.read_at(&mut body, trailer_at - u64::from(bytes))?;
        if got < body.len() || crc32c::crc32c_append(seeds.head, &body) != crc {
            return Ok(None);
        }
        Ok(Self::decode(&body))
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let spans = u32_at(body, 8)? as usize;
        let tags = u32_at(body, 12)? as usize;
        let (span_bytes, tag_bytes) = body.get(16..)?.split_at_checked(spans.checked_mul(16)?)?;
        if tag_bytes.len() != tags.checked_mul(12)? {
            return None;
        }
        let span = |chunk: &[u8]| Some((u64_at(chunk, 0)?, u64_at(chunk, 8)?));
        let tag = |chunk: &[u8]| Some((Tag(u32_at(chunk, 0)?), u64_at(chunk, 4)?));
        Some(Self {
            records: u64_at(body, 0)?,
            spans: span_bytes.chunks_exact(16).map(span).collect::<Option<_>>()?,
            tags: tag_bytes.chunks_exact(12).map(tag).collect::<Option<_>>()?,
        })
    }
}

/// A walk over the records of a sealed segment.
pub(super) struct Unpress {
    seeds: Seeds,
    window: Window,
    offset: u64,
    block: Vec<u8>,
    cursor: Option<Cursor>,
    /// Bytes that are no good block were passed over.
    pub(super) damaged: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Unpress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpress").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// Where a walk stands in a decompressed block.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    sequence: u64,
    left: u32,
    at: u64,
    time: usize,
    tag: usize,
    length: usize,
    payload: usize,
}

/// One record of a sealed segment.
pub(super) struct Unpressed<'b> {
    pub(super) sequence: Sequence,
    pub(super) at: UnixMillis,
    pub(super) tag: Tag,
    pub(super) payload: &'b [u8],
}

impl Unpress {
    pub(super) fn new(seeds: Seeds) -> Self {
        Self {
            seeds,
            window: Window::default(),
            offset: HEADER_BYTES as u64,
            block: Vec::new(),
            cursor: None,
            damaged: Vec::new(),
        }
    }

    /// The next record at or after `from`; blocks wholly before it are not decompressed.
    pub(super) fn next(&mut self, file: &dyn DiskFile, from: u64) -> io::Result<Option<Unpressed<'_>>> {
        loop {
            let Some(cursor) = self.cursor.as_mut().filter(|cursor| cursor.left > 0) else {
                if !self.next_block(file, from)? {
                    return Ok(None);
                }
                continue;
            };
            let Some((sequence, at, tag, payload)) = cursor.take(&self.block) else {
                // The checksum held, so this was written so: treat the rest of the block as damaged.
                self.cursor = None;
                self.damaged.push((self.offset, self.offset));
                continue;
            };
            if sequence >= from {
                let payload = self.block.get(payload).unwrap_or(&[]);
                return Ok(Some(Unpressed { sequence: Sequence(sequence), at, tag, payload }));
            }
        }
    }

    fn next_block(&mut self, file: &dyn DiskFile, from: u64) -> io::Result<bool> {
        self.cursor = None;
        let mut broken_at = None;
        loop {
            let bytes = self.window.bytes(file, self.offset, BLOCK_HEAD_BYTES)?;
            let Some(head) = BlockHead::read(bytes, self.seeds.head) else {
                if bytes.len() < BLOCK_HEAD_BYTES {
                    self.note(broken_at, file.bytes()?.saturating_sub(self.footer_bytes(file)?));
                    return Ok(false);
                }
                broken_at = broken_at.or(Some(self.offset));
                self.offset = self.next_marker(file)?;
                continue;
            };
            self.note(broken_at.take(), self.offset);
            let start = self.offset;
            let end = start + BLOCK_HEAD_BYTES as u64 + u64::from(head.stored_bytes);
            if head.first + u64::from(head.records) <= from {
                self.offset = end;
                continue;
            }
            let stored =
                self.window.bytes(file, start + BLOCK_HEAD_BYTES as u64, head.stored_bytes as usize)?;
            self.offset = end;
            let whole = stored.len() == head.stored_bytes as usize
                && crc32c::crc32c_append(self.seeds.payload, stored) == head.crc
                && expand(stored, head.raw_bytes as usize, &mut self.block)
                && self.open(&head);
            if whole {
                return Ok(true);
            }
            self.damaged.push((start, self.offset));
        }
    }

    fn note(&mut self, broken_at: Option<u64>, end: u64) {
        if let Some(start) = broken_at.filter(|&start| start < end) {
            self.damaged.push((start, end));
        }
    }

    /// The footer's length with its trailer, or 0 where there is no good one.
    fn footer_bytes(&self, file: &dyn DiskFile) -> io::Result<u64> {
        let footer = Footer::read(file, self.seeds)?;
        Ok(footer.map_or(0, |footer| footer.encode(self.seeds).len() as u64))
    }

    /// The place after this one where a block may begin.
    fn next_marker(&mut self, file: &dyn DiskFile) -> io::Result<u64> {
        let bytes = self.window.bytes(file, self.offset + 1, BLOCK_BYTES)?;
        let found = memchr::memmem::find(bytes, &BLOCK_MARKER);
        let passed = match found {
            Some(at) => at,
            None if bytes.len() < BLOCK_MARKER.len() => bytes.len(),
            // A marker may straddle the end of what was looked at.
            None => bytes.len() - (BLOCK_MARKER.len() - 1),
        };
        Ok(self.offset + 1 + passed as u64)
    }

    /// Finds the columns in a decompressed block.
    fn open(&mut self, head: &BlockHead) -> bool {
        let find = |start: usize| {
            let mut at = start;
            for _ in 0..head.records {
                take_varint(&self.block, &mut at)?;
            }
            Some(at)
        };
        let Some(tag) = find(0) else { return false };
        let Some(length) = find(tag) else { return false };
        let Some(payload) = find(length) else { return false };
        self.cursor =
            Some(Cursor { sequence: head.first, left: head.records, at: 0, time: 0, tag, length, payload });
        true
    }
}

impl Cursor {
    fn take(&mut self, block: &[u8]) -> Option<(u64, UnixMillis, Tag, std::ops::Range<usize>)> {
        let sequence = self.sequence;
        self.at = self.at.wrapping_add(unzigzag(take_varint(block, &mut self.time)?));
        let tag = u32::try_from(take_varint(block, &mut self.tag)?).ok()?;
        let bytes = usize::try_from(take_varint(block, &mut self.length)?).ok()?;
        let start = self.payload;
        self.payload = start.checked_add(bytes).filter(|&end| end <= block.len())?;
        self.sequence += 1;
        self.left -= 1;
        Some((sequence, UnixMillis(self.at), Tag(tag), start..self.payload))
    }
}

fn expand(stored: &[u8], raw_bytes: usize, into: &mut Vec<u8>) -> bool {
    into.clear();
    into.reserve(raw_bytes);
    // `decompress_to_buffer` writes no further than the capacity, which may be larger than asked for.
    let Ok(mut plain) = zstd::bulk::Decompressor::new() else { return false };
    plain.decompress_to_buffer(stored, into).is_ok() && into.len() == raw_bytes
}

fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference.cast_signed() >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut at = 0;
            prop_assert_eq!(take_varint(&out, &mut at), Some(value));
            prop_assert_eq!((at, unzigzag(zigzag(value))), (out.len(), value));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u32) {
            let _ = BlockHead::read(&bytes, seed);
            let _ = Footer::decode(&bytes);
            let _ = take_varint(&bytes, &mut 0);
        }
    }
}
