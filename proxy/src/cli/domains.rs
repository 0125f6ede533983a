//! `holdfast domains`: customers' domains in and out of the database, and how they stand.

mod check;
mod format;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use super::Format;
use super::client::Client;
use super::{Configured, Failure, Running, output, serve};
use crate::admin::status::Domain;
use crate::config::Config;
use crate::database::{self, Access, Database, DomainRow, Source};
use crate::links::domains::{self, Row};
use crate::respond::brand::Overrides;
use crate::route::HostPattern;
use check::Check;

/// Commands about customers' domains.
#[derive(Clone, Debug, Subcommand)]
pub enum Domains {
    /// Bring domains from a CSV, TSV or NDJSON file into the database
    Import(Import),
    /// Write all domains of the database to stdout
    Export(Export),
    /// List the domains that the running edge knows, and why some are not served
    List(Running),
    /// Check where the domains' DNS leads, and that a certificate is there
    Check(Check),
}

/// Arguments of `domains import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The file; its ending tells the format unless --format does
    file: PathBuf,
    #[command(flatten)]
    configured: Configured,
    /// The file's format
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Import the good rows and pass over the bad ones
    #[arg(long)]
    skip_bad: bool,
}

/// Arguments of `domains export`.
#[derive(Args, Clone, Debug)]
pub struct Export {
    #[command(flatten)]
    configured: Configured,
    /// The format to write
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
}

/// Rows written in one transaction.
const CHUNK_ROWS: usize = 2_000;
/// Faults printed one by one.
const FAULTS_MAX: usize = 100;
/// How long a command waits for a locked database.
const PATIENCE: Duration = Duration::from_secs(30);

impl Domains {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Import(import) => import.run(),
            Self::Export(export) => export.run(),
            Self::List(running) => list(&running),
            Self::Check(check) => check.run(),
        }
    }
}

impl Import {
    /// Checks the whole file, then writes its rows in short transactions; doing it again changes nothing.
    fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let Some(format) = self.format.or_else(|| Format::by_ending(&self.file)) else {
            return Err(Failure::Other(format!("{}: name its format by --format", self.file.display())));
        };
        let mut rows: Vec<DomainRow> = Vec::new();
        let mut lines: HashMap<Box<str>, u64> = HashMap::new();
        let mut bad = 0;
        format::read(&self.file, format, &mut |line, row| {
            let checked = row.and_then(|row| {
                let host = check_row(&row, &config)?;
                match lines.entry(host.clone()) {
                    Entry::Occupied(first) => Err(format!("{host} stands in line {}, too", first.get())),
                    Entry::Vacant(free) => {
                        free.insert(line);
                        Ok(DomainRow { host: host.into(), ..row })
                    }
                }
            });
            match checked {
                Ok(row) => rows.push(row),
                Err(fault) => {
                    bad += 1;
                    if bad <= FAULTS_MAX {
                        output::note(format_args!("{}:{line}: {fault}", self.file.display()));
                    }
                }
            }
        })?;
        if bad > FAULTS_MAX {
            output::note(format_args!("… and {} more", bad - FAULTS_MAX));
        }
        if bad > 0 && !self.skip_bad {
            return Err(Failure::Other(format!(
                "{}: {} cannot be imported, so nothing was; mend what is named or pass over it with --skip-bad",
                self.file.display(),
                output::count(bad as u64, "row")
            )));
        }
        let mut database = open(&config.database.source, Access::ReadWrite)?;
        database
            .migrate(config.database.migrate)
            .map_err(|error| Failure::of("the database cannot take domains", &error))?;
        let (mut inserted, mut updated, mut unchanged) = (0, 0, 0);
        for chunk in rows.chunks(CHUNK_ROWS) {
            let done = database
                .import_domains(chunk)
                .map_err(|error| Failure::of("the import stopped; run it again to go on", &error))?;
            inserted += done.inserted;
            updated += done.updated;
            unchanged += done.unchanged;
        }
        output::line(format_args!(
            "{} read: {inserted} new, {updated} changed, {unchanged} as before; {} passed over",
            output::count(rows.len() as u64, "domain"),
            output::count(bad as u64, "row")
        ));
        Ok(())
    }
}

/// Holds a row against what an edge with this configuration would serve; its host in its one spelling.
fn check_row(row: &DomainRow, config: &Config) -> Result<Box<str>, String> {
    let host = domains::check(&Row::from(row)).map_err(|fault| format!("host {:?}: {fault}", row.host))?;
    let Some(site) = config.sites.iter().find(|site| site.name == row.site) else {
        let known: Vec<_> = config.sites.iter().map(|site| format!("{:?}", site.name)).collect();
        return Err(format!(
            "site {:?} is none of the configuration; allowed: {}",
            row.site,
            known.join(", ")
        ));
    };
    let exact = HostPattern::Exact(host.as_bytes().into());
    if let Some(owner) = config.sites.iter().find(|site| site.hosts.contains(&exact)) {
        return Err(format!("host {host} stands in the configuration, as one of site {:?}", owner.name));
    }
    let brand = if row.brand.trim() == "{}" { "" } else { row.brand.trim() };
    Overrides::dress(&site.brand, brand).map_err(|fault| format!("brand: {fault}"))?;
    Ok(host)
}

impl Export {
    fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let mut database = open(&config.database.source, Access::ReadOnly)?;
        let failed = |error: &dyn std::error::Error| Failure::of("the export is not complete", error);
        let mut rows = Vec::new();
        let each = &mut |row: DomainRow| {
            if !row.deleted {
                rows.push(row);
            }
            Ok(())
        };
        database.domains(None, each).map_err(|unread| failed(&unread.into_error()))?;
        let written = format::write(io::stdout().lock(), self.format, rows.iter());
        match written {
            // Whoever read it has had enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure::of("cannot write", &error)),
        }
    }
}

fn open(source: &Source, access: Access) -> Result<Database, Failure> {
    database::open(source, access, PATIENCE).map_err(|error| Failure::of("cannot use the database", &error))
}

/// The domains that the running edge knows.
fn known(running: &Running) -> Result<Vec<Domain>, Failure> {
    serde_json::from_value(Client::find(running)?.look("/domains")?)
        .map_err(|error| Failure::of("the edge is of another release", &error))
}

fn list(running: &Running) -> Result<(), Failure> {
    let domains = known(running)?;
    if running.json {
        output::json(&domains);
        return Ok(());
    }
    if domains.is_empty() {
        output::line("no domains");
        return Ok(());
    }
    let mut table = output::Table::new(&["host", "site", "namespace", "state", ""]);
    for domain in domains {
        table.row([domain.host, domain.site, domain.namespace, domain.state, domain.reason]);
    }
    table.print();
    Ok(())
}
