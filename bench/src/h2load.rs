//! Drives a server over TLS with h2load, by HTTP/2 or HTTP/1.1, from one core of its own.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::campaign::Campaign;
use crate::failure::{Failure, Result};
use crate::process::{CLIENT, output, require};

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// HTTP/1.1, one request after the other
    Http1,
    /// HTTP/2, so many requests under way on each connection
    Http2 { streams: u32 },
}

/// The load generator with the list of what it asks for.
pub(crate) struct H2load {
    urls: PathBuf,
    connections: u32,
}

/// What one run of it saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) span: Duration,
    /// Share of its core that it used.
    pub(crate) client_busy: f64,
}

/// Each connection goes through the list from its beginning, and a list has to be read at each start.
const URLS_MAX: u64 = 20_000;
/// The header fields of `wrk.lua`.
const FIELDS: [&str; 5] = [
    "user-agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language: en-GB,en;q=0.9",
    "accept-encoding: gzip, deflate, br",
    "referer: https://mail.example.com/",
];

impl H2load {
    /// Asks `host` for links that lie evenly spread over the campaign.
    pub(crate) fn new(scratch: &Path, campaign: &Campaign, host: &str, connections: u32) -> Result<Self> {
        require("h2load", "nghttp2-client")?;
        let urls = scratch.join("h2load.urls");
        let count = campaign.links.min(URLS_MAX);
        let write = || {
            let mut out = BufWriter::new(File::create(&urls)?);
            for i in 0..count {
                writeln!(out, "https://{host}{}", Campaign::path(i * (campaign.links / count)))?;
            }
            out.flush()
        };
        write().map_err(Failure::at(format!("cannot write {}", urls.display())))?;
        let urls = fs::canonicalize(&urls).map_err(Failure::at("cannot find h2load's list"))?;
        Ok(Self { urls, connections })
    }

    /// Clicks for `seconds`; any answer that is no redirect is a failure.
    pub(crate) fn run(&self, address: SocketAddr, manner: Manner, seconds: u64) -> Result<Answered> {
        let mut command = Command::new("h2load");
        command.args(["--threads=1", &format!("--clients={}", self.connections)]);
        command.arg(format!("--duration={seconds}")).arg(format!("--connect-to={address}"));
        command.arg("--input-file").arg(&self.urls);
        for field in FIELDS {
            command.args(["--header", field]);
        }
        match manner {
            Manner::Http1 => command.arg("--h1"),
            Manner::Http2 { streams } => {
                command.args(["--npn-list=h2", &format!("--max-concurrent-streams={streams}")])
            }
        };
        let (text, times) = output(&mut command, CLIENT)?;
        let requests = parse(&text)?;
        let span = Duration::from_secs(seconds);
        Ok(Answered { requests, span, client_busy: times.total().as_secs_f64() / span.as_secs_f64() })
    }
}

/// The number of answers, all of which must be redirects.
fn parse(text: &str) -> Result<u64> {
    let unreadable = || Failure::new(format!("cannot understand h2load's output: {text}"));
    let requests = text.lines().find_map(|line| line.strip_prefix("requests: ")).ok_or_else(unreadable)?;
    let statuses =
        text.lines().find_map(|line| line.strip_prefix("status codes: ")).ok_or_else(unreadable)?;
    let done = counted(requests, "done").ok_or_else(unreadable)?;
    let redirects = counted(statuses, "3xx").ok_or_else(unreadable)?;
    // Requests that are under way when the time is over count as neither.
    let others: u64 = ["2xx", "4xx", "5xx"].iter().filter_map(|class| counted(statuses, class)).sum();
    if redirects == 0 || others > 0 || done > redirects {
        return Err(Failure::new(format!("not all answers are redirects: {requests}; {statuses}")));
    }
    Ok(done)
}

/// The number before `what` in a list like `3 done, 2 failed`.
fn counted(list: &str, what: &str) -> Option<u64> {
    list.split(", ").find_map(|entry| entry.strip_suffix(what)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redirects_are_answers() {
        let said = |requests: &str, statuses: &str| {
            parse(&format!("finished in 3.00s\nrequests: {requests}\nstatus codes: {statuses}\n"))
        };
        let good = said("7 total, 9 started, 7 done, 7 succeeded, 0 failed", "0 2xx, 7 3xx, 0 4xx, 0 5xx");
        assert_eq!(good.expect("all are redirects"), 7);
        assert!(said("7 total, 9 started, 7 done", "0 2xx, 6 3xx, 1 4xx, 0 5xx").is_err());
        assert!(said("0 total, 9 started, 0 done", "0 2xx, 0 3xx, 0 4xx, 0 5xx").is_err());
        assert!(parse("").is_err());
    }
}
