//! Builds a new table: from a complete load, or from the links that are known already.
//!
//! Invariants:
//! - Rows come in any order; of two rows with the same namespace and token the later one counts.
//! - A known link that a load does not have is carried over with the time since when it is absent,
//!   until it was absent for longer than the guard allows (promise P9). A link whose row is refused
//!   counts as absent: it goes on leading where it led.
//! - A row that cannot become a link never fails a load; it is counted, and the first ones are listed.
//! - What the builder holds, with the links in service, stays below the bound on memory, or building
//!   ends with [`TooLarge`].
//!
//! It runs on the mill, for building ten million links takes seconds of one core.

use std::collections::HashMap;
use std::fmt;

use super::entry::{Reason, check_token, kept_campaign};
use super::guard::{self, Counts};
use super::namespaces::Namespaces;
use super::overlay::Change;
use super::pool::{POOL_BYTES_MAX, Pool};
use super::record::{RECORD_BYTES_MAX, Record, put};
use super::table::{Listed, Names, PLACE_BYTES, Parts, Stats, Table, bucket_of, records};
use super::target::{self, Split, Target, approve};
use super::{CAMPAIGN_BYTES_MAX, Found, Link, Links, Origin, Row, State, TOKEN_BYTES_MAX};
use crate::courtesy::Courtesy;
use crate::event::UnixMillis;

/// The most refused rows that are listed; all are counted.
pub const REFUSALS_MAX: usize = 1000;

/// The longest part of a refused URL that is listed.
const REFUSED_URL_CHARS_MAX: usize = 256;
/// Spellings that differ from their approved form are remembered, so that a campaign's target is
/// parsed once; beyond this many they are parsed again.
const SPELLINGS_MAX: usize = 4096;
const SPELLING_BYTES_MAX: usize = 1024;
/// Records wait in chunks, which are given back one by one while they move to their buckets.
const CHUNK_BYTES: usize = if cfg!(test) { 2 * RECORD_BYTES_MAX } else { 1 << 20 };
/// Four keep a bucket within three cache lines and the directory at little more than a byte a link.
const BUCKET_RECORDS: u64 = 4;

/// How tables are built.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Makes the places of tokens unpredictable; a new random number for each table.
    pub seed: u64,
    /// Bound on all memory of the builder together with the links in service.
    pub memory_bytes_max: u64,
    /// How many links that are known from a look-up only are kept.
    pub looked_up_max: u64,
    /// When a link is forgotten, and when a load is held.
    pub guard: guard::Settings,
}

/// Takes the rows of one complete load.
#[derive(Debug)]
pub struct Builder {
    basis: Links,
    namespaces: Namespaces,
    settings: Settings,
    names: Names,
    /// The last row's namespace, for rows of one namespace come together.
    last_name: Option<(Box<[u8]>, u32)>,
    targets: Pool,
    campaigns: Pool,
    spellings: HashMap<Box<str>, Result<Placed, target::Refused>>,
    rows: Rows,
    courtesy: Courtesy,
    looked_up: u64,
    counts: Counts,
    refusals: Vec<Refusal>,
}

/// Where a row's target stands.
#[derive(Clone, Copy, Debug)]
struct Placed {
    place: u64,
    repaired: bool,
}

/// A finished table and what is to be known before it is published.
#[derive(Debug)]
pub struct Finished {
    /// The table.
    pub table: Table,
    /// What the load did; all zero but the dropped look-ups after [`fold`].
    pub counts: Counts,
    /// The first refused rows.
    pub refusals: Vec<Refusal>,
    /// The links that the table replaces, see [`Links::rebuilt`].
    pub basis: Links,
}

/// A row that cannot become a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of its namespace, cut to its bound.
    pub namespace: Box<[u8]>,
    /// Its token, cut to its bound.
    pub token: Box<[u8]>,
    /// The beginning of its URL.
    pub url: Box<str>,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Building needs more memory than allowed; the links in service stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// What was needed when building ended.
    pub needed_bytes: u64,
    /// What is allowed.
    pub memory_bytes_max: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed_bytes, memory_bytes_max } = self;
        write!(
            f,
            "building the table of links needs more than {needed_bytes} bytes, \
             links.memory_max allows {memory_bytes_max}"
        )
    }
}

impl std::error::Error for TooLarge {}

/// Builds a table of what `basis` knows, so that its overlay can be given up.
///
/// # Errors
/// [`TooLarge`] when the memory does not suffice.
pub fn fold(
    basis: Links,
    namespaces: Namespaces,
    settings: Settings,
    now: UnixMillis,
) -> Result<Finished, TooLarge> {
    let mut builder = Builder::new(basis.clone(), namespaces, settings);
    for_each_known(&basis, |listed| builder.keep(&listed))?;
    let arranged = arrange(std::mem::take(&mut builder.rows), settings.seed);
    Ok(builder.build(arranged, now))
}

impl Builder {
    /// Begins a load that is to replace `basis`.
    ///
    /// `basis` must be taken before the load's transaction begins: what changes later stays in the
    /// overlay of the links in service, what changed earlier is expected in the load.
    #[must_use]
    pub fn new(basis: Links, namespaces: Namespaces, settings: Settings) -> Self {
        let targets = Pool::new(settings.seed, basis.table().stats().targets);
        Self {
            basis,
            namespaces,
            settings,
            names: Names::default(),
            last_name: None,
            targets,
            campaigns: Pool::new(settings.seed, 0),
            spellings: HashMap::new(),
            rows: Rows::default(),
            courtesy: Courtesy::default(),
            looked_up: 0,
            counts: Counts::default(),
            refusals: Vec::new(),
        }
    }

    /// Takes one row.
    ///
    /// # Errors
    /// [`TooLarge`] when the memory does not suffice; the load cannot go on then.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), TooLarge> {
        self.counts.rows += 1;
        self.courtesy.step();
        if let Err(reason) = self.record(row) {
            self.refuse(row, reason);
        }
        self.check_memory()
    }

    /// Carries over what the load does not have, and builds the table.
    ///
    /// # Errors
    /// [`TooLarge`] when the memory does not suffice.
    pub fn finish(mut self, now: UnixMillis) -> Result<Finished, TooLarge> {
        let draft = arrange(std::mem::take(&mut self.rows), self.settings.seed);
        self.counts.duplicates = draft.duplicates;
        self.rows.reserved_bytes = draft.parts.records.len() as u64;
        let basis = self.basis.clone();
        for_each_known(&basis, |listed| self.carry(&draft.parts, listed, now))?;
        if self.rows.count == 0 {
            return Ok(self.build(draft, now));
        }
        self.rows.put_back(draft);
        let arranged = arrange(std::mem::take(&mut self.rows), self.settings.seed);
        Ok(self.build(arranged, now))
    }

    fn record(&mut self, row: &Row<'_>) -> Result<(), Reason> {
        check_token(row.token)?;
        let namespace = self.namespace(row.namespace)?;
        let mut record = Record {
            namespace,
            token: row.token,
            state: row.state,
            append: row.append,
            origin: Origin::Change,
            target: 0,
            campaign: None,
            expires_at: row.expires_at,
            absent_since: None,
        };
        if row.state == State::Live {
            let placed = self.place(row.url).map_err(Reason::Target)?;
            record.target = placed.place;
            self.counts.repaired += u64::from(placed.repaired);
        }
        let campaign = kept_campaign(row.campaign);
        self.counts.campaigns_cut += u64::from(campaign.len() < row.campaign.len());
        record.campaign = self.campaign(campaign);
        self.rows.push(&record);
        Ok(())
    }

    fn namespace(&mut self, name: &[u8]) -> Result<u32, Reason> {
        if let Some((last, local)) = &self.last_name
            && **last == *name
        {
            return Ok(*local);
        }
        let id = self.namespaces.intern(name).map_err(Reason::Namespace)?;
        let local = self.names.add(id, &self.namespaces);
        self.last_name = Some((name.into(), local));
        Ok(local)
    }

    /// The place of the target that `raw` stands for.
    fn place(&mut self, raw: &str) -> Result<Placed, target::Refused> {
        // Only approved targets are in the pool, and approving one once more changes nothing.
        if let Some(place) = self.targets.find(raw.as_bytes()) {
            return Ok(Placed { place, repaired: false });
        }
        if let Some(known) = self.spellings.get(raw) {
            return *known;
        }
        let approved = approve(raw);
        let placed = match &approved {
            Ok(approved) => {
                Ok(Placed { place: self.targets.add(approved.target()), repaired: approved.repaired() })
            }
            Err(refused) => Err(*refused),
        };
        if approved.is_ok_and(|approved| approved.as_str() == raw) || raw.len() > SPELLING_BYTES_MAX {
            return placed;
        }
        if self.spellings.len() >= SPELLINGS_MAX {
            self.spellings.clear();
        }
        self.spellings.insert(raw.into(), placed);
        placed
    }

    fn campaign(&mut self, campaign: &[u8]) -> Option<u64> {
        debug_assert!(campaign.len() <= CAMPAIGN_BYTES_MAX);
        let unsplit = Target { url: campaign, split: Split::default() };
        if campaign.is_empty() { None } else { Some(self.campaigns.add(unsplit)) }
    }

    fn refuse(&mut self, row: &Row<'_>, reason: Reason) {
        self.counts.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            let cut = |bytes: &[u8], max: usize| bytes.get(..max).unwrap_or(bytes).into();
            self.refusals.push(Refusal {
                namespace: cut(row.namespace, super::namespaces::NAME_BYTES_MAX),
                token: cut(row.token, TOKEN_BYTES_MAX),
                url: row.url.chars().take(REFUSED_URL_CHARS_MAX).collect(),
                reason,
            });
        }
    }

    /// Decides what becomes of a known link that the load may not have.
    fn carry(&mut self, load: &Parts, listed: Listed<'_>, now: UnixMillis) -> Result<(), TooLarge> {
        let since = listed.absent_since.unwrap_or_else(|| self.clock_max(now));
        let counts = u64::from(matches!(listed.found, Found::Live(link) if
            listed.origin == Origin::Change && link.expires_at.is_none_or(|end| end > since)));
        self.counts.known += counts;
        let local = self.names.local(listed.namespace);
        if local.is_some_and(|local| load.find(local, listed.token).is_some()) {
            return Ok(());
        }
        if now.since(since) > self.settings.guard.forget_after {
            self.counts.forgotten += counts;
            return Ok(());
        }
        if listed.absent_since.is_none() {
            self.counts.newly_absent += counts;
        }
        self.keep(&Listed { absent_since: Some(since), ..listed })
    }

    /// Takes a known link as it is.
    fn keep(&mut self, listed: &Listed<'_>) -> Result<(), TooLarge> {
        if listed.origin == Origin::LookUp {
            if self.looked_up >= self.settings.looked_up_max {
                self.counts.look_ups_dropped += 1;
                return Ok(());
            }
            self.looked_up += 1;
        }
        let mut record = Record {
            namespace: self.names.add(listed.namespace, &self.namespaces),
            token: listed.token,
            state: State::Live,
            append: false,
            origin: listed.origin,
            target: 0,
            campaign: None,
            expires_at: None,
            absent_since: listed.absent_since,
        };
        match listed.found {
            Found::Deleted => record.state = State::Deleted,
            Found::Disabled => record.state = State::Disabled,
            Found::Live(Link { target, campaign, append, expires_at }) => {
                record.target = self.targets.add(target);
                record.campaign = self.campaign(campaign);
                record.append = append;
                record.expires_at = expires_at;
            }
        }
        self.rows.push(&record);
        self.check_memory()
    }

    fn build(self, arranged: Arranged, now: UnixMillis) -> Finished {
        let clock_max = self.clock_max(now);
        let targets = self.targets.count();
        let stats = Stats { targets, ..count(&arranged.parts.records) };
        let Parts { seed, buckets, directory, records, .. } = arranged.parts;
        let parts = Parts {
            seed,
            buckets,
            made_at: now,
            clock_max,
            stats,
            directory: directory.settled(),
            records: records.settled(),
            campaigns: self.campaigns.into_blob(),
            targets: self.targets.into_blob(),
        };
        let table = Table::new(parts, self.names);
        Finished { table, counts: self.counts, refusals: self.refusals, basis: self.basis }
    }

    fn clock_max(&self, now: UnixMillis) -> UnixMillis {
        now.max(self.basis.table().parts.clock_max)
    }

    fn check_memory(&self) -> Result<(), TooLarge> {
        let pools = self.targets.bytes() + self.campaigns.bytes();
        // While rows are put into their buckets these are there twice, and then each pool while it settles.
        let rows = self.rows.bytes_needed();
        let largest = self.targets.bytes().max(self.campaigns.bytes());
        let needed_bytes = self.basis.bytes() + pools + rows.max(rows / 2 + largest);
        let full = self.targets.bytes().max(self.campaigns.bytes()) > POOL_BYTES_MAX / 2;
        if needed_bytes > self.settings.memory_bytes_max || full {
            return Err(TooLarge { needed_bytes, memory_bytes_max: self.settings.memory_bytes_max });
        }
        Ok(())
    }
}

/// Calls `each` for every link that `links` knows: the overlay's first, so that of the looked-up links
/// the most recent ones are kept.
fn for_each_known(
    links: &Links,
    mut each: impl FnMut(Listed<'_>) -> Result<(), TooLarge>,
) -> Result<(), TooLarge> {
    let mut courtesy = Courtesy::default();
    for Change { namespace, token, entry } in links.overlay().iter() {
        courtesy.step();
        let (found, origin) = (entry.found(), entry.origin());
        each(Listed { namespace, token: &token, found, origin, absent_since: None })?;
    }
    for listed in links.table().iter() {
        courtesy.step();
        if links.overlay().get(listed.namespace, listed.token).is_none() {
            each(listed)?;
        }
    }
    Ok(())
}

/// Records in the order in which they came.
#[derive(Debug, Default)]
struct Rows {
    chunks: Vec<Vec<u8>>,
    count: u64,
    bytes: u64,
    /// Records elsewhere that will be put back.
    reserved_bytes: u64,
}

impl Rows {
    fn push(&mut self, record: &Record<'_>) {
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= RECORD_BYTES_MAX;
        if !self.chunks.last().is_some_and(fits) {
            self.chunks.push(Vec::with_capacity(CHUNK_BYTES));
        }
        let chunk = self.chunks.last_mut().expect("just pushed");
        let before = chunk.len();
        record.encode(chunk);
        self.bytes += (chunk.len() - before) as u64;
        self.count += 1;
    }

    /// Puts the records of a draft before all others.
    fn put_back(&mut self, draft: Arranged) {
        self.count += draft.count;
        self.bytes += draft.parts.records.len() as u64;
        self.chunks.insert(0, draft.parts.records.into_vec());
    }

    /// The records as they wait, once more in their buckets, and the directory twice.
    fn bytes_needed(&self) -> u64 {
        let directory = self.count / BUCKET_RECORDS * (8 + PLACE_BYTES as u64);
        2 * (self.bytes + self.reserved_bytes) + directory
    }
}

/// Records in their buckets.
struct Arranged {
    /// Seed, buckets, directory and records only.
    parts: Parts,
    count: u64,
    duplicates: u64,
}

/// Sorts records into buckets, keeping their order within a bucket, and drops all but the last of
/// those with the same namespace and token.
fn arrange(rows: Rows, seed: u64) -> Arranged {
    let buckets = rows.count.div_ceil(BUCKET_RECORDS).max(1);
    let bucket = |record: &Record<'_>| bucket_of(seed, buckets, record.namespace, record.token) as usize;

    // The bytes of each bucket, then where its next record goes, in the end where it ends.
    let mut courtesy = Courtesy::default();
    let mut places = vec![0u64; usize::try_from(buckets).expect("the rows fit into memory")];
    for (record, raw) in rows.chunks.iter().flat_map(|chunk| records(chunk)) {
        courtesy.step();
        places[bucket(&record)] += raw.len() as u64;
    }
    let mut total = 0;
    for place in &mut places {
        total += std::mem::replace(place, total);
    }
    let mut sorted = vec![0u8; usize::try_from(total).expect("the rows fit into memory")];
    for chunk in rows.chunks {
        for (record, raw) in records(&chunk) {
            courtesy.step();
            let place = &mut places[bucket(&record)];
            let from = *place as usize;
            sorted[from..from + raw.len()].copy_from_slice(raw);
            *place += raw.len() as u64;
        }
    }

    let mut directory = Vec::with_capacity((places.len() + 1) * PLACE_BYTES);
    let (mut from, mut to, mut duplicates) = (0, 0, 0);
    for end in places {
        courtesy.step();
        put::<PLACE_BYTES>(&mut directory, to as u64);
        duplicates += settle(&mut sorted, from..end as usize, &mut to);
        from = end as usize;
    }
    put::<PLACE_BYTES>(&mut directory, to as u64);
    sorted.truncate(to);
    let parts =
        Parts { seed, buckets, directory: directory.into(), records: sorted.into(), ..Parts::default() };
    Arranged { parts, count: rows.count - duplicates, duplicates }
}

/// Moves the records of one bucket down to `to` and returns how many were dropped as outdated.
fn settle(sorted: &mut [u8], bucket: std::ops::Range<usize>, to: &mut usize) -> u64 {
    let mut duplicates = 0;
    let mut from = bucket.start;
    loop {
        let mut rest = records(&sorted[from..bucket.end]);
        let Some((record, raw)) = rest.next() else { break };
        let next = from + raw.len();
        if rest.any(|(later, _)| later.token == record.token && later.namespace == record.namespace) {
            duplicates += 1;
        } else {
            if from != *to {
                sorted.copy_within(from..next, *to);
            }
            *to += next - from;
        }
        from = next;
    }
    duplicates
}

fn count(bytes: &[u8]) -> Stats {
    let mut stats = Stats::default();
    let mut courtesy = Courtesy::default();
    for (record, _) in records(bytes) {
        courtesy.step();
        stats.links += 1;
        stats.live += u64::from(record.state == State::Live);
        stats.absent += u64::from(record.absent_since.is_some());
        stats.looked_up += u64::from(record.origin == Origin::LookUp);
    }
    stats
}

#[cfg(test)]
mod tests;
