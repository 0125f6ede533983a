//! What an edge knows in one file, to be carried to another: its links, and behind them customers' domains.
//!
//! ```text
//! a snapshot    as in `snapshot`
//! domains       as in `domains::file`
//! trailer    0  bytes of the domains u64    8  version u32    12  crc32c of these u32    16  magic "HFPARCL\n"
//! ```
//!
//! A file without a trailer is a snapshot alone: an edge without domains wrote it, or a program that carried
//! links only. Each part has its own checksum; nothing is taken of a file with a damaged one.

#![deny(clippy::indexing_slicing)]

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use crc32c::crc32c;

use super::domains::{Domains, file};

const MAGIC: &[u8; 8] = b"HFPARCL\n";
const VERSION: u32 = 1;
const TRAILER_BYTES: u64 = 24;

/// Puts `domains` behind the snapshot that is in `file`, durable when this returns; the bytes that were added.
///
/// # Errors
/// As the disk says; the file is then of no use.
pub fn add(file: &mut File, domains: &Domains) -> io::Result<u64> {
    let mut bytes = file::encode(domains)?;
    let mut trailer = (bytes.len() as u64).to_le_bytes().to_vec();
    trailer.extend_from_slice(&VERSION.to_le_bytes());
    trailer.extend_from_slice(&crc32c(&trailer).to_le_bytes());
    trailer.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&trailer);
    file.seek(SeekFrom::End(0))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(bytes.len() as u64)
}

/// Takes the domains off `file`, so that the snapshot remains; nothing where it carries none.
///
/// # Errors
/// What is wrong with the file, or what the disk says.
pub fn take(file: &mut File) -> io::Result<Option<Domains>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let bytes = file.metadata()?.len();
    let Some(begin) = bytes.checked_sub(TRAILER_BYTES) else { return Ok(None) };
    file.seek(SeekFrom::Start(begin))?;
    let mut number = [0; 8];
    file.read_exact(&mut number)?;
    let (mut version, mut checksum, mut magic) = ([0; 4], [0; 4], [0; 8]);
    file.read_exact(&mut version)?;
    file.read_exact(&mut checksum)?;
    file.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Ok(None);
    }
    if u32::from_le_bytes(checksum) != crc32c(&[&number[..], &version].concat()) {
        return Err(wrong("file is damaged: its last bytes do not match their checksum".to_owned()));
    }
    if u32::from_le_bytes(version) != VERSION {
        let version = u32::from_le_bytes(version);
        return Err(wrong(format!("file has version {version}, this release reads {VERSION}")));
    }
    let Some(links) = begin.checked_sub(u64::from_le_bytes(number)) else {
        return Err(wrong("file is damaged: it is shorter than its domains".to_owned()));
    };
    let mut domains = Vec::new();
    file.seek(SeekFrom::Start(links))?;
    (&*file).take(begin - links).read_to_end(&mut domains)?;
    let domains = file::decode(&domains).map_err(|why| wrong(format!("its part of domains: {why}")))?;
    file.set_len(links)?;
    file.sync_all()?;
    Ok(Some(domains))
}

#[cfg(test)]
mod tests {
    use super::super::domains::{Row, Settings};
    use super::super::guard;
    use super::*;
    use crate::event::UnixMillis;
    use std::time::Duration;

    fn domains() -> Domains {
        let row = Row {
            host: "click.brand.test",
            site: "shop",
            namespace: b"two",
            brand: "",
            disabled: false,
            deleted: false,
        };
        let guard = guard::Settings { forget_after: Duration::MAX, drop_max_ppm: 1_000_000 };
        let settings = Settings { guard, domains_max: 10, brands_bytes_max: 10 };
        let known = Domains::default();
        let mut load = known.load(settings);
        load.row(row);
        load.finish(None, UnixMillis(1)).domains
    }

    fn hosts(domains: &Domains) -> Vec<&str> {
        domains.iter().map(|(host, _)| host).collect()
    }

    #[test]
    fn what_was_added_is_taken_and_the_snapshot_remains() {
        let mut file = tempfile::tempfile().unwrap();
        for links in [&b""[..], b"short", &[7; 5000]] {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(links).unwrap();
            assert!(take(&mut file).unwrap().is_none(), "a snapshot alone");
            add(&mut file, &domains()).unwrap();
            assert_eq!(hosts(&take(&mut file).unwrap().unwrap()), ["click.brand.test"]);
            assert_eq!(file.metadata().unwrap().len(), links.len() as u64);
        }
    }

    #[test]
    fn a_flipped_bit_in_domains_or_trailer_is_found() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"links").unwrap();
        let added = add(&mut file, &domains()).unwrap();
        let mut good = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut good).unwrap();
        for at in good.len() - usize::try_from(added).unwrap()..good.len() {
            let mut bad = good.clone();
            *bad.get_mut(at).unwrap() ^= 1;
            file.rewind().unwrap();
            file.write_all(&bad).unwrap();
            // Without its magic it is no trailer, and whoever reads the snapshot finds it too long.
            match take(&mut file) {
                Ok(none) => assert!(none.is_none() && at >= good.len() - MAGIC.len(), "byte {at}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}"),
            }
            assert_eq!(file.metadata().unwrap().len(), good.len() as u64, "byte {at}");
        }
    }
}
