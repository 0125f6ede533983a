//! Connections: accepted, bounded, served by hyper, watched for silence and age, drained in phases.
//!
//! Invariants:
//! - Every connection that is open has an entry with its thread's [`Connections`]; the sweep over
//!   them is the only timer they have, so that a request arms none.
//! - A connection without a request for `idle_timeout`, whether idle or in the middle of a request's
//!   head, is closed; one that is told to close and does not within `write_timeout` is dropped.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::Core;
use super::gate::Pass;
use super::serve::serve;
use crate::metrics::Refusal;

/// How an edge ends: first it tells clients to go, then it takes no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everything is started; connections wait in the listeners' queues.
    Starting,
    /// Connections are accepted and kept.
    Open,
    /// Connections are accepted and told to close after their answer (`Connection: close`).
    Closing,
    /// Another program accepts; connections that are open are told to close after their next answer.
    HandedOver,
    /// None is accepted; idle ones are closed.
    Ending,
}

/// Most fields of a request's head.
const HEADERS_MAX: usize = 64;
/// Most connections that are taken from a listener's queue when the edge ends; no queue is longer.
const QUEUE_MAX: u32 = 65_536;
/// Pause after an accept that failed for want of descriptors or memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// What the sweep knows of one connection.
#[derive(Debug)]
pub(super) struct Entry {
    opened: Instant,
    /// When the last request ended, or the connection began, to the last sweep.
    quiet_since: Cell<Instant>,
    busy: Cell<bool>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

/// What a connection is to do when it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    GoOn,
    /// Finish what is under way, then close; told at this moment.
    Close(Instant),
    Drop,
}

impl Entry {
    fn tell(&self, order: Order) {
        self.order.set(order);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The connections that a data thread has open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    entries: RefCell<HashMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
}

impl Connections {
    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Tells connections that are silent, old or stuck to end; all of them when the edge ends.
    pub(super) fn sweep(&self, core: &Core) {
        let now = core.tick();
        let limits = core.shared.limits.load();
        let ending = core.phase.get() == Phase::Ending;
        for entry in self.entries.borrow().values() {
            let silent =
                !entry.busy.get() && now.duration_since(entry.quiet_since.get()) >= limits.idle_timeout;
            match entry.order.get() {
                Order::GoOn if silent => entry.tell(Order::Drop),
                Order::GoOn if ending || now.duration_since(entry.opened) >= limits.connection_age_max => {
                    entry.tell(Order::Close(now));
                }
                Order::Close(told) if now.duration_since(told) >= limits.write_timeout => {
                    entry.tell(Order::Drop)
                }
                Order::GoOn | Order::Close(_) | Order::Drop => {}
            }
        }
    }

    fn begin(&self, now: Instant) -> (u64, Rc<Entry>) {
        let entry = Rc::new(Entry {
            opened: now,
            quiet_since: Cell::new(now),
            busy: Cell::new(false),
            order: Cell::new(Order::GoOn),
            waker: RefCell::new(None),
        });
        let id = self.next.get();
        self.next.set(id + 1);
        self.entries.borrow_mut().insert(id, Rc::clone(&entry));
        (id, entry)
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
    if phase.wait_for(|&phase| phase > Phase::Starting).await.is_err() {
        return;
    }
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|&phase| phase >= Phase::HandedOver) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(&core, &connections, stream, peer),
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
    if !core.shared.handed_over.load(Relaxed) {
        // Whoever waits in the queue has connected: closing the listener would reset them. Where
        // another program has the socket, too, it takes them.
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..QUEUE_MAX {
            match listener.accept() {
                Ok((stream, peer)) => {
                    if stream.set_nonblocking(true).is_ok()
                        && let Ok(stream) = TcpStream::from_std(stream)
                    {
                        begin(&core, &connections, stream, peer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_shortage(&error) => break,
                Err(_) => {}
            }
        }
    }
}

/// Serves a new connection, if the gate lets it in.
fn begin(core: &Rc<Core>, connections: &Rc<Connections>, stream: TcpStream, peer: SocketAddr) {
    match core.shared.gate.enter(peer.ip()) {
        Ok(pass) => {
            let (id, entry) = connections.begin(core.tick());
            core.counters().accepted.one();
            let open = Open { core: Rc::clone(core), connections: Rc::clone(connections), id, _pass: pass };
            tokio::task::spawn_local(connection(open, entry, stream, peer));
        }
        Err(refusal) => core.counters().refused(refusal),
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

/// An open connection's place among the others, given back whatever ends it.
struct Open {
    core: Rc<Core>,
    connections: Rc<Connections>,
    id: u64,
    _pass: Pass,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.entries.borrow_mut().remove(&self.id);
        self.core.counters().closed.one();
        // tokio ends the task of a request that panicked, and nothing else with it.
        if std::thread::panicking() {
            self.core.counters().panics.one();
        }
    }
}

async fn connection(open: Open, entry: Rc<Entry>, stream: TcpStream, peer: SocketAddr) {
    let core = &open.core;
    // Answers are one small write; waiting for more of them would only delay it.
    let _ = stream.set_nodelay(true);
    let limits = core.shared.limits.load_full();
    // The kernel ends a connection whose client acknowledges nothing, or has no room, for so long.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.write_timeout));
    let service = service_fn(|request| {
        let (core, entry) = (Rc::clone(core), Rc::clone(&entry));
        async move {
            entry.busy.set(true);
            let response = serve(&core, peer.ip(), request).await;
            entry.busy.set(false);
            entry.quiet_since.set(core.tick());
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        // The sweep closes silent connections; hyper's timer would be armed anew for each request.
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(HEADERS_MAX)
        // One small buffer is cheaper to write than two parts of one.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut told = false;
    poll_fn(|context| {
        match entry.order.get() {
            Order::GoOn => {}
            Order::Close(_) if told => {}
            Order::Close(_) => {
                told = true;
                // A request that has arrived is read first, and then it is the last one.
                if served.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                served.as_mut().graceful_shutdown();
            }
            Order::Drop => return Poll::Ready(()),
        }
        // A broken connection is the client's affair.
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut waker = entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    })
    .await;
}
