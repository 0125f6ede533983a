//! The journal is full: people arrive or are refused, as was chosen, and it goes on when there is room.

use crate::edge::{Answer, Client, Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// The smallest journal that there may be, and answers that wait for the disk rather than go out unproved.
fn edge(when_full: &str) -> Edge {
    let journal = format!(
        "segment = \"1MiB\"\nbytes_max = \"16MiB\"\nwhen_full = \"{when_full}\"\nwait_ms_max = 10000"
    );
    let edge = Edge::with(&configuration(SITE).replace("segment = \"1MiB\"", &journal), LINKS);
    // Nothing can be delivered, so nothing may be dropped.
    edge.tell(&["window", "begin", "--until", "1d", "--reason", "full"]);
    edge
}

/// Long queries that do not compress, different each time.
struct Noise(u64);

impl Noise {
    fn text(&mut self, bytes: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(LETTERS[(self.0 >> 58) as usize])
        };
        (0..bytes).map(|_| next()).collect()
    }
}

/// Clicks until the journal takes no more; returns how many were asked, and what answered the last one.
fn fill(edge: &Edge) -> (u64, Answer) {
    let mut noise = Noise(7);
    let mut client = Client::connect(edge.http).unwrap();
    for asked in 1..20_000 {
        let answer = client.get("click.test", &format!("/c/a?{}", noise.text(12_000))).unwrap();
        if answer.status != 302 {
            return (asked, answer);
        }
        if asked % 64 == 0 && edge.status()["journal"]["state"] == "degraded" {
            return (asked, answer);
        }
    }
    panic!("a journal of 16 MiB is not full: {}", edge.status());
}

fn wait_degraded(edge: &Edge) {
    wait_for("the journal to be degraded", || {
        (edge.status()["journal"]["state"] == "degraded").then_some(())
    });
}

fn answers(edge: &Edge) -> f64 {
    edge.metric("holdfast_requests_total", "")
}

/// Room comes back with the database: the journal is written again and what it kept is delivered.
fn make_room(edge: &Edge) {
    edge.tell(&["window", "end"]);
    wait_for("the journal to be written again", || (edge.status()["journal"]["state"] == "up").then_some(()));
    assert_eq!(edge.metric("holdfast_part_up", "journal"), 1.0);
    edge.redirect("click.test", "/c/a?again");
    edge.wait_count("select count(*) from hits where query = 'again' and class = 'synced'", 1);
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!(report["balanced"], true, "{report}");
}

#[test]
fn people_still_arrive_when_it_is_full_and_each_is_counted_as_waived() {
    let edge = edge("redirect");
    fill(&edge);
    wait_degraded(&edge);
    assert_eq!(edge.metric("holdfast_part_up", "journal"), 0.0);
    let waived = |edge: &Edge| edge.metric("holdfast_answers_total", "class=\"waived\"");
    let (waived_before, answers_before) = (waived(&edge), answers(&edge));
    for n in 0..20 {
        assert_eq!(edge.redirect("click.test", &format!("/c/a?full={n}")), "https://example.com/a");
    }
    let pixel = edge.get("click.test", "/o/x");
    assert_eq!((pixel.status, pixel.body.len()), (200, 43));
    assert_eq!(waived(&edge) - waived_before, 21.0, "{}", edge.metrics());
    assert_eq!(answers(&edge) - answers_before, 21.0);
    let screen = edge.tell(&["status"]);
    assert!(screen.contains("degraded") && screen.contains("bytes_max"), "{screen}");
    assert_eq!(crate::edge::get(edge.admin, "localhost", "/ready").unwrap().status, 200, "links work");

    make_room(&edge);
    assert_eq!(
        edge.count("select count(*) from hits where query like 'full=%'"),
        0,
        "waived is not recorded"
    );
    let after = waived(&edge);
    edge.redirect("click.test", "/c/a");
    assert_eq!(waived(&edge), after, "nothing is waived any more");
    // Nobody who was promised a record is without one.
    let promised = edge.metric("holdfast_answers_total", "class=\"synced\"");
    edge.wait_count("select count(*) >= 0 from hits", 1);
    wait_for("the promised records", || {
        (edge.count("select count(*) from hits") as f64 >= promised).then_some(())
    });
}

#[test]
fn answered_without_a_record_is_what_was_waived() {
    let edge = edge("redirect");
    fill(&edge);
    wait_degraded(&edge);
    for n in 0..20 {
        edge.redirect("click.test", &format!("/c/a?full={n}"));
    }
    make_room(&edge);
    let name = |name: &str, labels: &str| edge.metric(name, labels);
    wait_for("the sum of promise 7", || {
        let unwritten = name("holdfast_requests_total", "") - name("holdfast_appended_events_total", "");
        let counted =
            name("holdfast_answers_total", "class=\"waived\"") + name("holdfast_unrecorded_events_total", "");
        (unwritten == counted).then_some(())
    });
}

#[test]
fn clicks_are_refused_with_a_page_when_that_is_chosen() {
    let edge = edge("refuse");
    let (asked, _) = fill(&edge);
    wait_degraded(&edge);
    let answered = answers(&edge);
    assert!(answered <= asked as f64);
    let refused = edge.metric("holdfast_refused_total", "reason=\"journal\"");
    let answer = edge.get("click.test", "/c/a?refused");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("take your request right now"), "{}", answer.text());
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(edge.metric("holdfast_refused_total", "reason=\"journal\""), refused + 1.0);
    assert_eq!(answers(&edge), answered, "a refused click is no hit");
    assert_eq!(edge.metric("holdfast_answers_total", "class=\"waived\""), 0.0);

    make_room(&edge);
    assert_eq!(edge.count("select count(*) from hits where query = 'refused'"), 0);
}
