//! Scenario `journal`: what recording costs, from no journal at all to a slow disk under it.
//!
//! No setting switches the journal off. The nearest to it is a site that has filled its share of it while
//! the database is in a window: nothing is encoded, handed over or waited for, and people arrive all the
//! same. Each case must show by the edge's counters that it was what it is called.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use crate::admin::Metrics;
use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::client::{self, Audience, LATE, Pace, Plan, late_share};
use crate::competitor::{QUIET_PATIENCE, wait_until_ready};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{Running, SERVER};
use crate::report::{Latencies, Spread, Table, keep_row, leave_out, micros, write_results};
use crate::slow_disk::SlowDisk;
use crate::wrk::Wrk;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 100_000)]
    links: u64,
    /// How long each load of each round lasts
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often each case has its turn
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Clicks per second where latency is measured
    #[arg(long, default_value_t = 5_000)]
    per_second: u64,
    /// Writes in a second that the slow disk takes
    #[arg(long, default_value_t = 200)]
    slow_writes: u32,
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

/// How hits are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    /// Not at all: its share of the journal is full.
    Off,
    /// On this disk.
    Fast(Mode),
    /// On the slow disk.
    Slow(Mode),
}

impl Recording {
    const ALL: [Self; 5] = [
        Self::Off,
        Self::Fast(Mode::Process),
        Self::Fast(Mode::Power),
        Self::Slow(Mode::Process),
        Self::Slow(Mode::Power),
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Fast(Mode::Process) => "process",
            Self::Fast(Mode::Power) => "power",
            Self::Slow(Mode::Process) => "process on a slow disk",
            Self::Slow(Mode::Power) => "power on a slow disk",
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Off => Mode::Process,
            Self::Fast(mode) | Self::Slow(mode) => mode,
        }
    }
}

struct Case {
    recording: Recording,
    address: SocketAddr,
    running: Running,
    rounds: Vec<Round>,
    /// Declared last: it goes when nothing uses it any more.
    _disk: Option<SlowDisk>,
}

/// What one case did in one round; first as fast as answers came, then at the fixed rate.
struct Round {
    requests: u64,
    per_second: f64,
    user_us: f64,
    system_us: f64,
    answering_us: f64,
    busy: f64,
    client_busy: f64,
    p99_us: f64,
    /// At the fixed rate, from when each click was to be sent.
    rate_p50_us: f64,
    rate_p99_us: f64,
    rate_failed: u64,
    late_share: f64,
    /// Of all answers of the round.
    classes: [f64; CLASSES.len()],
    unrecorded: f64,
    sync_p50_us: f64,
    sync_p99_us: f64,
}

const CLASSES: [&str; 3] = ["synced", "written", "waived"];
/// A share of 2.6 MB, which is filled at once and stays so: the segment is too big to be compressed.
const SMALL: &str = "bytes_max = \"256MiB\"\nsite_share = \"1%\"\n";
/// A single site may fill all of the journal.
const NEIGHBOUR: &str = r#"
[[site]]
name = "neighbour"
hosts = ["neighbour.bench.test"]

[[site.route]]
path = "/{token}"
kind = "click"
"#;
const FILLING_S: u64 = 2;
const FILLINGS_MAX: u64 = 20;
const WARM_UP_S: u64 = 2;
const SYNCS: &str = "journal_sync_duration_seconds";

const CSV_HEADER: &str = "links,connections,per_second,slow_writes,case,round,requests,requests_per_second,user_us,\
    system_us,answering_us,busy,client_busy,p99_us,rate_p50_us,rate_p99_us,rate_failed,late_share,synced,written,waived,unrecorded,\
    sync_p50_us,sync_p99_us";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("journal-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    let wrk = Wrk::new(&scratch, &campaign, arguments.connections)?;
    let mut cases = Vec::new();
    for (recording, port) in Recording::ALL.into_iter().zip((19_280..).step_by(10)) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        println!("starting holdfast, journal: {}", recording.label());
        match start(arguments, recording, address, &campaign, &wrk, &scratch) {
            Ok(case) => cases.push(case),
            Err(NotStarted::NoSlowDisk(why)) => leave_out(format!("{}: {why}", recording.label())),
            Err(NotStarted::Failed(failure)) => return Err(failure),
        }
    }
    for round in 0..=arguments.rounds {
        for case in &mut cases {
            println!("round {round} of {}: {}", arguments.rounds, case.recording.label());
            let seconds = if round == 0 { WARM_UP_S } else { arguments.seconds };
            let measured = measure(arguments, case, campaign, &wrk, seconds, round)?;
            if round > 0 {
                keep_row("journal", CSV_HEADER, &csv_row(arguments, case, round, &measured));
                case.rounds.push(measured);
            }
        }
    }
    report(arguments, &cases)?;
    drop(cases);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Why a case takes no part.
enum NotStarted {
    /// This machine can't have one.
    NoSlowDisk(Failure),
    Failed(Failure),
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn start(
    arguments: &Arguments,
    recording: Recording,
    address: SocketAddr,
    campaign: &Campaign,
    wrk: &Wrk,
    scratch: &Path,
) -> std::result::Result<Case, NotStarted> {
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let folder = scratch.join(address.port().to_string());
    let edge = Edge::prepare(&binary, &folder, campaign, recording.mode(), address)?;
    let mut disk = None;
    match recording {
        Recording::Fast(_) => {}
        Recording::Off => {
            edge.add_journal_settings(SMALL)?;
            edge.add_settings(NEIGHBOUR)?;
        }
        Recording::Slow(_) => {
            let image = folder.join("disk");
            let made = SlowDisk::mount(&image, &edge.data(), arguments.slow_writes);
            disk = Some(made.map_err(NotStarted::NoSlowDisk)?);
        }
    }
    let running = edge.start(SERVER)?;
    if let Some(disk) = &disk {
        disk.hold_back(&running)?;
    }
    let running = wait_until_ready(running, address, campaign, campaign.links - 1)?;
    let case = Case { recording, address, running, rounds: Vec::new(), _disk: disk };
    if recording == Recording::Off {
        fill(&case, wrk)?;
    }
    Ok(case)
}

/// Begins a window, so that nothing is delivered, and clicks until nothing more is recorded.
fn fill(case: &Case, wrk: &Wrk) -> Result<()> {
    let admin = edge::admin(case.address);
    admin.act("/window/begin")?;
    let appended = || admin.metrics()?.sum("appended_events_total");
    for pass in 0..FILLINGS_MAX {
        let before = appended()?;
        wrk.run(case.address, FILLING_S, pass)?;
        case.running.wait_until_quiet(QUIET_PATIENCE)?;
        if appended()? == before {
            return Ok(());
        }
    }
    Err(Failure::new(format!("hits are still recorded after {FILLINGS_MAX} loads of {FILLING_S} s")))
}

fn measure(
    arguments: &Arguments,
    case: &mut Case,
    campaign: Campaign,
    wrk: &Wrk,
    seconds: u64,
    round: u64,
) -> Result<Round> {
    let admin = edge::admin(case.address);
    let running = &mut case.running;
    let metrics_before = admin.metrics()?;
    let before = running.cpu()?;
    let load = wrk.run(case.address, seconds, round)?;
    let cpu = running.cpu()?.since(&before);
    running.wait_until_quiet(QUIET_PATIENCE)?;

    let plan = Plan {
        address: case.address,
        campaign,
        checked: true,
        connections: arguments.connections as usize,
        audience: Audience::People,
        pace: Pace::PerSecond(arguments.per_second),
        span_max: Duration::from_secs(seconds),
        seed: round << 32,
    };
    let outcome = client::run(&plan, &AtomicBool::new(false))?;
    running.still_runs()?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    let metrics = admin.metrics()?;
    check(case.recording, &metrics, &metrics_before)?;

    let latencies = Latencies::of(outcome.samples.iter().map(|sample| sample.latency));
    let per_request_us = |time| micros(time) / load.requests as f64;
    let syncs = metrics.histogram(SYNCS).since(&metrics_before.histogram(SYNCS));
    let answered = metrics.sum("answers_total")? - metrics_before.sum("answers_total")?;
    let of_class = |class: &str| {
        let label = format!("class=\"{class}\"");
        let more =
            metrics.sum_with("answers_total", &label) - metrics_before.sum_with("answers_total", &label);
        more / answered
    };
    let unrecorded =
        metrics.sum("unrecorded_events_total")? - metrics_before.sum("unrecorded_events_total")?;
    Ok(Round {
        requests: load.requests,
        per_second: load.requests as f64 / load.span.as_secs_f64(),
        user_us: per_request_us(cpu.user),
        system_us: per_request_us(cpu.system),
        answering_us: per_request_us(answering(&cpu)),
        busy: cpu.total().as_secs_f64() / load.span.as_secs_f64(),
        client_busy: load.client_busy,
        p99_us: micros(load.p99),
        rate_p50_us: latencies.us(0.5),
        rate_p99_us: latencies.us(0.99),
        rate_failed: outcome.failed(),
        late_share: late_share(&outcome.samples),
        classes: CLASSES.map(of_class),
        unrecorded: unrecorded / answered,
        sync_p50_us: micros(syncs.quantile(0.5)),
        sync_p99_us: micros(syncs.quantile(0.99)),
    })
}

/// Fails when hits were recorded without a journal, or nothing was recorded with one.
fn check(recording: Recording, now: &Metrics, before: &Metrics) -> Result<()> {
    let recorded = now.sum("appended_events_total")? - before.sum("appended_events_total")?;
    if (recording == Recording::Off) == (recorded == 0.0) {
        return Ok(());
    }
    Err(Failure::new(format!("{recorded} hits were recorded with the journal {}", recording.label())))
}

fn csv_row(arguments: &Arguments, case: &Case, round: u64, measured: &Round) -> String {
    let [synced, written, waived] = measured.classes;
    format!(
        "{},{},{},{},{},{round},{},{:.0},{:.3},{:.3},{:.3},{:.3},{:.3},{:.0},{:.0},{:.0},{},{:.5},{synced:.4},{written:.4},\
         {waived:.4},{:.4},{:.0},{:.0}",
        arguments.links,
        arguments.connections,
        arguments.per_second,
        arguments.slow_writes,
        case.recording.label(),
        measured.requests,
        measured.per_second,
        measured.user_us,
        measured.system_us,
        measured.answering_us,
        measured.busy,
        measured.client_busy,
        measured.p99_us,
        measured.rate_p50_us,
        measured.rate_p99_us,
        measured.rate_failed,
        measured.late_share,
        measured.unrecorded,
        measured.sync_p50_us,
        measured.sync_p99_us,
    )
}

fn report(arguments: &Arguments, cases: &[Case]) -> Result<()> {
    let off = cases.iter().find(|case| case.recording == Recording::Off);
    let rate = format!("p99 at {} clicks/s, ms", arguments.per_second);
    let mut table = Table::new(&[
        "journal",
        "CPU per click, µs",
        "× off",
        "user",
        "system",
        "clicks/s",
        "core busy",
        "client busy",
        "p99, ms",
        &rate,
        "failed",
        "synced",
        "written",
        "waived",
        "unrecorded",
        "sync p50, ms",
        "sync p99, ms",
        "client late",
    ]);
    for case in cases {
        let figure = |pick: &dyn Fn(&Round) -> f64| Spread::of(case.rounds.iter().map(pick));
        let share = |pick: &dyn Fn(&Round) -> f64| format!("{:.1} %", figure(pick).median * 100.0);
        let beside = off.map_or_else(String::new, |off| {
            let pairs = case.rounds.iter().zip(&off.rounds);
            Spread::of(pairs.map(|(round, beside)| round.answering_us / beside.answering_us)).text(2)
        });
        let has_journal = case.recording != Recording::Off;
        let sync = |pick: &dyn Fn(&Round) -> f64| {
            if has_journal { format!("{:.2}", figure(pick).median / 1e3) } else { String::new() }
        };
        table.row(&[
            case.recording.label().to_owned(),
            figure(&|round| round.answering_us).text(2),
            beside,
            format!("{:.2}", figure(&|round| round.user_us).median),
            format!("{:.2}", figure(&|round| round.system_us).median),
            figure(&|round| round.per_second).text(0),
            format!("{:.0} %", figure(&|round| round.busy).median * 100.0),
            format!("{:.0} %", figure(&|round| round.client_busy).median * 100.0),
            figure(&|round| round.p99_us / 1e3).text(2),
            figure(&|round| round.rate_p99_us / 1e3).text(2),
            case.rounds.iter().map(|round| round.rate_failed).sum::<u64>().to_string(),
            share(&|round| round.classes[0]),
            share(&|round| round.classes[1]),
            share(&|round| round.classes[2]),
            share(&|round| round.unrecorded),
            sync(&|round| round.sync_p50_us),
            sync(&|round| round.sync_p99_us),
            format!("{:.2} %", figure(&|round| round.late_share * 100.0).median),
        ]);
    }
    let method = format!(
        "{} links, {} keep-alive connections, {} rounds in turn, each begun when the one before it is quiet; server \
         and client on one core each. In each turn wrk clicks for {} s as fast as answers come, of which CPU, clicks/s \
         and p99 are, and then the bench's own client for as long at {} clicks per second, counting from when each \
         click was to be sent; failed is every answer there but the 302 to the link's own page, and none within 10 s. \
         CPU per click is of all threads but those that deliver and compress; user and system apart are of all. \
         Medians, in brackets the least and the most; × is the median of each round's ratio to \"off\" of the same \
         round. Synced, written and waived are the edge's own counts of what its answers promised, over both loads; \
         unrecorded are answers without a record; a waived answer that has one gets it on the \
         disk after it left. \
         \"Client late\" is the share of clicks that the client came to more than {} µs late.\n\n\
         *Off* is a site that has filled its share of the journal (`site_share`) in a window of the database: nothing \
         is encoded, written or waited for. No setting switches the journal off, and nobody should run so; \
         it says what recording costs. The *slow disk* is a file system of its own on which the kernel lets the edge \
         write {} times in a second (a bound on its group of processes, as providers have for small volumes): writes \
         within the bound are as fast as the disk below. The database stays on the disk of the others.\n\n\
         Where the client is busy and the core is not, clicks/s and p99 beside them are the client's. Fair: the same \
         binary and campaign, seconds apart. Kind to \"off\": nothing is delivered meanwhile. Kind \
         to the slow disk: each write has \
         its price but not each byte, and a clean-up of the mill comes on top in the same bound, which is unfair to it.",
        arguments.links,
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
        arguments.per_second,
        LATE.as_micros(),
        arguments.slow_writes,
    );
    println!("\n{}", table.text());
    write_results(&arguments.out, "journal", "What recording costs", &method, table.text())
}
