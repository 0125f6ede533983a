//! Unknown tokens are answered, recorded within a budget, and every one beyond it is counted.

use crate::edge::{Client, Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// `answered − appended = waived + unrecorded`, read from the metrics.
fn assert_sums(edge: &Edge) {
    let sum = |name: &str, labels: &str| edge.metric(name, labels);
    wait_for("the sum of promise 7", || {
        let without_record = sum("holdfast_requests_total", "") - sum("holdfast_appended_events_total", "");
        let counted = sum("holdfast_waived_events_total", "") + sum("holdfast_unrecorded_events_total", "");
        (without_record == counted).then_some(())
    });
}

/// Asks for pixels and clicks with tokens that nobody made; returns how many were recorded.
fn guessed(edge: &Edge, pixels: u32, clicks: u32) -> i64 {
    let mut client = Client::connect(edge.http).unwrap();
    for n in 0..pixels {
        let answer = client.get("click.test", &format!("/o/guess-{n}")).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")), "pixel {n}");
        assert_eq!(answer.body.len(), 43);
    }
    for n in 0..clicks {
        assert_eq!(client.get("click.test", &format!("/c/guess-{n}")).unwrap().status, 404, "click {n}");
    }
    // Known tokens are recorded whatever was guessed before.
    for _ in 0..10 {
        assert_eq!(client.get("click.test", "/c/a").unwrap().status, 302);
    }
    assert_sums(edge);
    let unrecorded = edge.metric("holdfast_unrecorded_events_total", "") as i64;
    let recorded = i64::from(pixels + clicks) - unrecorded;
    edge.wait_count("select count(*) from hits where token = 'a'", 10);
    edge.wait_count("select count(*) from hits where token like 'guess-%'", recorded);
    assert_eq!(edge.status()["unrecorded"], unrecorded);
    let screen = edge.tell(&["status"]);
    assert!(screen.contains(&format!("{unrecorded} unrecorded")), "{screen}");
    recorded
}

fn edge(budget: &str) -> Edge {
    // What is not in memory is looked up; that has a limit of its own, which is not meant here.
    let extra = format!("[record]\n{budget}\n[limits]\nmisses_per_source = 100000\n{SITE}");
    Edge::with(&configuration(&extra), LINKS)
}

#[test]
fn a_source_has_a_budget_for_unknown_tokens() {
    // Six a minute: one comes back every ten seconds, which a slow machine may see once or twice.
    let recorded = guessed(&edge("unknown_per_source = 6"), 40, 0);
    assert!((6..=9).contains(&recorded), "{recorded}");
    let recorded = guessed(&edge("unknown_per_source = 6"), 0, 40);
    assert!((6..=9).contains(&recorded), "{recorded}");
}

#[test]
fn a_site_has_a_budget_for_unknown_tokens() {
    let recorded = guessed(&edge("unknown_per_site = 6"), 20, 20);
    assert!((6..=9).contains(&recorded), "{recorded}");
}

#[test]
fn a_budget_of_nothing_records_no_unknown_token() {
    assert_eq!(guessed(&edge("unknown_per_source = 0"), 10, 10), 0);
}

#[test]
fn within_the_budget_nothing_is_left_out() {
    let edge = edge("");
    assert_eq!(guessed(&edge, 50, 50), 100);
    assert_eq!(edge.metric("holdfast_unrecorded_events_total", ""), 0.0);
}
