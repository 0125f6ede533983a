//! A PostgreSQL server fails unannounced: links go on at their pace, delivery resumes by itself.
//!
//! Each test breaks the server in one way under load. Whatever the way, known links redirect and never
//! wait for the database; a token that memory does not know waits once, at most; and when the fault
//! ends nobody has to do anything for every click to arrive, once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PASSWORD, USER, Wire};
use crate::edge::{Edge, SITE, wait_for};
use crate::load::{Ledger, Load, Manner};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\none,b,https://example.com/b\n";

/// The longest that a look-up may keep anybody; a statement may take longer still.
const DEADLINE: Duration = Duration::from_secs(2);
const SETTINGS: &str = "[links]\nlookup_deadline = \"2s\"\n[limits]\nmisses_per_source = 100000\n";

/// An edge that is clicked all the time, on a server that is about to fail.
struct Story {
    cluster: Cluster,
    edge: Edge,
    ledger: Arc<Ledger>,
    load: Load,
    unknown: u32,
}

impl Story {
    fn begin() -> Self {
        Self::on(Cluster::start())
    }

    fn on(cluster: Cluster) -> Self {
        let url = cluster.url();
        Self::over(cluster, &url)
    }

    /// Where the edge finds the server by another way.
    fn over(cluster: Cluster, url: &str) -> Self {
        let config = cluster.configuration(&format!("{SETTINGS}{SITE}"));
        let config = config.replace(&cluster.url(), url);
        let config =
            config.replace("poll = \"50ms\"", "poll = \"50ms\"\ntimeout = \"4s\"\nprobe_every = \"200ms\"");
        let config = config.replace("every = \"50ms\"", "every = \"50ms\"\nretry_max = \"1s\"");
        let edge = Edge::with(&config, LINKS);
        let ledger = Arc::new(Ledger::default());
        let load = Load::paced(edge.http, 3, Manner::Strict, &ledger, "/c/a", Duration::from_millis(2));
        let story = Self { cluster, edge, ledger, load, unknown: 0 };
        story.wait_clicks();
        wait_for("the first delivery", || {
            (story.cluster.count("select count(*) from holdfast.hits") > 0).then_some(())
        });
        story
    }

    /// Known links are answered.
    fn wait_clicks(&self) {
        let before = self.ledger.answers();
        wait_for("known links to redirect", || (self.ledger.answers() > before + 100).then_some(()));
    }

    /// An unknown token's answer, and whether somebody waited for the database until the deadline.
    fn miss(&mut self) -> (u16, bool) {
        self.unknown += 1;
        let begun = Instant::now();
        let answer = self.edge.get("click.test", &format!("/c/unknown{}", self.unknown));
        if answer.status == 503 {
            assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
            assert!(answer.text().contains("right now"), "{}", answer.text());
        }
        (answer.status, begun.elapsed() >= DEADLINE / 2)
    }

    /// Until the database is known as down nobody is told what it would say.
    fn assert_out_of_reach(&mut self) {
        self.assert_silent("it is known as down", |edge| edge.status()["database"]["state"] == "down");
        assert_eq!(crate::edge::get(self.edge.admin, "localhost", "/ready").unwrap().status, 200);
    }

    /// Until something is seen each miss gets the page, and only one waited to learn that nothing is said.
    fn assert_silent(&mut self, what: &str, seen: impl Fn(&Edge) -> bool) {
        let mut waited = 0;
        wait_for(what, || {
            let seen = seen(&self.edge);
            let (status, late) = self.miss();
            assert_eq!(status, 503, "{}", self.edge.log());
            waited += u32::from(late);
            seen.then_some(())
        });
        assert!(waited <= 1, "{waited} waited until the deadline:\n{}", self.edge.log());
        self.wait_clicks();
        assert_eq!(self.edge.redirect("click.test", "/c/b"), "https://example.com/b");
    }

    /// Delivery fails, is seen to fail, and nobody who clicks notices.
    fn assert_undeliverable(&self) {
        let failures = || self.edge.metric("holdfast_delivery_failures_total", "");
        let before = failures();
        wait_for("delivery to fail", || (failures() > before).then_some(()));
        self.wait_clicks();
        assert_eq!(self.edge.redirect("click.test", "/c/b"), "https://example.com/b");
    }

    /// The fault is over: all comes right without a hand, and no answer ever waited for the database.
    fn end(mut self) {
        wait_for("the database to be known as up", || {
            (self.edge.status()["database"]["state"] == "up").then_some(())
        });
        wait_for("unknown tokens to be looked up", || (self.miss().0 == 404).then_some(()));
        self.edge.import("namespace,token,url\none,after,https://example.com/after\n");
        wait_for("a new link", || (self.edge.get("click.test", "/c/after").status == 302).then_some(()));
        self.wait_clicks();
        self.load.stop();
        self.cluster.assert_exactly_once(&self.edge, &self.ledger);
        let slowest = self.ledger.slowest();
        assert!(slowest < DEADLINE, "a known link took {slowest:?}");
        assert_eq!(self.ledger.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert_eq!(self.cluster.count("select count(*) from holdfast.rejected"), 0);
        let report: serde_json::Value =
            serde_json::from_slice(&self.edge.run(&["reconcile", "--json"]).stdout).unwrap();
        assert_eq!((&report["missing"], &report["doubled"]), (&0.into(), &0.into()), "{report}");
    }
}

#[test]
fn the_server_is_killed() {
    let mut story = Story::begin();
    for _ in 0..3 {
        story.cluster.kill();
        story.assert_out_of_reach();
        story.cluster.run();
        wait_for("the database to be known as up", || {
            (story.edge.status()["database"]["state"] == "up").then_some(())
        });
    }
    story.end();
}

#[test]
fn the_server_hangs() {
    let mut story = Story::begin();
    story.cluster.freeze();
    story.assert_out_of_reach();
    story.cluster.thaw();
    story.end();
}

#[test]
fn the_network_is_cut() {
    let cluster = Cluster::start();
    let wire = Wire::to(&cluster);
    let url = wire.url(&cluster);
    let mut story = Story::over(cluster, &url);
    wire.cut();
    story.assert_out_of_reach();
    wire.mend();
    story.end();
}

#[test]
fn the_server_is_out_of_connections() {
    let mut story = Story::begin();
    let others = story.cluster.occupy();
    story.assert_out_of_reach();
    wait_for("the server to say so", || story.cluster.log().contains("connection slots").then_some(()));
    drop(others);
    story.end();
}

/// A file system of its own, which ends when this does.
struct Small {
    at: PathBuf,
}

impl Small {
    fn new(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at).output().unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test mounts a file system and needs root: {said}");
        Self { at }
    }

    fn fill(&self) {
        // It ends by itself when there is no room.
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", self.at.join("filler").display()))
            .output()
            .unwrap();
    }

    fn clear(&self) {
        fs::remove_file(self.at.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn the_disk_of_the_tables_is_full() {
    let cluster = Cluster::start();
    let small = Small::new(cluster.path("small"), "32m");
    cluster.own("small");
    cluster.sql_in("postgres", &format!("create tablespace small location '{}'", small.at.display()));
    cluster.sql_in("postgres", "alter database holdfast set tablespace small");
    let story = Story::on(cluster);
    small.fill();
    story.assert_undeliverable();
    assert!(story.edge.log().contains("No space left on device"), "{}", story.edge.log());
    assert_eq!(story.cluster.count("select count(*) from holdfast.rejected"), 0, "a full disk is no reject");
    small.clear();
    story.end();
}

/// The server ends itself when it cannot write its log.
#[test]
fn the_disk_of_the_whole_server_is_full() {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let small = Small::new(scratch.path().join("small"), "128m");
    let mut story = Story::on(Cluster::start_in(&small.at));
    small.fill();
    wait_for("the server to end or to refuse", || {
        (story.edge.metric("holdfast_delivery_failures_total", "") > 0.0).then_some(())
    });
    story.wait_clicks();
    story.cluster.kill();
    story.assert_out_of_reach();
    small.clear();
    story.cluster.run();
    story.end();
}

#[test]
fn the_server_becomes_read_only() {
    let story = Story::begin();
    story.cluster.set("default_transaction_read_only", "on");
    story.assert_undeliverable();
    story.cluster.set("default_transaction_read_only", "off");
    story.end();
}

#[test]
fn the_password_is_changed() {
    let mut story = Story::begin();
    story.cluster.sql(&format!("alter role {USER} password 'another'"));
    story.cluster.disconnect();
    story.assert_out_of_reach();
    wait_for("the reason in the log", || {
        story.edge.log().contains("password authentication failed").then_some(())
    });
    // A reload brings the new one; nothing else is needed.
    let config = fs::read_to_string(story.edge.path("holdfast.toml")).unwrap();
    fs::write(story.edge.path("holdfast.toml"), config.replace(PASSWORD, "another")).unwrap();
    story.edge.tell(&["reload"]);
    assert!(!story.edge.log().contains(PASSWORD), "a password is in the log");
    story.end();
}

#[test]
fn the_table_of_links_is_gone() {
    let mut story = Story::begin();
    story.cluster.sql("alter table holdfast.links rename to links_away");
    story.assert_out_of_reach();
    story.cluster.sql("alter table holdfast.links_away rename to links");
    story.end();
}

#[test]
fn the_table_of_hits_is_gone() {
    let story = Story::begin();
    story.cluster.sql("alter table holdfast.hits rename to hits_away");
    story.assert_undeliverable();
    assert_eq!(
        story.cluster.count("select count(*) from holdfast.rejected"),
        0,
        "a missing table is no reject"
    );
    story.cluster.sql("alter table holdfast.hits_away rename to hits");
    story.end();
}

#[test]
fn the_tables_are_locked_for_long() {
    let mut story = Story::begin();
    let lock = story
        .cluster
        .hold("lock table holdfast.links, holdfast.hits, holdfast.cursors in access exclusive mode");
    // Other questions are answered all the time: whether it counts as down is a matter of luck.
    story.assert_silent("the lock to be felt", |edge| {
        edge.status()["database"]["state"] == "down"
            || edge.metric("holdfast_delivery_failures_total", "") >= 3.0
    });
    drop(lock);
    story.end();
}
