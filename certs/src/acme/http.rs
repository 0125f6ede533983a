//! One request and its answer over HTTP/1.1, bounded in time and size, on a connection of its own.
//!
//! An order takes about ten requests in minutes or hours, so a pool of connections would save nothing
//! that counts. Nothing is left behind when the future is dropped, for no task is spawned.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient, Problem};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A chain, the longest that an authority sends, takes 20 KiB.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const HEAD_BYTES_MAX: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("holdfast/", env!("CARGO_PKG_VERSION")));

/// Sends requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

impl Http {
    /// `deadline` bounds each request from the look-up of its host to the last byte of its answer.
    pub(crate) fn new(tls: Arc<ClientConfig>, deadline: Duration) -> Self {
        Self { tls, deadline }
    }

    /// Asks for `address`, over TLS or not, as it says.
    ///
    /// # Errors
    /// [`HttpFault`]; an answer of any status is none.
    pub(crate) async fn get(&self, address: &Uri) -> Result<Response<Bytes>, HttpFault> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = address.clone();
        self.send(request, Plain::Allowed).await
    }

    async fn send<B>(&self, request: Request<B>, plain: Plain) -> Result<Response<Bytes>, HttpFault>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let Ok(answer) = tokio::time::timeout(self.deadline, self.exchange(request, plain)).await else {
            return Err(HttpFault::Deadline(self.deadline));
        };
        answer
    }

    async fn exchange<B>(&self, mut request: Request<B>, plain: Plain) -> Result<Response<Bytes>, HttpFault>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let target = Target::of(request.uri(), plain)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(path).map_err(|_| HttpFault::Address)?;
        request.headers_mut().insert(HOST, target.authority);
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        // An address of version 6 stands in brackets in a URI, and without them everywhere else.
        let host = target.host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, target.port)).await.map_err(HttpFault::Connect)?;
        if !target.tls {
            return speak(socket, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpFault::Address)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await;
        speak(tls.map_err(HttpFault::Tls)?, request).await
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Allowed,
    Forbidden,
}

struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
}

impl Target {
    fn of(address: &Uri, plain: Plain) -> Result<Self, HttpFault> {
        let tls = match address.scheme_str() {
            Some("https") => true,
            Some("http") if plain == Plain::Allowed => false,
            _ => return Err(HttpFault::Address),
        };
        let authority = address.authority().ok_or(HttpFault::Address)?;
        let host = authority.host().to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        // Whatever stands before an @ is nobody's business.
        let text = authority.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let authority = HeaderValue::try_from(text).map_err(|_| HttpFault::Address)?;
        Ok(Self { tls, host, port, authority })
    }
}

async fn speak<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
) -> Result<Response<Bytes>, HttpFault>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(HttpFault::Protocol)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(HttpFault::Protocol)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| HttpFault::Body)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end before the answer has been taken in whole.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(HttpFault::Protocol(error)),
        },
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let boxed = |fault: Box<dyn std::error::Error + Send + Sync>| instant_acme::Error::Other(fault);
            let answer = http.send(request, Plain::Forbidden).await.map_err(|fault| boxed(fault.into()))?;
            // What the ACME library makes of these says nothing of how long to wait.
            let status = answer.status();
            if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
                return Err(boxed(Turned::away(&answer).into()));
            }
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

/// The authority will not now: too many requests, or not well itself.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) status: StatusCode,
    pub(crate) problem: Option<Problem>,
    /// Seconds that it asks to wait.
    pub(crate) retry_after: Option<i64>,
}

impl Turned {
    fn away(answer: &Response<Bytes>) -> Self {
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let date = || answer.headers().get(http::header::DATE).and_then(|value| value.to_str().ok());
        Self {
            status: answer.status(),
            problem: serde_json::from_slice(answer.body()).ok(),
            retry_after: seconds.and_then(|text| retry_after(text.trim(), date())),
        }
    }
}

/// Seconds as such, or from the date of the answer to the date that is named, by the same clock.
fn retry_after(text: &str, date: Option<&str>) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds.max(0));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let since = httpdate::parse_http_date(date?).ok()?;
    i64::try_from(until.duration_since(since).unwrap_or_default().as_secs()).ok()
}

impl fmt::Display for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the authority answers with status {}", self.status.as_u16())
    }
}

impl std::error::Error for Turned {}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpFault {
    /// The address is none of an HTTPS server's.
    Address,
    /// The answer breaks off, or is longer than it has reason to be.
    Body,
    Connect(io::Error),
    Deadline(Duration),
    Protocol(hyper::Error),
    Tls(io::Error),
}

impl fmt::Display for HttpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the address is none of an HTTPS server"),
            Self::Body => write!(f, "the answer breaks off or is longer than {ANSWER_BYTES_MAX} bytes"),
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Deadline(deadline) => write!(f, "no answer within {} s", deadline.as_secs_f32()),
            Self::Protocol(error) => write!(f, "no HTTP: {error}"),
            Self::Tls(error) => write!(f, "no TLS: {error}"),
        }
    }
}

impl std::error::Error for HttpFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date_by_the_authoritys_own_clock() {
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(retry_after("120", None), Some(120));
        assert_eq!(retry_after("-5", None), Some(0));
        assert_eq!(retry_after("Wed, 21 Oct 2015 08:28:00 GMT", date), Some(3600));
        assert_eq!(retry_after("Wed, 21 Oct 2015 06:28:00 GMT", date), Some(0));
        assert_eq!(retry_after("Wed, 21 Oct 2015 08:28:00 GMT", None), None);
        assert_eq!(retry_after("soon", date), None);
    }

    #[test]
    fn an_address_says_where_to_connect() {
        let check = |text: &str, plain: Plain| {
            let address = Uri::try_from(text).expect("a URI");
            Target::of(&address, plain).map(|target| (target.tls, target.host, target.port)).ok()
        };
        let host = "acme.example".to_owned();
        assert_eq!(check("https://acme.example/dir", Plain::Forbidden), Some((true, host.clone(), 443)));
        assert_eq!(
            check("https://acme.example:14000/dir", Plain::Forbidden),
            Some((true, host.clone(), 14000))
        );
        assert_eq!(check("http://acme.example/ask", Plain::Allowed), Some((false, host, 80)));
        assert_eq!(check("http://acme.example/dir", Plain::Forbidden), None);
        assert_eq!(check("/dir", Plain::Allowed), None);
    }
}
