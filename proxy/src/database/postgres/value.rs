//! Values that PostgreSQL writes in its own way: moments.

use crate::event::UnixMillis;
use bytes::{BufMut as _, BytesMut};
use std::error::Error;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins.
const EPOCH: i64 = 946_684_800_000_000;
/// The last moment that a timestamp can hold is in the year 294276; later ones are `infinity`.
const MICROS_MAX: i64 = 9_223_371_331_200_000_000;

/// A `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) UnixMillis);

impl Moment {
    /// As the server writes it: microseconds since 2000, `infinity` for what is beyond them.
    pub(super) fn micros(self) -> i64 {
        let micros = i64::try_from(self.0.0).ok().and_then(|ms| ms.checked_mul(1000)).map(|us| us - EPOCH);
        micros.filter(|&micros| micros < MICROS_MAX).unwrap_or(i64::MAX)
    }

    pub(super) fn of_micros(micros: i64) -> Self {
        match micros {
            i64::MAX => Self(UnixMillis(u64::MAX)),
            micros => Self(UnixMillis(u64::try_from(micros.saturating_add(EPOCH) / 1000).unwrap_or(0))),
        }
    }
}

impl ToSql for Moment {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.micros());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::of_micros(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_back() {
        for ms in [0, 1, 946_684_800_000, 1_700_000_000_123, 253_402_300_799_000] {
            assert_eq!(Moment::of_micros(Moment(UnixMillis(ms)).micros()), Moment(UnixMillis(ms)));
        }
        assert_eq!(Moment(UnixMillis(u64::MAX)).micros(), i64::MAX);
        assert_eq!(Moment(UnixMillis(i64::MAX as u64)).micros(), i64::MAX);
        assert_eq!(Moment::of_micros(i64::MIN), Moment(UnixMillis(0)));
    }
}
