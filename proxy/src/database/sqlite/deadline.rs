//! The bound on a statement's time, held by SQLite's progress handler; a shell file, it reads the clock.

use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Instructions of SQLite's machine between two looks at the clock; some tens of microseconds.
const INSTRUCTIONS: i32 = 10_000;

/// Ends statements that run past it. A call into the kernel that hangs can't be ended from here.
#[derive(Debug)]
pub(super) struct Deadline {
    base: Instant,
    until_ns: Arc<AtomicU64>,
    timeout: Duration,
}

impl Deadline {
    /// Binds `connection`: waiting for locks, and every statement between two calls of [`Self::arm`],
    /// takes `timeout` at most.
    pub(super) fn bind(connection: &mut Connection, timeout: Duration) -> rusqlite::Result<Self> {
        #[allow(clippy::disallowed_methods, reason = "a deadline is real time; this is a shell file")]
        let base = Instant::now();
        let until_ns = Arc::new(AtomicU64::new(0));
        let watched = Arc::clone(&until_ns);
        connection.busy_timeout(timeout)?;
        connection.progress_handler(
            INSTRUCTIONS,
            Some(move || nanoseconds(base.elapsed()) > watched.load(Relaxed)),
        )?;
        let deadline = Self { base, until_ns, timeout };
        deadline.arm();
        Ok(deadline)
    }

    /// Starts the time anew: before a statement, and whenever a long one has given something.
    pub(super) fn arm(&self) {
        let until = self.base.elapsed().saturating_add(self.timeout);
        self.until_ns.store(nanoseconds(until), Relaxed);
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
