//! A connection to a listener for https, from its first byte to its first request.

use std::rc::Rc;

use certs::{Ended, Secured};
use tokio::net::TcpStream;

use super::connection::Entry;
use super::core::Core;
use crate::metrics::{Handshake, Refusal};

/// What came of it.
pub(super) enum Opened {
    /// It speaks HTTP without TLS.
    Misplaced(TcpStream),
    Secured(Box<Secured<TcpStream>>),
}

/// Goes through the handshake, each stage within its deadline; `None` when there is no connection, which
/// is counted.
///
/// # Cancel safety
/// Dropping the future loses the connection.
pub(super) async fn secure(core: &Core, entry: &Rc<Entry>, stream: TcpStream) -> Option<Opened> {
    let tls = core.shared.tls.as_ref()?;
    let counters = core.counters();
    let limits = core.shared.limits.load_full();
    let first = entry.within_deadline(first_byte(&stream)).await;
    if let Some(Some(b'A'..=b'Z')) = first {
        counters.shook_hands(Handshake::Plain);
        return Some(Opened::Misplaced(stream));
    }
    let hello = match first {
        Some(Some(_)) => entry.within_deadline(tls.server.hello(stream)).await,
        Some(None) => Some(Err(Ended::Left)),
        None => None,
    };
    let hello = match hello {
        Some(Ok(hello)) => hello,
        Some(Err(ended)) => {
            counters.shook_hands(outcome(ended));
            return None;
        }
        None => {
            counters.shook_hands(Handshake::LateHello);
            return None;
        }
    };
    // Only now, for a hello costs the client something and silence does not.
    let Some(_place) = tls.begin(limits.handshakes_max) else {
        counters.refused(Refusal::Handshakes);
        return None;
    };
    entry.must_end(core.tick() + limits.handshake_timeout);
    match entry.within_deadline(tls.server.finish(hello)).await {
        Some(Ok(secured)) => {
            let end = if secured.is_resumed { Handshake::Resumed } else { Handshake::Full };
            counters.shook_hands(end);
            Some(Opened::Secured(Box::new(secured)))
        }
        Some(Err(ended)) => {
            counters.shook_hands(outcome(ended));
            None
        }
        None => {
            counters.shook_hands(Handshake::Late);
            None
        }
    }
}

/// What the client sends first, left where it is: every method of HTTP begins with a capital letter, no
/// record of TLS does.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) => Some(first[0]),
        _ => None,
    }
}

fn outcome(ended: Ended) -> Handshake {
    match ended {
        Ended::Incompatible => Handshake::Incompatible,
        Ended::Left => Handshake::Left,
        Ended::Malformed => Handshake::Malformed,
        Ended::Refused => Handshake::Refused,
        Ended::UnknownName => Handshake::UnknownName,
    }
}
