//! Futures and policies that several modules use.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};

use polity::{Handle, Host, JoinHandle, Policy, Runtime, TaskView, yield_now};
use polity_policies::Callback;
use polity_tests::{receive, wait_for};

/// The callbacks that come on a worker: what goes wrong in one of them is tried in each. Those of timers and of changed
/// attributes have tests of their own, in `timers` and `changes`.
pub(crate) const ON_WORKERS: [Callback; 10] = [
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

/// Counts its drops.
pub(crate) struct Counted(Arc<AtomicUsize>);

/// How many [`Counted`] of this counter have been dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub(crate) fn counted(&self) -> Counted {
        Counted(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A policy that takes every task and gives none back.
pub(crate) struct Hoarder;

impl Policy for Hoarder {
    type Task = ();

    fn name(&self) -> &str {
        "hoarder"
    }

    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {}
}

/// A task in the middle of one long poll. Dropping it ends the poll.
pub(crate) struct Blocker {
    pub(crate) thread: ThreadId,
    pub(crate) task: JoinHandle<()>,
    release: Sender<()>,
}

impl Blocker {
    /// Returns when the poll has begun.
    pub(crate) fn new(runtime: &Runtime) -> Blocker {
        Blocker::with(|body| runtime.spawn(body))
    }

    pub(crate) fn with(
        spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> JoinHandle<()>,
    ) -> Blocker {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = spawn(Box::pin(async move {
            begun.send(thread::current().id()).unwrap();
            let _ = released.recv();
        }));
        Blocker {
            thread: receive("the long poll to begin", &has_begun),
            task,
            release,
        }
    }

    /// Ends the poll and waits for the end of the task.
    pub(crate) fn end(self) {
        drop(self.release);
        wait_for("the end of a long poll", self.task).unwrap();
    }
}

/// Yields, and does nothing else, until it is told to stop.
pub(crate) fn yield_until(stop: &Arc<AtomicBool>) -> impl Future<Output = ()> + Send + use<> {
    let stop = Arc::clone(stop);
    async move {
        while !stop.load(Ordering::Relaxed) {
            yield_now().await;
        }
    }
}

/// Tasks that only yield: there is always something to run, and nothing is held up for long.
pub(crate) struct Yielding {
    stop: Arc<AtomicBool>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Yielding {
    pub(crate) fn start(runtime: &Handle, count: usize) -> Yielding {
        let stop = Arc::<AtomicBool>::default();
        let tasks = (0..count).map(|_| runtime.spawn(yield_until(&stop)));
        Yielding {
            tasks: tasks.collect(),
            stop,
        }
    }

    /// Tells them to stop, and waits for them.
    #[track_caller]
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            wait_for("a task that yields", task).unwrap();
        }
    }
}

/// Waits until the only worker has been through a poll, and so through the end of the one before.
pub(crate) fn settle(runtime: &Runtime) {
    assert_eq!(runtime.worker_count(), 1);
    wait_for("a poll of the only worker", runtime.spawn(async {})).unwrap();
}

/// A future that waits for ever, says when it is first polled, and counts its drop.
pub(crate) fn waiting(drops: &Drops) -> (impl Future<Output = ()> + Send + use<>, Receiver<()>) {
    let (polled, is_polled) = channel();
    let counted = drops.counted();
    let future = async move {
        let _counted = counted;
        polled.send(()).unwrap();
        std::future::pending().await
    };
    (future, is_polled)
}

/// Which threads a future was polled and dropped on.
#[derive(Clone, Default, Debug)]
pub(crate) struct Threads(Arc<Mutex<HashSet<ThreadId>>>);

impl Threads {
    /// Not the watchdog's: where the machine keeps all workers from running for long, it does the work of one of them.
    pub(crate) fn note(&self) {
        let thread = thread::current();
        if thread.name() != Some("polity-watchdog") {
            self.0.lock().unwrap().insert(thread.id());
        }
    }

    pub(crate) fn all(&self) -> HashSet<ThreadId> {
        self.0.lock().unwrap().clone()
    }
}

/// Notes the thread of each poll of a future, and of its drop.
pub(crate) struct Noted<F> {
    threads: Threads,
    // In a box, so that this file needs no `unsafe`.
    future: Option<Pin<Box<F>>>,
}

pub(crate) fn noted<F: Future>(threads: &Threads, future: F) -> Noted<F> {
    Noted {
        threads: threads.clone(),
        future: Some(Box::pin(future)),
    }
}

impl<F: Future> Future for Noted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.threads.note();
        let future = self.future.as_mut().expect("not dropped yet");
        future.as_mut().poll(context)
    }
}

impl<F> Drop for Noted<F> {
    fn drop(&mut self) {
        self.threads.note();
        self.future = None;
    }
}
