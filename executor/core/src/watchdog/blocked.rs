//! Whether a call that is blocked waits for somebody who is kept from running.
//!
//! A callback must not block, but one that is blocked may have done nothing wrong: it waits for a lock (of its policy, of a queue,
//! of the allocator, of the kernel), and whoever holds that has no processor. On a machine with too much to do that lasts for
//! tens of milliseconds, and the holder may be any thread of the process. Nobody can say who holds what, so the rule asks for
//! an alibi from everybody:
//!
//! 1. The thread has not run since, else it has been woken, and waits for something else now.
//! 2. Each other thread of the process is blocked itself, or has run for [`LETS_GO_NS`] since. Such locks are held for
//!    microseconds, so who has run for that long has let go of what it held; and what was let go and taken again by somebody
//!    else has woken the thread, see 1. Who waits for a page that is not in memory has no alibi: it holds what it holds.
//! 3. Both for [`WINDOW_NS`], twice in a row. Whoever holds the lock may itself have come to wait for another one, which somebody
//!    took after its alibi. It must happen at the end of both windows to convict wrongly.
//!
//! So an idle machine convicts after two windows, and one with too much to do after everybody has had two turns.
//!
//! A thread's processor clock goes on while a hypervisor has its processor (`ran.rs`), so a sample adds [`CLOSE_NS`] at
//! most, and one such gap is no alibi.
//!
//! Rejected: to ask only those who work for the runtime. Control, while it sweeps, and any thread that allocates hold locks that
//! callbacks wait for, and a policy may share one with its application.

use crate::core::Core;
use crate::machine::{Machine, OsThread, ThreadState};
use crate::seat::SeatId;
use crate::watchdog::ran::CLOSE_NS;

/// How long the rule must hold, twice.
const WINDOW_NS: u64 = 10_000_000;
/// What a thread runs until it has surely let go of a lock that is not held on purpose: more than one sample can add.
const LETS_GO_NS: u64 = 3_000_000;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    /// When this window began, in alive time.
    since: u64,
    /// The rule has held for a window before this one.
    second: bool,
    others: Vec<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    thread: OsThread,
    /// Its processor clock at the last sample.
    clock: Option<u64>,
    ran_ns: u64,
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
            ran_ns: 0,
        };
        Blocked {
            since: now,
            second: false,
            others: others.into_iter().map(other).collect(),
        }
    }

    /// A tick sees it blocked again, and its thread has not run in between. Whether it is stuck.
    pub(super) fn goes_on<M: Machine>(&mut self, core: &Core<M>, seat: SeatId, now: u64) -> bool {
        for other in &mut self.others {
            other.sample(&core.machine);
        }
        if now - self.since < WINDOW_NS || self.somebody_has_no_alibi(&core.machine) {
            return false;
        }
        if self.second {
            return true;
        }
        *self = Blocked {
            second: true,
            ..Blocked::begin(core, seat, now)
        };
        false
    }

    fn somebody_has_no_alibi<M: Machine>(&self, machine: &M) -> bool {
        let mut short = self.others.iter().filter(|other| other.ran_ns < LETS_GO_NS);
        short.any(|other| {
            matches!(
                machine.thread_state(other.thread),
                Some(ThreadState::Runnable | ThreadState::PageFault)
            )
        })
    }
}

impl Other {
    fn sample<M: Machine>(&mut self, machine: &M) {
        let clock = machine.processor_time(self.thread);
        self.ran_ns += match (self.clock, clock) {
            (Some(before), Some(now)) if now >= before => (now - before).min(CLOSE_NS),
            // It has ended, perhaps with its number given to another one since; or the machine cannot tell.
            _ => LETS_GO_NS,
        };
        self.clock = clock;
    }
}
