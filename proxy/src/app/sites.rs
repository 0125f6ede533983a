//! Configured sites → the value that data threads read, and each site's share of the journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderValue;

use super::RunError;
use crate::config::{Config, SiteTls};
use crate::front::sites::{Customers, NOBODY, Site, Sites};
use crate::journal::{Journal, Tag};
use crate::links::domains::{Domains, REFUSALS_MAX, Refusal};
use crate::links::namespaces::Namespaces;
use crate::metrics::Plane;
use crate::respond::brand::Overrides;
use crate::respond::pages::Pages;
use crate::route::{HostMap, HostPattern};

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

/// Pages that were prepared for customers' looks, so that they are not prepared anew for each change of
/// somebody else's: by their site and by where the brand's text lies, for that is shared (see [`Domains`]) and may
/// be long. The text is held, so nothing else comes to lie there.
#[derive(Debug, Default)]
pub(super) struct Looks(HashMap<(u32, usize), (Arc<str>, Arc<Pages>)>);

/// Builds the published value.
pub(super) fn build(
    config: &Config,
    namespaces: &Namespaces,
    plane: &Plane,
    shares: &mut Shares,
    domains: Arc<Domains>,
    looks: &mut Looks,
) -> Result<Sites, RunError> {
    let neutral = Pages::neutral();
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
            name: site.name.as_str().into(),
            namespace_name: site.namespace.as_bytes().into(),
            namespace: namespaces
                .intern(site.namespace.as_bytes())
                .map_err(|fault| RunError::Namespace(site.name.clone(), fault))?,
            routes: Arc::new(site.routes.clone()),
            pages: Arc::new(neutral.of(&site.brand)),
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
        .and_then(|name| sites.iter().position(|site| *site.name == **name))
        .and_then(|place| u32::try_from(place).ok());
    let customers = add_customers(config, namespaces, domains, looks, &mut hosts, &mut sites);
    Ok(Sites { hosts, sites, default, neutral, customers })
}

/// Adds the hosts of customers, and a site of their own for those that differ from the configured one.
///
/// A host of the configuration stays what it is there; a row that cannot be taken costs nobody else anything.
fn add_customers(
    config: &Config,
    namespaces: &Namespaces,
    domains: Arc<Domains>,
    looks: &mut Looks,
    hosts: &mut HostMap<u32>,
    sites: &mut Vec<Site>,
) -> Customers {
    let places: HashMap<&str, u32> = config.sites.iter().map(|site| site.name.as_str()).zip(0..).collect();
    let mut variants: HashMap<(u32, &[u8], usize), u32> = HashMap::new();
    let mut refusals = Vec::new();
    let (mut served, mut disabled, mut absent, mut refused) = (0, 0, 0, 0);
    let mut dressed = HashMap::new();
    for (host, domain) in domains.iter() {
        let mut refuse = |reason: String| {
            refused += 1;
            if refusals.len() < REFUSALS_MAX {
                refusals.push(Refusal { host: host.into(), reason: reason.into() });
            }
        };
        if hosts.has(host.as_bytes()) {
            refuse("the configuration has this host itself, which holds".to_owned());
            continue;
        }
        let exact = HostPattern::Exact(host.as_bytes().into());
        if domain.disabled {
            hosts.insert(exact, NOBODY);
            disabled += 1;
            continue;
        }
        let Some(&base) = places.get(&*domain.site) else {
            refuse(format!("the configuration has no site {:?}", domain.site));
            continue;
        };
        let Some((configured, site)) = config.sites.get(base as usize).zip(sites.get(base as usize)) else {
            continue;
        };
        let own_namespace = !domain.namespace.is_empty() && *domain.namespace != *site.namespace_name;
        let namespace = if own_namespace { &*domain.namespace } else { b"" };
        // Where there is no text, it lies nowhere.
        let brand_at = if domain.brand.is_empty() { 0 } else { domain.brand.as_ptr().addr() };
        let place = match variants.get(&(base, namespace, brand_at)) {
            Some(&place) => place,
            None if namespace.is_empty() && domain.brand.is_empty() => base,
            None => {
                let mut variant = site.clone();
                let mut is_sound = true;
                if own_namespace {
                    match namespaces.intern(namespace) {
                        Ok(id) => (variant.namespace, variant.namespace_name) = (id, namespace.into()),
                        Err(fault) => {
                            refuse(format!("its namespace cannot be used: {fault}"));
                            continue;
                        }
                    }
                }
                if !domain.brand.is_empty() {
                    let look = (base, brand_at);
                    let known = dressed.get(&look).cloned().or_else(|| looks.0.remove(&look));
                    let pages = match known {
                        Some((_, pages)) => Ok(pages),
                        None => Overrides::dress(&configured.brand, &domain.brand)
                            .map(|brand| Arc::new(site.pages.of(&brand))),
                    };
                    match pages {
                        Ok(pages) => {
                            variant.pages = Arc::clone(&pages);
                            dressed.insert(look, (Arc::clone(&domain.brand), pages));
                        }
                        // The host must be answered for, whatever its pages look like.
                        Err(fault) => {
                            is_sound = false;
                            refuse(format!(
                                "its pages look like the site's, for its brand is faulty: {fault}"
                            ));
                        }
                    }
                }
                let place = u32::try_from(sites.len()).expect("domains are bounded far below");
                sites.push(variant);
                if is_sound {
                    variants.insert((base, namespace, brand_at), place);
                }
                place
            }
        };
        hosts.insert(exact, place);
        served += 1;
        absent += u64::from(domain.absent_since.is_some());
    }
    looks.0 = dressed;
    Customers { domains, served, disabled, absent, refused, refusals }
}
