//! The database has lost its cursor: nothing is delivered until somebody says where to go on.

use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// Five hits are delivered, the cursor is gone, three more wait.
fn standing() -> Edge {
    let edge = Edge::with(&configuration(SITE), LINKS);
    for n in 0..5 {
        edge.redirect("click.test", &format!("/c/a?before={n}"));
    }
    edge.wait_count("select count(*) from hits", 5);
    edge.execute("delete from cursors");
    for n in 0..3 {
        edge.redirect("click.test", &format!("/c/a?waiting={n}"));
    }
    wait_for("the pump to stand still", || {
        (edge.metric("holdfast_delivery_standing", "") == 1.0).then_some(())
    });
    let screen = edge.tell(&["status"]);
    assert!(screen.contains("STANDING") && screen.contains("lost its cursor"), "{screen}");
    assert!(edge.log().contains("has lost its cursor"), "{}", edge.log());
    assert_eq!(edge.count("select count(*) from hits"), 5, "nothing is delivered meanwhile");
    edge
}

fn reconciled(edge: &Edge) -> serde_json::Value {
    serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap()
}

fn adopt(edge: &Edge, from: &str) {
    let said = edge.tell(&["deliver", "adopt", "--from", from]);
    assert_eq!(said.trim(), "delivery goes on for 1 journal");
    wait_for("the pump to go on", || (edge.metric("holdfast_delivery_standing", "") == 0.0).then_some(()));
}

#[test]
fn from_oldest_delivers_all_that_is_kept_and_nothing_twice() {
    let edge = standing();
    adopt(&edge, "oldest");
    edge.wait_count("select count(*) from hits", 8);
    edge.redirect("click.test", "/c/a?after");
    edge.wait_count("select count(*) from hits where query = 'after'", 1);
    edge.wait_count("select count(*) from hits", 9);
    let report = reconciled(&edge);
    assert_eq!((&report["balanced"], &report["delivered"]), (&true.into(), &9.into()), "{report}");
}

#[test]
fn from_now_gives_up_what_waits_and_says_so() {
    let mut edge = standing();
    adopt(&edge, "now");
    edge.redirect("click.test", "/c/a?after");
    edge.wait_count("select count(*) from hits where query = 'after'", 1);
    assert_eq!(edge.count("select count(*) from hits"), 6);
    let output = edge.run(&["reconcile", "--json"]);
    assert_eq!(output.status.code(), Some(3), "what was given up is missing, and found");
    let report = reconciled(&edge);
    assert_eq!((&report["missing"], &report["doubled"]), (&3.into(), &0.into()), "{report}");
    // The decision is kept: a restart delivers nothing of it again.
    edge.stop();
    edge.start();
    edge.redirect("click.test", "/c/a?later");
    edge.wait_count("select count(*) from hits where query = 'later'", 1);
    assert_eq!(edge.count("select count(*) from hits"), 7);
}

#[test]
fn it_stands_over_a_restart_and_takes_no_nonsense() {
    let mut edge = standing();
    edge.kill();
    edge.start();
    wait_for("the older journal to stand still", || {
        (edge.metric("holdfast_delivery_standing", "") == 1.0).then_some(())
    });
    // New hits are delivered meanwhile.
    edge.redirect("click.test", "/c/a?new");
    edge.wait_count("select count(*) from hits where query = 'new'", 1);
    assert_eq!(edge.count("select count(*) from hits where query like 'waiting=%'"), 0);
    for from in ["yesterday", "0", "1000000", "-1"] {
        let output = edge.ask(&["deliver", "adopt", &format!("--from={from}")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !said.is_empty(), "{from}: {said}");
    }
    assert_eq!(edge.metric("holdfast_delivery_standing", ""), 1.0);
    adopt(&edge, "oldest");
    edge.wait_count("select count(*) from hits", 9);
    let nothing = edge.ask(&["deliver", "adopt", "--from", "oldest"]);
    assert!(!nothing.status.success(), "nothing stands any more");
}
