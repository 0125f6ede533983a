//! Where certificates of several sources become one index: the better one is served for each name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::UnixSeconds;
use crate::index::Index;
use crate::pair::Pair;

/// The index that handshakes read, and what it is made of.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) index: ArcSwap<Index>,
    /// Held while an index is made, so that an older one never replaces a newer one; by control
    /// threads only.
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    files: Vec<Arc<Pair>>,
    issued: HashMap<Box<str>, Arc<Pair>>,
}

impl Published {
    /// Replaces what comes from files; returns how many names get a certificate.
    pub(crate) fn files(&self, files: Vec<Arc<Pair>>, now: UnixSeconds) -> usize {
        self.publish(now, |sources| sources.files = files)
    }

    fn publish(&self, now: UnixSeconds, change: impl FnOnce(&mut Sources)) -> usize {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let index = Index::of(sources.files.iter().chain(sources.issued.values()), now);
        let names = index.names();
        self.index.store(Arc::new(index));
        names
    }
}

/// The end of the index for certificates that were issued; those of files are merged with them by the
/// same rule: valid dates first, then the later end.
#[derive(Clone)]
pub struct Issued(pub(crate) Arc<Published>);

impl Issued {
    /// Serves these from now on; each replaces what was issued for its name before. Makes the index
    /// once, which takes a millisecond for some thousand names.
    pub(crate) fn put(&self, pairs: Vec<(Box<str>, Arc<Pair>)>, now: UnixSeconds) {
        self.0.publish(now, |sources| sources.issued.extend(pairs));
    }

    /// Serves none that was issued for the name.
    pub(crate) fn remove(&self, name: &str, now: UnixSeconds) {
        self.0.publish(now, |sources| {
            sources.issued.remove(name);
        });
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("index", &*self.0.index.load()).finish()
    }
}
