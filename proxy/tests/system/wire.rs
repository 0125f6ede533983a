//! Anything on the wire gets an HTTP answer or a close, never a panic, never another's link.

use crate::edge::{Client, Edge, SITE, configuration, raw};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// Sends `bytes`; the status of the first answer, or 0 for a close without one.
fn check(edge: &Edge, bytes: &[u8], allowed: &[u16]) {
    let status = raw(edge.http, bytes).map_or(0, |answer| answer.status);
    assert!(allowed.contains(&status), "{status} for {:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn malformed_requests_are_answered_or_closed() {
    // Half a request is waited for; not for long here.
    let edge = Edge::with(&(configuration(SITE) + "[limits]\nidle_timeout = \"1s\"\n"), LINKS);
    let cases: &[(&[u8], &[u16])] = &[
        (b"GET /c/a HTTP/1.1\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nHost: click.test\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test, click.test\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: user@click.test\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost:\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test:x\r\n\r\n", &[400]),
        (b"GET http://click.test/c/a HTTP/1.1\r\nHost: click.test\r\n\r\n", &[302]),
        (b"GET http://other.test/c/a HTTP/1.1\r\nHost: click.test\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.0\r\n\r\n", &[421]),
        (b"GET /c/a HTTP/1.0\r\nHost: click.test\r\n\r\n", &[302]),
        (b"GET /c/a HTTP/1.0\r\nHost: click.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost : click.test\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\n folded: x\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nX: a\0b\r\n\r\n", &[400]),
        (
            b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            &[400],
        ),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: +1\r\n\r\nx", &[400]),
        (b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", &[400]),
        (b"POST /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: 0\r\n\r\n", &[405]),
        (b"TRACE /c/a HTTP/1.1\r\nHost: click.test\r\n\r\n", &[405]),
        (b"get /c/a HTTP/1.1\r\nHost: click.test\r\n\r\n", &[400, 405]),
        (b"CONNECT click.test:443 HTTP/1.1\r\nHost: click.test:443\r\n\r\n", &[400, 405]),
        (b"OPTIONS * HTTP/1.1\r\nHost: click.test\r\n\r\n", &[400, 405]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 400, 505]),
        (b"GET /c/a HTTP/3.7\r\nHost: click.test\r\n\r\n", &[0, 400, 505]),
        (b"GET c/a HTTP/1.1\r\nHost: click.test\r\n\r\n", &[400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[0, 400]),
        (b"\r\n\r\n\r\n\r\n", &[0, 400]),
        (b"\0\0\0\0\0\0\0\0\r\n\r\n", &[0, 400]),
    ];
    for (bytes, allowed) in cases {
        check(&edge, bytes, allowed);
    }
    let long_path =
        [b"GET /c/".to_vec(), vec![b'a'; 70_000], b" HTTP/1.1\r\nHost: click.test\r\n\r\n".to_vec()].concat();
    check(&edge, &long_path, &[0, 400, 414, 431]);
    let long_header =
        [b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nX: ".to_vec(), vec![b'a'; 200_000], b"\r\n\r\n".to_vec()]
            .concat();
    check(&edge, &long_header, &[0, 400, 431]);
    let fields = |count: usize| {
        let others: String = (1..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
        format!("GET /c/a HTTP/1.1\r\nHost: click.test\r\n{others}\r\n").into_bytes()
    };
    check(&edge, &fields(64), &[302]);
    check(&edge, &fields(65), &[431]);
    let target = |bytes: usize| {
        let query = "q".repeat(bytes - "/c/a?".len());
        format!("GET /c/a?{query} HTTP/1.1\r\nHost: click.test\r\n\r\n").into_bytes()
    };
    check(&edge, &target(8 << 10), &[302]);
    check(&edge, &target((8 << 10) + 1), &[400]);
    // Whatever came, the edge still serves.
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert_eq!(edge.metric("holdfast_panics_total", ""), 0.0);
}

#[test]
fn a_request_hidden_in_a_body_is_never_executed() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let hidden = "GET /c/hidden HTTP/1.1\r\nHost: click.test\r\n\r\n";
    let bodies = [
        format!("GET /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "GET /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!(
            "GET /c/a HTTP/1.1\r\nHost: click.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!(
            "POST /c/a HTTP/1.1\r\nHost: click.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        ),
    ];
    for request in &bodies {
        let mut client = Client::connect(edge.http).unwrap();
        client.send(request.as_bytes()).unwrap();
        while let Ok(answer) = client.answer(false) {
            assert_ne!(answer.status, 404, "the hidden request was executed: {request}");
        }
        assert!(client.is_closed());
    }
    edge.wait_count("select count(*) from hits where token = 'hidden'", 0);
}

#[test]
fn post_says_which_methods_there_are() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let answer =
        raw(edge.http, b"POST /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn silent_and_slow_clients_are_closed_in_bounded_time() {
    let config = configuration(SITE) + "[limits]\nidle_timeout = \"1s\"\n";
    let edge = Edge::with(&config, LINKS);
    for start in ["", "GET /c/a HTTP/1.1\r\nHost: cl"] {
        let mut client = Client::connect(edge.http).unwrap();
        client.send(start.as_bytes()).unwrap();
        // Either an answer 408 or a close; the read times out after PATIENCE otherwise.
        let ended = client.answer(false).map_or(0, |answer| answer.status);
        assert!([0, 400, 408].contains(&ended), "{ended}");
        assert!(client.is_closed());
    }
}

#[test]
fn connection_caps_hold_and_are_counted() {
    let config = configuration(SITE) + "[limits]\nconnections_per_source = 3\n";
    let edge = Edge::with(&config, LINKS);
    let mut kept: Vec<Client> = (0..3).map(|_| Client::connect(edge.http).unwrap()).collect();
    for client in &mut kept {
        assert_eq!(client.get("click.test", "/c/a").unwrap().status, 302);
    }
    let mut refused = Client::connect(edge.http).unwrap();
    assert!(refused.get("click.test", "/c/a").is_err());
    assert!(edge.metric("holdfast_refused_total", "connections_per_source") >= 1.0);
    drop(kept.pop());
    crate::edge::wait_for("a free place", || crate::edge::get(edge.http, "click.test", "/c/a").ok());
}

#[test]
fn running_out_of_descriptors_neither_spins_nor_hangs() {
    let edge = Edge::with(&configuration(SITE), LINKS);
    let pid = edge.pid();
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), "--nofile=80:80"])
        .status()
        .unwrap();
    assert!(status.success(), "prlimit is in Debian's util-linux");
    // Opened before the shortage, for the admin listener is out of descriptors as well.
    let mut admin = Client::connect(edge.admin).unwrap();
    let held: Vec<_> = (0..150).filter_map(|_| Client::connect(edge.http).ok()).collect();
    crate::edge::wait_for("the fault to be counted", || {
        let text = admin.get("localhost", "/metrics").unwrap().text();
        text.lines()
            .any(|line| {
                line.starts_with("holdfast_refused_total")
                    && line.contains("descriptors")
                    && !line.ends_with(" 0")
            })
            .then_some(())
    });
    drop(held);
    crate::edge::wait_for("service after the shortage", || {
        crate::edge::get(edge.http, "click.test", "/c/a").ok()
    });
}
