//! `holdfast certs`: the certificates of a running edge, and those on its disk.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use certs::acme::{self, Exported, Folder};
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::client::Client;
use super::running::{said, time};
use super::serve::load;
use super::{Configured, Failure, Running, output};
use crate::admin::certificates::{FOLDER, Listing, Order, Ordered};
use crate::clock;

/// Commands about certificates.
#[derive(Clone, Debug, Subcommand)]
pub enum Certs {
    /// List what is served and ordered, and what is wrong
    List(Running),
    /// Order certificates anew, now
    Renew(Renew),
    /// Take in a certificate with its key, serve it, and renew it when its time comes
    Import(Import),
    /// Print a certificate that was ordered
    Export(Export),
    /// Give the account at the authority another key
    ChangeAccountKey(Running),
}

/// Arguments of `certs renew`.
#[derive(Args, Clone, Debug)]
pub struct Renew {
    /// The name
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Every name that may have one
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    running: Running,
}

/// Arguments of `certs import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// PEM files that together hold one name's certificate, its issuers and its key in PKCS#8
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    running: Running,
}

/// Arguments of `certs export`.
#[derive(Args, Clone, Debug)]
pub struct Export {
    /// The name
    name: String,
    /// The private key, too
    #[arg(long)]
    key: bool,
    /// A new file, for this user alone, instead of the terminal
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// As many names as fit a line beside the rest; JSON has them all.
const NAMES_SHOWN: usize = 3;
/// No key with its chain is longer.
const FILE_BYTES_MAX: u64 = 48 << 10;

impl Certs {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(running) => list(&running),
            Self::Renew(renew) => renew.run(),
            Self::Import(import) => import.run(),
            Self::Export(export) => export.run(),
            Self::ChangeAccountKey(running) => {
                let answer = Client::find(&running)?.act("/certificates/account-key", &json!({}))?;
                said(&running, &answer, || {
                    "the account has another key; edges with the same account need its file, too".to_owned()
                });
                Ok(())
            }
        }
    }
}

impl Renew {
    fn run(self) -> Result<(), Failure> {
        let answer =
            Client::find(&self.running)?.act("/certificates/renew", &json!({ "name": self.name }))?;
        said(&self.running, &answer, || {
            let names = answer["renewed"].as_array().map_or(0, Vec::len) as u64;
            format!("{} ordered anew; see `holdfast certs list`", output::count(names, "certificate"))
        });
        Ok(())
    }
}

impl Import {
    fn run(self) -> Result<(), Failure> {
        // Room for all of it from the start: what grows leaves copies of a key behind.
        let mut pem = Zeroizing::new(String::with_capacity(self.files.len() * (FILE_BYTES_MAX as usize + 1)));
        for file in &self.files {
            pem.push_str(&read(file)?);
            pem.push('\n');
        }
        let answer = Client::find(&self.running)?.act_in_secret("/certificates/import", pem)?;
        said(&self.running, &answer, || {
            format!("{}: its certificate is served", answer["imported"].as_str().unwrap_or_default())
        });
        Ok(())
    }
}

fn read(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error| Failure::of(&format!("cannot read {}", file.display()), &error);
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 2));
    let opened = File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let file = file.display();
        return Err(Failure::Other(format!("{file} is longer than a certificate with its key")));
    }
    Ok(text)
}

impl Export {
    /// Reads the edge's disk, so that no private key crosses a socket; whoever may read it there may have it.
    fn run(self) -> Result<(), Failure> {
        let folder = load(&self.configured.config)?.data.join(FOLDER);
        let failed = |error| Failure::of(&format!("cannot read {}", folder.display()), &error);
        let found = acme::export(&Folder::at(&folder), &self.name).map_err(failed)?;
        let Some(Exported { key, chain }) = found else {
            return Err(Failure::Other(format!(
                "no certificate was ordered for {}; see `holdfast certs list`",
                self.name
            )));
        };
        let key = if self.key { key.as_str() } else { "" };
        if self.json {
            let key = self.key.then_some(key);
            output::json(&json!({ "name": self.name, "chain": chain, "key": key }));
            return Ok(());
        }
        let Some(file) = &self.output else {
            output::line(format_args!("{key}{}", chain.trim_end()));
            return Ok(());
        };
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let written = written.and_then(|mut file| {
            file.write_all(key.as_bytes())?;
            file.write_all(chain.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| Failure::of(&format!("cannot write {}", file.display()), &error))
    }
}

fn list(running: &Running) -> Result<(), Failure> {
    let answer = Client::find(running)?.look("/certificates")?;
    if running.json {
        output::json(&answer);
        return Ok(());
    }
    let listing: Listing = serde_json::from_value(answer)
        .map_err(|error| Failure::of("the edge is of another release", &error))?;
    print(&listing);
    Ok(())
}

fn print(listing: &Listing) {
    if listing.certificates.is_empty() && listing.orders.is_empty() {
        output::line("no certificates");
    }
    if !listing.certificates.is_empty() {
        let mut table = output::Table::new(&["names", "key", "ends", "left", "file"]);
        for certificate in &listing.certificates {
            table.row([
                names(&certificate.names),
                certificate.key.clone(),
                moment(Some(certificate.until_s)),
                left(certificate.until_s),
                certificate.file.clone(),
            ]);
        }
        table.print();
    }
    for flaw in &listing.faults {
        output::line(format_args!("{}: {}; {}", flaw.file, flaw.problem, flaw.consequence));
    }
    if !listing.orders.is_empty() {
        let mut table = output::Table::new(&["name", "state", "ends", "left", "next order", "last failure"]);
        let now_s = now_s();
        for order in &listing.orders {
            table.row([
                order.name.clone(),
                state(order, now_s).to_owned(),
                moment(order.until_s),
                order.until_s.map_or_else(String::new, left),
                moment(order.due_s),
                failure(order),
            ]);
        }
        table.print();
        if listing.orders.iter().any(|order| is_held_up(order, now_s)) {
            output::line(
                "who waits for a turn is due, but as many orders are under way as may be, or the authority's limit for \
                 all of them leaves room later",
            );
        }
    }
    if let Some(Ordered { authority, paused_until_s: Some(until), .. }) = &listing.ordered {
        output::line(format_args!(
            "nothing is ordered before {}: {authority} is down or asked to wait",
            moment(Some(*until))
        ));
    }
}

/// An order that is due begins within seconds unless something holds it up.
const TURN_S: i64 = 10;

/// Whether a name's order is due and has not begun.
fn is_held_up(order: &Order, now_s: i64) -> bool {
    !order.running && order.due_s.is_some_and(|due| due < now_s - TURN_S)
}

/// Where a name's certificate stands.
fn state(order: &Order, now_s: i64) -> &'static str {
    match (order.running, order.until_s, order.due_s) {
        (true, None, _) => "being ordered",
        (true, Some(_), _) => "served, being renewed",
        (false, None, _) if is_held_up(order, now_s) => "WAITING for a turn",
        // Nothing else puts off the first order of a name that never failed.
        (false, None, Some(due)) if due > now_s && order.failure.is_none() => "WAITING, domain's limit",
        (false, Some(_), _) if is_held_up(order, now_s) => "served, waits for a turn",
        (false, Some(_), Some(_)) => "served",
        (false, Some(_), None) => "served to its end",
        (false, None, _) => "WAITING",
    }
}

fn failure(order: &Order) -> String {
    let Some(why) = &order.failure else { return String::new() };
    format!("{}: {why}", moment(order.failed_s))
}

/// A moment in Unix seconds; nothing where there is none.
fn moment(seconds: Option<i64>) -> String {
    seconds.and_then(|s| u64::try_from(s).ok()).map_or_else(String::new, |s| time(s * 1000))
}

fn names(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn now_s() -> i64 {
    i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX)
}

/// What is left until a moment in Unix seconds.
fn left(until_s: i64) -> String {
    match until_s - now_s() {
        ..0 => "OVER".to_owned(),
        left @ 0..172_800 => format!("{} h", left / 3600),
        left => format!("{} d", left / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that a limit held up looked like one whose time had not come.
    #[test]
    fn an_order_that_is_due_and_does_not_begin_is_said_to_wait() {
        const NOW_S: i64 = 1_700_000_000;
        let check_after = |failure: Option<&str>, running, until_s, due_s, expected| {
            let order = Order {
                name: "a.test".to_owned(),
                wanted: true,
                from_s: None,
                until_s,
                running,
                due_s,
                failures: u32::from(failure.is_some()),
                failed_s: failure.map(|_| NOW_S - 60),
                failure: failure.map(str::to_owned),
            };
            assert_eq!(state(&order, NOW_S), expected, "{order:?}");
        };
        let check = |running, until_s, due_s, expected| check_after(None, running, until_s, due_s, expected);
        check(false, None, Some(NOW_S - 60), "WAITING for a turn");
        check(false, Some(NOW_S + 9), Some(NOW_S - 60), "served, waits for a turn");
        // Not due yet, or only just.
        check(false, None, Some(NOW_S + 60), "WAITING, domain's limit");
        check_after(Some("its DNS points elsewhere"), false, None, Some(NOW_S + 60), "WAITING");
        check(false, None, Some(NOW_S - 1), "WAITING");
        check(false, Some(NOW_S + 9), Some(NOW_S + 60), "served");
        check(false, Some(NOW_S + 9), None, "served to its end");
        check(true, None, Some(NOW_S - 60), "being ordered");
    }
}
