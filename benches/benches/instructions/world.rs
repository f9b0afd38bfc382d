//! One worker without a thread of its own: the calling thread is the application by turns, and the worker.
//!
//! What a real machine adds is not counted: reading a clock, tokio's budget before each poll, parking and unparking, driving.
//! What a spawn or a wake does to find its worker is counted: it reads one thread-local pointer, as in the executor, but of
//! what is never freed here, and so without unsafe code.

use std::cell::Cell;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::time::Instant;

use polity::Policy;
use polity_core::{
    Core, CoreConfig, JoinHandle, LoadedPolicy, Local, Machine, OsThread, PanicNote, Pass, Scope,
    SeatId, ThreadState, Worker,
};

thread_local! {
    /// Of the worker that this thread is; `None` while it is the application.
    static LOCAL: Cell<Option<&'static Local>> = const { Cell::new(None) };
}

/// By so much each reading moves the clock on. About what 16 empty polls take: without a policy it is read so often.
const STEP_NS: u64 = 500;

/// A machine whose clock moves because it is read, so that it says the same in each run.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    now: AtomicU64,
}

impl Machine for Scripted {
    #[inline]
    fn now(&self) -> u64 {
        // Ordering: Relaxed; there is one thread. Two plain accesses, since a read-modify-write is nothing that a clock does.
        let now = self.now.load(Ordering::Relaxed) + STEP_NS;
        self.now.store(now, Ordering::Relaxed);
        now
    }

    /// The scripted clock has no relation to that of the system.
    fn at(&self, _moment: Instant) -> u64 {
        0
    }

    fn open_scope(&self) -> Option<Scope> {
        None
    }

    /// [`World::run`] follows in any case.
    fn unpark(&self, _seat: SeatId) {}

    #[inline]
    fn with_local<R>(&self, look: impl FnOnce(Option<&Local>) -> R) -> R {
        with_local(look)
    }

    fn woken_in_driver(&self, _seat: SeatId) {}
    fn policy_ended(&self) {}

    /// What it is where `membarrier(2)` is to be had.
    #[inline]
    fn light_fence(&self) {
        compiler_fence(Ordering::SeqCst);
    }

    fn heavy_fence(&self) {}

    fn thread_in(&self, _seat: SeatId) -> Option<OsThread> {
        None
    }

    fn threads(&self) -> Vec<OsThread> {
        Vec::new()
    }

    fn processor_time(&self, _thread: OsThread) -> Option<u64> {
        None
    }

    fn thread_state(&self, _thread: OsThread) -> Option<ThreadState> {
        None
    }

    fn take_panic_note(&self) -> Option<PanicNote> {
        None
    }

    fn work_began(&self) {}
    fn before_poll(&self, _seat: SeatId) {}
}

/// Lends the [`Local`] of the worker that this thread is.
#[inline]
pub(crate) fn with_local<R>(look: impl FnOnce(Option<&Local>) -> R) -> R {
    look(LOCAL.get())
}

/// A core, which tasks spawn on too.
#[derive(Clone, Copy)]
pub(crate) struct Spawner(&'static Core<Scripted>);

impl Spawner {
    #[inline]
    #[track_caller]
    pub(crate) fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(Location::caller(), future)
    }
}

/// See the [module](self).
pub(crate) struct World {
    worker: Worker<Scripted>,
    local: &'static Local,
    spawner: Spawner,
    policy: Option<LoadedPolicy>,
    parked: bool,
}

impl World {
    /// Without a policy.
    pub(crate) fn built_in() -> World {
        let core = Core::new(Scripted::default(), CoreConfig::new(1));
        let worker = Worker::new(core, SeatId::new(0));
        let local: &'static Rc<Local> = Box::leak(Box::new(Rc::clone(worker.local())));
        World {
            worker,
            local,
            spawner: Spawner(core),
            policy: None,
            parked: false,
        }
    }

    /// Under this policy.
    pub(crate) fn under(policy: impl Policy) -> World {
        let mut world = World::built_in();
        let pending = world.spawner.0.prepare(policy).expect("a good name");
        pending.init().expect("it starts");
        world.policy = Some(world.spawner.0.publish(pending));
        world
    }

    /// What tasks, and this thread as the application, spawn on.
    pub(crate) fn spawner(&self) -> Spawner {
        self.spawner
    }

    /// The thread is the worker until that has nothing to do, and parks.
    pub(crate) fn run(&mut self) {
        LOCAL.set(Some(self.local));
        if mem::take(&mut self.parked) {
            self.worker.unparked(false);
        }
        while self.pass() {}
        LOCAL.set(None);
        self.parked = true;
    }

    fn pass(&mut self) -> bool {
        match self.worker.pass() {
            Pass::Ran | Pass::Drive => true,
            Pass::Park(_) => false,
            other => panic!("nobody has asked the worker to leave: {other:?}"),
        }
    }

    /// A policy that was ejected would be measured as if it cost nothing.
    pub(crate) fn assert_policy_stands(&self) {
        let exit = self.policy.as_ref().and_then(LoadedPolicy::exit_info);
        assert!(exit.is_none(), "{exit:?}");
    }
}
