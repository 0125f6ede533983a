//! SIGTERM under load: what was answered is kept, what was begun is answered, and the end comes in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::edge::{Client, Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";
const CONNECTIONS: u64 = 12;

/// What one client saw until it was told to go, or until nobody was there any more.
#[derive(Default)]
struct Seen {
    answered: Vec<u64>,
    /// Connections that ended where an answer was due.
    broken: Vec<String>,
}

/// Clicks on kept connections until the edge is gone: a connection that was told to close is opened
/// anew, one that breaks in the middle of an answer is a fault, one that cannot be opened is the end.
fn clicks(address: SocketAddr, client: u64, started: Arc<AtomicBool>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        let mut id = client << 32;
        'connections: while let Ok(mut connection) = Client::connect(address) {
            let mut is_new = true;
            loop {
                id += 1;
                let request =
                    format!("GET /c/a?id={id} HTTP/1.1\r\nHost: click.test\r\nUser-Agent: test\r\n\r\n");
                if let Err(error) = connection.send(request.as_bytes()) {
                    if !is_new {
                        seen.broken.push(format!("sending {id}: {error}"));
                    }
                    continue 'connections;
                }
                match connection.answer(false) {
                    Ok(answer) if answer.status == 302 => {
                        seen.answered.push(id);
                        is_new = false;
                        started.store(true, Relaxed);
                        if answer.header("connection") == Some("close") {
                            assert!(connection.is_closed(), "told to close, and then more came");
                            continue 'connections;
                        }
                    }
                    Ok(answer) => panic!("{answer:?}"),
                    // Nobody accepted it before the listener was closed: it was never told anything.
                    Err(_) if is_new && connection.is_closed() => continue 'connections,
                    Err(error) => {
                        seen.broken.push(format!("answer {id}: {error}"));
                        continue 'connections;
                    }
                }
            }
        }
        seen
    })
}

fn delivered(edge: &Edge) -> Vec<u64> {
    let database = rusqlite::Connection::open(edge.database()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let mut statement = database.prepare("select cast(substr(query, 4) as integer) from hits").unwrap();
    let rows = statement.query_map([], |row| Ok(row.get::<_, i64>(0)? as u64)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// The end of an edge under load; returns what its clients were answered.
fn ended_under_load(edge: &mut Edge) -> Vec<u64> {
    let flags: Vec<_> = (0..CONNECTIONS).map(|_| Arc::new(AtomicBool::new(false))).collect();
    let clients: Vec<_> =
        (0..).zip(&flags).map(|(client, flag)| clicks(edge.http, client, Arc::clone(flag))).collect();
    wait_for("every connection's first answer", || flags.iter().all(|flag| flag.load(Relaxed)).then_some(()));
    let begun = Instant::now();
    edge.signal("TERM");
    let mut child = edge.take_child();
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", edge.log());
    // `drain_max` of the configuration is 5 s; the parts behind it have their own bounds.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}: {}", begun.elapsed(), edge.log());
    let mut answered = Vec::new();
    for client in clients {
        let seen = client.join().unwrap();
        assert!(seen.broken.is_empty(), "{:?}\n{}", seen.broken, edge.log());
        answered.extend(seen.answered);
    }
    answered
}

/// Every answered click is in the database once, and nobody else's.
fn assert_once(edge: &Edge, mut answered: Vec<u64>) {
    let mut delivered = delivered(edge);
    delivered.sort_unstable();
    answered.sort_unstable();
    let rows = delivered.len();
    delivered.dedup();
    assert_eq!(rows, delivered.len(), "a click was delivered twice");
    assert_eq!(delivered, answered, "{} delivered, {} answered", delivered.len(), answered.len());
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!((&report["balanced"], &report["pending"]), (&true.into(), &0.into()), "{report}");
    assert_eq!(report["appended"], answered.len(), "{report}");
}

#[test]
fn nothing_is_lost_or_broken_by_an_end_under_load() {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    let answered = ended_under_load(&mut edge);
    edge.start();
    edge.wait_count("select count(*) from hits", i64::try_from(answered.len()).unwrap());
    assert_once(&edge, answered);
}

#[test]
fn nothing_is_lost_by_an_end_while_the_database_is_away() {
    let mut edge = Edge::with(&configuration(SITE), LINKS);
    edge.tell(&["window", "begin", "--until", "1d", "--reason", "move"]);
    let answered = ended_under_load(&mut edge);
    assert_eq!(edge.count("select count(*) from hits"), 0, "kept off the database to the last");
    edge.start();
    edge.tell(&["window", "end"]);
    edge.wait_count("select count(*) from hits", i64::try_from(answered.len()).unwrap());
    assert_once(&edge, answered);
}
