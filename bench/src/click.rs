//! Scenario `click`: keep-alive clicks on known links, each competitor in turn on the same core.
//!
//! What is compared is CPU time per request, from the operating system's own accounting. All
//! competitors are up during the whole run, idle while another is measured. Rounds are short and many,
//! and competitors are compared within a round: a noisy machine's neighbours change from one to the next.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::competitor::{Name, QUIET_PATIENCE, Setup};
use crate::edge::Mode;
use crate::failure::{Failure, Result};
use crate::log_reader;
use crate::process::{CpuTimes, Memory, Running, allow_connections};
use crate::report::{Spread, Table, keep_row, micros, write_results};
use crate::wrk::{Load, Wrk};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How long each round of each competitor lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each competitor has its turn
    #[arg(long, default_value_t = 9)]
    rounds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// The journal's mode
    #[arg(long, value_enum, default_value_t = Mode::Power)]
    mode: Mode,
    /// What the links point to
    #[arg(long, value_enum, default_value_t = Targets::Distinct)]
    targets: Targets,
    /// Who is measured; without it all who can be, and the floor that records as the journal's mode promises
    #[arg(long, value_enum, value_delimiter = ',')]
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

impl Arguments {
    fn competitors(&self) -> Vec<Name> {
        if self.competitors.is_empty() {
            let floors = [Name::Floor, Name::recording_floor(self.mode), Name::Bare];
            let peers = [Name::Nginx, Name::NginxLua, Name::Haproxy, Name::HaproxyLog];
            floors.into_iter().chain([Name::Holdfast]).chain(peers).collect()
        } else {
            self.competitors.clone()
        }
    }
}

struct Competitor {
    name: Name,
    address: SocketAddr,
    running: Running,
    rounds: Vec<Round>,
}

/// What one competitor did in one round.
struct Round {
    load: Load,
    /// While the load lasted.
    under_load: CpuTimes,
    /// From the load's begin until everything that it left to do was done.
    until_quiet: Duration,
    memory: Memory,
}

/// Threads that work behind the answers: delivery, compression, snapshots; the reader of HAProxy's log.
const BACKGROUND: &[&str] = &["journal-mill", "mill", "sink", log_reader::THREAD];
/// The share of a core from which on it counts as full.
pub(crate) const FULL: f64 = 0.95;
const WARM_UP_S: u64 = 2;

const CSV_HEADER: &str = "mode,links,targets,connections,competitor,round,requests,seconds,requests_per_second,\
    user_us,system_us,answering_us,all_us,busy,client_busy,client_limits,p50_us,p99_us,resident_bytes,peak_bytes";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: arguments.targets };
    let scratch = arguments.scratch.join(format!("click-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    allow_connections(arguments.connections)?;
    let wrk = Wrk::new(&scratch, &campaign, arguments.connections)?;

    let setup = Setup {
        campaign,
        mode: arguments.mode,
        holdfast: arguments.holdfast.as_deref(),
        scratch: scratch.clone(),
    };

    let mut competitors = Vec::new();
    for (name, port) in arguments.competitors().into_iter().zip((18_080..).step_by(10)) {
        if !name.is_available() {
            continue;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let running = setup.start(name, address)?;
        competitors.push(Competitor { name, address, running, rounds: Vec::new() });
    }
    for round in 0..=arguments.rounds {
        for competitor in &mut competitors {
            let seconds = if round == 0 { WARM_UP_S } else { arguments.seconds };
            println!("round {round} of {}: {} for {seconds} s", arguments.rounds, competitor.name.label());
            let Competitor { address, running, .. } = &mut *competitor;
            let measured = measure(running, *address, &wrk, seconds, round)?;
            if round > 0 {
                keep_row("click", CSV_HEADER, &csv_row(arguments, competitor.name, round, &measured));
                competitor.rounds.push(measured);
            }
        }
    }
    report(arguments, &competitors)?;
    drop(competitors);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Loads one server and waits until it is quiet, so that the next one is measured alone.
fn measure(running: &mut Running, address: SocketAddr, wrk: &Wrk, seconds: u64, seed: u64) -> Result<Round> {
    let before = running.cpu()?;
    let load = wrk.run(address, seconds, seed)?;
    let under_load = running.cpu()?.since(&before);
    running.still_runs()?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    let until_quiet = running.cpu()?.since(&before).total();
    let memory = running.memory()?;
    Ok(Round { load, under_load, until_quiet, memory })
}

impl Round {
    fn per_request_us(&self, time: Duration) -> f64 {
        micros(time) / self.load.requests as f64
    }

    /// CPU per request without the threads that work behind the answers.
    fn answering_us(&self) -> f64 {
        self.per_request_us(answering(&self.under_load))
    }

    /// CPU per request of everything, until the process is quiet again.
    fn all_us(&self) -> f64 {
        self.per_request_us(self.until_quiet)
    }

    fn requests_per_second(&self) -> f64 {
        self.load.requests as f64 / self.load.span.as_secs_f64()
    }

    fn busy(&self) -> f64 {
        self.under_load.total().as_secs_f64() / self.load.span.as_secs_f64()
    }

    /// The client's core was full and the server's was not: the rate is the client's.
    fn client_limits(&self) -> bool {
        self.load.client_busy >= FULL && self.busy() < FULL
    }
}

/// Without the threads that work behind the answers.
pub(crate) fn answering(times: &CpuTimes) -> Duration {
    let background = |name: &str| BACKGROUND.iter().any(|prefix| name.starts_with(prefix));
    let behind = times.threads.iter().filter(|(name, _)| background(name)).map(|(_, &time)| time).sum();
    times.total().saturating_sub(behind)
}

fn csv_row(arguments: &Arguments, name: Name, round: u64, measured: &Round) -> String {
    let Round { load, under_load, .. } = measured;
    format!(
        "{},{},{},{},{},{round},{},{:.3},{:.0},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3},{},{:.0},{:.0},{},{}",
        arguments.mode.label(),
        arguments.links,
        arguments.targets.label(),
        arguments.connections,
        name.label(),
        load.requests,
        load.span.as_secs_f64(),
        measured.requests_per_second(),
        measured.per_request_us(under_load.user),
        measured.per_request_us(under_load.system),
        measured.answering_us(),
        measured.all_us(),
        measured.busy(),
        load.client_busy,
        u8::from(measured.client_limits()),
        micros(load.p50),
        micros(load.p99),
        measured.memory.resident_bytes,
        measured.memory.peak_bytes,
    )
}

/// How often `yardstick` does what `rounds` do, each round beside the one of the same number.
fn ratio(rounds: &[Round], yardstick: &[Round], figure: fn(&Round) -> f64) -> Spread {
    let pairs = rounds.iter().zip(yardstick);
    Spread::of(pairs.map(|(round, beside)| figure(round) / figure(beside)))
}

fn report(arguments: &Arguments, competitors: &[Competitor]) -> Result<()> {
    let yardsticks: Vec<&Competitor> =
        [Name::Floor, Name::recording_floor(arguments.mode), Name::Nginx, Name::Haproxy]
            .iter()
            .filter_map(|&name| competitors.iter().find(|competitor| competitor.name == name))
            .collect();
    let mut columns = vec!["".to_owned(), "CPU per click, µs".to_owned()];
    columns.extend(yardsticks.iter().map(|yardstick| format!("× {}", yardstick.name.label())));
    columns.push("with delivery, µs".to_owned());
    columns.extend(yardsticks.iter().map(|yardstick| format!("with delivery × {}", yardstick.name.label())));
    let others = ["user", "system", "clicks/s", "core busy", "client busy", "limited by the client"];
    columns.extend(others.map(str::to_owned));
    columns.extend(["p50, ms", "p99, ms", "resident, MiB", "at the peak"].map(str::to_owned));
    let mut table = Table::new(&columns);
    for competitor in competitors {
        let figure = |pick: &dyn Fn(&Round) -> f64| Spread::of(competitor.rounds.iter().map(pick));
        let limited = competitor.rounds.iter().filter(|round| round.client_limits()).count();
        let mut cells = vec![competitor.name.label().to_owned(), figure(&Round::answering_us).text(2)];
        let ratios = |pick: fn(&Round) -> f64| {
            yardsticks.iter().map(move |yardstick| ratio(&competitor.rounds, &yardstick.rounds, pick).text(2))
        };
        cells.extend(ratios(Round::answering_us));
        cells.push(format!("{:.2}", figure(&Round::all_us).median));
        cells.extend(ratios(Round::all_us));
        cells.extend([
            format!("{:.2}", figure(&|round| round.per_request_us(round.under_load.user)).median),
            format!("{:.2}", figure(&|round| round.per_request_us(round.under_load.system)).median),
            format!("{}{}", figure(&Round::requests_per_second).text(0), if limited > 0 { " †" } else { "" }),
            format!("{:.0} %", figure(&Round::busy).median * 100.0),
            format!("{:.0} %", figure(&|round| round.load.client_busy).median * 100.0),
            format!("{limited} of {}", competitor.rounds.len()),
            format!("{:.2}", figure(&|round| micros(round.load.p50) / 1e3).median),
            format!("{:.2}", figure(&|round| micros(round.load.p99) / 1e3).median),
            format!("{:.0}", figure(&|round| round.memory.resident_bytes as f64).median / f64::from(1 << 20)),
            format!("{:.0}", figure(&|round| round.memory.peak_bytes as f64).most / f64::from(1 << 20)),
        ]);
        table.row(&cells);
    }
    let mut body = table.text().to_owned();
    body.push_str(&by_thread(competitors));
    let mode = arguments.mode.label();
    let method = format!(
        "{} links with {} targets, journal in `{mode}` mode, {} keep-alive connections, {} rounds of {} s in \
         turn, each begun when the one before it is quiet; server and wrk on one core each. Medians, in brackets \
         the least and the most. \"CPU per click\" is user and system time of all threads but those that deliver \
         and compress behind the answers; \"with delivery\" is everything until the process is quiet again. A \
         column with × is the median of each round's ratio to the other's figure of the same round, measured \
         seconds apart: what the machine's neighbours take in one round both pay, so trust ratios before \
         microseconds. User and system are of all threads under load. A round is limited by the client when wrk \
         filled its core and the server did not fill its own, at 95 %: CPU per click compares all the same, \
         clicks/s (†) and latency are then the client's, and the chart leaves those rates out. Fair: one core for \
         each server, its log reader and Redis included, the same paths, targets and header fields. Kind to Holdfast: \
         what it does behind the answers, delivery into the database above all, is in the columns \"with delivery\" \
         alone, where nginx's figures have all that its log costs. Unfair to \
         Holdfast: it alone keeps each click through the loss of power (in `power` mode) or the end of the \
         process; nginx's log and nginx-lua's stand in a buffer, haproxy writes nothing, haproxy-log drops what \
         its socket cannot take. Unfair to nginx: it sends a short HTML body. Unfair to nginx-lua: nothing is \
         cached before Redis, whose CPU counts. Unfair to haproxy-log: its reader on the same core counts as \
         \"with delivery\" only, but wakes between clicks. floor-synced and floor-written are the floor that also \
         appends 100 bytes per request to a preallocated file in one write per turn, the former with one \
         fdatasync behind it, begun 1 ms after the last one or later, before it answers what the turn brought: \
         what the journal's mode costs at least on this machine, with one thread and without encoding or \
         delivery.",
        arguments.links,
        arguments.targets.label(),
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
    );
    println!("\n{body}");
    write_results(&arguments.out, &format!("click-{mode}"), "Keep-alive clicks", &method, &body)
}

/// CPU per click of each of Holdfast's threads.
fn by_thread(competitors: &[Competitor]) -> String {
    let Some(holdfast) = competitors.iter().find(|competitor| competitor.name == Name::Holdfast) else {
        return String::new();
    };
    let mut threads: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in &holdfast.rounds {
        for (name, &time) in &round.under_load.threads {
            threads.entry(name).or_default().push(round.per_request_us(time));
        }
    }
    let mut table = Table::new(&["thread of holdfast under load", "µs per click"]);
    for (name, values) in threads {
        table.row(&[name, &Spread::of(values).text(2)]);
    }
    format!("\n{}", table.text())
}
