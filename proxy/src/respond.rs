//! Turns an answer that is already decided into an HTTP response: the last step of a request's way.
//!
//! Invariants:
//! - Nothing of a request reaches a response, but for its own path in a redirect to https and the token
//!   of an authority's check. All else that can be asked for here is a location that was approved when its link was loaded, a page, a language
//!   and a method.
//! - No response may be stored by anyone: each one says `no-store`.
//! - A redirect to a link's target is a 302, or the 303 or 307 that its route asks for, never a 301,
//!   with an empty body.
//! - HEAD gets the status and the fields of GET, `Content-Length` included, and no body.
//! - The redirect allocates nothing, for it gets the emptied field map of the request; the pixel only
//!   its own.
//!
//! It does not decide what the answer is, read a clock or do I/O.

pub mod body;
pub mod brand;
pub mod colour;
mod inline;
pub mod language;
mod moment;
pub mod pages;
mod texts;

use crate::event::Method;
use crate::record::Recorded;
use crate::route::{Image, Redirect};
use body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// A redirect to `location`, which must be the approved value byte for byte; only a recorded hit is redirected.
///
/// `spare` is a map of fields whose memory is used again; nothing of its content is.
#[must_use]
pub fn redirect(
    manner: Redirect,
    location: HeaderValue,
    _proof: &Recorded,
    mut spare: HeaderMap,
) -> Response<Body> {
    spare.clear();
    spare.insert(LOCATION, location);
    spare.insert(CACHE_CONTROL, NO_STORE);
    spare.insert(X_ROBOTS_TAG, NOINDEX);
    spare.insert(CONTENT_LENGTH, ZERO);
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = match manner {
        Redirect::Found => StatusCode::FOUND,
        Redirect::SeeOther => StatusCode::SEE_OTHER,
        Redirect::Temporary => StatusCode::TEMPORARY_REDIRECT,
    };
    *response.headers_mut() = spare;
    response
}

/// How a client that came without TLS is told to come back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanent {
    /// 301, which every client knows.
    Moved,
    /// 308, which keeps the method.
    Redirect,
}

/// To the same address with `https`; `location` repeats the request's path, which was checked.
#[must_use]
pub fn upgrade(manner: Permanent, location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = match manner {
        Permanent::Moved => StatusCode::MOVED_PERMANENTLY,
        Permanent::Redirect => StatusCode::PERMANENT_REDIRECT,
    };
    let fields = response.headers_mut();
    fields.insert(LOCATION, location);
    fields.insert(CACHE_CONTROL, NO_STORE);
    fields.insert(X_ROBOTS_TAG, NOINDEX);
    fields.insert(CONTENT_LENGTH, ZERO);
    response
}

/// 200 with what proves to an authority that a name is ours (RFC 8555, section 8.3).
#[must_use]
pub fn proof(text: String, method: Method) -> Response<Body> {
    let bytes = text.len();
    let mut response = Response::new(body_for(method, text.into()));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, OCTETS);
    fields.insert(CACHE_CONTROL, NO_STORE);
    fields.insert(CONTENT_LENGTH, bytes.into());
    response
}

/// 200 with a transparent image of one pixel, whatever became of the hit.
///
/// Mail clients fetch it again at each opening, and never see an error: the image caches in front of
/// large mailboxes keep a first error for a long time.
#[must_use]
pub fn pixel(image: Image, method: Method) -> Response<Body> {
    let (content, of_type) = match image {
        Image::Gif => (GIF.as_slice(), IMAGE_GIF),
        Image::Png => (PNG.as_slice(), IMAGE_PNG),
    };
    let mut response = Response::new(body_for(method, Bytes::from_static(content)));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, of_type);
    fields.insert(CACHE_CONTROL, NO_STORE_PIXEL);
    fields.insert(CONTENT_LENGTH, content.len().into());
    response
}

fn body_for(method: Method, content: Bytes) -> Body {
    match method {
        Method::Get => Body::Full(content),
        Method::Head => Body::Empty,
    }
}

const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");
const NOINDEX: HeaderValue = HeaderValue::from_static("noindex");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_STORE_PIXEL: HeaderValue = HeaderValue::from_static("no-cache, no-store, max-age=0");
const IMAGE_GIF: HeaderValue = HeaderValue::from_static("image/gif");
const IMAGE_PNG: HeaderValue = HeaderValue::from_static("image/png");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// A transparent GIF89a of 1 × 1 pixel whose image data ends with the proper end code, which some
/// of the 43-byte images in wide use lack.
#[rustfmt::skip]
const GIF: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a',
    1, 0, 1, 0, 0x80, 0, 0, // screen: 1 × 1, a palette of two colours
    0, 0, 0, 0xff, 0xff, 0xff, // black, white
    0x21, 0xf9, 4, 1, 0, 0, 0, 0, // graphic control: colour 0 is transparent
    0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, // image: 1 × 1 at 0, 0
    2, 2, 0x44, 1, 0, // data: clear, colour 0, end
    0x3b,
];

/// A transparent PNG of 1 × 1 pixel, grey with alpha.
#[rustfmt::skip]
const PNG: [u8; 68] = [
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a,
    0, 0, 0, 13, b'I', b'H', b'D', b'R',
    0, 0, 0, 1, 0, 0, 0, 1, 8, 4, 0, 0, 0, // 1 × 1, eight bits each of grey and alpha
    0xb5, 0x1c, 0x0c, 0x02,
    0, 0, 0, 11, b'I', b'D', b'A', b'T',
    0x78, 0x9c, 0x63, 0x60, 0x60, 0, 0, 0, 3, 0, 1, // deflated: no filter, black, transparent
    0xb8, 0xad, 0x3a, 0x63,
    0, 0, 0, 0, b'I', b'E', b'N', b'D',
    0xae, 0x42, 0x60, 0x82,
];

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    #[test]
    fn redirect_is_temporary_and_nobody_stores_it() {
        for &manner in Redirect::ALL {
            let location = HeaderValue::from_static("https://example.com/");
            let response = redirect(manner, location, &Recorded::sample(), HeaderMap::new());
            assert_eq!(response.status(), manner.status());
            assert!(![301, 308].contains(&manner.status()));
        }
        let location = HeaderValue::from_static("https://example.com/a?b=c#d");
        let mut spare = HeaderMap::new();
        spare.insert("x-of-the-request", HeaderValue::from_static("nothing of it comes back"));
        let response = redirect(Redirect::Found, location.clone(), &Recorded::sample(), spare);
        assert_eq!(response.status(), 302);
        assert_eq!(response.headers()[LOCATION], location);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()["x-robots-tag"], "noindex");
        assert_eq!(response.headers()[CONTENT_LENGTH], "0");
        assert_eq!(response.headers().len(), 4, "more than six fields cost a second allocation");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn pixel_is_43_bytes_of_gif() {
        let response = pixel(Image::Gif, Method::Get);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "image/gif");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache, no-store, max-age=0");
        let Body::Full(image) = response.body() else { panic!("no image") };
        assert_eq!(image.len(), 43);
        assert!(image.starts_with(b"GIF89a\x01\0\x01\0"));
        assert!(image.ends_with(&[0x44, 0x01, 0x00, 0x3b]));
        assert_eq!(response.headers()[CONTENT_LENGTH], image.len().to_string().as_str());
    }

    #[test]
    fn pixel_is_68_bytes_of_png_where_a_route_asks_for_it() {
        let response = pixel(Image::Png, Method::Get);
        assert_eq!(response.headers()[CONTENT_TYPE], "image/png");
        assert_eq!(response.headers()[CONTENT_LENGTH], "68");
        let Body::Full(image) = response.body() else { panic!("no image") };
        assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"));
        // Each chunk is followed by the CRC-32 of its type and content; that of the empty end is known.
        assert!(image.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
    }

    #[test]
    fn head_of_the_pixel_has_the_fields_and_no_body() {
        let (get, head) = (pixel(Image::Gif, Method::Get), pixel(Image::Gif, Method::Head));
        assert_eq!((get.status(), get.headers()), (head.status(), head.headers()));
        assert!(matches!(head.body(), Body::Empty));
    }
}
