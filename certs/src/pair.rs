//! One chain with the key that belongs to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::UnixSeconds;
use crate::chain::Chain;
use crate::fault::Problem;
use crate::folder::Keys;
use crate::key::{Key, KeyType};

/// A certificate that can be served.
pub(crate) struct Pair {
    pub(crate) chain: Arc<Chain>,
    pub(crate) key: Arc<Key>,
    pub(crate) kind: KeyType,
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Pair {
    /// The chain with its key out of `keys`; none when the chain is an authority's, without a server's
    /// certificate.
    pub(crate) fn new(chain: &Arc<Chain>, keys: &Keys) -> Result<Option<Self>, Problem> {
        let Some(key) = keys.get(&chain.public) else {
            return if chain.is_authority { Ok(None) } else { Err(Problem::NoKey) };
        };
        if chain.names.is_empty() {
            return Err(Problem::NoNames);
        }
        let kind = KeyType::of(&key.public).ok_or(Problem::NoKey)?;
        let certified = CertifiedKey::new(chain.certificates.clone(), Arc::clone(key) as _);
        Ok(Some(Self {
            chain: Arc::clone(chain),
            key: Arc::clone(key),
            kind,
            certified: Arc::new(certified),
        }))
    }

    /// Whether it was made of the very same files.
    pub(crate) fn is_of(&self, chain: &Arc<Chain>, keys: &Keys) -> bool {
        Arc::ptr_eq(&self.chain, chain)
            && keys.get(&chain.public).is_some_and(|key| Arc::ptr_eq(&self.key, key))
    }

    /// The greater is the better one for a name that both have.
    pub(crate) fn merit(&self, now: UnixSeconds) -> impl Ord + use<> {
        (self.chain.covers(now), self.chain.until, self.chain.certificates.len())
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, until) = (&self.chain.names, &self.chain.until);
        f.debug_struct("Pair").field("names", names).field("until", until).finish_non_exhaustive()
    }
}

/// What is served, for people to look at.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) pair: Arc<Pair>,
}

impl Certificate {
    /// The file that holds the chain.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The names it is for, in lower case; a wildcard with its `*.`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pair.chain.names.iter().map(|name| &**name)
    }

    /// What its key signs with.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.pair.kind
    }

    /// First second of validity.
    #[must_use]
    pub fn from(&self) -> UnixSeconds {
        self.pair.chain.from
    }

    /// Last second of validity.
    #[must_use]
    pub fn until(&self) -> UnixSeconds {
        self.pair.chain.until
    }
}
