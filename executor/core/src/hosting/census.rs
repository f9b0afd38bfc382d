//! How many tasks a generation has, by the time at which it got them.
//!
//! The watchdog must find a task that waits too long among a million that do not. A walk over the slab for that would
//! cost tens of milliseconds each time, so time is cut into classes, and each thread counts the tasks that it hands to the
//! policy and the tasks that it takes to a poll, by class, in counters of its own: two plain additions per poll, no
//! read-modify-write. The sum over the threads says how many tasks of a class are still waiting. The slab is walked only
//! when a class that is old enough is not empty.
//!
//! Sums over counters that move are not exact for a moment. A class that seems not to be empty costs a walk for nothing; one
//! that seems empty is looked at again at the next tick. A class number comes round again after 32 classes, at least two stall
//! timeouts: a task that old shows up as a young one. The watchdog remembers such tasks itself (`watchdog/stall.rs`).

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

use crate::seat::SeatId;

const CLASSES: usize = 32;

/// The counters of one thread.
#[derive(Debug)]
struct Counts {
    entered: [AtomicU32; CLASSES],
    left: [AtomicU32; CLASSES],
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Census {
    /// A class is `1 << shift` nanoseconds long.
    shift: u32,
    seats: Box<[CachePadded<Counts>]>,
}

#[inline]
fn add(count: &AtomicU32, more: u32) {
    // Ordering: Relaxed; only the seat's thread writes, and readers want a sum, of which each part stands for itself.
    let before = count.load(Ordering::Relaxed);
    count.store(before.wrapping_add(more), Ordering::Relaxed);
}

impl Census {
    /// For a stall timeout of so many nanoseconds: it spans 8 to 16 classes.
    pub(crate) fn new(seats: usize, stall_after_ns: u64) -> Self {
        let counts = |_| {
            CachePadded::new(Counts {
                entered: [const { AtomicU32::new(0) }; CLASSES],
                left: [const { AtomicU32::new(0) }; CLASSES],
            })
        };
        Census {
            shift: (stall_after_ns / 8).max(1).ilog2(),
            seats: (0..seats).map(counts).collect(),
        }
    }

    fn class(&self, stamp: u64) -> usize {
        (stamp >> self.shift) as usize % CLASSES
    }

    /// The policy gets so many tasks with this stamp. For the thread in `seat`.
    #[inline]
    pub(crate) fn enter(&self, seat: SeatId, stamp: u64, tasks: usize) {
        add(
            &self.seats[seat.index()].entered[self.class(stamp)],
            tasks as u32,
        );
    }

    /// A task with this stamp is in the policy's hands no longer. For the thread in `seat`.
    #[inline]
    pub(crate) fn leave(&self, seat: SeatId, stamp: u64) {
        add(&self.seats[seat.index()].left[self.class(stamp)], 1);
    }

    fn waiting_in(&self, class: usize) -> u32 {
        self.seats.iter().fold(0, |sum: u32, counts| {
            // Ordering: Relaxed; see `add`.
            let entered = counts.entered[class].load(Ordering::Relaxed);
            let left = counts.left[class].load(Ordering::Relaxed);
            sum.wrapping_add(entered).wrapping_sub(left)
        })
    }

    /// How many tasks the policy has.
    pub(crate) fn waiting(&self) -> u32 {
        (0..CLASSES).fold(0, |sum: u32, class| {
            sum.wrapping_add(self.waiting_in(class))
        })
    }

    /// Whether some task seems to wait since `stamp` or longer.
    pub(crate) fn any_since(&self, stamp: u64, now: u64) -> bool {
        let (last, newest) = (stamp >> self.shift, now >> self.shift);
        let oldest = newest.saturating_sub(CLASSES as u64 - 1);
        (oldest..=last.min(newest)).any(|class| self.waiting_in(class as usize % CLASSES) != 0)
    }

    /// Whether a task with this stamp, if it waits still at `now`, has the class of a young one by then.
    pub(crate) fn forgets(&self, stamp: u64, now: u64) -> bool {
        (now >> self.shift).saturating_sub(stamp >> self.shift) >= CLASSES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: [SeatId; 2] = [SeatId::new(0), SeatId::new(1)];

    #[test]
    fn a_task_that_enters_on_one_seat_and_leaves_on_another_is_not_waiting() {
        let census = Census::new(2, 8_000);
        census.enter(SEAT[0], 5_000, 1);
        assert_eq!(census.waiting(), 1);
        census.leave(SEAT[1], 5_000);
        assert_eq!(census.waiting(), 0);
    }

    #[test]
    fn only_classes_that_are_old_enough_count() {
        let census = Census::new(1, 8_192);
        census.enter(SEAT[0], 20_000, 1);
        assert!(!census.any_since(10_000, 25_000));
        assert!(census.any_since(20_500, 29_000));
        census.leave(SEAT[0], 20_000);
        assert!(!census.any_since(20_500, 29_000));
    }

    #[test]
    fn a_class_that_comes_round_again_is_not_taken_for_an_old_one() {
        let census = Census::new(1, 8_192); // classes of 1,024 ns
        let now = 100 * 1_024;
        census.enter(SEAT[0], now, 1);
        assert!(!census.any_since(now - 8_192, now));
    }
}
