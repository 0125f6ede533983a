//! What the benches measure: routes of a platform, a table of links, a hit, a journal on this disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast::event::{Class, Event, Kind, Method, Outcome, UnixMillis, Verdict};
use holdfast::journal::disk::FileDisk;
use holdfast::journal::{self, Batch, Journal, JournalId, Refusal, Stager, Tag};
use holdfast::links::builder::{Builder, Settings};
use holdfast::links::namespaces::{NamespaceId, Namespaces};
use holdfast::links::table::Table;
use holdfast::links::{Links, Row, State, guard};
use holdfast::route::{Route, Routes, presets};

pub(crate) const PATH: &[u8] = b"/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx";
/// Hits of one turn of a data thread's event loop under load.
pub(crate) const TURN: u64 = 32;

pub(crate) fn routes() -> Routes {
    let raw = presets::routes("dotdigital").unwrap();
    Routes::new(raw.iter().map(|raw| Route::new(raw).unwrap()).collect())
}

pub(crate) fn token(i: u64) -> String {
    format!("{:08x}{:08x}", (i * 40_503) % (1 << 32), (i * 7_919 + 12_345) % (1 << 32))
}

pub(crate) fn url(i: u64) -> String {
    format!("https://www.example.com/spring/offers/{i:09}?utm_source=mail&utm_campaign=spring-sale")
}

/// A table of so many links, and the namespace that they are in.
pub(crate) fn table(links: u64) -> (Table, NamespaceId) {
    let namespaces = Namespaces::default();
    let namespace = namespaces.intern(b"acme").unwrap();
    let settings = Settings {
        seed: 1,
        memory_bytes_max: 4 << 30,
        looked_up_max: 0,
        guard: guard::Settings { forget_after: Duration::from_secs(30 * 24 * 3600), drop_max_ppm: 10_000 },
    };
    let mut builder = Builder::new(Links::empty(1), namespaces, settings);
    for i in 0..links {
        let (token, url) = (token(i), url(i));
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
    (builder.finish(UnixMillis(1)).unwrap().table, namespace)
}

pub(crate) fn hit() -> Event<'static> {
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

/// A journal on the disk of this machine with its threads.
pub(crate) struct Running {
    journal: Journal,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn stager(&self) -> Stager {
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
pub(crate) fn stage_hit(stager: &mut Stager, event: &Event<'_>) -> Batch {
    loop {
        match stager.stage(UnixMillis(1), Tag(1), |out| event.encode(out)) {
            Ok(batch) => return batch,
            Err(Refusal::Behind) => thread::yield_now(),
            Err(refusal) => panic!("{refusal}"),
        }
    }
}
