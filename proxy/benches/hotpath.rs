//! What each step of a click costs by itself: route, look-up, encode, stage, and the committer under load.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and starts its own threads")]
#![expect(clippy::unwrap_used, reason = "a bench ends at the first thing that is wrong")]

#[path = "shared/subjects.rs"]
mod subjects;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use holdfast::journal::sim::Random;
use holdfast::journal::{Batch, Stager};
use holdfast::route::{Host, HostMap, HostPattern};
use rustix::time::{ClockId, clock_gettime};

use subjects::{PATH, Running, TURN, hit, stage_hit, token};

const LINKS: u64 = 1_000_000;
const PRODUCERS: u64 = 8;
/// So many that the wait for the last sync does not count.
const HITS_OF_ONE: u64 = 50_000;

criterion_group!(benches, route, look_up, encode, stage, commit);
criterion_main!(benches);

fn route(criterion: &mut Criterion) {
    let routes = subjects::routes();
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

fn look_up(criterion: &mut Criterion) {
    let (table, namespace) = subjects::table(LINKS);
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
                let before = cpu_time();
                for _ in 0..turn {
                    black_box(stage_hit(&mut stager, black_box(&event)));
                }
                stager.flush();
                spent += cpu_time() - before;
            }
            spent
        });
    });
}

/// Of this thread: what others, the committer above all, take of the machine meanwhile does not count.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
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
