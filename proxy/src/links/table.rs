//! The immutable set of known links, compact in memory and laid out as in its snapshot.
//!
//! Invariants:
//! - A table never changes; its parts are byte strings without a pointer, written to disk as they are.
//! - A token's hash names its bucket; the records of a bucket stand side by side, and no two records
//!   of a bucket have the same namespace and token.
//! - Reading never panics and never reads outside, whatever the parts hold.
//!
//! ```text
//! directory   for each bucket the place of its first record, 5 bytes; one more for the end
//! records     see `record`: namespace, token, flags, places of target and campaign, times
//! campaigns   see `pool`
//! targets     see `pool`
//! ```
//!
//! A look-up costs one hash and three places in memory: directory, bucket, target.

#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::blob::Blob;
use super::namespaces::{NamespaceId, Namespaces};
use super::record::{Record, wide};
use super::{Found, Link, Origin, State, TOGETHER, namespaces, pool};
use crate::event::UnixMillis;

/// Bytes of a place in the directory.
pub(super) const PLACE_BYTES: usize = 5;

/// The known links of one load.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) parts: Parts,
    names: Names,
}

/// What a snapshot holds of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) seed: u64,
    pub(super) buckets: u64,
    pub(super) made_at: UnixMillis,
    /// The latest time that this or an earlier table was made at; moments of absence are taken from
    /// it, so that a clock that is behind cannot make an absence look old.
    pub(super) clock_max: UnixMillis,
    pub(super) stats: Stats,
    pub(super) directory: Blob,
    pub(super) records: Blob,
    pub(super) campaigns: Blob,
    pub(super) targets: Blob,
}

/// What a table holds, counted when it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links, disabled ones and tombstones included.
    pub links: u64,
    /// Links that lead somewhere, expired ones included.
    pub live: u64,
    /// Links that the last complete load did not have.
    pub absent: u64,
    /// Links known from a look-up only.
    pub looked_up: u64,
    /// Different targets.
    pub targets: u64,
}

/// The table's own numbers of namespaces, and the process's.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// By the table's number.
    ids: Vec<NamespaceId>,
    names: Vec<Arc<[u8]>>,
    /// By the process's number: the table's number + 1, zero for none.
    locals: Vec<u32>,
}

/// One link of a table, with what only builders and listings look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The link's namespace.
    pub namespace: NamespaceId,
    /// The link's token.
    pub token: &'a [u8],
    /// What the table says of it.
    pub found: Found<'a>,
    /// How it came to be known.
    pub origin: Origin,
    /// Since when complete loads do not have it.
    pub absent_since: Option<UnixMillis>,
}

impl Table {
    pub(super) fn new(parts: Parts, names: Names) -> Self {
        Self { parts, names }
    }

    /// What the table knows of `token`.
    #[must_use]
    pub fn get(&self, namespace: NamespaceId, token: &[u8]) -> Option<Found<'_>> {
        let record = self.parts.find(self.names.local(namespace)?, token)?;
        self.parts.found(&record)
    }

    /// The same for many; a step of all look-ups is done before the next, so that the processor fetches
    /// what they need side by side.
    pub(super) fn get_all(
        &self,
        asked: &[Option<(NamespaceId, &[u8])>; TOGETHER],
    ) -> [Option<Found<'_>>; TOGETHER] {
        let parts = &self.parts;
        let keys = asked.map(|asked| {
            let (namespace, token) = asked?;
            let namespace = self.names.local(namespace)?;
            Some((namespace, token, bucket_of(parts.seed, parts.buckets, namespace, token)))
        });
        let buckets = keys.map(|key| parts.bucket(key?.2));
        fetch(buckets.iter().flatten().copied());
        let mut found = [None; TOGETHER];
        for ((found, key), bucket) in found.iter_mut().zip(keys).zip(buckets) {
            if let (Some((namespace, token, _)), Some(bucket)) = (key, bucket) {
                *found = find(bucket, namespace, token).and_then(|record| parts.found(&record));
            }
        }
        fetch(found.iter().filter_map(|found| match found {
            Some(Found::Live(link)) => Some(link.target.as_bytes()),
            _ => None,
        }));
        found
    }

    /// Every link, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        records(&self.parts.records).filter_map(|(record, _)| {
            Some(Listed {
                namespace: *self.names.ids.get(record.namespace as usize)?,
                token: record.token,
                found: self.parts.found(&record)?,
                origin: record.origin,
                absent_since: record.absent_since,
            })
        })
    }

    /// What the table holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.parts.stats
    }

    /// When the table was built, by the clock of that moment.
    #[must_use]
    pub fn made_at(&self) -> UnixMillis {
        self.parts.made_at
    }

    /// The table's memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let Parts { directory, records, campaigns, targets, .. } = &self.parts;
        let parts = directory.len() + records.len() + campaigns.len() + targets.len();
        (size_of::<Self>() + parts) as u64 + self.names.bytes()
    }

    /// The names of the table's namespaces, by its own numbers.
    pub(super) fn names(&self) -> &[Arc<[u8]>] {
        &self.names.names
    }
}

impl Parts {
    pub(super) fn find(&self, namespace: u32, token: &[u8]) -> Option<Record<'_>> {
        let bucket = self.bucket(bucket_of(self.seed, self.buckets, namespace, token))?;
        find(bucket, namespace, token)
    }

    /// The records of a bucket.
    fn bucket(&self, bucket: u64) -> Option<&[u8]> {
        let at = usize::try_from(bucket).ok()?.checked_mul(PLACE_BYTES)?;
        let (from, rest) = self.directory.get(at..)?.split_first_chunk::<PLACE_BYTES>()?;
        let to = rest.first_chunk::<PLACE_BYTES>()?;
        self.records.get(place(from)?..place(to)?)
    }

    fn found(&self, record: &Record<'_>) -> Option<Found<'_>> {
        match record.state {
            State::Deleted => Some(Found::Deleted),
            State::Disabled => Some(Found::Disabled),
            State::Live => Some(Found::Live(Link {
                target: pool::read(&self.targets, record.target)?,
                campaign: match record.campaign {
                    Some(place) => pool::read(&self.campaigns, place)?.url,
                    None => b"",
                },
                append: record.append,
                expires_at: record.expires_at,
            })),
        }
    }
}

impl Names {
    /// Numbers `names` in their order, as a snapshot lists them.
    ///
    /// # Errors
    /// [`namespaces::Fault`] when the process cannot number one of them.
    pub(super) fn of(
        names: impl IntoIterator<Item = impl AsRef<[u8]>>,
        namespaces: &Namespaces,
    ) -> Result<Self, namespaces::Fault> {
        let mut numbered = Self::default();
        for name in names {
            numbered.add(namespaces.intern(name.as_ref())?, namespaces);
        }
        Ok(numbered)
    }

    /// The table's number of `id`, a new one if there is none.
    pub(super) fn add(&mut self, id: NamespaceId, namespaces: &Namespaces) -> u32 {
        if let Some(local) = self.local(id) {
            return local;
        }
        let local = u32::try_from(self.ids.len()).expect("no more than the process's own numbers");
        self.ids.push(id);
        self.names.push(namespaces.name(id));
        if self.locals.len() <= id.index() {
            self.locals.resize(id.index() + 1, 0);
        }
        if let Some(slot) = self.locals.get_mut(id.index()) {
            *slot = local + 1;
        }
        local
    }

    pub(super) fn local(&self, id: NamespaceId) -> Option<u32> {
        self.locals.get(id.index())?.checked_sub(1)
    }

    fn bytes(&self) -> u64 {
        // The names themselves belong to the interner.
        (self.ids.capacity() * size_of::<NamespaceId>()
            + self.names.capacity() * size_of::<Arc<[u8]>>()
            + self.locals.capacity() * size_of::<u32>()) as u64
    }
}

fn find<'a>(bucket: &'a [u8], namespace: u32, token: &[u8]) -> Option<Record<'a>> {
    records(bucket)
        .map(|(record, _)| record)
        .find(|record| record.token == token && record.namespace == namespace)
}

/// Reads the ends of `strings`, none of which has to wait for another, so that what is short lies in
/// the processor's cache afterwards.
fn fetch<'a>(strings: impl Iterator<Item = &'a [u8]>) {
    let ends = strings.fold(0, |ends, string| {
        ends ^ string.first().copied().unwrap_or_default() ^ string.last().copied().unwrap_or_default()
    });
    std::hint::black_box(ends);
}

/// The records in `bytes` with their bytes; ends where something else than a record begins.
pub(super) fn records(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = (Record<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (record, tail) = Record::split(self.rest)?;
        let (raw, _) = self.rest.split_at_checked(self.rest.len() - tail.len())?;
        self.rest = tail;
        Some((record, raw))
    }
}

/// The bucket of a token: the upper bits of its hash, scaled to the number of buckets.
pub(super) fn bucket_of(seed: u64, buckets: u64, namespace: u32, token: &[u8]) -> u64 {
    let seed = seed ^ u64::from(namespace).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = xxh3_64_with_seed(token, seed);
    ((u128::from(hash) * u128::from(buckets)) >> 64) as u64
}

fn place(bytes: &[u8; PLACE_BYTES]) -> Option<usize> {
    usize::try_from(wide(bytes)).ok()
}
