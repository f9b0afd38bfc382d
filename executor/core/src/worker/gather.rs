//! What a worker is about to offer: which tasks, from where, and what the policy has to be told of each.

use polity_policy::EnqueueReason;

use crate::WATCHED;
use crate::hosting::Generation;
use crate::hosting::batch::{Departed, News, Offered};
use crate::machine::Machine;
use crate::seat::BATCH;
use crate::task::header::Header;
use crate::task::token::{Resting, Token};
use crate::worker::Worker;

/// Every so many passes the injector is asked also while the own ingress is not empty.
pub(super) const INJECTOR: u64 = 16;
/// And at least so often.
const INJECTOR_NS: u64 = 200_000;

impl<M: Machine> Worker<M> {
    /// How many tasks were gathered, to be shown or not.
    pub(super) fn gathered(&self) -> usize {
        self.notes.batch.len() + self.notes.global.len()
    }

    pub(super) fn gather(&mut self, generation: &Generation) {
        self.gathered_at = self.fresh_clock();
        while self.gathered() < BATCH
            && let Some(entry) = self.local.ingress.pop()
        {
            self.admit(generation, entry.redeem());
        }
        // Restricted tasks too are offered by any worker; only where they run is restricted. So whatever lies in the
        // inbox is taken, also what may not run here any more.
        while self.gathered() < BATCH
            && let Some(entry) = self.placed.inbox.pop()
        {
            self.admit(generation, entry.redeem());
        }
        let core = self.core;
        let now = self.local.now.get();
        if (self.gathered() == 0
            || self.passes.is_multiple_of(INJECTOR)
            || now.saturating_sub(self.turns.injector_at) >= INJECTOR_NS)
            && !core.injector.is_empty()
        {
            self.turns.injector_at = now;
            let room = BATCH.saturating_sub(self.gathered());
            core.injector.take(self.local.id, room, |entry| {
                self.admit(generation, entry.redeem())
            });
        }
    }

    /// What `admit` did not want goes back, to be offered to the generation that is current by then.
    pub(super) fn put_unfit_back(&mut self) {
        for entry in self.notes.unfit.drain(..) {
            if entry.is_restricted() {
                self.placed.inbox.extend([entry]);
            } else {
                self.local.ingress.push(entry);
            }
        }
    }

    /// Into the batch; or past the policy, if the task was aborted, or if what the policy would say is known.
    fn admit(&mut self, generation: &Generation, token: Token) {
        let header = token.header();
        if header.lifecycle.is_aborted() {
            let worker = self.local.id;
            return self
                .placed
                .local
                .extend([token.into_entry(Resting::Local(worker))]);
        }
        let number = generation.number.number();
        let news = match () {
            () if header.is_told_runnable(number) => News::None,
            () if header.seen_by() == number => News::Runnable,
            () => News::Met,
        };
        if let Some(reason) = header.take_owes_dequeue()
            && news == News::None
        {
            self.notes.departed.get_mut().push(Departed {
                view: header.view(),
                reason,
            });
        }
        if news == News::Met {
            if self.core.published.epoch() != self.epoch {
                // Perhaps the task is known to a newer generation, which this worker does not follow yet.
                self.notes.unfit.push(token.into_entry(Resting::Ingress));
                return;
            }
            header.note_met(number);
        }
        if news != News::None {
            header.note_told_runnable();
            if header.reason() == EnqueueReason::StillRunnable {
                header.set_reason(EnqueueReason::Inherited);
            }
        }
        self.enter_census(generation, header, news);
        if generation.unwritten.known().leaves_offers_to_core() {
            return self.notes.global.push(token.into_entry(Resting::Global));
        }
        token.note_offered(generation.tag);
        if WATCHED {
            self.seat
                .note_offered(self.notes.batch.len(), header.slot());
        }
        let view = header.view();
        let selected = view.last_worker().into();
        self.notes.batch.push(Offered {
            token,
            view,
            news,
            selected,
            verdict: None.into(),
            slice: None.into(),
        });
    }

    /// From now on the policy has the task, and its wait counts: with the whole batch, in `offer`.
    #[inline]
    fn enter_census(&self, generation: &Generation, header: &Header, news: News) {
        if !WATCHED {
            return;
        }
        let seat = self.local.seat_id;
        if header.take_counted() && news == News::None {
            // It comes back without having been polled: after a bypass.
            generation.census.leave(seat, header.runnable_at());
        }
        header.set_runnable_at(self.gathered_at);
        header.note_counted();
    }
}
