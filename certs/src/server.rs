//! TLS of connections that clients open: the hello first, then the handshake.
//!
//! TLS 1.2 and 1.3 with ALPN `h2` and `http/1.1`. No early data, for a click that is replayed would
//! count twice. Clients resume by tickets alone: there is no session cache, one ticket is sent for
//! each handshake, with the first answer, and rustls takes it only under the name that it was given for.
//!
//! It sets no deadline and counts nothing: that is the caller's.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::{CipherSuite, Error, HandshakeKind, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Resolver;
use crate::acme::{Acme, Challenge};
use crate::tickets::Ticketer;
use crate::wire::Wire;

/// A connection's encrypted bytes.
pub type Stream<IO> = TlsStream<Wire<IO>>;

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or nothing was said about it.
    Http1,
    /// HTTP/2.
    Http2,
}

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// A fatal `unrecognized_name` (RFC 6066 §3), which says more than the `access_denied` of rustls.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// How connections are made; one for the whole life of an edge, whatever is reloaded.
#[derive(Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    resolver: Resolver,
}

impl Server {
    /// A server that shows the resolver's certificates and seals tickets with the ticketer's keys.
    ///
    /// # Panics
    /// Never: the versions are ones that the cryptography has.
    #[must_use]
    pub fn new(resolver: Resolver, ticketer: Ticketer) -> Self {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| cost(suite.suite()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("aws-lc-rs has both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver.clone()));
        config.ignore_client_order = true;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        config.ticketer = Arc::new(ticketer);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Self { config: Arc::new(config), resolver }
    }

    /// The certificates that it shows.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Goes on with the handshake to its end.
    ///
    /// # Cancel safety
    /// Dropping the future loses the connection.
    ///
    /// # Errors
    /// [`Ended`]; the client has got its alert.
    pub async fn finish<IO>(&self, hello: Hello<IO>) -> Result<Secured<IO>, Ended>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Hello { start, asked } = hello;
        let mut stream = match start.into_stream(Arc::clone(&self.config)).into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut wire)) => {
                // rustls may have an alert to send, which is encrypted by now.
                wire.let_go().await;
                return Err(Ended::of(&error));
            }
        };
        stream.get_mut().0.is_secured();
        let connection = stream.get_ref().1;
        let protocol = match connection.alpn_protocol() {
            Some(HTTP_2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let name = asked.or_else(|| Some((&*self.resolver.default_name()?).into()));
        Ok(Secured { stream, name, protocol, is_resumed })
    }
}

/// How dear a suite is: all are sound, and one click moves a kilobyte. What counts is the hash that the
/// handshake is bound to, for which processors have instructions when it is SHA-256.
fn cost(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 1,
        _ => 2,
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}

/// A connection whose client has said what it wants.
///
/// Whoever has one may wait, for a certificate perhaps, before it goes on to [`Server::finish`].
pub struct Hello<IO> {
    start: tokio_rustls::StartHandshake<Wire<IO>>,
    asked: Option<Box<str>>,
}

impl<IO> Hello<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Reads the client's hello.
    ///
    /// # Cancel safety
    /// Dropping the future loses the connection.
    ///
    /// # Errors
    /// [`Ended`]; the client has got its alert.
    pub async fn read(io: IO) -> Result<Self, Ended> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), Wire::new(io))
            .await
            .map_err(|error| Ended::of(&error))?;
        let asked = start.client_hello().server_name().map(Into::into);
        Ok(Self { start, asked })
    }

    /// The name that the client asks for, in lower case; an address counts as none.
    #[must_use]
    pub fn asked(&self) -> Option<&str> {
        self.asked.as_deref()
    }

    /// What an authority has to say in it, if it is one's.
    #[must_use]
    pub fn challenge(&self, acme: &Acme) -> Challenge {
        acme.challenge(&self.start.client_hello())
    }

    /// Shows an authority its proof, and ends the connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses the connection.
    ///
    /// # Errors
    /// [`Ended`], when it did not look at it to the end.
    pub async fn prove(self, proof: Arc<ServerConfig>) -> Result<(), Ended> {
        let mut stream = self.start.into_stream(proof).await.map_err(|error| Ended::of(&error))?;
        // It has seen what it came for, whether it waits for the end or not.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// Tells the client that its name is not known here; what that counts as.
    ///
    /// # Cancel safety
    /// Dropping the future loses the connection.
    pub async fn refuse(mut self) -> Ended {
        // A client that has gone needs no telling.
        let io = self.start.io.inner();
        if io.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
            let _ = io.shutdown().await;
        }
        Ended::UnknownName
    }
}

impl<IO> fmt::Debug for Hello<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured<IO> {
    /// Its bytes.
    pub stream: Stream<IO>,
    /// The name that the client asked for, or the default one when it asked for none.
    pub name: Option<Box<str>>,
    /// What is spoken inside.
    pub protocol: Protocol,
    /// Whether the client was known by its ticket.
    pub is_resumed: bool,
}

/// Why there is no connection; by whose doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client and this server have no version, cipher or signature in common.
    Incompatible,
    /// The client went away.
    Left,
    /// What came is no TLS, or breaks its rules.
    Malformed,
    /// The client does not want this server, mostly for its certificate.
    Refused,
    /// There is no certificate for what the client asks for.
    UnknownName,
}

impl Ended {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            None => Self::Left,
            Some(Error::AlertReceived(_)) => Self::Refused,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::Incompatible,
            Some(_) => Self::Malformed,
        }
    }
}
