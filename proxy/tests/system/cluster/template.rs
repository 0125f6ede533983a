//! Data folders that are made once and copied for each server: `initdb` takes a second, a copy does not.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs::{give, program, succeed};
use super::{PASSWORD, USER};

/// Kept from one run of the tests to the next, beside what Cargo builds.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgresql");
    fs::create_dir_all(&folder).expect("folder of templates");
    folder
}

/// What [`super::Cluster::start`] copies.
pub fn first() -> PathBuf {
    made("first")
}

/// Another one, with another identity.
pub fn second() -> PathBuf {
    made("second")
}

fn made(name: &str) -> PathBuf {
    let version = succeed(program("postgres").arg("--version")).stdout;
    let version: String =
        String::from_utf8_lossy(&version).chars().filter(char::is_ascii_alphanumeric).collect();
    let template = folder().join(format!("{name}-{version}"));
    // Tests run side by side; the first of them makes it.
    let lock = File::create(folder().join(format!("{name}.lock"))).expect("lock file");
    lock.lock().expect("lock");
    if !template.exists() {
        make(&template);
    }
    template
}

/// Made elsewhere and moved into place whole, so that a run that is broken off leaves no half one.
fn make(template: &Path) {
    // The server's user may not reach what Cargo builds.
    let scratch = tempfile::tempdir().expect("scratch folder");
    give(scratch.path());
    let data = scratch.path().join("data");
    succeed(
        program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--wal-segsize=1", "--no-sync", "-D"])
            .arg(&data),
    );
    let mut server = program("postgres")
        .args(["--single", "-c", "fsync=off", "-D"])
        .arg(&data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postgres starts");
    let mut input = server.stdin.take().expect("piped");
    writeln!(input, "create role {USER} login password '{PASSWORD}';").expect("it reads");
    writeln!(input, "create role occupier login;").expect("it reads");
    writeln!(input, "create database holdfast owner {USER};").expect("it reads");
    drop(input);
    assert!(server.wait().expect("postgres").success(), "the template's database was not made");
    let part = template.with_extension("part");
    let _ = fs::remove_dir_all(&part);
    succeed(Command::new("cp").arg("-r").arg(&data).arg(&part));
    fs::rename(&part, template).expect("template");
}
