//! A machine that does what the test says, and one thread that is every thread of the runtime by turns.
//!
//! What happens *during* a poll or a callback, the poll or the callback does itself: it calls [`World::tick`], or lets another
//! worker [`pass`](World::pass). So nothing here is left to chance, and no test waits. Core catches the panics of both; so that
//! a failed assertion in one fails its test, [`pass`](World::pass) passes them on.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, Location, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use polity_policy::{Attributes, ExitInfo, Host, Policy, Slice, TaskView, WorkerId, WorkerMask};

use crate::core::{Core, CoreConfig, Scope};
use crate::hosting::LoadedPolicy;
use crate::machine::{Machine, OsThread, PanicNote, ThreadState};
use crate::seat::SeatId;
use crate::task::JoinHandle;
use crate::watchdog::{Finding, Next, PERIOD_NS, Watchdog};
use crate::worker::{Local, Pass, Worker};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const TICK: u64 = PERIOD_NS;
/// Of every world whose test does not say otherwise.
pub(crate) const STALL_AFTER: u64 = 100 * MS;
/// The first tick at which such a task is late.
pub(crate) const LATE_AFTER: u64 = STALL_AFTER + 2 * TICK;
pub(crate) const HOG_AFTER: u64 = 50 * MS;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the machine says of one thread.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Thread {
    pub(crate) processor_time: Option<u64>,
    pub(crate) state: Option<ThreadState>,
}

impl Thread {
    fn run_for(&mut self, ns: u64) {
        self.processor_time = self.processor_time.map(|ran| ran + ns);
    }
}

type OnUnpark = Box<dyn Fn(SeatId) + Send + Sync>;
type OnAsked = Box<dyn Fn(OsThread) + Send + Sync>;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Scripted {
    now: AtomicU64,
    /// By seat; what has a higher number sits in none.
    threads: Mutex<HashMap<usize, Thread>>,
    work_began: AtomicUsize,
    pub(crate) stolen: AtomicU64,
    /// How long it takes until all processors have answered.
    pub(crate) unanswered: AtomicU64,
    /// Seats that were unparked since they parked.
    unparked: Mutex<HashSet<usize>>,
    on_unpark: Mutex<Option<Arc<OnUnpark>>>,
    on_asked: Mutex<Option<Arc<OnAsked>>>,
}

impl Machine for Scripted {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The scripted clock has no relation to that of the system.
    fn at(&self, _moment: Instant) -> u64 {
        0
    }

    fn open_scope(&self) -> Option<Scope> {
        None
    }

    fn unpark(&self, seat: SeatId) {
        lock(&self.unparked).insert(seat.index());
        // Cloned, since what happens next may unpark somebody too.
        let hook = lock(&self.on_unpark).clone();
        if let Some(hook) = hook {
            hook(seat);
        }
    }

    fn with_local<R>(&self, look: impl FnOnce(Option<&Local>) -> R) -> R {
        let local = PASSING.with_borrow(|passing| passing.last().cloned());
        look(local.as_deref())
    }

    fn woken_in_driver(&self, _seat: SeatId) {}
    fn policy_ended(&self) {}
    fn light_fence(&self) {}

    /// The clocks of those that were to answer go on meanwhile.
    fn heavy_fence(&self) {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        self.now.fetch_add(unanswered, Ordering::Relaxed);
        for thread in lock(&self.threads).values_mut() {
            thread.run_for(unanswered);
        }
    }

    fn thread_in(&self, seat: SeatId) -> Option<OsThread> {
        Some(OsThread(seat.index() as u32))
    }

    fn threads(&self) -> Vec<OsThread> {
        lock(&self.threads)
            .keys()
            .map(|index| OsThread(*index as u32))
            .collect()
    }

    fn processor_time(&self, thread: OsThread) -> Option<u64> {
        self.thread(thread).processor_time
    }

    fn stolen_time(&self) -> u64 {
        self.stolen.load(Ordering::Relaxed)
    }

    fn thread_state(&self, thread: OsThread) -> Option<ThreadState> {
        let state = self.thread(thread).state;
        let hook = lock(&self.on_asked).clone();
        if let Some(hook) = hook {
            hook(thread);
        }
        state
    }

    fn take_panic_note(&self) -> Option<PanicNote> {
        FAILED.set(true);
        None
    }

    fn work_began(&self) {
        self.work_began.fetch_add(1, Ordering::Relaxed);
    }

    fn before_poll(&self, _seat: SeatId) {}
}

impl Scripted {
    fn thread(&self, thread: OsThread) -> Thread {
        lock(&self.threads)
            .get(&(thread.0 as usize))
            .copied()
            .unwrap_or_default()
    }
}

struct Seated {
    worker: Worker<Scripted>,
    parked: bool,
}

thread_local! {
    /// By seat; one that passes is not here.
    static SEATED: RefCell<HashMap<usize, Seated>> = RefCell::default();
    /// Those that pass, the innermost last: a worker's poll or callback may let another one pass.
    static PASSING: RefCell<Vec<Rc<Local>>> = const { RefCell::new(Vec::new()) };
    /// A poll or a callback has panicked.
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Cores live for ever, and in these tests so do their watchdogs. Kept here so that leak checkers know.
static DOGS: Mutex<Vec<&'static Dog>> = Mutex::new(Vec::new());

struct Dog {
    watchdog: Mutex<Watchdog<Scripted>>,
    /// When it wants to look again, if that is before its period ends.
    closer: AtomicU64,
}

/// A core, its watchdog, and a worker in each worker's seat.
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) core: &'static Core<Scripted>,
    dog: &'static Dog,
}

impl World {
    pub(crate) fn new(workers: usize) -> World {
        let mut config = CoreConfig::new(workers);
        config.spares = 2;
        config.stall_after_ns = STALL_AFTER;
        let machine = Scripted::default();
        machine.now.store(1_000 * MS, Ordering::Relaxed);
        let core = Core::new(machine, config);
        let dog = Box::leak(Box::new(Dog {
            watchdog: Mutex::new(Watchdog::new(core, HOG_AFTER)),
            closer: AtomicU64::new(0),
        }));
        lock(&DOGS).push(dog);
        let world = World { core, dog };
        for index in 0..workers {
            world.sit_down(index);
        }
        world
    }

    /// A thread takes this seat.
    pub(crate) fn sit_down(self, seat: usize) {
        let worker = Worker::new(self.core, SeatId::new(seat as u16));
        let seated = Seated {
            worker,
            parked: false,
        };
        SEATED.with_borrow_mut(|all| all.insert(seat, seated));
    }

    pub(crate) fn now(self) -> u64 {
        self.core.machine.now()
    }

    pub(crate) fn advance(self, ns: u64) {
        self.core.machine.now.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn tick(self) -> (Vec<Finding>, Next) {
        let (findings, next) = lock(&self.dog.watchdog).tick();
        let closer = match next {
            Next::After(ns) if ns < TICK => self.now() + ns,
            _ => 0,
        };
        self.dog.closer.store(closer, Ordering::Relaxed);
        (findings, next)
    }

    /// Lets time pass, with a tick at the end of each period, and between where the watchdog looks closer.
    pub(crate) fn tick_for(self, ns: u64) -> Vec<Finding> {
        self.pass_time(ns, |_| {})
    }

    /// The same while the thread in this seat has a processor all the time.
    pub(crate) fn tick_while_running(self, seat: usize, ns: u64) -> Vec<Finding> {
        self.pass_time(ns, |ns| {
            if let Some(thread) = lock(&self.core.machine.threads).get_mut(&seat) {
                thread.run_for(ns);
            }
        })
    }

    fn pass_time(self, ns: u64, before_each_tick: impl Fn(u64)) -> Vec<Finding> {
        let mut findings = Vec::new();
        let end = self.now() + ns;
        let mut period_end = self.now();
        while self.now() < end {
            if self.now() >= period_end {
                period_end = (period_end + TICK).min(end);
            }
            let closer = self.dog.closer.load(Ordering::Relaxed);
            let until = if self.now() < closer && closer < period_end {
                closer
            } else {
                period_end
            };
            let passed = until.saturating_sub(self.now());
            self.advance(passed);
            before_each_tick(passed);
            findings.extend(self.tick().0);
        }
        findings
    }

    pub(crate) fn note_exhausted(self, exhausted: bool) -> bool {
        lock(&self.dog.watchdog).note_exhausted(exhausted)
    }

    pub(crate) fn rebase(self) {
        lock(&self.dog.watchdog).rebase();
    }

    /// Seats a stand-in for `worker`, as the machine would after [`Finding::NeedsStandIn`].
    pub(crate) fn stand_in(self, seat: usize, worker: usize, cause: crate::core::Cause) {
        let worker = WorkerId::new(worker as u16);
        let seated = lock(&self.dog.watchdog).seat(SeatId::new(seat as u16), worker, cause);
        assert!(seated, "the poll goes on");
        self.sit_down(seat);
    }

    pub(crate) fn set_thread(self, seat: usize, thread: Thread) {
        lock(&self.core.machine.threads).insert(seat, thread);
    }

    /// How often the watchdog has been woken.
    pub(crate) fn work_began(self) -> usize {
        self.core.machine.work_began.load(Ordering::Relaxed)
    }

    /// Happens inside [`Machine::unpark`]: a thread that goes to work at once.
    pub(crate) fn on_unpark(self, hook: impl Fn(SeatId) + Send + Sync + 'static) {
        *lock(&self.core.machine.on_unpark) = Some(Arc::new(Box::new(hook)));
    }

    /// Happens inside [`Machine::thread_state`], after the machine has looked.
    pub(crate) fn on_asked(self, hook: impl Fn(OsThread) + Send + Sync + 'static) {
        *lock(&self.core.machine.on_asked) = Some(Arc::new(Box::new(hook)));
    }

    /// One pass of the worker in this seat. If it is parked, the park ends first: by an unpark, or its time is up.
    pub(crate) fn pass(self, seat: usize) -> Pass {
        let taken = SEATED.with_borrow_mut(|all| all.remove(&seat));
        let mut seated = taken.unwrap_or_else(|| panic!("seat {seat} is empty, or passing"));
        PASSING.with_borrow_mut(|passing| passing.push(Rc::clone(seated.worker.local())));
        if std::mem::take(&mut seated.parked) {
            let timed_out = !lock(&self.core.machine.unparked).remove(&seat);
            seated.worker.unparked(timed_out);
        }
        let pass = seated.worker.pass();
        PASSING.with_borrow_mut(Vec::pop);
        seated.parked = matches!(pass, Pass::Park(_));
        if pass == Pass::Revoked {
            drop(seated.worker.give_up());
        } else {
            SEATED.with_borrow_mut(|all| all.insert(seat, seated));
        }
        assert!(!FAILED.get(), "a poll or a callback has panicked");
        pass
    }

    /// The thread in this seat has been dismissed, and leaves.
    pub(crate) fn leave(self, seat: usize) {
        assert_eq!(self.pass(seat), Pass::Dismissed);
        let seated = SEATED.with_borrow_mut(|all| all.remove(&seat));
        let local = seated.expect("it was there until now").worker.leave();
        assert!(self.core.clear_seat(local));
    }

    /// The worker in this seat leaves a park and does nothing yet.
    pub(crate) fn unpark(self, seat: usize) {
        SEATED.with_borrow_mut(|all| {
            let seated = all.get_mut(&seat).expect("somebody sits there");
            assert!(
                std::mem::take(&mut seated.parked),
                "seat {seat} is not parked"
            );
            seated.worker.unparked(false);
        });
    }

    /// Whether the worker in this seat is parked, unparked or not.
    pub(crate) fn is_parked(self, seat: usize) -> bool {
        SEATED.with_borrow(|all| all.get(&seat).is_some_and(|seated| seated.parked))
    }

    /// Whether the worker in this seat is not parked, or has been unparked.
    pub(crate) fn has_to_run(self, seat: usize) -> bool {
        !self.is_parked(seat) || lock(&self.core.machine.unparked).contains(&seat)
    }

    /// Passes until the worker in this seat parks. Returns how many tasks it polled.
    pub(crate) fn run(self, seat: usize) -> usize {
        let mut polled = 0;
        for _ in 0..10_000 {
            match self.pass(seat) {
                Pass::Ran => polled += 1,
                Pass::Drive => {}
                Pass::Park(_) => return polled,
                other => panic!("seat {seat}: {other:?}"),
            }
        }
        panic!("seat {seat} does not park");
    }

    /// All workers, by turns, until all are parked.
    pub(crate) fn run_all(self) {
        let workers = 0..self.core.worker_count();
        while let Some(seat) = workers.clone().find(|seat| self.has_to_run(*seat)) {
            self.run(seat);
        }
    }

    pub(crate) fn load(self, policy: impl Policy) -> LoadedPolicy {
        let pending = self.core.prepare(policy).unwrap();
        pending.init().unwrap();
        self.core.publish(pending)
    }

    /// What control does after an ejection.
    pub(crate) fn sweep(self) {
        for retired in self.core.take_retired() {
            retired.sweep();
        }
    }

    #[track_caller]
    pub(crate) fn spawn<F>(self, tag: u64, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_with(Attributes::new().tag(tag), future)
    }

    #[track_caller]
    pub(crate) fn spawn_with<F>(self, attributes: Attributes, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let future = async move {
            let result = AssertUnwindSafe(future).catch_unwind().await;
            result.unwrap_or_else(|panic| {
                FAILED.set(true);
                resume_unwind(panic)
            })
        };
        let spawned = self.core.spawn_with(attributes, Location::caller(), future);
        spawned.unwrap()
    }
}

/// Only this worker.
pub(crate) fn only(worker: u16) -> WorkerMask {
    [WorkerId::new(worker)].into_iter().collect()
}

/// The report on a policy that must have ended.
#[track_caller]
pub(crate) fn exit_of(policy: &LoadedPolicy) -> Arc<ExitInfo> {
    policy.exit_info().expect("the policy has ended")
}

type OnTask = Box<dyn Fn(&Host<'_>, &TaskView<'_>) + Send + Sync>;
type OnDispatch = Box<dyn Fn(&Host<'_>, WorkerId) + Send + Sync>;

/// A policy made of closures, with two DSQs: 0 is a FIFO, 1 is ordered by vtime. It has each task in its custody and gives none back, unless they say otherwise.
#[derive(Default)]
pub(crate) struct Script {
    enqueue: Option<OnTask>,
    dispatch: Option<OnDispatch>,
    running: Option<OnTask>,
    stall_timeout: Option<Duration>,
    slice: Option<Slice>,
}

impl Script {
    pub(crate) fn new() -> Script {
        Script::default()
    }

    pub(crate) fn enqueue(
        mut self,
        body: impl Fn(&Host<'_>, &TaskView<'_>) + Send + Sync + 'static,
    ) -> Script {
        self.enqueue = Some(Box::new(body));
        self
    }

    pub(crate) fn dispatch(
        mut self,
        body: impl Fn(&Host<'_>, WorkerId) + Send + Sync + 'static,
    ) -> Script {
        self.dispatch = Some(Box::new(body));
        self
    }

    pub(crate) fn running(
        mut self,
        body: impl Fn(&Host<'_>, &TaskView<'_>) + Send + Sync + 'static,
    ) -> Script {
        self.running = Some(Box::new(body));
        self
    }

    pub(crate) fn stall_timeout(mut self, timeout: Duration) -> Script {
        self.stall_timeout = Some(timeout);
        self
    }

    pub(crate) fn slice(mut self, slice: Slice) -> Script {
        self.slice = Some(slice);
        self
    }
}

impl Policy for Script {
    type Task = ();

    fn name(&self) -> &str {
        "script"
    }

    fn stall_timeout(&self) -> Option<Duration> {
        self.stall_timeout
    }

    fn slice(&self) -> Slice {
        self.slice.unwrap_or(Slice::POLL)
    }

    fn init(&self, host: &Host<'_>) -> Result<(), polity_policy::InitError> {
        host.create_dsq(0)?;
        host.create_vtime_dsq(1)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(enqueue) = &self.enqueue {
            enqueue(host, task);
        }
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        if let Some(dispatch) = &self.dispatch {
            dispatch(host, worker);
        }
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(running) = &self.running {
            running(host, task);
        }
    }
}
