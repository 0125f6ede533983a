//! The admin listener: what the edge knows of itself, and the few things an operator may tell it.
//!
//! Invariants:
//! - Looking never changes anything; acting is a POST that carries a header no form can send.
//! - It changes nothing itself: an action is a [`Command`] that the control thread carries out.
//! - Nothing of it is reachable by the public listener.

pub mod certificates;
mod guard;
pub mod page;
pub mod status;

pub use guard::{ACTION_HEADER, Guard};

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroize as _;

use crate::clock;
use crate::event::UnixMillis;
use certificates::{Action, Pem, Which};

/// What an operator may tell the edge. The reply is JSON, or a sentence that says why not.
#[derive(Debug)]
pub enum Command {
    /// Take the held load.
    AcceptLoad,
    /// Say where a pump that lost its cursor goes on.
    Adopt(Adopt),
    /// Begin a window by hand.
    BeginWindow {
        /// The part, as it is called in the configuration.
        of: String,
        /// The end; 24 hours from now without it.
        until: Option<UnixMillis>,
        /// Why, for people.
        reason: String,
    },
    /// Something about the certificates that are ordered.
    Certificates(Action),
    /// End a window.
    EndWindow {
        /// The part.
        of: String,
    },
    /// Read the configuration again and apply it.
    Reload,
}

/// See [`Command::Adopt`].
#[derive(Clone, Debug, Deserialize)]
pub struct Adopt {
    /// `oldest`, `now` or a sequence.
    pub from: String,
    /// The journal; needed only when more than one stands still.
    pub journal: Option<String>,
}

/// What became of a command.
pub type Reply = Result<Value, String>;

/// The line to whoever carries out commands.
pub type Commands = mpsc::Sender<(Command, oneshot::Sender<Reply>)>;

/// Where the listener listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP, loopback unless the configuration says otherwise.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
}

const BODY_BYTES_MAX: usize = 64 * 1024;
const IDLE: Duration = Duration::from_secs(30);
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;

/// Serves until it is dropped.
pub async fn serve(listener: Listener, guard: Arc<Guard>, view: Arc<status::View>, commands: Commands) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let service = {
            let (guard, view, commands) = (Arc::clone(&guard), Arc::clone(&view), commands.clone());
            service_fn(move |request| {
                let (guard, view, commands) = (Arc::clone(&guard), Arc::clone(&view), commands.clone());
                async move { Ok::<_, Infallible>(answer(request, &guard, &view, &commands).await) }
            })
        };
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(16 * 1024);
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                let served = builder.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _place = place;
                    // A client that went away is no fault of ours.
                    let _ = served.await;
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let served = builder.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _place = place;
                    let _ = served.await;
                });
            }),
        };
        if accepted.is_err() {
            // Out of descriptors, most likely: rest instead of spinning.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    guard: &Guard,
    view: &Arc<status::View>,
    commands: &Commands,
) -> Response<Full<Bytes>> {
    if let Err((status, why)) = guard.admit(request.method(), request.headers()) {
        return said(status, &json!({ "error": why }));
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match (request.method().clone(), path.as_str()) {
        // Of many, these take longer than the control thread may be away.
        (Method::GET | Method::HEAD, "/certificates" | "/domains") => {
            let view = Arc::clone(view);
            let looked = tokio::task::spawn_blocking(move || look(&view, &path, &query)).await;
            looked.unwrap_or_else(|error| {
                said(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() }))
            })
        }
        (Method::GET | Method::HEAD, _) => look(view, &path, &query),
        (_, _) => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return said(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": "the body is too long" }));
            };
            let body = body.to_bytes();
            let answer = act(&path, &body, commands).await;
            // It may hold a private key; where the connection's buffer is shared, that is the connection's own.
            if let Ok(mut body) = body.try_into_mut() {
                body.as_mut().zeroize();
            }
            answer
        }
    }
}

fn look(view: &status::View, path: &str, query: &str) -> Response<Full<Bytes>> {
    let now = clock::now();
    match path {
        "/live" => text(StatusCode::OK, "alive\n"),
        "/ready" => match view.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/status" => match serde_json::to_value(view.status(now)) {
            Ok(status) => said(StatusCode::OK, &status),
            Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() })),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, page::render(view, now));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/certificates" => match serde_json::to_value(view.certificates()) {
            Ok(listing) => said(StatusCode::OK, &listing),
            Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() })),
        },
        "/domains" => match serde_json::to_value(view.domains()) {
            Ok(listing) => said(StatusCode::OK, &listing),
            Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() })),
        },
        "/windows" => said(StatusCode::OK, &view.windows(now)),
        "/link" => {
            let asked: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
            match (asked.get("namespace"), asked.get("token")) {
                (Some(namespace), Some(token)) => said(StatusCode::OK, &view.link(namespace, token, now)),
                _ => said(StatusCode::BAD_REQUEST, &json!({ "error": "name a namespace and a token" })),
            }
        }
        "/reload"
        | "/window/begin"
        | "/window/end"
        | "/links/accept"
        | "/deliver/adopt"
        | "/certificates/renew"
        | "/certificates/import"
        | "/certificates/account-key" => {
            said(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "an action is a POST" }))
        }
        _ => said(StatusCode::NOT_FOUND, &json!({ "error": "there is nothing at this path" })),
    }
}

#[derive(Deserialize)]
struct Begin {
    #[serde(default = "database")]
    of: String,
    until: Option<u64>,
    #[serde(default)]
    reason: String,
}

/// All of them without a name.
#[derive(Deserialize)]
struct Renew {
    name: Option<String>,
}

#[derive(Deserialize)]
struct End {
    #[serde(default = "database")]
    of: String,
}

fn database() -> String {
    "database".to_owned()
}

async fn act(path: &str, body: &[u8], commands: &Commands) -> Response<Full<Bytes>> {
    let body = if body.is_empty() { b"{}" } else { body };
    let command = match path {
        "/reload" => Ok(Command::Reload),
        "/links/accept" => Ok(Command::AcceptLoad),
        "/deliver/adopt" => serde_json::from_slice(body).map(Command::Adopt),
        "/window/begin" => serde_json::from_slice(body).map(|begin: Begin| Command::BeginWindow {
            of: begin.of,
            until: begin.until.map(UnixMillis),
            reason: begin.reason,
        }),
        "/certificates/renew" => serde_json::from_slice(body).map(|renew: Renew| {
            Command::Certificates(Action::Renew(renew.name.map_or(Which::All, Which::Name)))
        }),
        // The text itself: a parser would leave copies of the key behind.
        "/certificates/import" => match std::str::from_utf8(body) {
            Ok(pem) => Ok(Command::Certificates(Action::Import(Pem::from(pem)))),
            Err(_) => return said(StatusCode::BAD_REQUEST, &json!({ "error": "the body is no PEM text" })),
        },
        "/certificates/account-key" => Ok(Command::Certificates(Action::ChangeAccountKey)),
        "/window/end" => serde_json::from_slice(body).map(|end: End| Command::EndWindow { of: end.of }),
        _ => return said(StatusCode::NOT_FOUND, &json!({ "error": "there is no such action" })),
    };
    let command = match command {
        Ok(command) => command,
        Err(error) => return said(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
    };
    let (reply, answer) = oneshot::channel();
    if commands.send((command, reply)).await.is_err() {
        return said(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the edge is ending" }));
    }
    match answer.await {
        Ok(Ok(value)) => said(StatusCode::OK, &value),
        Ok(Err(why)) => said(StatusCode::CONFLICT, &json!({ "error": why })),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the edge is ending" })),
    }
}

fn said(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, format!("{value:#}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
