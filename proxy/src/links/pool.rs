//! Byte strings that repeat, stored once and named by their place.
//!
//! ```text
//! length << 3 | joint << 1 | has fragment, LEB128 | index of '#', LEB128 (has fragment) | bytes
//! ```
//!
//! Invariants:
//! - A string is in the pool once; its place never changes and fits into 40 bits.
//! - Targets and campaigns have a pool each: whatever is found in the pool of targets is approved.

#![deny(clippy::indexing_slicing)]

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::blob::Blob;
use super::record::{put_leb128, take_leb128};
use super::target::{Joint, Split, Target};

/// Places end here; far above every bound on memory.
pub(super) const POOL_BYTES_MAX: u64 = (1 << PLACE_BITS) - (1 << 20);

const PLACE_BITS: u32 = 40;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
const HAS_FRAGMENT: u64 = 1;

/// A pool under construction: the strings and an index that is given up when the table is finished.
#[derive(Debug)]
pub(super) struct Pool {
    blob: Vec<u8>,
    /// Open addressing; zero is free, else the upper 24 bits of the string's hash and its place + 1.
    index: Vec<u64>,
    count: usize,
    seed: u64,
}

impl Pool {
    /// An empty pool whose index has room for `expected` strings before it grows.
    pub(super) fn new(seed: u64, expected: u64) -> Self {
        let slots = usize::try_from(expected).unwrap_or_default().saturating_mul(4) / 3 + 2;
        Self { blob: Vec::new(), index: vec![0; slots.next_power_of_two().max(64)], count: 0, seed }
    }

    /// The place of `bytes`, if they are in the pool.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u64> {
        let hash = self.hash(bytes);
        self.probe(hash, bytes).ok()
    }

    /// The place of `target`, which is added when it is new.
    pub(super) fn add(&mut self, target: Target<'_>) -> u64 {
        let hash = self.hash(target.url);
        let free = match self.probe(hash, target.url) {
            Ok(place) => return place,
            Err(free) => free,
        };
        let place = self.blob.len() as u64;
        assert!(place < POOL_BYTES_MAX, "the builder stops long before a pool is full");
        let fragment = target.split.fragment;
        let tags = ((target.split.joint as u64) << 1) | if fragment.is_some() { HAS_FRAGMENT } else { 0 };
        put_leb128(&mut self.blob, ((target.url.len() as u64) << 3) | tags);
        if let Some(at) = fragment {
            put_leb128(&mut self.blob, u64::from(at));
        }
        self.blob.extend_from_slice(target.url);
        if let Some(slot) = self.index.get_mut(free) {
            *slot = (hash & !PLACE) | (place + 1);
        }
        self.count += 1;
        if self.count * 4 > self.index.len() * 3 {
            self.grow();
        }
        place
    }

    /// How many strings there are.
    pub(super) fn count(&self) -> u64 {
        self.count as u64
    }

    /// Memory in bytes, index included.
    pub(super) fn bytes(&self) -> u64 {
        self.blob.len() as u64 + self.index.len() as u64 * 8
    }

    /// Gives up the index.
    pub(super) fn into_blob(self) -> Blob {
        let Self { blob, index, .. } = self;
        drop(index); // before the strings are there twice
        Blob::from(blob).settled()
    }

    /// The place of `bytes`, or the free slot of the index where they belong.
    fn probe(&self, hash: u64, bytes: &[u8]) -> Result<u64, usize> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.index.get(at).copied().unwrap_or_default();
            if slot == 0 {
                return Err(at);
            }
            let place = (slot & PLACE) - 1;
            if slot & !PLACE == hash & !PLACE
                && read(&self.blob, place).is_some_and(|known| known.url == bytes)
            {
                return Ok(place);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let slots = self.index.len() * 2;
        self.index = vec![0; slots];
        let mut place = 0;
        while let Some((known, next)) = read_on(&self.blob, place) {
            let hash = self.hash(known.url);
            let mut at = hash as usize & (slots - 1);
            while self.index.get(at).is_some_and(|&slot| slot != 0) {
                at = (at + 1) & (slots - 1);
            }
            if let Some(slot) = self.index.get_mut(at) {
                *slot = (hash & !PLACE) | (place + 1);
            }
            place = next;
        }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.seed)
    }
}

/// The string at `place`; `None` when there is none, whatever `blob` holds.
pub(super) fn read(blob: &[u8], place: u64) -> Option<Target<'_>> {
    read_on(blob, place).map(|(target, _)| target)
}

/// The string at `place` and the place behind it.
fn read_on(blob: &[u8], place: u64) -> Option<(Target<'_>, u64)> {
    let mut rest = blob.get(usize::try_from(place).ok()?..)?;
    let head = take_leb128(&mut rest)?;
    let fragment =
        if head & HAS_FRAGMENT != 0 { Some(u32::try_from(take_leb128(&mut rest)?).ok()?) } else { None };
    let (url, rest) = rest.split_at_checked(usize::try_from(head >> 3).ok()?)?;
    let target = Target { url, split: Split { joint: Joint::from_tag((head >> 1) & 0b11)?, fragment } };
    Some((target, (blob.len() - rest.len()) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target<'_> {
        Target { url: url.as_bytes(), split: Split::of(url.as_bytes()) }
    }

    #[test]
    fn strings_are_stored_once_and_found_after_growing() {
        let mut pool = Pool::new(5, 0);
        let urls: Vec<String> = (0..2000).map(|n| format!("https://example.com/?n={n}#part")).collect();
        let places: Vec<u64> = urls.iter().map(|url| pool.add(target(url))).collect();
        let bytes = pool.blob.len();
        for (url, &place) in urls.iter().zip(&places) {
            assert_eq!(pool.find(url.as_bytes()), Some(place));
            assert_eq!(pool.add(target(url)), place);
        }
        assert_eq!(pool.find(b"https://example.com/"), None);
        assert_eq!((pool.count(), pool.blob.len()), (2000, bytes));
        let blob = pool.into_blob();
        for (url, place) in urls.iter().zip(places) {
            assert_eq!(read(&blob, place), Some(target(url)));
        }
    }

    #[test]
    fn the_empty_string_and_long_ones_are_strings() {
        let mut pool = Pool::new(0, 100);
        let long = "x".repeat(8192);
        let places = [pool.add(target("")), pool.add(target(&long)), pool.add(target("#"))];
        for (place, text) in places.into_iter().zip(["", &long, "#"]) {
            assert_eq!(read(&pool.blob, place), Some(target(text)));
        }
    }

    #[test]
    fn a_place_that_is_none_reads_as_nothing() {
        assert_eq!(read(b"", 0), None);
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff", 0), None);
        assert_eq!(read(b"\x7fabc", 0), None);
        assert_eq!(read(b"\x08a", u64::MAX), None);
    }
}
