//! Certificates by ACME (RFC 8555): ordered ahead, on demand and in time for their end.
//!
//! [`start`] reads what is stored, without network, and gives two ends: [`Acme`] is asked and told things
//! by everybody, [`Work`] does the work on a control thread.
//!
//! ```text
//!   wanted names ──┐                      ┌─▶ order ─▶ authority        (acme/order, acme/account)
//!   handshakes  ───┼─▶ plan, pure ─▶ work ┼─▶ ask address               (acme/ask)
//!   stored records ┘  (acme/plan, gate)   └─▶ storage, index, other edges
//! ```
//!
//! Invariants:
//! - What is stored is served at once at the next start, whatever is down.
//! - Nothing is ordered, stored or asked of an authority for a name that nobody permits: only the
//!   configuration, the snapshot or the `ask` address can make a name known.
//! - A failure never takes a certificate away, and a chain is served only if it is for the ordered
//!   name and the key that was made for it.
//! - Every wait has a bound, and everything that grows with what strangers send has one, too.
//! - The clock is an argument; nothing here starts a thread or writes a log.
//! - Private keys are overwritten in memory when they are dropped, as far as they are ours; the TLS
//!   and ACME libraries hold copies in their own types. They are in no text that is made here.
//!
//! It deliberately does not order wildcards, does not revoke, and has one authority.

mod account;
mod answers;
mod ask;
mod config;
mod event;
mod failure;
mod gate;
mod http;
mod lent;
mod limit;
mod load;
mod lock;
mod name;
mod order;
mod plan;
mod record;
mod seal;
mod storage;
mod work;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

use crate::{ClientFault, Issued, UnixSeconds, Verify};
use account::Accounts;
use answers::Answers;
use ask::Asking;
use gate::Pass;
use http::Http;
use lent::Lent;
use load::{entry, load};
use plan::{Demand, Held, Plan};
use record::{Origin, Record};

pub use answers::{ALPN, Challenge};
pub use config::{Ask, Authority, Binding, Config, Way};
pub use event::{AccountChange, Answer, Event, Kept};
pub use limit::Rate;
pub use lock::{LockFault, OrderLock, Taken, Waiting};
pub use name::{Name, NameFault};
pub use plan::{Blame, Bounds, Listed, Status};
pub use record::Damage;
pub use storage::{Folder, Storage};
pub use work::Work;

/// Handshakes that wait for a certificate at the same time.
const SEATS: usize = 1024;
impl UnixSeconds {
    pub(crate) fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// What is given to [`start`] from outside.
pub struct Parts {
    /// Where account and certificates are kept.
    pub storage: Arc<dyn Storage>,
    /// Where certificates are served from: [`crate::Store::issued`].
    pub issued: Issued,
    /// What keeps several edges from ordering the same; a single one needs none.
    pub lock: Option<Arc<dyn OrderLock>>,
    /// Whether the configuration or the snapshot has a name; it must not wait.
    pub known: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// The time.
    pub clock: Arc<dyn Fn() -> UnixSeconds + Send + Sync>,
    /// Told of everything that happens, from [`Work`]; it must not wait.
    pub events: Arc<dyn Fn(&Event) + Send + Sync>,
    /// Spreads what is left to chance; another one on each edge.
    pub seed: u64,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("issued", &self.issued).finish_non_exhaustive()
    }
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartFault {
    /// The `ask` address is none.
    AskAddress,
    /// The key of the account binding is not Base64.
    Binding,
    /// The storage can't be read at all.
    Storage(io::Error),
    /// TLS to the authority or to the `ask` address can't be set up.
    Tls(ClientFault),
    /// TLS for proofs can't be set up.
    Proofs(rustls::Error),
    /// There is no way to prove a name.
    Wayless,
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AskAddress => "the address to ask is none",
            Self::Binding => "the key of the account binding is not Base64 for URLs",
            Self::Storage(_) => "the stored certificates can't be read",
            Self::Tls(_) => "TLS to the authority can't be set up",
            Self::Proofs(_) => "TLS for proofs can't be set up",
            Self::Wayless => "no way to prove names is allowed",
        })
    }
}

impl std::error::Error for StartFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::AskAddress | Self::Binding | Self::Wayless => None,
            Self::Storage(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Proofs(error) => Some(error),
        }
    }
}

/// Reads what is stored and serves it; orders nothing before [`Work::run`] runs.
///
/// # Blocking
/// Reads every record; not for a data thread. Touches no network.
///
/// # Errors
/// [`StartFault`]. A record or an account that can't be used is none: it is set aside and told as
/// [`Event::Fault`].
pub fn start(config: Config, mut parts: Parts) -> Result<(Acme, Work), StartFault> {
    if config.ways.is_empty() {
        return Err(StartFault::Wayless);
    }
    let tls = crate::client(Verify::Name, &config.authority.roots).map_err(StartFault::Tls)?;
    let http = Http::new(Arc::clone(&tls), config.request_deadline);
    let ask = config.ask.as_ref().map(|ask| Asking::new(ask, tls)).transpose()?;
    let answers = Arc::new(Answers::default());
    let proofs = answers::configuration(Arc::clone(&answers)).map_err(StartFault::Proofs)?;

    let lent = Arc::new(Lent::new(parts.storage));
    parts.storage = Arc::clone(&lent) as _;
    let now = (parts.clock)();
    let mut plan = Plan::new(config.bounds, ask.is_some(), parts.seed);
    let loaded = load(&config.authority.directory, &parts, now).map_err(StartFault::Storage)?;
    plan.restore(loaded.held, now);
    parts.issued.put(loaded.pairs, now);

    let (authority, storage) = (config.authority.clone(), Arc::clone(&parts.storage));
    let accounts = Accounts::new(authority, http, storage, Arc::clone(&answers), loaded.account);
    let shared = Arc::new(Shared {
        config,
        parts,
        plan: Mutex::new(plan),
        answers,
        proofs,
        accounts,
        ask,
        to_ask: Mutex::new(Vec::new()),
        unsaved: Mutex::default(),
        nudge: Notify::new(),
        changed: Notify::new(),
        seats: Semaphore::new(SEATS),
        lent,
        rests: AtomicBool::new(false),
    });
    Ok((Acme { shared: Arc::clone(&shared) }, Work::new(shared)))
}

/// Key and chain of a name, out of a storage that may be in use; none when there is none.
///
/// # Blocking
/// Waits for the storage.
///
/// # Errors
/// The record can't be read, or is damaged.
pub fn export(storage: &dyn Storage, name: &str) -> io::Result<Option<Exported>> {
    let Ok(name) = Name::parse(name) else { return Ok(None) };
    let Some(bytes) = storage.read(&entry(&name))? else { return Ok(None) };
    let record =
        Record::decode(&bytes).map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage))?;
    let (key, chain) = record.into_pem();
    Ok(Some(Exported { key, chain }))
}

/// A certificate for use elsewhere.
pub struct Exported {
    /// The private key, in PEM.
    pub key: Zeroizing<String>,
    /// The certificate with its issuers, in PEM.
    pub chain: String,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Exported").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// What both ends share.
struct Shared {
    config: Config,
    parts: Parts,
    /// Taken for a look-up or one decision at a time; `list` holds it longest, for some milliseconds
    /// with ten thousand names.
    plan: Mutex<Plan>,
    answers: Arc<Answers>,
    proofs: Arc<ServerConfig>,
    accounts: Accounts,
    ask: Option<Asking>,
    /// Names to ask about; bounded by the plan's gate.
    to_ask: Mutex<Vec<Name>>,
    /// Records that the storage did not take; as many as there are names at most.
    unsaved: Mutex<HashMap<Name, Arc<Zeroizing<Vec<u8>>>>>,
    /// There may be something to do.
    nudge: Notify,
    /// Something has ended.
    changed: Notify,
    seats: Semaphore,
    /// The same as the storage of `parts`.
    lent: Arc<Lent>,
    /// Nothing is to be done for now.
    rests: AtomicBool,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> UnixSeconds {
        (self.parts.clock)()
    }

    fn unsaved(&self) -> MutexGuard<'_, HashMap<Name, Arc<Zeroizing<Vec<u8>>>>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &Event) {
        (self.parts.events)(event);
    }
}

/// The end for everybody; cheap to clone.
#[derive(Clone)]
pub struct Acme {
    shared: Arc<Shared>,
}

impl Acme {
    /// Replaces the names that are to have certificates without anybody demanding them: those of the
    /// configuration, and those of the customers once they are known. Texts that can't have one are
    /// given back with the reason. Certificates of names that are gone are served to their end, and so are
    /// those of names that were demanded once and that `is_covered` by another certificate now.
    pub fn wanted<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        is_covered: impl Fn(&str) -> bool,
    ) -> Vec<(String, NameFault)> {
        let mut faults = Vec::new();
        let mut wanted = HashSet::new();
        for text in names {
            match Name::parse(text) {
                Ok(name) => {
                    wanted.insert(name);
                }
                Err(fault) => faults.push((text.to_owned(), fault)),
            }
        }
        self.shared.plan().wanted(wanted, is_covered, self.shared.now());
        self.shared.nudge.notify_one();
        faults
    }

    /// Waits until a name has a certificate, for a handshake that has found none. Orders it if
    /// somebody permits the name.
    ///
    /// It takes `demand_wait` at most; 1024 handshakes wait at once.
    ///
    /// # Cancel safety
    /// May be dropped; what was asked and ordered goes on.
    pub async fn demand(&self, host: &str) -> Demanded {
        let Ok(name) = Name::parse(host) else { return Demanded::NotAName };
        let Ok(_seat) = self.shared.seats.try_acquire() else { return Demanded::Busy };
        let wait = self.shared.config.demand_wait;
        tokio::time::timeout(wait, self.demanded(&name)).await.unwrap_or(Demanded::Late)
    }

    async fn demanded(&self, name: &Name) -> Demanded {
        let shared = &self.shared;
        let known = (shared.parts.known)(name.as_str());
        let mut first = true;
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            // From here on no end is missed, whatever thread it comes from.
            changed.as_mut().enable();
            if shared.rests.load(Relaxed) {
                return Demanded::Busy;
            }
            let now = shared.now();
            let demand =
                if first { shared.plan().demand(name, known, now) } else { shared.plan().look(name, now) };
            // A name that must wait for a rate is not let in before.
            first = matches!(demand, Demand::Later { .. });
            let mut wait = None;
            match demand {
                Demand::Held => return Demanded::Ready,
                Demand::Joined => shared.nudge.notify_one(),
                // What will be tried again so soon is worth the wait.
                Demand::Later { until } if until.0 - now.0 <= 5 => {
                    wait = Some(Duration::from_secs((until.0 - now.0).unsigned_abs().max(1)));
                }
                Demand::Later { until } => return Demanded::Later { until },
                Demand::Full | Demand::Unknown(Pass::Busy) => return Demanded::Busy,
                Demand::Unknown(Pass::Ask) => {
                    shared.to_ask.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
                    shared.nudge.notify_one();
                }
                Demand::Unknown(Pass::Asked) => {}
                Demand::Unknown(Pass::Down { .. }) => return Demanded::NoAnswer,
                Demand::Unknown(Pass::Later { until }) => return Demanded::Later { until },
                Demand::Unknown(Pass::Nobody | Pass::Refused { .. }) => return Demanded::Refused,
            }
            match wait {
                // Nothing need end until then, and nobody else would wake it.
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// The body for `/.well-known/acme-challenge/{token}`, as `application/octet-stream`; none for what
    /// is no token, and before there is an account.
    #[must_use]
    pub fn http01(&self, token: &str) -> Option<String> {
        self.shared.answers.http01(token)
    }

    /// The certificate that proves a name, to be shown to clients that offer [`ALPN`] and nothing else.
    #[must_use]
    pub fn alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.shared.answers.alpn(name)
    }

    /// What to do with a handshake, by its first message. Costs a comparison for everybody but
    /// authorities.
    #[must_use]
    pub fn challenge(&self, hello: &ClientHello<'_>) -> Challenge {
        if !answers::is_check(hello) {
            return Challenge::None;
        }
        match hello.server_name().and_then(|name| self.alpn(name)) {
            Some(_) => Challenge::Answer(Arc::clone(&self.shared.proofs)),
            None => Challenge::Unexpected,
        }
    }

    /// Orders a name's certificate now, whatever was fixed or failed before; false when nobody may
    /// have it. Limits and a pause of the authority still hold.
    #[must_use]
    pub fn renew(&self, name: &str) -> bool {
        let Ok(name) = Name::parse(name) else { return false };
        let done = self.shared.plan().renew(&name, self.shared.now());
        self.shared.nudge.notify_one();
        done
    }

    /// Every name with what is known of it, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        self.shared.plan().list()
    }

    /// Counts for metrics.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.plan().status(self.shared.now())
    }

    /// Stores and serves a key with its chain, in PEM, as [`export`] gives them: a key in PKCS#8 and
    /// a certificate for one name. It is renewed when its time comes if configuration or snapshot know the name.
    ///
    /// # Blocking
    /// Waits for the storage.
    ///
    /// # Errors
    /// [`ImportFault`]; nothing is changed then.
    pub fn import(&self, pem: &str) -> Result<Name, ImportFault> {
        let (mut record, served) = Record::imported(pem).map_err(ImportFault::Damaged)?;
        let now = self.shared.now();
        let name = record.name.clone();
        let (from, until) = (served.pair.chain.from, served.pair.chain.until);
        let held_until = self.shared.plan().held(name.as_str()).map(|held| held.until);
        let held_until = held_until.filter(|&held| now <= held);
        if !served.pair.chain.covers(now) || held_until.is_some_and(|held| until < held) {
            let held_until = held_until.filter(|_| served.pair.chain.covers(now));
            return Err(ImportFault::Worse { held_until, from, until });
        }
        let renew_at =
            plan::renewal(served.pair.chain.from, served.pair.chain.until, self.shared.parts.seed, &name);
        record.renew_at = renew_at;
        record.directory.clone_from(&self.shared.config.authority.directory);
        let is_known = (self.shared.parts.known)(name.as_str());
        let demanded = is_known && !self.shared.plan().is_wanted(name.as_str());
        record.origin = if demanded { Origin::Demanded } else { Origin::Wanted };
        self.shared.parts.storage.write(&entry(&name), &record.encode()).map_err(ImportFault::Storage)?;
        // Whether this authority issued it is not known, so it is not asked for a renewal window.
        let held = Held { from, until, renew_at, id: None };
        self.shared.parts.issued.put(vec![(name.as_str().into(), served.pair)], now);
        self.shared.plan().imported(&name, held, demanded, now);
        self.shared.changed.notify_waiters();
        self.shared.nudge.notify_one();
        Ok(name)
    }

    /// Gives the account a new key at the authority. Other edges with the same account need the new
    /// one, too: its file in the storage is to be copied to them.
    ///
    /// # Cancel safety
    /// Dropped in the moment between the authority's answer and the disk, the account is lost, and the
    /// next order makes a new one.
    ///
    /// # Errors
    /// In words: the authority refuses or can't be reached, or the new key can't be stored.
    pub async fn change_account_key(&self) -> Result<(), String> {
        let deadline = self.shared.config.order_deadline;
        let rolled = tokio::time::timeout(deadline, self.shared.accounts.roll()).await;
        let late = |_| format!("the authority took longer than {} s", deadline.as_secs());
        rolled.map_err(late)?.map_err(|failure| failure.why)?;
        self.shared.tell(&Event::Account(AccountChange::KeyChanged));
        Ok(())
    }

    /// Ends the orders under way, begins no more, and writes nothing from its end on: another process is
    /// about to use the same storage. What is there is served on. Orders that are ended so count as waits.
    ///
    /// # Cancel safety
    /// Dropped, it may have let go already; [`Self::resume`] takes up everything in any case.
    pub async fn rest(&self) {
        self.shared.rests.store(true, Relaxed);
        self.shared.changed.notify_waiters();
        self.shared.nudge.notify_one();
        let lent = Arc::clone(&self.shared.lent);
        // It waits for the disk, and cannot panic.
        let _ = tokio::task::spawn_blocking(move || lent.let_go()).await;
    }

    /// The end of [`Self::rest`]: the other process came to nothing.
    ///
    /// # Blocking
    /// For a moment, if something is just being written.
    pub fn resume(&self) {
        self.shared.lent.take_back();
        self.shared.rests.store(false, Relaxed);
        self.shared.nudge.notify_one();
    }

    /// Looks at the clock again, which may have been set.
    pub fn nudge(&self) {
        self.shared.nudge.notify_one();
    }
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").field("status", &self.status()).finish()
    }
}

/// How the wait for a certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demanded {
    /// Too many handshakes wait, or too many names are there by demand, or another process takes over.
    Busy,
    /// It did not come in time; it may still come.
    Late,
    /// It can't be ordered before then.
    Later {
        /// When it is tried again.
        until: UnixSeconds,
    },
    /// Nobody said in time whether the name may have one.
    NoAnswer,
    /// It is no host name that could have one.
    NotAName,
    /// It is there.
    Ready,
    /// The name may have none.
    Refused,
}

/// Why a certificate was not taken in.
#[derive(Debug)]
pub enum ImportFault {
    /// What is given can't be served.
    Damaged(Damage),
    /// Its dates do not hold now, or it ends before the one that is served.
    Worse {
        /// What is served, if anything is, to its end.
        held_until: Option<UnixSeconds>,
        /// From when the given one is good.
        from: UnixSeconds,
        /// Until when.
        until: UnixSeconds,
    },
    /// It can't be stored.
    Storage(io::Error),
}

impl fmt::Display for ImportFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worse { held_until: None, from, until } => {
                write!(
                    f,
                    "its dates do not hold now: it is good from {} to {}, in unix seconds",
                    from.0, until.0
                )
            }
            Self::Worse { held_until: Some(held), until, .. } => write!(
                f,
                "it ends before the one that is there: at {} and at {}, in unix seconds",
                until.0, held.0
            ),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Storage(_) => f.write_str("it can't be stored"),
        }
    }
}

impl std::error::Error for ImportFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Damaged(_) | Self::Worse { .. } => None,
            Self::Storage(error) => Some(error),
        }
    }
}
