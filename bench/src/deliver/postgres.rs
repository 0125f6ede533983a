//! Into a private PostgreSQL server, beside `psql`'s `\copy` from a text file of the very rows.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Arguments, Filled, Waiting};
use crate::campaign::{Campaign, Targets};
use crate::cluster::{ABOUT, Cluster};
use crate::competitor::QUIET_PATIENCE;
use crate::edge::{Edge, Mode};
use crate::failure::{Failure, Result};
use crate::process::{CLIENT, Cores, SERVER, output};
use crate::report::{Spread, Table, keep_row, micros, write_results};

/// One competitor's figures of one round.
struct Turn {
    filled: Filled,
    /// CPU time of the server.
    server: Duration,
    /// What `holdfast reconcile` took for the same hits.
    reconcile: Duration,
}

impl Turn {
    fn server_us(&self) -> f64 {
        micros(self.server) / self.filled.events as f64
    }

    fn writing_us(&self) -> f64 {
        micros(self.filled.writing) / self.filled.events as f64
    }
}

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18_380);
const PORT: u16 = 18_385;
const NAME: &str = "deliver-postgres";

const CSV_HEADER: &str = "round,competitor,events,seconds,events_per_second,cpu_us,writing_us,first_ms,\
    resolution_ms,server_us";

pub(super) fn run(arguments: &Arguments, binary: &Path) -> Result<()> {
    let scratch = arguments.scratch.join(format!("{NAME}-{}", std::process::id()));
    let cluster = Cluster::start(&scratch.join("postgres"), PORT, CLIENT)?;
    let mut rounds = Vec::new();
    // The first round makes the files of the server's log that all others find made.
    for round in 0..=arguments.rounds {
        let folder = scratch.join(round.to_string());
        let database = format!("round_{round}");
        cluster.create(&database)?;
        let delivered = delivery(arguments, binary, &cluster, &database, &folder, round)?;
        let copied = copy(&cluster, &database, &folder)?;
        for (name, turn) in [("holdfast", &delivered), ("\\copy", &copied)] {
            let per_second = turn.filled.per_second();
            println!("round {round} of {}: {name} {per_second:.0} events/s", arguments.rounds);
            if round > 0 {
                let row = format!("{},{:.3}", super::csv_row(round, name, &turn.filled), turn.server_us());
                keep_row(NAME, CSV_HEADER, &row);
            }
        }
        if round > 0 {
            rounds.push((delivered, copied));
        }
        cluster.remove(&database)?;
        fs::remove_dir_all(&folder).map_err(Failure::at(format!("cannot remove {}", folder.display())))?;
    }
    report(arguments, &rounds, &cluster.version()?)?;
    drop(cluster);
    fs::remove_dir_all(&scratch).map_err(Failure::at(format!("cannot remove {}", scratch.display())))
}

fn delivery(
    arguments: &Arguments,
    binary: &Path,
    cluster: &Cluster,
    database: &str,
    folder: &Path,
    round: u64,
) -> Result<Turn> {
    let campaign = Campaign { links: arguments.links, targets: Targets::Distinct };
    let url = cluster.url(database);
    let edge = Edge::prepare_on(&url, binary, &folder.join("holdfast"), &campaign, Mode::Power, ADDRESS)?;
    let waiting = Waiting::pile_up(arguments.events, &edge, &campaign, ADDRESS, folder, round)?;
    cluster.checkpoint()?;
    let before = cluster.cpu()?;
    let filled = waiting.deliver()?;
    let server = cluster.cpu()?.since(&before).total();
    waiting.edge.wait_until_quiet(QUIET_PATIENCE)?;
    let reconcile = edge.reconcile(SERVER)?;
    Ok(Turn { filled, server, reconcile })
}

/// The same rows, by `psql`, from a file that is on disk already.
fn copy(cluster: &Cluster, database: &str, folder: &Path) -> Result<Turn> {
    let file = folder.join("hits.tsv");
    let rows = "(select * from holdfast.hits order by journal, sequence)";
    let export = format!("\\copy {rows} to '{}'", file.display());
    output(&mut cluster.psql(database, &export)?, Cores::All)?;
    let written = || File::open(&file)?.sync_all();
    written().map_err(Failure::at(format!("cannot sync {}", file.display())))?;
    cluster.sql(database, "create table copied (like holdfast.hits including all)")?;
    cluster.checkpoint()?;

    let before = cluster.cpu()?;
    let begin = Instant::now();
    let mut copy = cluster.psql(database, &format!("\\copy copied from '{}'", file.display()))?;
    let (_, cpu) = output(&mut copy, SERVER)?;
    let span = begin.elapsed();
    let server = cluster.cpu()?.since(&before).total();
    // The clicks by which the edge was seen to be ready are among them.
    let events = cluster.rows(database, "copied")?;
    let of = cluster.rows(database, "holdfast.hits")?;
    if events != of {
        return Err(Failure::new(format!("{events} hits of {of} were copied")));
    }
    let cpu = cpu.total();
    let filled =
        Filled { events, span, cpu, writing: cpu, first: Duration::ZERO, resolution: Duration::ZERO };
    Ok(Turn { filled, server, reconcile: Duration::ZERO })
}

fn report(arguments: &Arguments, rounds: &[(Turn, Turn)], version: &str) -> Result<()> {
    let ratio = rounds.iter().map(|(ours, theirs)| ours.filled.per_second() / theirs.filled.per_second());
    let ratio = Spread::of(ratio);
    let mut table = Table::new(&[
        "",
        "events/s",
        "× \\copy",
        "CPU, µs per event",
        "of it writing",
        "the server's, µs per event",
        "seconds",
    ]);
    type Pick = fn(&(Turn, Turn)) -> &Turn;
    let sides: [(&str, Pick, String); 2] =
        [("holdfast", |(ours, _)| ours, ratio.text(2)), ("\\copy", |(_, theirs)| theirs, "1.00".to_owned())];
    for (name, pick, ratio) in sides {
        let figure = |of: fn(&Turn) -> f64| Spread::of(rounds.iter().map(|round| of(pick(round))));
        table.row(&[
            name.to_owned(),
            figure(|turn| turn.filled.per_second()).text(0),
            ratio,
            figure(|turn| turn.filled.cpu_us()).text(2),
            format!("{:.2}", figure(Turn::writing_us).median),
            figure(Turn::server_us).text(2),
            format!("{:.2}", figure(|turn| turn.filled.span.as_secs_f64()).median),
        ]);
    }
    let ours = |of: fn(&Filled) -> Duration| {
        Spread::of(rounds.iter().map(|(ours, _)| micros(of(&ours.filled)) / 1e3))
    };
    let method = format!(
        "At least {} hits on {} links pile up in a window; the clock runs from the order to end it until the edge's \
         metrics say that all are delivered and none lags. Nothing is subtracted: the database is tried and all \
         links are loaded anew in that time, and the first rows were seen after {} ms. The end is seen at most {} \
         ms late. Then psql copies the same rows by `\\copy` from a text file in the order of the primary key, \
         synced before, into an empty table made by `LIKE holdfast.hits INCLUDING ALL`; its clock runs while psql \
         does, connecting included. PostgreSQL {version} is the same private server for both, with {ABOUT}; it has \
         one core, Holdfast or psql the other. A checkpoint comes before each turn. {} rounds in turn, each in a \
         database of its own, after one that does not count, in which the files of the write-ahead log are made. \
         Medians, in brackets the least and the most; × is the median of the rounds' ratios. Unfair to Holdfast: it \
         decodes its journal, judges each hit, commits and syncs every batch of at most 50,000 rows with the cursor \
         and an account of the batch, counts the rows afterwards, and answers the scrapes, where psql makes one \
         transaction of bytes that it does not look into. Unfair to psql: the server parses its text, where \
         Holdfast sends binary values; and the journal is read by a thread that has the rest of the core to \
         itself, where a busy edge would share it.",
        arguments.events,
        arguments.links,
        ours(|filled| filled.first).text(0),
        ours(|filled| filled.resolution).most.ceil(),
        arguments.rounds,
    );
    let reconcile = Spread::of(rounds.iter().map(|(ours, _)| ours.reconcile.as_secs_f64()));
    let events = Spread::of(rounds.iter().map(|(ours, _)| ours.filled.events as f64)).median;
    let body = format!(
        "{}\n`holdfast reconcile` then held {:.1} million hits of the journal and the database side by side in {} s, \
         while the edge rested.\n",
        table.text(),
        events / 1e6,
        reconcile.text(1),
    );
    println!("\n{body}");
    write_results(&arguments.out, NAME, "Delivery into PostgreSQL", &method, &body)
}
