//! The order in which a worker looks for a task.

use std::sync::Arc;

use crate::hosting::Generation;
use crate::hosting::batch::Told;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::queue::Taking;
use crate::seat::BATCH;
use crate::task::slab;
use crate::task::token::{Resting, Token};
use crate::worker::gather::INJECTOR;
use crate::worker::{Look, Worker, local};

/// Every so many passes, what usually comes last comes first, so that nothing starves behind a busy queue.
const FAIRNESS: u64 = 32;
const FAIRNESS_NS: u64 = 200_000;
/// For so many passes what is woken or new may wait until it is offered, with what comes after it.
const NEWS: u64 = 4;
/// How many tasks a worker takes from a shared queue at once, at most.
const SHARE: usize = 16;
/// The same of its part of a long injector: each look at it costs a poll of every task that is busy here, and what is taken can be
/// stolen.
const INJECTED: usize = 128;

/// Which place had its turn when.
#[derive(Debug)]
pub(super) struct Turns {
    /// When what usually comes last came first.
    shared_at: u64,
    /// When the injector was asked.
    pub(super) injector_at: u64,
    /// The clock when the ingress was offered last.
    offered_at: u64,
    /// The policy has put a task at the head of a local DSQ or of the global one: before those that wait there already.
    pub(super) heads: bool,
    /// So many of the next tasks in the local DSQ were taken from the global one, at least if nobody has stolen any.
    from_global: usize,
}

impl Turns {
    pub(super) fn new(now: u64) -> Self {
        Turns {
            shared_at: now,
            injector_at: now,
            offered_at: 0,
            heads: false,
            from_global: 0,
        }
    }
}

/// What a look has found.
pub(super) enum Found {
    Task(Token),
    Nothing,
    /// Nothing, but there is no time to park: the policy exhausted the dispatch loop, or has to be told more.
    LoopCut,
}

impl From<Option<Token>> for Found {
    fn from(token: Option<Token>) -> Self {
        token.map_or(Found::Nothing, Found::Task)
    }
}

impl<M: Machine> Worker<M> {
    pub(super) fn find(&mut self, look: Look) -> Found {
        // Taken out for the call, so that the rest of the worker stays usable.
        match self.generation.take() {
            None => self.find_built_in(look).into(),
            Some(generation)
                if self.core.changes.any()
                    && self.tell_changes(&generation) == Verdict::Revoked =>
            {
                self.generation = Some(generation);
                Found::Nothing
            }
            Some(generation) => {
                let found = match self.bypassed {
                    true => self.find_built_in(look).into(),
                    false => self.find_by_policy(&generation, look),
                };
                self.generation = Some(generation);
                match found {
                    // More changes than one call tells, or newer ones: no time to park.
                    Found::Nothing if self.core.changes.any() => Found::LoopCut,
                    found => found,
                }
            }
        }
    }

    /// Tells the policy which tasks have other attributes now, of those that it knows as runnable. As many as one batch, so
    /// that the call does not take long; the rest in the next pass.
    #[cold]
    fn tell_changes(&mut self, generation: &Arc<Generation>) -> Verdict {
        self.end_search();
        let number = generation.number.number();
        let changed = &mut self.notes.changed;
        self.core.changes.take(BATCH, |task, what| {
            let Some(header) = slab::get(task.slot()) else {
                return;
            };
            let view = header.view();
            // Asked after the view was taken: had it been the next tenant's, this would say so.
            if header.is_told_runnable(number) && header.lifecycle.is(task.tenant()) {
                changed.push(Told { view, what });
            }
        });
        let verdict = self.host_call(generation).tell_changed();
        self.notes.changed.clear();
        if verdict == Verdict::Revoked {
            self.forfeit();
        }
        verdict
    }

    /// Without a policy, and in a bypass, the ingress is the run queue.
    fn find_built_in(&mut self, look: Look) -> Option<Token> {
        if self.shared_is_due()
            && let Some(token) = self.find_shared()
        {
            return Some(token);
        }
        if let Some(token) = self.take_lifo_in_turn() {
            return Some(token);
        }
        self.renew_lifo();
        if let Some(entry) = self.local.ingress.pop() {
            return Some(entry.redeem());
        }
        // Else who waits for everybody would wait for many long polls behind a chain of tasks, each of which wakes the next.
        if self.shares_time()
            && let Some(token) = self.find_shared()
        {
            return Some(token);
        }
        if let Some(entry) = local::take(&self.seat.lifo) {
            return Some(entry.redeem());
        }
        self.find_shared().or_else(|| self.steal(look))
    }

    /// Whether what usually comes last comes first in this pass: every so many passes, and where those are long, every so often.
    #[inline]
    fn shared_is_due(&mut self) -> bool {
        let now = self.local.now.get();
        let due = self.passes.is_multiple_of(FAIRNESS)
            || now.saturating_sub(self.turns.shared_at) >= FAIRNESS_NS;
        if due {
            self.turns.shared_at = now;
        }
        due
    }

    /// Inbox, injector, and what an ended policy left in DSQs.
    fn find_shared(&mut self) -> Option<Token> {
        let id = self.local.id;
        // Whatever lies there: what may not run here any more is sent on before its poll.
        if let Some(entry) = self.placed.inbox.pop() {
            return Some(entry.redeem());
        }
        if let Some(entry) = self.placed.local.pop() {
            return Some(entry.redeem());
        }
        if let Some(entry) = self.core.global.pop_for(id) {
            return Some(entry.redeem());
        }
        if self.core.injector.is_empty() {
            return None;
        }
        let mut first = None;
        let share = self.core.injector.len() / self.core.worker_count();
        let share = share.clamp(SHARE, INJECTED);
        self.core.injector.take(id, share, |entry| match first {
            None => first = Some(entry),
            Some(_) => self.local.ingress.push(entry),
        });
        first.map(|entry| entry.redeem())
    }

    fn find_by_policy(&mut self, generation: &Arc<Generation>, look: Look) -> Found {
        self.affinities = self.core.changes.affinities();
        let goes_on = std::mem::take(&mut self.goes_on);
        if generation
            .timers
            .take_due(self.local.id, self.local.now.get())
            && self.ring(generation) == Verdict::Revoked
        {
            return Found::Nothing;
        }
        if self.placed.local.is_empty() {
            // If it was stolen, nobody has counted it down.
            self.turns.from_global = 0;
        }
        // While this worker still has what it took from there, which is older, this is not the global DSQ's turn.
        let global_first = self.shared_is_due() && self.turns.from_global == 0;
        if self.offer_is_due() {
            if !global_first && !goes_on {
                self.notes.next.want();
            }
            if self.offer(generation) == Verdict::Revoked {
                return Found::Nothing;
            }
            if let Some(token) = self.notes.next.take() {
                return self.instead_of_prev(token);
            }
        }
        if global_first && let Some(token) = self.take_global() {
            // It may overtake what the policy has put into the local DSQ.
            self.out_of_turn = !self.placed.local.is_empty();
            return self.instead_of_prev(token);
        }
        if goes_on && let Some(entry) = local::take(&self.seat.prev) {
            self.goes_on = true;
            let token = entry.redeem();
            // What waits behind it on this worker is overtaken.
            let (task, now) = (token.header().id(), self.local.now.get());
            self.seat.activity.note_begun(task, now);
            return Found::Task(token);
        }
        if let Some(token) = self.take_local().or_else(|| self.take_global()) {
            return self.instead_of_prev(token);
        }
        match self.by_dispatch(generation) {
            Found::Nothing => {}
            found => return found,
        }
        if self.notes.revoked.get() {
            return Found::Nothing;
        }
        if let Some(token) = self.steal(look) {
            return Found::Task(token);
        }
        if self.local.ingress.is_empty() {
            self.seat.activity.note_went_without(self.fresh_clock());
            return Found::Nothing;
        }
        // Stolen ingress goes through the policy, never straight to a poll.
        if self.offer(generation) == Verdict::Revoked {
            return Found::Nothing;
        }
        if let Some(token) = self.take_local().or_else(|| self.take_global()) {
            return Found::Task(token);
        }
        self.by_dispatch(generation)
    }

    /// Whether the ingress should be shown to the policy in this pass. While there are tasks in the local DSQ, what comes after them is
    /// gathered and shown together: one call, and one lock of each queue, for several. That is what has yielded, and what is woken
    /// or new if every worker is busy, so that nobody could begin it sooner, and the policy has put nothing before the others so far.
    #[inline]
    fn offer_is_due(&mut self) -> bool {
        // Not the clock itself, which may move with each poll.
        let now = self.pace.read_at();
        let waits = now == self.turns.offered_at && !self.placed.local.is_empty() && {
            let only_yielded = !self.local.has_news.get() && self.placed.inbox.is_empty();
            // Until the clock is read, which is soon when polls are long, and for so many passes at most.
            match only_yielded {
                true => !self.passes.is_multiple_of(INJECTOR),
                false => {
                    !self.passes.is_multiple_of(NEWS)
                        && !self.turns.heads
                        && !self.core.sleepers.any_parked()
                }
            }
        };
        if waits {
            return false;
        }
        self.turns.offered_at = now;
        self.local.has_news.set(false);
        true
    }

    /// Something else was found: the task polled before goes back to the ingress, to be enqueued again.
    fn instead_of_prev(&mut self, token: Token) -> Found {
        if let Some(prev) = local::take(&self.seat.prev) {
            self.local.ingress.push(prev);
        }
        Found::Task(token)
    }

    #[inline]
    pub(super) fn take_local(&mut self) -> Option<Token> {
        self.turns.from_global = self.turns.from_global.saturating_sub(1);
        self.placed.local.pop().map(|entry| entry.redeem())
    }

    /// One to run, and under the same lock a share to keep.
    pub(super) fn take_global(&mut self) -> Option<Token> {
        let waiting = self.core.global.len();
        if waiting == 0 {
            return None;
        }
        let share = waiting.div_ceil(self.core.worker_count()).min(SHARE);
        let mut first = None;
        let mut rest = self.local.scratch.take();
        self.core.global.take_for(self.local.id, |entry| {
            match first {
                None => first = Some(entry),
                Some(_) => rest.push(entry),
            }
            if rest.len() + 1 >= share {
                Taking::Enough
            } else {
                Taking::More
            }
        });
        self.turns.from_global = rest.len();
        if !rest.is_empty() {
            // Said of each, so that a policy is not blamed for what waits behind this worker's polls.
            let here = Resting::Local(self.local.id);
            let rest = rest.drain(..).map(|entry| entry.redeem().into_entry(here));
            self.placed.local.extend(rest);
        }
        self.local.scratch.replace(rest);
        first.map(|entry| entry.redeem())
    }
}
