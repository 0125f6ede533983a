//! Certificates of many names, read from a folder of PEM files and swapped under running handshakes.
//!
//! [`watch`] gives the two ends of one index: the [`Store`] writes it, the [`Resolver`] reads it
//! with one atomic load per handshake.
//!
//! Invariants:
//! - What is served is always a key with the chain that belongs to it; both change in one swap.
//! - A fault never takes a certificate away: the earlier pair stays until a better one is there, or
//!   until its file is removed on purpose.
//! - A name that no certificate covers gets none, which ends the handshake with an alert. There is
//!   no default certificate.
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
mod client;
mod fault;
mod folder;
mod index;
mod pair;
mod publish;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use client::{ClientFault, Roots, Verify, client};
pub use fault::{Consequence, Fault, Problem};
pub use publish::Issued;

use pair::Pair;
use publish::Published;

/// Where certificates come from.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder of PEM files under any names: keys, chains, or both in one file. A chain finds its
    /// key by the public key. Hidden files and subfolders are left alone.
    pub folder: PathBuf,
}

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

/// The two ends of one index; it is empty until the first [`Store::reload`].
#[must_use]
pub fn watch(config: Config) -> (Store, Resolver) {
    let published = Arc::new(Published::default());
    let store = Store { config, pairs: BTreeMap::new(), published: Arc::clone(&published) };
    (store, Resolver { published })
}

/// The writing end: reads the folder and publishes what it finds.
pub struct Store {
    config: Config,
    /// By the file that holds the chain.
    pairs: BTreeMap<PathBuf, Arc<Pair>>,
    published: Arc<Published>,
}

impl Store {
    /// The end for certificates that are issued while this runs.
    #[must_use]
    pub fn issued(&self) -> Issued {
        Issued(Arc::clone(&self.published))
    }

    /// Reads the folder again and publishes the outcome in one swap.
    ///
    /// # Blocking
    /// Reads every file of the folder; not for a data thread.
    pub fn reload(&mut self, now: UnixSeconds) -> Report {
        let mut faults = Vec::new();
        match folder::read(&self.config.folder, &mut faults) {
            Ok(files) => self.take(files, now, &mut faults),
            Err(problem) => {
                let consequence = Consequence::of_failure(!self.pairs.is_empty());
                faults.push(Fault { file: self.config.folder.clone(), problem, consequence });
            }
        }
        for (file, pair) in &self.pairs {
            if !pair.covers(now) {
                let problem = Problem::Dates { from: pair.from, until: pair.until };
                faults.push(Fault { file: file.clone(), problem, consequence: Consequence::Served });
            }
        }
        let names = self.published.files(self.pairs.values().cloned().collect(), now);
        Report {
            certificates: self.pairs.len(),
            names,
            ends_first: self.pairs.values().map(|pair| pair.until).min(),
            faults,
        }
    }

    fn take(&mut self, files: folder::Files, now: UnixSeconds, faults: &mut Vec<Fault>) {
        if files.is_empty() && !self.pairs.is_empty() {
            // A volume that is not mounted looks like this; nobody removes every certificate at once.
            let file = self.config.folder.clone();
            faults.push(Fault { file, problem: Problem::Emptied, consequence: Consequence::EarlierKept });
            return;
        }
        let mut pairs = BTreeMap::new();
        for (file, chain) in files.chains {
            let earlier = self.pairs.remove(&file);
            let found = chain.and_then(|chain| Pair::new(chain, &files.keys));
            let (pair, problem) = match (found, earlier) {
                (Ok(Some(new)), Some(earlier)) if earlier.covers(now) && !new.covers(now) => {
                    let problem = Problem::Dates { from: new.from, until: new.until };
                    (Some(earlier), Some((problem, Consequence::EarlierKept)))
                }
                (Ok(Some(new)), _) => (Some(Arc::new(new)), None),
                (Ok(None), _) => (None, None),
                (Err(problem), earlier) => {
                    let consequence = Consequence::of_failure(earlier.is_some());
                    (earlier, Some((problem, consequence)))
                }
            };
            if let Some((problem, consequence)) = problem {
                faults.push(Fault { file: file.clone(), problem, consequence });
            }
            if let Some(pair) = pair {
                pairs.insert(file, pair);
            }
        }
        self.pairs = pairs;
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

/// What one reload found.
#[derive(Debug)]
pub struct Report {
    /// Certificates with their keys, kept ones included.
    pub certificates: usize,
    /// Names that get a certificate, of files or issued; a wildcard counts as one.
    pub names: usize,
    /// When the certificate that ends first ends.
    pub ends_first: Option<UnixSeconds>,
    /// What is wrong, each with its file.
    pub faults: Vec<Fault>,
}

/// The reading end: picks the certificate for the name that a client asks for.
#[derive(Clone)]
pub struct Resolver {
    published: Arc<Published>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case and without a trailing dot.
        let name = hello.server_name()?;
        self.published.index.load().find(name).cloned()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.published.index.load().names()).finish()
    }
}
