//! One poll, and the notifiers around it.
//!
//! **Order of notifications.** `quiescent` must reach the policy before the `runnable` of the next wake, and as soon as
//! `end_poll` has given the token up, that wake may come on another worker. So the policy is told *before* `end_poll`, from
//! what is known then: if no wake has come, "waiting" and `quiescent`. Should a wake slip in between, `end_poll` leaves
//! us the token and the task counts as freshly woken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use polity_policy::{Accounting, DequeueReason, EnqueueReason, Optional, Slice, Stopped};

use crate::WATCHED;
use crate::hosting::Generation;
use crate::hosting::batch::News;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::task::header::Header;
use crate::task::lifecycle::Seen;
use crate::task::token::{Resting, Token};
use crate::task::waker::{poll_as, waker};
use crate::worker::{Phase, Worker};

/// What a generation knows of a task that is about to be polled.
enum Met {
    Known,
    Unknown,
    /// The callback that told it never returned, as far as others can tell.
    Revoked,
}

/// A tick that is older is from before the watchdog went to sleep.
const STALE_TICK_NS: u64 = 50_000_000;

impl<M: Machine> Worker<M> {
    pub(super) fn run(&mut self, token: Token) {
        self.end_search();
        self.loop_cuts.forget();
        let header = token.header();
        if header.is_restricted() && self.must_not_run(header) {
            return self.send_elsewhere(token);
        }
        self.stats.polls += 1;
        self.catch_up(header);
        self.leave_census(header);
        let seen = token.begin_poll(self.local.id, self.local.seat_id.index() as u16);
        self.seat.activity.set_task(Some(header.id()));
        self.local.polled.set(Some(header));
        if seen.aborted {
            self.drop_aborted(token);
        } else {
            self.core.machine.before_poll(self.local.seat_id);
            self.run_live(token, seen);
        }
        self.seat.activity.set_task(None);
    }

    /// Whether the task belongs to another worker, since its affinity was changed while it was on its way here.
    fn must_not_run(&self, header: &Header) -> bool {
        let id = self.local.id;
        // One that no worker may run (there is none: masks are checked) runs anywhere.
        !header.allows(id) && self.core.eligible_worker(header) != id
    }

    /// Under a policy it is offered once more: nobody has been told of a poll. It keeps its age.
    #[cold]
    fn send_elsewhere(&mut self, token: Token) {
        self.out_of_turn = false;
        self.stats.redirected += 1;
        self.core.push_inbox(token);
    }

    #[inline]
    fn run_live(&mut self, token: Token, seen: Seen) {
        let header = token.header();
        match self.generation.take() {
            None => self.run_built_in(None, token, seen),
            Some(generation) => {
                match self.introduce(&generation, header) {
                    Met::Known => self.run_told(&generation, token, seen),
                    Met::Unknown => self.run_built_in(Some(&generation), token, seen),
                    Met::Revoked => {}
                }
                self.generation = Some(generation);
            }
        }
    }

    /// The task is in its policy's hands no longer.
    #[inline]
    fn leave_census(&mut self, header: &Header) {
        let out_of_turn = std::mem::take(&mut self.out_of_turn);
        if WATCHED
            && let Some(generation) = &self.generation
            && header.take_counted()
            && header.seen_by() == generation.number.number()
        {
            let stamp = header.runnable_at();
            generation.census.leave(self.local.seat_id, stamp);
            if !out_of_turn {
                self.seat.activity.note_begun(header.id(), stamp);
            }
        }
    }

    /// Whether the generation is to be told of this poll. A task that it has not met (it came here before the load) runs
    /// untold, but in a bypass, where tasks are not offered, this is where it is met.
    #[inline]
    fn introduce(&mut self, generation: &Arc<Generation>, header: &'static Header) -> Met {
        let number = generation.number.number();
        if !header.is_told_runnable(number) {
            return self.introduce_in_bypass(generation, header);
        }
        match header.take_owes_dequeue() {
            None => Met::Known,
            Some(reason) => self.tell_taken(generation, header, reason),
        }
    }

    #[cold]
    fn tell_taken(
        &mut self,
        generation: &Arc<Generation>,
        header: &'static Header,
        reason: DequeueReason,
    ) -> Met {
        if self
            .host_call(generation)
            .tell_taken(&header.view(), reason)
            == Verdict::Revoked
        {
            self.forfeit();
            return Met::Revoked;
        }
        Met::Known
    }

    #[cold]
    fn introduce_in_bypass(
        &mut self,
        generation: &Arc<Generation>,
        header: &'static Header,
    ) -> Met {
        let number = generation.number.number();
        if !self.bypassed || self.core.published.epoch() != self.epoch {
            return Met::Unknown;
        }
        header.take_owes_dequeue();
        let mut news = News::Runnable;
        if header.seen_by() != number {
            header.note_met(number);
            news = News::Met;
        }
        header.note_told_runnable();
        let view = header.view();
        if self.host_call(generation).tell_runnable(&view, news) == Verdict::Revoked {
            self.forfeit();
            return Met::Revoked;
        }
        Met::Known
    }

    /// A worker that has seen a newer generation may have offered this task to it, and that one wants to be told of the
    /// poll. Since the task came to us through a queue, so did the knowledge of the new epoch.
    #[inline]
    fn catch_up(&mut self, header: &Header) {
        let known_to = header.seen_by();
        let follows = self
            .generation
            .as_ref()
            .map_or(0, |generation| generation.number.number());
        if known_to != 0 && known_to != follows {
            self.follow_up_to(known_to);
            let follows = self.generation.as_ref();
            if follows.is_none_or(|it| it.number.number() != known_to) && self.newest >= known_to {
                // It has ended. Said here, so that the next poll need not find out again.
                header.note_parted();
            }
        }
    }

    /// Follows the generation with this number, or finds it ended. A publication that is on its way may have to be waited for:
    /// two stores and a swap, by a thread that runs no policy meanwhile.
    #[cold]
    fn follow_up_to(&mut self, number: u32) {
        // That the runtime is closing is seen by the next pass.
        let _ = self.refresh();
        while self.newest < number
            && self.phase != Phase::Revoked
            && self.core.published.epoch() != self.epoch
        {
            std::thread::yield_now();
            let _ = self.refresh();
        }
    }

    /// Polls; `true`: done. Notes whether the task has woken itself.
    #[inline]
    fn poll(&mut self, token: &mut Token) -> bool {
        let header = token.header();
        self.seat.activity.begin_poll();
        let waker = waker(header);
        let (done, self_woken) = poll_as(header, || token.poll(&mut Context::from_waker(&waker)));
        self.local.self_woken.set(self_woken);
        self.seat.activity.end_poll();
        done
    }

    /// Ends a poll that did not finish the task. `Some`: it was woken meanwhile. What others have added to the count of a task
    /// that has woken itself stays there until the next poll.
    #[inline]
    fn end_poll(&self, token: Token, seen: Seen) -> Option<Token> {
        match self.local.self_woken.get() {
            true => Some(token),
            false => token.end_poll(seen),
        }
    }

    #[inline]
    fn run_built_in(&mut self, generation: Option<&Arc<Generation>>, mut token: Token, seen: Seen) {
        if self.poll(&mut token) {
            if let Some(generation) = generation
                && self.part(generation, token.header()) == Verdict::Revoked
            {
                return self.forfeit();
            }
            self.finish(token);
        } else if let Some(token) = self.end_poll(token, seen) {
            self.requeue(token);
        }
    }

    fn run_told(&mut self, generation: &Arc<Generation>, mut token: Token, seen: Seen) {
        let header = token.header();
        let unwritten = generation.unwritten.known();
        // What the policy answers does not matter here; one that has ended is not told more.
        if !unwritten.lacks(Optional::Running)
            && self.host_call(generation).tell_running(&header.view()) == Verdict::Revoked
        {
            return self.forfeit();
        }
        let said = self.notes.slice.take();
        let has_slices =
            generation.slice != Slice::POLL || said.is_some() || self.goes_on || header.has_slice();
        if has_slices {
            self.begin_slice(generation.slice, said, header);
        }
        let accounting = generation.accounting;
        self.local.blocked_ns.set(0);
        let began = self.accounts_from(accounting);
        let done = self.poll(&mut token);
        let ran = self.ran(accounting, began);
        let goes_on = has_slices && self.end_slice(accounting);
        let stopped = match done {
            true => Stopped::Finished,
            false if self.local.self_woken.get() || header.lifecycle.woken_since(seen) => {
                Stopped::StillRunnable
            }
            false => Stopped::Waiting,
        };
        if unwritten.wants(stopped) {
            let view = header.view().with_ran(ran);
            if self.host_call(generation).tell_stopped(&view, stopped) == Verdict::Revoked {
                return self.forfeit();
            }
        }
        match stopped {
            Stopped::StillRunnable => {}
            Stopped::Waiting => header.note_quiescent(),
            Stopped::Finished => header.note_parted(),
        }
        if done {
            return self.finish(token);
        }
        let Some(token) = self.end_poll(token, seen) else {
            return;
        };
        match stopped {
            // Nobody is asked for another one: it goes to the tail, so that tasks which yield take turns.
            Stopped::StillRunnable if self.bypassed => self.requeue(token),
            Stopped::StillRunnable => {
                self.goes_on = goes_on;
                self.keep_as_prev(token);
            }
            // Woken between the notification and the end of the poll: it counts as a new wake.
            _ => {
                token.header().set_reason(EnqueueReason::Wake);
                self.core.push_runnable(&self.local, token);
            }
        }
    }

    /// When the poll that follows begins, by the clock that its policy wants it measured with.
    #[inline]
    fn accounts_from(&self, accounting: Accounting) -> u64 {
        match accounting {
            Accounting::Exact => self.core.machine.now(),
            Accounting::Coarse => {
                // Ordering: Relaxed; a coarse stamp.
                let tick = self.core.tick.load(Ordering::Relaxed);
                let now = self.local.now.get();
                // The first poll after an idle time is not charged for the time in which the watchdog slept.
                let slept = now.saturating_sub(tick) > STALE_TICK_NS;
                if slept { now } else { tick }
            }
            _ => 0,
        }
    }

    /// How long the poll took that has just ended, but for the time in which it had said that it blocks.
    ///
    /// Rejected for `Coarse`: the worker's own clock, which is read every so many polls. Whoever is polled last before a
    /// reading would pay for all; that measures how often a task is polled, not for how long. A tick hits long polls
    /// more often than short ones, in proportion.
    #[inline]
    fn ran(&self, accounting: Accounting, began: u64) -> Duration {
        let ended = match accounting {
            Accounting::Exact => self.read_locally(),
            // Ordering: Relaxed; a coarse stamp.
            Accounting::Coarse => self.core.tick.load(Ordering::Relaxed),
            _ => return Duration::ZERO,
        };
        let blocked = self.local.blocked_ns.get();
        Duration::from_nanos(ended.saturating_sub(began).saturating_sub(blocked))
    }

    /// The time, for this thread only: for a policy that wants it after each poll, or for the turns of the LIFO slot. What other threads
    /// want to know of this one is said every so many passes ([`Worker::look_at_the_clock`]).
    #[inline]
    pub(super) fn read_locally(&self) -> u64 {
        let now = self.core.machine.now();
        self.local.now.set(now);
        now
    }

    /// To the tail: it had its turn.
    fn requeue(&mut self, token: Token) {
        token.header().set_reason(EnqueueReason::StillRunnable);
        self.core.push_runnable(&self.local, token);
    }

    /// In the seat, where a close finds it, while the policy is asked for another one; or back in a queue, if it need not be asked.
    fn keep_as_prev(&mut self, token: Token) {
        let header = token.header();
        header.set_reason(EnqueueReason::StillRunnable);
        header.set_runnable_at(self.local.now.get());
        if header.is_restricted() {
            // `prev` goes to the ingress if something else is found, where restricted tasks must not lie.
            return self.core.push_ingress(&self.local, token);
        }
        let entry = token.into_entry(Resting::Ingress);
        // Something else will be found. Should it be stolen meanwhile, this task is offered again instead.
        if !self.goes_on && !self.placed.local.is_empty() {
            return self.local.ingress.push(entry);
        }
        // Ordering: Release pairs with the Acquire in `local::take`. The slot is empty: each pass empties it.
        self.seat.prev.store(entry.into_bits(), Ordering::Release);
    }

    fn finish(&mut self, token: Token) {
        self.stats.completed += 1;
        // The joiner is woken as if by the task itself, and runs next. The output may be dropped here, which is foreign code.
        self.seat.activity.begin_poll();
        let slot = token.finish();
        self.seat.activity.end_poll();
        self.local.slots.borrow_mut().give(slot);
    }

    /// The policy hears of it if it knew the task as runnable: without `running` there is no `stopping`, but `runnable`
    /// pairs with `quiescent`.
    fn drop_aborted(&mut self, token: Token) {
        let header = token.header();
        if let Some(generation) = self.generation.take() {
            let verdict = self.tell_of_abort(&generation, header);
            self.generation = Some(generation);
            if verdict == Verdict::Revoked {
                return self.forfeit();
            }
        }
        self.stats.completed += 1;
        self.seat.activity.begin_poll();
        let slot = token.cancel();
        self.seat.activity.end_poll();
        self.local.slots.borrow_mut().give(slot);
    }

    fn tell_of_abort(&self, generation: &Arc<Generation>, header: &'static Header) -> Verdict {
        if !header.is_told_runnable(generation.number.number()) {
            return self.part(generation, header);
        }
        let host_call = self.host_call(generation);
        if let Some(reason) = header.take_owes_dequeue()
            && host_call.tell_taken(&header.view(), reason) == Verdict::Revoked
        {
            return Verdict::Revoked;
        }
        host_call.tell_cancelled(&header.view(), header.left_custody_by_abort())
    }

    /// The task ends without having been known as runnable: the policy hears of it if it has met it.
    fn part(&self, generation: &Arc<Generation>, header: &'static Header) -> Verdict {
        if header.seen_by() != generation.number.number() {
            return Verdict::Stands;
        }
        self.host_call(generation).tell_parted(&header.view())
    }
}
