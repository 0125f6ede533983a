//! Scenario `growth`: what a click costs with more links, with links that share targets, and with more
//! connections.
//!
//! All edges are up during the whole run, one for each number of links, and take turns with the floor.
//! Connections are opened before the clock runs and closed after it: wrk would count the opening of ten
//! thousand as the cost of clicks, so the bench's own client does the clicking.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::click::answering;
use crate::client::{Audience, Client, Pace, Plan};
use crate::competitor::{Name, QUIET_PATIENCE, Setup};
use crate::edge::Mode;
use crate::failure::{Failure, Result};
use crate::machine::{TEN_MILLION, ten_million_fit};
use crate::process::{Running, allow_connections};
use crate::report::{Spread, Table, keep_row, micros, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of links, each measured with the first number of connections
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    links: Vec<u64>,
    /// Measure ten million links, too, if memory allows it; takes minutes to prepare and 3 GiB of disk
    #[arg(long)]
    ten_million: bool,
    /// A number of links that share forty targets, measured beside as many distinct ones
    #[arg(long, default_value_t = 1_000_000)]
    repeating: u64,
    /// Numbers of connections, each measured with the first number of links
    #[arg(long, value_delimiter = ',', default_value = "64,1000,10000")]
    connections: Vec<u32>,
    /// How long each round of each case lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each case has its turn
    #[arg(long, default_value_t = 7)]
    rounds: u64,
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

/// One server.
struct Server {
    name: Name,
    address: SocketAddr,
    running: Running,
}

/// One server under one load.
struct Case {
    server: usize,
    campaign: Campaign,
    connections: u32,
    rounds: Vec<Round>,
}

/// What one case took in one round.
struct Round {
    clicks: usize,
    answering_us: f64,
    per_second: f64,
    busy: f64,
}

const WARM_UP: Duration = Duration::from_secs(2);

const CSV_HEADER: &str =
    "mode,competitor,links,connections,round,requests,requests_per_second,answering_us,busy";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.scratch.join(format!("growth-{}", std::process::id()));
    allow_connections(arguments.connections.iter().copied().max().unwrap_or_default())?;
    let campaigns = campaigns(arguments);
    let mut servers = start(arguments, &campaigns, &scratch)?;
    let mut cases = cases(arguments, &campaigns)?;
    for round in 0..=arguments.rounds {
        for case in &mut cases {
            let server = &mut servers[case.server];
            let name = label(server.name, &case.campaign);
            println!(
                "round {round} of {}: {name}, {} links, {} connections",
                arguments.rounds, case.campaign.links, case.connections
            );
            let span = if round == 0 { WARM_UP } else { Duration::from_secs(arguments.seconds) };
            let measured = measure(server, case, span, round)?;
            if round > 0 {
                let row = csv_row(arguments, &name, case, round, &measured);
                keep_row("growth", CSV_HEADER, &row);
                case.rounds.push(measured);
            }
        }
    }
    report(arguments, &campaigns, &cases)?;
    drop(servers);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Distinct targets by number of links, then the repeating ones.
fn campaigns(arguments: &Arguments) -> Vec<Campaign> {
    let mut links = arguments.links.clone();
    if arguments.ten_million && ten_million_fit() {
        links.push(TEN_MILLION);
    }
    let distinct = links.into_iter().map(|links| Campaign { links, targets: Targets::Distinct });
    let repeating = Campaign { links: arguments.repeating, targets: Targets::Repeating };
    distinct.chain([repeating]).collect()
}

/// Who is measured, for people and the CSV.
fn label(name: Name, campaign: &Campaign) -> String {
    match campaign.targets {
        Targets::Distinct => name.label().to_owned(),
        Targets::Repeating => format!("{} {} targets", name.label(), campaign.targets.label()),
    }
}

/// The floor first, then an edge for each campaign.
fn start(arguments: &Arguments, campaigns: &[Campaign], scratch: &Path) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    let floor = Campaign { links: 1, targets: Targets::Distinct };
    let names = std::iter::once((Name::Floor, floor))
        .chain(campaigns.iter().map(|&campaign| (Name::Holdfast, campaign)));
    for ((name, campaign), port) in names.zip((18_780..).step_by(10)) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let setup = Setup {
            campaign,
            mode: arguments.mode,
            holdfast: arguments.holdfast.as_deref(),
            scratch: scratch.join(port.to_string()),
        };
        servers.push(Server { name, address, running: setup.start(name, address)? });
    }
    Ok(servers)
}

/// Every case's cost is compared with the first case of the same server name: few links, few connections.
fn cases(arguments: &Arguments, campaigns: &[Campaign]) -> Result<Vec<Case>> {
    let (Some(&first), Some(&connections_first)) = (campaigns.first(), arguments.connections.first()) else {
        return Err(Failure::new("name at least one number of links and one of connections"));
    };
    let case = |server, campaign, connections| Case { server, campaign, connections, rounds: Vec::new() };
    let mut cases = Vec::new();
    for &connections in &arguments.connections {
        cases.push(case(0, first, connections));
        cases.push(case(1, first, connections));
    }
    for (edge, &campaign) in campaigns.iter().enumerate().skip(1) {
        cases.push(case(edge + 1, campaign, connections_first));
    }
    Ok(cases)
}

/// Opens the connections, clicks on them as fast as answers come, and closes them; only the clicks count.
fn measure(server: &mut Server, case: &Case, span: Duration, round: u64) -> Result<Round> {
    let plan = Plan {
        address: server.address,
        campaign: case.campaign,
        checked: server.name.has_links(),
        connections: case.connections as usize,
        audience: Audience::People,
        pace: Pace::Answers,
        span_max: span,
        seed: round << 32,
    };
    let running = &mut server.running;
    let mut client = Client::open(&plan)?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    let before = running.cpu()?;
    let outcome = client.run(&AtomicBool::new(false))?;
    let times = running.cpu()?.since(&before);
    let span = outcome.begin.elapsed();
    drop(client);
    running.still_runs()?;
    running.wait_until_quiet(QUIET_PATIENCE)?;
    if outcome.failed() + outcome.broken > 0 {
        let (failed, broken) = (outcome.failed(), outcome.broken);
        return Err(Failure::new(format!("{failed} clicks failed, {broken} connections broke")));
    }
    let clicks = outcome.samples.len();
    Ok(Round {
        clicks,
        answering_us: micros(answering(&times)) / clicks as f64,
        per_second: clicks as f64 / span.as_secs_f64(),
        busy: times.total().as_secs_f64() / span.as_secs_f64(),
    })
}

/// Of the rounds of two cases, each beside the one of the same number.
fn ratio(case: &Case, yardstick: &Case) -> String {
    let pairs = case.rounds.iter().zip(&yardstick.rounds);
    Spread::of(pairs.map(|(round, beside)| round.answering_us / beside.answering_us)).text(2)
}

fn csv_row(arguments: &Arguments, name: &str, case: &Case, round: u64, measured: &Round) -> String {
    format!(
        "{},{name},{},{},{round},{},{:.0},{:.3},{:.3}",
        arguments.mode.label(),
        case.campaign.links,
        case.connections,
        measured.clicks,
        measured.per_second,
        measured.answering_us,
        measured.busy,
    )
}

fn report(arguments: &Arguments, campaigns: &[Campaign], cases: &[Case]) -> Result<()> {
    let find = |server: usize, campaign: Campaign, connections: u32| {
        cases.iter().find(|case| {
            (case.server.min(1), case.campaign, case.connections) == (server, campaign, connections)
        })
    };
    let [floor, holdfast, ..] = cases else { unreachable!("the first two cases are always there") };
    let figure = |case: &Case, pick: fn(&Round) -> f64| Spread::of(case.rounds.iter().map(pick));
    let costs = |case: &Case| figure(case, |round| round.answering_us).text(2);
    let busy = |case: &Case| format!("{:.0} %", figure(case, |round| round.busy).median * 100.0);
    let mut by_links =
        Table::new(&["links", "targets", "CPU per click, µs", "× the first", "clicks/s", "core busy"]);
    for &campaign in campaigns {
        let Some(case) = find(1, campaign, holdfast.connections) else { continue };
        by_links.row(&[
            campaign.links.to_string(),
            campaign.targets.label().to_owned(),
            costs(case),
            ratio(case, holdfast),
            figure(case, |round| round.per_second).text(0),
            busy(case),
        ]);
    }
    let mut by_connections = Table::new(&[
        "connections",
        "CPU per click, µs",
        "× the first",
        "clicks/s",
        "core busy",
        "floor, µs",
        "floor × the first",
        "× floor",
    ]);
    for &connections in &arguments.connections {
        let found = find(1, holdfast.campaign, connections).zip(find(0, holdfast.campaign, connections));
        let Some((case, beside)) = found else { continue };
        by_connections.row(&[
            connections.to_string(),
            costs(case),
            ratio(case, holdfast),
            figure(case, |round| round.per_second).text(0),
            busy(case),
            costs(beside),
            ratio(beside, floor),
            ratio(case, beside),
        ]);
    }
    let body = format!("{}\n{}", by_links.text(), by_connections.text());
    let mode = arguments.mode.label();
    let method = format!(
        "CPU per click as scenario `click` takes it, journal in `{mode}` mode, clicks on random links, {} rounds of \
         {} s in turn, each begun when the one before it is quiet. Server and client have one core each; the client \
         sends the next click on a connection when it has the answer to the last, on all connections at once, and \
         opening and closing them is not counted. The numbers of links are measured with {} connections, the numbers \
         of connections with {} links. \"× the first\" is the median of each round's ratio to the first number's \
         figure of the same round, in brackets the least and the most. The kernel's part grows with connections for \
         everybody, as the floor shows, which knows no links. Repeating targets are forty that all links share, as those \
         of one campaign do, where each distinct one is a URL of 88 bytes of its own; random clicks are unfair to the \
         big tables, for those of people prefer the newest links, whose part of memory stays in the processor's \
         caches. Where the core is not busy, clicks wait for a sync or for the client, which one is not told apart here, \
         and a turn of the server's event loop has fewer clicks to share its cost. Cases of one round are up to a \
         minute apart. Kind to Holdfast: delivery is not counted.",
        arguments.rounds, arguments.seconds, holdfast.connections, holdfast.campaign.links,
    );
    println!("\n{body}");
    write_results(&arguments.out, &format!("growth-{mode}"), "Growth", &method, &body)
}
