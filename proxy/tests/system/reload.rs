//! A new configuration is applied whole or not at all.

use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

#[test]
fn a_good_reload_adds_a_host_without_a_restart() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    assert_eq!(edge.get("new.test", "/c/a").status, 421);
    let changed = configuration(&SITE.replace("\"click.test\"", "\"click.test\", \"new.test\""));
    std::fs::write(edge.path("holdfast.toml"), changed).unwrap();
    edge.tell(&["reload"]);
    assert_eq!(edge.redirect("new.test", "/c/a"), "https://example.com/a");
    assert_eq!(edge.metric("holdfast_config_last_reload_successful", ""), 1.0);
}

#[test]
fn sighup_reloads() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let changed = configuration(&SITE.replace("\"click.test\"", "\"click.test\", \"new.test\""));
    std::fs::write(edge.path("holdfast.toml"), changed).unwrap();
    edge.signal("HUP");
    wait_for("the new host", || (edge.get("new.test", "/c/a").status == 302).then_some(()));
}

#[test]
fn a_bad_reload_keeps_the_old_configuration_and_says_so_three_times() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    for bad in [
        configuration(SITE) + "nonsense = 1\n",
        "this is not TOML".to_owned(),
        configuration(&SITE.replace("click.test", "not a host")),
        configuration(SITE).replace("threads = 2", "threads = 3"),
    ] {
        std::fs::write(edge.path("holdfast.toml"), &bad).unwrap();
        let output = edge.ask(&["reload"]);
        assert!(!output.status.success(), "{bad}");
        assert!(!output.stderr.is_empty());
        assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
        assert_eq!(edge.metric("holdfast_config_last_reload_successful", ""), 0.0);
    }
    assert!(edge.log().contains("old configuration goes on"), "{}", edge.log());
    assert!(edge.metric("holdfast_config_reloads_total", "refused") >= 4.0);
}

/// A refused reload once locked the operator out: every command read the broken file first.
#[test]
fn a_broken_file_does_not_silence_a_running_edge() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    std::fs::write(edge.path("holdfast.toml"), "nonsense = 1\n").unwrap();
    let status = edge.tell(&["status"]);
    assert!(status.contains("database"), "{status}");
    edge.tell(&["window", "begin"]);
    edge.tell(&["window", "end"]);
}
