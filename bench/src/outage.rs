//! Scenario `outage`: clicks at a fixed rate on known links with PostgreSQL up, killed and hung, in turn.
//!
//! "Up" has two turns in each round: how far they lie apart is the noise that the others are held against.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Admin;
use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::client::{self, Audience, LATE, Pace, Plan, late_share};
use crate::cluster::{ABOUT, Cluster};
use crate::competitor::{QUIET_PATIENCE, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{Running, SERVER};
use crate::report::{Latencies, Spread, Table, append_csv, micros, write_markdown};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 100_000)]
    links: u64,
    /// Clicks per second
    #[arg(long, default_value_t = 5_000)]
    per_second: u64,
    /// How long each turn lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
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

/// How the server is during a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Killed,
    UpAgain,
    Hung,
}

impl State {
    const ALL: [Self; 4] = [Self::Up, Self::Killed, Self::UpAgain, Self::Hung];

    fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Killed => "killed",
            Self::UpAgain => "up again",
            Self::Hung => "hung",
        }
    }
}

/// One state's turn; times in microseconds.
struct Turn {
    state: State,
    requests: usize,
    failed: u64,
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

const PORT: u16 = 18_985;
const WARM_UP: Duration = Duration::from_secs(2);
/// Until a server that is up again has everything; retries are up to half a minute apart.
const RETURN_PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

const CSV_HEADER: &str = "mode,links,per_second,connections,round,state,requests,failed,late_share,delivered,\
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

    let mut turns = Vec::new();
    for round in 0..=arguments.rounds {
        for state in State::ALL {
            settle(&running, &edge.admin())?;
            println!("round {round} of {}: {}", arguments.rounds, state.label());
            let span_max = if round == 0 { WARM_UP } else { Duration::from_secs(arguments.seconds) };
            let plan = Plan {
                address,
                campaign,
                checked: true,
                connections: arguments.connections,
                audience: Audience::People,
                pace: Pace::PerSecond(arguments.per_second),
                span_max,
                seed: round << 32,
            };
            match state {
                State::Up | State::UpAgain => {}
                State::Killed => cluster.kill()?,
                State::Hung => cluster.freeze()?,
            }
            let turn = measure(&plan, &mut running, &edge.admin(), state)?;
            match state {
                State::Up | State::UpAgain => {}
                State::Killed => cluster.run()?,
                State::Hung => cluster.thaw()?,
            }
            if round > 0 {
                append_csv(&arguments.out, "outage", CSV_HEADER, &csv_row(arguments, round, &turn))?;
                turns.push(turn);
            }
        }
    }
    report(arguments, &turns, &cluster.version()?)?;
    drop((running, cluster));
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Waits until the database has every hit and nothing is left to do.
pub(crate) fn settle(running: &Running, admin: &Admin) -> Result<()> {
    let deadline = Instant::now() + RETURN_PATIENCE;
    loop {
        let metrics = admin.metrics()?;
        if metrics.sum("delivery_lag_events")? == 0.0 && metrics.sum("part_up")? == PARTS {
            return running.wait_until_quiet(QUIET_PATIENCE);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("hits still wait for the database after {RETURN_PATIENCE:?}")));
        }
        sleep(POLL);
    }
}

/// The journal and the database.
const PARTS: f64 = 2.0;

fn measure(plan: &Plan, running: &mut Running, admin: &Admin, state: State) -> Result<Turn> {
    let delivered = || Ok(admin.metrics()?.sum("delivered_events_total")? as u64);
    let delivered_before = delivered()?;
    let before = running.cpu()?;
    let outcome = client::run(plan, &AtomicBool::new(false))?;
    let cpu = running.cpu()?.since(&before);
    let delivered = delivered()? - delivered_before;
    running.still_runs()?;
    if matches!(state, State::Killed | State::Hung) && delivered > 0 {
        return Err(Failure::new(format!("{delivered} hits were delivered to a server that is away")));
    }
    let requests = outcome.samples.len();
    let latencies = Latencies::of(outcome.samples.iter().map(|sample| sample.latency));
    Ok(Turn {
        state,
        requests,
        failed: outcome.failed(),
        late_share: late_share(&outcome.samples),
        delivered,
        p50_us: latencies.us(0.5),
        p99_us: latencies.us(0.99),
        max_us: latencies.us(1.0),
        answering_us: micros(answering(&cpu)) / requests as f64,
        all_us: micros(cpu.total()) / requests as f64,
    })
}

fn csv_row(arguments: &Arguments, round: u64, turn: &Turn) -> String {
    format!(
        "{},{},{},{},{round},{},{},{},{:.5},{},{:.0},{:.0},{:.0},{:.3},{:.3}",
        arguments.mode.label(),
        arguments.links,
        arguments.per_second,
        arguments.connections,
        turn.state.label(),
        turn.requests,
        turn.failed,
        turn.late_share,
        turn.delivered,
        turn.p50_us,
        turn.p99_us,
        turn.max_us,
        turn.answering_us,
        turn.all_us,
    )
}

fn report(arguments: &Arguments, turns: &[Turn], version: &str) -> Result<()> {
    let of = |state: State| turns.iter().filter(move |turn| turn.state == state);
    let mut table = Table::new(&[
        "PostgreSQL",
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
    for state in State::ALL {
        let figure = |pick: fn(&Turn) -> f64| Spread::of(of(state).map(pick));
        let beside = |pick: fn(&Turn) -> f64| {
            let pairs = of(state).zip(of(State::Up));
            Spread::of(pairs.map(|(turn, up)| pick(turn) / pick(up))).text(2)
        };
        let requests: usize = of(state).map(|turn| turn.requests).sum();
        let delivered: u64 = of(state).map(|turn| turn.delivered).sum();
        table.row(&[
            state.label().to_owned(),
            figure(|turn| turn.p50_us / 1e3).text(2),
            beside(|turn| turn.p50_us),
            figure(|turn| turn.p99_us / 1e3).text(2),
            beside(|turn| turn.p99_us),
            figure(|turn| turn.max_us / 1e3).text(1),
            figure(|turn| turn.answering_us).text(2),
            beside(|turn| turn.answering_us),
            figure(|turn| turn.all_us).text(2),
            of(state).map(|turn| turn.failed).sum::<u64>().to_string(),
            format!("{:.0} %", delivered as f64 / requests as f64 * 100.0),
            format!("{:.2} %", figure(|turn| turn.late_share * 100.0).median),
        ]);
    }
    let method = format!(
        "{} clicks per second for {} s in each turn, on {} known links over {} keep-alive connections, journal in \
         `{}` mode; {} rounds of four turns. \"Killed\" is `kill -9` of the server and of all processes of its \
         connections, \"hung\" is `SIGSTOP` of all of them: the kernel takes connections and nothing answers; each \
         is done just before the first click of its turn, so that what the edge does when it finds out is part of \
         it. \"Up again\" is a second turn with the server up: how far it lies from \"up\" is noise. Before each turn \
         the server is up and has every hit. × is the median of the ratios to \"up\" of the same round. The client \
         has one core and counts from when each click was to be sent; Holdfast has the other, and PostgreSQL \
         {version} shares it, with {ABOUT}, so that in both turns with the server up the delivery, the server's own work and its \
         syncs of the same disk are beside the clicks, and are missing from the other two. \"CPU per click\" is that of all \
         threads but those that deliver and compress, \"with delivery\" that of all; neither has the server's. \
         Failed is every answer but the 302 to the link's own page, and none within 10 s. Medians, in brackets the \
         least and the most. \"Client late\" is the share of clicks that the client itself came to more than {} µs \
         after they were due.",
        arguments.per_second,
        arguments.seconds,
        arguments.links,
        arguments.connections,
        arguments.mode.label(),
        arguments.rounds,
        LATE.as_micros(),
    );
    println!("\n{}", table.text());
    write_markdown(&arguments.out, "outage", "Clicks while PostgreSQL is away", &method, table.text())
}
