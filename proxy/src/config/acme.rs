//! `[tls.acme]`: from whom certificates are ordered, how, how much, and who may have one on demand.

use std::time::Duration;

use certs::acme::{Ask, Authority, Binding, Bounds, Config as Orders, Rate, Way};
use certs::{Roots, Verify};
use url::Url;

use super::fault::{Wrong, quoted};
use super::files;
use super::reader::Section;
use super::tables::optional;
use crate::causes::chain;

/// `[tls.acme]`: certificates that are ordered.
#[derive(Clone, Debug)]
pub struct Acme {
    /// What is ordered from whom.
    pub orders: Orders,
    /// Whether edges that share a database tell each other there what they order.
    pub locks: bool,
}

const DIRECTORY: &str = "the https address of an authority's directory, such as \
     \"https://acme-v02.api.letsencrypt.org/directory\", or \"\" for none";
const ASK: &str = "an http or https address, or \"\" for none";
const CONTACT: &str = "addresses for mail, such as [\"ops@example.com\"]";
const WAYS: &str = "\"http-01\", \"tls-alpn-01\"";
const PROFILE: &str =
    "a name that the authority's directory lists, of letters, digits, - _ or ., or \"\" for none";
const FILE: &str = "the name of a file, or \"\" for none";
const THREE_HOURS_S: u32 = 3 * 3600;
const WEEK_S: u32 = 7 * 24 * 3600;
/// What authorities give is some dozen characters.
const KEY_BYTES_MAX: usize = 4096;

impl Acme {
    /// Reads the table; `None` where there is no authority. `is_used` when something listens for https.
    pub(super) fn read(s: &mut Section<'_>, is_used: bool) -> Option<Self> {
        let directory = s.text("directory", String::new(), DIRECTORY, parse_directory, String::clone);
        if !s.has("directory") && (s.has("terms_agreed") || s.has("contact")) {
            s.missing("directory", DIRECTORY);
        }
        let terms_agreed = s.flag("terms_agreed", false);
        let authority = Authority {
            roots: read_roots(s),
            contacts: s.list("contact", &[], CONTACT, parse_contact).into_iter().map(|(it, _)| it).collect(),
            binding: read_binding(s),
            profile: Some(s.text("profile", String::new(), PROFILE, parse_profile, String::clone))
                .filter(|profile| !profile.is_empty()),
            directory,
        };
        let ways = s.list("ways", &["http-01", "tls-alpn-01"], WAYS, parse_way);
        if s.is_empty_list("ways") {
            s.fault("ways", "found no way", format!("allowed: at least one of {WAYS}"));
        }
        let default = Bounds::default();
        let bounds = Bounds {
            orders_at_once: s.number("orders_max", default.orders_at_once, 1..=64),
            demanded_max: s.number("demanded_max", default.demanded_max, 1..=1_000_000),
            per_domain: Rate {
                count: s.number("domain_orders_per_week", default.per_domain.count, 1..=1_000_000),
                seconds: WEEK_S,
            },
            per_authority: Rate {
                count: s.number("orders_per_3h", default.per_authority.count, 1..=1_000_000),
                seconds: THREE_HOURS_S,
            },
            ..default
        };
        let mut orders = Orders {
            ways: ways.into_iter().map(|(way, _)| way).collect(),
            demand_wait: s.span("demand_wait", "20s", "1s"..="1m"),
            request_deadline: s.span("request_timeout", "30s", "1s"..="5m"),
            order_deadline: s.span("order_timeout", "10m", "10s"..="1h"),
            ask: None,
            bounds,
            authority,
        };
        let locks = s.choice("lock", true, &[("database", true), ("none", false)]);
        orders.ask = s.table("ask", |s| read_ask(s, &mut orders.bounds));
        if orders.authority.directory.is_empty() {
            return None;
        }
        if !terms_agreed {
            let found = "found no agreement to the authority's terms";
            s.fault("terms_agreed", found, "read the terms that its directory names, and write true");
        }
        if !is_used {
            let found = "found an authority, and no address in listen.https";
            s.fault("directory", found, "name the addresses for https in listen.https, or \"\" here");
        }
        Some(Self { orders, locks })
    }
}

fn read_ask(s: &mut Section<'_>, bounds: &mut Bounds) -> Option<Ask> {
    // What follows the ? may be a key.
    let shown =
        |url: &String| url.split_once('?').map_or_else(|| url.clone(), |(url, _)| format!("{url}?***"));
    let address = s.text("url", String::new(), ASK, parse_ask, shown);
    let roots = read_roots(s);
    let deadline: Duration = s.span("timeout", "5s", "100ms"..="30s");
    bounds.asks_at_once = s.number("at_once", bounds.asks_at_once, 1..=1024);
    bounds.refused_max = s.number("refused_max", bounds.refused_max, 100..=10_000_000);
    let refused_for = s.span("refused_for", "10m", "1s"..="1d");
    bounds.refused_seconds = u32::try_from(refused_for.as_secs()).unwrap_or(u32::MAX);
    (!address.is_empty()).then_some(Ask { address, roots, deadline })
}

fn read_roots(s: &mut Section<'_>) -> Roots {
    let Some(file) = optional(s, "roots_file", FILE) else { return Roots::System };
    let roots = Roots::File(s.resolve(&file));
    if let Err(fault) = certs::client(Verify::Name, &roots) {
        let advice = "name a file with the authorities' certificates in PEM, or \"\" for those that this system trusts";
        s.fault("roots_file", format!("found {}", chain(&fault)), advice);
    }
    roots
}

fn read_binding(s: &mut Section<'_>) -> Option<Binding> {
    let kid = optional(s, "eab_kid", "the identifier that the authority gave, or \"\" for none");
    let hidden = |key: &String| if key.is_empty() { String::new() } else { "***".to_owned() };
    let allowed = "the key that the authority gave, or \"\" for none";
    let key = s.text("eab_key", String::new(), allowed, |text| Ok(text.to_owned()), hidden);
    let file = optional(s, "eab_key_file", FILE);
    let (setting, key) = match (key.is_empty(), file) {
        (true, None) => {
            if kid.is_some() {
                s.fault("eab_kid", "found an identifier without its key", "name its file in eab_key_file");
            }
            return None;
        }
        (false, Some(_)) => {
            s.fault("eab_key_file", "found a file beside eab_key", "keep one of the two");
            return None;
        }
        (false, None) => ("eab_key", Some(key)),
        (true, Some(file)) => ("eab_key_file", read_key(s, &file)),
    };
    let key = key?;
    let Some(kid) = kid else {
        s.fault(setting, "found a key without its identifier", "name the identifier in eab_kid");
        return None;
    };
    match Binding::new(kid, &key) {
        Ok(binding) => Some(binding),
        Err(fault) => {
            // Never the key itself.
            s.fault(setting, format!("found {fault}"), "copy it from the authority as it is");
            None
        }
    }
}

fn read_key(s: &mut Section<'_>, file: &str) -> Option<String> {
    match files::read(&s.resolve(file), KEY_BYTES_MAX) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(wrong) => {
            // Not even the name is repeated: it may be the key itself, written in the wrong place.
            let advice = "name a file that this user may read, with the key in its one line";
            s.fault("eab_key_file", format!("the file {}", wrong.found), advice);
            None
        }
    }
}

fn parse_directory(text: &str) -> Result<String, Wrong> {
    let is_https = Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.has_host());
    match text.is_empty() || is_https {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(quoted(text), DIRECTORY)),
    }
}

fn parse_ask(text: &str) -> Result<String, Wrong> {
    let is_web = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    match text.is_empty() || Url::parse(text).is_ok_and(is_web) {
        true => Ok(text.to_owned()),
        // It may hold a key, so it is not repeated.
        false => Err(Wrong::new("no such address", ASK)),
    }
}

fn parse_contact(text: &str) -> Result<String, Wrong> {
    let mail = text.strip_prefix("mailto:").unwrap_or(text);
    let is_mail = mail.split_once('@').is_some_and(|(who, host)| !who.is_empty() && host.contains('.'));
    match is_mail && mail.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(format!("mailto:{mail}")),
        false => Err(Wrong::new(quoted(text), CONTACT)),
    }
}

fn parse_profile(text: &str) -> Result<String, Wrong> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= 64 && text.bytes().all(is_part) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(quoted(text), PROFILE)),
    }
}

fn parse_way(text: &str) -> Result<Way, Wrong> {
    match text {
        "http-01" => Ok(Way::Http01),
        "tls-alpn-01" => Ok(Way::TlsAlpn01),
        _ => Err(Wrong::word(text, &["http-01", "tls-alpn-01"])),
    }
}
