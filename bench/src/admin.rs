//! Asks the edge's admin listener: its metrics as numbers, and the actions that an operator has.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::failure::{Failure, Result};

/// The admin listener of one edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
}

impl Admin {
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics { text: self.ask("GET", "/metrics")? })
    }

    pub(crate) fn act(&self, path: &str) -> Result<()> {
        self.ask("POST", path).map(|_| ())
    }

    fn ask(&self, method: &str, path: &str) -> Result<String> {
        let address = self.address;
        let answer =
            exchange(address, method, path).map_err(Failure::at(format!("cannot ask {address}{path}")))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(Failure::new(format!("{address}{path} answers {answer}"))),
        }
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-Holdfast-Action: bench\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// One scrape.
pub(crate) struct Metrics {
    text: String,
}

impl Metrics {
    /// The sum of all series of `holdfast_<name>`.
    pub(crate) fn sum(&self, name: &str) -> Result<f64> {
        let mut values = self.series(name).map(|(_, value)| value).peekable();
        if values.peek().is_none() {
            return Err(Failure::new(format!("the edge has no metric holdfast_{name}")));
        }
        Ok(values.sum())
    }

    /// The sum of those series of `holdfast_<name>` that have `label`, as `outcome="redirected"`.
    pub(crate) fn sum_with(&self, name: &str, label: &str) -> f64 {
        self.series(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// The buckets of the histogram `holdfast_<name>`.
    pub(crate) fn histogram(&self, name: &str) -> Histogram {
        let bucket = |(labels, below): (&str, f64)| {
            let bound = labels.strip_prefix("{le=\"")?.strip_suffix("\"}")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), below))
        };
        Histogram { buckets: self.series(&format!("{name}_bucket")).filter_map(bucket).collect() }
    }

    /// Labels and value of each series of `holdfast_<name>`.
    fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.text.lines().filter_map(move |line| {
            let (series, value) = line.strip_prefix("holdfast_")?.strip_prefix(name)?.rsplit_once(' ')?;
            let own = series.is_empty() || series.starts_with('{');
            if own { Some((series, value.parse().ok()?)) } else { None }
        })
    }
}

/// Upper bounds in seconds, each with the number of values up to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self { buckets: pairs.map(|(&(bound, now), &(_, before))| (bound, now - before)).collect() }
    }

    /// The value below which the share `share` lies, by linear interpolation within its bucket.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = self.buckets.last().map_or(0.0, |&(_, count)| count * share);
        let mut lower = (0.0, 0.0);
        for &(bound, below) in &self.buckets {
            if below >= rank && below > lower.1 {
                let part = (rank - lower.1) / (below - lower.1);
                // Nothing is known of what lies beyond the last bound.
                let upper = if bound.is_finite() { bound } else { lower.0 };
                return Duration::from_secs_f64(lower.0 + (upper - lower.0) * part);
            }
            lower = (bound, below);
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# HELP holdfast_hits_total Hits.
holdfast_hits_total{sink=\"a b\"} 3
holdfast_hits_total{sink=\"c\"} 4.5
holdfast_hits_total_more 100
holdfast_ready 1
holdfast_sync_bucket{le=\"0.001\"} 50
holdfast_sync_bucket{le=\"0.002\"} 90
holdfast_sync_bucket{le=\"+Inf\"} 100
";

    #[test]
    fn series_of_one_name_are_summed() {
        let metrics = Metrics { text: SCRAPE.to_owned() };
        assert_eq!(metrics.sum("hits_total").expect("is there"), 7.5);
        assert_eq!(metrics.sum("ready").expect("is there"), 1.0);
        assert!(metrics.sum("hits").is_err());
        assert_eq!(metrics.sum_with("hits_total", "sink=\"c\""), 4.5);
        assert_eq!(metrics.sum_with("hits_total", "sink=\"d\""), 0.0);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Metrics { text: SCRAPE.to_owned() }.histogram("sync");
        assert_eq!(histogram.quantile(0.5), Duration::from_millis(1));
        assert_eq!(histogram.quantile(0.7), Duration::from_micros(1500));
        assert_eq!(histogram.quantile(0.99), Duration::from_millis(2));
        assert_eq!(histogram.since(&histogram).quantile(0.5), Duration::ZERO);
    }
}
