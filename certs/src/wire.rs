//! What is below TLS: a connection on which the ticket waits for the first answer.
//!
//! rustls has the ticket of TLS 1.3 ready with the end of the handshake, while the click is still on its way,
//! and sent at once it is a packet of its own: a system call here and an interrupt at either end, for each
//! full handshake. The client can use it for its next connection at the earliest, so it travels with the
//! first bytes of the first answer. A connection that has no answer has no use for one either.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The type of records that are encrypted in TLS 1.3 (RFC 8446 §5.2). The server's part of the handshake begins
/// with a hello, which is not, and goes out as one write; what comes after the client's part is.
const ENCRYPTED: u8 = 23;
/// More than this is not kept back; a ticket is a few hundred bytes.
const HELD_MAX: usize = 4096;

/// A connection's bytes as the network has them.
#[derive(Debug)]
pub struct Wire<IO> {
    io: IO,
    stage: Stage,
    /// Taken from rustls and not sent yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next byte is a record's first.
    Handshake,
    /// The next byte belongs to a flight that was sent in part.
    WithinFlight,
    /// What is held leaves with the next write.
    Secured,
    /// What is held leaves as soon as there is room.
    Sending,
}

impl<IO> Wire<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, stage: Stage::Handshake, held: Vec::new() }
    }

    /// The handshake is over: answers come.
    pub(crate) fn is_secured(&mut self) {
        self.stage = Stage::Secured;
    }

    /// What is below.
    pub(crate) fn inner(&mut self) -> &mut IO {
        &mut self.io
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    /// Sends what is held, as far as that needs no waiting: what ended a handshake may be among it.
    ///
    /// # Cancel safety
    /// It is over at its first step.
    pub(crate) async fn let_go(&mut self) {
        self.stage = Stage::Sending;
        poll_fn(|context| {
            // Whoever gets nothing notices the end of the connection.
            let _ = self.poll_send(context);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, &self.held))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..sent);
        }
        // Idle connections are many.
        self.held = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Takes `parts` over; only where [`HELD_MAX`] and what a write of TLS has bound them.
    fn hold(&mut self, parts: &[IoSlice<'_>]) -> usize {
        self.held.reserve_exact(length(parts));
        parts.iter().for_each(|part| self.held.extend_from_slice(part));
        length(parts)
    }
}

fn length(parts: &[IoSlice<'_>]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_encrypted = parts.iter().find_map(|part| part.first()) == Some(&ENCRYPTED);
        match this.stage {
            Stage::Handshake if is_encrypted && this.held.len() + length(parts) <= HELD_MAX => {
                return Poll::Ready(Ok(this.hold(parts)));
            }
            Stage::Secured if !this.held.is_empty() => {
                let taken = this.hold(parts);
                this.stage = Stage::Sending;
                return match this.poll_send(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    // What is left goes with the flush, or before the next write.
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
                };
            }
            Stage::Handshake | Stage::WithinFlight | Stage::Secured | Stage::Sending => {}
        }
        ready!(this.poll_send(context))?;
        let sent = ready!(Pin::new(&mut this.io).poll_write_vectored(context, parts))?;
        if matches!(this.stage, Stage::Handshake | Stage::WithinFlight) {
            this.stage = if sent == length(parts) { Stage::Handshake } else { Stage::WithinFlight };
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stage == Stage::Sending {
            ready!(self.poll_send(context))?;
        }
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stage = Stage::Sending;
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// Remembers what each write brought, and takes no more than it is told to.
    #[derive(Default)]
    struct Network {
        writes: Vec<Vec<u8>>,
        /// How many bytes the next writes take; none stands for one that must wait.
        room: VecDeque<Option<usize>>,
        is_shut: bool,
    }

    impl AsyncWrite for Network {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = match self.room.pop_front() {
                Some(None) => return Poll::Pending,
                Some(Some(room)) => room.min(bytes.len()),
                None => bytes.len(),
            };
            self.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut = true;
            Poll::Ready(Ok(()))
        }
    }

    const HELLO: &[u8] = b"\x16hello";
    const TICKET: &[u8] = b"\x17ticket";
    const ANSWER: &[u8] = b"\x17answer";

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn write(wire: &mut Wire<Network>, bytes: &[u8]) -> Option<usize> {
        match Pin::new(wire).poll_write(&mut context(), bytes) {
            Poll::Ready(written) => Some(written.expect("nothing fails")),
            Poll::Pending => None,
        }
    }

    fn flush(wire: &mut Wire<Network>) -> bool {
        Pin::new(wire).poll_flush(&mut context()).is_ready()
    }

    /// A connection after its handshake, with a ticket that is not sent.
    fn with_ticket() -> Wire<Network> {
        let mut wire = Wire::new(Network::default());
        assert_eq!(write(&mut wire, HELLO), Some(HELLO.len()));
        assert_eq!(write(&mut wire, TICKET), Some(TICKET.len()));
        assert!(flush(&mut wire));
        wire.is_secured();
        assert!(flush(&mut wire));
        assert_eq!(wire.io.writes, [HELLO], "the ticket waits, whoever flushes");
        wire
    }

    #[test]
    fn the_ticket_goes_in_one_write_with_the_first_answer() {
        let mut wire = with_ticket();
        assert_eq!(write(&mut wire, ANSWER), Some(ANSWER.len()));
        assert_eq!(wire.io.writes[1..], [[TICKET, ANSWER].concat()]);
        assert_eq!(wire.held.capacity(), 0, "an idle connection keeps nothing");
        assert_eq!(write(&mut wire, ANSWER), Some(ANSWER.len()));
        assert_eq!(wire.io.writes[2..], [ANSWER]);
    }

    #[test]
    fn where_there_is_no_room_the_rest_goes_with_the_flush_in_its_order() {
        let mut wire = with_ticket();
        wire.io.room = [Some(3), None, None, Some(2), None].into();
        assert_eq!(write(&mut wire, ANSWER), Some(ANSWER.len()), "it is taken over");
        assert!(!flush(&mut wire));
        assert_eq!(write(&mut wire, b"\x17more"), None, "not before what it follows");
        assert!(flush(&mut wire));
        assert_eq!(write(&mut wire, b"\x17more"), Some(5));
        assert_eq!(wire.io.writes[1..].concat(), [TICKET, ANSWER, b"\x17more"].concat());
    }

    #[tokio::test]
    async fn the_end_takes_the_ticket_with_it() {
        let mut wire = with_ticket();
        assert!(Pin::new(&mut wire).poll_shutdown(&mut context()).is_ready());
        assert_eq!((wire.io.writes.concat(), wire.io.is_shut), ([HELLO, TICKET].concat(), true));
        let mut wire = with_ticket();
        wire.let_go().await;
        assert_eq!(wire.io.writes.concat(), [HELLO, TICKET].concat());
    }

    #[test]
    fn what_continues_the_servers_hello_is_no_ticket_whatever_its_first_byte() {
        let mut wire = Wire::new(Network::default());
        wire.io.room = [Some(2)].into();
        assert_eq!(write(&mut wire, b"\x16h\x17ello"), Some(2));
        assert_eq!(write(&mut wire, b"\x17ello"), Some(5));
        assert_eq!(wire.io.writes.concat(), b"\x16h\x17ello");
        assert_eq!(write(&mut wire, TICKET), Some(TICKET.len()));
        assert_eq!(wire.io.writes.concat(), b"\x16h\x17ello", "the flight was whole");
    }

    #[test]
    fn more_than_a_ticket_is_not_kept_back() {
        let mut wire = Wire::new(Network::default());
        write(&mut wire, TICKET);
        let long = vec![ENCRYPTED; HELD_MAX];
        assert_eq!(write(&mut wire, &long), Some(HELD_MAX));
        assert_eq!(wire.io.writes, [TICKET.to_vec(), long]);
    }
}
