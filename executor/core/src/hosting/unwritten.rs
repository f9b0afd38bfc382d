//! Which notifiers a policy does not write, as far as that has been found out: they are not called any more.
//!
//! Rust does not tell whether a method of a trait is the default one. So the defaults tell it themselves, with the type that they
//! are the default of. It counts if that is the type of the policy that was loaded: the default of one that a policy holds inside
//! it, and passes calls on to, says nothing about the policy around it.
//!
//! Rejected: a list that the author of a policy keeps beside his methods. Who forgets to extend it gets a notifier that is
//! never called.

use std::any::TypeId;
use std::sync::atomic::{AtomicU8, Ordering};

use polity_policy::{Notifier, Stopped};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Unwritten {
    known: AtomicU8,
    policy: TypeId,
    /// With the last notification about a task goes what is kept for it, so that has to be called.
    keeps_values: bool,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known(u8);

impl Unwritten {
    /// Nothing is known of a policy of this type.
    pub(crate) fn new(policy: TypeId, keeps_values: bool) -> Self {
        Unwritten {
            known: AtomicU8::new(0),
            policy,
            keeps_values,
        }
    }

    #[inline]
    pub(crate) fn known(&self) -> Known {
        // Ordering: Relaxed; nothing comes with it, and who does not see it yet makes a call that does nothing.
        Known(self.known.load(Ordering::Relaxed))
    }

    /// The default of a notifier was called, of a policy of type `by`.
    #[cold]
    pub(crate) fn note(&self, notifier: Notifier, by: TypeId) {
        let needed = self.keeps_values && notifier == Notifier::ExitTask;
        if by == self.policy && !needed {
            // Ordering: Relaxed, as in `known`.
            self.known.fetch_or(bit(notifier), Ordering::Relaxed);
        }
    }
}

impl Known {
    /// Whether some notifier at the end of such a poll may be written.
    #[inline]
    pub(crate) fn wants(self, stopped: Stopped) -> bool {
        let asked = match stopped {
            Stopped::StillRunnable => bit(Notifier::Stopping),
            Stopped::Waiting => bit(Notifier::Stopping) | bit(Notifier::Quiescent),
            Stopped::Finished => {
                bit(Notifier::Stopping) | bit(Notifier::Quiescent) | bit(Notifier::ExitTask)
            }
        };
        self.0 & asked != asked
    }

    /// Whether the policy is known to do without.
    #[inline]
    pub(crate) fn lacks(self, notifier: Notifier) -> bool {
        self.0 & bit(notifier) != 0
    }
}

/// None for one that a later contract has added.
#[inline]
fn bit(notifier: Notifier) -> u8 {
    match notifier {
        Notifier::Runnable => 1,
        Notifier::Running => 2,
        Notifier::Stopping => 4,
        Notifier::Quiescent => 8,
        Notifier::ExitTask => 16,
        Notifier::Dequeue => 32,
        _ => 0,
    }
}
