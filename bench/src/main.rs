//! Measures Holdfast beside the floor and its peers, in turn, in one run, on this machine.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "to measure is to read the clock")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its purpose")]

mod admin;
mod bare;
mod burst;
mod campaign;
mod charts;
mod click;
mod client;
mod cluster;
mod compare;
mod competitor;
mod deliver;
mod disk;
mod edge;
mod failure;
mod floor;
mod growth;
mod h2load;
mod handshake;
mod haproxy;
mod idle;
mod journal;
mod kinds;
mod log_reader;
mod machine;
mod memory;
mod model;
mod nginx;
mod nginx_lua;
mod outage;
mod peer;
mod preload;
mod probe;
mod process;
mod rate;
mod report;
mod results;
mod slow_disk;
mod start;
mod steps;
mod suite;
mod svg;
mod swap;
mod tape;
mod wrk;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::tape::{Promise, Tape};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Every scenario in turn, and what they need installed where that may be done
    All(suite::Arguments),
    /// Draw the charts anew from the results, without measuring
    Charts(charts::Arguments),
    /// Whether two complete runs give the same ranking
    Compare(compare::Arguments),
    /// Keep-alive clicks: CPU per request, throughput and latency
    Click(click::Arguments),
    /// From the start of the process to the first redirect, with the database moved away
    Start(start::Arguments),
    /// Memory per link
    Memory(memory::Arguments),
    /// Delivery into a database beside its own tool with the same rows
    Deliver(deliver::Arguments),
    /// What each step of a click takes by itself, and how much one committer takes
    Steps(steps::Arguments),
    /// Bytes per event on disk, once compressed
    Disk(disk::Arguments),
    /// How many edges and cores 1, 10 and 100 billion clicks a month need, from the recorded results
    Model(model::Arguments),
    /// A complete load of the links from PostgreSQL beside COPY, and the memory that it takes
    Preload(preload::Arguments),
    /// Clicks with PostgreSQL up, killed and hung
    Outage(outage::Arguments),
    /// Clicks on fresh TLS connections, full and resumed, and memory per idle secured connection
    Handshake(handshake::Arguments),
    /// What recording costs: no journal, process and power, on this disk and on a slow one
    Journal(journal::Arguments),
    /// Requests that are no plain hit: pixels, misses, looked-up links, fresh connections, HTTP/2
    Kinds(kinds::Arguments),
    /// Memory per idle keep-alive connection
    Idle(idle::Arguments),
    /// Latency at a fixed rate, counted from when each click was to be sent
    Rate(rate::Arguments),
    /// The hour after a mailing, at twice the capacity: what is answered, how late, and what is delivered
    Burst(burst::Arguments),
    /// A new table of links and a new configuration under load: failed clicks and latency around them
    Swap(swap::Arguments),
    /// CPU per click with more links and with more connections
    Growth(growth::Arguments),
    /// Run the responder that does no work, to be measured by hand
    #[command(hide = true)]
    Floor {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
        /// Record about 100 bytes a request into this file before answering
        #[arg(long)]
        tape: Option<PathBuf>,
        /// What a recorded answer promises
        #[arg(long, value_enum, default_value_t = Promise::Synced)]
        promise: Promise,
    },
    /// Read a log from a datagram socket into a file
    #[command(hide = true)]
    LogReader {
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        file: PathBuf,
    },
    /// Run hyper with nothing behind it, to be measured by hand
    #[command(hide = true)]
    Bare {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    let Err(failure) = run(Arguments::parse().scenario) else { return ExitCode::SUCCESS };
    eprint!("bench: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn run(scenario: Scenario) -> failure::Result<()> {
    match scenario {
        Scenario::All(arguments) => suite::run(&arguments),
        Scenario::Charts(arguments) => charts::run(&arguments),
        Scenario::Compare(arguments) => compare::run(&arguments),
        Scenario::Click(arguments) => click::run(&arguments),
        Scenario::Start(arguments) => start::run(&arguments),
        Scenario::Memory(arguments) => memory::run(&arguments),
        Scenario::Deliver(arguments) => deliver::run(&arguments),
        Scenario::Steps(arguments) => steps::run(&arguments),
        Scenario::Disk(arguments) => disk::run(&arguments),
        Scenario::Model(arguments) => model::run(&arguments),
        Scenario::Preload(arguments) => preload::run(&arguments),
        Scenario::Outage(arguments) => outage::run(&arguments),
        Scenario::Handshake(arguments) => handshake::run(&arguments),
        Scenario::Journal(arguments) => journal::run(&arguments),
        Scenario::Kinds(arguments) => kinds::run(&arguments),
        Scenario::Idle(arguments) => idle::run(&arguments),
        Scenario::Rate(arguments) => rate::run(&arguments),
        Scenario::Burst(arguments) => burst::run(&arguments),
        Scenario::Swap(arguments) => swap::run(&arguments),
        Scenario::Growth(arguments) => growth::run(&arguments),
        Scenario::Floor { listen, tape, promise } => tape
            .map(|path| Tape::create(&path, promise))
            .transpose()
            .and_then(|tape| floor::serve(listen, tape)),
        Scenario::LogReader { socket, file } => log_reader::serve(&socket, &file),
        Scenario::Bare { listen } => bare::serve(listen),
    }
}
