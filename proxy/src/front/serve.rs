//! One request from its head to its answer: ask, resolve, record, respond.

use std::net::IpAddr;
use std::time::Instant;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};

use super::ask::has_body;
use super::connection::Phase;
use super::core::Core;
use super::decide::{Decided, Hit, Step, decide};
use crate::clock;
use crate::respond::{self, body::Body};

/// Answers one request.
///
/// # Cancel safety
/// Dropping the future loses the answer; a hit that was staged is recorded all the same.
#[expect(clippy::disallowed_methods, reason = "the answer's time is measured here")]
pub(super) async fn serve<B>(core: &Core, peer: IpAddr, request: &Request<B>) -> Response<Body> {
    let begun = Instant::now();
    let now = clock::now();
    let mut step = core.with(|seen| decide(core, seen, request, peer, now, None));
    if let Step::LookUp(key) = step {
        let answer = core.look_up(key.clone()).await;
        step = core.with(|seen| decide(core, seen, request, peer, now, Some((&key, &answer))));
    }
    let mut response = match step {
        Step::Hit(hit) => finish(core, hit).await,
        Step::Turned(page) => page,
        Step::LookUp(_) => unreachable!("an answered look-up is not asked for again"),
    };
    let is_bad = response.status() == StatusCode::BAD_REQUEST;
    if core.phase.get() != Phase::Open || has_body(request.headers()) || is_bad {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    core.counters().answer_time.observe(begun.elapsed());
    response
}

/// Waits for the record's proof and answers with it.
async fn finish(core: &Core, hit: Hit) -> Response<Body> {
    let Hit { answer, staged, counters, kind, outcome } = hit;
    let proof = match staged {
        Some(staged) => Some(core.recorder.settle(staged).await),
        None => None,
    };
    if let Some(counters) = counters.get(core.index) {
        counters.answered(kind, outcome);
        match &proof {
            Some(recorded) => counters.promised(recorded.class()),
            None => counters.unrecorded.one(),
        }
    }
    match (answer, proof) {
        (Decided::Redirect(location), Some(recorded)) => respond::redirect(location, &recorded),
        (Decided::Ready(response), _) => response,
        (Decided::Redirect(_), None) => unreachable!("a known link's hit is always staged"),
    }
}
