//! The names that get a certificate: exact ones, and wildcards that stand for exactly one label.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::UnixSeconds;
use crate::key::KeyType;
use crate::pair::Pair;

/// Immutable; replaced whole by each reload that finds something new.
#[derive(Default)]
pub(crate) struct Index {
    exact: HashMap<Box<str>, Choice>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Choice>,
    /// The name whose certificate is shown to clients that ask for none, or for an unknown one.
    default: Option<Arc<str>>,
}

/// The certificates of one name, one for each type of key; the client's signatures decide.
#[derive(Clone, Default)]
pub(crate) struct Choice {
    by_type: [Option<Arc<CertifiedKey>>; KeyType::ALL.len()],
    /// Their dates hold: otherwise there is none for the name whose dates do.
    pub(crate) is_in_date: bool,
}

impl Choice {
    /// The first one that the client can check; the first of all when there is none, so that the
    /// handshake ends with the alert for that.
    pub(crate) fn of(&self, offered: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let mut all = self.by_type.iter().flatten();
        let first = all.next()?;
        if first.key.choose_scheme(offered).is_some() {
            return Some(first);
        }
        Some(all.find(|other| other.key.choose_scheme(offered).is_some()).unwrap_or(first))
    }
}

impl Index {
    pub(crate) fn of<'a>(
        pairs: impl Iterator<Item = &'a Arc<Pair>>,
        default: Option<&str>,
        now: UnixSeconds,
    ) -> Self {
        let mut in_order: Vec<&Pair> = pairs.map(Arc::as_ref).collect();
        // The best one comes last and overwrites the others of its type.
        in_order.sort_by_key(|pair| pair.merit(now));
        let (in_date, out_of_date): (Vec<&Pair>, Vec<&Pair>) =
            in_order.into_iter().partition(|pair| pair.chain.covers(now));
        let mut index = Self::default();
        for pair in in_date {
            pair.chain.names.iter().for_each(|name| index.add(name, pair, true));
        }
        // What its dates rule out is better than nothing, and than nothing else: whatever its type of key,
        // and whether the other is a wildcard's.
        let of_each =
            out_of_date.iter().flat_map(|pair| pair.chain.names.iter().map(move |name| (name, *pair)));
        let alone: Vec<_> = of_each.filter(|(name, _)| !index.has(name)).collect();
        for (name, pair) in alone {
            index.add(name, pair, false);
        }
        index.default = default.filter(|name| index.find(name).is_some()).map(Into::into);
        index
    }

    fn add(&mut self, name: &str, pair: &Pair, is_in_date: bool) {
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        let choice = map.entry(name.into()).or_default();
        choice.is_in_date = is_in_date;
        if let Some(place) = choice.by_type.get_mut(pair.kind as usize) {
            *place = Some(Arc::clone(&pair.certified));
        }
    }

    /// Whether there is one for a name as it stands in a certificate.
    fn has(&self, name: &str) -> bool {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.contains_key(parent),
            None => self.find(name).is_some(),
        }
    }

    /// The certificates for a name in lower case.
    pub(crate) fn find(&self, name: &str) -> Option<&Choice> {
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }

    /// Those for what a client asks for, the default ones included.
    pub(crate) fn answer(&self, name: Option<&str>) -> Option<&Choice> {
        name.and_then(|name| self.find(name)).or_else(|| self.find(self.default.as_deref()?))
    }

    pub(crate) fn default_name(&self) -> Option<&Arc<str>> {
        self.default.as_ref()
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
