//! Clicks under way from several connections, and the client's own record of what was answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::edge::{Client, Edge, PATIENCE};

/// Clients that click without pause; each click has an id of its own in the query.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What was sent and what was answered.
#[derive(Default)]
pub struct Ledger {
    next: AtomicU64,
    answered: Mutex<Vec<u64>>,
    /// Requests on a connection that was open, and connections, that failed.
    pub failed: AtomicU64,
    slowest_ms: AtomicU64,
}

impl Ledger {
    pub fn answered(&self) -> Vec<u64> {
        self.answered.lock().unwrap().clone()
    }

    pub fn answers(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    pub fn sent(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// The longest that an answer took.
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest_ms.load(Relaxed))
    }
}

/// How a client behaves when its connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A connection for each click, as browsers make them; every failure counts.
    Once,
    /// Keeps its connection and ends when it breaks: for an edge that is killed.
    UntilBroken,
    /// Opens a new one where the edge said `Connection: close`; every other end is a failure.
    Strict,
}

impl Load {
    /// Starts `connections` clients on `path` (without a query) of `host`.
    pub fn start(
        address: SocketAddr,
        connections: usize,
        manner: Manner,
        ledger: &Arc<Ledger>,
        path: &'static str,
    ) -> Self {
        Self::paced(address, connections, manner, ledger, path, Duration::ZERO)
    }

    /// The same with a pause after each answer, for a load that lasts as long as a story.
    pub fn paced(
        address: SocketAddr,
        connections: usize,
        manner: Manner,
        ledger: &Arc<Ledger>,
        path: &'static str,
        pause: Duration,
    ) -> Self {
        let connect = Arc::new(move || Client::connect(address));
        Self::through(connect, connections, manner, ledger, path, pause)
    }

    /// The same by connections of another kind.
    pub fn through(
        connect: Arc<dyn Fn() -> std::io::Result<Client> + Send + Sync>,
        connections: usize,
        manner: Manner,
        ledger: &Arc<Ledger>,
        path: &'static str,
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..connections)
            .map(|_| {
                let (stop, ledger) = (Arc::clone(&stop), Arc::clone(ledger));
                let connect = Arc::clone(&connect);
                std::thread::spawn(move || click(&*connect, manner, &stop, &ledger, path, pause))
            })
            .collect();
        Self { stop, threads }
    }

    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn click(
    connect: &(dyn Fn() -> std::io::Result<Client> + Send + Sync),
    manner: Manner,
    stop: &AtomicBool,
    ledger: &Ledger,
    path: &str,
    pause: Duration,
) {
    let mut connection: Option<Client> = None;
    while !stop.load(Relaxed) {
        let client = match &mut connection {
            Some(client) => client,
            None => match connect() {
                Ok(client) => connection.insert(client),
                Err(_) if manner == Manner::UntilBroken => return,
                Err(_) => {
                    ledger.failed.fetch_add(1, Relaxed);
                    continue;
                }
            },
        };
        let id = ledger.next.fetch_add(1, Relaxed);
        let begun = Instant::now();
        match client.get("click.test", &format!("{path}?id={id}")) {
            Ok(answer) if matches!(answer.status, 302 | 307) => {
                ledger.slowest_ms.fetch_max(begun.elapsed().as_millis() as u64, Relaxed);
                ledger.answered.lock().unwrap().push(id);
                let told =
                    answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if told || manner == Manner::Once {
                    connection = None;
                }
            }
            Ok(answer) => panic!("{answer:?}"),
            Err(_) if manner == Manner::UntilBroken => return,
            Err(_) => {
                ledger.failed.fetch_add(1, Relaxed);
                connection = None;
            }
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// How often each click is in a database.
pub type Delivered = HashMap<u64, i64>;

/// Every answered click is in the database exactly once, and nothing is there that was never sent.
pub fn assert_exactly_once(edge: &Edge, ledger: &Ledger) {
    assert_all_once(&delivered(edge), ledger, &edge.log());
}

/// The same of what was read from any database; `log` is shown when it is not so.
pub fn assert_all_once(delivered: &Delivered, ledger: &Ledger, log: &str) {
    let answered = ledger.answered();
    let missing: Vec<_> = answered.iter().filter(|id| !delivered.contains_key(id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} answered clicks are missing: {:?}…\n{log}",
        missing.len(),
        answered.len(),
        &missing[..missing.len().min(10)],
    );
    let doubled: Vec<_> = delivered.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(delivered.keys().all(|id| *id < ledger.sent()), "a click that was never sent");
}

/// How often each click is in the edge's own database.
fn delivered(edge: &Edge) -> Delivered {
    let database = rusqlite::Connection::open(edge.database()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let mut statement =
        database.prepare("select cast(substr(query, 4) as integer), count(*) from hits group by 1").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Waits until all these clicks are delivered; what never is, [`assert_exactly_once`] tells.
///
/// Counting rows is not enough: clicks that were recorded and never answered are delivered, too.
pub fn wait_delivered(edge: &Edge, answered: &[u64]) {
    wait_all(answered, || delivered(edge));
}

/// The same for any database.
pub fn wait_all(answered: &[u64], read: impl Fn() -> Delivered) {
    let deadline = Instant::now() + PATIENCE;
    let all_there = |delivered: Delivered| answered.iter().all(|id| delivered.contains_key(id));
    while !all_there(read()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}
