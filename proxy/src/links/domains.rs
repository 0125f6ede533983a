//! Customers' domains: which hosts of the database belong to which site, and what a load may change of them.
//!
//! Invariants:
//! - [`Domains`] never changes: a load makes a new value.
//! - A domain ends when its row says so, or was absent from every load for as long as the guard asks
//!   (promise P9). A load that would drop too many changes nothing about those that it lacks.
//! - A row that cannot be taken costs nobody else anything; it is counted, and the first ones are listed.
//!
//! Whether a site of that name is configured, and how its pages then look, is decided where sites are built.

pub mod file;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::guard::{self, Counts, Held, Verdict};
use super::namespaces::NAME_BYTES_MAX;
use crate::database::DomainRow;
use crate::event::UnixMillis;
use crate::route::HostPattern;

/// The most refused rows that are listed; all are counted.
pub const REFUSALS_MAX: usize = 1000;
/// The longest `brand`: a name, a colour, and a logo within a page's bound.
pub const BRAND_BYTES_MAX: usize = 48 << 10;
const TOO_MANY: &str = "there are more domains than links.domains_max allows";
/// The longest name of a site that is kept.
const SITE_BYTES_MAX: usize = 255;

/// One customer's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The name of its site.
    pub site: Box<str>,
    /// The namespace of its tokens; empty for its site's.
    pub namespace: Box<[u8]>,
    /// What differs from its site's look, as the database has it; empty where nothing does. Domains of one
    /// load that look alike share it, and what does not change is shared by one load and the next.
    pub brand: Arc<str>,
    /// Whether it is switched off: nobody answers for it then.
    pub disabled: bool,
    /// Since when complete loads do not have it.
    pub absent_since: Option<UnixMillis>,
}

/// All of them at one moment.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    by_host: BTreeMap<Box<str>, Domain>,
    refusals: Vec<Refusal>,
    refused: u64,
}

/// A row as a database has it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The host as somebody wrote it.
    pub host: &'a str,
    /// The name of its site.
    pub site: &'a str,
    /// The namespace of its tokens.
    pub namespace: &'a [u8],
    /// What differs from its site's look.
    pub brand: &'a str,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl<'a> From<&'a DomainRow> for Row<'a> {
    fn from(row: &'a DomainRow) -> Self {
        let DomainRow { host, site, namespace, brand, disabled, deleted } = row;
        Self { host, site, namespace, brand, disabled: *disabled, deleted: *deleted }
    }
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its host, cut where it is too long.
    pub host: Box<str>,
    /// Why.
    pub reason: Box<str>,
}

/// How loads are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a domain is forgotten, and when a load is held.
    pub guard: guard::Settings,
    /// How many domains are kept.
    pub domains_max: usize,
    /// The bytes of all their different brands together.
    pub brands_bytes_max: u64,
}

/// What a load made of the domains.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The domains from now on.
    pub domains: Domains,
    /// Why those that the load lacks are held as they were.
    pub held: Option<Held>,
    /// Whether anything is different.
    pub is_change: bool,
}

impl Domains {
    /// The domains, in the order of their hosts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Domain)> {
        self.by_host.iter().map(|(host, domain)| (&**host, domain))
    }

    /// The domain of a host in its one spelling.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<&Domain> {
        self.by_host.get(host)
    }

    /// How many there are, disabled and absent ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_host.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }

    /// The first rows that the last load could not take.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// How many rows the last load could not take.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn refuse(&mut self, host: &str, reason: impl fmt::Display) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            let host = host.chars().take(300).collect::<String>().into();
            self.refusals.push(Refusal { host, reason: reason.to_string().into() });
        }
    }

    /// Begins a complete load over these domains.
    #[must_use]
    pub fn load(&self, settings: Settings) -> Load<'_> {
        Load {
            known: self,
            settings,
            next: Self::default(),
            unknown: 0,
            deleted: Vec::new(),
            brands: Brands::default(),
        }
    }
}

/// Texts of which equal ones are kept once.
#[derive(Debug, Default)]
struct Brands {
    known: HashSet<Arc<str>>,
    bytes: u64,
}

impl Brands {
    /// The brand, as its domain had it `before` if that is the same, unless all of them would then take more
    /// than `bytes_max`.
    fn keep(&mut self, brand: &str, before: Option<&Arc<str>>, bytes_max: u64) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(brand) {
            return Some(Arc::clone(known));
        }
        let bytes = self.bytes + brand.len() as u64;
        if bytes > bytes_max {
            return None;
        }
        self.bytes = bytes;
        let brand = before.filter(|before| ***before == *brand).cloned().unwrap_or_else(|| brand.into());
        self.known.insert(Arc::clone(&brand));
        Some(brand)
    }
}

/// A complete load on its way; it takes no more memory than its bounds allow, however many rows come.
#[derive(Debug)]
pub struct Load<'a> {
    known: &'a Domains,
    settings: Settings,
    next: Domains,
    /// How many of `next` were not known before.
    unknown: usize,
    /// Known hosts with a tombstone.
    deleted: Vec<Box<str>>,
    brands: Brands,
}

impl Load<'_> {
    /// Takes the next row; of two rows for one host the later one counts, and any counts more than a tombstone.
    pub fn row(&mut self, row: Row<'_>) {
        let host = match spelled(row.host) {
            Ok(host) => host,
            Err(reason) => return self.next.refuse(row.host, reason),
        };
        let known = self.known.get(&host);
        if row.deleted {
            // Ends what is known, but no row: a renamed one leaves its old spelling behind.
            if known.is_some() {
                self.deleted.push(host);
            }
            return;
        }
        if let Err(reason) = check_bounds(&row) {
            self.next.refuse(&host, reason);
            // It goes on as it was: what is wrong with the row need not be wrong with the host.
            if let Some(known) = known {
                self.next.by_host.insert(host, known.clone());
            }
            return;
        }
        if known.is_none() && !self.next.by_host.contains_key(&host) {
            if self.unknown >= self.settings.domains_max {
                return self.next.refuse(&host, TOO_MANY);
            }
            self.unknown += 1;
        }
        let brand = match row.brand.trim() {
            "{}" => "",
            brand => brand,
        };
        let before = known.map(|known| &known.brand);
        let brand = self.brands.keep(brand, before, self.settings.brands_bytes_max).unwrap_or_else(|| {
            self.next.refuse(
                &host,
                "its pages look like the site's, for the brands of all domains take more than links.brands_max allows",
            );
            Arc::default()
        });
        let domain = Domain {
            site: row.site.into(),
            namespace: row.namespace.into(),
            brand,
            disabled: row.disabled,
            absent_since: None,
        };
        self.next.by_host.insert(host, domain);
    }

    /// What became of the domains, once all rows were given.
    /// `accepted` is the held load that somebody accepted.
    #[must_use]
    pub fn finish(mut self, accepted: Option<&Held>, now: UnixMillis) -> Merged {
        self.deleted.sort_unstable();
        let held = self.carry(accepted, now);
        self.leave_out();
        let Self { known, next, .. } = self;
        let is_change = next.by_host != known.by_host || next.refused != known.refused;
        Merged { domains: next, held, is_change }
    }

    /// Carries over what the load lacks.
    fn carry(&mut self, accepted: Option<&Held>, now: UnixMillis) -> Option<Held> {
        let Self { known, settings, next, deleted, .. } = self;
        let is_lacking = |host: &str| {
            !next.by_host.contains_key(host) && deleted.binary_search_by(|known| (**known).cmp(host)).is_err()
        };
        let lacking: Vec<_> = known.by_host.iter().filter(|(host, _)| is_lacking(host)).collect();
        let is_over = |domain: &Domain| {
            domain.absent_since.is_some_and(|since| now.since(since) > settings.guard.forget_after)
        };
        let live = || lacking.iter().map(|(_, domain)| *domain).filter(|domain| !domain.disabled);
        let counts = Counts {
            known: known.by_host.values().filter(|domain| !domain.disabled).count() as u64,
            newly_absent: live().filter(|domain| domain.absent_since.is_none()).count() as u64,
            forgotten: live().filter(|domain| is_over(domain)).count() as u64,
            ..Counts::default()
        };
        let held = match guard::decide(&counts, &settings.guard, accepted) {
            Verdict::Take => None,
            Verdict::Hold(held) => Some(held),
        };
        for (host, domain) in lacking {
            if held.is_none() && is_over(domain) {
                continue;
            }
            let mut domain = domain.clone();
            if held.is_none() {
                domain.absent_since = domain.absent_since.or(Some(now));
            }
            next.by_host.insert(host.clone(), domain);
        }
        held
    }

    /// Refuses the last of the unknown ones where there are too many together with those that are known, which
    /// stay even where somebody lowered the bound.
    fn leave_out(&mut self) {
        let excess = self.next.len().saturating_sub(self.settings.domains_max);
        let unknown = self.next.by_host.keys().rev().filter(|host| self.known.get(host).is_none());
        let left_out: Vec<_> = unknown.take(excess).cloned().collect();
        for host in left_out {
            self.next.by_host.remove(&host);
            self.next.refuse(&host, TOO_MANY);
        }
    }
}

/// The row's host in its one spelling.
///
/// # Errors
/// What is wrong with the row, in words for people.
pub fn check(row: &Row<'_>) -> Result<Box<str>, String> {
    let host = spelled(row.host)?;
    check_bounds(row)?;
    Ok(host)
}

/// A host in its one spelling.
fn spelled(host: &str) -> Result<Box<str>, String> {
    match HostPattern::parse(host).map_err(|fault| fault.to_string())? {
        HostPattern::Exact(host) => {
            String::from_utf8(host.into()).map(Into::into).map_err(|_| "no host name".to_owned())
        }
        HostPattern::Below(_) => {
            Err("a wildcard; a customer's domain is one host, wildcards stand in the configuration"
                .to_owned())
        }
    }
}

fn check_bounds(row: &Row<'_>) -> Result<(), String> {
    if row.site.is_empty() || row.site.len() > SITE_BYTES_MAX {
        return Err(format!(
            "the name of its site has {} bytes; allowed: 1 to {SITE_BYTES_MAX}",
            row.site.len()
        ));
    }
    if row.namespace.len() > NAME_BYTES_MAX {
        return Err(format!(
            "its namespace has {} bytes; allowed: up to {NAME_BYTES_MAX}",
            row.namespace.len()
        ));
    }
    if row.brand.len() > BRAND_BYTES_MAX {
        return Err(format!("its brand has {} bytes; allowed: up to {BRAND_BYTES_MAX}", row.brand.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
