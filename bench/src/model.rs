//! How many edges and cores so many clicks a month need, from the recorded results and stated assumptions.
//!
//! It measures nothing: every unit cost is a median of the last run in a CSV file, every other number an
//! option. A traffic unlike the assumed one has the answer by other options.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Result};
use crate::report::{Spread, Table, write_results};
use crate::results::{Results, Row};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks a month
    #[arg(long, value_delimiter = ',', default_value = "1000000000,10000000000,100000000000")]
    clicks: Vec<f64>,
    /// The part of a month's clicks that comes in its busiest hour
    #[arg(long, default_value_t = 0.01)]
    busiest_hour: f64,
    /// The part of that hour's clicks that comes in its first five minutes
    #[arg(long, default_value_t = 0.8)]
    first_minutes: f64,
    /// How full a core may be then
    #[arg(long, default_value_t = 0.5)]
    busy_max: f64,
    /// Cores of one edge
    #[arg(long, default_value_t = 8.0)]
    cores: f64,
    /// Clicks a month on one link: links that every recipient has alone get far fewer
    #[arg(long, default_value_t = 100.0)]
    clicks_per_link: f64,
    /// Where the results are, and where the model goes
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// What one of each costs.
#[derive(Clone, Copy, Debug)]
struct Units {
    /// CPU time of a click on a connection that is kept, with its delivery.
    kept_us: f64,
    /// The same on a fresh TLS connection.
    fresh_us: f64,
    link_bytes: f64,
    /// While all links are loaded anew.
    link_bytes_max: f64,
    event_bytes: f64,
    /// Delivered in a second, by all edges into one database.
    delivered_per_second: f64,
}

/// The traffic of a month.
struct Traffic {
    clicks: f64,
    mean_per_second: f64,
    busiest_hour: f64,
    most_per_second: f64,
}

const MONTH_S: f64 = 30.0 * 24.0 * 3600.0;
const HOUR_S: f64 = 3600.0;
const FIRST_MINUTES_S: f64 = 300.0;
const OUTAGES_H: [f64; 2] = [4.0, 24.0];
/// One may be away, and then there is still one.
const EDGES_MIN: f64 = 2.0;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let units = Units::recorded(&arguments.out)?;
    let months: Vec<Traffic> =
        arguments.clicks.iter().map(|&clicks| Traffic::of(clicks, arguments)).collect();
    let mut heads = vec!["clicks a month".to_owned()];
    heads.extend(months.iter().map(|month| count(month.clicks)));
    let mut table = Table::new(&heads);
    let mut row = |what: &str, cell: &dyn Fn(&Traffic) -> String| {
        let mut cells = vec![what.to_owned()];
        cells.extend(months.iter().map(cell));
        table.row(&cells);
    };
    row("clicks per second, mean", &|month| count(month.mean_per_second));
    row("in the busiest five minutes", &|month| count(month.most_per_second));
    for (manner, us) in [("kept connections", units.kept_us), ("fresh TLS connections", units.fresh_us)] {
        row(&format!("cores then, {manner}"), &|month| count(cores(month, us, arguments)));
        row(&format!("edges of {} cores, {manner}", arguments.cores), &|month| {
            count(edges(cores(month, us, arguments), arguments))
        });
    }
    let links = |month: &Traffic| month.clicks / arguments.clicks_per_link;
    row("links", &|month| count(links(month)));
    row("memory for them on each edge", &|month| bytes(links(month) * units.link_bytes));
    // The old table is there until the new one is.
    row("and while all are loaded anew", &|month| {
        bytes(links(month) * (units.link_bytes + units.link_bytes_max))
    });
    for hours in OUTAGES_H {
        row(&format!("disk for an outage of {hours} h, all edges together"), &|month| {
            bytes(month.in_hours(hours) * units.event_bytes)
        });
        row("catching up with it, one database", &|month| catch_up(month, hours, &units));
    }
    println!("{}", table.text());
    let method = method(arguments, &units);
    println!("{method}");
    write_results(&arguments.out, "model", "What so many clicks need", &method, table.text())
}

impl Units {
    fn recorded(folder: &Path) -> Result<Self> {
        let results = |scenario: &str, only: &[(&str, &str)]| -> Result<Results> {
            let all = Results::read(folder, scenario)?;
            let rows = only.iter().fold(all, |rows, (column, value)| rows.only(column, value)).last_run();
            if rows.is_empty() {
                let which: Vec<String> =
                    only.iter().map(|(column, value)| format!("{column} {value}")).collect();
                return Err(Failure::new(format!(
                    "{}/{scenario}.csv has no rows with {}: run `bench {}` first",
                    folder.display(),
                    which.join(", "),
                    scenario.split('-').next().unwrap_or_default()
                )));
            }
            Ok(rows)
        };
        let ours = ("competitor", "holdfast");
        let click = results("click", &[("mode", "power"), ours])?;
        let handshake = results("handshake", &[("manner", "full"), ours])?;
        let memory = results("memory", &[("targets", "distinct"), ours])?;
        let preload = results("preload", &[ours])?;
        let disk = results("disk", &[])?;
        let deliver = results("deliver-postgres", &[ours])?;
        let kept_us = median(&click, |row| row.number("all_us"));
        // Behind the answers the same is done, however the click came.
        let behind_us = median(&click, |row| row.number("all_us") - row.number("answering_us"));
        Ok(Self {
            kept_us,
            fresh_us: median(&handshake, |row| row.number("answering_us")) + behind_us,
            link_bytes: slope(&memory, "resident_bytes"),
            link_bytes_max: slope(&preload, "peak_bytes"),
            event_bytes: median(&disk, |row| row.number("bytes_per_event")),
            delivered_per_second: median(&deliver, |row| row.number("events_per_second")),
        })
    }
}

fn median(rows: &Results, figure: impl Fn(&Row) -> f64) -> f64 {
    let values = rows.figures(|_| String::new(), figure).into_iter().flat_map(|(_, values)| values);
    Spread::of(values).median
}

/// Bytes per link, between the least and the greatest number of links; of one number alone, all bytes count.
fn slope(rows: &Results, column: &str) -> f64 {
    let mut sizes: Vec<(f64, f64)> = rows
        .values("links")
        .iter()
        .filter_map(|links| {
            Some((links.parse().ok()?, median(&rows.only("links", links), |row| row.number(column))))
        })
        .collect();
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    match (sizes.first(), sizes.last()) {
        (Some(small), Some(large)) if small.0 < large.0 => (large.1 - small.1) / (large.0 - small.0),
        (_, Some((links, bytes))) => bytes / links,
        _ => f64::NAN,
    }
}

impl Traffic {
    fn of(clicks: f64, arguments: &Arguments) -> Self {
        let busiest_hour = clicks * arguments.busiest_hour;
        Self {
            clicks,
            mean_per_second: clicks / MONTH_S,
            busiest_hour,
            most_per_second: busiest_hour * arguments.first_minutes / FIRST_MINUTES_S,
        }
    }

    /// Clicks of so many hours, the busiest one among them.
    fn in_hours(&self, hours: f64) -> f64 {
        self.busiest_hour + (hours - 1.0) * HOUR_S * self.mean_per_second
    }
}

fn cores(month: &Traffic, click_us: f64, arguments: &Arguments) -> f64 {
    (month.most_per_second * click_us / 1e6 / arguments.busy_max).ceil()
}

/// One more than is needed, for one may be away.
fn edges(cores: f64, arguments: &Arguments) -> f64 {
    ((cores / arguments.cores).ceil() + 1.0).max(EDGES_MIN)
}

/// Hits go on coming meanwhile.
fn catch_up(month: &Traffic, hours: f64, units: &Units) -> String {
    let spare = units.delivered_per_second - month.mean_per_second;
    if spare <= 0.0 {
        return "never: more databases are needed".to_owned();
    }
    let seconds = month.in_hours(hours) / spare;
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn method(arguments: &Arguments, units: &Units) -> String {
    format!(
        "Written by `bench model` from the last runs in the CSV files beside it; no figure is typed by hand. \
         Measured: a click on a kept connection costs {:.1} µs of CPU with its delivery (`click.csv`, `power`), on a \
         fresh TLS connection with a full handshake {:.0} µs (`handshake.csv`); a link with a target of its own {:.0} \
         B (`memory.csv`), and while all are loaded anew {:.0} B more, the peak of a complete load (`preload.csv`); an event {:.1} B on disk once its \
         segment is compressed (`disk.csv`); one PostgreSQL takes {} events a second (`deliver-postgres.csv`).\n\n\
         Assumed: {} % of a month's clicks come in its busiest hour, and {} % of that hour's in its first five \
         minutes; a core is {} % busy then; an edge has {} cores, every edge knows all links and one edge more stands \
         by; a link gets {} clicks a month. An outage has the busiest hour in it, and clicks go on \
         at the mean rate while it is caught up with. All this but the clicks themselves changes by options (`--help`).\n\n\
         Kind to Holdfast: costs per click do not rise with the number of cores or links in this model, its clicks \
         come alone, without pixels and scanners, and one database is as fast for many edges as for one. Unkind: \
         clients resume TLS sessions and keep connections more often than never.",
        units.kept_us,
        units.fresh_us,
        units.link_bytes,
        units.link_bytes_max,
        units.event_bytes,
        count(units.delivered_per_second),
        arguments.busiest_hour * 100.0,
        arguments.first_minutes * 100.0,
        arguments.busy_max * 100.0,
        arguments.cores,
        arguments.clicks_per_link,
    )
}

/// With three digits that count.
fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{} billion", digits(v / 1e9)),
        v if v >= 1e6 => format!("{} million", digits(v / 1e6)),
        v if v >= 1e4 => format!("{},000", digits(v / 1e3)),
        v => format!("{v:.0}"),
    }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    format!("{} {unit}", digits(scaled))
}

/// A decimal below ten only, and none that is zero.
fn digits(value: f64) -> String {
    let text = if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_minutes_decide_how_many_edges_there_are() {
        let month =
            Traffic { clicks: 1e9, mean_per_second: 386.0, busiest_hour: 1e7, most_per_second: 26_667.0 };
        let arguments = Arguments {
            clicks: Vec::new(),
            busiest_hour: 0.01,
            first_minutes: 0.8,
            busy_max: 0.5,
            cores: 8.0,
            clicks_per_link: 100.0,
            out: PathBuf::new(),
        };
        // 26 667 clicks of 150 µs fill four cores, eight are half full.
        assert_eq!(cores(&month, 150.0, &arguments), 9.0);
        assert_eq!(edges(9.0, &arguments), 3.0);
        assert_eq!(edges(0.0, &arguments), EDGES_MIN);
        assert_eq!(Traffic::of(1e9, &arguments).most_per_second.round(), 26_667.0);
    }

    #[test]
    fn catching_up_takes_what_the_database_has_to_spare() {
        let units = Units {
            kept_us: 1.0,
            fresh_us: 1.0,
            link_bytes: 1.0,
            link_bytes_max: 1.0,
            event_bytes: 1.0,
            delivered_per_second: 1_000.0,
        };
        let month =
            Traffic { clicks: 0.0, mean_per_second: 500.0, busiest_hour: 3.6e6, most_per_second: 0.0 };
        assert_eq!(month.in_hours(4.0), 9e6);
        assert_eq!(catch_up(&month, 4.0, &units), "300 min");
        assert!(catch_up(&Traffic { mean_per_second: 1_000.0, ..month }, 4.0, &units).starts_with("never"));
    }

    #[test]
    fn a_slope_needs_two_sizes() {
        let rows = |text| Results::parse(text).expect("is well formed");
        assert_eq!(slope(&rows("links,b\n10,1000\n20,1500\n"), "b"), 50.0);
        assert_eq!(slope(&rows("links,b\n10,1000\n"), "b"), 100.0);
    }

    #[test]
    fn figures_have_the_unit_that_makes_them_short() {
        let counts = [1e11, 2.5e9, 26_667.0, 386.0].map(count);
        assert_eq!(counts, ["100 billion", "2.5 billion", "27,000", "386"]);
        assert_eq!([bytes(500.0), bytes(1.2e9)], ["500 B", "1.1 GiB"]);
    }
}
