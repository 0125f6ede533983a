//! One connection to a server, driven only while somebody waits for it.
//!
//! Invariants:
//! - Every wait for the server is bounded on this side, too: a server that is stopped or a network that
//!   is cut ends a call just as well as a slow statement does.
//! - A connection that failed or was late is never used again.
//! - Dropping it closes it, without waiting for anybody.

use super::fault::Trouble;
use super::settings::{Candidate, Pooler};
use super::tls::Tls;
use super::{Error, Fault};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};

/// How long the socket is listened to for notifications.
const LISTEN: Duration = Duration::from_millis(1);
/// How long closing may take before the socket is simply dropped.
const GOODBYE: Duration = Duration::from_millis(200);
/// What this side waits longer than a statement may take, so that the server's own words arrive first.
const GRACE_PERCENT: u32 = 25;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    client: Option<Client>,
    driver: Option<JoinHandle<()>>,
    notified: Arc<AtomicBool>,
    /// Shown in errors.
    name: String,
    timeout: Duration,
    pooler: Pooler,
    gone: Cell<bool>,
}

/// A parameter of a statement and its type; the type is said, so that nothing has to be prepared.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Connection {
    /// Connects to one server; every wait of it together takes `timeout` at most.
    pub(super) fn open(
        candidate: &Candidate,
        name: String,
        timeout: Duration,
        pooler: Pooler,
    ) -> Result<Self, Error> {
        const DOING: &str = "opening it";
        let tls = match &candidate.tls {
            None => None,
            Some((verify, roots)) => Some(
                certs::client(*verify, roots)
                    .map(Tls)
                    .map_err(|fault| Error::Unavailable(Fault::new(name.as_str(), DOING).because(fault)))?,
            ),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Unavailable(Fault::new(name.as_str(), DOING).because(error)))?;
        let notified = Arc::new(AtomicBool::new(false));
        let connecting = async {
            let config = &candidate.config;
            Ok::<_, tokio_postgres::Error>(match tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, tokio::spawn(drive(connection, Arc::clone(&notified))))
                }
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await?;
                    (client, tokio::spawn(drive(connection, Arc::clone(&notified))))
                }
            })
        };
        let connected = runtime.block_on(async { tokio::time::timeout(timeout, connecting).await });
        let (client, driver) = match connected {
            Ok(Ok(connected)) => connected,
            failed => {
                // A name that is being looked up on a thread of the runtime is not waited for.
                runtime.shutdown_background();
                let trouble = failed.map_or(Trouble::Late(timeout), |done| match done {
                    Err(error) => Trouble::Failed(error),
                    Ok(_) => Trouble::Gone,
                });
                return Err(trouble.into_error(&name, DOING));
            }
        };
        Ok(Self {
            runtime: Some(runtime),
            client: Some(client),
            driver: Some(driver),
            notified,
            name,
            timeout,
            pooler,
            gone: Cell::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pooler(&self) -> Pooler {
        self.pooler
    }

    /// Looks for notifications on the socket; whether one has come that nobody took yet.
    pub(super) fn listen(&self) -> bool {
        if let (Some(runtime), false) = (&self.runtime, self.gone.get()) {
            // The driver runs while this waits; a broken connection is told by the next question.
            runtime.block_on(async { tokio::time::sleep(LISTEN).await });
        }
        self.notified.load(Relaxed)
    }

    /// Whether a notification came since the last call; it arrives with the answer to something else.
    pub(super) fn take_notified(&self) -> bool {
        self.notified.swap(false, Relaxed)
    }

    /// Does something with the server and adds to its errors what was being done.
    pub(super) fn run<T>(
        &self,
        doing: &'static str,
        work: impl AsyncFnOnce(Talk<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        self.try_run(work).map_err(|trouble| trouble.into_error(&self.name, doing))
    }

    /// As [`Self::run`], for callers that sort errors by themselves.
    pub(super) fn try_run<T>(
        &self,
        work: impl AsyncFnOnce(Talk<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let (Some(runtime), Some(client), false) = (&self.runtime, &self.client, self.gone.get()) else {
            return Err(Trouble::Gone);
        };
        let talk = Talk { client, timeout: self.timeout, pooler: self.pooler };
        let done = runtime.block_on(work(talk));
        if let Err(trouble) = &done
            && trouble.ends_connection()
        {
            self.gone.set(true);
        }
        done
    }

    /// As [`Self::try_run`], in a transaction that is begun by the words `kind`.
    pub(super) fn transaction<T>(
        &self,
        kind: &str,
        work: impl AsyncFnOnce(Talk<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.try_run(async |talk| {
            talk.begin(kind).await?;
            match work(talk).await {
                Ok(done) => {
                    talk.batch("COMMIT").await?;
                    Ok(done)
                }
                Err(trouble) if trouble.ends_connection() => Err(trouble),
                Err(trouble) => {
                    talk.batch("ROLLBACK").await?;
                    Err(trouble)
                }
            }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The driver says goodbye to the server once the client is gone.
        self.client = None;
        if let (Some(runtime), Some(driver)) = (self.runtime.take(), self.driver.take()) {
            if !self.gone.get() {
                // What cannot be said in time is told by the closed socket.
                let _ = runtime.block_on(async { tokio::time::timeout(GOODBYE, driver).await });
            }
            runtime.shutdown_background();
        }
    }
}

/// Moves bytes between client and socket, and takes note of notifications.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, notified: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // How it ends, the client tells whoever waits for an answer.
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notification(_) = message {
            notified.store(true, Relaxed);
        }
    }
}

/// What one piece of work says to the server; every wait of it is bounded.
#[derive(Clone, Copy)]
pub(super) struct Talk<'a> {
    pub(super) client: &'a Client,
    timeout: Duration,
    pooler: Pooler,
}

impl Talk<'_> {
    /// Waits for one answer, as long as a statement may take.
    pub(super) async fn bounded<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, Trouble>
    where
        Trouble: From<E>,
    {
        self.within(self.timeout, answer).await
    }

    /// As [`Self::bounded`], for a statement that may take `limit`.
    pub(super) async fn within<T, E>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble>
    where
        Trouble: From<E>,
    {
        let limit = limit + limit * GRACE_PERCENT / 100;
        match tokio::time::timeout(limit, answer).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Trouble::Late(limit)),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn pooler(&self) -> Pooler {
        self.pooler
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        self.bounded(self.client.query_typed(sql, parameters)).await
    }

    pub(super) async fn one(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row, Trouble> {
        self.bounded(self.client.query_typed_one(sql, parameters)).await
    }

    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Trouble> {
        self.bounded(self.client.execute_typed(sql, parameters)).await
    }

    pub(super) async fn prepare(&self, sql: &str) -> Result<Statement, Trouble> {
        self.bounded(self.client.prepare(sql)).await
    }

    /// What bounds statements on the server's side.
    pub(super) fn bounds(&self, scope: &str) -> String {
        let limit = self.timeout.as_millis().max(4);
        // A lock is told by its own name, which is worth more than the last quarter of the wait.
        let lock = limit * 3 / 4;
        // A transaction whose client the network has lost would keep its locks for hours, and one that
        // waits for the rows of a COPY is not idle.
        let idle = self.timeout.as_secs().clamp(1, 60);
        format!(
            "SET {scope} statement_timeout = {limit}; SET {scope} lock_timeout = {lock};
             SET {scope} idle_in_transaction_session_timeout = {limit};
             SET {scope} tcp_keepalives_idle = {idle}; SET {scope} tcp_keepalives_interval = 2;
             SET {scope} tcp_keepalives_count = 3"
        )
    }

    pub(super) async fn begin(&self, kind: &str) -> Result<(), Trouble> {
        match self.pooler {
            Pooler::None => self.batch(&format!("BEGIN {kind}")).await,
            // What a session sets is somebody else's in the next transaction.
            Pooler::Transaction => self.batch(&format!("BEGIN {kind}; {}", self.bounds("LOCAL"))).await,
        }
    }
}
