//! Scenario `start`: from the start of the process to the first redirect, while the database is away.
//!
//! Holdfast starts from its snapshot, nginx from its configuration; the page cache is warm for both.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::nginx::Nginx;
use crate::probe::wait_for_redirect;
use crate::process::{Cores, Running};
use crate::report::{Spread, Table, append_csv, write_markdown};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How often each is started
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// What the links point to
    #[arg(long, value_enum, default_value_t = Targets::Distinct)]
    targets: Targets,
    /// The Holdfast to measure; without it the workspace's is built
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Where databases and journals are kept during the run
    #[arg(long, default_value = "target/bench")]
    scratch: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let campaign = Campaign { links: arguments.links, targets: arguments.targets };
    let scratch = arguments.scratch.join(format!("start-{}", std::process::id()));
    let address = SocketAddr::from(([127, 0, 0, 1], 18_180));
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    println!("preparing {} links", arguments.links);
    let edge = Edge::prepare(&binary, &scratch.join("holdfast"), &campaign, Mode::Power, address)?;
    edge.settle_and_take_database_away(&campaign)?;
    let mut rows =
        vec![("holdfast", rounds(arguments, &campaign, address, "holdfast", || edge.start(Cores::All))?)];
    if Nginx::is_installed() {
        let nginx = Nginx::prepare(&scratch.join("nginx"), &campaign, address)?;
        rows.push(("nginx", rounds(arguments, &campaign, address, "nginx", || nginx.start(Cores::All))?));
    }

    let mut table = Table::new(&["", "start to first redirect, ms"]);
    for (name, spread) in rows {
        table.row(&[name, &spread.text(0)]);
    }
    println!("\n{}", table.text());
    let method = format!(
        "{} links with {} targets, {} starts each, not pinned to a core. Holdfast's database is moved away before; \
         the clock runs from the start of the process to the answer for the last link.",
        arguments.links,
        arguments.targets.label(),
        arguments.rounds
    );
    write_markdown(&arguments.out, "start", "Start to first redirect", &method, table.text())?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn rounds(
    arguments: &Arguments,
    campaign: &Campaign,
    address: SocketAddr,
    name: &str,
    start: impl Fn() -> Result<Running>,
) -> Result<Spread> {
    let mut spans_ms = Vec::new();
    for round in 1..=arguments.rounds {
        let begin = Instant::now();
        let mut running = start()?;
        let redirected = wait_for_redirect(&mut running, address, campaign, campaign.links - 1, PATIENCE)?;
        let span_ms = (redirected - begin).as_secs_f64() * 1e3;
        println!("round {round} of {}: {name} {span_ms:.0} ms", arguments.rounds);
        let row = format!("{},{},{name},{round},{span_ms:.1}", arguments.links, arguments.targets.label());
        append_csv(&arguments.out, "start", "links,targets,competitor,round,start_ms", &row)?;
        spans_ms.push(span_ms);
        running.stop(PATIENCE)?;
    }
    Ok(Spread::of(spans_ms))
}
