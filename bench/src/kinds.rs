//! Scenario `kinds`: what requests that are no plain hit cost, each beside the plain hit of the same round.
//!
//! Pixels, links known from a look-up alone, unknown tokens with the database up and down, a TCP
//! connection for each click, and clicks over TLS by HTTP/1.1 and HTTP/2. Each case proves by the edge's
//! own counters that it was what it is called.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::{Admin, Metrics};
use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::cluster::{ABOUT, Cluster};
use crate::competitor::{Name, QUIET_PATIENCE, Setup, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::h2load::{H2load, Manner};
use crate::handshake::{Certificate, HOST};
use crate::outage::settle;
use crate::probe::redirect;
use crate::process::{CLIENT, Running, SERVER, on};
use crate::report::{Spread, Table, keep_row, micros, write_results};
use crate::wrk::{Answer, Ask, Connection, Token, Wrk};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 50_000)]
    links: u64,
    /// How long each round of each case lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each case has its turn
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// Connections; more than 64 would have more look-ups under way than the edge allows
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// The journal's mode
    #[arg(long, value_enum, default_value_t = Mode::Power)]
    mode: Mode,
    /// Who stands beside Holdfast in the plain hit and on fresh connections
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nginx,haproxy")]
    peers: Vec<Name>,
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

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hit,
    Pixel,
    Fresh,
    Http1,
    Http2,
    Http2Ten,
    Kept,
    Cached,
    Unknown,
    UnknownDown,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Hit,
        Self::Pixel,
        Self::Fresh,
        Self::Http1,
        Self::Http2,
        Self::Http2Ten,
        Self::Cached,
        Self::Kept,
        Self::Unknown,
        Self::UnknownDown,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Pixel => "pixel",
            Self::Fresh => "fresh connection",
            Self::Http1 => "TLS HTTP/1.1",
            Self::Http2 => "TLS HTTP/2 one stream",
            Self::Http2Ten => "TLS HTTP/2 ten streams",
            Self::Kept => "looked-up link",
            Self::Cached => "looked-up link in the LRU",
            Self::Unknown => "unknown token",
            Self::UnknownDown => "unknown token while the database is down",
        }
    }

    /// Which of the edges is asked.
    fn role(self) -> Role {
        match self {
            Self::Hit | Self::Pixel | Self::Fresh | Self::Http1 | Self::Http2 | Self::Http2Ten => Role::Table,
            Self::Kept | Self::Unknown | Self::UnknownDown => Role::LookUps,
            Self::Cached => Role::Cache,
        }
    }

    /// How it is asked: by wrk or by h2load.
    fn way(self) -> Way {
        match self {
            Self::Hit | Self::Kept | Self::Cached => Way::Plain(Ask::CLICK),
            Self::Pixel => Way::Plain(Ask { prefix: PIXELS, ..Ask::CLICK }),
            Self::Fresh => Way::Plain(Ask { connection: Connection::Closed, ..Ask::CLICK }),
            Self::Unknown | Self::UnknownDown => {
                Way::Plain(Ask { token: Token::Unknown, answer: Answer::Refusal, ..Ask::CLICK })
            }
            Self::Http1 => Way::Secured(Manner::Http1),
            Self::Http2 => Way::Secured(Manner::Http2 { streams: 1 }),
            Self::Http2Ten => Way::Secured(Manner::Http2 { streams: 10 }),
        }
    }

    /// The edge's own word for what becomes of such a request.
    fn outcome(self) -> &'static str {
        match self {
            Self::Pixel => "shown",
            Self::Unknown => "unknown",
            Self::UnknownDown => "missed",
            _ => "redirected",
        }
    }

    fn is_for_peers(self) -> bool {
        matches!(self, Self::Hit | Self::Fresh)
    }
}

enum Way {
    Plain(Ask),
    Secured(Manner),
}

/// What an edge is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// All links are in its table.
    Table,
    /// One link is in its table; the others are known from look-ups and kept beside it.
    LookUps,
    /// Its memory for links is full: what it knows from look-ups is in the LRU alone, out of which
    /// unknown tokens would drive it.
    Cache,
}

struct Server {
    name: Name,
    /// Of peers `Table`, too.
    role: Role,
    address: SocketAddr,
    running: Running,
}

struct Case {
    kind: Kind,
    server: usize,
    rounds: Vec<Round>,
}

/// What one case took in one round; times per request, in microseconds.
struct Round {
    requests: u64,
    per_second: f64,
    user_us: f64,
    system_us: f64,
    /// Without the threads that work behind the answers.
    answering_us: f64,
    busy: f64,
    client_busy: f64,
    /// Of the edge's answers those that its case is named after; 1 for peers.
    as_meant: f64,
    /// Of the edge's answers those with a record; 0 for peers.
    recorded: f64,
}

/// The path in front of every pixel's token.
const PIXELS: &str = "/o/";
const PIXEL_ROUTE: &str = "\n[[site.route]]\npath = \"/o/{token}\"\nkind = \"open\"\n";
const PORT: u16 = 19_185;
const DATABASES: [(Role, &str, u16); 2] =
    [(Role::Cache, "cache", 19_090), (Role::LookUps, "lookups", 19_100)];
/// Links that nobody clicks and that fill the least memory for links that an edge can be given: so many
/// by the table, whose building needs more than it takes in the end, and the rest by look-ups.
const MEMORY: &str = "16MiB";
const MEMORY_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
const LOADED: u64 = 80_000;
const FILLERS_MAX: u64 = 60_000;
const FILLERS_STEP: u64 = 1000;
/// Look-ups at once while links are made known.
const VISITORS: u64 = 16;
/// The journal and the database.
const PARTS: f64 = 2.0;
const WARM_UP_S: u64 = 2;
/// Fewer answers than this share that are what the case is named after make it a failure.
const AS_MEANT_MIN: f64 = 0.99;
const DOWN_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

const CSV_HEADER: &str = "mode,links,connections,competitor,kind,round,requests,requests_per_second,\
    user_us,system_us,answering_us,busy,client_busy,as_meant,recorded";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("kinds-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    let wrk = Wrk::new(&scratch, &campaign, arguments.connections)?;
    let h2load = H2load::new(&scratch, &campaign, HOST, arguments.connections)?;
    // It takes no part in what is measured but answers look-ups, and the client waits for those.
    let mut cluster = Cluster::start(&scratch.join("postgres"), PORT, CLIENT)?;
    let mut servers = start(arguments, &campaign, &cluster, &scratch)?;
    let mut cases = cases(&servers);
    for round in 0..=arguments.rounds {
        let seconds = if round == 0 { WARM_UP_S } else { arguments.seconds };
        for (number, case) in cases.iter_mut().enumerate() {
            let (label, kind) = (servers[case.server].name.label(), case.kind.label());
            println!("round {round} of {}: {label}, {kind}, for {seconds} s", arguments.rounds);
            if case.kind == Kind::UnknownDown {
                cluster.kill()?;
                wait_until_down(&edge::admin(servers[case.server].address))?;
            }
            // No two runs ask for the same unknown tokens.
            let seed = (round << 8) + number as u64;
            let measured = measure(&mut servers[case.server], case.kind, (&wrk, &h2load), seconds, seed)?;
            if case.kind == Kind::UnknownDown {
                cluster.run()?;
                for server in servers.iter().filter(|server| server.role != Role::Table) {
                    settle(&server.running, &edge::admin(server.address))?;
                }
            }
            if round > 0 {
                let row = csv_row(arguments, label, kind, round, &measured);
                keep_row("kinds", CSV_HEADER, &row);
                case.rounds.push(measured);
            }
        }
    }
    report(arguments, &servers, &cases, &cluster.version()?)?;
    drop((servers, cluster));
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// The edge with all links first, the other edges, then the peers.
fn start(
    arguments: &Arguments,
    campaign: &Campaign,
    cluster: &Cluster,
    scratch: &Path,
) -> Result<Vec<Server>> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let certificate = Certificate::make(&scratch.join("certs"))?;
    let last = campaign.links - 1;

    println!("starting holdfast with {} links", campaign.links);
    let address = at(19_080);
    let edge = Edge::prepare(&binary, &scratch.join("table"), campaign, arguments.mode, address)?;
    edge.add_settings(PIXEL_ROUTE)?;
    edge.secure(HOST, secured(address), &certificate.folder)?;
    let running = wait_until_ready(edge.start(SERVER)?, address, campaign, last)?;
    let mut servers = vec![Server { name: Name::Holdfast, role: Role::Table, address, running }];

    for (role, database, port) in DATABASES {
        println!("starting holdfast for look-ups, with the database {database}");
        cluster.create(database)?;
        let (url, address) = (cluster.url(database), at(port));
        let known = match role {
            Role::Cache => Campaign { links: campaign.links + LOADED + FILLERS_MAX, ..*campaign },
            _ => *campaign,
        };
        let edge = Edge::prepare_on(&url, &binary, &scratch.join(database), &known, arguments.mode, address)?;
        edge.add_settings(&look_ups(role, campaign))?;
        let loaded = if role == Role::Cache { campaign.links + LOADED - 1 } else { last };
        let running = wait_until_ready(edge.start(SERVER)?, address, &known, loaded)?;
        if role == Role::Cache {
            fill(&known, campaign.links + LOADED, address, &edge.admin())?;
        }
        visit(campaign, 0..campaign.links, address)?;
        running.wait_until_quiet(QUIET_PATIENCE)?;
        servers.push(Server { name: Name::Holdfast, role, address, running });
    }
    let setup = Setup {
        campaign: *campaign,
        mode: arguments.mode,
        holdfast: arguments.holdfast.as_deref(),
        scratch: scratch.to_owned(),
    };
    for (&name, port) in arguments.peers.iter().zip((19_110..).step_by(10)) {
        if !matches!(name, Name::Nginx | Name::Haproxy) {
            return Err(Failure::new(format!("{} is no peer: name nginx or haproxy", name.label())));
        }
        if name.is_available() {
            let running = setup.start(name, at(port))?;
            servers.push(Server { name, role: Role::Table, address: at(port), running });
        }
    }
    Ok(servers)
}

/// Settings with which few links are loaded, and the others are found one by one.
fn look_ups(role: Role, campaign: &Campaign) -> String {
    let columns = "select namespace, token, url, campaign from holdfast.links where";
    let (loaded, memory) = match role {
        // The number of the link stands in its target.
        Role::Cache => {
            let number = "substring(url from 'offers/([0-9]+)')::bigint";
            let (from, to) = (campaign.links, campaign.links + LOADED - 1);
            (format!("{number} between {from} and {to}"), format!("memory_max = \"{MEMORY}\"\n"))
        }
        _ => (format!("token = '{}'", Campaign::token(0)), String::new()),
    };
    // The LRU's parts are not filled evenly.
    let entries = (campaign.links * 2).max(1000);
    format!(
        "
[links]
preload = \"{columns} {loaded}\"
lookup = \"{columns} namespace = $1 and token = $2\"
cache_entries = {entries}
{memory}
[deliver]
retry_max = \"1s\"
"
    )
}

/// Where the edge at `address` answers over TLS; the admin listener is on the port between.
fn secured(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 2)
}

/// Has links from number `first` on looked up until the memory for links is full.
fn fill(known: &Campaign, first: u64, address: SocketAddr, admin: &Admin) -> Result<()> {
    let bytes = || admin.metrics()?.sum("links_memory_bytes");
    for begin in (first..known.links).step_by(FILLERS_STEP as usize) {
        if bytes()? >= MEMORY_BYTES {
            return Ok(());
        }
        visit(known, begin..(begin + FILLERS_STEP).min(known.links), address)?;
    }
    let what = format!("{} links do not fill {MEMORY}: they take {} bytes", known.links, bytes()?);
    Err(Failure::new(what))
}

/// Asks for each of `links` once.
fn visit(known: &Campaign, links: Range<u64>, address: SocketAddr) -> Result<()> {
    let visit_each = |first: u64| {
        for i in (links.start + first..links.end).step_by(VISITORS as usize) {
            look_up(known, i, address)?;
        }
        Ok(())
    };
    on(CLIENT, || {
        thread::scope(|scope| {
            let visitors: Vec<_> =
                (0..VISITORS).map(|first| scope.spawn(move || visit_each(first))).collect();
            for visitor in visitors {
                visitor.join().unwrap_or_else(|_| Err(Failure::new("a visitor panicked")))?;
            }
            Ok(())
        })
    })
}

/// Asks for link `i`, again for as long as the edge has no answer in time: a database that was just filled
/// has work of its own now and then.
fn look_up(known: &Campaign, i: u64, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + LOOK_UP_PATIENCE;
    loop {
        let target = redirect(address, &Campaign::path(i))
            .map_err(Failure::at(format!("no answer for link {i} from {address}")))?;
        match target {
            Some(target) if target == known.target(i) => return Ok(()),
            Some(target) => return Err(Failure::new(format!("link {i} leads to {target}"))),
            None if Instant::now() < deadline => sleep(POLL),
            None => {
                return Err(Failure::new(format!("link {i} is not redirected after {LOOK_UP_PATIENCE:?}")));
            }
        }
    }
}

fn since(now: &Metrics, before: &Metrics, pick: impl Fn(&Metrics) -> Result<f64>) -> Result<f64> {
    Ok(pick(now)? - pick(before)?)
}

fn wait_until_down(admin: &Admin) -> Result<()> {
    let deadline = Instant::now() + DOWN_PATIENCE;
    while admin.metrics()?.sum("part_up")? >= PARTS {
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "the edge holds its database for up {DOWN_PATIENCE:?} after it was killed"
            )));
        }
        sleep(POLL);
    }
    Ok(())
}

fn cases(servers: &[Server]) -> Vec<Case> {
    let of = |server: usize, kinds: &mut dyn Iterator<Item = Kind>| -> Vec<Case> {
        kinds.map(|kind| Case { kind, server, rounds: Vec::new() }).collect()
    };
    let mut cases = Vec::new();
    for (place, server) in servers.iter().enumerate() {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.role() == server.role);
        match server.name {
            Name::Holdfast => cases.extend(of(place, &mut kinds.into_iter())),
            _ => cases.extend(of(place, &mut kinds.filter(|kind| kind.is_for_peers()))),
        }
    }
    cases
}

/// Loads one server and waits until it is quiet, so that the next one is measured alone.
fn measure(
    server: &mut Server,
    kind: Kind,
    (wrk, h2load): (&Wrk, &H2load),
    seconds: u64,
    seed: u64,
) -> Result<Round> {
    let admin = (server.name == Name::Holdfast).then(|| edge::admin(server.address));
    let metrics = || admin.map(|admin| admin.metrics()).transpose();
    let metrics_before = metrics()?;
    let before = server.running.cpu()?;
    let (requests, span, client_busy) = match kind.way() {
        Way::Plain(ask) => {
            let load = wrk.ask(&ask, server.address, seconds, seed)?;
            (load.requests, load.span, load.client_busy)
        }
        Way::Secured(manner) => {
            let answered = h2load.run(secured(server.address), manner, seconds)?;
            (answered.requests, answered.span, answered.client_busy)
        }
    };
    let span_s = span.as_secs_f64();
    let cpu = server.running.cpu()?.since(&before);
    server.running.still_runs()?;
    server.running.wait_until_quiet(QUIET_PATIENCE)?;
    let (mut as_meant, mut recorded) = (1.0, 0.0);
    if let Some((now, before)) = metrics()?.zip(metrics_before) {
        (as_meant, recorded) = shares(kind, &now, &before)?;
        if as_meant < AS_MEANT_MIN {
            let share = as_meant * 100.0;
            return Err(Failure::new(format!("only {share:.1} % of the answers were {}", kind.label())));
        }
    }
    let per_request_us = |time| micros(time) / requests as f64;
    Ok(Round {
        requests,
        per_second: requests as f64 / span_s,
        user_us: per_request_us(cpu.user),
        system_us: per_request_us(cpu.system),
        answering_us: per_request_us(answering(&cpu)),
        busy: cpu.total().as_secs_f64() / span_s,
        client_busy,
        as_meant,
        recorded,
    })
}

/// Of all that the edge answered, the shares of what the case is named after and of what has a record.
fn shares(kind: Kind, now: &Metrics, before: &Metrics) -> Result<(f64, f64)> {
    let more = |pick: &dyn Fn(&Metrics) -> Result<f64>| since(now, before, pick);
    let answered = more(&|metrics| metrics.sum("requests_total"))?;
    let outcome = format!("outcome=\"{}\"", kind.outcome());
    let meant = more(&|metrics| Ok(metrics.sum_with("requests_total", &outcome)))?;
    let meant = match kind {
        Kind::Cached => meant.min(more(&|metrics| metrics.sum("cache_hits_total"))?),
        Kind::Unknown => {
            meant.min(more(&|metrics| Ok(metrics.sum_with("look_ups_total", "outcome=\"absent\"")))?)
        }
        _ => meant,
    };
    let recorded = more(&|metrics| metrics.sum("appended_events_total"))?;
    Ok((meant / answered, recorded / answered))
}

fn csv_row(arguments: &Arguments, competitor: &str, kind: &str, round: u64, measured: &Round) -> String {
    format!(
        "{},{},{},{competitor},{kind},{round},{},{:.0},{:.3},{:.3},{:.3},{:.3},{:.3},{:.4},{:.4}",
        arguments.mode.label(),
        arguments.links,
        arguments.connections,
        measured.requests,
        measured.per_second,
        measured.user_us,
        measured.system_us,
        measured.answering_us,
        measured.busy,
        measured.client_busy,
        measured.as_meant,
        measured.recorded,
    )
}

/// The median of each round's ratio to the other's figure of the same round.
fn ratio(case: &Case, yardstick: &Case) -> String {
    let pairs = case.rounds.iter().zip(&yardstick.rounds);
    Spread::of(pairs.map(|(round, beside)| round.answering_us / beside.answering_us)).text(2)
}

fn report(arguments: &Arguments, servers: &[Server], cases: &[Case], version: &str) -> Result<()> {
    let name = |case: &Case| servers[case.server].name;
    let find = |who: Name, kind: Kind| cases.iter().find(|case| name(case) == who && case.kind == kind);
    let mut table = Table::new(&[
        "",
        "request",
        "CPU per request, µs",
        "× the hit",
        "× nginx",
        "user",
        "system",
        "requests/s",
        "core busy",
        "client busy",
        "recorded",
    ]);
    for case in cases {
        let figure = |pick: fn(&Round) -> f64| Spread::of(case.rounds.iter().map(pick));
        let beside =
            |yardstick: Option<&Case>| yardstick.map_or_else(String::new, |other| ratio(case, other));
        let recorded = match name(case) {
            Name::Holdfast => format!("{:.0} %", figure(|round| round.recorded * 100.0).median),
            _ => String::new(),
        };
        table.row(&[
            name(case).label().to_owned(),
            case.kind.label().to_owned(),
            figure(|round| round.answering_us).text(2),
            beside(find(name(case), Kind::Hit)),
            beside(find(Name::Nginx, case.kind)),
            format!("{:.2}", figure(|round| round.user_us).median),
            format!("{:.2}", figure(|round| round.system_us).median),
            figure(|round| round.per_second).text(0),
            format!("{:.0} %", figure(|round| round.busy).median * 100.0),
            format!("{:.0} %", figure(|round| round.client_busy).median * 100.0),
            recorded,
        ]);
    }
    let mode = arguments.mode.label();
    let method = format!(
        "{} links, journal in `{mode}` mode, {} connections, {} rounds of {} s in turn, each begun when the one \
         before it is quiet; server and client on one core each. CPU per request is user and system time of all \
         threads but those that deliver and compress behind the answers; user and system apart are of all threads. \
         Medians, in brackets the least and the most; × is the median of each round's ratio to the other's figure \
         of the same round.\n\n\
         A *hit* is a click on a random link of the table by wrk over a kept connection, a *pixel* a request for the \
         tracking pixel with the token of such a link. On a *fresh connection* each click asks the server to close: \
         opening and closing count, which the client does, too, so that it is the limit sooner. *TLS* is \
         h2load over kept connections, by HTTP/1.1 and by HTTP/2 with one and with ten requests under way \
         on each; compare these with each other. A *looked-up link* was not in the table and is kept beside it since \
         an earlier look-up; *in the LRU* is where it stays when `links.memory_max` is reached. An *unknown token* \
         is new each time: a look-up in the database, then 404; *while the database is \
         down* it is 503 without a look-up. These four ask edges that loaded few links or, for the LRU, {LOADED} \
         others, with all in \
         PostgreSQL {version} ({ABOUT}), which runs on the client's core: its time is in no figure, and \
         look-ups, which go one after the other, limit the rate. \"Recorded\" is the share of answers that got a \
         record: unknown \
         tokens of one source are recorded up to a million a minute.\n\n\
         Fair: each case is held against the hit of the same round, those of Holdfast all against that of the edge \
         with all links in its table, a minute apart at most, and the edge's own counters must \
         say that at least {:.0} % of the answers were what the case is called. Where the client is nearly busy and the \
         core is not, requests/s are the client's. Kind to the hit: its \
         table has {} links, and the memory behind a bigger one is slower (scenario `growth`). Unfair to HTTP/2 and TLS: \
         the few handshakes of each round are in its figure. Kind to TLS: each of h2load's connections asks for the \
         same links in the same order. Unfair to Holdfast: nginx loses its buffered log line and HAProxy writes none, \
         where Holdfast records each click.",
        arguments.links,
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
        AS_MEANT_MIN * 100.0,
        arguments.links,
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, &format!("kinds-{mode}"), "Kinds of requests", &method, table.text())
}
