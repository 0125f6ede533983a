//! Certificates for names on their first handshake: who gets one, who does not, and what a flood does.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::Roots;
use certs::acme::{Ask, Config, Demanded, Rate};
use tempfile::tempdir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::edge::{Edge, Setting};
use crate::fake::Fake;
use crate::https;

/// What the application says that is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Yes to names that begin with `customer`.
    Customers,
    /// That whoever asks has to say who that is.
    Unauthorized,
    Everything,
    Nothing,
}

/// An `ask` address.
struct Application {
    port: u16,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Application {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
        let mut task = JoinSet::new();
        let (saying, counting) = (Arc::clone(&says), Arc::clone(&asked));
        task.spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some((line, _)) = https::request(&mut stream).await else { continue };
                counting.fetch_add(1, Ordering::Relaxed);
                let says = *saying.lock().unwrap();
                let status = match says {
                    Says::Nothing => {
                        silent.push(stream);
                        continue;
                    }
                    Says::Unauthorized => "401 Unauthorized",
                    Says::Customers if !line.contains("domain=customer") => "404 Not Found",
                    Says::Customers | Says::Everything => "200 OK",
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { port, says, asked, _task: task }
    }

    fn config(&self, fake: &Fake) -> Config {
        let mut config = Config::new(fake.authority());
        let address = format!("http://127.0.0.1:{}/ask", self.port);
        config.ask = Some(Ask { address, roots: Roots::System, deadline: Duration::from_millis(300) });
        config
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

#[tokio::test]
async fn a_name_that_the_application_knows_is_issued_in_its_first_handshake() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let application = Application::start(Says::Customers).await;
    let edge = Edge::start(folder.path(), application.config(&fake));
    let demand = edge.acme.demand("Customer1.Example.");
    let joined = edge.acme.demand("customer1.example");
    assert_eq!(tokio::join!(demand, joined), (Demanded::Ready, Demanded::Ready));
    assert!(edge.serves("customer1.example", &fake.trust()));
    assert_eq!(edge.log.of("issued").len(), 1, "two handshakes, one order");
    assert_eq!(application.asked.load(Ordering::Relaxed), 1);

    assert_eq!(edge.acme.demand("stranger.example").await, Demanded::Refused);
    assert_eq!(edge.acme.demand("stranger.example").await, Demanded::Refused);
    assert_eq!(application.asked.load(Ordering::Relaxed), 2, "the refusal is remembered");
    assert_eq!(edge.acme.demand("10.0.0.1").await, Demanded::NotAName);
    assert_eq!(edge.acme.demand("localhost").await, Demanded::NotAName);
    assert_eq!(edge.acme.list().len(), 1);
}

#[tokio::test]
async fn an_application_that_does_not_let_us_ask_has_refused_nobody() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let application = Application::start(Says::Unauthorized).await;
    let edge = Edge::start(folder.path(), application.config(&fake));
    assert_eq!(edge.acme.demand("customer1.example").await, Demanded::NoAnswer);
    application.says(Says::Customers);
    edge.forward(1);
    assert_eq!(edge.acme.demand("customer1.example").await, Demanded::Ready);
}

/// Nobody woke it when its time had come, unless another order happened to end.
#[tokio::test]
async fn a_handshake_waits_for_a_rate_that_lets_it_in_within_seconds() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let mut config = Config::new(fake.authority());
    // Three at once for names on demand, and then one every two seconds.
    config.bounds.per_domain = Rate { count: 4, seconds: 8 };
    let names = ["a.brand.example", "b.brand.example", "c.brand.example", "d.brand.example"];
    let setting = Setting { known: names.to_vec(), ..Setting::default() };
    let edge = Edge::with(folder.path(), config, setting);
    for name in names {
        assert_eq!(edge.acme.demand(name).await, Demanded::Ready, "{name}");
    }
}

#[tokio::test]
async fn a_name_of_the_snapshot_is_issued_without_a_question() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let setting = Setting { known: vec!["click.brand.example"], ..Setting::default() };
    let edge = Edge::with(folder.path(), Config::new(fake.authority()), setting);
    assert_eq!(edge.acme.demand("click.brand.example").await, Demanded::Ready);
    assert_eq!(edge.acme.demand("other.brand.example").await, Demanded::Refused);
    // It is on disk with what it was issued for: the next start knows it.
    drop(edge);
    let edge = Edge::start(folder.path(), Config::new(fake.authority()));
    assert!(edge.serves("click.brand.example", &fake.trust()));
    assert_eq!(edge.acme.demand("click.brand.example").await, Demanded::Ready);
}

#[tokio::test]
async fn a_flood_of_unknown_names_while_nobody_answers_leaves_known_ones_alone() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let application = Application::start(Says::Nothing).await;
    let mut config = application.config(&fake);
    config.bounds.refused_max = 50;
    let setting = Setting { known: vec!["click.brand.example"], ..Setting::default() };
    let edge = Edge::with(folder.path(), config, setting);
    let mut strangers = JoinSet::new();
    for number in 0..5000 {
        let acme = edge.acme.clone();
        strangers.spawn(async move { acme.demand(&format!("a{number}.stranger{number}.example")).await });
    }
    assert_eq!(edge.acme.demand("click.brand.example").await, Demanded::Ready, "in the middle of it");
    edge.acme.wanted(["news.brand.example"], |_| false);
    edge.log.until("issued", 2).await;
    while let Some(told) = strangers.join_next().await {
        assert!(matches!(told.unwrap(), Demanded::Busy | Demanded::NoAnswer));
    }
    let status = edge.acme.status();
    assert_eq!((status.names, status.refused, status.asking), (2, 0, 0));
    assert_eq!(fake.seen().profiles.len(), 2, "nothing was ordered for a stranger");
    let files = std::fs::read_dir(folder.path().join("acme")).unwrap().count();
    assert_eq!(files, 3, "two records and the account");
    assert!(application.asked.load(Ordering::Relaxed) <= 32);

    application.says(Says::Customers);
    edge.forward(1);
    assert_eq!(edge.acme.demand("customer.example").await, Demanded::Ready);
}

#[tokio::test]
async fn an_application_that_says_yes_to_all_is_bounded() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    let application = Application::start(Says::Everything).await;
    let mut config = application.config(&fake);
    config.bounds.demanded_max = 5;
    let edge = Edge::start(folder.path(), config);
    let mut ready = 0;
    for number in 0..10 {
        ready += usize::from(edge.acme.demand(&format!("a{number}.example")).await == Demanded::Ready);
    }
    assert_eq!((ready, edge.acme.list().len()), (5, 5));
    assert_eq!(fake.seen().profiles.len(), 5);
}

#[tokio::test]
async fn a_handshake_waits_no_longer_than_it_may() {
    let folder = tempdir().unwrap();
    let fake = Fake::start(folder.path()).await;
    fake.set(|answer| answer.silent = true);
    let setting = Setting { known: vec!["click.brand.example"], ..Setting::default() };
    let mut config = Config::new(fake.authority());
    config.demand_wait = Duration::from_millis(200);
    config.request_deadline = Duration::from_millis(400);
    let edge = Edge::with(folder.path(), config, setting);
    assert_eq!(edge.acme.demand("click.brand.example").await, Demanded::Late);
    edge.log.until("failed_authority", 1).await;
    // From now on it is told at once.
    assert!(matches!(edge.acme.demand("click.brand.example").await, Demanded::Later { .. }));
}
