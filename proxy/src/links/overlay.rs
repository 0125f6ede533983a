//! The changes since the table was built, as immutable layers.
//!
//! Invariants:
//! - An overlay never changes; [`Overlay::with`] shares all layers but those that it merges.
//! - A newer layer hides older ones; each layer is more than twice as large as the next newer one, so
//!   there are about as many layers as the number of entries has binary digits, and usually two or three.
//!
//! It is bounded by its owner, who builds a new table when [`Overlay::len`] or [`Overlay::bytes`]
//! grows too large.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::entry::Entry;
use super::namespaces::NamespaceId;

/// A newly known state of one token.
#[derive(Clone, Debug)]
pub struct Change {
    /// The token's namespace.
    pub namespace: NamespaceId,
    /// The token.
    pub token: Arc<[u8]>,
    /// What is known of it now.
    pub entry: Arc<Entry>,
}

/// The changes since the table was built.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Newest first.
    layers: Vec<Arc<Layer>>,
    len: usize,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Layer {
    namespaces: HashMap<NamespaceId, Tokens, Seeded>,
    len: usize,
    bytes: u64,
}

type Tokens = HashMap<Arc<[u8]>, Arc<Entry>, Seeded>;

impl Overlay {
    /// An empty overlay; `seed` makes the places of tokens unpredictable.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { layers: Vec::new(), len: 0, seed }
    }

    /// What changed last about `token`, if anything did.
    #[must_use]
    pub fn get(&self, namespace: NamespaceId, token: &[u8]) -> Option<&Arc<Entry>> {
        self.layers.iter().find_map(|layer| layer.get(namespace, token))
    }

    /// This overlay and `changes` upon it; a later one of the same token wins.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut layer = Layer::new(self.seed);
        for change in changes {
            layer.insert(change.namespace, change.token, change.entry, self.seed);
        }
        if layer.len == 0 {
            return self.clone();
        }
        let known =
            layer.iter().filter(|(namespace, token, _)| self.get(*namespace, token).is_some()).count();
        let len = self.len + layer.len - known;
        let mut older = self.layers.as_slice();
        while let Some((next, rest)) = older.split_first() {
            if next.len > 2 * layer.len {
                break;
            }
            let mut merged = Layer::clone(next);
            for (namespace, token, entry) in layer.iter() {
                merged.insert(namespace, Arc::clone(token), Arc::clone(entry), self.seed);
            }
            layer = merged;
            older = rest;
        }
        let layers = std::iter::once(Arc::new(layer)).chain(older.iter().cloned()).collect();
        Self { layers, len, seed: self.seed }
    }

    /// The entries that `basis`, an earlier state of this overlay, does not have in the same form.
    #[must_use]
    pub fn without(&self, basis: &Self) -> Self {
        let newer = self.iter().filter(|change| {
            !basis.get(change.namespace, &change.token).is_some_and(|known| Arc::ptr_eq(known, &change.entry))
        });
        Self::new(self.seed).with(newer)
    }

    /// Every token's last change, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Change> {
        self.layers.iter().enumerate().flat_map(move |(depth, layer)| {
            let newer = self.layers.get(..depth).unwrap_or_default();
            layer
                .iter()
                .filter(move |(namespace, token, _)| {
                    newer.iter().all(|layer| layer.get(*namespace, token).is_none())
                })
                .map(|(namespace, token, entry)| Change {
                    namespace,
                    token: Arc::clone(token),
                    entry: Arc::clone(entry),
                })
        })
    }

    /// How many tokens changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory of all layers in bytes, roughly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

impl Layer {
    fn new(seed: u64) -> Self {
        Self { namespaces: HashMap::with_hasher(Seeded(seed)), len: 0, bytes: 0 }
    }

    fn get(&self, namespace: NamespaceId, token: &[u8]) -> Option<&Arc<Entry>> {
        self.namespaces.get(&namespace)?.get(token)
    }

    fn insert(&mut self, namespace: NamespaceId, token: Arc<[u8]>, entry: Arc<Entry>, seed: u64) {
        // Two counted headers of 16 bytes; a map's slot of two fat and thin pointers at half load.
        const OVERHEAD_BYTES: usize = 2 * 16 + 2 * 24;
        let weigh = |entry: &Entry| (token.len() + entry.bytes() + OVERHEAD_BYTES) as u64;
        self.bytes += weigh(&entry);
        let tokens = self.namespaces.entry(namespace).or_insert_with(|| HashMap::with_hasher(Seeded(seed)));
        match tokens.get_mut(&token) {
            Some(old) => {
                self.bytes -= weigh(old);
                *old = entry;
            }
            None => {
                tokens.insert(token, entry);
                self.len += 1;
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (NamespaceId, &Arc<[u8]>, &Arc<Entry>)> {
        self.namespaces.iter().flat_map(|(&namespace, tokens)| {
            tokens.iter().map(move |(token, entry)| (namespace, token, entry))
        })
    }
}

/// Hashes with XXH3 under a seed; a token is looked up on the way of a click, where the standard
/// library's hash would cost more than the rest of the look-up.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for Seeded {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u32(&mut self, id: u32) {
        self.write(&id.to_le_bytes());
    }

    fn write_usize(&mut self, length: usize) {
        // The length of a slice, which comes before its bytes and is hashed with them.
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Origin, Row, State};
    use super::*;

    fn change(namespace: u32, token: u8, n: u32) -> Change {
        let url = format!("https://example.com/{n}");
        let row = Row {
            namespace: b"",
            token: &[token],
            url: &url,
            campaign: b"",
            append: false,
            expires_at: None,
            state: State::Live,
        };
        let entry = Arc::new(Entry::approve(&row, Origin::Change).unwrap());
        Change { namespace: NamespaceId(namespace), token: [token].into(), entry }
    }

    type Model = HashMap<(NamespaceId, Arc<[u8]>), Arc<Entry>>;

    #[track_caller]
    fn check(overlay: &Overlay, model: &Model) {
        assert_eq!(overlay.len(), model.len());
        assert_eq!(overlay.is_empty(), model.is_empty());
        let listed: Model =
            overlay.iter().map(|change| ((change.namespace, change.token), change.entry)).collect();
        assert_eq!(&listed, model);
        for namespace in 0..3 {
            for token in 0..=255u8 {
                let expected = model.get(&(NamespaceId(namespace), [token].into()));
                assert_eq!(overlay.get(NamespaceId(namespace), &[token]), expected);
            }
        }
        for pair in overlay.layers.windows(2) {
            assert!(pair[1].len > 2 * pair[0].len);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn layers_say_the_same_as_one_map(
            batches in proptest::collection::vec(proptest::collection::vec((0u32..2, any::<u8>()), 0..20), 1..30),
            split in 0usize..30,
        ) {
            let mut overlay = Overlay::new(1);
            let mut model = Model::new();
            let mut basis = (overlay.clone(), model.clone());
            for (n, batch) in batches.iter().enumerate() {
                if n == split {
                    basis = (overlay.clone(), model.clone());
                }
                let changes: Vec<Change> =
                    batch.iter().map(|&(namespace, token)| change(namespace, token, n as u32)).collect();
                overlay = overlay.with(changes.clone());
                model.extend(changes.into_iter().map(|c| ((c.namespace, c.token), c.entry)));
                check(&overlay, &model);
            }
            check(&basis.0, &basis.1);
            model.retain(|key, entry| !basis.1.get(key).is_some_and(|known| Arc::ptr_eq(known, entry)));
            check(&overlay.without(&basis.0), &model);
        }
    }

    #[test]
    fn a_token_changed_many_times_takes_the_memory_of_one() {
        let once = Overlay::new(1).with([change(0, 0, 10)]);
        let often = (10..99).fold(Overlay::new(1), |overlay, n| overlay.with([change(0, 0, n)]));
        assert_eq!(often.bytes(), once.bytes());
    }
}
