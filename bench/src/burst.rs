//! Scenario `burst`: the hour after a mailing, in less time and with the same shape, at twice the capacity.
//!
//! In an hour's first five minutes come four fifths of its hits, three in ten of them a scanner's: HEAD,
//! robots' user agents, several at once. The capacity is measured first, in the same run. Each hit has a
//! number in its query, by which the database shows at the end that every answered hit is there once.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use crate::admin::{Admin, Metrics};
use crate::campaign::{Campaign, Targets};
use crate::click::FULL;
use crate::client::{self, Audience, LATE, Outcome, PATIENCE, Pace, Plan, Sample, late_share};
use crate::competitor::{QUIET_PATIENCE, wait_until_ready};
use crate::deliver::wait_until_delivered;
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{Cores, Running, SERVER, allow_connections, output, require};
use crate::report::{Latencies, Table, keep_row, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 100_000)]
    links: u64,
    /// In how many seconds the hour passes
    #[arg(long, default_value_t = 60)]
    hour_seconds: u64,
    /// How many times the capacity comes in the first five minutes
    #[arg(long, default_value_t = 2.0)]
    load: f64,
    /// How long the capacity is measured
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 4096)]
    connections: u32,
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

/// What the edge answers when it is asked as fast as it answers.
struct Capacity {
    per_second: f64,
    /// Share of its core that the edge used.
    busy: f64,
}

impl Capacity {
    /// What a core that was not full says of the figures.
    fn verdict(&self) -> &'static str {
        if self.busy < FULL {
            "; not full, so the capacity is more than that and the burst is less of it"
        } else {
            ""
        }
    }
}

/// The clicks that were to be sent in one part of the run.
struct Part {
    what: &'static str,
    seconds: f64,
    hits: usize,
    redirected: usize,
    /// Answered with another status than that of a redirect.
    refused: usize,
    /// Not answered, or too late.
    unanswered: usize,
    late_share: f64,
    latencies: Latencies,
}

impl Part {
    fn of(what: &'static str, span: Duration, samples: &[&Sample]) -> Self {
        let count = |is: &dyn Fn(&Sample) -> bool| samples.iter().filter(|sample| is(sample)).count();
        let redirected = count(&|sample| sample.redirected);
        let refused = count(&|sample| sample.status != 0 && sample.status != REDIRECT);
        Self {
            what,
            seconds: span.as_secs_f64(),
            hits: samples.len(),
            redirected,
            refused,
            unanswered: samples.len() - redirected - refused,
            late_share: late_share(samples.iter().copied()),
            latencies: Latencies::of(samples.iter().map(|sample| sample.latency)),
        }
    }
}

/// What of the answered hits is in the database.
#[derive(Debug, Default, PartialEq, Eq)]
struct Books {
    once: u64,
    missing: u64,
    /// Rows beyond the first of any hit.
    doubled: u64,
    /// In the database without an answer that the client saw.
    unanswered: u64,
    /// In the database with a scanner's label.
    labelled: u64,
}

/// Of the edge's own counters, since before the hour.
struct Counted {
    synced: f64,
    written: f64,
    waived: f64,
    unrecorded: f64,
    refused: f64,
    delivery_s: f64,
}

/// Four fifths in the first twelfth.
const BURST_SHARE: f64 = 0.8;
const BURST_PART: f64 = 1.0 / 12.0;
const REDIRECT: u16 = 302;
/// The backlog is gone once no hit has taken longer than this for a while.
const ON_TIME: Duration = Duration::from_millis(100);
const STEADY: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_secs(2);
const CALM: Duration = Duration::from_secs(5);

const CSV_HEADER: &str = "mode,links,connections,hour_seconds,capacity_per_second,capacity_busy,part,seconds,hits,\
    redirected,refused,unanswered,p50_us,p99_us,max_us,late_share";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    require("sqlite3", "sqlite3")?;
    allow_connections(arguments.connections)?;
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let scratch = arguments.scratch.join(format!("burst-{}", std::process::id()));
    let folder = scratch.join("holdfast");
    let address = SocketAddr::from(([127, 0, 0, 1], 19_380));
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    println!("preparing {} links", arguments.links);
    let edge = Edge::prepare(&binary, &folder, &campaign, arguments.mode, address)?;
    let mut running = wait_until_ready(edge.start(SERVER)?, address, &campaign, campaign.links - 1)?;
    let admin = edge.admin();

    let plan = Plan {
        address,
        campaign,
        checked: true,
        connections: arguments.connections as usize,
        audience: Audience::People,
        pace: Pace::Answers,
        span_max: WARM_UP,
        seed: 0,
    };
    client::run(&plan, &AtomicBool::new(false))?;
    let capacity =
        measure_capacity(&Plan { span_max: Duration::from_secs(arguments.seconds), ..plan }, &running)?;
    println!("capacity: {:.0} clicks/s, {:.0} % of its core", capacity.per_second, capacity.busy * 100.0);
    running.wait_until_quiet(QUIET_PATIENCE)?;

    let hour = Duration::from_secs(arguments.hour_seconds);
    let burst = hour.mul_f64(BURST_PART);
    let per_second = capacity.per_second * arguments.load;
    let then_per_second = per_second * (BURST_PART / BURST_SHARE) * (1.0 - BURST_SHARE) / (1.0 - BURST_PART);
    let calm_pace = Pace::PerSecond(at_least_one(then_per_second));
    println!("before the mailing: {then_per_second:.0} hits/s for {} s", CALM.as_secs());
    let calm = client::run(
        &Plan { pace: calm_pace, span_max: CALM, seed: 1 << 32, ..plan },
        &AtomicBool::new(false),
    )?;
    println!("the hour: {per_second:.0} hits/s for {:.1} s, then {then_per_second:.0}", burst.as_secs_f64());
    let before = admin.metrics()?;
    let mailing = Plan {
        audience: Audience::Mailing,
        pace: Pace::Burst {
            per_second: at_least_one(per_second),
            until: burst,
            then_per_second: at_least_one(then_per_second),
        },
        span_max: hour,
        seed: 2 << 32,
        ..plan
    };
    let outcome = client::run(&mailing, &AtomicBool::new(false))?;
    running.still_runs()?;
    let delivery = wait_until_delivered(&admin)?;
    let counted = count(&admin, &before, delivery)?;
    running.stop(QUIET_PATIENCE)?;
    edge.reconcile(Cores::All)?;
    let books = Books { labelled: labelled(&folder)?, ..hold_against(&outcome, &numbers(&folder)?) };
    let parts = parts(&calm, &outcome, burst, hour);
    report(arguments, &capacity, &parts, &outcome, &counted, &books, burst)?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))?;
    if books.doubled > 0 || books.missing as f64 > counted.unrecorded {
        return Err(Failure::new(format!(
            "of the answered hits {} are missing, of which {} were declared, and {} came twice",
            books.missing, counted.unrecorded, books.doubled
        )));
    }
    Ok(())
}

fn at_least_one(per_second: f64) -> u64 {
    (per_second as u64).max(1)
}

fn measure_capacity(plan: &Plan, running: &Running) -> Result<Capacity> {
    let before = running.cpu()?;
    let outcome = client::run(plan, &AtomicBool::new(false))?;
    let span_s = outcome.begin.elapsed().as_secs_f64();
    let cpu = running.cpu()?.since(&before);
    let failed = outcome.failed() + outcome.broken;
    if failed > 0 {
        return Err(Failure::new(format!("{failed} clicks failed while the capacity was measured")));
    }
    Ok(Capacity {
        per_second: outcome.samples.len() as f64 / span_s,
        busy: cpu.total().as_secs_f64() / span_s,
    })
}

fn count(admin: &Admin, before: &Metrics, delivery: Duration) -> Result<Counted> {
    let now = admin.metrics()?;
    let more = |name: &str| Ok(now.sum(name)? - before.sum(name)?);
    let of_class = |class: &str| {
        let label = format!("class=\"{class}\"");
        now.sum_with("answers_total", &label) - before.sum_with("answers_total", &label)
    };
    Ok(Counted {
        synced: of_class("synced"),
        written: of_class("written"),
        waived: of_class("waived"),
        unrecorded: more("unrecorded_events_total")?,
        refused: more("refused_total")?,
        delivery_s: delivery.as_secs_f64(),
    })
}

/// The numbers of all hits of the mailing that the database has.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    ask(folder, "SELECT substr(query, 3) FROM hits WHERE query LIKE 'n=%'")
}

/// How many of them it labels as a scanner's.
fn labelled(folder: &Path) -> Result<u64> {
    let sql = "SELECT count(*) FROM hits WHERE query LIKE 'n=%' AND verdict IN ('head', 'robot')";
    Ok(ask(folder, sql)?.into_iter().sum())
}

/// The numbers that the database answers, one in a line.
fn ask(folder: &Path, sql: &str) -> Result<Vec<u64>> {
    let mut shell = Command::new("sqlite3");
    shell.args(["holdfast.db", sql]).current_dir(folder);
    let (text, _) = output(&mut shell, Cores::All)?;
    let number =
        |line: &str| line.parse().map_err(|_| Failure::new(format!("the database says {line} to {sql}")));
    text.lines().map(number).collect()
}

/// Each answered hit is to be among the delivered ones, once.
fn hold_against(outcome: &Outcome, delivered: &[u64]) -> Books {
    let last = outcome.samples.iter().map(|sample| sample.number).chain(delivered.iter().copied()).max();
    let mut rows = vec![0u32; last.map_or(0, |last| last as usize + 1)];
    for &number in delivered {
        rows[number as usize] += 1;
    }
    let mut books = Books::default();
    for sample in outcome.samples.iter() {
        let rows = &mut rows[sample.number as usize];
        match (sample.status != 0, *rows) {
            (true, 0) => books.missing += 1,
            (true, _) => books.once += 1,
            (false, 0) => {}
            (false, _) => books.unanswered += 1,
        }
        books.doubled += u64::from(rows.saturating_sub(1));
    }
    books
}

fn parts(calm: &Outcome, outcome: &Outcome, burst: Duration, hour: Duration) -> Vec<Part> {
    let end = recovered(outcome, burst);
    let between = |from: Duration, to: Duration| -> Vec<&Sample> {
        outcome.samples.iter().filter(|sample| (from..to).contains(&sample.intended)).collect()
    };
    let calm: Vec<&Sample> = calm.samples.iter().collect();
    vec![
        Part::of("before", CALM, &calm),
        Part::of("burst", burst, &between(Duration::ZERO, burst)),
        Part::of("backlog", end - burst, &between(burst, end)),
        Part::of("after", hour.saturating_sub(end), &between(end, hour)),
    ]
}

/// Since when hits are answered in time again: after the last slow one that has another within
/// [`STEADY`] before it. A single slow sync much later is none of the burst's.
fn recovered(outcome: &Outcome, burst: Duration) -> Duration {
    let slow = outcome.samples.iter().filter(|sample| sample.latency > ON_TIME || !sample.redirected);
    let mut slow: Vec<Duration> = slow.map(|sample| sample.intended).filter(|&at| at >= burst).collect();
    slow.sort_unstable();
    slow.into_iter().fold(
        burst,
        |end, at| {
            if at <= end + STEADY { at + Duration::from_nanos(1) } else { end }
        },
    )
}

fn report(
    arguments: &Arguments,
    capacity: &Capacity,
    parts: &[Part],
    outcome: &Outcome,
    counted: &Counted,
    books: &Books,
    burst: Duration,
) -> Result<()> {
    let mut table = Table::new(&[
        "hits to be sent",
        "seconds",
        "hits",
        "redirected",
        "refused",
        "unanswered",
        "p50, ms",
        "p99, ms",
        "max, ms",
        "client late",
    ]);
    let mode = arguments.mode.label();
    for part in parts {
        let us = |share| part.latencies.us(share);
        let row = format!(
            "{mode},{},{},{},{:.0},{:.3},{},{:.2},{},{},{},{},{:.0},{:.0},{:.0},{:.5}",
            arguments.links,
            arguments.connections,
            arguments.hour_seconds,
            capacity.per_second,
            capacity.busy,
            part.what,
            part.seconds,
            part.hits,
            part.redirected,
            part.refused,
            part.unanswered,
            us(0.5),
            us(0.99),
            us(1.0),
            part.late_share,
        );
        keep_row("burst", CSV_HEADER, &row);
        table.row(&[
            part.what.to_owned(),
            format!("{:.1}", part.seconds),
            part.hits.to_string(),
            part.redirected.to_string(),
            part.refused.to_string(),
            part.unanswered.to_string(),
            format!("{:.2}", us(0.5) / 1e3),
            format!("{:.2}", us(0.99) / 1e3),
            format!("{:.1}", us(1.0) / 1e3),
            format!("{:.1} %", part.late_share * 100.0),
        ]);
    }
    let mut sums = Table::new(&["of the hour", ""]);
    let backlog_s = parts.iter().find(|part| part.what == "backlog").map_or(0.0, |part| part.seconds);
    for (what, value) in [
        ("capacity, clicks/s", format!("{:.0}", capacity.per_second)),
        ("the edge's core busy then", format!("{:.0} %{}", capacity.busy * 100.0, capacity.verdict())),
        ("on time again after the burst's end, s", format!("{backlog_s:.2}")),
        ("delivered after the last answer, s", format!("{:.1}", counted.delivery_s)),
        ("answers synced", format!("{:.0}", counted.synced)),
        ("answers written", format!("{:.0}", counted.written)),
        ("answers waived", format!("{:.0}", counted.waived)),
        ("of them without a record", format!("{:.0}", counted.unrecorded)),
        ("requests and connections refused", format!("{:.0}", counted.refused)),
        ("connections broken", outcome.broken.to_string()),
        ("answered hits in the database once", books.once.to_string()),
        ("answered hits missing there", books.missing.to_string()),
        ("rows too many there", books.doubled.to_string()),
        ("rows of hits without an answer", books.unanswered.to_string()),
        ("rows that are labelled as a scanner's", books.labelled.to_string()),
    ] {
        sums.row(&[what, &value]);
    }
    let body = format!("{}\n{}", table.text(), sums.text());
    let method = format!(
        "{} links, {} keep-alive connections, journal in `{mode}` mode, delivery into SQLite beside the clicks; server \
         and client on one core each. First the capacity: clicks as fast as answers come, for {} s. Then a calm of {} s, \
         and then an hour in {} s: {:.0} % of its hits in its first {:.1} s, evenly, which are {:.1} times the capacity; \
         of ten hits in a row three are one scanner's, all due at once, by HEAD and twice by GET with a robot's user \
         agent, for one link. Each hit counts from when it was to be sent to the end of its answer, wherever it waited, \
         the client's queue included; unanswered is no answer, and one after more than {} s. \"Backlog\" lasts until \
         for a second no hit takes longer than {} ms, \"after\" is the rest. At the end `holdfast reconcile` must agree, and the \
         numbers of all hits in the database are held against those that were answered. \"Client late\" is the share \
         of hits that the client came to more than {} µs after they were due.\n\n\
         Fair: the load is in proportion to what this machine does, and nothing is spared by waiting (no coordinated \
         omission). Unfair to the edge: delivery shares its core. Kind to the edge: an hour's burst falls on seconds, so \
         that far less waits than would in an hour; connections are open before the \
         mailing and never more than {}, so that the queue is the client's and the edge has no reason to refuse any; \
         people would each open one (scenario `kinds`, fresh connection). The client has the work of both sides of each \
         answer, too: where it is late and the edge's core is not busy, it is the limit.",
        arguments.links,
        arguments.connections,
        arguments.seconds,
        CALM.as_secs(),
        arguments.hour_seconds,
        BURST_SHARE * 100.0,
        burst.as_secs_f64(),
        arguments.load,
        PATIENCE.as_secs(),
        ON_TIME.as_millis(),
        LATE.as_micros(),
        arguments.connections,
    );
    println!("\n{body}");
    write_results(&arguments.out, &format!("burst-{mode}"), "The hour after a mailing", &method, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_tell_what_is_missing_and_what_came_twice() {
        let sample = |number, status| Sample {
            number,
            intended: Duration::ZERO,
            latency: Duration::ZERO,
            redirected: status == REDIRECT,
            status,
            late: false,
        };
        let outcome = Outcome {
            begin: std::time::Instant::now(),
            samples: vec![sample(0, 302), sample(1, 302), sample(2, 302), sample(3, 0), sample(4, 0)],
            broken: 0,
        };
        let books = hold_against(&outcome, &[0, 1, 1, 3]);
        assert_eq!(books, Books { once: 2, missing: 1, doubled: 1, unanswered: 1, labelled: 0 });
    }
}
