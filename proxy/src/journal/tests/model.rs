//! Lives of a journal on a simulated disk, from printed seeds, against what was promised.
//!
//! The oracle: a record acknowledged as synced is read back exactly once, byte for byte, under the
//! sequence under which it was ever read before; nothing is read that was not staged; sequences have
//! no gap but expired ones; recovery reports no loss, for this disk does not damage what was synced.
//!
//! `HOLDFAST_SEED=n` replays one seed, `HOLDFAST_SEEDS=n` sets how many are run, `HOLDFAST_SOAK` multiplies
//! them otherwise.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::event::UnixMillis;
use crate::journal::sim::{End, Faults, Random, SimDisk};
use crate::journal::status::State;
use crate::journal::writer::{Moment, Step, Writer};
use crate::journal::{
    Cause, Config, Journal, JournalId, Mill, Mode, Reader, Records, Sequence, Stager, Tag, Tended, open_parts,
};

const SEEDS: u64 = 10_000;

#[test]
fn nothing_promised_is_lost_whatever_the_disk_does() {
    if let Some(seed) = number_from("HOLDFAST_SEED") {
        Model::new(seed).run();
        return;
    }
    let factor = number_from("HOLDFAST_SOAK").unwrap_or(1);
    let seeds = number_from("HOLDFAST_SEEDS").unwrap_or(SEEDS * factor);
    let next = AtomicU64::new(0);
    let covered = Covered::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| Model::new(seed).run()));
                    match outcome {
                        Ok(seen) => covered.add(&seen),
                        Err(_) => panic!("seed {seed} failed; replay it with HOLDFAST_SEED={seed}"),
                    }
                }
            });
        }
    });
    covered.check(seeds);
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What the runs met: a model that never meets a failure proves nothing.
#[derive(Default)]
struct Covered {
    crashes: AtomicU64,
    reappended: AtomicU64,
    healed: AtomicU64,
    torn: AtomicU64,
    duplicates: AtomicU64,
    sealed: AtomicU64,
    expired: AtomicU64,
    promised: AtomicU64,
}

#[derive(Default)]
struct Seen {
    crashes: u64,
    reappended: u64,
    healed: u64,
    torn: u64,
    duplicates: u64,
    sealed: u64,
    expired: u64,
    promised: u64,
}

impl Covered {
    fn add(&self, seen: &Seen) {
        for (sum, more) in self.pairs().into_iter().zip(seen.values()) {
            sum.1.fetch_add(more, Relaxed);
        }
    }

    fn pairs(&self) -> [(&'static str, &AtomicU64); 8] {
        [
            ("crashes", &self.crashes),
            ("reappended", &self.reappended),
            ("healed", &self.healed),
            ("torn", &self.torn),
            ("duplicates", &self.duplicates),
            ("sealed", &self.sealed),
            ("expired", &self.expired),
            ("promised", &self.promised),
        ]
    }

    fn check(&self, seeds: u64) {
        for (name, sum) in self.pairs() {
            let sum = sum.load(Relaxed);
            assert!(seeds < 1000 || sum >= seeds / 100, "the seeds met {name} only {sum} times");
        }
    }
}

impl Seen {
    fn values(&self) -> [u64; 8] {
        [
            self.crashes,
            self.reappended,
            self.healed,
            self.torn,
            self.duplicates,
            self.sealed,
            self.expired,
            self.promised,
        ]
    }
}

/// What is known of every record ever staged.
#[derive(Default)]
struct Ledger {
    payloads: HashMap<u64, Vec<u8>>,
    promised: HashSet<u64>,
    places: HashMap<u64, (JournalId, u64)>,
    delivered: HashMap<JournalId, u64>,
}

impl Ledger {
    /// A record was read: it must be one that was staged, and where it was before.
    fn read(&mut self, id: JournalId, sequence: u64, payload: &[u8]) {
        let key = u64::from_le_bytes(payload[..8].try_into().unwrap());
        assert_eq!(self.payloads.get(&key).map(Vec::as_slice), Some(payload), "record {key} was altered");
        let place = *self.places.entry(key).or_insert((id, sequence));
        assert_eq!(place, (id, sequence), "record {key} was read under another sequence");
    }
}

struct Model {
    disk: SimDisk,
    random: Random,
    config: Config,
    ledger: Ledger,
    next_key: u64,
    next_id: u64,
    now: u64,
    seen: Seen,
}

/// One stager with what it staged and has not seen acknowledged.
struct Thread {
    stager: Stager,
    waiting: Vec<(u64, u64)>,
    written: HashSet<u64>,
}

struct Life {
    id: JournalId,
    journal: Journal,
    writer: Writer,
    mill: Mill,
    threads: Vec<Thread>,
    readers: HashMap<JournalId, Reader>,
    /// Syncs could fail: then the page cache is no proof, and `written` is none either.
    syncs_failed: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut config = Config::new(PathBuf::from("/journal"));
        config.mode = if random.once_in(2) { Mode::Power } else { Mode::Process };
        config.block_bytes = 512;
        config.record_bytes_max = 160;
        config.segment_bytes = 1536 + random.below(6) * 512 + random.below(2) * 100;
        config.spare_segments = u32::try_from(random.below(3)).unwrap();
        config.staged_bytes_max = 600;
        config.unsynced_bytes_max = 2400;
        config.retain = Duration::from_millis(random.below(3) * 400);
        config.sync_every = Duration::from_millis(20);
        config.bytes_max = if random.once_in(4) { 8_000 + random.below(20_000) } else { u64::MAX };
        let disk = SimDisk::new(seed);
        Self {
            disk,
            random,
            config,
            ledger: Ledger::default(),
            next_key: 1,
            next_id: 1,
            now: 1_000_000,
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> Seen {
        for _ in 0..1 + self.random.below(4) {
            let end = if self.random.once_in(3) { End::Kill } else { End::PowerCut };
            let written = self.live(end);
            self.disk.set_faults(Faults::default());
            self.disk.restart(end);
            // What was written survives a kill; a power cut only once recovery has synced it.
            if !written.is_empty() {
                let mut life = self.open().expect("a whole disk opens");
                self.recover_all(&mut life);
                self.ledger.promised.extend(written);
            }
        }
        self.judge();
        self.seen.promised = self.ledger.promised.len() as u64;
        self.seen
    }

    fn open(&mut self) -> Option<Life> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_id.to_be_bytes());
        let id = JournalId::from_bytes(bytes);
        self.next_id += 1;
        let disk = Arc::new(self.disk.clone());
        let now = UnixMillis(self.now);
        let (shared, writer) = open_parts(self.config.clone(), disk, id, "edge", now).ok()?;
        let journal = Journal { shared: Arc::clone(&shared) };
        journal.declare_sinks(&["sink".to_owned()]);
        let threads = (0..1 + self.random.below(3)).map(|_| Thread {
            stager: journal.stager(Arc::new(|| {})),
            waiting: Vec::new(),
            written: HashSet::new(),
        });
        let threads = threads.collect();
        let mill = Mill::new(shared, now);
        Some(Life { id, journal, writer, mill, threads, readers: HashMap::new(), syncs_failed: false })
    }

    /// One process from its start to its end; gives what it may count as written.
    fn live(&mut self, end: End) -> HashSet<u64> {
        if self.random.once_in(6) {
            self.disk.crash_after(1 + self.random.below(12));
        }
        let Some(mut life) = self.open() else { return HashSet::new() };
        for _ in 0..20 + self.random.below(120) {
            self.act(&mut life);
            if self.disk.crashed() {
                self.seen.crashes += 1;
                break;
            }
        }
        let orderly = !self.disk.crashed() && self.random.once_in(3);
        if orderly {
            life.journal.stop();
            life.writer.finish(self.moment());
        }
        self.note_acknowledged(&mut life);
        self.seen.reappended += life.journal.stats().reappended.load(Relaxed);
        if end == End::PowerCut || life.syncs_failed {
            return HashSet::new();
        }
        life.threads.iter().flat_map(|thread| thread.written.iter().copied()).collect()
    }

    fn act(&mut self, life: &mut Life) {
        self.now += self.random.below(8);
        match self.random.below(16) {
            0..5 => self.stage(life),
            5..9 => {
                if self.random.once_in(2) {
                    life.threads.iter_mut().for_each(|thread| thread.stager.flush());
                }
                let before = life.journal.status().state;
                let step = life.writer.step(self.moment());
                let healed = before != State::Up && life.journal.status().state == State::Up;
                self.seen.healed += u64::from(healed);
                if let Step::Rest(Some(rest)) = step {
                    self.now += u64::try_from(rest.as_millis()).unwrap().min(self.random.below(200));
                }
            }
            9..11 => {
                let tended = life.mill.tend(UnixMillis(self.now));
                self.note_tended(&tended);
            }
            11..13 => self.read(life),
            13 => self.note_acknowledged(life),
            14 => {
                let faults = self.faults();
                life.syncs_failed |= faults.sync != 0;
                self.disk.set_faults(faults);
            }
            _ => {
                if self.random.once_in(3) {
                    self.disk.crash_after(1 + self.random.below(30));
                }
            }
        }
    }

    fn faults(&mut self) -> Faults {
        if self.random.once_in(2) {
            return Faults::default();
        }
        let often = |random: &mut Random| if random.once_in(3) { 1 + random.below(12) } else { 0 };
        Faults {
            write: often(&mut self.random),
            sync: often(&mut self.random),
            folder: often(&mut self.random),
            space: self.random.once_in(4).then(|| self.random.below(30_000)),
        }
    }

    fn moment(&self) -> Moment {
        Moment { monotonic: Duration::from_millis(self.now), wall: UnixMillis(self.now) }
    }

    fn stage(&mut self, life: &mut Life) {
        let count = life.threads.len() as u64;
        let at = usize::try_from(self.random.below(count)).unwrap();
        let thread = &mut life.threads[at];
        for _ in 0..1 + self.random.below(4) {
            let key = self.next_key;
            self.next_key += 1;
            let mut payload = key.to_le_bytes().to_vec();
            let more = self.random.below(150);
            // Runs of one byte, zeros among them: what damage and holes look like.
            let byte = self.random.bits().to_le_bytes()[0];
            payload.extend((0..more).map(|n| if byte < 80 { 0 } else { byte.wrapping_mul(n as u8 | 1) }));
            let tag = Tag(u32::try_from(self.random.below(3)).unwrap());
            let staged =
                thread.stager.stage(UnixMillis(self.now), tag, |out| out.extend_from_slice(&payload));
            if let Ok(batch) = staged {
                thread.waiting.push((batch.0, key));
                self.ledger.payloads.insert(key, payload);
            }
        }
        if self.random.once_in(2) {
            thread.stager.flush();
        }
    }

    fn note_acknowledged(&mut self, life: &mut Life) {
        for thread in &mut life.threads {
            let acknowledged = thread.stager.acknowledged();
            for &(batch, key) in &thread.waiting {
                if batch <= acknowledged.written.0 {
                    thread.written.insert(key);
                }
                if batch <= acknowledged.synced.0 {
                    self.ledger.promised.insert(key);
                }
            }
            thread.waiting.retain(|&(batch, _)| batch > acknowledged.synced.0);
        }
    }

    fn note_tended(&mut self, tended: &Tended) {
        self.seen.sealed += tended.sealed;
        self.seen.expired += tended.expired;
        for (id, report) in &tended.recovered {
            assert!(report.is_sound(), "journal {id}: {report:?}");
            self.seen.torn += u64::from(report.torn_bytes > 0);
            self.seen.duplicates += report.duplicates;
        }
    }

    /// Reads a little of one journal, and sometimes says that it is delivered.
    fn read(&mut self, life: &mut Life) {
        let journals = life.journal.journals();
        let at = usize::try_from(self.random.below(journals.len() as u64)).unwrap();
        let id = journals[at].id;
        let after = Sequence(self.ledger.delivered.get(&id).copied().unwrap_or(0));
        let mut reader = match life.readers.remove(&id) {
            Some(reader) => reader,
            None => life.journal.reader(id, after).unwrap(),
        };
        let mut records = Records::default();
        let most = 1 + usize::try_from(self.random.below(8)).unwrap();
        let mut expected = reader.position().0 + 1;
        let filled = reader.fill(most, 400, &mut records);
        self.check_records(id, &mut expected, &records);
        if filled.is_ok() {
            assert_eq!(expected, reader.position().0 + 1);
            if self.random.once_in(2) {
                life.journal.delivered(id, "sink", reader.position(), UnixMillis(self.now));
                let delivered = self.ledger.delivered.entry(id).or_default();
                *delivered = (*delivered).max(reader.position().0);
            }
            life.readers.insert(id, reader);
        }
    }

    /// Records and gaps together cover every sequence once.
    fn check_records(&mut self, id: JournalId, expected: &mut u64, records: &Records) {
        let mut gaps = records.gaps().iter().peekable();
        let delivered = self.ledger.delivered.get(&id).copied().unwrap_or(0);
        let mut pass = |expected: &mut u64| {
            while let Some(gap) = gaps.next_if(|gap| gap.first.0 == *expected) {
                let allowed = gap.cause == Cause::Expired && gap.last.0 <= delivered;
                assert!(allowed, "journal {id}, delivered {delivered}: {gap:?}");
                *expected = gap.last.0 + 1;
            }
        };
        for (sequence, _, payload) in records.iter() {
            pass(expected);
            assert_eq!(sequence.0, *expected, "journal {id}");
            self.ledger.read(id, sequence.0, payload);
            *expected += 1;
        }
        pass(expected);
        assert!(gaps.next().is_none(), "gaps out of order");
    }

    /// The last life: recovery with crashes in its midst, then everything is read and compared.
    fn judge(&mut self) {
        for _ in 0..self.random.below(4) {
            self.disk.crash_after(1 + self.random.below(25));
            if let Some(mut life) = self.open() {
                for _ in 0..6 {
                    let tended = life.mill.tend(UnixMillis(self.now));
                    if !self.disk.crashed() {
                        self.note_tended(&tended);
                    }
                }
            }
            let end = if self.random.once_in(2) { End::Kill } else { End::PowerCut };
            self.disk.restart(end);
        }
        self.config.bytes_max = u64::MAX;
        let mut life = self.open().expect("a whole disk opens");
        self.recover_all(&mut life);
        self.stage(&mut life);
        life.threads.iter_mut().for_each(|thread| thread.stager.flush());
        life.journal.stop();
        life.writer.finish(self.moment());
        assert_eq!(life.journal.status().state, State::Up);
        self.note_acknowledged(&mut life);
        assert!(life.threads.iter().all(|thread| thread.waiting.is_empty()), "a whole disk acknowledges");
        let mut present = HashSet::new();
        for journal in life.journal.journals() {
            let mut reader = life.journal.reader(journal.id, Sequence(0)).unwrap();
            let mut expected = 1;
            let mut records = Records::default();
            loop {
                let most = 1 + usize::try_from(self.random.below(50)).unwrap();
                let filled = reader.fill(most, 4000, &mut records).unwrap();
                self.check_records(journal.id, &mut expected, &records);
                for (_, _, payload) in records.iter() {
                    let key = u64::from_le_bytes(payload[..8].try_into().unwrap());
                    assert!(present.insert(key), "record {key} was read twice");
                }
                if filled.caught_up {
                    break;
                }
            }
            assert_eq!(expected, journal.end.0 + 1);
            assert_eq!(journal.current, journal.id == life.id);
        }
        self.check_present(&present);
    }

    /// Tends until the mill rests, on a disk without faults.
    fn recover_all(&mut self, life: &mut Life) {
        for _ in 0..1000 {
            let tended = life.mill.tend(UnixMillis(self.now));
            assert!(tended.faults.is_empty(), "{:?}", tended.faults);
            self.note_tended(&tended);
            if !tended.busy {
                return;
            }
        }
        panic!("the mill never rests");
    }

    fn check_present(&self, present: &HashSet<u64>) {
        let expired = |key: &u64| {
            let place = self.ledger.places.get(key);
            place.is_some_and(|(id, sequence)| {
                self.ledger.delivered.get(id).is_some_and(|through| sequence <= through)
            })
        };
        for key in &self.ledger.promised {
            assert!(present.contains(key) || expired(key), "record {key} was promised and is lost");
        }
        for key in self.ledger.places.keys() {
            assert!(present.contains(key) || expired(key), "record {key} was read before and is lost");
        }
    }
}
