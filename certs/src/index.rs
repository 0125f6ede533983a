//! The names that get a certificate: exact ones, and wildcards that stand for exactly one label.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::UnixSeconds;
use crate::pair::Pair;

/// Immutable; replaced whole by each reload.
#[derive(Default)]
pub(crate) struct Index {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Index {
    pub(crate) fn of<'a>(pairs: impl Iterator<Item = &'a Arc<Pair>>, now: UnixSeconds) -> Self {
        let mut in_order: Vec<&Pair> = pairs.map(Arc::as_ref).collect();
        // The best one comes last and overwrites the others.
        in_order.sort_by_key(|pair| pair.merit(now));
        let mut index = Self::default();
        for pair in in_order {
            for name in &pair.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut index.wildcard, parent),
                    None => (&mut index.exact, &**name),
                };
                map.insert(name.into(), Arc::clone(&pair.certified));
            }
        }
        index
    }

    /// The certificate for a name in lower case.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }

    pub(crate) fn names(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("names", &self.names()).finish_non_exhaustive()
    }
}
