//! The look-up thread: one token at a time from the database, for whoever waits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Config, Event, row};
use crate::causes::chain;
use crate::clock;
use crate::database::{self, Access, Database, Source};
use crate::links::Origin;
use crate::links::entry::Entry;
use crate::links::namespaces::Namespaces;
use crate::metrics::LookUp;
use crate::policy::Signal;
use crate::resolve::look_ups::{Answer, Key, LookUps};
use crate::vitals::{Holding, Vitals};

/// How soon an idle thread notices that the database is to be let go.
const IDLE: Duration = Duration::from_millis(100);

/// Serves the queue of look-ups until everybody who could ask is gone.
///
/// # Blocking
/// The whole life of its thread.
pub fn serve_look_ups(
    queue: &Receiver<Key>,
    look_ups: &LookUps,
    namespaces: &Namespaces,
    vitals: &Arc<Vitals>,
    config: &ArcSwap<Config>,
    events: &SyncSender<Event>,
) {
    let mut open: Option<(Source, Database, Holding)> = None;
    // Opened before anybody waits for it, once whenever the database comes up: the way to a server may be
    // longer than the deadline of a look-up.
    let mut opened_ahead = false;
    let mut told = None;
    loop {
        let key = match queue.recv_timeout(IDLE) {
            Ok(key) => key,
            Err(RecvTimeoutError::Timeout) => {
                if !vitals.database_is_up() {
                    (open, opened_ahead) = (None, false);
                    look_ups.barred();
                } else if !std::mem::replace(&mut opened_ahead, true) {
                    // What is wrong, whoever asks is told.
                    let _ = connected(&mut open, vitals, &config.load());
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !vitals.database_is_up() {
            open = None;
            look_ups.barred();
            look_ups.answer(&key, &Answer::Unasked(LookUp::Barred), clock::now());
            continue;
        }
        let config = config.load();
        if open.as_ref().is_some_and(|(source, ..)| *source != config.database) {
            open = None;
        }
        let answer = match look_up(&mut open, &key, namespaces, vitals, &config) {
            Ok(answer) => {
                told = None;
                answer
            }
            Err(error) => {
                let error_now = chain(&error);
                if told.as_ref() != Some(&error_now) {
                    tracing::warn!(error = error_now, "look-ups fail");
                    told = Some(error_now);
                }
                open = None;
                match error {
                    // It answers at once; the follower finds out whether that goes for everything there.
                    database::Error::NotOurs(_) | database::Error::Refused(_) => {}
                    database::Error::Unavailable(_) => vitals.observe(Signal::Failed, clock::now()),
                    _ => vitals.observe(Signal::Gone, clock::now()),
                }
                Answer::Unasked(LookUp::Failed)
            }
        };
        if let Answer::Found(entry) = &answer {
            // The follower logs it; when it is too busy, the link stays in the cache alone.
            let _ = events.try_send(Event::LookedUp(key.clone(), Arc::clone(entry)));
        }
        look_ups.answer(&key, &answer, clock::now());
    }
}

fn look_up(
    open: &mut Option<(Source, Database, Holding)>,
    key: &Key,
    namespaces: &Namespaces,
    vitals: &Arc<Vitals>,
    config: &Config,
) -> Result<Answer, database::Error> {
    let Some(database) = connected(open, vitals, config)? else {
        return Ok(Answer::Unasked(LookUp::Barred));
    };
    let found = database.lookup(&namespaces.name(key.namespace), &key.token)?;
    Ok(match found.map(|found| Entry::approve(&row(&found.as_row()), Origin::LookUp)) {
        Some(Ok(entry)) => Answer::Found(Arc::new(entry)),
        // A link whose target cannot be approved is none; `links refused` lists it.
        Some(Err(_)) | None => Answer::Absent,
    })
}

/// The connection, opened if it is not; `None` while the database is to be left alone.
fn connected<'a>(
    open: &'a mut Option<(Source, Database, Holding)>,
    vitals: &Arc<Vitals>,
    config: &Config,
) -> Result<Option<&'a mut Database>, database::Error> {
    if open.is_none() {
        let Some(holding) = vitals.hold() else { return Ok(None) };
        let database = database::open(&config.database, Access::ReadOnly, config.timeout)?;
        *open = Some((config.database.clone(), database, holding));
    }
    Ok(open.as_mut().map(|(_, database, _)| database))
}
