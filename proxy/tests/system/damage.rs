//! A journal whose bytes are not what was written: named to the sequence, and everything else is delivered.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::edge::{Client, Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// Files of journals with this ending.
fn segments(edge: &Edge, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for journal in fs::read_dir(edge.path("data/journal")).unwrap().filter_map(Result::ok) {
        let Ok(files) = fs::read_dir(journal.path()) else { continue };
        found.extend(
            files
                .filter_map(Result::ok)
                .map(|file| file.path())
                .filter(|path| path.extension().is_some_and(|kind| kind == ending)),
        );
    }
    found
}

/// An edge that was stopped in a window: `clicks` of its clicks are in the journal only, `/c/a?id=1.` first.
fn stopped_with(clicks: u64) -> Edge {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    edge.tell(&["window", "begin", "--until", "1d"]);
    let mut client = Client::connect(edge.http).unwrap();
    for id in 1..=clicks {
        assert_eq!(client.get("click.test", &format!("/c/a?id={id}.")).unwrap().status, 302);
    }
    edge.stop();
    edge
}

/// Flips one bit in the record of that click; returns the file.
fn damage(edge: &Edge, id: u64) -> PathBuf {
    let needle = format!("id={id}.");
    for path in segments(edge, "log") {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()) {
            bytes[at] ^= 0x20;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("no record of click {id} lies open in {:?}", segments(edge, "log"));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn damage_is_named_exactly_and_everything_else_is_delivered() {
    let mut edge = stopped_with(100);
    let whole = edge.run(&["journal", "verify"]);
    assert_eq!(whole.status.code(), Some(0), "{}", String::from_utf8_lossy(&whole.stdout));
    let file = damage(&edge, 50);

    // Looked at while nothing runs.
    let verify = edge.run(&["journal", "verify"]);
    let said = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert_eq!(verify.status.code(), Some(3), "{said}");
    assert!(said.contains(file.file_name().unwrap().to_str().unwrap()), "{said}");
    assert!(said.contains("at byte "), "{said}");
    assert!(said.contains("sequences 50 to 50"), "{said}");
    let findings = json(&String::from_utf8(edge.run(&["journal", "verify", "--json"]).stdout).unwrap());
    assert!(findings.as_array().unwrap().iter().any(|finding| finding["severity"] == "damage"), "{findings}");
    let stat = json(&edge.ok(&["journal", "stat", "--json"]));
    assert_eq!((&stat[0]["first"], &stat[0]["end"]), (&1.into(), &100.into()), "{stat}");
    assert_eq!((&stat[0]["records"], &stat[0]["lost_events"]), (&99.into(), &1.into()), "{stat}");
    let dump = edge.ok(&["journal", "dump"]);
    let dumped: Vec<u64> = dump.lines().map(|line| json(line)["sequence"].as_u64().unwrap()).collect();
    assert_eq!(dumped, (1..=100).filter(|&sequence| sequence != 50).collect::<Vec<_>>());

    // It starts and serves beside it, and says what is lost.
    edge.start();
    assert_eq!(edge.redirect("click.test", "/c/a?id=new"), "https://example.com/a");
    wait_for("the gap to be known", || (edge.metric("holdfast_journal_gap_events", "") == 1.0).then_some(()));
    assert_eq!(edge.status()["journal"]["gap_events"], 1);
    let screen = edge.tell(&["status"]);
    assert!(screen.contains("DAMAGE") && screen.contains("1 event lost"), "{screen}");
    wait_for("the log to say so", || edge.log().contains("an older journal is damaged").then_some(()));

    edge.tell(&["window", "end"]);
    edge.wait_count("select count(*) from hits", 100);
    edge.wait_count("select count(*) from hits where query = 'id=50.'", 0);
    wait_for("the missing event to be counted", || {
        (edge.metric("holdfast_missing_events_total", "") == 1.0).then_some(())
    });
    let report = json(&edge.ok(&["reconcile", "--json"]));
    assert_eq!((&report["quarantined"], &report["missing"]), (&1.into(), &0.into()), "{report}");
    assert_eq!((&report["appended"], &report["delivered"]), (&101.into(), &100.into()), "{report}");

    // The gap outlives another restart, and nothing comes twice.
    edge.stop();
    edge.start();
    edge.redirect("click.test", "/c/a?id=newer");
    edge.wait_count("select count(*) from hits", 101);
    let report = json(&edge.ok(&["reconcile", "--json"]));
    assert_eq!((&report["quarantined"], &report["missing"]), (&1.into(), &0.into()), "{report}");
}

#[test]
fn damage_over_many_records_loses_those_and_no_others() {
    let mut edge = stopped_with(60);
    for id in [10, 11, 12, 40] {
        damage(&edge, id);
    }
    edge.start();
    edge.tell(&["window", "end"]);
    edge.wait_count("select count(*) from hits", 56);
    let report = json(&edge.ok(&["reconcile", "--json"]));
    assert_eq!((&report["quarantined"], &report["missing"]), (&4.into(), &0.into()), "{report}");
    assert_eq!(edge.metric("holdfast_journal_gap_events", ""), 4.0);
}

#[test]
fn damage_in_a_compressed_segment_loses_one_block_and_is_counted_to_the_event() {
    const CLICKS: u64 = 600;
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    edge.tell(&["window", "begin", "--until", "1d"]);
    let mut client = Client::connect(edge.http).unwrap();
    for id in 1..=CLICKS {
        assert_eq!(client.get("click.test", &format!("/c/a?id={id}.")).unwrap().status, 302);
    }
    // A click that comes alone takes a block of the disk, so a segment of 1 MiB is full by now.
    wait_for("a segment to be compressed", || (!segments(&edge, "zlog").is_empty()).then_some(()));
    edge.stop();
    let mut sealed = segments(&edge, "zlog");
    sealed.sort();
    let mut bytes = fs::read(&sealed[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(&sealed[0], bytes).unwrap();

    let verify = edge.run(&["journal", "verify", "--json"]);
    assert_eq!(verify.status.code(), Some(3));
    let findings = String::from_utf8(verify.stdout).unwrap();
    assert!(findings.contains(sealed[0].file_name().unwrap().to_str().unwrap()), "{findings}");
    let kept = edge.ok(&["journal", "dump"]).lines().count() as u64;
    let lost = CLICKS - kept;
    assert!((1..CLICKS / 2).contains(&lost), "{lost} of {CLICKS}: {findings}");

    edge.start();
    edge.tell(&["window", "end"]);
    edge.wait_count("select count(*) from hits", i64::try_from(kept).unwrap());
    let report = json(&edge.ok(&["reconcile", "--json"]));
    assert_eq!((&report["quarantined"], &report["missing"]), (&lost.into(), &0.into()), "{report}");
    wait_for("the lost events to be counted", || {
        (edge.metric("holdfast_missing_events_total", "") == lost as f64).then_some(())
    });
    assert_eq!(edge.metric("holdfast_journal_gap_events", ""), lost as f64);
}

#[test]
fn a_journal_without_a_readable_header_is_not_shown_as_of_1970() {
    let mut edge = stopped_with(3);
    for path in segments(&edge, "log") {
        let mut bytes = fs::read(&path).unwrap();
        bytes[..256].fill(0xff);
        fs::write(&path, bytes).unwrap();
    }
    let stat = edge.run(&["journal", "stat"]);
    let said = String::from_utf8_lossy(&stat.stdout).into_owned() + &String::from_utf8_lossy(&stat.stderr);
    assert!(!said.contains("1970"), "{said}");
    assert_eq!(edge.run(&["journal", "verify"]).status.code(), Some(3));
    // A journal that cannot be read at all keeps nobody from starting.
    edge.start();
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
}
