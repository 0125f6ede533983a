//! Ends and beginnings under load: no failed request, no lost click.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::edge::{Client, Edge, SITE, configuration, get, wait_for};
use crate::load::{Ledger, Load, Manner, assert_exactly_once, wait_delivered};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

#[test]
fn a_new_program_takes_over_under_load_without_a_failed_request() {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    let ledger = Arc::new(Ledger::default());
    let kept = Load::start(edge.http, 5, Manner::Strict, &ledger, "/c/a");
    // Each of these opens a connection of its own, also while the sockets change hands.
    let fresh = Load::paced(edge.http, 3, Manner::Once, &ledger, "/c/a", Duration::from_millis(1));
    let address = edge.http;
    for _ in 0..3 {
        let before = ledger.answers();
        wait_for("answers", || (ledger.answers() > before + 100).then_some(()));
        let mut old = edge.take_child();
        edge.start_with(&["--takeover"]);
        assert_eq!(edge.http, address, "the same socket");
        let status = wait_for("the old program to end", || old.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
    let before = ledger.answers();
    wait_for("answers of the last one", || (ledger.answers() > before + 100).then_some(()));
    kept.stop();
    fresh.stop();
    assert_eq!(ledger.failed.load(Relaxed), 0);
    wait_delivered(&edge, &ledger.answered());
    assert_exactly_once(&edge, &ledger);
}

#[test]
fn a_second_program_on_the_same_folder_is_refused() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let output = edge.run(&["serve"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--takeover"), "{said}");
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
}

#[test]
fn draining_answers_what_is_open_and_ends_in_time() {
    let config = configuration(SITE).replace("drain_min = \"200ms\"", "drain_min = \"1s\"");
    let mut edge = Edge::with(&config, LINKS);
    let mut kept = Client::connect(edge.http).unwrap();
    assert_eq!(kept.get("click.test", "/c/a").unwrap().status, 302);
    edge.signal("TERM");
    wait_for("readiness to turn red", || {
        get(edge.admin, "localhost", "/ready").ok().filter(|answer| answer.status == 503)
    });
    // First phase: new connections are still answered, and told to go.
    let answer = get(edge.http, "click.test", "/c/a").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (302, Some("close")));
    let answer = kept.get("click.test", "/c/a").unwrap();
    assert_eq!((answer.status, answer.header("connection")), (302, Some("close")));
    let mut child = edge.take_child();
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    edge.start();
    edge.wait_count("select count(*) from hits", 3);
}

#[test]
fn a_stuck_client_does_not_hold_the_end_back() {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    let mut stuck = Client::connect(edge.http).unwrap();
    stuck.send(b"GET /c/a HTTP/1.1\r\nHost: cli").unwrap();
    edge.stop();
    assert!(stuck.is_closed());
}

#[test]
fn sockets_passed_by_systemd_are_used() {
    let edge = Edge::prepare(&configuration(SITE), LINKS);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = configuration(SITE).replacen("127.0.0.1:0", &address.to_string(), 1);
    std::fs::write(edge.path("holdfast.toml"), config).unwrap();
    // systemd passes descriptor 3 and names the process; a shell does the same here.
    let script =
        format!("export LISTEN_FDS=1 LISTEN_PID=$$; exec {} serve 3<&0", env!("CARGO_BIN_EXE_holdfast"));
    let mut child = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(edge.folder.path())
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(std::fs::File::create(edge.path("systemd.log")).unwrap())
        .spawn()
        .unwrap();
    wait_for("an answer on the passed socket", || {
        get(address, "click.test", "/c/a").ok().filter(|answer| answer.status == 302)
    });
    child.kill().unwrap();
    child.wait().unwrap();
}
