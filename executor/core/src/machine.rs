//! What core needs from outside.

use polity_policy::WorkerId;

use crate::Local;

/// A clock, a way to unpark a worker, and "which worker am I". Real threads and a simulation supply one each.
///
/// Methods are called from any thread, also from inside wakers: they must not block, panic, or call core.
pub trait Machine: Send + Sync + Sized + 'static {
    /// Nanoseconds since the runtime started. Monotonic.
    fn now(&self) -> u64;

    /// Ends the present park of `worker`, or else its next one. Tokens do not add up.
    fn unpark(&self, worker: WorkerId);

    /// Lends the [`Local`] of the worker whose thread this is, of whatever runtime; `None` on other threads.
    fn with_local<R>(&self, look: impl FnOnce(Option<&Local>) -> R) -> R;

    /// A task was woken on this thread while the thread is parked in the driver: the park must end, so that the
    /// worker can run it.
    fn woken_in_driver(&self, worker: WorkerId);

    /// A policy has just been unpublished because it ended. Control should sweep and retire it.
    fn policy_ended(&self);

    /// Called by the worker before each poll, on its thread.
    fn before_poll(&self, worker: WorkerId);
}
