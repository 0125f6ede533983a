//! Scenario `memory`: resident bytes per link, from the difference between a small and a large table.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::competitor::Name;
use crate::failure::{Failure, Result};
use crate::probe::wait_for_redirect;
use crate::process::Memory;
use crate::report::{Spread, Table, keep_row, write_results};
use crate::start::prepare;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many links the large table has; the small one has a tenth
    #[arg(long, default_value_t = 1_000_000)]
    links: u64,
    /// How often each is started
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Who is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "holdfast,nginx,haproxy")]
    competitors: Vec<Name>,
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

/// Who has which links in memory.
struct Subject {
    name: Name,
    targets: Targets,
    /// Of the small table and of the large one, a value for each round.
    small: Vec<Memory>,
    large: Vec<Memory>,
}

const PATIENCE: Duration = Duration::from_secs(120);
const MIB: f64 = 1_048_576.0;
const CSV_HEADER: &str = "links,targets,competitor,round,resident_bytes,peak_bytes";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.scratch.join(format!("memory-{}", std::process::id()));
    let mut subjects = Vec::new();
    for &name in &arguments.competitors {
        if !name.is_available() {
            continue;
        }
        for targets in [Targets::Distinct, Targets::Repeating] {
            let [small, large] = [arguments.links / 10, arguments.links].map(|links| {
                let folder = scratch.join(format!("{}-{}-{links}", name.label(), targets.label()));
                measure(arguments, name, &folder, Campaign { links, targets })
            });
            subjects.push(Subject { name, targets, small: small?, large: large? });
        }
    }
    report(arguments, &subjects)?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

/// Of each start.
fn measure(arguments: &Arguments, name: Name, folder: &Path, campaign: Campaign) -> Result<Vec<Memory>> {
    let Campaign { links, targets } = campaign;
    let (label, targets) = (name.label(), targets.label());
    println!("preparing {label} with {links} links, {targets} targets");
    let address = SocketAddr::from(([127, 0, 0, 1], 18_280));
    let start = prepare(arguments.holdfast.as_deref(), name, folder, &campaign, address)?;
    let mut measured = Vec::new();
    for round in 1..=arguments.rounds {
        let mut running = start()?;
        wait_for_redirect(&mut running, address, &campaign, links - 1, PATIENCE)?;
        running.wait_until_quiet(PATIENCE)?;
        let memory = running.memory()?;
        running.stop(PATIENCE)?;
        let row =
            format!("{links},{targets},{label},{round},{},{}", memory.resident_bytes, memory.peak_bytes);
        keep_row("memory", CSV_HEADER, &row);
        measured.push(memory);
    }
    fs::remove_dir_all(folder).map_err(Failure::at(format!("cannot remove {}", folder.display())))?;
    Ok(measured)
}

fn report(arguments: &Arguments, subjects: &[Subject]) -> Result<()> {
    let mut table =
        Table::new(&["", "targets", "bytes per link", "at the peak", "resident with all links, MiB"]);
    for Subject { name, targets, small, large } in subjects {
        let per_link = |of: fn(&Memory) -> u64| {
            let more = arguments.links - arguments.links / 10;
            let pairs = small.iter().zip(large);
            Spread::of(pairs.map(|(small, large)| (of(large) as f64 - of(small) as f64) / more as f64))
        };
        let resident = Spread::of(large.iter().map(|memory| memory.resident_bytes as f64 / MIB));
        table.row(&[
            name.label(),
            targets.label(),
            &per_link(|memory| memory.resident_bytes).text(1),
            &per_link(|memory| memory.peak_bytes).text(1),
            &format!("{:.0}", resident.median),
        ]);
    }
    println!("\n{}", table.text());
    let method = format!(
        "The difference in memory between {} and {} links, divided by the difference in links; {} starts each, quiet. \
         Holdfast starts from its snapshot with the database away. \"Peak\" is the most since the start. What processes \
         of one server share counts once. Medians, in brackets the least and the most.",
        arguments.links,
        arguments.links / 10,
        arguments.rounds,
    );
    write_results(&arguments.out, "memory", "Memory per link", &method, table.text())
}
