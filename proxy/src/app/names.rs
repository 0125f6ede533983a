//! Which hosts this edge knows, as far as certificates are concerned: one place for all that has hosts.
//!
//! It reads the published sites, so whatever adds hosts to them adds names here.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::front::sites::Sites;
use crate::route::Host;

/// What the data threads read.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<ArcSwap<Sites>>);

impl Names {
    pub(super) fn new(sites: &Arc<ArcSwap<Sites>>) -> Self {
        Self(Arc::clone(sites))
    }

    /// Whether a site has `name`.
    pub(super) fn is_known(&self, name: &str) -> bool {
        let mut scratch = Vec::new();
        Host::parse(name.as_bytes(), &mut scratch).is_ok_and(|host| self.0.load().knows(host))
    }

    /// The hosts of this moment.
    pub(super) fn now(&self) -> Known {
        Known(self.0.load_full())
    }
}

/// The hosts of one moment.
#[derive(Debug)]
pub(super) struct Known(Arc<Sites>);

impl Known {
    /// Whether nothing was published in between.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Those that are named whole, in any order.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        // A host is ASCII.
        self.0.named().filter_map(|host| str::from_utf8(host).ok())
    }

    /// Those below which every host belongs to a site, with their `*.`, in any order.
    pub(super) fn wildcards(&self) -> impl Iterator<Item = String> {
        self.0.hosts.below().filter_map(|host| str::from_utf8(host).ok()).map(|host| format!("*.{host}"))
    }
}
