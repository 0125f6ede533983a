//! Certificates of many names, read from a folder of PEM files and swapped under running handshakes.
//!
//! [`watch`] gives the two ends of one index: the [`Store`] writes it, the [`Resolver`] reads it
//! with one atomic load per handshake.
//!
//! A [`Server`] makes TLS connections with it, [`tickets()`] the keys by which returning clients are
//! known again.
//!
//! Invariants:
//! - What is served is always a key with the chain that belongs to it; both change in one swap.
//! - A fault never takes a certificate away: the earlier pair stays until a better one is there, or
//!   until its file is removed on purpose.
//! - A name that no certificate covers gets none, which ends the handshake with an alert, unless a
//!   default is configured.
//! - The clock is an argument; nothing here starts a thread or writes a log.
//!
//! Certificates that [`acme`] orders go into the same index by [`Store::issued`].
//!
//! For connections that we open ourselves, [`client()`] gives a TLS configuration.
//!
//! It deliberately does not watch the folder by itself: who owns the [`Store`] decides when to
//! reload, for a writer may be half done with key and chain when a file system event arrives.

#![forbid(unsafe_code)]

pub mod acme;
mod chain;
mod client;
mod fault;
mod folder;
mod index;
mod key;
mod pair;
mod publish;
mod server;
mod tickets;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use client::{ClientFault, Roots, Verify, client};
pub use fault::{Consequence, Fault, Problem};
pub use key::KeyType;
pub use pair::Certificate;
pub use publish::Issued;
pub use server::{Ended, Hello, Protocol, Secured, Server, Stream};
pub use tickets::{Secret, TICKET_LIFETIME_S, TicketKeys, Ticketer, tickets};
pub use wire::Wire;

use folder::Folder;
use pair::Pair;
use publish::Published;

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A folder of PEM files under any names: keys, chains, or both in one file. A chain finds its
    /// key by the public key. Hidden files and subfolders are left alone. `None` has no files: what
    /// there is is issued.
    pub folder: Option<PathBuf>,
    /// The name whose certificate is shown to clients that ask for none, or for one that no
    /// certificate covers; `None` refuses them.
    pub default: Option<String>,
}

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

/// The two ends of one index; it is empty until the first [`Store::reload`].
#[must_use]
pub fn watch(config: Config) -> (Store, Resolver) {
    let published = Arc::new(Published::default());
    let store = Store {
        config,
        folder: Folder::default(),
        pairs: BTreeMap::new(),
        faults: Vec::new(),
        taken: None,
        listing: Arc::new([]),
        published: Arc::clone(&published),
    };
    (store, Resolver { published })
}

/// The writing end: reads the folder and publishes what it finds.
pub struct Store {
    config: Config,
    folder: Folder,
    /// By the file that holds the chain.
    pairs: BTreeMap<PathBuf, Arc<Pair>>,
    /// What was wrong with files when they were read last.
    faults: Vec<Fault>,
    taken: Option<Taken>,
    listing: Arc<[Certificate]>,
    published: Arc<Published>,
}

/// For how long what was published is what would be published again.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: UnixSeconds,
    /// When a date begins or ends to cover the time.
    until: UnixSeconds,
    /// Keys that were in use before anything else was have not been verified yet.
    is_hasty: bool,
}

impl Store {
    /// The end for certificates that are issued while this runs.
    #[must_use]
    pub fn issued(&self) -> Issued {
        Issued(Arc::clone(&self.published))
    }

    /// Reads what has changed in the folder and publishes the outcome in one swap.
    ///
    /// The first time, keys are taken at their files' word, so that ten thousand are ready within a
    /// second; the next call verifies them.
    ///
    /// # Blocking
    /// Looks at every file of the folder and reads those that are new or changed; not for a data
    /// thread.
    pub fn reload(&mut self, now: UnixSeconds) -> Report {
        let read = match &self.config.folder {
            Some(folder) => self.folder.read(folder, now),
            None => Ok(false),
        };
        let is_stale = self.taken.is_none_or(|taken| taken.is_hasty || now < taken.at || now >= taken.until)
            || self.published.has_turned(now);
        let mut unread = None;
        let changed = match read {
            Ok(changed) => changed || is_stale,
            Err(problem) => {
                let consequence = Consequence::of_failure(!self.pairs.is_empty());
                self.faults.retain(|fault| !matches!(fault.problem, Problem::Emptied));
                unread = Some(Fault { file: self.place(), problem, consequence });
                false
            }
        };
        if changed {
            self.take(now);
        }
        let mut faults = self.faults.clone();
        faults.extend(unread);
        for (file, pair) in &self.pairs {
            let chain = &pair.chain;
            if !chain.covers(now) {
                let problem = Problem::Dates { from: chain.from, until: chain.until };
                faults.push(Fault { file: file.clone(), problem, consequence: Consequence::Served });
            }
        }
        if let Some(name) = self.config.default.as_deref()
            && self.published.index.load().default_name().is_none()
        {
            let problem = Problem::Default { name: name.into() };
            faults.push(Fault { file: self.place(), problem, consequence: Consequence::DefaultRefused });
        }
        Report {
            certificates: self.pairs.len(),
            names: self.published.index.load().names(),
            ends_first: self.pairs.values().map(|pair| pair.chain.until).min(),
            faults,
            listing: Arc::clone(&self.listing),
        }
    }

    /// Uses other settings from the next [`Self::reload`] on; what is served stays until then.
    pub fn configure(&mut self, config: Config) {
        if config == self.config {
            return;
        }
        if config.folder != self.config.folder {
            self.folder = Folder::default();
        }
        self.config = config;
        self.taken = None;
    }

    /// What is at fault when no single file is.
    fn place(&self) -> PathBuf {
        self.config.folder.clone().unwrap_or_else(|| "(no folder)".into())
    }

    /// Holds what the folder holds against what is served, and publishes the better of the two.
    fn take(&mut self, now: UnixSeconds) {
        let found = self.folder.found();
        let is_hasty = self.pairs.is_empty();
        self.faults.clear();
        if let Some(folder) = &self.config.folder
            && found.is_empty()
            && !self.pairs.is_empty()
        {
            // A volume that is not mounted looks like this; nobody removes every certificate at once.
            self.faults.push(Fault {
                file: folder.clone(),
                problem: Problem::Emptied,
                consequence: Consequence::EarlierKept,
            });
        } else {
            self.faults = found.faults;
            let mut pairs = BTreeMap::new();
            for (file, chain) in found.chains {
                let earlier = self.pairs.remove(&file).filter(|earlier| earlier.key.verify().is_ok());
                let is_mixed = chain.as_ref().is_ok_and(|chain| chain.is_mixed);
                let (pair, problem) = choose(chain, earlier, &found.keys, is_hasty, now);
                if let Some((problem, consequence)) = problem {
                    self.faults.push(Fault { file: file.clone(), problem, consequence });
                } else if is_mixed && pair.is_some() {
                    let (file, problem) = (file.clone(), Problem::Stray);
                    self.faults.push(Fault { file, problem, consequence: Consequence::Served });
                }
                if let Some(pair) = pair {
                    pairs.insert(file, pair);
                }
            }
            self.pairs = pairs;
        }
        let files = self.pairs.values().cloned().collect();
        self.published.files(files, self.config.default.as_deref(), now);
        let certificate =
            |(file, pair): (&PathBuf, &Arc<Pair>)| Certificate { file: file.clone(), pair: Arc::clone(pair) };
        self.listing = self.pairs.iter().map(certificate).collect();
        self.taken = Some(Taken { at: now, until: self.next_date(now), is_hasty });
    }

    /// When a date of what is in the folder or served is reached next.
    fn next_date(&self, now: UnixSeconds) -> UnixSeconds {
        let found = self.folder.found();
        let in_folder = found.chains.values().filter_map(|chain| chain.as_ref().ok());
        let served = self.pairs.values().map(|pair| &pair.chain);
        let dates = in_folder.chain(served).flat_map(|chain| [chain.from, UnixSeconds(chain.until.0 + 1)]);
        dates.filter(|&date| date > now).min().unwrap_or(UnixSeconds(i64::MAX))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("config", &self.config)
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}

type Chosen = (Option<Arc<Pair>>, Option<(Problem, Consequence)>);

/// What is served from one file: what it holds now, or what it held before.
fn choose(
    chain: Result<Arc<chain::Chain>, Problem>,
    earlier: Option<Arc<Pair>>,
    keys: &folder::Keys,
    is_hasty: bool,
    now: UnixSeconds,
) -> Chosen {
    if let (Ok(chain), Some(earlier)) = (&chain, &earlier)
        && earlier.is_of(chain, keys)
    {
        return (Some(Arc::clone(earlier)), None);
    }
    let found = chain.and_then(|chain| Pair::new(&chain, keys)).and_then(|pair| match pair {
        Some(pair) if !is_hasty => pair.key.verify().map(|()| Some(pair)),
        pair => Ok(pair),
    });
    let refused = match (found, &earlier) {
        (Ok(None), _) => return (None, None),
        (Ok(Some(new)), None) => return (Some(Arc::new(new)), None),
        (Err(problem), _) => problem,
        (Ok(Some(new)), Some(earlier)) => {
            let (was, is) = (&earlier.chain, &new.chain);
            if was.covers(now) && !is.covers(now) {
                Problem::Dates { from: is.from, until: is.until }
            } else if was.covers(now) && is.from < was.from {
                Problem::Older { from: is.from, served_from: was.from }
            } else {
                return (Some(Arc::new(new)), None);
            }
        }
    };
    let consequence = Consequence::of_failure(earlier.is_some());
    (earlier, Some((refused, consequence)))
}

/// What one reload found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Certificates with their keys, kept ones included.
    pub certificates: usize,
    /// Names that get a certificate, of files or issued; a wildcard counts as one.
    pub names: usize,
    /// When the certificate that ends first ends.
    pub ends_first: Option<UnixSeconds>,
    /// What is wrong, each with its file.
    pub faults: Vec<Fault>,
    /// Everything that is served, in the order of the files.
    pub listing: Arc<[Certificate]>,
}

/// The reading end: picks the certificate for the name that a client asks for.
#[derive(Clone)]
pub struct Resolver {
    published: Arc<Published>,
}

impl Resolver {
    /// Whether a client that asks for `name`, in lower case, or for none, is shown a certificate.
    #[must_use]
    pub fn answers(&self, name: Option<&str>) -> bool {
        self.published.index.load().answer(name).is_some()
    }

    /// Whether there is a certificate for `name`, which is in lower case, whatever its dates.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.published.index.load().find(name).is_some()
    }

    /// Whether a certificate is for `name`, which is in lower case, and its dates hold.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.published.index.load().find(name).is_some_and(|choice| choice.is_in_date)
    }

    /// The name that clients are taken to ask for when they ask for none.
    #[must_use]
    pub fn default_name(&self) -> Option<Arc<str>> {
        self.published.index.load().default_name().cloned()
    }

    /// Whether there is any certificate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.published.index.load().names() == 0
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case and without a trailing dot, and an address as none.
        self.published.index.load().answer(hello.server_name())?.of(hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.published.index.load().names()).finish()
    }
}
