//! The TLS of the listeners for https: its certificates, and how many handshakes are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use certs::acme::Acme;
use tokio::sync::watch;

/// Shared by all data threads; made once, for whatever is reloaded changes within it.
#[derive(Debug)]
pub struct Tls {
    /// Makes the connections.
    pub server: certs::Server,
    /// What orders certificates, where anything does.
    pub issuing: Option<Issuing>,
    opened: watch::Sender<bool>,
    under_way: AtomicUsize,
}

/// What answers authorities, and orders on demand.
#[derive(Debug)]
pub struct Issuing {
    /// The end for everybody.
    pub acme: Acme,
    /// How long it lets a handshake wait.
    pub demand_wait: Duration,
}

impl Tls {
    /// Closed until [`Self::open`].
    #[must_use]
    pub fn new(server: certs::Server, issuing: Option<Issuing>) -> Self {
        Self { server, issuing, opened: watch::Sender::new(false), under_way: AtomicUsize::new(0) }
    }

    /// Lets the listeners accept: there are certificates, or what orders them has read its own.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// Whether the listeners accept.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.opened.borrow()
    }

    /// Waits until the listeners may accept.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn opened(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.opened.subscribe().wait_for(|&opened| opened).await;
    }

    /// A place for one more handshake, while fewer than `most` are under way.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Place> {
        if self.under_way.fetch_add(1, Relaxed) < most {
            return Some(Place(Arc::clone(self)));
        }
        self.under_way.fetch_sub(1, Relaxed);
        None
    }

    /// Whether a certificate is for `host`, which is in lower case.
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        str::from_utf8(host).is_ok_and(|host| self.server.resolver().covers(host))
    }
}

/// A handshake under way; it ends with the value.
#[derive(Debug)]
pub(super) struct Place(Arc<Tls>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}
