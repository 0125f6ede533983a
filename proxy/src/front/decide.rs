//! What is asked → the answer and its record on the way to the disk; one synchronous step.
//!
//! Everything that borrows the published values happens here, so that nothing of them is held while
//! a request waits for the disk or the database.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::ask::{Asked, Caller, Https, Turned, Way, What, Why, ask};
use super::core::{Core, Names, Scratch, Seen};
use super::prove::Account;
use super::sites::Site;
use crate::event::{Captures, Event, Kind, Method, Outcome, TOKEN_BYTES_MAX, UnixMillis};
use crate::journal::Batch;
use crate::links::entry::Entry;
use crate::links::{Found, TOGETHER};
use crate::metrics::{LookUp, Refusal};
use crate::policy::{self, Notice, Plan};
use crate::record::verdict::verdict;
use crate::record::{Fate, Staged, privacy};
use crate::resolve::Resolution;
use crate::resolve::look_ups::{Answer, Cached, Key};
use crate::respond;
use crate::respond::body::Body;
use crate::respond::language::Language;
use crate::respond::pages::{Back, Page};
use crate::route::{Redirect, Unknown};

/// How much is allocated at once for locations.
const LOCATIONS_BYTES: usize = 32 << 10;

/// Where a request stands after the synchronous step.
pub(super) enum Step {
    /// Answered with a page; it is no hit.
    Turned(Response<Body>),
    /// Nobody here knows the token; the database may.
    LookUp(Key),
    /// Decided, and handed to the journal.
    Hit(Hit),
}

/// A decided hit.
pub(super) struct Hit {
    pub(super) answer: Decided,
    pub(super) account: Account,
    /// What its site says of TLS.
    pub(super) hsts: Option<HeaderValue>,
}

/// The answer, but for the proof that a redirect needs.
pub(super) enum Decided {
    /// To this target.
    Redirect(Redirect, HeaderValue),
    /// Anything else.
    Ready(Response<Body>),
}

impl Step {
    /// The batch of the journal that the answer waits for, if it does.
    pub(super) fn batch(&self) -> Option<Batch> {
        match self {
            Self::Hit(hit) => hit.account.batch(),
            Self::Turned(_) | Self::LookUp(_) => None,
        }
    }
}

/// A request and who it is from.
pub(super) struct Question {
    pub(super) request: Request<()>,
    pub(super) caller: Rc<Caller>,
    /// The client, whoever stands before it.
    pub(super) peer: IpAddr,
    pub(super) now: UnixMillis,
}

impl Question {
    fn ask<'a>(
        &'a self,
        core: &Core,
        seen: Seen<'a>,
        Names { host, token }: &'a mut Names,
    ) -> Result<Asked<'a>, Turned<'a>> {
        let https = Https { tls: core.shared.tls.as_deref(), public_port: seen.limits.public_port };
        ask(seen.sites, https, &self.caller.way, &self.request, host, token)
    }
}

/// Decides the questions at `places`; those of [`TOGETHER`] look for their links together.
///
/// One that panics gets a page and hurts no other.
pub(super) fn decide_all(
    core: &Core,
    questions: &[Option<Question>],
    places: &[usize],
    mut done: impl FnMut(usize, Step),
) {
    core.with(|seen| {
        for places in places.chunks(TOGETHER) {
            let mut names = core.names.borrow_mut();
            let mut asked = [const { None }; TOGETHER];
            let mut keys = [None; TOGETHER];
            for (((&place, asked), key), names) in
                places.iter().zip(&mut asked).zip(&mut keys).zip(&mut *names)
            {
                let Some(question) = questions.get(place).and_then(Option::as_ref) else { continue };
                match guarded(core, || question.ask(core, seen, names)) {
                    Ok(result) => {
                        *key = result.as_ref().ok().map(|asked| (asked.site.namespace, asked.matched.token));
                        *asked = Some((question, result));
                    }
                    Err(Panicked) => done(place, Step::Turned(broken(core, seen, question.now))),
                }
            }
            // Should that panic, each looks for its own.
            let together = guarded(core, || seen.links.get_all(&keys)).ok();
            for (n, ((&place, asked), key)) in places.iter().zip(asked).zip(keys).enumerate() {
                let Some((question, asked)) = asked else { continue };
                let step = guarded(core, || {
                    let found = match &together {
                        Some(found) => found[n],
                        None => key.and_then(|(namespace, token)| seen.links.get(namespace, token)),
                    };
                    conclude(core, seen, question, asked, found, None)
                });
                done(place, step.unwrap_or_else(|Panicked| Step::Turned(broken(core, seen, question.now))));
            }
        }
    });
}

/// Decides `question` once more; `answer` is what was said of `key` after a [`Step::LookUp`].
pub(super) fn decide(core: &Core, question: &Question, key: &Key, answer: &Answer) -> Step {
    core.with(|seen| {
        guarded(core, || {
            let [names, ..] = &mut *core.names.borrow_mut();
            let asked = question.ask(core, seen, names);
            let found = match &asked {
                Ok(asked) => seen.links.get(asked.site.namespace, asked.matched.token),
                Err(_) => None,
            };
            conclude(core, seen, question, asked, found, Some((key, answer)))
        })
        .unwrap_or_else(|Panicked| Step::Turned(broken(core, seen, question.now)))
    })
}

struct Panicked;

/// Does `step`; what it leaves half-done when it panics, in the scratch buffers and in the stager's, the
/// next one clears.
fn guarded<T>(core: &Core, step: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(step)).map_err(|_| {
        core.counters().panics.one();
        Panicked
    })
}

fn conclude(
    core: &Core,
    seen: Seen<'_>,
    question: &Question,
    asked: Result<Asked<'_>, Turned<'_>>,
    found: Option<Found<'_>>,
    looked_up: Option<(&Key, &Answer)>,
) -> Step {
    let &Question { ref request, ref caller, peer, now } = question;
    let way = &caller.way;
    let asked = match asked {
        Ok(asked) => asked,
        Err(turned) => {
            let hsts = match turned.why {
                Why::Unrouted(site) => hsts(site, way),
                Why::Proved | Why::Refused(_) | Why::Upgraded(_) => None,
            };
            return Step::Turned(turn(core, turned, hsts, request));
        }
    };
    let Scratch { appended, locations, captures } = &mut *core.scratch.borrow_mut();
    let hsts = hsts(asked.site, way);
    let turned = |page, why| {
        Step::Turned(turn(
            core,
            Turned { what: What::Page(page), pages: &asked.site.pages, why },
            hsts,
            request,
        ))
    };
    let kept;
    let kind = asked.matched.route.kind();
    let resolution = match found {
        Some(found) => Resolution::of(found, now, seen.vital.expiry),
        None => match missing(core, seen, &asked, now, looked_up) {
            Missing::Found(entry) => {
                kept = entry;
                Resolution::of(kept.found(), now, seen.vital.expiry)
            }
            Missing::Absent => Resolution::Absent,
            Missing::Unasked => Resolution::Unasked,
            Missing::LookUp(key) if core.may_look_up(peer, now) => return Step::LookUp(key),
            Missing::LookUp(_) => {
                let why = Why::Refused(Refusal::MissesPerSource);
                return turned(Page::TooManyRequests { retry_after_s: 1 }, why);
            }
        },
    };
    let plan = policy::plan(kind, resolution.known(), &seen.vital.database);
    let answer = match answer(core, &asked, plan, &resolution, request.headers(), now, (appended, locations))
    {
        Ok(answer) => answer,
        Err(Unsendable) => return turned(Page::Unknown, Why::Unrouted(asked.site)),
    };
    let location = match &answer {
        Decided::Redirect(_, location) => location.as_bytes(),
        Decided::Ready(_) => b"",
    };
    let staged =
        stage(core, seen, &asked, plan, &resolution, request.headers(), peer, now, (location, captures));
    let staged = match staged {
        Ok(staged) => staged,
        // Only a redirect can be refused: readers of mail must not see an error for an image, and a
        // page says what it says without a record, too.
        Err(crate::record::Refused) if plan != Plan::Redirect => Some(Staged::Waived(Fate::Lost)),
        Err(crate::record::Refused) => {
            let page = Page::Refused(back(core, Notice::Unplanned, now));
            return turned(page, Why::Refused(Refusal::Journal));
        }
    };
    let counters = Arc::clone(&asked.site.counters);
    let account = Account::new(staged, counters, core.index, kind, plan.outcome());
    Step::Hit(Hit { answer, account, hsts: hsts.cloned() })
}

/// What a site says of TLS, in answers over it alone (RFC 6797 §7.2).
fn hsts<'a>(site: &'a Site, way: &Way) -> Option<&'a HeaderValue> {
    match way {
        Way::Tls { .. } => site.hsts.as_ref(),
        Way::Plain | Way::Misplaced => None,
    }
}

enum Missing {
    Found(Arc<Entry>),
    Absent,
    Unasked,
    LookUp(Key),
}

/// A token that neither table nor overlay knows.
fn missing(
    core: &Core,
    seen: Seen<'_>,
    asked: &Asked<'_>,
    now: UnixMillis,
    looked_up: Option<(&Key, &Answer)>,
) -> Missing {
    match looked_up {
        None => {}
        // A reload during the look-up may have given the host to another namespace.
        Some((key, _)) if key.namespace != asked.site.namespace || *key.token != *asked.matched.token => {
            return Missing::Unasked;
        }
        Some((_, Answer::Found(entry))) => return Missing::Found(Arc::clone(entry)),
        Some((_, Answer::Absent)) => return Missing::Absent,
        Some((_, Answer::Unasked(_))) => return Missing::Unasked,
    }
    if asked.matched.token.len() > TOKEN_BYTES_MAX {
        return Missing::Absent;
    }
    let key = Key { namespace: asked.site.namespace, token: asked.matched.token.into() };
    let counters = core.counters();
    match core.shared.look_ups.cached(&key, now) {
        Cached::Found(entry) => {
            counters.cache_hits.one();
            Missing::Found(entry)
        }
        Cached::Absent => {
            counters.cache_hits.one();
            Missing::Absent
        }
        Cached::Nothing => {
            counters.cache_misses.one();
            let kind = asked.matched.route.kind();
            if policy::look_up(kind, &seen.vital.database) {
                return Missing::LookUp(key);
            }
            if kind == Kind::Click {
                counters.looked_up(LookUp::Barred);
            }
            Missing::Unasked
        }
    }
}

/// The finished target is no header value; approval rules that out.
struct Unsendable;

fn answer(
    core: &Core,
    asked: &Asked<'_>,
    plan: Plan,
    resolution: &Resolution<'_>,
    headers: &HeaderMap,
    now: UnixMillis,
    (appended, locations): (&mut Vec<u8>, &mut BytesMut),
) -> Result<Decided, Unsendable> {
    let manner = asked.matched.route.manner();
    let page = match (plan, resolution) {
        (Plan::Redirect, Resolution::Live(link)) => {
            let append = asked.matched.route.append();
            let location = if link.append && !append.is_empty() {
                appended.clear();
                link.target.append(appended, |out| append.write(&asked.matched.values, out));
                appended.as_slice()
            } else {
                link.target.as_bytes()
            };
            return carve(locations, location).map(|location| Decided::Redirect(manner.redirect, location));
        }
        (Plan::Pixel, _) => return Ok(Decided::Ready(respond::pixel(manner.image, asked.method))),
        (Plan::Gone(Outcome::Expired), _) => Page::Expired,
        (Plan::Gone(Outcome::Disabled), _) => Page::Disabled,
        (Plan::Gone(_), _) => Page::Deleted,
        (Plan::Maintenance(notice @ Notice::Planned { .. }), _) => Page::Maintenance(back(core, notice, now)),
        (Plan::Maintenance(Notice::Unplanned), _) => Page::Outage(back(core, Notice::Unplanned, now)),
        (Plan::NotFound | Plan::Redirect, _) => Page::Unknown,
    };
    let pages = &asked.site.pages;
    let mut response = pages.answer(page, pages.language_for(headers), asked.method);
    if plan == Plan::NotFound && manner.unknown == Unknown::BadRequest {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(Decided::Ready(response))
}

/// The location as a part of a chunk that many answers share: its bytes are copied once, and an
/// allocation serves hundreds of answers. A chunk is free again when the last of them is encoded.
fn carve(chunk: &mut BytesMut, location: &[u8]) -> Result<HeaderValue, Unsendable> {
    chunk.clear(); // nothing of another answer, whatever became of that
    if chunk.capacity() < location.len() {
        chunk.reserve(LOCATIONS_BYTES.max(location.len()));
    }
    chunk.extend_from_slice(location);
    HeaderValue::from_maybe_shared(chunk.split().freeze()).map_err(|_| Unsendable)
}

fn back(core: &Core, notice: Notice, now: UnixMillis) -> Back {
    let usual = || now.after(core.shared.limits.load().retry_after);
    Back { now, at: notice.back_at(now).unwrap_or_else(usual) }
}

#[expect(clippy::too_many_arguments, reason = "the record of a hit names everything that is known of it")]
fn stage(
    core: &Core,
    seen: Seen<'_>,
    asked: &Asked<'_>,
    plan: Plan,
    resolution: &Resolution<'_>,
    headers: &HeaderMap,
    peer: IpAddr,
    now: UnixMillis,
    (location, captures): (&[u8], &mut Vec<u8>),
) -> Result<Option<Staged>, crate::record::Refused> {
    let site = asked.site;
    if !resolution.is_known() {
        let budgets = core.shared.budgets.load();
        let within = budgets.unknown_per_source.take(privacy::source(peer), now)
            && budgets.unknown_per_site.take(u64::from(site.tag.0), now)
            && !site.is_over_share();
        if !within {
            return Ok(None);
        }
    } else if site.is_over_share() {
        return Ok(Some(Staged::Waived(Fate::OverShare)));
    }
    captures.clear();
    for (name, value) in asked.matched.captures() {
        Captures::push(captures, name.as_bytes(), value);
    }
    let limits = seen.limits;
    let kept = privacy::keep(peer, limits.address);
    let text = |name| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let event = |class| Event {
        kind: asked.matched.route.kind(),
        method: asked.method,
        outcome: plan.outcome(),
        class,
        verdict: verdict(asked.method, headers),
        status: plan.status(asked.matched.route.manner()),
        site: site.name.as_bytes(),
        namespace: &site.namespace_name,
        host: asked.host.as_bytes(),
        token: asked.matched.token,
        campaign: resolution.campaign(),
        captures,
        query: asked.query,
        url: if limits.record_url { location } else { b"" },
        address: kept.bytes(),
        user_agent: text(http::header::USER_AGENT),
        referrer: text(http::header::REFERER),
    };
    core.recorder.stage(now, site.tag, event).map(Some)
}

/// The page for a request whose handling failed: all that is known of it may be wrong.
fn broken(core: &Core, seen: Seen<'_>, now: UnixMillis) -> Response<Body> {
    let page = Page::Outage(back(core, Notice::Unplanned, now));
    seen.sites.neutral.answer(page, Language::En, Method::Get)
}

fn turn<B>(
    core: &Core,
    turned: Turned<'_>,
    hsts: Option<&HeaderValue>,
    request: &Request<B>,
) -> Response<Body> {
    match turned.why {
        Why::Proved => core.counters().proofs.one(),
        Why::Refused(refusal) => core.counters().refused(refusal),
        Why::Unrouted(site) => {
            if let Some(counters) = site.counters.get(core.index) {
                counters.unrouted.one();
            }
        }
        Why::Upgraded(site) => {
            if let Some(counters) = site.counters.get(core.index) {
                counters.upgraded.one();
            }
        }
    }
    let method = if request.method() == http::Method::HEAD { Method::Head } else { Method::Get };
    let mut response = match turned.what {
        What::Page(page) => turned.pages.answer(page, turned.pages.language_for(request.headers()), method),
        What::Proof(text) => respond::proof(text, method),
        What::Upgrade(manner, location) => respond::upgrade(manner, location),
    };
    if let Some(hsts) = hsts {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    response
}
