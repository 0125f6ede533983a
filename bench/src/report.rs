//! Figures out of rounds, and the files in which they are kept: a CSV that grows, a table and a chart of the last run.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::charts;
use crate::failure::{Failure, Result};
use crate::machine;
use crate::results::RUN;

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

/// What a scenario has measured and not yet written down.
static RUN_SO_FAR: Mutex<RunSoFar> =
    Mutex::new(RunSoFar { began_unix_s: None, rows: Vec::new(), left_out: Vec::new() });

struct RunSoFar {
    /// All rows of this process are one run.
    began_unix_s: Option<u64>,
    rows: Vec<PendingRow>,
    left_out: Vec<String>,
}

/// A row for `<out>/<name>.csv`.
struct PendingRow {
    name: &'static str,
    header: &'static str,
    text: String,
}

fn run_so_far() -> MutexGuard<'static, RunSoFar> {
    RUN_SO_FAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps one row for `<out>/<name>.csv` until [`write_results`] adds it; the time and the run stand first.
pub(crate) fn keep_row(name: &'static str, header: &'static str, row: &str) {
    let mut run = run_so_far();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let began = *run.began_unix_s.get_or_insert(now);
    run.rows.push(PendingRow { name, header, text: format!("{now},{began},{row}") });
}

/// Says what does not take part, at once and in the report.
pub(crate) fn leave_out(what: String) {
    println!("left out: {what}");
    run_so_far().left_out.push(what);
}

/// Forgets what a scenario that failed has measured, so that half a run does not pass for the last one.
pub(crate) fn forget() {
    let mut run = run_so_far();
    run.rows.clear();
    run.left_out.clear();
}

/// The end of a scenario: adds its rows to their CSV files and writes `<out>/<name>.md` anew: a heading, how it was
/// measured, what was left out, the machine, whom it favours, the chart, the body.
pub(crate) fn write_results(out: &Path, name: &str, heading: &str, method: &str, body: &str) -> Result<()> {
    let mut run = run_so_far();
    for row in std::mem::take(&mut run.rows) {
        append(out, &row).map_err(Failure::at(format!("cannot write into {}", out.display())))?;
    }
    let left_out = std::mem::take(&mut run.left_out);
    let left_out =
        if left_out.is_empty() { String::new() } else { format!("Left out: {}.\n\n", left_out.join("; ")) };
    let machine = machine::description();
    let head = charts::head_of(out, name)?;
    let text = format!("# {heading}\n\n{method}\n\n{left_out}Machine: {machine}.\n\n{head}{body}");
    let file = out.join(format!("{name}.md"));
    let write = || {
        fs::create_dir_all(out)?;
        fs::write(&file, text)
    };
    write().map_err(Failure::at(format!("cannot write {}", file.display())))
}

/// Rows under other columns are of an older bench: they are kept in a file of their own.
fn append(out: &Path, row: &PendingRow) -> io::Result<()> {
    let PendingRow { name, header, text } = row;
    let file = out.join(format!("{name}.csv"));
    let header = format!("at_unix_s,{RUN},{header}");
    fs::create_dir_all(out)?;
    if has_other_header(&file, &header)? {
        let at = text.split(',').next().unwrap_or_default();
        fs::rename(&file, out.join(format!("{name}.until-{at}.csv")))?;
    }
    let mut csv = OpenOptions::new().create(true).append(true).open(&file)?;
    if csv.metadata()?.len() == 0 {
        writeln!(csv, "{header}")?;
    }
    writeln!(csv, "{text}")
}

fn has_other_header(file: &Path, header: &str) -> io::Result<bool> {
    let mut first = String::new();
    match fs::File::open(file) {
        Ok(file) => BufReader::new(file).read_line(&mut first)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(!first.is_empty() && first.trim_end() != header)
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

    #[test]
    fn rows_under_other_columns_are_set_aside() {
        let out = std::env::temp_dir().join(format!("report-{}", std::process::id()));
        fs::create_dir_all(&out).expect("is made");
        fs::write(out.join("x.csv"), "at_unix_s,b\n1,2\n").expect("is written");
        for text in ["3,3,3", "4,3,4"] {
            append(&out, &PendingRow { name: "x", header: "b", text: text.to_owned() }).expect("is added");
        }
        let text = fs::read_to_string(out.join("x.csv")).expect("is there");
        let files = fs::read_dir(&out).expect("is there").count();
        fs::remove_dir_all(&out).expect("is there");
        assert_eq!(
            (text.lines().next(), text.lines().count(), files),
            (Some("at_unix_s,run_unix_s,b"), 3, 2)
        );
    }
}
