//! The committer's thread: sleeps until something is handed over, and lets the writer work.
//!
//! This file and no other of the journal reads a clock.

#![expect(
    clippy::disallowed_methods,
    reason = "a shell file: the committer's pace and sync times are measured here"
)]

use std::time::{Duration, Instant};

use super::Mode;
use super::writer::{Moment, Step, Writer};
use crate::event::UnixMillis;

/// The one thread that writes; made by [`open`](super::open).
#[derive(Debug)]
pub struct Committer {
    writer: Writer,
    opened_at: UnixMillis,
}

impl Committer {
    pub(super) fn new(writer: Writer, opened_at: UnixMillis) -> Self {
        let origin = Instant::now();
        Self { writer: writer.with_stopwatch(Box::new(move || origin.elapsed())), opened_at }
    }

    /// Commits until [`Journal::stop`](super::Journal::stop), then writes, syncs and seals what is
    /// left, and returns. Blocks its thread; has it to itself.
    pub fn run(mut self) {
        let started = Instant::now();
        let moment = |at: Instant| {
            let monotonic = at.duration_since(started);
            Moment { monotonic, wall: self.opened_at.after(monotonic) }
        };
        let shared = std::sync::Arc::clone(self.writer.shared());
        // What is only written is acknowledged at once: there is no sync to share.
        let pace = match shared.config.mode {
            Mode::Power => shared.config.pace,
            Mode::Process => Duration::ZERO,
        };
        while !shared.is_stopping() {
            let at = Instant::now();
            match self.writer.step(moment(at)) {
                Step::Worked => pause(pace.saturating_sub(at.elapsed())),
                // Looked at again, for the step may have hushed the ring of `stop`.
                Step::Rest(_) if shared.is_stopping() => {}
                Step::Rest(span) => shared.bell.wait(span),
            }
        }
        self.writer.finish(moment(Instant::now()));
    }
}

/// Lets a group grow before the next sync.
fn pause(span: Duration) {
    if !span.is_zero() {
        std::thread::sleep(span);
    }
}
