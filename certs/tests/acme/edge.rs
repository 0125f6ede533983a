//! One edge: its storage, its index, its clock, and what has happened on it.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use certs::acme::{Acme, Config, Event, Folder, Name, OrderLock, Parts, StartFault, Storage};
use certs::{Resolver, Store, UnixSeconds};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Nothing here takes as long, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct Log {
    events: Mutex<Vec<Event>>,
    more: Notify,
}

impl Log {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Waits until so many events of a kind are there.
    #[track_caller]
    pub(crate) fn until(
        self: &Arc<Self>,
        label: &'static str,
        count: usize,
    ) -> impl Future<Output = Vec<Event>> {
        self.until_any(&[label], count)
    }

    /// Waits until so many events are there that are of one of these kinds.
    #[track_caller]
    pub(crate) fn until_any<const KINDS: usize>(
        self: &Arc<Self>,
        labels: &[&'static str; KINDS],
        count: usize,
    ) -> impl Future<Output = Vec<Event>> + use<KINDS> {
        let (log, labels) = (Arc::clone(self), *labels);
        let caller = std::panic::Location::caller();
        async move {
            let waiting = async {
                loop {
                    let mut more = std::pin::pin!(log.more.notified());
                    more.as_mut().enable();
                    let found: Vec<Event> = labels.iter().flat_map(|label| log.of(label)).collect();
                    if found.len() >= count {
                        return found;
                    }
                    more.await;
                }
            };
            let Ok(found) = tokio::time::timeout(PATIENCE, waiting).await else {
                panic!("{caller}: {count} of {labels:?} in vain; there are {:#?}", log.events());
            };
            found
        }
    }

    pub(crate) fn of(&self, label: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.label() == label).collect()
    }
}

/// What an edge is made of, besides its authority.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    pub(crate) lock: Option<Arc<dyn OrderLock>>,
    pub(crate) known: Vec<&'static str>,
    pub(crate) storage: Option<Arc<dyn Storage>>,
}

pub(crate) struct Edge {
    pub(crate) acme: Acme,
    pub(crate) log: Arc<Log>,
    pub(crate) resolver: Resolver,
    storage: Arc<dyn Storage>,
    clock: Arc<AtomicI64>,
    work: JoinHandle<()>,
    _store: Store,
}

impl Edge {
    pub(crate) fn start(folder: &Path, config: Config) -> Self {
        Self::with(folder, config, Setting::default())
    }

    pub(crate) fn with(folder: &Path, config: Config, setting: Setting) -> Self {
        Self::try_with(folder, config, setting).unwrap()
    }

    pub(crate) fn try_with(folder: &Path, config: Config, setting: Setting) -> Result<Self, StartFault> {
        let (store, resolver) = certs::watch(certs::Config { folder: None, default: None });
        let log = Arc::new(Log::default());
        let clock = Arc::new(AtomicI64::new(0));
        let storage = setting.storage.unwrap_or_else(|| Arc::new(Folder::open(folder.join("acme")).unwrap()));
        let parts = Parts {
            storage: Arc::clone(&storage),
            issued: store.issued(),
            lock: setting.lock,
            known: Arc::new(move |name| setting.known.contains(&name)),
            clock: {
                let clock = Arc::clone(&clock);
                Arc::new(move || UnixSeconds(real_seconds() + clock.load(Ordering::Relaxed)))
            },
            events: {
                let log = Arc::clone(&log);
                Arc::new(move |event: &Event| {
                    log.events.lock().unwrap().push(event.clone());
                    log.more.notify_waiters();
                })
            },
            seed: 1,
        };
        let (acme, work) = certs::acme::start(config, parts)?;
        Ok(Self { acme, log, resolver, storage, clock, work: tokio::spawn(work.run()), _store: store })
    }

    /// Lets days go by.
    pub(crate) fn forward(&self, days: i64) {
        self.clock.fetch_add(days * 86_400, Ordering::Relaxed);
        self.acme.nudge();
    }

    /// A handshake as a browser makes it, which trusts `roots` only.
    pub(crate) fn serves(&self, name: &str, roots: &RootCertStore) -> bool {
        handshake(&self.resolver, name, roots).is_ok()
    }

    pub(crate) fn listed(&self, name: &str) -> certs::acme::Listed {
        let name = Name::parse(name).unwrap();
        self.acme.list().into_iter().find(|listed| listed.name == name).unwrap()
    }
}

impl Edge {
    /// Key and chain of a name, as they are stored.
    pub(crate) fn stored(&self, name: &str) -> Option<String> {
        let exported = certs::acme::export(&*self.storage, name).unwrap()?;
        Some(format!("{}{}", *exported.key, exported.chain))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.work.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
fn real_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn handshake(resolver: &Resolver, name: &str, roots: &RootCertStore) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver.clone()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        let _ = server.process_new_packets();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}
