//! What was done to windows by hand, as the small JSON text that survives a restart.
//!
//! ```json
//! {"version":1,
//!  "by_hand":[{"of":"database","from":1342260000000,"until":1342274400000,"reason":"new server"}],
//!  "ended":[{"of":"database","from":1342260000000,"until":1342274400000}]}
//! ```
//!
//! `ended` names windows of the configuration that were ended by hand. Times are Unix milliseconds.
//! Keys that a later release may add are passed over, parts that it may add are told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Window, WindowFault, Windows};
use crate::event::UnixMillis;
use crate::policy::Part;

const VERSION: u64 = 1;

impl Windows {
    /// The text to store whenever [`begin`](Self::begin), [`end`](Self::end) or
    /// [`reload`](Self::reload) may have changed something.
    #[must_use]
    pub fn to_json(&self) -> String {
        let ended = self.configured.iter().filter(|own| own.ended).map(|own| Entry::of(&own.window, ""));
        let by_hand = self.by_hand.iter().map(|window| Entry::of(window, window.reason()));
        let file = File { version: VERSION, by_hand: by_hand.collect(), ended: ended.collect() };
        serde_json::to_string(&file).expect("strings and numbers are always JSON")
    }

    /// The windows of a configuration with what was done by hand before a restart.
    ///
    /// # Errors
    /// [`RestoreFault`] when the text as a whole says nothing to this release.
    pub fn restore(configured: Vec<Window>, json: &[u8]) -> Result<(Self, Vec<Ignored>), RestoreFault> {
        let Version { version } = serde_json::from_slice(json).map_err(RestoreFault::Damaged)?;
        if version != VERSION {
            return Err(RestoreFault::Version(version));
        }
        let file: File = serde_json::from_slice(json).map_err(RestoreFault::Damaged)?;
        let mut windows = Self::new(configured);
        let mut ignored = Vec::new();
        for entry in file.by_hand {
            match entry.window() {
                Ok(window) => {
                    windows.by_hand.retain(|old| old.part != window.part);
                    windows.by_hand.push(window);
                }
                Err(reason) => ignored.push(reason),
            }
        }
        for entry in file.ended {
            match entry.window() {
                Ok(window) => {
                    for own in windows.configured.iter_mut().filter(|own| own.window.is(&window)) {
                        own.ended = true;
                    }
                }
                Err(reason) => ignored.push(reason),
            }
        }
        Ok((windows, ignored))
    }
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize, Serialize)]
struct File {
    version: u64,
    by_hand: Vec<Entry>,
    ended: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    of: String,
    from: u64,
    until: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl Entry {
    fn of(window: &Window, reason: &str) -> Self {
        Self {
            of: window.part.label().to_owned(),
            from: window.from.0,
            until: window.until.0,
            reason: reason.to_owned(),
        }
    }

    fn window(&self) -> Result<Window, Ignored> {
        let part = Part::from_label(&self.of).ok_or_else(|| Ignored::Part(self.of.clone()))?;
        Window::new(part, UnixMillis(self.from), UnixMillis(self.until), &self.reason)
            .map_err(Ignored::Window)
    }
}

/// A stored window that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is of a part that this release does not know.
    Part(String),
    /// It is no window.
    Window(WindowFault),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part) => write!(f, "stored window of an unknown part `{}`", part.escape_debug()),
            Self::Window(fault) => write!(f, "stored window: {fault}"),
        }
    }
}

/// Why a stored text says nothing; the windows by hand are then unknown, those of the
/// configuration hold.
#[derive(Debug)]
pub enum RestoreFault {
    /// Not the JSON that was stored.
    Damaged(serde_json::Error),
    /// Stored by a later release.
    Version(u64),
}

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(_) => f.write_str("stored windows can't be read"),
            Self::Version(version) => {
                write!(f, "stored windows have version {version}, this release reads {VERSION}")
            }
        }
    }
}

impl std::error::Error for RestoreFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Damaged(cause) => Some(cause),
            Self::Version(_) => None,
        }
    }
}
