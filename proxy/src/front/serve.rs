//! One request from its head to its answer: ask, resolve, record, respond.

use std::rc::Rc;

use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::ask::{Caller, Way, has_body};
use super::connection::Phase;
use super::core::Core;
use super::decide::{Decided, Question, Step, decide};
use super::prove::prove;
use super::turn::decided;
use crate::record::Recorded;
use crate::respond::{self, body::Body};

/// Answers one request.
///
/// # Cancel safety
/// Dropping the future loses the answer; a hit that was staged is recorded all the same.
pub(super) async fn serve<B>(core: &Core, caller: Rc<Caller>, request: Request<B>) -> Response<Body> {
    let begun = Instant::now();
    let now = core.wall(begun);
    let peer = core.client(&caller, request.headers());
    let (head, _body) = request.into_parts();
    let question = Question { request: Request::from_parts(head, ()), caller, peer, now };
    let (question, mut step) = decided(core, question).await;
    if let Step::LookUp(key) = step {
        let answer = core.look_up(key.clone()).await;
        step = decide(core, &question, &key, &answer);
    }
    let Question { mut request, caller, .. } = question;
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

fn answer(answer: Decided, proof: Option<&Recorded>, spare: HeaderMap) -> Response<Body> {
    match (answer, proof) {
        (Decided::Redirect(manner, location), Some(recorded)) => {
            respond::redirect(manner, location, recorded, spare)
        }
        (Decided::Ready(response), _) => response,
        (Decided::Redirect(..), None) => unreachable!("a known link's hit is always staged"),
    }
}
