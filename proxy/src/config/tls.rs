//! `[tls]`: certificates, tickets and handshakes; and who is believed of those that stand before us.

use std::path::PathBuf;
use std::time::Duration;

use certs::Secret;

use crate::front::peers::Network;
use crate::respond::Permanent;
use crate::route::Host;

use super::acme::Acme;
use super::fault::{Wrong, quoted};
use super::files;
use super::reader::Section;
use super::tables::optional;

/// `[tls]`: HTTP within TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where certificates and keys lie.
    pub certificates: certs::Config,
    /// Which certificates are ordered, if any.
    pub acme: Option<Acme>,
    /// What edges share that resume each other's sessions; `None` is one that ends with the process.
    pub tickets: Option<Secret>,
    /// How often the folder is looked at.
    pub poll: Duration,
    /// How long a client's hello may take.
    pub hello_timeout: Duration,
    /// How long the rest of a handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once.
    pub handshakes_max: usize,
    /// The port by which clients reach us.
    pub public_port: u16,
}

/// A secret is a line of text or some bytes.
const SECRET_BYTES_MAX: usize = 4096;

impl Tls {
    /// Reads the table; `is_used` when something listens for https.
    pub(super) fn read(s: &mut Section<'_>, is_used: bool) -> Self {
        let folder =
            s.text("folder", "certs".to_owned(), "a folder", |text| Ok(text.to_owned()), String::clone);
        let allowed = "a host whose certificate is in the folder, or \"\" for none";
        let parse = |text: &str| {
            let mut scratch = Vec::new();
            match Host::parse(text.as_bytes(), &mut scratch) {
                _ if text.is_empty() => Ok(String::new()),
                Ok(host) if !text.contains([':', '[']) => Ok(host.to_string()),
                _ => Err(Wrong::new(quoted(text), allowed)),
            }
        };
        let default = s.text("default", String::new(), allowed, parse, String::clone);
        let default = Some(default).filter(|name| !name.is_empty());
        let mut tls = Self {
            certificates: certs::Config { folder: None, default },
            tickets: read_secret(s),
            poll: s.span("poll", "5s", "100ms"..="1h"),
            hello_timeout: s.span("hello_timeout", "5s", "100ms"..="1m"),
            handshake_timeout: s.span("handshake_timeout", "10s", "100ms"..="1m"),
            handshakes_max: s.number("handshakes_max", 4096, 1..=1_000_000),
            public_port: s.number("public_port", 443, 1..=65_535),
            acme: s.table("acme", |s| Acme::read(s, is_used)),
        };
        tls.certificates.folder = found(s, &folder, tls.acme.is_some());
        tls
    }
}

/// The folder; where certificates are ordered, one that nobody named need not be there. One that is not
/// there, or hangs, is no fault of the configuration: plain http must start without it.
fn found(s: &mut Section<'_>, folder: &str, orders: bool) -> Option<PathBuf> {
    let path = s.resolve(folder);
    (!orders || s.has("folder") || path.exists()).then_some(path)
}

fn read_secret(s: &mut Section<'_>) -> Option<Secret> {
    let file = optional(s, "tickets_file", "the name of a file, or \"\" for none")?;
    let path: PathBuf = s.resolve(&file);
    let secret = files::read(&path, SECRET_BYTES_MAX)
        .map_err(|wrong| Wrong { advice: "name a file that this user may read".to_owned(), ..wrong })
        .and_then(|mut bytes| {
            // Whether an editor ended the line or not, it is the same secret.
            bytes.truncate(bytes.trim_ascii_end().len());
            Secret::new(bytes).ok_or_else(|| Wrong {
                found: "holds too little to be a secret".to_owned(),
                advice: format!(
                    "allowed: at least {} bytes, such as `openssl rand -hex 32` prints",
                    Secret::BYTES_MIN
                ),
            })
        });
    match secret {
        Ok(secret) => Some(secret),
        Err(wrong) => {
            // Not even the name is repeated: it may be the secret itself, written in the wrong place.
            s.fault("tickets_file", format!("the file {}", wrong.found), wrong.advice);
            None
        }
    }
}

/// A list of networks.
pub(super) fn read_networks(s: &mut Section<'_>, key: &'static str) -> Box<[Network]> {
    let allowed = "a list of networks such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
    let parse =
        |text: &str| text.parse().map_err(|fault| Wrong::new(format!("{}: {fault}", quoted(text)), allowed));
    s.list(key, &[], allowed, parse).into_iter().map(|(network, _)| network).collect()
}

/// What a site says to clients about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteTls {
    /// How clients without TLS are sent to it; `None` answers them.
    pub redirect: Option<Permanent>,
    /// For how long clients are told to come with TLS only; zero tells them nothing.
    pub hsts: Duration,
    /// Whether that holds for all hosts below its own, too.
    pub hsts_subdomains: bool,
}

pub(super) fn read_site(s: &mut Section<'_>) -> SiteTls {
    let manners = [("off", None), ("301", Some(Permanent::Moved)), ("308", Some(Permanent::Redirect))];
    SiteTls {
        redirect: s.choice("https_redirect", None, &manners),
        hsts: s.span("hsts", "0s", "0s"..="3650d"),
        hsts_subdomains: s.flag("hsts_subdomains", false),
    }
}
