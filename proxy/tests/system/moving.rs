//! A database moves to another server, comes back, is restored, is promoted: every click is there once.
//!
//! Edges are clicked the whole time, and one client-side record of all answered clicks is held
//! against whichever database is in use at the end.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::edge::{Edge, SITE, configuration, wait_for};
use crate::load::{Ledger, Load, Manner};

const KNOWN: usize = 300;

fn links() -> String {
    let rows: String = (0..KNOWN).map(|n| format!("one,t{n},https://example.com/{n}\n")).collect();
    format!("namespace,token,url\n{rows}")
}

/// The configuration of the edge `name` on a database; what it answers waits for the disk, so that
/// each answer is a promise which `kill -9` does not break.
fn on(cluster: &Cluster, name: &str) -> String {
    configuration(SITE)
        .replace("sqlite:holdfast.db", &cluster.url())
        .replace("edge = \"test\"", &format!("edge = \"{name}\""))
        .replace("segment = \"1MiB\"", "segment = \"1MiB\"\nwait_ms_max = 10000")
        .replace("every = \"50ms\"", "every = \"50ms\"\nretry_max = \"1s\"")
}

/// An edge that is clicked whenever it runs.
struct Clicked {
    edge: Edge,
    name: &'static str,
    ledger: Arc<Ledger>,
    load: Option<Load>,
}

impl Clicked {
    fn new(cluster: &Cluster, name: &'static str, ledger: &Arc<Ledger>) -> Self {
        let edge = Edge::prepare(&on(cluster, name), &links());
        let mut clicked = Self { edge, name, ledger: Arc::clone(ledger), load: None };
        clicked.start();
        clicked
    }

    fn start(&mut self) {
        self.edge.start();
        let pause = Duration::from_millis(2);
        let load = Load::paced(self.edge.http, 2, Manner::UntilBroken, &self.ledger, "/c/t7", pause);
        self.load = Some(load);
        self.wait_clicks();
    }

    /// `kill -9`, with clicks under way.
    fn kill(&mut self) {
        self.edge.kill();
        self.load.take().unwrap().stop();
    }

    /// Leaves the edge running without clicks.
    fn hush(&mut self) {
        self.load.take().unwrap().stop();
    }

    fn wait_clicks(&self) {
        let before = self.ledger.answers();
        wait_for("clicks to be answered", || (self.ledger.answers() > before + 60).then_some(()));
    }

    /// P9: each known link leads where it led.
    fn assert_links_go_on(&self) {
        for n in (0..KNOWN).step_by(7) {
            let to = self.edge.redirect("click.test", &format!("/c/t{n}"));
            assert_eq!(to, format!("https://example.com/{n}"));
        }
        self.wait_clicks();
    }

    fn begin_window(&self, cluster: &Cluster) {
        self.edge.tell(&["window", "begin", "--until", "4h", "--reason", "new server"]);
        wait_for("the database to be let go", || {
            (self.edge.status()["database"]["released"] == true).then_some(())
        });
        assert!(cluster.connections().is_empty(), "{:?}", cluster.connections());
    }

    /// The new URL by reload, nothing else.
    fn turn_to(&self, cluster: &Cluster) {
        fs::write(self.edge.path("holdfast.toml"), on(cluster, self.name)).unwrap();
        self.edge.tell(&["reload"]);
    }

    fn end_window(&self) {
        self.edge.tell(&["window", "end"]);
        wait_for("the database to be in use", || {
            (self.edge.status()["database"]["state"] == "up").then_some(())
        });
    }

    fn wait_delivered_to(&self, cluster: &Cluster) {
        let all = self.ledger.answered();
        crate::load::wait_all(&all, || cluster.delivered());
    }

    fn assert_balanced(&self) {
        let report: serde_json::Value =
            serde_json::from_slice(&self.edge.run(&["reconcile", "--json"]).stdout).unwrap();
        assert_eq!(
            (&report["balanced"], &report["missing"], &report["doubled"]),
            (&true.into(), &0.into(), &0.into()),
            "{report}"
        );
    }

    /// What changes in the database that is in use now is noticed, whatever was seen of another.
    fn assert_follows(&self, cluster: &Cluster) {
        cluster.sql("update holdfast.links set url = 'https://example.com/changed' where token = 't298'");
        cluster.sql("delete from holdfast.links where token = 't299'");
        wait_for("the changed link", || {
            (self.edge.redirect("click.test", "/c/t298") == "https://example.com/changed").then_some(())
        });
        wait_for("the deleted link to stop", || {
            (self.edge.get("click.test", "/c/t299").status == 410).then_some(())
        });
        self.edge.import(
            "namespace,token,url\none,t298,https://example.com/298\none,t299,https://example.com/299\n",
        );
        wait_for("both links again", || {
            let found = ["t298", "t299"].map(|token| {
                let answer = self.edge.get("click.test", &format!("/c/{token}"));
                answer.header("location").is_some_and(|to| to.ends_with(&token[1..]))
            });
            (found == [true, true]).then_some(())
        });
    }

    /// Clicks end, and the database has each of them once.
    fn end(mut self, cluster: &Cluster) {
        self.assert_follows(cluster);
        self.hush();
        cluster.assert_exactly_once(&self.edge, &self.ledger);
        self.assert_balanced();
        for n in 0..KNOWN {
            self.edge.redirect("click.test", &format!("/c/t{n}"));
        }
    }
}

/// Dump, restore, new URL: the whole move in a window that has begun.
fn copy(from: &Cluster, to: &Cluster) {
    to.recreate();
    to.restore(&from.dump(&[]), &["--single-transaction"]);
}

#[test]
fn to_a_new_server_with_a_restart_and_a_second_edge_in_the_middle() {
    let (old, new) = (Cluster::start(), Cluster::start_another());
    old.age();
    let ledger = Arc::new(Ledger::default());
    let mut first = Clicked::new(&old, "first", &ledger);
    // The second edge served before, and is out of use when the move begins.
    let mut second = Clicked::new(&old, "second", &ledger);
    first.wait_delivered_to(&old);
    second.kill();

    first.begin_window(&old);
    let dump = old.dump(&[]);
    let at_dump = old.count("select count(*) from holdfast.hits");
    let of_links = |entry: &str| entry.contains("TABLE DATA holdfast links ");
    new.restore(&dump, &["--section=pre-data"]);
    new.restore_part(&dump, "data", |entry| !of_links(entry));

    // Somebody starts the second edge with the new URL, while the new server has no link yet.
    fs::write(second.edge.path("holdfast.toml"), on(&new, "second")).unwrap();
    second.start();
    second.assert_links_go_on();
    // And the first one is killed, and starts again in its window.
    first.kill();
    first.start();
    first.assert_links_go_on();
    assert_eq!(first.edge.status()["database"]["state"], "window");
    wait_for("the second edge to know better", || {
        let status = second.edge.status();
        (status["links"]["held"].is_object() || status["database"]["state"] == "down").then_some(())
    });
    second.assert_links_go_on();

    new.restore_part(&dump, "data", of_links);
    second.assert_links_go_on();
    new.restore(&dump, &["--section=post-data"]);
    assert!(old.connections().is_empty(), "{:?}", old.connections());
    first.turn_to(&new);
    let said = first.edge.ok(&["check", "--connect"]);
    assert!(!said.is_empty());
    first.assert_links_go_on();
    first.end_window();
    first.assert_links_go_on();
    second.assert_links_go_on();

    second.hush();
    first.wait_delivered_to(&new);
    second.assert_balanced();
    first.end(&new);
    assert_eq!(old.count("select count(*) from holdfast.hits"), at_dump, "the old server is left alone");
    assert!(old.connections().is_empty(), "{:?}", old.connections());
}

#[test]
fn back_to_the_old_server_after_the_new_one_got_its_part() {
    let (old, new) = (Cluster::start(), Cluster::start_another());
    old.age();
    let ledger = Arc::new(Ledger::default());
    let edge = Clicked::new(&old, "first", &ledger);
    edge.wait_delivered_to(&old);
    edge.begin_window(&old);
    copy(&old, &new);
    edge.turn_to(&new);
    edge.end_window();
    edge.wait_clicks();
    edge.wait_delivered_to(&new);

    // The new one will not do: back, and the old one gets all it misses.
    edge.begin_window(&new);
    edge.wait_clicks();
    edge.turn_to(&old);
    edge.end_window();
    edge.wait_clicks();
    edge.wait_delivered_to(&old);
    assert!(new.connections().is_empty(), "{:?}", new.connections());

    // And to the new one again, as it stands: it gets what went to the old one meanwhile.
    edge.begin_window(&old);
    edge.turn_to(&new);
    edge.end_window();
    edge.wait_clicks();
    edge.end(&new);
}

#[test]
fn an_older_backup_gets_the_clicks_since_by_itself() {
    let cluster = Cluster::start();
    let ledger = Arc::new(Ledger::default());
    let mut edge = Clicked::new(&cluster, "first", &ledger);
    edge.wait_delivered_to(&cluster);
    let backup = cluster.dump(&[]);
    cluster.age();
    let at_backup = cluster.count("select count(*) from holdfast.hits");
    edge.edge.import("namespace,token,url\none,since,https://example.com/since\n");
    wait_for("the new link", || (edge.edge.get("click.test", "/c/since").status == 302).then_some(()));
    edge.wait_clicks();
    edge.wait_delivered_to(&cluster);
    // Clicks of a process that is gone come back, too.
    edge.kill();
    edge.start();
    edge.wait_delivered_to(&cluster);
    assert!(cluster.count("select count(*) from holdfast.hits") > at_backup);

    edge.begin_window(&cluster);
    cluster.recreate();
    cluster.restore(&backup, &["--single-transaction"]);
    edge.end_window();
    edge.wait_clicks();
    edge.wait_delivered_to(&cluster);
    assert!(edge.edge.log().contains("the database went back"), "{}", edge.edge.log());
    // The backup does not have it; it goes on all the same.
    assert_eq!(edge.edge.redirect("click.test", "/c/since"), "https://example.com/since");
    edge.end(&cluster);
}

/// A disk is put back to an earlier day: the same server, by all that it says of itself.
#[test]
fn an_older_copy_of_the_whole_server_gets_the_clicks_since_by_itself() {
    let mut cluster = Cluster::start();
    let ledger = Arc::new(Ledger::default());
    let edge = Clicked::new(&cluster, "first", &ledger);
    edge.wait_delivered_to(&cluster);
    cluster.snapshot();
    edge.wait_clicks();
    edge.assert_follows(&cluster);
    cluster.age();
    edge.assert_follows(&cluster);
    edge.wait_delivered_to(&cluster);
    cluster.put_back();
    edge.wait_clicks();
    edge.wait_delivered_to(&cluster);
    edge.end(&cluster);
}

#[test]
fn a_promoted_replica_gets_the_commits_that_it_lost() {
    let mut primary = Cluster::start();
    let ledger = Arc::new(Ledger::default());
    let edge = Clicked::new(&primary, "first", &ledger);
    edge.wait_delivered_to(&primary);
    let mut replica = primary.replica();
    // It is behind when the primary dies: what was committed meanwhile is lost with it.
    replica.shut_down();
    let before = ledger.answers();
    wait_for("commits without the replica", || (primary.delivered().len() > before + 200).then_some(()));
    primary.kill();
    edge.assert_links_go_on();
    replica.run();
    replica.promote();
    assert!(replica.delivered().len() <= before + 200, "the replica has everything");
    edge.turn_to(&replica);
    edge.wait_clicks();
    edge.wait_delivered_to(&replica);
    assert!(edge.edge.log().contains("the database went back"), "{}", edge.edge.log());
    edge.end(&replica);
}

/// Without its cursors a database cannot say what it has: nothing is delivered until somebody does.
#[test]
fn a_dump_without_cursors_is_asked_about() {
    let (old, new) = (Cluster::start(), Cluster::start_another());
    old.age();
    let ledger = Arc::new(Ledger::default());
    let edge = Clicked::new(&old, "first", &ledger);
    edge.wait_delivered_to(&old);
    edge.begin_window(&old);
    new.recreate();
    new.restore(&old.dump(&["--exclude-table-data=holdfast.cursors"]), &[]);
    let copied = new.count("select count(*) from holdfast.hits");
    edge.turn_to(&new);
    edge.end_window();
    wait_for("the pump to stand still", || {
        (edge.edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    edge.assert_links_go_on();
    let screen = edge.edge.tell(&["status"]);
    assert!(screen.contains("STANDING") && screen.contains("lost its cursor"), "{screen}");
    assert_eq!(new.count("select count(*) from holdfast.hits"), copied, "nothing is delivered meanwhile");
    edge.edge.tell(&["deliver", "adopt", "--from", "oldest"]);
    edge.wait_clicks();
    edge.end(&new);
}

/// Where the hits were left behind on purpose, the new server gets what comes, or all that is kept.
#[test]
fn a_dump_of_the_links_alone_is_asked_about() {
    let (old, new) = (Cluster::start(), Cluster::start_another());
    old.age();
    let ledger = Arc::new(Ledger::default());
    let mut edge = Clicked::new(&old, "first", &ledger);
    edge.wait_delivered_to(&old);
    edge.begin_window(&old);
    let without = ["cursors", "hits", "batches", "rejected"]
        .map(|table| format!("--exclude-table-data=holdfast.{table}"));
    new.recreate();
    new.restore(&old.dump(&without.each_ref().map(String::as_str)), &[]);
    assert_eq!(new.count("select count(*) from holdfast.hits"), 0);
    edge.turn_to(&new);
    edge.end_window();
    wait_for("the pump to stand still", || {
        (edge.edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    edge.kill();
    edge.start();
    wait_for("it to stand over a restart", || {
        (edge.edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    edge.edge.tell(&["deliver", "adopt", "--from", "oldest"]);
    edge.wait_clicks();
    edge.end(&new);
}
