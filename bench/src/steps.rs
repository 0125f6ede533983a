//! Scenario `steps`: what each step of a click takes by itself, and how much one committer takes, from the
//! criterion benches of `proxy`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::edge::{target, workspace};
use crate::failure::{Failure, Result};
use crate::process::{Cores, output};
use crate::report::{Spread, Table, keep_row, write_results};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long each step is measured in each round; the committer has its own time
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often all of them are measured
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Not used: the benches are built from the workspace
    #[arg(long, hide = true)]
    holdfast: Option<PathBuf>,
    /// Not used: the benches keep their journals beside what is built
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
    /// Where the results go
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
}

/// One step in one round.
struct Measured {
    step: String,
    /// The median of criterion's samples, for one of what the step is of.
    ns: f64,
}

/// Of `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    title: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: u64,
}

/// Of `estimates.json`.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

const CSV_HEADER: &str = "step,round,ns";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    for round in 1..=arguments.rounds {
        println!("round {round} of {}", arguments.rounds);
        let measured = measure(arguments.seconds)?;
        for Measured { step, ns } in &measured {
            // A comma would be another field's.
            keep_row("steps", CSV_HEADER, &format!("{},{round},{ns:.2}", step.replace(',', ";")));
        }
        rounds.push(measured);
    }
    let mut table = Table::new(&["step", "ns", "per second"]);
    for Measured { step, .. } in rounds.first().into_iter().flatten() {
        let of_step = rounds.iter().flatten().filter(|measured| measured.step == *step);
        let ns = Spread::of(of_step.map(|measured| measured.ns));
        let digits = if ns.median < 1000.0 { 1 } else { 0 };
        table.row(&[step, &ns.text(digits), &format!("{:.0}", 1e9 / ns.median)]);
    }
    println!("\n{}", table.text());
    let method = format!(
        "`cargo bench --package holdfast --bench hotpath`, {} rounds, {} s for each step in each: the medians of \
         criterion's samples; here the median of the rounds, in brackets the least and the most. Nothing is pinned to a \
         core. Staging is CPU time of the thread that stages, beside a committer that writes and syncs what is staged; \
         all else is time on the clock. The committer's figure is for one event, from the first that is staged until the \
         last is synced, with eight threads that do nothing but stage, without any wait between two hits: on fewer cores \
         than nine it shares them with those.\n\n\
         Kind: each step's own memory stays in the caches, as it does not between the steps of a click, but for the \
         look-up, whose tokens are random ones of a million links. A whole click is scenario `click`.",
        arguments.rounds, arguments.seconds,
    );
    write_results(&arguments.out, "steps", "The steps of a click by themselves", &method, table.text())
}

/// Runs the benches and reads what criterion kept of them.
fn measure(seconds: u64) -> Result<Vec<Measured>> {
    let begun = SystemTime::now();
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--locked", "--quiet", "--package", "holdfast", "--bench", "hotpath", "--"]);
    cargo.args(["--warm-up-time", "1", "--measurement-time", &seconds.to_string()]);
    output(cargo.current_dir(workspace()), Cores::All)?;
    let mut measured = Vec::new();
    collect(&target().join("criterion"), begun, &mut measured)?;
    if measured.is_empty() {
        return Err(Failure::new(format!("criterion has left nothing in {}/criterion", target().display())));
    }
    measured.sort_by(|a, b| a.step.cmp(&b.step));
    Ok(measured)
}

/// All that was measured since `begun`, in this folder and those in it.
fn collect(folder: &Path, begun: SystemTime, measured: &mut Vec<Measured>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Failure::at(format!("cannot read {}", folder.display())))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let estimates = path.join("estimates.json");
        let is_new = |file: &Path| {
            fs::metadata(file).and_then(|file| file.modified()).is_ok_and(|modified| modified >= begun)
        };
        if entry.file_name() == "new" && is_new(&estimates) {
            let benchmark: Benchmark = read_json(&path.join("benchmark.json"))?;
            let estimates: Estimates = read_json(&estimates)?;
            let elements = benchmark.throughput.map_or(1, |throughput| throughput.elements);
            let ns = estimates.median.point_estimate / elements as f64;
            measured.push(Measured { step: benchmark.title, ns });
        } else if path.is_dir() {
            collect(&path, begun, measured)?;
        }
    }
    Ok(())
}

fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).map_err(Failure::at(format!("cannot read {}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("cannot understand {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_s_files_are_read_as_far_as_they_are_new() {
        let root = std::env::temp_dir().join(format!("steps-{}", std::process::id()));
        for (name, throughput) in [("encode", "null"), ("journal/commit", r#"{"Elements":400}"#)] {
            let folder = root.join(name).join("new");
            fs::create_dir_all(&folder).expect("is made");
            let benchmark = format!(r#"{{"title":"{name}","throughput":{throughput},"group_id":"x"}}"#);
            fs::write(folder.join("benchmark.json"), benchmark).expect("is written");
            fs::write(folder.join("estimates.json"), r#"{"median":{"point_estimate":800.0}}"#)
                .expect("is written");
        }
        let collected = |begun| {
            let mut measured = Vec::new();
            collect(&root, begun, &mut measured).expect("is read");
            measured.sort_by(|a, b| a.step.cmp(&b.step));
            measured.into_iter().map(|one| (one.step, one.ns)).collect::<Vec<_>>()
        };
        let all = collected(SystemTime::UNIX_EPOCH);
        let none = collected(SystemTime::now() + std::time::Duration::from_secs(60));
        fs::remove_dir_all(&root).expect("is there");
        assert_eq!(all, [("encode".to_owned(), 800.0), ("journal/commit".to_owned(), 2.0)]);
        assert!(none.is_empty());
    }
}
