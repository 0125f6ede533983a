//! What is ordered, from whom, and how.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::StartFault;
use super::plan::Bounds;
use crate::Roots;

/// What to order from whom, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who issues.
    pub authority: Authority,
    /// How names are proven, in the order in which it is tried; each attempt takes the next one. With
    /// several edges only [`Way::Http01`] can be answered by any of them.
    pub ways: Vec<Way>,
    /// Whom to ask about names that nobody knows.
    pub ask: Option<Ask>,
    /// How much at once and in a time.
    pub bounds: Bounds,
    /// How long a handshake waits for its certificate.
    pub demand_wait: Duration,
    /// How long one request to the authority may take.
    pub request_deadline: Duration,
    /// How long an order may take, from its first request to the chain.
    pub order_deadline: Duration,
}

impl Config {
    /// The defaults with this authority: HTTP-01, then TLS-ALPN-01; nobody is asked; a handshake waits
    /// for 20 s, a request for 30 s and an order for 10 min.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self {
            authority,
            ways: vec![Way::Http01, Way::TlsAlpn01],
            ask: None,
            bounds: Bounds::default(),
            demand_wait: Duration::from_secs(20),
            request_deadline: Duration::from_secs(30),
            order_deadline: Duration::from_secs(600),
        }
    }
}

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The address of its directory; HTTPS only.
    pub directory: String,
    /// Who signed the certificate of that address.
    pub roots: Roots,
    /// Where it may write to, each beginning with `mailto:`.
    pub contacts: Vec<String>,
    /// An account that was made there in another way, for the account here to belong to.
    pub binding: Option<Binding>,
    /// One of the kinds of certificates that it offers.
    pub profile: Option<String>,
}

impl Authority {
    /// One that needs nothing but its address, and is trusted by this system.
    #[must_use]
    pub fn at(directory: impl Into<String>) -> Self {
        let (contacts, binding, profile) = (Vec::new(), None, None);
        Self { directory: directory.into(), roots: Roots::System, contacts, binding, profile }
    }
}

/// What binds our account to one that was made elsewhere (EAB; RFC 8555, section 7.3.4).
#[derive(Clone)]
pub struct Binding {
    pub(super) id: String,
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl Binding {
    /// `key` is as authorities give it: Base64 for URLs, with padding or not.
    ///
    /// # Errors
    /// The key is not Base64, or empty.
    pub fn new(id: impl Into<String>, key: &str) -> Result<Self, StartFault> {
        let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let key = base64.decode(key.trim().trim_end_matches('=')).map_err(|_| StartFault::Binding)?;
        if key.is_empty() {
            Err(StartFault::Binding)
        } else {
            Ok(Self { id: id.into(), key: Zeroizing::new(key) })
        }
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Binding").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How to prove that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a page under `/.well-known/acme-challenge/` on port 80.
    Http01,
    /// By a certificate of its own kind in a handshake on port 443.
    TlsAlpn01,
}

/// Who says whether a name that nobody knows may have a certificate.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Asked with `domain=` and the name added: 2xx is a yes, 4xx a no.
    pub address: String,
    /// Who signed the certificate of that address, if it has one.
    pub roots: Roots,
    /// How long an answer may take.
    pub deadline: Duration,
}
