//! A task that does not return from its poll holds up nobody else (tokio's issue 4730: "one bad task can halt all executor
//! progress forever").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use polity::{Attributes, BoxPolicy, Handle, JoinHandle, Runtime, WorkerId, WorkerMask};
use polity_policies::{Fifo, Priority};
use polity_tests::{alone, builder, check, now, receive, wait_for, wait_until, within};

use crate::spares::{is_long_form, percentiles, trials};
use crate::support::{Blocker, Drops, waiting};
use crate::workload::{Mixed, Random};

fn on(worker: usize) -> Attributes {
    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(worker as u16)]))
}

/// A worker in one long poll, and tasks in every place of it.
struct Blocked {
    release: Sender<()>,
    thread: ThreadId,
    blocker: JoinHandle<()>,
    behind: Vec<JoinHandle<()>>,
}

impl Blocked {
    fn new(runtime: &Handle, worker: usize) -> Blocked {
        let (begin, begun): (_, Receiver<ThreadId>) = channel();
        let (release, released) = channel::<()>();
        let (tell, told) = channel();
        let handle = runtime.clone();
        let spring = async move {
            let inner = handle.clone();
            let blocks = async move {
                // In the LIFO slot and in the ingress, and in the inbox of this worker.
                let behind = (0..8).map(|n| {
                    let attributes = if n % 2 == 0 {
                        Attributes::new()
                    } else {
                        on(worker)
                    };
                    inner.spawn_with(attributes, async {}).unwrap()
                });
                let behind: Vec<_> = behind.collect();
                begin.send(thread::current().id()).unwrap();
                tell.send(behind).unwrap();
                let _ = released.recv();
            };
            // Offered in one batch: behind it in the local DSQ, if the policy puts tasks there.
            let blocker = handle.spawn_with(on(worker), blocks).unwrap();
            let behind = (0..8).map(|n| {
                let attributes = if n % 2 == 0 {
                    Attributes::new()
                } else {
                    on(worker)
                };
                handle.spawn_with(attributes, async {}).unwrap()
            });
            (blocker, behind.collect::<Vec<_>>())
        };
        let spring = runtime.spawn_with(on(worker), spring).unwrap();
        let (blocker, mut behind) = wait_for("the task that spawns the others", spring).unwrap();
        let thread = receive("the long poll to begin", &begun);
        behind.extend(receive("what it has spawned", &told));
        Blocked {
            release,
            thread,
            blocker,
            behind,
        }
    }

    fn end(self) {
        drop(self.release);
        wait_for("the end of a long poll", self.blocker).unwrap();
    }
}

fn check_others_run(runtime: &Runtime, workers: usize) {
    let mut blocked: Vec<_> = (0..workers)
        .map(|worker| Blocked::new(runtime, worker))
        .collect();
    for blocked in &mut blocked {
        for task in blocked.behind.drain(..) {
            wait_for("a task behind a long poll", task).unwrap();
        }
    }
    for worker in 0..runtime.worker_count() {
        let pinned = runtime.spawn_with(on(worker), async {}).unwrap();
        wait_for("a task that may run nowhere else", pinned).unwrap();
    }
    // A timer of the driver is what is tested, not a wait for luck.
    let sleeps = runtime.spawn(async { tokio::time::sleep(Duration::from_millis(1)).await });
    wait_for("a timer", sleeps).unwrap();
    // With sockets.
    Mixed::start(runtime, 2).finish();
    blocked.into_iter().for_each(Blocked::end);
    Mixed::start(runtime, 2).finish();
}

/// Nobody, and policies that use the global, the local and custom DSQs.
fn policies() -> [Option<BoxPolicy>; 4] {
    [
        None,
        Some(BoxPolicy::new(Fifo::new())),
        Some(BoxPolicy::new(Fifo::per_worker())),
        Some(BoxPolicy::new(Priority::new())),
    ]
}

fn check_with_all_policies(workers: usize, blocked: usize) {
    check(workers, move |runtime| {
        for policy in policies() {
            let generation = policy.map(|policy| runtime.load(policy).unwrap());
            for _ in 0..3 {
                check_others_run(&runtime, blocked);
            }
            assert_eq!(runtime.policy_status().map(|it| it.generation), generation);
        }
        wait_until("it has been counted", || runtime.metrics().stand_ins > 0);
        assert_eq!(runtime.metrics().convictions, 0);
    });
}

#[test]
fn a_task_that_blocks_the_only_worker_does_not_hold_up_others() {
    check_with_all_policies(1, 1);
}

#[test]
fn a_task_that_blocks_one_of_two_workers_does_not_hold_up_others() {
    check_with_all_policies(2, 1);
}

#[test]
fn tasks_that_block_all_workers_do_not_hold_up_others() {
    check_with_all_policies(2, 2);
}

#[test]
fn a_stand_in_leaves_when_the_long_poll_returns() {
    for policy in policies() {
        within(move || {
            // One spare: were it not back in time, the next poll would find none.
            let runtime = builder(1).spares(1).build().unwrap();
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            for round in 1..=5 {
                let blocked = Blocked::new(&runtime, 0);
                let worker = blocked.thread;
                wait_for("a task", runtime.spawn(async {})).unwrap();
                wait_until("it has been counted", || {
                    runtime.metrics().stand_ins == round
                });
                blocked.end();
                let mut in_a_row = 0;
                wait_until("the worker has its place back", || {
                    let ran_on = runtime.spawn(async { thread::current().id() });
                    let ran_on = wait_for("a task", ran_on).unwrap();
                    in_a_row = if ran_on == worker { in_a_row + 1 } else { 0 };
                    in_a_row == 20
                });
            }
            assert_eq!(runtime.metrics().spares_exhausted, 0);
        });
    }
}

/// It may be needed for as long as its own poll takes.
#[test]
fn a_stand_in_that_blocks_too_gets_a_stand_in_of_its_own() {
    within(|| {
        let runtime = builder(1).spares(3).build().unwrap();
        let mut blocked: Vec<_> = (0..3).map(|_| Blocked::new(&runtime, 0)).collect();
        let mut threads: Vec<_> = blocked.iter().map(|blocked| blocked.thread).collect();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        wait_until("all have been counted", || runtime.metrics().stand_ins == 3);
        threads.dedup();
        assert_eq!(threads.len(), 3);
        // In another order than they came.
        blocked.swap(0, 1);
        for blocked in blocked {
            blocked.end();
            Mixed::start(&runtime, 1).finish();
        }
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

/// One leaves while another one sits down.
#[test]
fn a_stand_in_that_comes_while_another_one_leaves_is_watched_too() {
    within(|| {
        let mut random = Random::from_env("comes_and_leaves");
        let runtime = builder(2).spares(6).build().unwrap();
        let block = |worker| Blocker::with(|body| runtime.spawn_with(on(worker), body).unwrap());
        let pinned = |worker| runtime.spawn_with(on(worker), async {}).unwrap();
        for _ in 0..40 {
            let first = block(0);
            wait_for("a task on the first stand-in", pinned(0)).unwrap();
            let second = block(1);
            let waits = pinned(1);
            let until = now() + Duration::from_micros(5_000 + random.below(15_000));
            wait_until("the second one is about to come", || now() >= until);
            first.end();
            wait_for("a task on the second stand-in", waits).unwrap();
            let third = block(1);
            wait_for("a task behind the second stand-in", pinned(1)).unwrap();
            second.end();
            third.end();
        }
    });
}

#[test]
fn polls_that_are_long_but_not_blocked_do_not_hold_up_others_either() {
    check(2, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let spins: Vec<_> = (0..2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                runtime.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        Mixed::start(&runtime, 3).finish();
        wait_until("it has been counted", || runtime.metrics().stand_ins > 0);
        stop.store(true, Ordering::Relaxed);
        for spin in spins {
            wait_for("a task that has spun", spin).unwrap();
        }
    });
}

/// Dropping the runtime waits for its polls; a timeout does not.
#[test]
fn a_shutdown_with_a_timeout_does_not_wait_for_long_polls() {
    within(|| {
        for workers in [1, 2] {
            let runtime = polity_tests::runtime(workers);
            let blockers: Vec<_> = (0..workers).map(|_| Blocker::new(&runtime)).collect();
            // A stand-in is about.
            wait_for("a task", runtime.spawn(async {})).unwrap();
            let drops = Drops::default();
            let (waits, polled) = waiting(&drops);
            drop(runtime.spawn(waits));
            receive("its poll", &polled);
            runtime.shutdown_timeout(Duration::from_millis(50));
            for blocker in blockers {
                drop(blocker);
            }
            wait_until("what is left is dropped when they return", || {
                drops.count() == 1
            });
        }
    });
}

/// How long a task has to wait that may run only where a long poll has just begun. The long form is for a machine with
/// nothing else to do: `POLITY_TRIALS=200 cargo test --release -p polity-tests --test it long_polls -- --nocapture`.
#[test]
fn a_task_that_may_run_only_behind_a_long_poll_is_run_within_20_ms() {
    const LIMIT: Duration = Duration::from_millis(20);
    alone(|| {
        within(|| {
            let times = trials(20);
            let mut random = Random::from_env("behind_a_long_poll");
            let runtime = polity_tests::runtime(2);
            for policy in [None, Some(BoxPolicy::new(Fifo::new()))] {
                let name = if policy.is_some() { "fifo" } else { "built-in" };
                if let Some(policy) = policy {
                    runtime.load(policy).unwrap();
                }
                let mut took = Vec::new();
                // In the short form one in time is enough, and a machine that is busy for a second gets another one.
                let goes_on = |took: &[Duration]| {
                    let waits_for_one = !is_long_form() && took.len() < 10 * times;
                    took.len() < times || (waits_for_one && took.iter().all(|it| *it > LIMIT))
                };
                while goes_on(&took) {
                    // So that it begins at any moment between two ticks of the watchdog.
                    let begin = now() + Duration::from_micros(random.below(5_000));
                    wait_until("it is time", || now() >= begin);
                    let blocker = Blocker::with(|body| runtime.spawn_with(on(1), body).unwrap());
                    let spawned = now();
                    let ran = runtime.spawn_with(on(1), async { now() }).unwrap();
                    took.push(wait_for("a pinned task", ran).unwrap() - spawned);
                    blocker.end();
                    // Else the next one would be served by the stand-in of this one.
                    wait_until("the stand-in has left", || {
                        !runtime.dump().to_string().contains("a spare")
                    });
                }
                let median = percentiles(&format!("behind a long poll, {name}"), &mut took)[0];
                let quickest = took[0];
                let judged = if is_long_form() { median } else { quickest };
                assert!(judged <= LIMIT, "{judged:?}");
            }
        });
    });
}
