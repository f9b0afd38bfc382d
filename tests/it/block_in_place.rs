//! A task that blocks its thread, and says so beforehand.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use polity::{Attributes, BoxPolicy, Handle, Runtime, WorkerId, WorkerMask, block_in_place};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::{builder, check, receive, wait_for, wait_until, within};

use crate::support::{Blocker, Drops, waiting};

fn on(worker: usize) -> Attributes {
    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(worker as u16)]))
}

fn policies() -> [Option<BoxPolicy>; 5] {
    [
        None,
        Some(BoxPolicy::new(Fifo::new())),
        Some(BoxPolicy::new(Fifo::per_worker())),
        Some(BoxPolicy::new(Priority::new())),
        Some(BoxPolicy::new(Vtime::new())),
    ]
}

fn stand_in_has_left(runtime: &Runtime) {
    wait_until("the stand-in has gone home", || {
        !runtime.dump().to_string().contains("a spare")
    });
}

/// A message to the thread that blocks, by way of as many tasks.
fn pass_on(handle: &Handle, times: usize, to: Sender<()>) {
    let attributes = if times.is_multiple_of(2) {
        on(0)
    } else {
        Attributes::new()
    };
    let inner = handle.clone();
    let task = async move {
        match times {
            0 => to.send(()).unwrap(),
            _ => pass_on(&inner, times - 1, to),
        }
    };
    drop(handle.spawn_with(attributes, task).unwrap());
}

#[test]
fn the_tasks_for_which_a_blocked_thread_waits_run_on_its_only_worker() {
    for policy in policies() {
        check(1, |runtime| {
            let generation = policy.map(|policy| runtime.load(policy).unwrap());
            for _ in 0..20 {
                let task = runtime.spawn(async {
                    let (tell, told) = channel();
                    let handle = Handle::current();
                    pass_on(&handle, 4, tell.clone());
                    block_in_place(|| {
                        receive("what was spawned before", &told);
                        pass_on(&handle, 4, tell);
                        receive("what was spawned by the blocked thread", &told);
                    });
                    // After the block it can wait for the driver as before.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                });
                wait_for("a task that blocks", task).unwrap();
            }
            assert_eq!(runtime.policy_status().map(|it| it.generation), generation);
            assert!(runtime.metrics().stand_ins > 0);
        });
    }
}

#[test]
fn a_stand_in_may_block_too_and_so_on() {
    fn block(depth: usize, threads: Vec<ThreadId>, done: Sender<Vec<ThreadId>>) {
        let mut threads = threads;
        threads.push(thread::current().id());
        if depth == 0 {
            return done.send(threads).unwrap();
        }
        let (tell, told) = channel();
        drop(polity::spawn(
            async move { block(depth - 1, threads, tell) },
        ));
        let threads = block_in_place(|| receive("what the next one says", &told));
        done.send(threads).unwrap();
    }
    within(|| {
        let runtime = builder(1).spares(4).build().unwrap();
        for _ in 0..5 {
            let (tell, told) = channel();
            drop(runtime.spawn(async move { block(4, Vec::new(), tell) }));
            let mut threads = receive("the first one", &told);
            assert_eq!(threads.len(), 5);
            threads.dedup();
            assert_eq!(threads.len(), 5);
            stand_in_has_left(&runtime);
        }
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

#[test]
fn a_call_inside_another_one_just_runs() {
    within(|| {
        let runtime = builder(1).spares(1).build().unwrap();
        let task = runtime.spawn(async {
            let (tell, told) = channel();
            block_in_place(|| {
                let inner = block_in_place(|| block_in_place(|| 7));
                // The outer one goes on.
                drop(polity::spawn(async move { tell.send(()).unwrap() }));
                receive("another task", &told);
                inner
            })
        });
        assert_eq!(wait_for("a task", task).unwrap(), 7);
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

#[test]
fn the_stand_in_goes_home_and_the_worker_has_its_place_back() {
    within(|| {
        // One spare: were it not back, the next one would find none.
        let runtime = builder(1).spares(1).build().unwrap();
        let here = async { thread::current().id() };
        let worker = wait_for("the worker", runtime.spawn(here)).unwrap();
        for _ in 0..10 {
            let task = runtime.spawn(async {
                let here = async { thread::current().id() };
                let (tell, told) = channel();
                drop(polity::spawn(async move { tell.send(here.await).unwrap() }));
                block_in_place(|| receive("the stand-in", &told))
            });
            assert_ne!(wait_for("a task that blocks", task).unwrap(), worker);
            stand_in_has_left(&runtime);
            let here = async { thread::current().id() };
            assert_eq!(wait_for("the worker", runtime.spawn(here)).unwrap(), worker);
        }
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

#[test]
fn without_spares_the_watchdog_does_the_work() {
    within(|| {
        let runtime = builder(1).spares(0).build().unwrap();
        for _ in 0..3 {
            let task = runtime.spawn(async {
                let (tell, told) = channel();
                drop(polity::spawn(async move { tell.send(()).unwrap() }));
                block_in_place(|| receive("another task", &told));
            });
            wait_for("a task that blocks", task).unwrap();
        }
    });
}

#[test]
fn outside_of_a_task_it_just_runs() {
    check(1, |runtime| {
        assert_eq!(block_in_place(|| 1), 1);
        assert_eq!(runtime.block_on(async { block_in_place(|| 2) }), 2);
        let blocking = runtime.spawn_blocking(|| block_in_place(|| 3));
        assert_eq!(wait_for("a blocking call", blocking).unwrap(), 3);
        assert_eq!(runtime.metrics().stand_ins, 0);
    });
}

#[test]
fn a_panic_passes_through_and_the_worker_goes_on() {
    within(|| {
        let runtime = builder(1).spares(1).build().unwrap();
        for _ in 0..3 {
            let task = runtime.spawn(async {
                block_in_place(|| panic!("in place"));
            });
            let error = wait_for("a task that panics", task).unwrap_err();
            assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"in place"));
            stand_in_has_left(&runtime);
        }
        // The mark has not stayed: a long poll of this thread is one.
        let blocker = Blocker::new(&runtime);
        assert!(!runtime.dump().to_string().contains("blocks in place"));
        blocker.end();
    });
}

#[test]
fn a_runtime_may_be_blocked_on_inside_and_nowhere_else_in_a_task() {
    check(1, |runtime| {
        let task = runtime.spawn(async {
            let handle = Handle::current();
            let answer = block_in_place(|| {
                handle.block_on(async {
                    // A timer of the driver is what is tested, not a wait for luck.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    polity::spawn(async { 42 }).await.unwrap()
                })
            });
            let refused = std::panic::catch_unwind(AssertUnwindSafe(|| handle.block_on(async {})));
            (answer, refused.is_err())
        });
        assert_eq!(wait_for("a task", task).unwrap(), (42, true));
    });
}

/// One that was not announced begins later, and is reported.
#[test]
fn a_block_that_was_announced_is_not_reported_as_a_long_poll() {
    within(|| {
        let threshold = Duration::from_millis(10);
        let runtime = builder(2).hog_threshold(threshold).build().unwrap();
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let announced = runtime.spawn(async move {
            block_in_place(|| {
                begun.send(()).unwrap();
                let _ = released.recv();
            });
        });
        receive("the block to begin", &has_begun);
        assert!(runtime.dump().to_string().contains("blocks in place"));
        let hog = Blocker::new(&runtime);
        wait_until("the other one is reported", || runtime.metrics().hogs > 0);
        hog.end();
        drop(release);
        wait_for("a task that has blocked", announced).unwrap();
        assert_eq!(runtime.metrics().hogs, 1);
    });
}

#[test]
fn a_shutdown_waits_for_a_blocked_task_and_drops_the_others() {
    within(|| {
        let runtime = polity_tests::runtime(1);
        let drops = Drops::default();
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let blocked = runtime.spawn(async move {
            block_in_place(|| {
                begun.send(()).unwrap();
                let _ = released.recv();
            });
            7
        });
        receive("the block to begin", &has_begun);
        let (waits, polled) = waiting(&drops);
        drop(runtime.spawn(waits));
        receive("a task on the stand-in", &polled);
        let closing = thread::spawn(move || drop(runtime));
        drop(release);
        closing.join().unwrap();
        assert_eq!(wait_for("the blocked task", blocked).unwrap(), 7);
        assert_eq!(drops.count(), 1);
    });
}
