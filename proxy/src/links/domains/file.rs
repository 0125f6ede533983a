//! The domains on disk: `domains.ndjson`, written whole, the one before it kept as `domains.before.ndjson`.
//!
//! ```json
//! {"version":1,"domains":2,"crc32c":3735928559}
//! {"host":"click.brand.com","site":"customers","namespace":"…","brand":"","disabled":false,"absent_since":null}
//! ```
//!
//! A brand that an earlier line has stands there alone: `"like":"<its host>"` refers to it (since version 2). The
//! checksum covers every byte after the first line. A damaged file is set aside, never deleted.
//! The same bytes go along with links that are carried to another edge (see `parcel`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::snapshot::Damaged;
use super::{Brands, Domain, Domains};
use crate::database::{escape, unescape};
use crate::event::UnixMillis;

const VERSION: u32 = 2;
/// It knows no `like`.
const VERSION_MIN: u32 = 1;
const NEWEST: &str = "domains.ndjson";
const BEFORE: &str = "domains.before.ndjson";
const TEMPORARY: &str = "domains.tmp";

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    domains: u64,
    crc32c: u32,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    host: Cow<'a, str>,
    site: Cow<'a, str>,
    /// Escaped, as in the database.
    namespace: Cow<'a, str>,
    brand: Cow<'a, str>,
    /// An earlier line's host, whose brand this one has, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    like: Option<Cow<'a, str>>,
    disabled: bool,
    absent_since: Option<u64>,
}

impl<'a> Line<'a> {
    fn of(host: &'a str, domain: &'a Domain, like: Option<&'a str>) -> Self {
        Self {
            host: host.into(),
            site: (&*domain.site).into(),
            namespace: escape(&domain.namespace),
            brand: if like.is_some() { "".into() } else { (&*domain.brand).into() },
            like: like.map(Into::into),
            disabled: domain.disabled,
            absent_since: domain.absent_since.map(|since| since.0),
        }
    }

    /// The domain, with the brand of one of those `before` it where it is like that.
    fn domain(self, brands: &mut Brands, before: &Domains) -> Result<(Box<str>, Domain), String> {
        let brand = match self.like {
            None => brands.keep(&self.brand, u64::MAX).unwrap_or_default(),
            Some(like) => match before.get(&like) {
                Some(known) => Arc::clone(&known.brand),
                None => return Err(format!("{} is like {like}, which does not stand before it", self.host)),
            },
        };
        let domain = Domain {
            site: self.site.into(),
            namespace: unescape(&self.namespace).into(),
            brand,
            disabled: self.disabled,
            absent_since: self.absent_since.map(UnixMillis),
        };
        Ok((self.host.into(), domain))
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// The newest good domains; nothing where no file could be read.
    pub domains: Option<Domains>,
    /// Files that could not be used, where they are now, and why.
    pub faults: Vec<(PathBuf, String)>,
}

/// Writes `domains` to `folder`, durable when this returns.
///
/// # Errors
/// As the disk says; what was there before is still there.
pub fn write(folder: &Path, domains: &Domains) -> io::Result<()> {
    let (temporary, newest) = (folder.join(TEMPORARY), folder.join(NEWEST));
    let mut file = File::create(&temporary)?;
    file.write_all(&encode(domains)?)?;
    file.sync_all()?;
    match fs::rename(&newest, folder.join(BEFORE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&temporary, &newest)?;
    File::open(folder)?.sync_all()
}

/// The bytes of a file that holds `domains`.
pub(in super::super) fn encode(domains: &Domains) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    // By where the text lies: domains of one load that look alike share it.
    let mut first_with: HashMap<*const u8, &str> = HashMap::new();
    for (host, domain) in &domains.by_host {
        let mut like = None;
        if !domain.brand.is_empty() {
            let first = *first_with.entry(domain.brand.as_ptr()).or_insert(host);
            like = Some(first).filter(|&first| first != &**host);
        }
        serde_json::to_writer(&mut body, &Line::of(host, domain, like))?;
        body.push(b'\n');
    }
    let head = Head { version: VERSION, domains: domains.len() as u64, crc32c: crc32c::crc32c(&body) };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Reads the newest good file of `folder`.
#[must_use]
pub fn read(folder: &Path, damaged: Damaged) -> Read {
    let mut read = Read::default();
    for name in [NEWEST, BEFORE] {
        let path = folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                read.faults.push((path, error.to_string()));
                continue;
            }
        };
        match decode(&bytes) {
            Ok(domains) => {
                read.domains = Some(domains);
                break;
            }
            Err(why) => {
                let aside = folder.join(format!("{name}.damaged"));
                let is_aside = damaged == Damaged::SetAside && fs::rename(&path, &aside).is_ok();
                let there = if is_aside { aside } else { path };
                read.faults.push((there, why));
            }
        }
    }
    read
}

/// The domains of a file's bytes, or what is wrong with them.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Domains, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("it has no first line")?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let head: Head = serde_json::from_slice(head).map_err(|_| "its first line is none")?;
    if !(VERSION_MIN..=VERSION).contains(&head.version) {
        return Err(format!(
            "it has version {}, this release reads {VERSION_MIN} to {VERSION}",
            head.version
        ));
    }
    if head.crc32c != crc32c::crc32c(body) {
        return Err("it does not match its checksum".to_owned());
    }
    let mut domains = Domains::default();
    let mut brands = Brands::default();
    for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let (host, domain) = line.domain(&mut brands, &domains)?;
        domains.by_host.insert(host, domain);
    }
    if domains.len() as u64 != head.domains {
        return Err("it does not hold as many domains as it says".to_owned());
    }
    Ok(domains)
}
