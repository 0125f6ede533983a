//! The real binary, as its users meet it: each module is one promise.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests wait in real time, print their seeds and end by a panic"
)]

mod acme;
mod admin;
mod adopt;
mod budget;
mod cluster;
mod commands;
mod configuration;
mod crash;
mod damage;
mod defaults;
mod demo;
mod domains;
mod drain;
mod edge;
mod emptied;
mod faults;
mod full;
mod links;
mod listmonk;
mod load;
mod moving;
mod outage;
mod pebble;
mod postgres;
mod redirect;
mod reload;
mod tls;
mod upgrade;
mod window;
mod wire;
