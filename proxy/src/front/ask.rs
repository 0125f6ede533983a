//! Request → what is asked: its site, its route, its token, or why nobody can tell.
//!
//! hyper has parsed the request; the rules that it leaves to us are here: exactly one valid host
//! (RFC 9112 §3.2), which an absolute target must repeat (§3.2.2), one exact `chunked` at most (§6.1),
//! and a host of the site that the connection's certificate was asked for (RFC 9110 §15.5.20).

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};

use super::sites::{Site, Sites};
use super::tls::Tls;
use crate::event::Method;
use crate::metrics::Refusal;
use crate::respond::Permanent;
use crate::respond::pages::{Page, Pages};
use crate::route::{Host, Matched};

/// Longest path with query; twice the longest token.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// Most fields of a request's head; hyper counts them for HTTP/1 only.
pub(super) const FIELDS_MAX: usize = 64;
/// What must stay reachable without TLS, for the certificate is still to come.
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// Who asks, and how its connection came to be.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The other end of the connection, or who a load balancer says that it is.
    pub(super) peer: IpAddr,
    /// Whether what it says of a client before it is believed.
    pub(super) is_proxy: bool,
    pub(super) way: Way,
}

/// How bytes come in.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Without TLS.
    Plain,
    /// Without TLS, by a listener for TLS.
    Misplaced,
    /// By TLS under this name.
    Tls { name: Option<Box<str>> },
}

/// What is known of the listeners for https.
#[derive(Clone, Copy)]
pub(super) struct Https<'a> {
    pub(super) tls: Option<&'a Tls>,
    pub(super) public_port: u16,
}

/// A request that belongs to a route of a site.
pub(super) struct Asked<'a> {
    pub(super) site: &'a Site,
    pub(super) host: Host<'a>,
    pub(super) matched: Matched<'a, 'a>,
    pub(super) method: Method,
    pub(super) query: &'a [u8],
}

/// A request that is answered before it becomes a hit.
pub(super) struct Turned<'a> {
    pub(super) what: What,
    pub(super) pages: &'a Pages,
    pub(super) why: Why<'a>,
}

/// The answer to a turned request.
pub(super) enum What {
    Page(Page),
    /// What an authority looks for.
    Proof(String),
    /// To the same address with https.
    Upgrade(Permanent, HeaderValue),
}

/// Where a turned request is counted.
pub(super) enum Why<'a> {
    Proved,
    Refused(Refusal),
    Unrouted(&'a Site),
    Upgraded(&'a Site),
}

/// Finds out what a request asks for; `host_scratch` and `token_scratch` are overwritten.
pub(super) fn ask<'a, B>(
    sites: &'a Sites,
    https: Https<'_>,
    way: &Way,
    request: &'a Request<B>,
    host_scratch: &'a mut Vec<u8>,
    token_scratch: &'a mut Vec<u8>,
) -> Result<Asked<'a>, Turned<'a>> {
    let turned = |page, pages, refusal| Turned { what: What::Page(page), pages, why: Why::Refused(refusal) };
    let bad = || turned(Page::BadRequest, &sites.neutral, Refusal::BadRequest);
    let Some(named) = named_host(request).map_err(|Invalid| bad())? else {
        return Err(turned(Page::Misdirected, &sites.neutral, Refusal::UnknownHost));
    };
    if !has_sound_framing(request.headers()) || request.headers().len() > FIELDS_MAX {
        return Err(bad());
    }
    let host = Host::parse(named, host_scratch).map_err(|_| bad())?;
    // Whoever orders for the host may be another edge, so whether it is known here does not matter.
    if let Some(proof) = proof(https.tls, request) {
        return Err(Turned { what: What::Proof(proof), pages: &sites.neutral, why: Why::Proved });
    }
    let Some(site) = sites.find(host) else {
        return Err(turned(Page::Misdirected, &sites.neutral, Refusal::UnknownHost));
    };
    if let Way::Tls { name } = way
        && !name.as_deref().is_some_and(|name| is_of_site(sites, site, host, name))
    {
        return Err(turned(Page::Misdirected, &sites.neutral, Refusal::OtherSite));
    }
    if target_bytes(request.uri()) > TARGET_BYTES_MAX {
        return Err(turned(Page::BadRequest, &site.pages, Refusal::BadRequest));
    }
    let method = match *request.method() {
        http::Method::GET => Method::Get,
        http::Method::HEAD => Method::Head,
        // Sent without TLS to where TLS is spoken: nothing of it is taken.
        _ if matches!(way, Way::Misplaced) => {
            return Err(turned(Page::BadRequest, &site.pages, Refusal::PlainOnTls));
        }
        _ => return Err(turned(Page::MethodNotAllowed, &site.pages, Refusal::Method)),
    };
    if let Some(manner) = upgrade(site, https, way, host, request.uri().path()) {
        match secure_location(https.public_port, host, request.uri()) {
            Some(location) => {
                let (what, why) = (What::Upgrade(manner, location), Why::Upgraded(site));
                return Err(Turned { what, pages: &site.pages, why });
            }
            None if matches!(way, Way::Misplaced) => {
                return Err(turned(Page::BadRequest, &site.pages, Refusal::BadRequest));
            }
            // Answered without TLS rather than not at all.
            None => {}
        }
    }
    match site.routes.find(request.uri().path().as_bytes(), token_scratch) {
        Some(matched) => {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            Ok(Asked { site, host, matched, method, query })
        }
        None => Err(Turned { what: What::Page(Page::Unknown), pages: &site.pages, why: Why::Unrouted(site) }),
    }
}

/// What proves to an authority that its host is ours, where one checks that (HTTP-01).
fn proof<B>(tls: Option<&Tls>, request: &Request<B>) -> Option<String> {
    let token = request.uri().path().strip_prefix(ACME_CHALLENGE)?;
    let is_look = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    tls?.issuing.as_ref().filter(|_| is_look)?.acme.http01(token)
}

/// Whether `host`, which is `site`'s, may be asked for on a connection under `name`: a certificate may be
/// for hosts of many sites, and a client then takes one connection for all of them.
fn is_of_site(sites: &Sites, site: &Site, host: Host<'_>, name: &str) -> bool {
    if host.as_bytes() == name.as_bytes() {
        return true;
    }
    let mut scratch = Vec::new(); // stays empty: the name is in lower case
    let Ok(name) = Host::parse(name.as_bytes(), &mut scratch) else { return false };
    sites.find(name).is_some_and(|other| other.shares_links_with(site))
}

/// How a request is sent to https; only where a certificate is there for it, for a link that is
/// answered without TLS is better than one that is not answered.
fn upgrade(site: &Site, https: Https<'_>, way: &Way, host: Host<'_>, path: &str) -> Option<Permanent> {
    let manner = match way {
        Way::Plain => site.https_redirect?,
        Way::Misplaced => Permanent::Redirect,
        Way::Tls { .. } => return None,
    };
    let covered = https.tls.is_some_and(|tls| tls.covers(host.as_bytes()));
    (!path.starts_with(ACME_CHALLENGE) && (covered || matches!(way, Way::Misplaced))).then_some(manner)
}

/// The same address with https; `None` when the path has a byte that no `Location` may have.
fn secure_location(port: u16, host: Host<'_>, target: &Uri) -> Option<HeaderValue> {
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return None;
    }
    let mut location = Vec::with_capacity(16 + host.as_bytes().len() + path.len());
    location.extend_from_slice(b"https://");
    location.extend_from_slice(host.as_bytes());
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(path.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(location)).ok()
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
