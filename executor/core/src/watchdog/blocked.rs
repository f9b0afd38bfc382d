//! Whether a call that is blocked waits for somebody who is kept from running.
//!
//! A callback must not block, but one that is blocked may have done nothing wrong: it waits for a lock (of its policy, of a queue,
//! of the allocator, of the kernel), and whoever holds that has no processor. On a machine with too much to do that lasts for
//! tens of milliseconds, and the holder may be any thread of the process. Nobody can say who holds what, so the rule asks for
//! an alibi from everybody:
//!
//! 1. The thread has not run since, else it has been woken, and waits for something else now.
//! 2. Each other thread of the process is blocked itself, or has run since. Such locks are held for microseconds, so who has run has
//!    let go of what it held; and what was let go and taken again by somebody else has woken the thread, see 1. Who waits for a
//!    page that is not in memory has not run.
//! 3. Both for [`WINDOW_NS`], twice in a row: a short run is a weak alibi. It may have ended before the lock was let go, as when it
//!    was almost over when the window began; it may have been no run, since a thread's processor clock goes on while a
//!    hypervisor has the processor (`ran.rs`); or it led to a wait for another lock, which somebody took after *his* alibi. Each of
//!    these has to happen twice, at the right moments, to convict wrongly.
//! 4. After [`PATIENCE_NS`] without a run nobody is asked any more: a thread of the idle class, or one that a debugger holds, may
//!    not run for as long as it likes.
//!
//! So an idle machine convicts after two windows, and one with too much to do after everybody has had two turns.
//!
//! Rejected: so much time on a processor, or three turns, instead of a run. On a machine with eight busy threads to each processor
//! that took seconds, and longer for threads that yield their turn at once, as workers do that wait for another one inside the
//! policy.
//!
//! Rejected: to ask only those who work for the runtime. Control, while it sweeps, and any thread that allocates hold locks that
//! callbacks wait for, and a policy may share one with its application.

use crate::core::Core;
use crate::machine::{Machine, OsThread, ThreadState};
use crate::seat::SeatId;

/// How long the rule must hold, twice.
const WINDOW_NS: u64 = 10_000_000;
/// For how long a blocked call is given the benefit of the doubt.
const PATIENCE_NS: u64 = 2_000_000_000;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    /// When it was first seen so, in alive time.
    since: u64,
    /// When this window began.
    window: u64,
    /// The rule has held for a window before this one.
    second: bool,
    others: Vec<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    thread: OsThread,
    /// Its processor clock when this window began.
    clock: Option<u64>,
}

impl Blocked {
    /// The call of the thread in `seat` is seen blocked for the first time.
    pub(super) fn begin<M: Machine>(core: &Core<M>, seat: SeatId, now: u64) -> Self {
        let itself = core.machine.thread_in(seat);
        // What the convicted hold is not waited for: it would not come back.
        let convicted = (0..core.seats_in_use())
            .map(|index| SeatId::new(index as u16))
            .filter(|seat| core.is_convicted(*seat))
            .filter_map(|seat| core.machine.thread_in(seat));
        let left_out: Vec<_> = itself.into_iter().chain(convicted).collect();
        let mut others = core.machine.threads();
        others.retain(|thread| !left_out.contains(thread));
        let other = |thread| Other {
            thread,
            clock: core.machine.processor_time(thread),
        };
        Blocked {
            since: now,
            window: now,
            second: false,
            others: others.into_iter().map(other).collect(),
        }
    }

    /// A tick sees it blocked again, and its thread has not run in between. Whether it is stuck.
    pub(super) fn goes_on<M: Machine>(&mut self, core: &Core<M>, seat: SeatId, now: u64) -> bool {
        if now - self.since >= PATIENCE_NS {
            return true;
        }
        let has_alibi = |other: &Other| other.has_alibi(&core.machine);
        if now - self.window < WINDOW_NS || !self.others.iter().all(has_alibi) {
            return false;
        }
        if self.second {
            return true;
        }
        *self = Blocked {
            since: self.since,
            second: true,
            ..Blocked::begin(core, seat, now)
        };
        false
    }
}

impl Other {
    /// Also if it has ended, or the machine cannot tell.
    fn has_alibi<M: Machine>(&self, machine: &M) -> bool {
        let clock = machine.processor_time(self.thread);
        clock.is_none()
            || clock != self.clock
            || !matches!(
                machine.thread_state(self.thread),
                Some(ThreadState::Runnable | ThreadState::PageFault)
            )
    }
}
