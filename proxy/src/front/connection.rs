//! Connections: accepted, bounded, watched for silence and age, drained in phases.
//!
//! Invariants:
//! - Every connection that is open has an entry with its thread's [`Connections`]; the sweep over
//!   them is the only timer they have, so that neither a request nor a handshake arms one.
//! - A connection without a request for `idle_timeout`, whether idle or in the middle of a request's
//!   head, is closed; one that is told to close and does not within `write_timeout` is dropped; one
//!   that is not ready for requests within its deadlines is dropped.
//! - Nothing is waited for in the accept loop: a handshake is its connection's own affair.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use certs::{Protocol, Secured};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ask::{Caller, Way};
use super::converse::converse;
use super::core::Core;
use super::gate::Pass;
use super::peers;
use super::preface::{self, Said};
use super::secure::{Opened, secure};
use super::sockets::Port;
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

/// Most connections that are taken from a listener's queue when the edge ends; no queue is longer.
const QUEUE_MAX: u32 = 65_536;
/// Pause after an accept that failed for want of descriptors or memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// For so long a connection that has just been secured is not told to close for the edge's end: its
/// first request is on its way.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// What the sweep knows of one connection.
#[derive(Debug)]
pub(super) struct Entry {
    opened: Instant,
    /// By when the stage before requests must be over; `None` when it is.
    deadline: Cell<Option<Instant>>,
    /// When the last request ended, or the connection could take one, to the last sweep.
    quiet_since: Cell<Instant>,
    /// Requests that are being answered; HTTP/2 has many at once.
    busy: Cell<u32>,
    /// It was secured, and has had no request yet.
    is_new: Cell<bool>,
    /// HTTP/2: it must be told to end by itself, for no answer can do it.
    pub(super) is_shared: Cell<bool>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

/// What a connection is to do when it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    GoOn,
    /// Finish what is under way, then close; told at this moment.
    Close(Instant),
    Drop,
}

impl Entry {
    pub(super) fn order(&self) -> Order {
        self.order.get()
    }

    fn tell(&self, order: Order) {
        self.order.set(order);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Wakes whoever polls now when there is an order.
    pub(super) fn watch(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Begins a stage that must be over by `deadline`.
    pub(super) fn must_end(&self, deadline: Instant) {
        self.deadline.set(Some(deadline));
    }

    /// Does a step of that stage; `None` when the deadline has passed.
    ///
    /// # Cancel safety
    /// That of `step`.
    pub(super) async fn within_deadline<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let mut step = pin!(step);
        poll_fn(|context| {
            if self.order.get() == Order::Drop {
                return Poll::Ready(None);
            }
            self.watch(context);
            step.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Ends that stage: requests come.
    pub(super) fn is_ready(&self, now: Instant) {
        self.is_new.set(self.deadline.take().is_some());
        self.quiet_since.set(now);
    }

    pub(super) fn begin_request(&self) {
        self.is_new.set(false);
        self.busy.set(self.busy.get() + 1);
    }

    pub(super) fn end_request(&self, now: Instant) {
        self.busy.set(self.busy.get().saturating_sub(1));
        self.quiet_since.set(now);
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

    /// Tells connections that are late, silent, old or stuck to end; all of them when the edge ends.
    pub(super) fn sweep(&self, core: &Core) {
        let now = core.tick();
        let limits = core.shared.limits.load();
        let phase = core.phase.get();
        for entry in self.entries.borrow().values() {
            let deadline = entry.deadline.get();
            let quiet = now.duration_since(entry.quiet_since.get());
            let is_lost = match deadline {
                Some(deadline) => now >= deadline,
                None => entry.busy.get() == 0 && quiet >= limits.idle_timeout,
            };
            let is_over = phase == Phase::Ending || (phase > Phase::Open && entry.is_shared.get());
            let is_settled = deadline.is_none() && !(entry.is_new.get() && quiet < FIRST_REQUEST);
            let is_old = now.duration_since(entry.opened) >= limits.connection_age_max;
            match entry.order.get() {
                // A client of HTTP/2 may be about to ask: it is told which requests were not seen.
                Order::GoOn if is_lost && deadline.is_none() && entry.is_shared.get() => {
                    entry.tell(Order::Close(now));
                }
                Order::GoOn if is_lost => entry.tell(Order::Drop),
                Order::GoOn if (is_over && is_settled) || is_old => entry.tell(Order::Close(now)),
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
            deadline: Cell::new(None),
            quiet_since: Cell::new(now),
            busy: Cell::new(0),
            is_new: Cell::new(false),
            is_shared: Cell::new(false),
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
    (listener, port): (TcpListener, Port),
    mut phase: watch::Receiver<Phase>,
    connections: Rc<Connections>,
) {
    let mut reserve = spare_descriptor();
    if phase.wait_for(|&phase| phase > Phase::Starting).await.is_err() {
        return;
    }
    if let (Port::Https, Some(tls)) = (port, &core.shared.tls) {
        // Clients wait in the queue until there are certificates.
        tokio::select! {
            biased;
            () = tls.opened() => {}
            _ = phase.wait_for(|&phase| phase >= Phase::HandedOver) => return,
        }
    }
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|&phase| phase >= Phase::HandedOver) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(&core, &connections, stream, peer, port),
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
                        begin(&core, &connections, stream, peer, port);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_shortage(&error) => break,
                Err(_) => {}
            }
        }
    }
}

/// Serves a new connection, if the gate lets it in.
fn begin(core: &Rc<Core>, connections: &Rc<Connections>, stream: TcpStream, peer: SocketAddr, port: Port) {
    let peer = peer.ip();
    let limits = core.shared.limits.load();
    let is_prefaced = !limits.proxy_protocol.is_empty() && peers::includes(&limits.proxy_protocol, peer);
    let gate = &core.shared.gate;
    match if is_prefaced { gate.enter_unnamed() } else { gate.enter(peer) } {
        Ok(pass) => {
            let (id, entry) = connections.begin(core.tick());
            let mut open = Open {
                core: Rc::clone(core),
                connections: Rc::clone(connections),
                id,
                pass,
                is_counted: false,
            };
            if !is_prefaced {
                open.count();
            }
            if is_prefaced || port == Port::Https {
                entry.must_end(core.tick() + limits.hello_timeout);
                tokio::task::spawn_local(prepared(open, entry, stream, (peer, is_prefaced), port));
            } else {
                tokio::task::spawn_local(plain(open, entry, stream, peer));
            }
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
    pass: Pass,
    /// One that a load balancer brings is counted when its client is known and let in.
    is_counted: bool,
}

impl Open {
    fn count(&mut self) {
        self.core.counters().accepted.one();
        self.is_counted = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.entries.borrow_mut().remove(&self.id);
        if self.is_counted {
            self.core.counters().closed.one();
        }
        // tokio ends the task of a request that panicked, and nothing else with it.
        if std::thread::panicking() {
            self.core.counters().panics.one();
        }
    }
}

/// A connection that begins with its first request.
async fn plain(open: Open, entry: Rc<Entry>, stream: TcpStream, peer: IpAddr) {
    set_up(&open.core, &stream);
    let caller = caller(&open.core, peer, Way::Plain);
    converse(&open.core, &entry, caller, stream, Protocol::Http1).await;
}

/// A connection that has something before its first request: a load balancer's word, a handshake.
async fn prepared(
    mut open: Open,
    entry: Rc<Entry>,
    mut stream: TcpStream,
    (mut peer, is_prefaced): (IpAddr, bool),
    port: Port,
) {
    set_up(&open.core, &stream);
    if is_prefaced {
        // Boxed, here and below, so that an open connection does not keep the room for it.
        let said = entry.within_deadline(Box::pin(preface::read(&mut stream))).await;
        let Some(Ok(said)) = said else { return open.core.counters().refused(Refusal::ProxyHeader) };
        if let Said::Client(client) = said {
            peer = client;
        }
        if let Err(refusal) = open.pass.name(peer) {
            return open.core.counters().refused(refusal);
        }
        open.count();
    }
    let core = &open.core;
    if port == Port::Http {
        entry.is_ready(core.tick());
        return converse(core, &entry, caller(core, peer, Way::Plain), stream, Protocol::Http1).await;
    }
    let opened = Box::pin(secure(core, &entry, stream)).await;
    entry.is_ready(core.tick());
    match opened {
        None => {}
        Some(Opened::Misplaced(stream)) => {
            converse(core, &entry, caller(core, peer, Way::Misplaced), stream, Protocol::Http1).await;
        }
        Some(Opened::Secured(secured)) => {
            let Secured { stream, name, protocol, .. } = *secured;
            let caller = caller(core, peer, Way::Tls { name });
            // Boxed again: it is more than a kilobyte, and each step below would keep room for it.
            converse(core, &entry, caller, Box::new(stream), protocol).await;
        }
    }
}

fn caller(core: &Core, peer: IpAddr, way: Way) -> Caller {
    let limits = core.shared.limits.load();
    Caller { peer, is_proxy: peers::includes(&limits.trusted_proxies, peer), way }
}

fn set_up(core: &Core, stream: &TcpStream) {
    // Answers are one small write; waiting for more of them would only delay it.
    let _ = stream.set_nodelay(true);
    // The kernel ends a connection whose client acknowledges nothing, or has no room, for so long.
    let timeout = core.shared.limits.load().write_timeout;
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
}
