//! Certificates ordered from a real authority, Debian's Pebble, and from one that misbehaves as Pebble
//! does not.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

mod edge;
mod fake;
mod https;
mod lock;
mod pebble;
mod site;

mod demand;
mod failing;
mod issuing;
mod several;
