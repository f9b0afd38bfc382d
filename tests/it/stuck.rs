//! A policy whose callback does not return: its threads are replaced, its tasks go on, and what it says when it comes
//! back after all counts for nothing.

mod callbacks;
mod ends;
mod meanwhile;
mod verdicts;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{Handle, JoinHandle, Runtime, WorkerId, WorkerMask, yield_now};
use polity_policies::{Callback, Priority};
use polity_tests::{builder, wait_for, wait_until};
use tokio::sync::watch;

use crate::spares::ledger::Ledger;
use crate::spares::trap::{How, Kind, Trap, Trigger};
use crate::workload::{Mixed, Recorder, lock};

const WORKERS: usize = 2;

/// Two workers, spares for both, and no stall that a slow machine might bring about.
fn runtime() -> Runtime {
    // Two for each worker: one that is back may be slow to leave.
    let builder = builder(WORKERS)
        .spares(2 * WORKERS)
        .watchdog(Duration::from_secs(30));
    builder.build().unwrap()
}

/// How the task ends about which the policy gets stuck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bait {
    Finishes,
    Waits,
    Yields,
}

impl Bait {
    async fn run(self, mut go: watch::Receiver<bool>) {
        match self {
            Bait::Finishes => {}
            Bait::Waits => drop(go.wait_for(|go| *go).await),
            Bait::Yields => {
                yield_now().await;
                yield_now().await;
            }
        }
    }
}

fn only(worker: usize) -> WorkerMask {
    WorkerMask::from_iter([WorkerId::new(worker as u16)])
}

/// Tasks in every state that a task can be in, and a policy that is about to get stuck.
struct Scene {
    trigger: Trigger,
    generation: polity::Generation,
    books: Arc<Mutex<Ledger>>,
    /// Sends the waiting ones on.
    go: watch::Sender<bool>,
    springs: Mutex<Vec<JoinHandle<()>>>,
    calls: usize,
}

impl Scene {
    /// Loads the policy, and gives it tasks to hold.
    fn set(runtime: &Handle, callback: Callback, how: How, calls: usize, bait: Bait) -> Scene {
        let (trap, trigger) = Trap::new(callback, how, calls);
        let generation = runtime.load(trap).unwrap();
        let (go, gone) = watch::channel(false);
        let scene = Scene {
            trigger,
            generation,
            books: Arc::default(),
            go,
            springs: Mutex::default(),
            calls,
        };
        scene.fill(runtime, callback, bait, &gone);
        scene
    }

    /// Makes the calls get stuck. `None`: the machine was so slow that the first of them was convicted before the last
    /// one came.
    fn spring(self, runtime: &Handle, bait: Bait) -> Option<Scene> {
        self.trigger.arm();
        for worker in 0..WORKERS {
            self.spring_on(runtime, worker, bait);
        }
        let ended = || runtime.exit_info(self.generation).is_some();
        if self.trigger.wait_caught(self.calls, ended) {
            return Some(self);
        }
        self.wake_and_abort();
        self.trigger.release();
        self.settle();
        wait_until("all threads are back", || runtime.abandoned_threads() == 0);
        None
    }

    /// A policy with so many calls that are stuck, and not convicted yet.
    fn new(runtime: &Handle, callback: Callback, how: How, calls: usize, bait: Bait) -> Scene {
        // One that waits never comes to its `exit_task`.
        let bait = match (callback, bait) {
            (Callback::ExitTask, Bait::Waits) => Bait::Finishes,
            _ => bait,
        };
        loop {
            let scene = Scene::set(runtime, callback, how, calls, bait);
            if let Some(scene) = scene.spring(runtime, bait) {
                return scene;
            }
        }
    }

    fn fill(&self, runtime: &Handle, callback: Callback, bait: Bait, gone: &watch::Receiver<bool>) {
        let mut books = lock(&self.books);
        let mut kept = 0;
        for kind in [Kind::Held, Kind::Queued, Kind::Claimed, Kind::Moved] {
            for n in 0..8 {
                let attributes = match n % 4 {
                    3 => kind.attributes().affinity(only(n / 4)),
                    _ => kind.attributes(),
                };
                let how = [Bait::Finishes, Bait::Waits, Bait::Yields][n % 3];
                books.spawn(runtime, attributes, how.run(gone.clone()));
            }
            books.spawn_endless(runtime, kind.attributes());
            kept += 9;
        }
        if callback == Callback::Dequeue {
            for _ in 0..4 {
                books.spawn(runtime, Kind::Bait.attributes(), bait.run(gone.clone()));
                kept += 1;
            }
        }
        for _ in 0..4 {
            let waits = Bait::Waits.run(gone.clone());
            books.spawn(runtime, Kind::Plain.attributes(), waits);
            let gone = gone.clone();
            let ticks = async move {
                while !*gone.borrow() {
                    // The driver's timers are what is tested.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            books.spawn(runtime, Kind::Plain.attributes(), ticks);
            books.spawn_endless(runtime, Kind::Plain.attributes());
        }
        drop(books);
        wait_until("the policy has them", || self.trigger.enqueued() >= kept);
    }

    /// From a task on this worker, so that they come to the policy in one batch: the bait in the middle, and one that
    /// no other worker may take.
    fn spring_on(&self, runtime: &Handle, worker: usize, bait: Bait) {
        let books = Arc::clone(&self.books);
        let (handle, gone) = (runtime.clone(), self.go.subscribe());
        let spawns = async move {
            let mut books = lock(&books);
            let baits = Kind::Bait.attributes();
            for attributes in [
                Kind::Plain.attributes(),
                Kind::Held.attributes(),
                baits.clone(),
                Kind::Held.attributes(),
                Kind::Plain.attributes(),
                baits.affinity(only(worker)),
            ] {
                books.spawn(&handle, attributes, bait.run(gone.clone()));
            }
            books.spawn_endless(&handle, Kind::Held.attributes());
        };
        let here = Kind::Plain.attributes().affinity(only(worker));
        lock(&self.springs).push(runtime.spawn_with(here, spawns).unwrap());
    }

    fn wake_and_abort(&self) {
        self.go.send_replace(true);
        lock(&self.books).abort();
    }

    /// Every task ends.
    fn settle(&self) {
        // The callback may have got stuck before they ran.
        for spring in lock(&self.springs).drain(..) {
            wait_for("a task that spawns others", spring).unwrap();
        }
        let mut books = lock(&self.books);
        books.abort();
        books.settle();
    }

    /// Every task ends although the threads are stuck, and another policy can be loaded and used.
    fn play_on(&self, runtime: &Runtime) {
        self.settle();
        Mixed::start(runtime, 2).finish();
        let (policy, record) = Recorder::new(Priority::new(), WORKERS);
        let generation = runtime.load(policy).unwrap();
        Mixed::start(runtime, 3).finish();
        assert!(record.enqueues.load(Ordering::SeqCst) > 0);
        record.check();
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        assert_eq!(self.trigger.stuck(), self.calls, "they are stuck still");
    }

    /// Lets the threads go. Nothing of what they say counts, and they can be used again.
    fn end(self, runtime: &Runtime) {
        self.trigger.release();
        wait_until("all threads are back", || runtime.abandoned_threads() == 0);
        wait_until("exit", || self.trigger.exits() == 1);
        lock(&self.books).check();
        assert!(!self.trigger.late_inserts().contains(&true));
        Mixed::start(runtime, 2).finish();
        runtime.unload();
        lock(&self.books).check();
    }
}
