//! Commands that talk to a running edge: windows, reload, status, adoption.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::client::Client;
use super::{Failure, Running, output};
use crate::admin::status::Status;
use crate::clock;
use crate::config::{parse_moment, parse_span};

/// Commands about maintenance windows.
#[derive(Clone, Debug, Subcommand)]
pub enum Window {
    /// Begin maintenance: the part is left alone until the end
    Begin(Begin),
    /// End maintenance now
    End(End),
    /// List the windows that are known
    List(Running),
}

/// Arguments of `window begin`.
#[derive(Args, Clone, Debug)]
pub struct Begin {
    /// The part that is left alone
    #[arg(long, default_value = "database")]
    of: String,
    /// The end: a span such as 2h or 1d, or a time such as 2012-07-14T11:00[Europe/London] [default: 24h]
    #[arg(long)]
    until: Option<String>,
    /// Why, for whoever looks at the status: one line of at most 500 bytes
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    running: Running,
}

/// Arguments of `window end`.
#[derive(Args, Clone, Debug)]
pub struct End {
    /// The part that is used again
    #[arg(long, default_value = "database")]
    of: String,
    #[command(flatten)]
    running: Running,
}

/// Commands about delivery.
#[derive(Clone, Debug, Subcommand)]
pub enum Deliver {
    /// Say where to go on when the database has lost its cursor
    Adopt(Adopt),
}

/// Arguments of `deliver adopt`.
#[derive(Args, Clone, Debug)]
pub struct Adopt {
    /// `oldest`: deliver all that is kept again; `now`: only what comes; or the first sequence to deliver
    #[arg(long)]
    from: String,
    /// The journal, when more than one stands still
    #[arg(long)]
    journal: Option<String>,
    #[command(flatten)]
    running: Running,
}

impl Window {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Begin(begin) => {
                let until = begin.until.as_deref().map(moment).transpose()?;
                let body = json!({ "of": begin.of, "until": until, "reason": begin.reason });
                let answer = Client::find(&begin.running)?.act("/window/begin", &body)?;
                said(&begin.running, &answer, || {
                    let until = answer["until_ms"].as_u64().map_or_else(String::new, time);
                    format!(
                        "{} is in a window until {until}; links go on from memory. `holdfast status` shows when it is let go.",
                        begin.of
                    )
                });
            }
            Self::End(end) => {
                let answer = Client::find(&end.running)?.act("/window/end", &json!({ "of": end.of }))?;
                said(&end.running, &answer, || format!("the window of {} is over", end.of));
            }
            Self::List(running) => {
                let answer = Client::find(&running)?.look("/windows")?;
                said(&running, &answer, String::new);
                if !running.json {
                    list(&answer);
                }
            }
        }
        Ok(())
    }
}

impl Deliver {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::Adopt(adopt) = self;
        let body = json!({ "from": adopt.from, "journal": adopt.journal });
        let answer = Client::find(&adopt.running)?.act("/deliver/adopt", &body)?;
        said(&adopt.running, &answer, || {
            let journals = answer["adopted"].as_array().map_or(0, Vec::len) as u64;
            format!("delivery goes on for {}", output::count(journals, "journal"))
        });
        Ok(())
    }
}

/// `holdfast reload`.
pub(super) fn reload(running: &Running) -> Result<(), Failure> {
    let answer = Client::find(running)?.act("/reload", &json!({}))?;
    said(running, &answer, || "the new configuration is in effect".to_owned());
    Ok(())
}

/// `holdfast status`.
pub(super) fn status(running: &Running) -> Result<(), Failure> {
    let answer = Client::find(running)?.look("/status")?;
    if running.json {
        output::json(&answer);
        return Ok(());
    }
    let status: Status = serde_json::from_value(answer)
        .map_err(|error| Failure::of("the edge is of another release", &error))?;
    screen(&status);
    Ok(())
}

/// Prints an answer as JSON, or what it means for people, if that is anything.
pub(super) fn said(running: &Running, answer: &serde_json::Value, text: impl FnOnce() -> String) {
    if running.json {
        output::json(answer);
        return;
    }
    let text = text();
    if !text.is_empty() {
        output::line(text);
    }
}

fn list(windows: &serde_json::Value) {
    let windows = windows.as_array().map(Vec::as_slice).unwrap_or_default();
    if windows.is_empty() {
        output::line("no windows");
        return;
    }
    let mut table = output::Table::new(&["of", "from", "until", "stage", "by hand", "reason"]);
    for window in windows {
        let text = |key: &str| window[key].as_str().unwrap_or_default().to_owned();
        let at = |key: &str| window[key].as_u64().map_or_else(String::new, time);
        let by_hand = if window["by_hand"] == true { "yes" } else { "no" };
        table.row([
            text("of"),
            at("from_ms"),
            at("until_ms"),
            text("stage"),
            by_hand.to_owned(),
            text("reason"),
        ]);
    }
    table.print();
}

fn screen(status: &Status) {
    let mut table = output::Table::new(&["edge", &status.edge, ""]);
    let mut row = |name: &str, state: String, detail: String| table.row([name.to_owned(), state, detail]);
    row("version", status.version.clone(), format!("up {}", span(status.up_s)));
    row("ready", status.ready.clone(), output::count(status.connections, "connection"));
    let database = &status.database;
    let held = if database.released { "let go: no connection is open" } else { "in use" };
    let detail = match (database.until_ms, database.since_ms) {
        (Some(until), _) => {
            let reason = database.reason.as_deref().filter(|reason| !reason.is_empty());
            format!(
                "until {}; {held}{}",
                time(until),
                reason.map_or_else(String::new, |reason| format!(" ({reason})"))
            )
        }
        (None, Some(since)) => {
            let reason = database
                .reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(", {reason}: see the log"));
            format!("since {}{reason}; links go on from memory", time(since))
        }
        (None, None) => held.to_owned(),
    };
    row("database", database.state.clone(), detail);
    if status.clock_fault {
        row("clock", "behind".to_owned(), "behind the table's own time; links do not expire".to_owned());
    }
    let links = &status.links;
    let built = if links.made_at_ms == 0 { "never".to_owned() } else { time(links.made_at_ms) };
    row(
        "links",
        (links.table + links.overlay).to_string(),
        format!(
            "{} in the table of {built}, {} changed since, {} cached, {} MiB",
            links.table,
            links.overlay,
            links.cached,
            links.memory_bytes >> 20
        ),
    );
    if links.absent + links.refused > 0 {
        row(
            "",
            String::new(),
            format!("{} absent from the last load, {} refused", links.absent, links.refused),
        );
    }
    if let Some(held) = &links.held {
        row(
            "",
            "HELD".to_owned(),
            format!(
                "a load lacks {} of {}; look at the database, then `holdfast links accept`",
                held.newly_absent + held.forgotten,
                output::count(held.known, "link")
            ),
        );
    }
    let domains = &status.domains;
    if domains.served + domains.disabled + domains.refused > 0 {
        row(
            "domains",
            domains.served.to_string(),
            format!(
                "{} absent from the last load, {} switched off, {} refused",
                domains.absent, domains.disabled, domains.refused
            ),
        );
    }
    if domains.failing {
        let why = "the table domains cannot be read, the log says why; those that are known go on";
        row("", "FAILING".to_owned(), why.to_owned());
    }
    if let Some(held) = &domains.held {
        row(
            "",
            "HELD".to_owned(),
            format!(
                "a load lacks {} of {}; look at the table domains, then `holdfast links accept`",
                held.newly_absent + held.forgotten,
                output::count(held.known, "domain")
            ),
        );
    }
    let journal = &status.journal;
    let reason = journal.reason.as_ref().map_or_else(String::new, |reason| format!("; {reason}"));
    row(
        "journal",
        journal.state.clone(),
        format!(
            "{} appended, {} synced, {} MiB in {} of {}{reason}",
            journal.appended,
            journal.synced,
            journal.bytes >> 20,
            output::count(journal.segments, "segment"),
            output::count(journal.journals, "journal")
        ),
    );
    if journal.gap_events > 0 {
        row(
            "",
            "DAMAGE".to_owned(),
            format!("{} lost; see `holdfast journal verify`", output::count(journal.gap_events, "event")),
        );
    }
    for sink in &status.delivery {
        let lag = if sink.lag_events == u64::MAX {
            "not looked yet".to_owned()
        } else {
            format!("{} behind, {:.1} s", sink.lag_events, sink.lag_s)
        };
        let state = match (&sink.standing, database.state.as_str()) {
            (Some(_), _) => "STANDING",
            (None, "up") => "delivering",
            (None, _) => "waiting",
        };
        row(
            "sink",
            format!("{}: {state}", sink.sink),
            format!(
                "{} delivered, {} rejected, {}; {lag}",
                sink.delivered,
                sink.rejected,
                output::count(sink.failures, "failure")
            ),
        );
        if let Some(standing) = &sink.standing {
            row("", String::new(), standing.clone());
        }
    }
    if let Some(certificates) = &status.certificates {
        let end = certificates.ends_first_s.and_then(|end| u64::try_from(end).ok());
        let end = end.map_or_else(String::new, |end| format!(", the first ends {}", time(end * 1000)));
        let faults = match certificates.faults {
            0 => String::new(),
            faults => format!("; {}: see `holdfast certs list`", output::count(faults, "FAULT")),
        };
        let names = output::count(certificates.names, "name");
        row("certificates", certificates.certificates.to_string(), format!("for {names}{end}{faults}"));
        if let Some(ordered) = &certificates.ordered {
            let paused = ordered.paused_until_s.and_then(|at| u64::try_from(at).ok());
            let state = match paused {
                Some(_) => "PAUSED",
                None if ordered.running > 0 => "ordering",
                None => "idle",
            };
            let paused = paused.map_or_else(String::new, |at| format!(", until {}", time(at * 1000)));
            row(
                "orders",
                format!("{state}{paused}"),
                format!(
                    "{} of {} issued by {}, {} under way, {} waiting",
                    ordered.certificates,
                    output::count(ordered.names, "name"),
                    ordered.authority,
                    ordered.running,
                    ordered.waiting
                ),
            );
        }
    }
    let answers: Vec<String> =
        status.answers.iter().map(|(class, count)| format!("{count} {class}")).collect();
    row("answers", answers.join(", "), format!("{} unrecorded", status.unrecorded));
    table.print();
}

/// A moment in the reader's own zone.
pub(super) fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(String::new, |at| {
            at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
        })
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A span from now, or a time with its zone, as Unix milliseconds.
fn moment(text: &str) -> Result<u64, Failure> {
    let fault = |why: &str| {
        Failure::Other(format!(
            "--until is \"{text}\"{why}; allowed: a span such as 90m, 2h, 1h30m or 1d, or a time such as \
             2012-07-14T11:00[Europe/London] or 2012-07-14T10:00Z"
        ))
    };
    if let Some(span) = parse_span(text) {
        return Ok(clock::now().after(span).0);
    }
    if text.contains('[') {
        return parse_moment(text).map(|at| at.0).map_err(|why| fault(&format!(", {why}")));
    }
    let at: Timestamp = text.parse().map_err(|_| fault(""))?;
    u64::try_from(at.as_millisecond()).map_err(|_| fault(", which lies before 1970"))
}
