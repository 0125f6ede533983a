//! Whether one pattern is certain to match every path of another.
//!
//! The other pattern's paths are written as a row of atoms: single bytes and runs of bytes out of
//! known sets. That row describes at least all its paths; if the first pattern's way through the
//! row is the same for all of them and reaches the end, it matches them all. Wherever the way
//! depends on the bytes, the answer is no: a false no costs a warning, a false yes a working route.

use super::{Pattern, Step, Takes, UUID_BYTES, Until, uuid_hyphen};

pub(super) fn covers(first: &Pattern, other: &Pattern) -> bool {
    walk(first, &atoms(other)).is_some()
}

fn walk(pattern: &Pattern, row: &[Atom]) -> Option<()> {
    let mut rest = skip_literal(row, &pattern.prefix)?;
    for step in &pattern.steps {
        let taken = take(step, rest)?;
        let (_, tail) = rest.split_at_checked(taken).filter(|(head, _)| !head.is_empty())?;
        rest = skip_literal(tail, &step.literal)?;
    }
    rest.is_empty().then_some(())
}

/// How many atoms a capture takes, whatever bytes they stand for.
fn take(step: &Step, rest: &[Atom]) -> Option<usize> {
    match &step.takes {
        Takes::Alnum => take_run(rest, Set::of(u8::is_ascii_alphanumeric)),
        Takes::Hex => take_run(rest, Set::of(u8::is_ascii_hexdigit)),
        Takes::Int => take_run(rest, Set::of(u8::is_ascii_digit)),
        Takes::Rest => Some(rest.len()),
        Takes::Segment(until) => {
            let taken = take_segment(until, rest, &step.literal)?;
            rest.get(..taken)?.iter().all(|atom| !atom.set().has(b'/')).then_some(taken)
        }
        Takes::Uuid => {
            let fits =
                |(at, atom): (usize, &Atom)| matches!(atom, Atom::One(set) if set.within(uuid_set(at)));
            rest.get(..UUID_BYTES)?.iter().enumerate().all(fits).then_some(UUID_BYTES)
        }
    }
}

fn take_run(rest: &[Atom], class: Set) -> Option<usize> {
    let taken = rest.iter().take_while(|atom| atom.set().within(class)).count();
    match rest.get(taken) {
        Some(next) if !next.set().apart(class) => None,
        _ => Some(taken),
    }
}

fn take_segment(until: &Until, rest: &[Atom], literal: &[u8]) -> Option<usize> {
    match until {
        Until::End => Some(rest.len()),
        Until::Last => rest.len().checked_sub(literal.len()),
        Until::Slash(before) => {
            let slash = rest.iter().position(|atom| atom.set().has(b'/'))?;
            slash.checked_sub(*before)
        }
        Until::Literal(_) => {
            let first = *literal.first()?;
            for (at, atom) in rest.iter().enumerate() {
                if at > 0 && skip_literal(rest.get(at..)?, literal).is_some() {
                    return Some(at);
                }
                // The search begins behind the first byte, so only a run can hold a match there.
                let passed = at == 0 && matches!(atom, Atom::One(_));
                if !passed && atom.set().has(first) {
                    return None;
                }
            }
            None
        }
    }
}

/// What follows `literal`, if the row is certain to begin with it.
fn skip_literal<'r>(row: &'r [Atom], literal: &[u8]) -> Option<&'r [Atom]> {
    let (head, tail) = row.split_at_checked(literal.len())?;
    let same = |(atom, byte): (&Atom, &u8)| matches!(atom, Atom::One(set) if *set == Set::only(*byte));
    head.iter().zip(literal).all(same).then_some(tail)
}

/// All paths of a pattern, and perhaps more.
fn atoms(pattern: &Pattern) -> Vec<Atom> {
    let literal = |bytes: &[u8]| bytes.iter().map(|byte| Atom::One(Set::only(*byte))).collect::<Vec<_>>();
    let mut row = literal(&pattern.prefix);
    for step in &pattern.steps {
        match &step.takes {
            Takes::Alnum => row.push(Atom::Run(Set::of(u8::is_ascii_alphanumeric))),
            Takes::Hex => row.push(Atom::Run(Set::of(u8::is_ascii_hexdigit))),
            Takes::Int => row.push(Atom::Run(Set::of(u8::is_ascii_digit))),
            Takes::Rest => row.push(Atom::Run(Set::of(|_| true))),
            Takes::Segment(_) => row.push(Atom::Run(Set::of(|byte| *byte != b'/'))),
            Takes::Uuid => row.extend((0..UUID_BYTES).map(|at| Atom::One(uuid_set(at)))),
        }
        row.extend(literal(&step.literal));
    }
    row
}

fn uuid_set(at: usize) -> Set {
    if uuid_hyphen(at) { Set::only(b'-') } else { Set::of(u8::is_ascii_hexdigit) }
}

/// A piece of the paths of a pattern.
#[derive(Clone, Copy, Debug)]
enum Atom {
    /// One byte out of a set.
    One(Set),
    /// One or more bytes out of a set.
    Run(Set),
}

impl Atom {
    const fn set(self) -> Set {
        match self {
            Self::One(set) | Self::Run(set) => set,
        }
    }
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    low: u128,
    high: u128,
}

impl Set {
    fn of(belongs: impl Fn(&u8) -> bool) -> Self {
        let none = Self { low: 0, high: 0 };
        (0..=u8::MAX)
            .filter(belongs)
            .map(Self::only)
            .fold(none, |all, one| Self { low: all.low | one.low, high: all.high | one.high })
    }

    const fn only(byte: u8) -> Self {
        let bit = 1 << (byte & 127);
        if byte < 128 { Self { low: bit, high: 0 } } else { Self { low: 0, high: bit } }
    }

    const fn has(self, byte: u8) -> bool {
        Self::only(byte).within(self)
    }

    const fn within(self, other: Self) -> bool {
        self.low & !other.low == 0 && self.high & !other.high == 0
    }

    const fn apart(self, other: Self) -> bool {
        self.low & other.low == 0 && self.high & other.high == 0
    }
}
