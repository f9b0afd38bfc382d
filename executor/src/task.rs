//! What a task can ask about itself, and tokio's `task` module by its own names.
//!
//! The items of this module that are also at the root of the crate are the same items: a program that moves over from tokio
//! replaces `tokio::task` by `polity::task`. `tokio::task_local!` and its `LocalKey` work unchanged, since they need no runtime.

use polity_core::Local;
pub use polity_core::{AbortHandle, JoinError, JoinHandle};
pub use polity_policy::TaskId;

pub use crate::in_place::block_in_place;
pub use crate::join_set::JoinSet;
pub use crate::local::{LocalJoinHandle, LocalSet, spawn_local, spawn_local_with};
pub use crate::spawn::{YieldNow, spawn, spawn_blocking, yield_now};
use crate::sys::tls;

/// The id of the task that runs on this thread: the one that policies see, and that its `JoinHandle` has.
///
/// An id is unique among the tasks that are alive, of all runtimes of the process. It is given to another task long after this
/// one has ended, so it is no key for a table that is never cleaned up.
///
/// # Panics
/// Outside a task: see [`try_id`].
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// # runtime.block_on(async {
/// let task = polity::spawn(async { polity::task::id() });
/// let id = task.id();
/// assert_eq!(task.await.unwrap(), id);
/// # });
/// # Ok::<(), polity::BuildError>(())
/// ```
#[track_caller]
pub fn id() -> TaskId {
    match try_id() {
        Some(id) => id,
        None => panic!(
            "no task runs on this thread: the root future of `block_on`, blocking calls, and callbacks of policies have no task id"
        ),
    }
}

/// The id of the task that runs on this thread, if one does: in a poll of its future, and in the drop of that future, of its
/// output, and of its panic's payload.
///
/// `None` in the root future of `block_on` (and so in the body of `#[polity::main]`), in a blocking call, on the threads of the
/// application, and in the callbacks of policies, which are told ids.
///
/// Costs a look at a thread-local variable and one load.
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// assert_eq!(runtime.block_on(async { polity::task::try_id() }), None);
/// # Ok::<(), polity::BuildError>(())
/// ```
pub fn try_id() -> Option<TaskId> {
    tls::with_local(|local| local.and_then(Local::running_task))
}
