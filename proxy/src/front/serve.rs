//! One request from its head to its answer: ask, resolve, record, respond.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;

use super::ask::has_body;
use super::connection::Phase;
use super::core::Core;
use super::decide::{Decided, Hit, Step, broken, decide};
use crate::event::UnixMillis;
use crate::metrics::SiteCore;
use crate::record::{Fate, Staged};
use crate::respond::{self, body::Body};

/// Answers one request.
///
/// # Cancel safety
/// Dropping the future loses the answer; a hit that was staged is recorded all the same.
pub(super) async fn serve<B>(core: &Core, peer: IpAddr, mut request: Request<B>) -> Response<Body> {
    let begun = Instant::now();
    let now = core.wall(begun);
    let mut step = guarded(core, now, || core.with(|seen| decide(core, seen, &request, peer, now, None)));
    if let Step::LookUp(key) = step {
        let answer = core.look_up(key.clone()).await;
        step = guarded(core, now, || {
            core.with(|seen| decide(core, seen, &request, peer, now, Some((&key, &answer))))
        });
    }
    let has_body = has_body(request.headers());
    let (mut response, ended) = match step {
        Step::Hit(hit) => finish(core, hit, std::mem::take(request.headers_mut())).await,
        Step::Turned(page) => (page, Instant::now()),
        Step::LookUp(_) => unreachable!("an answered look-up is not asked for again"),
    };
    let is_bad = response.status() == StatusCode::BAD_REQUEST;
    if core.phase.get() > Phase::Open || has_body || is_bad {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    core.counters().answer_time.observe(ended.duration_since(begun));
    response
}

/// Does `step`; should it panic, this one request gets a page and nothing else is hurt.
fn guarded(core: &Core, now: UnixMillis, step: impl FnOnce() -> Step) -> Step {
    // What the step changes of the core is overwritten by the next request.
    std::panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
        core.counters().panics.one();
        Step::Turned(broken(core, now))
    })
}

/// A client that left while its hit waited for the disk: recorded, and answered to nobody.
struct Abandoned<'a>(Option<&'a SiteCore>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(counters) = self.0 {
            counters.abandoned.one();
        }
    }
}

/// Waits for the record's proof and answers with it; says when the wait was over.
async fn finish(core: &Core, hit: Hit, spare: HeaderMap) -> (Response<Body>, Instant) {
    let Hit { answer, staged, counters, kind, outcome } = hit;
    let (proof, ended) = match staged {
        Some(staged @ Staged::Waiting(_)) => {
            let gone = Abandoned(counters.get(core.index));
            let recorded = core.recorder.settle(staged).await;
            std::mem::forget(gone);
            (Some(recorded), core.recorder.released_at())
        }
        Some(staged @ Staged::Waived(_)) => (Some(core.recorder.settle(staged).await), Instant::now()),
        None => (None, Instant::now()),
    };
    if let Some(counters) = counters.get(core.index) {
        counters.answered(kind, outcome);
        match &proof {
            Some(recorded) => {
                counters.promised(recorded.class());
                match recorded.fate() {
                    Fate::Taken => {}
                    Fate::Lost => counters.waived.one(),
                    Fate::OverShare => counters.unrecorded.one(),
                }
            }
            None => counters.unrecorded.one(),
        }
    }
    let response = match (answer, proof) {
        (Decided::Redirect(location), Some(recorded)) => respond::redirect(location, &recorded, spare),
        (Decided::Ready(response), _) => response,
        (Decided::Redirect(_), None) => unreachable!("a known link's hit is always staged"),
    };
    (response, ended)
}
