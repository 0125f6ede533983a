//! Scenario `deliver`: hits that waited out a window, delivered into a database, beside the database's
//! own tool, which brings the same rows into a table of the same shape.
//!
//! Each round has a Holdfast and databases of its own, so that both fill an empty table.

mod postgres;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::admin::Admin;
use crate::campaign::{Campaign, Targets};
use crate::competitor::{QUIET_PATIENCE, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{Running, SERVER, ended_well, output, require};
use crate::report::{Spread, Table, keep_row, micros, write_results};
use crate::wrk::Wrk;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which databases
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sqlite,postgres")]
    into: Vec<Store>,
    /// How many hits wait for delivery, at least; the load generator overshoots
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How often each has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// How many links the campaign has; few, for all are loaded anew when a window ends
    #[arg(long, default_value_t = 10_000)]
    links: u64,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    /// A file, beside the sqlite3 shell's .import
    Sqlite,
    /// A private server, beside psql's \copy
    Postgres,
}

/// One competitor's figures of one round.
#[derive(Clone, Copy)]
struct Filled {
    events: u64,
    span: Duration,
    cpu: Duration,
    /// Of the thread that writes the database alone.
    writing: Duration,
    /// From the begin to the first progress that was seen.
    first: Duration,
    /// How much earlier than it was seen the end may have been.
    resolution: Duration,
}

impl Filled {
    fn per_second(&self) -> f64 {
        self.events as f64 / self.span.as_secs_f64()
    }

    fn cpu_us(&self) -> f64 {
        micros(self.cpu) / self.events as f64
    }
}

const CONNECTIONS: u32 = 64;
/// Short loads, so that the load generator overshoots little.
const LOAD_S: u64 = 1;
/// More loads than this mean that hits are not recorded.
const LOADS_MAX: u64 = 600;
/// Each scrape costs the edge about a tenth of a millisecond of the core that delivers.
const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(600);
const SINK: &str = "sink";
const PRAGMAS: [&str; 4] = ["journal_mode", "synchronous", "page_size", "cache_size"];

const CSV_HEADER: &str =
    "round,competitor,events,seconds,events_per_second,cpu_us,writing_us,first_ms,resolution_ms";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    for store in &arguments.into {
        match store {
            Store::Sqlite => into_sqlite(arguments, &binary)?,
            Store::Postgres => postgres::run(arguments, &binary)?,
        }
    }
    Ok(())
}

fn into_sqlite(arguments: &Arguments, binary: &Path) -> Result<()> {
    require("sqlite3", "sqlite3")?;
    let scratch = arguments.scratch.join(format!("deliver-{}", std::process::id()));
    let mut rounds = Vec::new();
    let mut shell = String::new();
    for round in 1..=arguments.rounds {
        let folder = scratch.join(round.to_string());
        let delivered = delivery(arguments, binary, &folder, round)?;
        let imported = import(&folder)?;
        for (name, filled) in [("holdfast", delivered), (".import", imported)] {
            println!("round {round} of {}: {name} {:.0} events/s", arguments.rounds, filled.per_second());
            keep_row("deliver", CSV_HEADER, &csv_row(round, name, &filled));
        }
        rounds.push((delivered, imported));
        if shell.is_empty() {
            shell = about_shell(&folder)?;
        }
        fs::remove_dir_all(&folder).map_err(Failure::at(format!("cannot remove {}", folder.display())))?;
    }
    report(arguments, &rounds, &shell)?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn delivery(arguments: &Arguments, binary: &Path, folder: &Path, round: u64) -> Result<Filled> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let address = SocketAddr::from(([127, 0, 0, 1], 18_380));
    let edge = Edge::prepare(binary, &folder.join("holdfast"), &campaign, Mode::Power, address)?;
    let waiting = Waiting::pile_up(arguments.events, &edge, &campaign, address, folder, round)?;
    let filled = waiting.deliver()?;
    waiting.edge.wait_until_quiet(QUIET_PATIENCE)?;
    Ok(filled)
}

/// An edge in a window, and the hits that wait there.
pub(crate) struct Waiting {
    edge: Running,
    admin: Admin,
    /// Delivered before.
    before: f64,
    events: u64,
}

impl Waiting {
    /// Begins a window and clicks until there are enough hits.
    pub(crate) fn pile_up(
        least: u64,
        edge: &Edge,
        campaign: &Campaign,
        address: SocketAddr,
        scratch: &Path,
        round: u64,
    ) -> Result<Self> {
        let running = wait_until_ready(edge.start(SERVER)?, address, campaign, campaign.links - 1)?;
        let admin = edge.admin();
        let before = admin.metrics()?.sum("delivered_events_total")?;

        admin.act("/window/begin")?;
        let wrk = Wrk::new(scratch, campaign, CONNECTIONS)?;
        let synced = || admin.metrics()?.sum("synced_events_total");
        for load in 0.. {
            if synced()? - before >= least as f64 {
                break;
            }
            if load == LOADS_MAX {
                let what = format!("{LOADS_MAX} loads did not bring {least} hits");
                return Err(Failure::new(what));
            }
            wrk.run(address, LOAD_S, round * LOADS_MAX + load)?;
        }
        running.wait_until_quiet(QUIET_PATIENCE)?;
        let events = (synced()? - before) as u64;
        Ok(Self { edge: running, admin, before, events })
    }

    /// Ends the edge; what waits there goes on waiting.
    pub(crate) fn stop(self, patience: Duration) -> Result<()> {
        self.edge.stop(patience)
    }

    /// Ends the window, and waits until the database has them all.
    fn deliver(&self) -> Result<Filled> {
        end_window(&self.edge, &self.admin, self.before, self.events)
    }
}

fn end_window(running: &Running, admin: &Admin, before: f64, events: u64) -> Result<Filled> {
    let cpu_before = running.cpu()?;
    let begin = Instant::now();
    admin.act("/window/end")?;
    let mut first = None;
    let mut last_seen = begin;
    loop {
        sleep(POLL);
        let metrics = admin.metrics()?;
        let now = Instant::now();
        let delivered = (metrics.sum("delivered_events_total")? - before) as u64;
        if delivered > 0 {
            first.get_or_insert(now - begin);
        }
        if delivered >= events && metrics.sum("delivery_lag_events")? == 0.0 {
            let cpu = running.cpu()?.since(&cpu_before);
            return Ok(Filled {
                events,
                span: now - begin,
                writing: cpu.threads.get(SINK).copied().unwrap_or_default(),
                cpu: cpu.total(),
                first: first.unwrap_or_default(),
                resolution: now - last_seen,
            });
        }
        if now - begin > PATIENCE {
            return Err(Failure::new(format!("{delivered} of {events} hits after {PATIENCE:?}")));
        }
        last_seen = now;
    }
}

/// Waits until the database has every hit; says how long that took.
pub(crate) fn wait_until_delivered(admin: &Admin) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        let waiting = admin.metrics()?.sum("delivery_lag_events")?;
        if waiting == 0.0 {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > PATIENCE {
            return Err(Failure::new(format!("{waiting} hits are not delivered after {PATIENCE:?}")));
        }
        sleep(POLL);
    }
}

/// The same rows, by the `sqlite3` shell, from a file that is on disk already.
fn import(folder: &Path) -> Result<Filled> {
    let hits = folder.join("hits.csv");
    let cannot_export = || Failure::at(format!("cannot write {}", hits.display()));
    let exported = File::create(&hits).map_err(cannot_export())?;
    let mut export = Command::new("sqlite3");
    export.args(["-csv", "holdfast/holdfast.db", "SELECT * FROM hits ORDER BY journal, sequence"]);
    let status = export
        .current_dir(folder)
        .stdout(exported.try_clone().map_err(cannot_export())?)
        .status()
        .map_err(cannot_export())?;
    ended_well("sqlite3", status)?;
    exported.sync_all().map_err(cannot_export())?;
    let schema = shell(folder, "holdfast/holdfast.db", ".schema hits")?;
    shell(folder, "import.db", &schema)?;

    let begin = Instant::now();
    let mut import = Command::new("sqlite3");
    import.args(["import.db", ".import --csv hits.csv hits"]).current_dir(folder);
    let (_, cpu) = output(&mut import, SERVER)?;
    let span = begin.elapsed();
    // The clicks by which the edge was seen to be ready are among them.
    let events = rows(folder, "import.db")?;
    let of = rows(folder, "holdfast/holdfast.db")?;
    if events != of {
        return Err(Failure::new(format!("{events} hits of {of} were imported")));
    }
    let cpu = cpu.total();
    Ok(Filled { events, span, cpu, writing: cpu, first: Duration::ZERO, resolution: Duration::ZERO })
}

fn rows(folder: &Path, database: &str) -> Result<u64> {
    let text = shell(folder, database, "SELECT count(*) FROM hits")?;
    text.trim().parse().map_err(|_| Failure::new(format!("the sqlite3 shell says {text}")))
}

fn shell(folder: &Path, database: &str, command: &str) -> Result<String> {
    Ok(output(Command::new("sqlite3").args([database, command]).current_dir(folder), SERVER)?.0)
}

/// The shell's version and the pragmas it imports with.
fn about_shell(folder: &Path) -> Result<String> {
    let version = output(Command::new("sqlite3").arg("--version"), SERVER)?.0;
    let version = version.split(' ').next().unwrap_or_default();
    let mut pragmas = Vec::new();
    for pragma in PRAGMAS {
        let value = shell(folder, "import.db", &format!("PRAGMA {pragma}"))?;
        pragmas.push(format!("{pragma} {}", value.trim()));
    }
    Ok(format!("{version} with {}", pragmas.join(", ")))
}

fn csv_row(round: u64, name: &str, filled: &Filled) -> String {
    format!(
        "{round},{name},{},{:.3},{:.0},{:.3},{:.3},{:.1},{:.1}",
        filled.events,
        filled.span.as_secs_f64(),
        filled.per_second(),
        filled.cpu_us(),
        micros(filled.writing) / filled.events as f64,
        micros(filled.first) / 1e3,
        micros(filled.resolution) / 1e3,
    )
}

fn report(arguments: &Arguments, rounds: &[(Filled, Filled)], shell: &str) -> Result<()> {
    let ratio = Spread::of(rounds.iter().map(|(ours, theirs)| ours.per_second() / theirs.per_second()));
    let mut table =
        Table::new(&["", "events/s", "× .import", "CPU, µs per event", "of it writing", "seconds"]);
    type Pick = fn(&(Filled, Filled)) -> &Filled;
    let sides: [(&str, Pick, String); 2] =
        [("holdfast", |(ours, _)| ours, ratio.text(2)), (".import", |(_, theirs)| theirs, "1.00".to_owned())];
    for (name, pick, ratio) in sides {
        let figure = |of: fn(&Filled) -> f64| Spread::of(rounds.iter().map(|round| of(pick(round))));
        table.row(&[
            name.to_owned(),
            figure(Filled::per_second).text(0),
            ratio,
            figure(Filled::cpu_us).text(2),
            format!("{:.2}", figure(|filled| micros(filled.writing) / filled.events as f64).median),
            format!("{:.2}", figure(|filled| filled.span.as_secs_f64()).median),
        ]);
    }
    let ours =
        |of: fn(&Filled) -> Duration| Spread::of(rounds.iter().map(|(ours, _)| micros(of(ours)) / 1e3));
    let method = format!(
        "At least {} hits on {} links pile up in a window; the clock runs from the order to end it until the edge's \
         metrics say that all are delivered and none lags. Nothing is subtracted: the database is tried and all \
         links are loaded anew in that time, and the first rows were seen after {} ms. The end is seen at most {} \
         ms late. Then the sqlite3 shell {shell} imports the same rows, from a CSV file in the order of the primary \
         key, into an empty table of the same schema; its clock runs while the shell does. {} rounds in turn, both \
         on one core and filling empty tables. Medians, in brackets the least and the most; × is the median of the \
         rounds' ratios. Unfair to Holdfast: it decodes its journal, syncs every batch with the cursor beside it, \
         writes rows to a log and then to the table, and answers the scrapes, where the shell makes one transaction. \
         Unfair to the shell: it parses text.",
        arguments.events,
        arguments.links,
        ours(|filled| filled.first).text(0),
        ours(|filled| filled.resolution).most.ceil(),
        arguments.rounds,
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, "deliver", "Delivery into SQLite", &method, table.text())
}
