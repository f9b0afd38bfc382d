//! Many tasks of one output type, waited for as they end.
//!
//! Not a scope: the tasks are `'static`, and a set that is dropped aborts them without waiting. No lock and no task of its own: the
//! handles lie in a [`FuturesUnordered`], whose wakers put a handle into a queue when its task ends, so that each end costs the
//! same however many others wait.
//! Rejected: handles in a `Vec` that are all polled at each wake (quadratic in all), and a channel that each task sends its
//! output to (aborted tasks send nothing).

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::stream::{FuturesUnordered, Stream};
use polity_core::{AbortHandle, JoinError, JoinHandle, SpawnError};
use polity_policy::{Attributes, TaskId};

use crate::handle::Handle;

/// Tasks that are waited for in the order in which they end. The names and meanings are those of tokio's `JoinSet`.
///
/// **Dropping it aborts** the tasks that are left, and does not wait for them; [`detach_all`](JoinSet::detach_all) lets them go,
/// [`shutdown`](JoinSet::shutdown) waits.
///
/// When not to use it: for two or three tasks, `tokio::join!` on their handles is simpler; for tasks whose output nobody wants,
/// drop the handle that [`spawn`](crate::spawn()) returns.
///
/// Spawning and each end cost a constant time, however many tasks are in the set. An output stays in its task until it is taken.
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// # runtime.block_on(async {
/// let mut squares = polity::JoinSet::new();
/// for n in 1..=3 {
///     squares.spawn(async move { n * n });
/// }
/// let mut sum = 0;
/// while let Some(square) = squares.join_next().await {
///     sum += square.expect("no task panics");
/// }
/// assert_eq!(sum, 14);
/// # });
/// # Ok::<(), polity::BuildError>(())
/// ```
#[must_use = "dropping a set aborts its tasks"]
pub struct JoinSet<T> {
    tasks: FuturesUnordered<Identified<T>>,
}

/// A handle that says which task it was the handle of.
struct Identified<T>(JoinHandle<T>);

impl<T> Future for Identified<T> {
    type Output = Result<(TaskId, T), JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.0.id();
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|output| output.map(|output| (id, output)))
    }
}

impl<T> JoinSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        JoinSet {
            tasks: FuturesUnordered::new(),
        }
    }

    /// How many tasks have not been joined, ended ones among them.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether every task has been joined.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Aborts every task. They stay in the set: joining them says that they were cancelled, or what they had made by then.
    ///
    /// Complexity: linear in the number of tasks.
    pub fn abort_all(&mut self) {
        for task in &self.tasks {
            task.0.abort();
        }
    }

    /// Lets every task go: they run on, nobody hears of them, and the set is empty.
    pub fn detach_all(&mut self) {
        self.tasks.clear();
    }

    /// Aborts every task and waits until all are gone. What they had made, and what they had panicked with, is dropped.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// The output of the next task to end, in the order of their ends; `None` if the set is empty.
    ///
    /// Cancel safe: a future that is dropped before it is ready has taken nothing out of the set.
    ///
    /// # Errors
    /// If that task panicked or was aborted. The others go on.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// The same, with the id that the task had.
    ///
    /// # Errors
    /// As for [`join_next`](JoinSet::join_next); the error has the id as well.
    pub async fn join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        poll_fn(|context| self.poll_join_next_with_id(context)).await
    }

    /// The output of a task that has ended; `None` if there is none now, or the set is empty. A task is seen here when its
    /// handles have been told of its end, a moment after [`AbortHandle::is_finished`] says so.
    ///
    /// # Errors
    /// As for [`join_next`](JoinSet::join_next).
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.try_join_next_with_id().map(without_id)
    }

    /// The same, with the id that the task had.
    ///
    /// # Errors
    /// As for [`join_next`](JoinSet::join_next).
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll_join_next_with_id(&mut context) {
                Poll::Ready(joined) => return joined,
                // The queue of the set gives up early now and then, and says so by waking us: then another look is due.
                // Ordering: Acquire pairs with the Release in `wake`.
                Poll::Pending if woken.0.swap(false, Ordering::Acquire) => {}
                Poll::Pending => return None,
            }
        }
    }

    /// [`join_next`](JoinSet::join_next), for those who write their own futures. `Pending`: the task of `context` is woken when
    /// there may be more to see.
    pub fn poll_join_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        let joined = self.poll_join_next_with_id(context);
        joined.map(|joined| joined.map(without_id))
    }

    /// The same, with the id that the task had.
    pub fn poll_join_next_with_id(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(TaskId, T), JoinError>>> {
        Pin::new(&mut self.tasks).poll_next(context)
    }

    /// The outputs of all tasks, in the order of their ends.
    ///
    /// # Panics
    /// If a task panicked, with what it panicked with, or was aborted. The tasks that are left are aborted then.
    pub async fn join_all(mut self) -> Vec<T> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(joined) = self.join_next().await {
            match joined.map_err(JoinError::try_into_panic) {
                Ok(output) => outputs.push(output),
                Err(Ok(payload)) => resume_unwind(payload),
                Err(Err(cancelled)) => panic!("{cancelled}"),
            }
        }
        outputs
    }

    /// From now on the task of this handle is one of the set's.
    fn add(&mut self, task: JoinHandle<T>) -> AbortHandle {
        let abort = task.abort_handle();
        self.tasks.push(Identified(task));
        abort
    }
}

impl<T: Send + 'static> JoinSet<T> {
    /// Spawns a task of the set on the current runtime.
    ///
    /// # Panics
    /// Outside a runtime: see [`Handle::current`].
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        let task = crate::spawn(future);
        self.add(task)
    }

    /// Spawns a task of the set with attributes on the current runtime.
    ///
    /// # Errors
    /// As for [`spawn_with`](crate::spawn_with); the set is as before.
    ///
    /// # Panics
    /// Outside a runtime: see [`Handle::current`].
    #[track_caller]
    pub fn spawn_with<F>(
        &mut self,
        attributes: Attributes,
        future: F,
    ) -> Result<AbortHandle, SpawnError>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let task = crate::spawn_with(attributes, future)?;
        Ok(self.add(task))
    }

    /// Spawns a task of the set on that runtime. One set may have tasks on several.
    #[track_caller]
    pub fn spawn_on<F>(&mut self, future: F, handle: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        let task = handle.spawn(future);
        self.add(task)
    }

    /// Runs `body`, which may block, on a thread kept for that; see [`Handle::spawn_blocking`]. Aborting it has an effect only
    /// before it starts.
    ///
    /// # Panics
    /// Outside a runtime: see [`Handle::current`].
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, body: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let task = crate::spawn_blocking(body);
        self.add(task)
    }

    /// The same on that runtime.
    #[track_caller]
    pub fn spawn_blocking_on<F>(&mut self, body: F, handle: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let task = handle.spawn_blocking(body);
        self.add(task)
    }
}

fn without_id<T>(joined: Result<(TaskId, T), JoinError>) -> Result<T, JoinError> {
    joined.map(|(_, output)| output)
}

/// Remembers that it was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Ordering: Release pairs with the Acquire in `try_join_next_with_id`.
        self.0.store(true, Ordering::Release);
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        JoinSet::new()
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<F> FromIterator<F> for JoinSet<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// Spawns each future on the current runtime.
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = JoinSet::new();
        set.extend(futures);
        set
    }
}

impl<F> Extend<F> for JoinSet<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// Spawns each future on the current runtime.
    #[track_caller]
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        for future in futures {
            self.spawn(future);
        }
    }
}

const fn _assert_send_sync() {
    const fn check<T: Send + Sync>() {}
    check::<JoinSet<std::cell::Cell<u8>>>();
}
