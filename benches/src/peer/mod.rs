//! The contenders behind one trait.

mod smol;

use std::future::Future;

use polity::Policy;

pub use smol::{AsyncExecutor, AsyncStatic};

/// A runtime that a workload can run on: what every contender can do, under one name.
///
/// `spawn` and `yield_now` have no receiver, as in real programs: a task finds its runtime by itself.
///
/// ```
/// use polity_benches::{Peer, Polity};
///
/// let peer = Polity::start(1);
/// peer.block_on(async { Polity::join(Polity::spawn(Polity::yield_now())).await });
/// ```
pub trait Peer: Sized + Sync + 'static {
    /// What reports call it.
    const NAME: &'static str;

    /// What a spawn returns.
    type Join<T: Send + 'static>: Send + 'static;

    /// Starts it with so many workers, and its own defaults for the rest. Dropping it stops them.
    fn start(workers: usize) -> Self;

    /// The same without I/O and timers, if it can do without.
    fn start_without_drivers(workers: usize) -> Self {
        Self::start(workers)
    }

    /// How many workers it was started with.
    fn workers(&self) -> usize;

    /// Runs `root` on the calling thread, which is no worker.
    fn block_on<F: Future>(&self, root: F) -> F::Output;

    /// Spawns from a thread that has nothing to do with the runtime.
    fn spawn_from_outside<F>(&self, future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static;

    /// Spawns from inside a task, or from the root of [`block_on`](Peer::block_on).
    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static;

    /// Waits for a task, and panics if it did.
    fn join<T: Send + 'static>(task: Self::Join<T>) -> impl Future<Output = T> + Send;

    /// Lets a task run on its own.
    fn detach<T: Send + 'static>(task: Self::Join<T>);

    /// Lets other tasks run, by the runtime's own means.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Panics if it is no longer what was started, so that the figures belong to something else.
    fn check(&self) {}
}

/// polity itself.
///
/// ```
/// use polity_benches::{Empty, Peer, Polity};
///
/// assert_eq!(Polity::under(1, Empty).block_on(async { 7 }), 7);
/// ```
pub struct Polity {
    runtime: polity::Runtime,
    workers: usize,
    policy: Option<String>,
}

impl Polity {
    /// Starts it with `policy` in charge instead of the built-in FIFO.
    pub fn under(workers: usize, policy: impl Policy) -> Self {
        Self::build(workers, polity::Builder::new().policy(policy))
    }

    fn build(workers: usize, builder: polity::Builder) -> Self {
        let runtime = builder.worker_threads(workers).build();
        let runtime = runtime.expect("polity starts");
        let policy = runtime.policy_status().map(|status| status.name);
        Polity {
            runtime,
            workers,
            policy,
        }
    }
}

impl Peer for Polity {
    const NAME: &'static str = "polity";
    type Join<T: Send + 'static> = polity::JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Self::build(workers, polity::Builder::new())
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.runtime.block_on(root)
    }

    fn spawn_from_outside<F>(&self, future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        polity::spawn(future)
    }

    async fn join<T: Send + 'static>(task: Self::Join<T>) -> T {
        task.await.expect("the task ends well")
    }

    fn detach<T: Send + 'static>(task: Self::Join<T>) {
        drop(task);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        polity::yield_now()
    }

    /// An ejected policy would look wonderfully cheap.
    fn check(&self) {
        let policy = self.runtime.policy_status().map(|status| status.name);
        assert_eq!(policy, self.policy, "the policy was ejected on the way");
    }
}

/// tokio's multi-thread runtime.
///
/// ```
/// use polity_benches::{Peer, Tokio};
///
/// assert_eq!(Tokio::start(1).block_on(async { 7 }), 7);
/// ```
pub struct Tokio {
    runtime: tokio::runtime::Runtime,
}

impl Tokio {
    fn builder(workers: usize) -> tokio::runtime::Builder {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(workers);
        builder
    }
}

impl Peer for Tokio {
    const NAME: &'static str = "tokio";
    type Join<T: Send + 'static> = tokio::task::JoinHandle<T>;

    fn start(workers: usize) -> Self {
        let runtime = Tokio::builder(workers).enable_all().build();
        Tokio {
            runtime: runtime.expect("tokio starts"),
        }
    }

    fn start_without_drivers(workers: usize) -> Self {
        let runtime = Tokio::builder(workers).build();
        Tokio {
            runtime: runtime.expect("tokio starts"),
        }
    }

    fn workers(&self) -> usize {
        self.runtime.metrics().num_workers()
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.runtime.block_on(root)
    }

    fn spawn_from_outside<F>(&self, future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the peer")]
    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(future)
    }

    async fn join<T: Send + 'static>(task: Self::Join<T>) -> T {
        task.await.expect("the task ends well")
    }

    fn detach<T: Send + 'static>(task: Self::Join<T>) {
        drop(task);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }
}
