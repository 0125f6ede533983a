//! hyper with nothing behind it: what any redirector that is built on hyper and tokio costs at least.
//!
//! One thread, one runtime and hyper's options as in Holdfast's front; every request gets the same
//! redirect from constants. It does not route, look up, record, limit or keep time.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::failure::{Failure, Result};

/// As in Holdfast's data threads.
const TURN_TASKS: u32 = 256;
const HEADERS_MAX: usize = 64;
const LOCATION_VALUE: HeaderValue = HeaderValue::from_static(
    "https://www.example.com/spring/offers/000000000?utm_source=mail&utm_campaign=spring-sale",
);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
const NO_INDEX: HeaderValue = HeaderValue::from_static("noindex");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// Serves until the process is killed.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let ended = || Failure::at("the bare hyper responder ended");
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(TURN_TASKS)
        .build_local(LocalOptions::default())
        .map_err(ended())?;
    runtime.block_on(accept(listen)).map_err(ended())
}

async fn accept(listen: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(connection(stream));
    }
}

async fn connection(stream: TcpStream) {
    let service = service_fn(|request: Request<_>| async move {
        // The map of the request's fields becomes that of the answer's, as in Holdfast.
        let mut fields = request.into_parts().0.headers;
        fields.clear();
        fields.insert(LOCATION, LOCATION_VALUE);
        fields.insert(CACHE_CONTROL, NO_STORE);
        fields.insert(ROBOTS, NO_INDEX);
        fields.insert(CONTENT_LENGTH, ZERO);
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::FOUND;
        *response.headers_mut() = fields;
        Ok::<_, Infallible>(response)
    });
    // A broken connection is the client's affair.
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .writev(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
