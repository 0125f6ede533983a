//! The start: links from disk, so that an edge serves in the middle of an outage (promise P5).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::ArcSwap;

use super::customers::Following;
use super::{Board, Config, EVENTS_MAX, Event, Follower, Mill};
use crate::causes::chain;
use crate::database::Watermark;
use crate::event::UnixMillis;
use crate::links::domains::Domains;
use crate::links::entry::Entry;
use crate::links::log::{Log, replay};
use crate::links::namespaces::Namespaces;
use crate::links::overlay::{Change, Overlay};
use crate::links::{Links, snapshot};
use crate::resolve::look_ups::LookUps;
use crate::vitals::Vitals;

/// Everything that a start makes.
pub struct Started {
    /// The follower, to be run on its thread.
    pub follower: Follower,
    /// The mill, to be run on its thread.
    pub mill: Mill,
    /// The line to the follower.
    pub events: SyncSender<Event>,
    /// The follower's end of it.
    pub queue: Receiver<Event>,
    /// What is said about the links.
    pub board: Arc<Board>,
}

/// The folder of links cannot be used.
#[derive(Debug)]
pub struct StartError(snapshot::Error);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot use the folder of links")
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Reads the newest good snapshot and the logs since, publishes them and begins a new generation.
///
/// Damage is logged and set aside, never fatal; without any snapshot the edge is not ready before
/// its first load. `seeds` gives a new random number at each call.
///
/// # Blocking
/// Reads all of it.
///
/// # Errors
/// [`StartError`] when the folder can be neither read nor written.
pub fn start(
    config: Config,
    links: Arc<ArcSwap<Links>>,
    domains: Arc<ArcSwap<Domains>>,
    namespaces: Namespaces,
    look_ups: Arc<LookUps>,
    vitals: Arc<Vitals>,
    seeds: fn() -> u64,
) -> Result<Started, StartError> {
    let found =
        snapshot::load(&config.folder, &namespaces, snapshot::Damaged::SetAside).map_err(StartError)?;
    for fault in &found.faults {
        tracing::error!(
            fault = chain(fault),
            "a snapshot of links cannot be used; the one before it is, with the changes since"
        );
    }
    let board = Arc::new(Board::default());
    let (table, basis, from) = match found.loaded {
        Some(loaded) => {
            board.ready();
            let meta = loaded.meta;
            (Arc::new(loaded.table), Some((meta.database, Watermark(meta.watermark))), loaded.generation)
        }
        None => (Arc::default(), None, 0),
    };
    let changes = changes_since(&config, &namespaces, from);
    if !changes.is_empty() {
        board.ready();
    }
    links.store(Arc::new(Links::new(table, Overlay::new(seeds()).with(changes))));
    let generation = snapshot::newest_generation(&config.folder).map_err(StartError)? + 1;
    let log = Log::create(&config.folder, generation).map_err(StartError)?;
    let (jobs, mill_jobs) = sync_channel(1);
    let (events, queue) = sync_channel(EVENTS_MAX);
    let halt = Arc::new(AtomicBool::new(false));
    let domains = Following::start(config.folder.clone(), domains);
    let mill = Mill {
        namespaces: namespaces.clone(),
        vitals: Arc::clone(&vitals),
        links: Arc::clone(&links),
        jobs: mill_jobs,
        events: events.clone(),
        seeds,
        halt: Arc::clone(&halt),
    };
    // What is on disk is served; whether the database still agrees with it is seen by a complete load.
    let load_at = Some(UnixMillis(0));
    let loaded_at = links.load().table().made_at();
    let follower = Follower {
        config,
        links,
        namespaces,
        look_ups,
        vitals,
        board: Arc::clone(&board),
        jobs,
        generation,
        log: Some(log),
        log_again_at: UnixMillis(0),
        unsynced: false,
        connection: None,
        basis,
        place: None,
        unread: true,
        more: false,
        after_window: false,
        building: false,
        build_failures: 0,
        build_again_at: UnixMillis(0),
        asked: 0,
        load_at,
        reloading: false,
        unfit: None,
        loaded_at,
        held: None,
        accepted: None,
        paused: false,
        halt,
        pausing: None,
        failing: None,
        full: false,
        domains,
    };
    follower.report();
    Ok(Started { follower, mill, events, queue, board })
}

fn changes_since(config: &Config, namespaces: &Namespaces, from: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut unusable = 0u64;
    let report = replay(&config.folder, from, &mut |record| {
        let approved = Entry::approve(&record.row, record.origin);
        match (approved, namespaces.intern(record.row.namespace)) {
            (Ok(entry), Ok(namespace)) => {
                changes.push(Change { namespace, token: record.row.token.into(), entry: Arc::new(entry) });
            }
            _ => unusable += 1,
        }
    });
    match report {
        Ok(report) => {
            for fault in &report.faults {
                tracing::warn!(%fault, "a part of the log of links was skipped");
            }
            if unusable > 0 {
                tracing::warn!(records = unusable, "records of the log of links cannot be approved any more");
            }
            changes
        }
        Err(error) => {
            // What was read before the fault still counts; the database brings the rest.
            tracing::error!(error = %chain(&error), "the log of links cannot be read to its end");
            changes
        }
    }
}
