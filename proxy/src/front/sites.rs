//! The sites as the data threads read them: hosts, routes, pages, counters; replaced whole by a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderValue;

use crate::journal::Tag;
use crate::links::namespaces::NamespaceId;
use crate::metrics::SiteCounters;
use crate::respond::Permanent;
use crate::respond::pages::Pages;
use crate::route::{Host, HostMap, Routes};

/// All sites, and whose hosts they are.
#[derive(Debug)]
pub struct Sites {
    /// The place of a host's site.
    pub hosts: HostMap<u32>,
    /// The sites.
    pub sites: Vec<Site>,
    /// The site that answers for hosts nobody knows.
    pub default: Option<u32>,
    /// The pages for requests of no site.
    pub neutral: Pages,
}

impl Sites {
    /// The site that answers for `host`.
    #[must_use]
    pub fn find(&self, host: Host<'_>) -> Option<&Site> {
        let place = self.hosts.find(host).copied().or(self.default)?;
        self.sites.get(place as usize)
    }
}

/// One site.
#[derive(Debug)]
pub struct Site {
    /// Its name in the configuration.
    pub name: String,
    /// The namespace of its tokens, by name.
    pub namespace_name: Box<[u8]>,
    /// The namespace of its tokens.
    pub namespace: NamespaceId,
    /// Its routes.
    pub routes: Routes,
    /// Its pages.
    pub pages: Pages,
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
}
