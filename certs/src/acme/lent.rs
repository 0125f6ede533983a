//! A storage that can be let go for a while: another process on the same folder is about to use it.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use zeroize::Zeroizing;

use super::storage::Storage;

/// Changes nothing from the end of [`Lent::let_go`] to [`Lent::take_back`].
pub(crate) struct Lent {
    storage: Arc<dyn Storage>,
    // Held for reading while something is changed, which takes as long as the disk does.
    is_let_go: RwLock<bool>,
}

impl Lent {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, is_let_go: RwLock::new(false) }
    }

    /// Waits for what is being changed.
    pub(crate) fn let_go(&self) {
        self.set(true);
    }

    pub(crate) fn take_back(&self) {
        self.set(false);
    }

    fn set(&self, is_let_go: bool) {
        *self.is_let_go.write().unwrap_or_else(PoisonError::into_inner) = is_let_go;
    }

    fn ours(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let is_let_go = self.is_let_go.read().unwrap_or_else(PoisonError::into_inner);
        if *is_let_go {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has the storage"));
        }
        Ok(is_let_go)
    }
}

impl Storage for Lent {
    fn names(&self) -> io::Result<Vec<String>> {
        self.storage.names()
    }

    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.storage.read(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let _ours = self.ours()?;
        self.storage.write(name, bytes)
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        let _ours = self.ours()?;
        self.storage.set_aside(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let _ours = self.ours()?;
        self.storage.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::Folder;

    #[test]
    fn nothing_is_changed_while_it_is_let_go() {
        let scratch = tempfile::tempdir().expect("a folder");
        let lent = Lent::new(Arc::new(Folder::open(scratch.path()).expect("it is opened")));
        lent.write("a.example.record", b"one").expect("it is written");
        lent.let_go();
        assert!(lent.write("a.example.record", b"two").is_err());
        assert!(lent.remove("a.example.record").is_err() && lent.set_aside("a.example.record").is_err());
        assert_eq!(lent.read("a.example.record").expect("readable").expect("there").as_slice(), b"one");
        lent.take_back();
        lent.write("a.example.record", b"two").expect("it is written");
    }
}
