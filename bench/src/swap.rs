//! Scenario `swap`: a new table of links is put in place of the old one, and a new configuration, while
//! clicks go on.
//!
//! In turn: all links are loaded from the database anew, as after a window; changed links are folded into
//! the table, as when a campaign is imported over an older one; the configuration is changed and reloaded.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Admin;
use crate::campaign::{Campaign, NAMESPACE, Targets};
use crate::client::{self, Audience, LATE, Outcome, Pace, Plan, Sample, late_share};
use crate::competitor::wait_until_ready;
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::machine::{TEN_MILLION, ten_million_fit};
use crate::process::{Memory, Running, SERVER, on};
use crate::report::{Latencies, Spread, Table, keep_row, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the table has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// Ten million links instead, if memory allows it; takes minutes to prepare and 3 GiB of disk
    #[arg(long)]
    ten_million: bool,
    /// How often each is done
    #[arg(long, default_value_t = 3)]
    swaps: u32,
    /// How long it is left alone before the first swap, between two, and after the last
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clicks per second
    #[arg(long, default_value_t = 5_000)]
    per_second: u64,
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

/// What is put in place of the old: a new table, or a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Load,
    Fold,
    Reload,
}

impl Way {
    const ALL: [Self; 3] = [Self::Load, Self::Fold, Self::Reload];

    fn label(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Fold => "fold",
            Self::Reload => "reload",
        }
    }
}

/// From what set it off until the new table was seen, or the edge said that the configuration counts.
struct Swap {
    way: Way,
    /// Of the turn in which each way has one.
    number: u32,
    prepared_from: Instant,
    begin: Instant,
    end: Instant,
}

/// `links.overlay_max`, and how many links an import changes so that they are folded.
const OVERLAY_MAX: u64 = 1000;
const CHANGED: u64 = 2 * OVERLAY_MAX;
/// The edge must have seen a window to load all links after it.
const WINDOW: Duration = Duration::from_secs(1);
/// What follows a swap counts with it: the snapshot is written, the old table is dropped.
const AFTERMATH: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
const SWAP_PATIENCE: Duration = Duration::from_secs(300);
/// Nothing of the edge is warm in the first seconds.
const WARM_UP: Duration = Duration::from_secs(2);
/// The client stops earlier, when all swaps are done; its memory is reckoned with this.
const SPAN_MAX: Duration = Duration::from_secs(1800);
const TABLE_TIME: &str = "links_table_timestamp_seconds";

const CSV_HEADER: &str = "mode,links,per_second,connections,what,round,seconds,requests,failed,p50_us,p99_us,p999_us,max_us,late_share";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: links(arguments), targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("swap-{}", std::process::id()));
    let address = SocketAddr::from(([127, 0, 0, 1], 18_580));
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    println!("preparing {} links", campaign.links);
    let edge = Edge::prepare(&binary, &scratch.join("holdfast"), &campaign, arguments.mode, address)?;
    edge.add_settings(&format!("\n[links]\noverlay_max = {OVERLAY_MAX}\n"))?;
    let mut running = wait_until_ready(edge.start(SERVER)?, address, &campaign, campaign.links - 1)?;

    let plan = Plan {
        address,
        campaign,
        checked: true,
        connections: arguments.connections,
        audience: Audience::People,
        pace: Pace::PerSecond(arguments.per_second),
        span_max: SPAN_MAX,
        seed: 0,
    };
    let stop = AtomicBool::new(false);
    let (swaps, outcome) = thread::scope(|scope| {
        let client = scope.spawn(|| client::run(&plan, &stop));
        let swaps = swap_all(arguments, &edge, &campaign, &scratch, &mut running);
        stop.store(true, Relaxed);
        (swaps, client.join().expect("the client does not panic"))
    });
    let outcome = outcome?;
    report(arguments, campaign.links, &swaps?, &outcome, running.memory()?)?;
    drop(running);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))?;
    match outcome.failed() {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} clicks failed; none may, whatever is put in place"))),
    }
}

fn links(arguments: &Arguments) -> u64 {
    if arguments.ten_million && ten_million_fit() { TEN_MILLION } else { arguments.links }
}

fn swap_all(
    arguments: &Arguments,
    edge: &Edge,
    campaign: &Campaign,
    scratch: &Path,
    running: &mut Running,
) -> Result<Vec<Swap>> {
    let pause = Duration::from_secs(arguments.seconds);
    let mut swaps = Vec::new();
    sleep(WARM_UP + pause);
    for number in 1..=arguments.swaps {
        for way in Way::ALL {
            let prepared_from = Instant::now();
            let (begin, end) = match way {
                Way::Load => load(&edge.admin()),
                Way::Fold => fold(edge, campaign, &scratch.join("changed.csv"), number),
                Way::Reload => reload(edge, number),
            }?;
            running.still_runs()?;
            let swap = Swap { way, number, prepared_from, begin, end };
            let span_s = (swap.end - swap.begin).as_secs_f64();
            println!("swap {number} of {}: {} in {span_s:.1} s", arguments.swaps, way.label());
            swaps.push(swap);
            sleep(AFTERMATH + pause);
        }
    }
    Ok(swaps)
}

/// All links anew, which the end of a window asks for; when it began and ended.
fn load(admin: &Admin) -> Result<(Instant, Instant)> {
    admin.act("/window/begin")?;
    sleep(WINDOW);
    let old = admin.metrics()?.sum(TABLE_TIME)?;
    let begin = Instant::now();
    admin.act("/window/end")?;
    let end = wait_for_new_table(admin, old)?;
    Ok((begin, end))
}

/// More changed links than are kept beside the table.
fn fold(edge: &Edge, campaign: &Campaign, csv: &Path, number: u32) -> Result<(Instant, Instant)> {
    write_changed(csv, campaign, number).map_err(Failure::at(format!("cannot write {}", csv.display())))?;
    let admin = edge.admin();
    let old = admin.metrics()?.sum(TABLE_TIME)?;
    let begin = Instant::now();
    on(SERVER, || edge.import(csv))?;
    let end = wait_for_new_table(&admin, old)?;
    Ok((begin, end))
}

/// The site's pages in another language than before: all that a configuration holds is built anew.
fn reload(edge: &Edge, number: u32) -> Result<(Instant, Instant)> {
    edge.set_language(if number.is_multiple_of(2) { "fr" } else { "de" })?;
    let begin = Instant::now();
    edge.admin().act("/reload")?;
    Ok((begin, Instant::now()))
}

/// The first links with the same pages and another query.
fn write_changed(csv: &Path, campaign: &Campaign, number: u32) -> io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(csv)?);
    writeln!(out, "namespace,token,url,campaign,append,expires_at,disabled")?;
    for i in 0..CHANGED.min(campaign.links) {
        let target = campaign.target(i).replace("spring-sale", &format!("sale-{number}"));
        writeln!(out, "{NAMESPACE},{},{target},spring-sale,,,", Campaign::token(i))?;
    }
    out.flush()
}

fn wait_for_new_table(admin: &Admin, old: f64) -> Result<Instant> {
    let deadline = Instant::now() + SWAP_PATIENCE;
    loop {
        sleep(POLL);
        let made_at = admin.metrics()?.sum(TABLE_TIME)?;
        let now = Instant::now();
        if made_at > old {
            return Ok(now);
        }
        if now > deadline {
            return Err(Failure::new(format!("no new table of links after {SWAP_PATIENCE:?}")));
        }
    }
}

/// The clicks of one swap, or of the quiet time before and between those of one number.
struct Part {
    what: &'static str,
    number: u32,
    seconds: f64,
    requests: usize,
    failed: usize,
    late_share: f64,
    latencies: Latencies,
}

const STEADY: &str = "steady";

impl Part {
    fn of(what: &'static str, number: u32, seconds: f64, samples: &[&Sample]) -> Self {
        Self {
            what,
            number,
            seconds,
            requests: samples.len(),
            failed: samples.iter().filter(|sample| !sample.redirected).count(),
            late_share: late_share(samples.iter().copied()),
            latencies: Latencies::of(samples.iter().map(|sample| sample.latency)),
        }
    }
}

/// Neither a swap's nor steady is what prepares one: a window, a file that is written.
fn parts(swaps: &[Swap], outcome: &Outcome) -> Vec<Part> {
    let since_begin = |at: Instant| at - outcome.begin;
    let during = |from: Duration, to: Duration| -> Vec<&Sample> {
        outcome.samples.iter().filter(|sample| (from..to).contains(&sample.intended)).collect()
    };
    let mut parts = Vec::new();
    let mut quiet_from = WARM_UP;
    for swaps in swaps.chunk_by(|one, next| one.number == next.number) {
        let (mut steady, mut steady_s) = (Vec::new(), 0.0);
        for swap in swaps {
            let (from, to) = (since_begin(swap.begin), since_begin(swap.end) + AFTERMATH);
            parts.push(Part::of(swap.way.label(), swap.number, (to - from).as_secs_f64(), &during(from, to)));
            let quiet_to = since_begin(swap.prepared_from);
            steady_s += quiet_to.saturating_sub(quiet_from).as_secs_f64();
            steady.extend(during(quiet_from, quiet_to));
            quiet_from = to;
        }
        parts.extend(swaps.first().map(|swap| Part::of(STEADY, swap.number, steady_s, &steady)));
    }
    parts
}

fn report(
    arguments: &Arguments,
    links: u64,
    swaps: &[Swap],
    outcome: &Outcome,
    memory: Memory,
) -> Result<()> {
    let parts = parts(swaps, outcome);
    for part in &parts {
        let us = |share| part.latencies.us(share);
        let row = format!(
            "{},{links},{},{},{},{},{:.1},{},{},{:.0},{:.0},{:.0},{:.0},{:.5}",
            arguments.mode.label(),
            arguments.per_second,
            arguments.connections,
            part.what,
            part.number,
            part.seconds,
            part.requests,
            part.failed,
            us(0.5),
            us(0.99),
            us(0.999),
            us(1.0),
            part.late_share,
        );
        keep_row("swap", CSV_HEADER, &row);
    }
    let of = |what: &'static str| parts.iter().filter(move |part| part.what == what);
    let mut table = Table::new(&[
        "",
        "seconds",
        "clicks",
        "failed",
        "p50, ms",
        "p99, ms",
        "× steady p99",
        "p99.9, ms",
        "max, ms",
        "client late",
    ]);
    for what in [STEADY].into_iter().chain(Way::ALL.map(Way::label)) {
        let ms = |share: f64| Spread::of(of(what).map(|part| part.latencies.us(share) / 1e3)).text(2);
        let beside = of(what)
            .zip(of(STEADY))
            .map(|(part, steady)| part.latencies.us(0.99) / steady.latencies.us(0.99));
        table.row(&[
            what.to_owned(),
            Spread::of(of(what).map(|part| part.seconds)).text(1),
            of(what).map(|part| part.requests).sum::<usize>().to_string(),
            of(what).map(|part| part.failed).sum::<usize>().to_string(),
            ms(0.5),
            ms(0.99),
            Spread::of(beside).text(2),
            ms(0.999),
            ms(1.0),
            format!("{:.2} %", Spread::of(of(what).map(|part| part.late_share * 100.0)).median),
        ]);
    }
    let mib = |bytes: u64| bytes >> 20;
    let body = format!(
        "{}\nThe edge's memory after the last swap: {} MiB, at its peak {} MiB.\n",
        table.text(),
        mib(memory.resident_bytes),
        mib(memory.peak_bytes),
    );
    let elsewhere_failed = outcome.failed() - parts.iter().map(|part| part.failed as u64).sum::<u64>();
    let method = format!(
        "{} links, {} clicks per second over {} keep-alive connections, journal in `{}` mode; server and client on \
         one core each, and the import and the building of the new table are on the server's core, too. \"Load\" \
         ends a window, after which \
         all links are loaded from the database; \"fold\" imports {CHANGED} changed links with `links.overlay_max = \
         {OVERLAY_MAX}`; \"reload\" changes the language of the site's pages and has the configuration reloaded. A \
         swap's time runs from there until the edge's metrics show the time of a new table, or until it says that the \
         new configuration counts, and {} s more, in which the old one is dropped; \"steady\" is the time before the three \
         swaps of a turn, without the first {} s and without what prepares a swap: the window, the writing of the file that is \
         imported. Medians of {} turns, in brackets the least and the most, × of each turn's own steady time. Each click \
         counts from when it was to be sent. Failed is every answer but the 302 to the link's own page, no answer \
         within 10 s, and a click whose connection broke. Over the whole run {} connections broke, and {} clicks \
         failed outside of these parts. \"Client late\" is the share of clicks that the client itself came to more than \
         {} µs after they were due.\n\n\
         Unfair to the edge: where it has more cores than one, import, load and building are on another than the clicks. \
         Kind to it: at this rate its core is idle most of the time, and the site has few settings to build anew.",
        links,
        arguments.per_second,
        arguments.connections,
        arguments.mode.label(),
        AFTERMATH.as_secs(),
        WARM_UP.as_secs(),
        arguments.swaps,
        outcome.broken,
        elsewhere_failed,
        LATE.as_micros(),
    );
    println!("\n{body}");
    write_results(&arguments.out, "swap", "Swap of the table and reload under load", &method, &body)
}
