//! Scenario `rate`: how long a click takes at a fixed rate, counted from when it was to be sent.
//!
//! The disk's part is measured in the same run: the edge's own histogram of syncs, and a probe of the
//! disk before it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::client::{self, Audience, LATE, Pace, Plan, late_share};
use crate::competitor::{Name, QUIET_PATIENCE, Setup};
use crate::edge::{self, Mode};
use crate::failure::{Failure, Result};
use crate::process::Running;
use crate::report::{Latencies, Spread, Table, keep_row, micros, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// Clicks per second
    #[arg(long, default_value_t = 10_000)]
    per_second: u64,
    /// How long each round of each competitor lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each competitor has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The journal's mode
    #[arg(long, value_enum, default_value_t = Mode::Power)]
    mode: Mode,
    /// The edge's `journal.pace` in milliseconds; the bound is reckoned with it, it is not set
    #[arg(long, default_value_t = 1.0)]
    pace_ms: f64,
    /// Who is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "floor,holdfast,nginx,haproxy")]
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

struct Competitor {
    name: Name,
    address: SocketAddr,
    running: Running,
    rounds: Vec<Round>,
}

/// Times in microseconds.
struct Round {
    requests: usize,
    failed: u64,
    late_share: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    /// Of the edge's journal; zero for who has none.
    sync_p50_us: f64,
    sync_p99_us: f64,
}

const WARM_UP: Duration = Duration::from_secs(2);
const PROBES: usize = 1000;
const BLOCK_BYTES: usize = 4096;
const SYNCS: &str = "journal_sync_duration_seconds";

const CSV_HEADER: &str = "mode,links,per_second,connections,competitor,round,requests,failed,late_share,\
    p50_us,p99_us,p999_us,max_us,sync_p50_us,sync_p99_us,probe_p50_us,probe_p99_us";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("rate-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(Failure::at(format!("cannot make {}", scratch.display())))?;
    let setup = Setup {
        campaign,
        mode: arguments.mode,
        holdfast: arguments.holdfast.as_deref(),
        scratch: scratch.clone(),
    };
    let mut competitors = Vec::new();
    for (&name, port) in arguments.competitors.iter().zip((18_480..).step_by(10)) {
        if name.is_available() {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            competitors.push(Competitor {
                name,
                address,
                running: setup.start(name, address)?,
                rounds: Vec::new(),
            });
        }
    }
    let probe = probe_disk(&scratch.join("probe")).map_err(Failure::at("cannot probe the disk"))?;
    for round in 0..=arguments.rounds {
        for competitor in &mut competitors {
            let name = competitor.name;
            println!("round {round} of {}: {}", arguments.rounds, name.label());
            let measured = measure(arguments, competitor, campaign, round)?;
            if round > 0 {
                let row = csv_row(arguments, name, round, &measured, &probe);
                keep_row("rate", CSV_HEADER, &row);
                competitor.rounds.push(measured);
            }
        }
    }
    report(arguments, &competitors, &probe)?;
    drop(competitors);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn measure(
    arguments: &Arguments,
    competitor: &mut Competitor,
    campaign: Campaign,
    round: u64,
) -> Result<Round> {
    let plan = Plan {
        address: competitor.address,
        campaign,
        checked: competitor.name.has_links(),
        connections: arguments.connections,
        audience: Audience::People,
        pace: Pace::PerSecond(arguments.per_second),
        span_max: if round == 0 { WARM_UP } else { Duration::from_secs(arguments.seconds) },
        seed: round << 32,
    };
    let admin = edge::admin(competitor.address);
    let syncs = || match competitor.name {
        Name::Holdfast => admin.metrics().map(|metrics| Some(metrics.histogram(SYNCS))),
        _ => Ok(None),
    };
    let before = syncs()?;
    let outcome = client::run(&plan, &AtomicBool::new(false))?;
    let synced = syncs()?.zip(before).map(|(now, before)| now.since(&before));
    competitor.running.still_runs()?;
    competitor.running.wait_until_quiet(QUIET_PATIENCE)?;
    let sync_us = |share| synced.as_ref().map_or(0.0, |syncs| micros(syncs.quantile(share)));
    let latencies = Latencies::of(outcome.samples.iter().map(|sample| sample.latency));
    Ok(Round {
        requests: outcome.samples.len(),
        failed: outcome.failed(),
        late_share: late_share(&outcome.samples),
        p50_us: latencies.us(0.5),
        p99_us: latencies.us(0.99),
        p999_us: latencies.us(0.999),
        max_us: latencies.us(1.0),
        sync_p50_us: sync_us(0.5),
        sync_p99_us: sync_us(0.99),
    })
}

/// How long the disk takes to sync one block, each written into space that was written before.
fn probe_disk(path: &Path) -> io::Result<Latencies> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; PROBES * BLOCK_BYTES])?;
    file.sync_all()?;
    let mut file = File::options().write(true).open(path)?;
    let mut spans = Vec::new();
    for _ in 0..PROBES {
        file.write_all(&[1; BLOCK_BYTES])?;
        let begin = Instant::now();
        file.sync_data()?;
        spans.push(begin.elapsed());
    }
    fs::remove_file(path)?;
    Ok(Latencies::of(spans))
}

fn csv_row(arguments: &Arguments, name: Name, round: u64, measured: &Round, probe: &Latencies) -> String {
    format!(
        "{},{},{},{},{},{round},{},{},{:.5},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0},{:.0}",
        arguments.mode.label(),
        arguments.links,
        arguments.per_second,
        arguments.connections,
        name.label(),
        measured.requests,
        measured.failed,
        measured.late_share,
        measured.p50_us,
        measured.p99_us,
        measured.p999_us,
        measured.max_us,
        measured.sync_p50_us,
        measured.sync_p99_us,
        probe.us(0.5),
        probe.us(0.99),
    )
}

fn report(arguments: &Arguments, competitors: &[Competitor], probe: &Latencies) -> Result<()> {
    let mut table =
        Table::new(&["", "p50, ms", "p99, ms", "p99.9, ms", "max, ms", "failed clicks", "client late"]);
    for competitor in competitors {
        let figure = |pick: &dyn Fn(&Round) -> f64| Spread::of(competitor.rounds.iter().map(pick));
        let failed: u64 = competitor.rounds.iter().map(|round| round.failed).sum();
        table.row(&[
            competitor.name.label().to_owned(),
            figure(&|round| round.p50_us / 1e3).text(2),
            figure(&|round| round.p99_us / 1e3).text(2),
            figure(&|round| round.p999_us / 1e3).text(2),
            figure(&|round| round.max_us / 1e3).text(1),
            failed.to_string(),
            format!("{:.2} %", figure(&|round| round.late_share * 100.0).median),
        ]);
    }
    let mut body = table.text().to_owned();
    if let Some(holdfast) = competitors.iter().find(|competitor| competitor.name == Name::Holdfast) {
        body.push_str(&beside_disk(arguments, holdfast, probe));
    }
    let mode = arguments.mode.label();
    let method = format!(
        "{} clicks per second for {} s on {} links over {} keep-alive connections, journal in `{mode}` mode, {} \
         rounds in turn. Server and client have one core each; the client spins, sends each click at its intended \
         time on the next free connection, lets it queue while none is free, and counts from the intended time to \
         the end of the answer: a stall counts for all clicks that were due in it. Medians of the rounds, in \
         brackets the least and the most. \"Client late\" is the share of clicks that the client itself came to \
         more than {} µs after they were due: where it is above the share that a percentile leaves out, that \
         percentile measures the client and its machine, too. The floor does no work: what it shows is the \
         kernel's, the client's and the neighbours'.",
        arguments.per_second,
        arguments.seconds,
        arguments.links,
        arguments.connections,
        arguments.rounds,
        LATE.as_micros(),
    );
    println!("\n{body}");
    write_results(&arguments.out, &format!("rate-{mode}"), "Latency at a fixed rate", &method, &body)
}

fn beside_disk(arguments: &Arguments, holdfast: &Competitor, probe: &Latencies) -> String {
    let figure = |pick: &dyn Fn(&Round) -> f64| Spread::of(holdfast.rounds.iter().map(pick));
    let ratio = |syncs: f64| {
        let bound_us = |round: &Round| arguments.pace_ms * 1e3 + syncs * round.sync_p99_us;
        figure(&|round| round.p99_us / bound_us(round))
    };
    let mut table = Table::new(&["holdfast beside its disk", ""]);
    table.row(&["one sync p50, ms", &figure(&|round| round.sync_p50_us / 1e3).text(2)]);
    table.row(&["one sync p99, ms", &figure(&|round| round.sync_p99_us / 1e3).text(2)]);
    let probed = format!("{:.2}, {:.2}", probe.us(0.5) / 1e3, probe.us(0.99) / 1e3);
    table.row(&["the disk before the run, 4 KiB: p50, p99, ms", &probed]);
    let pace = arguments.pace_ms;
    table.row(&[&format!("answer p99 ÷ ({pace} ms + 3 × sync p99)"), &ratio(3.0).text(2)]);
    table.row(&[&format!("answer p99 ÷ ({pace} ms + 1.5 × sync p99)"), &ratio(1.5).text(2)]);
    format!(
        "\n{}\nSyncs are from the edge's own histogram over the same round, interpolated within its buckets; the \
         ratio is each round's own.\n",
        table.text()
    )
}
