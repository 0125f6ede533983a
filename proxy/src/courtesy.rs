//! Long work that lets others run in between.
//!
//! A data thread that wakes up on a core where something long is running waits until the scheduler
//! takes that core away, which it does after some milliseconds. Work of control-side threads that can
//! take that long offers the core much more often instead (figures: `docs/performance.md`).

/// Steps of up to a microsecond between two offers: the offer itself then costs next to nothing.
const STEPS: u32 = 128;

/// Counts steps of a long piece of work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Courtesy {
    steps: u32,
}

impl Courtesy {
    /// Called for each small step; offers the core from time to time.
    #[inline]
    pub fn step(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS) {
            offer();
        }
    }
}

/// Offers the core to whoever waits for it, after a step of tens of microseconds or more.
pub fn offer() {
    std::thread::yield_now();
}
