//! Several edges with one account: a name is ordered once, and all of them serve it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use certs::acme::{Config, Way};
use tempfile::tempdir;

use crate::edge::{Edge, Setting};
use crate::fake::Fake;
use crate::lock::Table;
use crate::pebble::{Pebble, Setup};
use crate::site::Site;

const NAMES: [&str; 6] =
    ["a.brand.test", "b.brand.test", "c.brand.test", "d.brand.test", "e.brand.test", "f.brand.test"];

#[tokio::test]
async fn two_edges_with_one_lock_never_order_a_name_twice() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let mut config = Config::new(pebble.authority());
    config.ways = vec![Way::Http01];

    // The first one makes the account, which is then copied.
    let [one, two] = ["one", "two"].map(|edge| folder.path().join(edge));
    let edge = Edge::start(&one, config.clone());
    site.answering.with(&edge.acme);
    edge.acme.wanted(["first.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    drop(edge);
    fs::create_dir_all(two.join("acme")).unwrap();
    for entry in fs::read_dir(one.join("acme")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name.to_str().unwrap().starts_with("account-") {
            fs::copy(&path, two.join("acme").join(name)).unwrap();
        }
    }

    let table: Arc<Table> = Arc::default();
    let setting = |edge| Setting { lock: Some(table.of(edge)), ..Setting::default() };
    let first = Edge::with(&one, config.clone(), setting("one"));
    let second = Edge::with(&two, config, setting("two"));
    // Whoever orders, the other one answers as well.
    site.answering.with(&second.acme);
    first.acme.wanted(NAMES, |_| false);
    second.acme.wanted(NAMES, |_| false);
    let trust = pebble.trust();
    for edge in [&first, &second] {
        edge.log.until_any(&["issued", "adopted"], NAMES.len()).await;
        for name in NAMES {
            assert!(edge.serves(name, &trust), "{name}");
        }
    }
    let issued = first.log.of("issued").len() + second.log.of("issued").len();
    assert_eq!(issued, NAMES.len(), "each was ordered once");
    for (name, sealed) in table.shared.lock().unwrap().iter() {
        let text = String::from_utf8_lossy(sealed);
        assert!(!text.contains("PRIVATE KEY") && !text.contains(name), "nothing can be read there");
    }
}

#[tokio::test]
async fn an_order_waits_while_the_lock_can_not_be_had() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let table: Arc<Table> = Arc::default();
    table.down.store(true, Ordering::Relaxed);
    let setting = Setting { lock: Some(table.of("one")), ..Setting::default() };
    let edge = Edge::with(folder.path(), Config::new(pebble.authority()), setting);
    site.answering.with(&edge.acme);
    edge.acme.wanted(["a.brand.test"], |_| false);
    let failed = edge.log.until("failed_lock", 1).await;
    assert!(failed[0].to_string().contains("the database is down"), "{}", failed[0]);
    assert_eq!(edge.log.of("account_created").len(), 0, "the authority was asked for nothing");
    table.down.store(false, Ordering::Relaxed);
    edge.log.until("issued", 1).await;
    assert_eq!(edge.listed("a.brand.test").failures, 0);
}

#[tokio::test]
async fn an_edge_with_another_account_says_so_and_orders_for_itself() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let table: Arc<Table> = Arc::default();
    let edge = |name: &'static str| {
        let setting = Setting { lock: Some(table.of(name)), ..Setting::default() };
        Edge::with(&folder.path().join(name), Config::new(fake.authority()), setting)
    };
    let (first, second) = (edge("one"), edge("two"));
    first.acme.wanted(["a.brand.test"], |_| false);
    first.log.until("issued", 1).await;
    second.acme.wanted(["a.brand.test"], |_| false);
    second.log.until("issued", 1).await;
    let told = second.log.of("fault");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().contains("another account"), "{}", told[0]);
}

#[tokio::test]
async fn what_another_edge_was_issued_is_of_no_use_once_it_is_due() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let setting = Setting { lock: Some(Arc::<Table>::default().of("one")), ..Setting::default() };
    let edge = Edge::with(folder.path(), Config::new(fake.authority()), setting);
    edge.acme.wanted(["a.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    // What is left for the name is its own, and neither better nor of use for long.
    edge.forward(61);
    edge.log.until("issued", 2).await;
    assert_eq!(edge.log.of("adopted").len(), 0);
}

#[tokio::test]
async fn a_name_that_failed_on_one_edge_is_not_tried_by_the_others_meanwhile() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    pebble.point_elsewhere("a.brand.test");
    let table: Arc<Table> = Arc::default();
    let edge = |name: &'static str| {
        let setting = Setting { lock: Some(table.of(name)), ..Setting::default() };
        Edge::with(&folder.path().join(name), Config::new(pebble.authority()), setting)
    };
    let first = edge("one");
    first.acme.wanted(["a.brand.test"], |_| false);
    first.log.until("failed_name", 1).await;
    let second = edge("two");
    site.answering.with(&second.acme);
    second.acme.wanted(["a.brand.test"], |_| false);
    second.log.until("taken", 1).await;
    // It points here now, and the first edge's lease has ended.
    pebble.point_here("a.brand.test");
    table.end_lease("a.brand.test");
    second.forward(1);
    second.log.until("issued", 1).await;
    assert_eq!(second.log.of("failed_name").len(), 0);
}
