//! Scenario `start`: from the start of the process to the first redirect, while the database is away.
//!
//! Holdfast starts from its snapshot, nginx and HAProxy from their configurations; the page cache is warm for all.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::competitor::Name;
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::haproxy::Haproxy;
use crate::machine::{TEN_MILLION, ten_million_fit};
use crate::nginx::Nginx;
use crate::probe::wait_for_redirect;
use crate::process::{Cores, Running};
use crate::report::{Spread, Table, keep_row, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the campaign has
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// Start Holdfast with ten million links, too, if memory allows it; takes minutes to prepare and 3 GiB of disk
    #[arg(long)]
    ten_million: bool,
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

/// Starts a program with its links, again and again.
pub(crate) type Start = Box<dyn Fn() -> Result<Running>>;

/// One program with its links, ready to be started.
struct Prepared {
    name: Name,
    campaign: Campaign,
    address: SocketAddr,
    start: Start,
    starts_ms: Vec<f64>,
}

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.scratch.join(format!("start-{}", std::process::id()));
    let mut prepared = prepare_all(arguments, &scratch)?;
    for round in 1..=arguments.rounds {
        for one in &mut prepared {
            let start_ms = one.start()?;
            let (name, links) = (one.name.label(), one.campaign.links);
            println!("round {round} of {}: {name}, {links} links, {start_ms:.0} ms", arguments.rounds);
            let row = format!("{links},{},{name},{round},{start_ms:.1}", arguments.targets.label());
            keep_row("start", "links,targets,competitor,round,start_ms", &row);
            one.starts_ms.push(start_ms);
        }
    }
    let mut table = Table::new(&["", "links", "start to first redirect, ms"]);
    for one in &prepared {
        let spread = Spread::of(one.starts_ms.iter().copied());
        table.row(&[one.name.label(), &one.campaign.links.to_string(), &spread.text(0)]);
    }
    println!("\n{}", table.text());
    let method = format!(
        "Links with {} targets, {} starts each in turn, not pinned to a core. Holdfast's database is moved away before; \
         the clock runs from the start of the process to the answer for the last link. Medians, in brackets the least and \
         the most.",
        arguments.targets.label(),
        arguments.rounds,
    );
    write_results(&arguments.out, "start", "Start to first redirect", &method, table.text())?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Everybody with the links of the campaign, and Holdfast with ten million.
fn prepare_all(arguments: &Arguments, scratch: &Path) -> Result<Vec<Prepared>> {
    let mut wanted = vec![(Name::Holdfast, arguments.links)];
    wanted.extend([Name::Nginx, Name::Haproxy].map(|name| (name, arguments.links)));
    if arguments.ten_million && ten_million_fit() {
        wanted.push((Name::Holdfast, TEN_MILLION));
    }
    let mut prepared = Vec::new();
    for ((name, links), port) in wanted.into_iter().zip((18_180..).step_by(10)) {
        if !name.is_available() {
            continue;
        }
        println!("preparing {} with {links} links", name.label());
        let campaign = Campaign { links, targets: arguments.targets };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let folder = scratch.join(format!("{}-{links}", name.label()));
        let start = prepare(arguments.holdfast.as_deref(), name, &folder, &campaign, address)?;
        prepared.push(Prepared { name, campaign, address, start, starts_ms: Vec::new() });
    }
    Ok(prepared)
}

/// Gives Holdfast, nginx or HAProxy its links, all that a start of it reads: Holdfast its snapshot, and its database
/// is taken away.
pub(crate) fn prepare(
    holdfast: Option<&Path>,
    name: Name,
    folder: &Path,
    campaign: &Campaign,
    address: SocketAddr,
) -> Result<Start> {
    Ok(match name {
        Name::Holdfast => {
            let edge = Edge::prepare(&edge::binary(holdfast)?, folder, campaign, Mode::Power, address)?;
            edge.settle_and_take_database_away(campaign)?;
            Box::new(move || edge.start(Cores::All))
        }
        Name::Nginx => {
            let nginx = Nginx::prepare(folder, campaign, address)?;
            Box::new(move || nginx.start(Cores::All))
        }
        Name::Haproxy => {
            let haproxy = Haproxy::prepare(folder, campaign, address)?;
            Box::new(move || haproxy.start(Cores::All))
        }
        _ => return Err(Failure::new(format!("{} has no links to start with", name.label()))),
    })
}

impl Prepared {
    /// Starts it, waits for its last link's redirect, ends it; milliseconds.
    fn start(&self) -> Result<f64> {
        let begin = Instant::now();
        let mut running = (self.start)()?;
        let Campaign { links, .. } = self.campaign;
        let redirected = wait_for_redirect(&mut running, self.address, &self.campaign, links - 1, PATIENCE)?;
        running.stop(PATIENCE)?;
        Ok((redirected - begin).as_secs_f64() * 1e3)
    }
}
