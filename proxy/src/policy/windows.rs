//! Planned maintenance: windows of the configuration and by hand, and which are open.
//!
//! Invariants:
//! - Each window is of one part; a part has at most one by hand, so what is kept is bounded by the
//!   configuration and the number of parts.
//! - Windows that overlap or touch are one in effect: it lasts to the latest end of them.
//! - A window of the configuration that was ended by hand stays ended, over restarts and reloads,
//!   until the configuration gives it another beginning or end.
//! - A window by hand is open from the moment it is begun, wherever the clock jumps back to.
//!
//! It neither reads nor writes the file that it is stored in, and closes nothing by itself: a
//! window ends because whoever asks says that it is later than its end.

mod stored;

pub use stored::{Ignored, RestoreFault};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Part;
use crate::event::UnixMillis;

/// How long a window by hand lasts when nobody says.
const BY_HAND_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// The longest reason; it is shown on one line.
const REASON_BYTES_MAX: usize = 500;

/// A planned window of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    part: Part,
    from: UnixMillis,
    until: UnixMillis,
    reason: Arc<str>,
}

impl Window {
    /// A window as somebody planned it.
    ///
    /// # Errors
    /// [`WindowFault`] says what can't be planned.
    pub fn new(part: Part, from: UnixMillis, until: UnixMillis, reason: &str) -> Result<Self, WindowFault> {
        if part == Part::Journal {
            return Err(WindowFault::Part(part));
        }
        if until <= from {
            return Err(WindowFault::Backwards);
        }
        if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            return Err(WindowFault::Reason);
        }
        Ok(Self { part, from, until, reason: reason.into() })
    }

    /// The part that is left alone.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// When it begins; of a window by hand, when it was begun.
    #[must_use]
    pub const fn from(&self) -> UnixMillis {
        self.from
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> UnixMillis {
        self.until
    }

    /// Why, in the operator's words; may be empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether both are the same plan, whatever their reasons say.
    fn is(&self, other: &Self) -> bool {
        (self.part, self.from, self.until) == (other.part, other.from, other.until)
    }
}

/// Why there can be no such window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowFault {
    /// It ends before it begins, or at once.
    Backwards,
    /// The part can't be left alone: nothing can be answered without it.
    Part(Part),
    /// The reason is too long or has control characters.
    Reason,
}

impl fmt::Display for WindowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backwards => f.write_str("the window's end is not after its beginning"),
            Self::Part(part) => write!(f, "the {part} can't have a window"),
            Self::Reason => {
                write!(f, "the reason is over {REASON_BYTES_MAX} bytes or has control characters")
            }
        }
    }
}

impl std::error::Error for WindowFault {}

/// An open window, with all that overlap it taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The latest end.
    pub until: UnixMillis,
    /// The reason of the window by hand, else of the open one that ends last; may be empty.
    pub reason: Arc<str>,
    /// Whether a window by hand is among those open.
    pub by_hand: bool,
}

/// One window as it is listed for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The window.
    pub window: Window,
    /// Whether it was begun by hand.
    pub by_hand: bool,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a window stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its beginning lies ahead.
    Ahead,
    /// Somebody ended it by hand.
    Ended,
    /// It is open.
    Open,
    /// Its end has passed.
    Past,
}

impl Stage {
    /// The word as it stands in lists.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Ended => "ended",
            Self::Open => "open",
            Self::Past => "past",
        }
    }
}

/// All windows of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    configured: Vec<Configured>,
    by_hand: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Configured {
    window: Window,
    ended: bool,
}

impl Windows {
    /// The windows of a configuration, none by hand.
    #[must_use]
    pub fn new(configured: Vec<Window>) -> Self {
        let configured = configured.into_iter().map(|window| Configured { window, ended: false }).collect();
        Self { configured, by_hand: Vec::new() }
    }

    /// Takes the windows of a new configuration in place of the old one's; what was done by hand stays.
    pub fn reload(&mut self, configured: Vec<Window>) {
        let was_ended =
            |window: &Window| self.configured.iter().any(|old| old.ended && old.window.is(window));
        let configured =
            configured.into_iter().map(|window| Configured { ended: was_ended(&window), window }).collect();
        self.configured = configured;
    }

    /// Begins a window by hand, or gives the part's window by hand another end and reason.
    ///
    /// Without `until` it lasts 24 hours. A window of the configuration that ends later goes on.
    ///
    /// # Errors
    /// [`WindowFault`]; nothing has changed then.
    pub fn begin(
        &mut self,
        part: Part,
        until: Option<UnixMillis>,
        reason: &str,
        now: UnixMillis,
    ) -> Result<Active, WindowFault> {
        let until = until.unwrap_or_else(|| now.after(BY_HAND_DEFAULT));
        let window = Window::new(part, now, until, reason)?;
        self.by_hand.retain(|old| old.part != part);
        self.by_hand.push(window);
        Ok(self.active(part, now).expect("a window was just begun"))
    }

    /// Ends every window of the part that is open, and returns what was open.
    ///
    /// A window of the configuration that begins later will still begin.
    ///
    /// # Errors
    /// [`NotOpen`] when there was none.
    pub fn end(&mut self, part: Part, now: UnixMillis) -> Result<Active, NotOpen> {
        let active = self.active(part, now).ok_or(NotOpen(part))?;
        self.by_hand.retain(|window| window.part != part);
        for own in &mut self.configured {
            own.ended |= own.window.part == part && own.stage(now) == Stage::Open;
        }
        Ok(active)
    }

    /// The window that is open for a part.
    #[must_use]
    pub fn active(&self, part: Part, now: UnixMillis) -> Option<Active> {
        let by_hand = self.by_hand.iter().find(|window| window.part == part && now < window.until);
        let configured = || self.configured.iter().filter(|own| own.window.part == part && !own.ended);
        let open = configured().filter(|own| own.stage(now) == Stage::Open).map(|own| &own.window);
        let last = open.max_by_key(|window| window.until);
        let mut until = [by_hand, last].into_iter().flatten().map(|window| window.until).max()?;
        // People ask when the part is back, so windows that would follow without a pause count.
        while let Some(next) =
            configured().map(|own| &own.window).find(|next| next.from <= until && next.until > until)
        {
            until = next.until;
        }
        let reason =
            [by_hand, last].into_iter().flatten().map(|window| &window.reason).find(|it| !it.is_empty());
        Some(Active { until, reason: reason.cloned().unwrap_or_default(), by_hand: by_hand.is_some() })
    }

    /// All windows that are kept, in the order of their beginnings.
    #[must_use]
    pub fn list(&self, now: UnixMillis) -> Vec<Listed> {
        let configured = self.configured.iter().map(|own| Listed {
            window: own.window.clone(),
            by_hand: false,
            stage: own.stage(now),
        });
        let by_hand = self.by_hand.iter().map(|window| Listed {
            window: window.clone(),
            by_hand: true,
            stage: if now < window.until { Stage::Open } else { Stage::Past },
        });
        let mut listed: Vec<_> = configured.chain(by_hand).collect();
        listed.sort_by_key(|listed| listed.window.from);
        listed
    }

    /// The next moment at which a window begins or ends; for a timer, not for a decision.
    #[must_use]
    pub fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        let configured = self.configured.iter().filter(|own| !own.ended).map(|own| &own.window);
        let moments = configured.chain(&self.by_hand).flat_map(|window| [window.from, window.until]);
        moments.filter(|moment| *moment > now).min()
    }
}

impl Configured {
    fn stage(&self, now: UnixMillis) -> Stage {
        if self.ended {
            Stage::Ended
        } else if now < self.window.from {
            Stage::Ahead
        } else if now < self.window.until {
            Stage::Open
        } else {
            Stage::Past
        }
    }
}

/// No window of this part is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOpen(
    /// The part.
    pub Part,
);

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no window of the {} is open", self.0)
    }
}

impl std::error::Error for NotOpen {}

#[cfg(test)]
mod tests;
