//! The words in which the plan is told what happened and tells what to do.

use crate::UnixSeconds;
use crate::acme::gate::Pass;
use crate::acme::limit::Rate;
use crate::acme::name::Name;

/// How much may be going on at once and in a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Orders at the authority at the same time.
    pub orders_at_once: usize,
    /// Questions to the `ask` address at the same time.
    pub asks_at_once: usize,
    /// Names that are known by demand only, with or without a certificate.
    pub demanded_max: usize,
    /// Refusals that are remembered.
    pub refused_max: usize,
    /// How long a refusal is remembered, in seconds.
    pub refused_seconds: u32,
    /// First orders for the names of one registrable domain; renewals are not counted.
    pub per_domain: Rate,
    /// Orders of all kinds at this authority.
    pub per_authority: Rate,
}

impl Default for Bounds {
    /// Within what Let's Encrypt allows: 50 new certificates per registrable domain in a week and 300
    /// orders per account in three hours.
    fn default() -> Self {
        Self {
            orders_at_once: 8,
            asks_at_once: 16,
            demanded_max: 10_000,
            refused_max: 10_000,
            refused_seconds: 600,
            per_domain: Rate { count: 40, seconds: 7 * 24 * 3600 },
            per_authority: Rate { count: 250, seconds: 3 * 3600 },
        }
    }
}

/// A certificate that is there, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) from: UnixSeconds,
    pub(crate) until: UnixSeconds,
    pub(crate) renew_at: UnixSeconds,
    /// What the authority calls it when asked for its renewal window (RFC 9773).
    pub(crate) id: Option<Box<str>>,
}

impl Held {
    pub(super) fn seconds(&self) -> i64 {
        (self.until.0 - self.from.0).max(0)
    }

    /// Whether so little of the lifetime is left that nothing else is more urgent.
    pub(super) fn is_late(&self, now: UnixSeconds) -> bool {
        self.until.0 - now.0 < self.seconds() / 6
    }
}

/// Something to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Order a certificate, and tell [`super::Plan::ended`].
    Order {
        name: Name,
        /// Failures of this name so far, by which the way of proving is chosen.
        attempt: u32,
        /// The certificate that the new one follows.
        replaces: Option<Box<str>>,
        /// The name was let in on demand some time ago: whether it still may has to be asked again.
        confirm: bool,
    },
    /// Ask the authority when this one should be renewed, and tell [`super::Plan::window`].
    Window { name: Name, id: Box<str> },
    /// Nobody wants it and it has ended long ago: remove what is stored of it.
    Forget { name: Name },
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Issued(Held),
    /// Another edge had ordered it, and this one has it now.
    Adopted(Held),
    Failed {
        blame: Blame,
        why: String,
    },
    /// Whoever is asked says no now.
    NotPermitted,
}

impl Ended {
    /// Whether the authority counts nothing of it by `rate`: it has seen no order, or another edge's, which counts
    /// on the shared account, so long ago that it does so no longer.
    pub(super) fn is_uncounted(&self, rate: Rate, now: UnixSeconds) -> bool {
        match self {
            Self::Adopted(held) => held.from.plus(i64::from(rate.seconds)) <= now,
            Self::NotPermitted => true,
            Self::Failed { blame, .. } => *blame == Blame::Lock,
            Self::Issued(_) => false,
        }
    }
}

/// Who has to change for the next try to succeed, which decides when and for whom that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody: another edge orders the name, and will hand it on.
    Another,
    /// Another process is about to take over, which ended the order in the middle; the authority may count it.
    Cut,
    /// The authority, or the way to it; everything waits.
    Authority {
        /// Seconds that the authority asked to wait.
        retry_after: Option<i64>,
    },
    /// Too much was ordered for the registrable domain, or for the account.
    Domain {
        /// Seconds that the authority asked to wait.
        retry_after: Option<i64>,
    },
    /// This machine: its disk, most likely.
    Here,
    /// The lock between edges can't be asked for.
    Lock,
    /// The name: its DNS points elsewhere, or the authority will not have it.
    Name,
}

/// What a handshake for a name that has no certificate meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// It is there.
    Held,
    /// It is being ordered, or will be at once.
    Joined,
    /// It can't be ordered before then.
    Later { until: UnixSeconds },
    /// Too many names are there by demand.
    Full,
    /// Nobody knows the name yet.
    Unknown(Pass),
}

/// One name with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// Whether it was asked for by configuration or snapshot; otherwise on demand.
    pub wanted: bool,
    /// First and last second of the certificate that is there.
    pub validity: Option<(UnixSeconds, UnixSeconds)>,
    /// When its order or renewal is due; none while it runs, or when there will be none.
    pub due_at: Option<UnixSeconds>,
    /// Whether it is being ordered.
    pub running: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// The latest failure, with its time.
    pub last_error: Option<(UnixSeconds, String)>,
}

/// Counts for one look at the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Names that are known.
    pub names: usize,
    /// Names with a certificate.
    pub held: usize,
    /// Orders under way.
    pub running: usize,
    /// Names that wait for their first certificate.
    pub waiting: usize,
    /// Refusals that are remembered.
    pub refused: usize,
    /// Questions under way.
    pub asking: usize,
    /// Until when nothing is ordered because the authority is down or asked to wait.
    pub paused_until: Option<UnixSeconds>,
    /// When the certificate that ends first ends.
    pub ends_first: Option<UnixSeconds>,
    /// When the next renewal is due.
    pub renewal_next: Option<UnixSeconds>,
}

/// What the authority says about the renewal of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Failed,
    Suggested { start: UnixSeconds, end: UnixSeconds, retry_after: Option<i64> },
    Unsupported,
}
