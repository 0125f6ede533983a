//! What a database gives and takes of customers' domains.

/// One host as it stands in the database, nothing of it checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainRow {
    /// The host's name.
    pub host: String,
    /// The name of its site in the configuration.
    pub site: String,
    /// The namespace of its tokens; empty for that of its site.
    pub namespace: Vec<u8>,
    /// What differs from the site's look: a JSON object.
    pub brand: String,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether this is the tombstone of a deleted one.
    pub deleted: bool,
}

/// The state of a database's domains at one moment, to find out later whether they changed; of no use on
/// another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainsSeen(pub(super) String);
