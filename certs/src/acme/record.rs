//! A certificate with its key as one stored record: text that people can read, under a checksum.
//!
//! ```text
//! holdfast certificate 1
//! name click.brand.com
//! directory https://acme-v02.api.letsencrypt.org/directory
//! renew 1787000000
//! origin wanted | demanded
//! sha256 5d41…                        of everything that follows
//! -----BEGIN PRIVATE KEY-----         PKCS#8
//! -----BEGIN CERTIFICATE-----         the name's own one first, then its issuers
//! ```
//!
//! Reading never panics: whatever is not exactly this is [`Damage`].

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::name::Name;
use crate::UnixSeconds;
use crate::chain::Chain;
use crate::folder::Keys;
use crate::key::Key;
use crate::pair::Pair;

const TITLE: &str = "holdfast certificate 1";
/// A leaf and as many issuers as no authority needs.
const CHAIN_CERTIFICATES_MAX: usize = 10;
/// A key and ten certificates of 6 KiB, in Base64.
pub(crate) const RECORD_BYTES_MAX: usize = 128 << 10;

/// Why a name has a certificate, which tells whether its renewal has to be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Demanded,
    Wanted,
}

/// Key and chain of one name, as issued.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) name: Name,
    /// The directory of the authority that issued it.
    pub(crate) directory: String,
    pub(crate) renew_at: UnixSeconds,
    pub(crate) origin: Origin,
    /// In PEM.
    key: Zeroizing<String>,
    /// In PEM.
    chain: String,
}

/// What is served of a record, checked.
pub(crate) struct Served {
    pub(crate) pair: Arc<Pair>,
    /// How RFC 9773 calls the certificate; none when it does not say who issued it.
    pub(crate) id: Option<Box<str>>,
}

impl Record {
    /// Puts together what an authority gave for `key`.
    ///
    /// # Errors
    /// What is wrong with the chain: it is for another name or key, or out of order.
    pub(crate) fn of(
        name: Name,
        directory: &str,
        key: Zeroizing<String>,
        chain: &str,
    ) -> Result<(Self, Served), Damage> {
        let mut record = Self {
            name,
            directory: directory.to_owned(),
            renew_at: UnixSeconds(0),
            origin: Origin::Wanted,
            key,
            chain: normal(chain)?,
        };
        if record.chain.len() + record.key.len() > RECORD_BYTES_MAX / 2 {
            return Err(Damage::TooLong);
        }
        let served = record.serve()?;
        record.renew_at = served.pair.chain.until;
        Ok((record, served))
    }

    /// Takes a key in PKCS#8 and a chain for one name, in PEM and in any order.
    ///
    /// # Errors
    /// What is missing or does not fit together.
    pub(crate) fn imported(pem: &str) -> Result<(Self, Served), Damage> {
        const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
        const END: &str = "-----END PRIVATE KEY-----";
        if pem.len() > RECORD_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        let start = pem.find(BEGIN).ok_or(Damage::Key)?;
        let length = pem[start..].find(END).ok_or(Damage::Key)? + END.len();
        let key = joined(&[&pem[start..start + length], "\n"]);
        let chain = chain_of(pem)?;
        let chain = Chain::new(chain).map_err(|_| Damage::Certificate)?;
        let name = chain.names.first().and_then(|name| Name::parse(name).ok()).ok_or(Damage::Certificate)?;
        Self::of(name, "", key, pem)
    }

    /// The bytes to store.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Self { name, directory, renew_at, origin, key, chain } = self;
        let body = joined(&[key, chain]);
        let origin = match origin {
            Origin::Demanded => "demanded",
            Origin::Wanted => "wanted",
        };
        let sum = hexadecimal(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.len() + 1024));
        let head = format!(
            "{TITLE}\nname {name}\ndirectory {directory}\nrenew {}\norigin {origin}\nsha256 {sum}\n",
            renew_at.0
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// [`Damage`], which never shows a byte of the key.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::Head)?;
        let mut rest =
            text.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix('\n')).ok_or(Damage::Head)?;
        let mut field = |key: &str| {
            let (line, tail) = rest.split_once('\n').ok_or(Damage::Head)?;
            rest = tail;
            line.strip_prefix(key).and_then(|value| value.strip_prefix(' ')).ok_or(Damage::Head)
        };
        let name = Name::parse(field("name")?).map_err(|_| Damage::Head)?;
        let directory = field("directory")?.to_owned();
        let renew_at = UnixSeconds(field("renew")?.parse().map_err(|_| Damage::Head)?);
        let origin = match field("origin")? {
            "demanded" => Origin::Demanded,
            "wanted" => Origin::Wanted,
            _ => return Err(Damage::Head),
        };
        let sum = field("sha256")?;
        if sum != hexadecimal(digest::digest(&digest::SHA256, rest.as_bytes()).as_ref()) {
            return Err(Damage::Checksum);
        }
        let chain_at = rest.find("-----BEGIN CERTIFICATE-----").ok_or(Damage::NoChain)?;
        let (key, chain) = rest.split_at(chain_at);
        let key = Zeroizing::new(key.to_owned());
        Ok(Self { name, directory, renew_at, origin, key, chain: chain.to_owned() })
    }

    /// Key and chain as a server needs them.
    ///
    /// # Errors
    /// What does not fit together.
    pub(crate) fn serve(&self) -> Result<Served, Damage> {
        let chain = chain_of(&self.chain)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| Damage::Key)?;
        let key = Key::read(PrivateKeyDer::Pkcs8(key)).map_err(|_| Damage::Key)?;
        key.verify().map_err(|_| Damage::Key)?;
        let id = linked(&chain)?;
        let chain = Arc::new(Chain::new(chain).map_err(|_| Damage::Certificate)?);
        let keys = Keys::from([(key.public.clone(), Arc::new(key))]);
        let pair = match Pair::new(&chain, &keys) {
            Ok(Some(pair)) => pair,
            Ok(None) | Err(crate::Problem::NoKey) => return Err(Damage::OtherKey),
            Err(_) => return Err(Damage::Certificate),
        };
        if chain.names.iter().any(|covered| **covered != *self.name.as_str()) {
            let names = chain.names.iter().take(5).map(|name| printable(name)).collect();
            return Err(Damage::OtherName { names });
        }
        Ok(Served { pair: Arc::new(pair), id })
    }

    /// Key and chain in PEM, for whoever may have them.
    pub(crate) fn into_pem(self) -> (Zeroizing<String>, String) {
        (self.key, self.chain)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Record").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is wrong with a record or with the chain of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A certificate does not parse, or names no host.
    Certificate,
    /// What was written is not what is there: half written, or changed.
    Checksum,
    /// Its first lines are not those of a record.
    Head,
    /// The private key can't be used.
    Key,
    /// There is no certificate in it.
    NoChain,
    /// A certificate is followed by one that did not issue it.
    OutOfOrder,
    /// It is for a key that is not ours.
    OtherKey,
    /// It is for other names.
    OtherName {
        /// Some of those that it is for.
        names: Vec<String>,
    },
    /// It is longer than a chain has reason to be.
    TooLong,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("a certificate does not parse"),
            Self::Checksum => f.write_str("its checksum does not fit: half written, or changed"),
            Self::Head => f.write_str("its first lines are not those of a record"),
            Self::Key => f.write_str("its private key can't be used"),
            Self::NoChain => f.write_str("there is no certificate in it"),
            Self::OutOfOrder => f.write_str("a certificate is followed by one that did not issue it"),
            Self::OtherKey => f.write_str("the certificate is for another key"),
            Self::OtherName { names } => {
                write!(f, "the certificate is for other names: {}", names.join(", "))
            }
            Self::TooLong => f.write_str("it is longer than a chain has reason to be"),
        }
    }
}

impl std::error::Error for Damage {}

/// The PEM of the certificates only, whatever else an authority sent along.
fn normal(pem: &str) -> Result<String, Damage> {
    const LINE: usize = 64;
    let mut text = String::with_capacity(pem.len());
    for certificate in chain_of(pem)? {
        use base64::Engine as _;
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&certificate);
        for line in encoded.as_bytes().chunks(LINE) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

fn chain_of(pem: &str) -> Result<Vec<CertificateDer<'static>>, Damage> {
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        let (kind, der) = section.map_err(|_| Damage::Certificate)?;
        if kind == SectionKind::Certificate {
            chain.push(CertificateDer::from(der));
        }
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(Damage::TooLong);
        }
    }
    if chain.is_empty() { Err(Damage::NoChain) } else { Ok(chain) }
}

/// Checks that each certificate is issued by the next, and tells the first one's name by RFC 9773.
fn linked(chain: &[CertificateDer<'_>]) -> Result<Option<Box<str>>, Damage> {
    let mut parsed = Vec::with_capacity(chain.len());
    for der in chain {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Damage::Certificate)?;
        if !rest.is_empty() {
            return Err(Damage::Certificate);
        }
        parsed.push(certificate);
    }
    let ordered = parsed.windows(2).all(|pair| pair[0].issuer().as_raw() == pair[1].subject().as_raw());
    if !ordered {
        return Err(Damage::OutOfOrder);
    }
    Ok(parsed.first().and_then(window_id))
}

/// The key identifier of the issuer and the serial number, each in Base64 (RFC 9773, section 4.1).
fn window_id(leaf: &X509Certificate<'_>) -> Option<Box<str>> {
    use base64::Engine as _;
    use x509_parser::extensions::ParsedExtension;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let issuer = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(format!("{}.{}", base64.encode(issuer.0), base64.encode(leaf.raw_serial())).into())
}

/// Of full length from the start: text that grows leaves copies of a key behind.
fn joined(parts: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        text.push_str(part);
    }
    text
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Text from outside without control characters, and short.
pub(crate) fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
