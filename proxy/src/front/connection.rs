//! Connections: accepted, bounded, served by hyper, drained in two phases.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::gate::Pass;
use super::serve::serve;
use crate::metrics::Refusal;

/// How an edge ends: first it tells clients to go, then it takes no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted and kept.
    Open,
    /// Connections are accepted and told to close after their answer (`Connection: close`).
    Closing,
    /// Another program accepts; connections that are open are told to close after their next answer.
    HandedOver,
    /// None is accepted; idle ones are closed.
    Ending,
}

/// Pause after an accept that failed for want of descriptors or memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// The connections that a data thread has open, to be waited for at the end.
#[derive(Debug, Default)]
pub struct Connections(Cell<usize>);

impl Connections {
    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.get()
    }
}

/// Accepts from one listener until the edge ends.
pub(super) async fn accept(
    core: Rc<Core>,
    listener: TcpListener,
    mut phase: watch::Receiver<Phase>,
    connections: Rc<Connections>,
) {
    let mut reserve = spare_descriptor();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|&phase| phase >= Phase::HandedOver) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match core.shared.gate.enter(peer.ip()) {
                Ok(pass) => {
                    let served = connection(
                        Rc::clone(&core),
                        stream,
                        peer,
                        pass,
                        phase.clone(),
                        Rc::clone(&connections),
                    );
                    tokio::task::spawn_local(served);
                }
                Err(refusal) => core.counters().refused(refusal),
            },
            Err(error) if is_shortage(&error) => {
                core.counters().refused(Refusal::Descriptors);
                // The spare descriptor lets one waiting client be told by a close instead of
                // hanging until there is room; then the loop rests, for it would spin.
                drop(reserve.take());
                if let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
                    drop(stream);
                }
                reserve = spare_descriptor();
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            // The client went away before it was accepted.
            Err(_) => {}
        }
    }
}

fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|shortage| error.raw_os_error() == Some(shortage.raw_os_error()))
}

/// Counts a connection for as long as it is open, whatever ends it.
struct Open {
    core: Rc<Core>,
    connections: Rc<Connections>,
    _pass: Pass,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.0.set(self.connections.0.get() - 1);
        self.core.counters().closed.one();
    }
}

async fn connection(
    core: Rc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    pass: Pass,
    mut phase: watch::Receiver<Phase>,
    connections: Rc<Connections>,
) {
    connections.0.set(connections.0.get() + 1);
    core.counters().accepted.one();
    let open = Open { core: Rc::clone(&core), connections, _pass: pass };
    let limits = **core.shared.limits.load();
    // Answers are one small write; waiting for more of them would only delay it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let core = Rc::clone(&core);
        async move { Ok::<_, Infallible>(serve(&core, peer.ip(), &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut end = pin!(sleep_until(Instant::now() + limits.connection_age_max));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            // A broken connection is the client's affair.
            _ = served.as_mut() => break,
            _ = phase.wait_for(|&phase| phase == Phase::Ending), if !closing => {}
            () = end.as_mut() => {
                if closing {
                    break;
                }
            }
        }
        closing = true;
        served.as_mut().graceful_shutdown();
        end.as_mut().reset(Instant::now() + limits.write_timeout);
    }
    drop(open);
}
