//! Turns an answer that is already decided into an HTTP response: the last step of a request's way.
//!
//! Invariants:
//! - Nothing of a request reaches a response. All that can be asked for here is a location that was
//!   approved when its link was loaded, a page, a language and a method.
//! - No response may be stored by anyone: each one says `no-store`.
//! - A redirect is a 302, never a 301, with an empty body.
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
use body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// 302 to `location`, which must be the approved value byte for byte; only a recorded hit is redirected.
///
/// `spare` is a map of fields whose memory is used again; nothing of its content is.
#[must_use]
pub fn redirect(location: HeaderValue, _proof: &Recorded, mut spare: HeaderMap) -> Response<Body> {
    spare.clear();
    spare.insert(LOCATION, location);
    spare.insert(CACHE_CONTROL, NO_STORE);
    spare.insert(X_ROBOTS_TAG, NOINDEX);
    spare.insert(CONTENT_LENGTH, ZERO);
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::FOUND;
    *response.headers_mut() = spare;
    response
}

/// 200 with a transparent image of one pixel, whatever became of the hit.
///
/// Mail clients fetch it again at each opening, and never see an error: the image caches in front of
/// large mailboxes keep a first error for a long time.
#[must_use]
pub fn pixel(method: Method) -> Response<Body> {
    let mut response = Response::new(body_for(method, Bytes::from_static(&PIXEL)));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, IMAGE_GIF);
    fields.insert(CACHE_CONTROL, NO_STORE_PIXEL);
    fields.insert(CONTENT_LENGTH, PIXEL_BYTES);
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
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_STORE_PIXEL: HeaderValue = HeaderValue::from_static("no-cache, no-store, max-age=0");
const IMAGE_GIF: HeaderValue = HeaderValue::from_static("image/gif");
const ZERO: HeaderValue = HeaderValue::from_static("0");
const PIXEL_BYTES: HeaderValue = HeaderValue::from_static("43");

/// A transparent GIF89a of 1 × 1 pixel whose image data ends with the proper end code, which some
/// of the 43-byte images in wide use lack.
#[rustfmt::skip]
const PIXEL: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a',
    1, 0, 1, 0, 0x80, 0, 0, // screen: 1 × 1, a palette of two colours
    0, 0, 0, 0xff, 0xff, 0xff, // black, white
    0x21, 0xf9, 4, 1, 0, 0, 0, 0, // graphic control: colour 0 is transparent
    0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, // image: 1 × 1 at 0, 0
    2, 2, 0x44, 1, 0, // data: clear, colour 0, end
    0x3b,
];

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    #[test]
    fn redirect_is_a_302_that_nobody_stores() {
        let location = HeaderValue::from_static("https://example.com/a?b=c#d");
        let mut spare = HeaderMap::new();
        spare.insert("x-of-the-request", HeaderValue::from_static("nothing of it comes back"));
        let response = redirect(location.clone(), &Recorded::sample(), spare);
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
        let response = pixel(Method::Get);
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
    fn head_of_the_pixel_has_the_fields_and_no_body() {
        let (get, head) = (pixel(Method::Get), pixel(Method::Head));
        assert_eq!((get.status(), get.headers()), (head.status(), head.headers()));
        assert!(matches!(head.body(), Body::Empty));
    }
}
