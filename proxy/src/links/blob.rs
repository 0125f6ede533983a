//! The bytes of one part of a table: on the heap while they are few, on huge pages when they are many.
//!
//! A look-up in a large table meets pages that the processor has no translation for; with pages of
//! 2 MiB instead of 4 KiB it nearly always has one (figures: `docs/performance.md`).

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

use crate::courtesy;

/// From here on the rounding to whole huge pages is small beside the bytes.
const HUGE_FROM: usize = 16 << 20;
/// Copied at a time, in about a tenth of a millisecond where each page is met for the first time.
const COPIED_BYTES: usize = 256 << 10;

/// A byte string of fixed length.
pub(super) struct Blob(Bytes);

enum Bytes {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Blob {
    /// `length` zeros.
    pub(super) fn zeroed(length: usize) -> Self {
        match pages(length) {
            Some(pages) => Self(Bytes::Pages(pages)),
            None => Self(Bytes::Heap(vec![0; length])),
        }
    }

    /// The same bytes where they are to stay.
    pub(super) fn settled(self) -> Self {
        match self.0 {
            Bytes::Heap(mut heap) => match pages(heap.len()) {
                Some(mut pages) => {
                    for (to, from) in pages.chunks_mut(COPIED_BYTES).zip(heap.chunks(COPIED_BYTES)) {
                        to.copy_from_slice(from);
                        courtesy::offer();
                    }
                    Self(Bytes::Pages(pages))
                }
                None => {
                    heap.shrink_to_fit();
                    Self(Bytes::Heap(heap))
                }
            },
            pages @ Bytes::Pages(_) => Self(pages),
        }
    }

    /// The bytes as a vector; a copy when they lie on pages of their own.
    pub(super) fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Heap(heap) => heap,
            Bytes::Pages(pages) => pages.to_vec(),
        }
    }
}

/// Anonymous memory on huge pages, where the system has them; `None` when it is not worth it or not to be had.
fn pages(length: usize) -> Option<MmapMut> {
    if length < HUGE_FROM {
        return None;
    }
    let pages = MmapMut::map_anon(length).ok()?;
    // A system without huge pages says no; small ones serve as well.
    let _ = pages.advise(Advice::HugePage);
    Some(pages)
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Heap(bytes))
    }
}

impl Default for Blob {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Heap(heap) => heap,
            Bytes::Pages(pages) => pages,
        }
    }
}

impl DerefMut for Blob {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Bytes::Heap(heap) => heap,
            Bytes::Pages(pages) => pages,
        }
    }
}

impl Clone for Blob {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_and_many_stay_what_they_are() {
        for length in [0, 1, HUGE_FROM - 1, HUGE_FROM, HUGE_FROM + 4097] {
            let bytes: Vec<u8> = (0..length).map(|n| ((n * 31) >> 7) as u8).collect();
            let settled = Blob::from(bytes.clone()).settled();
            assert!(*settled == *bytes, "{length}");
            let mut filled = Blob::zeroed(length);
            filled.copy_from_slice(&bytes);
            assert!(filled == settled && filled.into_vec() == bytes, "{length}");
        }
    }
}
