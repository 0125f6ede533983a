//! A click, an open, their pages, and what is recorded of them.

use crate::edge::{Client, Edge, SITE, configuration, raw};

const LINKS: &str = "\
namespace,token,url,campaign,append,expires_at,disabled
one,plain,https://example.com/plain,spring,,,
one,umlaut,https://example.com/straße?q=a b,,,,
one,old,https://example.com/old,,,2001-01-01T00:00:00Z,
one,off,https://example.com/off,,,,true
one,UAA-6RZBM-UWW3JN-3ZFU1J,https://example.com/dd?x=1#top,,,,
one,UAA-6RZBM-UWW3JN-OPTOUT,https://example.com/dd,,false,,
two,plain,https://example.org/two,,,,
one,café,https://example.com/latin,,,,
";

fn edge() -> Edge {
    let second = "\n[[site]]\nname = \"other\"\nhosts = [\"other.test\"]\nnamespace = \"two\"\n[[site.route]]\npath = \"/c/{token}\"\nkind = \"click\"\n";
    Edge::with(&configuration(&format!("{SITE}{second}")), LINKS)
}

#[test]
fn a_click_is_redirected_byte_for_byte_and_delivered() {
    let edge = edge();
    let answer = edge.get("click.test", "/c/plain?utm=1");
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!(answer.header("location"), Some("https://example.com/plain"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-robots-tag"), Some("noindex"));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert!(answer.body.is_empty());

    edge.wait_count("select count(*) from hits", 1);
    edge.wait_count(
        "select count(*) from hits where host = 'click.test' and site = 'shop' and namespace = 'one' and kind = 'click' \
         and token = 'plain' and campaign = 'spring' and query = 'utm=1' and method = 'GET' and status = 302 \
         and outcome = 'redirected' and class = 'synced' and address = '127.0.0.0' and user_agent = 'test' and url = ''",
        1,
    );
}

#[test]
fn namespaces_keep_their_tokens_apart() {
    let edge = edge();
    assert_eq!(edge.redirect("click.test", "/c/plain"), "https://example.com/plain");
    assert_eq!(edge.redirect("other.test", "/c/plain"), "https://example.org/two");
    assert_eq!(edge.get("other.test", "/c/umlaut").status, 404);
}

#[test]
fn captures_are_appended_without_damage() {
    let edge = edge();
    assert_eq!(
        edge.redirect("click.test", "/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx"),
        "https://example.com/dd?x=1&dm_i=UAA,6RZBM,UWW3JN,3ZFU1J,1#top"
    );
    assert_eq!(
        edge.redirect("click.test", "/t/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx"),
        "https://example.com/dd?x=1&dm_t=UAA,6RZBM,UWW3JN,3ZFU1J,1#top"
    );
    assert_eq!(edge.redirect("click.test", "/UAA-6RZBM-UWW3JN-OPTOUT-1/c.aspx"), "https://example.com/dd");
    edge.wait_count("select count(*) from hits where json_extract(captures, '$.contact') = 'UWW3JN'", 3);
}

#[test]
fn targets_are_repaired_as_browsers_do() {
    let edge = edge();
    assert_eq!(edge.redirect("click.test", "/c/umlaut"), "https://example.com/stra%C3%9Fe?q=a%20b");
}

#[test]
fn a_route_answers_in_the_manner_of_its_system() {
    let site = "[[site]]\nname = \"list\"\nhosts = [\"list.test\"]\npreset = \"listmonk\"\n";
    let link = "5f1c0d4e-0000-4000-8000-00000000000a";
    let edge = Edge::with(
        &configuration(site),
        &format!("namespace,token,url\nlist,{link},https://example.com/listed\n"),
    );
    let nobody = "00000000-0000-0000-0000-000000000000";
    let known = edge.get("list.test", &format!("/link/{link}/{nobody}/{nobody}"));
    assert_eq!((known.status, known.header("location")), (307, Some("https://example.com/listed")));
    let unknown = edge.get("list.test", &format!("/link/{nobody}/{nobody}/{nobody}"));
    assert_eq!(unknown.status, 400);
    let pixel = edge.get("list.test", &format!("/campaign/{nobody}/{nobody}/px.png"));
    assert_eq!((pixel.status, pixel.header("content-type")), (200, Some("image/png")));
    assert!(pixel.body.starts_with(b"\x89PNG"));
    edge.wait_count("select count(*) from hits where status in (307, 400, 200)", 3);
}

#[test]
fn a_pixel_is_always_an_image() {
    let edge = edge();
    for path in ["/o/anything", "/UAA-6RZBM-UWW3JN/o.gif"] {
        let answer = edge.get("click.test", path);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("image/gif"));
        assert_eq!(answer.header("cache-control"), Some("no-cache, no-store, max-age=0"));
        assert_eq!(answer.body.len(), 43);
        assert!(answer.body.starts_with(b"GIF89a") && answer.body.ends_with(b"\x44\x01\x00\x3b"));
    }
    edge.wait_count("select count(*) from hits where kind = 'open' and outcome = 'shown'", 2);
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let edge = edge();
    for path in ["/c/plain", "/c/nothing", "/o/x", "/c/off"] {
        let get = edge.get("click.test", path);
        let head =
            raw(edge.http, format!("HEAD {path} HTTP/1.1\r\nHost: click.test\r\n\r\n").as_bytes()).unwrap();
        let without_date = |head: &str| {
            head.lines()
                .filter(|line| !line.to_ascii_lowercase().starts_with("date:"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(without_date(&get.head), without_date(&head.head), "{path}");
        assert!(head.body.is_empty());
    }
    edge.wait_count("select count(*) from hits where method = 'HEAD' and verdict = 'head'", 4);
}

#[test]
fn unknown_expired_and_disabled_links_have_their_pages() {
    let edge = edge();
    for (path, status) in [("/c/nobody", 404), ("/c/old", 410), ("/c/off", 410), ("/nowhere", 404)] {
        let answer = edge.get("click.test", path);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text().contains("nobody"), "nothing of the request is reflected");
    }
    edge.wait_count("select count(*) from hits where outcome = 'unknown'", 1);
    edge.wait_count("select count(*) from hits where outcome = 'expired'", 1);
    edge.wait_count("select count(*) from hits where outcome = 'disabled'", 1);
}

#[test]
fn pages_speak_the_readers_language() {
    let edge = edge();
    let page = |language: &str| {
        let request =
            format!("GET /c/nobody HTTP/1.1\r\nHost: click.test\r\nAccept-Language: {language}\r\n\r\n");
        raw(edge.http, request.as_bytes()).unwrap().text()
    };
    for (asked, lang) in
        [("de-AT,de;q=0.9", "de"), ("fr", "fr"), ("es-MX", "es"), ("en-GB", "en"), ("ja", "en")]
    {
        assert!(page(asked).contains(&format!("lang=\"{lang}\"")), "{asked}");
    }
}

#[test]
fn tokens_are_bytes() {
    let edge = edge();
    let answer = raw(edge.http, "GET /c/café HTTP/1.1\r\nHost: click.test\r\n\r\n".as_bytes()).unwrap();
    assert_eq!(answer.header("location"), Some("https://example.com/latin"));
    // hyper takes targets that are UTF-8; other raw bytes are no URI and are refused by it.
    assert_eq!(raw(edge.http, b"GET /c/caf\xe9 HTTP/1.1\r\nHost: click.test\r\n\r\n").unwrap().status, 400);
    for path in ["/c/plain%2F", "/c/plain+", "/c/~plain", "/c/PLAIN", "/c/./plain", "//c/plain"] {
        assert_eq!(edge.get("click.test", path).status, 404, "{path}");
    }
    let long = "x".repeat(4096);
    assert_eq!(edge.get("click.test", &format!("/c/{long}")).status, 404);
    edge.import(&format!("namespace,token,url\none,{long},https://example.com/long\n"));
    crate::edge::wait_for("the long token", || {
        (edge.get("click.test", &format!("/c/{long}")).status == 302).then_some(())
    });
}

#[test]
fn hosts_are_matched_without_case_port_or_final_dot() {
    let edge = edge();
    for host in ["CLICK.test", "click.test.", "click.test:8080", "a.wild.test", "a.b.wild.test"] {
        assert_eq!(edge.redirect(host, "/c/plain"), "https://example.com/plain", "{host}");
    }
    for host in ["wild.test", "nobody.test", "127.0.0.1"] {
        assert_eq!(edge.get(host, "/c/plain").status, 421, "{host}");
    }
}

#[test]
fn an_unknown_host_gets_the_default_site_when_there_is_one() {
    let config = configuration(SITE).replace("threads = 2", "threads = 2\ndefault_site = \"shop\"");
    let edge = Edge::with(&config, LINKS);
    assert_eq!(edge.redirect("nobody.test", "/c/plain"), "https://example.com/plain");
}

#[test]
fn many_requests_on_one_connection_are_all_recorded() {
    let edge = edge();
    let mut client = Client::connect(edge.http).unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("click.test", "/c/plain").unwrap().status, 302);
    }
    // Pipelined: sent at once, answered in order.
    let one = b"GET /c/plain HTTP/1.1\r\nHost: click.test\r\n\r\n".repeat(20);
    client.send(&one).unwrap();
    for _ in 0..20 {
        assert_eq!(client.answer(false).unwrap().status, 302);
    }
    edge.wait_count("select count(*) from hits", 70);
    assert!(edge.ok(&["reconcile", "--json"]).contains("\"missing\": 0"));
}

#[test]
fn addresses_are_kept_as_the_configuration_says() {
    for (rule, kept) in [("full", "127.0.0.1"), ("none", "")] {
        let edge = Edge::with(&configuration(&format!("[privacy]\naddress = \"{rule}\"\n{SITE}")), LINKS);
        edge.redirect("click.test", "/c/plain");
        edge.wait_count(&format!("select count(*) from hits where address = '{kept}'"), 1);
    }
}

#[test]
fn prefetches_and_robots_are_labelled_not_dropped() {
    let edge = edge();
    for header in
        ["Sec-Purpose: prefetch", "User-Agent: Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"]
    {
        let request = format!("GET /c/plain HTTP/1.1\r\nHost: click.test\r\n{header}\r\n\r\n");
        assert_eq!(raw(edge.http, request.as_bytes()).unwrap().status, 302);
    }
    edge.wait_count("select count(*) from hits where verdict = 'prefetch'", 1);
    edge.wait_count("select count(*) from hits where verdict = 'robot'", 1);
}
