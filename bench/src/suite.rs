//! Every scenario in turn, each with its defaults: what `make bench` runs.
//!
//! A scenario that fails does not keep the others from being measured; the run fails at its end.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, Parser};

use crate::failure::{Failure, Result};
use crate::process::{Cores, output};
use crate::{edge, report, run as run_scenario};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Short rounds, to see that everything works; the figures are worth nothing
    #[arg(long)]
    quick: bool,
    /// Rounds of each scenario that has rounds, instead of its own number
    #[arg(long)]
    rounds: Option<u64>,
    /// Seconds of each round that is measured by time, likewise
    #[arg(long)]
    seconds: Option<u64>,
    /// Only these scenarios, by the first word of their command
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Take what is installed
    #[arg(long)]
    no_install: bool,
    /// The Holdfast to measure; without it the workspace's is built
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Where databases and journals are kept during the run; should be on a real disk
    #[arg(long, default_value = "target/bench")]
    scratch: PathBuf,
    /// Where the results go
    #[arg(long, default_value = RECORDED)]
    out: PathBuf,
}

/// Where figures are that count.
const RECORDED: &str = "docs/performance";

/// One command of this program.
struct Step {
    command: &'static str,
    /// Makes it short.
    quick: &'static str,
    /// How long it takes about, in full and made short.
    declared: Duration,
    declared_quick: Duration,
}

const fn step(command: &'static str, minutes: u64, quick: &'static str, quick_seconds: u64) -> Step {
    Step {
        command,
        quick,
        declared: Duration::from_secs(minutes * 60),
        declared_quick: Duration::from_secs(quick_seconds),
    }
}

const STEPS: &[Step] = &[
    step("click --mode power", 12, "--links 10000 --seconds 1 --rounds 1", 52),
    step("click --mode process", 12, "--links 10000 --seconds 1 --rounds 1", 52),
    step("start", 5, "--links 10000 --rounds 1", 15),
    step("memory", 6, "--links 20000 --rounds 1", 90),
    step("rate", 5, "--links 10000 --per-second 2000 --seconds 2 --rounds 1", 22),
    step("idle", 2, "--connections 500 --rounds 1", 13),
    step("handshake", 6, "--idle 500 --seconds 1 --rounds 1", 40),
    step("deliver", 6, "--events 50000 --rounds 1", 20),
    step("steps", 5, "--seconds 1 --rounds 1", 60),
    step("disk", 4, "--events 60000 --rounds 1 --segment 1MiB", 15),
    step("preload", 4, "--links 20000 --rounds 1", 12),
    step("outage", 7, "--links 10000 --per-second 1000 --part-seconds 1 --rounds 1", 40),
    step("swap", 8, "--links 20000 --swaps 1 --seconds 2 --per-second 1000", 16),
    step("kinds", 15, "--links 5000 --seconds 1 --rounds 1", 150),
    step("journal", 14, "--links 10000 --seconds 1 --rounds 1 --per-second 1000", 70),
    step("burst", 3, "--links 10000 --hour-seconds 12 --seconds 1 --connections 64", 30),
    step("growth", 14, "--links 1000,10000 --connections 64,500 --seconds 1 --rounds 1", 50),
];

/// What a command has in full alone.
const IN_FULL: &[(&str, &str)] =
    &[("growth", "--ten-million"), ("start", "--ten-million"), ("swap", "--ten-million")];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = chosen(&arguments.only)?;
    if arguments.quick && arguments.out == Path::new(RECORDED) {
        return Err(Failure::new(format!(
            "figures of --quick are worth nothing and do not belong into {RECORDED}: name another folder, for \
             instance --out target/quick"
        )));
    }
    if !arguments.no_install {
        install();
    }
    let holdfast = edge::binary(arguments.holdfast.as_deref())?;
    let begin = Instant::now();
    let declared = |step: &&Step| if arguments.quick { step.declared_quick } else { step.declared };
    let mut failed = Vec::new();
    for (done, step) in steps.iter().enumerate() {
        let before: Duration = steps[..done].iter().map(declared).sum();
        let left: Duration = steps[done..].iter().map(declared).sum();
        println!(
            "\n=== {} of {}: {}; {} gone, about {} left ===",
            done + 1,
            steps.len(),
            step.command,
            minutes(begin.elapsed()),
            minutes(expected(begin.elapsed(), before, left)),
        );
        if let Err(failure) = run_step(arguments, step, &holdfast) {
            let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            println!("{} failed: {failure}{cause}", step.command);
            report::forget();
            failed.push(step.command);
        }
    }
    println!(
        "\n=== {} of {} done in {} ===",
        steps.len() - failed.len(),
        steps.len(),
        minutes(begin.elapsed())
    );
    // It needs results of more scenarios than may have been chosen; those of earlier runs will do.
    if let Err(failure) = run_line(&["bench", "model"], &[("--out", arguments.out.as_path())]) {
        println!("no model: {failure}");
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("failed: {}", failed.join(", ")))) }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Step>> {
    let name = |step: &Step| step.command.split(' ').next().unwrap_or_default();
    if let Some(unknown) = only.iter().find(|&only| STEPS.iter().all(|step| name(step) != only.as_str())) {
        let known: Vec<&str> = STEPS.iter().map(name).collect();
        return Err(Failure::new(format!("no scenario {unknown}; there are {}", known.join(", "))));
    }
    Ok(STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|only| only == name(step))).collect())
}

/// The Makefile has the list. Who may not install measures without the peers that are missing.
fn install() {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-C"]).arg(edge::workspace()).arg("bench-packages");
    if let Err(failure) = output(&mut make, Cores::All) {
        println!("not everything is installed ({failure}): scenarios do without what is missing, or fail");
    }
}

fn run_step(arguments: &Arguments, step: &Step, holdfast: &Path) -> Result<()> {
    let mut words: Vec<&str> = std::iter::once("bench").chain(step.command.split(' ')).collect();
    if arguments.quick {
        words.extend(step.quick.split(' '));
    } else {
        words
            .extend(IN_FULL.iter().filter(|(command, _)| *command == step.command).map(|(_, option)| option));
    }
    let lengths = [("--rounds", arguments.rounds), ("--seconds", arguments.seconds)];
    let lengths = lengths.map(|(option, value)| (option, value.map(|value| value.to_string())));
    for (option, value) in &lengths {
        if let Some(value) = value {
            replace(&mut words, step, option, value);
        }
    }
    let paths = [
        ("--holdfast", holdfast),
        ("--scratch", arguments.scratch.as_path()),
        ("--out", arguments.out.as_path()),
    ];
    run_line(&words, &paths)
}

/// Gives `option` the value, where the step has that option.
fn replace<'a>(words: &mut Vec<&'a str>, step: &Step, option: &'a str, value: &'a str) {
    if let Some(at) = words.iter().position(|word| *word == option) {
        words[at + 1] = value;
    } else if step.quick.split(' ').any(|word| word == option) {
        words.extend([option, value]);
    }
}

/// Runs a line of commands of this program.
fn run_line(words: &[&str], paths: &[(&str, &Path)]) -> Result<()> {
    let paths = paths.iter().flat_map(|(option, path)| [option.as_ref(), path.as_os_str()]);
    let line = words.iter().map(AsRef::as_ref).chain(paths);
    let parsed = crate::Arguments::try_parse_from(line).map_err(|error| Failure::new(error.to_string()))?;
    run_scenario(parsed.scenario)
}

/// What is left, as declared, by how much what is done took more or less than was declared for it.
fn expected(gone: Duration, before: Duration, left: Duration) -> Duration {
    if before.is_zero() { left } else { left.mul_f64(gone.as_secs_f64() / before.as_secs_f64()) }
}

fn minutes(span: Duration) -> String {
    let seconds = span.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_step_is_a_command_in_full_and_made_short() {
        for step in STEPS {
            let in_full = IN_FULL.iter().filter(|(command, _)| *command == step.command);
            let in_full = in_full.map(|(command, option)| format!("{command} {option}"));
            let lines = [step.command.to_owned(), format!("{} {}", step.command, step.quick)];
            for line in lines.into_iter().chain(in_full) {
                let words = std::iter::once("bench").chain(line.split(' '));
                assert!(crate::Arguments::try_parse_from(words).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn no_scenario_is_left_out() {
        for command in crate::Arguments::command().get_subcommands().filter(|command| !command.is_hide_set())
        {
            let name = command.get_name();
            let is_scenario = !["all", "charts", "compare", "model"].contains(&name);
            assert!(!is_scenario || chosen(&[name.to_owned()]).is_ok(), "{name} is no step of `all`");
        }
    }

    #[test]
    fn rounds_are_for_those_that_have_them() {
        let rounds = step("start", 1, "--links 10 --rounds 1", 1);
        let mut words = vec!["start", "--links", "10", "--rounds", "1"];
        replace(&mut words, &rounds, "--rounds", "3");
        replace(&mut words, &rounds, "--seconds", "2");
        assert_eq!(words, ["start", "--links", "10", "--rounds", "3"]);
        let mut words = vec!["start"];
        replace(&mut words, &rounds, "--rounds", "3");
        assert_eq!(words, ["start", "--rounds", "3"]);
    }

    #[test]
    fn the_estimate_follows_what_was_needed_so_far() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(expected(minutes(0), minutes(0), minutes(10)), minutes(10));
        assert_eq!(expected(minutes(8), minutes(4), minutes(10)), minutes(20));
    }

    #[test]
    fn a_scenario_that_does_not_exist_is_named() {
        assert_eq!(chosen(&["click".to_owned()]).map(|steps| steps.len()).ok(), Some(2));
        let failure = chosen(&["clock".to_owned()]).err().map(|failure| failure.to_string());
        assert!(failure.is_some_and(|text| text.starts_with("no scenario clock")));
    }
}
