//! What is promised within a second, with the settings that nobody chose.

use std::time::{Duration, Instant};

use crate::edge::{Edge, SITE, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\none,b,https://example.com/b\n";

/// The promise is one second. Machines that run tests are noisy and busy, so it is held against five:
/// enough to notice a forgotten wake-up, a poll of ten seconds, a batch that waits to be full.
const BOUND: Duration = Duration::from_secs(5);

/// Nothing but names and free ports: no `poll`, no `every`.
fn defaults() -> String {
    format!(
        "edge = \"test\"\ndata = \"data\"\n[listen]\nhttp = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [database]\nurl = \"sqlite:holdfast.db\"\n[log]\nformat = \"json\"\n{SITE}"
    )
}

fn within_the_bound(what: &str, begun: Instant, found: impl FnMut() -> Option<()>) {
    wait_for(what, found);
    assert!(begun.elapsed() < BOUND, "{what} took {:?}", begun.elapsed());
    println!("{what}: {:?}", begun.elapsed());
}

#[test]
fn a_link_begins_and_ends_within_a_second_and_a_click_is_delivered_as_fast() {
    let edge = Edge::with(&defaults(), LINKS);
    assert_eq!(edge.get("click.test", "/c/new").status, 404, "asked before it exists: remembered as unknown");

    edge.import("namespace,token,url\none,new,https://example.com/new\n");
    let begun = Instant::now();
    within_the_bound("a link that was imported", begun, || {
        (edge.get("click.test", "/c/new").status == 302).then_some(())
    });

    edge.execute("delete from links where token = 'new'");
    let begun = Instant::now();
    within_the_bound("a link that was deleted", begun, || {
        (edge.get("click.test", "/c/new").status == 410).then_some(())
    });

    let begun = Instant::now();
    edge.redirect("click.test", "/c/b");
    within_the_bound("a click in the database", begun, || {
        (edge.count("select count(*) from hits where token = 'b'") == 1).then_some(())
    });
}
