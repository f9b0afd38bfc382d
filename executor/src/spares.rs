//! Threads that wait to take over from workers that are stuck.
//!
//! They are created with the runtime: when one is needed, the system may have none to give. Each is bound to a seat and
//! sleeps until the watchdog assigns it. Not a pool for blocking work: that is the driver's.
//!
//! Called by the watchdog (`take`, `start`, `convicted`) and by the threads themselves (`wait`, `came_back`). One short lock,
//! never held over foreign code.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use polity_core::SeatId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Their threads wait.
    free: Vec<SeatId>,
    /// Their threads have been told to sit down, and have not noticed yet.
    assigned: Vec<SeatId>,
    /// Their threads are inside a callback that does not return.
    convicted: Vec<SeatId>,
    /// Their threads were back before anybody had heard of their conviction.
    back_early: Vec<SeatId>,
    closed: bool,
}

/// Why a spare does not wait any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// It is to sit down.
    Assigned,
    Mail,
    /// The runtime has ended.
    Closed,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the seat is assigned, or letters have come for futures that are bound to its thread (`local/`). It has not been
    /// promised to anybody then.
    pub(crate) fn wait(&self, seat: SeatId, has_mail: impl Fn() -> bool) -> Waited {
        let mut state = self.lock();
        state.free.push(seat);
        loop {
            if let Some(index) = state.assigned.iter().position(|other| *other == seat) {
                state.assigned.swap_remove(index);
                return Waited::Assigned;
            }
            if state.closed {
                return Waited::Closed;
            }
            // If it has been taken, what it is taken for comes next.
            if has_mail()
                && let Some(index) = state.free.iter().position(|other| *other == seat)
            {
                state.free.swap_remove(index);
                return Waited::Mail;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A seat whose thread waits: the lowest, so that thieves look into few.
    pub(crate) fn take(&self) -> Option<SeatId> {
        let mut state = self.lock();
        let (index, _) = state
            .free
            .iter()
            .enumerate()
            .min_by_key(|(_, seat)| seat.index())?;
        Some(state.free.swap_remove(index))
    }

    /// It is not needed after all.
    pub(crate) fn put_back(&self, seat: SeatId) {
        self.lock().free.push(seat);
        // It may have had mail meanwhile.
        self.changed.notify_all();
    }

    /// Somebody has mail. The flag that says so has been set.
    pub(crate) fn nudge(&self) {
        // Locked in between: a thread that has looked at the flag too early waits by now.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Lets the thread of a seat that was taken sit down.
    pub(crate) fn start(&self, seat: SeatId) {
        self.lock().assigned.push(seat);
        self.changed.notify_all();
    }

    /// The thread in this seat is stuck in a callback: nobody waits for it at the end. `demote` makes it less important; it
    /// is not called if the thread is back already.
    pub(crate) fn convicted(&self, seat: SeatId, demote: impl FnOnce()) {
        let mut state = self.lock();
        if let Some(index) = state.back_early.iter().position(|other| *other == seat) {
            state.back_early.swap_remove(index);
            return;
        }
        state.convicted.push(seat);
        // Under the lock, so that it does not come after the thread has promoted itself again.
        demote();
    }

    /// The callback has returned after all. On the thread that was convicted.
    pub(crate) fn came_back(&self, seat: SeatId) {
        let mut state = self.lock();
        match state.convicted.iter().position(|other| *other == seat) {
            Some(index) => drop(state.convicted.swap_remove(index)),
            None => state.back_early.push(seat),
        }
    }

    /// Threads inside callbacks that have not returned.
    pub(crate) fn stuck(&self) -> usize {
        self.lock().convicted.len()
    }

    pub(crate) fn is_stuck(&self, seat: SeatId) -> bool {
        self.lock().convicted.contains(&seat)
    }

    /// Ends the threads that wait.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}
