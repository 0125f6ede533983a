//! One chain with the key that belongs to it, and what its certificate says about names and dates.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::UnixSeconds;
use crate::fault::Problem;
use crate::folder::{Chain, Keys};

/// A certificate that can be served.
pub(crate) struct Pair {
    pub(crate) certified: Arc<CertifiedKey>,
    /// In lower case; a wildcard keeps its `*.`.
    pub(crate) names: Vec<Box<str>>,
    pub(crate) from: UnixSeconds,
    pub(crate) until: UnixSeconds,
}

impl Pair {
    /// The chain with its key out of `keys`; none when the chain is an issuer's, without a server's
    /// certificate (ACME clients write such a file beside the others).
    pub(crate) fn new(chain: Chain, keys: &Keys) -> Result<Option<Self>, Problem> {
        let leaf = chain.first().ok_or(Problem::Nothing)?;
        let (rest, leaf) = X509Certificate::from_der(leaf).map_err(|_| Problem::Certificate)?;
        if !rest.is_empty() {
            return Err(Problem::Certificate);
        }
        let Some(key) = keys.get(leaf.public_key().raw) else {
            return if leaf.is_ca() { Ok(None) } else { Err(Problem::NoKey) };
        };
        let names = names(&leaf)?;
        let from = UnixSeconds(leaf.validity().not_before.timestamp());
        let until = UnixSeconds(leaf.validity().not_after.timestamp());
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(key)));
        Ok(Some(Self { certified, names, from, until }))
    }

    pub(crate) fn covers(&self, now: UnixSeconds) -> bool {
        self.from <= now && now <= self.until
    }

    /// The greater is the better one for a name that both have.
    pub(crate) fn merit(&self, now: UnixSeconds) -> impl Ord + use<> {
        (self.covers(now), self.until, self.certified.cert.len())
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Pair").field("names", &self.names).field("until", &self.until).finish_non_exhaustive()
    }
}

pub(crate) fn names(leaf: &X509Certificate<'_>) -> Result<Vec<Box<str>>, Problem> {
    let alternative = leaf.subject_alternative_name().map_err(|_| Problem::Certificate)?;
    let general = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names: Vec<Box<str>> = general
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase().into_boxed_str()),
            _ => None,
        })
        // A star anywhere but as the whole first label means nothing to clients.
        .filter(|host| !host.strip_prefix("*.").unwrap_or(host).contains('*'))
        .collect();
    if names.is_empty() { Err(Problem::NoNames) } else { Ok(names) }
}
