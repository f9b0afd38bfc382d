//! How much time has passed for the process.
//!
//! SIGSTOP, a suspended laptop, a debugger, a virtual machine that was moved: the clock goes on, the process does not. What
//! has waited through that has waited for nobody's fault. The watchdog is a thread of the same process, so it is late by
//! the same amount: per tick the alive clock advances by at most twice the period, the rest is noted as lost.
//!
//! Stamps stay in the machine's time; an age is the difference less what was lost since. Rejected: stamps in alive time. Every
//! wake would then read a word that changes with each tick, and ages would be as coarse as ticks.

use std::collections::VecDeque;

/// Losses are forgotten after so long, when nothing is that old any more: far above the longest stall timeout.
const REMEMBERED_NS: u64 = 120_000_000_000;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct AliveClock {
    wall: u64,
    /// What `wall` was at the tick before.
    before: u64,
    alive: u64,
    expected: u64,
    /// (when it ended, how long it was)
    lost: VecDeque<(u64, u64)>,
    /// All of it, also what is forgotten.
    lost_ns: u64,
}

impl AliveClock {
    pub(super) fn new(wall: u64, expected: u64) -> Self {
        AliveClock {
            wall,
            before: wall,
            alive: 0,
            expected,
            lost: VecDeque::new(),
            lost_ns: 0,
        }
    }

    /// The next tick comes after so many nanoseconds.
    pub(super) fn expect(&mut self, period: u64) {
        self.expected = period;
    }

    /// After how many nanoseconds the next tick should come.
    pub(super) fn expects(&self) -> u64 {
        self.expected
    }

    /// The alive time at the last tick.
    pub(super) fn alive(&self) -> u64 {
        self.alive
    }

    /// A tick. Returns the alive time.
    pub(super) fn advance(&mut self, wall: u64) -> u64 {
        let elapsed = wall.saturating_sub(self.wall);
        let lived = elapsed.min(2 * self.expected);
        if elapsed > lived {
            self.lose(wall, elapsed - lived);
        }
        while self
            .lost
            .front()
            .is_some_and(|(ended, _)| since(*ended, wall) > REMEMBERED_NS)
        {
            self.lost.pop_front();
        }
        self.before = self.wall;
        self.wall = self.wall.max(wall);
        self.alive += lived;
        self.alive
    }

    /// All time since the last tick is lost.
    pub(super) fn rebase(&mut self, wall: u64) {
        let elapsed = wall.saturating_sub(self.wall);
        if elapsed > 0 {
            self.lose(wall, elapsed);
            self.wall = wall;
        }
    }

    /// Nothing has aged between the last two ticks.
    pub(super) fn disregard_last_tick(&mut self) {
        let (mut since, until) = (self.before, self.wall);
        // One entry for as long as this goes on.
        while let Some((ended, length)) = self.lost.back().copied()
            && ended >= since
        {
            self.lost.pop_back();
            self.lost_ns -= length;
            since = since.min(ended - length);
        }
        self.lose(until, until - since);
    }

    fn lose(&mut self, until: u64, length: u64) {
        self.lost.push_back((until, length));
        self.lost_ns += length;
    }

    /// How much time was lost so far.
    pub(super) fn lost_ns(&self) -> u64 {
        self.lost_ns
    }

    /// The machine's time of this tick.
    pub(super) fn wall(&self) -> u64 {
        self.wall
    }

    /// How old something is that was stamped in the machine's time.
    pub(super) fn age(&self, stamp: u64) -> u64 {
        let lost: u64 = self
            .lost
            .iter()
            .filter(|(ended, _)| *ended > stamp)
            // If the stamp lies within the loss, only what came after it.
            .map(|(ended, length)| (*length).min(ended - stamp))
            .sum();
        since(stamp, self.wall).saturating_sub(lost)
    }
}

fn since(stamp: u64, wall: u64) -> u64 {
    wall.saturating_sub(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stopped_process_does_not_age() {
        let mut clock = AliveClock::new(0, 5 * MS);
        clock.advance(5 * MS);
        let stamp = 6 * MS;
        clock.advance(10 * MS);
        clock.advance(3_600_000 * MS);
        assert_eq!(clock.age(stamp), 14 * MS);
        assert_eq!(clock.age(3_599_999 * MS), 0);
    }

    #[test]
    fn ticks_in_time_lose_nothing() {
        let mut clock = AliveClock::new(0, 5 * MS);
        for tick in 1..=1000 {
            clock.advance(tick * 6 * MS);
        }
        assert_eq!(clock.age(0), 6_000 * MS);
    }

    #[test]
    fn what_is_disregarded_ages_nothing_and_what_lies_between_does() {
        let mut clock = AliveClock::new(0, 5 * MS);
        clock.advance(5 * MS);
        for tick in 2..=10 {
            clock.advance(tick * 5 * MS);
            clock.disregard_last_tick();
        }
        assert_eq!(clock.age(0), 5 * MS);
        assert_eq!(clock.age(20 * MS), 0);
        clock.advance(55 * MS);
        // 35 ms late, all of which is disregarded.
        clock.advance(100 * MS);
        clock.disregard_last_tick();
        assert_eq!(clock.age(0), 10 * MS);
        assert_eq!(clock.lost.len(), 2);
    }

    #[test]
    fn many_small_delays_add_up() {
        let mut clock = AliveClock::new(0, 5 * MS);
        for tick in 1..=100 {
            assert_eq!(clock.advance(tick * 50 * MS), tick * 10 * MS);
        }
        assert_eq!(clock.age(0), 1_000 * MS);
    }
}
