//! What can go wrong, by name.

use std::fmt;

#[cfg(doc)]
use polity_policy::Policy;

/// What goes wrong, and when. Calls are counted from 1; a number of 0 never comes.
///
/// ```
/// use polity_policies::{Callback, Fault};
/// let fault = Fault::Panic { callback: Callback::Enqueue, call: 100 };
/// assert_ne!(fault, Fault::ErrorAfterEnqueues(100));
/// ```
///
/// The last three do not pass by themselves. Take a [`Faulty::release_handle`](crate::Faulty::release_handle) before
/// you load one:
///
/// ```
/// use polity_policies::{Callback, Fault, Faulty};
/// let policy = Faulty::new(Fault::NeverReturn { callback: Callback::Dispatch, call: 100 });
/// let release = policy.release_handle();
/// // ... load it, see it ejected, and let its threads go:
/// release.release();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The n-th `enqueue` reports an error and leaves its task lying.
    ErrorAfterEnqueues(u64),
    /// After n calls, every `dispatch` inserts a task that does not exist: progress, and nothing to run.
    DispatchEndlesslyAfter(u64),
    /// This call of this callback panics.
    Panic {
        /// In which callback.
        callback: Callback,
        /// At which call of it.
        call: u64,
    },
    /// Every n-th `enqueue` neither inserts the task nor remembers it.
    ForgetEveryNth(u64),
    /// `init` returns an error: the load fails, and what ran before runs on.
    RefuseInit,
    /// The n-th `init_task` returns an error.
    RefuseTask(u64),
    /// The n-th `enqueue` inserts into a DSQ that never existed.
    InsertUnknownDsq(u64),
    /// The n-th `enqueue` inserts into a DSQ that `init` created and destroyed.
    InsertDestroyedDsq(u64),
    /// The n-th `enqueue` inserts its task twice.
    InsertTwice(u64),
    /// The n-th `enqueue` inserts another task than the one at hand.
    InsertOtherTask(u64),
    /// The n-th `enqueue` inserts into the local DSQ of a worker that does not exist.
    InsertWorkerOutOfRange(u64),
    /// The n-th `select_worker` returns a worker that does not exist.
    SelectWorkerOutOfRange(u64),
    /// From this call of this callback on, every call of it burns its thread's core until it is
    /// [released](crate::Release): with as many callers as workers, no worker is left.
    NeverReturn {
        /// In which callback.
        callback: Callback,
        /// From which call of it on.
        call: u64,
    },
    /// As [`Fault::NeverReturn`], but asleep in the kernel, as in a lock that nobody will unlock.
    Block {
        /// In which callback.
        callback: Callback,
        /// From which call of it on.
        call: u64,
    },
    /// Tasks of this weight and above stay in the policy's custody: `enqueue` keeps their ids, and `dispatch` never
    /// inserts them until [released](crate::Release). All others are served as by [`Priority`](crate::Priority).
    Starve {
        /// The least weight that starves.
        weight: u32,
    },
}

/// A callback of a policy, for [`Fault::Panic`] and the faults that do not return.
///
/// ```
/// assert_eq!(polity_policies::Callback::SelectWorker.to_string(), "select_worker");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Callback {
    /// [`Policy::init`].
    Init,
    /// [`Policy::exit`].
    Exit,
    /// [`Policy::init_task`].
    InitTask,
    /// [`Policy::exit_task`].
    ExitTask,
    /// [`Policy::select_worker`].
    SelectWorker,
    /// [`Policy::enqueue`].
    Enqueue,
    /// [`Policy::dequeue`].
    Dequeue,
    /// [`Policy::dispatch`].
    Dispatch,
    /// [`Policy::runnable`].
    Runnable,
    /// [`Policy::running`].
    Running,
    /// [`Policy::stopping`].
    Stopping,
    /// [`Policy::quiescent`].
    Quiescent,
}

impl Callback {
    /// All of them, for a test that tries each.
    ///
    /// ```
    /// assert!(polity_policies::Callback::ALL.contains(&polity_policies::Callback::Exit));
    /// ```
    pub const ALL: [Callback; 12] = [
        Callback::Init,
        Callback::Exit,
        Callback::InitTask,
        Callback::ExitTask,
        Callback::SelectWorker,
        Callback::Enqueue,
        Callback::Dequeue,
        Callback::Dispatch,
        Callback::Runnable,
        Callback::Running,
        Callback::Stopping,
        Callback::Quiescent,
    ];
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Init => "init",
            Callback::Exit => "exit",
            Callback::InitTask => "init_task",
            Callback::ExitTask => "exit_task",
            Callback::SelectWorker => "select_worker",
            Callback::Enqueue => "enqueue",
            Callback::Dequeue => "dequeue",
            Callback::Dispatch => "dispatch",
            Callback::Runnable => "runnable",
            Callback::Running => "running",
            Callback::Stopping => "stopping",
            Callback::Quiescent => "quiescent",
        })
    }
}
