//! Labels for hits that no person made: HEAD, browsers that fetch ahead, programs that name themselves.
//!
//! A label never drops a hit. The image proxies of Gmail and Yahoo are real opens and stay unlabelled.

use http::HeaderMap;
use http::header::{HeaderName, USER_AGENT};
use memchr::memmem;

use crate::event::{Method, Verdict};

const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const X_MOZ: HeaderName = HeaderName::from_static("x-moz");

/// Fragments by which link expanders and scanners name themselves in their user agent, in lower
/// case (the markers' sources: monperrus/crawler-user-agents, matomo-org/device-detector).
const ROBOTS: &[&[u8]] = &[
    b"bot",
    b"crawl",
    b"spider",
    b"whatsapp/",
    b"facebookexternalhit",
    b"skypeuripreview",
    b"microsoftpreview",
    b"bingpreview",
    b"yahoo link preview",
    b"barracuda",
    b"slack-imgproxy",
    b"curl/",
    b"wget/",
    b"python-requests",
    b"headlesschrome",
];
/// Longest part of a user agent that is looked at.
const USER_AGENT_BYTES_MAX: usize = 256;

/// Who seems to have made the request.
#[must_use]
pub fn verdict(method: Method, headers: &HeaderMap) -> Verdict {
    if method == Method::Head {
        return Verdict::Head;
    }
    let ahead = [SEC_PURPOSE, PURPOSE, X_MOZ]
        .iter()
        .filter_map(|name| headers.get(name))
        .any(|value| memmem::find(value.as_bytes(), b"prefetch").is_some());
    if ahead {
        return Verdict::Prefetch;
    }
    let Some(agent) = headers.get(USER_AGENT) else { return Verdict::Person };
    let agent = agent.as_bytes();
    let agent = agent.get(..USER_AGENT_BYTES_MAX).unwrap_or(agent);
    let mut lower = [0; USER_AGENT_BYTES_MAX];
    let lower = &mut lower[..agent.len()];
    lower.copy_from_slice(agent);
    lower.make_ascii_lowercase();
    if ROBOTS.iter().any(|name| memmem::find(lower, name).is_some()) {
        Verdict::Robot
    } else {
        Verdict::Person
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, value: &'static str, expected: Verdict) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        assert_eq!(verdict(Method::Get, &headers), expected, "{name}: {value}");
    }

    #[test]
    fn labels_what_names_itself() {
        check("sec-purpose", "prefetch;prerender", Verdict::Prefetch);
        check("purpose", "prefetch", Verdict::Prefetch);
        check("user-agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", Verdict::Robot);
        check("user-agent", "TelegramBot (like TwitterBot)", Verdict::Robot);
        check(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            Verdict::Person,
        );
    }

    #[test]
    fn image_proxies_are_people() {
        let gmail =
            "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";
        check("user-agent", gmail, Verdict::Person);
        let yahoo = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html";
        check("user-agent", yahoo, Verdict::Person);
    }

    #[test]
    fn head_is_a_scanner() {
        assert_eq!(verdict(Method::Head, &HeaderMap::new()), Verdict::Head);
    }
}
