//! Scenario `handshake`: a TLS 1.3 connection for each click, full and resumed, each competitor in turn.
//!
//! What is compared is the server's CPU time per connection, for the client's core limits the rate. All
//! show the same certificate. It also says how much memory a secured connection takes that waits for its
//! next click.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream, version};

use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::competitor::{Name, QUIET_PATIENCE, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::haproxy::Haproxy;
use crate::nginx::Nginx;
use crate::process::{CLIENT, Cores, CpuTimes, Running, SERVER, allow_connections, on, output};
use crate::report::{Spread, Table, keep_row, micros, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 10_000)]
    links: u64,
    /// How long each round of each competitor lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each competitor has its turn
    #[arg(long, default_value_t = 9)]
    rounds: u64,
    /// Clients at once, each with one connection after the other
    #[arg(long, default_value_t = 16)]
    clients: u64,
    /// How many secured connections are left idle to see what they take
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Who is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "holdfast,nginx,haproxy")]
    competitors: Vec<Name>,
    /// The Holdfast to measure; without it the workspace's is built
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Where databases and journals are kept during the run; should be on a real disk
    #[arg(long, default_value = "target/bench")]
    scratch: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// What a client remembers from one connection to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Full,
    Resumed,
}

impl Manner {
    const ALL: [Self; 2] = [Self::Full, Self::Resumed];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }
}

struct Competitor {
    name: Name,
    secured: SocketAddr,
    running: Running,
    rounds: [Vec<Round>; Manner::ALL.len()],
    idle_kib: f64,
}

struct Round {
    connections: u64,
    span: Duration,
    user: Duration,
    system: Duration,
    answering: Duration,
    /// Of the client's core.
    client: Duration,
}

impl Round {
    fn busy(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.span.as_secs_f64()
    }

    fn per_connection_us(&self, time: Duration) -> f64 {
        micros(time) / self.connections as f64
    }
}

/// The name of the certificate; clients connect to an address all the same.
pub(crate) const HOST: &str = "click.bench.test";
const WARM_UP_S: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(10);
/// From one address to one other there are no more ports than this on a Linux of default settings.
const IDLE_MAX: u32 = 28_000;
const KIB: f64 = 1024.0;

const CSV_HEADER: &str = "manner,competitor,round,connections,seconds,user_us,system_us,answering_us,busy,client_busy,idle_connection_kib";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.idle > IDLE_MAX {
        return Err(Failure::new(format!("more than {IDLE_MAX} connections have no ports")));
    }
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("handshake-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    allow_connections(arguments.idle)?;
    let certificate = Certificate::make(&scratch.join("certs"))?;

    let mut competitors = Vec::new();
    for (&name, port) in arguments.competitors.iter().zip((18_780..).step_by(10)) {
        if !matches!(name, Name::Holdfast | Name::Nginx | Name::Haproxy) {
            return Err(Failure::new(format!("{} speaks no TLS", name.label())));
        }
        if name.is_available() {
            competitors.push(start(arguments, name, &scratch, &campaign, &certificate, port)?);
        }
    }
    for competitor in &mut competitors {
        competitor.idle_kib = idle(arguments, competitor, &certificate)?;
        // None of the columns of clicks.
        let row =
            format!("idle,{},1,{},,,,,,,{:.2}", competitor.name.label(), arguments.idle, competitor.idle_kib);
        keep_row("handshake", CSV_HEADER, &row);
    }
    for round in 0..=arguments.rounds {
        for competitor in &mut competitors {
            for (place, manner) in Manner::ALL.into_iter().enumerate() {
                let seconds = if round == 0 { WARM_UP_S } else { arguments.seconds };
                let label = competitor.name.label();
                println!("round {round} of {}: {label}, {}", arguments.rounds, manner.label());
                let measured = measure(arguments, competitor, &certificate, manner, seconds)?;
                if round > 0 {
                    let row = csv_row(competitor, manner, round, &measured);
                    keep_row("handshake", CSV_HEADER, &row);
                    competitor.rounds[place].push(measured);
                }
            }
        }
    }
    report(arguments, &competitors)?;
    drop(competitors);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn start(
    arguments: &Arguments,
    name: Name,
    scratch: &Path,
    campaign: &Campaign,
    certificate: &Certificate,
    port: u16,
) -> Result<Competitor> {
    println!("starting {}", name.label());
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    // The admin listener of an edge is on the port between.
    let (plain, secured) = (at(port), at(port + 2));
    let folder = scratch.join(name.label());
    let tls = (secured, certificate.folder.as_path());
    let running = match name {
        Name::Nginx => Nginx::prepare_secured(&folder, campaign, plain, tls)?.start(SERVER)?,
        Name::Haproxy => Haproxy::prepare_secured(&folder, campaign, plain, tls)?.start(SERVER)?,
        _ => {
            let binary = edge::binary(arguments.holdfast.as_deref())?;
            let edge = Edge::prepare(&binary, &folder, campaign, Mode::Power, plain)?;
            edge.secure(HOST, secured, &certificate.folder)?;
            edge.start(SERVER)?
        }
    };
    let running = wait_until_ready(running, plain, campaign, campaign.links - 1)?;
    Ok(Competitor { name, secured, running, rounds: Default::default(), idle_kib: 0.0 })
}

/// A certificate that signs itself, for everybody to show.
pub(crate) struct Certificate {
    pub(crate) folder: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let failure = || Failure::at(format!("cannot make {}", folder.display()));
        fs::create_dir_all(folder).map_err(failure())?;
        let folder = folder.canonicalize().map_err(failure())?;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "30", "-subj", "/CN=bench", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", &format!("subjectAltName=DNS:{HOST}"), "-keyout"])
            .arg(folder.join("key.pem"))
            .arg("-out")
            .arg(folder.join("chain.pem"));
        output(&mut openssl, Cores::All)?;
        let der = CertificateDer::from_pem_file(folder.join("chain.pem"))
            .map_err(|error| Failure::new(format!("openssl made no certificate: {error}")))?;
        Ok(Self { folder, der })
    }

    /// A client with a memory of its own that holds it for trusted.
    fn client(&self) -> Result<Arc<ClientConfig>> {
        let refused = |error: rustls::Error| Failure::new(format!("the client cannot be made: {error}"));
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(refused)?;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As browsers do: servers that go by the client's order take it, too, so that all speak the same.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(refused)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// One connection: handshake, one click, the end; how the handshake went.
fn click(address: SocketAddr, client: &Arc<ClientConfig>, path: &str) -> io::Result<Option<HandshakeKind>> {
    let (mut connection, mut stream) = connect(address, client)?;
    let mut secured = Stream::new(&mut connection, &mut stream);
    write!(secured, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // Some end without saying so.
    let _ = secured.read_to_end(&mut answer);
    is_redirect(&answer)?;
    Ok(connection.handshake_kind())
}

fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<(ClientConnection, TcpStream)> {
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok((connection, stream))
}

fn is_redirect(answer: &[u8]) -> io::Result<()> {
    match answer.starts_with(b"HTTP/1.1 302 ") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(answer).into_owned())),
    }
}

fn measure(
    arguments: &Arguments,
    competitor: &mut Competitor,
    certificate: &Certificate,
    manner: Manner,
    seconds: u64,
) -> Result<Round> {
    let (address, label) = (competitor.secured, competitor.name.label());
    let (before, client_before) = (competitor.running.cpu()?, CpuTimes::of_this_program()?);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let visit = |first: u64| visit(address, certificate, manner, (first, arguments.links), end);
    let counts: Result<Vec<u64>> = on(CLIENT, || {
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..arguments.clients).map(|first| scope.spawn(move || visit(first))).collect();
            let ended = |client: thread::ScopedJoinHandle<'_, _>| {
                client.join().unwrap_or_else(|_| Err(Failure::new("a client panicked")))
            };
            clients.into_iter().map(ended).collect()
        })
    });
    let connections = counts?.iter().sum();
    let span = begun.elapsed();
    let used = competitor.running.cpu()?.since(&before);
    let client = CpuTimes::of_this_program()?.since(&client_before).total();
    if connections == 0 {
        return Err(Failure::new(format!("{label} had no connection in {seconds} s")));
    }
    competitor.running.still_runs()?;
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    let answering = answering(&used);
    Ok(Round { connections, span, user: used.user, system: used.system, answering, client })
}

/// One client until `end`: how many connections it had.
fn visit(
    address: SocketAddr,
    certificate: &Certificate,
    manner: Manner,
    (first, links): (u64, u64),
    end: Instant,
) -> Result<u64> {
    let mut client = certificate.client()?;
    let failure = || Failure::at(format!("{address} fails"));
    if manner == Manner::Resumed {
        click(address, &client, &Campaign::path(0)).map_err(failure())?;
    }
    let expected = match manner {
        Manner::Full => HandshakeKind::Full,
        Manner::Resumed => HandshakeKind::Resumed,
    };
    let mut connections = 0;
    while Instant::now() < end {
        let path = Campaign::path((first * 7919 + connections) % links);
        let kind = click(address, &client, &path).map_err(failure())?;
        if kind != Some(expected) {
            return Err(Failure::new(format!("{address} made a handshake that was {kind:?}")));
        }
        connections += 1;
        if manner == Manner::Full {
            client = certificate.client()?;
        }
    }
    Ok(connections)
}

/// Resident memory of a secured connection that has had one answer, in KiB.
fn idle(arguments: &Arguments, competitor: &mut Competitor, certificate: &Certificate) -> Result<f64> {
    let (address, label) = (competitor.secured, competitor.name.label());
    println!("{} idle connections to {label}", arguments.idle);
    let client = certificate.client()?;
    let failure = || Failure::at(format!("{label} fails"));
    for _ in 0..64 {
        click(address, &client, &Campaign::path(0)).map_err(failure())?;
    }
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    let before = competitor.running.memory()?.resident_bytes;
    let open = |_| -> io::Result<TcpStream> {
        let (mut connection, mut stream) = connect(address, &client)?;
        let mut secured = Stream::new(&mut connection, &mut stream);
        write!(secured, "GET {} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", Campaign::path(0))?;
        let mut answer = [0; 4096];
        let length = secured.read(&mut answer)?;
        is_redirect(&answer[..length])?;
        Ok(stream)
    };
    let kept = (0..arguments.idle).map(open).collect::<io::Result<Vec<TcpStream>>>().map_err(failure())?;
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    let after = competitor.running.memory()?.resident_bytes;
    if let Some(closed) = kept.iter().position(|stream| !is_open(stream)) {
        return Err(Failure::new(format!("{label} closed secured connection {closed}")));
    }
    drop(kept);
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    Ok((after as f64 - before as f64) / KIB / f64::from(arguments.idle))
}

/// Whether the other side has not ended it; what it said since, tickets for instance, is read.
fn is_open(mut stream: &TcpStream) -> bool {
    let mut said = [0; 4096];
    stream.set_nonblocking(true).is_ok()
        && loop {
            match stream.read(&mut said) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        }
}

fn csv_row(competitor: &Competitor, manner: Manner, round: u64, measured: &Round) -> String {
    format!(
        "{},{},{round},{},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3},",
        manner.label(),
        competitor.name.label(),
        measured.connections,
        measured.span.as_secs_f64(),
        measured.per_connection_us(measured.user),
        measured.per_connection_us(measured.system),
        measured.per_connection_us(measured.answering),
        measured.busy(measured.user + measured.system),
        measured.busy(measured.client),
    )
}

fn report(arguments: &Arguments, competitors: &[Competitor]) -> Result<()> {
    let yardstick = competitors.iter().find(|competitor| competitor.name == Name::Nginx);
    let mut table = Table::new(&[
        "",
        "handshake",
        "CPU per connection, µs",
        "× nginx",
        "user",
        "system",
        "connections/s",
        "core busy",
        "client busy",
        "idle connection, KiB",
    ]);
    for competitor in competitors {
        for (place, manner) in Manner::ALL.into_iter().enumerate() {
            let rounds = &competitor.rounds[place];
            let figure = |pick: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(pick));
            let of_answering = |round: &Round| round.per_connection_us(round.answering);
            let beside = yardstick.map_or_else(String::new, |yardstick| {
                let pairs = rounds.iter().zip(&yardstick.rounds[place]);
                Spread::of(pairs.map(|(own, other)| of_answering(own) / of_answering(other))).text(2)
            });
            table.row(&[
                competitor.name.label().to_owned(),
                manner.label().to_owned(),
                figure(&of_answering).text(1),
                beside,
                figure(&|round| round.per_connection_us(round.user)).text(1),
                figure(&|round| round.per_connection_us(round.system)).text(1),
                figure(&|round| round.connections as f64 / round.span.as_secs_f64()).text(0),
                format!("{:.0} %", figure(&|round| round.busy(round.user + round.system)).median * 100.0),
                format!("{:.0} %", figure(&|round| round.busy(round.client)).median * 100.0),
                format!("{:.1}", competitor.idle_kib),
            ]);
        }
    }
    let method = format!(
        "{} clients, each with one connection after the other: TCP, a TLS 1.3 handshake with an ECDSA P-256 certificate, one click on a \
         known link, the end; full, and resumed by a ticket. {} rounds of {} s in turn, server and client on one core \
         each. Medians, in brackets the least and the most. CPU is the server's, of all threads but those that \
         deliver and compress behind the answers; a column with × is the median of each round's ratio. Where the client's \
         core is busy and the server's is not, connections/s are the client's. Holdfast's journal is in `power` mode: every click \
         is synced before its answer; nginx writes a buffered log, HAProxy none. The client \
         prefers TLS_AES_128_GCM_SHA256 and X25519 as browsers do, which all of them take. Idle connections: {} that had one click answered.",
        arguments.clients, arguments.rounds, arguments.seconds, arguments.idle,
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, "handshake", "Clicks on fresh TLS connections", &method, table.text())
}
