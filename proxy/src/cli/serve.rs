//! `holdfast serve` and `holdfast check`: the configuration in, an edge or a list of faults out.

use std::io::IsTerminal as _;
use std::path::Path;

use clap::Args;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::{Configured, Failure, output};
use crate::app::{self, Origin, Start};
use crate::causes::chain;
use crate::clock;
use crate::config::{self, Config, LogFormat};
use crate::database::{self, Access};
use crate::route::HostPattern;

/// Arguments of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    configured: Configured,
    /// Take over from the edge that runs on the same data folder, without refusing a connection
    #[arg(long)]
    takeover: bool,
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    #[command(flatten)]
    configured: Configured,
    /// Also try the database, read-only
    #[arg(long)]
    connect: bool,
    /// Print the configuration as it takes effect, without secrets
    #[arg(long)]
    print: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.configured.config)?;
        log_to_stderr(&config);
        let origin = Origin { file: self.configured.config, environment: std::env::vars().collect() };
        app::run(config, Start { origin, takeover: self.takeover }, |_| ())
            .map_err(|error| Failure::of("cannot serve", &error))
    }
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.configured.config)?;
        if self.print {
            output::line(config.effective_toml().trim_end());
        }
        note_certificates(&config)?;
        if self.connect {
            let mut database =
                database::open(&config.database.source, Access::ReadOnly, config.database.timeout)
                    .map_err(|error| Failure::of("database.url", &error))?;
            database.changed().map_err(|error| Failure::of("database.url", &error))?;
            let faults = database.try_statements();
            if !faults.is_empty() {
                let lines: Vec<String> = faults.iter().map(|fault| chain(fault)).collect();
                return Err(Failure::Configuration(lines.join("\n")));
            }
            output::note(format_args!("the database answers: {}", config.database.source));
        }
        if !self.print {
            output::line(format_args!("{} is fine", self.configured.config.display()));
        }
        Ok(())
    }
}

/// Says what is wrong with certificate files: no fault of the configuration, for the rest is served, but
/// better known before a start.
fn note_certificates(config: &Config) -> Result<(), Failure> {
    if config.listen.https.is_empty() {
        return Ok(());
    }
    let (mut store, _resolver) = certs::watch(config.tls.certificates.clone());
    let now = certs::UnixSeconds(i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX));
    store.reload(now);
    // The second time verifies the keys, too.
    let report = store.reload(now);
    for fault in &report.faults {
        if Some(&fault.file) == config.tls.certificates.folder.as_ref() {
            return Err(Failure::Configuration(format!("tls.folder: {}", chain(fault))));
        }
        output::note(chain(fault));
    }
    if config.tls.acme.is_some() {
        let patterns = config.sites.iter().flat_map(|site| &site.hosts);
        for wildcard in patterns.filter(|host| matches!(host, HostPattern::Below(_))) {
            output::note(format_args!(
                "no certificate is ordered for {wildcard}: hosts below it get their own in their first handshake"
            ));
        }
    } else if report.certificates == 0 {
        output::note("no certificate is there: nothing would be accepted on listen.https");
    }
    Ok(())
}

/// Loads a configuration with the environment laid over it.
///
/// # Errors
/// Every fault in one text.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    config::load(file, &environment).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::Configuration(format!("the configuration has faults\n{}", lines.join("\n")))
    })
}

/// Sends the log to stderr in the configured form.
pub(super) fn log_to_stderr(config: &Config) {
    let level = config.log.level;
    // Libraries warn of what clients send, once for each frame: whoever likes could fill the log.
    let filter =
        Targets::new().with_target("holdfast", level).with_target("certs", level).with_default(Level::ERROR);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call, as in tests, keeps the first subscriber.
    let _ = match config.log.format {
        LogFormat::Json => subscriber.json().finish().with(filter).try_init(),
        LogFormat::Text => subscriber.with_target(false).finish().with(filter).try_init(),
    };
}
