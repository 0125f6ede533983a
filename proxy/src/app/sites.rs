//! Configured sites → the value that data threads read, and each site's share of the journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderValue;

use super::RunError;
use crate::config::{Config, SiteTls};
use crate::front::sites::{Site, Sites};
use crate::journal::{Journal, Tag};
use crate::links::namespaces::Namespaces;
use crate::metrics::Plane;
use crate::respond::pages::Pages;
use crate::route::HostMap;

/// Which sites fill more than their share of the journal with what is not delivered; the flags
/// outlive a reload.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    flags: HashMap<String, Arc<AtomicBool>>,
}

impl Shares {
    /// Looks at what each site's undelivered records take on disk; a lone site may have all of it.
    pub(super) fn measure(&self, journal: &Journal, share_bytes: u64) {
        for (name, flag) in &self.flags {
            let over = self.flags.len() > 1 && journal.undelivered(tag(name)) > share_bytes;
            if flag.swap(over, Relaxed) != over {
                if over {
                    tracing::error!(
                        site = name,
                        "the site fills its share of the journal; its hits are answered but not recorded"
                    );
                } else {
                    tracing::info!(site = name, "the site is within its share of the journal again");
                }
            }
        }
    }
}

/// A site's records in the journal; the same in every run, so that older journals count too.
fn tag(name: &str) -> Tag {
    Tag(crc32c::crc32c(name.as_bytes()))
}

/// `Strict-Transport-Security` as a site's answers carry it (RFC 6797).
fn hsts(tls: &SiteTls) -> Option<HeaderValue> {
    if tls.hsts.is_zero() {
        return None;
    }
    let below = if tls.hsts_subdomains { "; includeSubDomains" } else { "" };
    HeaderValue::try_from(format!("max-age={}{below}", tls.hsts.as_secs())).ok()
}

/// Builds the published value.
pub(super) fn build(
    config: &Config,
    namespaces: &Namespaces,
    plane: &Plane,
    shares: &mut Shares,
) -> Result<Sites, RunError> {
    let mut hosts = HostMap::default();
    let mut sites = Vec::with_capacity(config.sites.len());
    let mut flags = HashMap::new();
    for (place, site) in (0u32..).zip(&config.sites) {
        for host in &site.hosts {
            hosts.insert(host.clone(), place);
        }
        let flag = shares.flags.get(&site.name).cloned().unwrap_or_default();
        flags.insert(site.name.clone(), Arc::clone(&flag));
        sites.push(Site {
            name: site.name.clone(),
            namespace_name: site.namespace.as_bytes().into(),
            namespace: namespaces
                .intern(site.namespace.as_bytes())
                .map_err(|fault| RunError::Namespace(site.name.clone(), fault))?,
            routes: site.routes.clone(),
            pages: Pages::new(&site.brand),
            tag: tag(&site.name),
            counters: plane.sites.site(&site.name),
            https_redirect: site.tls.redirect,
            hsts: hsts(&site.tls),
            over_share: flag,
        });
    }
    shares.flags = flags;
    let default = config
        .listen
        .default_site
        .as_ref()
        .and_then(|name| sites.iter().position(|site| site.name == *name))
        .and_then(|place| u32::try_from(place).ok());
    Ok(Sites { hosts, sites, default, neutral: Pages::neutral() })
}
