//! Query parameters built from captures, for the end of a target's query.
//!
//! A capture's bytes come from the request, so they only ever become an escaped part of a
//! parameter's value: names and everything between are the configuration's own. Where in the
//! target the parameters go is for the owner of targets to say.

use std::fmt;

use super::pattern::{Pattern, Values};

/// The longest template; a target has to stay far below what browsers and proxies take.
const APPEND_BYTES_MAX: usize = 1024;

/// Parameters to add, such as `dm_i={account},{campaign}&source=mail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Capture(usize),
    Literal(Box<[u8]>),
}

impl Append {
    /// Reads `name=value` parameters separated by `&`, whose values may hold captures of `pattern`.
    ///
    /// # Errors
    /// Says what is no query parameter, or which capture the pattern lacks.
    pub fn parse(text: &str, pattern: &Pattern) -> Result<Self, AppendFault> {
        if text.len() > APPEND_BYTES_MAX {
            return Err(AppendFault::Long(text.len()));
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        for parameter in text.split('&') {
            let name = parameter.split_once('=').map_or("", |(name, _)| name);
            if name.is_empty() || name.contains(['{', '}']) {
                return Err(AppendFault::Parameter(parameter.to_owned()));
            }
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            let Some((name, tail)) = tail.split_once('}') else {
                return Err(AppendFault::Unclosed);
            };
            let capture = pattern.index(name).ok_or_else(|| AppendFault::Unknown(name.to_owned()))?;
            push_literal(&mut parts, literal)?;
            parts.push(Part::Capture(capture));
            rest = tail;
        }
        push_literal(&mut parts, rest)?;
        Ok(Self(parts.into()))
    }

    /// Whether there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the parameters to `out`, without any `?` or `&` before or after them.
    ///
    /// `values` are those of a path that the pattern of [`parse`](Self::parse) matched. The bytes
    /// written are visible ASCII without quotes, `#`, `<` or `>`, as a browser would write them.
    pub fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Capture(place) => escape(values.at(*place), out),
                Part::Literal(bytes) => out.extend_from_slice(bytes),
            }
        }
    }
}

/// Percent-encodes all but the letters, digits and marks that no reader of a query could mistake.
/// A `%` that came in the path is encoded too: two captures never become the same value.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    for &byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &str) -> Result<(), AppendFault> {
    let mut bytes = literal.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                hex() && hex()
            }
            // What a query may hold and a browser leaves alone in it.
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b':'
            | b'@' | b'/' | b'?' | b'=' | b'&' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return Err(AppendFault::Byte(byte));
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.as_bytes().into()));
    }
    Ok(())
}

/// Why a route's `append` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// A byte that can't stand in a query as it is; for `%`, two hexadecimal digits have to follow.
    Byte(u8),
    /// The template is longer than a target can bear.
    Long(usize),
    /// Not of the form `name=value` with a fixed name.
    Parameter(String),
    /// A `{` without its `}`.
    Unclosed,
    /// The path has no capture of this name.
    Unknown(String),
}

impl fmt::Display for AppendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => {
                write!(f, "`{}` can't stand in a query unless percent-encoded", byte.escape_ascii())
            }
            Self::Long(bytes) => write!(f, "{bytes} bytes, at most {APPEND_BYTES_MAX} are allowed"),
            Self::Parameter(text) => write!(f, "`{text}` is not of the form name=value with a fixed name"),
            Self::Unclosed => f.write_str("a { without its }"),
            Self::Unknown(name) => write!(f, "append uses `{name}`, which the path does not capture"),
        }
    }
}

impl std::error::Error for AppendFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(template: &str, path: &[u8], expected: &str) {
        let pattern = Pattern::parse("/{a}/{b:rest}").expect("pattern");
        let append = Append::parse(template, &pattern).expect("template");
        let mut out = Vec::new();
        append.write(&pattern.matches(path).expect("path"), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    fn refuses(template: &str, fault: AppendFault) {
        let pattern = Pattern::parse("/{a}").expect("pattern");
        assert_eq!(Append::parse(template, &pattern), Err(fault));
    }

    #[test]
    fn captures_fill_the_template() {
        check("i={a},{b}", b"/UAA/6RZ", "i=UAA,6RZ");
        check("x={a}{a}&y=1", b"/q/w", "x=qq&y=1");
        check("fixed=%20", b"/q/w", "fixed=%20");
        check("", b"/q/w", "");
    }

    #[test]
    fn what_is_not_plain_is_escaped() {
        check("i={b}", b"/q/-._~ &=#?/%2F+'\"\r\n\xff", "i=-._~%20%26%3D%23%3F%2F%252F%2B%27%22%0D%0A%FF");
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        refuses("i={b}", AppendFault::Unknown("b".into()));
        refuses("i={a", AppendFault::Unclosed);
        refuses("{a}=1", AppendFault::Parameter("{a}=1".into()));
        refuses("a=1&&b=2", AppendFault::Parameter(String::new()));
        refuses("=1", AppendFault::Parameter("=1".into()));
        refuses("i={a}#x", AppendFault::Byte(b'#'));
        refuses("i=%2", AppendFault::Byte(b'%'));
        refuses("i='", AppendFault::Byte(b'\''));
        refuses("i={a} ", AppendFault::Byte(b' '));
        refuses("i=a}", AppendFault::Byte(b'}'));
        refuses(&"i=".repeat(600), AppendFault::Long(1200));
    }

    proptest! {
        // H11: whatever a capture holds, the target's scheme, host, path, query and fragment stay.
        #[test]
        fn a_browser_reads_the_value_back_and_nothing_else(value in proptest::collection::vec(any::<u8>(), 1..60)) {
            let pattern = Pattern::parse("/{a:rest}").expect("pattern");
            let append = Append::parse("i={a}", &pattern).expect("template");
            let path = [b"/", &value[..]].concat();
            let mut target = b"https://example.com/p?q=1&".to_vec();
            append.write(&pattern.matches(&path).expect("path"), &mut target);
            let text = String::from_utf8(target).expect("visible ASCII");
            let url = url::Url::parse(&text).expect("url");
            prop_assert_eq!(url.as_str(), &text);
            let (kept, added) = text.split_once("&i=").expect("the parameter");
            prop_assert_eq!(kept, "https://example.com/p?q=1");
            let unescaped: Vec<u8> = percent_decode(added.as_bytes());
            prop_assert_eq!(unescaped, value);
        }
    }

    fn percent_decode(mut text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some((&byte, tail)) = text.split_first() {
            text = tail;
            if byte == b'%' {
                let (hex, tail) = text.split_at(2);
                text = tail;
                out.push(u8::from_str_radix(str::from_utf8(hex).expect("hex"), 16).expect("hex"));
            } else {
                out.push(byte);
            }
        }
        out
    }
}
