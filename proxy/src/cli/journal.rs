//! `holdfast journal` and `holdfast reconcile`: looks into journals, beside a running edge or without one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Configured, Failure, output, serve};
use crate::database::{self, Access, escape};
use crate::deliver::{self, JournalReport, Kept, Read, ReadFault, Source};
use crate::event::{Captures, Event, UnixMillis};
use crate::journal::disk::{Disk, FileDisk};
use crate::journal::inspect::{self, Severity};
use crate::journal::{JournalId, Sequence};
use crate::record::verdict::judge;

/// Commands about journals. None of them changes anything.
#[derive(Clone, Debug, Subcommand)]
pub enum Journal {
    /// What each journal holds
    Stat(Look),
    /// Check every byte: where damage is, what was found, what to do
    Verify(Look),
    /// Write the events as NDJSON
    Dump(Dump),
}

/// Arguments of `journal stat` and `journal verify`.
#[derive(Args, Clone, Debug)]
pub struct Look {
    /// Only this journal
    journal: Option<String>,
    #[command(flatten)]
    configured: Configured,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `journal dump`.
#[derive(Args, Clone, Debug)]
pub struct Dump {
    /// Only this journal
    journal: Option<String>,
    /// Only events after this sequence
    #[arg(long, default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    configured: Configured,
}

/// Arguments of `reconcile`.
#[derive(Args, Clone, Debug)]
pub struct Reconcile {
    #[command(flatten)]
    configured: Configured,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Journal {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Stat(look) => stat(&look),
            Self::Verify(look) => verify(&look),
            Self::Dump(dump) => dump.run(),
        }
    }
}

/// The journals of an edge on disk.
struct Folder {
    disk: FileDisk,
    path: PathBuf,
}

impl Folder {
    fn of(configured: &Configured) -> Result<Self, Failure> {
        let config = serve::load(&configured.config)?;
        Ok(Self { disk: FileDisk, path: config.journal.store.folder })
    }

    /// The journals, or the named one; none, and a remark that says so, before the first start.
    fn journals(&self, only: Option<&str>) -> Result<Vec<JournalId>, Failure> {
        if let Some(text) = only {
            let id = text.parse().map_err(|_| Failure::Other(format!("\"{text}\" is no journal id")))?;
            if !self.path.join(text).is_dir() {
                return Err(Failure::Other(format!(
                    "there is no journal {id} in {}; `holdfast journal stat` lists those that there are",
                    self.path.display()
                )));
            }
            return Ok(vec![id]);
        }
        let found = if self.path.is_dir() {
            inspect::journals(&self.disk, &self.path)
                .map_err(|error| Failure::of("cannot list the journals", &error))?
        } else {
            Vec::new()
        };
        if found.is_empty() {
            output::note(no_journal(&self.path));
        }
        Ok(found)
    }
}

fn no_journal(folder: &Path) -> String {
    format!("there is no journal in {} yet; `holdfast serve` opens one at each start", folder.display())
}

fn stat(look: &Look) -> Result<(), Failure> {
    let folder = Folder::of(&look.configured)?;
    let mut table = output::Table::new(&[
        "journal", "opened", "first", "end", "records", "segments", "bytes", "torn", "lost",
    ]);
    let mut all = Vec::new();
    for id in folder.journals(look.journal.as_deref())? {
        let stat = inspect::stat(&folder.disk, &folder.path, id)
            .map_err(|error| Failure::of(&format!("cannot read journal {id}"), &error))?;
        let lost: u64 = stat.report.gaps.iter().map(|gap| gap.last.0 + 1 - gap.first.0).sum();
        table.row([
            id.to_string(),
            opened(stat.opened_at).unwrap_or_else(|| "unreadable".to_owned()),
            stat.first.0.to_string(),
            stat.end.0.to_string(),
            stat.report.records.to_string(),
            (stat.logs + stat.sealed).to_string(),
            stat.bytes.to_string(),
            stat.report.torn_bytes.to_string(),
            lost.to_string(),
        ]);
        all.push(json!({
            "journal": id.to_string(), "edge": stat.edge, "opened_at": opened(stat.opened_at),
            "first": stat.first.0, "end": stat.end.0, "records": stat.report.records, "bytes": stat.bytes,
            "segments": stat.logs + stat.sealed, "sealed": stat.sealed,
            "torn_bytes": stat.report.torn_bytes, "lost_events": lost,
        }));
    }
    if look.json {
        output::json(&all);
    } else if !all.is_empty() {
        table.print();
    }
    Ok(())
}

fn verify(look: &Look) -> Result<(), Failure> {
    let folder = Folder::of(&look.configured)?;
    let mut damaged = false;
    let mut all = Vec::new();
    for id in folder.journals(look.journal.as_deref())? {
        let findings = inspect::verify(&folder.disk, &folder.path, id)
            .map_err(|error| Failure::of(&format!("cannot read journal {id}"), &error))?;
        for finding in &findings {
            let severity = match finding.severity {
                Severity::Damage => "damage",
                _ => "note",
            };
            damaged |= severity == "damage";
            let place = finding.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
            let file = finding.file.display();
            if !look.json {
                output::line(format_args!(
                    "{severity}: journal {id}, {file}{place}: {}\n  {}",
                    finding.found, finding.advice
                ));
            }
            all.push(json!({
                "journal": id.to_string(), "severity": severity, "file": file.to_string(),
                "offset": finding.offset, "found": finding.found, "advice": finding.advice,
            }));
        }
        if findings.is_empty() && !look.json {
            output::line(format_args!("journal {id} is whole"));
        }
    }
    if look.json {
        output::json(&all);
    }
    if damaged { Err(Failure::Findings) } else { Ok(()) }
}

impl Dump {
    fn run(self) -> Result<(), Failure> {
        let folder = Folder::of(&self.configured)?;
        for id in folder.journals(self.journal.as_deref())? {
            inspect::dump(&folder.disk, &folder.path, id, Sequence(self.after), &mut |record| {
                output::line(described(id, record.sequence, record.at, record.payload));
                ControlFlow::Continue(())
            })
            .map_err(|error| Failure::of(&format!("cannot read journal {id}"), &error))?;
        }
        Ok(())
    }
}

fn described(id: JournalId, sequence: Sequence, at: UnixMillis, payload: &[u8]) -> Value {
    let mut line = json!({ "journal": id.to_string(), "sequence": sequence.0, "at": moment(at) });
    match Event::decode(payload) {
        Ok(event) => {
            let captures: serde_json::Map<String, Value> = Captures(event.captures)
                .map(|(name, value)| (escape(name).into_owned(), escape(value).into_owned().into()))
                .collect();
            for (key, value) in [
                ("kind", event.kind.label()),
                ("method", event.method.label()),
                ("outcome", event.outcome.label()),
                ("class", event.class.label()),
                ("verdict", judge(&event).label()),
            ] {
                line[key] = value.into();
            }
            line["status"] = event.status.into();
            for (key, value) in [
                ("site", event.site),
                ("namespace", event.namespace),
                ("host", event.host),
                ("token", event.token),
                ("campaign", event.campaign),
                ("query", event.query),
                ("url", event.url),
                ("user_agent", event.user_agent),
                ("referrer", event.referrer),
            ] {
                line[key] = escape(value).into_owned().into();
            }
            line["captures"] = captures.into();
        }
        Err(damaged) => line["undecodable"] = damaged.to_string().into(),
    }
    line
}

impl Reconcile {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = serve::load(&self.configured.config)?;
        let mut database = database::open(&config.database.source, Access::ReadOnly, config.database.timeout)
            .map_err(|error| Failure::of("cannot use the database", &error))?;
        let source = OnDisk::read(&config.journal.store.folder)?;
        let report = deliver::reconcile(&source, &config.edge, &mut database)
            .map_err(|error| Failure::of("cannot reconcile", &error))?;
        let sum = |pick: fn(&JournalReport) -> u64| report.journals.iter().map(pick).sum::<u64>();
        if self.json {
            output::json(&json!({
                "balanced": report.is_balanced(),
                "appended": sum(|journal| journal.appended),
                "delivered": sum(|journal| journal.delivered),
                "pending": sum(|journal| journal.pending),
                "rejected": sum(|journal| journal.rejected),
                "quarantined": sum(|journal| journal.quarantined),
                "expired": sum(|journal| journal.expired),
                "missing": sum(|journal| journal.missing.count),
                "doubled": sum(|journal| journal.doubled.count),
                "beyond": sum(|journal| journal.beyond.count),
                "journals": report.journals,
                "elsewhere": report.elsewhere,
            }));
        } else {
            print(&report);
        }
        if report.is_balanced() { Ok(()) } else { Err(Failure::Findings) }
    }
}

fn print(report: &deliver::Report) {
    let mut table = output::Table::new(&[
        "journal",
        "appended",
        "delivered",
        "pending",
        "rejected",
        "quarantined",
        "expired",
        "missing",
        "doubled",
        "beyond",
    ]);
    for journal in &report.journals {
        table.row([
            journal.journal.clone(),
            journal.appended.to_string(),
            journal.delivered.to_string(),
            journal.pending.to_string(),
            journal.rejected.to_string(),
            journal.quarantined.to_string(),
            journal.expired.to_string(),
            journal.missing.count.to_string(),
            journal.doubled.count.to_string(),
            journal.beyond.count.to_string(),
        ]);
    }
    if !report.journals.is_empty() {
        table.print();
    }
    for journal in &report.journals {
        for (what, ranges) in
            [("missing", &journal.missing), ("doubled", &journal.doubled), ("beyond", &journal.beyond)]
        {
            for (first, last) in &ranges.listed {
                output::line(format_args!("{what}: journal {} sequences {first} to {last}", journal.journal));
            }
        }
    }
    let verdict = if report.is_balanced() {
        "every event is accounted for"
    } else {
        "some events are not accounted for"
    };
    output::line(verdict);
}

/// The journals on disk as `reconcile` reads them: their sequences, as runs, without their bytes.
struct OnDisk(Vec<(Kept, Vec<(u64, u64)>)>);

impl OnDisk {
    fn read(path: &Path) -> Result<Self, Failure> {
        let disk: &dyn Disk = &FileDisk;
        let failed = |error: &dyn std::error::Error| Failure::of("cannot read the journals", error);
        let mut journals = Vec::new();
        if !path.is_dir() {
            output::note(no_journal(path));
            return Ok(Self(journals));
        }
        for id in inspect::journals(disk, path).map_err(|error| failed(&error))? {
            let stat = inspect::stat(disk, path, id).map_err(|error| failed(&error))?;
            let mut runs: Vec<(u64, u64)> = Vec::new();
            inspect::dump(disk, path, id, Sequence(0), &mut |record| {
                match runs.last_mut() {
                    Some((_, last)) if *last + 1 == record.sequence.0 => *last += 1,
                    _ => runs.push((record.sequence.0, record.sequence.0)),
                }
                ControlFlow::Continue(())
            })
            .map_err(|error| failed(&error))?;
            let kept =
                Kept { id, edge: stat.edge, opened_at: stat.opened_at, first: stat.first, end: stat.end };
            journals.push((kept, runs));
        }
        journals.sort_by_key(|(kept, _)| kept.opened_at);
        Ok(Self(journals))
    }
}

impl Source for OnDisk {
    type Reader = Runs;

    fn journals(&self) -> Vec<Kept> {
        self.0.iter().map(|(kept, _)| kept.clone()).collect()
    }

    fn reader(&self, journal: JournalId, after: Sequence) -> Result<Runs, ReadFault> {
        let (kept, runs) = self.0.iter().find(|(kept, _)| kept.id == journal).ok_or("no such journal")?;
        Ok(Runs { runs: runs.clone(), end: kept.end.0, next: after.0 + 1, filled: Vec::new() })
    }

    fn delivered(&self, _journal: JournalId, _sink: &str, _through: Sequence, _now: UnixMillis) {}
}

/// See [`OnDisk`].
struct Runs {
    runs: Vec<(u64, u64)>,
    end: u64,
    next: u64,
    filled: Vec<u64>,
}

impl Read for Runs {
    fn fill(&mut self, records_max: usize, _bytes_max: usize) -> Result<Sequence, ReadFault> {
        self.filled.clear();
        let through = self.end.min(self.next.saturating_add(records_max as u64).saturating_sub(1));
        for &(first, last) in &self.runs {
            self.filled.extend(first.max(self.next)..=last.min(through));
        }
        self.next = self.next.max(through + 1);
        Ok(Sequence(self.next - 1))
    }

    fn records(&self) -> impl Iterator<Item = (Sequence, UnixMillis, &[u8])> {
        self.filled.iter().map(|&sequence| (Sequence(sequence), UnixMillis(0), &b""[..]))
    }
}

fn moment(at: UnixMillis) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(String::new, |at| at.to_string())
}

/// When a journal was opened; nothing where no header of its could be read.
fn opened(at: UnixMillis) -> Option<String> {
    (at.0 != 0).then(|| moment(at))
}
