//! A connection to a listener for https, from its first byte to its first request.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use certs::acme::{Challenge, Demanded};
use certs::{Ended, Hello, Secured};
use tokio::net::TcpStream;

use super::connection::Entry;
use super::core::Core;
use super::tls::{Issuing, Tls};
use crate::metrics::{Demand, Handshake, Refusal};

/// What came of it.
pub(super) enum Opened {
    /// It speaks HTTP without TLS.
    Misplaced(TcpStream),
    Secured(Box<Secured<TcpStream>>),
}

/// Why there is nothing to ask on.
enum Stopped {
    By(Handshake),
    /// As many handshakes as may be are under way.
    Full,
}

impl From<Ended> for Stopped {
    fn from(ended: Ended) -> Self {
        Self::By(match ended {
            Ended::Incompatible => Handshake::Incompatible,
            Ended::Left => Handshake::Left,
            Ended::Malformed => Handshake::Malformed,
            Ended::Refused => Handshake::Refused,
            Ended::UnknownName => Handshake::UnknownName,
        })
    }
}

/// A wait for a certificate ends by itself; this much later it is ended.
const DEMAND_SPARE: Duration = Duration::from_secs(5);

/// Goes through the handshake, each stage within its deadline; `None` when there is no connection, which
/// is counted.
///
/// # Cancel safety
/// Dropping the future loses the connection.
pub(super) async fn secure(core: &Core, entry: &Rc<Entry>, stream: TcpStream) -> Option<Opened> {
    let tls = core.shared.tls.as_ref()?;
    let opened = shake_hands(core, entry, tls, stream).await;
    let counters = core.counters();
    match &opened {
        Ok(Opened::Misplaced(_)) => counters.shook_hands(Handshake::Plain),
        Ok(Opened::Secured(secured)) if secured.is_resumed => counters.shook_hands(Handshake::Resumed),
        Ok(Opened::Secured(_)) => counters.shook_hands(Handshake::Full),
        Err(Stopped::By(end)) => counters.shook_hands(*end),
        Err(Stopped::Full) => counters.refused(Refusal::Handshakes),
    }
    opened.ok()
}

async fn shake_hands(
    core: &Core,
    entry: &Entry,
    tls: &Arc<Tls>,
    stream: TcpStream,
) -> Result<Opened, Stopped> {
    let limits = core.shared.limits.load_full();
    match within(entry, Handshake::LateHello, first_byte(&stream)).await? {
        Some(b'A'..=b'Z') => return Ok(Opened::Misplaced(stream)),
        Some(_) => {}
        None => return Err(Stopped::By(Handshake::Left)),
    }
    let hello = within(entry, Handshake::LateHello, Hello::read(stream)).await??;
    let proof = match &tls.issuing {
        None => None,
        Some(issuing) => match hello.challenge(&issuing.acme) {
            Challenge::Answer(proof) => Some(proof),
            Challenge::Unexpected => return Err(refused(entry, hello).await),
            Challenge::None => {
                demand(core, entry, tls, issuing, hello.asked()).await;
                None
            }
        },
    };
    entry.must_end(core.tick() + limits.handshake_timeout);
    if proof.is_none() && !tls.server.resolver().answers(hello.asked()) {
        return Err(refused(entry, hello).await);
    }
    // Only now, for a hello costs the client something and silence does not, and who waits for a
    // certificate takes nobody's place who has one.
    let _place = tls.begin(limits.handshakes_max).ok_or(Stopped::Full)?;
    if let Some(proof) = proof {
        within(entry, Handshake::Late, hello.prove(proof)).await??;
        return Err(Stopped::By(Handshake::Challenge));
    }
    let secured = within(entry, Handshake::Late, tls.server.finish(hello)).await??;
    Ok(Opened::Secured(Box::new(secured)))
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

/// Waits for the certificate of a name that has none whose dates hold, if it may have one. What comes of it the
/// index shows; one that is over is shown where nothing better came.
async fn demand(core: &Core, entry: &Entry, tls: &Tls, issuing: &Issuing, asked: Option<&str>) {
    let Some(name) = asked.filter(|name| !tls.server.resolver().covers(name)) else { return };
    entry.must_end(core.tick() + issuing.demand_wait + DEMAND_SPARE);
    let end = entry.within_deadline(issuing.acme.demand(name)).await;
    core.counters().demanded(match end {
        Some(Demanded::Busy) => Demand::Busy,
        Some(Demanded::Late) => Demand::Late,
        Some(Demanded::Later { .. }) => Demand::Later,
        Some(Demanded::NoAnswer) => Demand::NoAnswer,
        Some(Demanded::NotAName) => Demand::NoName,
        Some(Demanded::Ready) => Demand::Ready,
        Some(Demanded::Refused) => Demand::Refused,
        None => Demand::Left,
    });
}

/// Tells the client that there is no certificate for it.
async fn refused(entry: &Entry, hello: Hello<TcpStream>) -> Stopped {
    match within(entry, Handshake::Late, hello.refuse()).await {
        Ok(ended) => ended.into(),
        Err(late) => late,
    }
}

/// Does a step of the stage that `entry` is in; the stage's deadline ends it as `late`.
async fn within<T>(entry: &Entry, late: Handshake, step: impl Future<Output = T>) -> Result<T, Stopped> {
    entry.within_deadline(step).await.ok_or(Stopped::By(late))
}
