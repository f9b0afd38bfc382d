//! A drop: whoever drops a runtime, each of its tasks ends once.

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use polity::{BoxPolicy, JoinHandle, Runtime};
use polity_policies::{Fifo, Priority};
use polity_tests::{check, receive, runtime, wait_for, within};

use crate::support::{Drops, Hoarder, settle, waiting};

#[test]
fn an_idle_runtime_can_be_dropped() {
    within(|| {
        for workers in [1, 2, 8] {
            let runtime = runtime(workers);
            wait_for("a task", runtime.spawn(async {})).unwrap();
            drop(runtime);
        }
    });
}

#[test]
fn a_drop_cancels_tasks_that_wait_are_runnable_or_run() {
    within(|| {
        let drops = Drops::default();
        let runtime = runtime(1);
        let mut tasks = Vec::new();
        for _ in 0..100 {
            let (future, is_polled) = waiting(&drops);
            tasks.push(runtime.spawn(future));
            receive("the first poll", &is_polled);
        }
        let counted = drops.counted();
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        tasks.push(runtime.spawn(async move {
            let _counted = counted;
            begun.send(()).unwrap();
            let _ = released.recv();
            pending().await
        }));
        receive("the long poll", &has_begun);
        for _ in 0..100 {
            let counted = drops.counted();
            tasks.push(runtime.spawn(async move { drop(counted) }));
        }
        assert_eq!(drops.count(), 0);
        let dropper = thread::spawn(move || drop(runtime));
        // The drop waits for the poll. There is no event for "it waits", but it must not have ended.
        assert!(!dropper.is_finished());
        drop(release);
        dropper.join().unwrap();
        assert_eq!(drops.count(), 201);
        for task in tasks {
            assert!(task.is_finished());
            let _ = wait_for("the task", task);
        }
    });
}

#[test]
fn a_drop_cancels_what_a_policy_holds() {
    for policy in [BoxPolicy::new(Hoarder), BoxPolicy::new(Fifo::per_worker())] {
        check(2, move |runtime| {
            let drops = Drops::default();
            runtime.load(policy).unwrap();
            let tasks: Vec<JoinHandle<()>> = (0..500)
                .map(|_| {
                    let counted = drops.counted();
                    runtime.spawn(async move {
                        let _counted = counted;
                        pending().await
                    })
                })
                .collect();
            drop(runtime);
            assert_eq!(drops.count(), 500);
            for task in tasks {
                assert!(wait_for("the task", task).unwrap_err().is_cancelled());
            }
        });
    }
}

#[test]
fn a_drop_while_foreign_threads_wake_and_spawn_drops_each_future_once() {
    within(|| {
        for round in 0..60 {
            let drops = Drops::default();
            let made = Arc::new(AtomicUsize::new(0));
            let runtime = runtime(round % 3 + 1);
            match round % 4 {
                1 => drop(runtime.load(Fifo::new()).unwrap()),
                2 => drop(runtime.load(Priority::new()).unwrap()),
                3 => drop(runtime.load(Hoarder).unwrap()),
                _ => {}
            }
            let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
            let tasks: Vec<JoinHandle<()>> = (0..64)
                .map(|_| {
                    made.fetch_add(1, Ordering::SeqCst);
                    let (counted, wakers) = (drops.counted(), Arc::clone(&wakers));
                    runtime.spawn(async move {
                        let _counted = counted;
                        let mut first = true;
                        poll_fn(move |context| {
                            if std::mem::take(&mut first) {
                                wakers.lock().unwrap().push(context.waker().clone());
                            }
                            Poll::Pending
                        })
                        .await
                    })
                })
                .collect();
            let stop = AtomicBool::new(false);
            let begun = std::sync::Barrier::new(3);
            thread::scope(|scope| {
                let waking = || {
                    begun.wait();
                    while !stop.load(Ordering::Relaxed) {
                        let wakers = wakers.lock().unwrap().clone();
                        wakers.iter().for_each(Waker::wake_by_ref);
                    }
                };
                scope.spawn(waking);
                let handle = runtime.handle().clone();
                scope.spawn(|| {
                    let handle = handle;
                    begun.wait();
                    let mut spawned = Vec::new();
                    while !stop.load(Ordering::Relaxed) && spawned.len() < 2000 {
                        made.fetch_add(1, Ordering::SeqCst);
                        let counted = drops.counted();
                        spawned.push(handle.spawn(async move { drop(counted) }));
                    }
                    for task in spawned {
                        // Done or cancelled, but one of them.
                        let _ = wait_for("a task spawned meanwhile", task);
                    }
                });
                begun.wait();
                drop(runtime);
                stop.store(true, Ordering::Relaxed);
            });
            for task in tasks {
                assert!(wait_for("the task", task).unwrap_err().is_cancelled());
            }
            assert_eq!(drops.count(), made.load(Ordering::SeqCst), "round {round}");
        }
    });
}

#[test]
fn a_future_that_spawns_and_wakes_in_its_drop_does_not_keep_a_runtime_from_ending() {
    struct Busy(Arc<AtomicUsize>, tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Busy {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let _ = self.1.send(());
            // In a context: on a worker.
            let late = polity::spawn(async { unreachable!("spawned after the end") });
            assert!(wait_for("the late task", late).unwrap_err().is_cancelled());
        }
    }
    within(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let runtime = runtime(2);
        for _ in 0..50 {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            let busy = Busy(Arc::clone(&dropped), sender);
            drop(runtime.spawn(async move {
                let _busy = busy;
                pending::<()>().await;
            }));
            drop(runtime.spawn(async move { while receiver.recv().await.is_some() {} }));
        }
        drop(runtime);
        assert_eq!(dropped.load(Ordering::SeqCst), 50);
    });
}

#[test]
fn a_task_can_drop_its_runtime() {
    for workers in [1, 2] {
        within(move || {
            let runtime = runtime(workers);
            let drops = Drops::default();
            let (future, is_polled) = waiting(&drops);
            let other = runtime.spawn(future);
            receive("the first poll", &is_polled);
            let (give, runtime_to_drop) = futures::channel::oneshot::channel::<Runtime>();
            let (done, is_done) = channel();
            let task = runtime.spawn(async move {
                drop(runtime_to_drop.await.unwrap());
                done.send(()).unwrap();
                pending::<()>().await;
            });
            assert!(give.send(runtime).is_ok());
            receive("the drop", &is_done);
            for task in [task, other] {
                assert!(wait_for("the task", task).unwrap_err().is_cancelled());
            }
            assert_eq!(drops.count(), 1);
        });
    }
}

#[test]
fn a_task_of_another_runtime_can_drop_a_runtime() {
    within(|| {
        let (one, other) = (runtime(1), runtime(2));
        let waits = other.spawn(pending::<()>());
        let task = one.spawn(async move { drop(other) });
        wait_for("the drop", task).unwrap();
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_runtime_can_be_dropped_inside_block_on() {
    within(|| {
        let runtime = runtime(2);
        let waits = runtime.spawn(pending::<()>());
        let handle = runtime.handle().clone();
        let error = handle.block_on(async move {
            drop(runtime);
            waits.await.unwrap_err()
        });
        assert!(error.is_cancelled());
    });
}

#[test]
fn a_blocking_call_can_drop_its_runtime() {
    within(|| {
        let runtime = runtime(2);
        let waits = runtime.spawn(pending::<()>());
        let handle = runtime.handle().clone();
        let (done, is_done) = channel();
        drop(handle.spawn_blocking(move || {
            drop(runtime);
            done.send(()).unwrap();
        }));
        receive("the drop", &is_done);
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_drop_waits_for_blocking_calls_that_have_begun() {
    within(|| {
        let runtime = runtime(1);
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&ended);
        drop(runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
            note.store(true, Ordering::SeqCst);
        }));
        receive("the call", &has_begun);
        let dropper = thread::spawn(move || {
            drop(runtime);
            assert!(ended.load(Ordering::SeqCst));
        });
        drop(release);
        dropper.join().unwrap();
    });
}

#[test]
fn a_task_that_is_woken_by_its_own_drop_ends_with_its_runtime() {
    struct WakesOnDrop(Waker);
    impl Drop for WakesOnDrop {
        fn drop(&mut self) {
            self.0.wake_by_ref();
        }
    }
    check(1, |runtime| {
        let task = runtime.spawn(async {
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            let _wakes = WakesOnDrop(waker);
            pending::<()>().await;
        });
        settle(&runtime);
        drop(runtime);
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
    });
}
