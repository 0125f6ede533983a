//! One segment file: the names it can have, and the header it begins with.
//!
//! The byte table is in `docs/journal.md`. This file does no I/O and knows no clock.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::frame::{u32_at, u64_at};
use super::{JournalId, Sequence};
use crate::event::UnixMillis;

/// The format that this release writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 192;
/// The longest name of an edge that a header holds.
pub const EDGE_BYTES_MAX: usize = 64;
/// A segment is never longer, so that offsets in it fit in 32 bits.
pub const SEGMENT_BYTES_CAP: u64 = 1 << 30;

const EDGE_AT: usize = 72;

/// Which of the two forms a segment file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Frames as they were appended.
    Log,
    /// Compressed blocks.
    Sealed,
}

impl Form {
    /// The first eight bytes of a file of this form.
    #[must_use]
    pub const fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"holdfjrn",
            Self::Sealed => *b"holdfjrz",
        }
    }
}

/// What a name in a journal's folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64, Form),
    /// A file of zeros that waits to become a segment.
    Spare(u64),
    /// A compressed segment that was not finished.
    Unfinished(u64),
    Damaged,
    Other,
}

impl Name {
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with(".damaged") {
            return Self::Damaged;
        }
        let number = |digits: &str| match digits.len() {
            10 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        let parts = (name.split_once('.'), name.split_once('-'));
        match parts {
            (Some((digits, "log")), _) => number(digits).map_or(Self::Other, |n| Self::Segment(n, Form::Log)),
            (Some((digits, "zlog")), _) => {
                number(digits).map_or(Self::Other, |n| Self::Segment(n, Form::Sealed))
            }
            (Some((digits, "zlog.new")), _) => number(digits).map_or(Self::Other, Self::Unfinished),
            (_, Some(("spare", digits))) => number(digits).map_or(Self::Other, Self::Spare),
            _ => Self::Other,
        }
    }

    pub(super) fn log(number: u64) -> String {
        format!("{number:010}.log")
    }

    pub(super) fn sealed(number: u64) -> String {
        format!("{number:010}.zlog")
    }

    pub(super) fn segment(number: u64, form: Form) -> String {
        match form {
            Form::Log => Self::log(number),
            Form::Sealed => Self::sealed(number),
        }
    }

    pub(super) fn unfinished(number: u64) -> String {
        format!("{number:010}.zlog.new")
    }

    pub(super) fn spare(number: u64) -> String {
        format!("spare-{number:010}")
    }
}

/// What stands at the start of every segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The journal.
    pub id: JournalId,
    /// The segment's number, rising in order of creation; not always without gaps.
    pub number: u64,
    /// The sequence of the first record that may stand here. Everything before it was synced in
    /// segments with lower numbers when this header was written.
    pub first: Sequence,
    /// Bytes that were preallocated.
    pub capacity: u64,
    /// No byte of such a block is written again once one of it was synced.
    pub block_bytes: u32,
    /// When the journal was opened.
    pub opened_at: UnixMillis,
    /// When this segment was made.
    pub created_at: UnixMillis,
    /// The name of the edge that wrote it.
    pub edge: String,
}

/// Why a header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// It is shorter than a header, carries no magic number, or its checksum fails.
    Damaged,
    /// It was written by a later release, whole and well.
    Later {
        /// The version it names.
        version: u16,
    },
}

impl Header {
    /// The bytes of the header of a file of this form.
    #[must_use]
    pub fn encode(&self, form: Form) -> [u8; HEADER_BYTES] {
        assert!(self.edge.len() <= EDGE_BYTES_MAX, "the configuration bounds the edge's name");
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(form.magic());
        out.extend(VERSION.to_le_bytes());
        out.extend(u16::try_from(HEADER_BYTES).expect("a small constant").to_le_bytes());
        out.extend(self.block_bytes.to_le_bytes());
        out.extend(self.id.as_bytes());
        for field in [self.number, self.first.0, self.capacity, self.opened_at.0, self.created_at.0] {
            out.extend(field.to_le_bytes());
        }
        debug_assert_eq!(out.len(), EDGE_AT);
        out.push(u8::try_from(self.edge.len()).expect("bounded above"));
        out.extend(self.edge.as_bytes());
        out.resize(HEADER_BYTES - 4, 0);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the parts add up to the header")
    }

    /// Reads the header of a file of this form.
    pub fn decode(bytes: &[u8], form: Form) -> Result<Self, HeaderFault> {
        Self::decode_parts(bytes, form).unwrap_or(Err(HeaderFault::Damaged))
    }

    /// `None` where bytes are missing or a checksum fails.
    fn decode_parts(bytes: &[u8], form: Form) -> Option<Result<Self, HeaderFault>> {
        if *bytes.first_chunk::<8>()? != form.magic() {
            return None;
        }
        let version = u16::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        // The place of the checksum is part of every version: the last four bytes of the header.
        let header_bytes = usize::from(u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?));
        let (covered, crc) = bytes.get(..header_bytes)?.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        if version > VERSION {
            return Some(Err(HeaderFault::Later { version }));
        }
        if version == 0 || header_bytes != HEADER_BYTES {
            return None;
        }
        let edge_bytes = usize::from(*bytes.get(EDGE_AT)?);
        let edge = bytes.get(EDGE_AT + 1..EDGE_AT + 1 + edge_bytes.min(EDGE_BYTES_MAX))?;
        let block_bytes = u32_at(bytes, 12)?;
        let header = Self {
            id: JournalId::from_bytes(*bytes.get(16..)?.first_chunk()?),
            number: u64_at(bytes, 32)?,
            first: Sequence(u64_at(bytes, 40)?),
            capacity: u64_at(bytes, 48)?,
            block_bytes,
            opened_at: UnixMillis(u64_at(bytes, 56)?),
            created_at: UnixMillis(u64_at(bytes, 64)?),
            edge: String::from_utf8_lossy(edge).into_owned(),
        };
        let sane = block_bytes.is_power_of_two() && header.number > 0 && header.first.0 > 0;
        sane.then_some(Ok(header))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn check(name: &str, expected: Name) {
        assert_eq!(Name::of(name), expected, "{name}");
    }

    #[test]
    fn names_mean_one_thing() {
        check(&Name::log(7), Name::Segment(7, Form::Log));
        check(&Name::sealed(7), Name::Segment(7, Form::Sealed));
        check(&Name::unfinished(7), Name::Unfinished(7));
        check(&Name::spare(7), Name::Spare(7));
        check("0000000007.log.damaged", Name::Damaged);
        check("lock", Name::Other);
        check("7.log", Name::Other);
        check("+000000007.log", Name::Other);
        check("0000000007.log.bak", Name::Other);
    }

    fn header() -> Header {
        Header {
            id: JournalId::from_bytes([3; 16]),
            number: 2,
            first: Sequence(9),
            capacity: 4096,
            block_bytes: 512,
            opened_at: UnixMillis(1),
            created_at: UnixMillis(2),
            edge: "edge".to_owned(),
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_seen() {
        let bytes = header().encode(Form::Log);
        assert_eq!(Header::decode(&bytes, Form::Log), Ok(header()));
        assert_eq!(Header::decode(&bytes, Form::Sealed), Err(HeaderFault::Damaged));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad, Form::Log), Err(HeaderFault::Damaged), "bit {bit}");
        }
        for cut in 0..HEADER_BYTES {
            assert_eq!(Header::decode(&bytes[..cut], Form::Log), Err(HeaderFault::Damaged));
        }
    }

    #[test]
    fn a_header_of_a_later_release_is_told_from_damage() {
        let mut bytes = header().encode(Form::Log);
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes, Form::Log), Err(HeaderFault::Later { version: 2 }));
    }
}
