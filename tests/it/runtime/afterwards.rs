//! What is left behind: late spawns, wakers, threads and descriptors.

use std::future::poll_fn;
use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::time::Duration;
use std::{fs, thread};

use polity_policies::Fifo;
use polity_tests::{in_a_process_of_its_own, receive, runtime, wait_for, wait_until, within};

use crate::support::Drops;

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

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn five_hundred_runtimes_leak_no_descriptor_and_no_thread() {
    in_a_process_of_its_own(
        "runtime::afterwards::five_hundred_runtimes_leak_no_descriptor_and_no_thread",
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
