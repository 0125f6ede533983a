//! The database is gone, wrong or stuck: known links redirect, nothing recorded is lost.

use std::fs;

use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

fn edge() -> Edge {
    Edge::with(&configuration(SITE), LINKS)
}

/// The tokens of links that lead somewhere, beside `a`.
fn tokens(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("l{number}"))
}

fn rows(tokens: impl Iterator<Item = String>) -> String {
    let rows = tokens.map(|token| format!("one,{token},https://example.com/{token}\n"));
    std::iter::once("namespace,token,url\n".to_owned()).chain(rows).collect()
}

/// An edge that knows hundreds of links: from its first load, and imported since; of these one was deleted and one
/// disabled.
fn edge_with_many() -> Edge {
    let edge = Edge::with(&configuration(SITE), &rows(["a".to_owned()].into_iter().chain(tokens(0..150))));
    edge.import(&rows(tokens(150..300).chain(["gone".to_owned(), "off".to_owned()])));
    wait_for("the late links", || (edge.get("click.test", "/c/off").status == 302).then_some(()));
    edge.execute("delete from links where token = 'gone'");
    edge.execute("update links set disabled = 1 where token = 'off'");
    wait_for("both to end", || {
        ["/c/gone", "/c/off"].iter().all(|path| edge.get("click.test", path).status == 410).then_some(())
    });
    edge
}

fn assert_all_known(edge: &Edge) {
    for token in tokens(0..300) {
        let target = edge.redirect("click.test", &format!("/c/{token}"));
        assert_eq!(target, format!("https://example.com/{token}"));
    }
    for ended in ["/c/gone", "/c/off"] {
        assert_eq!(edge.get("click.test", ended).status, 410, "{ended}");
    }
}

fn wait_down(edge: &Edge) {
    wait_for("the database to be known as down", || {
        (edge.status()["database"]["state"] == "down").then_some(())
    });
}

fn wait_up(edge: &Edge) {
    wait_for("the database to be known as up", || (edge.status()["database"]["state"] == "up").then_some(()));
}

/// Moves the database with its side files away or back.
fn move_database(edge: &Edge, from: &str, to: &str) {
    for suffix in ["", "-wal", "-shm"] {
        let source = edge.path(&format!("{from}{suffix}"));
        if source.exists() {
            fs::rename(source, edge.path(&format!("{to}{suffix}"))).unwrap();
        }
    }
}

#[test]
fn a_database_that_is_moved_away_is_a_fault_not_an_empty_load() {
    let edge = edge();
    edge.redirect("click.test", "/c/a");
    edge.wait_count("select count(*) from hits", 1);
    move_database(&edge, "holdfast.db", "elsewhere.db");
    wait_down(&edge);

    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    let missed = edge.get("click.test", "/c/unknown");
    assert_eq!(missed.status, 503, "unknown while the database cannot be asked");
    assert!(missed.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert!(!missed.text().contains("Down for planned maintenance"), "this outage was not planned");
    assert!(!edge.database().exists(), "serve never creates a database");
    assert_eq!(crate::edge::get(edge.admin, "localhost", "/ready").unwrap().status, 200);

    move_database(&edge, "elsewhere.db", "holdfast.db");
    wait_up(&edge);
    edge.wait_count("select count(*) from hits", 3);
    edge.wait_count("select count(*) from hits where outcome = 'missed'", 1);
    assert_eq!(edge.get("click.test", "/c/unknown").status, 404);
}

#[test]
fn a_restart_in_an_outage_serves_every_known_link() {
    let mut edge = edge_with_many();
    // The log of changes is synced within a second; `kill -9` leaves what was written.
    edge.kill();
    move_database(&edge, "holdfast.db", "elsewhere.db");
    edge.start();
    assert_all_known(&edge);
    assert_eq!(edge.get("click.test", "/c/unknown").status, 503);
}

#[test]
fn an_emptied_file_is_a_fault() {
    let mut edge = edge_with_many();
    edge.stop();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(edge.path(&format!("holdfast.db{suffix}")));
    }
    fs::write(edge.database(), b"").unwrap();
    edge.start();
    wait_down(&edge);
    assert_all_known(&edge);
    assert_eq!(fs::metadata(edge.database()).unwrap().len(), 0, "nothing is created in it");
}

#[test]
fn garbage_in_the_file_is_a_fault() {
    let mut edge = edge();
    edge.stop();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(edge.path(&format!("holdfast.db{suffix}")));
    }
    fs::write(edge.database(), [b'x'; 8192]).unwrap();
    edge.start();
    wait_down(&edge);
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
}

#[test]
fn a_database_locked_by_another_process_stops_nobody() {
    let edge = edge();
    let locker = rusqlite::Connection::open(edge.database()).unwrap();
    locker.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    locker.execute_batch("begin immediate; update meta set value = value").unwrap();
    for _ in 0..20 {
        assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    }
    locker.execute_batch("commit").unwrap();
    drop(locker);
    edge.wait_count("select count(*) from hits", 20);
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!(report["missing"], 0, "{report}");
    assert_eq!(report["doubled"], 0, "{report}");
}

#[test]
fn a_start_beside_a_database_that_is_locked_whole_serves_every_known_link() {
    let mut edge = edge_with_many();
    edge.stop();
    let before = edge.count("select count(*) from hits");
    let locker = rusqlite::Connection::open(edge.database()).unwrap();
    locker
        .execute_batch("pragma locking_mode = exclusive; begin exclusive; update meta set value = value")
        .unwrap();
    edge.start();
    assert_all_known(&edge);
    wait_down(&edge);
    assert_all_known(&edge);
    locker.execute_batch("commit").unwrap();
    drop(locker);
    wait_up(&edge);
    edge.wait_count("select count(*) from hits", before + 2 * 302);
}

#[test]
fn another_database_at_the_same_path_is_not_taken_for_ours() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let other = Edge::prepare(&configuration(SITE), "namespace,token,url\none,b,https://example.com/b\n");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(edge.path(&format!("holdfast.db{suffix}")));
    }
    fs::copy(other.database(), edge.path("new.db")).unwrap();
    fs::rename(edge.path("new.db"), edge.database()).unwrap();
    wait_for("the load to be held", || edge.status()["links"]["held"].is_object().then_some(()));
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
}

#[test]
fn a_looked_up_link_survives_a_restart_in_an_outage() {
    // Polling is slow here, so that the look-up is what finds the link.
    let config = configuration(SITE).replace("poll = \"50ms\"", "poll = \"30s\"");
    let mut edge = Edge::with(&config, LINKS);
    edge.import("namespace,token,url\none,cold,https://example.com/cold\n");
    assert_eq!(edge.redirect("click.test", "/c/cold"), "https://example.com/cold");
    wait_for("the look-up to be on disk", || {
        (edge.metric("holdfast_links", "place=\"overlay\"") >= 1.0).then_some(())
    });
    edge.kill();
    move_database(&edge, "holdfast.db", "elsewhere.db");
    edge.start();
    assert_eq!(edge.redirect("click.test", "/c/cold"), "https://example.com/cold");
}

#[test]
fn a_database_that_refuses_rows_has_each_accounted_for_and_delivery_resumes() {
    let edge = edge();
    edge.execute("create trigger full before insert on hits begin select raise(abort, 'database or disk is full'); end");
    edge.redirect("click.test", "/c/a");
    wait_for("rejects or failures to be seen", || {
        let seen = edge.metric("holdfast_rejected_events_total", "")
            + edge.metric("holdfast_delivery_failures_total", "");
        (seen >= 1.0).then_some(())
    });
    edge.execute("drop trigger full");
    edge.redirect("click.test", "/c/a");
    wait_for("the second hit", || (edge.count("select count(*) from hits") >= 1).then_some(()));
    let accounted = "select (select count(*) from hits) + (select count(*) from rejected)";
    edge.wait_count(accounted, 2);
}

#[test]
fn a_lost_cursor_stops_the_pump_until_it_is_told_where_to_go_on() {
    let edge = edge();
    edge.redirect("click.test", "/c/a");
    edge.wait_count("select count(*) from hits", 1);
    edge.execute("delete from cursors");
    edge.redirect("click.test", "/c/a");
    wait_for("the pump to stand still", || {
        (edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    edge.tell(&["deliver", "adopt", "--from", "1"]);
    edge.wait_count("select count(*) from hits", 3);
}

#[test]
fn a_restored_backup_gets_what_it_misses() {
    let mut edge = edge();
    for _ in 0..3 {
        edge.redirect("click.test", "/c/a");
    }
    edge.wait_count("select count(*) from hits", 3);
    edge.execute(
        "vacuum into 'backup.db'".replace("backup.db", edge.path("backup.db").to_str().unwrap()).as_str(),
    );
    for _ in 0..4 {
        edge.redirect("click.test", "/c/a");
    }
    edge.wait_count("select count(*) from hits", 7);
    edge.stop();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(edge.path(&format!("holdfast.db{suffix}")));
    }
    fs::rename(edge.path("backup.db"), edge.database()).unwrap();
    edge.start();
    edge.wait_count("select count(*) from hits", 7);
}
