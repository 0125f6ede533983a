//! Figures out of rounds, and the files in which they are kept: a CSV that grows, a table of the last run.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::failure::{Failure, Result};
use crate::machine;

/// The middle of several rounds and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            return Self { median: f64::NAN, least: f64::NAN, most: f64::NAN };
        };
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, least, most }
    }

    /// `12.3 (11.9–13.0)`
    pub(crate) fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.most)
    }
}

/// Spans in order, to ask for quantiles.
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    pub(crate) fn of(spans: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = spans.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The least span that `share` of all do not exceed, in microseconds; 1 asks for the longest.
    pub(crate) fn us(&self, share: f64) -> f64 {
        let rank = (self.sorted.len() as f64 * share).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |&span| micros(span))
    }
}

/// Microseconds with their fraction.
pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

/// A Markdown table.
pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(columns: &[impl AsRef<str>]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(columns);
        table.row(&vec!["---"; columns.len()]);
        table
    }

    pub(crate) fn row(&mut self, cells: &[impl AsRef<str>]) {
        for cell in cells {
            let _ = write!(self.text, "| {} ", cell.as_ref());
        }
        self.text.push_str("|\n");
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Writes `<out>/<name>.md` anew: a heading, how it was measured, the machine, the body.
pub(crate) fn write_markdown(out: &Path, name: &str, heading: &str, method: &str, body: &str) -> Result<()> {
    let machine = machine::description();
    let text = format!("# {heading}\n\n{method}\n\nMachine: {machine}.\n\n{body}");
    let file = out.join(format!("{name}.md"));
    let write = || {
        fs::create_dir_all(out)?;
        fs::write(&file, text)
    };
    write().map_err(Failure::at(format!("cannot write {}", file.display())))
}

/// Adds one row to `<out>/<name>.csv`, under `header` when the file is new; the time stands first.
pub(crate) fn append_csv(out: &Path, name: &str, header: &str, row: &str) -> Result<()> {
    let file = out.join(format!("{name}.csv"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let append = || {
        fs::create_dir_all(out)?;
        let mut csv = OpenOptions::new().create(true).append(true).open(&file)?;
        if csv.metadata()?.len() == 0 {
            writeln!(csv, "at_unix_s,{header}")?;
        }
        writeln!(csv, "{now},{row}")
    };
    append().map_err(Failure::at(format!("cannot write {}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).text(1), "2.0 (1.0–3.0)");
    }

    #[test]
    fn quantiles_are_spans_that_were_measured() {
        let latencies = Latencies::of((1..=100).rev().map(Duration::from_micros));
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|share| latencies.us(share)), [50.0, 99.0, 100.0, 100.0]);
        assert!(Latencies::of([]).us(0.5).is_nan());
    }

    #[test]
    fn a_table_has_a_rule_below_its_head() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1", "2"]);
        assert_eq!(table.text(), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}
