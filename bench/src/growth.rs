//! Scenario `growth`: what a click costs with more links, and with more connections.
//!
//! All edges are up during the whole run, one for each number of links, and take turns with the floor.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::click::{Round, WARM_UP_S, measure, ratio};
use crate::competitor::{Name, Setup};
use crate::edge::Mode;
use crate::failure::{Failure, Result};
use crate::process::{Running, allow_open_files};
use crate::report::{Spread, Table, append_csv, write_markdown};
use crate::wrk::Wrk;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of links, each measured with the first number of connections
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    links: Vec<u64>,
    /// Measure ten million links, too; takes minutes to prepare and 3 GiB of disk
    #[arg(long)]
    ten_million: bool,
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
    links: u64,
    connections: u32,
    wrk: Wrk,
    rounds: Vec<Round>,
}

const TEN_MILLION: u64 = 10_000_000;
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 512;

const CSV_HEADER: &str =
    "mode,competitor,links,connections,round,requests,requests_per_second,answering_us,busy,client_busy";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.scratch.join(format!("growth-{}", std::process::id()));
    let connections_max = arguments.connections.iter().copied().max().unwrap_or_default();
    allow_open_files(u64::from(connections_max) + OTHER_FILES)?;
    let mut links = arguments.links.clone();
    links.extend(arguments.ten_million.then_some(TEN_MILLION));
    let mut servers = start(arguments, &links, &scratch)?;
    let mut cases = cases(arguments, &links, &scratch)?;
    for round in 0..=arguments.rounds {
        for case in &mut cases {
            let Server { name, address, running } = &mut servers[case.server];
            let (name, seconds) = (name.label(), if round == 0 { WARM_UP_S } else { arguments.seconds });
            println!(
                "round {round} of {}: {name}, {} links, {} connections",
                arguments.rounds, case.links, case.connections
            );
            let measured = measure(running, *address, &case.wrk, seconds, round)?;
            if round > 0 {
                let row = csv_row(arguments, name, case, round, &measured);
                append_csv(&arguments.out, "growth", CSV_HEADER, &row)?;
                case.rounds.push(measured);
            }
        }
    }
    report(arguments, &links, &cases)?;
    drop(servers);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// The floor first, then an edge for each number of links.
fn start(arguments: &Arguments, links: &[u64], scratch: &std::path::Path) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    let names = std::iter::once((Name::Floor, 1)).chain(links.iter().map(|&links| (Name::Holdfast, links)));
    for ((name, links), port) in names.zip((18_780..).step_by(10)) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let setup = Setup {
            campaign: Campaign { links, targets: Targets::Distinct },
            mode: arguments.mode,
            holdfast: arguments.holdfast.as_deref(),
            scratch: scratch.join(links.to_string()),
        };
        servers.push(Server { name, address, running: setup.start(name, address)? });
    }
    Ok(servers)
}

/// Every case's cost is compared with the first case of the same server name: few links, few connections.
fn cases(arguments: &Arguments, links: &[u64], scratch: &std::path::Path) -> Result<Vec<Case>> {
    let (Some(&links_first), Some(&connections_first)) = (links.first(), arguments.connections.first())
    else {
        return Err(Failure::new("name at least one number of links and one of connections"));
    };
    let case = |server, links, connections| -> Result<Case> {
        let campaign = Campaign { links, targets: Targets::Distinct };
        let wrk = Wrk::new(scratch, &campaign, connections)?;
        Ok(Case { server, links, connections, wrk, rounds: Vec::new() })
    };
    let mut cases = Vec::new();
    for &connections in &arguments.connections {
        cases.push(case(0, links_first, connections)?);
        cases.push(case(1, links_first, connections)?);
    }
    for (edge, &links) in links.iter().enumerate().skip(1) {
        cases.push(case(edge + 1, links, connections_first)?);
    }
    Ok(cases)
}

fn csv_row(arguments: &Arguments, name: &str, case: &Case, round: u64, measured: &Round) -> String {
    format!(
        "{},{name},{},{},{round},{},{:.0},{:.3},{:.3},{:.3}",
        arguments.mode.label(),
        case.links,
        case.connections,
        measured.load.requests,
        measured.requests_per_second(),
        measured.answering_us(),
        measured.busy(),
        measured.load.client_busy,
    )
}

fn report(arguments: &Arguments, links: &[u64], cases: &[Case]) -> Result<()> {
    let find = |server: usize, links: u64, connections: u32| {
        cases
            .iter()
            .find(|case| (case.server.min(1), case.links, case.connections) == (server, links, connections))
    };
    let [floor, holdfast, ..] = cases else { unreachable!("the first two cases are always there") };
    let costs = |case: &Case| Spread::of(case.rounds.iter().map(Round::answering_us)).text(2);
    let mut by_links = Table::new(&["links", "CPU per click, µs", "× the first", "clicks/s"]);
    for &links in links {
        let Some(case) = find(1, links, holdfast.connections) else { continue };
        by_links.row(&[
            links.to_string(),
            costs(case),
            ratio(&case.rounds, &holdfast.rounds).text(2),
            Spread::of(case.rounds.iter().map(Round::requests_per_second)).text(0),
        ]);
    }
    let mut by_connections = Table::new(&[
        "connections",
        "CPU per click, µs",
        "× the first",
        "clicks/s",
        "floor, µs",
        "floor × the first",
        "× floor",
    ]);
    for &connections in &arguments.connections {
        let found = find(1, holdfast.links, connections).zip(find(0, holdfast.links, connections));
        let Some((case, beside)) = found else { continue };
        by_connections.row(&[
            connections.to_string(),
            costs(case),
            ratio(&case.rounds, &holdfast.rounds).text(2),
            Spread::of(case.rounds.iter().map(Round::requests_per_second)).text(0),
            costs(beside),
            ratio(&beside.rounds, &floor.rounds).text(2),
            ratio(&case.rounds, &beside.rounds).text(2),
        ]);
    }
    let body = format!("{}\n{}", by_links.text(), by_connections.text());
    let mode = arguments.mode.label();
    let method = format!(
        "CPU per click as scenario `click` takes it, journal in `{mode}` mode, clicks on random links, {} rounds of \
         {} s in turn, each begun when the one before it is quiet; server and wrk on one core each. The numbers of \
         links are measured with {} connections, the numbers of connections with {} links. \"× the first\" is the \
         median of each round's ratio to the first number's figure of the same round, in brackets the least and the \
         most. wrk keeps all connections busy: with ten thousand, it waits for each of them in turn, and the kernel's \
         part grows for everybody, as the floor shows. The floor knows no links.",
        arguments.rounds, arguments.seconds, holdfast.connections, holdfast.links,
    );
    println!("\n{body}");
    write_markdown(&arguments.out, &format!("growth-{mode}"), "Growth", &method, &body)
}
