//! Does what the plan decides: orders, asks, stores, serves, and hands over to other edges.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use zeroize::Zeroizing;

use super::Shared;
use super::event::{AccountChange, Answer, Event, Kept};
use super::failure::Failure;
use super::gate::Verdict;
use super::load::entry;
use super::lock::{OrderLock, Taken};
use super::name::Name;
use super::order::{Wish, order};
use super::plan::{self, Blame, Ended, Held, Start, Window, renewal};
use super::record::{Origin, Record, Served};
use crate::UnixSeconds;

/// The clock is looked at so often at least, for it may be set.
const LOOK: Duration = Duration::from_secs(30);
/// What could not be stored is tried again so often, in seconds.
const STORE_SECONDS: i64 = 10;
/// A name is taken for longer than its order may take, so that nobody else begins one meanwhile.
const LEASE_MORE: Duration = Duration::from_secs(300);
/// A name that failed is kept from other edges for as long as it rests here, and no longer than this at a time, so
/// that whoever mended it need not know which edge had tried.
const FAILED_LEASE_MAX: Duration = Duration::from_secs(1800);
/// How long the other edges' table may take to answer.
const LOCK_DEADLINE: Duration = Duration::from_secs(15);

/// The end that works; to be run on one control thread.
pub struct Work {
    shared: Arc<Shared>,
    tasks: JoinSet<Done>,
    /// What each task is for, should it panic.
    running: HashMap<Id, Task>,
    store_at: UnixSeconds,
}

#[derive(Clone)]
enum Task {
    Ask(Name),
    Order(Name),
    Quiet,
    Window(Name),
}

enum Done {
    Asked(Name, Verdict),
    Ordered(Name, Ended),
    Quiet,
    Window(Name, Window),
}

impl Work {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tasks: JoinSet::new(), running: HashMap::new(), store_at: UnixSeconds(i64::MIN) }
    }

    /// Works until it is dropped.
    ///
    /// # Cancel safety
    /// Dropped, it ends every order under way; what was issued but not yet stored is lost with it, and
    /// ordered again after the next start.
    pub async fn run(mut self) {
        loop {
            if self.shared.rests.load(Relaxed) {
                self.rest().await;
                continue;
            }
            let wait = self.begin();
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.end(done),
                () = self.shared.nudge.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Ends what is under way, and waits until somebody wants something.
    async fn rest(&mut self) {
        self.tasks.abort_all();
        while let Some(done) = self.tasks.join_next_with_id().await {
            self.end(done);
        }
        self.shared.nudge.notified().await;
    }

    /// Begins all that is to be done now, and tells how long there is nothing else.
    fn begin(&mut self) -> Duration {
        let now = self.shared.now();
        let (starts, wake) = {
            let mut plan = self.shared.plan();
            (plan.next(now), plan.wake(now))
        };
        for start in starts {
            let shared = Arc::clone(&self.shared);
            let (task, handle) = match start {
                Start::Order { name, attempt, replaces, confirm } => {
                    let job = Job { shared, name: name.clone(), attempt, replaces, confirm };
                    (Task::Order(name), self.tasks.spawn(job.run()))
                }
                Start::Window { name, id } => {
                    (Task::Window(name.clone()), self.tasks.spawn(window(shared, name, id)))
                }
                Start::Forget { name } => (Task::Quiet, self.tasks.spawn(remove(shared, name))),
            };
            self.running.insert(handle.id(), task);
        }
        let to_ask = std::mem::take(&mut *self.shared.to_ask.lock().unwrap_or_else(PoisonError::into_inner));
        for name in to_ask {
            let shared = Arc::clone(&self.shared);
            let task = Task::Ask(name.clone());
            let handle = self.tasks.spawn(async move {
                let verdict = put(&shared, &name).await;
                Done::Asked(name, verdict)
            });
            self.running.insert(handle.id(), task);
        }
        let mut look = LOOK;
        if !self.shared.unsaved().is_empty() {
            if now >= self.store_at {
                self.store_at = now.plus(STORE_SECONDS);
                let handle = self.tasks.spawn(store_again(Arc::clone(&self.shared)));
                self.running.insert(handle.id(), Task::Quiet);
            }
            look = Duration::from_secs(STORE_SECONDS.unsigned_abs());
        }
        let seconds = wake.map(|at| u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0));
        // A second is the clock's own grain.
        seconds.map_or(look, |seconds| Duration::from_secs(seconds.max(1)).min(look))
    }

    fn end(&mut self, done: Result<(Id, Done), tokio::task::JoinError>) {
        let done = match done {
            Ok((id, done)) => {
                self.running.remove(&id);
                done
            }
            // A panic costs the one thing that it happened in.
            Err(error) => match self.running.remove(&error.id()) {
                Some(Task::Ask(name)) => Done::Asked(name, Verdict::Down),
                Some(Task::Order(name)) => {
                    let (blame, why) = match error.is_cancelled() {
                        true => (Blame::Cut, "another process is about to take over"),
                        false => (Blame::Here, "a fault of this program ended the order"),
                    };
                    Done::Ordered(name, Ended::Failed { blame, why: why.to_owned() })
                }
                Some(Task::Window(name)) => Done::Window(name, Window::Failed),
                Some(Task::Quiet) | None => Done::Quiet,
            },
        };
        let now = self.shared.now();
        let event = match done {
            Done::Asked(name, verdict) => {
                self.shared.plan().answered(&name, verdict, now);
                Some(asked(name, verdict))
            }
            Done::Ordered(name, ended) => {
                let event = told(&name, &ended);
                self.shared.plan().ended(&name, ended, now);
                Some(event)
            }
            Done::Window(name, window) => {
                self.shared.plan().window(&name, window, now);
                None
            }
            Done::Quiet => None,
        };
        if let Some(event) = event {
            self.shared.tell(&event);
        }
        self.shared.changed.notify_waiters();
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

fn asked(name: Name, verdict: Verdict) -> Event {
    let answer = match verdict {
        Verdict::Down => Answer::Down,
        Verdict::No => Answer::No,
        Verdict::Yes => Answer::Yes,
    };
    Event::Asked { name, answer }
}

fn told(name: &Name, ended: &Ended) -> Event {
    let name = name.clone();
    match ended {
        Ended::Adopted(held) => Event::Adopted { name, until: held.until },
        Ended::Failed { blame, why } => Event::Failed { name, blame: *blame, why: why.clone() },
        Ended::Issued(held) => Event::Issued { name, until: held.until, renew_at: held.renew_at },
        Ended::NotPermitted => Event::NotPermitted { name },
    }
}

/// Puts the question whether a name may have a certificate.
async fn put(shared: &Shared, name: &Name) -> Verdict {
    match &shared.ask {
        Some(ask) => ask.ask(name).await,
        None => Verdict::No,
    }
}

async fn window(shared: Arc<Shared>, name: Name, id: Box<str>) -> Done {
    let suggested = tokio::time::timeout(shared.config.order_deadline, suggested(&shared, &id)).await;
    Done::Window(name, suggested.ok().flatten().unwrap_or(Window::Failed))
}

async fn suggested(shared: &Shared, id: &str) -> Option<Window> {
    let mut changed = None;
    let account = shared.accounts.account(&mut changed).await.ok()?;
    if let Some(changed) = changed {
        shared.tell(&Event::Account(changed));
    }
    let (issuer, serial) = id.split_once('.')?;
    let id = instant_acme::CertificateIdentifier {
        authority_key_identifier: issuer.into(),
        serial: serial.into(),
    };
    match account.renewal_info(&id).await {
        Ok((info, retry_after)) => {
            let start = UnixSeconds(info.suggested_window.start.unix_timestamp());
            let end = UnixSeconds(info.suggested_window.end.unix_timestamp());
            let retry_after = i64::try_from(retry_after.as_secs()).ok();
            Some(Window::Suggested { start, end, retry_after })
        }
        Err(instant_acme::Error::Unsupported(_)) => Some(Window::Unsupported),
        Err(_) => None,
    }
}

async fn remove(shared: Arc<Shared>, name: Name) -> Done {
    shared.parts.issued.remove(name.as_str(), shared.now());
    let (storage, entry) = (Arc::clone(&shared.parts.storage), entry(&name));
    // What could not be removed is found and given up again after the next start.
    let _ = tokio::task::spawn_blocking(move || storage.remove(&entry)).await;
    Done::Quiet
}

/// Stores what could not be stored before.
async fn store_again(shared: Arc<Shared>) -> Done {
    let unsaved: Vec<_> =
        shared.unsaved().iter().map(|(name, bytes)| (name.clone(), Arc::clone(bytes))).collect();
    for (name, bytes) in unsaved {
        let (storage, entry, writing) = (Arc::clone(&shared.parts.storage), entry(&name), Arc::clone(&bytes));
        if !matches!(tokio::task::spawn_blocking(move || storage.write(&entry, &writing)).await, Ok(Ok(()))) {
            break;
        }
        let mut unsaved = shared.unsaved();
        // Unless a newer one has taken its place meanwhile.
        if unsaved.get(&name).is_some_and(|kept| Arc::ptr_eq(kept, &bytes)) {
            unsaved.remove(&name);
            drop(unsaved);
            shared.tell(&Event::Stored { name });
        }
    }
    Done::Quiet
}

/// One order with all that belongs to it.
struct Job {
    shared: Arc<Shared>,
    name: Name,
    attempt: u32,
    replaces: Option<Box<str>>,
    confirm: bool,
}

impl Job {
    async fn run(self) -> Done {
        let ended = match self.permitted_still().await {
            false => Ended::NotPermitted,
            true => match self.ordered().await {
                Ok(ended) => ended,
                Err(Failure { blame, why, .. }) => Ended::Failed { blame, why },
            },
        };
        Done::Ordered(self.name, ended)
    }

    /// A name that was let in on demand is asked about again before its renewal. When nobody answers
    /// it is renewed, for it was permitted once.
    async fn permitted_still(&self) -> bool {
        let known = !self.confirm || (self.shared.parts.known)(self.name.as_str());
        known || put(&self.shared, &self.name).await != Verdict::No
    }

    async fn ordered(&self) -> Result<Ended, Failure> {
        let Some(lock) = self.shared.parts.lock.clone() else {
            let (record, served) = self.within(self.issued()).await?;
            return self.keep(&record, served).await.map(Ended::Issued);
        };
        let lease = self.shared.config.order_deadline + LEASE_MORE;
        match bounded(lock.take(self.name.as_str(), lease)).await? {
            Taken::Ours => {}
            Taken::Theirs => return Err(Failure::taken()),
        }
        let ended = self.ordered_alone(&*lock).await;
        let name = self.name.as_str();
        // Not within its bound: the lease will end it.
        match &ended {
            // Another edge would fail as this one did, and authorities count failures.
            Err(Failure { blame: Blame::Name, .. }) => {
                let wait = plan::wait_of_name(self.attempt + 1).min(FAILED_LEASE_MAX);
                let _ = tokio::time::timeout(LOCK_DEADLINE, lock.take(name, wait)).await;
            }
            _ => {
                let _ = tokio::time::timeout(LOCK_DEADLINE, lock.release(name)).await;
            }
        }
        ended
    }

    /// While no other edge orders the name: takes what one of them has left, or orders and leaves it.
    async fn ordered_alone(&self, lock: &dyn OrderLock) -> Result<Ended, Failure> {
        if let Some(sealed) = bounded(lock.shared(self.name.as_str())).await?
            && let Some((record, served)) = self.handed_over(&sealed)
        {
            return self.keep(&record, served).await.map(Ended::Adopted);
        }
        let (record, served) = self.within(self.issued()).await?;
        let held = self.keep(&record, served).await?;
        self.hand_over(lock, &record).await;
        Ok(Ended::Issued(held))
    }

    /// Orders at the authority, once more if it had lost the account.
    async fn issued(&self) -> Result<(Record, Served), Failure> {
        let shared = &self.shared;
        let mut changed = None;
        let account = shared.accounts.account(&mut changed).await?;
        self.tell_account(changed);
        let wish = Wish {
            name: &self.name,
            profile: shared.config.authority.profile.as_deref(),
            replaces: self.replaces.as_deref(),
            ways: &shared.config.ways,
            attempt: self.attempt,
            deadline: shared.config.order_deadline,
        };
        let delivered = match order(&account, &shared.answers, &wish).await {
            Err(failure) if failure.account_lost => {
                let changed = shared.accounts.lost(&account).await?;
                self.tell_account(Some(changed));
                let account = shared.accounts.account(&mut None).await?;
                order(&account, &shared.answers, &wish).await?
            }
            other => other?,
        };
        let directory = &shared.config.authority.directory;
        let (mut record, served) = Record::of(self.name.clone(), directory, delivered.key, &delivered.chain)?;
        let now = shared.now();
        if !served.pair.chain.covers(now) {
            return Err(Failure::of_authority(format!(
                "the chain's dates do not cover now ({} to {}, now {}, in unix seconds): whose clock is wrong?",
                served.pair.chain.from.0, served.pair.chain.until.0, now.0
            )));
        }
        record.renew_at =
            renewal(served.pair.chain.from, served.pair.chain.until, shared.parts.seed, &self.name);
        let demanded = shared.plan().is_demanded(self.name.as_str());
        record.origin = if demanded { Origin::Demanded } else { Origin::Wanted };
        Ok((record, served))
    }

    /// The whole is bounded, account included, for the name is taken for so long only.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let deadline = self.shared.config.order_deadline;
        let Ok(done) = tokio::time::timeout(deadline, work).await else {
            let seconds = deadline.as_secs();
            return Err(Failure::of_authority(format!("the authority took longer than {seconds} s")));
        };
        done
    }

    fn tell_account(&self, changed: Option<AccountChange>) {
        if let Some(changed) = changed {
            self.shared.tell(&Event::Account(changed));
        }
    }

    /// Stores and serves it. It is served even if it can't be stored: it counted at the authority.
    async fn keep(&self, record: &Record, served: Served) -> Result<Held, Failure> {
        let (storage, bytes) = (Arc::clone(&self.shared.parts.storage), Arc::new(record.encode()));
        let entry = entry(&self.name);
        let written = {
            let (entry, bytes) = (entry.clone(), Arc::clone(&bytes));
            tokio::task::spawn_blocking(move || storage.write(&entry, &bytes)).await
        };
        let why = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("it can't be stored: {error}")),
            Err(_) => Some("it can't be stored: the storage panicked".to_owned()),
        };
        self.shared.unsaved().remove(&self.name);
        if let Some(why) = why {
            self.shared.unsaved().insert(self.name.clone(), bytes);
            self.shared.tell(&Event::Fault { entry, why, kept: Kept::InMemory });
        }
        let (from, until) = (served.pair.chain.from, served.pair.chain.until);
        self.shared.parts.issued.put(vec![(self.name.as_str().into(), served.pair)], self.shared.now());
        Ok(Held { from, until, renew_at: record.renew_at, id: served.id })
    }

    /// The record of another edge, if it is better than ours and of use for a while.
    fn handed_over(&self, sealed: &[u8]) -> Option<(Record, Served)> {
        let shared = &self.shared;
        let opened = shared.accounts.seal().and_then(|seal| seal.open(self.name.as_str(), sealed).ok());
        let Some(bytes) = opened else {
            let why =
                "another edge has left a record that can't be opened: it has another account".to_owned();
            shared.tell(&Event::Fault { entry: entry(&self.name), why, kept: Kept::Unread });
            return None;
        };
        let record = Record::decode(&bytes).ok()?;
        let served = record.serve().ok()?;
        let now = shared.now();
        let ours = shared.plan().held(self.name.as_str()).map(|held| held.until);
        let better = ours.is_none_or(|until| until < served.pair.chain.until);
        let own = record.name == self.name && record.directory == shared.config.authority.directory;
        (own && better && served.pair.chain.covers(now) && now < record.renew_at).then_some((record, served))
    }

    async fn hand_over(&self, lock: &dyn OrderLock, record: &Record) {
        let bytes: Zeroizing<Vec<u8>> = record.encode();
        let sealed = self.shared.accounts.seal().and_then(|seal| seal.seal(self.name.as_str(), &bytes).ok());
        let left = match sealed {
            Some(sealed) => bounded(lock.share(self.name.as_str(), sealed)).await,
            None => Err(Failure::here("it can't be sealed")),
        };
        if let Err(failure) = left {
            let why = format!("the other edges can't have it and will order it, too: {}", failure.why);
            let entry = entry(&self.name);
            self.shared.tell(&Event::Fault { entry, why, kept: Kept::Alone });
        }
    }
}

async fn bounded<T>(asked: impl Future<Output = Result<T, super::LockFault>>) -> Result<T, Failure> {
    match tokio::time::timeout(LOCK_DEADLINE, asked).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(fault)) => Err(Failure::of_lock(format!("the lock between the edges can't be had: {fault}"))),
        Err(_) => Err(Failure::of_lock("the lock between the edges does not answer")),
    }
}
