//! The command line: what each command is called, what it takes, and where it goes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::causes::chain;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod certs;
pub mod client;
pub mod demo;
pub mod domains;
pub mod init;
pub mod journal;
pub mod links;
pub mod migrate;
pub mod output;
pub mod running;
pub mod serve;

/// Holdfast keeps the links in sent email working, whatever happens to the database.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, long_about = None, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the main job with nothing to set up: a sample campaign on 127.0.0.1:8080
    Demo(demo::Demo),
    /// Make a data folder, an embedded database and a commented configuration to start from
    Init(init::Init),
    /// Run the proxy
    Serve(serve::Serve),
    /// Report every fault of a configuration at once
    Check(serve::Check),
    /// Make Holdfast's tables in the database, or bring them up to date
    Migrate(migrate::Migrate),
    /// Bring links into the database and look at them
    #[command(subcommand)]
    Links(links::Links),
    /// Customers' domains: bring them into the database, look at them, check their DNS and certificates
    #[command(subcommand)]
    Domains(domains::Domains),
    /// The certificates of the running edge
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Planned maintenance by hand, on the running edge
    #[command(subcommand)]
    Window(running::Window),
    /// Apply the changed configuration to the running edge, whole or not at all
    Reload(Running),
    /// One screen of how the running edge is
    Status(Running),
    /// Look into a journal without touching it
    #[command(subcommand)]
    Journal(journal::Journal),
    /// Delivery of the journal to the database
    #[command(subcommand)]
    Deliver(running::Deliver),
    /// Hold journals and database side by side
    Reconcile(journal::Reconcile),
}

/// How to find the configuration.
#[derive(Args, Clone, Debug)]
pub struct Configured {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "holdfast.toml")]
    pub config: PathBuf,
}

/// How to find the running edge, and how to print what it says.
#[derive(Args, Clone, Debug)]
pub struct Running {
    /// The configuration file of the edge; its `admin.listen` says where to ask
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The edge's admin listener, instead of the configuration's [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// The file with the admin listener's token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A format of rows in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated, with a header
    Csv,
    /// Tab-separated, with a header
    Tsv,
    /// One JSON object per line
    Ndjson,
}

impl Format {
    /// The format that a file's ending tells.
    fn by_ending(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// Why a command ended without doing what was asked; printed to stderr with its causes.
#[derive(Debug)]
pub enum Failure {
    /// The configuration has faults: exit 78, as sysexits' EX_CONFIG.
    Configuration(String),
    /// Anything else: exit 1.
    Other(String),
    /// What was looked for is not there, or what was checked is not well: exit 3, already printed.
    /// A wrong argument is 2, by clap.
    Findings,
}

impl Failure {
    /// A failure with what was tried and the error's whole chain of causes.
    pub fn of(tried: &str, error: &dyn std::error::Error) -> Self {
        Self::Other(format!("{tried}: {}", chain(error)))
    }
}

impl Cli {
    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Demo(demo) => demo.run(),
            Command::Init(init) => init.run(),
            Command::Serve(serve) => serve.run(),
            Command::Check(check) => check.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Links(links) => links.run(),
            Command::Domains(domains) => domains.run(),
            Command::Certs(certs) => certs.run(),
            Command::Window(window) => window.run(),
            Command::Reload(running) => running::reload(&running),
            Command::Status(running) => running::status(&running),
            Command::Journal(journal) => journal.run(),
            Command::Deliver(deliver) => deliver.run(),
            Command::Reconcile(reconcile) => reconcile.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Configuration(text)) => {
                output::error(&text);
                ExitCode::from(78)
            }
            Err(Failure::Other(text)) => {
                output::error(&text);
                ExitCode::FAILURE
            }
            Err(Failure::Findings) => ExitCode::from(3),
        }
    }
}
