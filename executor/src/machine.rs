//! The real machine: a clock, and a parker for each worker.
//!
//! Not the parking policy: who parks, and for how long, is decided in core. A worker parks in the driver if nobody else
//! sits there, else on its thread's own futex (`std::thread::park`).
//!
//! # Parker
//!
//! One word: EMPTY, PARKED (thread), PARKED_DRIVER, NOTIFIED. Events: *Announce* (worker: EMPTY → PARKED by
//! compare-and-swap), *Notify* (anybody: swap to NOTIFIED), *Leave* (worker: swap to EMPTY). Both write one word with
//! read-modify-writes, so one comes first: Announce first, and Notify sees PARKED and ends the block; Notify first, and
//! Announce fails and the worker does not block. A `thread::unpark` token that arrives late makes a later
//! `thread::park` return for nothing: ours looks at the word again, and others must expect that by its contract.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use polity_core::{Local, Machine, OsThread, PanicNote, Park, Scope, SeatId, ThreadState, Worker};

use crate::context;
use crate::control::Request;
use crate::driver::{self, Budget, Driver, Parked, Recovered};
use crate::foreign;
use crate::panics;
use crate::report::{self, Report};
use crate::sys::{fence, thread as sys_thread, tls};

const EMPTY: u8 = 0;
const PARKED: u8 = 1;
const PARKED_DRIVER: u8 = 2;
const NOTIFIED: u8 = 3;

/// See the [module](self). Lives as long as its core: for ever. What costs file descriptors is given up at the end of
/// the runtime by [`Driver::shutdown`].
pub(crate) struct RealMachine {
    started: Instant,
    parkers: Box<[Parker]>,
    pub(crate) driver: Driver,
    /// The kernel fences all threads for us.
    membarrier: bool,
    pub(crate) watchdog: OnceLock<Thread>,
    control: Sender<Request>,
    pub(crate) said_foreign: foreign::SaidFor,
}

#[derive(Default)]
#[repr(align(128))] // written by other threads; neighbours should not notice
struct Parker {
    word: AtomicU8,
    /// Who sits there: for reports on threads that are stuck.
    id: AtomicI32,
    thread: Mutex<Option<Thread>>,
    /// Local tasks whose futures lie on that thread: for the same reports.
    bound_tasks: AtomicUsize,
}

impl RealMachine {
    /// With so many seats.
    pub(crate) fn new(seats: usize, driver: Driver, control: Sender<Request>) -> Self {
        RealMachine {
            started: now(),
            parkers: (0..seats).map(|_| Parker::default()).collect(),
            driver,
            membarrier: fence::register(),
            watchdog: OnceLock::new(),
            control,
            said_foreign: foreign::SaidFor::default(),
        }
    }

    /// This thread sits in `seat` from now on.
    pub(crate) fn adopt(&self, seat: SeatId) {
        let parker = &self.parkers[seat.index()];
        // Ordering: Relaxed; read by the watchdog only.
        parker.id.store(sys_thread::current(), Ordering::Relaxed);
        *parker.thread() = Some(thread::current());
    }

    /// The id of the thread that sat down there last.
    pub(crate) fn thread_in(&self, seat: SeatId) -> Option<i32> {
        // Ordering: Relaxed, as in `adopt`.
        let id = self.parkers[seat.index()].id.load(Ordering::Relaxed);
        (id != 0).then_some(id)
    }

    /// How many local tasks are bound to the thread there. A sample.
    pub(crate) fn bound_tasks(&self, seat: SeatId) -> usize {
        // Ordering: Relaxed, as in `adopt`.
        self.parkers[seat.index()]
            .bound_tasks
            .load(Ordering::Relaxed)
    }

    /// By that thread.
    pub(crate) fn set_bound_tasks(&self, seat: SeatId, count: usize) {
        // Ordering: Relaxed, as in `adopt`.
        self.parkers[seat.index()]
            .bound_tasks
            .store(count, Ordering::Relaxed);
    }

    /// Blocks `worker`, whose thread this is.
    pub(crate) fn park(&self, worker: &mut Worker<RealMachine>, park: Park) {
        let parker = &self.parkers[worker.local().seat().index()];
        let [watch, timer] = [park.watch_ns, park.timer_ns].map(|ns| ns.map(Duration::from_nanos));
        let timed_out = match self.driver.try_seat() {
            Some(seat) if timer.is_some_and(|timer| timer <= COARSE) => {
                drop(seat);
                worker.unparked(parker.park(timer.map(|timer| timer.min(NAP))));
                return self.drive(worker);
            }
            // Sit comes before Announce (`driver/mod.rs`).
            Some(mut seat) => {
                foreign::look();
                let announced = parker.announce(PARKED_DRIVER);
                let parked = announced.then(|| {
                    worker.enter_driver();
                    let timer = timer.map(|timer| timer - COARSE);
                    let timeout = watch.into_iter().chain(timer).min();
                    let parked = catch_unwind(AssertUnwindSafe(|| seat.park(timeout)));
                    worker.leave_driver();
                    parked
                });
                let timed_out = match parked {
                    Some(Err(payload)) => {
                        mend(seat, payload);
                        false
                    }
                    Some(Ok(parked)) => parked == Parked::TimedOut,
                    None => false,
                };
                parker.leave();
                timed_out
            }
            None => parker.park(watch.into_iter().chain(timer).min()),
        };
        worker.unparked(timed_out);
    }

    /// One zero-timeout round of the driver, if nobody sits there.
    pub(crate) fn drive(&self, worker: &mut Worker<RealMachine>) {
        let Some(mut seat) = self.driver.try_seat() else {
            return;
        };
        foreign::look();
        worker.enter_driver();
        let driven = catch_unwind(AssertUnwindSafe(|| seat.drive()));
        worker.leave_driver();
        if let Err(payload) = driven {
            mend(seat, payload);
        }
    }
}

/// By so much a park in the driver may be too long: tokio rounds up to a millisecond, and so does what it waits in. The last
/// bit before a policy's timer is spent in naps outside, with a look at the driver after each.
const COARSE: Duration = Duration::from_millis(2);
/// How long sockets wait meanwhile, at most.
const NAP: Duration = Duration::from_micros(250);

/// A foreign waker has panicked inside the driver.
#[cold]
fn mend(seat: driver::Seat<'_>, payload: Box<dyn Any + Send>) {
    // Not dropped: its drop may panic too.
    std::mem::forget(payload);
    let text = match seat.recover() {
        Recovered::Whole => {
            "a waker panicked inside the I/O and timer driver, which has survived it"
        }
        Recovered::Lost => {
            "a waker that is not a task's panicked inside tokio's event loop, and took the I/O and timer driver of this \
             runtime with it: tasks go on, sockets and timers do not"
        }
    };
    report::send(Report::Warn(text.to_owned()));
}

/// The only clock of the project, but for tokio's.
#[expect(clippy::disallowed_methods, reason = "this is the machine")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

impl Parker {
    /// Held for a clone or an unpark; changed when a spare thread is replaced.
    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, as_what: u8) -> bool {
        // Ordering: Release pairs with the Acquire in `unpark`: the seat that we took in the driver comes first.
        // Acquire on failure pairs with its Release: what the notifier did is visible.
        self.word
            .compare_exchange(EMPTY, as_what, Ordering::Release, Ordering::Acquire)
            .is_ok()
    }

    fn leave(&self) -> u8 {
        // Ordering: Acquire pairs with the Release in `unpark`.
        self.word.swap(EMPTY, Ordering::AcqRel)
    }

    /// `true`: nobody called, the time was up.
    fn park(&self, timeout: Option<Duration>) -> bool {
        if !self.announce(PARKED) {
            self.leave();
            return false;
        }
        match timeout {
            // Once: a token of somebody else's ends the wait early, and the worker just looks around a bit sooner.
            Some(timeout) => thread::park_timeout(timeout),
            None => {
                // Ordering: Acquire pairs with the Release in `unpark`.
                while self.word.load(Ordering::Acquire) == PARKED {
                    thread::park();
                }
            }
        }
        self.leave() != NOTIFIED
    }
}

impl Machine for RealMachine {
    fn now(&self) -> u64 {
        now().duration_since(self.started).as_nanos() as u64
    }

    fn at(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_nanos() as u64
    }

    #[inline]
    fn open_scope(&self) -> Option<Scope> {
        context::open_scope()
    }

    fn unpark(&self, seat: SeatId) {
        let parker = &self.parkers[seat.index()];
        // Ordering: Release pairs with the Acquire in `announce`, `park` and `leave`. Acquire pairs with the Release in
        // `announce`: an interrupt that follows comes after the worker's seat.
        match parker.word.swap(NOTIFIED, Ordering::AcqRel) {
            PARKED => {
                if let Some(thread) = &*parker.thread() {
                    thread.unpark();
                }
            }
            PARKED_DRIVER => self.driver.interrupt(),
            // Not parked: its next announcement fails.
            _ => {}
        }
    }

    #[inline]
    fn with_local<R>(&self, look: impl FnOnce(Option<&Local>) -> R) -> R {
        tls::with_local(look)
    }

    fn woken_in_driver(&self, _seat: SeatId) {
        self.driver.interrupt_local();
    }

    fn policy_ended(&self) {
        // After a shutdown nobody listens, and nothing needs to be done.
        let _ = self.control.send(Request::PolicyEnded);
    }

    #[inline]
    fn light_fence(&self) {
        fence::light(self.membarrier);
    }

    fn heavy_fence(&self) {
        fence::heavy(self.membarrier);
    }

    fn thread_in(&self, seat: SeatId) -> Option<OsThread> {
        self.thread_in(seat).map(|id| OsThread(id as u32))
    }

    fn threads(&self) -> Vec<OsThread> {
        let ids = sys_thread::others();
        ids.into_iter().map(|id| OsThread(id as u32)).collect()
    }

    fn processor_time(&self, thread: OsThread) -> Option<u64> {
        sys_thread::processor_time(thread.0 as i32)
    }

    fn stolen_time(&self) -> u64 {
        sys_thread::stolen_time().unwrap_or(0)
    }

    fn thread_state(&self, thread: OsThread) -> Option<ThreadState> {
        sys_thread::state(thread.0 as i32)
    }

    fn take_panic_note(&self) -> Option<PanicNote> {
        panics::take_note()
    }

    fn work_began(&self) {
        if let Some(watchdog) = self.watchdog.get() {
            watchdog.unpark();
        }
        // After a shutdown nobody listens, and nothing needs to be done.
        let _ = self.control.send(Request::WorkBegan);
    }

    fn foreign_tasks(&self) -> u64 {
        self.driver.foreign_tasks() as u64
    }

    #[inline]
    fn before_poll(&self, _seat: SeatId) {
        BUDGET.with_borrow_mut(|budget| {
            if let Some(budget) = budget {
                budget.refresh();
            }
        });
    }
}

thread_local! {
    /// tokio's cooperative budget of this worker.
    static BUDGET: std::cell::RefCell<Option<Budget>> = const { std::cell::RefCell::new(None) };
}

/// Gives tasks on this thread tokio's cooperative budget. `false`: tokio has changed, and they run without.
pub(crate) fn install_budget(driver: &Driver) -> bool {
    let budget = Budget::new(&driver.handle().expect("workers end before the driver"));
    let constrained = budget.is_constrained();
    BUDGET.set(Some(budget));
    constrained
}
