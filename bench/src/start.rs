//! Scenario `start`: from the start of the process to the first redirect, while the database is away.
//!
//! Holdfast starts from its snapshot, nginx and HAProxy from their configurations; the page cache is warm for all.
//! With ten million links most of Holdfast's start is the system's: it hands out memory that nobody used for a while.
//! So each round also measures that alone, and Holdfast again right afterwards, when the memory is there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use memmap2::{Advice, MmapMut};

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
/// So long after the last program's end the system has taken back, or given to its host, what was freed.
const MEMORY_RESTS: Duration = Duration::from_secs(5);
/// What a page has at least.
const PAGE_BYTES: usize = 4096;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let scratch = arguments.scratch.join(format!("start-{}", std::process::id()));
    let mut prepared = prepare_all(arguments, &scratch)?;
    let snapshot = snapshot_bytes(&scratch.join(folder_name(Name::Holdfast, TEN_MILLION)));
    let (mut memory_ms, mut again_ms) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        let keep = |name: &str, links: u64, ms: f64, all: &mut Vec<f64>| {
            println!("round {round} of {}: {name}, {links} links, {ms:.0} ms", arguments.rounds);
            let row = format!("{links},{},{name},{round},{ms:.1}", arguments.targets.label());
            keep_row("start", "links,targets,competitor,round,start_ms", &row);
            all.push(ms);
        };
        for one in &mut prepared {
            let start_ms = one.start()?;
            keep(one.name.label(), one.campaign.links, start_ms, &mut one.starts_ms);
        }
        let largest = prepared.iter().find(|one| one.campaign.links == TEN_MILLION);
        if let (Some(one), Some(bytes)) = (largest, snapshot) {
            thread::sleep(MEMORY_RESTS);
            keep("memory-alone", TEN_MILLION, touch(bytes)?, &mut memory_ms);
            keep("holdfast-memory-there", TEN_MILLION, one.start()?, &mut again_ms);
        }
    }
    let mut table = Table::new(&["", "links", "start to first redirect, ms"]);
    let starts = prepared.iter().map(|one| (one.name.label(), one.campaign.links, &one.starts_ms));
    let memory = [("memory of that size, first use", &memory_ms), ("holdfast, memory there", &again_ms)];
    for (name, links, all) in starts.chain(memory.map(|(name, all)| (name, TEN_MILLION, all))) {
        if !all.is_empty() {
            table.row(&[name, &links.to_string(), &Spread::of(all.iter().copied()).text(0)]);
        }
    }
    println!("\n{}", table.text());
    let method = format!(
        "Links with {} targets, {} starts each in turn, not pinned to a core. Holdfast's database is moved away before; \
         the clock runs from the start of the process to the answer for the last link. \"Memory of that size\" is a \
         program that writes a byte into each page of as much fresh memory as the snapshot of ten million links has, \
         {} s after anybody else used any; Holdfast starts once more right after it. Medians, in brackets the least \
         and the most.",
        arguments.targets.label(),
        arguments.rounds,
        MEMORY_RESTS.as_secs(),
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
        let folder = scratch.join(folder_name(name, links));
        let start = prepare(arguments.holdfast.as_deref(), name, &folder, &campaign, address)?;
        prepared.push(Prepared { name, campaign, address, start, starts_ms: Vec::new() });
    }
    Ok(prepared)
}

fn folder_name(name: Name, links: u64) -> String {
    format!("{}-{links}", name.label())
}

/// How long the newest snapshot of an edge is.
fn snapshot_bytes(folder: &Path) -> Option<u64> {
    let files = fs::read_dir(folder.join("data/links")).ok()?.filter_map(|file| file.ok()?.metadata().ok());
    files.map(|file| file.len()).max()
}

/// Takes so many bytes of memory from the system, in pages as Holdfast's tables have them, uses and frees them;
/// milliseconds.
fn touch(bytes: u64) -> Result<f64> {
    let begin = Instant::now();
    let bytes = usize::try_from(bytes).expect("a snapshot fits into memory");
    let mut memory = MmapMut::map_anon(bytes).map_err(Failure::at("cannot map memory"))?;
    // A system without huge pages says no; small ones serve as well.
    let _ = memory.advise(Advice::HugePage);
    for page in memory.chunks_mut(PAGE_BYTES) {
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    }
    std::hint::black_box(&memory);
    Ok(begin.elapsed().as_secs_f64() * 1e3)
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
