//! Orders that succeed: by both ways, with an unkind authority, after a restart, and for renewal.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use certs::acme::{Binding, Config, Event, Way};
use rcgen::{CertificateParams, KeyPair};
use tempfile::tempdir;

use crate::edge::Edge;
use crate::fake::{Fake, now};
use crate::pebble::{Pebble, Setup};
use crate::site::Site;

/// Identifier and key of Pebble's own example.
const BINDING: (&str, &str) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

#[tokio::test]
async fn names_are_issued_over_http_and_served() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let mut config = Config::new(pebble.authority());
    config.ways = vec![Way::Http01];
    let edge = Edge::start(folder.path(), config);
    site.answering.with(&edge.acme);
    let names = ["click.brand.test", "news.brand.test", "click.other.test"];
    assert_eq!(edge.acme.wanted(names, |_| false), []);
    edge.log.until("issued", 3).await;
    let trust = pebble.trust();
    for name in names {
        assert!(edge.serves(name, &trust), "{name}");
        assert!(edge.listed(name).validity.is_some());
    }
    assert!(!edge.serves("unknown.brand.test", &trust));
    assert_eq!(edge.log.of("account_created").len(), 1, "{:#?}", edge.log.events());
    for entry in fs::read_dir(folder.path().join("acme")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(folder.path().join("acme")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn names_are_issued_in_a_handshake_and_served() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let mut config = Config::new(pebble.authority());
    config.ways = vec![Way::TlsAlpn01];
    let edge = Edge::start(folder.path(), config);
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    assert!(edge.serves("click.brand.test", &pebble.trust()));
    assert!(edge.acme.alpn("click.brand.test").is_none(), "the proof is gone with its order");
}

#[tokio::test]
async fn an_authority_that_refuses_most_nonces_and_takes_its_time_is_borne() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let environment = vec![
        ("PEBBLE_WFE_NONCEREJECT", "90"),
        ("PEBBLE_VA_SLEEPTIME", "3"),
        ("PEBBLE_AUTHZREUSE", "50"),
        ("PEBBLE_CHAIN_LENGTH", "3"),
    ];
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup { environment, ..Setup::default() });
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["a.brand.test", "b.brand.test", "c.brand.test"], |_| false);
    edge.log.until("issued", 3).await;
    assert!(edge.serves("a.brand.test", &pebble.trust()));
}

#[tokio::test]
async fn an_account_is_bound_where_the_authority_wants_that() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let setup = Setup { binding: Some(BINDING), ..Setup::default() };
    let pebble = Pebble::start(folder.path(), site.http, site.tls, setup);
    let unbound = Edge::start(&folder.path().join("unbound"), Config::new(pebble.authority()));
    unbound.acme.wanted(["click.brand.test"], |_| false);
    let failed = unbound.log.until("failed_authority", 1).await;
    assert!(failed[0].to_string().contains("EAB"), "{}", failed[0]);

    let mut authority = pebble.authority();
    authority.binding = Some(Binding::new(BINDING.0, BINDING.1).unwrap());
    authority.contacts = vec!["mailto:links@brand.test".to_owned()];
    let edge = Edge::start(folder.path(), Config::new(authority));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    assert!(edge.serves("click.brand.test", &pebble.trust()));
}

#[tokio::test]
async fn what_was_issued_is_served_after_a_restart_with_the_authority_down() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let mut pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test", "news.brand.test"], |_| false);
    edge.log.until("issued", 2).await;
    let answer = edge.acme.http01("token");
    let trust = pebble.trust();
    drop(edge);
    pebble.kill();

    // One of the two records is damaged meanwhile.
    let record = folder.path().join("acme/news.brand.test.record");
    let mut bytes = fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&record, bytes).unwrap();

    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    assert!(edge.serves("click.brand.test", &trust));
    assert!(!edge.serves("news.brand.test", &trust));
    assert_eq!(edge.acme.http01("token"), answer, "tokens are answered without the authority");
    let faults = edge.log.of("fault");
    assert!(
        matches!(&faults[..], [Event::Fault { entry, .. }] if entry == "news.brand.test.record"),
        "{faults:?}"
    );
    assert!(folder.path().join("acme/aside/news.brand.test.record").exists());
}

#[tokio::test]
async fn a_certificate_is_renewed_before_its_end_by_itself_or_on_demand() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    let first = edge.stored("click.brand.test").unwrap();

    // Pebble's certificates are for five years.
    edge.forward(4 * 365);
    edge.log.until("issued", 2).await;
    let second = edge.stored("click.brand.test").unwrap();
    assert_ne!(first, second);
    assert!(edge.acme.renew("click.brand.test"));
    edge.log.until("issued", 3).await;
    assert!(edge.serves("click.brand.test", &pebble.trust()));
}

#[tokio::test]
async fn a_certificate_moves_from_one_edge_to_another() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    let pem = edge.stored("click.brand.test").unwrap();
    assert!(edge.stored("other.brand.test").is_none());

    let other = Edge::start(&folder.path().join("other"), Config::new(pebble.authority()));
    assert_eq!(other.acme.import(&pem).unwrap().as_str(), "click.brand.test");
    assert!(other.serves("click.brand.test", &pebble.trust()));
    // A key that is not the chain's is refused.
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let at = pem.find("-----BEGIN CERTIFICATE-----").unwrap();
    let fault = other.acme.import(&format!("{foreign}{}", &pem[at..])).unwrap_err();
    assert_eq!(fault.to_string(), "the certificate is for another key");
}

#[tokio::test]
async fn what_is_imported_is_never_worse_than_what_is_there() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let edge = Edge::start(folder.path(), Config::new(fake.authority()));
    let today = now();
    let pair = |from: i64, until: i64| {
        let mut params = CertificateParams::new(vec!["click.brand.test".to_owned()]).unwrap();
        let [from, until] = [from, until].map(|days| {
            let away = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
            if days < 0 { today - away } else { today + away }
        });
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().unwrap();
        format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem())
    };
    let good = pair(-1, 50);
    for bad in [pair(-20, -10), pair(10, 60)] {
        let fault = edge.acme.import(&bad).unwrap_err().to_string();
        assert!(fault.starts_with("its dates do not hold now"), "{fault}");
    }
    edge.acme.import(&good).unwrap();
    let fault = edge.acme.import(&pair(-1, 40)).unwrap_err().to_string();
    assert!(fault.starts_with("it ends before the one that is there"), "{fault}");
    assert_eq!(edge.stored("click.brand.test").unwrap(), good);
    // What has ended keeps nothing better away.
    edge.forward(51);
    edge.acme.import(&pair(10, 70)).unwrap();
}

#[tokio::test]
async fn the_account_gets_a_new_key_and_goes_on() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["a.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    let before = edge.acme.http01("token").unwrap();
    edge.acme.change_account_key().await.unwrap();
    assert_ne!(edge.acme.http01("token").unwrap(), before);
    edge.acme.wanted(["a.brand.test", "b.brand.test"], |_| false);
    edge.log.until("issued", 2).await;
    drop(edge);

    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["c.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    assert_eq!(edge.log.of("account_registered").len() + edge.log.of("account_created").len(), 0);
}
