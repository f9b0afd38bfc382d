//! Which notifiers a policy does without.

/// A callback that tells a policy something, and asks nothing: one that a policy which does not write it can do without.
///
/// The default of each of them says so when it is called for the first time ([`HostApi::not_written`](crate::HostApi::not_written)), and
/// then machines do not call it any more: a notifier that is not written costs nothing.
///
/// ```
/// assert_ne!(polity_policy::Notifier::Running, polity_policy::Notifier::Stopping);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Notifier {
    /// [`Policy::runnable`](crate::Policy::runnable).
    Runnable,
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
