//! PostgreSQL's binary COPY format: rows of length-prefixed fields.
//!
//! ```text
//!   PGCOPY\n\377\r\n\0 │ flags u32 │ extension u32 + bytes │ rows │ -1 i16
//!   row: fields i16 │ each: length i32, or -1 for null │ bytes
//! ```

use super::connection::Talk;
use super::fault::Trouble;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use std::pin::pin;
use std::time::Duration;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const END: i16 = -1;
const NULL: i32 = -1;
const DAMAGED: Trouble = Trouble::Odd("its COPY is not in PostgreSQL's binary format");

/// Rows as they are written.
#[derive(Debug)]
pub(super) struct Writer {
    out: BytesMut,
}

impl Writer {
    /// Begins with the header.
    pub(super) fn new(capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(capacity);
        out.put_slice(SIGNATURE);
        out.put_u64(0);
        Self { out }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Gives away what was written.
    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    pub(super) fn end(&mut self) {
        self.out.put_i16(END);
    }

    pub(super) fn row(&mut self, fields: usize) {
        self.out.put_i16(fields as i16);
    }

    pub(super) fn field(&mut self, bytes: &[u8]) {
        self.out.put_i32(bytes.len() as i32);
        self.out.put_slice(bytes);
    }

    pub(super) fn null(&mut self) {
        self.out.put_i32(NULL);
    }
}

/// A callback that is given the fields of row by row.
pub(super) type EachRow<'a, const N: usize> = dyn FnMut([Option<&[u8]>; N]) -> Result<(), Trouble> + 'a;

/// Takes rows of `N` fields out of pieces of a stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    begun: bool,
    ended: bool,
}

impl Reader {
    /// Gives every row of one piece; the server never splits a row.
    pub(super) fn rows<const N: usize>(
        &mut self,
        mut piece: &[u8],
        each: &mut EachRow<'_, N>,
    ) -> Result<(), Trouble> {
        if !self.begun {
            self.begun = true;
            let header = take(&mut piece, SIGNATURE.len() + 8)?;
            let extension = take(&mut &header[SIGNATURE.len() + 4..], 4)?;
            if !header.starts_with(SIGNATURE) {
                return Err(DAMAGED);
            }
            take(&mut piece, u32::from_be_bytes(array(extension)?) as usize)?;
        }
        while !piece.is_empty() {
            let fields = i16::from_be_bytes(array(take(&mut piece, 2)?)?);
            if fields == END {
                self.ended = true;
                return Ok(());
            }
            if fields as usize != N {
                return Err(DAMAGED);
            }
            let mut row = [None; N];
            for field in &mut row {
                *field = match i32::from_be_bytes(array(take(&mut piece, 4)?)?) {
                    NULL => None,
                    length => Some(take(&mut piece, usize::try_from(length).map_err(|_| DAMAGED)?)?),
                };
            }
            each(row)?;
        }
        Ok(())
    }

    /// Whether the stream was complete.
    pub(super) fn finish(self) -> Result<(), Trouble> {
        if self.ended { Ok(()) } else { Err(DAMAGED) }
    }
}

/// Gives the rows of `select` as they come: the first within `patience`, the others never long after the
/// one before; all of them may take long.
pub(super) async fn stream<const N: usize>(
    talk: &Talk<'_>,
    select: &str,
    mut patience: Duration,
    each: &mut EachRow<'_, N>,
) -> Result<(), Trouble> {
    let sql = format!("COPY ({select}) TO STDOUT (FORMAT binary)");
    // Whoever takes the rows may be slow, and nobody waits for what a reader locks.
    talk.batch("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    let mut pieces = pin!(talk.bounded(talk.client.copy_out(&sql)).await?);
    let mut reader = Reader::default();
    loop {
        // A timer for each of millions of rows would cost more than the row.
        let piece: Option<Result<Bytes, _>> = match pieces.next().now_or_never() {
            Some(piece) => piece,
            None => talk.within(patience, pieces.next().map(Ok::<_, Trouble>)).await?,
        };
        patience = talk.timeout();
        let Some(piece) = piece else { break };
        reader.rows(&piece?, each)?;
    }
    reader.finish()
}

fn take<'a>(from: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Trouble> {
    let (head, tail) = from.split_at_checked(bytes).ok_or(DAMAGED)?;
    *from = tail;
    Ok(head)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Trouble> {
    bytes.try_into().map_err(|_| DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(64);
        for n in 0..3u8 {
            writer.row(2);
            writer.field(&[n; 5]);
            writer.null();
        }
        writer.end();
        let mut reader = Reader::default();
        let mut found = Vec::new();
        let mut each = |[one, two]: [Option<&[u8]>; 2]| {
            found.push((one.map(<[u8]>::to_vec), two.is_none()));
            Ok(())
        };
        reader.rows(&writer.take(), &mut each).unwrap();
        reader.finish().unwrap();
        assert_eq!(found, [0, 1, 2].map(|n| (Some(vec![n; 5]), true)));
    }

    #[test]
    fn damage_is_told() {
        let mut whole = Writer::new(64);
        whole.row(1);
        whole.field(b"abc");
        let bytes = whole.take();
        for cut in 1..bytes.len() {
            let mut reader = Reader::default();
            let read = reader.rows::<1>(&bytes[..cut], &mut |_| Ok(()));
            assert!(read.and_then(|()| reader.finish()).is_err(), "cut at {cut}");
        }
    }
}
