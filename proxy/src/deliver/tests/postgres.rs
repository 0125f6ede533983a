//! The pump into a real PostgreSQL server.

use crate::database::tests::cluster::Cluster;
use crate::database::{Access, Migrate, create, open};
use crate::deliver::memory::{Shelf, event};
use crate::deliver::{Alarm, Config, DatabaseSink, Pump, Remembered, Standing, Step, reconcile};
use crate::event::UnixMillis;
use std::sync::atomic::Ordering::Relaxed;
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
        let sink = DatabaseSink::new(self.cluster.source(), TIMEOUT, Migrate::Auto);
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
