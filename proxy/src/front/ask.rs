//! Request → what is asked: its site, its route, its token, or why nobody can tell.
//!
//! hyper has parsed the request; the rules that it leaves to us are here: exactly one valid host
//! (RFC 9112 §3.2), which an absolute target must repeat (§3.2.2), and one exact `chunked` at most
//! (§6.1).

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Uri, Version};

use super::sites::{Site, Sites};
use crate::event::Method;
use crate::metrics::Refusal;
use crate::respond::pages::{Page, Pages};
use crate::route::{Host, Matched};

/// Longest path with query; twice the longest token.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// A request that belongs to a route of a site.
pub(super) struct Asked<'a> {
    pub(super) site: &'a Site,
    pub(super) host: Host<'a>,
    pub(super) matched: Matched<'a, 'a>,
    pub(super) method: Method,
    pub(super) query: &'a [u8],
}

/// A request that is answered with a page before it becomes a hit.
pub(super) struct Turned<'a> {
    pub(super) page: Page,
    pub(super) pages: &'a Pages,
    pub(super) why: Why<'a>,
}

/// Where a turned request is counted.
pub(super) enum Why<'a> {
    Refused(Refusal),
    Unrouted(&'a Site),
}

/// Finds out what a request asks for; `host_scratch` and `token_scratch` are overwritten.
pub(super) fn ask<'a, B>(
    sites: &'a Sites,
    request: &'a Request<B>,
    host_scratch: &'a mut Vec<u8>,
    token_scratch: &'a mut Vec<u8>,
) -> Result<Asked<'a>, Turned<'a>> {
    let turned = |page, pages, refusal| Turned { page, pages, why: Why::Refused(refusal) };
    let bad = || turned(Page::BadRequest, &sites.neutral, Refusal::BadRequest);
    let Some(named) = named_host(request).map_err(|Invalid| bad())? else {
        return Err(turned(Page::Misdirected, &sites.neutral, Refusal::UnknownHost));
    };
    if !has_sound_framing(request.headers()) {
        return Err(bad());
    }
    let host = Host::parse(named, host_scratch).map_err(|_| bad())?;
    let Some(site) = sites.find(host) else {
        return Err(turned(Page::Misdirected, &sites.neutral, Refusal::UnknownHost));
    };
    if target_bytes(request.uri()) > TARGET_BYTES_MAX {
        return Err(turned(Page::BadRequest, &site.pages, Refusal::BadRequest));
    }
    let method = match *request.method() {
        http::Method::GET => Method::Get,
        http::Method::HEAD => Method::Head,
        _ => return Err(turned(Page::MethodNotAllowed, &site.pages, Refusal::Method)),
    };
    match site.routes.find(request.uri().path().as_bytes(), token_scratch) {
        Some(matched) => {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            Ok(Asked { site, host, matched, method, query })
        }
        None => Err(Turned { page: Page::Unknown, pages: &site.pages, why: Why::Unrouted(site) }),
    }
}

fn target_bytes(target: &Uri) -> usize {
    target.path_and_query().map_or(0, |path| path.as_str().len())
}

/// Whether the client may send more bytes than we read: the connection is then closed after the answer.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

struct Invalid;

/// The host that the request names; `None` when HTTP/1.0 names none.
fn named_host<B>(request: &Request<B>) -> Result<Option<&[u8]>, Invalid> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Invalid);
    }
    match (field, request.uri().authority()) {
        (Some(host), None) => Ok(Some(host.as_bytes())),
        // An absolute target must say the same as the field (RFC 9112 §3.2.2).
        (Some(host), Some(authority))
            if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Ok(Some(host.as_bytes()))
        }
        (None, None) if request.version() < Version::HTTP_11 => Ok(None),
        (None, Some(authority)) if request.version() == Version::HTTP_2 => {
            Ok(Some(authority.as_str().as_bytes()))
        }
        _ => Err(Invalid),
    }
}

/// hyper takes any list of codings that ends in `chunked`; we take `chunked` alone.
fn has_sound_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    }
}
