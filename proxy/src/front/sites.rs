//! The sites as the data threads read them: hosts, routes, pages, counters; replaced whole by a reload and
//! whenever customers' domains change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderValue;

use crate::journal::Tag;
use crate::links::domains::{Domains, Refusal};
use crate::links::namespaces::NamespaceId;
use crate::metrics::SiteCounters;
use crate::respond::Permanent;
use crate::respond::pages::Pages;
use crate::route::{Host, HostMap, Routes};

/// The place of a host that nobody answers for, whatever a wildcard says: a domain that is switched off.
pub const NOBODY: u32 = u32::MAX;

/// All sites, and whose hosts they are.
#[derive(Debug)]
pub struct Sites {
    /// The place of a host's site, or [`NOBODY`].
    pub hosts: HostMap<u32>,
    /// The sites, and behind them those that differ for customers: in namespace, in look, or in both.
    pub sites: Vec<Site>,
    /// The site that answers for hosts nobody knows.
    pub default: Option<u32>,
    /// The pages for requests of no site.
    pub neutral: Pages,
    /// What was made of customers' domains.
    pub customers: Customers,
}

/// What was made of customers' domains.
#[derive(Debug, Default)]
pub struct Customers {
    /// The domains themselves.
    pub domains: Arc<Domains>,
    /// How many of them are answered for.
    pub served: u64,
    /// How many are switched off.
    pub disabled: u64,
    /// How many of those that are answered for the last load lacked.
    pub absent: u64,
    /// How many are not served, or not as they ask.
    pub refused: u64,
    /// The first of them, and why.
    pub refusals: Vec<Refusal>,
}

impl Sites {
    /// The site that answers for `host`.
    #[must_use]
    pub fn find(&self, host: Host<'_>) -> Option<&Site> {
        let place = self.hosts.find(host).copied().or(self.default)?;
        self.sites.get(place as usize)
    }

    /// Whether a site has `host`, by itself or below a wildcard. A site that answers for hosts which nobody
    /// knows does not make them known.
    #[must_use]
    pub fn knows(&self, host: Host<'_>) -> bool {
        self.hosts.find(host).is_some_and(|&place| place != NOBODY)
    }

    /// The hosts that a site has by their own names, in any order.
    pub fn named(&self) -> impl Iterator<Item = &[u8]> {
        self.hosts.exact().filter(|(_, place)| **place != NOBODY).map(|(host, _)| host)
    }
}

/// One site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The namespace of its tokens, by name.
    pub namespace_name: Arc<[u8]>,
    /// The namespace of its tokens.
    pub namespace: NamespaceId,
    /// Its routes.
    pub routes: Arc<Routes>,
    /// Its pages.
    pub pages: Arc<Pages>,
    /// The owner of its records in the journal.
    pub tag: Tag,
    /// Its counters, one set for each data thread.
    pub counters: SiteCounters,
    /// How clients that come without TLS are sent to it; `None` answers them.
    pub https_redirect: Option<Permanent>,
    /// `Strict-Transport-Security` of its answers over TLS.
    pub hsts: Option<HeaderValue>,
    /// Raised while its records fill more than its share of the journal.
    pub over_share: Arc<AtomicBool>,
}

impl Site {
    /// Whether its records fill more than its share of the journal.
    #[must_use]
    pub fn is_over_share(&self) -> bool {
        self.over_share.load(Relaxed)
    }

    /// Whether `other` is the same site with the same namespace, so that one connection may be for hosts of both.
    #[must_use]
    pub fn shares_links_with(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.name == other.name
    }
}
