//! Drives a server with wrk, from one core of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::campaign::Campaign;
use crate::failure::{Failure, Result};
use crate::process::{CLIENT, output, require};

/// The load generator with its script.
pub(crate) struct Wrk {
    script: PathBuf,
    links: u64,
    connections: u32,
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

    /// Clicks on random links for `seconds`; any answer that is no redirect is a failure.
    pub(crate) fn run(&self, address: SocketAddr, seconds: u64, seed: u64) -> Result<Load> {
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "1", "--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--timeout", "10s", "--script"])
            .arg(&self.script)
            .arg(format!("http://{address}/"))
            .args(["--", &self.links.to_string(), &seed.to_string()]);
        let (text, times) = output(&mut command, CLIENT)?;
        let mut load = parse(&text)?;
        load.client_busy = times.total().as_secs_f64() / load.span.as_secs_f64();
        Ok(load)
    }
}

fn parse(text: &str) -> Result<Load> {
    let unreadable = || Failure::new(format!("cannot understand wrk's output: {text}"));
    let line = text.lines().find_map(|line| line.strip_prefix("result ")).ok_or_else(unreadable)?;
    let numbers: Vec<u64> =
        line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| unreadable())?;
    let &[requests, span_us, errors, status_errors, p50_us, p99_us] = numbers.as_slice() else {
        return Err(unreadable());
    };
    if errors + status_errors > 0 || requests == 0 {
        let what =
            format!("{requests} answers, {errors} failed connections, {status_errors} errors by status");
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
        let load = parse("Running 10s test\n\nresult 1000 2000000 0 0 500 900\n").expect("a good run");
        assert_eq!((load.requests, load.span), (1000, Duration::from_secs(2)));
        assert_eq!((load.p50, load.p99), (Duration::from_micros(500), Duration::from_micros(900)));
        for bad in ["", "result 1 2 3", "result 1000 2000000 0 3 500 900", "result 0 2000000 0 0 0 0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
