//! Which callbacks a policy does without.

/// A callback that a policy need not write: what its default does, core knows.
///
/// The default of each of them says so when it is called for the first time ([`HostApi::not_written`](crate::HostApi::not_written)), and
/// then machines need not call it any more: a callback that is not written costs nothing. A policy that writes
/// none of the first four is not even shown its tasks: they go to the tail of the global DSQ. (sched_ext asks once, at load, which operations a scheduler has, and
/// does itself what the others would do by default.)
///
/// ```
/// assert_ne!(polity_policy::Optional::Running, polity_policy::Optional::Stopping);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Optional {
    /// [`Policy::init_task`](crate::Policy::init_task).
    InitTask,
    /// [`Policy::runnable`](crate::Policy::runnable).
    Runnable,
    /// [`Policy::select_worker`](crate::Policy::select_worker).
    SelectWorker,
    /// [`Policy::enqueue`](crate::Policy::enqueue).
    Enqueue,
    /// [`Policy::running`](crate::Policy::running).
    Running,
    /// [`Policy::stopping`](crate::Policy::stopping).
    Stopping,
    /// [`Policy::quiescent`](crate::Policy::quiescent).
    Quiescent,
    /// [`Policy::exit_task`](crate::Policy::exit_task).
    ExitTask,
    /// [`Policy::dequeue`](crate::Policy::dequeue).
    Dequeue,
}
