//! Ingress to the policy in batches; verdicts to queues.

use std::sync::Arc;

use polity_policy::{DsqId, EnqueueReason, Position};

use crate::WATCHED;
use crate::hosting::Generation;
use crate::hosting::batch::ForCustom;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::queue::Rank;
use crate::task::entry::Entry;
use crate::task::header::Header;
use crate::task::token::{Resting, claim};
use crate::worker::{Phase, Worker, slice};

impl<M: Machine> Worker<M> {
    /// Shows up to 32 tasks of the ingress to the policy and carries out what it says.
    pub(super) fn offer(&mut self, generation: &Arc<Generation>) -> Verdict {
        self.gather(generation);
        self.put_unfit_back();
        let count = self.gathered();
        if count == 0 {
            return Verdict::Stands;
        }
        self.end_search();
        if WATCHED {
            let seat = self.local.seat_id;
            generation.census.enter(seat, self.gathered_at, count);
        }
        self.stats.offered += count as u64;
        if !self.notes.global.is_empty() {
            self.place_unasked(generation);
        }
        if self.notes.batch.is_empty() {
            return Verdict::Stands;
        }
        self.notes.begin_batch(self.local.id);
        let verdict = self.host_call(generation).offer();
        match verdict {
            Verdict::Stands => self.carry_out(generation),
            Verdict::Dropped => self.take_batch_back(),
            Verdict::Revoked => self.forfeit(),
        }
        self.collect_notes();
        if self.notes.revoked.get() {
            return Verdict::Revoked;
        }
        verdict
    }

    /// The call was revoked: what this thread had in its hands is somebody else's, so it forgets it.
    pub(super) fn forfeit(&mut self) {
        self.phase = Phase::Revoked;
        self.notes.batch.clear();
        self.notes.departed.get_mut().clear();
        self.notes.claimed.get_mut().clear();
        self.notes.custom.clear();
        self.notes.next.take();
        self.notes.kept.get_mut().clear();
    }

    /// The policy writes none of the callbacks that an offer consists of, so its verdict is that of the default: the tail of the global
    /// DSQ. Each of these tasks has been spared a view, a call, and the search for what was said.
    fn place_unasked(&mut self, generation: &Generation) {
        if !self.notes.batch.is_empty() {
            // A call follows.
            self.notes.next.take();
        }
        let mut global = std::mem::take(&mut self.notes.global);
        self.stamp_again(generation, global.iter().map(Entry::header));
        let (shared, runs_here) = (global.len(), !self.placed.local.is_empty());
        self.push_batch_global(&mut global);
        self.notes.global = global;
        self.share(shared, runs_here);
    }

    /// So many tasks were put where every worker takes from. This one takes one of them itself, unless it has something local to run
    /// first.
    fn share(&self, shared: usize, runs_here: bool) {
        if shared > usize::from(!runs_here) && self.core.sleepers.any_parked() {
            self.core.notify(self.local.id);
        }
    }

    /// The policy ended during the offer: nothing that it said counts.
    fn take_batch_back(&mut self) {
        let mut batch = std::mem::take(&mut self.notes.batch);
        for offered in batch.drain(..) {
            // The next policy is not the first that has seen it.
            offered.token.header().set_reason(EnqueueReason::Inherited);
            self.core.push_ingress(&self.local, offered.token);
        }
        self.notes.batch = batch;
    }

    fn carry_out(&mut self, generation: &Arc<Generation>) {
        let mut batch = std::mem::take(&mut self.notes.batch);
        self.stamp_again(
            generation,
            batch.iter().map(|offered| offered.token.header()),
        );
        // Tails of the local and the global DSQ, and what goes to one custom DSQ, are pushed under one lock each.
        let mut own_local = self.local.scratch.take();
        let mut global = std::mem::take(&mut self.notes.global);
        let mut shared = 0;
        for offered in batch.drain(..) {
            let header = offered.token.header();
            if let Some(slice) = offered.slice.get() {
                header.set_slice(slice::nanos(slice));
            }
            match offered.verdict.get() {
                None => match offered.token.hold(generation.tag) {
                    Ok(header) => {
                        self.notes.kept.borrow_mut().push(header);
                        shared += 1;
                    }
                    Err((token, DsqId::Custom(number), at)) => {
                        let sequence = header.custody.load().sequence();
                        let vtime = generation.early_vtimes.recall(header.slot(), sequence);
                        let rank = vtime.map_or(Rank::End(at), Rank::Vtime);
                        self.notes.custom.push(ForCustom {
                            token,
                            number,
                            rank,
                        });
                    }
                    Err((token, dsq, at)) => {
                        // `dequeue` follows, which may get stuck.
                        token.note_in_hand(generation.tag, self.local.seat_id.index() as u16);
                        self.host_call(generation).note_claimed(token, dsq, at)
                    }
                },
                Some((DsqId::Custom(number), rank)) => {
                    shared += 1;
                    self.notes.custom.push(ForCustom {
                        token: offered.token,
                        number,
                        rank,
                    });
                }
                Some((DsqId::Global, Rank::End(Position::Tail))) => {
                    shared += 1;
                    global.push(offered.token.into_entry(Resting::Global));
                }
                Some((DsqId::Global, Rank::End(Position::Head))) => {
                    shared += 1;
                    self.turns.heads = true;
                    self.core
                        .push_global([offered.token.into_entry(Resting::Global)], Position::Head);
                    self.core.wake_for(header, self.local.id);
                }
                Some((dsq, rank)) => {
                    let worker = if let DsqId::LocalOn(worker) = dsq {
                        worker
                    } else {
                        offered.selected.get()
                    };
                    let worker = self.host_call(generation).allowed_worker(header, worker);
                    let entry = offered.token.into_entry(Resting::Local(worker));
                    if worker == self.local.id && rank == Rank::End(Position::Tail) {
                        own_local.push(entry);
                    } else {
                        let at = match rank {
                            Rank::End(at) => at,
                            // Refused when it was said.
                            Rank::Vtime(_) => Position::Tail,
                        };
                        self.turns.heads |= at == Position::Head;
                        self.core.push_local(&self.local, worker, entry, at);
                    }
                }
            }
        }
        self.notes.batch = batch;
        let runs_here = !own_local.is_empty() || !self.placed.local.is_empty();
        if !self.notes.departed.get_mut().is_empty() {
            // A call follows.
            self.notes.next.take();
        }
        if !own_local.is_empty() {
            self.notes.push_own(&self.placed.local, own_local.drain(..));
        }
        self.local.scratch.replace(own_local);
        if !global.is_empty() {
            self.push_batch_global(&mut global);
        }
        self.notes.global = global;
        self.push_batch_custom(generation);
        // Claims that other workers made on tasks of this batch.
        if self.host_call(generation).tell_departed() == Verdict::Revoked {
            return self.forfeit();
        }
        self.host_call(generation).carry_out_claims();
        self.share(shared, runs_here);
        self.recheck_kept(generation);
    }

    /// The thread may have been kept from running since it gathered the batch, and others have queued younger tasks first.
    #[inline]
    fn stamp_again<'a>(
        &self,
        generation: &Generation,
        batch: impl ExactSizeIterator<Item = &'a Header>,
    ) {
        let now = self.fresh_clock();
        if !WATCHED || now == self.gathered_at {
            return;
        }
        let seat = self.local.seat_id;
        generation.census.enter(seat, now, batch.len());
        for header in batch {
            generation.census.leave(seat, self.gathered_at);
            header.set_runnable_at(now);
        }
    }

    /// All under one lock, and only then the kicks: who looks before the push finds nothing and parks.
    fn push_batch_global(&mut self, global: &mut Vec<Entry>) {
        // Of several a share would be taken at once.
        if let [only] = &global[..]
            && !only.is_restricted()
            && self.placed.local.is_empty()
            && self.notes.next.is_wanted_from(&self.core.global)
            && let Some(only) = global.pop()
        {
            return self.notes.next.give(only);
        }
        let restricted = global.iter().filter(|entry| entry.is_restricted());
        self.notes.restricted.extend(restricted.map(Entry::header));
        self.core.push_global(global.drain(..), Position::Tail);
        let mut restricted = std::mem::take(&mut self.notes.restricted);
        for header in restricted.drain(..) {
            self.core.wake_for(header, self.local.id);
        }
        self.notes.restricted = restricted;
    }

    /// After putting tasks into the custody of `generation`: takes those back that nobody else will. That is all of them
    /// if it is not current any more (protocol (a) of `hosting/published.rs`), and those that were aborted while they were
    /// offered, when the aborter could not claim them.
    ///
    /// It is also all that are restricted, if the affinity of any task has changed since this look for work began
    /// (`core/change.rs`): the policy may have seen the old mask. That is seldom.
    ///
    /// The second race: *Mark* (abort sets ABORTED), *MarkFence*, *Claim* (it looks for `Held` or `Queued`) there; *Keep*,
    /// *KeepFence* (in `Published::still`), and a look at the mark here. One fence comes first: either Claim sees the
    /// task, or we see the mark.
    pub(super) fn recheck_kept(&mut self, generation: &Generation) {
        if self.notes.kept.get_mut().is_empty() {
            return;
        }
        let current = self.core.published.still(self.epoch) || self.core.accepts(generation);
        let unchanged = self.core.changes.affinities() == self.affinities;
        let mut kept = self.notes.kept.take();
        for header in kept.drain(..) {
            // In this order: a mark on a task that has gone since does not take the slot's next tenant.
            let seen = header.custody.load();
            let aborted = header.lifecycle.is_aborted();
            let mask_holds = unchanged || !header.is_restricted();
            if current && mask_holds && !aborted {
                continue;
            }
            if seen.is_kept_by(generation.tag)
                && self.core.owns(header)
                && let Some(token) = claim(header, seen)
            {
                if aborted {
                    header.note_left_custody_by_abort();
                } else if current {
                    header.note_left_custody_by_change();
                } else {
                    header.set_reason(EnqueueReason::Inherited);
                    // In case this was a bypass; another generation pays no attention to it.
                    header.note_owes_dequeue();
                }
                self.core.push_ingress(&self.local, token);
            }
        }
        self.notes.kept.replace(kept);
    }

    pub(super) fn collect_notes(&mut self) {
        self.stats.stale_claims += self.notes.stale_claims.take();
        self.stats.redirected += self.notes.redirected.take();
    }
}
