//! `holdfast certs`: the certificates of a running edge.

use clap::Subcommand;

use super::client::Client;
use super::running::time;
use super::{Failure, Running, output};
use crate::admin::certificates::Listing;
use crate::clock;

/// Commands about certificates.
#[derive(Clone, Debug, Subcommand)]
pub enum Certs {
    /// List what is served and what is wrong with files
    List(Running),
}

/// As many names as fit a line beside the rest; JSON has them all.
const NAMES_SHOWN: usize = 3;

impl Certs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::List(running) = self;
        let answer = Client::find(&running)?.look("/certificates")?;
        if running.json {
            output::json(&answer);
            return Ok(());
        }
        let listing: Listing = serde_json::from_value(answer)
            .map_err(|error| Failure::of("the edge is of another release", &error))?;
        print(&listing);
        Ok(())
    }
}

fn print(listing: &Listing) {
    if listing.certificates.is_empty() {
        output::line("no certificates");
    } else {
        let mut table = output::Table::new(&["names", "key", "ends", "left", "file"]);
        for certificate in &listing.certificates {
            table.row([
                names(&certificate.names),
                certificate.key.clone(),
                u64::try_from(certificate.until_s).map_or_else(|_| String::new(), |s| time(s * 1000)),
                left(certificate.until_s),
                certificate.file.clone(),
            ]);
        }
        table.print();
    }
    for flaw in &listing.faults {
        output::line(format_args!("{}: {}; {}", flaw.file, flaw.problem, flaw.consequence));
    }
}

fn names(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What is left until a moment in Unix seconds.
fn left(until_s: i64) -> String {
    let now_s = i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX);
    match until_s - now_s {
        ..0 => "OVER".to_owned(),
        left @ 0..172_800 => format!("{} h", left / 3600),
        left => format!("{} d", left / 86_400),
    }
}
