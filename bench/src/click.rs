//! Scenario `click`: keep-alive clicks on known links, each competitor in turn on the same core.
//!
//! What is compared is CPU time per request, from the operating system's own accounting. All
//! competitors are up during the whole run, idle while another is measured.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::campaign::{Campaign, Targets};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::nginx::Nginx;
use crate::probe::wait_for_redirect;
use crate::process::{CpuTimes, Running, SERVER};
use crate::report::{Spread, Table, append_csv, micros, write_markdown};
use crate::wrk::{Load, Wrk};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How long each round of each competitor lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each competitor has its turn
    #[arg(long, default_value_t = 3)]
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
    /// Who is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "floor,holdfast,nginx")]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// The responder that does no work
    Floor,
    /// Holdfast
    Holdfast,
    /// nginx with a map and a buffered log
    Nginx,
}

impl Name {
    fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Holdfast => "holdfast",
            Self::Nginx => "nginx",
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
    resident_bytes: u64,
}

/// Threads that work behind the answers: delivery, compression, snapshots.
const BACKGROUND: &[&str] = &["journal-mill", "mill", "sink"];
const WARM_UP_S: u64 = 2;
/// nginx takes ten seconds to build a map of a million links.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// Delivery of a round's clicks.
const QUIET_PATIENCE: Duration = Duration::from_secs(300);

const CSV_HEADER: &str = "mode,links,targets,connections,competitor,round,requests,seconds,requests_per_second,\
    user_us,system_us,answering_us,all_us,busy,client_busy,p50_us,p99_us,resident_bytes";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: arguments.targets };
    let scratch = arguments.scratch.join(format!("click-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    let wrk = Wrk::new(&scratch, &campaign, arguments.connections)?;

    let mut competitors = Vec::new();
    for (&name, port) in arguments.competitors.iter().zip((18_080..).step_by(10)) {
        if name == Name::Nginx && !Nginx::is_installed() {
            println!("nginx is not installed (Debian's package nginx-light): left out");
            continue;
        }
        println!("starting {}", name.label());
        competitors.push(start(
            name,
            arguments,
            &campaign,
            &scratch,
            SocketAddr::from(([127, 0, 0, 1], port)),
        )?);
    }
    for round in 0..=arguments.rounds {
        for competitor in &mut competitors {
            let seconds = if round == 0 { WARM_UP_S } else { arguments.seconds };
            println!("round {round} of {}: {} for {seconds} s", arguments.rounds, competitor.name.label());
            let measured = measure(competitor, &wrk, seconds, round)?;
            if round > 0 {
                append_csv(
                    &arguments.out,
                    "click",
                    CSV_HEADER,
                    &csv_row(arguments, competitor.name, round, &measured),
                )?;
                competitor.rounds.push(measured);
            }
        }
    }
    report(arguments, &competitors)?;
    drop(competitors);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn start(
    name: Name,
    arguments: &Arguments,
    campaign: &Campaign,
    scratch: &std::path::Path,
    address: SocketAddr,
) -> Result<Competitor> {
    let mut running = match name {
        Name::Floor => {
            let own = std::env::current_exe().map_err(Failure::at("cannot find this program"))?;
            let mut command = Command::new(own);
            command.args(["floor", "--listen", &address.to_string()]).stdin(Stdio::null());
            Running::start(&mut command, SERVER)?
        }
        Name::Holdfast => {
            let binary = edge::binary(arguments.holdfast.as_deref())?;
            Edge::prepare(&binary, &scratch.join("holdfast"), campaign, arguments.mode, address)?
                .start(SERVER)?
        }
        Name::Nginx => Nginx::prepare(&scratch.join("nginx"), campaign, address)?.start(SERVER)?,
    };
    // The floor has one answer for all, which is that of the first link.
    let last = if name == Name::Floor { 0 } else { campaign.links - 1 };
    for i in [0, last] {
        wait_for_redirect(&mut running, address, campaign, i, START_PATIENCE)?;
    }
    running.wait_until_quiet(QUIET_PATIENCE)?;
    Ok(Competitor { name, address, running, rounds: Vec::new() })
}

fn measure(competitor: &mut Competitor, wrk: &Wrk, seconds: u64, seed: u64) -> Result<Round> {
    let before = competitor.running.cpu()?;
    let load = wrk.run(competitor.address, seconds, seed)?;
    let under_load = competitor.running.cpu()?.since(&before);
    competitor.running.still_runs()?;
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    let until_quiet = competitor.running.cpu()?.since(&before).total();
    let resident_bytes = competitor.running.memory()?.resident_bytes;
    Ok(Round { load, under_load, until_quiet, resident_bytes })
}

impl Round {
    fn per_request_us(&self, time: Duration) -> f64 {
        micros(time) / self.load.requests as f64
    }

    /// CPU per request without the threads that work behind the answers.
    fn answering_us(&self) -> f64 {
        let background = |name: &str| BACKGROUND.iter().any(|prefix| name.starts_with(prefix));
        let behind: Duration =
            self.under_load.threads.iter().filter(|(name, _)| background(name)).map(|(_, &time)| time).sum();
        self.per_request_us(self.under_load.total().saturating_sub(behind))
    }

    fn requests_per_second(&self) -> f64 {
        self.load.requests as f64 / self.load.span.as_secs_f64()
    }

    fn busy(&self) -> f64 {
        self.under_load.total().as_secs_f64() / self.load.span.as_secs_f64()
    }
}

fn csv_row(arguments: &Arguments, name: Name, round: u64, measured: &Round) -> String {
    let Round { load, under_load, .. } = measured;
    format!(
        "{},{},{},{},{},{round},{},{:.3},{:.0},{:.3},{:.3},{:.3},{:.3},{:.3},{:.3},{:.0},{:.0},{}",
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
        measured.per_request_us(measured.until_quiet),
        measured.busy(),
        load.client_busy,
        micros(load.p50),
        micros(load.p99),
        measured.resident_bytes,
    )
}

fn report(arguments: &Arguments, competitors: &[Competitor]) -> Result<()> {
    let spread = |of: &Competitor, figure: &dyn Fn(&Round) -> f64| Spread::of(of.rounds.iter().map(figure));
    let floor = competitors.iter().find(|competitor| competitor.name == Name::Floor);
    let floor_us = floor.map(|floor| spread(floor, &Round::answering_us).median);
    let mut table = Table::new(&[
        "",
        "CPU per click, µs",
        "user",
        "system",
        "× floor",
        "with delivery, µs",
        "clicks/s",
        "core busy",
        "client busy",
        "p50, ms",
        "p99, ms",
        "resident, MiB",
    ]);
    for competitor in competitors {
        let figure = |pick: &dyn Fn(&Round) -> f64| spread(competitor, pick);
        let answering = figure(&Round::answering_us);
        table.row(&[
            competitor.name.label().to_owned(),
            answering.text(2),
            format!("{:.2}", figure(&|round| round.per_request_us(round.under_load.user)).median),
            format!("{:.2}", figure(&|round| round.per_request_us(round.under_load.system)).median),
            floor_us.map_or_else(String::new, |floor_us| format!("{:.2}", answering.median / floor_us)),
            format!("{:.2}", figure(&|round| round.per_request_us(round.until_quiet)).median),
            figure(&Round::requests_per_second).text(0),
            format!("{:.0} %", figure(&Round::busy).median * 100.0),
            format!("{:.0} %", figure(&|round| round.load.client_busy).median * 100.0),
            format!("{:.2}", figure(&|round| micros(round.load.p50) / 1e3).median),
            format!("{:.2}", figure(&|round| micros(round.load.p99) / 1e3).median),
            format!("{:.0}", figure(&|round| round.resident_bytes as f64).median / f64::from(1 << 20)),
        ]);
    }
    let mut body = table.text().to_owned();
    body.push_str(&by_thread(competitors));
    let mode = arguments.mode.label();
    let method = format!(
        "{} links with {} targets, journal in `{mode}` mode, {} keep-alive connections, {} rounds of {} s in turn; \
         server and wrk on one core each. Medians, in brackets the least and the most. \"CPU per click\" is user and \
         system time of all threads but those that deliver and compress behind the answers; \"with delivery\" is \
         everything until the process is quiet again. User and system are of all threads under load. Where the \
         client is busier than the server's core, it limits the rate, and only CPU per click compares.",
        arguments.links,
        arguments.targets.label(),
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
    );
    println!("\n{body}");
    write_markdown(&arguments.out, &format!("click-{mode}"), "Keep-alive clicks", &method, &body)
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
