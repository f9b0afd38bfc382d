//! Where a task runs from its next poll on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use polity::{AbortHandle, Attributes, WorkerId, WorkerMask};
use polity_tests::{check_without_spares as check, receive, wait_for};

use super::{block_all, last_poll, only, other};
use crate::affinity::{each_policy, load, workers_of};
use crate::support::{Blocker, Threads, noted, yield_until};
use crate::workload::Random;

#[test]
fn a_task_that_is_narrowed_while_it_is_queued_runs_on_allowed_workers_only() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let blockers = block_all(&runtime);
            let tasks: Vec<_> = (0..60u16)
                .map(|n| {
                    let threads = Threads::default();
                    let body = noted(&threads, async {
                        for _ in 0..10 {
                            polity::yield_now().await;
                        }
                    });
                    let task = runtime.spawn(body);
                    // A stand-in of a blocked worker may have run it by now.
                    let _ = task.set_affinity(only([n % 2]));
                    (workers[other(usize::from(n % 2))], threads, task)
                })
                .collect();
            blockers.into_iter().for_each(Blocker::end);
            for (not, threads, task) in tasks {
                wait_for("a task", task).unwrap();
                assert!(!threads.all().contains(&not));
            }
        });
    });
}

/// From one worker to the other, and to both: what a queue noted of the old mask must not hold the task up.
#[test]
fn a_restricted_task_that_is_moved_while_it_is_queued_runs_where_it_may_now() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let mut blockers = block_all(&runtime);
            let (second, first) = (blockers.pop().unwrap(), blockers.pop().unwrap());
            let spawn = |to: WorkerMask| {
                let threads = Threads::default();
                let from = Attributes::new().affinity(only([0]));
                let task = runtime.spawn_with(from, noted(&threads, async {})).unwrap();
                // A stand-in of the blocked worker may have run it by now.
                let _ = task.set_affinity(to);
                (threads, task)
            };
            let moved: Vec<_> = (0..20).map(|_| spawn(only([1]))).collect();
            let freed: Vec<_> = (0..20).map(|_| spawn(WorkerMask::all())).collect();
            // Worker 0 never comes back to them.
            second.end();
            for (threads, task) in moved.into_iter().chain(freed) {
                wait_for("a task", task).unwrap();
                assert!(!threads.all().contains(&workers[0]));
            }
            first.end();
        });
    });
}

/// The other worker has no time to look for what it could steal.
#[test]
fn what_lies_in_the_inbox_of_a_worker_that_may_not_run_it_any_more_is_sent_on() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let stop = Arc::new(AtomicBool::new(false));
            let there = Attributes::new().affinity(only([1]));
            let busy = runtime.spawn_with(there, yield_until(&stop));
            let blocker = Blocker::with(|body| {
                let here = Attributes::new().affinity(only([0]));
                runtime.spawn_with(here, body).unwrap()
            });
            let tasks: Vec<_> = (0..500)
                .map(|_| {
                    let here = Attributes::new().affinity(only([0]));
                    let body = async { thread::current().id() };
                    runtime.spawn_with(here, body).unwrap()
                })
                .collect();
            let mut changed = Vec::new();
            for task in tasks {
                // A stand-in of the blocked worker may have run it by now.
                if task.set_affinity(only([1])).is_ok() {
                    changed.push(task);
                }
            }
            blocker.end();
            for task in changed {
                assert_ne!(wait_for("a task", task).unwrap(), workers[0]);
            }
            stop.store(true, Ordering::Relaxed);
            wait_for("the busy task", busy.unwrap()).unwrap();
        });
    });
}

#[test]
fn a_waiting_task_that_is_narrowed_wakes_up_where_it_may_run() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            for n in 0..80u16 {
                let (future, wakers, end) = last_poll();
                let task = runtime.spawn(future);
                let waker = receive("the first poll", &wakers);
                let handle = task.abort_handle();
                let change_and_wake = move || {
                    handle.set_affinity(only([n % 2])).unwrap();
                    end.store(true, Ordering::SeqCst);
                    waker.wake();
                };
                match n / 2 % 2 {
                    0 => change_and_wake(),
                    _ => drop(runtime.spawn(async move { change_and_wake() })),
                }
                let thread = wait_for("the task", task).unwrap();
                assert_ne!(thread, workers[other(usize::from(n % 2))]);
            }
        });
    });
}

/// Each task moves itself: then it is certain which poll is the next one.
#[test]
fn a_running_task_goes_on_elsewhere_from_its_next_poll_on() {
    each_policy(|policy| {
        check(3, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let seed = Random::from_env("a_running_task_goes_on_elsewhere").next();
            let tasks: Vec<_> = (0..12)
                .map(|n| {
                    let mut random = Random::new(seed + n);
                    let workers = workers.clone();
                    let (own, is_own) = tokio::sync::oneshot::channel::<AbortHandle>();
                    let task = runtime.spawn(async move {
                        let own = is_own.await.unwrap();
                        for _ in 0..60 {
                            let bits = 1 + random.below(7);
                            let mask = only((0..3).filter(|worker| bits >> worker & 1 == 1));
                            own.set_affinity(mask.clone()).unwrap();
                            polity::yield_now().await;
                            let here = thread::current().id();
                            let here = workers.iter().position(|it| *it == here);
                            let here = here.map(|index| WorkerId::new(index as u16));
                            assert!(
                                here.is_none_or(|here| mask.contains(here)),
                                "{mask}, {here:?}"
                            );
                        }
                    });
                    own.send(task.abort_handle()).unwrap();
                    task
                })
                .collect();
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
        });
    });
}
