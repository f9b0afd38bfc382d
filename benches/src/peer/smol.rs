//! async-executor's two executors, each run by plain threads.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use async_executor::{Executor, StaticExecutor, Task};
use futures_lite::future;
use tokio::sync::oneshot;

use super::Peer;

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
            threads: Threads,
        }

        impl Peer for $peer {
            const NAME: &'static str = $name;
            type Join<T: Send + 'static> = Task<T>;

            fn start(workers: usize) -> Self {
                $peer {
                    threads: Threads::start(&$in_use, workers, |stopped| $executor.run(stopped)),
                }
            }

            fn workers(&self) -> usize {
                self.threads.running.len()
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
