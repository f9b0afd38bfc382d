//! When the LIFO slot comes before the queue.
//!
//! What a task wakes or spawns runs next, on data that is in the cache. But a chain of tasks, each of which wakes the next one,
//! would keep the queue waiting for ever. So the slot has a turn of a few polls, then the queue has one. With short polls it is
//! over after one poll, which is cheap, and not worth a reading of the clock. With long polls there is no cache to be kept
//! warm, the slot's turn is one poll, and *time* is shared: when the slot has had 10 µs while somebody waited, the queue
//! has 10 µs, however many polls those are. Go limits its `runnext` by time, too (there a pair of goroutines
//! inherits one time slice); tokio counts three polls, whatever they take.
//!
//! Rejected: to push to the tail of the queue instead when polls are long. A pair of tasks that send to each other among tasks that
//! compute would wait for all of those each time; so it waits for one.

use crate::machine::Machine;
use crate::task::token::Token;
use crate::worker::watch::LONG_NS;
use crate::worker::{Worker, local};

/// Polls from the slot in a row while polls are short.
const TURN: u8 = 3;
/// The queue gets back no more than that for one poll from the slot: after a very long one it has waited long enough, and the
/// tasks that wake each other have waited, too.
const MOST_OWED_NS: u64 = 200_000;
/// A long poll from the slot says, whatever those from the queue are, that the slot's polls are long; for so many times its
/// length: enough for the queue to have its time, and for the next poll from the slot.
const REMEMBERED: u64 = 4;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Lifo {
    /// Polls from the slot that are left before the queue has its turn.
    left: u8,
    /// When the poll from the slot began that the queue is to be paid for.
    began: Option<u64>,
    /// Until when the queue is owed its time.
    owed_until: u64,
    /// Until when the slot's polls count as long.
    long_until: u64,
}

impl Lifo {
    pub(super) fn new(now: u64) -> Self {
        Lifo {
            left: TURN,
            began: None,
            owed_until: now,
            long_until: now,
        }
    }
}

impl<M: Machine> Worker<M> {
    /// What lies in the slot, if it is the slot's turn.
    #[inline]
    pub(super) fn take_lifo_in_turn(&mut self) -> Option<Token> {
        if self.lifo.left == 0 {
            return None;
        }
        let entry = local::take(&self.seat.lifo)?;
        self.lifo.left -= 1;
        if self.shares_time() {
            self.begin_to_owe();
        }
        Some(entry.redeem())
    }

    /// It is not the slot's turn, or it was empty: the queue has one.
    #[inline]
    pub(super) fn renew_lifo(&mut self) {
        if self.lifo.began.is_some() || self.shares_time() {
            self.renew_lifo_by_time();
        } else {
            self.lifo.left = TURN;
        }
    }

    /// Whether slot and queue share time, and not polls.
    #[inline]
    pub(super) fn shares_time(&self) -> bool {
        self.pace.polls_are_long() || self.local.now.get() < self.lifo.long_until
    }

    #[cold]
    fn begin_to_owe(&mut self) {
        self.lifo.left = 0;
        if !self.local.ingress.is_empty() || !self.core.injector.is_empty() {
            self.lifo.began = Some(self.read_locally());
        }
    }

    #[cold]
    fn renew_lifo_by_time(&mut self) {
        if let Some(began) = self.lifo.began.take() {
            let now = self.read_locally();
            let owed = now.saturating_sub(began).min(MOST_OWED_NS);
            self.lifo.owed_until = now + owed;
            if owed >= LONG_NS {
                self.lifo.long_until = now + REMEMBERED * owed;
            }
        }
        self.lifo.left = u8::from(self.local.now.get() >= self.lifo.owed_until);
    }
}
