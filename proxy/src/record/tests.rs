//! A disk that does not answer in time: hits go out, and are waited for again.

#![expect(clippy::disallowed_methods, reason = "the committer runs when the test says so")]

use std::rc::Rc;
use std::thread;

use tokio::runtime::LocalOptions;

use super::*;
use crate::event::{Kind, Method, Outcome, Verdict};
use crate::journal::disk::FileDisk;
use crate::journal::{JournalId, Opened, open};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const WAIT_MAX: Duration = Duration::from_millis(80);

fn hit(class: Class) -> Event<'static> {
    Event {
        kind: Kind::Click,
        method: Method::Get,
        outcome: Outcome::Redirected,
        class,
        verdict: Verdict::Person,
        status: 302,
        site: b"shop",
        namespace: b"acme",
        host: b"click.example.com",
        token: b"token",
        campaign: b"",
        captures: b"",
        query: b"",
        url: b"",
        address: &[192, 0, 2, 0],
        user_agent: b"",
        referrer: b"",
    }
}

/// A disk that hangs is a committer that does not run.
#[test]
fn a_disk_that_hangs_holds_nobody_up_and_is_waited_for_again_when_it_is_back() {
    for (mode, when_well) in [(Mode::Power, Class::Synced), (Mode::Process, Class::Written)] {
        let folder = tempfile::tempdir().expect("is made");
        let config = crate::journal::Config::new(folder.path().to_owned());
        let id = JournalId::from_bytes([1; 16]);
        let Opened { journal, committer, .. } =
            open(config, Arc::new(FileDisk), id, "edge", NOW).expect("opens");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .expect("is made");
        let stopped = journal.clone();
        runtime.block_on(async move {
            let config = Config { mode, wait_max: WAIT_MAX, when_full: WhenFull::Redirect };
            let recorder = Rc::new(Recorder::new(&journal, config));
            let (handing, acknowledging) = (Rc::clone(&recorder), Rc::clone(&recorder));
            tokio::task::spawn_local(async move { handing.hand_over(|| ()).await });
            tokio::task::spawn_local(async move { acknowledging.acknowledge().await });
            let stage = || recorder.stage(NOW, Tag(1), hit).expect("there is room");

            let first = stage();
            assert!(matches!(first, Staged::Waiting(_)));
            let begun = Instant::now();
            let recorded = recorder.settle(first).await;
            assert_eq!((recorded.class(), recorded.fate()), (Class::Waived, Fate::Taken));
            assert!(begun.elapsed() >= WAIT_MAX, "it is waited for as long as was promised");
            assert!(recorder.is_behind());
            assert!(matches!(stage(), Staged::Waived(Fate::Taken)), "nobody waits behind it");

            let committer = thread::spawn(move || committer.run());
            while recorder.is_behind() {
                sleep(Duration::from_millis(1)).await;
            }
            // The bound holds for each hit by itself, and a busy machine may be slower than that once.
            while recorder.settle(stage()).await.class() != when_well {
                sleep(Duration::from_millis(1)).await;
            }
            stopped.stop();
            committer.join().expect("ends well");
        });
    }
}
