//! Links and hits in a PostgreSQL server: what works with a file works there, too.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, PASSWORD, Pooler};
use crate::edge::{Edge, SITE, wait_for};
use crate::load::{Ledger, Load, Manner};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\none,b,https://example.com/b\none,ü,https://example.com/%C3%BC\n";

fn report(edge: &Edge) -> serde_json::Value {
    serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap()
}

fn assert_balanced(edge: &Edge) {
    let report = report(edge);
    assert_eq!(
        (&report["balanced"], &report["missing"], &report["doubled"]),
        (&true.into(), &0.into(), &0.into()),
        "{report}"
    );
}

#[test]
fn links_come_from_it_and_every_click_goes_there_once() {
    let cluster = Cluster::start();
    let edge = cluster.edge(SITE, LINKS);
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert_eq!(edge.get("click.test", "/c/unknown").status, 404);
    let names = cluster.connections();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("holdfast")), "{names:?}");

    let ledger = Arc::new(Ledger::default());
    let load = Load::start(edge.http, 4, Manner::Strict, &ledger, "/c/a");
    edge.import("namespace,token,url\none,late,https://example.com/late\n");
    wait_for("the late link", || (edge.get("click.test", "/c/late").status == 302).then_some(()));
    cluster.sql("delete from holdfast.links where token = 'b'");
    wait_for("the deleted link to stop", || (edge.get("click.test", "/c/b").status == 410).then_some(()));
    cluster.sql("update holdfast.links set url = 'https://example.com/moved' where token = 'late'");
    wait_for("the changed link", || {
        (edge.redirect("click.test", "/c/late") == "https://example.com/moved").then_some(())
    });
    wait_for("a number of clicks", || (ledger.answers() > 2_000).then_some(()));
    load.stop();
    cluster.assert_exactly_once(&edge, &ledger);
    assert_balanced(&edge);
    assert_eq!(cluster.count("select count(*) from holdfast.rejected"), 0);

    let exported = edge.ok(&["links", "export"]);
    assert!(exported.contains("https://example.com/moved") && exported.contains('ü'), "{exported}");
    let shown = edge.tell(&["links", "show", "late"]);
    assert!(shown.contains("https://example.com/moved"), "{shown}");
}

/// What no text of PostgreSQL can hold goes there escaped, and comes back as it was.
#[test]
fn bytes_that_are_no_text_are_delivered() {
    let cluster = Cluster::start();
    let edge = cluster.edge(SITE, LINKS);
    let request = b"GET /c/a?id=%00\xff\xfe&x=\xc3 HTTP/1.1\r\nHost: click.test\r\nUser-Agent: \xff\xfe'\\\"\t\r\nReferer: \xf0\x9f\r\n\r\n";
    crate::edge::raw(edge.http, request).unwrap();
    edge.redirect("click.test", "/c/a?after");
    cluster.wait_count("select count(*) from holdfast.hits where query = 'after'", 1);
    assert_balanced(&edge);
    assert_eq!(cluster.count("select count(*) from holdfast.rejected"), 0);
}

#[test]
fn a_change_is_announced_and_not_waited_for() {
    let cluster = Cluster::start();
    // The next poll comes later than the patience of this test.
    let slow = cluster.configuration(SITE).replace("poll = \"50ms\"", "poll = \"1m\"");
    let edge = Edge::with(&slow, LINKS);
    edge.import("namespace,token,url\none,late,https://example.com/late\n");
    wait_for("the late link in memory", || {
        (edge.metric("holdfast_links", "place=\"overlay\"") >= 1.0).then_some(())
    });
    assert_eq!(edge.redirect("click.test", "/c/late"), "https://example.com/late");
}

#[test]
fn a_restart_beside_a_server_that_is_away_serves_every_known_link() {
    let mut cluster = Cluster::start();
    let mut edge = cluster.edge(SITE, LINKS);
    edge.redirect("click.test", "/c/a?before");
    edge.kill();
    cluster.stop();
    edge.start();
    assert_eq!(edge.redirect("click.test", "/c/a?away"), "https://example.com/a");
    assert_eq!(edge.get("click.test", "/c/unknown").status, 503);
    cluster.run();
    cluster.wait_count("select count(*) from holdfast.hits where query in ('before', 'away')", 2);
    wait_for("the unknown token to be looked up", || {
        (edge.get("click.test", "/c/unknown").status == 404).then_some(())
    });
    assert_balanced(&edge);
}

#[test]
fn behind_a_transaction_pooler_changes_are_polled_and_delivery_is_the_same() {
    let cluster = Cluster::start();
    let pooler = Pooler::before(&cluster);
    let config = cluster
        .configuration(SITE)
        .replace(&cluster.url(), &pooler.url())
        .replace("poll = \"50ms\"", "poll = \"50ms\"\npooler = \"transaction\"");
    let edge = Edge::with(&config, LINKS);
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(edge.http, 4, Manner::Strict, &ledger, "/c/a");
    for n in 0..5 {
        edge.import(&format!("namespace,token,url\none,late{n},https://example.com/{n}\n"));
        wait_for("the late link", || {
            (edge.get("click.test", &format!("/c/late{n}")).status == 302).then_some(())
        });
        assert_eq!(edge.get("click.test", &format!("/c/unknown{n}")).status, 404);
    }
    wait_for("a number of clicks", || (ledger.answers() > 1_000).then_some(()));
    load.stop();
    cluster.assert_exactly_once(&edge, &ledger);
    assert_balanced(&edge);
    let listening = "select count(*) from pg_stat_activity where query ilike 'listen%'";
    assert_eq!(cluster.count(listening), 0, "a pooler gives no connection to listen on");
}

/// `check --connect` of a configuration with this database; what it said and whether it was content.
fn checked(url: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let config = crate::edge::configuration(SITE).replace("sqlite:holdfast.db", url);
    std::fs::write(folder.path().join("holdfast.toml"), config).unwrap();
    let edge = Edge::in_folder(folder);
    let output = edge.run(&["check", "--connect"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[track_caller]
fn refused(url: &str, because: &str) {
    let (content, said) = checked(url);
    assert!(!content, "{url}: {said}");
    assert!(said.to_lowercase().contains(because), "{url}: {said}");
    assert!(!said.contains(PASSWORD) && !said.contains("wr0ng"), "a password is shown: {said}");
}

#[test]
fn a_wrong_database_is_said_to_be_what_it_is() {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    refused(&url, "schema");
    let edge = cluster.edge(SITE, LINKS);
    let (content, said) = checked(&url);
    assert!(content, "{said}");
    refused(&cluster.url_with("wr0ng"), "password");
    refused(&url.replace("/holdfast", "/elsewhere"), "\"elsewhere\"");
    refused(&url.replace("holdfast:", "somebody:"), "\"somebody\"");
    refused(&url.replace("127.0.0.1", "no-such-host.invalid"), "no-such-host.invalid");
    refused(&format!("{url}?sslmode=require"), "tls");
    drop(edge);
    cluster.stop();
    refused(&url, "refused");
}

/// The password is in a file of its own, and nowhere else.
#[test]
fn a_password_may_come_from_a_file() {
    let cluster = Cluster::start();
    let without = cluster.url().replace(&format!(":{PASSWORD}"), "");
    let config = cluster.configuration(SITE).replace(&cluster.url(), &without);
    let config = config.replace("poll = \"50ms\"", "poll = \"50ms\"\npassword_file = \"password\"");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("holdfast.toml"), config).unwrap();
    std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
    let mut edge = Edge::in_folder(folder);
    edge.import(LINKS);
    edge.start();
    edge.redirect("click.test", "/c/a");
    cluster.wait_count("select count(*) from holdfast.hits", 1);
}

/// A certificate authority in a folder, made with `openssl`.
fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ),
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tls_is_verified_in_full() {
    let mut cluster = Cluster::start();
    let folder = cluster.folder().to_owned();
    authority(&folder, "good");
    authority(&folder, "other");
    openssl(
        &folder,
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout server.key -out server.csr",
    );
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:database.test\n").unwrap();
    openssl(
        &folder,
        "x509 -req -in server.csr -CA good.pem -CAkey good.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
    for name in ["server.key", "server.pem"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        cluster.write(&format!("data/{name}"), &text);
    }
    cluster.set_up("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n");
    let with = |mode: &str, root: &str| format!("sslmode={mode}&sslrootcert={}", folder.join(root).display());

    cluster.parameters = with("verify-full", "good.pem");
    let edge = cluster.edge(SITE, LINKS);
    edge.redirect("click.test", "/c/a");
    cluster.wait_count("select count(*) from holdfast.hits", 1);
    let plain = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'holdfast' and not ssl";
    assert_eq!(cluster.count(plain), 0);
    assert!(!cluster.connections().is_empty());

    cluster.parameters = with("verify-full", "other.pem");
    refused(&cluster.url(), "certificate");
    cluster.parameters = with("verify-ca", "other.pem");
    refused(&cluster.url(), "certificate");
    cluster.parameters = with("verify-full", "good.pem");
    refused(&cluster.url().replace("127.0.0.1", "localhost"), "certificate");
    cluster.parameters = with("verify-ca", "good.pem");
    let (content, said) = checked(&cluster.url().replace("127.0.0.1", "localhost"));
    assert!(content, "{said}");
    cluster.parameters = "sslmode=require".to_owned();
    let (content, said) = checked(&cluster.url());
    assert!(content, "without an authority, require asks for no more than TLS: {said}");
    drop(edge);
}

/// Several hosts may be named; the one that takes writes is found.
#[test]
fn the_primary_is_found_among_several_hosts() {
    let mut cluster = Cluster::start();
    let replica = cluster.replica();
    let both = format!(
        "postgres://holdfast:{PASSWORD}@127.0.0.1:{},127.0.0.1:{}/holdfast?target_session_attrs=read-write",
        replica.port(),
        cluster.port()
    );
    let edge = Edge::with(&cluster.configuration(SITE).replace(&cluster.url(), &both), LINKS);
    let ledger = Arc::new(Ledger::default());
    let load = Load::paced(edge.http, 2, Manner::Strict, &ledger, "/c/a", Duration::from_millis(1));
    wait_for("clicks", || (ledger.answers() > 100).then_some(()));
    cluster.wait_count("select (count(*) > 50)::int from holdfast.hits", 1);
    // The primary is shut down in order, so that the replica has everything, and takes its place.
    cluster.wait_replayed(&replica);
    cluster.shut_down();
    replica.promote();
    let before = ledger.answers();
    wait_for("clicks afterwards", || (ledger.answers() > before + 100).then_some(()));
    load.stop();
    replica.assert_exactly_once(&edge, &ledger);
    assert_balanced(&edge);
}
