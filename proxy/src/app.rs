//! Builds the parts in the order of their ranks, gives each its thread, and ends them in order.
//!
//! ```text
//!  start: folder lock ▶ journal ▶ links from disk ▶ certificates ▶ sockets ▶ threads ▶ ready
//!  end:   not ready ▶ tell clients to go ▶ accept no more ▶ connections ▶ journal ▶ delivery ▶ links
//! ```
//!
//! Invariants:
//! - No other file spawns a thread, and each thread has a name and one job.
//! - A thread that panics ends the process: the journal keeps what was promised, and nothing goes
//!   on half-working. A panic in one request costs that request only.
//! - Nothing that is promised depends on an orderly end.

mod certificates;
mod control;
mod folder;
mod issuing;
mod names;
mod orders;
mod sink;
mod sites;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::admin::status::{Reloads, SinkBoard, View};
use crate::clock;
use crate::config::{AdminAddress, Config};
use crate::deliver::{DatabaseSink, Pump, Remembered};
use crate::event::UnixMillis;
use crate::follow;
use crate::front::gate::Gate;
use crate::front::sockets::{self, SocketError, TakenOver};
use crate::front::{self, Budgets, Listening, Phase, Port, Shared};
use crate::journal::{self, Journal, JournalId, disk::FileDisk};
use crate::links::Links;
use crate::links::domains::Domains;
use crate::links::namespaces::Namespaces;
use crate::metrics::Plane;
use crate::policy::Monitor;
use crate::record::Recorder;
use crate::record::budget::{Budget, Rate};
use crate::resolve::look_ups::LookUps;
use crate::vitals::Vitals;
use certificates::Certificates;
use folder::{DataFolder, FolderError};

/// Where a configuration came from, to read it again.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The environment at the start.
    pub environment: Vec<(String, String)>,
}

/// How an edge is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where the configuration came from.
    pub origin: Origin,
    /// Whether to take over from an edge that runs on the same folder.
    pub takeover: bool,
}

/// Why an edge cannot run.
#[derive(Debug)]
pub enum RunError {
    /// Another edge runs on the data folder, or it cannot be used.
    Folder(FolderError),
    /// The journal cannot be opened.
    Journal(journal::OpenError),
    /// The folder of links cannot be used.
    Links(follow::StartError),
    /// What orders certificates cannot be started.
    Issuing(certs::acme::StartFault),
    /// No socket to listen on; the setting is named.
    Socket(&'static str, SocketError),
    /// No certificate can be loaded, and the edge that runs has some.
    NoCertificates,
    /// A namespace of the configuration cannot be numbered.
    Namespace(String, crate::links::namespaces::Fault),
    /// The operating system refuses something else.
    System(&'static str, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Journal(_) => f.write_str("the journal cannot be opened"),
            Self::Links(error) => error.fmt(f),
            Self::Issuing(_) => f.write_str("certificates cannot be ordered (tls.acme)"),
            Self::Socket(setting, error) => write!(f, "{setting}: {error}"),
            Self::NoCertificates => f.write_str(
                "no certificate can be loaded from tls.folder, so the edge that runs goes on; mend the files and try again",
            ),
            Self::Namespace(site, _) => write!(f, "the namespace of site {site} cannot be used"),
            Self::System(what, _) => f.write_str(what),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder(error) => error.source(),
            Self::Journal(error) => Some(error),
            Self::Links(error) => error.source(),
            Self::Issuing(fault) => Some(fault),
            Self::Socket(_, error) => error.source(),
            Self::NoCertificates => None,
            Self::Namespace(_, fault) => Some(fault),
            Self::System(_, error) => Some(error),
        }
    }
}

/// Runs an edge until it is told to end; `ready` is called once it accepts connections.
///
/// # Blocking
/// The whole life of the edge.
///
/// # Errors
/// [`RunError`] when it cannot start.
pub fn run(config: Config, start: Start, ready: impl FnOnce(&Addresses)) -> Result<(), RunError> {
    let started_at = clock::now();
    raise_descriptor_limit();
    // What is written from here on holds addresses: nobody else's business.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let (folder, taken_over) = DataFolder::open(&config.data, start.takeover).map_err(RunError::Folder)?;
    let edge = Edge::build(&config, folder, taken_over, started_at)?;
    control::run(edge, config, start.origin, ready)
}

/// Where a running edge listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The public listeners for HTTP.
    pub http: Vec<std::net::SocketAddr>,
    /// Those for HTTP within TLS.
    pub https: Vec<std::net::SocketAddr>,
    /// The admin listener.
    pub admin: String,
}

/// The built parts and their threads.
struct Edge {
    folder: DataFolder,
    view: Arc<View>,
    shared: Arc<Shared>,
    journal: Journal,
    namespaces: Namespaces,
    follow_config: Arc<ArcSwap<follow::Config>>,
    follow_events: std::sync::mpsc::SyncSender<follow::Event>,
    sink_orders: Arc<sink::Orders>,
    phase: watch::Sender<Phase>,
    sites: sites::Shares,
    /// Customers' domains as the follower knows them.
    domains: Arc<ArcSwap<Domains>>,
    looks: sites::Looks,
    /// Kept to be handed over; the data threads accept from duplicates.
    listeners: Listeners,
    certificates: Certificates,
    admin: AdminListener,
    threads: Threads,
    taken_over: Option<TakenOver>,
}

/// The public listeners.
#[derive(Debug, Default)]
struct Listeners {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
}

impl Listeners {
    /// Gives each of `threads` data threads its own.
    fn spread(&self, threads: usize) -> io::Result<Vec<Vec<Listening>>> {
        let mut spread: Vec<Vec<Listening>> = (0..threads).map(|_| Vec::new()).collect();
        for (port, listeners) in [(Port::Http, &self.http), (Port::Https, &self.https)] {
            let duplicates = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
            for (own, more) in spread.iter_mut().zip(sockets::spread(duplicates, threads)?) {
                own.extend(more.into_iter().map(|listener| Listening { listener, port }));
            }
        }
        Ok(spread)
    }
}

/// The admin listener before the control thread's runtime takes it.
enum AdminListener {
    Tcp(TcpListener),
    Unix(PathBuf),
}

/// The threads by when they end.
#[derive(Default)]
struct Threads {
    data: Vec<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    sink: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
    mill_stop: Arc<AtomicBool>,
    mill: Option<JoinHandle<()>>,
}

impl Edge {
    fn build(
        config: &Config,
        folder: DataFolder,
        mut taken_over: Option<TakenOver>,
        now: UnixMillis,
    ) -> Result<Self, RunError> {
        let cores = match config.listen.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        let plane = Arc::new(Plane::new(cores));
        let disk = Arc::new(FileDisk);
        let id = JournalId::from_bytes(random());
        let opened = journal::open(config.journal.store.clone(), disk, id, &config.edge, now)
            .map_err(RunError::Journal)?;
        let journal = opened.journal;
        journal.declare_sinks(&[config.database.source.kind().to_owned()]);

        let namespaces = Namespaces::default();
        let links = Arc::new(ArcSwap::from_pointee(Links::empty(seed())));
        let monitor = Monitor::new(config.database.health.clone(), seed());
        let vitals = Vitals::new(monitor, config.windows.clone(), config.data.join("windows.json"), now);
        let (look_ups, look_up_queue) = LookUps::new(config.links.look_ups, seed());
        let follow_config = config.links.follow.clone();
        let domains = Arc::new(ArcSwap::from_pointee(Domains::default()));
        let started = follow::start(
            follow_config.clone(),
            Arc::clone(&links),
            Arc::clone(&domains),
            namespaces.clone(),
            Arc::clone(&look_ups),
            Arc::clone(&vitals),
            seed,
        )
        .map_err(RunError::Links)?;
        let follow_config = Arc::new(ArcSwap::from_pointee(follow_config));

        let mut shares = sites::Shares::default();
        let mut looks = sites::Looks::default();
        let known = domains.load_full();
        let sites = sites::build(config, &namespaces, &plane, &mut shares, known, &mut looks)?;
        let sites = Arc::new(ArcSwap::from_pointee(sites));
        let lock = start_lock(config, &vitals)?;
        let certificates = Certificates::begin(config, now, &sites, lock, seed())?;
        let shared = Arc::new(Shared {
            sites,
            links,
            vitals: Arc::clone(&vitals),
            look_ups: Arc::clone(&look_ups),
            budgets: ArcSwap::from_pointee(budgets(config)),
            gate: Gate::new(connections_max(config), config.limits.connections_per_source),
            plane,
            limits: ArcSwap::from_pointee(limits(config)),
            tls: certificates.tls(),
            handed_over: AtomicBool::new(false),
        });

        let (listeners, admin) = listen(config, cores, taken_over.as_mut())?;
        let (phase, phases) = watch::channel(Phase::Starting);
        let mut threads = Threads::default();
        let system = |error| RunError::System("a thread cannot be started", error);

        let committer = opened.committer;
        threads.committer = Some(spawn("committer", move || committer.run()).map_err(system)?);
        let spread = listeners
            .spread(cores)
            .map_err(|error| RunError::System("a listener cannot be duplicated", error))?;
        for (index, own) in spread.into_iter().enumerate() {
            let (shared, journal, phases) = (Arc::clone(&shared), journal.clone(), phases.clone());
            let recorder = config.journal.recorder;
            let thread = spawn(&format!("data-{index}"), move || {
                if let Err(error) =
                    front::run(index, own, shared, || Recorder::new(&journal, recorder), phases)
                {
                    panic!("data thread {index} cannot run: {error}");
                }
            });
            threads.data.push(thread.map_err(system)?);
        }
        let (follower, queue) = (started.follower, started.queue);
        threads.follower = Some(spawn("follow", move || follower.run(&queue)).map_err(system)?);
        let mill = started.mill;
        spawn("mill", move || {
            low_priority();
            mill.run();
        })
        .map_err(system)?;
        let journal_mill = opened.mill;
        let stop = Arc::clone(&threads.mill_stop);
        threads.mill = Some(spawn("journal-mill", move || sink::tend(journal_mill, &stop)).map_err(system)?);
        let follow_events = started.events;
        {
            let (vitals, config, events) =
                (Arc::clone(&vitals), Arc::clone(&follow_config), follow_events.clone());
            let namespaces = namespaces.clone();
            spawn("look-up", move || {
                follow::serve_look_ups(&look_up_queue, &look_ups, &namespaces, &vitals, &config, &events);
            })
            .map_err(system)?;
        }
        let (board, orders, sink_thread) = start_sink(config, &journal, &vitals)?;
        threads.sink = Some(sink_thread);

        let view = Arc::new(View {
            edge: config.edge.clone(),
            started_at: now,
            shared: Arc::clone(&shared),
            journal: journal.clone(),
            links: started.board,
            namespaces: namespaces.clone(),
            sinks: vec![board],
            certificates: certificates.board(),
            reloads: Reloads { applied_at_ms: AtomicU64::new(now.0), ..Reloads::default() },
            draining: AtomicBool::new(false),
        });
        Ok(Self {
            folder,
            view,
            shared,
            journal,
            namespaces,
            follow_config,
            follow_events,
            sink_orders: orders,
            phase,
            sites: shares,
            domains,
            looks,
            listeners,
            certificates,
            admin,
            threads,
            taken_over,
        })
    }
}

/// What several edges on one database order certificates by.
fn start_lock(config: &Config, vitals: &Arc<Vitals>) -> Result<Option<orders::Lock>, RunError> {
    if !config.tls.acme.as_ref().is_some_and(|acme| acme.locks) {
        return Ok(None);
    }
    let (lock, clerk) = orders::lock(orders::Settings::of(config), vitals);
    spawn("orders", move || clerk.serve())
        .map_err(|error| RunError::System("a thread cannot be started", error))?;
    Ok(Some(lock))
}

type StartedSink = (Arc<SinkBoard>, Arc<sink::Orders>, JoinHandle<()>);

fn start_sink(config: &Config, journal: &Journal, vitals: &Arc<Vitals>) -> Result<StartedSink, RunError> {
    let file = config.data.join("deliver.json");
    let (remembered, damaged) =
        Remembered::open(file).map_err(|error| RunError::System("deliver.json cannot be read", error))?;
    if let Some(aside) = damaged {
        tracing::error!(file = %aside.display(), "deliver.json is damaged and was set aside; a lost cursor would not be noticed");
    }
    let database =
        DatabaseSink::new(config.database.source.clone(), config.database.timeout, config.database.migrate);
    let pump = Pump::new(config.deliver.pump.clone(), journal.clone(), database, remembered, seed());
    let board = Arc::new(SinkBoard {
        name: Mutex::new(config.database.source.kind()),
        stats: pump.stats(),
        status: Mutex::new(None),
    });
    let orders = Arc::new(sink::Orders::new());
    let thread = {
        let (vitals, board, orders) = (Arc::clone(vitals), Arc::clone(&board), Arc::clone(&orders));
        let every = config.deliver.every;
        spawn("sink", move || sink::run(pump, every, &vitals, &board, &orders))
            .map_err(|error| RunError::System("a thread cannot be started", error))?
    };
    Ok((board, orders, thread))
}

fn budgets(config: &Config) -> Budgets {
    Budgets {
        unknown_per_source: Budget::new(Rate::per_minute(config.record.unknown_per_source)),
        unknown_per_site: Budget::new(Rate::per_minute(config.record.unknown_per_site)),
        misses_per_source: Budget::new(Rate::per_second(config.limits.misses_per_source)),
    }
}

fn limits(config: &Config) -> front::Limits {
    front::Limits {
        header_bytes_max: config.limits.header_bytes_max,
        idle_timeout: config.limits.idle_timeout,
        write_timeout: config.limits.write_timeout,
        connection_age_max: config.limits.connection_age_max,
        retry_after: config.limits.retry_after,
        address: config.address,
        record_url: config.record.url,
        hello_timeout: config.tls.hello_timeout,
        handshake_timeout: config.tls.handshake_timeout,
        handshakes_max: config.tls.handshakes_max,
        public_port: config.tls.public_port,
        proxy_protocol: config.listen.proxy_protocol.clone(),
        trusted_proxies: config.listen.trusted_proxies.clone(),
    }
}

fn listen(
    config: &Config,
    threads: usize,
    taken_over: Option<&mut TakenOver>,
) -> Result<(Listeners, AdminListener), RunError> {
    let wanted =
        [("listen.http", config.listen.http.as_slice()), ("listen.https", config.listen.https.as_slice())];
    let (have, handed_admin) = match taken_over {
        Some(taken) => {
            let have = [std::mem::take(&mut taken.listeners), std::mem::take(&mut taken.https)];
            (have, taken.admin.take())
        }
        None => {
            let passed = sockets::from_systemd(wanted);
            (passed.map_err(|error| RunError::Socket("listen", error))?, None)
        }
    };
    let is_at =
        |address, listener: &TcpListener| listener.local_addr().is_ok_and(|local| is_for(address, local));
    let mut public = Vec::new();
    for ((setting, addresses), mut listeners) in wanted.into_iter().zip(have) {
        // An address that the configuration does not name any more is given up, a new one is bound.
        listeners.retain(|listener| addresses.iter().any(|&address| is_at(address, listener)));
        for &address in addresses {
            if !listeners.iter().any(|listener| is_at(address, listener)) {
                let bound = sockets::bind(address, threads, config.listen.backlog);
                listeners.extend(bound.map_err(|error| RunError::Socket(setting, error))?);
            }
        }
        public.push(listeners);
    }
    let mut public = public.into_iter();
    let (http, https) = (public.next().unwrap_or_default(), public.next().unwrap_or_default());
    let public = Listeners { http, https };
    let admin = match &config.admin.listen {
        AdminAddress::Unix(path) => AdminListener::Unix(path.clone()),
        AdminAddress::Tcp(address) => match handed_admin.filter(|listener| is_at(*address, listener)) {
            Some(listener) => AdminListener::Tcp(listener),
            None => {
                let bound = sockets::bind(*address, 1, 128);
                let mut bound = bound.map_err(|error| RunError::Socket("admin.listen", error))?;
                AdminListener::Tcp(bound.pop().expect("one was bound"))
            }
        },
    };
    Ok((public, admin))
}

/// Whether a socket bound to `local` is one for `address`, whose port may have been free to choose.
fn is_for(address: std::net::SocketAddr, local: std::net::SocketAddr) -> bool {
    address == local || (address.port() == 0 && address.ip() == local.ip())
}

fn connections_max(config: &Config) -> usize {
    config.limits.connections_max.unwrap_or_else(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65_536);
        // The other half is the journal's, the database's, the admin listener's and the drain's.
        usize::try_from(limit / 2).unwrap_or(usize::MAX)
    })
}

/// Raises the soft limit of descriptors to the hard one, as servers do.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Gives the calling thread a low priority: what it does can wait for clicks.
fn low_priority() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
}

/// A thread whose panic ends the process.
fn spawn(name: &str, life: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(life)).is_err() {
            tracing::error!(
                thread = named,
                "a thread panicked; the process ends, what was promised is in the journal"
            );
            std::process::abort();
        }
    })
}

/// Waits for a thread for at most `wait`; whether it ended.
fn join_within(thread: JoinHandle<()>, wait: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while !thread.is_finished() {
        if waited >= wait {
            return false;
        }
        std::thread::sleep(STEP);
        waited += STEP;
    }
    thread.join().is_ok()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

fn seed() -> u64 {
    u64::from_le_bytes(random())
}

/// A copy of a mutex' content, whatever happened to its last holder.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the socket is by which a running edge hands its listeners over.
fn hand_over_socket(data: &Path) -> PathBuf {
    data.join(sockets::HAND_OVER_SOCKET)
}

/// Locks a data folder that no edge may run on meanwhile; the lock ends with the value.
///
/// # Errors
/// When an edge runs on it.
pub fn lock(data: &Path) -> Result<impl Sized + use<>, RunError> {
    DataFolder::open(data, false).map(|(folder, _)| folder).map_err(RunError::Folder)
}
