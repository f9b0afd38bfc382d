//! From a token to a queue, and to a worker that will look into it.
//!
//! On a worker of this runtime a wake is a push to its own ingress: no fence, no look at who is parked, because that
//! worker passes through its queues before it parks. On any other thread it is a push to the injector, then
//! PushFence and a look at the parked mask (`idle/README.md`).

use polity_policy::{EnqueueReason, Position, TaskId, WakeSource, WorkerId};

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use polity_policy::ExitInfo;

use crate::core::Core;
use crate::hosting::Generation;
use crate::machine::Machine;
use crate::seat::{Place, SeatId};
use crate::task::change::{Change, ChangeError};
use crate::task::cold::Wake;
use crate::task::custody::State;
use crate::task::entry::Entry;
use crate::task::header::{Header, Owner};
use crate::task::token::{Resting, Token, claim};
use crate::worker::Local;

impl<M: Machine> Owner for Core<M> {
    fn now_runnable(&self, token: Token) {
        token.header().set_reason(EnqueueReason::Wake);
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            if self.is_recording() {
                self.record_wake(local, token.header());
            }
            match local {
                Some(local) => self.push_runnable(local, token),
                None => {
                    // Ordering: Relaxed; a coarse stamp.
                    let now = self.clock.load(Ordering::Relaxed);
                    token.header().set_runnable_at(now);
                    self.inject(token);
                }
            }
        });
    }

    fn now_aborted(&self, header: &'static Header, tenant: u32) {
        // In a policy's custody the task might wait for ever. Everywhere else it will be popped, and then dropped.
        // Ordering: SeqCst fence (MarkFence), partner of KeepFence in `Published::still`: see `Worker::recheck_kept`.
        fence(Ordering::SeqCst);
        let seen = header.custody.load();
        // Asked after the custody word was read: had it been the next tenant's, this would say so.
        if matches!(seen.state(), State::Held | State::Queued)
            && header.lifecycle.is(tenant)
            && let Some(token) = claim(header, seen)
        {
            header.note_left_custody_by_abort();
            self.requeue(token);
        }
    }

    fn change(
        &self,
        header: &'static Header,
        task: TaskId,
        change: Change,
    ) -> Result<(), ChangeError> {
        self.change_attributes(header, task, change)
    }
}

impl<M: Machine> Core<M> {
    /// Whether the policy has asked who wakes whom.
    #[inline]
    pub(super) fn is_recording(&self) -> bool {
        // Ordering: Relaxed; see `publish`.
        self.recording.load(Ordering::Relaxed) != 0
    }

    /// For whoever has the task's token, on the thread of the wake.
    #[cold]
    fn record_wake(&self, local: Option<&Local>, header: &Header) {
        let source = match local.map(Local::place) {
            Some(Place::Poll) => WakeSource::Task,
            Some(Place::Driver) => WakeSource::Driver,
            _ => WakeSource::Outside,
        };
        self.record(local, header, source);
    }

    /// The same for a task that is new.
    #[cold]
    pub(super) fn record_spawn(&self, local: Option<&Local>, header: &Header) {
        self.record(local, header, WakeSource::Spawn);
    }

    fn record(&self, local: Option<&Local>, header: &Header, source: WakeSource) {
        let polling = local.filter(|local| local.place() == Place::Poll);
        header.note_wake(Wake {
            source,
            by: polling.and_then(Local::current_task),
            // Elsewhere there may be no stamp that is fresh: the workers may all have been parked.
            at: polling.map_or_else(|| self.machine.now(), |local| local.now.get()),
            // Ordering: Relaxed; see `publish`.
            generation: self.recording.load(Ordering::Relaxed),
        });
    }

    /// Puts the token of a task that has been runnable for a while into the ingress that is nearest to this thread.
    pub(crate) fn requeue(&self, token: Token) {
        self.machine
            .with_local(|local| match local.filter(|local| local.core == self.id) {
                Some(local) => self.push_ingress(local, token),
                None => self.inject(token),
            });
    }

    /// On the worker itself: the task is runnable from now on.
    #[inline]
    pub(crate) fn push_runnable(&self, local: &Local, token: Token) {
        token.header().set_runnable_at(local.now.get());
        self.push_ingress(local, token);
    }

    /// On the worker itself: the task has been runnable, and keeps its age.
    #[inline]
    pub(crate) fn push_ingress(&self, local: &Local, token: Token) {
        let header = token.header();
        if header.is_restricted() {
            return self.push_inbox(token);
        }
        let entry = token.into_entry(Resting::Ingress);
        local.has_news.set(true);
        match local.place() {
            Place::Poll if local.built_in.get() => self.push_lifo(local, entry),
            Place::Driver => {
                local.ingress.push(entry);
                self.machine.woken_in_driver(local.seat_id);
            }
            // This thread is going to block: somebody else should know of it now.
            Place::Blocked => {
                self.injector.push_woken(entry);
                self.notify_for(header);
            }
            _ => local.ingress.push(entry),
        }
    }

    /// The task woken last runs next: its data is in the cache. The one that it displaces goes to the queue.
    fn push_lifo(&self, local: &Local, entry: Entry) {
        let slot = &local.seat.lifo;
        // Ordering: Relaxed load; only we fill the slot, thieves only empty it.
        let displaced = if slot.load(Ordering::Relaxed) == 0 {
            // Ordering: Release pairs with the Acquire of a thief in `worker/steal.rs`.
            slot.store(entry.into_bits(), Ordering::Release);
            None
        } else {
            // Ordering: AcqRel; Release as above, Acquire for an entry that comes back to us.
            Entry::from_bits(slot.swap(entry.into_bits(), Ordering::AcqRel))
        };
        if let Some(displaced) = displaced {
            local.ingress.push(displaced);
        }
    }

    /// From a thread that has no ingress of its own.
    pub(crate) fn inject(&self, token: Token) {
        let header = token.header();
        if header.is_restricted() {
            return self.push_inbox(token);
        }
        self.injector.push_woken(token.into_entry(Resting::Ingress));
        self.notify_for(header);
    }

    /// To a worker that the task's mask allows.
    pub(crate) fn push_inbox(&self, token: Token) {
        let header = token.header();
        let worker = self.eligible_worker(header);
        self.placed(worker)
            .inbox
            .extend([token.into_entry(Resting::Ingress)]);
        self.notify_for(header);
    }

    /// After a push of this task to the injector or an inbox.
    pub(crate) fn notify_for(&self, header: &Header) {
        let prefer = header.last_worker();
        if !header.is_restricted() {
            return self.notify(prefer);
        }
        let seat = |index: usize| self.seats.get(index);
        let allows = |index| seat(index).is_some_and(|seat| header.allows(seat.home()));
        if let Some(woken) = self.sleepers.wake_one(self.seat_of(prefer).index(), allows) {
            self.unpark(woken);
        }
    }

    /// Into the local DSQ of `worker`, by the worker whose `local` it is.
    pub(crate) fn push_local(&self, local: &Local, worker: WorkerId, entry: Entry, at: Position) {
        let queue = &self.placed(worker).local;
        // Local DSQs are never closed.
        let _ = queue.push(entry, at);
        if worker != local.id {
            self.kick(worker);
        }
    }

    /// Into the global DSQ.
    pub(crate) fn push_global(&self, entries: impl IntoIterator<Item = Entry>, at: Position) {
        match at {
            Position::Tail => self.global.extend(entries),
            // The global DSQ is never closed.
            Position::Head => entries
                .into_iter()
                .for_each(|entry| drop(self.global.push(entry, at))),
        }
    }

    /// After a push to a queue that all workers look into: unparks one of them, unless a searcher is about.
    ///
    /// Skipping is safe because a searcher that finds nothing gives the role up, announces itself, fences and looks once
    /// more (`idle/README.md`, "The searcher").
    pub(crate) fn notify(&self, prefer: WorkerId) {
        let prefer = self.seat_of(prefer).index();
        if let Some(seat) = self.sleepers.wake_unless_searching(prefer) {
            self.unpark(seat);
        }
    }

    /// After worker `pusher` put the task into a shared queue: if it may not run the task itself, one that may should look.
    pub(crate) fn wake_for(&self, header: &Header, pusher: WorkerId) {
        if !header.allows(pusher) {
            self.kick(self.eligible_worker(header));
        }
    }

    /// Makes some parked worker pass through its cycle once more.
    pub(crate) fn wake_somebody(&self) {
        if let Some(seat) = self.sleepers.wake_one(usize::MAX, |_| true) {
            self.unpark(seat);
        }
    }

    /// Reads the clock to see whether the task that is being polled on this thread has used its slice up; if so, it counts as
    /// having yielded. To be asked when [`Local::counts_down`] says no.
    #[cold]
    pub fn ends_slice(&self) -> bool {
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            let now = self.machine.now();
            let over = local.filter(|local| local.slice.is_over(local.seat, now));
            over.inspect(|local| local.note_yielded()).is_some()
        })
    }

    /// Makes a worker pass through its cycle once more before it parks.
    pub(crate) fn kick(&self, worker: WorkerId) {
        self.kick_seat(self.seat_of(worker));
    }

    pub(super) fn kick_seat(&self, seat: SeatId) {
        if self.sleepers.wake_this(seat.index()) {
            self.machine.unpark(seat);
        }
    }

    fn unpark(&self, seat: usize) {
        self.machine.unpark(SeatId::new(seat as u16));
    }

    /// Makes every worker pass through its cycle, parked or not.
    pub fn kick_all(&self) {
        for index in 0..self.seats.len() {
            self.kick_seat(SeatId::new(index as u16));
        }
    }

    /// Ends a policy: the first report wins, and from this call on new work runs under the built-in FIFO.
    pub(crate) fn end_policy(&self, generation: &Arc<Generation>, info: ExitInfo) {
        if generation.claim_exit(info) {
            self.withdraw(generation);
            self.machine.policy_ended();
        }
    }
}
