//! What is known of each needed part, and what that means for an answer; it decides and does nothing.
//!
//! ```text
//!  signals ─▶ Monitor ─▶ Health ─▶ plan ─▶ Plan
//!  by hand, configured ─▶ Windows ─┘
//! ```
//!
//! Invariants:
//! - The answer to a request is a pure function of its kind, what is known of its link, and the
//!   health of the part it needs ([`plan()`]); nothing else in the program decides it.
//! - A window wins over everything that signals say: while it lasts, the part is left alone.
//! - Each change of health is returned once, by the call that made it.
//!
//! It neither asks a database nor reads a clock or a file: signals, time and stored text come in
//! as arguments.

mod monitor;
mod plan;
mod windows;

pub use monitor::{Cause, Config, Monitor, Signal, Tick, Transition};
pub use plan::{Known, Notice, Plan, look_up, needs, plan};
pub use windows::{Active, Ignored, Listed, NotOpen, RestoreFault, Stage, Window, WindowFault, Windows};

use std::fmt;
use std::sync::Arc;

use crate::event::UnixMillis;

/// Something that answers may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The database that links come from and hits go to.
    Database,
    /// The journal on this edge's own disk.
    Journal,
}

impl Part {
    /// Every part.
    pub const ALL: &'static [Self] = &[Self::Database, Self::Journal];

    /// The word as it stands in commands, metrics, logs and stored windows.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Journal => "journal",
        }
    }

    /// The part of a label; `None` for any other text.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|part| part.label() == label)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What is known of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It works, as far as anybody knows. Nothing is lost. A hard failure, or several in a row, end it.
    #[default]
    Up,
    /// It failed. Known links redirect and hits are recorded as before; for a click on an unknown
    /// one there is the maintenance page. Probes that succeed bring it back.
    Down {
        /// When that was noticed.
        since: UnixMillis,
        /// Why it counts as down. What exactly failed stands in the log.
        cause: Cause,
    },
    /// Planned maintenance: answers as when it is down, with the time of its return. Nothing may
    /// touch the part. The window's end brings it back, once a probe succeeds.
    Window {
        /// When the window ends, as far as is planned.
        until: UnixMillis,
        /// What the operator gave as reason; may be empty. Never shown to clients.
        reason: Arc<str>,
    },
}

impl Health {
    /// The word as it stands in metrics, logs and status.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down { .. } => "down",
            Self::Window { .. } => "window",
        }
    }

    /// Whether the part may be asked for something.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

/// The health of every part: one of the values that the control plane publishes whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The database.
    pub database: Health,
    /// The journal; it says itself whether it is degraded.
    pub journal: Health,
}

impl Parts {
    /// The health of one part.
    #[must_use]
    pub const fn of(&self, part: Part) -> &Health {
        match part {
            Part::Database => &self.database,
            Part::Journal => &self.journal,
        }
    }
}
