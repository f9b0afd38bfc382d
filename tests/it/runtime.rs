//! A runtime's beginning and end: what is refused, what a drop does, what is left behind.

use std::collections::HashSet;
use std::fs;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use polity::{BoxPolicy, BuildError, JoinHandle, Pin, Runtime};
use polity_policies::{Fifo, Priority};
use polity_tests::{
    builder, check, in_a_process_of_its_own, now, receive, runtime, wait_for, wait_until, within,
};

use crate::support::{Blocker, Drops, Hoarder, settle, waiting};

// --- the beginning ---

#[track_caller]
fn check_refused(builder: polity::Builder, must_name: &[&str]) {
    match builder.build() {
        Err(BuildError::Invalid(text)) => {
            for word in must_name {
                assert!(text.contains(word), "{word:?} is not in {text:?}");
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_number_of_workers_that_makes_no_sense_is_refused() {
    check_refused(builder(0), &["worker_threads", "0"]);
    check_refused(builder(1025), &["worker_threads", "1025"]);
}

#[test]
fn a_watchdog_that_makes_no_sense_is_refused() {
    for timeout in [Duration::from_millis(9), Duration::from_secs(31)] {
        check_refused(builder(1).watchdog(timeout), &["watchdog"]);
    }
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    check_refused(builder(1).pin(Pin::Cores(vec![100_000])), &["100000"]);
    check_refused(builder(2).pin(Pin::Cores(vec![])), &["0", "2"]);
}

#[test]
fn a_pool_without_threads_is_refused() {
    check_refused(
        builder(1).max_blocking_threads(0),
        &["max_blocking_threads is 0"],
    );
}

#[test]
fn threads_that_cannot_be_started_as_asked_are_refused() {
    for bytes in [0, (16 << 10) - 1, (1 << 30) + 1, usize::MAX] {
        let said = format!("thread_stack_size is {bytes} bytes");
        check_refused(builder(1).thread_stack_size(bytes), &[&said]);
    }
    drop(builder(1).thread_stack_size(1 << 20).build().unwrap());
    check_refused(
        builder(1).thread_name("a\0b"),
        &["thread_name is \"a\\0b\""],
    );
}

#[test]
fn a_runtime_can_start_with_a_policy() {
    within(|| {
        let runtime = builder(2).policy(Priority::new()).build().unwrap();
        assert_eq!(runtime.policy_status().unwrap().name, "priority");
        wait_for("a task", runtime.spawn(async {})).unwrap();
    });
}

#[test]
fn workers_have_the_name_that_was_asked_for_and_each_runs_its_hooks_once() {
    within(|| {
        let started = Arc::new(Mutex::new(HashSet::new()));
        let stopped = Arc::new(AtomicUsize::new(0));
        let (note_start, note_stop) = (Arc::clone(&started), Arc::clone(&stopped));
        let runtime = builder(3)
            .thread_name("svc")
            .on_thread_start(move || {
                assert!(note_start.lock().unwrap().insert(thread::current().id()));
            })
            .on_thread_stop(move || {
                note_stop.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        assert_eq!(runtime.worker_count(), 3);
        let (name, id) = wait_for(
            "a task",
            runtime.spawn(async {
                let thread = thread::current();
                (thread.name().unwrap().to_owned(), thread.id())
            }),
        )
        .unwrap();
        assert_eq!(name, "svc");
        assert!(started.lock().unwrap().contains(&id));
        drop(runtime);
        assert_eq!(started.lock().unwrap().len(), 3);
        assert_eq!(stopped.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn several_runtimes_run_at_once_and_work_for_each_other() {
    within(|| {
        let runtimes: Vec<Runtime> = (0..4).map(|n| runtime(n % 2 + 1)).collect();
        // Each message goes round all runtimes.
        let mut first = None;
        let mut receiver = None;
        let mut tasks = Vec::new();
        for runtime in &runtimes {
            let (sender, next) = tokio::sync::mpsc::channel::<u64>(4);
            match receiver.replace(next) {
                None => first = Some(sender),
                Some(mut from) => tasks.push(runtime.spawn(async move {
                    while let Some(n) = from.recv().await {
                        sender.send(n + 1).await.unwrap();
                    }
                })),
            }
        }
        let (first, mut last) = (first.unwrap(), receiver.unwrap());
        let sender = runtimes[0].spawn(async move {
            for n in 0..1000 {
                first.send(n).await.unwrap();
            }
        });
        let hops = tasks.len() as u64;
        let sum = runtimes[3].spawn(async move {
            let mut sum = 0;
            while let Some(n) = last.recv().await {
                sum += n;
            }
            sum
        });
        let sum = wait_for("the sum", sum).unwrap();
        assert_eq!(sum, (0..1000).sum::<u64>() + 1000 * hops);
        wait_for("the sender", sender).unwrap();
    });
}

#[test]
fn the_policy_of_one_runtime_is_not_that_of_another() {
    within(|| {
        let (starved, free) = (runtime(2), runtime(2));
        starved.load(Hoarder).unwrap();
        let stuck = starved.spawn(async {});
        wait_for("a task", free.spawn(async {})).unwrap();
        assert!(free.policy_status().is_none());
        assert!(!stuck.is_finished());
        // Woken and awaited across: the one that is starved does not hold the other up.
        assert!(starved.unload().is_some());
        let across = free.spawn(stuck);
        wait_for("the task", across).unwrap().unwrap();
    });
}

// --- the end ---

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
fn a_shutdown_with_a_timeout_does_not_wait_longer_for_a_stuck_poll() {
    within(|| {
        let runtime = runtime(2);
        let blocker = Blocker::new(&runtime);
        let waits = runtime.spawn(pending::<()>());
        let timeout = Duration::from_millis(50);
        let begun = now();
        runtime.shutdown_timeout(timeout);
        let took = now() - begun;
        assert!(took >= timeout, "{took:?}: it waits as long as it may");
        assert!(took < Duration::from_secs(10), "{took:?}");
        // What was left behind ends when it can.
        blocker.end();
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_shutdown_with_a_timeout_does_not_wait_longer_for_a_stuck_blocking_call() {
    within(|| {
        let runtime = runtime(1);
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        drop(runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        }));
        receive("the call", &has_begun);
        let before = now();
        runtime.shutdown_timeout(Duration::from_millis(50));
        assert!(now() - before < Duration::from_secs(10));
        drop(release);
    });
}

#[test]
fn a_shutdown_with_a_timeout_ends_early_if_nothing_is_stuck() {
    within(|| {
        let runtime = runtime(2);
        let waits = runtime.spawn(pending::<()>());
        let begun = now();
        runtime.shutdown_timeout(Duration::from_secs(3600));
        assert!(now() - begun < Duration::from_secs(10));
        assert!(waits.is_finished());
    });
}

#[test]
fn a_shutdown_in_the_background_waits_for_nothing() {
    within(|| {
        let runtime = runtime(1);
        let blocker = Blocker::new(&runtime);
        let waits = runtime.spawn(pending::<()>());
        runtime.shutdown_background();
        assert!(!waits.is_finished());
        blocker.end();
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn what_is_spawned_after_the_end_is_cancelled() {
    within(|| {
        let runtime = runtime(2);
        let handle = runtime.handle().clone();
        drop(runtime);
        let drops = Drops::default();
        let counted = drops.counted();
        let late = handle.spawn(async move { drop(counted) });
        assert!(late.is_finished());
        assert!(wait_for("the task", late).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
        let only_0 = polity::WorkerMask::from_iter([polity::WorkerId::new(0)]);
        let restricted = polity::Attributes::new().affinity(only_0);
        let late = handle.spawn_with(restricted, async {}).unwrap();
        assert!(wait_for("the task", late).unwrap_err().is_cancelled());
        let late = handle.spawn_blocking(|| unreachable!("after the end"));
        assert!(wait_for::<_>("the call", late).unwrap_err().is_cancelled());
        assert!(handle.load(Fifo::new()).is_err());
        assert!(handle.unload().is_none());
        assert_eq!(handle.worker_count(), 2);
    });
}

#[test]
fn a_waker_that_outlives_its_runtime_is_harmless() {
    within(|| {
        let mut wakers = Vec::new();
        for workers in [1, 2] {
            let runtime = runtime(workers);
            let (sender, from_task) = channel();
            for _ in 0..50 {
                let sender = sender.clone();
                drop(runtime.spawn(poll_fn(move |context| {
                    sender.send(context.waker().clone()).unwrap();
                    Poll::<()>::Pending
                })));
                wakers.push(receive("a waker", &from_task));
            }
            drop(runtime);
        }
        // The slots of the old tasks have new tenants now; a stale wake is at worst a spurious poll.
        let runtime = runtime(2);
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                runtime.spawn(async move {
                    for _ in 0..50 {
                        polity::yield_now().await;
                    }
                    n
                })
            })
            .collect();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        for waker in &wakers {
                            waker.wake_by_ref();
                            drop(waker.clone());
                        }
                    }
                });
            }
        });
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(wait_for("a task", task).unwrap(), n);
        }
        drop(runtime);
        wakers.into_iter().for_each(Waker::wake);
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

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn five_hundred_runtimes_leak_no_descriptor_and_no_thread() {
    in_a_process_of_its_own(
        "runtime::five_hundred_runtimes_leak_no_descriptor_and_no_thread",
        || {
            within(|| {
                let live_and_die = |n: usize| {
                    let runtime = runtime(n % 3 + 1);
                    if n.is_multiple_of(4) {
                        runtime.load(Fifo::new()).unwrap();
                    }
                    drop(runtime.spawn(async {
                        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                        // A timer of the driver is what is tested, not a wait for luck.
                        tokio::time::sleep(Duration::from_secs(3600)).await;
                        drop(socket);
                    }));
                    wait_for("a call", runtime.spawn_blocking(|| ())).unwrap();
                    match n % 5 {
                        0 => runtime.shutdown_background(),
                        1 => runtime.shutdown_timeout(Duration::from_secs(10)),
                        _ => drop(runtime),
                    }
                };
                (0..10).for_each(live_and_die);
                let quiet = || threads() <= 6;
                wait_until("only the process's own threads are left", quiet);
                let before = (open_descriptors(), threads());
                (0..500).for_each(live_and_die);
                wait_until("all threads and descriptors are gone", || {
                    open_descriptors() <= before.0 + 2 && threads() <= before.1 + 2
                });
            });
        },
    );
}
