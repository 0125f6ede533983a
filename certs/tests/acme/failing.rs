//! Orders that fail: what is told, what is kept, and when it is tried again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use certs::acme::{Authority, Blame, Config, Event, Folder, StartFault, Storage, Way};
use tempfile::tempdir;
use zeroize::Zeroizing;

use crate::edge::{Edge, Setting};
use crate::fake::{Answer, Fake};
use crate::pebble::{Pebble, Setup};
use crate::site::Site;

fn why(event: &Event) -> (Blame, &str) {
    match event {
        Event::Failed { blame, why, .. } => (*blame, why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_that_points_elsewhere_fails_alone_and_comes_once_it_points_here() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    pebble.point_elsewhere("elsewhere.brand.test");
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["elsewhere.brand.test", "click.brand.test"], |_| false);
    let failed = edge.log.until("failed_name", 1).await;
    let (_, told) = why(&failed[0]);
    assert!(told.starts_with("the authority could not connect to the name"), "{told}");
    edge.log.until("issued", 1).await;
    assert_eq!(edge.listed("elsewhere.brand.test").failures, 1);
    assert!(edge.listed("elsewhere.brand.test").last_error.is_some());

    pebble.point_here("elsewhere.brand.test");
    edge.forward(1);
    edge.log.until("issued", 2).await;
    assert!(edge.serves("elsewhere.brand.test", &pebble.trust()));
    assert_eq!(edge.listed("elsewhere.brand.test").failures, 0);
}

#[tokio::test]
async fn when_one_way_of_proving_fails_the_next_attempt_takes_the_other() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    // Nothing listens on port 1.
    let pebble = Pebble::start(folder.path(), 1, site.tls, Setup::default());
    let mut config = Config::new(pebble.authority());
    config.ways = vec![Way::Http01, Way::TlsAlpn01];
    let edge = Edge::start(folder.path(), config);
    site.answering.with(&edge.acme);
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("failed_name", 1).await;
    edge.forward(1);
    edge.log.until("issued", 1).await;
}

#[tokio::test]
async fn an_authority_that_goes_and_comes_back_without_memory_is_got_along_with() {
    let folder = tempdir().unwrap();
    let site = Site::open().await;
    let mut pebble = Pebble::start(folder.path(), site.http, site.tls, Setup::default());
    let edge = Edge::start(folder.path(), Config::new(pebble.authority()));
    site.answering.with(&edge.acme);
    edge.acme.wanted(["a.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    let (trust, token) = (pebble.trust(), edge.acme.http01("token"));

    pebble.kill();
    edge.acme.wanted(["a.brand.test", "b.brand.test"], |_| false);
    let failed = edge.log.until("failed_authority", 1).await;
    assert!(why(&failed[0]).1.contains("no connection"), "{}", failed[0]);
    assert!(edge.acme.status().paused_until.is_some());
    for day in 2..5 {
        edge.forward(1);
        edge.log.until("failed_authority", day).await;
    }
    assert!(edge.serves("a.brand.test", &trust), "what was there is served all the time");

    // It comes back with a new root and knows no account any more.
    pebble.again();
    edge.forward(1);
    edge.log.until("issued", 2).await;
    assert_eq!(edge.log.of("account_registered").len(), 1, "{:#?}", edge.log.events());
    assert_eq!(edge.acme.http01("token"), token, "it is the same key");
    assert!(edge.serves("b.brand.test", &pebble.trust()));
}

#[tokio::test]
async fn a_wait_that_the_authority_asks_for_is_kept() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    fake.set(|answer| answer.limited = Some(7200));
    let edge = Edge::start(folder.path(), Config::new(fake.authority()));
    edge.acme.wanted(["click.brand.test"], |_| false);
    let failed = edge.log.until("failed_limited", 1).await;
    let (blame, told) = why(&failed[0]);
    assert_eq!(blame, Blame::Domain { retry_after: Some(7200) });
    assert!(told.contains("too many certificates already"), "{told}");
    let due = edge.listed("click.brand.test");
    let wait = due.due_at.unwrap().0 - due.last_error.unwrap().0.0;
    assert!((7199..=7201).contains(&wait), "{wait}");
    fake.set(|answer| answer.limited = None);
    edge.forward(1);
    edge.log.until("issued", 1).await;
}

type Fault = fn(&mut Answer);

#[tokio::test]
async fn a_chain_that_is_not_what_was_ordered_is_never_served() {
    let cases: [(Fault, &str); 4] = [
        (
            |answer| answer.other_name = Some("evil.example"),
            "the certificate is for other names: evil.example",
        ),
        (|answer| answer.other_key = true, "the certificate is for another key"),
        (|answer| answer.garbled = true, "a certificate does not parse"),
        (|answer| answer.past = true, "whose clock is wrong?"),
    ];
    for (set, expected) in cases {
        let folder = tempdir().unwrap();
        let fake = Fake::start(folder.path()).await;
        fake.set(set);
        let edge = Edge::start(folder.path(), Config::new(fake.authority()));
        edge.acme.wanted(["click.brand.test"], |_| false);
        let failed = edge.log.until_any(&["failed_name", "failed_authority"], 1).await;
        assert!(why(&failed[0]).1.ends_with(expected), "{}", failed[0]);
        assert!(!edge.serves("click.brand.test", &fake.trust()));
        assert!(edge.stored("click.brand.test").is_none(), "nothing is stored");
    }
}

#[tokio::test]
async fn renewal_follows_the_window_and_names_what_it_replaces() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let edge = Edge::start(folder.path(), Config::new(fake.authority()));
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    // The window is from the sixtieth day on, which is after every two thirds of ninety.
    let from = edge.listed("click.brand.test").validity.unwrap().0;
    while edge.listed("click.brand.test").due_at.is_none_or(|at| at.0 - from.0 < 60 * 86_400) {
        tokio::task::yield_now().await;
    }
    // Now it is long before: the authority is going to revoke.
    fake.set(|answer| answer.window_days = Some((10, 11)));
    assert_eq!(fake.seen().replaces, [None]);
    edge.forward(2);
    fake.until_asked_for_a_window(2).await;
    assert_eq!(edge.log.of("issued").len(), 1);
    edge.forward(10);
    edge.log.until("issued", 2).await;
    let seen = fake.seen();
    let id = seen.windows.last().unwrap();
    assert_eq!(seen.replaces, [None, Some(id.clone())]);

    // It refuses a certificate as a successor: then it is ordered as any.
    fake.set(|answer| answer.no_successors = true);
    assert!(edge.acme.renew("click.brand.test"));
    edge.log.until("issued", 3).await;
    assert_eq!(fake.seen().replaces.last(), Some(&None));
}

#[tokio::test]
async fn a_profile_is_asked_for() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let mut authority = fake.authority();
    authority.profile = Some("shortlived".to_owned());
    let edge = Edge::start(folder.path(), Config::new(authority));
    edge.acme.wanted(["click.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    assert_eq!(fake.seen().profiles, [Some("shortlived".to_owned())]);
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_given_up_in_time() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    fake.set(|answer| answer.silent = true);
    let mut config = Config::new(fake.authority());
    config.request_deadline = Duration::from_millis(100);
    let edge = Edge::start(folder.path(), config);
    edge.acme.wanted(["click.brand.test"], |_| false);
    let failed = edge.log.until("failed_authority", 1).await;
    assert!(why(&failed[0]).1.contains("no answer within 0.1 s"), "{}", failed[0]);
}

#[tokio::test]
async fn an_authority_whose_certificate_nobody_vouches_for_is_not_talked_to() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let stranger = tempdir().unwrap();
    let other = Fake::start(stranger.path()).await;
    let authority = Authority { roots: other.authority().roots, ..fake.authority() };
    let edge = Edge::start(folder.path(), Config::new(authority));
    edge.acme.wanted(["click.brand.test"], |_| false);
    let failed = edge.log.until("failed_authority", 1).await;
    assert!(why(&failed[0]).1.contains("no TLS"), "{}", failed[0]);
    assert_eq!(fake.seen().profiles.len(), 0);
}

/// A disk that is full when it is told so.
struct Full {
    folder: Folder,
    full: AtomicBool,
}

impl Storage for Full {
    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.folder.read(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.folder.write(name, bytes)
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        self.folder.set_aside(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
}

#[tokio::test]
async fn what_can_not_be_stored_is_served_all_the_same_and_told() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let folder_storage = Folder::open(folder.path().join("acme")).unwrap();
    let storage = Arc::new(Full { folder: folder_storage, full: AtomicBool::new(false) });
    let shared: Arc<dyn Storage> = storage.clone();
    let setting = Setting { storage: Some(shared), ..Setting::default() };
    let edge = Edge::with(folder.path(), Config::new(fake.authority()), setting);
    edge.acme.wanted(["a.brand.test"], |_| false);
    edge.log.until("issued", 1).await;
    storage.full.store(true, Ordering::Relaxed);
    edge.acme.wanted(["a.brand.test", "b.brand.test"], |_| false);
    edge.log.until("issued", 2).await;
    assert_eq!(edge.log.of("fault").len(), 1, "{:#?}", edge.log.events());
    assert!(edge.serves("b.brand.test", &fake.trust()));
    assert!(edge.stored("b.brand.test").is_none());

    // As soon as there is room it is stored, without another order.
    storage.full.store(false, Ordering::Relaxed);
    edge.forward(1);
    edge.log.until("stored", 1).await;
    assert!(edge.stored("b.brand.test").is_some());
    assert_eq!(edge.log.of("issued").len(), 2);
}

#[tokio::test]
async fn while_another_process_has_the_storage_nothing_is_ordered_or_written() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    fake.set(|answer| answer.silent = true);
    let edge = Edge::start(folder.path(), Config::new(fake.authority()));
    edge.acme.wanted(["a.brand.test"], |_| false);
    while edge.acme.status().running == 0 {
        tokio::task::yield_now().await;
    }
    edge.acme.rest().await;
    let ended = edge.log.until("cut", 1).await;
    assert!(ended[0].to_string().contains("take over"), "{}", ended[0]);
    fake.set(|answer| answer.silent = false);
    edge.forward(1);
    edge.acme.wanted(["a.brand.test", "b.brand.test"], |_| false);
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert!(edge.acme.import(&other).is_err());
    assert_eq!((edge.log.of("issued").len(), edge.acme.status().running), (0, 0));
    // The other one came to nothing.
    edge.acme.resume();
    edge.log.until("issued", 2).await;
}

#[tokio::test]
async fn a_configuration_that_can_do_nothing_is_refused() {
    let folder = tempdir().unwrap();
    let mut config = Config::new(Authority::at("https://localhost:1/dir"));
    config.ways.clear();
    let refused = Edge::try_with(folder.path(), config, Setting::default());
    assert!(matches!(refused.err(), Some(StartFault::Wayless)));
}
