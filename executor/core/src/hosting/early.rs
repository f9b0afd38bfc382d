//! The vtimes of claims that came early: while another worker was still inside the `enqueue` of the task.
//!
//! Such a claim is noted in the custody word (`task/custody.rs`), which has no room for a vtime. It is rare, so the vtime goes
//! into a map under a lock.
//!
//! **Race.** *Note* (the claimer's compare-and-swap on the word) and *Remember* (here) happen under the lock, in this order; so
//! do *Hold* (the offering worker finds the note in the word) and *Recall* (here), the latter under the lock. Hold after Note
//! means that the claimer has the lock or has had it, so Recall comes after Remember. A rival whose Note fails remembers
//! nothing. A note that `enqueue` itself overrides leaves its vtime behind, for which the sequence stands guard; the slot's next
//! early claim replaces it, so there are never more than slots.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct EarlyVtimes {
    /// By slot: the sequence of the custody word in which the claim is noted, and the vtime.
    by_slot: Mutex<HashMap<u32, (u32, u64)>>,
}

impl EarlyVtimes {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, (u32, u64)>> {
        self.by_slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the vtime, if `note` says that the claim is noted.
    pub(crate) fn remember(
        &self,
        slot: u32,
        sequence: u32,
        vtime: u64,
        note: impl FnOnce() -> bool,
    ) -> bool {
        let mut by_slot = self.lock();
        let noted = note();
        if noted {
            by_slot.insert(slot, (sequence, vtime));
        }
        noted
    }

    /// The vtime of the claim that is noted in the word with this sequence, if it was one with a vtime.
    pub(crate) fn recall(&self, slot: u32, sequence: u32) -> Option<u64> {
        let (of, vtime) = self.lock().remove(&slot)?;
        (of == sequence).then_some(vtime)
    }
}
