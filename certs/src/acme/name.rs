//! A host name that a certificate can be ordered for.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host name in lower case, without a trailing dot: letters, digits and hyphens, two labels or more.
///
/// It is safe as the name of a file. Wildcards are not among them: they can only be proven through
/// the DNS, which neither HTTP-01 nor TLS-ALPN-01 touches.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a name as it stands in a configuration, a `ClientHello` or a file name.
    ///
    /// # Errors
    /// [`NameFault`] says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > NAME_BYTES_MAX {
            return Err(NameFault::TooLong);
        }
        if text.starts_with("*.") {
            return Err(NameFault::Wildcard);
        }
        let mut labels = 0;
        let mut last = "";
        for label in text.split('.') {
            let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let edges = label.starts_with('-') || label.ends_with('-');
            if label.is_empty() || label.len() > LABEL_BYTES_MAX || !plain || edges {
                return Err(NameFault::Label);
            }
            labels += 1;
            last = label;
        }
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameFault::Address);
        }
        if labels < 2 {
            return Err(NameFault::OneLabel);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its owner has registered (`brand.co.uk` of `click.brand.co.uk`), by the public suffix
    /// list; a name that is a public suffix itself stands for itself.
    #[must_use]
    pub fn registrable(&self) -> &str {
        psl::domain_str(&self.0).unwrap_or(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why no certificate can be ordered for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It is an IP address, or ends like one.
    Address,
    /// A label is empty, longer than 63 bytes, or has something else than letters, digits and inner hyphens.
    Label,
    /// It has one label only; no public authority knows such names.
    OneLabel,
    /// It is longer than 253 bytes.
    TooLong,
    /// It is a wildcard.
    Wildcard,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "an address is not a host name",
            Self::Label => {
                "a label is empty, too long or has other characters than letters, digits and hyphens"
            }
            Self::OneLabel => "a name with one label only is not known outside",
            Self::TooLong => "a host name has at most 253 bytes",
            Self::Wildcard => "a wildcard can't be proven over http or TLS",
        })
    }
}

impl std::error::Error for NameFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_checked() {
        let check = |text: &str, expected: Result<&str, NameFault>| {
            assert_eq!(Name::parse(text).as_ref().map(Name::as_str), expected.as_ref().copied(), "{text}");
        };
        let long = format!("{}.example", "a".repeat(64));
        let longer = format!("{}example", "a.".repeat(127));
        check("Click.Brand.Example", Ok("click.brand.example"));
        check("brand.example.", Ok("brand.example"));
        check("xn--bcher-kva.example", Ok("xn--bcher-kva.example"));
        check("*.brand.example", Err(NameFault::Wildcard));
        check("localhost", Err(NameFault::OneLabel));
        check("127.0.0.1", Err(NameFault::Address));
        check("[::1]", Err(NameFault::Label));
        check("", Err(NameFault::Label));
        check(".example", Err(NameFault::Label));
        check("a..example", Err(NameFault::Label));
        check("-a.example", Err(NameFault::Label));
        check("a-.example", Err(NameFault::Label));
        check("a/../b.example", Err(NameFault::Label));
        check("a_b.example", Err(NameFault::Label));
        check("bücher.example", Err(NameFault::Label));
        check(&long, Err(NameFault::Label));
        check(&longer, Err(NameFault::TooLong));
    }

    #[test]
    fn what_an_owner_registered_is_told_by_the_public_suffix_list() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Name::parse(text).expect("a host name").registrable(), expected);
        };
        check("click.brand.com", "brand.com");
        check("a.b.click.brand.co.uk", "brand.co.uk");
        check("one.github.io", "one.github.io");
        check("co.uk", "co.uk");
        check("click.brand.test", "brand.test");
    }
}
