//! Reads a folder of PEM files into chains and keys; a file that has not changed is not read again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use crate::UnixSeconds;
use crate::chain::Chain;
use crate::fault::{Consequence, Fault, Problem};
use crate::key::Key;

/// A chain of a dozen certificates with its key takes 30 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Ten times the certificates that one edge is built for.
const FILES_MAX: usize = 100_000;
/// A file that changed so short a time ago may change again within the same tick of the file
/// system's clock.
const UNSETTLED_S: i64 = 2;

/// A file that is gone is taken to be there for so long: tools remove one and write it anew, and a folder
/// that is a link to another changes in between.
const GONE_S: i64 = 2;

/// What an encrypted key begins with, in its own form and in the traditional one.
const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// Private keys by their public half in DER.
pub(crate) type Keys = HashMap<Box<[u8]>, Arc<Key>>;

/// A folder as it was read last.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    files: BTreeMap<PathBuf, Read>,
}

/// What a folder holds.
pub(crate) struct Found {
    /// Every file that holds a chain, or of which nobody can tell.
    pub(crate) chains: BTreeMap<PathBuf, Result<Arc<Chain>, Problem>>,
    pub(crate) keys: Keys,
    /// Keys that cannot be used.
    pub(crate) faults: Vec<Fault>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.keys.is_empty()
    }
}

impl Folder {
    /// Reads what has changed since the last time; whether anything had.
    pub(crate) fn read(&mut self, folder: &Path, now: UnixSeconds) -> Result<bool, Problem> {
        let listed = list(folder).map_err(Problem::unreadable)?;
        if listed.len() > FILES_MAX {
            return Err(Problem::TooMany { files_max: FILES_MAX });
        }
        let mut earlier = std::mem::take(&mut self.files);
        let mut changed = false;
        for (file, meta) in listed {
            let stamp = meta.as_ref().ok().map(Stamp::of);
            let read = match (earlier.remove(&file), stamp) {
                (Some(read), Some(stamp)) if read.stamp == Some(stamp) => Read { gone_since: None, ..read },
                (_, stamp) => {
                    changed = true;
                    // What no parser foresaw costs this one file, not the edge.
                    let parts =
                        std::panic::catch_unwind(|| read_parts(&file)).unwrap_or(Err(Problem::Certificate));
                    Read { stamp: stamp.filter(|stamp| stamp.is_settled(now)), parts, gone_since: None }
                }
            };
            self.files.insert(file, read);
        }
        for (file, mut read) in earlier {
            let gone_since = *read.gone_since.get_or_insert(now);
            if now < gone_since || now.0 - gone_since.0 > GONE_S {
                changed = true;
            } else {
                self.files.insert(file, read);
            }
        }
        Ok(changed)
    }

    pub(crate) fn found(&self) -> Found {
        let mut found = Found { chains: BTreeMap::new(), keys: HashMap::new(), faults: Vec::new() };
        for (file, read) in &self.files {
            match &read.parts {
                Ok(parts) => {
                    if let Some(chain) = &parts.chain {
                        found.chains.insert(file.clone(), chain.clone());
                    }
                    found.keys.extend(parts.keys.iter().map(|key| (key.public.clone(), Arc::clone(key))));
                    // Beside a chain this shows as the chain's missing key, too; here is the reason.
                    if let Some(problem) = &parts.key_problem {
                        let (problem, consequence) = (problem.clone(), Consequence::NotServed);
                        found.faults.push(Fault { file: file.clone(), problem, consequence });
                    }
                }
                Err(problem) => {
                    found.chains.insert(file.clone(), Err(problem.clone()));
                }
            }
        }
        found
    }
}

#[derive(Debug)]
struct Read {
    /// `None` when it must be read again.
    stamp: Option<Stamp>,
    parts: Result<Parts, Problem>,
    /// When it was first missed.
    gone_since: Option<UnixSeconds>,
}

/// What tells a changed file from an unchanged one. The time of the inode's last change betrays
/// whoever sets the other one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: UnixSeconds) -> bool {
        self.changed.0 < now.0 - UNSETTLED_S
    }
}

/// The folder's files, links followed: mounted secrets and ACME clients use them. A dangling one is
/// reported when it is read.
fn list(folder: &Path) -> io::Result<Vec<(PathBuf, io::Result<Metadata>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let meta = fs::metadata(entry.path());
        if meta.as_ref().map_or(true, Metadata::is_file) {
            files.push((entry.path(), meta));
        }
    }
    Ok(files)
}

#[derive(Debug)]
struct Parts {
    chain: Option<Result<Arc<Chain>, Problem>>,
    keys: Vec<Arc<Key>>,
    key_problem: Option<Problem>,
}

fn read_parts(file: &Path) -> Result<Parts, Problem> {
    let source = File::open(file).map_err(Problem::unreadable)?;
    let expected = source.metadata().map_or(0, |meta| meta.len().min(FILE_BYTES_MAX));
    // Made as long as the file at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected as usize + 1));
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Problem::unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::TooLong { bytes_max: FILE_BYTES_MAX });
    }
    let (certificates, keys) = sections(&bytes)?;
    let is_encrypted = keys.is_empty() && bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
    if certificates.is_empty() && keys.is_empty() {
        return Err(if is_encrypted { Problem::Encrypted } else { Problem::Nothing });
    }
    let chain = match certificates.is_empty() {
        true => None,
        false => Some(Chain::new(certificates).map(Arc::new)),
    };
    let key_problem = is_encrypted.then_some(Problem::Encrypted);
    let mut parts = Parts { chain, keys: Vec::new(), key_problem };
    for key in keys {
        match Key::read(key) {
            Ok(key) => parts.keys.push(Arc::new(key)),
            Err(problem) => parts.key_problem = Some(problem),
        }
    }
    Ok(parts)
}

type Sections = (Vec<CertificateDer<'static>>, Vec<PrivateKeyDer<'static>>);

fn sections(pem: &[u8]) -> Result<Sections, Problem> {
    let (mut certificates, mut keys) = (Vec::new(), Vec::<PrivateKeyDer<'static>>::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| Problem::Pem)?;
        match kind {
            SectionKind::Certificate => certificates.push(CertificateDer::from(der)),
            SectionKind::PrivateKey => keys.push(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => keys.push(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => keys.push(PrivateSec1KeyDer::from(der).into()),
            _ => {}
        }
    }
    Ok((certificates, keys))
}
