//! HTTP on one connection, whatever carries it: hyper's, with bounds of ours.
//!
//! HTTP/2 has bounds that HTTP/1 has no need of: requests at once, resets by either side, windows. A
//! client that opens no window for its answers has no request under way any more, and falls silent.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use certs::Protocol;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ask::{Caller, FIELDS_MAX};
use super::connection::{Entry, Order};
use super::core::Core;
use super::serve::serve;
use crate::respond::body::Body;

/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 100;
/// What a client may send beyond a request's head before it is told to wait: we take no bodies.
const WINDOW_BYTES: u32 = 64 << 10;
/// What is kept of answers that a client does not take.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Requests that a client took back before they were looked at; then the connection ends
/// (CVE-2023-44487).
const RESETS_MAX: usize = 20;
/// Requests that were ended for a client's faults; then the connection ends (CVE-2025-8671).
const FAULTS_MAX: usize = 64;

/// Answers requests until the client goes, or until the connection is told to end.
pub(super) async fn converse<Io>(
    core: &Rc<Core>,
    entry: &Rc<Entry>,
    caller: Caller,
    io: Io,
    protocol: Protocol,
) where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let head_bytes_max = core.shared.limits.load().header_bytes_max;
    let caller = Rc::new(caller);
    let service = service_fn(|request: Request<Incoming>| {
        let asking = Asking::begin(core, entry);
        let caller = Rc::clone(&caller);
        async move {
            let response = serve(&asking.core, caller, request).await;
            drop(asking);
            Ok::<Response<Body>, Infallible>(response)
        }
    });
    match protocol {
        Protocol::Http1 => {
            let served = http1::Builder::new()
                // The sweep closes silent connections; hyper's timer would be armed anew for each request.
                .header_read_timeout(None)
                .max_buf_size(head_bytes_max)
                .max_headers(FIELDS_MAX)
                // One small buffer is cheaper to write than two parts of one.
                .writev(false)
                .serve_connection(TokioIo::new(io), service);
            drive(served, entry).await;
        }
        Protocol::Http2 => {
            entry.is_shared.set(true);
            let served = http2::Builder::new(OnThisThread)
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .adaptive_window(false)
                .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
                .max_pending_accept_reset_streams(RESETS_MAX)
                .max_local_error_reset_streams(FAULTS_MAX)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                // The sweep closes silent connections.
                .keep_alive_interval(None)
                .serve_connection(TokioIo::new(io), service);
            // Boxed, so that connections of HTTP/1 do not keep the room for it.
            Box::pin(drive(served, entry)).await;
        }
    }
}

/// Runs a connection to its end, or until it is told to end.
async fn drive(served: impl Conversation, entry: &Entry) {
    let mut served = pin!(served);
    let mut told = false;
    poll_fn(|context| {
        match entry.order() {
            Order::GoOn => {}
            Order::Close(_) if told => {}
            Order::Close(_) => {
                told = true;
                // A request that has arrived is read first, and then it is the last one.
                if served.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                served.as_mut().end();
            }
            Order::Drop => return Poll::Ready(()),
        }
        // A broken connection is the client's affair.
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        entry.watch(context);
        Poll::Pending
    })
    .await;
}

/// A connection of either version of HTTP.
trait Conversation: Future<Output = hyper::Result<()>> {
    /// Ends after what is under way.
    fn end(self: Pin<&mut Self>);
}

impl<Io, S> Conversation for http1::Connection<TokioIo<Io>, S>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<Io, S> Conversation for http2::Connection<TokioIo<Io>, S, OnThisThread>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
    S::Future: 'static,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Requests of HTTP/2 run on the thread that has their connection.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F> Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, request: F) {
        // It ends with its answer, or with its connection.
        tokio::task::spawn_local(async move { drop(request.await) });
    }
}

/// A request that is being answered; dropped when it is, or when its client took it back.
struct Asking {
    core: Rc<Core>,
    entry: Rc<Entry>,
}

impl Asking {
    fn begin(core: &Rc<Core>, entry: &Rc<Entry>) -> Self {
        entry.begin_request();
        Self { core: Rc::clone(core), entry: Rc::clone(entry) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.entry.end_request(self.core.tick());
        // One of HTTP/1 takes its connection with it, which counts it.
        if self.entry.is_shared.get() && std::thread::panicking() {
            self.core.counters().panics.one();
        }
    }
}
