//! Local tasks whose thread is busy, stuck, or a spare, while another one does the worker's work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use polity::{
    DsqId, Host, JoinHandle, LocalJoinHandle, Policy, Position, Runtime, TaskView, WorkerId,
    block_in_place, spawn_local,
};
use polity_tests::{builder, in_a_process_of_its_own, receive, wait_for, wait_until, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Bounds, on, policies, stand_in_has_left};
use crate::reports::Reports;
use crate::support::Blocker;

const W0: WorkerId = WorkerId::new(0);

/// A local task that answers what it is sent.
struct Echo {
    send: UnboundedSender<u32>,
    answers: Receiver<u32>,
    thread: ThreadId,
    task: JoinHandle<u32>,
}

async fn echo(bounds: Bounds, mut from: UnboundedReceiver<u32>, to: Sender<u32>) -> u32 {
    let bound = bounds.bind();
    let mut sum = 0;
    while let Some(number) = from.recv().await {
        bound.touch();
        sum += number;
        // Nobody listens to some of them.
        let _ = to.send(number);
    }
    sum
}

impl Echo {
    /// On worker 0.
    fn new(runtime: &Runtime, bounds: &Bounds) -> Echo {
        let (send, from) = unbounded_channel();
        let (to, answers) = channel();
        let (tell, told) = channel();
        let bounds = bounds.clone();
        let task = runtime.spawn_pinned(W0, move || {
            tell.send(thread::current().id()).unwrap();
            echo(bounds, from, to)
        });
        Echo {
            send,
            answers,
            thread: receive("the thread of a local task", &told),
            task: task.unwrap(),
        }
    }

    fn ask(&self, number: u32) {
        self.send.send(number).unwrap();
        assert_eq!(receive("an answer", &self.answers), number);
    }

    /// Nothing has come, although whatever could have happened has.
    fn check_silent(&self) {
        assert!(self.answers.try_recv().is_err());
    }

    fn end(self) -> u32 {
        drop(self.send);
        wait_for("the end of a local task", self.task).unwrap()
    }
}

/// Others than the local tasks run on worker 0, several times.
fn check_others_run(runtime: &Runtime) {
    for _ in 0..10 {
        let pinned = runtime.spawn_with(on(0), async {}).unwrap();
        wait_for("a task that may run only there", pinned).unwrap();
    }
}

#[test]
fn behind_a_long_poll_of_its_thread_a_local_task_waits_and_is_touched_by_nobody() {
    for policy in policies() {
        within(move || {
            let runtime = builder(1).spares(2).build().unwrap();
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let local = Echo::new(&runtime, &bounds);
            for round in 0..5 {
                local.ask(round);
                let blocker = Blocker::with(|body| runtime.spawn_with(on(0), body).unwrap());
                assert_eq!(blocker.thread, local.thread);
                local.send.send(100).unwrap();
                // Behind it in every queue.
                check_others_run(&runtime);
                local.check_silent();
                blocker.end();
                assert_eq!(receive("the late answer", &local.answers), 100);
                local.ask(round);
                stand_in_has_left(&runtime);
            }
            assert_eq!(local.end(), 520);
            bounds.check();
        });
    }
}

#[test]
fn a_local_task_that_is_aborted_while_its_thread_is_busy_is_dropped_there_later() {
    within(|| {
        let runtime = builder(1).spares(2).build().unwrap();
        let bounds = Bounds::default();
        let local = Echo::new(&runtime, &bounds);
        local.ask(1);
        let blocker = Blocker::with(|body| runtime.spawn_with(on(0), body).unwrap());
        local.task.abort();
        let error = wait_for("an aborted task", local.task).unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(bounds.dropped(), 0);
        blocker.end();
        bounds.wait();
    });
}

#[test]
fn what_is_spawned_on_a_stand_in_lives_on_with_that_thread() {
    for policy in policies() {
        within(move || {
            let runtime = builder(1).spares(1).build().unwrap();
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let mut tasks = Vec::new();
            for _ in 0..3 {
                let blocker = Blocker::with(|body| runtime.spawn_with(on(0), body).unwrap());
                let local = Echo::new(&runtime, &bounds);
                assert_ne!(local.thread, blocker.thread);
                local.ask(1);
                tasks.push(local);
                blocker.end();
                stand_in_has_left(&runtime);
                // It waits as a spare, and answers, also while it stands in again.
                for number in 0..20 {
                    tasks.iter().for_each(|local| local.ask(number));
                }
            }
            // A timer, a task of the runtime, and a local one, from there.
            for local in tasks {
                assert!(local.end() > 0);
            }
            bounds.wait();
        });
    }
}

/// Home sits somewhere else, and is parked most of the time.
#[test]
fn a_task_whose_home_stands_in_for_another_worker_runs() {
    for policy in policies() {
        within(move || {
            let runtime = builder(2).spares(1).build().unwrap();
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let block =
                |worker| Blocker::with(|body| runtime.spawn_with(on(worker), body).unwrap());
            let first = block(0);
            let local = Echo::new(&runtime, &bounds);
            local.ask(1);
            first.end();
            stand_in_has_left(&runtime);
            let second = block(1);
            let here = async { thread::current().id() };
            let pinned = runtime.spawn_with(on(1), here).unwrap();
            let stands_in = wait_for("the stand-in", pinned).unwrap();
            assert_eq!(stands_in, local.thread);
            for number in 0..50 {
                local.ask(number);
            }
            second.end();
            stand_in_has_left(&runtime);
            local.ask(1);
            local.end();
            bounds.wait();
        });
    }
}

#[test]
fn a_task_adrift_may_sleep_and_spawn() {
    within(|| {
        let runtime = builder(1).spares(1).build().unwrap();
        let bounds = Bounds::default();
        let blocker = Blocker::new(&runtime);
        let (go, mut gone) = unbounded_channel::<()>();
        let (begun, has_begun) = channel();
        let inner = bounds.clone();
        let task = runtime.spawn_pinned(W0, move || async move {
            let bound = inner.bind();
            begun.send(thread::current().id()).unwrap();
            gone.recv().await;
            let mut sum = 0;
            for n in 0..10 {
                // Woken by the driver, on whichever thread that is.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                bound.touch();
                sum += polity::spawn(async move { n }).await.unwrap();
                let inner = inner.clone();
                let local: LocalJoinHandle<u32> = spawn_local(async move {
                    let bound = inner.bind();
                    polity::yield_now().await;
                    bound.touch();
                    block_in_place(|| 1)
                });
                sum += local.await.unwrap();
            }
            // Its budget is restored for each poll: else this would never come to an end.
            let (tell, mut told) = unbounded_channel();
            (0..1000).for_each(|n| tell.send(n).unwrap());
            drop(tell);
            while told.recv().await.is_some() {
                sum += 1;
            }
            (sum, thread::current().id())
        });
        let thread = receive("its begin", &has_begun);
        blocker.end();
        stand_in_has_left(&runtime);
        go.send(()).unwrap();
        let ended = wait_for("a task adrift", task.unwrap()).unwrap();
        assert_eq!(ended, (45 + 10 + 1000, thread));
        bounds.wait();
    });
}

#[test]
fn a_task_adrift_that_panics_or_is_aborted_ends_like_any_other() {
    within(|| {
        let runtime = builder(1).spares(1).build().unwrap();
        let bounds = Bounds::default();
        let blocker = Blocker::new(&runtime);
        let aborted = Echo::new(&runtime, &bounds);
        let (go, mut gone) = unbounded_channel::<()>();
        let (begun, has_begun) = channel();
        let inner = bounds.clone();
        let panics = runtime.spawn_pinned(W0, move || async move {
            let _bound = inner.bind();
            begun.send(()).unwrap();
            gone.recv().await;
            panic!("adrift");
        });
        let panics: JoinHandle<()> = panics.unwrap();
        receive("its begin", &has_begun);
        blocker.end();
        stand_in_has_left(&runtime);
        go.send(()).unwrap();
        let error = wait_for("a task that panics", panics).unwrap_err();
        assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"adrift"));
        aborted.task.abort();
        assert!(wait_for("an aborted task", aborted.task).is_err());
        bounds.wait();
    });
}

#[test]
fn local_tasks_wait_while_their_thread_blocks_in_place() {
    within(|| {
        let runtime = builder(1).spares(1).build().unwrap();
        let bounds = Bounds::default();
        let local = Echo::new(&runtime, &bounds);
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let blocks = runtime.spawn_with(on(0), async move {
            block_in_place(|| {
                begun.send(()).unwrap();
                let _ = released.recv();
            });
        });
        receive("the block", &has_begun);
        local.send.send(7).unwrap();
        check_others_run(&runtime);
        local.check_silent();
        drop(release);
        wait_for("the task that blocks", blocks.unwrap()).unwrap();
        assert_eq!(receive("the late answer", &local.answers), 7);
        assert_eq!(local.end(), 7);
        bounds.check();
    });
}

/// Gets stuck in `enqueue`, once, when told to.
struct Sticky {
    armed: Arc<AtomicBool>,
    stuck: Sender<()>,
    released: Mutex<Receiver<()>>,
}

/// The outside of a [`Sticky`]. Dropped, it lets go.
struct Grip {
    armed: Arc<AtomicBool>,
    is_stuck: Receiver<()>,
    _release: Sender<()>,
}

fn sticky() -> (Sticky, Grip) {
    let (stuck, is_stuck) = channel();
    let (release, released) = channel();
    let armed = Arc::new(AtomicBool::new(false));
    let sticky = Sticky {
        armed: Arc::clone(&armed),
        stuck,
        released: Mutex::new(released),
    };
    let grip = Grip {
        armed,
        is_stuck,
        _release: release,
    };
    (sticky, grip)
}

impl Policy for Sticky {
    type Task = ();

    fn name(&self) -> &str {
        "sticky"
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(task.id(), DsqId::Global, Position::Tail);
        if self.armed.swap(false, Ordering::SeqCst) {
            self.stuck.send(()).unwrap();
            let _ = self.released.lock().unwrap().recv();
        }
    }
}

impl Grip {
    /// The only worker's thread is stuck, and has been replaced.
    fn close(&self, runtime: &Runtime) {
        self.armed.store(true, Ordering::SeqCst);
        let task = runtime.spawn(async {});
        receive("the callback", &self.is_stuck);
        wait_for("the task that it is about", task).unwrap();
        wait_until("the thread is given up", || {
            runtime.abandoned_threads() == 1
        });
    }
}

#[test]
fn a_thread_that_comes_back_from_a_stuck_callback_goes_on_with_its_local_tasks() {
    within(|| {
        let runtime = builder(1).spares(2).build().unwrap();
        let bounds = Bounds::default();
        let (policy, grip) = sticky();
        runtime.load(policy).unwrap();
        let locals: Vec<_> = (0..3).map(|_| Echo::new(&runtime, &bounds)).collect();
        locals.iter().for_each(|local| local.ask(1));
        grip.close(&runtime);
        assert!(runtime.policy_status().is_none());
        for local in &locals {
            local.send.send(2).unwrap();
        }
        check_others_run(&runtime);
        locals.iter().for_each(Echo::check_silent);
        drop(grip);
        for local in &locals {
            assert_eq!(receive("the late answer", &local.answers), 2);
        }
        // From now on as a spare, under whatever policy.
        let mut asked = 1 + 2;
        for policy in policies().into_iter().flatten() {
            runtime.load(policy).unwrap();
            for number in 0..20 {
                locals.iter().for_each(|local| local.ask(number));
                asked += number;
            }
        }
        for local in locals {
            assert_eq!(local.end(), asked);
        }
        bounds.wait();
    });
}

#[test]
fn local_tasks_of_a_thread_that_never_comes_back_are_cancelled_at_the_end_and_dropped_by_nobody_else()
 {
    within(|| {
        let runtime = builder(1).spares(2).build().unwrap();
        let bounds = Bounds::default();
        let (policy, grip) = sticky();
        runtime.load(policy).unwrap();
        let waits = Echo::new(&runtime, &bounds);
        let woken = Echo::new(&runtime, &bounds);
        let aborted = Echo::new(&runtime, &bounds);
        for local in [&waits, &woken, &aborted] {
            local.ask(1);
        }
        grip.close(&runtime);
        woken.send.send(2).unwrap();
        aborted.task.abort();
        assert!(wait_for("an aborted task", aborted.task).is_err());
        check_others_run(&runtime);
        drop(runtime);
        for local in [waits.task, woken.task] {
            assert!(wait_for("a task", local).unwrap_err().is_cancelled());
        }
        assert_eq!(bounds.dropped(), 0);
        // It does come back, long after.
        drop(grip);
        bounds.wait();
    });
}

/// As the watchdog it runs nothing that could stop it.
#[test]
fn what_is_bound_to_the_watchdogs_thread_is_cancelled_when_that_goes_back_to_its_work() {
    within(|| {
        let runtime = builder(1).spares(0).build().unwrap();
        let bounds = Bounds::default();
        for _ in 0..2 {
            let blocker = Blocker::new(&runtime);
            let local = Echo::new(&runtime, &bounds);
            assert_ne!(local.thread, blocker.thread);
            local.ask(1);
            blocker.end();
            stand_in_has_left(&runtime);
            let error = wait_for("a local task", local.task).unwrap_err();
            assert!(error.is_cancelled());
            bounds.check();
        }
        check_others_run(&runtime);
    });
}

#[test]
fn a_warning_says_how_many_local_tasks_wait_for_a_stuck_thread() {
    in_a_process_of_its_own(
        "local::adrift::a_warning_says_how_many_local_tasks_wait_for_a_stuck_thread",
        || {
            within(|| {
                let reports = Reports::subscribe_to("local tasks");
                let runtime = builder(1).spares(2).build().unwrap();
                let bounds = Bounds::default();
                let (policy, grip) = sticky();
                runtime.load(policy).unwrap();
                let locals = [(); 3].map(|()| Echo::new(&runtime, &bounds));
                locals.iter().for_each(|local| local.ask(1));
                grip.close(&runtime);
                let report = receive("a report", &reports);
                assert!(report.starts_with("WARN "), "{report}");
                assert!(
                    report.contains("3 local tasks of worker 0 wait"),
                    "{report}"
                );
                drop(grip);
                assert_eq!(locals.map(Echo::end), [1; 3]);
                drop(runtime);
                assert!(reports.try_recv().is_err());
            });
        },
    );
}
