//! The lifecycle word: is the task runnable, was it aborted, which tenant of its slot is it?
//!
//! ```text
//! 63        34   33     32      31          0
//! |  tenant  | FREE | ABORTED | wake count  |
//! ```
//!
//! | state | FREE | ABORTED | wake count | a token exists |
//! |---|---|---|---|---|
//! | waiting | 0 | 0 | 0 | no |
//! | runnable or polled | 0 | 0 | ≥ 1 | yes |
//! | aborted, future not dropped yet | 0 | 1 | ≥ 1 | yes |
//! | free | 1 | any | ≥ 1 | no |
//!
//! A wake adds one; whoever adds to zero has won the token. The poll notes the count that it saw and subtracts
//! that when it ends; what is left came during the poll. So a wake costs one read-modify-write, the start of a poll
//! none, the end of a poll one (the design of NeXosim's tasks). A free slot keeps its count above zero, therefore a
//! stale waker can never win it.
//!
//! Rejected: a NOTIFIED bit set by `fetch_or`. The start of a poll then needs a read-modify-write to clear it.

use crate::sync::{AtomicU64, Ordering};

const COUNT: u64 = 0xffff_ffff;
const ABORTED: u64 = 1 << 32;
const FREE: u64 = 1 << 33;
const TENANT_SHIFT: u32 = 34;
/// The most wakes that a poll notes. Well below `SATURATED`, so that one which comes during the poll always shows.
const NOTED: u64 = 1 << 31;
/// Wakes without a poll in between are not counted beyond this: the next bits are not theirs.
const SATURATED: u64 = 3 << 30;

/// See the [module](self). Zeroed memory is a slot that never had a tenant.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Lifecycle(AtomicU64);

/// What a wake did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Woken {
    /// The task was waiting: the caller now has its token.
    Won,
    /// It was runnable already, or is gone. The coming poll, if there is one, sees what was written before.
    Already,
}

/// What an abort did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Aborted {
    /// The task was waiting: the caller has its token, and the duty to have its future dropped.
    Won,
    /// Somebody else has the token and will see the mark.
    Marked,
    /// The task ended, or was aborted before.
    Gone,
}

/// What the start of a poll saw, to be given back at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    count: u64,
    /// The future must be dropped instead of polled.
    pub(crate) aborted: bool,
}

impl Lifecycle {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Lifecycle(AtomicU64::new(0))
    }

    /// Gives the slot to its next tenant, born runnable: the caller has the token. Only for the owner of a free
    /// slot. Returns the tenant's number.
    #[inline]
    pub(crate) fn open(&self) -> u32 {
        // Ordering: Relaxed; only the owner of the free slot changes the tenant, and it synchronised with the
        // previous owner through the free list.
        let last = self.0.load(Ordering::Relaxed) >> TENANT_SHIFT;
        let tenant = if last == u64::MAX >> TENANT_SHIFT {
            1
        } else {
            last + 1
        };
        // Ordering: Release pairs with the Acquire in `is` and `abort`: who finds the new tenant finds its header
        // filled in. A stale waker's increment between the load and this store is lost, which loses nothing: the
        // tenant is born runnable.
        self.0.store(tenant << TENANT_SHIFT | 1, Ordering::Release);
        tenant as u32
    }

    /// Whether the slot still belongs to `tenant`.
    #[inline]
    pub(crate) fn is(&self, tenant: u32) -> bool {
        // Ordering: Acquire pairs with the Release in `open`.
        let word = self.0.load(Ordering::Acquire);
        word >> TENANT_SHIFT == u64::from(tenant) && word & FREE == 0
    }

    /// The present tenant, or `None` if the slot is free.
    #[inline]
    pub(crate) fn tenant(&self) -> Option<u32> {
        // Ordering: Acquire pairs with the Release in `open`: the walker reads the header next.
        let word = self.0.load(Ordering::Acquire);
        (word & FREE == 0 && word >> TENANT_SHIFT != 0).then_some((word >> TENANT_SHIFT) as u32)
    }

    /// Whether the present tenant is runnable or polled. A sample.
    pub(crate) fn is_runnable(&self) -> bool {
        // Ordering: Relaxed; a sample.
        let word = self.0.load(Ordering::Relaxed);
        word & FREE == 0 && word & COUNT != 0
    }

    /// Makes the task runnable. Always writes, also when it is runnable already.
    #[inline]
    pub(crate) fn wake(&self) -> Woken {
        // Ordering: Release pairs with the Acquire in `begin_poll`: the poll sees what the waker wrote. Acquire
        // pairs with the Release half of `end_poll`: the winner's plain stores to the header come after those of
        // the last poll.
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        if before & COUNT == 0 {
            return Woken::Won;
        }
        if before & COUNT >= SATURATED {
            self.take_one_back();
        }
        Woken::Already
    }

    /// After thousands of millions of wakes without a poll: keeps the count from growing into the other bits. Never below
    /// `SATURATED`, so what polls have noted and what came since stay apart.
    #[cold]
    fn take_one_back(&self) {
        // Ordering: Relaxed; the increment has published what it had to, and the count stays far above zero.
        let mut word = self.0.load(Ordering::Relaxed);
        while word & COUNT > SATURATED {
            match self
                .0
                .compare_exchange_weak(word, word - 1, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Marks `tenant` as aborted and makes it runnable.
    pub(crate) fn abort(&self, tenant: u32) -> Aborted {
        // Ordering: Acquire as in `is`.
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            if word >> TENANT_SHIFT != u64::from(tenant) || word & (FREE | ABORTED) != 0 {
                return Aborted::Gone;
            }
            // Ordering: AcqRel as in `wake`; Acquire on failure as in `is`.
            match self.0.compare_exchange_weak(
                word,
                (word | ABORTED) + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if word & COUNT == 0 => return Aborted::Won,
                Ok(_) => return Aborted::Marked,
                Err(now) => word = now,
            }
        }
    }

    /// Whether the task was aborted and its future is to be dropped. For the token holder.
    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        // Ordering: Relaxed; a mark that is missed here is seen by the next `begin_poll`.
        self.0.load(Ordering::Relaxed) & ABORTED != 0
    }

    /// Notes what is known before the poll. For the token holder.
    #[inline]
    pub(crate) fn begin_poll(&self) -> Seen {
        // Ordering: Acquire pairs with the Release in `wake` and `abort`. Wakes that this load does not see are
        // still there at `end_poll`.
        let word = self.0.load(Ordering::Acquire);
        debug_assert!(
            word & FREE == 0 && word & COUNT != 0,
            "polling without a token: {word:#x}"
        );
        // Not more than this: else a wake that comes at the saturated count would not show at `end_poll`.
        Seen {
            count: (word & COUNT).min(NOTED),
            aborted: word & ABORTED != 0,
        }
    }

    /// Whether a wake or abort has come since `begin_poll`. If it says so it stays so until `end_poll`.
    #[inline]
    pub(crate) fn woken_since(&self, seen: Seen) -> bool {
        // Ordering: Relaxed; the answer only chooses the order of notifications, the data is read after the next
        // `begin_poll`.
        self.0.load(Ordering::Relaxed) & COUNT != seen.count
    }

    /// Ends a poll that did not finish the task. `true`: woken meanwhile, the caller keeps the token. `false`: the
    /// token is gone, and with it the right to touch the task.
    #[inline]
    #[must_use]
    pub(crate) fn end_poll(&self, seen: Seen) -> bool {
        // Ordering: Release pairs with the Acquire in `wake`: whoever wins the token next comes after this poll.
        // Acquire: if we keep the token, what the waker wrote is ours to see.
        let before = self.0.fetch_sub(seen.count, Ordering::AcqRel);
        before & COUNT != seen.count
    }

    /// Frees the slot. For the token holder, when future and header are no longer needed; the token ends here.
    #[inline]
    pub(crate) fn finish(&self) {
        // Ordering: Relaxed load: only the tenant bits are used, and only the owner changes those.
        let tenant = self.0.load(Ordering::Relaxed) >> TENANT_SHIFT;
        // Ordering: Release pairs with the Acquire in `is` and `tenant`. A plain store: increments that it buries
        // came from wakers of a finished task.
        self.0
            .store(tenant << TENANT_SHIFT | FREE | 1, Ordering::Release);
    }
}
