//! Numbers the namespaces, so that the way of a click compares a number instead of a name.
//!
//! Invariants:
//! - A name keeps its number as long as the process lives; numbers are dense and never given twice.
//! - Numbers mean nothing outside the process: whatever reaches a disk carries the name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest name of a namespace in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The most names that one process numbers; with their index they stay below 400 MiB.
pub const NAMES_MAX: usize = 1_000_000;

/// The number of a namespace in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub(super) u32);

impl NamespaceId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The names seen so far; clones share them.
///
/// Asked when a configuration or a load brings names, never by a request: a site knows its number.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    // Guards both directions of the mapping; held for one look-up or one insertion.
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<[u8]>, NamespaceId>,
    names: Vec<Arc<[u8]>>,
}

/// Why a name gets no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The name is longer than [`NAME_BYTES_MAX`].
    TooLong {
        /// The name's length.
        bytes: usize,
    },
    /// There are [`NAMES_MAX`] names already.
    TooMany,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "namespace has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")
            }
            Self::TooMany => write!(f, "there are more than {NAMES_MAX} namespaces"),
        }
    }
}

impl std::error::Error for Fault {}

impl Namespaces {
    /// The number of `name`, a new one if it was never seen.
    ///
    /// # Errors
    /// [`Fault`] when a bound stands against a new number.
    pub fn intern(&self, name: &[u8]) -> Result<NamespaceId, Fault> {
        let mut names = self.lock();
        if let Some(&id) = names.ids.get(name) {
            return Ok(id);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Fault::TooLong { bytes: name.len() });
        }
        if names.names.len() >= NAMES_MAX {
            return Err(Fault::TooMany);
        }
        let id = NamespaceId(u32::try_from(names.names.len()).expect("below NAMES_MAX"));
        let name: Arc<[u8]> = name.into();
        names.names.push(Arc::clone(&name));
        names.ids.insert(name, id);
        Ok(id)
    }

    /// The number of `name`, if it was seen.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<NamespaceId> {
        self.lock().ids.get(name).copied()
    }

    /// The name that `id` stands for.
    ///
    /// # Panics
    /// When `id` was given by another set of namespaces, which is a bug of the caller.
    #[must_use]
    pub fn name(&self, id: NamespaceId) -> Arc<[u8]> {
        let names = self.lock();
        Arc::clone(names.names.get(id.index()).expect("an id is given by this interner only"))
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_clones_share_it() {
        let namespaces = Namespaces::default();
        let brand = namespaces.intern(b"brand").unwrap();
        let other = namespaces.clone().intern(b"other").unwrap();
        assert_ne!(brand, other);
        assert_eq!(namespaces.clone().intern(b"brand"), Ok(brand));
        assert_eq!(namespaces.find(b"other"), Some(other));
        assert_eq!(namespaces.find(b"none"), None);
        assert_eq!(&*namespaces.name(brand), b"brand");
    }

    #[test]
    fn names_are_bytes_of_bounded_length() {
        let namespaces = Namespaces::default();
        assert!(namespaces.intern(b"").is_ok());
        assert!(namespaces.intern(&[0xff; NAME_BYTES_MAX]).is_ok());
        let fault = namespaces.intern(&[b'a'; NAME_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(fault.to_string(), "namespace has 256 bytes, at most 255 are allowed");
    }
}
