//! The watchdog: who waits too long, who is stuck, and whose fault it is.
//!
//! Not a thread: a thread, or a simulation, calls [`Watchdog::tick`] and waits for as long as it says. It runs no foreign
//! code, takes no lock that foreign code may hold, and asks nothing of the threads that it watches: they write plain words
//! (`seat/places.rs`, `hosting/census.rs`), it compares them from tick to tick. What it finds out it does itself where core
//! can (ejections, convictions), and reports where a thread is needed.
//!
//! | file | what it decides |
//! |---|---|
//! | `alive.rs` | how much time has passed for the process, as opposed to the world |
//! | `threads.rs` | what each thread is in, since when; hogs and stuck callbacks |
//! | `ran.rs` | how long a thread has run inside one call, whatever a hypervisor does |
//! | `blocked.rs` | whether a call that is blocked waits for somebody who is kept from running |
//! | `stand_ins.rs` | which worker needs a second thread, and when it does not any more |
//! | `stall.rs` | whether a late task is the policy's fault |
//!
//! **Time.** A tick is 5 ms after the last one while anything runs or waits, 10 ms while nothing does, and after a second of
//! that the watchdog sleeps until somebody leaves a park. While a call that it saw goes on, it looks at that alone every 2 ms
//! between.

mod alive;
mod blocked;
mod ran;
mod stall;
mod stand_ins;
mod threads;

use std::panic::Location;
use std::sync::atomic::{Ordering, fence};

use polity_policy::{TaskId, WorkerId};

use crate::core::{Cause, Core, Instead};
use crate::machine::Machine;
use crate::seat::SeatId;
use crate::stats::Metrics;
use alive::AliveClock;
use ran::CLOSE_NS;
use stall::Recollection;
use stand_ins::StandIns;
use threads::Threads;

/// Between two ticks while something runs or waits.
pub(crate) const PERIOD_NS: u64 = 5_000_000;
/// The same while nothing does.
const IDLE_PERIOD_NS: u64 = 10_000_000;
/// Idle ticks before it sleeps.
const IDLE_TICKS: u32 = 100;

/// When to call [`Watchdog::tick`] again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// After so many nanoseconds.
    After(u64),
    /// When [`Machine::work_began`] is called.
    WhenWorkBegins,
}

/// A poll that takes long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hog {
    /// On which worker.
    pub worker: WorkerId,
    /// Which task.
    pub task: TaskId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where it was spawned.
    pub spawned_at: Option<&'static Location<'static>>,
    /// For how long the poll has gone on, in nanoseconds.
    pub for_ns: u64,
    /// For how much of that its thread was on a processor, as far as the machine can tell.
    pub ran_ns: u64,
}

/// What the caller of [`Watchdog::tick`] should see to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// One poll takes longer than the threshold: to be reported. Found once for each such poll.
    Hog(Hog),
    /// A callback does not return. Its policy has been ejected and its thread convicted: it is not a worker any more.
    Stuck {
        /// Where the thread sits.
        seat: SeatId,
        /// Whose work it did.
        worker: WorkerId,
    },
    /// The work of this worker is to be done by another thread: find a vacant seat and a thread for it, call
    /// [`Watchdog::seat`], and start the thread. Found again at the next tick if that was not possible.
    NeedsStandIn {
        /// Whose work it is.
        worker: WorkerId,
        /// Why.
        cause: Cause,
        /// Whether any thread of the runtime still gets ahead.
        others: Others,
    },
}

/// What the rest of the runtime does while a thread is stuck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// Some thread runs tasks, or is parked.
    Run,
    /// All are stuck: without another thread nothing happens any more, I/O included.
    AreStuckToo,
}

/// Finds who waits too long and who is stuck, from tick to tick. One for each core; not to be ticked by two threads at once.
pub struct Watchdog<M: Machine> {
    core: &'static Core<M>,
    hog_after_ns: u64,
    clock: AliveClock,
    threads: Threads,
    stand_ins: StandIns,
    idle_ticks: u32,
    /// A call goes on, so there are closer looks until then, when the next tick is due: in the machine's time.
    closer_until: Option<u64>,
    /// The last look was such a one.
    looked_closer: bool,
    recollection: Option<Recollection>,
    /// In alive time.
    late_tick_at: Option<u64>,
    /// Time that was lost up to the last look at all tasks.
    lost_ns: u64,
    counts: Metrics,
    exhausted: bool,
}

impl<M: Machine> Watchdog<M> {
    /// Watches `core`; polls that take longer than `hog_after_ns` are found.
    pub fn new(core: &'static Core<M>, hog_after_ns: u64) -> Self {
        Watchdog {
            core,
            hog_after_ns,
            clock: AliveClock::new(core.machine.now(), PERIOD_NS),
            threads: Threads::new(core.seats.len()),
            stand_ins: StandIns::new(core.worker_count()),
            idle_ticks: 0,
            closer_until: None,
            looked_closer: false,
            recollection: None,
            late_tick_at: None,
            lost_ns: 0,
            counts: Metrics::default(),
            exhausted: false,
        }
    }

    /// Looks at everything once.
    ///
    /// Complexity: some words for each seat; one look at each slot of the process if a task seems to be late.
    pub fn tick(&mut self) -> (Vec<Finding>, Next) {
        let core = self.core;
        let closer = self.look_closer();
        self.looked_closer = closer.is_some();
        if let Some(next) = closer {
            return (Vec::new(), next);
        }
        let was_busy = self.clock.expects() == PERIOD_NS;
        let before = self.clock.alive();
        let now = self.clock.advance(core.machine.now());
        self.note_tick(now, now - before, was_busy);
        // Ordering: Relaxed; a coarse stamp.
        core.tick.store(self.clock.wall(), Ordering::Relaxed);
        core.clock.fetch_max(self.clock.wall(), Ordering::Relaxed);
        let mut findings = Vec::new();
        self.threads.look(core, now);
        self.threads
            .find_hogs(core, self.hog_after_ns, &mut findings);
        for (seat, worker) in self.threads.convict_stuck(core) {
            self.stand_ins.convicted(core, worker, seat);
            findings.push(Finding::Stuck { seat, worker });
        }
        self.stand_ins.dismiss(core, &self.threads);
        self.stand_ins
            .find_needs(core, &self.threads, &mut findings);
        if self.threads.any_poll_goes_on() {
            core.note_long_poll(self.clock.wall());
            core.call_for_a_watch();
        }
        self.judge_policy(now);
        self.count(&findings);
        let next = self.next();
        (findings, next)
    }

    /// Between two ticks, at calls that go on. `None`: it is time for a tick, or one of them may be stuck.
    fn look_closer(&mut self) -> Option<Next> {
        let due = self.closer_until?;
        if self.core.machine.now() >= due || self.threads.look_closer(self.core) {
            return None;
        }
        // Also if this look has taken long, the tick is due when it was due.
        let left = due.checked_sub(self.core.machine.now());
        let left = left.filter(|left| *left > 0)?;
        let again = if self.threads.any_call_goes_on(self.core) {
            left.min(CLOSE_NS)
        } else {
            left
        };
        Some(Next::After(again))
    }

    /// After a tick, if the next one is due after so many nanoseconds.
    fn look_again_within(&mut self, due: u64) -> Next {
        if !self.threads.any_call_goes_on(self.core) {
            self.closer_until = None;
            return Next::After(due);
        }
        self.closer_until = Some(self.core.machine.now() + due);
        Next::After(due.min(CLOSE_NS))
    }

    /// The process was stopped until now: the time since the last tick counts for nobody.
    pub fn rebase(&mut self) {
        self.clock.rebase(self.core.machine.now());
    }

    /// A thread is going to sit down in `seat`, which is vacant, to do the work of `worker`. `false`: the poll for which it was
    /// needed is over.
    #[must_use]
    pub fn seat(&mut self, seat: SeatId, worker: WorkerId, cause: Cause) -> bool {
        let instead = match cause {
            Cause::LongPoll => Instead::Polling(self.threads.polls(self.core.seat_of(worker))),
            // Of its own accord, so perhaps in a poll that no tick has seen.
            Cause::InPlace => {
                let seat = self.core.seat(self.core.seat_of(worker));
                Instead::Polling(seat.activity.polls())
            }
            Cause::Conviction if self.stand_ins.is_alone(worker) => Instead::Convicted,
            Cause::Conviction => Instead::ConvictedStandIn,
        };
        if !self.core.stand_in(seat, worker, instead) {
            return false;
        }
        self.counts.stand_ins += u64::from(cause != Cause::Conviction);
        self.core.watched.publish(&self.counts);
        self.stand_ins.seated(worker, seat);
        self.threads.forget(seat);
        true
    }

    /// Whose work the thread in `seat` does. `None`: another one does it already, so nobody is needed when this one blocks.
    pub fn serves(&self, seat: SeatId) -> Option<WorkerId> {
        let worker = self.core.seat(seat).home();
        self.stand_ins.serves(worker, seat).then_some(worker)
    }

    /// Whether a spare was needed at this tick, and there was none. Counted once for as long as this lasts; `true` says that
    /// it begins.
    pub fn note_exhausted(&mut self, exhausted: bool) -> bool {
        if self.looked_closer {
            // It has not looked who needs one.
            return false;
        }
        let begins = exhausted && !self.exhausted;
        self.counts.spares_exhausted += u64::from(begins);
        self.exhausted = exhausted;
        begins
    }

    fn count(&mut self, findings: &[Finding]) {
        for finding in findings {
            match finding {
                Finding::Hog(_) => self.counts.hogs += 1,
                Finding::Stuck { .. } => self.counts.convictions += 1,
                Finding::NeedsStandIn { .. } => {}
            }
        }
        self.core.watched.publish(&self.counts);
    }

    fn next(&mut self) -> Next {
        if !self.is_idle() {
            self.idle_ticks = 0;
            self.clock.expect(PERIOD_NS);
            return self.look_again_within(PERIOD_NS);
        }
        self.closer_until = None;
        self.idle_ticks += 1;
        self.clock.expect(IDLE_PERIOD_NS);
        if self.idle_ticks < IDLE_TICKS {
            return Next::After(IDLE_PERIOD_NS);
        }
        self.idle_ticks = 0;
        self.fall_asleep()
    }

    fn fall_asleep(&mut self) -> Next {
        // Ordering: Relaxed; ordered by the fence.
        self.core.watchdog_sleeps.store(true, Ordering::Relaxed);
        // Ordering: SeqCst fence, partner of the one in `Core::wake_the_watchdog`.
        fence(Ordering::SeqCst);
        if self.is_idle() {
            return Next::WhenWorkBegins;
        }
        self.core.watchdog_sleeps.store(false, Ordering::Relaxed);
        Next::After(PERIOD_NS)
    }

    /// Nothing runs (a last look before a park may be inside the policy), nothing waits in a policy's hands, and nobody is owed
    /// a thread.
    fn is_idle(&self) -> bool {
        let core = self.core;
        let taken = (0..core.seats_in_use()).map(|index| SeatId::new(index as u16));
        let mut taken = taken.filter(|seat| !core.is_vacant(*seat) && !core.is_convicted(*seat));
        let is_parked = |seat: SeatId| {
            core.sleepers.is_parked(seat.index())
                && core.seat(seat).activity.call.in_flight().is_none()
        };
        taken.all(is_parked)
            && self.stand_ins.is_quiet()
            && core
                .published
                .load()
                .is_none_or(|generation| generation.census.waiting() == 0)
    }
}

impl<M: Machine> std::fmt::Debug for Watchdog<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
