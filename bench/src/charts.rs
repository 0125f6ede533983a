//! Which chart each scenario has: what its CSV is divided by, what a bar stands for, and what is drawn.
//!
//! Charts come from the CSV alone, so that they can be drawn anew without measuring. The first panel of a
//! chart is also what two runs are compared by.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Result};
use crate::report::Spread;
use crate::results::{Results, Row};
use crate::svg::{self, Bar, Panel};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the results are and the charts go
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// How one scenario's rows are drawn.
pub(crate) struct Chart {
    /// Of the CSV.
    pub(crate) scenario: &'static str,
    title: &'static str,
    /// What the scenario is fair and unfair to, where its report does not say so itself.
    fairness: &'static str,
    /// A column with a chart for each of its values.
    each: Option<&'static str>,
    /// The columns whose values make a bar's label.
    label: &'static [&'static str],
    measures: &'static [Measure],
}

/// One panel.
pub(crate) struct Measure {
    pub(crate) title: &'static str,
    figure: fn(&Row) -> f64,
    pub(crate) better: Better,
}

/// Which end of a measure is the good one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

const MIB: f64 = 1_048_576.0;

const CPU_PER_CLICK: Measure =
    Measure { title: "CPU per click, µs", figure: |row| row.number("answering_us"), better: Better::Less };
const P99: Measure =
    Measure { title: "p99, ms", figure: |row| row.number("p99_us") / 1e3, better: Better::Less };
const PER_SECOND: Measure = Measure {
    title: "clicks per second on one core, where the client was not the limit",
    figure: |row| if row.text("client_limits") == "1" { f64::NAN } else { row.number("requests_per_second") },
    better: Better::More,
};

pub(crate) const CHARTS: &[Chart] = &[
    Chart {
        scenario: "click",
        fairness: "",
        title: "Keep-alive clicks",
        each: Some("mode"),
        label: &["competitor"],
        measures: &[
            CPU_PER_CLICK,
            Measure {
                title: "CPU per click with delivery, µs",
                figure: |row| row.number("all_us"),
                better: Better::Less,
            },
            PER_SECOND,
            Measure {
                title: "p99 in a closed loop, ms",
                figure: |row| row.number("p99_us") / 1e3,
                better: Better::Less,
            },
        ],
    },
    Chart {
        scenario: "rate",
        fairness: "Fair: the same intended times for all, and nobody's rate is near what its core can take. Unfair to Holdfast: in `power` mode its answer waits for a sync, and delivery runs on the same core; nginx's log is buffered and lost with the machine, the floor records nothing.",
        title: "Latency at a fixed rate, from when each click was due",
        each: Some("mode"),
        label: &["competitor"],
        measures: &[
            P99,
            Measure { title: "p50, ms", figure: |row| row.number("p50_us") / 1e3, better: Better::Less },
        ],
    },
    Chart {
        scenario: "kinds",
        fairness: "",
        title: "Kinds of requests",
        each: Some("mode"),
        label: &["kind", "competitor"],
        measures: &[Measure {
            title: "CPU per request, µs",
            figure: |row| row.number("answering_us"),
            better: Better::Less,
        }],
    },
    Chart {
        scenario: "journal",
        fairness: "",
        title: "What recording costs",
        each: None,
        label: &["case"],
        measures: &[
            CPU_PER_CLICK,
            Measure {
                title: "p99 at a fixed rate, ms",
                figure: |row| row.number("rate_p99_us") / 1e3,
                better: Better::Less,
            },
        ],
    },
    Chart {
        scenario: "burst",
        fairness: "",
        title: "The hour after a mailing",
        each: Some("mode"),
        label: &["part"],
        measures: &[P99],
    },
    Chart {
        scenario: "handshake",
        fairness: "Fair: one core, the same certificate, key, cipher suite and group for all, tickets on. Unfair to Holdfast: it alone syncs every click. Fair to no server's best case: connections bring one click each.",
        title: "Clicks on fresh TLS connections",
        each: None,
        label: &["manner", "competitor"],
        measures: &[
            CPU_PER_CLICK,
            Measure {
                title: "memory per idle connection, KiB",
                figure: |row| row.number("idle_connection_kib"),
                better: Better::Less,
            },
        ],
    },
    Chart {
        scenario: "growth",
        fairness: "Fair: few and many are measured in turn in one run, and the floor shows what the kernel itself adds. Unfair to Holdfast: clicks pick links at random, where a campaign's hot links would stay in the cache. Kind to Holdfast: connections are busy alike, none is slow.",
        title: "More links, more connections",
        each: Some("mode"),
        label: &["competitor", "targets", "links", "connections"],
        measures: &[CPU_PER_CLICK],
    },
    Chart {
        scenario: "swap",
        fairness: "Unfair to Holdfast: import, load and table building share the one core with the clicks, where an edge has others. Kind to Holdfast: the rate is far below what the core can take when nothing is swapped.",
        title: "A new table under load",
        each: None,
        label: &["what"],
        measures: &[P99],
    },
    Chart {
        scenario: "outage",
        fairness: "Fair: up, killed and hung take turns, and nothing happens in \"up\". Unfair to the parts with the server up: PostgreSQL, the delivery and their syncs use Holdfast's core and disk then. Kind to Holdfast: all clicks are on links that it knows.",
        title: "Clicks while PostgreSQL is away",
        each: None,
        label: &["state", "part"],
        measures: &[P99, CPU_PER_CLICK],
    },
    Chart {
        scenario: "start",
        fairness: "Fair: the page cache is warm for all, none is pinned to a core. Unfair to nginx and HAProxy: they read their links as text, Holdfast from a snapshot that it made before; they have no such thing.",
        title: "Start to first redirect",
        each: None,
        label: &["competitor", "links"],
        measures: &[Measure { title: "ms", figure: |row| row.number("start_ms"), better: Better::Less }],
    },
    Chart {
        scenario: "memory",
        fairness: "Fair: each server is started anew for each size, so that what an import or a load took does not count. Kind to Holdfast: nothing of a swap, in which two tables are there at once (nginx and HAProxy have two processes with a table each then).",
        title: "Memory of a table of links",
        each: None,
        label: &["competitor", "targets", "links"],
        measures: &[Measure {
            title: "resident, MiB",
            figure: |row| row.number("resident_bytes") / MIB,
            better: Better::Less,
        }],
    },
    Chart {
        scenario: "idle",
        fairness: "",
        title: "Memory per idle connection",
        each: None,
        label: &["competitor"],
        measures: &[Measure {
            title: "KiB per connection",
            figure: |row| {
                (row.number("idle_bytes") - row.number("before_bytes")) / row.number("connections") / 1024.0
            },
            better: Better::Less,
        }],
    },
    DELIVER,
    Chart { scenario: "deliver-postgres", title: "Delivery into PostgreSQL", ..DELIVER },
    Chart {
        scenario: "steps",
        fairness: "",
        title: "The steps of a click by themselves",
        each: None,
        label: &["step"],
        measures: &[Measure { title: "ns", figure: |row| row.number("ns"), better: Better::Less }],
    },
    Chart {
        scenario: "disk",
        fairness: "",
        title: "Bytes per event on disk",
        each: None,
        label: &["links"],
        measures: &[Measure {
            title: "bytes, once compressed",
            figure: |row| row.number("bytes_per_event"),
            better: Better::Less,
        }],
    },
    Chart {
        scenario: "preload",
        fairness: "",
        title: "Loading all links from PostgreSQL",
        each: None,
        label: &["links", "competitor"],
        measures: &[Measure {
            title: "links per second",
            figure: |row| row.number("rows_per_second"),
            better: Better::More,
        }],
    },
];

const DELIVER: Chart = Chart {
    scenario: "deliver",
    fairness: "",
    title: "Delivery into SQLite",
    each: None,
    label: &["competitor"],
    measures: &[
        Measure {
            title: "events per second",
            figure: |row| row.number("events_per_second"),
            better: Better::More,
        },
        Measure { title: "CPU per event, µs", figure: |row| row.number("cpu_us"), better: Better::Less },
    ],
};

/// Draws all charts anew, each from the last run in its CSV.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut drawn = 0;
    for chart in CHARTS {
        for (name, rows) in chart.parts(&Results::read(&arguments.out, chart.scenario)?) {
            println!("{}", chart.draw(&arguments.out, &name, &rows)?.display());
            drawn += 1;
        }
    }
    if drawn == 0 {
        return Err(Failure::new(format!("no results in {}: measure first", arguments.out.display())));
    }
    Ok(())
}

/// What goes above the table of the report `name`: what it is fair and unfair to, and its chart, drawn.
pub(crate) fn head_of(out: &Path, name: &str) -> Result<String> {
    for chart in CHARTS.iter().filter(|chart| name.starts_with(chart.scenario)) {
        for (part, rows) in chart.parts(&Results::read(out, chart.scenario)?) {
            if part == name {
                chart.draw(out, &part, &rows)?;
                let paragraphs = [chart.fairness, &format!("![{}]({part}.svg)", chart.title)];
                return Ok(paragraphs
                    .iter()
                    .filter(|text| !text.is_empty())
                    .map(|text| format!("{text}\n\n"))
                    .collect());
            }
        }
    }
    Ok(String::new())
}

impl Chart {
    /// What the scenario's charts show: the last run of each, by the name of the chart.
    pub(crate) fn parts(&self, results: &Results) -> Vec<(String, Results)> {
        match self.each {
            None if results.is_empty() => Vec::new(),
            None => vec![(self.scenario.to_owned(), results.last_run())],
            Some(column) => {
                let values = results.values(column);
                let part = |value: &String| {
                    (format!("{}-{value}", self.scenario), results.only(column, value).last_run())
                };
                values.iter().map(part).collect()
            }
        }
    }

    /// The measure that runs are compared by.
    pub(crate) fn first_measure(&self) -> &Measure {
        &self.measures[0]
    }

    /// Each label's figures.
    pub(crate) fn spreads(&self, measure: &Measure, rows: &Results) -> Vec<(String, Spread)> {
        let label = |row: &Row| {
            let parts = self.label.iter().map(|column| match *column {
                "links" | "connections" => format!("{} {column}", row.text(column)),
                _ => row.text(column).to_owned(),
            });
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
        };
        let figures = rows.figures(label, measure.figure);
        figures.into_iter().map(|(label, values)| (label, Spread::of(values))).collect()
    }

    fn draw(&self, out: &Path, name: &str, rows: &Results) -> Result<PathBuf> {
        let has_others = self.label.contains(&"competitor");
        let panel = |measure: &Measure| Panel {
            title: measure.title.to_owned(),
            bars: self
                .spreads(measure, rows)
                .into_iter()
                .map(|(label, spread)| Bar { ours: !has_others || label.contains("holdfast"), label, spread })
                .collect(),
        };
        let panels: Vec<Panel> =
            self.measures.iter().map(panel).filter(|panel| !panel.bars.is_empty()).collect();
        let title = match name.strip_prefix(self.scenario).and_then(|rest| rest.strip_prefix('-')) {
            Some(part) => format!("{} ({part} mode)", self.title),
            None => self.title.to_owned(),
        };
        let file = out.join(format!("{name}.svg"));
        fs::write(&file, svg::draw(&title, &panels))
            .map_err(Failure::at(format!("cannot write {}", file.display())))?;
        Ok(file)
    }
}
