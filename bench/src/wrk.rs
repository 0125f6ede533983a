//! Drives a server with wrk, from one core of its own: clicks as they are, or requests of another kind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
use crate::process::{CLIENT, output, require};

/// The load generator with its script.
pub(crate) struct Wrk {
    script: PathBuf,
    links: u64,
    connections: u32,
}

/// What is asked for, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// The path in front of the token.
    pub(crate) prefix: &'static str,
    pub(crate) token: Token,
    pub(crate) connection: Connection,
    pub(crate) answer: Answer,
}

/// Whose token stands in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// That of a link picked at random
    Link,
    /// One at random that no link has and that is never the same twice
    Unknown,
}

/// How long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Until the end of the run
    Kept,
    /// One request: the client asks the server to close it
    Closed,
}

/// What all answers must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status below 400
    Success,
    /// A status from 400 on
    Refusal,
}

impl Ask {
    /// Clicks on links over connections that are kept.
    pub(crate) const CLICK: Self =
        Self { prefix: PREFIX, token: Token::Link, connection: Connection::Kept, answer: Answer::Success };
}

/// What one run of the load generator saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) span: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Share of its core that the load generator used: near 1 it is the limit, not the server.
    pub(crate) client_busy: f64,
}

impl Wrk {
    pub(crate) fn new(scratch: &Path, campaign: &Campaign, connections: u32) -> Result<Self> {
        require("wrk", "wrk")?;
        let script = scratch.join("wrk.lua");
        fs::write(&script, include_str!("wrk.lua")).map_err(Failure::at("cannot write wrk's script"))?;
        Ok(Self { script, links: campaign.links, connections })
    }

    /// Clicks on random links for `seconds`; any answer from 400 on is a failure.
    pub(crate) fn run(&self, address: SocketAddr, seconds: u64, seed: u64) -> Result<Load> {
        self.ask(&Ask::CLICK, address, seconds, seed)
    }

    /// The same for requests of any kind; an answer of another kind than `ask` says is a failure.
    pub(crate) fn ask(&self, ask: &Ask, address: SocketAddr, seconds: u64, seed: u64) -> Result<Load> {
        let token = match ask.token {
            Token::Link => "link",
            Token::Unknown => "unknown",
        };
        let connection = match ask.connection {
            Connection::Kept => "kept",
            Connection::Closed => "closed",
        };
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--timeout", "10s", "--script"])
            .arg(&self.script)
            .arg(format!("http://{address}/"))
            .args(["--", &self.links.to_string(), &seed.to_string(), ask.prefix, token, connection]);
        let (text, times) = output(&mut command, CLIENT)?;
        let mut load = parse(&text, ask.answer)?;
        load.client_busy = times.total().as_secs_f64() / load.span.as_secs_f64();
        Ok(load)
    }
}

fn parse(text: &str, expected: Answer) -> Result<Load> {
    let unreadable = || Failure::new(format!("cannot understand wrk's output: {text}"));
    let line = text.lines().find_map(|line| line.strip_prefix("result ")).ok_or_else(unreadable)?;
    let numbers: Vec<u64> =
        line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| unreadable())?;
    let &[requests, span_us, errors, status_errors, p50_us, p99_us] = numbers.as_slice() else {
        return Err(unreadable());
    };
    let wrong = match expected {
        Answer::Success => status_errors,
        Answer::Refusal => requests.saturating_sub(status_errors),
    };
    if errors + wrong > 0 || requests == 0 {
        let what =
            format!("{requests} answers, {errors} failed connections, {wrong} answers of the wrong status");
        return Err(Failure::new(what));
    }
    Ok(Load {
        requests,
        span: Duration::from_micros(span_us),
        p50: Duration::from_micros(p50_us),
        p99: Duration::from_micros(p99_us),
        client_busy: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_s_line_is_read_and_failed_answers_are_a_failure() {
        let load = parse("Running 10s test\n\nresult 1000 2000000 0 0 500 900\n", Answer::Success)
            .expect("a good run");
        assert_eq!((load.requests, load.span), (1000, Duration::from_secs(2)));
        assert_eq!((load.p50, load.p99), (Duration::from_micros(500), Duration::from_micros(900)));
        for bad in ["", "result 1 2 3", "result 1000 2000000 0 3 500 900", "result 0 2000000 0 0 0 0"] {
            assert!(parse(bad, Answer::Success).is_err(), "{bad}");
        }
        assert!(parse("result 1000 2000000 0 1000 500 900", Answer::Refusal).is_ok());
        assert!(parse("result 1000 2000000 0 999 500 900", Answer::Refusal).is_err());
    }
}
