//! Which journals were ever delivered to which database, in a small file of the data folder.
//!
//! Invariants:
//! - Written only after the database said that it holds something of the journal, so that a crash
//!   never makes a database look as if it had lost what it never had.
//! - A hint: without it, a database that lost its cursors is not told from a new one.

use crate::journal::JournalId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Databases that are remembered; the one not used for longest is forgotten first.
const STORES_MAX: usize = 16;
/// Journals that are remembered of each; far more than are ever retained.
const JOURNALS_MAX: usize = 4096;
const VERSION: u32 = 1;

/// The file and its content.
#[derive(Debug, Default)]
pub struct Remembered {
    path: Option<PathBuf>,
    content: Content,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    /// The one used last at the end.
    databases: Vec<Store>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Store {
    database: String,
    journals: Vec<String>,
}

impl Remembered {
    /// Nothing is remembered beyond the life of this value.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the file, or starts without one.
    ///
    /// A file that can't be understood is renamed to `*.damaged`, and nothing is remembered; the
    /// second value says so.
    ///
    /// # Errors
    /// When the file is there but can't be read or renamed.
    pub fn open(path: PathBuf) -> io::Result<(Self, Option<PathBuf>)> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => "damaged".to_owned(),
            Err(e) => return Err(e),
        };
        if text.is_empty() {
            return Ok((Self { path: Some(path), content: Content::default() }, None));
        }
        match serde_json::from_str::<Content>(&text) {
            Ok(content) if content.version == VERSION => Ok((Self { path: Some(path), content }, None)),
            _ => {
                let mut aside = path.clone().into_os_string();
                aside.push(".damaged");
                fs::rename(&path, &aside)?;
                Ok((Self { path: Some(path), content: Content::default() }, Some(aside.into())))
            }
        }
    }

    pub(super) fn knows(&self, store: Uuid, journal: JournalId) -> bool {
        let (store, journal) = (store.to_string(), journal.to_string());
        self.content.databases.iter().any(|s| s.database == store && s.journals.contains(&journal))
    }

    /// Whether any database was ever given something of `journal`.
    pub(super) fn knows_anywhere(&self, journal: JournalId) -> bool {
        let journal = journal.to_string();
        self.content.databases.iter().any(|s| s.journals.contains(&journal))
    }

    /// Whether `store` was ever given something of one of `journals`.
    pub(super) fn knows_one_of(&self, store: Uuid, journals: &[JournalId]) -> bool {
        journals.iter().any(|&journal| self.knows(store, journal))
    }

    /// Remembers that `store` holds something of `journal`.
    pub(super) fn note(&mut self, store: Uuid, journal: JournalId) -> io::Result<()> {
        if self.knows(store, journal) {
            return Ok(());
        }
        let databases = &mut self.content.databases;
        let name = store.to_string();
        let mut entry = match databases.iter().position(|s| s.database == name) {
            Some(index) => databases.remove(index),
            None => Store { database: name, journals: Vec::new() },
        };
        entry.journals.push(journal.to_string());
        shorten(&mut entry.journals, JOURNALS_MAX);
        databases.push(entry);
        shorten(databases, STORES_MAX);
        self.content.version = VERSION;
        match &self.path {
            Some(path) => write_whole(path, &serde_json::to_vec_pretty(&self.content)?),
            None => Ok(()),
        }
    }
}

fn shorten<T>(list: &mut Vec<T>, max: usize) {
    list.drain(..list.len().saturating_sub(max));
}

/// Replaces a file so that after a power cut it is the old one or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(".unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(n: u8) -> JournalId {
        JournalId::from_bytes([n; 16])
    }

    #[test]
    fn remembers_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliver.json");
        let (one, two) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let (mut first, _) = Remembered::open(path.clone()).unwrap();
        assert!(!first.knows(one, journal(1)));
        first.note(one, journal(1)).unwrap();
        first.note(one, journal(2)).unwrap();
        let (second, damaged) = Remembered::open(path).unwrap();
        assert_eq!(damaged, None);
        assert!(second.knows(one, journal(1)) && second.knows(one, journal(2)));
        assert!(!second.knows(two, journal(1)) && !second.knows(one, journal(3)));
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliver.json");
        for content in [&b"{"[..], b"\xff\xfe", b"{\"version\":9,\"databases\":[]}"] {
            fs::write(&path, content).unwrap();
            let (remembered, damaged) = Remembered::open(path.clone()).unwrap();
            assert_eq!(damaged, Some(folder.path().join("deliver.json.damaged")));
            assert!(remembered.content.databases.is_empty() && !path.exists());
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut remembered = Remembered::in_memory();
        for n in 0..=STORES_MAX as u8 {
            remembered.note(Uuid::from_bytes([n; 16]), journal(n)).unwrap();
        }
        assert!(!remembered.knows(Uuid::from_bytes([0; 16]), journal(0)));
        assert!(remembered.knows(Uuid::from_bytes([1; 16]), journal(1)));
    }
}
