//! Who runs when, and where: fairness, wakes, stealing. Without a policy, and with those that are meant to be used.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::task::{AtomicWaker, FutureObj, Spawn, SpawnExt};
use polity::{BoxPolicy, Runtime};
use polity_policies::{Fifo, Priority};
use polity_tests::{check, receive, runtime, wait_for, wait_until, within};
use rand::{Rng, SeedableRng};

use crate::support::Blocker;

/// Without a policy, and with each that is meant to be used.
#[track_caller]
fn check_each(workers: usize, body: impl Fn(&Runtime) + Send + Copy + 'static) {
    let policies = [
        None,
        Some(BoxPolicy::new(Fifo::new())),
        Some(BoxPolicy::new(Fifo::per_worker())),
        Some(BoxPolicy::new(Priority::new())),
    ];
    for policy in policies {
        check(workers, move |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            // Shown if the test fails.
            eprintln!(
                "policy: {:?}",
                runtime.policy_status().map(|policy| policy.name)
            );
            body(&runtime);
        });
    }
}

#[test]
fn tasks_that_yield_take_turns() {
    check_each(1, |runtime| {
        const TASKS: usize = 5;
        let started = Arc::new(AtomicUsize::new(0));
        let log = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..TASKS)
            .map(|n| {
                let (started, log) = (Arc::clone(&started), Arc::clone(&log));
                runtime.spawn(async move {
                    started.fetch_add(1, Ordering::Relaxed);
                    while started.load(Ordering::Relaxed) < TASKS {
                        polity::yield_now().await;
                    }
                    for _ in 0..100 {
                        log.lock().unwrap().push(n);
                        polity::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        let mut turns = [0usize; TASKS];
        for n in &*log.lock().unwrap() {
            turns[*n] += 1;
            let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
            // The order may shift where a shared queue has its turn, but nobody runs ahead.
            assert!(most - least <= 3, "{turns:?}");
        }
    });
}

#[test]
fn a_task_that_wakes_itself_for_ever_starves_nobody() {
    check_each(1, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let selfish = runtime.spawn(poll_fn(move |context| {
            context.waker().wake_by_ref();
            match seen.load(Ordering::Relaxed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        // From outside, from inside, and through the driver.
        for _ in 0..50 {
            wait_for("a task", runtime.spawn(async {})).unwrap();
        }
        let inside = runtime.spawn(async {
            for _ in 0..50 {
                polity::spawn(polity::yield_now()).await.unwrap();
            }
            // A timer of the driver is what is tested, not a wait for luck.
            tokio::time::sleep(Duration::from_millis(2)).await;
        });
        wait_for("the task inside", inside).unwrap();
        stop.store(true, Ordering::Relaxed);
        wait_for("the selfish task", selfish).unwrap();
    });
}

#[test]
fn two_tasks_that_wake_each_other_for_ever_starve_nobody() {
    check_each(1, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let (to_b, mut from_a) = tokio::sync::mpsc::unbounded_channel::<()>();
        let (to_a, mut from_b) = tokio::sync::mpsc::unbounded_channel::<()>();
        let seen = Arc::clone(&stop);
        let a = runtime.spawn(async move {
            while !seen.load(Ordering::Relaxed) {
                let _ = to_b.send(());
                from_b.recv().await;
            }
        });
        let b = runtime.spawn(async move {
            while from_a.recv().await.is_some() {
                let _ = to_a.send(());
            }
        });
        for _ in 0..50 {
            wait_for("a task", runtime.spawn(polity::yield_now())).unwrap();
        }
        // A timer of the driver is what is tested, not a wait for luck.
        let timer = runtime.spawn(async { tokio::time::sleep(Duration::from_millis(2)).await });
        wait_for("a timer", timer).unwrap();
        stop.store(true, Ordering::Relaxed);
        wait_for("one", a).unwrap();
        wait_for("the other", b).unwrap();
    });
}

#[test]
fn a_handle_is_a_spawner_for_the_futures_crate() {
    check(1, |runtime| {
        let handle = runtime.handle().clone();
        let (done, is_done) = channel();
        let spawned = handle.spawn_obj(FutureObj::new(Box::pin(async move {
            done.send(()).unwrap();
        })));
        spawned.unwrap();
        receive("the task", &is_done);
        let remote = SpawnExt::spawn_with_handle(&handle, async { 11 }).unwrap();
        assert_eq!(wait_for("the output", remote), 11);
    });
}

#[test]
fn a_hundred_thousand_tasks_run_once_each() {
    const TASKS: usize = 100_000;
    check(2, |runtime| {
        let ran = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let ran = Arc::clone(&ran);
                runtime.spawn(async move { ran.fetch_add(1, Ordering::Relaxed) })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), TASKS);

        let from_inside = runtime.spawn(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| polity::spawn(async move { n }))
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sum
        });
        assert_eq!(
            wait_for("the sum", from_inside).unwrap(),
            (TASKS - 1) * TASKS / 2
        );
    });
}

#[test]
fn ten_thousand_tasks_at_once_are_scheduled_by_each_policy() {
    check_each(2, |runtime| {
        let tasks: Vec<_> = (0..10_000u32)
            .map(|n| {
                runtime.spawn(async move {
                    for _ in 0..n % 4 {
                        polity::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
    });
}

fn chain(depth: usize) -> Pin<Box<dyn Future<Output = usize> + Send>> {
    Box::pin(async move {
        match depth {
            0 => 0,
            _ => polity::spawn(chain(depth - 1)).await.unwrap() + 1,
        }
    })
}

#[test]
fn a_deep_chain_of_tasks_unwinds() {
    check_each(2, |runtime| {
        let task = runtime.spawn(chain(5000));
        assert_eq!(wait_for("the chain", task).unwrap(), 5000);
    });
}

#[test]
fn a_deep_chain_of_waiting_tasks_ends_with_its_runtime() {
    within(|| {
        let runtime = runtime(2);
        let reached = Arc::new(AtomicBool::new(false));
        fn hang(
            depth: usize,
            reached: Arc<AtomicBool>,
        ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move {
                if depth == 0 {
                    reached.store(true, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                let _ = polity::spawn(hang(depth - 1, reached)).await;
            })
        }
        let task = runtime.spawn(hang(5000, Arc::clone(&reached)));
        wait_until("the end of the chain", || reached.load(Ordering::SeqCst));
        drop(runtime);
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
    });
}

/// Counts what it was sent; whoever sends wakes it.
struct Counter {
    sent: AtomicUsize,
    waker: AtomicWaker,
}

#[test]
fn no_wake_is_lost_in_a_storm_from_foreign_threads() {
    const TASKS: usize = 64;
    const SENDERS: usize = 4;
    const EACH: usize = 20_000;
    check_each(2, |runtime| {
        let counters: Arc<Vec<Counter>> = Arc::new(
            (0..TASKS)
                .map(|_| Counter {
                    sent: AtomicUsize::new(0),
                    waker: AtomicWaker::new(),
                })
                .collect(),
        );
        // What is to come is drawn first, so that each task knows when it is done.
        let plans: Vec<Vec<usize>> = (0..SENDERS as u64)
            .map(|seed| {
                let mut random = rand::rngs::StdRng::seed_from_u64(seed);
                (0..EACH)
                    .map(|_| random.next_u32() as usize % TASKS)
                    .collect()
            })
            .collect();
        let mut expected = [0; TASKS];
        plans.iter().flatten().for_each(|task| expected[*task] += 1);
        let tasks: Vec<_> = expected
            .into_iter()
            .enumerate()
            .map(|(n, expected)| {
                let counters = Arc::clone(&counters);
                runtime.spawn(poll_fn(move |context| {
                    let counter = &counters[n];
                    counter.waker.register(context.waker());
                    match counter.sent.load(Ordering::SeqCst) == expected {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                }))
            })
            .collect();
        thread::scope(|scope| {
            for plan in plans {
                let counters = &counters;
                scope.spawn(move || {
                    for task in plan {
                        counters[task].sent.fetch_add(1, Ordering::SeqCst);
                        counters[task].waker.wake();
                    }
                });
            }
        });
        for task in tasks {
            wait_for("a task that was woken in the storm", task).unwrap();
        }
    });
}

#[test]
fn a_wake_from_outside_reaches_a_runtime_that_has_gone_to_sleep() {
    check_each(2, |runtime| {
        for _ in 0..100 {
            let (go, may_go) = tokio::sync::oneshot::channel::<()>();
            let task = runtime.spawn(may_go);
            let parks = runtime.metrics().parks;
            let mut looks = 0;
            // Mostly it parks meanwhile; what counts is that the wake is seen either way.
            while runtime.metrics().parks == parks && looks < 20 {
                thread::yield_now();
                looks += 1;
            }
            go.send(()).unwrap();
            wait_for("the woken task", task).unwrap().unwrap();
        }
    });
}

#[test]
fn two_tasks_that_meet_in_their_polls_run_on_two_workers() {
    check_each(2, |runtime| {
        for _ in 0..50 {
            let meet = Arc::new(Barrier::new(2));
            let meeting = |meet: Arc<Barrier>| async move {
                meet.wait();
                thread::current().id()
            };
            // From outside.
            let one = runtime.spawn(meeting(Arc::clone(&meet)));
            let two = runtime.spawn(meeting(Arc::clone(&meet)));
            let threads: [ThreadId; 2] =
                [one, two].map(|task| wait_for("a meeting task", task).unwrap());
            assert_ne!(threads[0], threads[1]);
            // From inside: both begin on one worker, and one of them is stolen.
            let both = runtime.spawn(async move {
                let one = polity::spawn(meeting(Arc::clone(&meet)));
                let two = polity::spawn(meeting(meet));
                [one.await.unwrap(), two.await.unwrap()]
            });
            let threads = wait_for("the meeting tasks", both).unwrap();
            assert_ne!(threads[0], threads[1]);
        }
    });
}

#[test]
fn what_a_worker_spawned_before_a_long_poll_is_run_by_the_other() {
    check_each(2, |runtime| {
        for spawned in [1, 2, 100] {
            let long = runtime.spawn(async move {
                let here = thread::current().id();
                let (done, is_done) = channel();
                for _ in 0..spawned {
                    let done = done.clone();
                    drop(polity::spawn(async move {
                        polity::yield_now().await;
                        done.send(thread::current().id()).unwrap();
                    }));
                }
                // Still in this poll: they can run nowhere else.
                for _ in 0..spawned {
                    assert_ne!(receive("a task behind the long poll", &is_done), here);
                }
            });
            wait_for("the long poll", long).unwrap();
        }
    });
}

#[test]
fn what_a_worker_woke_before_a_long_poll_is_run_by_the_other() {
    check_each(2, |runtime| {
        for _ in 0..20 {
            let mut wakes = Vec::new();
            let (done, is_done) = channel();
            for _ in 0..3 {
                let (wake, woken) = tokio::sync::oneshot::channel::<()>();
                let done = done.clone();
                drop(runtime.spawn(async move {
                    woken.await.unwrap();
                    done.send(()).unwrap();
                }));
                wakes.push(wake);
            }
            let long = runtime.spawn(async move {
                for wake in wakes {
                    wake.send(()).unwrap();
                }
                for _ in 0..3 {
                    receive("a task that was woken by the long poll", &is_done);
                }
            });
            wait_for("the long poll", long).unwrap();
        }
    });
}

#[test]
fn tasks_queued_behind_a_blocked_worker_are_run_by_the_other() {
    check_each(2, |runtime| {
        // Enough that some are certainly queued on the worker that is then blocked.
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new((0..32).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let tasks: Vec<_> = (0..32)
            .map(|n| {
                let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
                runtime.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        progress[n].fetch_add(1, Ordering::Relaxed);
                        polity::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let blocker = Blocker::new(runtime);
            let before: Vec<usize> = progress
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect();
            wait_until("every task goes on", || {
                (progress.iter().zip(&before))
                    .all(|(now, before)| now.load(Ordering::Relaxed) > *before + 1)
            });
            assert!(!blocker.task.is_finished());
            blocker.end();
        }
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
    });
}

#[test]
fn sockets_and_timers_are_served_while_one_worker_is_blocked() {
    check_each(2, |runtime| {
        for _ in 0..10 {
            // Whichever worker sat in the driver: it may be the one that is blocked now.
            let blocker = Blocker::new(runtime);
            let task = runtime.spawn(async {
                // A timer of the driver is what is tested, not a wait for luck.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let (a, b) = (bind().await, bind().await);
                a.send_to(b"x", b.local_addr().unwrap()).await.unwrap();
                let mut buffer = [0; 1];
                b.recv_from(&mut buffer).await.unwrap();
            });
            wait_for("the timer and the socket", task).unwrap();
            blocker.end();
        }
    });
}

async fn bind() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

#[test]
fn a_timer_that_was_set_before_a_long_poll_fires_during_it() {
    check_each(2, |runtime| {
        for _ in 0..10 {
            let (fired, has_fired) = channel();
            // It sets the timer and blocks the worker that did, in two polls.
            let timer = runtime.spawn(async move {
                // A timer of the driver is what is tested, not a wait for luck.
                tokio::time::sleep(Duration::from_millis(3)).await;
                fired.send(()).unwrap();
            });
            let blocker = Blocker::new(runtime);
            receive("the timer", &has_fired);
            blocker.end();
            wait_for("the timer's task", timer).unwrap();
        }
    });
}

#[test]
fn all_workers_are_used_when_there_is_work_for_all() {
    check(4, |runtime| {
        let meet = Arc::new(Barrier::new(4));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let meet = Arc::clone(&meet);
                runtime.spawn(async move {
                    meet.wait();
                    thread::current().id()
                })
            })
            .collect();
        let threads: HashSet<ThreadId> = tasks
            .into_iter()
            .map(|task| wait_for("a meeting task", task).unwrap())
            .collect();
        assert_eq!(threads.len(), 4);
    });
}

#[test]
fn counters_tell_what_happened() {
    check(2, |runtime| {
        for _ in 0..100 {
            wait_for("a task", runtime.spawn(polity::yield_now())).unwrap();
        }
        wait_until("the workers have published their counts", || {
            let counts = runtime.metrics();
            counts.completed >= 100 && counts.polls >= 200 && counts.offered == 0
        });
        runtime.load(Fifo::new()).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        wait_until("they count offers", || runtime.metrics().offered > 0);
    });
}
