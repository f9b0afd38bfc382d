//! Why a policy is told of a task.

/// How a poll ended, for [`Policy::stopping`](crate::Policy::stopping).
///
/// ```
/// assert_ne!(polity_policy::Stopped::Waiting, polity_policy::Stopped::Finished);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stopped {
    /// The task yielded or was woken during the poll: `enqueue` or another `running` follows.
    StillRunnable,
    /// The task waits for something: `quiescent` follows.
    Waiting,
    /// The task is done, panicked or was cancelled: `quiescent` follows, and nothing after it.
    Finished,
}

/// Why a task left the policy's custody, for [`Policy::dequeue`](crate::Policy::dequeue).
///
/// ```
/// assert_ne!(polity_policy::DequeueReason::Dispatched, polity_policy::DequeueReason::Cancelled);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DequeueReason {
    /// The policy itself moved it to a local or the global DSQ, in `dispatch`.
    Dispatched,
    /// It was aborted while the policy had it.
    Cancelled,
    /// A bypass has begun: core runs it, and it comes back by `enqueue` if it is still runnable afterwards.
    Bypass,
    /// Its affinity was changed while the policy had it: it comes back by `enqueue` at once, with the new mask. So no queue
    /// need be searched for tasks that its workers may not run any more.
    Affinity,
}
