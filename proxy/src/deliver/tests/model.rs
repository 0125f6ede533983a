//! The pump against journals and a database in memory: every loss, from printed seeds (D1).

use crate::deliver::memory::{Faults, MemorySink, POISON, Random, Shelf, event};
use crate::deliver::{
    AdoptError, AdoptFrom, Alarm, BATCH_ROWS_MIN, Config, Pump, Remembered, Standing, Step,
};
use crate::event::UnixMillis;
use crate::journal::{JournalId, Sequence};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

type ModelPump = Pump<Shelf, MemorySink>;

fn pump(shelf: &Shelf, sink: &MemorySink, remembered: Remembered, seed: u64) -> ModelPump {
    let mut config = Config::new("memory");
    config.batch_rows = 7;
    config.batch_bytes = 1 << 20;
    Pump::new(config, shelf.clone(), sink.clone(), remembered, seed)
}

/// Steps until there is nothing to do; the faults must be over.
fn drain(pump: &mut ModelPump, now: &mut UnixMillis) -> Step {
    for _ in 0..10_000 {
        now.0 += 1_000;
        match pump.step(*now, true) {
            Step::Delivered(_) => {}
            step @ (Step::Failed { .. } | Step::Idle | Step::Standing { .. }) => return step,
            step => panic!("{step:?}"),
        }
    }
    panic!("the pump does not come to rest");
}

/// Steps until the sink has everything.
fn settle(pump: &mut ModelPump, now: &mut UnixMillis) {
    let step = drain(pump, now);
    assert!(matches!(step, Step::Idle), "{step:?}");
}

struct Model {
    seed: u64,
    random: Random,
    shelf: Shelf,
    sink: MemorySink,
    pumps: Vec<ModelPump>,
    snapshots: Vec<crate::deliver::memory::Content>,
    now: UnixMillis,
    opened: u8,
    cursors_were_lost: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let (shelf, sink) = (Shelf::default(), MemorySink::new(random.next()));
        shelf.open(1);
        let pumps = vec![pump(&shelf, &sink, Remembered::in_memory(), seed)];
        {
            let mut world = sink.0.borrow_mut();
            world.finds_refused = random.one_in(2);
            let often = [0, 3, 10, 40];
            let mut pick = || often[random.below(4) as usize];
            world.faults = Faults { before_commit: pick(), after_commit: pick(), reading: pick() };
        }
        let now = UnixMillis(1_000_000);
        Self {
            seed,
            random,
            shelf,
            sink,
            pumps,
            snapshots: Vec::new(),
            now,
            opened: 1,
            cursors_were_lost: false,
        }
    }

    fn act(&mut self) {
        self.now.0 = self.now.0.wrapping_add_signed(self.random.below(4_000) as i64 - 500);
        match self.random.below(40) {
            0..12 => self.append(),
            12..30 => {
                let which = self.random.below(self.pumps.len() as u64) as usize;
                let allowed = !self.random.one_in(20);
                let _ = self.pumps[which].step(self.now, allowed);
            }
            30..32 => self.restart(),
            32 => {
                // A second process with the same journals, as in a rolling restart gone wrong.
                self.pumps.truncate(1);
                self.pumps.push(pump(&self.shelf, &self.sink, Remembered::in_memory(), self.seed ^ 1));
            }
            33 | 34 => {
                let content = self.sink.0.borrow().content.clone();
                self.snapshots.push(content);
            }
            35 => {
                if !self.snapshots.is_empty() {
                    let which = self.random.below(self.snapshots.len() as u64) as usize;
                    self.sink.0.borrow_mut().content = self.snapshots[which].clone();
                }
            }
            36 => self.damage(),
            37 if self.random.one_in(2) => drop(self.pumps[0].adopt(AdoptFrom::Oldest, None)),
            37 => self.prune(),
            38 => {
                let mut logs = self.shelf.0.borrow_mut();
                let which = self.random.below(logs.len() as u64) as usize;
                logs[which].unreadable ^= true;
            }
            _ => self.lose_a_cursor(),
        }
    }

    fn append(&mut self) {
        for _ in 0..=self.random.below(9) {
            let number = self.random.next();
            self.shelf.append(match self.random.below(25) {
                0 => event(POISON),
                1 => b"no event".to_vec(),
                _ => event(&number.to_le_bytes()),
            });
        }
    }

    /// What was not yet durable is gone; a new journal is opened.
    fn restart(&mut self) {
        let last = self.pumps.swap_remove(0);
        self.opened += 1;
        self.shelf.open(self.opened);
        self.pumps = vec![pump(&self.shelf, &self.sink, last.remembered, self.seed)];
    }

    fn damage(&mut self) {
        let mut logs = self.shelf.0.borrow_mut();
        let which = self.random.below(logs.len() as u64) as usize;
        let log = &mut logs[which];
        // Only what nobody has read: damage to what was delivered is no loss.
        let least = log.delivered.max(self.sink.of(log.id).cursor.unwrap_or(0));
        for sequence in least + 1..=log.synced {
            log.damaged[sequence as usize - 1] |= self.random.one_in(10);
        }
    }

    fn prune(&mut self) {
        let mut logs = self.shelf.0.borrow_mut();
        let which = self.random.below(logs.len() as u64) as usize;
        let log = &mut logs[which];
        let through = log.delivered.min(self.sink.of(log.id).cursor.unwrap_or(0));
        log.first = log.first.max(self.random.below(through + 1) + 1);
    }

    fn lose_a_cursor(&mut self) {
        if !self.seed.is_multiple_of(4) {
            return;
        }
        let mut world = self.sink.0.borrow_mut();
        for there in world.content.journals.values_mut() {
            if self.random.one_in(2) {
                there.cursor = None;
                self.cursors_were_lost = true;
            }
        }
    }

    /// All faults end, everybody acts as told, and nothing may be lost or doubled.
    fn settle_and_check(mut self) {
        let seed = self.seed;
        self.sink.0.borrow_mut().faults = Faults::default();
        self.shelf.0.borrow_mut().iter_mut().for_each(|log| log.unreadable = false);
        self.pumps.truncate(1);
        self.now.0 += 100_000;
        let pump = &mut self.pumps[0];
        for _ in 0..3 {
            match drain(pump, &mut self.now) {
                Step::Idle => break,
                Step::Standing { .. } => drop(pump.adopt(AdoptFrom::Oldest, None)),
                step => panic!("seed {seed}: {step:?}"),
            }
        }
        for log in &*self.shelf.0.borrow() {
            let there = self.sink.of(log.id);
            for (index, payload) in log.records.iter().enumerate() {
                let sequence = index as u64 + 1;
                let found = [&there.rows, &there.rejected].map(|table| table.get(&sequence) == Some(payload));
                let is_gone = sequence < log.first || log.damaged[index];
                let is_bad = *payload == event(POISON) || payload == b"no event";
                match found {
                    [true, false] => assert!(!is_bad, "seed {seed}: {sequence} of {} is bad", log.id),
                    [false, true] => assert!(is_bad, "seed {seed}: {sequence} of {} is rejected", log.id),
                    [false, false] => assert!(is_gone, "seed {seed}: {sequence} of {} is lost", log.id),
                    [true, true] => panic!("seed {seed}: {sequence} of {} is doubled", log.id),
                }
            }
            let known = log.records.len();
            assert!(
                there.rows.keys().chain(there.rejected.keys()).all(|&s| s <= known as u64),
                "seed {seed}"
            );
        }
        if !self.cursors_were_lost {
            assert_eq!(self.sink.0.borrow().doubled, 0, "seed {seed}: a row was inserted twice");
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a failing seed must be seen")]
fn every_hit_is_delivered_exactly_once_whatever_is_lost() {
    let seeds = match std::env::var("HOLDFAST_TEST_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).unwrap(),
        Err(_) => {
            let factor = std::env::var("HOLDFAST_SOAK").map_or(1, |factor| factor.parse().unwrap());
            0..7_000 * factor
        }
    };
    println!("seeds {seeds:?}; HOLDFAST_TEST_SEED=n runs one");
    let mut commits = 0;
    for seed in seeds {
        let mut model = Model::new(seed);
        for _ in 0..120 {
            model.act();
        }
        commits += model.sink.0.borrow().commits;
        model.settle_and_check();
    }
    println!("{commits} transactions before settling");
}

fn world() -> (Shelf, MemorySink, ModelPump, JournalId) {
    let (shelf, sink) = (Shelf::default(), MemorySink::new(1));
    let journal = shelf.open(1);
    let pump = pump(&shelf, &sink, Remembered::in_memory(), 1);
    (shelf, sink, pump, journal)
}

fn append(shelf: &Shelf, count: u64) {
    (0..count).for_each(|n| shelf.append(event(format!("token-{n}").as_bytes())));
}

#[test]
fn a_lost_acknowledgement_is_settled_by_the_cursor() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 5);
    sink.0.borrow_mut().faults.after_commit = 1;
    assert!(matches!(pump.step(UnixMillis(1), true), Step::Failed { .. }));
    sink.0.borrow_mut().faults.after_commit = 0;
    assert!(matches!(pump.step(UnixMillis(2), true), Step::Idle));
    assert_eq!((sink.of(journal).rows.len(), sink.0.borrow().commits), (5, 1));
}

#[test]
fn a_cursor_that_went_back_is_delivered_from_again() {
    let (shelf, sink, mut pump, journal) = world();
    let mut now = UnixMillis(1);
    append(&shelf, 5);
    settle(&mut pump, &mut now);
    let backup = sink.0.borrow().content.clone();
    append(&shelf, 5);
    settle(&mut pump, &mut now);
    sink.0.borrow_mut().content = backup;
    append(&shelf, 1);
    settle(&mut pump, &mut now);
    assert_eq!(sink.of(journal).rows.len(), 11);
    let rewound = Alarm::Rewound { journal, from: Some(Sequence(10)), to: Sequence(5) };
    assert!(pump.take_alarms().contains(&rewound));
}

#[test]
fn a_database_that_went_back_is_noticed_without_a_new_hit() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 5);
    settle(&mut pump, &mut UnixMillis(1));
    sink.0.borrow_mut().content = crate::deliver::memory::Content::default();
    settle(&mut pump, &mut UnixMillis(60_000));
    assert_eq!(sink.of(journal).rows.len(), 5);
}

#[test]
fn a_cursor_ahead_stops_its_journal_and_no_other() {
    let (shelf, sink, mut pump, first) = world();
    let mut now = UnixMillis(1);
    append(&shelf, 5);
    settle(&mut pump, &mut now);
    // The disk is an older image of itself.
    shelf.with(first, |log| {
        log.records.truncate(3);
        log.synced = 3;
    });
    let second = shelf.open(2);
    append(&shelf, 4);
    now.0 += 60_000;
    let Step::Standing { reason } = drain(&mut pump, &mut now) else { panic!("it must stand") };
    assert_eq!(reason, Standing::CursorAhead { journal: first, cursor: Sequence(5), end: Sequence(3) });
    assert_eq!(sink.of(second).rows.len(), 4);
    assert_eq!(pump.take_alarms(), [Alarm::Standing(reason)]);
    assert_eq!(pump.adopt(AdoptFrom::Now, Some(first)), Ok(vec![(first, Sequence(3))]));
    assert!(matches!(drain(&mut pump, &mut now), Step::Idle));
    assert_eq!(sink.of(first).cursor, Some(3));
}

#[test]
fn a_lost_cursor_waits_for_a_decision() {
    for (from, doubled) in
        [(AdoptFrom::Oldest, 9), (AdoptFrom::Sequence(Sequence(8)), 2), (AdoptFrom::Now, 0)]
    {
        let (shelf, sink, mut pump, journal) = world();
        let mut now = UnixMillis(1);
        append(&shelf, 9);
        settle(&mut pump, &mut now);
        assert_eq!(pump.adopt(from, None), Err(AdoptError::NothingStands));
        sink.0.borrow_mut().content.journals.get_mut(journal.as_bytes()).unwrap().cursor = None;
        now.0 += 60_000;
        assert!(matches!(drain(&mut pump, &mut now), Step::Standing { reason: Standing::CursorLost { .. } }));
        let beyond = AdoptFrom::Sequence(Sequence(11));
        assert!(matches!(pump.adopt(beyond, None), Err(AdoptError::OutOfRange { .. })));
        pump.adopt(from, None).unwrap();
        append(&shelf, 1);
        assert!(matches!(drain(&mut pump, &mut now), Step::Idle));
        let there = sink.of(journal);
        assert_eq!((there.rows.len(), there.cursor), (10, Some(10)), "{from:?}");
        assert_eq!(pump.stats().skipped.load(Relaxed), doubled, "{from:?}");
        assert_eq!(sink.0.borrow().doubled, 0);
    }
}

#[test]
fn a_decision_survives_a_failure_before_it_was_written() {
    let (shelf, sink, mut pump, journal) = world();
    let mut now = UnixMillis(1);
    append(&shelf, 3);
    settle(&mut pump, &mut now);
    sink.0.borrow_mut().content.journals.get_mut(journal.as_bytes()).unwrap().cursor = None;
    now.0 += 60_000;
    assert!(matches!(drain(&mut pump, &mut now), Step::Standing { .. }));
    pump.adopt(AdoptFrom::Now, None).unwrap();
    sink.0.borrow_mut().faults.before_commit = 1;
    assert!(matches!(pump.step(now, true), Step::Failed { .. }));
    sink.0.borrow_mut().faults.before_commit = 0;
    assert!(matches!(drain(&mut pump, &mut now), Step::Idle));
    assert_eq!(sink.of(journal).cursor, Some(3));
}

#[test]
fn what_expired_or_is_damaged_is_told_exactly() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 10);
    shelf.with(journal, |log| {
        log.first = 4;
        log.damaged[6] = true;
        log.damaged[9] = true;
    });
    settle(&mut pump, &mut UnixMillis(1));
    let there = sink.of(journal);
    assert_eq!(there.rows.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 8, 9]);
    assert_eq!(there.cursor, Some(10));
    let range = |first, last| (Sequence(first), Sequence(last));
    let gap = |(first, last)| Alarm::Gap { journal, first, last };
    let ((first, last), one, two) = (range(1, 3), range(7, 7), range(10, 10));
    assert_eq!(pump.take_alarms(), [Alarm::Expired { journal, first, last }, gap(one), gap(two)]);
    assert_eq!(pump.stats().missing.load(Relaxed), 5);
}

#[test]
fn rows_above_the_cursor_alarm_and_stay() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 6);
    let stray = event(b"stray");
    let there = crate::deliver::memory::Shelved {
        cursor: Some(1),
        rows: [(1, stray.clone()), (3, stray.clone())].into(),
        ..Default::default()
    };
    sink.0.borrow_mut().content.journals.insert(*journal.as_bytes(), there);
    settle(&mut pump, &mut UnixMillis(1));
    let there = sink.of(journal);
    assert_eq!((there.rows.len(), &there.rows[&3]), (6, &stray));
    let (first, last) = (Sequence(2), Sequence(6));
    assert_eq!(pump.take_alarms(), [Alarm::Doubled { journal, first, last, rows: 1 }]);
}

#[test]
fn an_unreadable_journal_holds_up_no_other() {
    let (shelf, sink, mut pump, first) = world();
    let mut now = UnixMillis(1);
    append(&shelf, 2);
    shelf.with(first, |log| log.unreadable = true);
    let second = shelf.open(2);
    append(&shelf, 2);
    assert!(matches!(drain(&mut pump, &mut now), Step::Standing { reason: Standing::Unreadable { .. } }));
    assert_eq!(sink.of(second).rows.len(), 2);
    shelf.with(first, |log| log.unreadable = false);
    now.0 += 60_000;
    assert!(matches!(drain(&mut pump, &mut now), Step::Idle));
    assert_eq!(sink.of(first).rows.len(), 2);
}

#[test]
fn a_window_lets_the_sink_go() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 2);
    assert!(matches!(pump.step(UnixMillis(1), false), Step::Released));
    assert_eq!(sink.of(journal).rows.len(), 0);
    assert!(matches!(pump.step(UnixMillis(2), true), Step::Delivered(_)));
}

/// What takes too long takes as long the next time: a batch gets smaller, and grows again.
#[test]
fn after_a_failure_batches_are_smaller() {
    let (shelf, sink, mut pump, _journal) = world();
    pump.config.batch_rows = 5_000;
    append(&shelf, 10_000);
    sink.0.borrow_mut().faults.before_commit = 1;
    let mut now = UnixMillis(1);
    for _ in 0..20 {
        assert!(matches!(pump.step(now, true), Step::Failed { .. }));
        now = now.after(Duration::from_secs(60));
    }
    sink.0.borrow_mut().faults.before_commit = 0;
    let mut sizes = Vec::new();
    while let Step::Delivered(delivered) = pump.step(now, true) {
        sizes.push(delivered.rows);
        now = now.after(Duration::from_secs(60));
    }
    let grown = (0..).map(|n| (BATCH_ROWS_MIN as u64) << n);
    let expected: Vec<_> = grown.take_while(|&size| size <= 4096).collect();
    assert_eq!(sizes[..expected.len()], expected, "{sizes:?}");
    assert_eq!(sizes.iter().sum::<u64>(), 10_000);
}

#[test]
fn too_many_rejects_alarm_once() {
    let (shelf, _sink, mut pump, _journal) = world();
    append(&shelf, 150);
    (0..20).for_each(|_| shelf.append(event(POISON)));
    append(&shelf, 50);
    settle(&mut pump, &mut UnixMillis(1));
    let alarms = pump.take_alarms();
    assert!(matches!(alarms.as_slice(), [Alarm::RejectRate { .. }]), "{alarms:?}");
    assert_eq!(pump.stats().rejected.load(Relaxed), 20);
}

#[test]
fn a_sink_that_lost_rows_is_noticed() {
    let (shelf, sink, mut pump, journal) = world();
    append(&shelf, 5);
    assert!(matches!(pump.step(UnixMillis(1), true), Step::Delivered(_)));
    sink.0.borrow_mut().content.journals.get_mut(journal.as_bytes()).unwrap().rows.remove(&2);
    assert!(matches!(pump.step(UnixMillis(2), true), Step::Idle));
    assert!(matches!(pump.take_alarms().as_slice(), [Alarm::Miscounted { rows: 5, .. }]));
}

#[test]
fn the_rate_is_kept_and_a_clock_set_back_does_not_stop_it() {
    let (shelf, _sink, mut pump, _journal) = world();
    pump.config.rows_per_second_max = 7;
    append(&shelf, 30);
    let t = 1_000_000;
    assert!(matches!(pump.step(UnixMillis(t), true), Step::Delivered(_)));
    let Step::Paced { wait } = pump.step(UnixMillis(t + 200), true) else { panic!("it must wait") };
    assert_eq!(wait, Duration::from_millis(800));
    assert!(matches!(pump.step(UnixMillis(t + 1_000), true), Step::Delivered(_)));
    assert!(matches!(pump.step(UnixMillis(5), true), Step::Delivered(_)));
}

#[test]
fn lag_is_the_age_of_the_oldest_pending_hit() {
    let (shelf, _sink, mut pump, _journal) = world();
    append(&shelf, 20);
    assert_eq!(pump.status(UnixMillis(50_000)).pending, 20);
    let _ = pump.step(UnixMillis(50_000), true);
    let status = pump.status(UnixMillis(50_000));
    assert_eq!((status.pending, status.lag), (13, Duration::from_millis(50_000 - 7)));
    settle(&mut pump, &mut UnixMillis(50_000));
    assert_eq!(pump.status(UnixMillis(90_000)).lag, Duration::ZERO);
}
