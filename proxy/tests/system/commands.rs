//! What commands say: plainly, in the right number, with advice that can be followed.

use std::process::Output;

use crate::edge::{Edge, SITE, configuration, holdfast, wait_for};

const LINKS: &str = "\
namespace,token,url,expires_at
one,a,https://example.com/a,
one,old,https://example.com/old,2001-01-01T00:00:00Z
";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_window_takes_the_durations_of_the_configuration() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    for (until, seconds) in [("1d", 86_400_u64), ("90m", 5_400), ("1h30m", 5_400), ("2d12h", 216_000)] {
        edge.tell(&["window", "begin", "--until", until]);
        let answer = edge.get("click.test", "/c/unknown");
        assert_eq!(answer.status, 503);
        let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((seconds - 60..=seconds).contains(&retry), "{until}: {retry}");
    }
    for (until, expected) in [
        ("1 day", "1d"),
        ("-2h", "1d"),
        ("5weeks", "1d"),
        ("2090-07-14T11:00[Europe/Lndon]", "Europe/London"),
        ("2090-02-30T11:00[Europe/London]", "no such time"),
    ] {
        let output = edge.ask(&["window", "begin", &format!("--until={until}")]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{until}");
        assert!(said.contains(until) && said.contains(expected), "{until}: {said}");
    }
    for until in ["2090-07-14T11:00[Europe/London]", "2090-07-14T10:00Z"] {
        edge.tell(&["window", "begin", "--until", until]);
        assert!(edge.tell(&["window", "list"]).contains("2090-07-14"), "{until}");
    }
}

#[test]
fn a_reason_may_be_as_long_as_it_says() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    edge.tell(&["window", "begin", "--reason", &"r".repeat(500)]);
    let output = edge.ask(&["window", "begin", "--reason", &"r".repeat(501)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("500 bytes"), "{}", said(&output));
    let help = holdfast().args(["window", "begin", "--help"]).output().unwrap();
    assert!(said(&help).contains("500 bytes"), "{}", said(&help));
    let documented = include_str!("../../../docs/holdfast.toml");
    assert!(documented.contains("one line of at most 500 bytes"));
}

#[test]
fn journals_that_are_not_there_yet_are_said_to_be_so() {
    let edge = Edge::prepare(&configuration(SITE), LINKS);
    for arguments in [&["journal", "stat"][..], &["journal", "verify"], &["journal", "dump"], &["reconcile"]]
    {
        let output = edge.run(arguments);
        let said = said(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(
            said.contains("there is no journal") && said.contains("holdfast serve"),
            "{arguments:?}: {said}"
        );
    }
    for arguments in [&["journal", "stat", "--json"][..], &["journal", "verify", "--json"]] {
        assert_eq!(edge.ok(arguments).trim(), "[]", "{arguments:?}");
    }
    let none = "00000000-0000-4000-8000-000000000000";
    let output = edge.run(&["journal", "stat", none]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no journal"), "{}", said(&output));
}

#[test]
fn a_link_is_shown_as_what_it_is() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let show = |token: &str, more: &[&str]| {
        let mut arguments = vec!["links", "show", token];
        arguments.extend(more);
        let output = edge.ask(&arguments);
        (output.status.code(), said(&output))
    };
    let (code, live) = show("a", &[]);
    assert_eq!(code, Some(0), "{live}");
    assert_eq!(live.matches("live").count(), 2, "in the database and in memory: {live}");
    let (code, old) = show("old", &[]);
    assert_eq!(code, Some(0), "{old}");
    assert_eq!(old.matches("expired").count(), 2, "{old}");
    assert_eq!(old.matches("2001-01-01T00:00:00Z").count(), 2, "{old}");
    let (code, none) = show("none", &[]);
    assert_eq!(code, Some(3), "{none}");
    assert!(none.contains("no such token"), "{none}");
    let (code, none) = show("none", &["--namespace", "one"]);
    assert_eq!(code, Some(3), "{none}");
    assert_eq!(none.matches("unknown").count(), 2, "{none}");

    // Without the database nobody says that a link is unknown to it.
    for suffix in ["", "-wal", "-shm"] {
        let _ =
            std::fs::rename(edge.path(&format!("holdfast.db{suffix}")), edge.path(&format!("away{suffix}")));
    }
    let (code, live) = show("a", &["--namespace", "one"]);
    assert_eq!(code, Some(0), "{live}");
    assert!(live.contains("cannot be asked") && live.contains("does not exist"), "{live}");
    assert!(live.contains("https://example.com/a") && !live.contains("unknown"), "{live}");
}

#[test]
fn advice_names_only_what_there_is() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    edge.ok(&["links", "snapshot", "export", "moved.links"]);
    let output = edge.run(&["links", "snapshot", "import", "moved.links"]);
    let refused = said(&output);
    assert_eq!(output.status.code(), Some(1), "{refused}");
    assert!(refused.contains("an edge runs on the data folder"), "{refused}");
    assert!(!refused.contains("--takeover"), "the command has no such flag: {refused}");

    let other = Edge::prepare(&configuration(SITE), LINKS);
    let output = other.run(&["links", "snapshot", "import", "import.csv"]);
    let refused = said(&output);
    assert_eq!(output.status.code(), Some(1), "{refused}");
    assert!(refused.contains("import.csv") && refused.contains("links snapshot export"), "{refused}");
    assert!(!refused.contains(".part"), "nobody knows that file: {refused}");
    std::fs::remove_file(other.database()).unwrap();
    let output = other.run(&["links", "import", "import.csv"]);
    let said = said(&output);
    assert!(!output.status.success() && said.contains("--create"), "{said}");
}

#[test]
fn one_is_not_many() {
    let edge = Edge::prepare(&configuration(SITE), "namespace,token,url\none,a,https://example.com/a\n");
    let imported = edge.ok(&["links", "import", "import.csv"]);
    assert!(imported.starts_with("1 link read: 0 new, 0 changed, 1 as before"), "{imported}");
    let mut edge = edge;
    edge.start();
    let exported = edge.ok(&["links", "snapshot", "export", "moved.links"]);
    assert!(exported.starts_with("1 link, "), "{exported}");
    let status =
        wait_for("one journal", || Some(edge.tell(&["status"])).filter(|it| it.contains("1 journal")));
    for wrong in [" 1 links", " 1 journals", " 1 segments", " 1 connections", " 1 failures"] {
        assert!(!status.contains(wrong), "{wrong}: {status}");
    }
}

#[test]
fn a_wrong_argument_is_told_from_a_finding() {
    for arguments in [&["journal", "verify", "--colour"][..], &["reconcil"], &["links", "show"]] {
        let output = holdfast().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
