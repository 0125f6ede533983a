//! Holdfast keeps the links in sent email working: an edge redirect proxy that answers from memory,
//! writes each hit to a log on its own disk, and delivers it to the database exactly once.
//!
//! The modules stand in reading order, from the words that everyone uses to the program that joins
//! the parts. Each imports only what stands above it; `tests/tidy.rs` holds the ranks.
//!
//! `docs/architecture.md` shows the way of a click through them.

pub mod causes;
pub mod clock;
pub mod courtesy;

pub mod event;
pub mod metrics;

pub mod database;
pub mod journal;
pub mod route;

pub mod links;
pub mod policy;

pub mod follow;
pub mod record;
pub mod resolve;
pub mod vitals;

pub mod respond;

pub mod deliver;
pub mod front;

pub mod admin;

pub mod config;

pub mod app;
pub mod cli;
