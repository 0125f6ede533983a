//! Holds every dependency against `deny.toml`: licences, banned crates and sources.
//!
//! It needs nothing installed and no network. What it can't know is which versions have a published
//! fault; `make deny` asks cargo-deny that.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn every_licence_is_allowed() {
    let allowed = allowed_licences();
    let refused: Vec<String> = packages()
        .into_iter()
        .filter(|(_, licence)| !licence_is_allowed(licence, &allowed))
        .map(|(name, licence)| format!("{name}: {licence}"))
        .collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow: {refused:#?}");
}

#[test]
fn no_banned_crate_is_in_the_tree() {
    let rules = table("deny.toml");
    let banned: Vec<&str> =
        rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    let found: Vec<String> =
        locked().into_iter().map(|(name, _)| name).filter(|name| banned.contains(&&**name)).collect();
    assert!(found.is_empty(), "banned by deny.toml, with the reason there: {found:?}");
}

#[test]
fn every_crate_comes_from_the_registry() {
    let strangers: Vec<_> =
        locked().into_iter().filter(|(_, source)| source.as_ref().is_some_and(|s| s != REGISTRY)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn licence_expressions_mean_what_they_say() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    let holds = |text: &str| licence_is_allowed(text, &allowed);
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "GPL-3.0 OR (MIT AND Apache-2.0)",
        "Apache-2.0 WITH LLVM-exception",
        "MIT AND (GPL-3.0 OR Apache-2.0)",
    ] {
        assert!(holds(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND GPL-3.0",
        "GPL-3.0 WITH GCC-exception",
        "MIT OR",
    ] {
        assert!(!holds(bad), "{bad}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table(file: &str) -> toml::Table {
    fs::read_to_string(root().join(file)).unwrap().parse().unwrap()
}

fn allowed_licences() -> BTreeSet<String> {
    let rules = table("deny.toml");
    rules["licenses"]["allow"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Name and source of every crate of the lock file; our own have no source.
fn locked() -> Vec<(String, Option<String>)> {
    let lock = table("Cargo.lock");
    let text =
        |package: &toml::Value, key: &str| package.get(key).map(|value| value.as_str().unwrap().to_owned());
    lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(package, "name").unwrap(), text(package, "source")))
        .collect()
}

/// Name and licence of every crate that this platform's build uses.
fn packages() -> Vec<(String, String)> {
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(&package["name"]), text(&package["license"])))
        .collect()
}

/// Whether an SPDX expression can be met by licences of `allowed`.
fn licence_is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // The slash is an older way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// `OR` binds weaker than `AND`; none when the expression is not well formed.
fn any_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut holds = all_of(rest, allowed)?;
    while let Some((&"OR", tail)) = rest.split_first() {
        *rest = tail;
        holds |= all_of(rest, allowed)?;
    }
    Some(holds)
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut holds = one(rest, allowed)?;
    while let Some((&"AND", tail)) = rest.split_first() {
        *rest = tail;
        holds &= one(rest, allowed)?;
    }
    Some(holds)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let (&first, tail) = rest.split_first()?;
    *rest = tail;
    if first == "(" {
        let holds = any_of(rest, allowed)?;
        let (&")", tail) = rest.split_first()? else { return None };
        *rest = tail;
        return Some(holds);
    }
    if let Some((&"WITH", [exception, tail @ ..])) = rest.split_first() {
        *rest = tail;
        return Some(allowed.contains(&format!("{first} WITH {exception}")));
    }
    Some(allowed.contains(first))
}
