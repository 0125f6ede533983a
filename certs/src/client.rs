//! TLS of our own connections: how the certificate of a server that we call is checked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version,
};

/// What is checked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: the connection is hidden from listeners, not from somebody who pretends to be the server.
    Nothing,
    /// That an authority which is trusted signed it, for whatever name.
    Chain,
    /// That, and that it is for the name that was called.
    Name,
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that this system trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// Where systems keep the authorities that they trust: Debian, Red Hat, openSUSE, Alpine.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no configuration.
#[derive(Debug)]
pub enum ClientFault {
    /// The system keeps its authorities nowhere that is known.
    NoSystemRoots,
    /// A file of authorities cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It holds none that can be used.
    NoRoots(PathBuf),
    /// The TLS library refuses.
    Refused(rustls::Error),
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSystemRoots => f.write_str(
                "this system has no file of certificate authorities; install ca-certificates or name a file",
            ),
            Self::Unreadable(file, _) => write!(f, "{} cannot be read", file.display()),
            Self::NoRoots(file) => {
                write!(f, "{} holds no certificate of an authority in PEM", file.display())
            }
            Self::Refused(_) => f.write_str("TLS cannot be set up"),
        }
    }
}

impl std::error::Error for ClientFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSystemRoots | Self::NoRoots(_) => None,
            Self::Unreadable(_, error) => Some(error),
            Self::Refused(error) => Some(error),
        }
    }
}

/// How to call servers: TLS 1.2 and 1.3, no client certificate.
///
/// # Blocking
/// Reads the file of authorities, unless nothing is verified.
///
/// # Errors
/// [`ClientFault`]; nothing is trusted instead.
pub fn client(verify: Verify, roots: &Roots) -> Result<Arc<ClientConfig>, ClientFault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(ClientFault::Refused)?;
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Nothing => Arc::new(Unverified(provider)),
        Verify::Chain => Arc::new(AnyName(webpki(roots, provider)?)),
        Verify::Name => webpki(roots, provider)?,
    };
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(Arc::new(config))
}

fn webpki(roots: &Roots, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, ClientFault> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(read(roots)?), provider)
        .build()
        .map_err(|error| ClientFault::Refused(rustls::Error::General(error.to_string())))
}

fn read(roots: &Roots) -> Result<RootCertStore, ClientFault> {
    let file = match roots {
        Roots::File(file) => file.as_path(),
        Roots::System => {
            SYSTEM_ROOTS.iter().map(Path::new).find(|file| file.exists()).ok_or(ClientFault::NoSystemRoots)?
        }
    };
    let pem = std::fs::read(file).map_err(|error| ClientFault::Unreadable(file.into(), error))?;
    let mut store = RootCertStore::empty();
    // One of a system's hundreds that cannot be used harms nobody.
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    if store.is_empty() { Err(ClientFault::NoRoots(file.into())) } else { Ok(store) }
}

/// Takes any certificate, but holds the handshake's signature against it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks all but the name, which webpki looks at last.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
