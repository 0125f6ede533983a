//! The wait for a hit's proof, and what its answer counts as.
//!
//! Of the answered hits of a site, those counted as `waived` or `unrecorded` have no record; with
//! those that were recorded and `abandoned` they make up the difference to the journal (design, P7).

use std::sync::Arc;

use tokio::time::Instant;

use super::core::Core;
use crate::event::{Kind, Outcome};
use crate::journal::Batch;
use crate::metrics::SiteCore;
use crate::record::{Fate, Recorded, Staged};

/// A hit that was handed to the journal, or was not, and is about to be answered.
pub(super) struct Account {
    /// `None` when it is beyond the budget of unknown tokens.
    staged: Option<Staged>,
    client: Client,
    kind: Kind,
    outcome: Outcome,
}

impl Account {
    /// The account of a hit that was staged, or was not, by the data thread that counts in `counters[core]`.
    pub(super) fn new(
        staged: Option<Staged>,
        counters: Arc<[SiteCore]>,
        core: usize,
        kind: Kind,
        outcome: Outcome,
    ) -> Self {
        let client = Client { counters, core, is_there: staged.is_none() };
        Self { staged, client, kind, outcome }
    }

    /// The batch that the hit waits for, if it does.
    pub(super) fn batch(&self) -> Option<Batch> {
        match self.staged {
            Some(Staged::Waiting(batch)) => Some(batch),
            _ => None,
        }
    }
}

/// Waits for the proof, within the recorder's bounds, and counts the answer; says when the wait was over.
///
/// # Cancel safety
/// Dropping the future counts the hit as abandoned.
pub(super) async fn prove(core: &Core, account: Account) -> (Option<Recorded>, Instant) {
    let Account { staged, mut client, kind, outcome } = account;
    let Some(staged) = staged else {
        client.counters().answered(kind, outcome);
        client.counters().unrecorded.one();
        return (None, Instant::now());
    };
    let is_waited_for = matches!(staged, Staged::Waiting(_));
    let recorded = core.recorder.settle(staged).await;
    client.is_there = true;
    let counters = client.counters();
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

/// The client of a hit; one that leaves while the hit's record is under way is counted.
struct Client {
    counters: Arc<[SiteCore]>,
    core: usize,
    is_there: bool,
}

impl Client {
    fn counters(&self) -> &SiteCore {
        &self.counters[self.core]
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_there {
            self.counters().abandoned.one();
        }
    }
}
