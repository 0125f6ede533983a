//! The built-in pages: small, in four languages, with a site's name, colour and logo, and nothing
//! from outside.
//!
//! Invariants:
//! - An answer is a function of the brand, the page, the language and the method. No other value can
//!   be passed in, so nothing of a request can be reflected.
//! - A page loads nothing: style, script and pictures stand inside it, and its security policy allows
//!   exactly those, by hash.
//! - Every page exists in every language, or this does not compile.
//!
//! What is constant (texts, template) is in the program once and what is the brand's is prepared when
//! the configuration is loaded; an answer writes them one after the other into one allocation. Whole
//! pages are not kept: thousands of sites would hold forty of them each, to save a copy of 5 KiB.

use super::body::Body;
use super::brand::{Brand, Logo};
use super::colour::{self, Colour};
use super::inline::{Escaped, policy_hash, squeeze};
use super::language::Language;
use super::moment::Moment;
use super::texts::{Text, text, words};
use crate::event::{Method, UnixMillis};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::sync::Arc;

/// What a page tells the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// 400: the request breaks the rules of HTTP.
    BadRequest,
    /// 410: the link was deleted.
    Deleted,
    /// 410: the link was switched off.
    Disabled,
    /// 410: the link's time is over.
    Expired,
    /// 503 in a maintenance window: the link is not known here and cannot be looked up.
    Maintenance(Back),
    /// 405: a method other than GET and HEAD.
    MethodNotAllowed,
    /// 421: no site has the host's name; answered by [`Pages::neutral`].
    Misdirected,
    /// 503 while a part is down without notice.
    Outage(Back),
    /// 503 because the hit cannot be recorded and the configuration prefers no answer (`when_full`).
    Refused(Back),
    /// 429: the source has asked for more unknown links than its limit.
    TooManyRequests {
        /// When the limit admits it again.
        retry_after_s: u32,
    },
    /// 404: nobody knows this link, or the path is none of the site's.
    Unknown,
}

/// When it is worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// The moment of the answer.
    pub now: UnixMillis,
    /// The end of the window; in an unplanned outage `now` and the usual wait.
    pub at: UnixMillis,
}

impl Back {
    /// Whole seconds from now, rounded up; a moment that has passed is one second away.
    fn seconds(self) -> u64 {
        self.at.0.saturating_sub(self.now.0).div_ceil(1000).max(1)
    }
}

/// What the pages of all brands have, kept once for a site and its customers.
#[derive(Debug)]
struct Common {
    style: String,
    script: String,
    script_hash: String,
}

/// All pages of one brand.
#[derive(Debug)]
pub struct Pages {
    /// Escaped; empty for no site.
    name: String,
    language: Language,
    zone: TimeZone,
    /// The brand's own rules.
    rules: String,
    common: Arc<Common>,
    /// The address of the icon in the browser's tab.
    icon: String,
    /// The element with the logo or the name, or nothing; shared by those that look alike in this.
    sign: Arc<str>,
    /// For pages without a time, which run no script.
    policy: HeaderValue,
    policy_timed: HeaderValue,
}

impl Pages {
    /// The pages of no site: without a brand, for requests whose host nobody knows.
    #[must_use]
    pub fn neutral() -> Self {
        const SLATE: Colour = Colour { red: 0x52, green: 0x5f, blue: 0x75 };
        let script = squeeze(include_str!("page.js"));
        let script_hash = policy_hash(&script);
        let common = Common { style: squeeze(include_str!("page.css")), script, script_hash };
        Self::dressed(String::new(), Arc::default(), SLATE, Language::En, TimeZone::UTC, Arc::new(common))
    }

    /// Prepares the pages of another brand, of which there may be many.
    #[must_use]
    pub fn of(&self, brand: &Brand) -> Self {
        let name = Escaped(&brand.name).to_string();
        let sign = match &brand.logo {
            Some(logo) => logo_sign(logo, &name),
            None => format!(r#"<p class="sign">{name}</p>"#),
        };
        // Thousands of customers may differ from their site in a colour and share its logo.
        let sign = if *sign == *self.sign { Arc::clone(&self.sign) } else { sign.into() };
        let common = Arc::clone(&self.common);
        Self::dressed(name, sign, brand.colour, brand.language, brand.time_zone.clone(), common)
    }

    fn dressed(
        name: String,
        sign: Arc<str>,
        colour: Colour,
        language: Language,
        zone: TimeZone,
        common: Arc<Common>,
    ) -> Self {
        let rules = colour::rules(colour);
        let style = format!("{rules}{}", common.style);
        let policy = |more: &str| {
            let style = policy_hash(&style);
            HeaderValue::try_from(format!(
                "default-src 'none'; style-src {style};{more} img-src data:; base-uri 'none'; \
                 form-action 'none'; frame-ancestors 'none'"
            ))
            .expect("a policy is made of words and base64")
        };
        let policy_timed = policy(&format!(" script-src {};", common.script_hash));
        Self {
            policy: policy(""),
            policy_timed,
            icon: icon(colour),
            name,
            language,
            zone,
            rules,
            common,
            sign,
        }
    }

    /// The language for a reader, by `Accept-Language` and the site's own.
    #[must_use]
    pub fn language_for(&self, fields: &HeaderMap) -> Language {
        Language::wanted(fields, self.language)
    }

    /// The whole response; for methods other than HEAD pass [`Method::Get`].
    #[must_use]
    pub fn answer(&self, page: Page, language: Language, method: Method) -> Response<Body> {
        let content = Bytes::from(self.render(page, language));
        let length = HeaderValue::from(content.len());
        let mut response = Response::new(super::body_for(method, content));
        *response.status_mut() = page.status();
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HTML);
        fields.insert(CONTENT_LENGTH, length);
        fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language.code()));
        fields.insert(CACHE_CONTROL, super::NO_STORE);
        fields.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        let policy = if page.back().is_some() { &self.policy_timed } else { &self.policy };
        fields.insert(CONTENT_SECURITY_POLICY, policy.clone());
        if let Some(seconds) = page.retry_after_s() {
            fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if page == Page::MethodNotAllowed {
            fields.insert(ALLOW, GET_HEAD);
        }
        response
    }

    fn render(&self, page: Page, language: Language) -> String {
        let mut html = String::with_capacity(
            self.common.style.len() + self.sign.len() + self.common.script.len() + 3072,
        );
        let Text { heading, advice } = text(page, language);
        let words = words(language);
        write!(
            html,
            include_str!("page.html"),
            language = language.code(),
            heading = heading,
            dash = if self.name.is_empty() { "" } else { " – " },
            name = self.name,
            icon = self.icon,
            style = format_args!("{}{}", self.rules, self.common.style),
            sign = self.sign,
            drawing = drawing(page),
            advice = advice,
            more = self.more(page, language),
            status_word = words.status,
            status = page.status().as_str(),
        )
        .expect("writing into a string does not fail");
        if page.back().is_some() {
            html.extend(["<script>", &self.common.script, "</script>\n"]);
        }
        html
    }

    /// What follows the advice where it is worth asking again: the button, and the time beside it.
    fn more(&self, page: Page, language: Language) -> String {
        let words = words(language);
        let again = format!(r#"<a class="again" href="">{}</a>"#, words.again);
        let (label, back) = match page {
            Page::Maintenance(back) => (words.back_planned, back),
            Page::Outage(back) | Page::Refused(back) => (words.back_unplanned, back),
            Page::TooManyRequests { .. } => return again,
            _ => return String::new(),
        };
        let Moment { machine, time, day } = Moment::new(back.at, &self.zone, language);
        format!(
            include_str!("back.html"),
            label = label,
            machine = machine,
            own = words.own_time,
            time = time,
            day = day,
            again = again,
        )
    }
}

impl Page {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Deleted | Self::Disabled | Self::Expired => StatusCode::GONE,
            Self::Maintenance(_) | Self::Outage(_) | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::NOT_FOUND,
        }
    }

    fn back(self) -> Option<Back> {
        match self {
            Self::Maintenance(back) | Self::Outage(back) | Self::Refused(back) => Some(back),
            _ => None,
        }
    }

    fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after_s } => Some(u64::from(retry_after_s.max(1))),
            _ => self.back().map(Back::seconds),
        }
    }
}

fn logo_sign(logo: &Logo, name: &str) -> String {
    format!(r#"<p class="sign"><img src="{}" alt="{name}"></p>"#, logo.uri())
}

/// A rounded square in the brand's colour; without it, browsers would ask the tracking host for one.
fn icon(colour: Colour) -> String {
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E\
         %3Crect width='8' height='8' rx='2' fill='{}'/%3E%3C/svg%3E",
        colour.to_string().replace('#', "%23")
    )
}

/// The strokes of a page's drawing, on a square of 24.
const fn drawing(page: Page) -> &'static str {
    match page {
        // A link that has come apart.
        Page::BadRequest | Page::Deleted | Page::Disabled | Page::Unknown => {
            "M10 7.5H7a4.5 4.5 0 0 0 0 9h3M14 7.5h3a4.5 4.5 0 0 1 0 9h-3M12 2.5v2.5M12 19v2.5"
        }
        // An hourglass.
        Page::Expired | Page::TooManyRequests { .. } => {
            "M6.5 3h11M6.5 21h11M8 3v3.5a4 5 0 0 0 8 0V3M8 21v-3.5a4 5 0 0 1 8 0V21"
        }
        // A clock.
        Page::Maintenance(_) => "M12 3a9 9 0 1 0 .01 0M12 7.5V12l3 2",
        // A circle with an exclamation mark.
        Page::Outage(_) | Page::Refused(_) => "M12 3a9 9 0 1 0 .01 0M12 7.5v5M12 16v.01",
        // A compass.
        Page::MethodNotAllowed | Page::Misdirected => "M12 3a9 9 0 1 0 .01 0M15.5 8.5l-2 5-5 2 2-5z",
    }
}

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const GET_HEAD: HeaderValue = HeaderValue::from_static("GET, HEAD");

#[cfg(test)]
mod tests;
