//! What happens, as plain values to be counted and logged.

use std::fmt;

use super::name::Name;
use super::plan::Blame;
use crate::UnixSeconds;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The account was made, registered anew or given a new key.
    Account(AccountChange),
    /// Another edge had ordered the name's certificate, which is served from now on.
    Adopted {
        /// The name.
        name: Name,
        /// The last second of its certificate.
        until: UnixSeconds,
    },
    /// A question about a name was answered, or not.
    Asked {
        /// The name.
        name: Name,
        /// What came of it.
        answer: Answer,
    },
    /// An order failed; what was served before goes on being served.
    Failed {
        /// The name.
        name: Name,
        /// Who has to change.
        blame: Blame,
        /// In words.
        why: String,
    },
    /// Something that was stored can't be used, or something can't be stored.
    Fault {
        /// The entry of the storage.
        entry: String,
        /// In words.
        why: String,
        /// What became of it.
        kept: Kept,
    },
    /// A certificate was issued, stored, and is served from now on.
    Issued {
        /// The name.
        name: Name,
        /// The last second of its certificate.
        until: UnixSeconds,
        /// When it will be renewed, if the authority suggests nothing else.
        renew_at: UnixSeconds,
    },
    /// A name is no longer permitted, so its certificate is not renewed.
    NotPermitted {
        /// The name.
        name: Name,
    },
    /// What could not be stored before is on the disk now.
    Stored {
        /// The name.
        name: Name,
    },
}

impl Event {
    /// Every word that [`Self::label`] may say, in the order of the alphabet.
    pub const LABELS: [&str; 18] = [
        "account_created",
        "account_key_changed",
        "account_registered",
        "adopted",
        "ask_down",
        "ask_no",
        "ask_yes",
        "cut",
        "failed_authority",
        "failed_here",
        "failed_limited",
        "failed_lock",
        "failed_name",
        "fault",
        "issued",
        "not_permitted",
        "stored",
        "taken",
    ];

    /// A word for metrics, one of [`Self::LABELS`].
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Account(AccountChange::Created) => "account_created",
            Self::Account(AccountChange::KeyChanged) => "account_key_changed",
            Self::Account(AccountChange::Registered) => "account_registered",
            Self::Adopted { .. } => "adopted",
            Self::Asked { answer, .. } => match answer {
                Answer::Down => "ask_down",
                Answer::No => "ask_no",
                Answer::Yes => "ask_yes",
            },
            Self::Failed { blame, .. } => match blame {
                Blame::Another => "taken",
                Blame::Authority { .. } => "failed_authority",
                Blame::Domain { .. } => "failed_limited",
                Blame::Cut => "cut",
                Blame::Here => "failed_here",
                Blame::Lock => "failed_lock",
                Blame::Name => "failed_name",
            },
            Self::Fault { .. } => "fault",
            Self::Issued { .. } => "issued",
            Self::NotPermitted { .. } => "not_permitted",
            Self::Stored { .. } => "stored",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(AccountChange::Created) => f.write_str("a new account was made at the authority"),
            Self::Account(AccountChange::KeyChanged) => f.write_str("the account has a new key"),
            Self::Account(AccountChange::Registered) => {
                f.write_str("the authority had lost the account; its key was registered anew")
            }
            Self::Adopted { name, .. } => write!(f, "{name}: its certificate comes from another edge"),
            Self::Asked { name, answer: Answer::Yes } => write!(f, "{name}: may have a certificate"),
            Self::Asked { name, answer: Answer::No } => write!(f, "{name}: may have no certificate"),
            Self::Asked { name, answer: Answer::Down } => {
                write!(f, "{name}: nobody says whether it may have a certificate")
            }
            Self::Failed { name, why, .. } => write!(f, "{name}: no certificate: {why}"),
            Self::Fault { entry, why, kept } => write!(f, "{entry}: {why}; {kept}"),
            Self::Issued { name, .. } => write!(f, "{name}: a certificate was issued"),
            Self::NotPermitted { name } => {
                write!(f, "{name}: its certificate is not renewed, for it is no longer permitted")
            }
            Self::Stored { name } => write!(f, "{name}: its certificate is stored now"),
        }
    }
}

/// What happened to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// It was made.
    Created,
    /// It has a new key.
    KeyChanged,
    /// The authority had lost it; its key was registered anew.
    Registered,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No answer in time, or none that can be understood.
    Down,
    /// It may not.
    No,
    /// It may.
    Yes,
}

/// What became of an entry that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is served on this edge only.
    Alone,
    /// It was moved to the folder `aside`, and is ordered anew.
    Aside,
    /// It is served from memory, and stored as soon as that can be.
    InMemory,
    /// It stays where it is, and is not used.
    InPlace,
    /// It is not used, and the name is ordered here, too.
    Unread,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "it is served here only",
            Self::Aside => "it was set aside",
            Self::InMemory => "it is served all the same, and stored as soon as that can be",
            Self::InPlace => "it stays where it is, unused",
            Self::Unread => "the name is ordered here, too",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_listed() {
        let name = || Name::parse("click.brand.example").expect("a host name");
        let at = UnixSeconds(0);
        let failed = |blame| Event::Failed { name: name(), blame, why: String::new() };
        let asked = |answer| Event::Asked { name: name(), answer };
        let fault = Event::Fault { entry: String::new(), why: String::new(), kept: Kept::Aside };
        let all = [
            Event::Account(AccountChange::Created),
            Event::Account(AccountChange::KeyChanged),
            Event::Account(AccountChange::Registered),
            Event::Adopted { name: name(), until: at },
            asked(Answer::Down),
            asked(Answer::No),
            asked(Answer::Yes),
            failed(Blame::Cut),
            failed(Blame::Authority { retry_after: None }),
            failed(Blame::Here),
            failed(Blame::Domain { retry_after: None }),
            failed(Blame::Lock),
            failed(Blame::Name),
            fault,
            Event::Issued { name: name(), until: at, renew_at: at },
            Event::NotPermitted { name: name() },
            Event::Stored { name: name() },
            failed(Blame::Another),
        ];
        assert_eq!(all.map(|event| event.label()), Event::LABELS);
    }
}
