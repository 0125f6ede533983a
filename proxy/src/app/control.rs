//! The control thread: signals, the admin listener, windows and health, reload, hand-over, the end.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use sd_notify::NotifyState;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    Addresses, AdminListener, Edge, Origin, RunError, budgets, connections_max, hand_over_socket,
    join_within, limits, locked, sites,
};
use crate::admin::{self, Adopt, Command, Guard, Reply};
use crate::causes::chain;
use crate::clock::{self, Expiry};
use crate::config::{self, AdminAddress, Config};
use crate::deliver::{AdoptFrom, DatabaseSink};
use crate::event::UnixMillis;
use crate::follow;
use crate::front::sites::{Customers, Sites};
use crate::front::{Phase, sockets};
use crate::journal::{Sequence, State};
use crate::metrics::Refusal;
use crate::policy::{self, Part};

/// How often health, windows and shares are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Of these ticks, every how many the sites' shares of the journal are measured.
const TICKS_PER_MEASURE: u32 = 20;
/// How often refused connections are told of in the log; the metric counts each.
const REFUSALS_SAID_EVERY: Duration = Duration::from_secs(60);
/// What connections are refused for, and the limit that an operator can raise.
const CONNECTION_CAPS: &[(Refusal, &str)] = &[
    (Refusal::ConnectionsMax, "limits.connections_max"),
    (Refusal::ConnectionsPerSource, "limits.connections_per_source"),
    (Refusal::Handshakes, "tls.handshakes_max"),
    (Refusal::Descriptors, "open files (ulimit -n, LimitNOFILE)"),
];
/// How long a new program may take to become ready after it got the sockets.
const HAND_OVER_WAIT: Duration = Duration::from_secs(120);
/// How long the links may take to rest before a take-over; less than the other program waits for the
/// answer.
const PAUSE_WAIT: Duration = Duration::from_secs(8);
/// How long the journal and the follower may take to end.
const PART_WAIT: Duration = Duration::from_secs(10);

/// What the control thread waits for.
enum Event {
    Command(Command, oneshot::Sender<Reply>),
    End(&'static str),
    HandOver(HandOver),
    Reload,
    Tick,
}

/// Where another program's take-over stands.
enum HandOver {
    /// It asked; everything that only one process may write must rest.
    Asked(StdUnixStream),
    /// Whether the links rest now.
    Rested(StdUnixStream, bool),
    /// It accepts connections now.
    Done,
    /// It went away before it did.
    Failed,
}

struct Control {
    edge: Edge,
    config: Config,
    origin: Origin,
    admin_handed: Option<std::net::TcpListener>,
    hand_overs: mpsc::Sender<HandOver>,
    ticks: u32,
    /// Another program asked to take over and did not; what was let go for it is to be taken up again.
    resume_due: bool,
    /// Another program is about to take over.
    handing_over: bool,
    journal_degraded: bool,
    /// For so many ticks a look-up has been under way for longer than anybody waits.
    hanging_ticks: u32,
    /// How many times its patience the database has been silent by now.
    silences: u128,
    /// Connections refused when it was said last, and when that was.
    refused: [u64; CONNECTION_CAPS.len()],
    refused_said_at: Option<Instant>,
    /// When sites may be published anew for customers' domains.
    domains_at: Option<Instant>,
    /// Sites that were replaced and may be in use still: many domains are freed here, never on a data thread.
    old_sites: Vec<Arc<Sites>>,
}

/// Runs the edge until its end.
pub(super) fn run(
    edge: Edge,
    config: Config,
    origin: Origin,
    ready: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    let system = |what| move |error| RunError::System(what, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("the control thread's runtime cannot start"))?;
    let ended = runtime.block_on(control(edge, config, origin, ready));
    // Whoever still waits for another program's word waits for nothing.
    runtime.shutdown_background();
    ended
}

async fn control(
    mut edge: Edge,
    config: Config,
    origin: Origin,
    ready: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    let system = |what| move |error| RunError::System(what, error);
    let mut signals = Signals::new().map_err(system("signals cannot be received"))?;
    let (commands, mut orders) = mpsc::channel(16);
    let (hand_overs, mut handed) = mpsc::channel(4);

    let (listener, admin_handed, admin_address) =
        admin_listener(&edge.admin).map_err(system("admin.listen cannot be used"))?;
    let guard = Guard {
        local: match &config.admin.listen {
            AdminAddress::Tcp(address) => address.ip().is_loopback(),
            AdminAddress::Unix(_) => true,
        },
        token: config.admin.token.as_ref().map(|token| token.expose().to_owned()),
    };
    let admin = tokio::spawn(admin::serve(listener, Arc::new(guard), Arc::clone(&edge.view), commands));
    let hand_over_path = hand_over_socket(&edge.folder.path);
    let hand_over = tokio::spawn(watch_for_take_over(hand_over_path.clone(), hand_overs.clone()));

    let addresses = Addresses {
        http: addresses_of(&edge.listeners.http),
        https: addresses_of(&edge.listeners.https),
        admin: admin_address,
    };
    for (role, all) in [("http", &addresses.http), ("https", &addresses.https)] {
        for address in all {
            tracing::info!(role, %address, "listening");
        }
    }
    tracing::info!(role = "admin", address = addresses.admin, "listening");
    let certificates_missing = edge.shared.tls.as_ref().is_some_and(|tls| !tls.is_open());
    if edge.taken_over.is_some() && certificates_missing {
        // It serves what its files held before.
        return Err(RunError::NoCertificates);
    }
    edge.phase.send_replace(Phase::Open);
    if let Some(old) = edge.taken_over.take()
        && let Err(error) = old.ready()
    {
        tracing::warn!(%error, "the program before us could not be told to end");
    }
    notify(&[NotifyState::Ready]);
    ready(&addresses);
    // Only now, for nothing but one of two programs on a folder may order, and the one before us has gone.
    let mut ordering = edge.certificates.work().map(|work| tokio::spawn(work.run()));

    let mut control = Control {
        edge,
        config,
        origin,
        admin_handed,
        hand_overs,
        ticks: 0,
        resume_due: false,
        handing_over: false,
        journal_degraded: false,
        hanging_ticks: 0,
        silences: 0,
        refused: [0; CONNECTION_CAPS.len()],
        refused_said_at: None,
        domains_at: None,
        old_sites: Vec::new(),
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let replaced = loop {
        let event = tokio::select! {
            biased;
            event = signals.next() => event,
            Some(hand_over) = handed.recv() => Event::HandOver(hand_over),
            Some((command, reply)) = orders.recv() => Event::Command(command, reply),
            () = without_end(&mut ordering) => panic!("ordering certificates panicked"),
            _ = tick.tick() => Event::Tick,
        };
        match event {
            Event::Command(command, reply) => control.carry_out(command, reply),
            Event::End(signal) => {
                tracing::info!(signal, "ending");
                break false;
            }
            Event::HandOver(HandOver::Done) => {
                tracing::info!("another program has taken over; ending");
                break true;
            }
            Event::HandOver(hand_over) => control.hand_over(hand_over),
            Event::Reload => {
                let _ = control.reload();
            }
            Event::Tick => control.tick(),
        }
    };
    hand_over.abort();
    drop(orders); // from here on commands are refused at once
    control.end(replaced, admin, &hand_over_path).await;
    Ok(())
}

/// Waits for what ends by a panic alone.
async fn without_end(task: &mut Option<tokio::task::JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

/// One socket for each data thread, one address for all.
fn addresses_of(listeners: &[std::net::TcpListener]) -> Vec<std::net::SocketAddr> {
    let mut addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Says how many domains are not served as they ask, and the first of them: a bad row, or a site that a new
/// configuration does without.
fn warn_of_refused(customers: &Customers) {
    if let Some(first) = customers.refusals.first() {
        tracing::warn!(
            refused = customers.refused,
            host = &*first.host,
            reason = &*first.reason,
            "domains are not served as they ask; see `holdfast domains list`"
        );
    }
}

impl Control {
    fn tick(&mut self) {
        let now = clock::now();
        let expiry = Expiry::beside(now, self.edge.shared.links.load().table().made_at());
        let expired = self.edge.shared.vitals.published().load().expiry;
        self.edge.shared.vitals.tick(now, expiry);
        if let (Expiry::Ignored, Expiry::Counts, Some(acme)) =
            (expired, expiry, self.edge.certificates.acme())
        {
            acme.nudge();
        }
        self.watch_database(now);
        self.take_domains();
        self.old_sites.retain(|sites| Arc::strong_count(sites) > 1);
        self.edge.certificates.tick(now);
        self.resume();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_MEASURE) {
            let share = self.config.journal.site_share.of(self.config.journal.store.bytes_max);
            self.edge.sites.measure(&self.edge.journal, share);
            self.watch_journal();
            self.watch_refusals();
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Publishes sites anew where customers' domains changed; never so often that it takes more than a tenth
    /// of the time.
    fn take_domains(&mut self) {
        let shared = Arc::clone(&self.edge.shared);
        let domains = self.edge.domains.load_full();
        let is_published = Arc::ptr_eq(&domains, &shared.sites.load().customers.domains);
        if is_published || self.domains_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let begun = Instant::now();
        let Edge { namespaces, sites: shares, looks, .. } = &mut self.edge;
        match sites::build(&self.config, namespaces, &shared.plane, shares, domains, looks) {
            Ok(sites) => {
                warn_of_refused(&sites.customers);
                self.publish(sites);
            }
            // The configuration was built before, with the same namespaces.
            Err(error) => tracing::error!(error = %chain(&error), "customers' domains cannot be taken"),
        }
        self.domains_at = Some(begun + begun.elapsed() * 10);
    }

    fn publish(&mut self, sites: Sites) {
        let old = self.edge.shared.sites.swap(Arc::new(sites));
        self.old_sites.push(old);
    }

    /// Says that connections are refused, now and then.
    fn watch_refusals(&mut self) {
        if self.refused_said_at.is_some_and(|at| at.elapsed() < REFUSALS_SAID_EVERY) {
            return;
        }
        for (said, (reason, setting)) in self.refused.iter_mut().zip(CONNECTION_CAPS) {
            let total = self.edge.shared.plane.refused(*reason);
            let refused = total - std::mem::replace(said, total);
            if refused > 0 {
                self.refused_said_at = Some(Instant::now());
                tracing::warn!(refused, limit = setting, "connections are refused; a limit is reached");
            }
        }
    }

    /// Counts a database that neither answers nor fails as one that fails.
    fn watch_database(&mut self, now: UnixMillis) {
        self.hanging_ticks = if self.edge.shared.look_ups.hangs() { self.hanging_ticks + 1 } else { 0 };
        // Twice the longest time of a statement, or between two rows: it fails by itself long before,
        // unless the system below it does not come back.
        let patience = self.config.database.timeout * 2;
        let waited = self.edge.view.links.waits_for_database(now).max(TICK * self.hanging_ticks);
        let silences = waited.as_millis() / patience.as_millis().max(1);
        if silences > self.silences && self.edge.shared.vitals.database_is_up() {
            tracing::error!(waited_s = waited.as_secs(), "the database neither answers nor fails");
            self.edge.shared.vitals.observe(policy::Signal::Failed, now);
        }
        self.silences = silences;
    }

    /// Says once when the journal cannot be written, and once when it can again.
    fn watch_journal(&mut self) {
        let state = self.edge.journal.status().state;
        let degraded = matches!(state, State::Degraded { .. });
        if std::mem::replace(&mut self.journal_degraded, degraded) == degraded {
            return;
        }
        match state {
            State::Degraded { reason, .. } => tracing::error!(
                %reason,
                "the journal cannot be written; clicks go on as `journal.when_full` says, and are not recorded until it can"
            ),
            State::Up => tracing::info!("the journal is written again"),
        }
    }

    /// Goes on after a take-over that came to nothing, as soon as the data folder is ours again.
    fn resume(&mut self) {
        let folder = &mut self.edge.folder;
        if self.resume_due && (folder.is_locked() || folder.lock().unwrap_or(false)) {
            self.edge.sink_orders.pause(false);
            if let Some(acme) = self.edge.certificates.acme() {
                acme.resume();
            }
            self.resume_due = self.edge.follow_events.try_send(follow::Event::Resume).is_err();
        }
    }

    /// Does what is asked; what another thread has to answer is waited for elsewhere.
    fn carry_out(&mut self, command: Command, reply: oneshot::Sender<Reply>) {
        // Whoever asked may have gone away.
        match command {
            Command::AcceptLoad => {
                let follow = self.edge.follow_events.clone();
                tokio::task::spawn_blocking(move || reply.send(accept(&follow)));
            }
            Command::Adopt(order) => {
                let orders = Arc::clone(&self.edge.sink_orders);
                tokio::task::spawn_blocking(move || reply.send(adopt(&orders, &order)));
            }
            Command::Certificates(action) => self.edge.certificates.carry_out(action, reply),
            command => {
                let _ = reply.send(self.change(command));
            }
        }
    }

    fn change(&mut self, command: Command) -> Reply {
        let now = clock::now();
        match command {
            Command::Reload => self.reload(),
            Command::BeginWindow { of, until, reason } => {
                let part = part(&of)?;
                let active = self
                    .edge
                    .shared
                    .vitals
                    .begin(part, until, &reason, now)
                    .map_err(|error| chain(&error))?;
                Ok(json!({ "of": of, "until_ms": active.until.0, "reason": active.reason.as_ref() }))
            }
            Command::EndWindow { of } => {
                let part = part(&of)?;
                self.edge.shared.vitals.end(part, now).map_err(|error| chain(&error))?;
                Ok(json!({ "of": of, "ended": true }))
            }
            Command::AcceptLoad | Command::Adopt(_) | Command::Certificates(_) => {
                unreachable!("answered by another thread")
            }
        }
    }

    /// Applies a new configuration whole, or keeps the old one and says why.
    fn reload(&mut self) -> Reply {
        let started = [
            NotifyState::Reloading,
            NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Status("reloading")),
        ];
        notify(&started);
        let outcome = config::reload(&self.origin.file, &self.origin.environment, &self.config)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            .and_then(|config| self.apply(config));
        let reloads = &self.edge.view.reloads;
        notify(&[NotifyState::Ready]);
        match outcome {
            Ok(()) => {
                reloads.applied.fetch_add(1, Relaxed);
                reloads.applied_at_ms.store(clock::now().0, Relaxed);
                reloads.last_refused.store(false, Relaxed);
                tracing::info!("the new configuration is in effect");
                Ok(json!({ "reloaded": true }))
            }
            Err(why) => {
                reloads.refused.fetch_add(1, Relaxed);
                reloads.last_refused.store(true, Relaxed);
                tracing::error!(
                    faults = why,
                    "the new configuration is refused; the old configuration goes on"
                );
                Err(format!("the new configuration is refused, the old one goes on:\n{why}"))
            }
        }
    }

    fn apply(&mut self, config: Config) -> Result<(), String> {
        let shared = &self.edge.shared;
        let mut shares = self.edge.sites.clone();
        let mut looks = sites::Looks::default(); // of the new configuration
        let domains = self.edge.domains.load_full();
        let sites =
            sites::build(&config, &self.edge.namespaces, &shared.plane, &mut shares, domains, &mut looks)
                .map_err(|error| chain(&error))?;
        let follow = config.links.follow.clone();
        self.edge
            .follow_events
            .try_send(follow::Event::Configure(Box::new(follow.clone())))
            .map_err(|_| "the follower is busy; try again".to_owned())?;
        self.edge.follow_config.store(Arc::new(follow));
        shared.vitals.reload(config.windows.clone());
        shared.limits.store(Arc::new(limits(&config)));
        warn_of_refused(&sites.customers);
        self.publish(sites);
        let shared = &self.edge.shared;
        self.edge.sites = shares;
        self.edge.looks = looks;
        let database = &config.database;
        let kind = database.source.kind();
        self.edge.journal.declare_sinks(&[kind.to_owned()]);
        self.edge.view.sinks.iter().for_each(|board| *locked(&board.name) = kind);
        self.edge.sink_orders.configure(super::sink::Settings {
            pump: config.deliver.pump.clone(),
            sink: DatabaseSink::new(database.source.clone(), database.timeout, database.migrate),
            every: config.deliver.every,
        });
        shared.gate.limit(connections_max(&config), config.limits.connections_per_source);
        shared.budgets.store(Arc::new(budgets(&config)));
        self.edge.certificates.configure(&config);
        self.config = config;
        Ok(())
    }

    fn hand_over(&mut self, step: HandOver) {
        match step {
            // One at a time; the line of the other one is closed.
            HandOver::Asked(_) if self.handing_over => {}
            HandOver::Asked(stream) => {
                self.handing_over = true;
                self.resume_due = false;
                let (follow, hand_overs) = (self.edge.follow_events.clone(), self.hand_overs.clone());
                let acme = self.edge.certificates.acme().cloned();
                tokio::spawn(async move {
                    if let Some(acme) = acme {
                        acme.rest().await;
                    }
                    tokio::task::spawn_blocking(move || {
                        let (reply, rested) = sync_channel(1);
                        let rests = follow.send(follow::Event::Pause(reply)).is_ok()
                            && rested.recv_timeout(PAUSE_WAIT).is_ok();
                        // The control thread may be ending for another reason.
                        let _ = hand_overs.blocking_send(HandOver::Rested(stream, rests));
                    });
                });
            }
            HandOver::Rested(_, false) => {
                // Nothing was given away yet: the other program finds its line closed.
                tracing::error!(
                    "another program asked to take over, but the links could not be let go in time"
                );
                self.handing_over = false;
                self.resume_due = true;
            }
            HandOver::Rested(stream, true) => {
                self.edge.sink_orders.pause(true);
                self.edge.folder.unlock();
                let super::Listeners { http, https } = &self.edge.listeners;
                match sockets::send(&stream, http, https, self.admin_handed.as_ref()) {
                    Ok(()) => {
                        tracing::info!("another program takes over: it has the listeners");
                        let hand_overs = self.hand_overs.clone();
                        tokio::task::spawn_blocking(move || {
                            let mut stream = stream;
                            let step = match sockets::confirmed(&mut stream, HAND_OVER_WAIT) {
                                Ok(true) => HandOver::Done,
                                Ok(false) | Err(_) => HandOver::Failed,
                            };
                            // The control thread may be ending for another reason.
                            let _ = hand_overs.blocking_send(step);
                        });
                    }
                    Err(_) => self.hand_over(HandOver::Failed),
                }
            }
            HandOver::Failed => {
                tracing::error!(
                    "the other program did not take over; this one goes on once the data folder is free"
                );
                self.handing_over = false;
                self.resume_due = true;
            }
            HandOver::Done => {}
        }
    }

    /// Two phases, then the parts in order, then a hard end.
    async fn end(self, replaced: bool, admin: tokio::task::JoinHandle<()>, hand_over_path: &std::path::Path) {
        let Self { edge, config, admin_handed, .. } = self;
        notify(&[NotifyState::Stopping]);
        edge.view.draining.store(true, Relaxed);
        let begun = Instant::now();
        if replaced {
            // The other program answers on these sockets now.
            admin.abort();
            drop(admin_handed);
        } else if edge.folder.is_locked() {
            let _ = std::fs::remove_file(hand_over_path);
        }
        edge.shared.handed_over.store(replaced, Relaxed);
        edge.phase.send_replace(if replaced { Phase::HandedOver } else { Phase::Closing });
        let patience = config.listen.drain_min;
        while begun.elapsed() < patience && (!replaced || edge.shared.plane.connections() > 0) {
            sleep(Duration::from_millis(10)).await;
        }
        edge.phase.send_replace(Phase::Ending);
        drop(edge.listeners);
        let rest = config.listen.drain_max.saturating_sub(begun.elapsed());
        let Edge { threads, journal, sink_orders, follow_events, .. } = edge;
        // The admin listener goes on meanwhile: people look at an edge that does not end.
        let ending = move || threads.end(rest, &journal, &sink_orders, &follow_events);
        if !tokio::task::spawn_blocking(ending).await.unwrap_or(false) {
            tracing::warn!(
                "some connections or parts did not end in time; what was promised is in the journal"
            );
        }
        tracing::info!("ended");
    }
}

/// Lets the held load through; blocks for at most [`PART_WAIT`].
fn accept(follow: &std::sync::mpsc::SyncSender<follow::Event>) -> Reply {
    let (reply, answer) = sync_channel(1);
    follow
        .try_send(follow::Event::Accept(reply))
        .map_err(|_| "the follower is busy; try again".to_owned())?;
    match answer.recv_timeout(PART_WAIT) {
        Ok(Ok(held)) => {
            Ok(json!({ "accepted": { "newly_absent": held.newly_absent, "forgotten": held.forgotten } }))
        }
        Ok(Err(follow::NothingHeld)) => Err("no load is held back".to_owned()),
        Err(_) => Err("the follower gave no answer; look at `holdfast status`".to_owned()),
    }
}

/// Tells the pump where to go on; blocks as [`super::sink::Orders::adopt`] does.
fn adopt(orders: &super::sink::Orders, adopt: &Adopt) -> Reply {
    let from = match adopt.from.as_str() {
        "oldest" => AdoptFrom::Oldest,
        "now" => AdoptFrom::Now,
        number => match number.parse() {
            Ok(sequence) => AdoptFrom::Sequence(Sequence(sequence)),
            Err(_) => return Err(format!("from is \"{number}\"; allowed: oldest, now, or a sequence")),
        },
    };
    let journal = match &adopt.journal {
        None => None,
        Some(id) => Some(id.parse().map_err(|_| format!("\"{id}\" is no journal id"))?),
    };
    let adopted = orders.adopt(from, journal)?;
    let adopted: Vec<_> =
        adopted.iter().map(|(id, after)| json!({ "journal": id.to_string(), "after": after.0 })).collect();
    Ok(json!({ "adopted": adopted }))
}

fn part(of: &str) -> Result<Part, String> {
    match of {
        "database" => Ok(Part::Database),
        other => Err(format!("\"{other}\" has no windows; allowed: database")),
    }
}

async fn watch_for_take_over(path: PathBuf, hand_overs: mpsc::Sender<HandOver>) {
    // A file of an edge that was killed is in the way; the folder's lock says that it is not running.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "nobody can take over from this edge");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asked = stream.into_std().and_then(|stream| {
            stream.set_nonblocking(false)?;
            Ok(stream)
        });
        let Ok(mut stream) = asked else { continue };
        let answer =
            tokio::task::spawn_blocking(move || Ok::<_, io::Error>((sockets::asked(&mut stream)?, stream)))
                .await;
        if let Ok(Ok((true, stream))) = answer
            && hand_overs.send(HandOver::Asked(stream)).await.is_err()
        {
            return;
        }
    }
}

fn admin_listener(
    admin: &AdminListener,
) -> io::Result<(admin::Listener, Option<std::net::TcpListener>, String)> {
    match admin {
        AdminListener::Tcp(listener) => {
            let address = listener.local_addr()?.to_string();
            let kept = listener.try_clone()?;
            let own = listener.try_clone()?;
            own.set_nonblocking(true)?;
            Ok((admin::Listener::Tcp(tokio::net::TcpListener::from_std(own)?), Some(kept), address))
        }
        AdminListener::Unix(path) => {
            let _ = std::fs::remove_file(path);
            Ok((admin::Listener::Unix(UnixListener::bind(path)?), None, format!("unix:{}", path.display())))
        }
    }
}

struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hang_up.recv() => Event::Reload,
            _ = self.interrupt.recv() => Event::End("SIGINT"),
            _ = self.terminate.recv() => Event::End("SIGTERM"),
        }
    }
}

/// Tells systemd, where there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

impl super::Threads {
    /// Ends the threads in order; false when one did not end in time.
    fn end(
        self,
        rest: Duration,
        journal: &crate::journal::Journal,
        sink: &super::sink::Orders,
        follow: &std::sync::mpsc::SyncSender<follow::Event>,
    ) -> bool {
        let mut ended = true;
        let deadline = Instant::now() + rest;
        for thread in self.data {
            ended &= join_within(thread, deadline.saturating_duration_since(Instant::now()));
        }
        journal.stop();
        ended &= self.committer.is_none_or(|thread| join_within(thread, PART_WAIT));
        sink.stop();
        ended &= self.sink.is_none_or(|thread| join_within(thread, PART_WAIT));
        self.mill_stop.store(true, Relaxed);
        ended &= self.mill.is_none_or(|thread| join_within(thread, PART_WAIT));
        // A follower that is gone needs no telling.
        let _ = follow.try_send(follow::Event::Stop);
        ended & self.follower.is_none_or(|thread| join_within(thread, PART_WAIT))
    }
}
