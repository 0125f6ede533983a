//! Sockets, connections and one request: everything that a data thread does.
//!
//! Invariants:
//! - A data thread shares nothing that it writes with another one, but for the connection gate, the
//!   cache of looked-up links and the budgets, none of which a known click on an open connection meets.
//! - A request sees one value each of the sites, the links and the health from its first step to its last.
//! - No response is a redirect that was not recorded: it is built from the record's proof.
//!
//! HTTP is hyper's, TLS is rustls' in `certs`. Nothing here opens a file, asks a database or decides what a link's answer is.

pub mod gate;
pub mod peers;
pub mod preface;
pub mod sites;
pub mod sockets;
pub mod tls;

mod ask;
mod connection;
mod converse;
mod core;
mod decide;
mod prove;
mod secure;
mod serve;
mod thread;
mod turn;

pub use connection::Phase;
pub use core::{Budgets, Limits, Shared};
pub use sockets::{Listening, Port};
pub use thread::run;
