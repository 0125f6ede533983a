//! A private key that is told from its chain at once, and made ready for signing when it first signs.
//!
//! Making a key ready costs some hundred times what reading its file does, and most of ten thousand
//! names are not asked for in an edge's first minute. A key file states the public half, too: that is
//! enough to find the chain. Whether the file tells the truth is found out by [`Key::verify`], before
//! a key replaces one that is in use, and soon after the start for all others.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroize as _;

use crate::fault::Problem;

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyType {
    /// On a curve of NIST.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSA of any length.
    Rsa,
}

impl KeyType {
    /// All of them, in the order in which they are offered to a client: the cheapest signature first.
    pub const ALL: [Self; 3] = [Self::Ecdsa, Self::Ed25519, Self::Rsa];

    /// The name that people know.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }

    fn algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::Ecdsa => SignatureAlgorithm::ECDSA,
            Self::Ed25519 => SignatureAlgorithm::ED25519,
            Self::Rsa => SignatureAlgorithm::RSA,
        }
    }

    /// Of a public key in DER.
    pub(crate) fn of(public: &[u8]) -> Option<Self> {
        let (tag, spki, _) = element(public)?;
        let (_, algorithm, _) = element(spki).filter(|_| tag == SEQUENCE)?;
        match element(algorithm)? {
            (OID, EC, _) => Some(Self::Ecdsa),
            (OID, ED25519, _) => Some(Self::Ed25519),
            (OID, RSA, _) => Some(Self::Rsa),
            _ => None,
        }
    }
}

/// A private key with its public half.
pub(crate) struct Key {
    kind: KeyType,
    /// In DER, as it stands in certificates.
    pub(crate) public: Box<[u8]>,
    der: Secret,
    ready: OnceLock<Option<Arc<dyn SigningKey>>>,
    verdict: OnceLock<Result<(), Problem>>,
}

impl Key {
    /// Reads a key as far as its public half.
    pub(crate) fn read(der: PrivateKeyDer<'static>) -> Result<Self, Problem> {
        let der = Secret(der);
        if let Some(public) = stated_public(&der.0)
            && let Some(kind) = KeyType::of(&public)
        {
            return Ok(Self {
                kind,
                public: public.into(),
                der,
                ready: OnceLock::new(),
                verdict: OnceLock::new(),
            });
        }
        let ready = any_supported_type(&der.0).map_err(Problem::Key)?;
        let public = public_of(&*ready)?;
        let kind = KeyType::of(&public)
            .ok_or_else(|| Problem::Key(rustls::Error::General("a key of an unknown type".into())))?;
        Ok(Self {
            kind,
            public: public.into(),
            der,
            ready: OnceLock::from(Some(ready)),
            verdict: OnceLock::from(Ok(())),
        })
    }

    /// Whether it can sign, and for the public half that its file states; found out once. The key that
    /// is made for it is not kept, so that names which nobody asks for take little memory.
    pub(crate) fn verify(&self) -> Result<(), Problem> {
        self.verdict.get_or_init(|| self.make_ready().map(|_| ())).clone()
    }

    fn make_ready(&self) -> Result<Arc<dyn SigningKey>, Problem> {
        let ready = any_supported_type(&self.der.0).map_err(Problem::Key)?;
        if public_of(&*ready)? == *self.public {
            Ok(ready)
        } else {
            Err(Problem::Key(rustls::Error::General("it is not the key that its file states".into())))
        }
    }
}

fn public_of(key: &dyn SigningKey) -> Result<Vec<u8>, Problem> {
    let unknown = || Problem::Key(rustls::Error::General("the key does not tell its public half".into()));
    key.public_key().map(|public| public.as_ref().to_vec()).ok_or_else(unknown)
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.ready.get_or_init(|| self.make_ready().ok()).as_ref()?.choose_scheme(offered)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&*self.public))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.kind.algorithm()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Key").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A key's bytes, overwritten when they are let go. What the TLS library copies is its own affair;
/// it overwrites the keys that it holds, too.
struct Secret(PrivateKeyDer<'static>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]` and `[1]` of an EC key: its curve and its public half.
const CURVE: u8 = 0xa0;
const PUBLIC: u8 = 0xa1;
/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// What begins a point that is written in full; only so do certificates write it.
const UNCOMPRESSED: &[u8] = &[0, 4];
const NULL: &[u8] = &[5, 0];

/// The public half that a private key's file states (RFC 5915, RFC 8017 A.1.2, RFC 5958), as it stands
/// in certificates; `None` when it states none, or in a form that is not the usual one.
fn stated_public(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    match key {
        PrivateKeyDer::Pkcs1(key) => Some(spki(&rsa(), &rsa_public(key.secret_pkcs1_der())?)),
        PrivateKeyDer::Sec1(key) => {
            let (curve, public) = ec_public(key.secret_sec1_der())?;
            Some(spki(&sequence(&[&written(OID, EC), curve?].concat()), public))
        }
        PrivateKeyDer::Pkcs8(key) => {
            let (_, key, _) = element(key.secret_pkcs8_der()).filter(|&(tag, ..)| tag == SEQUENCE)?;
            let (_, _, key) = element(key).filter(|&(tag, ..)| tag == INTEGER)?;
            let algorithm = key;
            let (_, parts, key) = element(key).filter(|&(tag, ..)| tag == SEQUENCE)?;
            let algorithm = algorithm.get(..algorithm.len() - key.len())?;
            let (_, key, _) = element(key).filter(|&(tag, ..)| tag == OCTET_STRING)?;
            match element(parts)? {
                (OID, EC, _) => Some(spki(algorithm, ec_public(key)?.1)),
                (OID, RSA, _) => Some(spki(&rsa(), &rsa_public(key)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The curve, where it is written, and the public point as the content of a bit string.
fn ec_public(key: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (_, key, _) = element(key).filter(|&(tag, ..)| tag == SEQUENCE)?;
    let (_, _, key) = element(key).filter(|&(tag, ..)| tag == INTEGER)?;
    let (_, _, mut rest) = element(key).filter(|&(tag, ..)| tag == OCTET_STRING)?;
    let mut curve = None;
    while let Some((tag, content, after)) = element(rest) {
        match tag {
            CURVE => curve = Some(content),
            PUBLIC => {
                let (_, point, _) = element(content).filter(|&(tag, ..)| tag == BIT_STRING)?;
                return point.starts_with(UNCOMPRESSED).then_some((curve, point));
            }
            _ => return None,
        }
        rest = after;
    }
    None
}

/// Modulus and exponent as the content of a bit string.
fn rsa_public(key: &[u8]) -> Option<Vec<u8>> {
    let (_, key, _) = element(key).filter(|&(tag, ..)| tag == SEQUENCE)?;
    let (_, _, numbers) = element(key).filter(|&(tag, ..)| tag == INTEGER)?;
    let (_, _, rest) = element(numbers).filter(|&(tag, ..)| tag == INTEGER)?;
    let (_, _, rest) = element(rest).filter(|&(tag, ..)| tag == INTEGER)?;
    let public = numbers.get(..numbers.len() - rest.len())?;
    Some([&[0], &*sequence(public)].concat())
}

fn rsa() -> Vec<u8> {
    sequence(&[&*written(OID, RSA), NULL].concat())
}

fn spki(algorithm: &[u8], bits: &[u8]) -> Vec<u8> {
    sequence(&[algorithm, &*written(BIT_STRING, bits)].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    written(SEQUENCE, content)
}

/// An element of DER.
fn written(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u16::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => bytes.extend(&length.to_be_bytes()[1..]),
        Ok(length @ 0x80..=0xff) => bytes.extend([&[0x81], &length.to_be_bytes()[1..]].concat()),
        Ok(length) => bytes.extend([&[0x82], &length.to_be_bytes()[..]].concat()),
        // No key is so long; what is written here is held against a certificate's key and is none.
        Err(_) => return Vec::new(),
    }
    bytes.extend_from_slice(content);
    bytes
}

/// Tag and content of the first element of DER, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => {
            rest.split_first_chunk().map(|(&length, rest)| (usize::from(u16::from_be_bytes(length)), rest))?
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;

    fn check(pem: &str, kind: KeyType) {
        let read = |pem: &str| PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let truth = public_of(&*any_supported_type(&read(pem)).unwrap()).unwrap();
        let key = Key::read(read(pem)).unwrap();
        assert_eq!((key.kind, &*key.public), (kind, &*truth));
        key.verify().unwrap();
        assert!(format!("{key:?}").starts_with("Key { kind: "));
    }

    fn openssl(arguments: &[&str]) -> String {
        let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    }

    #[test]
    fn the_public_half_is_what_the_tls_library_makes_of_the_key() {
        for curve in ["P-256", "P-384", "P-521"] {
            let option = format!("ec_paramgen_curve:{curve}");
            check(&openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &option]), KeyType::Ecdsa);
        }
        check(&openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"]), KeyType::Ecdsa);
        check(&openssl(&["genpkey", "-algorithm", "RSA", "-quiet"]), KeyType::Rsa);
        check(&openssl(&["genrsa", "-traditional", "2048"]), KeyType::Rsa);
        check(&openssl(&["genpkey", "-algorithm", "ED25519"]), KeyType::Ed25519);
    }

    #[test]
    fn a_key_that_lies_about_its_public_half_is_found_out() {
        let one = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let mut der = one.serialize_der();
        let (mine, theirs) = (one.public_key_raw(), other.public_key_raw());
        let at = der.windows(mine.len()).position(|window| window == mine).unwrap();
        der[at..at + mine.len()].copy_from_slice(theirs);
        let key = Key::read(PrivateKeyDer::Pkcs8(der.into())).unwrap();
        assert!(matches!(key.verify(), Err(Problem::Key(_))));
        assert!(key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_none());
    }

    #[test]
    fn any_bytes_state_a_public_half_or_none() {
        for length in 0..200 {
            for fill in [0x30, 0x02, 0x04, 0x81, 0x82, 0xff] {
                let der = vec![fill; length];
                stated_public(&PrivateKeyDer::Pkcs8(der.clone().into()));
                stated_public(&PrivateKeyDer::Pkcs1(der.clone().into()));
                stated_public(&PrivateKeyDer::Sec1(der.into()));
            }
        }
    }
}
