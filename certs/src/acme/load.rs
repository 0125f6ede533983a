//! Reads the stored account and certificates at the start; a damaged one is set aside and told.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Parts;
use super::account::{self, AccountFault, Stored};
use super::event::{Event, Kept};
use super::name::Name;
use super::plan::Held;
use super::record::{Damage, Origin, Record};
use crate::UnixSeconds;
use crate::pair::Pair;

/// What a record's entry ends with.
const RECORD: &str = ".record";

/// The entry of a name's record.
pub(super) fn entry(name: &Name) -> String {
    format!("{name}{RECORD}")
}

/// What the storage holds.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) account: Option<Stored>,
    pub(super) held: Vec<(Name, Held, bool)>,
    pub(super) pairs: Vec<(Box<str>, Arc<Pair>)>,
}

/// Reads the whole storage; what can't be used is told and set aside.
pub(super) fn load(directory: &str, parts: &Parts, now: UnixSeconds) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    let own_account = account::entry(directory);
    for entry in parts.storage.names()? {
        if entry != own_account && !entry.ends_with(RECORD) {
            continue;
        }
        let bytes = match parts.storage.read(&entry) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                let why = format!("it can't be read: {error}");
                (parts.events)(&Event::Fault { entry, why, kept: Kept::InPlace });
                continue;
            }
        };
        let read = if entry == own_account {
            Stored::decode(&bytes, directory)
                .map(|account| loaded.account = Some(account))
                .map_err(Bad::Account)
        } else {
            loaded.take(&entry, &bytes, directory, now).map_err(Bad::Record)
        };
        if let Err(bad) = read {
            let kept = if parts.storage.set_aside(&entry).is_ok() { Kept::Aside } else { Kept::InPlace };
            (parts.events)(&Event::Fault { entry, why: bad.to_string(), kept });
        }
    }
    Ok(loaded)
}

impl Loaded {
    fn take(&mut self, entry: &str, bytes: &[u8], directory: &str, now: UnixSeconds) -> Result<(), Damage> {
        let record = Record::decode(bytes)?;
        if entry.strip_suffix(RECORD) != Some(record.name.as_str()) {
            return Err(Damage::OtherName { names: vec![record.name.to_string()] });
        }
        let served = record.serve()?;
        let (from, until) = (served.pair.chain.from, served.pair.chain.until);
        // What another authority issued, a test one perhaps, is served until this one has issued.
        let own = record.directory == directory;
        let renew_at = if own { record.renew_at } else { now };
        let held = Held { from, until, renew_at, id: served.id.filter(|_| own) };
        self.pairs.push((record.name.as_str().into(), served.pair));
        self.held.push((record.name, held, record.origin == Origin::Demanded));
        Ok(())
    }
}

enum Bad {
    Account(AccountFault),
    Record(Damage),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(fault) => fault.fmt(f),
            Self::Record(damage) => damage.fmt(f),
        }
    }
}
