//! What each step of a click costs by itself: route, look-up, encode, stage, and the committer under load.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and starts its own threads")]
#![expect(clippy::unwrap_used, reason = "a bench ends at the first thing that is wrong")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use holdfast::event::{Class, Event, Kind, Method, Outcome, UnixMillis, Verdict};
use holdfast::journal::disk::FileDisk;
use holdfast::journal::sim::Random;
use holdfast::journal::{self, Batch, Journal, JournalId, Refusal, Stager, Tag};
use holdfast::links::builder::{Builder, Settings};
use holdfast::links::namespaces::Namespaces;
use holdfast::links::{Links, Row, State, guard};
use holdfast::route::{Host, HostMap, HostPattern, Route, Routes, presets};

const PATH: &[u8] = b"/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx";
const LINKS: u64 = 1_000_000;
const PRODUCERS: u64 = 8;
/// So many that the wait for the last sync does not count.
const HITS_OF_ONE: u64 = 50_000;
/// Hits of one turn of a data thread's event loop under load.
const TURN: u64 = 32;

criterion_group!(benches, route, look_up, encode, stage, commit);
criterion_main!(benches);

fn route(criterion: &mut Criterion) {
    let raw = presets::routes("dotdigital").unwrap();
    let routes = Routes::new(raw.iter().map(|raw| Route::new(raw).unwrap()).collect());
    let mut scratch = Vec::new();
    criterion.bench_function("route: a click of the preset dotdigital", |bencher| {
        bencher.iter(|| routes.find(black_box(PATH), &mut scratch).unwrap().token.len());
    });
    let mut hosts = HostMap::default();
    for i in 0..10_000 {
        hosts.insert(HostPattern::parse(&format!("click.brand-{i}.example")).unwrap(), i);
    }
    let mut scratch = Vec::new();
    criterion.bench_function("route: one of 10 000 hosts", |bencher| {
        bencher.iter(|| {
            let host = Host::parse(black_box(b"click.brand-4711.example:443"), &mut scratch).unwrap();
            *hosts.find(host).unwrap()
        });
    });
}

fn token(i: u64) -> String {
    format!("{:08x}{:08x}", (i * 40_503) % (1 << 32), (i * 7_919 + 12_345) % (1 << 32))
}

fn look_up(criterion: &mut Criterion) {
    let namespaces = Namespaces::default();
    let namespace = namespaces.intern(b"acme").unwrap();
    let settings = Settings {
        seed: 1,
        memory_bytes_max: 4 << 30,
        looked_up_max: 0,
        guard: guard::Settings { forget_after: Duration::from_secs(30 * 24 * 3600), drop_max_ppm: 10_000 },
    };
    let mut builder = Builder::new(Links::empty(1), namespaces, settings);
    for i in 0..LINKS {
        let url =
            format!("https://www.example.com/spring/offers/{i:09}?utm_source=mail&utm_campaign=spring-sale");
        let token = token(i);
        let row = Row {
            namespace: b"acme",
            token: token.as_bytes(),
            url: &url,
            campaign: b"spring-sale",
            append: true,
            expires_at: None,
            state: State::Live,
        };
        builder.push(&row).unwrap();
    }
    let table = builder.finish(UnixMillis(1)).unwrap().table;
    let mut random = Random::new(1);
    let known: Vec<String> = (0..1 << 16).map(|_| token(random.below(LINKS))).collect();
    let unknown: Vec<String> = known.iter().map(|token| token.replace('0', "g")).collect();
    for (name, tokens) in [("a known", &known), ("an unknown", &unknown)] {
        let mut next = tokens.iter().cycle();
        criterion.bench_function(&format!("table: {name} token among {LINKS}"), |bencher| {
            bencher.iter(|| table.get(namespace, next.next().unwrap().as_bytes()).is_some());
        });
    }
}

fn hit() -> Event<'static> {
    Event {
        kind: Kind::Click,
        method: Method::Get,
        outcome: Outcome::Redirected,
        class: Class::Synced,
        verdict: Verdict::Person,
        status: 302,
        site: b"shop",
        namespace: b"acme",
        host: b"click.example.com",
        token: b"UAA-6RZBM-UWW3JN-3ZFU1J",
        campaign: b"spring-sale",
        captures: b"",
        query: b"",
        url: b"",
        address: &[192, 0, 2, 0],
        user_agent: b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0",
        referrer: b"https://mail.example.com/",
    }
}

fn encode(criterion: &mut Criterion) {
    let event = hit();
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("event: encode a hit", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&event).encode(&mut out);
            out.len()
        });
    });
}

/// A journal on the disk of this machine with its threads.
struct Running {
    journal: Journal,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = journal::Config::new(folder.path().to_owned());
        let id = JournalId::from_bytes([1; 16]);
        let opened = journal::open(config, Arc::new(FileDisk), id, "bench", UnixMillis(1)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (committer, mut mill, stopped) = (opened.committer, opened.mill, Arc::clone(&stop));
        let tend = move || {
            while !stopped.load(Relaxed) {
                mill.tend(UnixMillis(1));
                thread::sleep(Duration::from_millis(20));
            }
        };
        let threads = vec![thread::spawn(move || committer.run()), thread::spawn(tend)];
        Self { journal: opened.journal, threads, stop, _folder: folder }
    }

    fn stager(&self) -> Stager {
        self.journal.stager(Arc::new(|| {}))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.journal.stop();
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Stages a hit, waiting while the committer is too far behind.
fn stage_hit(stager: &mut Stager, event: &Event<'_>) -> Batch {
    loop {
        match stager.stage(UnixMillis(1), Tag(1), |out| event.encode(out)) {
            Ok(batch) => return batch,
            Err(Refusal::Behind) => thread::yield_now(),
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

fn stage(criterion: &mut Criterion) {
    let running = Running::start();
    let (mut stager, event) = (running.stager(), hit());
    criterion.bench_function("journal: encode and stage a hit, without the wait for room", |bencher| {
        bencher.iter_custom(|hits| {
            let mut spent = Duration::ZERO;
            for first in (0..hits).step_by(TURN as usize) {
                let turn = TURN.min(hits - first);
                // Room for the whole turn is waited for outside of the clock.
                while stager.acknowledged().written.0 + 64 < stage_hit(&mut stager, &event).0 {
                    stager.flush();
                    thread::yield_now();
                }
                let begun = Instant::now();
                for _ in 0..turn {
                    black_box(stage_hit(&mut stager, black_box(&event)));
                }
                stager.flush();
                spent += begun.elapsed();
            }
            spent
        });
    });
}

fn commit(criterion: &mut Criterion) {
    let running = Running::start();
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(PRODUCERS * HITS_OF_ONE)).sample_size(10);
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(10));
    group.bench_function("one committer fed by 8 producers, until synced", |bencher| {
        bencher.iter_custom(|rounds| {
            let begun = Instant::now();
            thread::scope(|scope| {
                for _ in 0..PRODUCERS {
                    let mut stager = running.stager();
                    scope.spawn(move || produce(&mut stager, rounds * HITS_OF_ONE));
                }
            });
            begun.elapsed()
        });
    });
    group.finish();
}

fn produce(stager: &mut Stager, hits: u64) {
    let event = hit();
    let mut last = Batch(0);
    for i in 0..hits {
        last = stage_hit(stager, &event);
        if i % TURN == TURN - 1 {
            stager.flush();
        }
    }
    stager.flush();
    while stager.acknowledged().synced < last {
        thread::sleep(Duration::from_micros(50));
    }
}
