//! Slices: how long a task goes on, and how it finds out that its time is up.
//!
//! **Between polls** (only for a policy that asks for slices longer than one poll, and for a task that was given one): the clock is read after each poll, and a
//! task that is still runnable, has not yielded and has time left is polled again before the policy is asked. Its stamp is
//! that of each poll, so what waits behind it on this worker is overtaken by it, as the watchdog sees it.
//!
//! **Within a poll**: the task asks. That reads the clock now and then: the first time in a poll, and then
//! as often as it takes to be right within [`ASK_EVERY_NS`]. In between it counts down. Rejected: a flag that somebody else
//! sets. The watchdog looks every 5 ms, which is coarser than most slices; a timer signal per worker costs more than it
//! tells.
//!
//! Source: `p->scx.slice` and `SCX_SLICE_INF` of sched_ext (kernel/sched/ext/ext.c), where a tick counts it down.

use std::cell::Cell;

use polity_policy::{self as policy, Accounting};

use crate::machine::Machine;
use crate::seat::Seat;
use crate::task::header::Header;
use crate::worker::Worker;

/// Where no policy has said how long.
const DEFAULT_NS: u64 = 1_000_000;
/// How old an answer may be.
const ASK_EVERY_NS: u64 = 20_000;
/// Questions between two readings of the clock, at most: 2 ns each.
const MOST_QUESTIONS: u32 = 4096;

/// The slice of the task that is being polled.
#[derive(Debug)]
pub(crate) struct Slice {
    /// In nanoseconds; `u64::MAX` is infinite.
    length: Cell<u64>,
    /// When it began, in the machine's time; 0: nobody has read the clock for it.
    began: Cell<u64>,
    /// When it was asked about first in this poll.
    asked_at: Cell<u64>,
    /// The task has yielded.
    yielded: Cell<bool>,
    /// The count of polls at the last reading of the clock: another count is another poll.
    poll: Cell<u64>,
    read_at: Cell<u64>,
    /// Questions between two readings.
    every: Cell<u32>,
    /// Questions until the next one.
    left: Cell<u32>,
}

impl Default for Slice {
    fn default() -> Self {
        Slice {
            length: Cell::new(DEFAULT_NS),
            began: Cell::new(0),
            asked_at: Cell::new(0),
            yielded: Cell::new(false),
            poll: Cell::new(0),
            read_at: Cell::new(0),
            every: Cell::new(1),
            left: Cell::new(0),
        }
    }
}

impl Slice {
    /// The task has yielded: it wants others to have a turn.
    #[inline]
    pub(super) fn note_yielded(&self) {
        self.yielded.set(true);
    }

    /// No policy says how long.
    pub(super) fn set_default(&self) {
        self.length.set(DEFAULT_NS);
        self.began.set(0);
    }

    /// Whether it is too early to read the clock for this question.
    #[inline]
    pub(super) fn counts_down(&self, seat: &Seat) -> bool {
        let left = self.left.get();
        let early = left > 0 && self.poll.get() == seat.activity.polls();
        if early {
            self.left.set(left - 1);
        }
        early
    }

    /// Whether the task that is being polled has used its slice up by `now`.
    pub(crate) fn is_over(&self, seat: &Seat, now: u64) -> bool {
        let poll = seat.activity.polls();
        let since = self.read_at.replace(now);
        let is_another_poll = self.poll.replace(poll) != poll;
        let every = if is_another_poll {
            1
        } else {
            let passed = now.saturating_sub(since).max(1);
            let fitting = u64::from(self.every.get()) * ASK_EVERY_NS / passed;
            // Fewer at once, more by and by: the next questions may be further apart.
            (fitting as u32).clamp(1, (self.every.get() * 2).min(MOST_QUESTIONS))
        };
        self.every.set(every);
        self.left.set(every - 1);
        if is_another_poll {
            self.asked_at.set(now);
        }
        let began = match self.began.get() {
            0 => self.asked_at.get(),
            began => began,
        };
        now.saturating_sub(began) >= self.length.get()
    }
}

impl<M: Machine> Worker<M> {
    /// A poll begins, in a slice whose length `running` has said, or else `enqueue`, or else the policy for all tasks.
    pub(super) fn begin_slice(
        &mut self,
        of_policy: policy::Slice,
        said: Option<policy::Slice>,
        header: &Header,
    ) {
        let slice = &self.local.slice;
        slice.yielded.set(false);
        // Taken in any case: it counts once.
        let by_insert = header.take_slice();
        let of_task = said.map(nanos).or(by_insert);
        let goes_on = std::mem::take(&mut self.goes_on);
        if !goes_on || of_task.is_some() {
            slice
                .length
                .set(of_task.unwrap_or_else(|| nanos(of_policy)));
            // Read after the poll before, at most a few tasks ago.
            slice.began.set(self.local.now.get().max(1));
        }
    }

    /// That poll is over. Whether the task has time left, should it be runnable still.
    pub(super) fn end_slice(&mut self, accounting: Accounting) -> bool {
        let now = match accounting {
            // It was read to charge for the poll.
            Accounting::Exact => self.local.now.get(),
            _ => self.read_locally(),
        };
        let slice = &self.local.slice;
        // Of each poll of the slice.
        let blocked = self.local.blocked_ns.get();
        slice.began.set(slice.began.get() + blocked);
        let (ran, length) = (now.saturating_sub(slice.began.get()), slice.length.get());
        if ran > length {
            self.stats.slice_overruns += 1;
            self.stats.slice_overrun_ns += ran - length;
        }
        ran < length && !slice.yielded.get()
    }
}

pub(crate) fn nanos(length: policy::Slice) -> u64 {
    length.get().map_or(u64::MAX, |it| it.as_nanos() as u64)
}
