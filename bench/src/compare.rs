//! Says whether two complete runs rank the competitors alike, by the first measure of every scenario.
//!
//! Two that changed places count as the same when their spreads overlap in either run, or when neither has
//! one: then that run does not tell them apart.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::charts::{Better, CHARTS};
use crate::failure::{Failure, Result};
use crate::report::Spread;
use crate::results::Results;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder with the results of one run; of several in a file, the last counts
    a: PathBuf,
    /// The folder with the results of the other
    b: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (mut compared, mut differing, mut missing) = (0, Vec::new(), Vec::new());
    for chart in CHARTS {
        let read = |folder: &Path| Results::read(folder, chart.scenario).map(|results| chart.parts(&results));
        let (a, b) = (read(&arguments.a)?, read(&arguments.b)?);
        for (name, rows) in &a {
            let Some((_, others)) = b.iter().find(|(other, _)| other == name) else {
                println!("{name}: only in {}", arguments.a.display());
                missing.push(name.clone());
                continue;
            };
            let measure = chart.first_measure();
            let (first, second) = (chart.spreads(measure, rows), chart.spreads(measure, others));
            let swaps = swaps(&first, &second, measure.better);
            let clear: Vec<&Swap<'_>> = swaps.iter().filter(|swap| swap.is_clear).collect();
            let verdict = match (clear.is_empty(), swaps.is_empty()) {
                (true, true) => "the same",
                (true, false) => "the same but for those that no run tells apart",
                (false, _) => "DIFFERENT",
            };
            println!("{name}, by {}: {verdict}", measure.title);
            for swap in &swaps {
                let note = if swap.is_clear { "" } else { " (their spreads overlap)" };
                println!(
                    "  {} is ahead of {} in the first run, behind in the second{note}",
                    swap.ahead, swap.behind
                );
            }
            compared += 1;
            if !clear.is_empty() {
                differing.push(name.clone());
            }
        }
        for (name, _) in b.iter().filter(|(name, _)| a.iter().all(|(other, _)| other != name)) {
            println!("{name}: only in {}", arguments.b.display());
            missing.push(name.clone());
        }
    }
    if compared == 0 {
        return Err(Failure::new("the two folders have no scenario in common"));
    }
    if !differing.is_empty() {
        return Err(Failure::new(format!("rankings differ: {}", differing.join(", "))));
    }
    if !missing.is_empty() {
        return Err(Failure::new(format!("in one of the two only: {}", missing.join(", "))));
    }
    println!("{compared} rankings are the same in both runs");
    Ok(())
}

/// Two that changed places.
#[derive(Debug, PartialEq)]
struct Swap<'a> {
    ahead: &'a str,
    behind: &'a str,
    is_clear: bool,
}

/// The pairs that the second run has the other way round than the first.
fn swaps<'a>(first: &'a [(String, Spread)], second: &[(String, Spread)], better: Better) -> Vec<Swap<'a>> {
    let is_ahead = |a: &Spread, b: &Spread| match better {
        Better::Less => a.median < b.median,
        Better::More => a.median > b.median,
    };
    // A single value says nothing of how far chance goes.
    let has_spread = |spread: &Spread| spread.least < spread.most;
    let apart =
        |a: &Spread, b: &Spread| (has_spread(a) || has_spread(b)) && (a.most < b.least || b.most < a.least);
    let in_second = |label: &str| second.iter().find(|(other, _)| other == label).map(|(_, spread)| spread);
    let mut swaps = Vec::new();
    for (ahead, a) in first {
        for (behind, b) in first.iter().filter(|(_, b)| is_ahead(a, b)) {
            if let (Some(a2), Some(b2)) = (in_second(ahead), in_second(behind))
                && is_ahead(b2, a2)
            {
                swaps.push(Swap { ahead, behind, is_clear: apart(a, b) && apart(a2, b2) });
            }
        }
    }
    swaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_both_runs_tell_apart_change_the_ranking() {
        let run = |figures: [[f64; 2]; 3]| -> Vec<(String, Spread)> {
            ["a", "b", "c"]
                .iter()
                .zip(figures)
                .map(|(label, ends)| (label.to_string(), Spread::of(ends)))
                .collect()
        };
        let first = run([[1.0, 2.0], [3.0, 4.0], [3.5, 6.0]]);
        let second = run([[3.0, 4.0], [1.0, 2.0], [0.5, 2.0]]);
        let found = swaps(&first, &second, Better::Less);
        let found: Vec<_> = found.iter().map(|swap| (swap.ahead, swap.behind, swap.is_clear)).collect();
        assert_eq!(found, [("a", "b", true), ("a", "c", true), ("b", "c", false)]);
        assert!(swaps(&first, &first, Better::More).is_empty());
        let single = |figures: [f64; 2]| -> Vec<(String, Spread)> {
            ["a", "b"]
                .iter()
                .zip(figures)
                .map(|(label, one)| (label.to_string(), Spread::of([one])))
                .collect()
        };
        assert!(!swaps(&single([1.0, 2.0]), &single([2.0, 1.0]), Better::Less)[0].is_clear);
    }
}
