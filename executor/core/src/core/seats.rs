//! Who sits where: stand-ins, convictions, and what a convicted thread had in its hands.
//!
//! Called by the watchdog, which decides. Nothing here waits for the stuck thread, and nothing runs foreign code.
//!
//! | what is stuck | what happens |
//! |---|---|
//! | a poll | a stand-in does the worker's work beside it, and is dismissed when the poll returns |
//! | a callback | the policy is ejected, the thread convicted: what it had in its hands is taken, an *heir* gets its place for good |
//!
//! Everything that a worker holds lies in its seat or with its worker, so a stand-in needs no handing-over: it is one more
//! thief, with the worker's affinity and name.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use polity_policy::{EnqueueReason, WorkerId};

use crate::core::Core;
use crate::hosting::Generation;
use crate::machine::Machine;
use crate::seat::{Seat, SeatId};
use crate::task::custody::{Owner, State};
use crate::task::entry::Entry;
use crate::task::header::Header;
use crate::task::slab;
use crate::task::token::{Token, claim, inherit};
use crate::worker::Local;

/// Instead of whom a thread sits down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Instead {
    /// It is in this poll, by the count of its seat.
    Polling(u64),
    /// It was convicted.
    Convicted,
    /// It was convicted while it stood in for another thread, which may come back.
    ConvictedStandIn,
}

/// Why a seat is taken by a thread that is not the worker's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The worker's thread is in one long poll, from which it may come back.
    LongPoll,
    /// The worker's thread has said that it is about to block inside its poll ([`Core::begin_in_place`]).
    InPlace,
    /// The worker's thread was convicted and does not come back as a worker.
    Conviction,
}

impl<M: Machine> Core<M> {
    fn seating(&self) -> MutexGuard<'_, ()> {
        self.seating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no thread sits there nor is about to, so that `stand_in` may be called for it.
    pub fn is_vacant(&self, seat: SeatId) -> bool {
        self.seat(seat).is_vacant()
    }

    /// Whether the thread there was convicted, and has not come back.
    pub(crate) fn is_convicted(&self, seat: SeatId) -> bool {
        let call = &self.seat(seat).activity.call;
        call.in_flight()
            .is_some_and(|number| call.is_revoked(number))
    }

    /// Whether something waits that only this worker's thread would run: in `seat`, where its work is done, or on it.
    pub(crate) fn has_waiting(&self, worker: WorkerId, seat: SeatId) -> bool {
        let (placed, seat) = (self.placed(worker), self.seat(seat));
        !placed.local.is_empty()
            || !placed.inbox.is_empty()
            || !seat.ingress.is_empty()
            // Ordering: Relaxed; a sample.
            || seat.lifo.load(Ordering::Relaxed) != 0
    }

    /// Whether something waits that any worker would run.
    pub(crate) fn has_backlog(&self) -> bool {
        let queued = !self.injector.is_empty() || !self.global.is_empty();
        queued
            || self
                .published
                .load()
                .is_some_and(|generation| generation.census.waiting() > 0)
    }

    /// Prepares a vacant seat for a thread that is going to do the work of `worker`: that thread then calls
    /// [`Worker::new`](crate::Worker::new). `false`: the poll is over, and nobody is needed.
    ///
    /// **The turns.** The thread that is stuck in a poll may return and tell its policy so while the stand-in is inside the
    /// policy under the same name. So from now on both take turns. Events: *Mark* (here), *HeavyFence*; *End* (the poll's end
    /// is stored), *LightFence*, *Look* (`hosting/call.rs`). The watchdog looks at the poll again after the fence: has it
    /// ended, there is no stand-in; has it not, Look comes after the fences and sees the mark.
    pub(crate) fn stand_in(&self, seat: SeatId, worker: WorkerId, instead: Instead) -> bool {
        let _seating = self.seating();
        if instead == Instead::ConvictedStandIn {
            // The other thread takes turns already.
            self.seat(seat).activity.set_takes_turns(true);
        }
        if let Instead::Polling(poll) = instead {
            let before = &self.seat(self.seat_of(worker)).activity;
            let turned_before = before.takes_turns();
            before.set_takes_turns(true);
            self.machine.heavy_fence();
            if before.polls() != poll {
                before.set_takes_turns(turned_before);
                return false;
            }
            self.seat(seat).activity.set_takes_turns(true);
            // Ordering: Relaxed, as in `sit_down`.
            self.seated.fetch_add(1, Ordering::Relaxed);
        }
        self.seat(seat).set_counted();
        self.seat(seat).set_dismissed(false);
        self.seat(seat).set_home(worker);
        self.placed(worker).set_seat(seat);
        // Ordering: Relaxed; as in `seats_in_use`.
        self.in_use.fetch_max(seat.index() + 1, Ordering::Relaxed);
        true
    }

    /// The thread in `back` does its worker's work again; the one in `seat` leaves after its present poll.
    pub fn dismiss(&self, seat: SeatId, back: SeatId) {
        let _seating = self.seating();
        let worker = self.seat(seat).home();
        self.placed(worker).set_seat(back);
        self.seat(seat).set_dismissed(true);
        self.published.bump();
        self.kick_seat(seat);
    }

    /// The last of the stand-ins of this worker has gone: its thread need not take turns any more.
    pub fn end_turns(&self, seat: SeatId) {
        self.seat(seat).activity.set_takes_turns(false);
    }

    /// Makes a seat that was left usable again. `false`: the `Local` is still shared, and the seat is lost.
    pub fn clear_seat(&self, local: Rc<Local>) -> bool {
        let Ok(local) = Rc::try_unwrap(local) else {
            return false;
        };
        let _seating = self.seating();
        let seat = local.seat;
        seat.activity.set_takes_turns(false);
        *seat
            .unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(local.ingress);
        let last = self.seats.iter().rposition(|seat| !seat.is_vacant());
        let in_use = last.map_or(0, |last| last + 1).max(self.worker_count());
        self.in_use.store(in_use, Ordering::Relaxed);
        true
    }

    /// Takes everything from the thread in `seat`, which is inside the callback `call` of `generation` and does not return.
    /// `false`: it has returned meanwhile, and keeps all.
    ///
    /// Complexity: one look at each slot of the process.
    pub(crate) fn convict(&self, seat_id: SeatId, call: u64, generation: &Arc<Generation>) -> bool {
        let seat = self.seat(seat_id);
        let taken = seat.activity.call.revoke(
            call,
            || self.machine.heavy_fence(),
            || self.in_hands_of(seat_id, seat, generation),
        );
        let Some(taken) = taken else {
            return false;
        };
        let worker = seat.home();
        // It will not do that itself any more.
        self.placed(worker).end_turn(seat_id);
        // It may have been about to park, or have been the sentinel.
        self.sleepers.retract(seat_id.index());
        self.sleepers.leave_watch(seat_id.index());
        self.sleepers.decline_search(seat_id.index());
        let mut entries = Vec::new();
        for slot in [&seat.prev, &seat.lifo] {
            // Ordering: Acquire pairs with the Release of the thread that filled it.
            entries.extend(Entry::from_bits(slot.swap(0, Ordering::Acquire)));
        }
        entries.extend(std::iter::from_fn(|| seat.ingress.steal()));
        for token in taken {
            token.header().set_reason(EnqueueReason::Inherited);
            if token.header().is_restricted() {
                self.push_inbox(token);
            } else {
                self.inject(token);
            }
        }
        self.injector.extend_in_order(entries);
        self.sweep(generation);
        self.kick_all();
        true
    }

    /// The tasks whose tokens the convicted thread had: offered, claimed, or about to be polled.
    fn in_hands_of(&self, seat_id: SeatId, seat: &Seat, generation: &Generation) -> Vec<Token> {
        let (tag, index) = (generation.tag, seat_id.index() as u16);
        let polled = seat.activity.task().and_then(|task| inherit(task, index));
        // Only those of its own batch: other threads are offering too.
        let offered = seat.offered().filter_map(slab::get).filter_map(|header| {
            self.take_while(header, |seen| {
                seen.state() == State::Offered && seen.tag() == tag
            })
        });
        let claimed = slab::all()
            .filter_map(|header| self.take_while(header, |seen| seen.is_in_hand_of(tag, index)));
        polled.into_iter().chain(offered).chain(claimed).collect()
    }

    /// Takes a task for as long as its custody word says what is asked: an early claim may still change it.
    fn take_while(&self, header: &'static Header, is: impl Fn(Owner) -> bool) -> Option<Token> {
        loop {
            let seen = header.custody.load();
            if !is(seen) || !self.owns(header) {
                return None;
            }
            if let Some(token) = claim(header, seen) {
                return Some(token);
            }
        }
    }
}
