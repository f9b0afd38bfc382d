//! When a policy wants to be called: one time for each worker.
//!
//! Whoever sets a time for another worker kicks it afterwards. A kick makes that worker pass through its cycle before it
//! parks, and it looks here when it computes for how long it may park; so it never sleeps past a time that was set
//! before the kick. Rejected: a wheel of many times. A policy that needs more than one keeps a heap of its own and asks for the
//! first of them, as the kernel's timers do for `bpf_timer`.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use polity_policy::WorkerId;

/// No time is set.
const NEVER: u64 = u64::MAX;

/// See the [module](self). Nanoseconds of the machine's clock.
#[derive(Debug)]
pub(crate) struct Timers {
    workers: Box<[CachePadded<AtomicU64>]>,
}

// Ordering: Relaxed; the kick that follows orders what was set before (`idle/README.md`), and a worker that reads its own
// time a pass too late is late by that pass.
impl Timers {
    pub(crate) fn new(workers: usize) -> Self {
        let never = |_| CachePadded::new(AtomicU64::new(NEVER));
        Timers {
            workers: (0..workers).map(never).collect(),
        }
    }

    /// Of several times for one worker the earliest counts.
    pub(crate) fn set(&self, worker: WorkerId, at: u64) {
        self.workers[worker.index()].fetch_min(at, Ordering::Relaxed);
    }

    /// The time that is set for `worker`.
    #[inline]
    pub(crate) fn next(&self, worker: WorkerId) -> Option<u64> {
        let at = self.workers[worker.index()].load(Ordering::Relaxed);
        (at != NEVER).then_some(at)
    }

    /// Whether that time has come; if so, it is not set any more. One of several threads that ask at once gets `true`.
    #[inline]
    pub(crate) fn take_due(&self, worker: WorkerId, now: u64) -> bool {
        let at = self.workers[worker.index()].load(Ordering::Relaxed);
        at <= now && self.take(worker, at)
    }

    #[cold]
    fn take(&self, worker: WorkerId, at: u64) -> bool {
        // An earlier time that was set meanwhile is taken at the next pass.
        self.workers[worker.index()]
            .compare_exchange(at, NEVER, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}
