//! Asks a web address whether a name may have a certificate.

use std::sync::Arc;

use http::Uri;
use rustls::ClientConfig;

use super::gate::Verdict;
use super::http::Http;
use super::name::Name;
use super::{Ask, StartFault};
use crate::Verify;

/// Somebody who can be asked.
pub(crate) struct Asking {
    http: Http,
    address: Uri,
}

impl Asking {
    /// `tls` is for addresses without TLS, which need none of their own.
    ///
    /// # Errors
    /// The address is none, or TLS to it can't be set up.
    pub(crate) fn new(ask: &Ask, tls: Arc<ClientConfig>) -> Result<Self, StartFault> {
        let address: Uri = ask.address.parse().map_err(|_| StartFault::AskAddress)?;
        let tls = match address.scheme_str() {
            Some("http") => tls,
            Some("https") => crate::client(Verify::Name, &ask.roots).map_err(StartFault::Tls)?,
            _ => return Err(StartFault::AskAddress),
        };
        Ok(Self { http: Http::new(tls, ask.deadline), address })
    }

    /// Any 2xx is a yes and any 4xx a no, but for those by which a server says that it was not asked in the
    /// right way or at the right time (401, 407, 408, 421, 425, 429); these and all else are no answer.
    pub(crate) async fn ask(&self, name: &Name) -> Verdict {
        let Some(question) = question(&self.address, name) else { return Verdict::Down };
        match self.http.get(&question).await.map(|answer| answer.status().as_u16()) {
            Ok(200..=299) => Verdict::Yes,
            Ok(401 | 407 | 408 | 421 | 425 | 429) => Verdict::Down,
            Ok(400..=499) => Verdict::No,
            Ok(_) | Err(_) => Verdict::Down,
        }
    }
}

/// The address with `domain=` and the name added to its query.
///
/// A name has letters, digits, hyphens and dots only, so nothing needs to be escaped.
fn question(address: &Uri, name: &Name) -> Option<Uri> {
    let mut parts = address.clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    let join = if path.contains('?') { '&' } else { '?' };
    parts.path_and_query = Some(format!("{path}{join}domain={name}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_added_to_the_query() {
        let name = Name::parse("click.brand.example").expect("a host name");
        let check = |address: &str, expected: &str| {
            let address: Uri = address.parse().expect("a URI");
            assert_eq!(question(&address, &name).expect("a URI").to_string(), expected);
        };
        check("http://app.example/ask", "http://app.example/ask?domain=click.brand.example");
        check("https://app.example/ask?key=1", "https://app.example/ask?key=1&domain=click.brand.example");
        check("http://127.0.0.1:9", "http://127.0.0.1:9/?domain=click.brand.example");
    }
}
