//! What holds for every page in every language, and what is special about some.

use super::*;
use http::header::ACCEPT_LANGUAGE;

const NOW: UnixMillis = UnixMillis(1_342_270_800_000); // 2012-07-14T13:00Z
const BACK: Back = Back { now: NOW, at: UnixMillis(NOW.0 + 2 * 3_600_000) };
const PAGES: [Page; 11] = [
    Page::BadRequest,
    Page::Deleted,
    Page::Disabled,
    Page::Expired,
    Page::Maintenance(BACK),
    Page::MethodNotAllowed,
    Page::Misdirected,
    Page::Outage(BACK),
    Page::Refused(BACK),
    Page::TooManyRequests { retry_after_s: 30 },
    Page::Unknown,
];

fn brand() -> Brand {
    Brand {
        name: "Fernhill & Söhne <Garden>".to_owned(),
        colour: "#2f7d4f".parse().unwrap(),
        logo: None,
        language: Language::De,
        time_zone: TimeZone::get("Europe/London").unwrap(),
    }
}

fn html(response: &Response<Body>) -> &str {
    let Body::Full(content) = response.body() else { panic!("no body") };
    std::str::from_utf8(content).unwrap()
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// What stands between two marks that occur once.
fn between<'a>(html: &'a str, start: &str, end: &str) -> &'a str {
    assert_eq!(html.matches(start).count(), 1, "{start} in {html}");
    html.split_once(start).unwrap().1.split_once(end).unwrap().0
}

/// Calls `check` with every answer there is.
fn every_answer(pages: &Pages, mut check: impl FnMut(Page, Language, &Response<Body>)) {
    for page in PAGES {
        for language in Language::ALL {
            check(page, language, &pages.answer(page, language, Method::Get));
        }
    }
}

#[test]
fn status_and_fields() {
    every_answer(&Pages::neutral().of(&brand()), |page, language, response| {
        let (status, retry_after, allow) = match page {
            Page::BadRequest => (400, None, None),
            Page::Deleted | Page::Disabled | Page::Expired => (410, None, None),
            Page::Maintenance(_) | Page::Outage(_) | Page::Refused(_) => (503, Some("7200"), None),
            Page::MethodNotAllowed => (405, None, Some("GET, HEAD")),
            Page::Misdirected => (421, None, None),
            Page::TooManyRequests { .. } => (429, Some("30"), None),
            Page::Unknown => (404, None, None),
        };
        assert_eq!(response.status(), status);
        assert_eq!(field(response, "retry-after"), retry_after);
        assert_eq!(field(response, "allow"), allow);
        assert_eq!(field(response, "content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(field(response, "content-language"), Some(language.code()));
        assert_eq!(field(response, "cache-control"), Some("no-store"));
        assert_eq!(field(response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(field(response, "content-length"), Some(html(response).len().to_string().as_str()));
    });
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let pages = Pages::neutral().of(&brand());
    every_answer(&pages, |page, language, get| {
        let head = pages.answer(page, language, Method::Head);
        assert_eq!((head.status(), head.headers()), (get.status(), get.headers()));
        assert_eq!(*head.body(), Body::Empty);
    });
}

#[test]
fn the_policy_allows_exactly_what_the_page_holds() {
    every_answer(&Pages::neutral().of(&brand()), |page, _, response| {
        let (html, policy) = (html(response), field(response, "content-security-policy").unwrap());
        let style = policy_hash(between(html, "<style>", "</style>"));
        assert!(policy.starts_with(&format!("default-src 'none'; style-src {style};")), "{policy}");
        match page.back() {
            Some(_) => {
                let script = policy_hash(between(html, "<script>", "</script>"));
                assert!(policy.contains(&format!("; script-src {script};")), "{policy}");
            }
            None => {
                assert!(!html.contains("<script") && !policy.contains("script-src"), "{policy}");
            }
        }
        for directive in ["img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(directive), "{policy} lacks {directive}");
        }
        assert!(!policy.contains("unsafe"));
        assert!(!html.contains(" style=") && !html.contains(" onload="), "the policy would stop these");
    });
}

#[test]
fn small_whole_and_without_outside_resources() {
    every_answer(&Pages::neutral().of(&brand()), |page, language, response| {
        let html = html(response);
        assert!(html.len() < 6 * 1024, "{page:?} in {language} has {} bytes", html.len());
        assert!(html.starts_with(&format!("<!doctype html>\n<html lang=\"{language}\">\n")));
        assert!(html.contains(r#"<meta name="robots" content="noindex">"#));
        assert!(html.contains(r#"<meta name="viewport""#) && html.contains("color-scheme"));
        for attribute in [" src=\"", " href=\""] {
            for address in html.split(attribute).skip(1) {
                assert!(address.starts_with("data:") || address.starts_with('"'), "{address}");
            }
        }
        let without_names = html.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "url(", "@import", "<link rel=\"stylesheet\"", "<iframe"] {
            assert!(!without_names.contains(outside), "{outside} in {page:?}");
        }
        assert!(!html.contains("{language}") && !html.contains("{heading}"));
    });
}

#[test]
fn every_language_says_everything_in_its_own_words() {
    for page in PAGES {
        for language in Language::ALL {
            let own = text(page, language);
            assert!(own.heading.len() > 10 && own.advice.len() > 40, "{page:?} in {language}");
            assert!(!own.heading.ends_with('.') && own.advice.ends_with('.'), "{page:?} in {language}");
            for word in [own.heading, own.advice] {
                assert!(!word.contains(['<', '>', '&', '"', '\'', '!']), "{word} goes into HTML as it is");
            }
            for other in Language::ALL.into_iter().filter(|&other| other != language) {
                assert_ne!(own.heading, text(page, other).heading);
                assert_ne!(own.advice, text(page, other).advice);
            }
        }
        let same = PAGES
            .iter()
            .filter(|&&other| text(other, Language::En).heading == text(page, Language::En).heading);
        assert_eq!(same.count(), 1, "{page:?} has a heading of its own");
    }
}

#[test]
fn heading_name_and_language_stand_where_they_belong() {
    every_answer(&Pages::neutral().of(&brand()), |page, language, response| {
        let (html, heading) = (html(response), text(page, language).heading);
        let name = "Fernhill &amp; Söhne &lt;Garden&gt;";
        assert_eq!(between(html, "<h1>", "</h1>"), heading);
        assert_eq!(between(html, "<title>", "</title>"), format!("{heading} – {name}"));
        assert_eq!(between(html, r#"<p class="sign">"#, "</p>"), name);
        assert!(!html.contains("<Garden>"));
    });
}

#[test]
fn maintenance_says_when_to_come_back() {
    let pages = Pages::neutral().of(&brand());
    let planned = pages.answer(Page::Maintenance(BACK), Language::En, Method::Get);
    let planned = html(&planned);
    assert_eq!(between(planned, "<h1>", "</h1>"), "Down for planned maintenance");
    assert_eq!(
        between(planned, "<time ", "</time>"),
        "datetime=\"2012-07-14T15:00Z\" data-own=\"your local time\">\
         <b>16:00</b><span>Saturday 14 July (UTC+1)</span>"
    );
    assert!(planned.contains(r#"<a class="again" href="">Try again</a>"#));

    for page in [Page::Outage(BACK), Page::Refused(BACK)] {
        let unplanned = pages.answer(page, Language::En, Method::Get);
        let unplanned = html(&unplanned);
        assert!(!unplanned.contains("planned maintenance") && !unplanned.contains("expect to be back"));
        assert!(unplanned.contains("<b>16:00</b>"));
    }
}

#[test]
fn retry_after_is_whole_seconds_and_never_zero() {
    for (at, expected) in
        [(0, "1"), (NOW.0, "1"), (NOW.0 + 1, "1"), (NOW.0 + 1001, "2"), (u64::MAX, "18446742731438752")]
    {
        let page = Page::Outage(Back { now: NOW, at: UnixMillis(at) });
        let response = Pages::neutral().answer(page, Language::Fr, Method::Get);
        assert_eq!(field(&response, "retry-after"), Some(expected));
    }
    let none = Page::TooManyRequests { retry_after_s: 0 };
    let response = Pages::neutral().answer(none, Language::En, Method::Get);
    assert_eq!(field(&response, "retry-after"), Some("1"));
}

#[test]
fn the_neutral_page_names_nobody() {
    let response = Pages::neutral().answer(Page::Misdirected, Language::En, Method::Get);
    let html = html(&response);
    assert_eq!(between(html, "<title>", "</title>"), "There is nothing at this address");
    assert_eq!(between(html, "<header>", "</header>"), "");
    assert!(!html.to_lowercase().contains("holdfast"));
}

#[test]
fn a_logo_stands_inside_the_page_with_the_name_for_those_who_cannot_see_it() {
    let svg = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(1)</script></svg>"#;
    let logo = Logo::new(svg.as_bytes()).unwrap();
    let response = Pages::neutral().of(&Brand { logo: Some(logo), ..brand() }).answer(
        Page::Unknown,
        Language::En,
        Method::Get,
    );
    let sign = between(html(&response), r#"<p class="sign">"#, "</p>");
    assert!(sign.starts_with(r#"<img src="data:image/svg+xml;base64,"#));
    assert!(sign.ends_with(r#" alt="Fernhill &amp; Söhne &lt;Garden&gt;">"#));
    assert!(!html(&response).contains("alert(1)"), "the picture stays a picture");
}

/// Each customer's pages had a copy of the site's logo, however little else differed.
#[test]
fn pages_that_differ_in_a_colour_share_the_logo() {
    let logo = Logo::new(br#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>"#).unwrap();
    let site = Brand { logo: Some(logo), ..brand() };
    let pages = Pages::neutral().of(&site);
    let other = pages.of(&Brand { colour: "#112233".parse().unwrap(), ..site.clone() });
    assert!(Arc::ptr_eq(&pages.sign, &other.sign));
    let named = pages.of(&Brand { name: "Other".to_owned(), logo: None, ..site });
    assert!(!Arc::ptr_eq(&pages.sign, &named.sign));
}

#[test]
fn hostile_fields_choose_a_language_and_nothing_else() {
    let pages = Pages::neutral().of(&brand());
    let mut fields = HeaderMap::new();
    for hostile in ["<script>alert(1)</script>", "\"><img src=x>", "de\t;q=9, {{7*7}}", "../../etc/passwd"] {
        fields.insert(ACCEPT_LANGUAGE, HeaderValue::from_str(hostile).unwrap());
        assert_eq!(pages.language_for(&fields), Language::De, "the site's own");
    }
    fields.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("fr-CA, en;q=0.8"));
    assert_eq!(pages.language_for(&fields), Language::Fr);
}
