//! Scenario `outage`: clicks at a fixed rate on known links while PostgreSQL is killed, or hangs, and comes back.
//!
//! Each turn has three parts of the same length: before, with the server away, and after it is back. The
//! server goes and comes while clicks are under way. A turn in which it stays shows what is noise.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Admin;
use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::client::{self, Audience, LATE, Pace, Plan, Sample, late_share};
use crate::cluster::{ABOUT, Cluster};
use crate::competitor::{QUIET_PATIENCE, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{CpuTimes, Running, SERVER};
use crate::report::{Latencies, Spread, Table, keep_row, micros, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 100_000)]
    links: u64,
    /// Clicks per second
    #[arg(long, default_value_t = 5_000)]
    per_second: u64,
    /// How long each of a turn's three parts lasts
    #[arg(long, default_value_t = 5)]
    part_seconds: u64,
    /// How often each state has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The journal's mode
    #[arg(long, value_enum, default_value_t = Mode::Power)]
    mode: Mode,
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

/// What becomes of the server in the second part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Killed,
    Hung,
}

impl State {
    const ALL: [Self; 3] = [Self::Up, Self::Killed, Self::Hung];

    fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Killed => "killed",
            Self::Hung => "hung",
        }
    }
}

/// In the order of a turn.
const PARTS: [&str; 3] = ["before", "away", "back"];

/// One part of one state's turn; times in microseconds.
struct Measured {
    state: State,
    part: &'static str,
    requests: usize,
    failed: usize,
    late_share: f64,
    delivered: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Per click, without the threads that work behind the answers.
    answering_us: f64,
    /// Per click, of all threads.
    all_us: f64,
}

/// What was used and done until a moment.
struct Mark {
    at: Instant,
    cpu: CpuTimes,
    delivered: u64,
}

const PORT: u16 = 18_985;
/// Nothing of the edge is warm in the first round, which does not count.
const WARM_UP_PART: Duration = Duration::from_secs(1);
/// Until a server that is up again has everything; retries are up to half a minute apart.
const RETURN_PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

const CSV_HEADER: &str = "mode,links,per_second,connections,round,state,part,requests,failed,late_share,delivered,\
    p50_us,p99_us,max_us,answering_us,all_us";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("outage-{}", std::process::id()));
    let address = SocketAddr::from(([127, 0, 0, 1], 18_980));
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let mut cluster = Cluster::start(&scratch.join("postgres"), PORT, SERVER)?;
    cluster.create("clicks")?;
    println!("preparing {} links", arguments.links);
    let url = cluster.url("clicks");
    let edge =
        Edge::prepare_on(&url, &binary, &scratch.join("holdfast"), &campaign, arguments.mode, address)?;
    let mut running = wait_until_ready(edge.start(SERVER)?, address, &campaign, campaign.links - 1)?;

    let mut parts = Vec::new();
    for round in 0..=arguments.rounds {
        for state in State::ALL {
            settle(&running, &edge.admin())?;
            println!("round {round} of {}: {}", arguments.rounds, state.label());
            let part = if round == 0 { WARM_UP_PART } else { Duration::from_secs(arguments.part_seconds) };
            let plan = Plan {
                address,
                campaign,
                checked: true,
                connections: arguments.connections,
                audience: Audience::People,
                pace: Pace::PerSecond(arguments.per_second),
                span_max: part * PARTS.len() as u32,
                seed: round << 32,
            };
            let turn = measure(&plan, part, &mut running, &edge.admin(), (&mut cluster, state))?;
            if round > 0 {
                for measured in turn {
                    keep_row("outage", CSV_HEADER, &csv_row(arguments, round, &measured));
                    parts.push(measured);
                }
            }
        }
    }
    settle(&running, &edge.admin())?;
    report(arguments, &parts, &cluster.version()?)?;
    drop((running, cluster));
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Waits until the database has every hit and nothing is left to do.
pub(crate) fn settle(running: &Running, admin: &Admin) -> Result<()> {
    let deadline = Instant::now() + RETURN_PATIENCE;
    loop {
        let metrics = admin.metrics()?;
        if metrics.sum("delivery_lag_events")? == 0.0 && metrics.sum("part_up")? == WATCHED {
            return running.wait_until_quiet(QUIET_PATIENCE);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("hits still wait for the database after {RETURN_PATIENCE:?}")));
        }
        sleep(POLL);
    }
}

/// The journal and the database.
const WATCHED: f64 = 2.0;

/// Clicks for three times `part`, while the server goes after the first and comes back after the second.
fn measure(
    plan: &Plan,
    part: Duration,
    running: &mut Running,
    admin: &Admin,
    (cluster, state): (&mut Cluster, State),
) -> Result<Vec<Measured>> {
    let mark = || -> Result<Mark> {
        let delivered = admin.metrics()?.sum("delivered_events_total")? as u64;
        Ok(Mark { at: Instant::now(), cpu: running.cpu()?, delivered })
    };
    let first = mark()?;
    let (outcome, marks) = thread::scope(|scope| {
        let client = scope.spawn(|| client::run(plan, &AtomicBool::new(false)));
        let went_and_came = (|| {
            sleep(part);
            let second = mark()?;
            match state {
                State::Up => {}
                State::Killed => cluster.kill()?,
                State::Hung => cluster.freeze()?,
            }
            sleep((second.at + part).saturating_duration_since(Instant::now()));
            let third = mark()?;
            match state {
                State::Up => {}
                State::Killed => cluster.run()?,
                State::Hung => cluster.thaw()?,
            }
            Ok([second, third])
        })();
        (client.join().expect("the client does not panic"), went_and_came)
    });
    let (outcome, [second, third]) = (outcome?, marks?);
    let last = mark()?;
    running.still_runs()?;
    let begin = outcome.begin;
    let measured = PARTS.into_iter().zip([(&first, &second), (&second, &third), (&third, &last)]);
    Ok(measured
        .map(|(part, (from, to))| {
            let of_part = |sample: &&Sample| (from.at..to.at).contains(&(begin + sample.intended));
            let samples: Vec<&Sample> = outcome.samples.iter().filter(of_part).collect();
            let latencies = Latencies::of(samples.iter().map(|sample| sample.latency));
            let cpu = to.cpu.since(&from.cpu);
            let per_click_us = |time| micros(time) / samples.len() as f64;
            Measured {
                state,
                part,
                requests: samples.len(),
                failed: samples.iter().filter(|sample| !sample.redirected).count(),
                late_share: late_share(samples.iter().copied()),
                delivered: to.delivered - from.delivered,
                p50_us: latencies.us(0.5),
                p99_us: latencies.us(0.99),
                max_us: latencies.us(1.0),
                answering_us: per_click_us(answering(&cpu)),
                all_us: per_click_us(cpu.total()),
            }
        })
        .collect())
}

fn csv_row(arguments: &Arguments, round: u64, measured: &Measured) -> String {
    format!(
        "{},{},{},{},{round},{},{},{},{},{:.5},{},{:.0},{:.0},{:.0},{:.3},{:.3}",
        arguments.mode.label(),
        arguments.links,
        arguments.per_second,
        arguments.connections,
        measured.state.label(),
        measured.part,
        measured.requests,
        measured.failed,
        measured.late_share,
        measured.delivered,
        measured.p50_us,
        measured.p99_us,
        measured.max_us,
        measured.answering_us,
        measured.all_us,
    )
}

fn report(arguments: &Arguments, parts: &[Measured], version: &str) -> Result<()> {
    let of = |state: State, part: &'static str| {
        parts.iter().filter(move |measured| (measured.state, measured.part) == (state, part))
    };
    let mut table = Table::new(&[
        "PostgreSQL",
        "part",
        "p50, ms",
        "× up",
        "p99, ms",
        "× up",
        "max, ms",
        "CPU per click, µs",
        "× up",
        "with delivery, µs",
        "failed clicks",
        "delivered meanwhile",
        "client late",
    ]);
    for (state, part) in State::ALL.into_iter().flat_map(|state| PARTS.map(|part| (state, part))) {
        let figure = |pick: fn(&Measured) -> f64| Spread::of(of(state, part).map(pick));
        let beside = |pick: fn(&Measured) -> f64| {
            let pairs = of(state, part).zip(of(State::Up, part));
            Spread::of(pairs.map(|(measured, up)| pick(measured) / pick(up))).text(2)
        };
        let requests: usize = of(state, part).map(|measured| measured.requests).sum();
        let delivered: u64 = of(state, part).map(|measured| measured.delivered).sum();
        table.row(&[
            state.label().to_owned(),
            part.to_owned(),
            figure(|measured| measured.p50_us / 1e3).text(2),
            beside(|measured| measured.p50_us),
            figure(|measured| measured.p99_us / 1e3).text(2),
            beside(|measured| measured.p99_us),
            figure(|measured| measured.max_us / 1e3).text(1),
            figure(|measured| measured.answering_us).text(2),
            beside(|measured| measured.answering_us),
            figure(|measured| measured.all_us).text(2),
            of(state, part).map(|measured| measured.failed).sum::<usize>().to_string(),
            format!("{:.0} %", delivered as f64 / requests as f64 * 100.0),
            format!("{:.2} %", figure(|measured| measured.late_share * 100.0).median),
        ]);
    }
    let method = format!(
        "{} clicks per second on {} known links over {} keep-alive connections, journal in `{}` mode; {} rounds of \
         three turns, each of three parts of {} s. In the second part the server is away and in the third it is back, \
         while clicks go on: \"killed\" is `kill -9` of the server and of all processes of its connections, and its \
         start with the recovery that it needs; \"hung\" is `SIGSTOP` of all of them, and `SIGCONT`: the kernel takes \
         connections and nothing answers. With \"up\" nothing happens, and how far its parts lie apart is noise. What \
         the edge does when it finds out is in \"away\", what it delivers late in \"back\" or, where it tries again \
         later than that, in no part: a turn begins when the database has every hit of the one before. × is the \
         median of the ratios to the same part of \"up\" of the same round. The client has one core and counts from \
         when each click was to be sent; Holdfast has the other, and PostgreSQL {version} shares it, with {ABOUT}, so \
         that wherever the server is up the delivery, the server's own work and its syncs of the same disk are beside \
         the clicks. \"CPU per click\" is that of all threads but those that deliver and compress, \"with delivery\" \
         that of all; neither has the server's. Failed is every answer but the 302 to the link's own page, and none \
         within 10 s. \"Delivered meanwhile\" is beside the clicks of the part, and may be more than they are. \
         Medians, in brackets the least and the most. \"Client late\" is the share of clicks that the client itself \
         came to more than {} µs after they were due.",
        arguments.per_second,
        arguments.links,
        arguments.connections,
        arguments.mode.label(),
        arguments.rounds,
        arguments.part_seconds,
        LATE.as_micros(),
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, "outage", "Clicks while PostgreSQL is away", &method, table.text())
}
