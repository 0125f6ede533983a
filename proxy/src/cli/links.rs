//! `holdfast links`: links in and out of the database, and what the edge knows of them.

mod format;

use std::collections::HashSet;
use std::error::Error as _;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

pub use super::Format;
use super::client::Client;
use super::{Configured, Failure, Running, output, serve};
use crate::causes::chain;
use crate::clock;
use crate::database::{self, Access, Database, OwnedLinkRow, Source, Stop, escape, unescape};
use crate::event::UnixMillis;
use crate::links::builder::{self, Settings};
use crate::links::domains::{self, Domains};
use crate::links::entry::Entry;
use crate::links::namespaces::Namespaces;
use crate::links::overlay::{Change, Overlay};
use crate::links::table::Table;
use crate::links::{Links as KnownLinks, Origin, Row, State, guard, log, parcel, snapshot, target};

/// Commands about links.
#[derive(Clone, Debug, Subcommand)]
pub enum Links {
    /// Bring links from a CSV, TSV or NDJSON file into the database
    Import(Import),
    /// Write all links of the database to stdout
    Export(Export),
    /// Show one link: in the database, and as the running edge knows it
    Show(Show),
    /// List the links of the database whose target cannot be approved
    Refused(Refused),
    /// Take the load that the guard holds back
    Accept(Running),
    /// Move an edge's links and customers' domains without the database
    #[command(subcommand)]
    Snapshot(Snapshot),
}

/// Arguments of `links import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The file; its ending tells the format unless --format does
    file: PathBuf,
    #[command(flatten)]
    configured: Configured,
    /// The file's format
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The namespace of rows that name none
    #[arg(long)]
    namespace: Option<String>,
    /// Import the good rows and pass over the bad ones
    #[arg(long)]
    skip_bad: bool,
    /// Make the database when there is none
    #[arg(long)]
    create: bool,
}

/// Arguments of `links export`.
#[derive(Args, Clone, Debug)]
pub struct Export {
    #[command(flatten)]
    configured: Configured,
    /// The format to write
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
}

/// Arguments of `links show`.
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// The token, as `links export` writes it
    token: String,
    /// Only this namespace
    #[arg(long)]
    namespace: Option<String>,
    #[command(flatten)]
    running: Running,
}

/// Arguments of `links refused`.
#[derive(Args, Clone, Debug)]
pub struct Refused {
    #[command(flatten)]
    configured: Configured,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Commands about snapshots.
#[derive(Clone, Debug, Subcommand)]
pub enum Snapshot {
    /// Write every link and domain that this edge knows to a file; it may be running
    Export(SnapshotFile),
    /// Take a file's links and domains as this edge's own; it must not be running
    Import(SnapshotFile),
}

/// Arguments of `links snapshot`.
#[derive(Args, Clone, Debug)]
pub struct SnapshotFile {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    configured: Configured,
}

/// Rows written in one transaction: short enough to keep delivery waiting for hundredths of a second.
const CHUNK_ROWS: usize = 2_000;
/// Faults printed one by one.
const FAULTS_MAX: u64 = 100;
/// How long a command waits for a locked database.
const PATIENCE: Duration = Duration::from_secs(30);

impl Links {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Import(import) => import.run(),
            Self::Export(export) => export.run(),
            Self::Show(show) => show.run(),
            Self::Refused(refused) => refused.run(),
            Self::Accept(running) => {
                let answer = Client::find(&running)?.act("/links/accept", &json!({}))?;
                if running.json {
                    output::json(&answer);
                } else {
                    output::line(
                        "The held load is accepted; links that it lacks go on until they were absent for links.forget_after.",
                    );
                }
                Ok(())
            }
            Self::Snapshot(Snapshot::Export(file)) => export_snapshot(&file),
            Self::Snapshot(Snapshot::Import(file)) => import_snapshot(&file),
        }
    }
}

/// How a file of links is taken.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// The namespace of rows that name none.
    pub namespace: Option<String>,
    /// Whether bad rows are passed over instead of ending the import.
    pub skip_bad: bool,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Imported {
    /// Good rows.
    pub rows: u64,
    /// Rows that were passed over.
    pub bad: u64,
    /// Targets that were repaired as browsers do.
    pub repaired: u64,
    /// Links that were new.
    pub inserted: u64,
    /// Links that were different.
    pub updated: u64,
}

impl Import {
    fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let database = config.database.source;
        let exists =
            database::exists(&database).map_err(|error| Failure::of("cannot use the database", &error))?;
        if self.create && !exists {
            database::create(&database, clock::now())
                .map_err(|error| Failure::of("cannot make the database", &error))?;
        } else if !exists {
            return Err(Failure::Other(format!(
                "there is no database {database} to import into; make it with --create, or mend `database.url`"
            )));
        }
        let Some(format) = self.format.or_else(|| Format::by_ending(&self.file)) else {
            return Err(Failure::Other(format!("{}: name its format by --format", self.file.display())));
        };
        let manner = Manner { namespace: self.namespace, skip_bad: self.skip_bad };
        let imported = import(&self.file, format, &database, &manner)?;
        output::line(format_args!(
            "{} read: {} new, {} changed, {} as before; {} repaired, {} passed over",
            output::count(imported.rows, "link"),
            imported.inserted,
            imported.updated,
            imported.rows - imported.inserted - imported.updated,
            output::count(imported.repaired, "target"),
            output::count(imported.bad, "row")
        ));
        Ok(())
    }
}

/// Validates the whole file, then brings its rows into the database in short transactions; doing it
/// again changes nothing.
///
/// # Errors
/// Every bad row with its line, before anything is written; or what the file or database says.
pub fn import(file: &Path, format: Format, database: &Source, manner: &Manner) -> Result<Imported, Failure> {
    let mut imported = Imported::default();
    let mut seen = HashSet::new();
    let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let bar = output::progress(bytes, "checking");
    let mut bad_lines = HashSet::new();
    format::read(file, format, manner.namespace.as_deref(), &mut |line, at, row| {
        bar.set_position(at);
        match row.and_then(|row| check(&row, &mut seen)) {
            Ok(repaired) => {
                imported.rows += 1;
                imported.repaired += u64::from(repaired);
            }
            Err(fault) => {
                imported.bad += 1;
                if imported.bad <= FAULTS_MAX {
                    bar.suspend(|| output::note(format_args!("{}:{line}: {fault}", file.display())));
                }
                bad_lines.insert(line);
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if imported.bad > FAULTS_MAX {
        output::note(format_args!("… and {} more", imported.bad - FAULTS_MAX));
    }
    if imported.bad > 0 && !manner.skip_bad {
        return Err(Failure::Other(format!(
            "{}: {} cannot be imported, so nothing was; mend what is named or pass over it with --skip-bad",
            file.display(),
            output::count(imported.bad, "row")
        )));
    }
    drop(seen);
    let mut database = open(database, Access::ReadWrite)?;
    let bar = output::progress(bytes, "importing");
    let mut chunk: Vec<OwnedLinkRow> = Vec::with_capacity(CHUNK_ROWS);
    format::read(file, format, manner.namespace.as_deref(), &mut |line, at, row| {
        let Ok(row) = row else { return Ok(()) };
        if bad_lines.contains(&line) {
            return Ok(());
        }
        chunk.push(row);
        if chunk.len() == CHUNK_ROWS {
            commit(&mut database, &mut chunk, &mut imported)?;
            bar.set_position(at);
        }
        Ok(())
    })?;
    commit(&mut database, &mut chunk, &mut imported)?;
    bar.finish_and_clear();
    Ok(imported)
}

fn commit(
    database: &mut Database,
    chunk: &mut Vec<OwnedLinkRow>,
    imported: &mut Imported,
) -> Result<(), Failure> {
    let done = database
        .import(chunk)
        .map_err(|error| Failure::of("the import stopped; run it again to go on", &error))?;
    imported.inserted += done.inserted;
    imported.updated += done.updated;
    chunk.clear();
    Ok(())
}

/// Holds a row against what the edge will approve; whether its target was repaired.
fn check(row: &OwnedLinkRow, seen: &mut HashSet<u128>) -> Result<bool, String> {
    let state = if row.disabled { State::Disabled } else { State::Live };
    let entry = Row {
        namespace: &row.namespace,
        token: &row.token,
        url: &row.url,
        campaign: row.campaign.as_bytes(),
        append: row.append,
        expires_at: row.expires_at,
        state,
    };
    Entry::approve(&entry, Origin::Change).map_err(|reason| reason.to_string())?;
    let repaired = target::approve(&row.url).map_err(|refused| refused.to_string())?.repaired();
    let mut hash = Xxh3::new();
    hash.update(&(row.namespace.len() as u64).to_le_bytes());
    hash.update(&row.namespace);
    hash.update(&row.token);
    if !seen.insert(hash.digest128()) {
        return Err(format!(
            "token \"{}\" stands twice in namespace \"{}\"",
            escape(&row.token),
            escape(&row.namespace)
        ));
    }
    Ok(repaired)
}

fn open(source: &Source, access: Access) -> Result<Database, Failure> {
    database::open(source, access, PATIENCE).map_err(|error| Failure::of("cannot use the database", &error))
}

impl Export {
    fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let mut database = open(&config.database.source, Access::ReadOnly)?;
        let mut writer = format::Writer::new(BufWriter::new(io::stdout().lock()), self.format);
        let mut broken = None;
        let exported = database.export(&mut |row| {
            writer.row(&row).map_err(|error| {
                broken = Some(error);
                Stop
            })
        });
        match (exported, broken) {
            // Whoever read it has had enough.
            (_, Some(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            (_, Some(error)) => Err(Failure::of("cannot write", &error)),
            (Err(error), None) => Err(Failure::of("the export is not complete", &error)),
            (Ok(_), None) => writer.finish().map_err(|error| Failure::of("cannot write", &error)),
        }
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let file = self.running.config.clone().unwrap_or_else(|| PathBuf::from("holdfast.toml"));
        let token = unescape(&self.token).into_owned();
        let config = if file.exists() { Some(serve::load(&file)?) } else { None };
        let mut rows: Vec<OwnedLinkRow> = Vec::new();
        let mut database_says = format!("not asked: there is no {}", file.display());
        if let Some(config) = &config {
            let shown = database::open(&config.database.source, Access::ReadOnly, config.database.timeout)
                .and_then(|mut database| database.show(&token));
            match shown {
                Ok(found) => {
                    ASKED.clone_into(&mut database_says);
                    rows = found;
                }
                Err(error) => database_says = format!("cannot be asked: {}", chain(&error)),
            }
        }
        rows.retain(|row| self.namespace.as_ref().is_none_or(|name| name.as_bytes() == row.namespace));
        let mut namespaces: Vec<String> =
            rows.iter().map(|row| escape(&row.namespace).into_owned()).collect();
        namespaces.extend(self.namespace.clone().filter(|name| !namespaces.contains(name)));
        let client = Client::find(&self.running)?;
        let mut found = Vec::new();
        for namespace in namespaces {
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("namespace", &namespace)
                .append_pair("token", &self.token)
                .finish();
            let edge = client
                .look(&format!("/link?{query}"))
                .unwrap_or_else(|_| json!({ "state": "no edge answers" }));
            let row = rows.iter().find(|row| escape(&row.namespace) == namespace);
            let state = match row {
                Some(row) => state_of(row, clock::now()),
                None if database_says == ASKED => "unknown",
                None => "not known",
            };
            found.push(json!({
                "namespace": namespace,
                "token": self.token,
                "edge": edge,
                "database": row.map(format::to_json),
                "database_state": state,
                "database_says": database_says,
            }));
        }
        if self.running.json {
            output::json(&found);
        } else {
            print_shown(&found, &database_says);
        }
        let known = found.iter().any(|one| !one["database"].is_null() || one["edge"]["place"].is_string());
        if known { Ok(()) } else { Err(Failure::Findings) }
    }
}

/// What `links show` says of a database that answered.
const ASKED: &str = "asked";

fn state_of(row: &OwnedLinkRow, now: UnixMillis) -> &'static str {
    match (row.deleted, row.disabled, row.expires_at) {
        (true, ..) => "deleted",
        (_, true, _) => "disabled",
        (_, _, Some(end)) if end <= now => "expired",
        _ => "live",
    }
}

fn print_shown(found: &[serde_json::Value], database_says: &str) {
    if database_says != ASKED {
        output::note(format_args!("the database {database_says}"));
    }
    if found.is_empty() {
        output::line(if database_says == ASKED {
            "no such token in the database; with --namespace the running edge is asked, too"
        } else {
            "name a --namespace to ask the running edge"
        });
        return;
    }
    let mut table = output::Table::new(&["namespace", "where", "state", "target", "expires"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    for one in found {
        let (database, edge) = (&one["database"], &one["edge"]);
        table.row([
            text(&one["namespace"]),
            "database".to_owned(),
            text(&one["database_state"]),
            text(&database["url"]),
            text(&database["expires_at"]),
        ]);
        let place =
            edge["place"].as_str().map_or_else(|| "edge".to_owned(), |place| format!("edge, {place}"));
        let end = edge["expires_at_ms"].as_u64().map(UnixMillis);
        table.row([
            text(&one["namespace"]),
            place,
            text(&edge["state"]),
            text(&edge["url"]),
            format::expires(end),
        ]);
    }
    table.print();
}

impl Refused {
    fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let mut database = open(&config.database.source, Access::ReadOnly)?;
        let mut table = output::Table::new(&["namespace", "token", "reason"]);
        let mut refused = Vec::new();
        database
            .load(&mut |row| {
                let state = if row.deleted || row.disabled { State::Disabled } else { State::Live };
                let entry = Row {
                    namespace: row.namespace,
                    token: row.token,
                    url: row.url,
                    campaign: row.campaign.as_bytes(),
                    append: row.append,
                    expires_at: row.expires_at,
                    state,
                };
                if let Err(reason) = Entry::approve(&entry, Origin::Change) {
                    let (namespace, token) =
                        (escape(row.namespace).into_owned(), escape(row.token).into_owned());
                    refused.push(
                        json!({ "namespace": namespace, "token": token, "reason": reason.to_string() }),
                    );
                    table.row([namespace, token, reason.to_string()]);
                }
                Ok(())
            })
            .map_err(|error| Failure::of("the list is not complete", &error))?;
        match (self.json, refused.is_empty()) {
            (true, _) => output::json(&refused),
            (false, true) => output::line("every link of the database can be approved"),
            (false, false) => table.print(),
        }
        Ok(())
    }
}

/// Everything on disk folded into one table, with what its snapshot says beside it; nothing where there
/// is no usable snapshot, and why each that is there is none.
fn fold(folder: &Path) -> Result<Result<(builder::Finished, snapshot::Meta), Vec<snapshot::Fault>>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of("cannot read the edge's links", error);
    let namespaces = Namespaces::default();
    let recovered =
        snapshot::load(folder, &namespaces, snapshot::Damaged::Leave).map_err(|error| failed(&error))?;
    let Some(loaded) = recovered.loaded else { return Ok(Err(recovered.faults)) };
    for fault in &recovered.faults {
        output::note(chain(fault));
    }
    let mut changes = Vec::new();
    log::replay(folder, loaded.generation, &mut |record| {
        if let (Ok(entry), Ok(namespace)) =
            (Entry::approve(&record.row, record.origin), namespaces.intern(record.row.namespace))
        {
            changes.push(Change {
                namespace,
                token: record.row.token.into(),
                entry: std::sync::Arc::new(entry),
            });
        }
    })
    .map_err(|error| failed(&error))?;
    let seed = clock::now().0;
    let links = KnownLinks::new(std::sync::Arc::new(loaded.table), Overlay::new(seed).with(changes));
    let settings = Settings {
        seed,
        memory_bytes_max: u64::MAX,
        looked_up_max: u64::MAX,
        guard: guard::Settings { forget_after: Duration::MAX, drop_max_ppm: 1_000_000 },
    };
    let finished =
        builder::fold(links, namespaces, settings, clock::now()).map_err(|error| failed(&error))?;
    Ok(Ok((finished, loaded.meta)))
}

fn export_snapshot(file: &SnapshotFile) -> Result<(), Failure> {
    let config = serve::load(&file.configured.config)?;
    let folder = config.data.join("links");
    let (finished, meta) = fold(&folder)?.map_err(|faults| {
        faults.iter().for_each(|fault| output::note(chain(fault)));
        Failure::Other(format!(
            "there is no usable snapshot of links in {}; an edge writes one when it first loads its links",
            folder.display()
        ))
    })?;
    let tried = format!("cannot write {}", file.file.display());
    let failed = |error: &dyn std::error::Error| Failure::of(&tried, error);
    let scratch = Scratch::beside(&file.file).map_err(|error| failed(&error))?;
    let mut written =
        snapshot::write(&scratch.0, 1, &finished.table, &meta).map_err(|error| failed(&error))?;
    let read = domains::file::read(&folder, snapshot::Damaged::Leave);
    for (path, why) in &read.faults {
        output::note(format_args!("{} cannot be used: {why}", path.display()));
    }
    if !read.faults.is_empty() && read.domains.is_none() {
        output::note("the export has no domains; who imports it keeps those that are there");
    }
    if let Some(domains) = &read.domains {
        written.bytes += File::options()
            .write(true)
            .open(&written.path)
            .and_then(|mut file| parcel::add(&mut file, domains))
            .map_err(|error| failed(&error))?;
    }
    std::fs::rename(&written.path, &file.file).map_err(|error| failed(&error))?;
    output::line(format_args!(
        "{}, {}",
        contents(&finished.table, read.domains.as_ref()),
        output::count(written.bytes, "byte")
    ));
    Ok(())
}

/// What a file holds, in words.
fn contents(table: &Table, domains: Option<&Domains>) -> String {
    let links = output::count(table.stats().links, "link");
    let domains = domains.map_or(0, Domains::len) as u64;
    format!("{links}, {}", output::count(domains, "domain"))
}

fn import_snapshot(file: &SnapshotFile) -> Result<(), Failure> {
    let config = serve::load(&file.configured.config)?;
    let tried = format!("cannot take {}", file.file.display());
    let _locked = crate::app::lock(&config.data).map_err(|error| match error.source() {
        // Without a cause: the folder is in use. Taking over, as `serve` may, is nothing for a file.
        None => Failure::Other(format!(
            "{tried}: an edge runs on the data folder {}; stop it first",
            config.data.display()
        )),
        Some(_) => Failure::of(&tried, &error),
    })?;
    let folder = config.data.join("links");
    let scratch = Scratch::beside(&folder.join("import")).map_err(|error| Failure::of(&tried, &error))?;
    let copy = scratch.0.join(snapshot::file_name(1));
    // Into a file of its own: what it is a copy of may be read-only.
    let domains = File::open(&file.file)
        .and_then(|mut given| {
            let mut copy = File::options().read(true).write(true).create_new(true).mode(0o600).open(&copy)?;
            io::copy(&mut given, &mut copy)?;
            parcel::take(&mut copy)
        })
        .map_err(|error| Failure::of(&tried, &error))?;
    let (finished, meta) = fold(&scratch.0)?.map_err(|faults| {
        let reason = faults.first().map_or_else(String::new, |fault| format!(": {}", chain(&fault.reason)));
        Failure::Other(format!("{tried}: `holdfast links snapshot export` did not write it{reason}"))
    })?;
    let generation = snapshot::newest_generation(&folder).map_err(|error| Failure::of(&tried, &error))? + 1;
    snapshot::write(&folder, generation, &finished.table, &meta)
        .map_err(|error| Failure::of(&tried, &error))?;
    if let Some(domains) = &domains {
        domains::file::write(&folder, domains).map_err(|error| Failure::of(&tried, &error))?;
    }
    let kept = if domains.is_none() { "; the file holds no domains, those that are here stay" } else { "" };
    output::line(format_args!(
        "this edge has {} of the file now{kept}; start it",
        contents(&finished.table, domains.as_ref())
    ));
    Ok(())
}

/// A folder that is removed when it is no longer needed.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(file: &Path) -> io::Result<Self> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let folder = file.with_file_name(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs are named `*.part` and harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a file for reading with a message that names it.
pub(super) fn open_file(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::of(&format!("cannot read {}", file.display()), &error))
}
