//! Reads a folder of PEM files into chains and keys, with a fault for each file that holds neither.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::SigningKey;

use crate::fault::{Consequence, Fault, Problem};

/// A chain of a dozen certificates with its key takes 30 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Ten times the certificates that one edge is built for.
const FILES_MAX: usize = 100_000;

pub(crate) type Chain = Vec<CertificateDer<'static>>;

/// Private keys by their public half in DER.
pub(crate) type Keys = HashMap<Vec<u8>, Arc<dyn SigningKey>>;

/// What a folder holds.
pub(crate) struct Files {
    /// Every file that holds a chain, or of which nobody can tell.
    pub(crate) chains: BTreeMap<PathBuf, Result<Chain, Problem>>,
    pub(crate) keys: Keys,
}

impl Files {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.keys.is_empty()
    }
}

/// Reads every file of `folder`; faults of keys go to `faults`, faults of chains to the chain's place.
pub(crate) fn read(folder: &Path, faults: &mut Vec<Fault>) -> Result<Files, Problem> {
    let mut files = Files { chains: BTreeMap::new(), keys: HashMap::new() };
    for file in list(folder).map_err(Problem::Unreadable)? {
        if files.chains.len() + files.keys.len() >= FILES_MAX {
            return Err(Problem::TooMany { files_max: FILES_MAX });
        }
        let Parts { chain, keys } = match read_parts(&file) {
            Ok(parts) => parts,
            Err(problem) => {
                files.chains.insert(file, Err(problem));
                continue;
            }
        };
        let key_only = chain.is_empty();
        for key in keys {
            match usable(&key) {
                Ok((public, key)) => {
                    files.keys.insert(public, key);
                }
                // Beside a chain this shows as the chain's missing key, too; here is the reason.
                Err(problem) => {
                    let consequence = Consequence::NotServed;
                    faults.push(Fault { file: file.clone(), problem, consequence });
                }
            }
        }
        if !key_only {
            files.chains.insert(file, Ok(chain));
        }
    }
    Ok(files)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links are followed: mounted secrets and ACME clients use them. A dangling one is reported
        // when it is read.
        if !hidden && fs::metadata(entry.path()).map_or(true, |meta| meta.is_file()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

struct Parts {
    chain: Chain,
    keys: Vec<PrivateKeyDer<'static>>,
}

fn read_parts(file: &Path) -> Result<Parts, Problem> {
    let mut bytes = Vec::new();
    let mut source = File::open(file).map_err(Problem::Unreadable)?.take(FILE_BYTES_MAX + 1);
    source.read_to_end(&mut bytes).map_err(Problem::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::TooLong { bytes_max: FILE_BYTES_MAX });
    }
    let parts = sections(&bytes)?;
    if !parts.chain.is_empty() || !parts.keys.is_empty() {
        return Ok(parts);
    }
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    if bytes.windows(encrypted.len()).any(|window| window == encrypted) {
        return Err(Problem::Encrypted);
    }
    Err(Problem::Nothing)
}

fn sections(pem: &[u8]) -> Result<Parts, Problem> {
    let mut parts = Parts { chain: Vec::new(), keys: Vec::new() };
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| Problem::Pem)?;
        match kind {
            SectionKind::Certificate => parts.chain.push(CertificateDer::from(der)),
            SectionKind::PrivateKey => parts.keys.push(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => parts.keys.push(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => parts.keys.push(PrivateSec1KeyDer::from(der).into()),
            _ => {}
        }
    }
    Ok(parts)
}

fn usable(key: &PrivateKeyDer<'_>) -> Result<(Vec<u8>, Arc<dyn SigningKey>), Problem> {
    let key = any_supported_type(key).map_err(Problem::Key)?;
    let public = key.public_key().map(|spki| spki.as_ref().to_vec());
    let unknown = || Problem::Key(rustls::Error::General("the key does not tell its public half".into()));
    Ok((public.ok_or_else(unknown)?, key))
}
