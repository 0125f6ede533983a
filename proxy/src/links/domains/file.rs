//! The domains on disk: `domains.ndjson`, written whole, the one before it kept as `domains.before.ndjson`.
//!
//! ```json
//! {"version":1,"domains":2,"crc32c":3735928559}
//! {"host":"click.brand.com","site":"customers","namespace":"…","brand":"","disabled":false,"absent_since":null}
//! ```
//!
//! A brand that an earlier line has stands there alone: `"like":"<its host>"` refers to it (since version 2). The
//! checksum covers every byte after the first line. A damaged file is set aside, never deleted; one of a later release
//! stays as it is.
//! The same bytes go along with links that are carried to another edge (see `parcel`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
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
            None => brands.keep(&self.brand, None, u64::MAX).unwrap_or_default(),
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

/// Why bytes are no domains.
#[derive(Debug)]
pub(in super::super) enum Unusable {
    /// They are not those that were written; what is wrong with them.
    Damaged(String),
    /// A later release wrote them, in its version of the format.
    Later(u32),
}

impl Unusable {
    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::Later(version) => {
                write!(f, "it has version {version}, this release reads {VERSION_MIN} to {VERSION}")
            }
        }
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
                let is_aside = damaged == Damaged::SetAside
                    && matches!(why, Unusable::Damaged(_))
                    && fs::rename(&path, &aside).is_ok();
                let there = if is_aside { aside } else { path };
                read.faults.push((there, why.to_string()));
            }
        }
    }
    read
}

/// The domains of a file's bytes, or what is wrong with them.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Domains, Unusable> {
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| Unusable::damaged("it has no first line"))?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let head: Head = serde_json::from_slice(head).map_err(|_| Unusable::damaged("its first line is none"))?;
    match head.version {
        VERSION_MIN..=VERSION => {}
        later if later > VERSION => return Err(Unusable::Later(later)),
        none => return Err(Unusable::Damaged(format!("there is no version {none}"))),
    }
    if head.crc32c != crc32c::crc32c(body) {
        return Err(Unusable::damaged("it does not match its checksum"));
    }
    let mut domains = Domains::default();
    let mut brands = Brands::default();
    for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line<'_> =
            serde_json::from_slice(line).map_err(|error| Unusable::Damaged(error.to_string()))?;
        let (host, domain) = line.domain(&mut brands, &domains).map_err(Unusable::Damaged)?;
        domains.by_host.insert(host, domain);
    }
    if domains.len() as u64 != head.domains {
        return Err(Unusable::damaged("it does not hold as many domains as it says"));
    }
    Ok(domains)
}
