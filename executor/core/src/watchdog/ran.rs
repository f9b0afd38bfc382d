//! How long a thread has run inside one call.
//!
//! A thread's processor clock says how long the kernel gave it a processor. It does not say that the processor ran: a
//! hypervisor may take it for milliseconds (a page that the host has to fetch is enough), the guest's kernel sees nothing of
//! that, and the clock goes on. What `/proc/stat` calls stolen covers only hypervisors that say so. So one long gap is no
//! evidence, and the clock is sampled: every [`CLOSE_NS`] while a call lasts from one look to the next, and each sample adds
//! so much at most. Before each, [`Machine::heavy_fence`] interrupts the thread: if its processor does not answer at once,
//! it was not running, and the sample counts for nothing. What is left is a gap that begins and ends between two samples. It
//! adds [`CLOSE_NS`], and a conviction takes five of them.
//!
//! Rejected: more time before the conviction, instead of samples. A gap of 20 ms would then still convict, and stuck
//! workers would be replaced later.

use crate::machine::{Machine, OsThread};
use crate::seat::SeatId;

/// Between two looks at a call that goes on; also what one sample adds at most.
pub(super) const CLOSE_NS: u64 = 2_000_000;
/// A processor that takes longer to answer does not run. It takes some 20 us to answer when it does.
const ANSWERS_WITHIN_NS: u64 = 250_000;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Ran {
    thread: Option<OsThread>,
    /// The thread's processor clock at the last sample.
    clock: Option<u64>,
    /// The machine's time of the last sample.
    at: u64,
    ns: u64,
}

impl Ran {
    /// A call that is seen for the first time.
    pub(super) fn begin<M: Machine>(machine: &M, seat: SeatId) -> Self {
        let thread = machine.thread_in(seat);
        Ran {
            thread,
            clock: clock_of(machine, thread),
            at: machine.now(),
            ns: 0,
        }
    }

    /// For how long the thread has run, as far as samples have seen it.
    pub(super) fn ns(&self) -> u64 {
        self.ns
    }

    /// Whether the clock has moved since the last sample; `false` if the machine has none.
    pub(super) fn has_moved<M: Machine>(&self, machine: &M) -> bool {
        let clock = clock_of(machine, self.thread);
        clock.is_some() && clock != self.clock
    }

    /// Samples. Whether the clock has moved; `false` if the machine has none.
    pub(super) fn sample<M: Machine>(&mut self, machine: &M) -> bool {
        let asked = clock_of(machine, self.thread);
        machine.heavy_fence();
        let answered = clock_of(machine, self.thread);
        let now = machine.now();
        let (ran, unanswered) = match (self.clock, asked, answered) {
            (Some(before), Some(asked), Some(answered)) => {
                (asked.saturating_sub(before), answered.saturating_sub(asked))
            }
            // As if it ran all the time.
            _ => (now.saturating_sub(self.at), 0),
        };
        if unanswered <= ANSWERS_WITHIN_NS {
            self.ns += ran.min(CLOSE_NS);
        }
        let moved = answered.is_some() && answered != self.clock;
        self.clock = answered;
        self.at = now;
        moved
    }
}

fn clock_of<M: Machine>(machine: &M, thread: Option<OsThread>) -> Option<u64> {
    machine.processor_time(thread?)
}
