//! Approves the URLs that links point to, and adds query parameters to an approved one.
//!
//! Invariants:
//! - An approved target is http or https, has a plain ASCII host and no user information, and consists
//!   of visible ASCII without backslash; it is at most [`TARGET_BYTES_MAX`] long.
//! - It is what the WHATWG parser of browsers makes of it: parsed and serialised once more it does not
//!   change, so no two readers see two origins in it.
//! - What `append` writes keeps scheme, host, path, existing query and fragment byte for byte.
//!
//! It does not look at where a target leads: loopback and private addresses are the browser's business.

use std::borrow::Cow;
use std::fmt;

use url::{Host, ParseError, Url};

/// The longest target in bytes, as stored in the database and as approved.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// A target that passed [`approve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    url: Box<str>,
    split: Split,
    repaired: bool,
}

impl Approved {
    /// The target as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The target with what `append` needs to know.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target { url: self.url.as_bytes(), split: self.split }
    }

    /// Whether the stored text held what no URL may hold (spaces, umlauts, backslashes in the query)
    /// and was repaired as browsers do.
    #[must_use]
    pub fn repaired(&self) -> bool {
        self.repaired
    }
}

/// An approved target, borrowed from where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub(super) url: &'a [u8],
    pub(super) split: Split,
}

impl<'a> Target<'a> {
    /// The bytes of the `Location`, when nothing is appended.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.url
    }

    /// Writes the target with the query that `params` writes to `out`, before the fragment.
    ///
    /// `params` writes `name=value` pairs joined by `&`, values percent-encoded. Bytes that may not
    /// stand in a query are percent-encoded here, so that no caller can reach beyond it. Nothing
    /// written leaves the target as it is.
    pub fn append(self, out: &mut Vec<u8>, params: impl FnOnce(&mut Vec<u8>)) {
        let (head, fragment) = self.url.split_at(self.split.fragment_at(self.url.len()));
        out.extend_from_slice(head);
        let joint_at = out.len();
        out.extend_from_slice(self.split.joint.bytes());
        let query_at = out.len();
        params(out);
        if out.len() > query_at {
            confine(out, query_at);
        } else {
            out.truncate(joint_at);
        }
        out.extend_from_slice(fragment);
    }
}

/// Percent-encodes what may not stand in a query from `query_at` on.
fn confine(out: &mut Vec<u8>, query_at: usize) {
    if out.iter().skip(query_at).all(|&byte| is_query(byte)) {
        return;
    }
    let query = out.split_off(query_at);
    for byte in query {
        if is_query(byte) {
            out.push(byte);
        } else {
            percent_encode(out, byte);
        }
    }
}

/// RFC 3986 `query` without the apostrophe, which the WHATWG serialiser would encode.
fn is_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@/?%".contains(&byte)
}

fn percent_encode(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Where a target is opened for `append`, computed once when it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) joint: Joint,
    /// Index of `#`; `None` without a fragment.
    pub(super) fragment: Option<u32>,
}

impl Split {
    pub(super) fn of(url: &[u8]) -> Self {
        let fragment = memchr::memchr(b'#', url);
        let head = url.split_at(fragment.unwrap_or(url.len())).0;
        let joint = match memchr::memchr(b'?', head) {
            None => Joint::Question,
            Some(at) if at + 1 == head.len() || head.ends_with(b"&") => Joint::Nothing,
            Some(_) => Joint::Ampersand,
        };
        Self { joint, fragment: fragment.and_then(|at| u32::try_from(at).ok()) }
    }

    /// Where the fragment begins; never beyond `url_bytes`, whatever was read from a disk.
    fn fragment_at(self, url_bytes: usize) -> usize {
        self.fragment.map_or(url_bytes, |at| url_bytes.min(at as usize))
    }
}

/// What must stand between a target's head and appended parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Joint {
    /// There is no query yet.
    #[default]
    Question = 0,
    /// There is a query.
    Ampersand = 1,
    /// The query is empty or ends with its separator.
    Nothing = 2,
}

impl Joint {
    pub(super) fn from_tag(tag: u64) -> Option<Self> {
        match tag {
            0 => Some(Self::Question),
            1 => Some(Self::Ampersand),
            2 => Some(Self::Nothing),
            _ => None,
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Question => b"?",
            Self::Ampersand => b"&",
            Self::Nothing => b"",
        }
    }
}

/// Why a URL cannot be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A backslash before the query: parsers disagree on which host it names.
    Backslash,
    /// A control character, which is never an honest part of a URL.
    Control,
    /// No host, or one with other bytes than letters, digits, `-`, `.` and `_`.
    Host,
    /// The WHATWG parser rejects it.
    Malformed(ParseError),
    /// Not `http://` or `https://`.
    Scheme,
    /// Longer than [`TARGET_BYTES_MAX`].
    TooLong {
        /// The length as stored or, when that was allowed, as repaired.
        bytes: usize,
    },
    /// Parsed twice it gives two results.
    Unstable,
    /// A user name or password.
    UserInformation,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backslash => f.write_str("URL has a backslash before its query"),
            Self::Control => f.write_str("URL has a control character"),
            Self::Host => f.write_str("URL has no plain host name"),
            Self::Malformed(_) => f.write_str("URL cannot be parsed"),
            Self::Scheme => f.write_str("URL does not begin with http:// or https://"),
            Self::TooLong { bytes } => {
                write!(f, "URL has {bytes} bytes, at most {TARGET_BYTES_MAX} are allowed")
            }
            Self::Unstable => f.write_str("URL can be read in two ways"),
            Self::UserInformation => f.write_str("URL has a user name or password"),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(cause) => Some(cause),
            _ => None,
        }
    }
}

/// Parses and serialises `raw` as browsers do, and approves the result.
///
/// # Errors
/// [`Refused`] names the first reason found.
pub fn approve(raw: &str) -> Result<Approved, Refused> {
    if raw.len() > TARGET_BYTES_MAX {
        return Err(Refused::TooLong { bytes: raw.len() });
    }
    if raw.chars().any(char::is_control) {
        return Err(Refused::Control);
    }
    let text = checked_syntax(raw.trim_matches(' '))?;
    let url = Url::parse(&text).map_err(Refused::Malformed)?;
    check_origin(&url)?;
    let url = String::from(url);
    if url.len() > TARGET_BYTES_MAX {
        return Err(Refused::TooLong { bytes: url.len() });
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    let stable = || url == raw || Url::parse(&url).is_ok_and(|again| again.as_str() == url);
    if !url.bytes().all(plain) || !stable() {
        return Err(Refused::Unstable);
    }
    let repaired = !raw.bytes().all(plain);
    Ok(Approved { split: Split::of(url.as_bytes()), url: url.into(), repaired })
}

/// Refuses what the WHATWG parser would silently turn into something else than it says.
fn checked_syntax(text: &str) -> Result<Cow<'_, str>, Refused> {
    let (scheme, rest) = text.split_once("://").ok_or(Refused::Scheme)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refused::Scheme);
    }
    let query_at = rest.find(['?', '#']).unwrap_or(rest.len());
    let (head, query) = rest.split_at(query_at);
    if head.contains('\\') {
        return Err(Refused::Backslash);
    }
    let authority = head.split('/').next().unwrap_or_default();
    if authority.is_empty() {
        return Err(Refused::Host);
    }
    if authority.contains('@') {
        return Err(Refused::UserInformation);
    }
    if query.contains('\\') {
        // Browsers send it as it is, but a Location may not hold it.
        return Ok(format!("{scheme}://{head}{}", query.replace('\\', "%5C")).into());
    }
    Ok(text.into())
}

fn check_origin(url: &Url) -> Result<(), Refused> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refused::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::UserInformation);
    }
    match url.host() {
        Some(Host::Domain(name)) if is_plain_host(name) => Ok(()),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => Ok(()),
        Some(Host::Domain(_)) | None => Err(Refused::Host),
    }
}

fn is_plain_host(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

#[cfg(test)]
mod tests;
