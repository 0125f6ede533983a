//! One request from its head to its answer: ask, resolve, record, respond.

use std::panic::AssertUnwindSafe;

use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::ask::{Caller, Way, has_body};
use super::connection::Phase;
use super::core::Core;
use super::decide::{Decided, Step, broken, decide};
use super::prove::prove;
use crate::event::UnixMillis;
use crate::record::Recorded;
use crate::respond::{self, body::Body};

/// Answers one request.
///
/// # Cancel safety
/// Dropping the future loses the answer; a hit that was staged is recorded all the same.
pub(super) async fn serve<B>(core: &Core, caller: &Caller, mut request: Request<B>) -> Response<Body> {
    let begun = Instant::now();
    let now = core.wall(begun);
    let peer = core.client(caller, request.headers());
    let mut step =
        guarded(core, now, || core.with(|seen| decide(core, seen, &request, caller, peer, now, None)));
    if let Step::LookUp(key) = step {
        let answer = core.look_up(key.clone()).await;
        step = guarded(core, now, || {
            core.with(|seen| decide(core, seen, &request, caller, peer, now, Some((&key, &answer))))
        });
    }
    // Where the request's end lies is not certain.
    let is_alone = request.version() < Version::HTTP_2;
    let mut last = has_body(request.headers()) || matches!(caller.way, Way::Misplaced);
    let (mut response, ended) = match step {
        Step::Hit(hit) => {
            let (proof, ended) = prove(core, hit.account).await;
            let mut response = answer(hit.answer, proof.as_ref(), std::mem::take(request.headers_mut()));
            if let Some(hsts) = hit.hsts {
                response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            (response, ended)
        }
        Step::Turned(page) => {
            last |= page.status() == StatusCode::BAD_REQUEST;
            (page, Instant::now())
        }
        Step::LookUp(_) => unreachable!("an answered look-up is not asked for again"),
    };
    // A connection of HTTP/2 is told by its own means, and its requests' ends are certain.
    if is_alone && (core.phase.get() > Phase::Open || last) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    core.counters().answer_time.observe(ended.duration_since(begun));
    response
}

/// Does `step`; should it panic, this one request gets a page and nothing else is hurt.
fn guarded(core: &Core, now: UnixMillis, step: impl FnOnce() -> Step) -> Step {
    // What the step leaves half-done, in the scratch buffers and in the stager's, the next one clears.
    std::panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        core.counters().panics.one();
        Step::Turned(broken(core, now))
    })
}

fn answer(answer: Decided, proof: Option<&Recorded>, spare: HeaderMap) -> Response<Body> {
    match (answer, proof) {
        (Decided::Redirect(manner, location), Some(recorded)) => {
            respond::redirect(manner, location, recorded, spare)
        }
        (Decided::Ready(response), _) => response,
        (Decided::Redirect(..), None) => unreachable!("a known link's hit is always staged"),
    }
}
