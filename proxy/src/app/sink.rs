//! The threads behind the data plane: the pump's loop, and the journal's slow work.

#![expect(clippy::disallowed_methods, reason = "a shell file: its loops wait in real time")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{locked, low_priority};
use crate::admin::status::SinkBoard;
use crate::causes::chain;
use crate::clock;
use crate::deliver::{self, AdoptError, AdoptFrom, Alarm, DatabaseSink, Pump, Step};
use crate::event::UnixMillis;
use crate::journal::{Journal, JournalId, Mill, Sequence};
use crate::policy::Signal;
use crate::vitals::{Holding, Vitals};

/// How long the sink's thread rests without looking up.
const SLICE: Duration = Duration::from_millis(100);
/// How often the journal's slow work is looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long the end of an edge waits for the last hits to be delivered; the rest is pending.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// What the pump is asked for.
type Adoption = (AdoptFrom, Option<JournalId>, SyncSender<Result<Vec<(JournalId, Sequence)>, AdoptError>>);

/// Settings of a new configuration.
pub(super) struct Settings {
    pub(super) pump: deliver::Config,
    pub(super) sink: DatabaseSink,
    pub(super) every: Duration,
}

/// The line to the sink's thread.
pub(super) struct Orders {
    stop: AtomicBool,
    paused: AtomicBool,
    settings: Mutex<Option<Settings>>,
    adoptions: SyncSender<Adoption>,
    queue: Mutex<Option<Receiver<Adoption>>>,
}

impl Orders {
    pub(super) fn new() -> Self {
        let (adoptions, queue) = sync_channel(4);
        Self {
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            settings: Mutex::new(None),
            adoptions,
            queue: Mutex::new(Some(queue)),
        }
    }

    /// Whether the pump may use the database.
    fn allow(&self, vitals: &Vitals) -> bool {
        vitals.database_is_up() && !self.paused.load(Relaxed)
    }

    /// Ends the thread after a last, short delivery.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Lets the database go, because another process delivers from now on, or takes it up again.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    /// Takes the settings of a new configuration; they hold from the next step on.
    pub(super) fn configure(&self, settings: Settings) {
        *locked(&self.settings) = Some(settings);
    }

    /// Tells the pump where to go on; blocks for at most ten seconds.
    pub(super) fn adopt(
        &self,
        from: AdoptFrom,
        journal: Option<JournalId>,
    ) -> Result<Vec<(JournalId, Sequence)>, String> {
        let (reply, answer) = sync_channel(1);
        self.adoptions
            .try_send((from, journal, reply))
            .map_err(|_| "the pump is busy; try again".to_owned())?;
        match answer.recv_timeout(Duration::from_secs(10)) {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("the pump gave no answer; look at `holdfast status`".to_owned()),
        }
    }
}

/// The sink's thread: one step after the other, until it is told to stop.
pub(super) fn run(
    mut pump: Pump<Journal, DatabaseSink>,
    mut every: Duration,
    vitals: &Arc<Vitals>,
    board: &SinkBoard,
    orders: &Orders,
) {
    let Some(queue) = locked(&orders.queue).take() else { return };
    let mut holding: Option<Holding> = None;
    let mut stop_at: Option<Instant> = None;
    loop {
        if let Some(settings) = locked(&orders.settings).take() {
            pump.reconfigure(settings.pump, settings.sink);
            every = settings.every;
        }
        let mut allowed = orders.allow(vitals);
        if allowed && holding.is_none() {
            holding = vitals.hold();
            allowed = holding.is_some();
        }
        let now = clock::now();
        let step = pump.step(now, allowed);
        // After a failure the sink is closed, too, and opened again by the next step.
        if matches!(step, Step::Released | Step::Failed { .. }) {
            holding = None;
        }
        pump.take_alarms().iter().for_each(tell);
        *locked(&board.status) = Some(pump.status(now));
        let wait = wait_after(&step, vitals, now, every);
        if orders.stop.load(Relaxed) {
            let until = *stop_at.get_or_insert_with(|| Instant::now() + LAST_DELIVERY);
            let more = matches!(&step, Step::Delivered(_) | Step::Paced { .. });
            if !more || Instant::now() >= until {
                return;
            }
        }
        // In slices, so that a long rest after a failure does not make the thread deaf.
        let rest_until = Instant::now() + wait;
        loop {
            let slice = rest_until.saturating_duration_since(Instant::now()).min(SLICE);
            match queue.recv_timeout(slice) {
                Ok((from, journal, reply)) => {
                    // Whoever asked may have gone away.
                    let _ = reply.send(pump.adopt(from, journal));
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let news = orders.stop.load(Relaxed)
                || orders.allow(vitals) != allowed
                || locked(&orders.settings).is_some();
            if news || Instant::now() >= rest_until {
                break;
            }
        }
    }
}

/// How long to rest; what failed is logged here, once, and told to the monitor.
fn wait_after(step: &Step, vitals: &Vitals, now: UnixMillis, every: Duration) -> Duration {
    match step {
        Step::Delivered(delivered) if delivered.more => Duration::ZERO,
        Step::Delivered(_) | Step::Idle => every,
        Step::Paced { wait } => *wait,
        Step::Released => every.min(Duration::from_millis(100)),
        Step::Standing { .. } => every.max(Duration::from_millis(200)),
        Step::Failed { error, retry_after } => {
            tracing::warn!(error = %chain(error), retry_after_ms = retry_after.as_millis(), "delivery failed and is tried again");
            if error.is_outage() {
                vitals.observe(Signal::Failed, now);
            }
            *retry_after
        }
    }
}

fn tell(alarm: &Alarm) {
    match alarm {
        Alarm::Adopted { .. } => tracing::info!("{alarm}"),
        Alarm::Rewound { .. } => tracing::warn!("{alarm}"),
        _ => tracing::error!("{alarm}"),
    }
}

/// The journal mill's thread.
pub(super) fn tend(mut mill: Mill, stop: &AtomicBool) {
    low_priority();
    loop {
        let tended = mill.tend(clock::now());
        for (journal, report) in &tended.recovered {
            if report.is_sound() {
                tracing::info!(%journal, segments = report.segments, records = report.records, torn_bytes = report.torn_bytes, "an older journal was recovered");
            } else {
                tracing::error!(
                    %journal, segments = report.segments, records = report.records, torn_bytes = report.torn_bytes,
                    corrupt = report.corrupt.len(), gaps = report.gaps.len(),
                    "an older journal is damaged; what can be read is delivered, see `holdfast journal verify`"
                );
            }
        }
        for journal in &tended.removed {
            tracing::debug!(%journal, "a delivered journal was removed");
        }
        for fault in &tended.faults {
            tracing::error!(doing = fault.doing, error = %fault.cause, "the journal's slow work failed and is tried again");
        }
        let mut rested = Duration::ZERO;
        let rest = if tended.busy { Duration::ZERO } else { TEND_EVERY };
        while rested < rest && !stop.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            rested += Duration::from_millis(20);
        }
        if stop.load(Relaxed) {
            return;
        }
    }
}
