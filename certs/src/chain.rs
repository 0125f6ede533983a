//! The certificates of one file in the order in which they are sent, and what the first one says.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::UnixSeconds;
use crate::fault::Problem;

/// More than any authority's chain; what a file holds beyond is another kind of file.
const CERTIFICATES_MAX: usize = 16;

/// A server's certificate, and those that lead from it to an authority.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// The server's public key in DER.
    pub(crate) public: Box<[u8]>,
    /// In lower case; a wildcard keeps its `*.`.
    pub(crate) names: Vec<Box<str>>,
    pub(crate) from: UnixSeconds,
    pub(crate) until: UnixSeconds,
    /// Nothing but certificates of authorities, as ACME clients write them beside the others.
    pub(crate) is_authority: bool,
    /// A second server's certificate was in the file.
    pub(crate) is_mixed: bool,
}

impl Chain {
    /// Orders certificates as TLS wants them, each signed by the next, whatever their order in the file.
    pub(crate) fn new(mut certificates: Vec<CertificateDer<'static>>) -> Result<Self, Problem> {
        if certificates.len() > CERTIFICATES_MAX {
            return Err(Problem::Certificate);
        }
        let parsed: Vec<X509Certificate<'_>> =
            certificates.iter().map(|der| parse(der)).collect::<Result<_, _>>()?;
        // A self-signed one says that it is an authority, and is a server's all the same.
        let leaf = parsed.iter().position(|certificate| !certificate.is_ca()).unwrap_or(0);
        let is_mixed = parsed.iter().filter(|certificate| !certificate.is_ca()).count() > 1;
        let order = order(&parsed, leaf);
        let first = parsed.get(leaf).ok_or(Problem::Nothing)?;
        let (public, is_authority) = (first.public_key().raw.into(), first.is_ca());
        let (names, dates) = (names(first)?, first.validity());
        let from = UnixSeconds(dates.not_before.timestamp());
        let until = UnixSeconds(dates.not_after.timestamp());
        certificates = order.iter().map(|&at| certificates[at].clone()).collect();
        Ok(Self { certificates, public, names, from, until, is_authority, is_mixed })
    }

    pub(crate) fn covers(&self, now: UnixSeconds) -> bool {
        self.from <= now && now <= self.until
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Problem> {
    match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => Ok(certificate),
        _ => Err(Problem::Certificate),
    }
}

/// The leaf, its issuer, that one's issuer; then authorities that are no part of this way, in their
/// order: a second way to another root is none of our business.
fn order(parsed: &[X509Certificate<'_>], leaf: usize) -> Vec<usize> {
    let mut order = vec![leaf];
    let mut rest: Vec<usize> = (0..parsed.len())
        .filter(|&at| at != leaf && parsed.get(at).is_some_and(|other| other.is_ca()))
        .collect();
    while let Some(last) = order.last().and_then(|&at| parsed.get(at)) {
        let is_issuer = |at: &usize| {
            parsed.get(*at).is_some_and(|issuer| issuer.subject().as_raw() == last.issuer().as_raw())
        };
        let Some(place) = rest.iter().position(is_issuer) else { break };
        order.push(rest.remove(place));
    }
    order.extend(rest);
    order
}

fn names(leaf: &X509Certificate<'_>) -> Result<Vec<Box<str>>, Problem> {
    let alternative = leaf.subject_alternative_name().map_err(|_| Problem::Certificate)?;
    let general = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let hosts = general.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(host.to_ascii_lowercase().into_boxed_str()),
        _ => None,
    });
    // A star anywhere but as the whole first label means nothing to clients.
    Ok(hosts.filter(|host| !host.strip_prefix("*.").unwrap_or(host).contains('*')).collect())
}
