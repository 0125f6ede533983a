//! The health of one part, out of the signals of those who use it; says when to probe.
//!
//! ```text
//!            down_after failures in a row, or one that leaves no doubt
//!      ┌────┐ ───────────────────────────────────────────────────────▶ ┌──────┐ ─┐ probes, at
//!      │ Up │                                                          │ Down │  │ growing
//!      └────┘ ◀─────────────────────────────────────────────────────── └──────┘ ◀┘ distances
//!         │        up_after successes in a row; after a window: one     │    ▲
//!         │                                                             │    │ the window ends
//!         └────────────── a window begins ──▶ ┌────────┐ ◀──────────────┘    │
//!                                             │ Window │ ────────────────────┘
//!                                             └────────┘
//! ```
//!
//! Invariants:
//! - Nothing in a window leads to a probe, and no signal leads out of it.
//! - While the part is down, there is always a next probe, never further away than `probe_every_max`,
//!   wherever the clock jumps.
//! - The distance between probes is drawn from a seed, so that edges do not probe in step.

use std::fmt;
use std::time::Duration;

use super::Health;
use super::windows::Active;
use crate::event::UnixMillis;

/// When a part counts as down or up, and how often it is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Failures in a row that make it down; 0 counts as 1.
    pub down_after: u32,
    /// Successes in a row that make it up; 0 counts as 1.
    pub up_after: u32,
    /// The distance to the first probe; it doubles from failure to failure.
    pub probe_every: Duration,
    /// The longest distance between probes.
    pub probe_every_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            down_after: 3,
            up_after: 2,
            probe_every: Duration::from_secs(1),
            // An outage is over for people this much later than for the database.
            probe_every_max: Duration::from_secs(10),
        }
    }
}

/// How something that was asked of the part went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It failed in a way that may have been bad luck: a deadline, a lock.
    Failed,
    /// It failed in a way that leaves no doubt: connection refused, file replaced.
    Gone,
    /// It worked.
    Succeeded,
}

/// A change of health; for the caller to log and to publish, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: Health,
    /// What it is now.
    pub to: Health,
    /// Why.
    pub cause: Cause,
}

/// Why a part's health changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many failures in a row.
    Failures(u32),
    /// One failure that leaves no doubt.
    Gone,
    /// So many successes in a row.
    Successes(u32),
    /// A window began.
    WindowBegan,
    /// The window got another end or reason.
    WindowChanged,
    /// The window ended; a probe has to show whether the part is back.
    WindowEnded,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(1) => f.write_str("a failure"),
            Self::Failures(count) => write!(f, "{count} failures in a row"),
            Self::Gone => f.write_str("a failure that leaves no doubt"),
            Self::Successes(1) => f.write_str("a success"),
            Self::Successes(count) => write!(f, "{count} successes in a row"),
            Self::WindowBegan => f.write_str("a window began"),
            Self::WindowChanged => f.write_str("the window was changed"),
            Self::WindowEnded => f.write_str("the window ended, not yet seen to be back"),
        }
    }
}

/// What a moment brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// The change that the moment brought, if any.
    pub transition: Option<Transition>,
    /// Whether to probe the part now and to report how that went. One at a time: while a probe is
    /// under way, this may be ignored.
    pub probe: bool,
}

/// Watches one part.
#[derive(Debug)]
pub struct Monitor {
    config: Config,
    state: State,
    jitter: Jitter,
}

#[derive(Debug)]
enum State {
    Down { since: UnixMillis, cause: Cause, successes: u32, up_after: u32, probes: u32, probe_at: UnixMillis },
    Up { failures: u32 },
    Window(Active),
}

impl Monitor {
    /// A part that counts as up until somebody fails with it: at a start nobody knows better, and
    /// a link that exists must not be answered with the maintenance page.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self { config, state: State::Up { failures: 0 }, jitter: Jitter(seed) }
    }

    /// What is known now.
    #[must_use]
    pub fn health(&self) -> Health {
        match &self.state {
            State::Down { since, cause, .. } => Health::Down { since: *since, cause: *cause },
            State::Up { .. } => Health::Up,
            State::Window(active) => Health::Window { until: active.until, reason: active.reason.clone() },
        }
    }

    /// When the next probe is due; `None` unless the part is down.
    #[must_use]
    pub fn probe_at(&self) -> Option<UnixMillis> {
        match self.state {
            State::Down { probe_at, .. } => Some(probe_at),
            State::Up { .. } | State::Window(_) => None,
        }
    }

    /// Takes in how something went, a probe or any other use of the part.
    pub fn observe(&mut self, signal: Signal, now: UnixMillis) -> Option<Transition> {
        match (&mut self.state, signal) {
            (State::Up { failures }, Signal::Succeeded) => {
                *failures = 0;
                None
            }
            (State::Up { failures }, Signal::Failed) => {
                *failures += 1;
                let failures = *failures;
                (failures >= self.config.down_after).then(|| self.fall(Cause::Failures(failures), now))
            }
            (State::Up { .. }, Signal::Gone) => Some(self.fall(Cause::Gone, now)),
            (State::Down { successes, up_after, probes, probe_at, .. }, Signal::Succeeded) => {
                *successes += 1;
                let successes = *successes;
                if successes >= *up_after {
                    return Some(self.enter(State::Up { failures: 0 }, Cause::Successes(successes)));
                }
                // It seems to be back: the proof must not wait as long as the last distance was.
                *probes = 0;
                *probe_at = now.after(self.jitter.spread(self.config.probe_every));
                None
            }
            (State::Down { successes, .. }, Signal::Failed | Signal::Gone) => {
                *successes = 0;
                None
            }
            // What was under way when the window began says nothing about its end.
            (State::Window(_), _) => None,
        }
    }

    /// Takes in the window that is open now, if any, and says whether a probe is due.
    pub fn tick(&mut self, window: Option<Active>, now: UnixMillis) -> Tick {
        let transition = match (&self.state, window) {
            (State::Window(old), Some(new)) if *old == new => None,
            (State::Window(_), Some(new)) => Some(self.enter(State::Window(new), Cause::WindowChanged)),
            (_, Some(new)) => Some(self.enter(State::Window(new), Cause::WindowBegan)),
            (State::Window(_), None) => {
                let cause = Cause::WindowEnded;
                let down =
                    State::Down { since: now, cause, successes: 0, up_after: 1, probes: 0, probe_at: now };
                Some(self.enter(down, cause))
            }
            (State::Up { .. } | State::Down { .. }, None) => None,
        };
        Tick { transition, probe: self.probe_due(now) }
    }

    fn probe_due(&mut self, now: UnixMillis) -> bool {
        let State::Down { probe_at, probes, .. } = &mut self.state else {
            return false;
        };
        // A probe further away than any distance was planned before the clock jumped back.
        let jumped = probe_at.since(now) > self.config.probe_every_max.max(self.config.probe_every);
        let due = now >= *probe_at || jumped;
        if due {
            let distance = self.config.probe_every.saturating_mul(1 << (*probes).min(16));
            let distance = distance.min(self.config.probe_every_max.max(self.config.probe_every));
            *probes = probes.saturating_add(1);
            *probe_at = now.after(self.jitter.spread(distance));
        }
        due
    }

    fn fall(&mut self, cause: Cause, now: UnixMillis) -> Transition {
        let probe_at = now.after(self.jitter.spread(self.config.probe_every));
        let up_after = self.config.up_after;
        self.enter(State::Down { since: now, cause, successes: 0, up_after, probes: 0, probe_at }, cause)
    }

    fn enter(&mut self, state: State, cause: Cause) -> Transition {
        let from = self.health();
        self.state = state;
        Transition { from, to: self.health(), cause }
    }
}

/// A row of numbers from a seed (SplitMix64); good enough to spread edges, and the same at each replay.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// A span from half of `span` to all of it.
    fn spread(&mut self, span: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let half = span / 2;
        let half_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        half + Duration::from_millis(mixed % half_ms.saturating_add(1))
    }
}

#[cfg(test)]
mod tests;
