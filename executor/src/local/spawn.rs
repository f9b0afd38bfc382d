//! Spawning what is bound to a thread.

use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, PoisonError};

use polity_core::{AbortHandle, JoinHandle, SpawnError};
use polity_policy::{Attributes, WorkerId, WorkerMask};

use super::handle::{LocalJoinHandle, Slot, take};
use super::post::Link;
use super::residence::{self, Residence};
use super::set;
use crate::handle::Handle;

fn only(worker: WorkerId) -> WorkerMask {
    WorkerMask::from_iter([worker])
}

/// The home of what is spawned on this thread.
#[track_caller]
fn home() -> Rc<Residence> {
    match residence::here() {
        Some(here) => here,
        None => panic!(
            "spawn_local was called outside of a task and of a `LocalSet`: run it inside `LocalSet::run_until`, or use \
             `Handle::spawn_pinned`, which makes the future on a worker"
        ),
    }
}

/// Spawns a future that need not be `Send`. It stays on the thread on which this is called: that polls it and drops it, and no
/// other thread ever touches it.
///
/// Inside a [`LocalSet`](crate::LocalSet) it joins that set. Else it is a task of the runtime, under its policy, with an affinity
/// of one: the worker on which the calling task runs.
///
/// **When not to use it.** A local task cannot go to an idle worker, so a future that can be `Send` is better served by
/// [`spawn`](crate::spawn()). And it waits when its *thread* is busy, also where others are helped by a spare thread:
/// - behind a long poll or a [`block_in_place`](crate::block_in_place()) on its thread it waits until that is over;
/// - if the policy does not return from a callback on its thread, it waits for as long as the callback takes, perhaps for
///   ever, and a warning says so. A thread that comes back after all goes on with its local tasks, as a spare: then
///   the policy decides when one has its turn, but is not told how long its poll takes, and a long one is not reported.
/// - The same holds for what is spawned on a spare while that stands in for a worker. Should that be the last resort, the
///   watchdog's own thread, the local tasks are cancelled when it goes back to its work.
///
/// Spawning one costs some microseconds, about ten times as much as [`spawn`](crate::spawn()), and each poll about 0.3 µs more.
///
/// It inherits the attributes of the task that spawns it, as every task does, but for the affinity; and what it spawns itself with
/// [`spawn`](crate::spawn()) is as free as its parent would have left it. A weight that is changed later is not handed down.
///
/// The future is dropped on its thread: at its end, or when it is aborted, or when the runtime closes; never if its
/// thread is stuck for ever.
///
/// # Panics
/// Outside of a task and of a `LocalSet`. The root future of [`block_on`](crate::Handle::block_on) is not a task.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let runtime = polity::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     polity::spawn(async {
///         polity::spawn_local(async {
///             let count = Rc::new(Cell::new(0));
///             let theirs = Rc::clone(&count);
///             let adds = polity::spawn_local(async move { theirs.set(theirs.get() + 1) });
///             adds.await?;
///             Ok::<u32, polity::JoinError>(count.get())
///         })
///         .await
///     })
///     .await
/// });
/// assert_eq!(sum???, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn spawn_local<F>(future: F) -> LocalJoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    if let Some(set) = set::current() {
        return set.spawn(Location::caller(), future);
    }
    match spawn_here(Attributes::new(), future) {
        Ok(task) => task,
        Err(error) => unreachable!("default attributes, and a worker that exists: {error}"),
    }
}

/// [`spawn_local`](crate::spawn_local()) with attributes, for policies to read. An affinity among them counts only for what the
/// task spawns: its own is this worker. Never joins a [`LocalSet`](crate::LocalSet), whose members no policy sees.
///
/// # Errors
/// If the weight is not in 1..=10,000, the affinity mask names no worker, or the deadline has passed.
///
/// # Panics
/// Outside of a task.
///
/// ```
/// use polity::Attributes;
/// use std::rc::Rc;
///
/// let runtime = polity::Runtime::new()?;
/// let task = runtime.spawn(async {
///     let urgent = Attributes::new().name("ping").weight(1000);
///     polity::spawn_local_with(urgent, async { *Rc::new(7) }).unwrap().await
/// });
/// assert_eq!(runtime.block_on(task)??, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn spawn_local_with<F>(
    attributes: Attributes,
    future: F,
) -> Result<LocalJoinHandle<F::Output>, SpawnError>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_here(attributes, future)
}

#[track_caller]
fn spawn_here<F>(
    attributes: Attributes,
    future: F,
) -> Result<LocalJoinHandle<F::Output>, SpawnError>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let home = home();
    let (core, worker) = (home.core(), home.worker());
    core.check_attributes(&attributes)?;
    let scope = match attributes == Attributes::new() {
        true => core.scope_here(),
        false => core.scope(attributes.clone()),
    };
    let output = Slot::default();
    let abort = Arc::new(OnceLock::new());
    let proxy = home.bind(
        Box::pin(fill(Arc::clone(&output), future)),
        Link::new(worker, scope, Arc::clone(&abort)),
    );
    let attributes = attributes.affinity(only(worker));
    let task = core.spawn_with(attributes, Location::caller(), proxy)?;
    let _ = abort.set(task.abort_handle());
    Ok(LocalJoinHandle::of_task(task, output))
}

async fn fill<F: Future>(slot: Slot<F::Output>, future: F) {
    let output = future.await;
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
}

impl Handle {
    /// Spawns, from anywhere, a task whose future need not be `Send`: `make` is sent to that worker and makes it there. It is a task
    /// under the policy with an affinity of one, and from then on bound to the thread on which it was made, as after
    /// [`spawn_local`](crate::spawn_local()), whose docs say when it waits. That is the worker's own thread, or the spare that
    /// stands in for it just then.
    ///
    /// # Errors
    /// If there is no such worker.
    ///
    /// ```
    /// use polity::WorkerId;
    /// use std::rc::Rc;
    ///
    /// let runtime = polity::Runtime::new()?;
    /// let task = runtime.spawn_pinned(WorkerId::new(0), || async {
    ///     let shared = Rc::new(20);
    ///     polity::yield_now().await;
    ///     *shared + 1
    /// })?;
    /// assert_eq!(runtime.block_on(task)?, 21);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_pinned<M, F>(
        &self,
        worker: WorkerId,
        make: M,
    ) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let abort: Arc<OnceLock<AbortHandle>> = Arc::default();
        let scope = self.core().scope_here();
        let link = Link::new(worker, scope, Arc::clone(&abort));
        let task = async move {
            let output = Slot::default();
            // In the first poll; what is kept from then on is the proxy.
            let future = fill(Arc::clone(&output), async move { make().await });
            let proxy = home().bind(Box::pin(future), link);
            proxy.await;
            take(&output)
        };
        let attributes = Attributes::new().affinity(only(worker));
        let task = self
            .core()
            .spawn_with(attributes, Location::caller(), task)?;
        let _ = abort.set(task.abort_handle());
        Ok(task)
    }
}
