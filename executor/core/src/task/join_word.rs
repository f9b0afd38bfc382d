//! The join word: the worker that completes a task and the handle that waits for it share the cell; who frees it?
//!
//! | bit | set by | means |
//! |---|---|---|
//! | COMPLETE | worker, once | the output is in the cell and belongs to the handle |
//! | WAKER | handle | the waker slot is filled; from now on both sides may only read it |
//! | DONE | worker, only if it saw WAKER with COMPLETE | it has woken and will not touch the cell again |
//! | GONE | handle, once | it will not touch the cell again |
//!
//! Events: *Complete* (worker sets COMPLETE), *Wake*, *Done*; *Register* (handle sets WAKER), *Leave* (handle sets GONE).
//!
//! **Lost wake-up?** Register is a compare-and-swap that fails if COMPLETE is set. If Register comes first, Complete
//! sees WAKER and wakes; if Complete comes first, Register fails and the handle takes the output at once.
//!
//! **Who frees?** The one that acts last. Complete that sees GONE frees. Complete that sees no WAKER does not touch the
//! cell again, so Leave frees. Complete that sees WAKER wakes and then does Done: Leave before Done leaves it to Done,
//! Leave after Done frees. Whoever finds that the other side has acted last already reads that and writes nothing: a task that is
//! detached before it ends costs one read-modify-write, and so does one whose handle is dropped after its output was taken
//! without waiting.
//!
//! Rejected: a reference count. Two more read-modify-writes for each task.

use crate::sync::{AtomicU8, Ordering};

const COMPLETE: u8 = 1;
const WAKER: u8 = 2;
const DONE: u8 = 4;
const GONE: u8 = 8;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct JoinWord(AtomicU8);

/// What the worker has to do after completing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Completed {
    /// The handle is gone: free the cell.
    Free,
    /// Wake the waker in the slot, then call `done`.
    Wake,
    /// Nothing; the cell is the handle's.
    Nothing,
}

/// What the handle finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Found {
    /// The output is the handle's to take.
    Complete,
    /// Not complete, and the waker slot is the handle's to write.
    Unregistered,
    /// Not complete, and a waker is registered: read it only.
    Registered,
}

impl JoinWord {
    pub(crate) fn new() -> Self {
        JoinWord(AtomicU8::new(0))
    }

    /// Worker: the output is written.
    #[inline]
    pub(crate) fn complete(&self) -> Completed {
        // Ordering: Acquire pairs with the Release in `leave`. The handle writes nothing after GONE, and nobody reads.
        if self.0.load(Ordering::Acquire) & GONE != 0 {
            return Completed::Free;
        }
        // Ordering: Release pairs with the Acquire in `look`, `register` and `leave`: the handle sees the output.
        // Acquire pairs with the Release in `register` (the waker slot) and in `leave`.
        let before = self.0.fetch_or(COMPLETE, Ordering::AcqRel);
        match before {
            _ if before & GONE != 0 => Completed::Free,
            _ if before & WAKER != 0 => Completed::Wake,
            _ => Completed::Nothing,
        }
    }

    /// Worker, after waking: `true` means that the handle left meanwhile and the worker frees the cell.
    #[must_use]
    #[inline]
    pub(crate) fn done(&self) -> bool {
        // Ordering: Release pairs with the Acquire in `leave`: our reads of the waker come before its drop.
        // Acquire pairs with the Release in `leave`, for the same when we free.
        self.0.fetch_or(DONE, Ordering::AcqRel) & GONE != 0
    }

    pub(crate) fn is_complete(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `complete`.
        self.0.load(Ordering::Acquire) & COMPLETE != 0
    }

    /// Handle: what is there?
    #[inline]
    pub(crate) fn look(&self) -> Found {
        // Ordering: Acquire pairs with the Release in `complete`.
        let word = self.0.load(Ordering::Acquire);
        match word {
            _ if word & COMPLETE != 0 => Found::Complete,
            _ if word & WAKER != 0 => Found::Registered,
            _ => Found::Unregistered,
        }
    }

    /// Handle: the waker slot is filled. `false`: complete by now, nobody will wake.
    #[must_use]
    pub(crate) fn register(&self) -> bool {
        // Ordering: Release publishes the slot to `complete`; Acquire on failure makes the output visible.
        self.0
            .compare_exchange(0, WAKER, Ordering::Release, Ordering::Acquire)
            .is_ok()
    }

    /// Handle: takes the waker slot back to replace the waker. `false`: complete by now.
    #[must_use]
    pub(crate) fn unregister(&self) -> bool {
        // Ordering: Acquire on failure makes the output visible. On success nobody else has touched the slot.
        self.0
            .compare_exchange(WAKER, 0, Ordering::Relaxed, Ordering::Acquire)
            .is_ok()
    }

    /// Handle, at its drop: `true` means that the handle frees the cell.
    #[must_use]
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `complete` and `done`. The worker writes nothing after those, and nobody
        // reads.
        if is_left_by_worker(self.0.load(Ordering::Acquire)) {
            return true;
        }
        // Ordering: Release pairs with the Acquire in `complete` and `done`: our last use of the cell comes before
        // the worker frees it. Acquire pairs with their Release, for when we free.
        is_left_by_worker(self.0.fetch_or(GONE, Ordering::AcqRel))
    }
}

/// Whether the worker will not touch the cell again.
fn is_left_by_worker(word: u8) -> bool {
    word & COMPLETE != 0 && (word & WAKER == 0 || word & DONE != 0)
}
