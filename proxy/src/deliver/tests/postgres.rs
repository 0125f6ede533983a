//! The pump into a real PostgreSQL server.

#![expect(clippy::disallowed_methods, reason = "a relay of the tests has threads of its own")]

use crate::database::tests::cluster::Cluster;
use crate::database::{Access, Migrate, Source, create, open};
use crate::deliver::memory::{Shelf, event};
use crate::deliver::{Alarm, Config, DatabaseSink, Pump, Remembered, Standing, Step, reconcile};
use crate::event::UnixMillis;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_millis(500);

struct Edge {
    cluster: Cluster,
    shelf: Shelf,
    now: UnixMillis,
}

type ServerPump = Pump<Shelf, DatabaseSink>;

impl Edge {
    fn new() -> Self {
        let cluster = Cluster::start();
        drop(create(&cluster.source(), UnixMillis(1)).unwrap());
        let shelf = Shelf::default();
        shelf.open(1);
        Self { cluster, shelf, now: UnixMillis(1_000_000) }
    }

    fn pump(&self) -> ServerPump {
        self.pump_into(self.cluster.source())
    }

    fn pump_into(&self, source: Source) -> ServerPump {
        let sink = DatabaseSink::new(source, TIMEOUT, Migrate::Auto);
        Pump::new(Config::new("postgres"), self.shelf.clone(), sink, Remembered::in_memory(), 1)
    }

    fn append(&self, count: u64) {
        (0..count).for_each(|n| self.shelf.append(event(format!("token-{n}").as_bytes())));
    }

    /// Steps until there is nothing to do.
    fn drain(&mut self, pump: &mut ServerPump) -> Step {
        loop {
            self.now.0 += 1_000;
            let step = pump.step(self.now, true);
            if !matches!(step, Step::Delivered(_)) {
                return step;
            }
        }
    }

    fn settle(&mut self, pump: &mut ServerPump) {
        let step = self.drain(pump);
        assert!(matches!(step, Step::Idle), "{step:?}");
    }

    /// Everything that was appended is there once, the books are balanced.
    fn check(&self, rows: u64, rejected: u64) {
        assert_eq!(self.cluster.sql("SELECT count(*) FROM holdfast.hits"), rows.to_string());
        assert_eq!(self.cluster.sql("SELECT count(*) FROM holdfast.rejected"), rejected.to_string());
        let mut database = open(&self.cluster.source(), Access::ReadOnly, TIMEOUT).unwrap();
        let report = reconcile(&self.shelf, "edge-1", &mut database).unwrap();
        assert!(report.is_balanced(), "{report:?}");
    }
}

#[test]
fn a_poisoned_row_is_found_and_does_not_stop_the_rest() {
    let mut edge = Edge::new();
    edge.cluster.sql("ALTER TABLE holdfast.hits ADD CONSTRAINT polite CHECK (token <> 'token-77')");
    edge.append(500);
    let mut pump = edge.pump();
    edge.settle(&mut pump);
    edge.check(499, 1);
    let reason = edge.cluster.sql("SELECT sequence, reason FROM holdfast.rejected");
    assert!(reason.starts_with("78|") && reason.contains("polite"), "{reason}");
}

#[test]
fn a_server_that_dies_or_goes_back_gets_what_it_misses() {
    let mut edge = Edge::new();
    let mut pump = edge.pump();
    edge.append(100);
    edge.settle(&mut pump);
    edge.cluster.kill();
    edge.append(100);
    assert!(matches!(edge.drain(&mut pump), Step::Failed { .. }));
    edge.cluster.up();
    edge.settle(&mut pump);
    edge.check(200, 0);
    // As after a failover that lost the last commits.
    edge.cluster.sql("DELETE FROM holdfast.hits WHERE sequence > 50; UPDATE holdfast.cursors SET sequence = 50; DELETE FROM holdfast.batches; INSERT INTO holdfast.batches SELECT 1, 1, 50, 50, 0, now()");
    edge.append(10);
    edge.settle(&mut pump);
    edge.check(210, 0);
    assert!(pump.take_alarms().iter().any(|alarm| matches!(alarm, Alarm::Rewound { .. })));
    // Rows that are there although the cursor says otherwise are kept once.
    edge.cluster
        .sql("UPDATE holdfast.cursors SET sequence = 200; DELETE FROM holdfast.batches WHERE last > 200");
    edge.append(10);
    edge.settle(&mut pump);
    edge.check(220, 0);
    assert!(pump.stats().doubled.load(Relaxed) > 0);
}

#[test]
fn a_dump_without_our_books_stops_the_pump() {
    let mut edge = Edge::new();
    let mut pump = edge.pump();
    edge.append(100);
    edge.settle(&mut pump);
    edge.cluster.sql("TRUNCATE holdfast.cursors, holdfast.journals, holdfast.batches");
    edge.append(1);
    let step = edge.drain(&mut pump);
    assert!(matches!(step, Step::Standing { reason: Standing::CursorLost { .. } }), "{step:?}");
    assert_eq!(edge.cluster.sql("SELECT count(*) FROM holdfast.hits"), "100", "nothing is doubled");
}

#[test]
fn two_pumps_are_fenced_by_the_cursor() {
    let mut edge = Edge::new();
    let (mut one, mut two) = (edge.pump(), edge.pump());
    for _ in 0..10 {
        edge.append(3);
        let _ = one.step(edge.now, true);
        edge.append(3);
        let _ = two.step(edge.now, true);
    }
    edge.settle(&mut one);
    edge.check(60, 0);
    assert!(one.stats().moved.load(Relaxed) > 0 && two.stats().moved.load(Relaxed) > 0);
}

/// The server commits, and its word of it is lost on the way (D2).
#[test]
fn a_commit_whose_answer_is_lost_is_settled_by_the_cursor() {
    let mut edge = Edge::new();
    let relay = Relay::to(edge.cluster.port());
    let mut pump = edge.pump_into(edge.cluster.source_at(relay.port));
    edge.append(10);
    edge.settle(&mut pump);
    edge.append(10);
    relay.swallow.store(true, Relaxed);
    let step = edge.drain(&mut pump);
    assert!(matches!(step, Step::Failed { .. }), "{step:?}");
    assert!(!relay.swallow.load(Relaxed), "an answer was swallowed");
    assert_eq!(edge.cluster.sql("SELECT count(*) FROM holdfast.hits"), "20", "it was committed");
    edge.append(1);
    edge.settle(&mut pump);
    edge.check(21, 0);
    assert_eq!(pump.stats().doubled.load(Relaxed), 0);
}

/// What the server gives up for the sake of others is tried again (D10).
#[test]
fn a_serialization_failure_and_a_deadlock_are_tried_again() {
    let mut edge = Edge::new();
    let mut pump = edge.pump();
    for (turn, state) in [(1, "40001"), (2, "40P01")] {
        edge.cluster.sql(&format!(
            "CREATE OR REPLACE FUNCTION unlucky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE 'unlucky' USING ERRCODE = '{state}'; END $$;
             CREATE TRIGGER unlucky BEFORE INSERT ON holdfast.hits FOR EACH STATEMENT EXECUTE FUNCTION unlucky()"
        ));
        edge.append(10);
        let step = edge.drain(&mut pump);
        assert!(matches!(step, Step::Failed { .. }), "{state}: {step:?}");
        edge.cluster.sql("DROP TRIGGER unlucky ON holdfast.hits");
        edge.settle(&mut pump);
        edge.check(turn * 10, 0);
    }
}

/// A way to the server on which the answer to a COMMIT can get lost, with the connection.
struct Relay {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&swallow);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, swallow) = (client.unwrap(), Arc::clone(&shared));
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                std::thread::spawn(move || relay(client, server, &swallow));
            }
        });
        Self { port, swallow }
    }
}

/// Bytes go to and fro until a COMMIT's answer is to be lost.
fn relay(mut client: TcpStream, mut server: TcpStream, swallow: &AtomicBool) {
    let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || io::copy(&mut back.0, &mut back.1));
    let mut chunk = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = client.read(&mut chunk) {
        let said = &chunk[..length];
        let commits = said.windows(6).any(|word| word == b"COMMIT");
        if commits && swallow.swap(false, Relaxed) {
            // The server gets it, and whoever asked does not hear of it.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.write_all(said);
            return;
        }
        if server.write_all(said).is_err() {
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}
