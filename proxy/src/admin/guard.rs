//! Who may use the admin listener: names of this machine, a required header on actions, a token off loopback.
//!
//! A page in an operator's browser must not be able to act on the edge: a rebound name fails the
//! `Host` check, and a form cannot set the header.

use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::{HeaderMap, Method, StatusCode};

/// The header that every action must carry, with any value.
pub const ACTION_HEADER: HeaderName = HeaderName::from_static("x-holdfast-action");

/// What the listener asks of a request.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Bound to loopback or a unix socket: `Host` must then be a loopback name.
    pub local: bool,
    /// The token that `Authorization: Bearer` must carry; always set when not local.
    pub token: Option<String>,
}

impl Guard {
    /// Lets a request pass or says what it lacks.
    ///
    /// # Errors
    /// The status and a sentence for the operator.
    pub fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if self.local && !headers.get(HOST).is_some_and(|host| is_loopback_name(host.as_bytes())) {
            return Err((StatusCode::MISDIRECTED_REQUEST, "Host must be localhost, 127.0.0.1 or [::1]"));
        }
        if let Some(token) = &self.token {
            let given =
                headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            if !given.is_some_and(|given| same(given, token.as_bytes())) {
                return Err((
                    StatusCode::UNAUTHORIZED,
                    "this listener asks for its token (`admin.token_file`)",
                ));
            }
        }
        match *method {
            Method::GET | Method::HEAD => Ok(()),
            Method::POST if headers.contains_key(ACTION_HEADER) => Ok(()),
            Method::POST => Err((StatusCode::FORBIDDEN, "an action needs the header X-Holdfast-Action")),
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "use GET to look and POST to act")),
        }
    }
}

fn is_loopback_name(host: &[u8]) -> bool {
    let name = match host.iter().rposition(|&byte| byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    };
    matches!(name, b"localhost" | b"127.0.0.1" | b"[::1]")
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, method: Method, headers: &[(&'static str, &'static str)], expected: Option<u16>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let status = guard.admit(&method, &headers).err().map(|(status, _)| status.as_u16());
        assert_eq!(status, expected, "{method} {headers:?}");
    }

    #[test]
    fn local_listener_takes_local_names_and_marked_actions() {
        let guard = Guard { local: true, token: None };
        for host in ["localhost", "localhost:9180", "127.0.0.1:9180", "[::1]:9180", "[::1]"] {
            check(&guard, Method::GET, &[("host", host)], None);
        }
        for host in ["rebound.example", "127.0.0.1.example:9180", "", "localhost.example"] {
            check(&guard, Method::GET, &[("host", host)], Some(421));
        }
        check(&guard, Method::GET, &[], Some(421));
        check(&guard, Method::POST, &[("host", "localhost")], Some(403));
        check(&guard, Method::POST, &[("host", "localhost"), ("x-holdfast-action", "1")], None);
        check(&guard, Method::DELETE, &[("host", "localhost")], Some(405));
    }

    #[test]
    fn a_token_is_asked_for_when_there_is_one() {
        let guard = Guard { local: false, token: Some("secret".into()) };
        check(&guard, Method::GET, &[("host", "edge.example")], Some(401));
        check(&guard, Method::GET, &[("authorization", "Bearer secre")], Some(401));
        check(&guard, Method::GET, &[("authorization", "Bearer secret")], None);
    }
}
