//! Host names as they stand in requests and configurations, and the map from them to sites.
//!
//! A [`Host`] has one spelling: lower case, no port, no trailing dot, punycode as it came, an IPv6
//! address in its canonical form. Nothing is resolved, and no name is judged by its public suffix.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;

/// The longest host name, of RFC 1035 without its trailing dot.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host in its one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host<'a>(&'a [u8]);

impl<'a> Host<'a> {
    /// Reads the value of a `Host` field or the authority of a request target.
    ///
    /// `scratch` is overwritten only when the bytes can't be borrowed: upper case, IPv6 addresses.
    ///
    /// # Errors
    /// [`HostFault`] says why no host can be meant; such a request is answered 400.
    pub fn parse(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, HostFault> {
        if let Some(literal) = raw.strip_prefix(b"[") {
            return parse_ipv6(literal, scratch);
        }
        let mut end = raw.len();
        let mut label_bytes = 0;
        let mut upper = false;
        for (at, &byte) in raw.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label_bytes += 1,
                b'A'..=b'Z' => {
                    upper = true;
                    label_bytes += 1;
                }
                b'.' if (1..=LABEL_BYTES_MAX).contains(&label_bytes) => label_bytes = 0,
                b'.' => return Err(HostFault::Label),
                b':' => {
                    check_port(raw.get(at + 1..).unwrap_or_default())?;
                    end = at;
                    break;
                }
                b'@' => return Err(HostFault::Userinfo),
                _ => return Err(HostFault::Character(byte)),
            }
        }
        let name = raw.get(..end).unwrap_or_default();
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.is_empty() {
            return Err(HostFault::Empty);
        }
        if label_bytes > LABEL_BYTES_MAX {
            return Err(HostFault::Label);
        }
        if name.len() > HOST_BYTES_MAX {
            return Err(HostFault::Long(name.len()));
        }
        if !upper {
            return Ok(Self(name));
        }
        scratch.clear();
        scratch.extend(name.iter().map(u8::to_ascii_lowercase));
        Ok(Self(scratch))
    }

    /// The host's bytes, all of them visible ASCII.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

fn parse_ipv6<'a>(literal: &[u8], scratch: &'a mut Vec<u8>) -> Result<Host<'a>, HostFault> {
    let close = memchr::memchr(b']', literal).ok_or(HostFault::Address)?;
    let (address, after) = literal.split_at_checked(close).ok_or(HostFault::Address)?;
    match after {
        b"]" => {}
        [b']', b':', port @ ..] => check_port(port)?,
        _ => return Err(HostFault::Address),
    }
    let address = str::from_utf8(address).map_err(|_| HostFault::Address)?;
    let address: Ipv6Addr = address.parse().map_err(|_| HostFault::Address)?;
    scratch.clear();
    // Hosts that are IPv6 addresses are too rare to be worth a way without this allocation.
    scratch.extend_from_slice(format!("[{address}]").as_bytes());
    Ok(Host(scratch))
}

/// RFC 3986 allows a colon without a port.
fn check_port(port: &[u8]) -> Result<(), HostFault> {
    let number = |port: &[u8]| str::from_utf8(port).ok()?.parse::<u16>().ok();
    if port.is_empty() || (port.iter().all(u8::is_ascii_digit) && number(port).is_some()) {
        Ok(())
    } else if port.contains(&b'@') {
        Err(HostFault::Userinfo)
    } else {
        Err(HostFault::Port)
    }
}

/// Why bytes are no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Brackets without an IPv6 address.
    Address,
    /// A byte that no host name has; names of other scripts come as punycode.
    Character(u8),
    /// Nothing before the port or the dot.
    Empty,
    /// A part between two dots that is empty or longer than 63 bytes.
    Label,
    /// Longer than 253 bytes.
    Long(usize),
    /// What follows the colon is no port.
    Port,
    /// A user name before the host.
    Userinfo,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("brackets without an IPv6 address"),
            Self::Character(byte) => write!(f, "`{}` can't stand in a host name", byte.escape_ascii()),
            Self::Empty => f.write_str("empty host name"),
            Self::Label => write!(f, "a part of the host name is empty or over {LABEL_BYTES_MAX} bytes"),
            Self::Long(bytes) => {
                write!(f, "host name of {bytes} bytes, at most {HOST_BYTES_MAX} are allowed")
            }
            Self::Port => f.write_str("the port is not a number from 0 to 65535"),
            Self::Userinfo => f.write_str("a user name before the host"),
        }
    }
}

impl std::error::Error for HostFault {}

/// The hosts of a site: one name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host one or more labels below this name: `*.example.com`.
    Below(Box<[u8]>),
    /// This host alone.
    Exact(Box<[u8]>),
}

impl HostPattern {
    /// Reads `click.example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`; names of other
    /// scripts become punycode.
    ///
    /// # Errors
    /// [`HostPatternFault`] says what to write instead.
    pub fn parse(text: &str) -> Result<Self, HostPatternFault> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let punycode = if name.is_ascii() {
            name.to_owned()
        } else {
            let host = url::Host::parse(name).map_err(|_| HostPatternFault::International)?;
            host.to_string()
        };
        let is_address = punycode.starts_with('[');
        if below && is_address {
            return Err(HostPatternFault::Wildcard);
        }
        let mut scratch = Vec::new();
        let host = Host::parse(punycode.as_bytes(), &mut scratch).map_err(HostPatternFault::Host)?;
        let has_port = if is_address { !punycode.ends_with(']') } else { punycode.contains(':') };
        if has_port {
            return Err(HostPatternFault::PortGiven);
        }
        let name = host.as_bytes().into();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(name) => write!(f, "*.{}", name.escape_ascii()),
            Self::Exact(name) => name.escape_ascii().fmt(f),
        }
    }
}

/// Why a text names no hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPatternFault {
    /// Not a host name.
    Host(HostFault),
    /// Not a name that can be written in punycode.
    International,
    /// A port, which has no part in choosing a site.
    PortGiven,
    /// A wildcard in front of an address.
    Wildcard,
}

impl fmt::Display for HostPatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(HostFault::Character(b'*')) => f.write_str("a wildcard is `*.` before a whole name"),
            Self::Host(fault) => fault.fmt(f),
            Self::International => f.write_str("the name can't be written in punycode"),
            Self::PortGiven => f.write_str("a host is given without its port"),
            Self::Wildcard => f.write_str("an address has no names below it"),
        }
    }
}

impl std::error::Error for HostPatternFault {}

/// Which site, or whatever else, a host belongs to.
///
/// An exact name wins over a wildcard, a longer wildcard over a shorter one.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: HashMap<Box<[u8]>, T>,
    below: HashMap<Box<[u8]>, T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> HostMap<T> {
    /// Gives the hosts of `pattern` to `value`; what the same pattern belonged to before is returned.
    pub fn insert(&mut self, pattern: HostPattern, value: T) -> Option<T> {
        match pattern {
            HostPattern::Below(name) => self.below.insert(name, value),
            HostPattern::Exact(name) => self.exact.insert(name, value),
        }
    }

    /// What `host` belongs to.
    #[must_use]
    pub fn find(&self, host: Host<'_>) -> Option<&T> {
        if let Some(value) = self.exact.get(host.as_bytes()) {
            return Some(value);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut name = host.as_bytes();
        while let Some(dot) = memchr::memchr(b'.', name) {
            name = name.get(dot + 1..).unwrap_or_default();
            if let Some(value) = self.below.get(name) {
                return Some(value);
            }
        }
        None
    }

    /// The hosts that belong to something by their own names, in any order, and to what.
    pub fn exact(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.exact.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether `host` belongs to something by its own name.
    #[must_use]
    pub fn has(&self, host: &[u8]) -> bool {
        self.exact.contains_key(host)
    }

    /// The names below which all hosts belong to something, in any order.
    pub fn below(&self) -> impl Iterator<Item = &[u8]> {
        self.below.keys().map(|name| &**name)
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Whether no host belongs to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
