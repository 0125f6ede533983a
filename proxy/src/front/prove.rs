//! The wait for a hit's proof, and what its answer counts as.
//!
//! Of the answered hits of a site, those counted as `waived` or `unrecorded` have no record; with
//! those that were recorded and `abandoned` they make up the difference to the journal (design, P7).

use std::sync::Arc;

use tokio::time::Instant;

use super::core::Core;
use crate::event::{Kind, Outcome};
use crate::metrics::SiteCore;
use crate::record::{Fate, Recorded, Staged};

/// A hit that was handed to the journal, or was not, and is about to be answered.
pub(super) struct Account {
    /// `None` when it is beyond the budget of unknown tokens.
    pub(super) staged: Option<Staged>,
    pub(super) counters: Arc<[SiteCore]>,
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
}

/// Waits for the proof, within the recorder's bounds, and counts the answer; says when the wait was over.
///
/// # Cancel safety
/// Dropping the future counts the hit as abandoned.
pub(super) async fn prove(core: &Core, account: Account) -> (Option<Recorded>, Instant) {
    let Account { staged, counters, kind, outcome } = account;
    let counters = &counters[core.index];
    let Some(staged) = staged else {
        counters.answered(kind, outcome);
        counters.unrecorded.one();
        return (None, Instant::now());
    };
    let is_waited_for = matches!(staged, Staged::Waiting(_));
    let client = Client { counters, is_there: false };
    let recorded = core.recorder.settle(staged).await;
    client.stayed();
    counters.answered(kind, outcome);
    counters.promised(recorded.class());
    match recorded.fate() {
        Fate::Taken => {}
        Fate::Lost => counters.waived.one(),
        Fate::OverShare => counters.unrecorded.one(),
    }
    let ended = if is_waited_for { core.recorder.released_at() } else { Instant::now() };
    (Some(recorded), ended)
}

/// The client of a hit whose record is under way.
struct Client<'a> {
    counters: &'a SiteCore,
    is_there: bool,
}

impl Client<'_> {
    fn stayed(mut self) {
        self.is_there = true;
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if !self.is_there {
            self.counters.abandoned.one();
        }
    }
}
