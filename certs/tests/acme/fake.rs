//! An authority that does on demand what Pebble does not: limits, wrong chains, windows, profiles. It
//! checks no signature and proves nothing.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certs::Roots;
use certs::acme::Authority;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::https::{self, Files};

/// What it does wrong, or otherwise.
#[derive(Default)]
pub(crate) struct Answer {
    /// Orders are refused, with so many seconds to wait.
    pub(crate) limited: Option<u64>,
    pub(crate) other_name: Option<&'static str>,
    pub(crate) other_key: bool,
    pub(crate) garbled: bool,
    /// The certificate has ended long ago.
    pub(crate) past: bool,
    /// Days from now.
    pub(crate) window_days: Option<(u64, u64)>,
    pub(crate) no_successors: bool,
    pub(crate) silent: bool,
}

/// What it was asked for.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Of every order that was opened.
    pub(crate) profiles: Vec<Option<String>>,
    pub(crate) replaces: Vec<Option<String>>,
    pub(crate) windows: Vec<String>,
}

struct State {
    port: u16,
    issuer: Issuer<'static, KeyPair>,
    answer: Mutex<Answer>,
    seen: Mutex<Seen>,
    more: Notify,
    /// Name and chain of each order.
    orders: Mutex<Vec<(String, String, Option<String>)>>,
}

pub(crate) struct Fake {
    state: Arc<State>,
    files: Files,
    root: CertificateDer<'static>,
    _task: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start(folder: &Path) -> Self {
        let files = https::files(folder);
        let (issuer, root) = https::authority("an authority that misbehaves");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let state = Arc::new(State {
            port: listener.local_addr().unwrap().port(),
            issuer,
            answer: Mutex::default(),
            seen: Mutex::default(),
            more: Notify::new(),
            orders: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(https::server(&files));
        let mut task = JoinSet::new();
        let serving = Arc::clone(&state);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(Arc::clone(&serving), acceptor.clone(), stream));
            }
        });
        Self { state, files, root, _task: task }
    }

    pub(crate) fn authority(&self) -> Authority {
        let mut authority = Authority::at(format!("https://localhost:{}/dir", self.state.port));
        authority.roots = Roots::File(self.files.root.clone());
        authority
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Answer)) {
        change(&mut self.state.answer.lock().unwrap());
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn trust(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.root.clone()).unwrap();
        store
    }

    pub(crate) async fn until_asked_for_a_window(&self, count: usize) {
        loop {
            let mut more = std::pin::pin!(self.state.more.notified());
            more.as_mut().enable();
            if self.seen().windows.len() >= count {
                return;
            }
            tokio::time::timeout(Duration::from_secs(60), more).await.expect("a question in a minute");
        }
    }
}

async fn serve(state: Arc<State>, acceptor: TlsAcceptor, stream: TcpStream) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let (line, body) = https::request(&mut stream).await?;
    if state.answer.lock().unwrap().silent {
        return std::future::pending().await;
    }
    let (status, more, body) = state.reply(&line, &body);
    let head = format!(
        "HTTP/1.1 {status} Fine\r\nReplay-Nonce: bm9uY2U\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

impl State {
    fn reply(&self, line: &str, body: &[u8]) -> (u16, String, String) {
        let base = format!("https://localhost:{}", self.port);
        let path = line.split(' ').nth(1).unwrap();
        let payload = payload(body);
        let (place, number) = path[1..].split_once('/').unwrap_or_else(|| (&path[1..], "0"));
        let json = |status: u16, more: String, value: Value| (status, more, value.to_string());
        match place {
            "dir" => json(
                200,
                String::new(),
                json!({
                    "newNonce": format!("{base}/nonce"),
                    "newAccount": format!("{base}/account"),
                    "newOrder": format!("{base}/order"),
                    "renewalInfo": format!("{base}/window"),
                    "meta": { "profiles": { "shortlived": "for six days" } },
                }),
            ),
            "nonce" => (200, String::new(), String::new()),
            "account" => json(201, format!("Location: {base}/account/1\r\n"), json!({ "status": "valid" })),
            "order" if number == "0" => self.open(&base, &payload),
            "order" => json(200, String::new(), self.order(&base, number.parse().unwrap())),
            "finalize" => {
                let number: usize = number.parse().unwrap();
                self.issue(number, payload["csr"].as_str().unwrap());
                json(200, String::new(), self.order(&base, number))
            }
            "chain" => {
                let number: usize = number.parse().unwrap();
                (200, String::new(), self.orders.lock().unwrap()[number - 1].1.clone())
            }
            "window" => self.window(number),
            _ => (404, String::new(), String::new()),
        }
    }

    fn open(&self, base: &str, payload: &Value) -> (u16, String, String) {
        let answer = self.answer.lock().unwrap();
        let text = |key: &str| payload[key].as_str().map(str::to_owned);
        if let Some(seconds) = answer.limited {
            let problem = json!({
                "type": "urn:ietf:params:acme:error:rateLimited",
                "detail": "too many certificates already issued",
            });
            return (429, format!("Retry-After: {seconds}\r\n"), problem.to_string());
        }
        if answer.no_successors && text("replaces").is_some() {
            let problem = json!({ "type": "urn:ietf:params:acme:error:alreadyReplaced", "status": 409 });
            return (409, String::new(), problem.to_string());
        }
        let mut seen = self.seen.lock().unwrap();
        seen.profiles.push(text("profile"));
        seen.replaces.push(text("replaces"));
        let name = payload["identifiers"][0]["value"].as_str().unwrap().to_owned();
        let mut orders = self.orders.lock().unwrap();
        orders.push((name, String::new(), text("replaces")));
        let number = orders.len();
        drop(orders);
        (201, format!("Location: {base}/order/{number}\r\n"), self.order(base, number).to_string())
    }

    fn order(&self, base: &str, number: usize) -> Value {
        let (name, chain, replaces) = self.orders.lock().unwrap()[number - 1].clone();
        let mut order = json!({
            "status": if chain.is_empty() { "ready" } else { "valid" },
            "identifiers": [{ "type": "dns", "value": name }],
            "authorizations": [],
            "finalize": format!("{base}/finalize/{number}"),
            "certificate": format!("{base}/chain/{number}"),
        });
        if let Some(replaces) = replaces {
            order["replaces"] = replaces.into();
        }
        order
    }

    fn issue(&self, number: usize, request: &str) {
        let answer = self.answer.lock().unwrap();
        let der = CertificateSigningRequestDer::from(URL_SAFE_NO_PAD.decode(request).unwrap());
        let request = CertificateSigningRequestParams::from_der(&der).unwrap();
        let mut orders = self.orders.lock().unwrap();
        let order = &mut orders[number - 1];
        let name = answer.other_name.map_or_else(|| order.0.clone(), str::to_owned);
        let mut params = CertificateParams::new(vec![name]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let now = now();
        let days = |count: u64| Duration::from_secs(count * 86_400);
        params.not_before =
            (now - days(if answer.past { 400 } else { 0 }) - Duration::from_secs(3600)).into();
        params.not_after = if answer.past { (now - days(300)).into() } else { (now + days(90)).into() };
        let certificate = if answer.other_key {
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap()
        } else {
            params.signed_by(&request.public_key, &self.issuer).unwrap()
        };
        order.1 = certificate.pem();
        if answer.garbled {
            order.1 = order.1.replace("MII", "MIA");
        }
    }

    fn window(&self, id: &str) -> (u16, String, String) {
        self.seen.lock().unwrap().windows.push(id.to_owned());
        self.more.notify_waiters();
        let (start, end) = self.answer.lock().unwrap().window_days.unwrap_or((60, 61));
        let at = |days: u64| rfc3339(now() + Duration::from_secs(days * 86_400));
        let window = json!({ "suggestedWindow": { "start": at(start), "end": at(end) } });
        (200, "Retry-After: 3600\r\n".to_owned(), window.to_string())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The text of a signed request, whoever signed it.
fn payload(body: &[u8]) -> Value {
    let Ok(signed) = serde_json::from_slice::<Value>(body) else { return Value::Null };
    let text = URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default()).unwrap();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

fn rfc3339(at: SystemTime) -> String {
    let date = httpdate::HttpDate::from(at).to_string();
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|month| *month == parts[2]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4])
}
