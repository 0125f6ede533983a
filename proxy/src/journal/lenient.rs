//! A file of which blocks that the disk can't read are shown as zeros, and counted.
//!
//! An error of the disk is not damage: this stands in for a file only after reading it failed again
//! and again.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::disk::DiskFile;

const BLOCK_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Lenient {
    file: Box<dyn DiskFile>,
    unreadable_bytes: AtomicU64,
}

impl Lenient {
    pub(super) fn new(file: Box<dyn DiskFile>) -> Self {
        Self { file, unreadable_bytes: AtomicU64::new(0) }
    }

    /// Reads what can be read, block by block, and leaves zeros for the rest.
    fn read_blocks(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = self.file.bytes()?;
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let in_block = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let piece = (BLOCK_BYTES - in_block).min(wanted - done);
            let block = &mut into[done..done + piece];
            if self.file.read_at(block, at).is_err() {
                block.fill(0);
                self.unreadable_bytes.fetch_add(piece as u64, Relaxed);
            }
            done += piece;
        }
        Ok(wanted)
    }
}

impl DiskFile for Lenient {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(into, offset) {
            Ok(bytes) => Ok(bytes),
            Err(_) => self.read_blocks(into, offset),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.file.forget_cache()
    }

    fn unreadable_bytes(&self) -> u64 {
        self.unreadable_bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose second block can't be read.
    #[derive(Debug)]
    struct Bad;

    impl DiskFile for Bad {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            let end = offset + into.len() as u64;
            if offset < 8192 && end > 4096 {
                return Err(io::Error::other("input/output error"));
            }
            into.fill(7);
            Ok(into.len())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn bytes(&self) -> io::Result<u64> {
            Ok(10_000)
        }
        fn forget_cache(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_the_block_that_fails_is_zeros() {
        let file = Lenient::new(Box::new(Bad));
        let mut bytes = [1; 12_000];
        assert_eq!(file.read_at(&mut bytes, 100).unwrap(), 9900);
        assert!(bytes[..3996].iter().all(|&byte| byte == 7));
        assert!(bytes[3996..8092].iter().all(|&byte| byte == 0));
        assert!(bytes[8092..9900].iter().all(|&byte| byte == 7));
        assert_eq!(file.unreadable_bytes(), 4096);
    }
}
