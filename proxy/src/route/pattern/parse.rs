//! The text of a pattern becomes its prefix and steps, or the one fault to mend.

use std::fmt;

use super::{CAPTURES_MAX, Pattern, Step, Takes, UUID_BYTES, Until};

const PATTERN_BYTES_MAX: usize = 1024;
/// As long as a name may be in a recorded event.
const NAME_BYTES_MAX: usize = 64;
const TYPES: &str = "alnum, hex, int, rest, uuid";

/// What is wrong with a pattern, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternFault {
    /// The offset in the text.
    pub at: usize,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// What can be wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Two captures with nothing between them: where the first ends is anybody's guess.
    Adjacent,
    /// Something after a capture that takes the rest.
    AfterRest,
    /// A byte that no request's path can have as it is.
    Byte(u8),
    /// Longer than 1024 bytes.
    Long(usize),
    /// More than 16 captures.
    Many,
    /// Not a capture's name: small letters, digits and `_`, a letter first, at most 64.
    Name(String),
    /// The first byte is not `/`.
    Relative,
    /// A `}` without its `{`.
    Stray,
    /// The capture takes every byte of its type, so this byte can never follow it.
    Swallowed(u8),
    /// Two captures of this name.
    Twice(String),
    /// No type of this name.
    Type(String),
    /// A `{` without its `}`.
    Unclosed,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.flaw {
            Flaw::Adjacent => f.write_str("two captures with nothing between them")?,
            Flaw::AfterRest => f.write_str("nothing can follow a capture of type rest")?,
            Flaw::Byte(byte) => {
                let byte = byte.escape_ascii();
                write!(f, "can never match: `{byte}` is not sent in a path unless percent-encoded")?;
            }
            Flaw::Long(bytes) => {
                return write!(f, "pattern of {bytes} bytes, at most {PATTERN_BYTES_MAX} are allowed");
            }
            Flaw::Many => write!(f, "more than {CAPTURES_MAX} captures")?,
            Flaw::Name(name) => {
                write!(f, "`{name}` is no name of a capture (a-z, 0-9, _, a letter first)")?;
            }
            Flaw::Relative => f.write_str("a pattern begins with /")?,
            Flaw::Stray => f.write_str("a } without its {")?,
            Flaw::Swallowed(byte) => {
                let byte = byte.escape_ascii();
                write!(f, "can never match: the capture before `{byte}` takes that byte, too")?;
            }
            Flaw::Twice(name) => write!(f, "a second capture named `{name}`")?,
            Flaw::Type(name) => write!(f, "`{name}` is no type of a capture ({TYPES})")?,
            Flaw::Unclosed => f.write_str("a { without its }")?,
        }
        write!(f, " (at byte {})", self.at)
    }
}

impl std::error::Error for PatternFault {}

/// A capture as it is written, with the literal up to the next one.
struct Written<'t> {
    at: usize,
    name: &'t str,
    class: Option<&'t str>,
    literal: &'t str,
    literal_at: usize,
}

pub(super) fn parse(text: &str) -> Result<Pattern, PatternFault> {
    let fault = |at, flaw| Err(PatternFault { at, flaw });
    if text.len() > PATTERN_BYTES_MAX {
        return fault(0, Flaw::Long(text.len()));
    }
    if !text.starts_with('/') {
        return fault(0, Flaw::Relative);
    }
    let (prefix, captures) = split(text)?;
    check_literal(prefix, 0)?;
    if let Some(extra) = captures.get(CAPTURES_MAX) {
        return fault(extra.at, Flaw::Many);
    }
    let mut names: Vec<Box<str>> = Vec::with_capacity(captures.len());
    let mut steps = Vec::with_capacity(captures.len());
    let mut left = captures.len();
    for capture in &captures {
        left -= 1;
        check_name(capture)?;
        if names.iter().any(|name| **name == *capture.name) {
            return fault(capture.at, Flaw::Twice(capture.name.to_owned()));
        }
        names.push(capture.name.into());
        steps.push(step(capture, left == 0)?);
    }
    let bytes_min = prefix.len() + steps.iter().map(Step::bytes_min).sum::<usize>();
    Ok(Pattern {
        text: text.into(),
        names: names.into(),
        prefix: prefix.as_bytes().into(),
        steps: steps.into(),
        bytes_min,
    })
}

/// Cuts a pattern at its braces.
fn split(text: &str) -> Result<(&str, Vec<Written<'_>>), PatternFault> {
    let (prefix, mut rest) = text.split_at(text.find('{').unwrap_or(text.len()));
    let mut captures = Vec::new();
    let mut at = prefix.len();
    while let Some(inside) = rest.strip_prefix('{') {
        let Some((inside, tail)) = inside.split_once('}') else {
            return Err(PatternFault { at, flaw: Flaw::Unclosed });
        };
        let (literal, next) = tail.split_at(tail.find('{').unwrap_or(tail.len()));
        let (name, class) = match inside.split_once(':') {
            Some((name, class)) => (name, Some(class)),
            None => (inside, None),
        };
        let literal_at = at + inside.len() + "{}".len();
        captures.push(Written { at, name, class, literal, literal_at });
        at = literal_at + literal.len();
        rest = next;
    }
    Ok((prefix, captures))
}

fn step(capture: &Written<'_>, last: bool) -> Result<Step, PatternFault> {
    let literal = capture.literal.as_bytes();
    check_literal(capture.literal, capture.literal_at)?;
    let at_literal = |flaw| Err(PatternFault { at: capture.literal_at, flaw });
    let takes = match capture.class {
        None => Takes::Segment(until(literal, last)),
        Some("alnum") => Takes::Alnum,
        Some("hex") => Takes::Hex,
        Some("int") => Takes::Int,
        Some("rest") => Takes::Rest,
        Some("uuid") => Takes::Uuid,
        Some(other) => return Err(PatternFault { at: capture.at, flaw: Flaw::Type(other.to_owned()) }),
    };
    let Some(&first) = literal.first() else {
        let flaw = if matches!(takes, Takes::Rest) { Flaw::AfterRest } else { Flaw::Adjacent };
        return if last { Ok(Step { takes, literal: Box::default() }) } else { at_literal(flaw) };
    };
    let swallows = match takes {
        Takes::Alnum => first.is_ascii_alphanumeric(),
        Takes::Hex => first.is_ascii_hexdigit(),
        Takes::Int => first.is_ascii_digit(),
        Takes::Rest => return at_literal(Flaw::AfterRest),
        Takes::Segment(_) | Takes::Uuid => false,
    };
    if swallows { at_literal(Flaw::Swallowed(first)) } else { Ok(Step { takes, literal: literal.into() }) }
}

fn until(literal: &[u8], last: bool) -> Until {
    if literal.is_empty() {
        Until::End
    } else if let Some(slash) = memchr::memchr(b'/', literal) {
        Until::Slash(slash)
    } else if last {
        Until::Last
    } else {
        Until::Literal(Box::new(memchr::memmem::Finder::new(literal).into_owned()))
    }
}

impl Step {
    fn bytes_min(&self) -> usize {
        self.literal.len() + if matches!(self.takes, Takes::Uuid) { UUID_BYTES } else { 1 }
    }
}

fn check_name(capture: &Written<'_>) -> Result<(), PatternFault> {
    let name = capture.name;
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && name.len() <= NAME_BYTES_MAX;
    if fits { Ok(()) } else { Err(PatternFault { at: capture.at, flaw: Flaw::Name(name.to_owned()) }) }
}

fn check_literal(literal: &str, at: usize) -> Result<(), PatternFault> {
    let wrong = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#' | b'}');
    match literal.bytes().enumerate().find(|(_, byte)| wrong(byte)) {
        None => Ok(()),
        Some((offset, byte)) => {
            let flaw = if byte == b'}' { Flaw::Stray } else { Flaw::Byte(byte) };
            Err(PatternFault { at: at + offset, flaw })
        }
    }
}
