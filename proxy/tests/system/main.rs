//! The real binary, as its users meet it: each module is one promise.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests wait in real time, print their seeds and end by a panic"
)]

mod admin;
mod configuration;
mod crash;
mod edge;
mod links;
mod load;
mod outage;
mod redirect;
mod reload;
mod upgrade;
mod window;
mod wire;
