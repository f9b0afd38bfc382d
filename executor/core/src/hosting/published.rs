//! Which generation is current: a slot, the depth of the bypass, and an epoch that changes with both.
//!
//! In a bypass a generation stays current, is told of polls, and gets no tasks. To a worker that puts a task into its
//! custody a bypass looks like a withdrawal: the same race, the same answer.
//!
//! The epoch is odd while a publication is on its way: a worker follows only what lies between two equal even epochs. So
//! whoever got a task from a worker that follows a generation follows that generation too, or finds it ended: a task is
//! not told twice to one of them, nor to an older one in between. Publications take a lock against each other.
//!
//! A worker asks on every cycle, so it compares the epoch with the one it has cached (one load of a line that is
//! written at swaps only) and goes to the slot only when it differs.
//!
//! **The race, and protocol (a).** Events: *Publish* (change the slot, then the epoch to even), *PublishFence*, *Sweep* (look
//! at custody words) on the retiring side; *Keep* (a worker stores `Held` or `Queued` with the old generation's
//! tag), *KeepFence*, *Recheck* (load the epoch) on the worker's. Both fences are sequentially consistent, so one comes first: if
//! PublishFence does, Recheck sees the new epoch and the worker takes its task back; if KeepFence does, Sweep sees the task.
//! Either way somebody has it; if both see it, the compare-and-swap of the custody word decides.
//!
//! **Who may still be inside?** Protocol (b) needs no markers: a worker keeps the `Arc` of its cached generation
//! while it calls into it, and drops it when it sees another epoch. When the retiring side's `Arc` is the only one left,
//! no call is in flight and none will come.
//!
//! Rejected: an arc-swap guard per call (17 ns against 0.4), a read lock around calls (a swap would wait for a slow
//! policy), and `membarrier` with in-call markers, which the reference count makes unnecessary.

#[cfg(polity_loom)]
use loom::sync::Arc;
#[cfg(not(polity_loom))]
use std::sync::Arc;

use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError, fence};

#[cfg(not(polity_loom))]
type Slot<T> = arc_swap::ArcSwapAny<Option<Arc<T>>, std::sync::RwLock<()>>;

/// loom cannot see into arc-swap; a lock has the same meaning.
#[cfg(polity_loom)]
struct Slot<T>(loom::sync::Mutex<Option<Arc<T>>>);

#[cfg(polity_loom)]
impl<T> Slot<T> {
    fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        std::mem::replace(&mut *self.0.lock().unwrap(), new)
    }

    fn load_full(&self) -> Option<Arc<T>> {
        self.0.lock().unwrap().clone()
    }
}

/// See the [module](self).
pub(crate) struct Published<T> {
    epoch: AtomicU64,
    slot: Slot<T>,
    /// How many have asked for a bypass and not yet ended it.
    bypasses: AtomicU64,
    /// Held for two stores and a swap. Nobody else is kept waiting: readers do not take it.
    publishing: Mutex<()>,
}

impl<T> Published<T> {
    pub(crate) fn new() -> Self {
        #[cfg(not(polity_loom))]
        let slot = Slot::with_strategy(None, std::sync::RwLock::new(()));
        #[cfg(polity_loom)]
        let slot = Slot(loom::sync::Mutex::new(None));
        Published {
            epoch: AtomicU64::new(2),
            slot,
            bypasses: AtomicU64::new(0),
            publishing: Mutex::new(()),
        }
    }

    /// Changes the slot between an odd and an even epoch.
    fn change<R>(&self, change: impl FnOnce(&Slot<T>) -> R) -> R {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Ordering: Relaxed load; only the holder of the lock writes. Relaxed store: the change of the slot publishes it.
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.epoch.store(epoch + 1, Ordering::Relaxed);
        // Ordering: Release fence, partner of the Acquire fence in `follow`: who finds the new slot finds the odd epoch.
        fence(Ordering::Release);
        let result = change(&self.slot);
        // Ordering: Release pairs with the Acquire in `epoch`: who sees the epoch finds the new slot.
        self.epoch.store(epoch + 2, Ordering::Release);
        // Ordering: SeqCst fence (PublishFence), partner of KeepFence in `still`.
        fence(Ordering::SeqCst);
        result
    }

    /// Makes `new` current. Afterwards the caller may sweep for what the old one held.
    pub(crate) fn publish(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        self.change(|slot| slot.swap(new))
    }

    /// Makes nothing current, if `gone` is. `false`: another one was published meanwhile.
    #[cfg(not(polity_loom))]
    pub(crate) fn withdraw(&self, gone: &Arc<T>) -> bool {
        let found = self.change(|slot| slot.compare_and_swap(&Some(Arc::clone(gone)), None));
        found.as_ref().is_some_and(|found| Arc::ptr_eq(found, gone))
    }

    /// One more bypass. Returns whether it is the first: then the caller sweeps what the current generation holds.
    pub(crate) fn enter_bypass(&self) -> bool {
        // Ordering: Relaxed; changed under the lock, and published by the epoch.
        self.change(|_| self.bypasses.fetch_add(1, Ordering::Relaxed)) == 0
    }

    /// One less. Returns whether it was the last.
    pub(crate) fn leave_bypass(&self) -> bool {
        // Ordering: as in `enter_bypass`.
        self.change(|_| self.bypasses.fetch_sub(1, Ordering::Relaxed)) == 1
    }

    /// How deep the bypass is; 0 for none.
    pub(crate) fn bypasses(&self) -> u64 {
        // Ordering: Relaxed; what needs more asks `follow`, or has passed the fence of `still`.
        self.bypasses.load(Ordering::Relaxed)
    }

    /// Makes every worker look again.
    #[cfg(not(polity_loom))]
    pub(crate) fn bump(&self) {
        self.change(|_| ());
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // Ordering: Acquire pairs with the Release in `change`.
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Option<Arc<T>> {
        self.slot.load_full()
    }

    /// The current epoch, what it stands for, and whether that is bypassed. `None`: a change is on its way, stay with what
    /// was before.
    pub(crate) fn follow(&self) -> Option<(u64, Option<Arc<T>>, bool)> {
        let epoch = self.epoch();
        let current = self.load();
        let bypassed = self.bypasses() > 0;
        // Ordering: Acquire fence, partner of the Release fence in `change`.
        fence(Ordering::Acquire);
        // Ordering: Relaxed; ordered by the fence.
        let unchanged = epoch.is_multiple_of(2) && self.epoch.load(Ordering::Relaxed) == epoch;
        unchanged.then_some((epoch, current, bypassed))
    }

    /// *Recheck*, after *Keep*: whether `epoch` is still current. If not, the caller takes back what it stored.
    pub(crate) fn still(&self, epoch: u64) -> bool {
        // Ordering: SeqCst fence (KeepFence), partner of PublishFence in `change`.
        // Loom: `a_task_kept_across_a_publication_is_found`.
        fence(Ordering::SeqCst);
        self.epoch() == epoch
    }
}
