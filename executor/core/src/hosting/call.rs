//! The only door to a policy. Called by workers between polls, and by control's disposable threads for `init` and
//! `exit`, never with a core lock held.
//!
//! Not a place for scheduling decisions: those are the policy's.
//!
//! **Invariant.** A panic does not pass the door. When a call returns `Verdict::Stands`, its generation had not ended
//! by then; otherwise what it said is dropped. After `Verdict::Revoked` the thread has no task in its hands any more
//! (`seat/call_word.rs`). Calls that name one worker never overlap, also while a stand-in does its work: they take turns.
//!
//! A batch costs one virtual call: the adapter (`adapter.rs`), which knows the policy's type, loops over the tasks inside.
//!
//! Rejected: a read lock around each call. A swap would wait for a slow policy, the thing it must be able to remove.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use polity_policy::{DequeueReason, ExitKind, Host, Stopped, TaskView};

use crate::WATCHED;
use crate::callback::Callback;
use crate::hosting::adapter::{Callbacks, Door, callback_for};
use crate::hosting::batch::{Departed, News};
use crate::hosting::host::HostCall;
use crate::hosting::panic_text;
use crate::machine::Machine;
use crate::seat::Place;

/// Whether what the policy said counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Verdict {
    Stands,
    /// The policy ended during the call, or before.
    Dropped,
    /// The call took so long that somebody else has taken what this thread had in its hands. It must touch none of it.
    Revoked,
}

impl<M: Machine> HostCall<'_, M> {
    /// Steps through the door.
    #[inline]
    fn call(&self, callback: Callback, body: impl FnOnce(&dyn Callbacks, &Door<'_>)) -> Verdict {
        if self.generation.has_ended() {
            return Verdict::Dropped;
        }
        let activity = &self.local.seat.activity;
        // Orders the end of the poll before the look at `takes_turns`: see `Core::stand_in`.
        self.core.machine.light_fence();
        let in_turn = WATCHED && activity.takes_turns();
        if in_turn && !self.await_turn() {
            return Verdict::Dropped;
        }
        let before = activity.place();
        activity.set_place(Place::Callback(callback));
        let call = activity.call.enter();
        let door = Door {
            host: &Host::new(self),
            activity,
            ended: &|| self.generation.has_ended(),
            unwritten: self.generation.unwritten.known(),
        };
        let mut panicked = false;
        let result = catch_unwind(AssertUnwindSafe(|| {
            body(&*self.generation.callbacks, &door)
        }));
        if let Err(payload) = result {
            let note = self.core.machine.take_panic_note();
            let first = self.is_first_panic();
            let mut message = panic_text(&*payload);
            if let Some(location) = note.as_ref().and_then(|note| note.location.as_ref()) {
                message = format!("{message} (at {location})");
            }
            if first {
                self.end_with(
                    ExitKind::Panic,
                    0,
                    &message,
                    note.map(|note| note.backtrace),
                );
            }
            activity.set_panic(0);
            panicked = true;
            // Not dropped: its drop may panic too, and nobody would learn anything from that.
            mem::forget(payload);
        } else if activity.panic() != 0 {
            // One that the policy has caught itself.
            activity.set_panic(0);
        }
        let ours = activity
            .call
            .leave(call, || self.core.machine.light_fence());
        activity.set_place(before);
        if !ours {
            self.notes.revoked.set(true);
            return Verdict::Revoked;
        }
        if in_turn {
            self.core.placed(self.local.id).end_turn(self.local.seat_id);
        }
        if panicked || self.generation.has_ended() {
            Verdict::Dropped
        } else {
            Verdict::Stands
        }
    }

    /// Whether no other callback of this policy began to panic before this one did and is unwinding still. A lock that the
    /// first one has poisoned on its way out makes others panic, whose unwinding may be faster; the first one is the report.
    #[cold]
    fn is_first_panic(&self) -> bool {
        let activity = &self.local.seat.activity;
        let (ours, follows) = (activity.panic(), activity.follows());
        let mut others = self.core.seats.iter().map(|seat| &seat.activity);
        !others.any(|other| {
            let theirs = other.panic();
            theirs != 0 && theirs < ours && other.follows() == follows
        })
    }

    /// Waits until the other thread that does this worker's work is out of its callback; it is stuck for ever only in a
    /// policy that is ejected for it. `false`: that is what has happened.
    #[cold]
    fn await_turn(&self) -> bool {
        let placed = self.core.placed(self.local.id);
        while !placed.take_turn(self.local.seat_id) {
            if self.generation.has_ended() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Offers the batch in the notes.
    pub(crate) fn offer(&self) -> Verdict {
        let seat = self.local.seat;
        seat.set_offered(self.notes.batch.len());
        // Of tasks that a bypass had taken.
        if self.tell_departed() == Verdict::Revoked {
            seat.set_offered(0);
            return Verdict::Revoked;
        }
        let verdict = self.call(Callback::Enqueue, |policy, door| {
            policy.offer(door, self.notes);
        });
        seat.set_offered(0);
        seat.activity.set_task(None);
        verdict
    }

    /// One round of `dispatch`, and the `dequeue`s that follow from it.
    pub(crate) fn ask_for_work(&self, prev: Option<&TaskView<'_>>) -> Verdict {
        self.notes.progress.set(false);
        let verdict = self.call(Callback::Dispatch, |policy, door| {
            policy.dispatch(door, self.local.id, prev);
        });
        if verdict == Verdict::Revoked {
            return verdict;
        }
        let told = self.tell_departed();
        if told == Verdict::Revoked {
            return told;
        }
        self.carry_out_claims();
        if told == Verdict::Dropped {
            told
        } else {
            verdict
        }
    }

    /// The time has come that the policy had set for this worker.
    pub(crate) fn tell_time(&self) -> Verdict {
        self.call(Callback::Timer, |policy, door| {
            policy.timer(door, self.local.id);
        })
    }

    /// Tells the policy which tasks have left its custody since.
    pub(crate) fn tell_departed(&self) -> Verdict {
        if self.notes.departed.borrow().is_empty() {
            return Verdict::Stands;
        }
        // Taken out, so that no borrow is held over foreign code; put back empty, to keep its memory.
        let mut departed = self.notes.departed.take();
        let activity = &self.local.seat.activity;
        let about = activity.task();
        let verdict = self.call(Callback::Dequeue, |policy, door| {
            policy.dequeue(door, &departed);
        });
        activity.set_task(about);
        departed.clear();
        self.notes.departed.replace(departed);
        verdict
    }

    /// An aborted task that the policy knew as runnable: it has left custody, if it was in it, and wants nothing more.
    pub(crate) fn tell_cancelled(&self, task: &TaskView<'static>, left_custody: bool) -> Verdict {
        if left_custody {
            self.notes.departed.borrow_mut().push(Departed {
                view: *task,
                reason: DequeueReason::Cancelled,
            });
            if self.tell_departed() == Verdict::Revoked {
                return Verdict::Revoked;
            }
        }
        self.call(Callback::Quiescent, |policy, door| {
            policy.cancelled(door, task);
        })
    }

    /// In a bypass there is no offer, which would say so.
    pub(crate) fn tell_runnable(&self, task: &TaskView<'_>, news: News) -> Verdict {
        self.call(Callback::Runnable, |policy, door| {
            policy.runnable(door, task, news);
        })
    }

    /// A bypass, or a change of affinity, has taken this task out of custody.
    pub(crate) fn tell_taken(&self, task: &TaskView<'static>, reason: DequeueReason) -> Verdict {
        self.notes.departed.borrow_mut().push(Departed {
            view: *task,
            reason,
        });
        self.tell_departed()
    }

    /// Tells the changes in the notes. There is one at least.
    pub(crate) fn tell_changed(&self) -> Verdict {
        let first = match self.notes.changed.first() {
            Some(told) => callback_for(told.what),
            None => return Verdict::Stands,
        };
        let activity = &self.local.seat.activity;
        let verdict = self.call(first, |policy, door| {
            policy.changed(door, &self.notes.changed);
        });
        activity.set_task(None);
        verdict
    }

    pub(crate) fn tell_running(&self, task: &TaskView<'_>) -> Verdict {
        self.call(Callback::Running, |policy, door| policy.running(door, task))
    }

    pub(crate) fn tell_stopped(&self, task: &TaskView<'_>, stopped: Stopped) -> Verdict {
        self.call(Callback::Stopping, |policy, door| {
            policy.stopping(door, task, stopped);
        })
    }

    /// The task ends, and the policy, which has met it, does not know it as runnable.
    pub(crate) fn tell_parted(&self, task: &TaskView<'_>) -> Verdict {
        self.call(Callback::ExitTask, |policy, door| {
            policy.exit_task(door, task)
        })
    }
}
