//! Tasks that a policy takes out of its custody: by their id, or from a custom DSQ.
//!
//! Anybody may be faster: a dispatch on another worker, an abort, a sweep, or whoever has convicted this thread. So a claim is one
//! compare-and-swap of the custody word, after checks that hold for the word that was read (`task/custody.rs`); one that is
//! lost is counted, and answered with `false`. What is claimed for a custom DSQ is there at once; what goes to a local or the global
//! one gets there when the callback has returned.

use polity_policy::{DequeueReason, DsqId, EnqueueReason, Optional, Position, TaskId, TaskView};

use crate::hosting::batch::{Claimed, Departed};
use crate::hosting::host::HostCall;
use crate::machine::Machine;
use crate::queue::Rank;
use crate::task::custody::{Owner, State};
use crate::task::header::Header;
use crate::task::slab;
use crate::task::token::{Resting, Token, claim, claim_in_hand, requeue_held};

impl<M: Machine> HostCall<'_, M> {
    /// Whether somebody else has taken what this call has in its hands. Asked after a claim, and ordered by it.
    pub(super) fn is_revoked(&self) -> bool {
        self.core.machine.light_fence();
        let call = &self.local.seat.activity.call;
        call.in_flight()
            .is_some_and(|number| call.is_revoked(number))
    }

    /// Claims a task that the policy holds as an id.
    pub(super) fn claim(&self, task: TaskId, dsq: DsqId, rank: Rank) -> bool {
        if self.generation.has_ended() {
            self.count_stale_claim();
            return false;
        }
        self.notes.progress.set(true);
        if !self.check_dsq(task, dsq, rank) {
            return false;
        }
        let claimed = match slab::get(task.slot()) {
            Some(header) => self.claim_header(header, task.tenant(), dsq, rank),
            None => false,
        };
        if !claimed {
            self.count_stale_claim();
        }
        claimed
    }

    fn count_stale_claim(&self) {
        let count = &self.notes.stale_claims;
        count.set(count.get() + 1);
    }

    /// Gives a claim back that was made after the call had been revoked.
    pub(super) fn give_back(&self, header: &'static Header) {
        let seen = header.custody.load();
        let tag = self.generation.tag;
        let still = seen.is_in_hand_of(tag, self.seat()) || seen.is_kept_by(tag);
        if still
            && self.core.owns(header)
            && let Some(token) = claim(header, seen)
        {
            token.header().set_reason(EnqueueReason::Inherited);
            self.core.inject(token);
        }
    }

    pub(super) fn seat(&self) -> u16 {
        self.local.seat_id.index() as u16
    }

    fn claim_header(&self, header: &'static Header, tenant: u32, dsq: DsqId, rank: Rank) -> bool {
        let tag = self.generation.tag;
        let dsq = match dsq {
            DsqId::Local => DsqId::LocalOn(self.local.id),
            dsq => dsq,
        };
        let mut seen = header.custody.load();
        // The tag is not unique to this runtime, so the task must be this runtime's too. And the slot must still be that
        // task's: asked after the custody word was read, had that been the next tenant's, this would say so.
        if seen.tag() != tag || !self.core.owns(header) || !header.lifecycle.is(tenant) {
            return false;
        }
        if seen.state() == State::Offered {
            // Another worker is still inside the `enqueue` of this task.
            if self.claim_early(header, seen, dsq, rank) {
                return true;
            }
            // Or it has just left it: then the task is held now.
            seen = header.custody.load();
        }
        if seen.tag() != tag || seen.state() != State::Held || !header.lifecycle.is(tenant) {
            return false;
        }
        if let DsqId::Custom(number) = dsq {
            let Some(queue) = self.generation.dsqs.get(number) else {
                return false;
            };
            let mut claimed = false;
            // A DSQ destroyed since the check refuses: then the claim is not made, and the task stays held.
            queue.push_with(rank, || {
                let entry = requeue_held(header, seen, tag, number)?;
                claimed = true;
                Some(entry)
            });
            if claimed {
                if self.is_revoked() {
                    self.give_back(header);
                    return false;
                }
                self.notes.kept.borrow_mut().push(header);
            }
            return claimed;
        }
        // Only custom DSQs have another rank: that was checked.
        let Rank::End(at) = rank else {
            return false;
        };
        let Some(token) = claim_in_hand(header, seen, tag, self.seat()) else {
            return false;
        };
        if self.is_revoked() {
            self.give_back(token.header());
            return false;
        }
        self.note_claimed(token, dsq, at);
        true
    }

    fn claim_early(&self, header: &Header, seen: Owner, dsq: DsqId, rank: Rank) -> bool {
        match rank {
            Rank::End(at) => header.custody.claim_early(seen, dsq, at),
            Rank::Vtime(vtime) => {
                let note = || header.custody.claim_early(seen, dsq, Position::Tail);
                let vtimes = &self.generation.early_vtimes;
                vtimes.remember(header.slot(), seen.sequence(), vtime, note)
            }
        }
    }

    /// A task leaves custody for a local or the global DSQ, when `dequeue` has been called for it.
    pub(crate) fn note_claimed(&self, token: Token, dsq: DsqId, at: Position) {
        if !self.generation.unwritten.known().lacks(Optional::Dequeue) {
            self.note_departed(token.header().view());
        }
        self.notes
            .claimed
            .borrow_mut()
            .push(Claimed { token, dsq, at });
    }

    /// Puts what was claimed into queues. Only now, after `dequeue` was called for it: another worker may run it at once.
    pub(crate) fn carry_out_claims(&self) {
        // Taken out, so that no borrow is held while others are woken; put back empty, to keep its memory.
        let mut claimed = self.notes.claimed.take();
        let mut own_local = self.local.scratch.take();
        for Claimed { token, dsq, at } in claimed.drain(..) {
            let DsqId::LocalOn(worker) = dsq else {
                let header = token.header();
                self.core
                    .push_global([token.into_entry(Resting::Global)], at);
                self.core.wake_for(header, self.local.id);
                continue;
            };
            let worker = self.allowed_worker(token.header(), worker);
            let entry = token.into_entry(Resting::Local(worker));
            if worker == self.local.id && at == Position::Tail {
                own_local.push(entry);
            } else {
                self.core.push_local(self.local, worker, entry, at);
            }
        }
        if !own_local.is_empty() {
            let queue = &self.core.placed(self.local.id).local;
            self.notes.push_own(queue, own_local.drain(..));
        }
        self.local.scratch.replace(own_local);
        self.notes.claimed.replace(claimed);
    }

    /// How many claims of this round will go to the worker's own local DSQ.
    pub(super) fn claimed_for_own_local(&self) -> usize {
        let own = DsqId::LocalOn(self.local.id);
        let claimed = self.notes.claimed.borrow();
        claimed.iter().filter(|claimed| claimed.dsq == own).count()
    }

    fn note_departed(&self, view: TaskView<'static>) {
        self.notes.departed.borrow_mut().push(Departed {
            view,
            reason: DequeueReason::Dispatched,
        });
    }
}
