//! What core needs from outside.

use std::backtrace::Backtrace;
use std::time::Instant;

use crate::{Local, Scope, SeatId};

/// Where a policy panicked.
#[derive(Debug)]
pub struct PanicNote {
    /// File, line and column.
    pub location: Option<String>,
    /// The stack at that moment.
    pub backtrace: Backtrace,
}

/// A thread of the process, by the number that the machine gives it. The number may be another thread's once this one has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OsThread(pub u32);

/// What a thread is about, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadState {
    /// On a processor, or waiting for one, or stopped.
    Runnable,
    /// In a system call that has not returned.
    Blocked,
    /// It has touched a page that is not in memory, and waits for that.
    PageFault,
}

/// A clock, a way to unpark a worker, and "which worker am I". Real threads and a simulation supply one each.
///
/// Methods are called from any thread, also from inside wakers: they must not block, panic, or call core.
pub trait Machine: Send + Sync + Sized + 'static {
    /// Nanoseconds since the runtime started. Monotonic.
    fn now(&self) -> u64;

    /// The same for a moment that somebody else has read from a clock; 0 for one before the start.
    fn at(&self, moment: Instant) -> u64;

    /// The scope that is open on this thread ([`Core::scope`](crate::Core::scope)), if there is one. Asked at each spawn.
    fn open_scope(&self) -> Option<Scope>;

    /// Ends the present park of the thread in `seat`, or else its next one. Tokens do not add up.
    fn unpark(&self, seat: SeatId);

    /// Lends the [`Local`] of the worker whose thread this is, of whatever runtime; `None` on other threads.
    fn with_local<R>(&self, look: impl FnOnce(Option<&Local>) -> R) -> R;

    /// A task was woken on this thread while the thread is parked in the driver: the park must end, so that the
    /// worker can run it.
    fn woken_in_driver(&self, seat: SeatId);

    /// A policy has just been unpublished because it ended. Control should sweep and retire it.
    fn policy_ended(&self);

    /// Half of an asymmetric fence: cheap, because its partner [`heavy_fence`](Machine::heavy_fence) pays for both. Any
    /// two of them, one of each kind, are ordered as two sequentially consistent fences are.
    fn light_fence(&self);

    /// The other half: called by the watchdog, a few times per stuck call or poll, and every 2 ms for a callback that goes on
    /// from one look to the next. If it interrupts every processor that runs a thread of the process, as `membarrier(2)` does,
    /// it also shows which of them really run.
    fn heavy_fence(&self);

    /// The thread that sat down in `seat` last; `None` if there was none, or the machine has no numbers for threads.
    fn thread_in(&self, seat: SeatId) -> Option<OsThread>;

    /// All threads of the process, or none if the machine cannot tell. Called by the watchdog while a callback seems blocked,
    /// at most once in 10 ms.
    fn threads(&self) -> Vec<OsThread>;

    /// How long a thread has run on a processor, in nanoseconds; `None` if the machine cannot tell, or the thread has ended.
    /// Called by the watchdog: for threads that seem stuck, and for all of them while one seems blocked.
    fn processor_time(&self, thread: OsThread) -> Option<u64>;

    /// How much time a hypervisor has taken from the processors so far, all together, in nanoseconds: threads' processor clocks
    /// go on meanwhile. 0 if there is none, or the machine cannot tell. Called by the watchdog ten times a second while
    /// something runs, and for threads that seem stuck.
    fn stolen_time(&self) -> u64 {
        0
    }

    /// What a thread is about; `None` if the machine cannot tell, or the thread has ended. Called as `processor_time` is.
    fn thread_state(&self, thread: OsThread) -> Option<ThreadState>;

    /// What is known of the panic on this thread that core has just caught: it came from a policy.
    fn take_panic_note(&self) -> Option<PanicNote>;

    /// A thread goes to work although the watchdog sleeps: it should tick again.
    fn work_began(&self);

    /// How many tasks live beside core, on the driver: for [`Metrics::foreign_tasks`](crate::Metrics::foreign_tasks). Called by
    /// whoever reads the metrics, and for each dump.
    fn foreign_tasks(&self) -> u64 {
        0
    }

    /// Called by the worker before each poll, on its thread.
    fn before_poll(&self, seat: SeatId);
}
