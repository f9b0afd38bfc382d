//! Weight and affinity of tasks that exist: changed by their handles, heard of by policies.

mod custody;
mod masks;
mod refusals;
mod told;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use polity::{Attributes, JoinHandle, Runtime, WorkerId, WorkerMask};
use polity_tests::receive;
use tokio::sync::Notify;

use crate::support::{Blocker, Threads, noted};

fn only(workers: impl IntoIterator<Item = u16>) -> WorkerMask {
    workers.into_iter().map(WorkerId::new).collect()
}

/// The other one of two workers. A thread that stands in for a worker is neither of them, so tests ask where a task did *not*
/// run: the machine may keep a worker from running for so long that the watchdog does its work.
fn other(of: usize) -> usize {
    1 - of
}

/// One long poll on each worker.
fn block_all(runtime: &Runtime) -> Vec<Blocker> {
    let count = runtime.worker_count() as u16;
    let one = |worker| {
        Blocker::with(|body| {
            let here = Attributes::new().affinity(only([worker]));
            runtime.spawn_with(here, body).unwrap()
        })
    };
    (0..count).map(one).collect()
}

/// A task that waits for `notify`, has begun to, and notes its threads.
fn waiting(runtime: &Runtime, notify: &Arc<Notify>, threads: &Threads) -> JoinHandle<()> {
    let (begun, has_begun) = channel();
    let notify = Arc::clone(notify);
    let body = noted(threads, async move {
        begun.send(()).unwrap();
        notify.notified().await;
    });
    let task = runtime.spawn(body);
    receive("the first poll", &has_begun);
    task
}

/// Waits until it may end, having handed out its waker in its first poll, and says where its last poll was. A poll in between,
/// which a stale waker of the slot may cause, does not count.
fn last_poll() -> (
    impl Future<Output = ThreadId> + Send,
    Receiver<Waker>,
    Arc<AtomicBool>,
) {
    let (waker, wakers) = channel();
    let mut waker = Some(waker);
    let end = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&end);
    let future = poll_fn(move |context| {
        if let Some(waker) = waker.take() {
            waker.send(context.waker().clone()).unwrap();
            // Not this poll, whatever comes meanwhile: it has begun before.
            return Poll::Pending;
        }
        match may_end.load(Ordering::SeqCst) {
            true => Poll::Ready(thread::current().id()),
            false => Poll::Pending,
        }
    });
    (future, wakers, end)
}
