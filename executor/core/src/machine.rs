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

    /// How long the thread in `seat` has run on a processor, in nanoseconds; `None` if the machine cannot tell. Called by
    /// the watchdog, for threads that seem stuck.
    fn processor_time(&self, seat: SeatId) -> Option<u64>;

    /// How much time a hypervisor has taken from the processors so far, all together, in nanoseconds: threads' processor clocks
    /// go on meanwhile. 0 if there is none, or the machine cannot tell. Called by the watchdog ten times a second while
    /// something runs, and for threads that seem stuck.
    fn stolen_time(&self) -> u64 {
        0
    }

    /// Whether the thread in `seat` is blocked in a system call, as opposed to running or waiting for a processor; `None` if
    /// the machine cannot tell. Called as `processor_time` is.
    fn is_blocked(&self, seat: SeatId) -> Option<bool>;

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
