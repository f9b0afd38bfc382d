//! Letting go of calls that do not return by themselves.
//!
//! Called by whichever thread is in a callback (a worker, or the disposable thread of `init` and `exit`), which may
//! then stay for good, and by a thread outside that opens the gate. Opening is final: a policy that was released is a
//! working one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Lets the stuck calls of a [`Faulty`](crate::Faulty) return, so that their threads do not pile up; made by
/// [`Faulty::release_handle`](crate::Faulty::release_handle).
///
/// **Dropping the last handle releases too**, so that a test that fails does not leave its threads behind. A policy
/// of which no handle was ever made is never released.
///
/// ```
/// use polity_policies::{Callback, Fault, Faulty};
/// use polity_policy::{Policy, fake::FakeHost};
///
/// let policy = Faulty::new(Fault::Block { callback: Callback::Enqueue, call: 1 });
/// let release = policy.release_handle();
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let fake = FakeHost::new(1);
///         policy.init(&fake.host()).unwrap();
///         policy.enqueue(&fake.host(), &fake.task(1).view()); // returns when released
///     });
///     while release.stuck() == 0 {
///         std::thread::yield_now();
///     }
///     release.release();
/// });
/// assert_eq!(release.stuck(), 0);
/// ```
#[derive(Debug)]
#[must_use = "a handle that is dropped releases"]
pub struct Release(Arc<Gate>);

impl Release {
    pub(super) fn of(gate: &Arc<Gate>) -> Self {
        // Ordering: Relaxed. A count; the last to go is told by the read-modify-write itself.
        gate.handles.fetch_add(1, Relaxed);
        Release(Arc::clone(gate))
    }

    /// Lets every stuck call return. Later calls return at once, and tasks that were kept from running are inserted
    /// by the next `dispatch`: from here on the policy is a [`Priority`](crate::Priority).
    ///
    /// ```
    /// use polity_policies::{Callback, Fault, Faulty};
    /// use polity_policy::{Policy, WorkerId, fake::FakeHost};
    ///
    /// let policy = Faulty::new(Fault::NeverReturn { callback: Callback::Dispatch, call: 1 });
    /// policy.release_handle().release();
    /// let fake = FakeHost::new(1);
    /// policy.init(&fake.host()).unwrap();
    /// policy.dispatch(&fake.host(), WorkerId::new(0), None); // returns
    /// ```
    pub fn release(&self) {
        self.0.open();
    }

    /// How many calls are stuck at the moment, each with a thread of its own.
    ///
    /// ```
    /// use polity_policies::{Fault, Faulty};
    /// assert_eq!(Faulty::new(Fault::Starve { weight: 1 }).release_handle().stuck(), 0);
    /// ```
    pub fn stuck(&self) -> usize {
        // Ordering: Relaxed. For people and tests that ask again; nothing else is read because of it.
        self.0.inside.load(Relaxed)
    }
}

impl Clone for Release {
    fn clone(&self) -> Self {
        Release::of(&self.0)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // Ordering: Relaxed, as in `of`.
        if self.0.handles.fetch_sub(1, Relaxed) == 1 {
            self.0.open();
        }
    }
}

/// How a call waits at the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiting {
    /// Burning its core.
    Spinning,
    /// Asleep in the kernel.
    Blocked,
}

/// Closed, then open.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: AtomicBool,
    inside: AtomicUsize,
    handles: AtomicUsize,
    asleep: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        // Ordering: Relaxed. Nothing is published by opening; whoever has not seen it yet is stuck a little longer.
        self.open.load(Relaxed)
    }

    /// Returns when the gate is open.
    pub(super) fn pass(&self, waiting: Waiting) {
        if self.is_open() {
            return;
        }
        // Ordering: Relaxed, as in `Release::stuck`.
        self.inside.fetch_add(1, Relaxed);
        match waiting {
            Waiting::Spinning => {
                while !self.is_open() {
                    std::hint::spin_loop();
                }
            }
            Waiting::Blocked => {
                let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
                let woken = self.opened.wait_while(asleep, |()| !self.is_open());
                drop(woken);
            }
        }
        self.inside.fetch_sub(1, Relaxed);
    }

    fn open(&self) {
        // Ordering: Relaxed, as in `is_open`. For the sleepers the lock orders it: whoever found the gate closed holds
        // it until asleep, so the notification does not come between that look and that sleep.
        self.open.store(true, Relaxed);
        let _asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened.notify_all();
    }
}
