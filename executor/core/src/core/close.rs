//! The end of a runtime: every task is dropped, on a worker, exactly once.
//!
//! Workers leave their seats first; the last one to leave runs [`Core::drop_all`]. A task that waits is won by the mark
//! "aborted"; one that a policy holds is claimed; any other has its token in a queue, which is drained, or in the hands of
//! a thread that is about to push it, for which we wait: such a thread runs no foreign code in between.

use std::sync::atomic::Ordering;

use polity_policy::ExitKind;

use crate::core::{CLOSING, Core, OPEN, OVER};
use crate::machine::Machine;
use crate::seat::Seat;
use crate::task::custody::State;
use crate::task::entry::Entry;
use crate::task::slab;
use crate::task::token::{Token, abort, claim};
use crate::worker::Local;

impl<M: Machine> Core<M> {
    /// Begins the shutdown: no task is spawned any more, the policy is unloaded, and each worker's next pass answers
    /// [`Pass::Stop`](crate::Pass::Stop). Returns at once.
    pub fn close(&self) {
        // Ordering: AcqRel; Release pairs with the Acquire in `is_open`.
        if self
            .phase
            .compare_exchange(OPEN, CLOSING, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        self.injector.close();
        self.placed.iter().for_each(|placed| placed.inbox.close());
        self.unload(ExitKind::Shutdown, "");
        // Workers look at the phase when the epoch changes.
        self.published.bump();
        self.kick_all();
    }

    /// A thread takes this seat.
    pub(crate) fn sit_down(&self, seat: &Seat) {
        if !seat.take_counted() {
            // Ordering: Relaxed; counted down with AcqRel.
            self.seated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A convicted thread leaves no gap. `false`: it was the last one, so it must have an heir, who ends the runtime.
    pub(crate) fn give_place_up(&self) -> bool {
        // Ordering: AcqRel, as in `stand_up`.
        let one_less = |seated: usize| (seated > 1).then(|| seated - 1);
        self.seated
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less)
            .is_ok()
    }

    /// A worker has left its seat, having put back what it held. `true`: it was the last one.
    pub(crate) fn stand_up(&self) -> bool {
        // Ordering: AcqRel: the last one comes after all that the others did.
        self.seated.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Drops every task. For the last worker, with its thread's contexts still entered.
    pub(crate) fn drop_all(&self, local: &Local) {
        loop {
            let mut alive = 0;
            for header in slab::all() {
                let Some(tenant) = header.lifecycle.tenant() else {
                    continue;
                };
                if !self.owns(header) {
                    continue;
                }
                alive += 1;
                if let Ok(token) = abort(header, tenant) {
                    self.drop_one(local, token);
                    continue;
                }
                let seen = header.custody.load();
                // Asked after the custody word was read: had it been the next tenant's, this would say so.
                if matches!(seen.state(), State::Held | State::Queued)
                    && header.lifecycle.is(tenant)
                    && let Some(token) = claim(header, seen)
                {
                    self.drop_one(local, token);
                }
            }
            while let Some(entry) = self.drain_one(local) {
                self.drop_one(local, entry.redeem());
            }
            if alive == 0 {
                break;
            }
            std::hint::spin_loop();
        }
        // Ordering: Release pairs with the Acquire in `is_over`.
        self.phase.store(OVER, Ordering::Release);
    }

    /// Whether the shutdown is complete: all workers have left, and every task is dropped.
    pub fn is_over(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `drop_all`: the drops come first.
        self.phase.load(Ordering::Acquire) == OVER
    }

    fn drop_one(&self, local: &Local, token: Token) {
        // Foreign drops run here; what they wake or spawn comes back through `drain_one` or is refused.
        local.seat.activity.set_task(Some(token.header().id()));
        let slot = token.cancel();
        local.seat.activity.set_task(None);
        local.slots.borrow_mut().give(slot);
    }

    fn drain_one(&self, local: &Local) -> Option<Entry> {
        if let Some(entry) = local
            .ingress
            .pop()
            .or_else(|| self.injector.pop())
            .or_else(|| self.global.pop())
        {
            return Some(entry);
        }
        let placed = self.placed.iter();
        if let Some(entry) = { placed }.find_map(|on| on.local.pop().or_else(|| on.inbox.pop())) {
            return Some(entry);
        }
        self.seats.iter().find_map(|seat| {
            // Ordering: Acquire pairs with the Release of the worker that put the entry there.
            let held = [&seat.lifo, &seat.prev];
            held.iter()
                .find_map(|slot| Entry::from_bits(slot.swap(0, Ordering::Acquire)))
                .or_else(|| seat.ingress.steal())
        })
    }
}
