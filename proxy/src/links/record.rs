//! The form of one link inside a table: as short as a link can be, and read without trust.
//!
//! ```text
//! flags 1 | token length 1 (2: LONG) | namespace LEB128 | target 5 (LIVE) | campaign 5 (CAMPAIGN)
//!         | expires 6 (EXPIRES) | absent since 6 (ABSENT) | token
//! ```
//!
//! Integers are little-endian. The namespace is the table's own number of it; target and campaign are
//! places in the table's pools; times are milliseconds.

#![deny(clippy::indexing_slicing)]

use super::{Origin, State, TOKEN_BYTES_MAX};
use crate::event::UnixMillis;

const STATE: u8 = 0b11;
const APPEND: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const CAMPAIGN: u8 = 1 << 4;
const ABSENT: u8 = 1 << 5;
const LOOKED_UP: u8 = 1 << 6;
const LONG: u8 = 1 << 7;

/// The longest record: every optional field, the longest token.
pub(super) const RECORD_BYTES_MAX: usize = 1 + 2 + 5 + 5 + 5 + 6 + 6 + TOKEN_BYTES_MAX;
/// The last moment that six bytes hold, in the year 10889; what is later never comes.
const MILLIS_MAX: u64 = (1 << 48) - 1;

/// One link in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) namespace: u32,
    pub(super) token: &'a [u8],
    pub(super) state: State,
    pub(super) append: bool,
    pub(super) origin: Origin,
    /// Zero unless the link is live.
    pub(super) target: u64,
    pub(super) campaign: Option<u64>,
    pub(super) expires_at: Option<UnixMillis>,
    pub(super) absent_since: Option<UnixMillis>,
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let length = u16::try_from(self.token.len()).expect("tokens are checked when a row comes in");
        let [length_low, length_high] = length.to_le_bytes();
        out.push(
            self.state as u8
                | flag(self.append, APPEND)
                | flag(self.expires_at.is_some(), EXPIRES)
                | flag(self.campaign.is_some(), CAMPAIGN)
                | flag(self.absent_since.is_some(), ABSENT)
                | flag(self.origin == Origin::LookUp, LOOKED_UP)
                | flag(length_high != 0, LONG),
        );
        out.push(length_low);
        if length_high != 0 {
            out.push(length_high);
        }
        put_leb128(out, u64::from(self.namespace));
        if self.state == State::Live {
            put::<5>(out, self.target);
        }
        if let Some(campaign) = self.campaign {
            put::<5>(out, campaign);
        }
        for at in [self.expires_at, self.absent_since].into_iter().flatten() {
            put::<6>(out, at.0.min(MILLIS_MAX));
        }
        out.extend_from_slice(self.token);
    }

    /// Reads the first record of `bytes` and returns it with the rest.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[flags, length], mut rest) = bytes.split_first_chunk::<2>()?;
        let mut length = usize::from(length);
        if flags & LONG != 0 {
            let (&high, tail) = rest.split_first()?;
            length |= usize::from(high) << 8;
            rest = tail;
        }
        let state = State::from_tag(flags & STATE)?;
        let namespace = u32::try_from(take_leb128(&mut rest)?).ok()?;
        let target = if state == State::Live { take::<5>(&mut rest)? } else { 0 };
        let campaign = if flags & CAMPAIGN != 0 { Some(take::<5>(&mut rest)?) } else { None };
        let expires_at = if flags & EXPIRES != 0 { Some(UnixMillis(take::<6>(&mut rest)?)) } else { None };
        let absent_since = if flags & ABSENT != 0 { Some(UnixMillis(take::<6>(&mut rest)?)) } else { None };
        let (token, rest) = rest.split_at_checked(length)?;
        let origin = if flags & LOOKED_UP != 0 { Origin::LookUp } else { Origin::Change };
        let append = flags & APPEND != 0;
        let record =
            Self { namespace, token, state, append, origin, target, campaign, expires_at, absent_since };
        Some((record, rest))
    }
}

/// Appends the low `N` bytes of `value`.
pub(super) fn put<const N: usize>(out: &mut Vec<u8>, value: u64) {
    debug_assert!(N == 8 || value >> (8 * N) == 0);
    out.extend(value.to_le_bytes().into_iter().take(N));
}

/// Reads `N` bytes as an integer from the front of `bytes`.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<u64> {
    let (low, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(wide(low))
}

/// The little-endian integer of up to eight bytes.
pub(super) fn wide<const N: usize>(low: &[u8; N]) -> u64 {
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(low) {
        *to = *from;
    }
    u64::from_le_bytes(wide)
}

/// Appends `value` in groups of seven bits, the lowest first.
pub(super) fn put_leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what [`put_leb128`] wrote, at most five bytes of it.
pub(super) fn take_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_record()(
            namespace in any::<u32>(), state in 0u8..3, append in any::<bool>(), look_up in any::<bool>(),
            target in 0u64..1 << 40, campaign in proptest::option::of(0u64..1 << 40),
            expires_at in proptest::option::of(0..=MILLIS_MAX), absent_since in proptest::option::of(0..=MILLIS_MAX),
        ) -> Record<'static> {
            let state = State::from_tag(state).unwrap();
            Record {
                namespace, token: b"", state, append,
                origin: if look_up { Origin::LookUp } else { Origin::Change },
                target: if state == State::Live { target } else { 0 }, campaign,
                expires_at: expires_at.map(UnixMillis), absent_since: absent_since.map(UnixMillis),
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(record in any_record(), token in proptest::collection::vec(any::<u8>(), 0..600)) {
            let record = Record { token: &token, ..record };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
            for end in 0..bytes.len() {
                prop_assert_eq!(Record::split(&bytes[..end]), None);
            }
            bytes.extend_from_slice(b"rest");
            prop_assert_eq!(Record::split(&bytes), Some((record, &b"rest"[..])));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Record::split(&bytes);
        }
    }

    #[test]
    fn times_beyond_six_bytes_are_kept_as_the_last_one() {
        let record = Record {
            namespace: 0,
            token: b"t",
            state: State::Live,
            append: false,
            origin: Origin::Change,
            target: 0,
            campaign: None,
            expires_at: Some(UnixMillis(u64::MAX)),
            absent_since: None,
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::split(&bytes).unwrap().0.expires_at, Some(UnixMillis(MILLIS_MAX)));
    }
}
