//! The database loses its links while the edge runs: links go on, the load is held until it is accepted.

use std::fs;

use crate::edge::{Edge, SITE, configuration, wait_for};

const HEADER: &str = "namespace,token,url\n";

fn many(count: usize) -> String {
    let rows: String = (0..count).map(|n| format!("one,t{n},https://example.com/{n}\n")).collect();
    format!("{HEADER}{rows}")
}

fn edge() -> Edge {
    Edge::with(&configuration(SITE), &many(300))
}

fn assert_links_go_on(edge: &Edge) {
    for n in [0, 150, 299] {
        assert_eq!(edge.redirect("click.test", &format!("/c/t{n}")), format!("https://example.com/{n}"));
    }
}

fn wait_held(edge: &Edge) {
    wait_for("the load to be held", || edge.status()["links"]["held"].is_object().then_some(()));
}

/// Held, and said everywhere; links go on.
fn assert_held(edge: &Edge) {
    wait_held(edge);
    assert_links_go_on(edge);
    let held = edge.status()["links"]["held"].clone();
    assert_eq!((&held["known"], &held["newly_absent"]), (&300.into(), &300.into()), "{held}");
    assert_eq!(edge.metric("holdfast_links_load_held", ""), 1.0);
    assert_eq!(edge.metric("holdfast_links", "place=\"table\""), 300.0);
    let screen = edge.tell(&["status"]);
    assert!(screen.contains("HELD") && screen.contains("300 of 300 links"), "{screen}");
    assert!(screen.contains("holdfast links accept"), "{screen}");
    assert!(edge.log().contains("the load is held back"), "{}", edge.log());
}

/// Accepted, and said so once; links go on.
fn accept(edge: &Edge) {
    edge.tell(&["links", "accept"]);
    wait_for("the load to be taken", || edge.status()["links"]["held"].is_null().then_some(()));
    assert_eq!(edge.metric("holdfast_links_load_held", ""), 0.0);
    wait_for("the absent links to be counted", || {
        (edge.metric("holdfast_links_absent", "") == 300.0).then_some(())
    });
    // Accepted or not: a link stops only when it was absent for `links.forget_after`.
    assert_links_go_on(edge);
    let again = edge.ask(&["links", "accept"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("no load is held"), "{said}");
}

#[test]
fn rows_that_vanish_in_a_window_are_held_back() {
    let mut edge = edge();
    edge.tell(&["window", "begin", "--until", "1h"]);
    wait_for("the database to be let go", || (edge.status()["database"]["released"] == true).then_some(()));
    // The first leaves a tombstone for each, the second takes those away, too: nothing is left.
    edge.execute("delete from links; delete from links");
    assert_eq!(edge.count("select count(*) from links"), 0);
    edge.tell(&["window", "end"]);
    assert_held(&edge);
    // A start believes its disk for what it serves, and asks the database whether it still agrees: a
    // load that was held back was forgotten by a restart, and its alarm with it.
    edge.stop();
    edge.start();
    assert_held(&edge);
    accept(&edge);
    edge.stop();
    edge.start();
    assert_links_go_on(&edge);
}

#[test]
fn an_empty_database_in_place_of_ours_is_held_back() {
    let mut edge = edge();
    let empty = Edge::prepare(&configuration(SITE), HEADER);
    fs::copy(empty.database(), edge.path("empty.db")).unwrap();
    fs::rename(edge.path("empty.db"), edge.database()).unwrap();
    assert_held(&edge);
    // Another database than the links came from stays another one over a restart.
    edge.stop();
    edge.start();
    assert_held(&edge);
    accept(&edge);
}

#[test]
fn a_file_that_is_emptied_in_place_is_an_outage_with_its_reason() {
    let edge = edge();
    fs::OpenOptions::new().write(true).truncate(true).open(edge.database()).unwrap();
    wait_for("the database to be known as down", || {
        (edge.status()["database"]["state"] == "down").then_some(())
    });
    assert_links_go_on(&edge);
    let status = edge.status();
    assert!(status["database"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{status}");
    let screen = edge.tell(&["status"]);
    let line = screen.lines().find(|line| line.starts_with("database")).unwrap();
    assert!(line.contains("down") && line.contains("failure"), "{screen}");
    assert_eq!(edge.metric("holdfast_part_up", "database"), 0.0);
    assert_eq!(fs::metadata(edge.database()).unwrap().len(), 0, "nothing is written into it");
    assert!(status["links"]["held"].is_null(), "it is no load: {status}");
}

#[test]
fn links_that_are_deleted_one_by_one_stop_and_come_back_with_an_import() {
    let edge = edge();
    edge.execute("delete from links where token in ('t1', 't2')");
    wait_for("the tombstones", || (edge.get("click.test", "/c/t1").status == 410).then_some(()));
    assert_links_go_on(&edge);
    edge.import(&many(3));
    wait_for("the link again", || (edge.get("click.test", "/c/t1").status == 302).then_some(()));
}
