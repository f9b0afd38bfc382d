//! A handle to a runtime: spawn, block, load.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::time::Duration;

use futures::future::FutureObj;
use futures::task::{Spawn, SpawnError as FuturesSpawnError};
use polity_core::{Core, Dump, JoinHandle, Metrics, SpawnError};
use polity_policy::{Attributes, ExitInfo, ExitKind, Generation, Policy};

use crate::bypass::Bypass;
use crate::context::{self, EnterGuard};
use crate::control::{Exits, Load, Request};
use crate::error::{LoadError, TryCurrentError};
use crate::machine::RealMachine;
use crate::policy_ref::PolicyRef;
use crate::signals::Sysrq;
use crate::spares::Spares;
use crate::sys::tls;
use crate::watch::Watch;

/// What the handles of one runtime share.
pub(crate) struct Shared {
    pub(crate) core: &'static Core<RealMachine>,
    pub(crate) control: Sender<Request>,
    pub(crate) exits: Arc<Exits>,
    /// Counts SIGQUITs.
    pub(crate) sysrqs: Arc<AtomicU64>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) watch: Arc<Watch>,
    /// Not in the core, which lives for ever: the handle keeps two descriptors open.
    pub(crate) tokio: tokio::runtime::Handle,
}

impl Sysrq for Shared {
    fn sysrq(&self) -> Option<String> {
        // First, so that a load on its way does not undo what follows.
        // Ordering: SeqCst, with the load in `Control::publish`.
        let sysrqs = self.sysrqs.fetch_add(1, Ordering::SeqCst) + 1;
        let info = self.core.unload(ExitKind::Sysrq, "");
        let _ = self.control.send(Request::CancelLoads(sysrqs));
        let info = info?;
        let workers = self.core.worker_count();
        Some(format!(
            "policy {:?} (generation {}) ejected: {}; {workers} workers run the built-in FIFO",
            info.policy, info.generation, info.kind
        ))
    }

    fn print_dump(&self) {
        // After a shutdown there is nothing to print.
        let _ = self.control.send(Request::PrintDump);
    }

    fn enter_bypass(&self) {
        self.core.enter_bypass();
    }

    fn leave_bypass(&self) {
        self.core.leave_bypass();
    }

    fn continued(&self) {
        self.watch.continued();
    }
}

/// A runtime, to be cloned and passed around. Outliving the [`Runtime`](crate::Runtime) is fine: spawned tasks are
/// then cancelled at once.
///
/// ```
/// let runtime = polity::Runtime::new()?;
/// let handle = runtime.handle().clone();
/// let answer = runtime.block_on(async move { handle.spawn(async { 6 * 7 }).await });
/// assert_eq!(answer.unwrap(), 42);
/// # Ok::<(), polity::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// The policy that is loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// Which load it is.
    pub generation: Generation,
    /// Since it was published.
    pub loaded_for: Duration,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Handle { shared }
    }

    #[inline]
    pub(crate) fn core(&self) -> &'static Core<RealMachine> {
        self.shared.core
    }

    pub(crate) fn spares(&self) -> &Arc<Spares> {
        &self.shared.spares
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.shared.watch
    }

    pub(crate) fn tokio(&self) -> &tokio::runtime::Handle {
        &self.shared.tokio
    }

    /// The runtime of this thread: of the task that runs on it, or of `block_on` or `enter`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn current() -> Handle {
        match Handle::try_current() {
            Ok(handle) => handle,
            Err(error) => panic!("{error}"),
        }
    }

    /// The runtime of this thread.
    ///
    /// # Errors
    /// If there is none.
    pub fn try_current() -> Result<Handle, TryCurrentError> {
        context::current().ok_or(TryCurrentError(()))
    }

    /// Makes this runtime the current one of this thread, for [`spawn`](crate::spawn()), `tokio::net` and
    /// `tokio::time`, until the guard is dropped.
    pub fn enter(&self) -> EnterGuard<'_> {
        context::enter(self)
    }

    /// Runs `future` on this thread until it is done. Tasks run on the workers meanwhile.
    ///
    /// **The root future is not a task**: no policy orders it, and it has no id. Spawn what should be scheduled.
    ///
    /// # Panics
    /// Inside a task (but not inside [`block_in_place`](crate::block_in_place())), inside another `block_on` (as tokio), or if
    /// `future` panics.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        // In `block_in_place` it may: this thread does nothing else meanwhile.
        let on_worker = tls::with_local(|local| local.is_some_and(|local| !local.is_in_place()));
        assert!(
            !on_worker,
            "Cannot start a runtime from within a runtime. This happens because `block_on` was called on a thread \
             that is used to drive asynchronous tasks: await the future instead."
        );
        let _entered = self.enter();
        // tokio's own `block_on` polls and parks; it drives nothing, the workers do.
        self.tokio().block_on(future)
    }

    /// Spawns a task. It runs also if the handle is dropped. A task of the same runtime that calls this hands down its
    /// [`Attributes`]; from outside, and from other runtimes, nothing is inherited.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.core().spawn(Location::caller(), future)
    }

    /// Spawns a task with attributes, for policies to read. What they do not set is inherited: see [`Attributes`].
    ///
    /// # Errors
    /// If the weight is not in 1..=10,000, the affinity mask names no worker of this runtime, or the deadline has passed.
    #[track_caller]
    pub fn spawn_with<F>(
        &self,
        attributes: Attributes,
        future: F,
    ) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.core()
            .spawn_with(attributes, Location::caller(), future)
    }

    /// Runs `body`, which may block, on a thread of a pool kept for that. The pool is bounded by
    /// [`Builder::max_blocking_threads`](crate::Builder::max_blocking_threads); what comes on top waits.
    ///
    /// Aborting the handle keeps a `body` that has not started from starting; one that runs runs on.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, body: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let handle = self.clone();
        // Started here and not in the task, so that no policy can delay it.
        let running = self.tokio().spawn_blocking(move || {
            let _entered = handle.enter();
            body()
        });
        self.core().spawn(
            Location::caller(),
            blocking::wait_for(blocking::AbortOnDrop(running)),
        )
    }

    /// Loads a policy, or swaps the loaded one for it: there is no moment under the built-in FIFO in between. Blocks until
    /// the policy's `init` has returned, at most 5 s; do not call it from a task, which would hold its worker up.
    ///
    /// # Errors
    /// If the name is unusable, `init` fails, panics or is late, a sysrq comes in between, or this is called from inside
    /// a policy's callback. Then the previous policy never stopped running.
    pub fn load(&self, policy: impl Policy) -> Result<Generation, LoadError> {
        if context::is_in_policy() {
            return Err(LoadError::InCallback);
        }
        // Ordering: SeqCst, as in `Control::publish`.
        let sysrqs = self.shared.sysrqs.load(Ordering::SeqCst);
        let pending = self.core().prepare(policy)?;
        let (reply, answer) = sync_channel(1);
        let request = Request::Load(Load {
            pending,
            reply,
            sysrqs,
        });
        self.shared
            .control
            .send(request)
            .map_err(|_| LoadError::Cancelled)?;
        answer.recv().unwrap_or(Err(LoadError::Cancelled))
    }

    /// Goes back to the built-in FIFO, at once. What the policy held runs on. `None`: no policy was loaded.
    pub fn unload(&self) -> Option<Arc<ExitInfo>> {
        self.core().unload(ExitKind::Unload, "")
    }

    /// The same against the policy's will, with a message for the report.
    pub fn eject(&self, message: &str) -> Option<Arc<ExitInfo>> {
        self.core().unload(ExitKind::Ejected, message)
    }

    /// Lets core run every task, past the policy, for as long as the guard lives. See [`Bypass`]. The first of several
    /// nested ones looks at each task slot of the process once.
    pub fn bypass(&self) -> Bypass {
        Bypass::enter(self.clone())
    }

    /// What the runtime looks like now: the policy, each worker with what it is in and for how long, the oldest runnable tasks,
    /// queues, counters. Nothing is stopped or changed for it. At most as long as
    /// [`Builder::dump_limit`](crate::Builder::dump_limit) says. SIGQUIT prints the same after an ejection.
    ///
    /// Looks at each task slot of the process once.
    ///
    /// ```
    /// let runtime = polity::Runtime::new()?;
    /// assert!(runtime.dump().to_string().starts_with("policy: none"));
    /// # Ok::<(), polity::BuildError>(())
    /// ```
    pub fn dump(&self) -> Dump {
        self.core().dump()
    }

    /// Threads inside a policy's callback that has not returned although its policy was ejected for it. They have been
    /// replaced, and cost a thread each, and its policy's memory.
    pub fn abandoned_threads(&self) -> usize {
        self.shared.spares.stuck()
    }

    /// How many bypasses there are now: guards, and one for a SIGTSTP without its SIGCONT.
    pub fn bypass_depth(&self) -> usize {
        self.core().bypass_depth() as usize
    }

    /// The policy that is loaded, by its type, so that its parameters and statistics can be read and changed while it runs.
    /// `None`: it is of another type, or the built-in FIFO runs. One that was loaded as a [`BoxPolicy`](polity_policy::BoxPolicy) is
    /// found by the type that is inside.
    ///
    /// Takes a lock that is never held for long. For control and reports, not for each request: keep the [`PolicyRef`].
    ///
    /// ```
    /// use polity::Runtime;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// /// Something with a parameter.
    /// struct Patient {
    ///     patience: AtomicU32,
    /// }
    ///
    /// impl polity::Policy for Patient {
    ///     type Task = ();
    ///     fn name(&self) -> &str {
    ///         "patient"
    ///     }
    /// }
    ///
    /// let runtime = Runtime::new()?;
    /// assert!(runtime.policy::<Patient>().is_none());
    /// runtime.load(Patient { patience: AtomicU32::new(3) }).unwrap();
    /// let policy = runtime.policy::<Patient>().unwrap();
    /// policy.patience.store(5, Ordering::Relaxed);
    /// # Ok::<(), polity::BuildError>(())
    /// ```
    pub fn policy<P: Policy>(&self) -> Option<PolicyRef<P>> {
        PolicyRef::current(self)
    }

    /// Name, number and age of the policy that is loaded; `None`: the built-in FIFO runs.
    pub fn policy_status(&self) -> Option<PolicyStatus> {
        let policy = self.core().current_policy()?;
        let loaded_for = self.now_ns().saturating_sub(policy.published_at());
        Some(PolicyStatus {
            name: policy.name().to_owned(),
            generation: policy.generation(),
            loaded_for: Duration::from_nanos(loaded_for),
        })
    }

    fn now_ns(&self) -> u64 {
        polity_core::Machine::now(self.core().machine())
    }

    /// Why a policy ended; `None` if it has not, or if 64 others have ended since.
    pub fn exit_info(&self, generation: Generation) -> Option<Arc<ExitInfo>> {
        self.shared.exits.get(generation)
    }

    /// Blocks until that policy has ended, or the timeout has passed.
    pub fn wait_exit(&self, generation: Generation, timeout: Duration) -> Option<Arc<ExitInfo>> {
        self.shared.exits.wait(generation, timeout)
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.core().worker_count()
    }

    /// Event counts since the start.
    pub fn metrics(&self) -> Metrics {
        self.core().metrics()
    }

    /// Tasks that libraries have started with `tokio::spawn`: they live on the driver, and no policy sees them. One warning for each
    /// load says so. [`Metrics::foreign_tasks`] is the same number.
    pub fn foreign_tasks(&self) -> usize {
        self.core().machine().driver.foreign_tasks()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy_status().map(|policy| policy.name);
        f.debug_struct("Handle")
            .field("workers", &self.worker_count())
            .field("policy", &policy)
            .finish()
    }
}

impl Spawn for Handle {
    /// Spawns and detaches.
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), FuturesSpawnError> {
        drop(self.spawn(future));
        Ok(())
    }
}

mod blocking {
    use std::panic::resume_unwind;

    use tokio::task::JoinHandle;

    pub(super) struct AbortOnDrop<R>(pub(super) JoinHandle<R>);

    impl<R> Drop for AbortOnDrop<R> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    /// The output of a blocking call; a panic in it is the panic of this task.
    pub(super) async fn wait_for<R>(mut running: AbortOnDrop<R>) -> R {
        match (&mut running.0).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                // The pool is gone, so the runtime is going, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
