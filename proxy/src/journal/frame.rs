//! The codec of one frame: how a record, or the seal that ends a segment, lies in a file.
//!
//! Invariants:
//! - Zeros are never a frame, and no length is used before the header's checksum has proved it.
//! - The header's checksum is seeded with the journal's id and the segment's number, the payload's
//!   with the journal's id: bytes of another journal or another segment are not frames here.
//! - What [`append`] and [`stamp`] write, [`Head::read`] reads back; anything else is `None`, never a panic.
//!
//! The byte table is in `docs/journal.md`. This file does no I/O and knows no clock.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use super::{JournalId, Sequence, Tag};
use crate::event::UnixMillis;

/// The version that stands in the first byte of every frame.
pub const VERSION: u8 = 1;
/// Bytes of a frame before its payload.
pub const HEAD_BYTES: usize = 40;
/// Frames start at multiples of this, so that a search for the next one is short.
pub const ALIGN_BYTES: usize = 8;
/// No record is longer than this, whatever a header says.
pub const RECORD_BYTES_CAP: u32 = 1 << 20;

const MARKER: [u8; 2] = *b"HJ";
const CRC_AT: usize = 36;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record with its payload.
    Record = 1,
    /// The end of a segment; its sequence is that of the last record before it.
    Seal = 2,
}

/// The start values of the checksums in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// For payloads: the same in all segments, so that data threads can compute them.
    pub payload: u32,
    /// For headers: bound to the segment, so that a frame is valid in its own file only.
    pub head: u32,
}

impl Seeds {
    /// The seeds of segment `number` of a journal.
    #[must_use]
    pub fn new(id: JournalId, number: u64) -> Self {
        let payload = payload_seed(id);
        Self { payload, head: crc32c::crc32c_append(payload, &number.to_le_bytes()) }
    }
}

/// The start value of the checksums of a journal's payloads.
#[must_use]
pub fn payload_seed(id: JournalId) -> u32 {
    crc32c::crc32c(id.as_bytes())
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the frame is.
    pub kind: Kind,
    /// The length of the payload, without the zeros that fill it up.
    pub payload_bytes: u32,
    /// The record's place in its journal.
    pub sequence: Sequence,
    /// When the record was made; data, never used for order.
    pub at: UnixMillis,
    /// Whom the record's bytes are counted for.
    pub tag: Tag,
    /// The offset in this segment up to which everything was known synced when this was written.
    pub synced_through: u32,
    /// The payload's checksum.
    pub payload_crc: u32,
}

impl Head {
    /// The header at the start of `bytes`, if its checksum holds and its fields make sense.
    #[must_use]
    pub fn read(bytes: &[u8], seed: u32) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let [version, kind, marker @ .., _, _, _, _] = head.first_chunk::<8>()?;
        if *version != VERSION || *marker != MARKER {
            return None;
        }
        let (covered, crc) = head.split_last_chunk::<4>()?;
        if crc32c::crc32c_append(seed, covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let kind = match kind {
            1 => Kind::Record,
            2 => Kind::Seal,
            _ => return None,
        };
        let payload_bytes = u32_at(head, 4)?;
        if payload_bytes > RECORD_BYTES_CAP || (kind == Kind::Seal && payload_bytes != 0) {
            return None;
        }
        Some(Self {
            kind,
            payload_bytes,
            sequence: Sequence(u64_at(head, 8)?),
            at: UnixMillis(u64_at(head, 16)?),
            tag: Tag(u32_at(head, 24)?),
            synced_through: u32_at(head, 28)?,
            payload_crc: u32_at(head, 32)?,
        })
    }

    /// A frame without payload that ends a segment after `last`.
    #[must_use]
    pub fn seal(last: Sequence, at: UnixMillis, synced_through: u32, seeds: Seeds) -> [u8; HEAD_BYTES] {
        let mut frame = [0; HEAD_BYTES];
        let seal = Self {
            kind: Kind::Seal,
            payload_bytes: 0,
            sequence: last,
            at,
            tag: Tag(0),
            synced_through,
            payload_crc: seeds.payload,
        };
        seal.write(&mut frame);
        stamp(&mut frame, last, synced_through, seeds.head);
        frame
    }

    /// The length of the whole frame, filled up to the alignment.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes as usize)
    }

    fn write(&self, frame: &mut [u8; HEAD_BYTES]) {
        put(frame, 0, &[VERSION, self.kind as u8]);
        put(frame, 2, &MARKER);
        put(frame, 4, &self.payload_bytes.to_le_bytes());
        put(frame, 8, &self.sequence.0.to_le_bytes());
        put(frame, 16, &self.at.0.to_le_bytes());
        put(frame, 24, &self.tag.0.to_le_bytes());
        put(frame, 28, &self.synced_through.to_le_bytes());
        put(frame, 32, &self.payload_crc.to_le_bytes());
    }
}

/// The length of a frame with a payload of this length.
#[must_use]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Appends one record's frame; `encode` appends the payload. The sequence, the synced mark and the
/// header's checksum are left open for [`stamp`]. `Err` leaves `out` as it was.
pub fn append(
    out: &mut Vec<u8>,
    seed: u32,
    (at, tag): (UnixMillis, Tag),
    payload_bytes_max: u32,
    encode: impl FnOnce(&mut Vec<u8>),
) -> Result<usize, TooLong> {
    let start = out.len();
    let payload_at = start + HEAD_BYTES;
    out.resize(payload_at, 0);
    encode(out);
    let payload = out.get(payload_at..).expect("an encoder only appends");
    let payload_bytes = match u32::try_from(payload.len()) {
        Ok(bytes) if bytes <= payload_bytes_max.min(RECORD_BYTES_CAP) => bytes,
        _ => {
            let bytes = payload.len();
            out.truncate(start);
            return Err(TooLong { bytes });
        }
    };
    let head = Head {
        kind: Kind::Record,
        payload_bytes,
        sequence: Sequence(0),
        at,
        tag,
        synced_through: 0,
        payload_crc: crc32c::crc32c_append(seed, payload),
    };
    out.resize(start + head.frame_bytes(), 0);
    let frame = out.get_mut(start..).and_then(|frame| frame.first_chunk_mut());
    head.write(frame.expect("the frame was appended above"));
    Ok(head.frame_bytes())
}

/// A payload longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// How long it was.
    pub bytes: usize,
}

/// Gives a frame made by [`append`] its sequence and mark, and closes its header with the checksum.
pub fn stamp(frame: &mut [u8], sequence: Sequence, synced_through: u32, seed: u32) {
    let head: &mut [u8; HEAD_BYTES] = frame.first_chunk_mut().expect("a frame holds its header");
    put(head, 8, &sequence.0.to_le_bytes());
    put(head, 28, &synced_through.to_le_bytes());
    let (covered, crc) = head.split_last_chunk_mut::<4>().expect("a header holds its checksum");
    *crc = crc32c::crc32c_append(seed, covered).to_le_bytes();
}

/// The length and tag of a frame of our own making, not yet stamped.
pub(super) fn measure(frame: &[u8]) -> Option<(usize, Tag)> {
    let head: &[u8; HEAD_BYTES] = frame.first_chunk()?;
    Some((frame_bytes(u32_at(head, 4)? as usize), Tag(u32_at(head, 24)?)))
}

const _: () = assert!(CRC_AT + 4 == HEAD_BYTES && HEAD_BYTES.is_multiple_of(ALIGN_BYTES));

fn put(frame: &mut [u8; HEAD_BYTES], at: usize, bytes: &[u8]) {
    let field = frame.get_mut(at..at + bytes.len()).expect("every field lies in the header");
    field.copy_from_slice(bytes);
}

/// Four bytes, little-endian.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Eight bytes, little-endian.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: JournalId = JournalId::from_bytes([7; 16]);

    fn framed(payload: &[u8], number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let seeds = Seeds::new(ID, number);
        append(&mut out, seeds.payload, (UnixMillis(5), Tag(9)), RECORD_BYTES_CAP, |o| o.extend(payload))
            .unwrap();
        stamp(&mut out, Sequence(3), 4096, seeds.head);
        out
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(Head::read(&[0; 64], 0), None);
        assert_eq!(Head::read(&[0; 64], Seeds::new(ID, 1).head), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let frame = framed(b"payload", 1);
        let seeds = Seeds::new(ID, 1);
        for bit in 0..HEAD_BYTES * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&bad, seeds.head), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_valid_in_its_own_segment_and_journal_only() {
        let frame = framed(b"payload", 1);
        assert!(Head::read(&frame, Seeds::new(ID, 1).head).is_some());
        assert_eq!(Head::read(&frame, Seeds::new(ID, 2).head), None);
        assert_eq!(Head::read(&frame, Seeds::new(JournalId::from_bytes([8; 16]), 1).head), None);
    }

    #[test]
    fn too_long_leaves_the_buffer_as_it_was() {
        let mut out = vec![1, 2, 3];
        let refused = append(&mut out, 0, (UnixMillis(0), Tag(0)), 4, |o| o.extend([0; 5]));
        assert_eq!((refused, out), (Err(TooLong { bytes: 5 }), vec![1, 2, 3]));
    }

    #[test]
    fn a_hostile_length_with_a_true_checksum_is_refused() {
        for length in [RECORD_BYTES_CAP + 1, u32::MAX, 0x8000_0000] {
            let mut frame = framed(b"x", 1);
            frame[4..8].copy_from_slice(&length.to_le_bytes());
            stamp(&mut frame, Sequence(3), 0, Seeds::new(ID, 1).head);
            assert_eq!(Head::read(&frame, Seeds::new(ID, 1).head), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_back(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            (at, tag, sequence, mark, number) in any::<(u64, u32, u64, u32, u64)>(),
        ) {
            let seeds = Seeds::new(ID, number);
            let mut out = Vec::new();
            let bytes =
                append(&mut out, seeds.payload, (UnixMillis(at), Tag(tag)), 300, |o| o.extend(&payload)).unwrap();
            stamp(&mut out, Sequence(sequence), mark, seeds.head);
            prop_assert_eq!(bytes, out.len());
            prop_assert_eq!(measure(&out), Some((bytes, Tag(tag))));
            let head = Head::read(&out, seeds.head).unwrap();
            prop_assert_eq!(head.sequence, Sequence(sequence));
            prop_assert_eq!((head.at, head.tag, head.synced_through), (UnixMillis(at), Tag(tag), mark));
            let kept = &out[HEAD_BYTES..HEAD_BYTES + head.payload_bytes as usize];
            prop_assert_eq!(kept, payload.as_slice());
            prop_assert_eq!(head.payload_crc, crc32c::crc32c_append(seeds.payload, kept));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), seed: u32) {
            let _ = Head::read(&bytes, seed);
            let _ = measure(&bytes);
        }

        #[test]
        fn a_changed_byte_is_seen(at in 0usize..47, change in 1u8..) {
            let mut frame = framed(b"payload", 1);
            frame[at] ^= change;
            let seeds = Seeds::new(ID, 1);
            let seen = match Head::read(&frame, seeds.head) {
                None => true,
                Some(head) => crc32c::crc32c_append(seeds.payload, &frame[HEAD_BYTES..47]) != head.payload_crc,
            };
            prop_assert!(seen);
        }
    }
}
