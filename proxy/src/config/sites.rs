//! `[[site]]` with its hosts, routes and brand, and what two sites must not share.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use crate::event::Kind;
use crate::respond::brand::{Brand, Logo};
use crate::respond::colour::Colour;
use crate::respond::language::Language;
use crate::route::{
    HostPattern, Image, Manner, RawRoute, Redirect, Route, RouteFault, Routes, Unknown, presets,
};

use super::fault::{Origin, Wrong, quoted};
use super::reader::Section;
use super::tables::optional;
use super::tls::{self, SiteTls};
use super::{NAME, files, parse_name, units};

/// A set of hostnames with one brand, one namespace and one list of routes.
#[derive(Debug)]
pub struct Site {
    /// Its name in metrics, hits and this configuration.
    pub name: String,
    /// Its hosts, at least one; no other site has any of them.
    pub hosts: Vec<HostPattern>,
    /// Where its tokens are looked up.
    pub namespace: String,
    /// Its routes in the order in which they are tried.
    pub routes: Routes,
    /// What it says to clients about TLS.
    pub tls: SiteTls,
    /// How its pages look, their language and local time included.
    pub brand: Brand,
}

/// Reads every `[[site]]`.
pub(super) fn read(s: &mut Section<'_>) -> Vec<Site> {
    let drafts = s.tables("site", read_site);
    if drafts.is_empty() {
        s.missing("site", "at least one [[site]] with its name, hosts, and routes or a preset");
    }
    check_names(s, &drafts);
    check_hosts(s, &drafts);
    drafts.into_iter().map(|draft| draft.site).collect()
}

/// A site and where those of its settings stand that are held against other sites'.
struct Draft {
    site: Site,
    path: String,
    name_origin: Origin,
    host_origins: Vec<Origin>,
}

const HOST: &str = "a host such as \"click.example.com\", or \"*.example.com\" for all below it";
/// Names for people and namespaces; at four bytes each, still within what a hit has room for.
const LINE_CHARS_MAX: usize = 64;

fn read_site(s: &mut Section<'_>) -> Draft {
    let name = s.required("name", NAME, parse_name, String::clone).unwrap_or_default();
    let (hosts, host_origins) = read_hosts(s).into_iter().unzip();
    let namespace = read_line(s, "namespace", &name);
    let preset = read_preset(s);
    let languages = Language::ALL.map(|language| (language.code(), language));
    let language = s.choice("language", Language::En, &languages);
    let time_zone = read_time_zone(s);
    let tls = tls::read_site(s);
    let brand = s.table("brand", |s| Brand {
        name: read_line(s, "name", &name),
        colour: read_colour(s),
        logo: read_logo(s),
        language,
        time_zone,
    });
    let routes = read_routes(s, preset);
    Draft {
        name_origin: s.origin_of("name"),
        path: s.path().to_owned(),
        host_origins,
        site: Site { name, hosts, namespace, routes, tls, brand },
    }
}

fn read_hosts(s: &mut Section<'_>) -> Vec<(HostPattern, Origin)> {
    let parse = |text: &str| {
        HostPattern::parse(text).map_err(|fault| Wrong::new(format!("{}: {fault}", quoted(text)), HOST))
    };
    let hosts = s.list("hosts", &[], &format!("a list of hosts; {HOST}"), parse);
    s.without_default();
    if !s.has("hosts") {
        s.missing("hosts", &format!("a list of at least one host; {HOST}"));
    } else if s.is_empty_list("hosts") {
        s.fault("hosts", "found no host", format!("allowed: at least one host; {HOST}"));
    }
    hosts
}

/// One line of text that is not empty.
fn read_line(s: &mut Section<'_>, key: &'static str, default: &str) -> String {
    let allowed = format!("one line of 1 to {LINE_CHARS_MAX} characters");
    let is_line =
        |text: &str| (1..=LINE_CHARS_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
    let parse = |text: &str| match is_line(text) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(quoted(text), &allowed)),
    };
    s.text(key, default.to_owned(), &allowed, parse, String::clone)
}

/// The routes that a site has from elsewhere.
#[derive(Clone)]
enum Preset {
    Known(String, Vec<RawRoute>),
    None,
    /// A name that no preset has; already reported.
    Unknown,
}

fn read_preset(s: &mut Section<'_>) -> Preset {
    let mut refused = false;
    let parse = |name: &str| match presets::routes(name) {
        Some(routes) => Ok(Preset::Known(name.to_owned(), routes)),
        None if name.is_empty() => Ok(Preset::None),
        None => {
            refused = true;
            Err(Wrong::word(name, &presets::names().collect::<Vec<_>>()))
        }
    };
    let show = |preset: &Preset| match preset {
        Preset::Known(name, _) => name.clone(),
        Preset::None | Preset::Unknown => String::new(),
    };
    let preset = s.text("preset", Preset::None, "the name of a preset, or \"\" for none", parse, show);
    if refused { Preset::Unknown } else { preset }
}

fn read_time_zone(s: &mut Section<'_>) -> TimeZone {
    let allowed = "a time zone by its IANA name, such as \"Europe/London\"";
    let parse = |name: &str| {
        units::parse_zone(name).map_err(|meant| Wrong::new(quoted(name), format!("{allowed}{meant}")))
    };
    s.text("time_zone", TimeZone::UTC, allowed, parse, |zone| zone.iana_name().unwrap_or("UTC").to_owned())
}

fn read_colour(s: &mut Section<'_>) -> Colour {
    let default = Colour { red: 0x1f, green: 0x6f, blue: 0xeb };
    let allowed = "# and three or six hexadecimal digits, such as \"#1f6feb\"";
    let parse = |text: &str| text.parse().map_err(|_| Wrong::new(quoted(text), allowed));
    s.text("colour", default, allowed, parse, Colour::to_string)
}

fn read_logo(s: &mut Section<'_>) -> Option<Logo> {
    let file = optional(s, "logo", "the name of an SVG or PNG file, or \"\" for none")?;
    let logo = files::read(&s.resolve(&file), Logo::BYTES_MAX).and_then(|content| {
        Logo::new(&content).map_err(|_| Wrong {
            found: "is neither SVG nor PNG".to_owned(),
            advice: "name an SVG or PNG file".to_owned(),
        })
    });
    match logo {
        Ok(logo) => Some(logo),
        Err(wrong) => {
            s.fault("logo", format!("{} {}", quoted(&file), wrong.found), wrong.advice);
            None
        }
    }
}

/// On which side of the preset's routes one's own is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    After,
    Before,
}

/// A route that somebody wrote, checked by itself.
struct Written {
    route: Route,
    place: Place,
    origin: Origin,
    path: String,
}

fn read_routes(s: &mut Section<'_>, preset: Preset) -> Routes {
    let written = s.tables("route", read_route);
    if written.is_empty() && matches!(preset, Preset::None) {
        let known = presets::names().map(quoted).collect::<Vec<_>>().join(", ");
        s.missing("route", &format!("at least one [[site.route]], or a preset ({known})"));
    }
    let (before, after): (Vec<_>, Vec<_>) =
        written.into_iter().flatten().partition(|written| written.place == Place::Before);
    let (preset_name, raw) = match preset {
        Preset::Known(name, raw) => (name, raw),
        Preset::None | Preset::Unknown => (String::new(), Vec::new()),
    };
    let preset = raw.iter().map(|raw| (Route::new(raw).expect("a test reads every preset"), None));
    let own = |written: Written| (written.route, Some((written.origin, written.path)));
    let all = before.into_iter().map(own).chain(preset).chain(after.into_iter().map(own));
    let (routes, owners): (Vec<Route>, Vec<Option<(Origin, String)>>) = all.unzip();
    let routes = Routes::new(routes);
    for shadowed in routes.shadowed() {
        // One's own route may replace one of the preset's: only what somebody wrote is a mistake.
        let Some(Some((origin, path))) = owners.get(shadowed.index) else { continue };
        let pattern = |index| {
            routes.iter().nth(index).map_or_else(String::new, |route| quoted(&route.pattern().to_string()))
        };
        let by = match owners.get(shadowed.by) {
            Some(Some((_, path))) => path.trim_end_matches(".path").to_owned(),
            _ => format!("the preset {preset_name}"),
        };
        let found = format!(
            "found {}, which is never reached: all its paths belong to {} of {by}",
            pattern(shadowed.index),
            pattern(shadowed.by)
        );
        s.fault_at(origin.clone(), path.clone(), found, "remove it, or place it before that one");
    }
    routes
}

/// Reads one `[[site.route]]`; `None` after a fault.
fn read_route(s: &mut Section<'_>) -> Option<Written> {
    let allowed = "a pattern such as \"/c/{token}\"";
    let path = s.required("path", allowed, |text| Ok(text.to_owned()), String::clone);
    let kinds: Vec<(&'static str, Kind)> = Kind::ALL.iter().map(|&kind| (kind.label(), kind)).collect();
    let kind = s.choice("kind", Kind::Click, &kinds);
    let names = s.list("token", &["token"], "a list of captures of the path", |text| Ok(text.to_owned()));
    // What nobody wrote is not named as the mistake.
    let token = if s.has("token") { names.into_iter().map(|(name, _)| name).collect() } else { Vec::new() };
    let append = optional(s, "append", "query parameters such as \"id={contact}\"").unwrap_or_default();
    let place = s.choice("place", Place::Before, &[("before", Place::Before), ("after", Place::After)]);
    let manner = read_manner(s);
    let raw = RawRoute { kind, path: path?, token, append, manner };
    match Route::new(&raw) {
        Ok(route) => {
            Some(Written { route, place, origin: s.origin_of("path"), path: format!("{}.path", s.path()) })
        }
        Err(faults) => {
            for fault in faults {
                report(s, &raw, &fault);
            }
            None
        }
    }
}

fn read_manner(s: &mut Section<'_>) -> Manner {
    let redirects = Redirect::ALL.iter().map(|&redirect| (redirect.status(), redirect));
    let redirect = s.status("redirect", Redirect::default(), &redirects.collect::<Vec<_>>());
    let unknowns = Unknown::ALL.iter().map(|&unknown| (unknown.status(), unknown));
    let unknown = s.status("unknown", Unknown::default(), &unknowns.collect::<Vec<_>>());
    let images = Image::ALL.iter().map(|&image| (image.label(), image));
    let image = s.choice("image", Image::default(), &images.collect::<Vec<_>>());
    Manner { redirect, unknown, image }
}

fn report(s: &mut Section<'_>, raw: &RawRoute, fault: &RouteFault) {
    let (found, advice) = match fault {
        RouteFault::Append(_) => (quoted(&raw.append), "allowed: query parameters such as \"id={contact}\""),
        RouteFault::Path(_) => (quoted(&raw.path), "allowed: a pattern such as \"/c/{token}\""),
        RouteFault::Token(_) => {
            (quoted(&raw.path), "name in token the captures of path that make up the token")
        }
    };
    s.fault(fault.key(), format!("found {found}: {fault}"), advice);
}

fn check_names(s: &mut Section<'_>, drafts: &[Draft]) {
    let mut owners: HashMap<&str, &Draft> = HashMap::new();
    for draft in drafts.iter().filter(|draft| !draft.site.name.is_empty()) {
        if let Some(first) = owners.get(draft.site.name.as_str()) {
            let found = format!("found {}, which {} has", quoted(&draft.site.name), first.path);
            s.fault_at(
                draft.name_origin.clone(),
                format!("{}.name", draft.path),
                found,
                "give each site a name of its own",
            );
        } else {
            owners.insert(&draft.site.name, draft);
        }
    }
}

fn check_hosts(s: &mut Section<'_>, drafts: &[Draft]) {
    let mut owners: HashMap<&HostPattern, &Draft> = HashMap::new();
    for draft in drafts {
        for (host, origin) in draft.site.hosts.iter().zip(&draft.host_origins) {
            let Some(first) = owners.insert(host, draft) else { continue };
            let owner = match std::ptr::eq(first, draft) {
                true => "this site".to_owned(),
                false => format!("{} ({})", first.path, quoted(&first.site.name)),
            };
            let found = format!("found {}, which {owner} has already", quoted(&host.to_string()));
            s.fault_at(
                origin.clone(),
                format!("{}.hosts", draft.path),
                found,
                "name each host once, in the one site that answers for it",
            );
        }
    }
}
