//! A driver slot: one `current_thread` tokio runtime that gives us sockets and timers, and nothing else.
//!
//! Not a scheduler: polity's tasks are polled outside of it. What libraries start with `tokio::spawn` does run here,
//! outside the policy (*foreign tasks*); it is counted and served, and that is all.
//!
//! Workers call it, holding no lock, on threads that have [`Driver::handle`] entered and are not inside a `block_on`
//! (tokio panics there; the slot survives that). Whoever takes the [`Seat`] drives; the others do not wait for it.
//! Wakers run inside [`Seat::drive`] and [`Seat::park`], on the thread that is seated. Those of our tasks do not panic. A
//! foreign one may (somebody polled a timer by hand): a panic that leaves tokio's event loop takes its driver along (tokio:
//! "driver missing"). Then the slot is given up, once and for all, and workers go on without I/O and timers.
//!
//! Invariant: a thread in [`Seat::park`] leaves it after every [`Driver::interrupt`] that was aimed at it, and after
//! the driver turn in which [`Driver::interrupt_local`] was called. It may also leave for nothing; then it parks again.
//!
//! Rejected: followers that wait inside tokio's `block_on` (each hand-over of the driver costs a futex). A `Notify` or
//! `AtomicWaker` per park: the waker of `block_on` is the same one for the life of a runtime, so [`Driver::new`] takes
//! it once, and tests that it works. A hook on tokio's unpark: ends parks in which nothing of ours was woken. A timerfd
//! as alarm: needs `unsafe`; a `Sleep` that is kept costs a compare-and-swap when its deadline moves back.
//!
//! # Protocol: park and interrupt
//!
//! `worker` is the state word of the worker, owned by the caller; `signal` is ours. Worker:
//!
//! * **Sit**: `try_seat` succeeds. If not, park elsewhere, never having announced.
//! * **Announce**: `worker`: EMPTY → PARKED_DRIVER by compare-and-swap, release. If it fails (NOTIFIED), give the seat
//!   up. Then look at the queues once more, as before every park.
//! * **Doze**: `park` is polled for the first time: `signal |= ASLEEP`. If INTERRUPTED was there, it ends at once.
//! * **Leave**: `signal = 0`, then the seat is given up, then `worker` is swapped to EMPTY.
//!
//! Whoever unparks it: **Notify**: `worker` is swapped to NOTIFIED; if PARKED_DRIVER was there, **Interrupt**:
//! `signal |= INTERRUPTED`, and if ASLEEP was there, **Ring**: wake the future that tokio blocks on.
//!
//! Doze and Interrupt write one word, so one of them is first. Doze first: Interrupt sees ASLEEP and rings, after tokio
//! has reset its own flag for the poll that is Doze; so the ring is not swallowed and the future is polled again.
//! Interrupt first: Doze sees INTERRUPTED. There is no third case, and no ring without a sleeper (an `eventfd` write).
//!
//! The race that makes Sit come before Announce: A leaves and stores `signal = 0` while B, not yet seated, is already
//! PARKED_DRIVER and being interrupted. The store would swallow what was meant for B, and B would doze. With the order
//! above, A's Leave happens before B's Sit, B's Announce, and so before any Interrupt that is meant for B.
//! An Interrupt that comes late (its worker left for another reason) ends the next park for nothing. That is allowed.

mod budget;

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeMetrics};
use tokio::time::{Instant, Sleep};

pub(crate) use budget::Budget;

use crate::foreign;
use crate::sys::affinity;

/// Bit of [`Driver::signal`]: the seated thread's park has been polled; only a ring can end it now.
const ASLEEP: u8 = 1;
/// Bit of [`Driver::signal`]: the park that sees this, now or next, ends.
const INTERRUPTED: u8 = 2;

/// One driver slot, shared by the workers.
pub(crate) struct Driver {
    /// The slot, and the try-lock for it; empty after [`Driver::shutdown`]. Nobody ever blocks on this lock.
    slot: Mutex<Option<Slot>>,
    /// What others than the seated thread use; empty after [`Driver::shutdown`]. Written once, then.
    outside: RwLock<Option<Outside>>,
    /// `ASLEEP` and `INTERRUPTED`; see the protocol.
    signal: AtomicU8,
    /// A task was woken on the seated thread during its park. Only that thread reads or writes it.
    woken_here: AtomicBool,
}

/// All keep tokio's two descriptors open, so they must not outlive a shutdown: the machine does.
struct Outside {
    /// What wakes the future that the runtime blocks on, whichever thread that is on.
    bell: Waker,
    /// The handle of the runtime.
    handle: Handle,
    /// Kept, because asking the handle for them costs a reference count.
    metrics: RuntimeMetrics,
}

/// What the seat protects.
struct Slot {
    /// Ends timed parks. Pinned once and refilled in place, so that no park allocates; `None` when not in use.
    alarm: Pin<Box<Option<Sleep>>>,
    /// The event loop, the timers, the pool for blocking calls.
    runtime: Runtime,
}

/// Why a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// [`Driver::interrupt`] was called, perhaps for a worker that has left since.
    Interrupted,
    /// [`Driver::interrupt_local`] was called: an event woke tasks on this thread.
    Woken,
    /// The timeout passed.
    TimedOut,
}

impl Driver {
    /// Starts a slot. Must not be called inside a `block_on`.
    ///
    /// `max_blocking_threads` bounds the pool behind tokio's `spawn_blocking`, which starts threads when it needs them
    /// and names them `blocking_thread_name`; tokio's own limit, 512, if `None`. Zero is an error.
    pub(crate) fn new(
        max_blocking_threads: Option<usize>,
        blocking_thread_name: &str,
    ) -> io::Result<Driver> {
        let mut builder = Builder::new_current_thread();
        // Pool threads are started by whichever worker asks, and must not stay on that worker's core.
        builder
            .enable_all()
            .thread_name(blocking_thread_name)
            .on_thread_start(affinity::restore)
            // One that is spawned while a worker is parked here runs inside that park, which may go on for ever.
            .on_thread_unpark(foreign::look);
        match max_blocking_threads {
            Some(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the driver needs at least one thread for blocking calls",
                ));
            }
            Some(max) => drop(builder.max_blocking_threads(max)),
            None => {}
        }
        let runtime = builder.build()?;
        let bell = runtime.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
        if !rings(&bell, &runtime) {
            return Err(io::Error::other(
                "this version of tokio makes a new waker for each block_on; polity cannot park in its driver",
            ));
        }
        Ok(Driver {
            outside: RwLock::new(Some(Outside {
                bell,
                handle: runtime.handle().clone(),
                metrics: runtime.handle().metrics(),
            })),
            slot: Mutex::new(Some(Slot {
                alarm: Box::pin(None),
                runtime,
            })),
            signal: AtomicU8::new(0),
            woken_here: AtomicBool::new(false),
        })
    }

    /// The tokio handle that workers keep entered for their thread's life, so that sockets and timers find this slot.
    /// `None` after a shutdown.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let outside = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        outside.as_ref().map(|outside| outside.handle.clone())
    }

    fn ring(&self) {
        let outside = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outside) = &*outside {
            outside.bell.wake_by_ref();
        }
    }

    /// One zero-timeout round, if nobody is seated: about 60 foreign tasks, ready sockets, due timers.
    /// `true`: we drove. `false`: somebody else drives, or the slot is shut down.
    #[cfg(test)]
    pub(crate) fn drive(&self) -> bool {
        match self.try_seat() {
            Some(mut seat) => {
                seat.drive();
                true
            }
            None => false,
        }
    }

    /// The right to drive, if nobody has it. `None`: somebody has, or the slot is shut down; park elsewhere.
    ///
    /// A worker that wants to park here announces that only *after* it is seated; the module's docs say why.
    pub(crate) fn try_seat(&self) -> Option<Seat<'_>> {
        let slot = match self.slot.try_lock() {
            Ok(slot) => slot,
            // Somebody's waker panicked on the way through. The mutex is only a try-lock to us; if the slot is really
            // broken, tokio says so on its next turn.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        slot.is_some().then_some(Seat { driver: self, slot })
    }

    /// Ends the park of the worker that is seated, from any thread; if none is parked, the next park ends at once.
    ///
    /// Costs one RMW, and an `eventfd` write only if the seated worker is asleep. Calls do not add up.
    pub(crate) fn interrupt(&self) {
        // Ordering: Release pairs with the Acquire of both accesses in `Doze::poll`; what we did before is visible to
        // the worker that leaves. Acquire pairs with the Release of `ASLEEP` in the same place: our ring comes after
        // tokio's reset of its own flag, so that it is not taken for the one that led to that poll.
        let before = self.signal.fetch_or(INTERRUPTED, AcqRel);
        // Also if somebody interrupted before us: he may have been preempted between this word and his ring.
        if before & ASLEEP != 0 {
            self.ring();
        }
    }

    /// Ends the park of *this* thread after the driver turn that it is in. Called by wakers that run inside
    /// [`Seat::park`], and only there: a call from another thread may be lost, or cost a later wake its effect.
    ///
    /// The first call of a park is one RMW inside tokio and no system call, the following ones are a load.
    pub(crate) fn interrupt_local(&self) {
        // Ordering: Relaxed, its partners are on this thread; the seat's lock hands the word to the next.
        if !self.woken_here.load(Relaxed) {
            self.woken_here.store(true, Relaxed);
            // An event alone does not make `block_on` poll its future again. On the thread that drives, this wake sets
            // a flag and writes no `eventfd`.
            self.ring();
        }
    }

    /// How many tasks live on tokio's side, started by libraries through `tokio::spawn`. Once a round, and not once a poll.
    pub(crate) fn foreign_tasks(&self) -> usize {
        let outside = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        { outside.as_ref() }.map_or(0, |outside| outside.metrics.num_alive_tasks())
    }

    /// Drops foreign tasks, sockets' registrations and timers, and gives blocking calls up to `timeout` to end (none if
    /// `None`). From then on nobody gets the seat. `false`: somebody is seated, nothing was done; join the workers first,
    /// or leave it to `drop`, which is a shutdown without timeout.
    ///
    /// Inside any tokio context (a task, a `block_on`, an entered handle) it never waits: blocking is not allowed there.
    pub(crate) fn shutdown(&self, timeout: Option<Duration>) -> bool {
        let slot = match self.slot.try_lock() {
            Ok(mut slot) => slot.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if let Some(slot) = slot {
            slot.shutdown(timeout);
        }
        *self.outside.write().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }
}

impl Drop for Driver {
    /// The last owner may be dropped by a task, where dropping a tokio runtime would panic.
    fn drop(&mut self) {
        let slot = self.slot.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot.take() {
            slot.shutdown(None);
        }
    }
}

impl Slot {
    /// See [`Driver::shutdown`].
    fn shutdown(self, timeout: Option<Duration>) {
        drop(self.alarm);
        match timeout {
            // tokio panics if it has to wait in an async context, and offers no question that is narrower than this.
            Some(timeout) if Handle::try_current().is_err() => {
                self.runtime.shutdown_timeout(timeout);
            }
            _ => self.runtime.shutdown_background(),
        }
    }
}

/// The right to drive a slot, until dropped.
pub(crate) struct Seat<'a> {
    driver: &'a Driver,
    slot: MutexGuard<'a, Option<Slot>>,
}

impl Seat<'_> {
    /// One zero-timeout round: about 60 foreign tasks, ready sockets, due timers.
    pub(crate) fn drive(&mut self) {
        let (_, runtime) = self.parts();
        let mut driven = false;
        // A future that is woken while it is polled makes `block_on` ask the driver once, without waiting.
        runtime.block_on(poll_fn(|cx| {
            if driven {
                return Poll::Ready(());
            }
            driven = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
    }

    /// Blocks in the driver until interrupted, or until `timeout` passed (`None`: no limit). Foreign tasks, sockets and
    /// timers are served meanwhile; if it ends at once, they may not be. tokio's timers round up to a millisecond, and
    /// up to 61 polls of runnable foreign tasks come before an interrupt is looked at.
    pub(crate) fn park(&mut self, timeout: Option<Duration>) -> Parked {
        let driver = self.driver;
        let (mut alarm, runtime) = self.parts();
        // A deadline beyond the end of the clock is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if deadline.is_none() && alarm.is_some() {
            // The alarm of an earlier park must not ring in this one.
            alarm.set(None);
        }
        driver.woken_here.store(false, Relaxed);
        let _leave = Leave(&driver.signal);
        runtime.block_on(Doze {
            driver,
            alarm,
            deadline,
            polled: false,
        })
    }

    /// After a panic came out of this seat: keeps the slot if it still works.
    pub(crate) fn recover(mut self) -> Recovered {
        if catch_unwind(AssertUnwindSafe(|| self.drive())).is_ok() {
            return Recovered::Whole;
        }
        if let Some(slot) = self.slot.take() {
            // What is left of it may panic again.
            let result = catch_unwind(AssertUnwindSafe(|| slot.shutdown(None)));
            std::mem::forget(result);
        }
        Recovered::Lost
    }

    /// What the seat gives access to.
    fn parts(&mut self) -> (Pin<&mut Option<Sleep>>, &Runtime) {
        let slot = self.slot.as_mut();
        let slot = slot.expect("a seat is given out only while its slot lives");
        (slot.alarm.as_mut(), &slot.runtime)
    }
}

/// What became of a slot after a panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recovered {
    Whole,
    Lost,
}

/// The event Leave, on every way out of a park, unwinding included.
struct Leave<'a>(&'a AtomicU8);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // Ordering: Relaxed. An interrupt that is overwritten here was meant for this park, which ends anyway; its
        // message travels in the worker's state word. One that is meant for the next park comes after that worker's
        // Announce, and so after the release of the seat that follows this store.
        self.0.store(0, Relaxed);
    }
}

/// The future of [`Seat::park`]. tokio polls it once on entry, and then only after a ring, an alarm, or for nothing.
struct Doze<'a> {
    driver: &'a Driver,
    alarm: Pin<&'a mut Option<Sleep>>,
    deadline: Option<Instant>,
    polled: bool,
}

impl Future for Doze<'_> {
    type Output = Parked;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Parked> {
        let first = !self.polled;
        self.polled = true;
        // Ordering: Acquire pairs with the Release in `Driver::interrupt`, for what the interrupter did before. Release
        // of the first pairs with its Acquire: who sees ASLEEP rings after the reset that tokio did before this poll.
        // The second need not be a RMW: the ring that led to it was given after the bit was set, and a ring that is
        // still to come leads to another poll.
        let signal = if first {
            self.driver.signal.fetch_or(ASLEEP, AcqRel)
        } else {
            self.driver.signal.load(Acquire)
        };
        if signal & INTERRUPTED != 0 {
            return Poll::Ready(Parked::Interrupted);
        }
        // Ordering: Relaxed, same thread; see `Driver::interrupt_local`.
        if self.driver.woken_here.load(Relaxed) {
            return Poll::Ready(Parked::Woken);
        }
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        if first {
            // A new or earlier alarm makes tokio write the eventfd, even from here: one empty turn. Moving the alarm of
            // an earlier park back is free of that, which is why it is kept.
            match self.alarm.as_mut().as_pin_mut() {
                Some(alarm) => alarm.reset(deadline),
                None => self.alarm.set(Some(tokio::time::sleep_until(deadline))),
            }
        }
        match self.alarm.as_mut().as_pin_mut() {
            Some(alarm) => alarm.poll(cx).map(|()| Parked::TimedOut),
            None => Poll::Pending,
        }
    }
}

/// Whether `bell`, taken in an earlier `block_on`, wakes the future of a new one. It does as long as tokio makes that
/// waker from the runtime and not from the call; that is no promise of tokio's, so it is looked at.
fn rings(bell: &Waker, runtime: &Runtime) -> bool {
    runtime.block_on(async {
        // Only if it does not ring is this waited for; long, because a loaded machine may not run us meanwhile.
        let mut patience = pin!(tokio::time::sleep(Duration::from_secs(5)));
        let mut rung = false;
        poll_fn(|cx| {
            if rung {
                return Poll::Ready(patience.as_mut().poll(cx).is_pending());
            }
            rung = true;
            let pending = patience.as_mut().poll(cx).is_pending();
            bell.wake_by_ref();
            if pending {
                Poll::Pending
            } else {
                Poll::Ready(false)
            }
        })
        .await
    })
}

#[cfg(test)]
mod tests;
