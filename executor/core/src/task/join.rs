//! The handles to a task: [`JoinHandle`], [`AbortHandle`], [`JoinError`].

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use polity_policy::{TaskId, WorkerMask};

use crate::WATCHED;

use super::attributes::Given;
use super::cell::CellPtr;
use super::change::{Change, ChangeError};
use super::header::{Header, Owner};
use super::lifecycle::Aborted;
use super::slab;
use super::token::{self, Token};

/// Ends a task early, or changes its attributes, from anywhere. Owns nothing; outliving the task is fine.
///
/// The future is dropped by a worker, at its next turn; a poll that is going on is not interrupted. A policy is not
/// asked: one that starves the task cannot keep it from being aborted.
#[derive(Clone)]
pub struct AbortHandle {
    header: &'static Header,
    id: TaskId,
}

impl AbortHandle {
    pub(crate) fn new(header: &'static Header, id: TaskId) -> Self {
        AbortHandle { header, id }
    }

    /// Aborts the task, if it has not ended. Its [`JoinHandle`] then answers with an error that
    /// [`is_cancelled`](JoinError::is_cancelled); a task that ends by itself in the meantime answers normally.
    pub fn abort(&self) {
        let Some(owner) = self.header.owner() else {
            return;
        };
        match token::abort(self.header, self.id.tenant()) {
            Ok(token) => owner.now_runnable(token),
            Err(Aborted::Marked) => owner.now_aborted(self.header, self.id.tenant()),
            Err(_) => {}
        }
    }

    /// See [`JoinHandle::set_weight`].
    ///
    /// # Errors
    /// If the weight is not in 1..=10,000, or the task has ended.
    pub fn set_weight(&self, weight: u32) -> Result<(), ChangeError> {
        self.change(Change::Weight(weight))
    }

    /// See [`JoinHandle::set_affinity`].
    ///
    /// # Errors
    /// If the mask names no worker of the task's runtime, or the task has ended.
    pub fn set_affinity(&self, workers: WorkerMask) -> Result<(), ChangeError> {
        self.change(Change::Affinity(workers))
    }

    fn change(&self, change: Change) -> Result<(), ChangeError> {
        match self.header.owner() {
            // The slot's present owner, if the task has ended: then it says so, whatever it thinks of the value.
            _ if self.is_finished() => Err(ChangeError::Finished(self.id)),
            Some(owner) => owner.change(self.header, self.id, change),
            None => Err(ChangeError::Finished(self.id)),
        }
    }

    /// Whether the task has ended: its future is dropped.
    pub fn is_finished(&self) -> bool {
        !self.header.lifecycle.is(self.id.tenant())
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("id", &self.id).finish()
    }
}

/// The right to a task's output. As in tokio, dropping it *detaches* the task: it runs on, and its output is dropped.
///
/// Awaiting it gives `Err` if the task panicked or was aborted, or if the runtime shut down before it ended.
///
/// # Panics
/// When polled again after it has answered.
pub struct JoinHandle<T> {
    cell: CellPtr,
    abort: AbortHandle,
    _output: PhantomData<fn() -> T>,
}

impl<T> JoinHandle<T> {
    /// See [`AbortHandle::abort`].
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Changes the task's weight. It holds at once: whoever asks next sees the new one, and the policy is told by
    /// [`set_weight`](polity_policy::Policy::set_weight) if it has the task as runnable. Children that the task has
    /// spawned before keep what they have inherited.
    ///
    /// From any thread, also from a task. No policy code runs on it. Costs a lock of the whole process for a moment; not
    /// meant for every poll.
    ///
    /// # Errors
    /// If the weight is not in 1..=10,000, or the task has ended.
    pub fn set_weight(&self, weight: u32) -> Result<(), ChangeError> {
        self.abort.set_weight(weight)
    }

    /// Changes where the task may run. A poll that is going on is not interrupted; its next one is on a worker that the
    /// mask names, wherever the task waits by then. A mask that names all workers frees it.
    ///
    /// A policy that has the task gets it back: [`dequeue`](polity_policy::Policy::dequeue) with
    /// [`DequeueReason::Affinity`](polity_policy::DequeueReason::Affinity), then `enqueue`. And it is told by
    /// [`set_affinity`](polity_policy::Policy::set_affinity).
    ///
    /// Costs as `set_weight`, and a wake-up of every worker that is parked.
    ///
    /// # Errors
    /// If the mask names no worker of the task's runtime, or the task has ended.
    pub fn set_affinity(&self, workers: WorkerMask) -> Result<(), ChangeError> {
        self.abort.set_affinity(workers)
    }

    /// A handle that can abort the task but not wait for it.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Whether the output is there, so that awaiting will not wait.
    pub fn is_finished(&self) -> bool {
        // SAFETY: we are the join handle.
        unsafe { self.cell.is_complete() }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.abort.id
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: we are the join handle, and `T` is the output type, by `create`.
        unsafe { self.cell.poll_join(context) }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: we are the join handle and end here.
        unsafe { self.cell.leave() };
    }
}

// The handle never shows a `&T`, and a task's panic is caught before it reaches the output.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}
impl<T> Unpin for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .finish()
    }
}

/// Makes a task in a free `slot`, runnable: its token, and its only join handle.
pub(crate) fn create<F>(
    slot: u32,
    owner: &'static &'static dyn Owner,
    given: Given,
    spawned_at: &'static Location<'static>,
    future: F,
) -> (Token, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let header = slab::get(slot).expect("the slot was handed out");
    let cell = CellPtr::new(future, spawned_at);
    header.prepare(slot, owner, cell, given);
    if WATCHED && let Some(site) = slab::spawn_site(slot) {
        site.set(spawned_at);
    }
    let id = TaskId::from_parts(slot, header.lifecycle.open());
    // The only handle that this cell ever gets, and its `T` is the future's output: what `poll_join` and `leave` rely on.
    let handle = JoinHandle {
        cell,
        abort: AbortHandle::new(header, id),
        _output: PhantomData,
    };
    (Token::won(header), handle)
}

/// Why a task has no output.
pub struct JoinError {
    id: TaskId,
    spawned_at: &'static Location<'static>,
    // A mutex makes the payload `Sync`; it is locked only here.
    panic: Option<Mutex<Box<dyn Any + Send + 'static>>>,
}

impl JoinError {
    pub(super) fn cancelled(id: TaskId, spawned_at: &'static Location<'static>) -> Self {
        JoinError {
            id,
            spawned_at,
            panic: None,
        }
    }

    pub(super) fn panicked(
        id: TaskId,
        spawned_at: &'static Location<'static>,
        payload: Box<dyn Any + Send>,
    ) -> Self {
        JoinError {
            id,
            spawned_at,
            panic: Some(Mutex::new(payload)),
        }
    }

    /// For what ends like a task but is none: cancelled, or panicked with `payload`. Its id is 0.
    #[doc(hidden)] // for package polity: applications get these errors, and make none
    pub fn of_no_task(
        spawned_at: &'static Location<'static>,
        payload: Option<Box<dyn Any + Send>>,
    ) -> Self {
        JoinError {
            id: TaskId::from_parts(0, 0),
            spawned_at,
            panic: payload.map(Mutex::new),
        }
    }

    /// Whether the task was aborted, or its runtime shut down.
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// What the task panicked with.
    ///
    /// # Panics
    /// If it did not panic.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        self.try_into_panic()
            .expect("`JoinError` reason is not a panic")
    }

    /// What the task panicked with, or the error back.
    ///
    /// # Errors
    /// If it did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, JoinError> {
        match self.panic {
            Some(payload) => Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
            None => Err(self),
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Where `spawn` was called.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    fn panic_text(&self) -> Option<String> {
        let payload = self
            .panic
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(crate::hosting::panic_text(&**payload))
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.panic_text() {
            None => write!(
                f,
                "task {} (spawned at {}) was cancelled",
                self.id, self.spawned_at
            ),
            Some(text) => write!(
                f,
                "task {} (spawned at {}) panicked with message {text:?}",
                self.id, self.spawned_at
            ),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.panic_text() {
            None => write!(f, "JoinError::Cancelled({:?})", self.id),
            Some(text) => write!(f, "JoinError::Panic({:?}, {text:?})", self.id),
        }
    }
}

impl std::error::Error for JoinError {}

// Send and Sync: a join handle shares with the worker only what the join word guards, and `T` crosses threads.
const fn _assert_send_sync() {
    const fn check<T: Send + Sync>() {}
    check::<JoinError>();
    check::<AbortHandle>();
    check::<JoinHandle<()>>();
}
