//! The thread "polity-watchdog", and who does its work when it cannot.
//!
//! What it finds out is decided in core (`polity_core::Watchdog`); here are the clock, the threads, and the reports. It
//! runs no policy code, no user hooks, no `tracing`, and takes no lock that those may hold.
//!
//! **Two more threads stand behind it.** When every thread of the runtime is stuck and no spare is left, the watchdog becomes a
//! worker itself, in a seat that is kept for that, and control does its duty meanwhile. And control looks once a second
//! whether the watchdog has ticked while there was something to watch; if not, it takes the duty over and says so. While nothing
//! runs, both sleep.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use polity_core::{Cause, Core, Finding, Machine, Next, Others, Pass, SeatId, Watchdog};
use polity_policy::WorkerId;

use crate::control::Request;
use crate::handle::Handle;
use crate::local::Resident;
use crate::machine::RealMachine;
use crate::pin::Holds;
use crate::report::{self, Report};
use crate::spares::Spares;
use crate::sys::{affinity, thread as sys_thread};
use crate::threads;

const BY_WATCHDOG: u8 = 0;
const BY_CONTROL: u8 = 1;

/// The duty, which one thread at a time does.
pub(crate) struct Watch {
    core: &'static Core<RealMachine>,
    dog: Mutex<Watchdog<RealMachine>>,
    holds: Mutex<Holds>,
    spares: Arc<Spares>,
    /// The seat that no spare has.
    last_seat: SeatId,
    duty: AtomicU8,
    /// Counts ticks.
    beat: AtomicU64,
    /// Nothing runs, so nobody ticks.
    asleep: AtomicBool,
    stopped: AtomicBool,
    /// A SIGCONT came: what has passed since the last tick is nobody's.
    continued: AtomicBool,
}

/// What the thread on duty does after a round.
pub(crate) enum AfterRound {
    Wait(Duration),
    /// Until something runs again.
    Sleep,
    /// Nobody else is left to do this worker's work.
    WorkFor(WorkerId, Cause),
}

/// What the watchdog's thread does when it has worked.
#[derive(PartialEq, Eq)]
enum AfterWork {
    Watch,
    End,
}

impl Watch {
    pub(crate) fn new(
        core: &'static Core<RealMachine>,
        spares: Arc<Spares>,
        last_seat: SeatId,
        hog_after: Duration,
        holds: Holds,
    ) -> Self {
        Watch {
            core,
            dog: Mutex::new(Watchdog::new(core, hog_after.as_nanos() as u64)),
            holds: Mutex::new(holds),
            spares,
            last_seat,
            duty: AtomicU8::new(BY_WATCHDOG),
            beat: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            continued: AtomicBool::new(false),
        }
    }

    /// Looks once, and sees to what it finds.
    pub(crate) fn round(&self) -> AfterRound {
        let mut dog = self.dog.lock().unwrap_or_else(PoisonError::into_inner);
        // Ordering, for `beat`, `asleep`, `duty`, `stopped` and `continued`: Relaxed; hints between two threads that look again soon.
        self.beat.fetch_add(1, Ordering::Relaxed);
        self.asleep.store(false, Ordering::Relaxed);
        if self.continued.swap(false, Ordering::Relaxed) {
            dog.rebase();
        }
        let (findings, next) = dog.tick();
        let machine = self.core.machine();
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.look(
            machine.now(),
            |worker| machine.thread_in(SeatId::new(worker as u16)),
            |change| report::send(Report::Debug(change)),
        );
        let mut last_resort = None;
        let mut exhausted = false;
        for finding in findings {
            match finding {
                Finding::Hog(hog) => report::send(Report::Hog(hog)),
                Finding::Stuck { seat, worker } => {
                    holds.forget(seat.index());
                    self.spares.convicted(seat, || {
                        if let Some(thread) = self.core.machine().thread_in(seat) {
                            // Not the idle class: it may hold a lock of the allocator.
                            sys_thread::set_nice(thread, 19);
                        }
                    });
                    let bound = self.core.machine().bound_tasks(seat);
                    if bound > 0 {
                        report::send(Report::Warn(format!(
                            "{bound} local tasks of worker {worker} wait for a thread that does not return from a policy's callback: no other one may run them (spawn_local)"
                        )));
                    }
                }
                Finding::NeedsStandIn {
                    worker,
                    cause,
                    others,
                } => {
                    if let Some(seat) = self.spares.take() {
                        if dog.seat(seat, worker, cause) {
                            self.spares.start(seat);
                        } else {
                            self.spares.put_back(seat);
                        }
                        continue;
                    }
                    exhausted = true;
                    // At the end of a runtime each worker has to leave, also one that has nobody.
                    if others == Others::AreStuckToo || self.core.is_closing() {
                        last_resort = Some((worker, cause));
                    }
                }
                _ => {}
            }
        }
        if dog.note_exhausted(exhausted) {
            report::send(Report::Warn(
                "a worker is stuck and no spare is left (Builder::spares): what waits on it goes on waiting".to_owned(),
            ));
        }
        if let Some((worker, cause)) = last_resort
            && self.core.is_vacant(self.last_seat)
            && self.duty.load(Ordering::Relaxed) == BY_WATCHDOG
        {
            return AfterRound::WorkFor(worker, cause);
        }
        match next {
            Next::After(ns) => AfterRound::Wait(Duration::from_nanos(ns)),
            Next::WhenWorkBegins => {
                self.asleep.store(true, Ordering::Relaxed);
                AfterRound::Sleep
            }
        }
    }

    /// For the thread in `seat`, which is about to block inside its poll: a spare does the rest of its worker's work from now
    /// on. If none is free, the next rounds see to it, by the rules for long polls.
    ///
    /// Not left to the watchdog's thread: whoever blocks has time, and waking two threads takes longer than waking one. The lock
    /// is held for a round at most, in which nothing waits.
    pub(crate) fn stand_in_for(&self, seat: SeatId) {
        let mut dog = self.dog.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(worker) = dog.serves(seat) else {
            return;
        };
        let Some(spare) = self.spares.take() else {
            return;
        };
        if dog.seat(spare, worker, Cause::InPlace) {
            self.spares.start(spare);
        } else {
            self.spares.put_back(spare);
        }
    }

    /// The watchdog's thread sits down itself, until a thread that was stuck is back.
    fn work_for(
        &self,
        worker: WorkerId,
        cause: Cause,
        handle: &Handle,
        control: &Sender<Request>,
    ) -> AfterWork {
        let mut dog = self.dog.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = dog.seat(self.last_seat, worker, cause);
        drop(dog);
        if !needed {
            return AfterWork::Watch;
        }
        report::send(Report::Warn(format!(
            "every thread is stuck and no spare is left: the watchdog does the work of worker {worker}"
        )));
        self.duty.store(BY_CONTROL, Ordering::Relaxed);
        let _ = control.send(Request::WorkBegan);
        let nice = sys_thread::nice(sys_thread::current());
        // What is bound to this thread meanwhile is cancelled: as the watchdog it runs nothing that could stop it.
        let resident = Resident::new(handle, self.last_seat);
        let end = threads::sit(handle, self.last_seat, &resident);
        drop(resident);
        if end == Some(Pass::Revoked) && !threads::come_back(&self.spares, self.last_seat, nice) {
            // At the lowest priority it would be late for everything: control goes on.
            return AfterWork::End;
        }
        self.duty.store(BY_WATCHDOG, Ordering::Relaxed);
        AfterWork::Watch
    }

    pub(crate) fn is_controls(&self) -> bool {
        self.duty.load(Ordering::Relaxed) == BY_CONTROL
    }

    /// Control takes the duty: the watchdog does not tick.
    pub(crate) fn take_over(&self) {
        self.duty.store(BY_CONTROL, Ordering::Relaxed);
    }

    pub(crate) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// The process may have been stopped until now.
    pub(crate) fn continued(&self) {
        self.continued.store(true, Ordering::Relaxed);
    }

    /// Whether the watchdog's thread is itself inside a callback that does not return.
    pub(crate) fn is_stuck(&self) -> bool {
        self.spares.is_stuck(self.last_seat)
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(watchdog) = self.core.machine().watchdog.get() {
            watchdog.unpark();
        }
    }

    fn run(&self, handle: &Handle, control: &Sender<Request>) {
        while !self.stopped.load(Ordering::Relaxed) {
            // It may have been late, and control may have taken over: now it is here.
            self.duty.store(BY_WATCHDOG, Ordering::Relaxed);
            match self.round() {
                AfterRound::Wait(time) => thread::park_timeout(time),
                // A token of somebody else's costs one round.
                AfterRound::Sleep => thread::park(),
                AfterRound::WorkFor(worker, cause) => {
                    if self.work_for(worker, cause, handle, control) == AfterWork::End {
                        return;
                    }
                }
            }
        }
    }
}

/// Starts the thread.
pub(crate) fn start(
    watch: Arc<Watch>,
    handle: Handle,
    control: Sender<Request>,
) -> io::Result<JoinHandle<()>> {
    let machine = handle.core().machine();
    let thread = thread::Builder::new()
        .name("polity-watchdog".to_owned())
        .spawn(move || {
            affinity::restore();
            watch.run(&handle, &control);
        })?;
    let _ = machine.watchdog.set(thread.thread().clone());
    Ok(thread)
}
