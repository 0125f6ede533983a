//! The ports 80 and 443 of an edge, as small as an authority needs them.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use certs::acme::{Acme, Challenge};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::https;

const PLACE: &str = "/.well-known/acme-challenge/";

/// Answers with whatever edge it was given last.
#[derive(Clone, Default)]
pub(crate) struct Answering(Arc<Mutex<Option<Acme>>>);

impl Answering {
    pub(crate) fn with(&self, acme: &Acme) {
        *self.0.lock().unwrap() = Some(acme.clone());
    }

    fn acme(&self) -> Option<Acme> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) struct Site {
    pub(crate) http: u16,
    pub(crate) tls: u16,
    pub(crate) answering: Answering,
    _tasks: JoinSet<()>,
}

impl Site {
    pub(crate) async fn open() -> Self {
        let answering = Answering::default();
        let mut tasks = JoinSet::new();
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let ports = (http.local_addr().unwrap().port(), tls.local_addr().unwrap().port());
        tasks.spawn(accept(http, answering.clone(), serve_http));
        tasks.spawn(accept(tls, answering.clone(), serve_tls));
        Self { http: ports.0, tls: ports.1, answering, _tasks: tasks }
    }
}

async fn accept<F>(listener: TcpListener, answering: Answering, serve: impl Fn(TcpStream, Answering) -> F)
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, answering.clone()));
    }
}

async fn serve_http(mut stream: TcpStream, answering: Answering) -> Option<()> {
    let (line, _) = https::request(&mut stream).await?;
    let path = line.split(' ').nth(1)?;
    let body = path.strip_prefix(PLACE).and_then(|token| answering.acme()?.http01(token));
    let answer = match body {
        Some(body) => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    };
    stream.write_all(answer.as_bytes()).await.ok()
}

async fn serve_tls(stream: TcpStream, answering: Answering) -> Option<()> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
    let challenge = answering.acme()?.challenge(&start.client_hello());
    let Challenge::Answer(config) = challenge else { return None };
    let mut stream = start.into_stream(config).await.ok()?;
    stream.shutdown().await.ok()
}
