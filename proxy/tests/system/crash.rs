//! `kill -9` and power cuts under load: what was answered is delivered exactly once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::edge::{Edge, SITE, configuration, wait_for};
use crate::load::{Ledger, Load, Manner, assert_exactly_once, wait_delivered};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// Rounds of one run: 30 in `make test`, `HOLDFAST_SOAK` times as many in `make soak`.
fn rounds() -> u32 {
    let factor = std::env::var("HOLDFAST_SOAK").ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(1);
    30 * factor
}

/// A configuration whose answers are all waited for, so that every 302 is a promise.
fn patient(mode: &str) -> String {
    configuration(SITE)
        .replace("segment = \"1MiB\"", &format!("segment = \"1MiB\"\nmode = \"{mode}\"\nwait_ms_max = 10000"))
}

/// Numbers that differ from run to run; printed, so that a failure can be told apart.
fn seed() -> u64 {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    seed
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn killed_at_random_moments(mode: &str) {
    let mut seed = seed();
    let ledger = Arc::new(Ledger::default());
    let mut edge = Edge::prepare(&patient(mode), LINKS);
    for _ in 0..rounds() {
        edge.start();
        let load = Load::start(edge.http, 6, Manner::UntilBroken, &ledger, "/c/a");
        let before = ledger.answers();
        wait_for("the first answers", || (ledger.answers() > before + 5).then_some(()));
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 120));
        edge.kill();
        load.stop();
    }
    edge.start();
    wait_delivered(&edge, &ledger.answered());
    assert_exactly_once(&edge, &ledger);
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!((&report["missing"], &report["doubled"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(edge.count("select count(*) from hits where class = 'waived'"), 0);
    println!("{mode}: {} answers over {} rounds", ledger.answers(), rounds());
}

#[test]
fn killed_under_load_in_power_mode() {
    killed_at_random_moments("power");
}

#[test]
fn killed_under_load_in_process_mode() {
    killed_at_random_moments("process");
}

/// An ext4 file system in a file, mounted while this lives.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let output = Command::new("mount").args(["-o", "loop"]).args([image, at]).output().unwrap();
        assert!(
            output.status.success(),
            "this test mounts a file system image and needs root and loop devices: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// What a power cut leaves is what reached the device: the image file under a mounted file system,
/// copied while the edge stands still.
#[test]
fn power_cut_under_load() {
    let mut seed = seed();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(192 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
        .arg(&image)
        .status()
        .unwrap();
    assert!(made.success(), "mkfs.ext4 is in Debian's e2fsprogs");
    let _disk = Mounted::new(&image, &scratch.path().join("disk"));
    let on_disk = |mount: &Path| {
        patient("power")
            .replace("data = \"data\"", &format!("data = {:?}", mount.join("data")))
            .replace("sqlite:holdfast.db", &format!("sqlite:{}", mount.join("holdfast.db").display()))
    };
    fs::create_dir(scratch.path().join("disk/data")).unwrap();
    let mut edge = Edge::prepare(&on_disk(&scratch.path().join("disk")), LINKS);
    edge.start();
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(edge.http, 6, Manner::UntilBroken, &ledger, "/c/a");
    let cuts = rounds().div_ceil(6);
    for cut in 0..cuts {
        let before = ledger.answers();
        wait_for("answers between the cuts", || (ledger.answers() > before + 50).then_some(()));
        std::thread::sleep(Duration::from_millis(next(&mut seed) % 50));
        edge.signal("STOP");
        let promised = ledger.answered();
        let copy = scratch.path().join(format!("cut-{cut}.img"));
        let copied = Command::new("cp").arg("--sparse=always").args([&image, &copy]).status().unwrap();
        edge.signal("CONT");
        assert!(copied.success());
        after_the_cut(&copy, &scratch.path().join(format!("cut-{cut}")), &on_disk, &promised, &ledger);
        fs::remove_file(copy).unwrap();
    }
    edge.kill();
    load.stop();
}

fn after_the_cut(
    image: &Path,
    at: &Path,
    config: &dyn Fn(&Path) -> String,
    promised: &[u64],
    ledger: &Ledger,
) {
    let _disk = Mounted::new(image, at);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holdfast.toml"), config(at)).unwrap();
    let mut edge = Edge::in_folder(folder);
    edge.start();
    let path = at.join("holdfast.db");
    wait_for("what was promised to be delivered", || {
        let database = rusqlite::Connection::open(&path).unwrap();
        let count: i64 = database.query_row("select count(*) from hits", [], |row| row.get(0)).unwrap_or(0);
        (count >= promised.len() as i64).then_some(())
    });
    let database = rusqlite::Connection::open(&path).unwrap();
    let mut statement = database.prepare("select cast(substr(query, 4) as integer) from hits").unwrap();
    let mut delivered: Vec<u64> = statement
        .query_map([], |row| Ok(row.get::<_, i64>(0)? as u64))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    delivered.sort_unstable();
    let rows = delivered.len();
    delivered.dedup();
    assert_eq!(rows, delivered.len(), "a click was delivered twice");
    let missing: Vec<_> = promised.iter().filter(|id| delivered.binary_search(id).is_err()).collect();
    assert!(
        missing.is_empty(),
        "{} of {} synced answers are missing after the cut: {:?}\n{}",
        missing.len(),
        promised.len(),
        &missing[..missing.len().min(10)],
        edge.log()
    );
    assert!(delivered.last().is_none_or(|last| *last < ledger.sent()));
    drop(statement);
    drop(database);
    edge.stop();
}
