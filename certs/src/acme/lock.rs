//! How several edges that share an account order each name once, and hand one another what they got.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future that an implementor of [`OrderLock`] returns.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that all edges reach: a table in the database, as a rule.
///
/// A name is ordered only by the edge that has taken it. What that edge was issued is sealed with a
/// key made from the account's key, and left here for the others; so whoever reads the table reads no
/// private key.
///
/// A wrong answer costs: two edges that have both taken a name order it twice, which counts against the
/// authority's limits and harms nothing else; a sealed record that was changed is not taken.
///
/// # Cancel safety
/// Each future may be dropped at any time; a name that stays taken is free after its lease.
pub trait OrderLock: Send + Sync + 'static {
    /// Takes `name` for the time of `lease` from now on, unless another edge has it. This edge may have it
    /// already.
    fn take(&self, name: &str, lease: Duration) -> Waiting<'_, Result<Taken, LockFault>>;

    /// Gives `name` back; what can't be given back ends with its lease.
    fn release(&self, name: &str) -> Waiting<'_, ()>;

    /// The sealed record that was left last for `name`.
    fn shared(&self, name: &str) -> Waiting<'_, Result<Option<Vec<u8>>, LockFault>>;

    /// Leaves a sealed record for `name`, in place of the one before.
    fn share(&self, name: &str, sealed: Vec<u8>) -> Waiting<'_, Result<(), LockFault>>;
}

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This edge, from now on.
    Ours,
    /// Another one.
    Theirs,
}

/// The lock can't be asked: its database is down, as a rule. Orders wait, and nothing that is served
/// changes.
#[derive(Debug)]
pub struct LockFault(pub String);

impl fmt::Display for LockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LockFault {}
