//! Who woke a task: for policies that follow chains of wakes.

/// Whether core records wakes for a policy: see [`Policy::wakes`](crate::Policy::wakes).
///
/// ```
/// assert_ne!(polity_policy::Wakes::Ignored, polity_policy::Wakes::Recorded);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wakes {
    /// The views of tasks do not know who woke them.
    Ignored,
    /// They do. Costs two stores outside of the task's own line per wake and spawn, and for wakes that come from
    /// no task a look at the clock.
    Recorded,
}

/// Where a wake came from.
///
/// Timers and sockets are not told apart: both wake from tokio's event loop, which does not say which of them it was.
///
/// ```
/// assert_ne!(polity_policy::WakeSource::Driver, polity_policy::WakeSource::Outside);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WakeSource {
    /// None yet: the task is new. [`woken_by`](crate::TaskView::woken_by) is the task that spawned it.
    Spawn,
    /// A task, in its poll: it sent a message, released a lock, or ended.
    Task,
    /// The I/O and timer driver: a socket, a timer, or a task that a library has started with `tokio::spawn`.
    Driver,
    /// Everything else: another thread, a thread for blocking calls, another runtime, a policy's callback.
    Outside,
}
