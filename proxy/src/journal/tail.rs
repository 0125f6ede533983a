//! The records that no sync covers yet, kept in memory so that they can be written again.
//!
//! Invariants:
//! - `bytes` are whole frames, `first` to `next - 1`; those before `written` lie in the live segment.
//! - An acknowledgement is given in the order of the hand-overs and only for whole ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use super::stager::{Slot, Taken};

/// Frames one after another, as they will lie in a file.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
    /// Bytes before this, and sequences before `written_next`, are in the live segment.
    pub(super) written: usize,
    pub(super) first: u64,
    pub(super) written_next: u64,
    pub(super) next: u64,
    acks: VecDeque<Ack>,
}

/// One hand-over of one stager: `batch` is safe when `last` is.
#[derive(Debug)]
struct Ack {
    slot: Arc<Slot>,
    batch: u64,
    last: u64,
    written: bool,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), written: 0, first: 1, written_next: 1, next: 1, acks: VecDeque::new() }
    }

    /// Gives what was taken from a slot its sequences; leaves an empty buffer.
    pub(super) fn add(&mut self, buffer: &mut Vec<u8>, taken: Taken, slot: Arc<Slot>) {
        if self.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, buffer);
        } else {
            self.bytes.extend_from_slice(buffer);
        }
        buffer.clear();
        self.next += taken.records;
        self.acks.push_back(Ack { slot, batch: taken.batch, last: self.next - 1, written: false });
    }

    /// Forgets what was written, for it is synced.
    pub(super) fn drop_written(&mut self) {
        if self.written == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.written);
        }
        self.written = 0;
        self.first = self.written_next;
    }

    /// Takes nothing for written, for the live segment was left.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        self.written_next = self.first;
    }

    pub(super) fn acknowledge_synced(&mut self, through: u64) {
        while let Some(ack) = self.acks.front().filter(|ack| ack.last <= through) {
            ack.slot.written.fetch_max(ack.batch, Release);
            ack.slot.synced.store(ack.batch, Release);
            ack.slot.wake();
            self.acks.pop_front();
        }
    }

    pub(super) fn acknowledge_written(&mut self) {
        let next = self.written_next;
        // Newest first: one that is marked ends the search.
        for ack in self.acks.iter_mut().rev().skip_while(|ack| ack.last >= next) {
            if ack.written {
                break;
            }
            ack.written = true;
            ack.slot.written.fetch_max(ack.batch, Release);
            ack.slot.wake();
        }
    }
}
