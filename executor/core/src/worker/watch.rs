//! What happens now and then: the clock, a backlog that stays, the watch that a parked worker keeps.
//!
//! **The clock** costs as much as several empty polls, so it is read every few passes. How many follows the length of
//! the polls: a long interval is cut to fit at once, a short one grows by one pass at a time.
//!
//! **The sentinel.** While some worker runs, one parked worker waits with a timeout (100 µs, doubling to 10 ms) and then
//! looks: for ingress behind a long poll, for a driver that nobody drives. The busy ones therefore need not wake
//! anybody for work that is shorter than a wake. A sentinel that goes to work itself wakes another one only if its work
//! is likely to be long, or turns out to be (`idle/README.md`). When nothing has been polled for about a second it stops; so an
//! idle runtime does not wake up at all.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::core::Core;
use crate::hosting::Generation;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::worker::{Park, Worker};

/// How far apart two readings of the clock should be.
const READ_EVERY_NS: u64 = 20_000;
const MOST_PASSES: u32 = 16;
/// Polls that take longer than this on average, between two readings, are long.
pub(super) const LONG_NS: u64 = 5_000;
/// How long the driver may wait for its turn on a busy worker.
const DRIVE_EVERY_NS: u64 = 30_000;

const SHORTEST_WATCH_NS: u64 = 100_000;
const LONGEST_WATCH_NS: u64 = 10_000_000;
/// Watches of the longest kind in which nothing was polled, before the sentinel stops.
const QUIET_WATCHES: u32 = 100;

/// After a poll that took so long, somebody should keep watch over the next ones from their beginning.
const LONG_POLL_NS: u64 = 500_000;
/// For so long.
const REMEMBERED_NS: u64 = 2_000_000_000;
/// Work that has gone on for so long gets a watch in any case.
const LONG_WORK_NS: u64 = 100_000;

/// Passes with a backlog before another worker is woken for it.
const BACKLOG_PASSES: u32 = 4;

/// When to read the clock, and when to drive.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    every: u32,
    read_at: u64,
    long: bool,
    driven_at: u64,
    backlog: u32,
}

impl Pace {
    pub(super) fn new(now: u64) -> Self {
        Pace {
            left: 1,
            every: 1,
            read_at: now,
            long: false,
            driven_at: now,
            backlog: 0,
        }
    }

    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// Whether polls were long, between the last two readings.
    #[inline]
    pub(super) fn polls_are_long(&self) -> bool {
        self.long
    }

    pub(super) fn driven(&mut self, now: u64) {
        self.driven_at = now;
    }

    /// When the clock was read last, for the pace.
    #[inline]
    pub(super) fn read_at(&self) -> u64 {
        self.read_at
    }

    /// Polls have taken the time until now; that of a park says nothing about them.
    fn polled(&mut self, now: u64) {
        let passes = u64::from(self.every - self.left);
        if passes > 0 {
            self.long = now.saturating_sub(self.read_at) > passes * LONG_NS;
        }
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
    /// This worker has gone to work at this time, and nobody keeps watch, as far as it knows.
    unwatched_since: Option<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            next_ns: SHORTEST_WATCH_NS,
            quiet: 0,
            polls_seen: 0,
            long_poll: false,
            timed: false,
            unwatched_since: None,
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
        let since = self.pace.read_at;
        let now = self.core.machine.now();
        self.pace.polled(now);
        self.note_time(now);
        if now.saturating_sub(since) >= LONG_POLL_NS {
            self.core.note_long_poll(now);
        }
        now
    }

    fn note_time(&mut self, now: u64) {
        self.pace.read(now);
        self.local.polls_in_a_while.set(self.pace.every);
        if !self.searcher {
            self.core
                .sleepers
                .decline_search(self.local.seat_id.index());
        }
        self.local.now.set(now);
        // Ordering: Relaxed; a coarse stamp for other threads.
        self.core.clock.store(now, Ordering::Relaxed);
        self.seat.stats.publish(&self.stats);
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
        self.watch.unwatched_since = None;
        self.stats.parks += 1;
        self.look_at_the_clock();
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
            // Ordering: SeqCst fence, partner of the one in `call_for_a_watch`: either that worker sees that nobody
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
        self.note_time(self.core.machine.now());
        if timed_out && self.watch.timed {
            self.stats.sentinel_rounds += 1;
        } else {
            self.hand_over_the_watch();
        }
    }

    #[inline]
    pub(super) fn is_watching(&self) -> bool {
        self.watch.timed
    }

    /// This worker goes to work: somebody else should keep watch meanwhile. At once, if polls have been long of late. Else when the
    /// work has gone on for a while: most is over sooner than a thread can be woken, an answer to a message above all. If the
    /// very first poll is long, the watchdog sees that, at its second tick.
    pub(super) fn hand_over_the_watch(&mut self) {
        self.give_up_the_watch();
        let now = self.local.now.get();
        if self.core.expects_long_polls(now) {
            self.watch.unwatched_since = None;
            self.core.call_for_a_watch();
        } else {
            self.watch.unwatched_since.get_or_insert(now);
        }
    }

    fn give_up_the_watch(&mut self) {
        if self.watch.timed {
            self.watch = Watch::default();
            self.core.sleepers.leave_watch(self.local.seat_id.index());
        }
    }

    /// This thread leaves its seat, perhaps as the one that keeps watch, or that did until just now: those who are parked rely on
    /// that, and one of them may have to sit down in the driver.
    pub(super) fn leave_the_watch(&mut self) {
        let did = self.watch.unwatched_since.take().is_some();
        if self.watch.timed || did {
            self.give_up_the_watch();
            self.core.call_for_a_watch();
        }
    }

    /// The clock has just been read, between two polls.
    pub(super) fn mind_the_watch(&mut self, now: u64) {
        let long_work = |since: &mut u64| now.saturating_sub(*since) >= LONG_WORK_NS;
        if self.watch.unwatched_since.take_if(long_work).is_some() {
            self.core.call_for_a_watch();
        }
    }
}

impl<M: Machine> Core<M> {
    /// Some poll takes long.
    pub(crate) fn note_long_poll(&self, now: u64) {
        // Ordering: Relaxed; a hint.
        self.long_poll_at.store(now, Ordering::Relaxed);
    }

    /// Whether some poll has been long of late.
    fn expects_long_polls(&self, now: u64) -> bool {
        // Ordering: Relaxed; a hint.
        let last = self.long_poll_at.load(Ordering::Relaxed);
        last > 0 && now.saturating_sub(last) < REMEMBERED_NS
    }

    /// If nobody keeps watch, and somebody could: it finds nothing, parks, and takes the watch.
    pub(crate) fn call_for_a_watch(&self) {
        // Ordering: SeqCst fence, partner of the one in `watch_timeout`. The bit in the parked mask of whoever runs was cleared
        // before.
        fence(Ordering::SeqCst);
        if !self.sleepers.has_sentinel() && self.sleepers.any_parked() {
            // Not `notify`, which does nothing while somebody searches.
            self.wake_somebody();
        }
    }
}
