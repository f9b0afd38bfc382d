//! Weight and affinity of a task that exists: changed at once, told to the policy by a worker.
//!
//! The caller's thread stores the new set and is done; no policy code runs on it. What the policy should hear lies in a small
//! set, which a worker empties between polls. Several changes of one task merge there: the callback shows what is true then.
//!
//! **A task that may no longer run where it is.** Wherever it is, it does not run there:
//!
//! | where | what happens |
//! |---|---|
//! | it waits | its next wake goes to an inbox |
//! | ingress, LIFO slot, local DSQ, `prev` | who pops it to poll it sees the mask (`worker/run.rs`) and sends it to an inbox |
//! | injector, global DSQ | the same, or the worker passes it over if its entry says that it was restricted before |
//! | an inbox | its worker takes whatever is in there, and sends on what it may not run |
//! | a policy's custody | it is taken back here, and offered again: `dequeue`, then `enqueue` |
//! | it is polled | the poll goes on; after it, as above |
//!
//! So the bit in a queue's entry is a hint that may be stale both ways: stale and set, the queue asks the header, which is
//! right; stale and clear, the entry is taken by a worker that may not run it, and sent on before the poll.
//!
//! **The race with an offer.** A policy may be looking at the old mask while it changes, and then keep the task for a worker
//! that may not run it. Events: *Store* (the mask), *Count* (`affinities` + 1), *ChangeFence*, *Claim* (is it in custody?) here;
//! *Keep*, *KeepFence* (in `Published::still`), *Look* (at `affinities`) in `worker/offer.rs`. One fence comes first: either
//! Claim finds the task, or Look finds the count changed, and the worker takes back what it has just put into custody.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use polity_policy::TaskId;

use crate::core::Core;
use crate::core::attributes::check_weight;
use crate::machine::Machine;
use crate::task::change::{Change, ChangeError};
use crate::task::custody::State;
use crate::task::header::Header;
use crate::task::token::claim;

/// Which attribute it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Changed {
    Weight,
    Affinity,
}

/// What policies have not been told yet.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// There is something in `untold`. Each look for work of a worker under a policy reads it.
    any: AtomicBool,
    untold: Mutex<BTreeSet<(TaskId, Changed)>>,
    /// Counts changes of affinity.
    affinities: AtomicU64,
}

impl Changes {
    // Ordering, for `any`: Relaxed. Set under the lock, before the fence of the kick that follows (`idle/README.md`).
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    // Ordering, for `affinities`: Relaxed; ordered by the fences of the race above.
    #[inline]
    pub(crate) fn affinities(&self) -> u64 {
        self.affinities.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(TaskId, Changed)>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, task: TaskId, what: Changed) {
        let mut untold = self.lock();
        untold.insert((task, what));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Moves up to `at_most` of them to `take`.
    pub(crate) fn take(&self, at_most: usize, mut take: impl FnMut(TaskId, Changed)) {
        let mut untold = self.lock();
        for _ in 0..at_most {
            match untold.pop_first() {
                Some((task, what)) => take(task, what),
                None => break,
            }
        }
        self.any.store(!untold.is_empty(), Ordering::Relaxed);
    }
}

impl<M: Machine> Core<M> {
    pub(super) fn change_attributes(
        &self,
        header: &'static Header,
        task: TaskId,
        change: Change,
    ) -> Result<(), ChangeError> {
        let what = match &change {
            Change::Weight(weight) => {
                check_weight(*weight).map_err(ChangeError::Weight)?;
                Changed::Weight
            }
            Change::Affinity(mask) if self.any_in(mask) => Changed::Affinity,
            Change::Affinity(mask) => {
                let (mask, workers) = (mask.clone(), self.worker_count());
                return Err(ChangeError::Affinity { mask, workers });
            }
        };
        let changed = header.change(task.tenant(), |set| {
            self.without_idle_mask(change.apply(set))
        });
        if !changed {
            return Err(ChangeError::Finished(task));
        }
        let to_tell = self.published.load().is_some();
        if to_tell {
            self.changes.note(task, what);
        }
        match what {
            Changed::Affinity => {
                self.take_out_of_custody(header, task.tenant());
                // It may lie in the inbox of any of them, also of one that is parked.
                self.kick_all();
            }
            // Whoever passes next tells the policy.
            Changed::Weight if to_tell => self.wake_somebody(),
            Changed::Weight => {}
        }
        Ok(())
    }

    /// The policy has it for workers that may not run it any more, perhaps: it is to think again.
    fn take_out_of_custody(&self, header: &'static Header, tenant: u32) {
        self.changes.affinities.fetch_add(1, Ordering::Relaxed);
        // Ordering: SeqCst fence (ChangeFence), partner of KeepFence in `Published::still`: see the head of the file.
        fence(Ordering::SeqCst);
        let seen = header.custody.load();
        // Asked after the custody word was read: had it been the next tenant's, this would say so.
        if matches!(seen.state(), State::Held | State::Queued)
            && header.lifecycle.is(tenant)
            && let Some(token) = claim(header, seen)
        {
            header.note_left_custody_by_change();
            self.requeue(token);
        }
    }
}
