//! Which callbacks a policy does not write, as far as that has been found out: they are not called any more.
//!
//! Rust does not tell whether a method of a trait is the default one. So the defaults tell it themselves, with the type that they
//! are the default of. It counts if that is the type of the policy that was loaded: the default of one that a policy holds inside
//! it, and passes calls on to, says nothing about the policy around it.
//!
//! Rejected: a list that the author of a policy keeps beside his methods. Who forgets to extend it gets a callback that is
//! never called.

use std::any::TypeId;
use std::sync::atomic::{AtomicU16, Ordering};

use polity_policy::{Optional, Stopped};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Unwritten {
    known: AtomicU16,
    policy: TypeId,
    /// What is kept for a task comes with `init_task` and goes with `exit_task`, so these have to be called.
    keeps_values: bool,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known(u16);

impl Unwritten {
    /// Nothing is known of a policy of this type.
    pub(crate) fn new(policy: TypeId, keeps_values: bool) -> Self {
        Unwritten {
            known: AtomicU16::new(0),
            policy,
            keeps_values,
        }
    }

    #[inline]
    pub(crate) fn known(&self) -> Known {
        // Ordering: Relaxed; nothing comes with it, and who does not see it yet makes a call that does nothing.
        Known(self.known.load(Ordering::Relaxed))
    }

    /// The default of a callback was called, of a policy of type `by`.
    #[cold]
    pub(crate) fn note(&self, callback: Optional, by: TypeId) {
        let needed =
            self.keeps_values && matches!(callback, Optional::InitTask | Optional::ExitTask);
        if by == self.policy && !needed {
            // Ordering: Relaxed, as in `known`.
            self.known.fetch_or(bit(callback), Ordering::Relaxed);
        }
    }
}

impl Known {
    /// Whether some notifier at the end of such a poll may be written.
    #[inline]
    pub(crate) fn wants(self, stopped: Stopped) -> bool {
        let asked = match stopped {
            Stopped::StillRunnable => bit(Optional::Stopping),
            Stopped::Waiting => bit(Optional::Stopping) | bit(Optional::Quiescent),
            Stopped::Finished => {
                bit(Optional::Stopping) | bit(Optional::Quiescent) | bit(Optional::ExitTask)
            }
        };
        self.0 & asked != asked
    }

    /// Whether the policy is known neither to say anything of a task that is offered to it, nor to hear anything. Then the answer is
    /// known, too: the tail of the global DSQ.
    #[inline]
    pub(crate) fn leaves_offers_to_core(self) -> bool {
        let asked = bit(Optional::InitTask)
            | bit(Optional::Runnable)
            | bit(Optional::SelectWorker)
            | bit(Optional::Enqueue);
        self.0 & asked == asked
    }

    /// Whether the policy is known to do without.
    #[inline]
    pub(crate) fn lacks(self, callback: Optional) -> bool {
        self.0 & bit(callback) != 0
    }
}

/// None for one that a later contract has added.
#[inline]
fn bit(callback: Optional) -> u16 {
    match callback {
        Optional::InitTask => 1 << 0,
        Optional::Runnable => 1 << 1,
        Optional::SelectWorker => 1 << 2,
        Optional::Enqueue => 1 << 3,
        Optional::Running => 1 << 4,
        Optional::Stopping => 1 << 5,
        Optional::Quiescent => 1 << 6,
        Optional::ExitTask => 1 << 7,
        Optional::Dequeue => 1 << 8,
        _ => 0,
    }
}
