//! Planned maintenance: begun by hand on the running edge, kept over a restart, ended by hand.

use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// True when the process has an open file with this name.
fn holds(pid: u32, name: &str) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok).any(|entry| {
        std::fs::read_link(entry.path())
            .is_ok_and(|target| target.file_name().is_some_and(|file| file == name))
    })
}

#[test]
fn in_a_window_the_database_is_left_alone_and_links_go_on() {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    edge.redirect("click.test", "/c/a");
    edge.wait_count("select count(*) from hits", 1);
    assert!(holds(edge.pid(), "holdfast.db"));

    edge.tell(&["window", "begin", "--until", "2h", "--reason", "new server"]);
    wait_for("the database to be let go", || (edge.status()["database"]["released"] == true).then_some(()));
    assert!(!holds(edge.pid(), "holdfast.db"), "no file handle is left");
    let status = edge.tell(&["status"]);
    assert!(status.contains("window") && status.contains("let go"), "{status}");

    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    let missed = edge.get("click.test", "/c/unknown");
    assert_eq!(missed.status, 503);
    assert!(missed.text().contains("Down for planned maintenance"), "{}", missed.text());
    let retry: u64 = missed.header("retry-after").unwrap().parse().unwrap();
    assert!((7000..=7200).contains(&retry), "{retry}");
    assert!(!holds(edge.pid(), "holdfast.db"));

    // It survives a restart, and the restart keeps off the database, too.
    edge.kill();
    edge.start();
    assert_eq!(edge.status()["database"]["state"], "window");
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert!(!holds(edge.pid(), "holdfast.db"));
    assert!(edge.metric("holdfast_part_window", "database") == 1.0);

    edge.tell(&["window", "end"]);
    wait_for("the database to be used again", || (edge.status()["database"]["state"] == "up").then_some(()));
    edge.wait_count("select count(*) from hits", 4);
    assert_eq!(edge.get("click.test", "/c/unknown").status, 404);
}

#[test]
fn a_configured_window_holds_from_the_start() {
    let window = "[[window]]\nof = \"database\"\nfrom = \"2020-01-01T00:00[Europe/London]\"\nuntil = \"2090-01-01T00:00[Europe/London]\"\nreason = \"move\"\n";
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    edge.stop();
    std::fs::write(edge.path("holdfast.toml"), configuration(&format!("{SITE}{window}"))).unwrap();
    edge.start();
    assert_eq!(edge.status()["database"]["state"], "window");
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert!(edge.tell(&["window", "list"]).contains("move"));
    edge.tell(&["window", "end"]);
    wait_for("the end by hand", || (edge.status()["database"]["state"] == "up").then_some(()));
}

#[test]
fn bad_windows_are_refused_with_a_reason() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    for arguments in [
        &["window", "begin", "--until", "yesterday"][..],
        &["window", "begin", "--until", "2001-01-01T00:00[UTC]"],
        &["window", "begin", "--of", "moon"],
        &["window", "end"],
    ] {
        let output = edge.ask(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
