//! Who may have a certificate on demand: remembers refusals and holds back questions, without asking itself.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::limit::{Backoff, Chance};
use super::name::Name;
use crate::UnixSeconds;

/// After so many questions without an answer in a row the next ones wait.
const FAILURES_BORNE: u32 = 3;
const BACKOFF: Backoff = Backoff { first_seconds: 2, seconds_max: 60 };

/// What bounds the questions and the memory of their answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateBounds {
    pub(crate) asks_at_once: usize,
    pub(crate) refused_max: usize,
    pub(crate) refused_seconds: i64,
}

/// What the gate says to a name that nobody knows yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Ask, and tell the answer.
    Ask,
    /// The question is under way.
    Asked,
    /// As many questions as may be are under way.
    Busy,
    /// Questions have found no answer lately.
    Down { until: UnixSeconds },
    /// Nobody would know: there is nobody to ask.
    Nobody,
    /// It was refused.
    Refused { until: UnixSeconds },
    /// It is permitted, and a rate holds it back.
    Later { until: UnixSeconds },
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No answer in time, or none that can be understood.
    Down,
    No,
    Yes,
}

/// What is remembered of a name, until when.
#[derive(Clone, Copy)]
struct Answer {
    until: UnixSeconds,
    is_refusal: bool,
}

impl Answer {
    fn pass(self) -> Pass {
        let Self { until, is_refusal } = self;
        if is_refusal { Pass::Refused { until } } else { Pass::Later { until } }
    }
}

/// Memory is bounded by `refused_max` and `asks_at_once`, whatever is asked.
pub(crate) struct Gate {
    bounds: GateBounds,
    seed: u64,
    /// Whether there is somebody to ask.
    asks: bool,
    asking: HashSet<Name>,
    answers: HashMap<Name, Answer>,
    /// The same, the one that ends first coming first.
    ends: BTreeSet<(UnixSeconds, Name)>,
    failures: u32,
    paused_until: UnixSeconds,
}

impl Gate {
    pub(crate) fn new(bounds: GateBounds, asks: bool, seed: u64) -> Self {
        Self {
            bounds,
            seed,
            asks,
            asking: HashSet::new(),
            answers: HashMap::new(),
            ends: BTreeSet::new(),
            failures: 0,
            paused_until: UnixSeconds(i64::MIN),
        }
    }

    pub(crate) fn pass(&mut self, name: &Name, now: UnixSeconds) -> Pass {
        if !self.asks {
            return Pass::Nobody;
        }
        self.expire(now);
        if let Some(answer) = self.answers.get(name) {
            return answer.pass();
        }
        if self.asking.contains(name) {
            return Pass::Asked;
        }
        if now < self.paused_until {
            return Pass::Down { until: self.paused_until };
        }
        // After a failure one question finds out whether there are answers again.
        let at_once = if self.failures < FAILURES_BORNE { self.bounds.asks_at_once } else { 1 };
        if self.asking.len() >= at_once {
            return Pass::Busy;
        }
        self.asking.insert(name.clone());
        Pass::Ask
    }

    /// How it stands with a name, without asking for it.
    pub(crate) fn look(&self, name: &Name, now: UnixSeconds) -> Pass {
        match self.answers.get(name) {
            Some(answer) if now < answer.until => answer.pass(),
            _ if self.asking.contains(name) => Pass::Asked,
            _ => Pass::Down { until: self.paused_until.max(now) },
        }
    }

    pub(crate) fn answered(&mut self, name: &Name, verdict: Verdict, now: UnixSeconds) {
        self.asking.remove(name);
        match verdict {
            Verdict::Down => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES_BORNE {
                    let chance = Chance::of(self.seed, (now, self.failures));
                    let wait = BACKOFF.seconds(self.failures - FAILURES_BORNE + 1, chance);
                    self.paused_until = now.plus(wait);
                }
            }
            Verdict::No => {
                self.failures = 0;
                self.refuse(name, now.plus(self.bounds.refused_seconds), now);
            }
            Verdict::Yes => self.failures = 0,
        }
    }

    /// Remembers that a name gets nothing until then; the refusal that ends first makes room for it.
    pub(crate) fn refuse(&mut self, name: &Name, until: UnixSeconds, now: UnixSeconds) {
        self.remember(name, Answer { until, is_refusal: true }, now);
    }

    /// Remembers that a name that may have a certificate gets none until then: nobody need be asked before.
    pub(crate) fn postpone(&mut self, name: &Name, until: UnixSeconds, now: UnixSeconds) {
        self.remember(name, Answer { until, is_refusal: false }, now);
    }

    fn remember(&mut self, name: &Name, answer: Answer, now: UnixSeconds) {
        self.expire(now);
        self.forget(name);
        while self.answers.len() >= self.bounds.refused_max.max(1) {
            let Some((_, first)) = self.ends.pop_first() else { break };
            self.answers.remove(&first);
        }
        self.answers.insert(name.clone(), answer);
        self.ends.insert((answer.until, name.clone()));
    }

    /// A name that has become known is refused no longer.
    pub(crate) fn forget(&mut self, name: &Name) {
        if let Some(answer) = self.answers.remove(name) {
            self.ends.remove(&(answer.until, name.clone()));
        }
    }

    /// How many refusals are remembered.
    pub(crate) fn refused(&self) -> usize {
        self.answers.values().filter(|answer| answer.is_refusal).count()
    }

    pub(crate) fn asking(&self) -> usize {
        self.asking.len()
    }

    fn expire(&mut self, now: UnixSeconds) {
        while self.ends.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, name)) = self.ends.pop_first() {
                self.answers.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_782_864_000);

    fn name(number: usize) -> Name {
        Name::parse(&format!("n{number}.example")).expect("a host name")
    }

    fn gate() -> Gate {
        Gate::new(GateBounds { asks_at_once: 4, refused_max: 10, refused_seconds: 600 }, true, 7)
    }

    #[test]
    fn a_refusal_is_remembered_for_its_time() {
        let mut gate = gate();
        assert_eq!(gate.pass(&name(1), NOW), Pass::Ask);
        assert_eq!(gate.pass(&name(1), NOW), Pass::Asked);
        gate.answered(&name(1), Verdict::No, NOW);
        assert_eq!(gate.pass(&name(1), NOW.plus(599)), Pass::Refused { until: NOW.plus(600) });
        assert_eq!(gate.pass(&name(1), NOW.plus(600)), Pass::Ask);
        gate.answered(&name(1), Verdict::Yes, NOW);
        gate.refuse(&name(2), NOW.plus(60), NOW);
        gate.forget(&name(2));
        assert_eq!(gate.pass(&name(2), NOW), Pass::Ask);
    }

    #[test]
    fn a_flood_is_bounded_in_memory_and_in_questions() {
        let mut gate = gate();
        for number in 0..100_000 {
            if gate.pass(&name(number), NOW) == Pass::Ask && number % 2 == 0 {
                gate.answered(&name(number), Verdict::No, NOW);
            }
            assert!(gate.refused() <= 10 && gate.asking() <= 4);
            assert_eq!(gate.ends.len(), gate.refused());
        }
        assert_eq!(gate.pass(&name(100_001), NOW), Pass::Busy);
    }

    #[test]
    fn questions_without_answer_are_held_back_until_one_is_answered() {
        let mut gate = gate();
        for number in 0..3 {
            assert_eq!(gate.pass(&name(number), NOW), Pass::Ask);
            gate.answered(&name(number), Verdict::Down, NOW);
        }
        let Pass::Down { until } = gate.pass(&name(9), NOW) else { panic!("not held back") };
        assert!(until > NOW && until <= NOW.plus(2));
        assert_eq!(gate.pass(&name(9), until), Pass::Ask);
        assert_eq!(gate.pass(&name(10), until), Pass::Busy, "one question tries");
        gate.answered(&name(9), Verdict::Down, until);
        assert!(matches!(gate.pass(&name(9), until), Pass::Down { .. }));
        assert_eq!(gate.pass(&name(9), until.plus(60)), Pass::Ask);
        gate.answered(&name(9), Verdict::Yes, until.plus(60));
        assert_eq!(gate.pass(&name(10), until.plus(60)), Pass::Ask);
        assert_eq!(gate.pass(&name(11), until.plus(60)), Pass::Ask);
    }

    #[test]
    fn with_nobody_to_ask_nothing_is_remembered() {
        let mut gate =
            Gate::new(GateBounds { asks_at_once: 4, refused_max: 10, refused_seconds: 600 }, false, 7);
        for number in 0..100 {
            assert_eq!(gate.pass(&name(number), NOW), Pass::Nobody);
        }
        assert_eq!((gate.refused(), gate.asking()), (0, 0));
    }
}
