//! The command line's way to a running edge: one request to its admin listener.

use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::{Failure, Running, output};
use crate::admin::ACTION_HEADER;
use crate::config::{AdminAddress, Config};

/// Where a demo and a configuration without the setting listen.
const ADMIN_DEFAULT: &str = "127.0.0.1:9180";
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// A running edge's admin listener.
#[derive(Debug)]
pub struct Client {
    address: String,
    token: Option<String>,
}

impl Client {
    /// Finds the edge by the flags, by its configuration, or where a demo listens.
    ///
    /// # Errors
    /// When the named configuration or token file cannot be read.
    pub fn find(running: &Running) -> Result<Self, Failure> {
        let configured = match (&running.config, &running.admin) {
            (Some(file), _) => readable(file),
            (None, None) if Path::new("holdfast.toml").exists() => readable(Path::new("holdfast.toml")),
            _ => None,
        };
        let address = running
            .admin
            .clone()
            .or_else(|| {
                configured.as_ref().map(|config| match &config.admin.listen {
                    AdminAddress::Tcp(address) => address.to_string(),
                    AdminAddress::Unix(path) => format!("unix:{}", path.display()),
                })
            })
            .unwrap_or_else(|| ADMIN_DEFAULT.to_owned());
        let token = match &running.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Failure::of(&format!("cannot read {}", file.display()), &error))?
                    .trim()
                    .to_owned(),
            ),
            None => configured.and_then(|config| config.admin.token.map(|token| token.expose().to_owned())),
        };
        Ok(Self { address, token })
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// When nobody answers, or with what the edge says is wrong.
    pub fn look(&self, path: &str) -> Result<serde_json::Value, Failure> {
        self.send(Method::GET, path, "application/json", Bytes::new())
    }

    /// Does the action at `path`.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn act(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value, Failure> {
        self.send(Method::POST, path, "application/json", Bytes::from(body.to_string()))
    }

    /// The same with a text that nobody else may read, as it is; it is overwritten when it was sent.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn act_in_secret(&self, path: &str, text: Zeroizing<String>) -> Result<serde_json::Value, Failure> {
        self.send(Method::POST, path, "text/plain", Bytes::from_owner(text))
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<serde_json::Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("cannot start", &error))?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(ANSWER_WAIT, self.exchange(method, path, kind, body)).await.unwrap_or_else(
                |_| {
                    Err(format!(
                        "the edge at {} gave no answer within {} s",
                        self.address,
                        ANSWER_WAIT.as_secs()
                    ))
                },
            )
        });
        let (status, bytes) = answer.map_err(Failure::Other)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let said = value
            .get("error")
            .and_then(|error| error.as_str())
            .map_or_else(|| value.to_string(), str::to_owned);
        Err(Failure::Other(said))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let nobody = |error: &dyn std::fmt::Display| {
            format!(
                "no edge answers at {} ({error}); is it running? name it by --config or --admin",
                self.address
            )
        };
        let mut request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let host = if self.address.starts_with("unix:") { "localhost" } else { &self.address };
        let request = request
            .header(HOST, host)
            .header(ACTION_HEADER, "1")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = match self.address.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| nobody(&error))?;
                one_request(TokioIo::new(stream), request).await
            }
            None => {
                let stream = TcpStream::connect(&self.address).await.map_err(|error| nobody(&error))?;
                one_request(TokioIo::new(stream), request).await
            }
        };
        response.map_err(|error| nobody(&error))
    }
}

/// The configuration, or nothing where it has faults: an edge that runs well must be heard by whoever
/// is in the middle of editing its file.
fn readable(file: &Path) -> Option<Config> {
    match super::serve::load(file) {
        Ok(config) => Some(config),
        Err(_) => {
            output::note(format_args!(
                "{} has faults (`holdfast check` lists them); asking {ADMIN_DEFAULT} unless --admin says otherwise",
                file.display()
            ));
            None
        }
    }
}

async fn one_request<S>(stream: S, request: Request<Full<Bytes>>) -> hyper::Result<(u16, Bytes)>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        // The connection may end first; what was read of the answer then still counts.
        _ = connection => exchange.await,
    }
}
