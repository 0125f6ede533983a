//! A preallocated file that the floor responder records on: the least that writing hits down can cost.
//!
//! A record is a hundred fixed bytes, about as long as a hit in Holdfast's journal. One turn's records go
//! out in one write, followed by one `fdatasync` where the tape is synced. The file is written over from
//! its start when it is full. It does not encode, checksum, rotate, seal or deliver anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::failure::{Failure, Result};

/// When a turn's records may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// Once they are synced
    Synced,
    /// Once they are written
    Written,
}

/// Where hits are recorded.
pub(crate) struct Tape {
    file: File,
    promise: Promise,
    /// From the beginning of one sync to the next.
    pace: Duration,
    ready_at: Instant,
    end: u64,
    records: Vec<u8>,
}

const RECORD: [u8; 100] = [b'h'; 100];
const TAPE_BYTES: u64 = 64 << 20;
/// Holdfast's default `journal.pace`; writing is not paced there, nor here.
const SYNC_PACE: Duration = Duration::from_millis(1);

impl Tape {
    /// Makes the file and writes it full once, so that a sync has no metadata to write.
    pub(crate) fn create(path: &Path, promise: Promise) -> Result<Self> {
        let create = || {
            let file = File::create(path)?;
            let zeros = vec![0; 1 << 20];
            for offset in (0..TAPE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, offset)?;
            }
            file.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(Failure::at(format!("cannot make {}", path.display())))?;
        let pace = match promise {
            Promise::Synced => SYNC_PACE,
            Promise::Written => Duration::ZERO,
        };
        Ok(Self { file, promise, pace, ready_at: Instant::now(), end: 0, records: Vec::new() })
    }

    /// From when on [`Self::append`] keeps the pace.
    pub(crate) fn ready_at(&self) -> Instant {
        self.ready_at
    }

    /// Returns once so many records are as safe as was promised.
    pub(crate) fn append(&mut self, records: usize) -> io::Result<()> {
        let begin = Instant::now();
        self.records.clear();
        for _ in 0..records {
            self.records.extend_from_slice(&RECORD);
        }
        let length = self.records.len() as u64;
        if self.end + length > TAPE_BYTES {
            self.end = 0;
        }
        self.file.write_all_at(&self.records, self.end)?;
        self.end += length;
        if self.promise == Promise::Synced {
            self.file.sync_data()?;
        }
        self.ready_at = begin + self.pace;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_over_the_end_to_the_start_and_keep_the_pace() {
        let path = std::env::temp_dir().join(format!("tape-{}", std::process::id()));
        let mut tape = Tape::create(&path, Promise::Synced).expect("is made");
        let begin = Instant::now();
        tape.end = TAPE_BYTES - 1;
        tape.append(3).expect("is written");
        assert_eq!((tape.end, tape.ready_at() >= begin + SYNC_PACE), (300, true));
        let bytes = std::fs::read(&path).expect("is there");
        std::fs::remove_file(&path).expect("is there");
        assert_eq!(bytes.len() as u64, TAPE_BYTES);
        assert!(bytes[..300].iter().all(|&byte| byte == b'h') && bytes[300] == 0);
    }
}
