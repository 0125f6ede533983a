//! Scenario `preload`: a complete load of the links from PostgreSQL, by an edge that knows none, beside
//! `COPY … TO STDOUT` of the same columns into nothing; and the memory that the load takes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Admin;
use crate::campaign::{Campaign, NAMESPACE, Targets};
use crate::cluster::{ABOUT, Cluster};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::probe::wait_for_redirect;
use crate::process::{CLIENT, Memory, Running, SERVER, output};
use crate::report::{Spread, Table, keep_row, micros, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the larger table has; the smaller one has a tenth
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How often each has its turn, with each table
    #[arg(long, default_value_t = 5)]
    rounds: u64,
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

/// One round with one table.
struct Round {
    edge: Turn,
    /// Of the edge, when it has all links.
    memory: Memory,
    copy: Turn,
}

struct Turn {
    span: Duration,
    /// Of the edge or psql.
    cpu: Duration,
    server: Duration,
}

const PORT: u16 = 18_885;
/// Each scrape costs the edge about a tenth of a millisecond of the core that loads.
const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(600);
const COLUMNS: &str = "namespace, token, url, campaign, append, expires_at, disabled, deleted";

const CSV_HEADER: &str =
    "links,round,competitor,seconds,rows_per_second,cpu_us,server_us,resident_bytes,peak_bytes";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let scratch = arguments.scratch.join(format!("preload-{}", std::process::id()));
    let cluster = Cluster::start(&scratch.join("postgres"), PORT, CLIENT)?;
    let mut sizes = Vec::new();
    for links in [arguments.links / 10, arguments.links] {
        let campaign = Campaign { links, targets: Targets::Distinct };
        let rounds = measure(arguments, &binary, &cluster, &scratch, &campaign)?;
        sizes.push((links, rounds));
    }
    report(arguments, &sizes, &cluster.version()?)?;
    drop(cluster);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn measure(
    arguments: &Arguments,
    binary: &Path,
    cluster: &Cluster,
    scratch: &Path,
    campaign: &Campaign,
) -> Result<Vec<Round>> {
    let links = campaign.links;
    println!("preparing {links} links");
    let address = SocketAddr::from(([127, 0, 0, 1], 18_880));
    let database = format!("links_{links}");
    cluster.create(&database)?;
    let none = Campaign { links: 0, targets: campaign.targets };
    let folder = scratch.join(&database);
    let edge = Edge::prepare_on(&cluster.url(&database), binary, &folder, &none, Mode::Power, address)?;
    fill(cluster, &database, campaign)?;
    copy(cluster, &database)?; // brings the table into memory
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        edge.forget()?;
        let (loaded, memory) = load(cluster, &edge, address, campaign)?;
        let copied = copy(cluster, &database)?;
        for (name, turn, Memory { resident_bytes, peak_bytes }) in
            [("holdfast", &loaded, memory), ("copy", &copied, Memory { resident_bytes: 0, peak_bytes: 0 })]
        {
            let (seconds, per_second) = (turn.span.as_secs_f64(), turn.per_second(links));
            println!("round {round} of {}: {name} {per_second:.0} rows/s", arguments.rounds);
            let (cpu_us, server_us) = (turn.cpu_us(links), turn.server_us(links));
            let row = format!(
                "{links},{round},{name},{seconds:.3},{per_second:.0},{cpu_us:.3},{server_us:.3},{resident_bytes},{peak_bytes}"
            );
            keep_row("preload", CSV_HEADER, &row);
        }
        rounds.push(Round { edge: loaded, memory, copy: copied });
    }
    cluster.remove(&database)?;
    Ok(rounds)
}

/// Writes the campaign's links into the table, for an import of millions of rows takes minutes.
fn fill(cluster: &Cluster, database: &str, campaign: &Campaign) -> Result<()> {
    // The formulas of `Campaign`; that the first and the last link lead to its targets is seen later.
    let target = campaign.target(0).replace("000000000", "' || lpad(i::text, 9, '0') || '");
    let digits = |formula: &str| format!("lpad(to_hex(({formula}) % (1::bigint << 32)), 8, '0')");
    let token = format!("{} || {}", digits("i * 40503"), digits("i * 7919 + 12345"));
    let sql = format!(
        "set session_replication_role = replica;
         insert into holdfast.links (namespace, token, url, campaign)
         select '{NAMESPACE}', {token}, '{target}', 'spring-sale' from generate_series(0, {}::bigint) i",
        campaign.links - 1
    );
    cluster.sql(database, &sql)?;
    cluster.sql(database, "vacuum (analyze) holdfast.links")?;
    cluster.checkpoint()
}

/// From the start of the process until its metrics show all links.
fn load(cluster: &Cluster, edge: &Edge, address: SocketAddr, campaign: &Campaign) -> Result<(Turn, Memory)> {
    let before = cluster.cpu()?;
    let begin = Instant::now();
    let mut running = edge.start(SERVER)?;
    wait_for_links(&mut running, &edge.admin(), campaign.links)?;
    let span = begin.elapsed();
    let cpu = running.cpu()?.total();
    let memory = running.memory()?;
    let server = cluster.cpu()?.since(&before).total();
    for i in [0, campaign.links - 1] {
        wait_for_redirect(&mut running, address, campaign, i, Duration::ZERO)?;
    }
    running.stop(PATIENCE)?;
    Ok((Turn { span, cpu, server }, memory))
}

fn wait_for_links(running: &mut Running, admin: &Admin, links: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Nobody listens there at first.
        let known = admin.metrics().and_then(|metrics| metrics.sum("links")).unwrap_or_default();
        if known as u64 >= links {
            return Ok(());
        }
        running.still_runs()?;
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{known} of {links} links after {PATIENCE:?}")));
        }
        sleep(POLL);
    }
}

fn copy(cluster: &Cluster, database: &str) -> Result<Turn> {
    let before = cluster.cpu()?;
    let begin = Instant::now();
    let mut psql =
        cluster.psql(database, &format!("copy (select {COLUMNS} from holdfast.links) to stdout"))?;
    let (_, cpu) = output(psql.args(["--output", "/dev/null"]), SERVER)?;
    let span = begin.elapsed();
    Ok(Turn { span, cpu: cpu.total(), server: cluster.cpu()?.since(&before).total() })
}

impl Turn {
    fn per_second(&self, links: u64) -> f64 {
        links as f64 / self.span.as_secs_f64()
    }

    fn cpu_us(&self, links: u64) -> f64 {
        micros(self.cpu) / links as f64
    }

    fn server_us(&self, links: u64) -> f64 {
        micros(self.server) / links as f64
    }
}

type Pick = fn(&Round) -> &Turn;

fn report(arguments: &Arguments, sizes: &[(u64, Vec<Round>)], version: &str) -> Result<()> {
    let mut table = Table::new(&[
        "links",
        "",
        "rows/s",
        "× COPY",
        "seconds",
        "CPU, µs per link",
        "the server's, µs per link",
        "at the peak, MiB",
        "resident, MiB",
    ]);
    let mib = |bytes: f64| format!("{:.0}", bytes / f64::from(1 << 20));
    for (links, rounds) in sizes {
        let ratio = Spread::of(rounds.iter().map(|r| r.copy.span.as_secs_f64() / r.edge.span.as_secs_f64()));
        let memory =
            |of: fn(&Memory) -> u64| Spread::of(rounds.iter().map(|round| of(&round.memory) as f64)).median;
        let sides: [(&str, Pick, [String; 3]); 2] = [
            (
                "holdfast",
                |round| &round.edge,
                [
                    ratio.text(2),
                    mib(memory(|memory| memory.peak_bytes)),
                    mib(memory(|memory| memory.resident_bytes)),
                ],
            ),
            ("COPY", |round| &round.copy, ["1.00".to_owned(), String::new(), String::new()]),
        ];
        for (name, pick, [ratio, peak, resident]) in sides {
            let figure =
                |of: fn(&Turn, u64) -> f64| Spread::of(rounds.iter().map(|round| of(pick(round), *links)));
            table.row(&[
                links.to_string(),
                name.to_owned(),
                figure(Turn::per_second).text(0),
                ratio,
                format!("{:.2}", figure(|turn, _| turn.span.as_secs_f64()).median),
                figure(Turn::cpu_us).text(2),
                figure(Turn::server_us).text(2),
                peak,
                resident,
            ]);
        }
    }
    let body = format!("{}{}", table.text(), per_link(sizes));
    let method = format!(
        "A complete load of the links, each with a URL of its own of 88 bytes, by an edge that has no snapshot: from \
         the start of its process until its metrics show all of them, which were asked for every {} ms. In that time \
         it makes its journal, approves each target, builds the table, and writes and syncs the snapshot. Beside it \
         psql's `COPY (SELECT {COLUMNS} …) TO STDOUT` in text into /dev/null, connecting included. PostgreSQL \
         {version} is the same private server for both, with {ABOUT}; it has one core, Holdfast or psql the other; \
         its table is in memory. {} rounds in turn, medians, in brackets the least and the most; × is the median of \
         the rounds' ratios. \"At the peak\" is `VmHWM` of the edge when all links are there, \"resident\" `VmRSS` at \
         that moment. Unfair to Holdfast: psql keeps nothing.",
        POLL.as_millis(),
        arguments.rounds,
    );
    println!("\n{body}");
    write_results(&arguments.out, "preload", "Loading all links from PostgreSQL", &method, &body)
}

/// What a link takes, by the difference of the two tables.
fn per_link(sizes: &[(u64, Vec<Round>)]) -> String {
    let [(few, small), (many, large)] = sizes else { unreachable!("two sizes were measured") };
    let bytes = |of: fn(&Memory) -> u64| {
        let pairs = small.iter().zip(large);
        let differences = pairs.map(|(small, large)| of(&large.memory) as f64 - of(&small.memory) as f64);
        Spread::of(differences.map(|bytes| bytes / (many - few) as f64)).text(1)
    };
    let mut table =
        Table::new(&["memory of the edge, from the difference of the two tables", "bytes per link"]);
    table.row(&["at the peak of the load", &bytes(|memory| memory.peak_bytes)]);
    table.row(&["resident when all links are there", &bytes(|memory| memory.resident_bytes)]);
    format!("\n{}", table.text())
}
