//! What an authority is answered when it checks that a name is ours.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::name::Name;

/// The only protocol that a check by TLS-ALPN-01 offers (RFC 8737, section 6.2).
pub const ALPN: &[u8] = b"acme-tls/1";

/// Tokens are 128 bits in Base64 at least, and no authority's is near this.
const TOKEN_BYTES_MAX: usize = 256;

/// The answers of one account. Any token is answered, for the answer proves nothing to whoever does not
/// have the account's key; so every edge with the same account answers what another one has ordered.
#[derive(Default)]
pub(crate) struct Answers {
    thumbprint: ArcSwapOption<String>,
    /// Taken on the start and end of a proof and on a check by the authority, and held for a look-up.
    proofs: Mutex<HashMap<Name, Arc<CertifiedKey>>>,
}

impl Answers {
    pub(crate) fn set_thumbprint(&self, thumbprint: String) {
        self.thumbprint.store(Some(Arc::new(thumbprint)));
    }

    /// The body for `/.well-known/acme-challenge/{token}` (RFC 8555, section 8.3).
    pub(crate) fn http01(&self, token: &str) -> Option<String> {
        let thumbprint = self.thumbprint.load();
        let thumbprint = thumbprint.as_ref()?;
        is_token(token).then(|| format!("{token}.{thumbprint}"))
    }

    pub(crate) fn alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Answers checks of `name` by TLS-ALPN-01 until what it returns is dropped.
    ///
    /// # Errors
    /// The certificate can't be made.
    pub(crate) fn prove(self: &Arc<Self>, name: &Name, digest: &[u8]) -> Result<Proof, rcgen::Error> {
        let proof = Arc::new(certificate(name, digest)?);
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), proof);
        Ok(Proof { answers: Arc::clone(self), name: name.clone() })
    }
}

/// While it lives, checks of its name by TLS-ALPN-01 are answered.
pub(crate) struct Proof {
    answers: Arc<Answers>,
    name: Name,
}

impl Drop for Proof {
    fn drop(&mut self) {
        self.answers.proofs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// What to do with a handshake that has just begun.
pub enum Challenge {
    /// It is an authority's check, to be answered with this configuration, and then closed.
    Answer(Arc<ServerConfig>),
    /// It is anybody's.
    None,
    /// It pretends to be a check of a name that nobody is proving; it is to be ended with an alert.
    Unexpected,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "Answer",
            Self::None => "None",
            Self::Unexpected => "Unexpected",
        })
    }
}

/// The configuration for checks by TLS-ALPN-01, which serves nothing else.
pub(crate) fn configuration(answers: Arc<Answers>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Prover(answers)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whether a client offers the protocol of checks and no other.
pub(crate) fn is_check(hello: &ClientHello<'_>) -> bool {
    let Some(mut protocols) = hello.alpn() else { return false };
    protocols.next() == Some(ALPN) && protocols.next().is_none()
}

struct Prover(Arc<Answers>);

impl ResolvesServerCert for Prover {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_check(&hello) { self.0.alpn(hello.server_name()?) } else { None }
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prover")
    }
}

/// Base64 for URLs, without padding: nothing that could do harm in the answer or in a log.
fn is_token(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(plain)
}

fn certificate(name: &Name, digest: &[u8]) -> Result<CertifiedKey, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.as_str().to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
        .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_with_the_thumbprint_of_the_account() {
        let answers = Answers::default();
        assert_eq!(answers.http01("token"), None, "no account yet");
        answers.set_thumbprint("thumb".to_owned());
        assert_eq!(
            answers.http01("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA").as_deref(),
            Some("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA.thumb")
        );
    }

    #[test]
    fn what_is_no_token_is_not_answered() {
        let answers = Answers::default();
        answers.set_thumbprint("thumb".to_owned());
        let long = "a".repeat(257);
        for text in ["", "a.b", "a/b", "../a", "a b", "a%20", "a=", "a+b", "<a>", "a\r\nb", "ü", &long] {
            assert_eq!(answers.http01(text), None, "{text:?}");
        }
        assert!(answers.http01(&long[1..]).is_some());
    }

    #[test]
    fn a_proof_is_there_as_long_as_it_is_held() {
        let answers = Arc::new(Answers::default());
        let name = Name::parse("click.brand.example").expect("a host name");
        let proof = answers.prove(&name, &[7; 32]).expect("it is made");
        let key = answers.alpn("click.brand.example").expect("it is there");
        assert!(answers.alpn("other.brand.example").is_none());
        // The extension of RFC 8737, critical, with the digest as an octet string.
        let expected =
            [&[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f, 0x01, 0x01, 0xff, 4, 34, 4, 32][..], &[7; 32]].concat();
        assert!(key.cert[0].windows(expected.len()).any(|window| window == expected));
        drop(proof);
        assert!(answers.alpn("click.brand.example").is_none());
    }
}
