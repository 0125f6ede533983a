//! The admin listener: what it shows, and whom it refuses.

use crate::edge::{Edge, SITE, configuration, get, raw};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

#[test]
fn it_answers_local_names_only_and_acts_on_marked_requests_only() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    for path in ["/metrics", "/live", "/ready", "/status"] {
        assert_eq!(get(edge.admin, "localhost:9180", path).unwrap().status, 200, "{path}");
        assert_eq!(get(edge.admin, "rebound.example", path).unwrap().status, 421, "{path}");
    }
    let post = |extra: &str| {
        let request = format!("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{extra}\r\n");
        raw(edge.admin, request.as_bytes()).unwrap().status
    };
    assert_eq!(post(""), 403);
    assert_eq!(post("X-Holdfast-Action: 1\r\n"), 200);
    assert_eq!(get(edge.admin, "localhost", "/reload").unwrap().status, 405);
    assert_eq!(get(edge.admin, "localhost", "/nothing").unwrap().status, 404);
    // Nothing of it is reachable on the public listener.
    for path in ["/metrics", "/status", "/live"] {
        assert_eq!(edge.get("localhost", path).status, 421);
        assert_eq!(edge.get("click.test", path).status, 404);
    }
}

#[test]
fn metrics_have_names_units_and_zeroes_and_no_hosts_or_tokens() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    edge.redirect("click.test", "/c/a");
    edge.wait_count("select count(*) from hits", 1);
    crate::edge::wait_for("the counters", || {
        (edge.metric("holdfast_delivered_events_total", "") >= 1.0).then_some(())
    });
    let text = edge.metrics();
    for name in [
        "holdfast_requests_total",
        "holdfast_answers_total",
        "holdfast_answer_duration_seconds_bucket",
        "holdfast_links",
        "holdfast_links_table_timestamp_seconds",
        "holdfast_links_load_held",
        "holdfast_cache_hits_total",
        "holdfast_cache_misses_total",
        "holdfast_look_ups_total",
        "holdfast_appended_events_total",
        "holdfast_synced_events_total",
        "holdfast_unrecorded_events_total",
        "holdfast_journal_bytes",
        "holdfast_journal_segments",
        "holdfast_journal_sync_duration_seconds_bucket",
        "holdfast_delivered_events_total",
        "holdfast_rejected_events_total",
        "holdfast_delivery_lag_events",
        "holdfast_delivery_lag_seconds",
        "holdfast_part_up",
        "holdfast_window_end_timestamp_seconds",
        "holdfast_open_connections",
        "holdfast_refused_total",
        "holdfast_clock_fault",
        "holdfast_build_info",
        "holdfast_config_last_reload_successful",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
    }
    for secret in ["click.test", "example.com", "127.0.0"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.starts_with("holdfast_"), "{line}");
    }
}

#[test]
fn host_names_do_not_grow_the_page() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let series = |text: String| text.lines().count();
    edge.get("n.test", "/");
    let before = series(edge.metrics());
    for n in 0..100 {
        edge.get(&format!("h{n}.test"), &format!("/{n}"));
        edge.get("click.test", &format!("/c/{n}"));
    }
    assert_eq!(series(edge.metrics()), before);
}

#[test]
fn status_is_one_screen_of_the_truth() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let status = edge.status();
    assert_eq!(status["database"]["state"], "up", "{status}");
    assert_eq!(status["links"]["table"], 1, "{status}");
    assert_eq!(status["journal"]["state"], "up", "{status}");
    let screen = edge.tell(&["status"]);
    for word in ["database", "journal", "links", "up"] {
        assert!(screen.contains(word), "{word} in {screen}");
    }
    assert!(screen.lines().count() <= 40);
}
