//! Panics, wherever foreign code can have them: in each callback of a policy, in a future, in what it leaves behind, in
//! somebody else's waker. What panicked ends; workers, other tasks and other policies go on.
//!
//! What native code cannot contain ends the process: `tests/aborts`.

mod hooks;
mod lives;
mod poison;
pub(crate) mod policies;
mod tasks;
mod wakers;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use polity::{
    Attributes, ExitInfo, ExitKind, Generation, Handle, JoinHandle, Policy, Runtime, WorkerId,
    WorkerMask, yield_now,
};
use polity_tests::wait_for;
use tokio::sync::mpsc;

use crate::support::{Blocker, yield_until};

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        // During the unwinding of another panic it would abort the process.
        assert!(thread::panicking(), "{}", self.0);
    }
}

/// A panic payload whose drop panics with another of its kind, for ever.
struct EndlessBomb;

impl Drop for EndlessBomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            resume_unwind(Box::new(EndlessBomb));
        }
    }
}

/// Panics with a payload that must not be dropped. Says nothing on stderr.
fn throw_endless_bomb() -> ! {
    resume_unwind(Box::new(EndlessBomb))
}

/// Of what ended a policy for a panic. Not by `assert_eq`: the hook of the ordered panics would keep that failure to itself.
#[track_caller]
fn check_panic(info: &ExitInfo, message: &str) {
    let shown = |text: &str| text.replace("as ordered", "so ordered");
    let said = shown(&info.to_string());
    assert!(info.kind == ExitKind::Panic, "{said}");
    assert!(
        without_place(&info.message) == message,
        "{said}; expected: {}",
        shown(message)
    );
    assert!(info.worker.is_some(), "{said}");
    match message.split(':').next() {
        Some("dispatch" | "dequeue") => assert!(info.task.is_none(), "{said}"),
        // That of an aborted task comes outside of its run, and names none.
        Some("quiescent") => {}
        _ => assert!(info.task.is_some(), "{said}"),
    }
}

/// What a panic said. The message of an exit info goes on with its place, unless the hook of the ordered panics came after
/// polity's own and keeps it from that.
fn without_place(message: &str) -> &str {
    message.split(" (at ").next().unwrap()
}

fn only(worker: usize) -> Attributes {
    let worker = WorkerId::new(worker as u16);
    Attributes::new().affinity(WorkerMask::from_iter([worker]))
}

/// Every worker polls a task that only it may poll, all of them at the same time.
#[track_caller]
fn check_every_worker_works(runtime: &Handle) {
    let workers = runtime.worker_count();
    let all_there = Arc::new(Barrier::new(workers));
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let all_there = Arc::clone(&all_there);
            let meets = async move {
                all_there.wait();
                thread::current().id()
            };
            runtime.spawn_with(only(worker), meets).unwrap()
        })
        .collect();
    let mut threads: Vec<_> = tasks
        .into_iter()
        .map(|task| wait_for("a task of each worker", task).unwrap())
        .collect();
    threads.sort_by_key(|thread| format!("{thread:?}"));
    threads.dedup();
    assert_eq!(threads.len(), workers);
}

/// Every worker is in one long poll.
struct KeptBusy(Vec<Blocker>);

impl KeptBusy {
    fn start(runtime: &Runtime) -> KeptBusy {
        let blocker = |_| Blocker::new(runtime);
        KeptBusy((0..runtime.worker_count()).map(blocker).collect())
    }

    fn end(self) {
        self.0.into_iter().for_each(Blocker::end);
    }
}

/// Loads a policy that is asked about every task spawned from now on. After a bare load, a worker that was between its look
/// at the policy and its look for work still runs one task without it.
pub(crate) fn load_while_busy(runtime: &Runtime, policy: impl Policy) -> Generation {
    let busy = KeptBusy::start(runtime);
    let generation = runtime.load(policy).unwrap();
    busy.end();
    generation
}

/// How often what happened to the short tasks of a [`Churn`].
#[derive(Default)]
struct Ledger {
    spawned: AtomicUsize,
    ran_to_the_end: AtomicUsize,
    dropped: AtomicUsize,
    answered: AtomicUsize,
    cancelled: AtomicUsize,
    /// By the end of the runtime, if at all.
    cancelled_unasked: AtomicUsize,
}

struct DropNoted(Arc<Ledger>);

impl Drop for DropNoted {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Tasks that yield, wake each other, spawn and abort, until they are told to stop: every callback keeps coming.
struct Churn {
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    tasks: Vec<JoinHandle<()>>,
}

impl Churn {
    fn start(runtime: &Runtime) -> Churn {
        let (stop, ledger) = (Arc::<AtomicBool>::default(), Arc::<Ledger>::default());
        let mut tasks = Vec::new();
        for _ in 0..3 {
            tasks.push(runtime.spawn(yield_until(&stop)));

            let (there, mut at_the_other) = mpsc::channel(1);
            let (back, mut at_the_first) = mpsc::channel(1);
            let stopped = Arc::clone(&stop);
            tasks.push(runtime.spawn(async move {
                let mut number = 0_u64;
                while !stopped.load(Ordering::Relaxed) {
                    there.send(number).await.unwrap();
                    assert_eq!(at_the_first.recv().await, Some(number));
                    number += 1;
                }
            }));
            tasks.push(runtime.spawn(async move {
                while let Some(number) = at_the_other.recv().await {
                    back.send(number).await.unwrap();
                }
            }));

            let (stopped, ledger) = (Arc::clone(&stop), Arc::clone(&ledger));
            tasks.push(runtime.spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    spawn_some_and_abort_some(&ledger).await;
                }
            }));
        }
        Churn {
            stop,
            ledger,
            tasks,
        }
    }

    /// Every task ends, and each of the short ones has ended once.
    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            wait_for("a task of the churn", task).unwrap();
        }
        self.ledger.check();
    }

    /// The runtime has gone. Every task has ended by itself or with it.
    #[track_caller]
    fn check_all_gone(self) {
        for task in self.tasks {
            assert!(task.is_finished());
            if let Err(error) = wait_for("a task of the churn", task) {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        let (dropped, spawned) = (&self.ledger.dropped, &self.ledger.spawned);
        assert_eq!(
            dropped.load(Ordering::SeqCst),
            spawned.load(Ordering::SeqCst)
        );
    }
}

impl Ledger {
    #[track_caller]
    fn check(&self) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        let Ledger {
            spawned,
            ran_to_the_end,
            dropped,
            answered,
            cancelled,
            cancelled_unasked,
        } = self;
        assert_eq!(count(cancelled_unasked), 0);
        assert_eq!(count(dropped), count(spawned));
        assert_eq!(count(answered) + count(cancelled), count(spawned));
        assert_eq!(count(ran_to_the_end), count(answered));
    }
}

/// One that waits for ever, one that must run to its end, one that may.
async fn spawn_some_and_abort_some(ledger: &Arc<Ledger>) {
    let children: Vec<_> = (0..3)
        .map(|nth| {
            ledger.spawned.fetch_add(1, Ordering::SeqCst);
            let noted = DropNoted(Arc::clone(ledger));
            polity::spawn(async move {
                yield_now().await;
                if nth == 0 {
                    std::future::pending::<()>().await;
                }
                noted.0.ran_to_the_end.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    yield_now().await;
    for (nth, child) in children.into_iter().enumerate() {
        if nth != 1 {
            child.abort();
        }
        match child.await {
            Ok(()) => ledger.answered.fetch_add(1, Ordering::SeqCst),
            Err(error) => {
                assert!(error.is_cancelled(), "{error}");
                let counter = match nth {
                    1 => &ledger.cancelled_unasked,
                    _ => &ledger.cancelled,
                };
                counter.fetch_add(1, Ordering::SeqCst)
            }
        };
    }
}
