//! The right to a local task's output.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::AbortHandle as Aborter;
use polity_core::{AbortHandle, JoinError, JoinHandle};

/// The right to the output of a future that is bound to a thread: from [`spawn_local`](crate::spawn_local()) and
/// [`LocalSet::spawn_local`](crate::LocalSet::spawn_local). Dropping it detaches the task.
///
/// It may be sent to other threads if the output may: so a task that is `Send` can hold it across an `await`. Awaiting it gives
/// `Err` if the task panicked or was aborted, or if its thread or its `LocalSet` ended before it did.
///
/// # Panics
/// When polled again after it has answered.
///
/// ```
/// fn is_send<T: Send>() {}
/// is_send::<polity::LocalJoinHandle<u32>>();
/// ```
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<polity::LocalJoinHandle<std::rc::Rc<u32>>>();
/// ```
pub struct LocalJoinHandle<T> {
    waits_for: WaitsFor<T>,
}

/// Where an output waits for whoever awaits the handle.
pub(super) type Slot<T> = Arc<Mutex<Option<T>>>;

enum WaitsFor<T> {
    Task(JoinHandle<()>, Slot<T>),
    Member(Member<T>),
}

/// The handle's half of a member of a `LocalSet`.
pub(super) struct Member<T> {
    pub(super) output: oneshot::Receiver<Result<T, JoinError>>,
    pub(super) aborter: Aborter,
    pub(super) finished: Arc<AtomicBool>,
    pub(super) spawned_at: &'static std::panic::Location<'static>,
}

impl<T> LocalJoinHandle<T> {
    pub(super) fn of_task(task: JoinHandle<()>, output: Slot<T>) -> Self {
        LocalJoinHandle {
            waits_for: WaitsFor::Task(task, output),
        }
    }

    pub(super) fn of_member(member: Member<T>) -> Self {
        LocalJoinHandle {
            waits_for: WaitsFor::Member(member),
        }
    }

    /// Ends the task early, unless it has ended. Its future is dropped on its thread, as soon as that comes by; if it
    /// is in a long poll just now, the handle may answer before.
    pub fn abort(&self) {
        match &self.waits_for {
            WaitsFor::Task(task, _) => task.abort(),
            WaitsFor::Member(member) => member.aborter.abort(),
        }
    }

    /// A handle that can abort the task and change its weight; `None` for a member of a `LocalSet`, which is no task.
    ///
    /// Changing the *affinity* of a local task moves the queue in which it waits for its turn, and nothing else: it is polled where it
    /// was, then as a task whose thread sits somewhere else ([`spawn_local`](crate::spawn_local())).
    pub fn abort_handle(&self) -> Option<AbortHandle> {
        match &self.waits_for {
            WaitsFor::Task(task, _) => Some(task.abort_handle()),
            WaitsFor::Member(_) => None,
        }
    }

    /// Whether awaiting will not wait.
    pub fn is_finished(&self) -> bool {
        match &self.waits_for {
            WaitsFor::Task(task, _) => task.is_finished(),
            // Ordering: Acquire pairs with the Release in `LocalSet`: the output is there.
            WaitsFor::Member(member) => member.finished.load(Ordering::Acquire),
        }
    }
}

/// Takes the output that a finished task has left.
pub(super) fn take<T>(slot: &Slot<T>) -> T {
    let output = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    output.expect("a local task that ends has an output, which is taken once")
}

impl<T> Future for LocalJoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.waits_for {
            WaitsFor::Task(task, slot) => Pin::new(task)
                .poll(context)
                .map(|ended| ended.map(|()| take(slot))),
            WaitsFor::Member(member) => {
                let spawned_at = member.spawned_at;
                Pin::new(&mut member.output)
                    .poll(context)
                    .map(|ended| match ended {
                        Ok(ended) => ended,
                        // Aborted, or its set is gone.
                        Err(oneshot::Canceled) => Err(JoinError::of_no_task(spawned_at, None)),
                    })
            }
        }
    }
}

impl<T> Unpin for LocalJoinHandle<T> {}

impl<T> fmt::Debug for LocalJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalJoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
