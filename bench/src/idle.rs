//! Scenario `idle`: memory per keep-alive connection that waits for its next click, without TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::competitor::{Name, QUIET_PATIENCE, Setup};
use crate::edge::Mode;
use crate::failure::{Failure, Result};
use crate::process::allow_connections;
use crate::report::{Spread, Table, keep_row, write_results};
use crate::wrk::Wrk;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many connections are opened and left idle
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// How often each competitor is started and measured
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How many links the campaign has
    #[arg(long, default_value_t = 10_000)]
    links: u64,
    /// Who is measured; HAProxy with so many is not quiet before its own timeout has closed them
    #[arg(long, value_enum, value_delimiter = ',', default_value = "holdfast,nginx")]
    competitors: Vec<Name>,
    /// The Holdfast to measure; without it the workspace's is built
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Where databases and journals are kept during the run
    #[arg(long, default_value = "target/bench")]
    scratch: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// Resident memory in bytes.
struct Measured {
    before: u64,
    idle: u64,
    closed: u64,
}

/// From one address to one other there are no more ports than this on a Linux of default settings.
const CONNECTIONS_MAX: u32 = 28_000;
const WARM_UP_S: u64 = 2;
const WARM_UP_CONNECTIONS: u32 = 64;
/// Longer than an answer should take; connections without a click are closed after 75 s.
const PATIENCE: Duration = Duration::from_secs(10);

const CSV_HEADER: &str = "connections,competitor,round,before_bytes,idle_bytes,closed_bytes";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.connections > CONNECTIONS_MAX {
        return Err(Failure::new(format!("more than {CONNECTIONS_MAX} connections have no ports")));
    }
    let scratch = arguments.scratch.join(format!("idle-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    allow_connections(arguments.connections)?;
    let mut table = Table::new(&[
        "",
        "KiB per connection",
        "before, MiB",
        "with all connections, MiB",
        "after they were closed, MiB",
    ]);
    for &name in &arguments.competitors {
        if !name.is_available() {
            continue;
        }
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            let setup = Setup {
                campaign: Campaign { links: arguments.links, targets: Targets::Distinct },
                mode: Mode::Power,
                holdfast: arguments.holdfast.as_deref(),
                scratch: scratch.join(round.to_string()),
            };
            let measured = measure(arguments, &setup, name, round)?;
            let Measured { before, idle, closed } = measured;
            let row = format!("{},{},{round},{before},{idle},{closed}", arguments.connections, name.label());
            keep_row("idle", CSV_HEADER, &row);
            rounds.push(measured);
        }
        let mib = |of: fn(&Measured) -> u64| {
            format!("{:.1}", Spread::of(rounds.iter().map(|round| of(round) as f64 / MIB)).median)
        };
        let per_connection_kib = |round: &Measured| {
            (round.idle as f64 - round.before as f64) / 1024.0 / f64::from(arguments.connections)
        };
        table.row(&[
            name.label().to_owned(),
            Spread::of(rounds.iter().map(per_connection_kib)).text(2),
            mib(|round| round.before),
            mib(|round| round.idle),
            mib(|round| round.closed),
        ]);
    }
    report(arguments, &table)?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

const MIB: f64 = 1024.0 * 1024.0;

fn measure(arguments: &Arguments, setup: &Setup<'_>, name: Name, round: u64) -> Result<Measured> {
    let address = SocketAddr::from(([127, 0, 0, 1], 18_680));
    let mut running = setup.start(name, address)?;
    // What a server makes once, at its first clicks, is no connection's.
    Wrk::new(&setup.scratch, &setup.campaign, WARM_UP_CONNECTIONS)?.run(address, WARM_UP_S, round)?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    let before = running.memory()?.resident_bytes;
    let connections = (0..arguments.connections)
        .map(|i| clicked(address, u64::from(i) % arguments.links))
        .collect::<io::Result<Vec<TcpStream>>>()
        .map_err(Failure::at(format!("cannot open {} connections", arguments.connections)))?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    let idle = running.memory()?.resident_bytes;
    if let Some(closed) = connections.iter().position(|connection| !is_open(connection)) {
        return Err(Failure::new(format!("{} closed connection {closed}", name.label())));
    }
    drop(connections);
    running.wait_until_quiet(QUIET_PATIENCE)?;
    running.still_runs()?;
    let closed = running.memory()?.resident_bytes;
    println!("round {round} of {}: {} {before} → {idle} bytes", arguments.rounds, name.label());
    Ok(Measured { before, idle, closed })
}

/// A connection that has had the answer to one click.
fn clicked(address: SocketAddr, link: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", Campaign::path(link))?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    if answer[..length].starts_with(b"HTTP/1.1 302 ") {
        stream.set_nonblocking(true)?;
        Ok(stream)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&answer[..length]).into_owned()))
    }
}

/// Whether nothing was said on it since: neither an end nor anything else.
fn is_open(connection: &TcpStream) -> bool {
    matches!(connection.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn report(arguments: &Arguments, table: &Table) -> Result<()> {
    let method = format!(
        "The difference in resident memory of the server's processes between no connection and {} that each had \
         one click answered and are idle, divided by their number; plain HTTP, after a warm-up of {WARM_UP_S} s, \
         and quiet both times. {} starts each; medians, in brackets the least and the most. What the kernel keeps \
         for a socket is not in it, and is the same for all. Fair to Holdfast: memory that the warm-up made and the \
         connections took again is not counted, for either. Unfair to Holdfast: nginx makes the table of its \
         `worker_connections` (16384) when it starts, so that part of its connections stands under \"before\".",
        arguments.connections, arguments.rounds,
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, "idle", "Memory per idle connection", &method, table.text())
}
