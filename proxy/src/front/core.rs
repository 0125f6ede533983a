//! One data thread's own things: its recorder and counters, its view of the published values.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use bytes::BytesMut;
use http::HeaderMap;
use tokio::time::Instant;

use super::ask::Caller;
use super::connection::Phase;
use super::gate::Gate;
use super::peers::{self, Network};
use super::sites::Sites;
use super::tls::Tls;
use super::turn::Turn;
use crate::clock;
use crate::event::UnixMillis;
use crate::links::{Links, TOGETHER};
use crate::metrics::{self, LookUp, Plane};
use crate::record::Recorder;
use crate::record::budget::Budget;
use crate::record::privacy;
use crate::resolve::look_ups::{Answer, Key, LookUps};
use crate::vitals::{Vital, Vitals};

/// Bounds of connections and requests, and who is believed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest head of a request in bytes.
    pub header_bytes_max: usize,
    /// Longest silence between two requests, and longest time for the head of one.
    pub idle_timeout: Duration,
    /// Longest time that a response may take to be taken by its client.
    pub write_timeout: Duration,
    /// Age at which a connection is closed after its current answer.
    pub connection_age_max: Duration,
    /// `Retry-After` where no end is known.
    pub retry_after: Duration,
    /// What may be kept of a client's address.
    pub address: privacy::Address,
    /// Whether the target is recorded with the hit.
    pub record_url: bool,
    /// Longest time for what a load balancer says of the client, and for a TLS client's hello.
    pub hello_timeout: Duration,
    /// Longest time for the rest of a TLS handshake.
    pub handshake_timeout: Duration,
    /// TLS handshakes under way at once.
    pub handshakes_max: usize,
    /// The port by which clients reach the listeners for https.
    pub public_port: u16,
    /// Who must begin a connection with a header of the PROXY protocol.
    pub proxy_protocol: Box<[Network]>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Box<[Network]>,
}

/// What unknown tokens may cost.
#[derive(Debug)]
pub struct Budgets {
    /// Records, per source.
    pub unknown_per_source: Budget,
    /// Records, per site.
    pub unknown_per_site: Budget,
    /// Look-ups, per source.
    pub misses_per_source: Budget,
}

/// What all data threads share.
#[derive(Debug)]
pub struct Shared {
    /// The sites.
    pub sites: Arc<ArcSwap<Sites>>,
    /// The links.
    pub links: Arc<ArcSwap<Links>>,
    /// The health of the needed parts.
    pub vitals: Arc<Vitals>,
    /// Looked-up links and look-ups.
    pub look_ups: Arc<LookUps>,
    /// What unknown tokens may cost; replaced whole by a reload.
    pub budgets: ArcSwap<Budgets>,
    /// Who may connect.
    pub gate: Arc<Gate>,
    /// The counters.
    pub plane: Arc<Plane>,
    /// Bounds; replaced whole by a reload.
    pub limits: ArcSwap<Limits>,
    /// The listeners for https, where there are any.
    pub tls: Option<Arc<Tls>>,
    /// Another program accepts from the same sockets.
    pub handed_over: AtomicBool,
}

/// One data thread.
pub(super) struct Core {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) phase: Cell<Phase>,
    /// The time of the last sweep, by both clocks.
    tick: Cell<(Instant, UnixMillis)>,
    view: RefCell<View>,
    pub(super) turn: Turn,
    pub(super) names: RefCell<[Names; TOGETHER]>,
    pub(super) scratch: RefCell<Scratch>,
}

/// Cached pointers to the published values: one atomic load each for a request that finds no news.
struct View {
    sites: Cache<SharedSites, Arc<Sites>>,
    links: Cache<Arc<ArcSwap<Links>>, Arc<Links>>,
    vital: Cache<SharedVital, Arc<Vital>>,
    limits: Cache<SharedLimits, Arc<Limits>>,
}

/// `Shared` as the owner of its sites' pointer, and `Vitals` of its own.
struct SharedSites(Arc<Shared>);
struct SharedVital(Arc<Vitals>);
struct SharedLimits(Arc<Shared>);

impl std::ops::Deref for SharedSites {
    type Target = ArcSwap<Sites>;
    fn deref(&self) -> &Self::Target {
        &self.0.sites
    }
}

impl std::ops::Deref for SharedLimits {
    type Target = ArcSwap<Limits>;
    fn deref(&self) -> &Self::Target {
        &self.0.limits
    }
}

impl std::ops::Deref for SharedVital {
    type Target = ArcSwap<Vital>;
    fn deref(&self) -> &Self::Target {
        self.0.published()
    }
}

/// Buffers for what one request names, kept from request to request.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) host: Vec<u8>,
    pub(super) token: Vec<u8>,
}

/// Buffers for an answer and its record, likewise.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) appended: Vec<u8>,
    pub(super) locations: BytesMut,
    pub(super) captures: Vec<u8>,
}

/// The published values as one request sees them.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) sites: &'a Sites,
    pub(super) links: &'a Links,
    pub(super) vital: &'a Vital,
    pub(super) limits: &'a Limits,
}

impl Core {
    pub(super) fn new(index: usize, shared: Arc<Shared>, recorder: Recorder) -> Self {
        let view = View {
            sites: Cache::new(SharedSites(Arc::clone(&shared))),
            links: Cache::new(Arc::clone(&shared.links)),
            vital: Cache::new(SharedVital(Arc::clone(&shared.vitals))),
            limits: Cache::new(SharedLimits(Arc::clone(&shared))),
        };
        Self {
            index,
            shared,
            recorder,
            phase: Cell::new(Phase::Starting),
            tick: Cell::new((Instant::now(), clock::now())),
            view: RefCell::new(view),
            turn: Turn::default(),
            names: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// Reads both clocks; done at each sweep.
    pub(super) fn look_at_clocks(&self) {
        self.tick.set((Instant::now(), clock::now()));
    }

    /// The time of the last sweep: near enough for silence and age, and free to read.
    pub(super) fn tick(&self) -> Instant {
        self.tick.get().0
    }

    /// The time of day at `instant`, a moment ago, without reading the clock again; a jump of the
    /// clock is seen at the next sweep.
    pub(super) fn wall(&self, instant: Instant) -> UnixMillis {
        let (tick, wall) = self.tick.get();
        wall.after(instant.duration_since(tick))
    }

    /// Does `step` with the published values of this moment; it must not ask for them again.
    pub(super) fn with<T>(&self, step: impl FnOnce(Seen<'_>) -> T) -> T {
        let mut view = self.view.borrow_mut();
        let View { sites, links, vital, limits } = &mut *view;
        step(Seen { sites: sites.load(), links: links.load(), vital: vital.load(), limits: limits.load() })
    }

    /// Who is behind a request: the other end of its connection, or who trusted proxies say that it is.
    pub(super) fn client(&self, caller: &Caller, headers: &HeaderMap) -> IpAddr {
        if !caller.is_proxy {
            return caller.peer;
        }
        let limits = self.shared.limits.load();
        peers::forwarded(headers, &limits.trusted_proxies).unwrap_or(caller.peer)
    }

    pub(super) fn counters(&self) -> &metrics::Core {
        &self.shared.plane.cores[self.index]
    }

    /// Asks the database for a token, together with whoever else wants it.
    pub(super) async fn look_up(&self, key: Key) -> Answer {
        let answer = self.shared.look_ups.ask(key).await;
        self.counters().looked_up(match &answer {
            Answer::Found(_) => LookUp::Found,
            Answer::Absent => LookUp::Absent,
            Answer::Unasked(why) => *why,
        });
        answer
    }

    /// Whether `peer` may cost the database one more look-up now.
    pub(super) fn may_look_up(&self, peer: IpAddr, now: UnixMillis) -> bool {
        self.shared.budgets.load().misses_per_source.take(privacy::source(peer), now)
    }
}
