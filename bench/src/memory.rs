//! Scenario `memory`: resident bytes per link, from the difference between a small and a large table.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::probe::wait_for_redirect;
use crate::process::{Cores, Memory};
use crate::report::{Table, append_csv, write_markdown};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the large table has; the small one has a tenth
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
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
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let scratch = arguments.scratch.join(format!("memory-{}", std::process::id()));
    let mut table = Table::new(&["targets", "bytes per link", "at the peak", "resident with all links, MiB"]);
    for targets in [Targets::Distinct, Targets::Repeating] {
        let mut measured = Vec::new();
        for links in [arguments.links / 10, arguments.links] {
            println!("{} targets, {links} links", targets.label());
            let folder = scratch.join(format!("{}-{links}", targets.label()));
            let memory = measure(&binary, &folder, &Campaign { links, targets })?;
            let row = format!("{links},{},{},{}", targets.label(), memory.resident_bytes, memory.peak_bytes);
            append_csv(&arguments.out, "memory", "links,targets,resident_bytes,peak_bytes", &row)?;
            measured.push(memory);
        }
        let [small, large] = measured[..] else { unreachable!("two sizes were measured") };
        let per_link = |of: fn(&Memory) -> u64| {
            (of(&large) as f64 - of(&small) as f64) / (arguments.links - arguments.links / 10) as f64
        };
        table.row(&[
            targets.label(),
            &format!("{:.1}", per_link(|memory| memory.resident_bytes)),
            &format!("{:.1}", per_link(|memory| memory.peak_bytes)),
            &format!("{:.0}", large.resident_bytes as f64 / f64::from(1 << 20)),
        ]);
    }
    println!("\n{}", table.text());
    let method = format!(
        "The difference in resident memory between {} and {} links, divided by the difference in links; started \
         from the snapshot with the database away, and quiet.",
        arguments.links,
        arguments.links / 10
    );
    write_markdown(&arguments.out, "memory", "Memory per link", &method, table.text())?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn measure(binary: &std::path::Path, folder: &std::path::Path, campaign: &Campaign) -> Result<Memory> {
    let address = SocketAddr::from(([127, 0, 0, 1], 18_280));
    let edge = Edge::prepare(binary, folder, campaign, Mode::Power, address)?;
    edge.settle_and_take_database_away(campaign)?;
    let mut running = edge.start(Cores::All)?;
    wait_for_redirect(&mut running, address, campaign, campaign.links - 1, PATIENCE)?;
    running.wait_until_quiet(PATIENCE)?;
    let memory = running.memory()?;
    running.stop(PATIENCE)?;
    Ok(memory)
}
