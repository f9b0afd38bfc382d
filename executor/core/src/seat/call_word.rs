//! Is this thread inside a policy's callback, and does what it says still count?
//!
//! A callback that never returns has tasks in its hands: the batch that it is offered, what it has claimed, the task
//! whose poll it is told of. Somebody else must be able to take them, exactly once, and the thread, should it come back
//! after all, must not touch them again. A compare-and-swap on each entry and exit would settle that, for 12 ns a call.
//! Calls are frequent and revocations are not, so the cost is put on the other side.
//!
//! **Events.** *Leave* (the thread stores an even count), *LightFence*, *Look* (it loads `revoked`); *Revoke* (the watchdog
//! stores the count that it wants to revoke), *HeavyFence*, *Judge* (it loads the count).
//!
//! ```text
//! thread:    Leave     LightFence   Look
//! watchdog:  Revoke    HeavyFence   Judge
//! ```
//!
//! **The race.** Each side writes one word and reads the other's. The heavy fence makes every running thread of the
//! process pass through a full fence (`membarrier(2)`); so the light one need only keep the compiler from reordering. Then
//! one comes first. *LightFence first*: Judge sees the even count, and acquits. *HeavyFence first*: Look sees the
//! revocation. If both are seen, the watchdog's verdict decides, for which the thread waits: it is given under a lock,
//! which is held until the watchdog has taken what it found in the thread's hands.
//!
//! After a conviction the thread's hands are empty by definition: the watchdog owns what was in them
//! (`core/seats.rs`). While still inside the callback it asks [`is_revoked`](CallWord::is_revoked) after each claim: a
//! claim made before the heavy fence is found by the walk that follows a conviction, one made after it sees the
//! revocation and is given back.
//!
//! Rejected: a lock around each call (nobody waits for a policy), a compare-and-swap on both ends (cost), acknowledgement
//! by the stuck thread (it is stuck).

use crate::WATCHED;
use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct CallWord {
    /// Counts entries and exits: odd inside.
    count: AtomicU64,
    /// The odd count that does not count any more; 0 for none.
    revoked: AtomicU64,
    /// Held from Revoke to the verdict.
    judging: Mutex<()>,
}

impl CallWord {
    pub(crate) fn new() -> Self {
        CallWord {
            count: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            judging: Mutex::new(()),
        }
    }

    /// For the seat's thread: it is inside from now on. Returns the call's number.
    #[inline]
    pub(crate) fn enter(&self) -> u64 {
        if !WATCHED {
            return 0;
        }
        // Ordering: Relaxed load; only this thread writes.
        let call = self.count.load(Ordering::Relaxed) + 1;
        // Ordering: Release pairs with the Acquire in `in_flight`: what the thread has in its hands was written before.
        self.count.store(call, Ordering::Release);
        call
    }

    /// For the seat's thread: it has come out. `false`: it was convicted, and has nothing in its hands.
    #[inline]
    #[must_use]
    pub(crate) fn leave(&self, call: u64, light_fence: impl FnOnce()) -> bool {
        if !WATCHED {
            return true;
        }
        // Ordering: Release pairs with the Acquire in `revoke`. (Leave)
        self.count.store(call + 1, Ordering::Release);
        light_fence();
        // Ordering: Relaxed; ordered by the fence. (Look) Loom: `a_call_is_left_or_revoked_but_not_both`.
        self.revoked.load(Ordering::Relaxed) != call || self.await_verdict(call)
    }

    #[cold]
    fn await_verdict(&self, call: u64) -> bool {
        let _judged = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        // Ordering: Relaxed; the lock orders.
        self.revoked.load(Ordering::Relaxed) != call
    }

    /// Whether `call`, which the asking thread is in, has been convicted, or is about to be.
    #[inline]
    pub(crate) fn is_revoked(&self, call: u64) -> bool {
        // Ordering: Relaxed; the caller has fenced after its claim.
        self.revoked.load(Ordering::Relaxed) == call
    }

    /// The number of the call that the thread is in.
    #[inline]
    pub(crate) fn in_flight(&self) -> Option<u64> {
        // Ordering: Acquire pairs with the Release in `enter`.
        let count = self.count.load(Ordering::Acquire);
        (count % 2 == 1).then_some(count)
    }

    /// For the watchdog: from now on `call` does not count, and `take` takes what the thread has in its hands. `None`: the
    /// thread has come out meanwhile, and nothing has happened. A thread that comes out now waits until `take` is done,
    /// because it is going to forget what it had.
    pub(crate) fn revoke<R>(
        &self,
        call: u64,
        heavy_fence: impl FnOnce(),
        take: impl FnOnce() -> R,
    ) -> Option<R> {
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        // Ordering: Relaxed; ordered by the fence. (Revoke)
        self.revoked.store(call, Ordering::Relaxed);
        heavy_fence();
        // Ordering: Acquire pairs with the Release in `enter`, and with the one in `leave`. (Judge)
        if self.count.load(Ordering::Acquire) == call {
            return Some(take());
        }
        // Ordering: Relaxed; a thread that has seen the revocation waits for the lock.
        self.revoked.store(0, Ordering::Relaxed);
        None
    }
}
