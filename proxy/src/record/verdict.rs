//! Labels for hits that no person made: HEAD, browsers that fetch ahead, programs that name themselves.
//!
//! A label never drops a hit. The image proxies of Gmail and Yahoo are real opens and stay unlabelled.

use std::sync::LazyLock;

use http::HeaderMap;
use http::header::HeaderName;
use memchr::memmem;

use crate::event::{Event, Method, Verdict};

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

/// What only the request itself tells: its method, and that a browser fetches ahead.
#[must_use]
pub fn verdict(method: Method, headers: &HeaderMap) -> Verdict {
    if method == Method::Head {
        return Verdict::Head;
    }
    let ahead = [SEC_PURPOSE, PURPOSE, X_MOZ]
        .iter()
        .filter_map(|name| headers.get(name))
        .any(|value| memmem::find(value.as_bytes(), b"prefetch").is_some());
    if ahead { Verdict::Prefetch } else { Verdict::Person }
}

/// Who seems to have made the request, by all that was recorded of it.
///
/// The user agent is looked through when a hit is delivered, not on the way of a click.
#[must_use]
pub fn judge(event: &Event<'_>) -> Verdict {
    match event.verdict {
        Verdict::Person if is_robot(event.user_agent) => Verdict::Robot,
        verdict => verdict,
    }
}

fn is_robot(agent: &[u8]) -> bool {
    static FINDERS: LazyLock<Vec<memmem::Finder<'static>>> =
        LazyLock::new(|| ROBOTS.iter().map(memmem::Finder::new).collect());
    let agent = agent.get(..USER_AGENT_BYTES_MAX).unwrap_or(agent);
    let mut lower = [0; USER_AGENT_BYTES_MAX];
    let lower = &mut lower[..agent.len()];
    lower.copy_from_slice(agent);
    lower.make_ascii_lowercase();
    FINDERS.iter().any(|finder| finder.find(lower).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_that_fetch_ahead_say_so() {
        for (name, value) in
            [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(verdict(Method::Get, &headers), Verdict::Prefetch, "{name}");
        }
        assert_eq!(verdict(Method::Get, &HeaderMap::new()), Verdict::Person);
    }

    #[test]
    fn head_is_a_scanner() {
        assert_eq!(verdict(Method::Head, &HeaderMap::new()), Verdict::Head);
    }

    #[test]
    fn robots_name_themselves_and_image_proxies_are_people() {
        for (agent, robot) in [
            ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", true),
            ("TelegramBot (like TwitterBot)", true),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", false),
            (
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
                false,
            ),
            ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", false),
            ("", false),
        ] {
            assert_eq!(is_robot(agent.as_bytes()), robot, "{agent}");
        }
    }
}
