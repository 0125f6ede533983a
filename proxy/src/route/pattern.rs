//! Path patterns with named, typed captures, and their linear match against raw bytes.
//!
//! ```text
//!  /t/{account:alnum}-{n:int}/c.aspx      a prefix, then steps: a capture and the literal after it
//!  └┬┘└──────┬──────┘│└──┬──┘└──┬──┘
//!  prefix  capture  literal     literal
//! ```
//!
//! | capture | takes |
//! |---|---|
//! | `{x:alnum}` `{x:hex}` `{x:int}` | the longest run of letters and digits, hexadecimal digits, digits |
//! | `{x:uuid}` | 36 bytes, hexadecimal digits in groups of 8-4-4-4-12 |
//! | `{x}` | all bytes but `/`, up to the literal after it where that occurs first; before the last literal, up to the end of the path less that literal |
//! | `{x:rest}` | all bytes to the end of the path |
//!
//! Each takes at least one byte. What a capture has taken it never gives back, so a match looks at
//! each byte a fixed number of times; a pattern in which a capture would always take what the
//! literal after it needs is refused when it is read.

mod cover;
mod parse;

pub use parse::{Flaw, PatternFault};

use std::fmt;

/// The most captures that a pattern may have.
pub const CAPTURES_MAX: usize = 16;
const UUID_BYTES: usize = 36;

/// A path pattern of a route.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    names: Box<[Box<str>]>,
    /// What every path begins with.
    prefix: Box<[u8]>,
    /// As many as there are names; only the last may have an empty literal.
    steps: Box<[Step]>,
    /// The length of the shortest path.
    bytes_min: usize,
}

#[derive(Clone, Debug)]
struct Step {
    takes: Takes,
    literal: Box<[u8]>,
}

#[derive(Clone, Debug)]
enum Takes {
    Alnum,
    Hex,
    Int,
    Rest,
    Segment(Until),
    Uuid,
}

/// Where a capture without a type ends.
#[derive(Clone, Debug)]
enum Until {
    /// The path's end.
    End,
    /// The literal's length before the path's end.
    Last,
    /// The first place where the literal, which has no `/`, occurs.
    Literal(Box<memchr::memmem::Finder<'static>>),
    /// This many bytes before the next `/`, as the literal has one there.
    Slash(usize),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternFault`] says where and what; patterns that can never match are refused, too.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        parse::parse(text)
    }

    /// The names of the captures, in the order of the path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The values of the captures if the pattern is the whole of `path`.
    #[must_use]
    pub fn matches<'p>(&self, path: &'p [u8]) -> Option<Values<'p>> {
        // The routes of one system differ in their last literal: most paths are turned away here.
        let suffix = self.steps.last().map_or(&self.prefix, |step| &step.literal);
        if path.len() < self.bytes_min || !path.ends_with(suffix) {
            return None;
        }
        let mut rest = path.strip_prefix(&*self.prefix)?;
        let mut values = Values::new(path)?;
        for step in &self.steps {
            let taken = step.take(rest)?;
            values.push(rest.len(), taken)?;
            rest = rest.get(taken..)?.strip_prefix(&*step.literal)?;
        }
        rest.is_empty().then_some(values)
    }

    /// Whether every path that `other` matches is certain to match this pattern.
    pub(super) fn covers(&self, other: &Self) -> bool {
        cover::covers(self, other)
    }

    /// The place of a capture among the captures.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.names().position(|own| own == name)
    }

    /// The literal between a capture and the next, or the path's end.
    pub(super) fn literal_after(&self, capture: usize) -> &[u8] {
        self.steps.get(capture).map_or(&[], |step| &step.literal)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Step {
    /// How many bytes at the start of `rest` the capture takes.
    fn take(&self, rest: &[u8]) -> Option<usize> {
        let taken = match &self.takes {
            Takes::Alnum => run(rest, u8::is_ascii_alphanumeric),
            Takes::Hex => run(rest, u8::is_ascii_hexdigit),
            Takes::Int => run(rest, u8::is_ascii_digit),
            Takes::Rest => rest.len(),
            Takes::Segment(until) => until.find(rest, self.literal.len())?,
            Takes::Uuid => uuid(rest)?,
        };
        (taken > 0).then_some(taken)
    }
}

impl Until {
    fn find(&self, rest: &[u8], literal_bytes: usize) -> Option<usize> {
        let taken = match self {
            Self::End => rest.len(),
            Self::Last => rest.len().checked_sub(literal_bytes)?,
            Self::Literal(finder) => finder.find(rest.get(1..)?)? + 1,
            Self::Slash(before) => return memchr::memchr(b'/', rest)?.checked_sub(*before),
        };
        memchr::memchr(b'/', rest.get(..taken)?).is_none().then_some(taken)
    }
}

fn run(rest: &[u8], belongs: impl Fn(&u8) -> bool) -> usize {
    rest.iter().position(|byte| !belongs(byte)).unwrap_or(rest.len())
}

fn uuid(rest: &[u8]) -> Option<usize> {
    let head = rest.get(..UUID_BYTES)?;
    let fits =
        |(at, byte): (usize, &u8)| if uuid_hyphen(at) { *byte == b'-' } else { byte.is_ascii_hexdigit() };
    head.iter().enumerate().all(fits).then_some(UUID_BYTES)
}

const fn uuid_hyphen(at: usize) -> bool {
    matches!(at, 8 | 13 | 18 | 23)
}

/// The values of a pattern's captures: pieces of the path, in its order.
#[derive(Clone, Copy, Debug)]
pub struct Values<'p> {
    path: &'p [u8],
    /// Two bytes per bound keep the copy of this value in two cache lines.
    spans: [(u16, u16); CAPTURES_MAX],
    count: usize,
}

impl<'p> Values<'p> {
    /// `None` for a path that two bytes can't measure; no HTTP parser of ours lets one through.
    fn new(path: &'p [u8]) -> Option<Self> {
        u16::try_from(path.len()).ok()?;
        Some(Self { path, spans: [(0, 0); CAPTURES_MAX], count: 0 })
    }

    /// Adds the first `taken` of the last `left` bytes of the path.
    fn push(&mut self, left: usize, taken: usize) -> Option<()> {
        let start = self.path.len().checked_sub(left)?;
        let end = start.checked_add(taken)?;
        *self.spans.get_mut(self.count)? = (u16::try_from(start).ok()?, u16::try_from(end).ok()?);
        self.count += 1;
        Some(())
    }

    /// The value of one capture; empty when there is none at this place.
    pub(super) fn at(&self, place: usize) -> &'p [u8] {
        self.through(place, place)
    }

    /// The path from the start of one capture to the end of another.
    pub(super) fn through(&self, first: usize, last: usize) -> &'p [u8] {
        let (start, _) = self.spans.get(first).copied().unwrap_or_default();
        let (_, end) = self.spans.get(last).copied().unwrap_or_default();
        self.path.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }

    /// The values, in the order of the path.
    pub fn iter(self) -> impl Iterator<Item = &'p [u8]> {
        (0..self.count).map(move |place| self.at(place))
    }
}

#[cfg(test)]
mod tests;
