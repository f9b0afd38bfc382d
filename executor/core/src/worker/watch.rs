//! What happens now and then: the clock, a backlog that stays, the watch that a parked worker keeps.
//!
//! **The clock** costs as much as several empty polls, so it is read every few passes. How many follows the length of
//! the polls: a long interval is cut to fit at once, a short one grows by one pass at a time.
//!
//! **The sentinel.** While some worker runs, one parked worker waits with a timeout (100 µs, doubling to 10 ms) and then
//! looks: for ingress behind a long poll, for a driver that nobody drives. The busy ones therefore need not wake
//! anybody for work that is shorter than a wake. When nothing has been polled for about a second it stops; so an idle
//! runtime does not wake up at all.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::hosting::Generation;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::worker::{Park, Worker};

/// How far apart two readings of the clock should be.
const READ_EVERY_NS: u64 = 20_000;
const MOST_PASSES: u32 = 16;
/// How long the driver may wait for its turn on a busy worker.
const DRIVE_EVERY_NS: u64 = 30_000;

const SHORTEST_WATCH_NS: u64 = 100_000;
const LONGEST_WATCH_NS: u64 = 10_000_000;
/// Watches of the longest kind in which nothing was polled, before the sentinel stops.
const QUIET_WATCHES: u32 = 100;

/// Passes with a backlog before another worker is woken for it.
const BACKLOG_PASSES: u32 = 4;

/// When to read the clock, and when to drive.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    every: u32,
    read_at: u64,
    driven_at: u64,
    backlog: u32,
}

impl Pace {
    pub(super) fn new(now: u64) -> Self {
        Pace {
            left: 1,
            every: 1,
            read_at: now,
            driven_at: now,
            backlog: 0,
        }
    }

    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    pub(super) fn driven(&mut self, now: u64) {
        self.driven_at = now;
    }

    fn read(&mut self, now: u64) {
        let passed = now.saturating_sub(self.read_at).max(1);
        self.read_at = now;
        self.every = if passed > READ_EVERY_NS {
            (u64::from(self.every) * READ_EVERY_NS / passed).max(1) as u32
        } else {
            (self.every + 1).min(MOST_PASSES)
        };
        self.left = self.every;
    }
}

/// The state of a sentinel.
#[derive(Debug)]
pub(super) struct Watch {
    next_ns: u64,
    quiet: u32,
    polls_seen: u64,
    /// The last look found a worker in one long poll.
    long_poll: bool,
    timed: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            next_ns: SHORTEST_WATCH_NS,
            quiet: 0,
            polls_seen: 0,
            long_poll: false,
            timed: false,
        }
    }
}

impl Watch {
    /// A victim has been in one poll for so long.
    pub(super) fn note_poll_age(&mut self, age_ns: u64) {
        self.long_poll |= age_ns > 0;
    }
}

impl<M: Machine> Worker<M> {
    pub(super) fn look_at_the_clock(&mut self) -> u64 {
        let now = self.core.machine.now();
        self.pace.read(now);
        if !self.searcher {
            self.core
                .sleepers
                .decline_search(self.local.seat_id.index());
        }
        self.local.now.set(now);
        // Ordering: Relaxed; a coarse stamp for other threads.
        self.core.clock.store(now, Ordering::Relaxed);
        self.seat.stats.publish(&self.stats);
        now
    }

    /// Whether the driver should have its turn now. The thread asks after each pass.
    #[inline]
    pub fn drive_due(&self) -> bool {
        self.pace.read_at.wrapping_sub(self.pace.driven_at) >= DRIVE_EVERY_NS
    }

    /// The time without reading the clock: at most a few milliseconds old while the watchdog ticks, also after a long poll.
    #[inline]
    pub(super) fn fresh_clock(&self) -> u64 {
        // Ordering: Relaxed; a coarse stamp.
        let tick = self.core.tick.load(Ordering::Relaxed);
        self.local.now.get().max(tick)
    }

    /// Wakes another worker if this one keeps finding more than it can run.
    #[inline]
    pub(super) fn share_backlog(&mut self) {
        if !self.core.sleepers.any_parked() {
            return;
        }
        let came_from_a_search = self.searcher;
        self.end_search();
        if came_from_a_search {
            // Ordering: SeqCst fence, partner of PushFence in `Sleepers::wake_unless_searching`: a push that was not told
            // to anybody because we were searching is seen by the look that follows.
            fence(Ordering::SeqCst);
        }
        if self.local.ingress.is_empty()
            && self.core.injector.is_empty()
            && self.core.global.is_empty()
        {
            self.pace.backlog = 0;
            return;
        }
        self.pace.backlog += 1;
        // With long polls (the clock is read at each pass) there is no second look: the next one may be far away. And a
        // searcher that has left something behind wakes its successor.
        if came_from_a_search || self.pace.every == 1 || self.pace.backlog >= BACKLOG_PASSES {
            self.pace.backlog = 0;
            self.stats.unparks += 1;
            self.core.notify(self.local.id);
        }
    }

    pub(super) fn prepare_park(&mut self) -> Park {
        self.stats.parks += 1;
        self.seat.stats.publish(&self.stats);
        let watch_ns = self.watch_timeout();
        self.watch.timed = watch_ns.is_some();
        Park {
            watch_ns,
            timer_ns: self.until_timer(),
        }
    }

    /// How long until the policy wants to be called.
    fn until_timer(&self) -> Option<u64> {
        let generation = self.generation.as_ref().filter(|_| !self.bypassed)?;
        let at = generation.timers.next(self.local.id)?;
        Some(at.saturating_sub(self.core.machine.now()))
    }

    /// The policy wants to be called now.
    #[cold]
    pub(super) fn ring(&mut self, generation: &Arc<Generation>) -> Verdict {
        self.end_search();
        self.stats.timers += 1;
        let verdict = self.host_call(generation).tell_time();
        self.collect_notes();
        if verdict == Verdict::Revoked {
            self.forfeit();
        }
        verdict
    }

    fn watch_timeout(&mut self) -> Option<u64> {
        let (sleepers, me) = (&self.core.sleepers, self.local.seat_id.index());
        let seats = self.core.seats_in_use();
        if seats == 1 {
            // It may be ours from a time with a stand-in, who would miss it when there is one again.
            sleepers.leave_watch(me);
            return None;
        }
        if !sleepers.become_sentinel(me) {
            return None;
        }
        let polls: u64 = self
            .core
            .seats
            .iter()
            .map(|seat| seat.activity.polls())
            .sum();
        if polls != self.watch.polls_seen || sleepers.anybody_runs(self.core.seated()) {
            self.watch.quiet = 0;
        } else if self.watch.next_ns >= LONGEST_WATCH_NS {
            self.watch.quiet += 1;
        }
        self.watch.polls_seen = polls;
        if self.watch.quiet >= QUIET_WATCHES {
            sleepers.leave_watch(me);
            // Ordering: SeqCst fence, partner of the one in `hand_over_the_watch`: either that worker sees that nobody
            // keeps watch, or we see it run and go on.
            fence(Ordering::SeqCst);
            if !sleepers.anybody_runs(self.core.seated()) {
                self.watch = Watch::default();
                return None;
            }
            self.watch.quiet = 0;
            if !sleepers.become_sentinel(me) {
                return None;
            }
        }
        if std::mem::take(&mut self.watch.long_poll) {
            self.watch.next_ns = SHORTEST_WATCH_NS;
        }
        let timeout = self.watch.next_ns;
        self.watch.next_ns = (timeout * 2).min(LONGEST_WATCH_NS);
        Some(timeout)
    }

    /// The thread is back from its park.
    pub fn unparked(&mut self, timed_out: bool) {
        self.core.sleepers.retract(self.local.seat_id.index());
        self.core.wake_the_watchdog();
        // Whoever unparked us may have made us the searcher; ending a search that was not ours is harmless.
        self.searcher = true;
        if timed_out && self.watch.timed {
            self.stats.sentinel_rounds += 1;
        } else {
            self.hand_over_the_watch();
        }
        self.look_at_the_clock();
    }

    #[inline]
    pub(super) fn is_watching(&self) -> bool {
        self.watch.timed
    }

    /// This worker goes to work: somebody else should keep watch meanwhile.
    pub(super) fn hand_over_the_watch(&mut self) {
        let sleepers = &self.core.sleepers;
        if self.watch.timed {
            self.watch = Watch::default();
            sleepers.leave_watch(self.local.seat_id.index());
        }
        // Ordering: SeqCst fence, partner of the one in `watch_timeout`. Our bit in the parked mask was cleared before.
        fence(Ordering::SeqCst);
        if !sleepers.has_sentinel() && sleepers.any_parked() {
            // It finds nothing, parks and takes the watch. Not `notify`, which does nothing while somebody searches.
            self.core.wake_somebody();
        }
    }
}
