//! Scenario `disk`: bytes that a hit takes on disk once its segment is compressed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::campaign::{Campaign, Targets};
use crate::deliver::Waiting;
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::report::{Spread, Table, keep_row, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many hits are recorded, at least
    #[arg(long, default_value_t = 1_500_000)]
    events: u64,
    /// How many links the campaign has
    #[arg(long, default_value_t = 100_000)]
    links: u64,
    /// How often it is measured, each time with a journal of its own
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// The size at which a segment is full, when not the default
    #[arg(long)]
    segment: Option<String>,
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

/// What the segments of one kind hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sealed {
    segments: u64,
    bytes: u64,
    events: u64,
}

impl Sealed {
    fn bytes_per_event(&self) -> f64 {
        self.bytes as f64 / self.events as f64
    }
}

const PATIENCE: Duration = Duration::from_secs(120);
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18_680);
/// Where a segment's header has the first sequence (`docs/journal.md`).
const FIRST_SEQUENCE: std::ops::Range<usize> = 40..48;
const CSV_HEADER: &str = "links,round,segments,events,bytes,bytes_per_event";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binary = edge::binary(arguments.holdfast.as_deref())?;
    let scratch = arguments.scratch.join(format!("disk-{}", std::process::id()));
    let mut table = Table::new(&["round", "segments", "events", "bytes", "bytes per event"]);
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let folder = scratch.join(round.to_string());
        let sealed = measure(arguments, &binary, &folder, round)?;
        let Sealed { segments, bytes, events } = sealed;
        let per_event = sealed.bytes_per_event();
        println!("round {round} of {}: {per_event:.1} B per event", arguments.rounds);
        let row = format!("{},{round},{segments},{events},{bytes},{per_event:.3}", arguments.links);
        keep_row("disk", CSV_HEADER, &row);
        table.row(&[
            round.to_string(),
            segments.to_string(),
            events.to_string(),
            bytes.to_string(),
            format!("{per_event:.1}"),
        ]);
        rounds.push(per_event);
        fs::remove_dir_all(&folder).map_err(Failure::at(format!("cannot remove {}", folder.display())))?;
    }
    println!("\n{}", table.text());
    let method = format!(
        "At least {} clicks on {} links in random order while a window keeps the database away; when the edge is \
         quiet, the bytes of all sealed (compressed) segments are divided by the events in them. The one live \
         segment, which is as large as it will be when full, and the spare ones come on top: a constant. Median {} \
         B. Kind to Holdfast: all clicks come from one address, with one user agent and one referrer, without a query, for \
         one campaign of one host, and each link is clicked about fifteen times; those of people differ, and \
         compress less. No figure of theirs is known.",
        arguments.events,
        arguments.links,
        Spread::of(rounds).text(1),
    );
    write_results(&arguments.out, "disk", "Bytes per event on disk", &method, table.text())?;
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn measure(arguments: &Arguments, binary: &Path, folder: &Path, round: u64) -> Result<Sealed> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let edge = Edge::prepare(binary, &folder.join("holdfast"), &campaign, Mode::Power, ADDRESS)?;
    if let Some(segment) = &arguments.segment {
        edge.add_journal_settings(&format!("segment = \"{segment}\"\n"))?;
    }
    let waiting = Waiting::pile_up(arguments.events, &edge, &campaign, ADDRESS, folder, round)?;
    let sealed =
        sealed(&edge.data().join("journal")).map_err(Failure::at("cannot read the journal's segments"))?;
    waiting.stop(PATIENCE)?;
    if sealed.events == 0 {
        return Err(Failure::new(format!("{} events fill no segment: more are needed", arguments.events)));
    }
    Ok(sealed)
}

/// Of all journals in the folder.
fn sealed(journals: &Path) -> io::Result<Sealed> {
    let mut all = Sealed::default();
    for journal in fs::read_dir(journals)? {
        let journal = journal?;
        if !journal.file_type()?.is_dir() {
            continue;
        }
        let mut segments = Vec::new();
        for file in fs::read_dir(journal.path())? {
            let path = file?.path();
            let is_sealed = match path.extension().and_then(|ending| ending.to_str()) {
                Some("zlog") => true,
                Some("log") => false,
                _ => continue,
            };
            let bytes = fs::metadata(&path)?.len();
            segments.push((first_sequence(&path)?, is_sealed.then_some(bytes)));
        }
        segments.sort_unstable();
        for pair in segments.windows(2) {
            if let [(first, Some(bytes)), (next, _)] = *pair {
                all.segments += 1;
                all.bytes += bytes;
                all.events += next - first;
            }
        }
    }
    Ok(all)
}

fn first_sequence(segment: &Path) -> io::Result<u64> {
    let mut header = [0; FIRST_SEQUENCE.end];
    io::Read::read_exact(&mut fs::File::open(segment)?, &mut header)?;
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&header[FIRST_SEQUENCE]);
    Ok(u64::from_le_bytes(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_segment_holds_what_comes_before_the_next_ones_first() {
        let folder = std::env::temp_dir().join(format!("disk-{}", std::process::id()));
        let journal = folder.join("journal");
        fs::create_dir_all(&journal).expect("is made");
        for (name, first, bytes) in [("1.zlog", 1_u64, 100), ("2.zlog", 11, 60), ("3.log", 31, 4096)] {
            let mut file = vec![0; bytes];
            file[FIRST_SEQUENCE].copy_from_slice(&first.to_le_bytes());
            fs::write(journal.join(name), file).expect("is written");
        }
        let found = sealed(&folder);
        fs::remove_dir_all(&folder).expect("is there");
        assert_eq!(found.expect("is read"), Sealed { segments: 2, bytes: 160, events: 30 });
    }
}
