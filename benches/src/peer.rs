//! The contenders behind one trait.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use async_executor::{Executor, StaticExecutor, Task};
use futures_lite::future;
use polity::Policy;
use tokio::sync::oneshot;

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
pub trait Peer: Sized + 'static {
    /// What reports call it.
    const NAME: &'static str;

    /// What a spawn returns.
    type Join<T: Send + 'static>: Send + 'static;

    /// Starts it with so many workers, and its own defaults for the rest. Dropping it stops them.
    fn start(workers: usize) -> Self;

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
    policy: Option<String>,
}

impl Polity {
    /// Starts it with `policy` in charge instead of the built-in FIFO.
    pub fn under(workers: usize, policy: impl Policy) -> Self {
        Self::build(
            polity::Builder::new()
                .worker_threads(workers)
                .policy(policy),
        )
    }

    fn build(builder: polity::Builder) -> Self {
        let runtime = builder.build().expect("polity starts");
        let policy = runtime.policy_status().map(|status| status.name);
        Polity { runtime, policy }
    }
}

impl Peer for Polity {
    const NAME: &'static str = "polity";
    type Join<T: Send + 'static> = polity::JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Self::build(polity::Builder::new().worker_threads(workers))
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

/// tokio's multi-thread runtime, with I/O and timers enabled, as its own benches have it.
///
/// ```
/// use polity_benches::{Peer, Tokio};
///
/// assert_eq!(Tokio::start(1).block_on(async { 7 }), 7);
/// ```
pub struct Tokio {
    runtime: tokio::runtime::Runtime,
}

impl Peer for Tokio {
    const NAME: &'static str = "tokio";
    type Join<T: Send + 'static> = tokio::task::JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Tokio {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_all()
                .build()
                .expect("tokio starts"),
        }
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

/// Threads that run an executor until they are dropped.
struct Threads {
    in_use: &'static AtomicBool,
    running: Vec<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Threads {
    /// `run` runs the executor until its argument resolves. `in_use` guards the executor, which is one static.
    fn start<F: Future>(
        in_use: &'static AtomicBool,
        workers: usize,
        run: impl Fn(oneshot::Receiver<()>) -> F + Copy + Send + 'static,
    ) -> Self {
        assert!(
            !in_use.swap(true, Ordering::AcqRel),
            "one at a time: tasks spawn onto a static"
        );
        let one = |_| {
            let (stop, stopped) = oneshot::channel();
            let thread = thread::spawn(move || {
                future::block_on(run(stopped));
            });
            (stop, thread)
        };
        Threads {
            in_use,
            running: (0..workers).map(one).collect(),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for (stop, thread) in self.running.drain(..) {
            drop(stop);
            let _ = thread.join();
        }
        self.in_use.store(false, Ordering::Release);
    }
}

static EXECUTOR: Executor<'static> = Executor::new();
static EXECUTOR_IN_USE: AtomicBool = AtomicBool::new(false);
static STATIC_EXECUTOR: StaticExecutor = StaticExecutor::new();
static STATIC_EXECUTOR_IN_USE: AtomicBool = AtomicBool::new(false);

macro_rules! async_executor_peer {
    ($(#[$doc:meta])* $peer:ident, $name:literal, $executor:ident, $in_use:ident) => {
        $(#[$doc])*
        pub struct $peer {
            _threads: Threads,
        }

        impl Peer for $peer {
            const NAME: &'static str = $name;
            type Join<T: Send + 'static> = Task<T>;

            fn start(workers: usize) -> Self {
                $peer {
                    _threads: Threads::start(&$in_use, workers, |stopped| $executor.run(stopped)),
                }
            }

            fn block_on<F: Future>(&self, root: F) -> F::Output {
                future::block_on(root)
            }

            fn spawn_from_outside<F>(&self, future: F) -> Self::Join<F::Output>
            where
                F: Future<Output: Send> + Send + 'static,
            {
                $executor.spawn(future)
            }

            fn spawn<F>(future: F) -> Self::Join<F::Output>
            where
                F: Future<Output: Send> + Send + 'static,
            {
                $executor.spawn(future)
            }

            fn join<T: Send + 'static>(task: Self::Join<T>) -> impl Future<Output = T> + Send {
                task
            }

            fn detach<T: Send + 'static>(task: Self::Join<T>) {
                task.detach();
            }

            fn yield_now() -> impl Future<Output = ()> + Send {
                future::yield_now()
            }
        }
    };
}

async_executor_peer! {
    /// async-executor's `Executor`, run by plain threads as its own benches do. One at a time.
    ///
    /// ```
    /// use polity_benches::{AsyncExecutor, Peer};
    ///
    /// assert_eq!(AsyncExecutor::start(1).block_on(async { 7 }), 7);
    /// ```
    AsyncExecutor, "async-executor", EXECUTOR, EXECUTOR_IN_USE
}

async_executor_peer! {
    /// async-executor's `StaticExecutor`: its faster sibling, which keeps no list of its tasks. One at a time.
    ///
    /// ```
    /// use polity_benches::{AsyncStatic, Peer};
    ///
    /// assert_eq!(AsyncStatic::start(1).block_on(async { 7 }), 7);
    /// ```
    AsyncStatic, "async-static", STATIC_EXECUTOR, STATIC_EXECUTOR_IN_USE
}
