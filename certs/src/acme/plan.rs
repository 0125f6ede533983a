//! Decides which certificate to order now, which later and which never; knows neither clock nor network.
//!
//! Every name has one entry, and an entry that waits stands in exactly one of the sorted sets by the
//! second in which something is to be done for it:
//!
//! ```text
//!                 wanted, demanded                      renewal due
//!   (unknown) ──────────────────────▶ urgent ─▶ running ◀───────── renewals ◀─┐
//!       ▲                               ▲         │  │                        │
//!       │  three failures, on demand    │ failed  │  └── held: a certificate ─┤
//!       └───────────────────────────────┴─────────┘                           │
//!                                    farewells ◀── no longer wanted, but held ┘
//! ```
//!
//! Invariants:
//! - A name without permission never leaves this file as something to do.
//! - At most `orders_at_once` orders run, one while the authority is not well; one of the places is
//!   kept for renewals, and a renewal that is late goes before everything else.
//! - A failure of the authority or of this machine is not counted against the name, and what never came
//!   to the authority counts against no rate; what another edge ordered does, for they share an account.
//! - Names that are there by demand leave a quarter of every rate to those that are wanted.
//! - Entries that exist by demand only are bounded by `demanded_max`; all others were given by who
//!   owns the configuration.

mod words;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::gate::{Gate, GateBounds, Pass, Verdict};
use super::limit::{Backoff, Chance, Gauge};
use super::name::Name;
use crate::UnixSeconds;

pub use words::{Blame, Bounds, Listed, Status};
pub(crate) use words::{Demand, Ended, Held, Start, Window};

/// Renewal windows are asked for at most so many at once.
const WINDOWS_AT_ONCE: usize = 4;
const WINDOW_POLL_SECONDS: i64 = 6 * 3600;
const WINDOW_POLL_SECONDS_MIN: i64 = 3600;
const WINDOW_POLL_SECONDS_MAX: i64 = 24 * 3600;

/// Let's Encrypt lets a name fail five times an hour: 0, 2, 6, 14 and 30 minutes after the first.
const NAME_BACKOFF: Backoff = Backoff { first_seconds: 120, seconds_max: 6 * 3600 };
const AUTHORITY_BACKOFF: Backoff = Backoff { first_seconds: 10, seconds_max: 3600 };
const LOCAL_BACKOFF: Backoff = Backoff { first_seconds: 30, seconds_max: 600 };
const LOCK_BACKOFF: Backoff = Backoff { first_seconds: 3, seconds_max: 30 };

/// What a `Retry-After` may ask for: Let's Encrypt's longest window is a week.
const RETRY_AFTER_SECONDS_MAX: i64 = 7 * 24 * 3600;

/// A certificate is not ordered again so soon by itself, nor within a sixth of its lifetime if that is
/// shorter: where the authority's clock or ours is wrong, it looks due as soon as it is there.
const AGAIN_SECONDS_MIN: i64 = 6 * 3600;

/// A name that somebody says no to, and that is served, is asked about again after so long.
const ASK_AGAIN: i64 = 24 * 3600;

/// A name whose domain's orders under way fill its rate is looked at again after so long.
const LOOK_AGAIN: i64 = 60;

/// A name that was let in on demand and has failed so often is forgotten for the time of its back-off.
const DEMANDED_FAILURES_MAX: u32 = 3;

/// A certificate that nobody wants any more is forgotten so long after its end.
const FAREWELL_SECONDS: i64 = 30 * 24 * 3600;

const DOMAINS_SWEEP_MIN: usize = 1024;

/// The longest text of an error that is kept.
const ERROR_BYTES_MAX: usize = 600;

/// When to renew a certificate with these dates: at two thirds of its lifetime, or up to a twentieth
/// of it earlier, so that what was issued together is not renewed together.
pub(crate) fn renewal(from: UnixSeconds, until: UnixSeconds, seed: u64, name: &Name) -> UnixSeconds {
    let lifetime = (until.0 - from.0).max(0);
    let earlier = Chance::of(seed, (name, until)).below(lifetime / 20 + 1);
    from.plus(lifetime / 3 * 2 - earlier)
}

/// How long a name rests after so many failures in a row.
pub(crate) fn wait_of_name(failures: u32) -> Duration {
    Duration::from_secs(NAME_BACKOFF.seconds_of(failures).unsigned_abs())
}

#[derive(Default)]
struct Entry {
    wanted: bool,
    demanded: bool,
    /// Another certificate serves it, so that a demand keeps it no longer, until that one is gone.
    covered: bool,
    held: Option<Held>,
    /// The window that the authority suggested for the renewal.
    window: Option<(UnixSeconds, UnixSeconds)>,
    /// Out of which set it was started, while it runs.
    running: Option<Set>,
    /// Not before then, for it has failed, its domain was limited, or it was issued just now.
    not_before: Option<UnixSeconds>,
    /// Where it stands in the sets, if it does.
    filed: Option<(Set, UnixSeconds)>,
    window_at: Option<UnixSeconds>,
    failures: u32,
    /// Whoever is asked said no the last time; it is served to its end, and nobody need be alarmed.
    refused: bool,
    /// Another edge orders it, which the rates have counted: what comes of it here counts no more.
    counted: bool,
    /// Waits for the lock in a row, or local failures.
    waits: u32,
    last_error: Option<(UnixSeconds, String)>,
}

impl Entry {
    fn permitted(&self) -> bool {
        self.wanted || (self.demanded && !self.covered)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Farewell,
    Renewal,
    Urgent,
}

#[derive(Default)]
struct Domain {
    gauge: Gauge,
    paused_until: Option<UnixSeconds>,
    /// First orders under way; the rate counts them, and what the authority never sees is given back.
    running: u32,
}

#[derive(Default)]
struct Authority {
    gauge: Gauge,
    failures: u32,
    paused_until: Option<UnixSeconds>,
    /// Domains that were limited one after the other: two mean the account.
    limited: HashSet<Box<str>>,
    /// It has no renewal windows.
    windowless: bool,
}

impl Authority {
    /// It has given an answer that is no fault of its own.
    fn is_well(&mut self) {
        self.failures = 0;
        self.paused_until = None;
    }
}

/// All names and what is to be done for them.
pub(crate) struct Plan {
    bounds: Bounds,
    seed: u64,
    gate: Gate,
    names: HashMap<Name, Entry>,
    demanded: usize,
    urgent: BTreeSet<(UnixSeconds, Name)>,
    renewals: BTreeSet<(UnixSeconds, Name)>,
    farewells: BTreeSet<(UnixSeconds, Name)>,
    windows: BTreeSet<(UnixSeconds, Name)>,
    running: usize,
    running_renewals: usize,
    running_windows: usize,
    domains: HashMap<Box<str>, Domain>,
    /// So many domains are looked through for those that need not be remembered.
    domains_sweep_at: usize,
    authority: Authority,
}

impl Plan {
    /// `asks` tells whether there is somebody who can be asked about unknown names.
    pub(crate) fn new(bounds: Bounds, asks: bool, seed: u64) -> Self {
        let gate = GateBounds {
            asks_at_once: bounds.asks_at_once,
            refused_max: bounds.refused_max,
            refused_seconds: i64::from(bounds.refused_seconds),
        };
        Self {
            bounds,
            seed,
            gate: Gate::new(gate, asks, seed),
            names: HashMap::new(),
            demanded: 0,
            urgent: BTreeSet::new(),
            renewals: BTreeSet::new(),
            farewells: BTreeSet::new(),
            windows: BTreeSet::new(),
            running: 0,
            running_renewals: 0,
            running_windows: 0,
            domains: HashMap::new(),
            domains_sweep_at: DOMAINS_SWEEP_MIN,
            authority: Authority::default(),
        }
    }

    /// Takes over certificates that were stored, whoever wants them; what was issued lately counts
    /// against the rates. `demanded` marks those that were there by demand.
    pub(crate) fn restore(&mut self, mut stored: Vec<(Name, Held, bool)>, now: UnixSeconds) {
        stored.sort_by_key(|(_, held, _)| held.from);
        // The authority is not asked for all windows in the first second.
        let spread = i64::try_from(stored.len()).unwrap_or(WINDOW_POLL_SECONDS).min(WINDOW_POLL_SECONDS_MIN);
        for (name, held, demanded) in stored {
            // An authority dates its certificates back by an hour, which makes no difference here.
            let at = held.from.min(now);
            self.authority.gauge.charge(self.bounds.per_authority, at);
            let rate = self.bounds.per_domain;
            self.domain(&name).gauge.charge(rate, at);
            let entry = self.names.entry(name.clone()).or_default();
            entry.held = Some(held);
            if demanded && !entry.demanded {
                entry.demanded = true;
                self.demanded += 1;
            }
            self.file_window(&name, now.plus(Chance::of(self.seed, &name).below(spread)));
            self.file(&name, now);
        }
    }

    /// Replaces the set of names that are wanted without anybody demanding them. A name that `is_covered` by
    /// another certificate is not ordered for by demand, as long as that is so.
    pub(crate) fn wanted(
        &mut self,
        wanted: HashSet<Name>,
        is_covered: impl Fn(&str) -> bool,
        now: UnixSeconds,
    ) {
        let turned: Vec<Name> = self
            .names
            .iter()
            .filter(|(name, entry)| entry.demanded && entry.covered != is_covered(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in turned {
            if let Some(entry) = self.names.get_mut(&name) {
                entry.covered = !entry.covered;
            }
            self.file(&name, now);
        }
        let gone: Vec<Name> = self
            .names
            .iter()
            .filter(|(name, entry)| entry.wanted && !wanted.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(entry) = self.names.get_mut(&name) {
                entry.wanted = false;
            }
            self.file(&name, now);
        }
        for name in wanted {
            self.gate.forget(&name);
            let entry = self.names.entry(name.clone()).or_default();
            if !entry.wanted {
                entry.wanted = true;
                if std::mem::take(&mut entry.refused) {
                    entry.not_before = None;
                }
                self.file(&name, now);
            }
        }
    }

    /// A handshake asks for a name; `known` says whether configuration or snapshot has it.
    pub(crate) fn demand(&mut self, name: &Name, known: bool, now: UnixSeconds) -> Demand {
        if let Some(entry) = self.names.get(name) {
            if entry.held.as_ref().is_some_and(|held| now <= held.until) {
                return Demand::Held;
            }
            if entry.running.is_some() {
                return Demand::Joined;
            }
            if entry.permitted() {
                return self.joined(name, now);
            }
        }
        if !known {
            return unknown(self.gate.pass(name, now));
        }
        self.enter(name, now)
    }

    /// What a handshake meets that has asked for the name before and waits: asks for nothing.
    pub(crate) fn look(&self, name: &Name, now: UnixSeconds) -> Demand {
        match self.names.get(name) {
            Some(entry) if entry.held.as_ref().is_some_and(|held| now <= held.until) => Demand::Held,
            Some(entry) if entry.running.is_some() => Demand::Joined,
            Some(entry) if entry.permitted() => self.joined(name, now),
            _ => unknown(self.gate.look(name, now)),
        }
    }

    /// The answer to a question that [`Plan::demand`] had asked for.
    pub(crate) fn answered(&mut self, name: &Name, verdict: Verdict, now: UnixSeconds) -> Demand {
        self.gate.answered(name, verdict, now);
        match verdict {
            Verdict::Yes => {
                let demand = self.enter(name, now);
                if let Demand::Later { until } = demand {
                    self.gate.postpone(name, until, now);
                }
                demand
            }
            Verdict::Down => Demand::Unknown(Pass::Down { until: now }),
            Verdict::No => {
                Demand::Unknown(Pass::Refused { until: now.plus(i64::from(self.bounds.refused_seconds)) })
            }
        }
    }

    /// Makes a name due at once, whatever it failed for; false when nobody may have it.
    pub(crate) fn renew(&mut self, name: &Name, now: UnixSeconds) -> bool {
        let Some(entry) = self.names.get_mut(name) else { return false };
        if !entry.permitted() {
            return false;
        }
        entry.not_before = None;
        entry.window = None;
        if let Some(held) = &mut entry.held {
            held.renew_at = held.renew_at.min(now);
        }
        self.file(name, now);
        true
    }

    /// A certificate was put in place by hand, of a name that is there by demand from now on, if it is `demanded`.
    pub(crate) fn imported(&mut self, name: &Name, held: Held, demanded: bool, now: UnixSeconds) {
        let entry = self.names.entry(name.clone()).or_default();
        entry.held = Some(held);
        if demanded && !entry.demanded {
            entry.demanded = true;
            self.demanded += 1;
        }
        entry.window = None;
        self.file_window(name, now);
        self.file(name, now);
    }

    /// Everything that is to be done now; call it again after each end, and at [`Plan::wake`].
    pub(crate) fn next(&mut self, now: UnixSeconds) -> Vec<Start> {
        let mut starts = Vec::new();
        if self.domains.len() >= self.domains_sweep_at {
            self.domains.retain(|_, domain| {
                !domain.gauge.is_clear(now)
                    || domain.running > 0
                    || domain.paused_until.is_some_and(|until| until > now)
            });
            self.domains_sweep_at = DOMAINS_SWEEP_MIN.max(self.domains.len() * 2);
        }
        while self.farewells.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.farewells.pop_first() else { break };
            self.remove(&name);
            starts.push(Start::Forget { name });
        }
        while self.running_windows < WINDOWS_AT_ONCE && self.windows.first().is_some_and(|(at, _)| *at <= now)
        {
            let Some((_, name)) = self.windows.pop_first() else { break };
            let Some(entry) = self.names.get_mut(&name) else { continue };
            entry.window_at = None;
            let Some(id) = entry.held.as_ref().and_then(|held| held.id.clone()) else { continue };
            self.running_windows += 1;
            starts.push(Start::Window { name, id });
        }
        while let Some((set, name)) = self.pick(now) {
            if let Some(start) = self.start(set, &name, now) {
                starts.push(start);
            }
        }
        starts
    }

    /// How an order ended that [`Plan::next`] had started.
    pub(crate) fn ended(&mut self, name: &Name, ended: Ended, now: UnixSeconds) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let Some(set) = entry.running.take() else { return };
        self.running -= 1;
        if set == Set::Renewal {
            self.running_renewals -= 1;
        } else {
            let domain = self.domain(name);
            domain.running = domain.running.saturating_sub(1);
        }
        let Some(entry) = self.names.get_mut(name) else { return };
        let blame = match &ended {
            Ended::Failed { blame, .. } => Some(*blame),
            _ => None,
        };
        // Whoever waits for another edge, or then for the lock, is counted once, however often it looks.
        let still_counted = entry.counted && blame == Some(Blame::Lock);
        entry.counted = still_counted || blame == Some(Blame::Another);
        let Bounds { per_authority, per_domain, .. } = self.bounds;
        if !still_counted && ended.is_uncounted(per_authority, now) {
            self.authority.gauge.refund(per_authority);
        }
        if !still_counted && set == Set::Urgent && ended.is_uncounted(per_domain, now) {
            self.domain(name).gauge.refund(per_domain);
        }
        let Some(entry) = self.names.get_mut(name) else { return };
        entry.refused = ended == Ended::NotPermitted;
        match ended {
            Ended::Issued(held) => {
                self.authority.is_well();
                self.authority.limited.clear();
                self.take_up(name, held, now);
            }
            Ended::Adopted(held) => self.take_up(name, held, now),
            // One wrong answer must not end a name that is served: it is asked about until it has ended.
            Ended::NotPermitted
                if entry.held.as_ref().is_some_and(|held| now.plus(ASK_AGAIN) <= held.until) =>
            {
                entry.not_before = Some(now.plus(ASK_AGAIN));
            }
            Ended::NotPermitted => {
                if std::mem::take(&mut entry.demanded) {
                    self.demanded -= 1;
                }
                self.gate.refuse(name, now.plus(i64::from(self.bounds.refused_seconds)), now);
            }
            Ended::Failed { blame, why } => {
                entry.last_error = Some((now, shortened(why)));
                self.blame(name, blame, now);
            }
        }
        self.file(name, now);
    }

    /// The renewal window that the authority suggests, with the seconds until it wants to be asked
    /// again; none when it could not be had.
    pub(crate) fn window(&mut self, name: &Name, window: Window, now: UnixSeconds) {
        self.running_windows = self.running_windows.saturating_sub(1);
        let wait = match window {
            Window::Unsupported => {
                self.authority.windowless = true;
                return;
            }
            Window::Failed => WINDOW_POLL_SECONDS,
            Window::Suggested { start, end, retry_after } => {
                if let Some(entry) = self.names.get_mut(name)
                    && start < end
                {
                    entry.window = Some((start, end));
                }
                let asked = retry_after.unwrap_or(WINDOW_POLL_SECONDS);
                asked.clamp(WINDOW_POLL_SECONDS_MIN, WINDOW_POLL_SECONDS_MAX)
            }
        };
        self.file_window(name, now.plus(wait));
        self.file(name, now);
    }

    /// When [`Plan::next`] has something to do again, if nothing ends before.
    pub(crate) fn wake(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        let first = |set: &BTreeSet<(UnixSeconds, Name)>| set.first().map(|(at, _)| *at);
        let mut at = first(&self.farewells);
        if self.running < self.slots() {
            let order = [first(&self.urgent), first(&self.renewals)].into_iter().flatten().min();
            at = [at, order.map(|due| due.max(self.opens_at(now)))].into_iter().flatten().min();
        }
        if self.running_windows < WINDOWS_AT_ONCE && !self.authority.windowless {
            at = [at, first(&self.windows)].into_iter().flatten().min();
        }
        at
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut list: Vec<Listed> = self
            .names
            .iter()
            .map(|(name, entry)| Listed {
                name: name.clone(),
                wanted: entry.wanted,
                validity: entry.held.as_ref().map(|held| (held.from, held.until)),
                due_at: entry.filed.filter(|(set, _)| *set != Set::Farewell).map(|(_, at)| at),
                running: entry.running.is_some(),
                failures: entry.failures,
                last_error: entry.last_error.clone(),
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    pub(crate) fn status(&self, now: UnixSeconds) -> Status {
        Status {
            names: self.names.len(),
            held: self.names.values().filter(|entry| entry.held.is_some()).count(),
            running: self.running,
            waiting: self.urgent.len(),
            refused: self.gate.refused(),
            asking: self.gate.asking(),
            paused_until: self.authority.paused_until.filter(|until| *until > now),
            ends_first: self
                .names
                .values()
                .filter(|entry| entry.permitted() && !entry.refused)
                .filter_map(|entry| Some(entry.held.as_ref()?.until))
                .min(),
            renewal_next: self.renewals.first().map(|(at, _)| *at),
        }
    }

    pub(crate) fn held(&self, name: &str) -> Option<&Held> {
        self.names.get(name)?.held.as_ref()
    }

    /// Whether configuration or snapshot wants the name.
    pub(crate) fn is_wanted(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|entry| entry.wanted)
    }

    /// Whether a name is there by demand only.
    pub(crate) fn is_demanded(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|entry| entry.demanded)
    }

    fn take_up(&mut self, name: &Name, held: Held, now: UnixSeconds) {
        let Some(entry) = self.names.get_mut(name) else { return };
        entry.not_before = Some(now.plus(AGAIN_SECONDS_MIN.min(held.seconds() / 6)));
        entry.held = Some(held);
        entry.window = None;
        entry.failures = 0;
        entry.waits = 0;
        entry.last_error = None;
        self.file_window(name, now);
    }

    fn blame(&mut self, name: &Name, blame: Blame, now: UnixSeconds) {
        let seed = self.seed;
        let Some(entry) = self.names.get_mut(name) else { return };
        match blame {
            Blame::Name => {
                self.authority.is_well();
                entry.failures = entry.failures.saturating_add(1);
                let wait = NAME_BACKOFF.seconds(entry.failures, Chance::of(seed, (name, now)));
                entry.not_before = Some(now.plus(wait));
                if entry.failures >= DEMANDED_FAILURES_MAX && !entry.wanted && entry.held.is_none() {
                    self.remove(name);
                    self.gate.refuse(name, now.plus(wait), now);
                }
            }
            Blame::Another | Blame::Cut | Blame::Here | Blame::Lock => {
                let backoff = if blame == Blame::Here { LOCAL_BACKOFF } else { LOCK_BACKOFF };
                entry.waits = entry.waits.saturating_add(1);
                let wait = backoff.seconds(entry.waits, Chance::of(seed, (name, now)));
                entry.not_before = Some(now.plus(wait));
            }
            Blame::Domain { retry_after } => {
                let wait =
                    retry_after.unwrap_or(AUTHORITY_BACKOFF.seconds_max).clamp(1, RETRY_AFTER_SECONDS_MAX);
                let until = now.plus(wait);
                self.authority.is_well();
                self.domain(name).paused_until = Some(until);
                self.authority.limited.insert(name.registrable().into());
                if self.authority.limited.len() > 1 {
                    self.authority.paused_until = self.authority.paused_until.max(Some(until));
                    self.authority.limited.clear();
                }
            }
            Blame::Authority { retry_after } => {
                let authority = &mut self.authority;
                authority.failures = authority.failures.saturating_add(1);
                let own = AUTHORITY_BACKOFF.seconds(authority.failures, Chance::of(seed, now));
                let wait = retry_after.map_or(own, |asked| asked.clamp(own, RETRY_AFTER_SECONDS_MAX));
                let until = now.plus(wait);
                authority.paused_until = authority.paused_until.max(Some(until));
                // The next try is another name's: should this one be the cause, it holds nobody up.
                entry.waits = entry.waits.saturating_add(1);
                let back = LOCAL_BACKOFF.seconds(entry.waits, Chance::of(seed, (name, now)));
                entry.not_before = Some(until.plus(back));
            }
        }
    }

    /// The first of those that are due, if a place is free: a late renewal, then a renewal when none
    /// runs, then names without a certificate.
    fn pick(&mut self, now: UnixSeconds) -> Option<(Set, Name)> {
        if self.running >= self.slots() || self.opens_at(now) > now {
            return None;
        }
        let due = |set: &BTreeSet<(UnixSeconds, Name)>| {
            set.first().filter(|(at, _)| *at <= now).map(|(_, name)| name.clone())
        };
        match (due(&self.renewals), due(&self.urgent)) {
            (Some(renewal), Some(urgent)) => {
                let held = self.held(renewal.as_str());
                let first = self.running_renewals == 0 || held.is_some_and(|held| held.is_late(now));
                Some(if first { (Set::Renewal, renewal) } else { (Set::Urgent, urgent) })
            }
            (Some(renewal), None) => Some((Set::Renewal, renewal)),
            (None, urgent) => Some((Set::Urgent, urgent?)),
        }
    }

    /// Starts it, or files it anew for when its domain may have one.
    fn start(&mut self, set: Set, name: &Name, now: UnixSeconds) -> Option<Start> {
        let is_counted = self.names.get(name).is_some_and(|entry| entry.counted);
        // Only a first order waits for the rates.
        let free_at = self.free_at(name, if is_counted { Set::Renewal } else { set }, now);
        if free_at > now {
            // What runs may never come to the authority; then its place is free much sooner.
            let domain = self.domains.get(name.registrable());
            let is_soon = domain.is_some_and(|domain| domain.running > 0 && domain.paused_until <= Some(now));
            let look_at = if is_soon { free_at.min(now.plus(LOOK_AGAIN)) } else { free_at };
            let entry = self.names.get_mut(name)?;
            entry.not_before = Some(look_at);
            if entry.wanted || entry.held.is_some() {
                self.file(name, now);
            } else {
                // Whoever wants it comes again; until then it takes nobody's room.
                self.remove(name);
                self.gate.postpone(name, free_at, now);
            }
            return None;
        }
        self.unfile(name);
        if !is_counted {
            self.authority.gauge.charge(self.bounds.per_authority, now);
        }
        if !is_counted && set == Set::Urgent {
            let rate = self.bounds.per_domain;
            self.domain(name).gauge.charge(rate, now);
        }
        let windowless = self.authority.windowless;
        let entry = self.names.get_mut(name)?;
        entry.running = Some(set);
        entry.not_before = None;
        self.running += 1;
        if set == Set::Renewal {
            self.running_renewals += 1;
        } else {
            self.domain(name).running += 1;
        }
        let entry = self.names.get_mut(name)?;
        let replaces = entry.held.as_ref().and_then(|held| held.id.clone()).filter(|_| !windowless);
        let confirm = !entry.wanted && entry.held.is_some();
        Some(Start::Order { name: name.clone(), attempt: entry.failures, replaces, confirm })
    }

    fn joined(&self, name: &Name, now: UnixSeconds) -> Demand {
        let not_before = self.names.get(name).and_then(|entry| entry.not_before).unwrap_or(now);
        let until = not_before.max(self.opens_at(now)).max(self.free_at(name, Set::Urgent, now));
        if until > now { Demand::Later { until } } else { Demand::Joined }
    }

    /// When the rates let the name be ordered, its domain's above all.
    fn free_at(&self, name: &Name, set: Set, now: UnixSeconds) -> UnixSeconds {
        let domain = self.domains.get(name.registrable());
        let paused = domain.and_then(|domain| domain.paused_until).unwrap_or(now).max(now);
        if set != Set::Urgent {
            return paused;
        }
        let Bounds { per_domain, per_authority, .. } = self.bounds;
        let gauge = domain.map(|domain| domain.gauge).unwrap_or_default();
        paused.max(if self.names.get(name).is_some_and(|entry| entry.wanted) {
            gauge.free_at(per_domain, now)
        } else {
            let authority = self.authority.gauge.free_at(per_authority.most(), now);
            gauge.free_at(per_domain.most(), now).max(authority)
        })
    }

    fn slots(&self) -> usize {
        // One order finds out whether the authority is well again.
        if self.authority.failures > 0 { 1 } else { self.bounds.orders_at_once.max(1) }
    }

    fn opens_at(&self, now: UnixSeconds) -> UnixSeconds {
        let rated = self.authority.gauge.free_at(self.bounds.per_authority, now);
        rated.max(self.authority.paused_until.unwrap_or(now))
    }

    /// Lets a name in that may have a certificate, unless it would only wait and take others' room.
    fn enter(&mut self, name: &Name, now: UnixSeconds) -> Demand {
        let free_at = self.free_at(name, Set::Urgent, now);
        if free_at > now {
            return Demand::Later { until: free_at };
        }
        if self.admit(name, now) { self.joined(name, now) } else { Demand::Full }
    }

    fn admit(&mut self, name: &Name, now: UnixSeconds) -> bool {
        let known = self.names.get(name).is_some_and(|entry| entry.wanted || entry.demanded);
        if !known && self.demanded >= self.bounds.demanded_max {
            return false;
        }
        self.gate.forget(name);
        let entry = self.names.entry(name.clone()).or_default();
        if !entry.permitted() {
            entry.refused = false;
            // Whoever comes here found no other certificate.
            entry.covered = false;
            if !entry.demanded {
                entry.demanded = true;
                self.demanded += 1;
            }
        }
        self.file(name, now);
        true
    }

    /// Puts a name where it belongs by what is known of it.
    fn file(&mut self, name: &Name, now: UnixSeconds) {
        self.unfile(name);
        let Some(entry) = self.names.get(name) else { return };
        if entry.running.is_some() {
            return;
        }
        let not_before = entry.not_before.unwrap_or(UnixSeconds(i64::MIN));
        let (set, at) = match &entry.held {
            None if !entry.permitted() => return self.remove(name),
            None => (Set::Urgent, now),
            Some(held) if !entry.permitted() => (Set::Farewell, held.until.plus(FAREWELL_SECONDS)),
            Some(held) => (Set::Renewal, self.renew_at(name, entry, held)),
        };
        let at = if set == Set::Farewell { at } else { at.max(not_before) };
        if let Some(entry) = self.names.get_mut(name) {
            entry.filed = Some((set, at));
        }
        self.set(set).insert((at, name.clone()));
    }

    /// A point of the suggested window, or what was fixed when the certificate was issued; never so
    /// late that less than a third of the lifetime is left.
    fn renew_at(&self, name: &Name, entry: &Entry, held: &Held) -> UnixSeconds {
        let Some((start, end)) = entry.window else { return held.renew_at };
        let into = Chance::of(self.seed, (name, start, end)).below(end.0.saturating_sub(start.0));
        start.plus(into).min(held.until.plus(-(held.seconds() / 3)))
    }

    fn unfile(&mut self, name: &Name) {
        let Some((set, at)) = self.names.get_mut(name).and_then(|entry| entry.filed.take()) else { return };
        self.set(set).remove(&(at, name.clone()));
    }

    fn file_window(&mut self, name: &Name, at: UnixSeconds) {
        let windowless = self.authority.windowless;
        let Some(entry) = self.names.get_mut(name) else { return };
        if let Some(earlier) = entry.window_at.take() {
            self.windows.remove(&(earlier, name.clone()));
        }
        if entry.held.as_ref().is_some_and(|held| held.id.is_some()) && !windowless {
            entry.window_at = Some(at);
            self.windows.insert((at, name.clone()));
        }
    }

    fn remove(&mut self, name: &Name) {
        self.unfile(name);
        let Some(entry) = self.names.remove(name) else { return };
        if let Some(at) = entry.window_at {
            self.windows.remove(&(at, name.clone()));
        }
        if entry.demanded {
            self.demanded -= 1;
        }
    }

    fn set(&mut self, set: Set) -> &mut BTreeSet<(UnixSeconds, Name)> {
        match set {
            Set::Farewell => &mut self.farewells,
            Set::Renewal => &mut self.renewals,
            Set::Urgent => &mut self.urgent,
        }
    }

    fn domain(&mut self, name: &Name) -> &mut Domain {
        self.domains.entry(name.registrable().into()).or_default()
    }
}

fn unknown(pass: Pass) -> Demand {
    match pass {
        Pass::Later { until } => Demand::Later { until },
        pass => Demand::Unknown(pass),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        let mut end = ERROR_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
