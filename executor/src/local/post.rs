//! Letters to the thread on which a local task's future lies. The protocol is in [`local`](super).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use polity_core::{AbortHandle, Core, Machine, Scope, SeatId};
use polity_policy::WorkerId;

use crate::machine::RealMachine;
use crate::spares::Spares;

/// Names a future of one thread. Not used twice by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key(pub(super) u64);

/// What the two halves of a local task share, wherever they are.
#[derive(Debug)]
pub(super) struct Link {
    /// The worker on which the proxy runs.
    pub(super) worker: WorkerId,
    /// What the task's children inherit. Not from the task itself: that it is bound is no wish of its author's.
    pub(super) scope: Scope,
    /// How the future has ended, if it did so without the proxy.
    ended: Mutex<Option<Ended>>,
    abort: Arc<OnceLock<AbortHandle>>,
}

/// How a future ended: with its output where it belongs, or with what it panicked with.
pub(super) type Ended = std::thread::Result<()>;

impl Link {
    /// `abort` is filled in when the task is spawned.
    pub(super) fn new(worker: WorkerId, scope: Scope, abort: Arc<OnceLock<AbortHandle>>) -> Self {
        Link {
            worker,
            scope,
            ended: Mutex::new(None),
            abort,
        }
    }

    fn ended(&self) -> MutexGuard<'_, Option<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_ended(&self, ended: Ended) {
        *self.ended() = Some(ended);
    }

    pub(super) fn take_ended(&self) -> Option<Ended> {
        self.ended().take()
    }

    /// Ends the task: its future is gone, or nobody can poll it any more.
    pub(super) fn abort(&self) {
        // Not filled in: the task is being spawned by the very thread that ends, or is refused by a runtime that closes.
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }
}

/// What another thread has to say about a future that lies here.
#[derive(Debug)]
pub(super) enum Letter {
    /// Its proxy was polled.
    Polled(Polled),
    /// Its proxy was dropped.
    Dropped(Key),
}

#[derive(Debug)]
pub(super) struct Polled {
    pub(super) key: Key,
    pub(super) link: Arc<Link>,
    /// The proxy's.
    pub(super) waker: Waker,
    pub(super) time: Time,
}

/// How often in a row the proxy was polled by another thread than its future's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Time {
    First,
    Again,
}

/// The thread has left for good.
#[derive(Debug)]
pub(super) struct Closed;

/// The letter box of one thread.
pub(super) struct Home {
    core: &'static Core<RealMachine>,
    spares: Arc<Spares>,
    seat: SeatId,
    has_mail: AtomicBool,
    mail: Mutex<Mail>,
}

#[derive(Debug, Default)]
struct Mail {
    letters: Vec<Letter>,
    closed: bool,
}

impl Home {
    /// Of the thread that sits in `seat`, or waits to.
    pub(super) fn new(
        core: &'static Core<RealMachine>,
        spares: Arc<Spares>,
        seat: SeatId,
    ) -> Arc<Home> {
        Arc::new(Home {
            core,
            spares,
            seat,
            has_mail: AtomicBool::new(false),
            mail: Mutex::default(),
        })
    }

    pub(super) fn core(&self) -> &'static Core<RealMachine> {
        self.core
    }

    pub(super) fn seat(&self) -> SeatId {
        self.seat
    }

    // Held for a few moves, never over foreign code.
    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From any thread.
    pub(super) fn post(&self, letter: Letter) -> Result<(), Closed> {
        let mut mail = self.mail();
        if mail.closed {
            return Err(Closed);
        }
        mail.letters.push(letter);
        // Ordering: Relaxed; the nudges order it before the look that they cause. (Post)
        self.has_mail.store(true, Ordering::Relaxed);
        drop(mail);
        // (Nudge) The thread may be anything by now, and what is in vain is cheap.
        self.core.machine().unpark(self.seat);
        self.spares.nudge();
        Ok(())
    }

    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        // Ordering: Relaxed; see `post`. (Look)
        self.has_mail.load(Ordering::Relaxed)
    }

    pub(super) fn take_letters(&self) -> Vec<Letter> {
        let mut mail = self.mail();
        self.has_mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut mail.letters)
    }

    /// From now on nothing is accepted.
    pub(super) fn close(&self) {
        let mut mail = self.mail();
        mail.closed = true;
        // The futures that they are about are gone, or about to be.
        mail.letters.clear();
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}
