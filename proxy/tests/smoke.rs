//! Runs what the fuzz targets run, on stable and for a bounded count: kept inputs, changed ones, random ones.
//!
//! `HOLDFAST_SOAK` multiplies the count. A failure prints the input that led to it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

use holdfast::journal::sim::Random;

#[allow(unreachable_pub, reason = "the same file is the library of the fuzz crate")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

const INPUTS: u64 = 3_000;
const INPUT_BYTES_MAX: u64 = 600;

macro_rules! smoke {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+

        #[test]
        fn no_target_is_forgotten() {
            let here = [$(stringify!($name)),+];
            assert!(fuzz::all().keys().eq(here.iter()), "{here:?}");
            let targets = names(&folder("targets"));
            assert_eq!(targets, here.map(|name| format!("{name}.rs")));
        }
    };
}

smoke! { accept_language config event frame host journal links_log preface route snapshot target }

fn run(name: &str) {
    let target = fuzz::all()[name];
    let kept: Vec<Vec<u8>> = inputs(&folder("corpus").join(name));
    assert!(!kept.is_empty(), "fuzz/corpus/{name} has no inputs");
    kept.iter().for_each(|input| feed(target, input));
    let factor: u64 = env::var("HOLDFAST_SOAK").map_or(1, |factor| factor.parse().unwrap());
    let mut random = Random::new(1);
    for round in 0..INPUTS * factor {
        let input = if round % 4 == 0 { noise(&mut random) } else { changed(&kept, &mut random) };
        feed(target, &input);
    }
}

fn feed(target: fuzz::Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln_input(input);
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::print_stderr, reason = "the input is what one needs to repeat the failure")]
fn eprintln_input(input: &[u8]) {
    eprintln!("failed on b\"{}\"", input.escape_ascii());
}

fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(INPUT_BYTES_MAX);
    (0..length).map(|_| random.bits() as u8).collect()
}

/// A kept input with a few bytes changed, a piece removed, doubled or joined with another.
fn changed(kept: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| kept[random.below(kept.len() as u64) as usize].clone();
    let mut input = pick(random);
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() as u64 + 1) as usize;
        let length = random.below(16) as usize;
        let end = (at + length).min(input.len());
        match random.below(5) {
            0 => drop(input.drain(at..end)),
            1 => input.extend_from_within(at..end),
            2 => input.truncate(at),
            3 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                input.splice(at..end, other[from..].iter().take(length).copied());
            }
            _ => input[at..end].iter_mut().for_each(|byte| *byte = random.bits() as u8),
        }
    }
    input
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    names(folder).iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}
